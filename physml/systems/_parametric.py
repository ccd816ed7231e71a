"""A family of systems as one system: its parameters join the state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.batch import over_batch
from physml._numerics.calls import checked
from physml.systems._base import Parameter, System, Time, as_tuple


class ParametricSystem(System):
    r"""A system whose chosen parameters are state variables; made by `with_parameters`.

    $$\dot y = f(t, y;\, p), \qquad \dot p = 0$$

    Its Lyapunov exponents at some p are those of the system there, and a zero for each parameter.
    Its fixed points, those of all p, are not isolated, so `fixed_points` has no rows.
    """

    system: System
    names: tuple[str, ...] = eqx.field(static=True)
    ranges: tuple[tuple[float, float], ...] = eqx.field(static=True)

    lyapunov_exponents = None

    @property
    def dim(self) -> int:
        return self.system.dim + len(self.names)

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.system.state_names + self.names

    @property
    def autonomous(self) -> bool:
        return self.system.autonomous

    @property
    def period(self) -> Parameter | None:
        return self.system.period

    @property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The system's own box of starts, times the parameters' ranges."""
        low, high = self.system.box
        lows, highs = zip(*self.ranges, strict=True)
        return low + lows, high + highs

    @property
    def symmetry(self) -> tuple[tuple[float, ...], ...] | None:
        """The system's own, which does not change the parameters."""
        if self.system.symmetry is None:
            return None
        whole = np.eye(self.dim)
        whole[: self.system.dim, : self.system.dim] = self.system.symmetry
        return as_tuple(whole)

    def at(self, values: Float[Array, " parameters"]) -> System:
        """The system that has these values of its parameters."""
        return eqx.tree_at(
            lambda system: [_leaves(system)[name] for name in self.names], self.system, list(values)
        )

    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        def single(t, y):
            state, values = jnp.split(y, [self.system.dim])
            return jnp.concatenate([self.at(values)(t, state, args), jnp.zeros_like(values)])

        return over_batch(single, t, y)

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """The divergence of the system that has the parameters in the state."""

        def single(t, y):
            state, values = jnp.split(y, [self.system.dim])
            return self.at(values).divergence(t, state, args)

        return over_batch(single, t, y)

    def fixed_points(self) -> Float[Array, "0 dim"]:
        return jnp.zeros((0, self.dim))

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return self.system.jump_times(t0, t1)


@checked
def with_parameters(system: System, **ranges: tuple[float | int, float | int]) -> ParametricSystem:
    """A system with some of its parameters as further state variables that do not change.

    Trajectories, a surrogate or a Lyapunov spectrum of it then cover a whole range of parameters,
    and can be differentiated in the parameters as in any start.

    Args:
        system: one with numbers as parameters.
        ranges: for each parameter's name, the interval (low, high) of its random starts. The name
            of a part's parameter has a dot, such as `forcing.frequency`.

    Raises:
        ValueError: there are no ranges, one is not finite or has low > high, or a name is not that
            of a parameter that is a single number.

    Example:
        >>> lorenz = systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))
        >>> lorenz.state_names
        ('x', 'y', 'z', 'rho')
    """
    numbers = [
        name
        for name, value in _leaves(system).items()
        if isinstance(value, float | np.ndarray | jax.Array) and np.ndim(value) == 0
    ]
    unknown = [name for name in ranges if name not in numbers]
    if unknown or not ranges:
        raise ValueError(
            f"ranges must name parameters of {type(system).__name__} out of {numbers}, "
            f"got {list(ranges)}"
        )
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"{name} must have a range low <= high, got ({low}, {high})")
    intervals = tuple((float(low), float(high)) for low, high in ranges.values())
    return ParametricSystem(system, tuple(ranges), intervals)


def _leaves(system: System) -> dict[str, object]:
    """The leaves of a system by the names that lead to them, joined by dots."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(system)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}
