"""The one type of solution, which the reference and the networks return."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from physml._numerics.calls import checked, numbers_in, summary
from physml._numerics.checks import is_concrete, require_installed, require_positive
from physml._numerics.compiled import watched
from physml._numerics.units import max_of
from physml._types import Numbers
from physml.results import RESULTS
from physml.systems.states import Form, Structure


class Dense(eqx.Module):
    """A function of continuous time, `u(t)` for t in [t0, t1], and its derivative."""

    @abc.abstractmethod
    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t) for a scalar t."""

    @abc.abstractmethod
    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt at a scalar t."""


class Differentiated(Dense):
    """A function of continuous time whose derivative JAX takes, in forward mode."""

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt at a scalar t."""
        return jax.jvp(self.evaluate, (t,), (jnp.ones_like(t),))[1]


class Mirrored(Dense):
    """A function of continuous time that was found backwards: `inner` is one of -t."""

    inner: Dense

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        return self.inner.evaluate(-t)

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt."""
        return -self.inner.derivative(-t)


class MirroredError(eqx.Module):
    """The estimated error of a solution that was found backwards."""

    inner: Callable[[Float[Array, ""]], Float[Array, " dim"]]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        return self.inner(-t)


class Solution(eqx.Module):
    """The solution of an initial value problem, on a grid and in between.

    `solution(t)` is u(t) for a scalar t or for times of shape (k,). It is a pytree: it passes
    through `jax.jit`, and a `jax.vmap` of a solver returns a batch of solutions.

    States are written as the start was: if that was a dict, a tuple, an array of another shape or
    complex numbers, then so are u(t), `ys`, the derivative and the estimate, and each array has the
    axis of times in front. `dense` and `error` always have vectors of real numbers, see
    `structure`.

    Attributes:
        ts: the times that were asked for, which fall where time runs backwards.
        ys: the solution at `ts`; NaN at times that were not reached (`result` says why).
        t0: where the solution starts; later than t1 where time runs backwards.
        t1: the last time it reaches, `ts[-1]` when it succeeded.
        dense: the solution in continuous time.
        result: how the solve ended, one of `RESULTS`.
        stats: what the solver counted (steps, right-hand sides, iterations).
        error: a function of a scalar t, the absolute error estimated per component.
        structure: how the numbers of a state lie in a vector of `dense`; None where states are
            vectors.
    """

    ts: Float[Array, " n"]
    ys: PyTree[Shaped[Array, "..."]]
    t0: Float[Array, ""]
    t1: Float[Array, ""]
    dense: Dense
    result: RESULTS
    stats: dict[str, PyTree]
    error: Callable[[Float[Array, ""]], Float[Array, " dim"]] | None = None
    structure: Structure | None = eqx.field(static=True, default=None)

    @checked
    def __call__(self, t: Numbers) -> PyTree[Shaped[Array, "..."]]:
        """u(t), of shape (dim,) for a scalar t and (k, dim) for times of shape (k,).

        Raises:
            ValueError: t is outside [t0, t1] (a runtime error where t is traced), or has more
                than one axis.
        """
        return self._written(self._map(self.dense.evaluate, t))

    @checked
    def derivative(self, t: Numbers) -> PyTree[Shaped[Array, "..."]]:
        """du/dt at t: shapes and errors as for `solution(t)`."""
        return self._written(self._map(self.dense.derivative, t))

    @checked
    def error_estimate(self, t: Numbers) -> PyTree[Float[Array, "..."]]:
        """The absolute error of u(t) per component, as estimated: shapes as for `solution(t)`.

        Of a complex number it is that of its distance, a real number.

        Raises:
            ValueError: the solution carries no estimate, or t is outside [t0, t1].
        """
        errors = self._map(self._require_error(), t)
        return errors if self.structure is None else self.structure.unravel_sizes(errors)

    @checked
    def valid_until(self, rtol: float) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """The time until which the estimated relative error stays within `rtol`.

        The error of component i is taken relative to max |u_i| over [t0, t1], so that a zero
        crossing is no alarm and components of different units count alike; a complex number is one
        component. The bound is
        checked on `ts` and on 1000 even points; the time returned is the last at which it holds.

        Returns:
            The time, and whether it is censored: the bound still held at the end, t1.

        Raises:
            ValueError: the solution carries no estimate, or `rtol` is not positive.
        """
        require_positive(rtol=rtol)
        error = self._require_error()
        rtol_in = jnp.asarray(rtol, self.ts.dtype)
        span = self.ts, self.t0, self.t1
        return _valid_until(self.dense.evaluate, error, *span, rtol_in, self.structure)

    @checked
    def to_dataframe(self, t: Numbers | None = None, *, names: Sequence[str] | None = None) -> Any:
        """The solution as a data frame of pandas: a row for each time, a column for each component.

        The index, named "t", holds the times. A solution that carries an estimate of its error has
        a column NAME_error for each component too.

        Args:
            t: the times, of shape (k,); those of `ts` that were reached unless given.
            names: the components' names, such as `system.state_names`; y0, y1, ... by default, or
                those that the structure of the states gives, such as `x[0]` and `z.re`.

        Raises:
            ValueError: t is outside [t0, t1], there is not one name for each component, or two
                columns would have one name; or this is a batch of solutions.
            ImportError: pandas is not installed (`pip install "physml[frames]"`).
        """
        times, columns = self._columns(t, names)
        pandas = require_installed("pandas", "frames")
        return pandas.DataFrame(columns, index=pandas.Index(times, name="t"))

    @checked
    def to_xarray(self, t: Numbers | None = None, *, names: Sequence[str] | None = None) -> Any:
        """The solution as a data set of xarray: a variable for each component, the axis "time".

        Arguments, variables and errors as for `to_dataframe`; the result is an attribute.
        """
        times, columns = self._columns(t, names)
        return require_installed("xarray", "frames").Dataset(
            {name: ("time", values) for name, values in columns.items()},
            coords={"time": times},
            attrs={"result": RESULTS[self.result]},
        )

    def _columns(
        self, t: Numbers | None, names: Sequence[str] | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Times (k,), and by name the components and their errors at these times, (k,) each."""
        if self.t0.ndim:
            raise ValueError(f"solution must be a single one, got a batch {self.t0.shape}")
        dim = self._dim
        default = (f"y{i}" for i in range(dim)) if self.structure is None else self.structure.names
        names = list(default if names is None else names)
        found = [*names, *(f"{name}_error" for name in names if self.error is not None)]
        if len(names) != dim or len({*found, "t", "time"}) != len(found) + 2:
            raise ValueError(
                f"names must be {dim} different ones, and none of them t or time, got {names}"
            )
        reached = self.ts >= self.t1 if self.t1 < self.t0 else self.ts <= self.t1
        times = np.atleast_1d(self.ts[reached] if t is None else np.asarray(t))
        functions = (
            [self.dense.evaluate] if self.error is None else [self.dense.evaluate, self.error]
        )
        values = [self._map(function, times) for function in functions]
        arrays = np.concatenate([np.asarray(value).T for value in values])
        return times, dict(zip(found, arrays, strict=True))

    def __repr__(self) -> str:
        if not isinstance(self.t0, jax.Array):  # a tree of something else
            return super().__repr__()
        batch = self.t0.shape
        facts = {
            "ts": f"{self.ts.shape[-1]} times", "t0": self.t0, "t1": self.t1,
            "error": "none" if self.error is None else "see error_estimate(t), valid_until(rtol)",
            **numbers_in(self.stats), "result": RESULTS[self.result],
        }  # fmt: skip
        of = f", a batch of {batch}" if batch else ""
        if self.structure is not None:
            facts = {"states": self.structure.words, **facts}
        return summary(f"Solution with {self._dim} components{of}", facts)

    @property
    def _dim(self) -> int:
        return self.ys.shape[-1] if self.structure is None else self.structure.dim

    def _written(self, vectors: Float[Array, "*time dim"]) -> PyTree[Shaped[Array, "..."]]:
        return vectors if self.structure is None else self.structure.unravel(vectors)

    def _require_error(self) -> Callable[[Float[Array, ""]], Float[Array, " dim"]]:
        if self.error is None:
            raise ValueError(
                "solution must carry an error estimate, got none: reference.solve(..., "
                "certify=True), pinn.solve and pinn.train give one"
            )
        return self.error

    def _map(self, function: Callable, t: Numbers) -> Array:
        at = jnp.asarray(t, self.ts.dtype)
        if at.ndim > 1:
            raise ValueError(f"t must be a scalar or have shape (k,), got shape {at.shape}")
        if all(map(is_concrete, (at, self.t0, self.t1))):
            low, high, times = (np.asarray(x) for x in (self.t0, self.t1, at))
            low, high = (high, low) if high < low else (low, high)
            if not np.all((times >= low) & (times <= high)):
                raise ValueError(
                    f"t must lie in [{low}, {high}], where the solution is known, got {at}"
                )
        else:
            low, high = jnp.minimum(self.t0, self.t1), jnp.maximum(self.t0, self.t1)
            outside = jnp.any(~((at >= low) & (at <= high)))
            at = eqx.error_if(at, outside, "t must lie in [t0, t1], got a time outside")
        return _evaluate(function, at)


@watched
@eqx.filter_jit
def _evaluate(function: Callable, t: Array) -> Array:
    return function(t) if t.ndim == 0 else jax.vmap(function)(t)


@watched
@eqx.filter_jit
def _valid_until(
    dense: Callable,
    error: Callable,
    ts: Array,
    t0: Array,
    t1: Array,
    rtol: Array,
    structure: Structure | None,
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    even = t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, 1000, dtype=ts.dtype)
    sign = jnp.where(t1 < t0, -1, 1).astype(ts.dtype)  # times in the order of the way
    low, high = jnp.minimum(t0, t1), jnp.maximum(t0, t1)
    times = sign * jnp.sort(sign * jnp.clip(jnp.concatenate([even, ts]), low, high))
    values, errors = jax.vmap(dense)(times), jax.vmap(error)(times)
    if structure is not None:
        values, errors = structure.sizes(values), structure.sizes(errors)
    scale = max_of(jnp.abs(values), axis=0)
    good = jnp.all(errors <= rtol * jnp.broadcast_to(scale, errors.shape), axis=1)
    num_good = jnp.sum(jnp.cumprod(good))
    return times[jnp.maximum(num_good - 1, 0)], num_good == times.shape[0]


Kind = TypeVar("Kind", bound=Solution)


def as_written(solution: Kind, form: Form) -> Kind:
    """A solver's solution, of vectors and a time that grows, in the form in which users write."""
    if form.backwards:
        error = solution.error
        error = None if error is None else MirroredError(error)
        solution = _mirrored(solution, Mirrored(solution.dense), error)
    if form.structure is None:
        return solution
    ys = form.structure.unravel(solution.ys)
    return dataclasses.replace(solution, ys=ys, structure=form.structure)


def as_solved(solution: Solution) -> tuple[Solution, Form]:
    """What `as_written` was given: the solution as a solver found it, and the user's form."""
    dense = solution.dense
    form = Form(solution.structure, isinstance(dense, Mirrored))
    solution = in_vectors(solution)
    if isinstance(dense, Mirrored):
        error = solution.error
        solution = _mirrored(solution, dense.inner, getattr(error, "inner", error))
    return solution, form


def in_vectors(solution: Kind) -> Kind:
    """The solution with its states as vectors of real numbers, whatever they are written as."""
    structure = solution.structure
    if structure is None:
        return solution
    return dataclasses.replace(solution, ys=jax.vmap(structure.ravel)(solution.ys), structure=None)


def _mirrored(solution: Kind, dense: Dense, error: Callable | None) -> Kind:
    """The solution with the other sign of the time, in which these are its functions."""
    stats = {name: -x if name == "edges" else x for name, x in solution.stats.items()}
    ts, t0, t1 = -solution.ts, -solution.t0, -solution.t1
    return dataclasses.replace(solution, ts=ts, t0=t0, t1=t1, dense=dense, error=error, stats=stats)
