"""The free parameters of a system as one vector without bounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, DTypeLike, Float, PyTree

from physml._numerics.calls import answer, as_traced, ask, check_components
from physml._numerics.checks import is_concrete, require_finite
from physml._numerics.parts import as_pytree
from physml.systems import System, Table


class Parameters(eqx.Module):
    r"""A system with some parameters free: a right-hand side f(t, y, p), p unbounded.

    A parameter v within (l, ∞) is $l + e^p$, one within (-∞, h) is $h - e^{-p}$, one within
    (l, h) is $l + (h - l) / (1 + e^{-p})$; all increase with p. A free array is many parameters.
    """

    system: System
    args: PyTree
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    low: Float[np.ndarray | Array, "*batch p"]
    high: Float[np.ndarray | Array, "*batch p"]
    fixed: PyTree  # by name, what the experiments fix, stacked; a dict
    ties: dict[str, Callable]  # by name, a parameter's value as a function of the others

    def __call__(
        self,
        t: ArrayLike,
        y: Float[Array, "dim *batch"],
        p: Float[Array, " p"],
        experiment: int | Array = 0,
    ) -> Array:
        system, args = self.at(p, experiment)
        return system(t, y, args)

    def at(self, p: Float[Array, " p"], experiment: int | Array = 0) -> tuple[System, PyTree]:
        """The system, and what it gets as `args`, with these parameters in an experiment."""
        return self.having(self.values(p, experiment))

    def values(self, p: Float[Array, " p"], experiment: int | Array = 0) -> dict[str, Any]:
        """By name, all that is free, tied, or fixed in an experiment."""
        values = {**self.fixed_in(experiment), **self.split(self.constrain(p))}
        return {**values, **{name: _tied(name, tie, values) for name, tie in self.ties.items()}}

    def fixed_in(self, experiment: int | Array) -> dict[str, Any]:
        """By name, what is fixed in an experiment."""
        return jax.tree.map(lambda x: jnp.asarray(x)[experiment], self.fixed)

    def having(self, values: Mapping[str, Any]) -> tuple[System, PyTree]:
        """The system and its `args` with these values, and the guess of all else."""
        own = {name: value for name, value in values.items() if name in self.system.parameters}
        system = eqx.tree_at(
            lambda system: [getattr(system, name) for name in own],
            self.system,
            list(own.values()),
            is_leaf=lambda x: x is None,
        )
        rest = {name: value for name, value in values.items() if name not in own}
        return system, {**(self.args or {}), **rest} if rest else self.args

    def split(self, flat: Float[Array, "*batch p"]) -> dict[str, Array]:
        """A flat vector's entries by the parameters' names and in their shapes."""
        places = zip(self.places().items(), self.shapes, strict=True)
        return {n: flat[..., at].reshape(*flat.shape[:-1], *shape) for (n, at), shape in places}

    def places(self) -> dict[str, slice]:
        """Where each parameter's entries stand in a flat vector."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return {n: slice(end - k, end) for n, end, k in zip(self.names, ends, sizes, strict=True)}

    def constrain(self, p: Float[Array, "*batch p"]) -> Float[Array, "*batch p"]:
        """Values within their bounds from unbounded numbers."""
        below, above, low, high = self._bounds()
        share = jnp.where(below & above, jax.nn.sigmoid(p), 0.0)
        value = jnp.where(below, low + jnp.exp(jnp.where(below, p, 0.0)), p)
        value = jnp.where(above, high - jnp.exp(-jnp.where(above, p, 0.0)), value)
        return jnp.where(below & above, low + (high - low) * share, value)

    def slope(self, p: Float[Array, "*batch p"]) -> Float[Array, "*batch p"]:
        """The derivative of `constrain`, entry by entry."""
        return jax.jvp(self.constrain, (p,), (jnp.ones_like(p),))[1]

    def unconstrain(self, values: Float[Array, " p"]) -> Float[Array, " p"]:
        """The inverse of `constrain`."""
        below, above, low, high = self._bounds()
        from_low = jnp.log(jnp.where(below, values - low, 1.0))
        from_high = jnp.log(jnp.where(above, high - values, 1.0))
        return jnp.where(below | above, from_low - from_high, values)

    @property
    def bounded(self) -> Bool[Array, "*batch p"]:
        """Which entries have bounds."""
        return jnp.isfinite(self.low) | jnp.isfinite(self.high)

    def _bounds(self) -> tuple[Array, Array, Array, Array]:
        below, above = jnp.isfinite(self.low), jnp.isfinite(self.high)
        return below, above, jnp.where(below, self.low, 0.0), jnp.where(above, self.high, 0.0)


def free_parameters(
    system: System,
    args: PyTree,
    free: Sequence[str],
    bounds: Mapping[str, tuple[float | int, float | int]],
    dtype: DTypeLike = jnp.float64,
    fixed: Sequence[Mapping[str, PyTree]] = ({},),
    ties: Mapping[str, Callable] | None = None,
) -> tuple[Parameters, Float[Array, " p"]]:
    """The parameters named in `free`, and their values in the system or in `args`, in `dtype`.

    Args:
        fixed: by name, what each experiment fixes.
        ties: by name, a parameter's value as a function of the others' values, a dict.

    Raises:
        ValueError: a name is not that of a numeric parameter, or is given twice; bounds are given
            for a parameter that is not free, are not low < high, or exclude the value.
    """
    values = {**(args if isinstance(args, dict) else {}), **system.parameters}
    known = {name: value for name, value in values.items() if _is_numeric(value)}
    if isinstance(free, str) or not free or len(set(free)) < len(free) or set(free) - set(known):
        raise ValueError(
            f"free must name parameters of {type(system).__name__} out of {sorted(known)}, each "
            f"once, got {free!r}"
        )
    if set(bounds) - set(free):
        raise ValueError(f"bounds must name free parameters {tuple(free)}, got {sorted(bounds)}")
    guesses, lows, highs = [], [], []
    for name in free:
        guess = jnp.asarray(known[name], dtype)
        low, high = bounds.get(name, (-np.inf, np.inf))
        if not low < high:
            raise ValueError(f"bounds of {name} must be low < high, got ({low}, {high})")
        require_finite(f"the guess of {name}", guess)
        if is_concrete(guess) and not np.all((low < np.array(guess)) & (np.array(guess) < high)):
            raise ValueError(f"bounds of {name} must hold the guess {guess}, got ({low}, {high})")
        guesses.append(guess.ravel())
        lows.append(np.full(guess.size, low, float))
        highs.append(np.full(guess.size, high, float))
    parameters = Parameters(
        system,
        args,
        tuple(free),
        tuple(jnp.shape(known[name]) for name in free),
        np.concatenate(lows),
        np.concatenate(highs),
        _stacked(fixed, values, free, dtype),
        _checked_ties(ties or {}, values, free),
    )
    guess = jnp.concatenate(guesses)
    given = {**parameters.fixed_in(0), **parameters.split(guess)}
    traced = [
        check_components(f"ties[{name!r}]", Partial(_tied, name, tie), parameters=given)
        for name, tie in parameters.ties.items()
    ]
    return as_traced(parameters, *traced), guess


def _tied(name: str, tie: Callable, values: Mapping[str, Any]) -> Array:
    """A parameter's value as a function of the others' values."""
    return answer("ties", name, ask("ties", f"{name}(parameters)", tie, dict(values)), ())


def _stacked(
    fixed: Sequence[Mapping[str, PyTree]],
    values: Mapping[str, PyTree],
    free: Sequence[str],
    dtype: DTypeLike,
) -> dict[str, PyTree]:
    """What the experiments fix, by name and with an axis of experiments before all others."""
    names = sorted({name for own in fixed for name in own})
    if unknown := [name for name in names if name not in values or name in free]:
        raise ValueError(
            f"fixed must name parameters out of {sorted(set(values) - set(free))}, which are not "
            f"free, got {unknown}"
        )
    stacked = {}
    for name in names:
        every = [own.get(name, values[name]) for own in fixed]
        given = every
        if all(isinstance(value, Table) for value in every):
            longest = max(value.ts.size for value in every)
            every = [value.padded(longest) for value in every]
        every = [jax.tree.map(lambda x: jnp.asarray(x, dtype), value) for value in every]
        kinds = {jax.tree.structure(value) for value in every}
        shapes = {tuple(map(jnp.shape, jax.tree.leaves(value))) for value in every}
        if len(kinds) > 1 or len(shapes) > 1:
            raise ValueError(
                f"fixed must have values of {name} that are alike in shape and kind in all "
                f"experiments, tables linear or constant, got {', '.join(map(repr, given))}"
            )
        stacked[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
    return stacked


def _checked_ties(
    ties: Mapping[str, Callable], values: Mapping[str, PyTree], free: Sequence[str]
) -> dict[str, Callable]:
    if unknown := [name for name in ties if name not in values or name in free]:
        raise ValueError(
            f"ties must name parameters out of {sorted(set(values) - set(free))}, which are not "
            f"free, got {unknown}"
        )
    return {name: as_pytree(tie) for name, tie in ties.items()}


def _is_numeric(value: object) -> bool:
    """Whether it is real numbers; whole ones too, because a guess is often written as 1."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        return False
    return any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
