"""What every system of ordinary differential equations answers."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Real

if TYPE_CHECKING:
    # A type checker would take an AbstractVar for the first argument of every constructor.
    from typing import ClassVar as Fact
else:
    from equinox import AbstractVar as Fact

Parameter: TypeAlias = float | int | Float[Array, "..."]
"""A real number of a system. A Python float is weakly typed, so dtypes follow the state."""

Time: TypeAlias = Real[ArrayLike, "..."]
"""A time: a scalar, or one time for each member of a trailing batch."""


def as_parameter(value: Any) -> Any:
    """Numbers as Python floats, NumPy arrays and sequences as JAX arrays, the rest untouched."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return value if type(value) is float else float(value)
    if isinstance(value, np.ndarray | list | tuple):
        return jnp.asarray(value, dtype=float)
    return value


def parameter(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds a `Parameter`."""
    return eqx.field(default=default, converter=as_parameter)


def as_pytree(function: Callable) -> Callable:
    """A function as a pytree: a plain function becomes static, a callable pytree keeps its leaves.

    Raises:
        TypeError: `function` cannot be called.
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected something that can be called")
    plain = jax.tree_util.all_leaves([function])
    return jax.tree_util.Partial(function) if plain else function


def is_traced(value: Any) -> bool:
    """Whether a number is not known yet, so that its value cannot be asked for."""
    return isinstance(value, Tracer)


def require_finite(owner: str, **values: Any) -> None:
    """Raise unless the named numbers are real, and finite wherever they are known.

    Raises:
        TypeError: one is not a float or a floating array.
        ValueError: one is infinite or not a number.
    """
    for name, value in values.items():
        kind = getattr(value, "dtype", None)
        floating = kind is not None and jnp.issubdtype(kind, jnp.floating)
        if not (isinstance(value, float) or floating):
            raise TypeError(f"{owner}: `{name}` is {value!r}; expected a real number")
        if not is_traced(value) and not np.all(np.isfinite(value)):
            raise ValueError(f"{owner}: `{name}` is {value}; expected a finite number")


def require_positive(owner: str, **values: Any) -> None:
    """Raise as `require_finite` does, and `ValueError` for a known number that is not positive."""
    require_finite(owner, **values)
    for name, value in values.items():
        if not is_traced(value) and not np.all(np.asarray(value) > 0):
            raise ValueError(f"{owner}: `{name}` is {value}; expected a positive number")


def is_close(value: Parameter, constant: float) -> bool:
    """Whether a number is known, single, and equal to a constant up to float32 rounding."""
    return not is_traced(value) and np.ndim(value) == 0 and bool(np.isclose(value, constant, 1e-6))


def times_within(
    times: Sequence[float] | np.ndarray, t0: float | int, t1: float | int
) -> np.ndarray:
    """Those of some times that lie in [t0, t1], increasing."""
    times = np.sort(np.asarray(times, dtype=float))
    return times[(times >= t0) & (times <= t1)]


class System(eqx.Module):
    r"""A first-order system of ordinary differential equations, $dy/dt = f(t, y)$.

    A system is its own right-hand side: `system(t, y, args)` is what a solver calls, so that
    `diffrax.ODETerm(system)` works as it stands. Its numeric parameters are pytree leaves: a
    system can be differentiated in them, vmapped over them, and passed through `jax.jit`. What
    is known of it (fixed points, divergence, symmetry, ...) is asked of the system itself.
    """

    dim: Fact[int]
    """The number of state variables."""

    state_names: Fact[tuple[str, ...]]
    """A short name for each state variable."""

    autonomous: Fact[bool]
    """Whether the right-hand side is free of the time."""

    period: Fact[Parameter | None]
    """The period of the explicit time dependence; None if there is none or it has no period."""

    box: Fact[tuple[tuple[float, ...], tuple[float, ...]]]
    """Corners `(low, high)` of the box that random starts are drawn from by default."""

    symmetry: Fact[tuple[tuple[float, ...], ...] | None]
    """A matrix S with S S = 1 and f(t, S y) = S f(t, y), by rows; None if none is known."""

    lyapunov_exponents: Fact[tuple[float, ...] | None]
    """Published exponents, largest first, in inverse time units; all of them or the leading ones.

    None where no source is known for the parameters at hand.
    """

    @abc.abstractmethod
    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: Any) -> Any:
        """The right-hand side, an array shaped as `y`. Users call the system itself."""

    @abc.abstractmethod
    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: Any = None
    ) -> Float[Array, "*batch"]:
        """The divergence of the right-hand side in the state, trace(df/dy), per time unit."""

    @abc.abstractmethod
    def fixed_points(self) -> Float[Array, "num dim"]:
        """The states with f = 0, one a row; no rows where there are none or none are known.

        How many there are can depend on the parameters, so these must not be traced by
        `jax.jit` or `jax.vmap`.
        """

    @abc.abstractmethod
    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        """The times in [t0, t1] at which the right-hand side jumps, increasing.

        A solver of high order has to stop at each of them.
        """

    def __check_init__(self):
        if self.dim < 1:
            raise ValueError(f"{type(self).__name__}: dim is {self.dim}; expected at least 1")
        if len(self.state_names) != self.dim:
            raise ValueError(
                f"{type(self).__name__}: state_names has {len(self.state_names)} names "
                f"{self.state_names}; expected {self.dim}"
            )

    @property
    def lambda1(self) -> float:
        """The leading one of `lyapunov_exponents`; 1 / lambda1 is a Lyapunov time.

        Raises:
            ValueError: no source is known for the parameters at hand.
        """
        if self.lyapunov_exponents is None:
            raise ValueError(
                f"{type(self).__name__}: no Lyapunov exponents are known for these parameters"
            )
        return self.lyapunov_exponents[0]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name, as they were given."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("static", False)
        }

    def __call__(
        self, t: Time, y: Float[Array, "dim *batch"], args: Any = None
    ) -> Float[Array, "dim *batch"]:
        """The time derivative of the state.

        Args:
            t: time; a scalar, or one time a batch member.
            y: state; a batch is carried in trailing axes, `(dim, *batch)`.
            args: passed through to a user's function; the other systems have no use for it.

        Raises:
            ValueError: `y` does not have `dim` rows, or `t` fits neither form.
        """
        if y.ndim == 0 or y.shape[0] != self.dim:
            raise ValueError(
                f"{type(self).__name__}: y has shape {y.shape}; expected ({self.dim},) or "
                f"({self.dim}, *batch), the batch in trailing axes"
            )
        if jnp.shape(t) not in ((), y.shape[1:]):
            raise ValueError(
                f"{type(self).__name__}: t has shape {jnp.shape(t)}; expected a scalar or the "
                f"batch shape {y.shape[1:]}"
            )
        return self.vector_field(t, y, args)


class AutonomousSystem(System):
    """A system whose right-hand side does not depend on the time."""

    @property
    def autonomous(self) -> bool:
        return True

    @property
    def period(self) -> None:
        return None

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return np.zeros(0)


def per_member(value: Parameter, y: Float[Array, "dim *batch"]) -> Float[Array, "*batch"]:
    """A number that is the same all over state space, once for each member of a batch."""
    return jnp.broadcast_to(jnp.asarray(value, y.dtype), y.shape[1:])


def over_batch(single: Callable[[Any, Any], Any], t: Time, y: Float[Array, "dim *batch"]) -> Array:
    """A function of one time and state over the trailing axes of y, and over those of t if any."""
    for axis in range(1, y.ndim):
        # The last vmap to be wrapped around is the outermost: it takes the last axis.
        t_axis = axis - 1 if jnp.ndim(t) > 0 else None
        single = jax.vmap(single, in_axes=(t_axis, axis), out_axes=-1)
    return single(t, y)
