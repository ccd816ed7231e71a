"""The base of all systems of ordinary differential equations, and its parameters."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from physml._numerics.calls import checked
from physml._numerics.checks import is_concrete, require_count, require_finite, require_positive

if TYPE_CHECKING:
    # A type checker would take an AbstractVar for the first argument of every constructor.
    from typing import ClassVar as Fact
else:
    from equinox import AbstractVar as Fact

Parameter: TypeAlias = float | int | Float[Array, "..."]
"""A real number of a system. A Python float is weakly typed, so dtypes follow the state."""

Time: TypeAlias = Real[ArrayLike, "..."]
"""A time: a scalar, or one time for each member of a trailing batch."""


def as_parameter(value: object) -> Any:
    """Numbers as Python floats, NumPy arrays and sequences as JAX arrays, the rest untouched."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return value if type(value) is float else float(value)
    if isinstance(value, np.ndarray | list | tuple):
        try:
            return jnp.asarray(value, dtype=float)
        except (TypeError, ValueError):  # no numbers, which `check_parameter` says
            return value
    return value


def parameter(default: object = dataclasses.MISSING, *, positive: bool = False) -> Any:
    """A field for a `Parameter`; with `positive`, `check_parameters` wants it positive."""
    metadata = {"positive": positive}
    return eqx.field(default=default, converter=as_parameter, metadata=metadata)


def check_parameters(owner: eqx.Module) -> None:
    """Raise as `check_parameter` unless every `parameter` of a system or a force is valid."""
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        left_out = value is None and field.default is None
        if "positive" in field.metadata and not left_out:
            name = f"{type(owner).__name__}.{field.name}"
            check_parameter(name, value, positive=field.metadata["positive"])


def check_parameter(name: str, value: object, *, positive: bool = False) -> None:
    """Raise unless a number or an array is real and, where it is known, finite.

    Raises:
        TypeError: it is not a float or a floating array.
        ValueError: it is infinite or not a number, or not positive where it has to be.
    """
    if not (isinstance(value, float) or jnp.issubdtype(getattr(value, "dtype", int), jnp.floating)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    require_finite(name, value)
    if positive:
        require_positive(**{name: value})


def is_close(value: Parameter, constant: float) -> bool:
    """Whether a number is known, single, and equal to a constant up to float32 rounding."""
    return is_concrete(value) and np.ndim(value) == 0 and bool(np.isclose(value, constant, 1e-6))


def as_tuple(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """A matrix as a tuple of rows, which can be hashed."""
    return tuple(tuple(float(entry) for entry in row) for row in matrix)


def times_within(
    times: Sequence[float] | np.ndarray, t0: float | int, t1: float | int
) -> np.ndarray:
    """Those of some times that lie in [t0, t1], increasing."""
    times = np.sort(np.asarray(times, dtype=float))
    return times[(times >= t0) & (times <= t1)]


class System(eqx.Module):
    r"""A first-order system of ordinary differential equations, $dy/dt = f(t, y)$.

    A system is its own right-hand side: a solver calls `system(t, y, args)`, so that
    `diffrax.ODETerm(system)` works without a wrapper. Its numeric parameters are pytree leaves: a
    system can be differentiated in them, vmapped over them, and passed through `jax.jit`. Its
    attributes and methods hold the known facts (fixed points, divergence, symmetry, ...).
    """

    dim: Fact[int]
    """The number of state variables."""

    state_names: Fact[tuple[str, ...]]
    """A short name for each state variable."""

    autonomous: Fact[bool]
    """Whether the right-hand side does not depend on the time."""

    period: Fact[Parameter | None]
    """The period of the explicit time dependence; None if there is none or it has no period."""

    box: Fact[tuple[tuple[float, ...], tuple[float, ...]]]
    """Corners `(low, high)` of the box of random starts by default."""

    symmetry: Fact[tuple[tuple[float, ...], ...] | None]
    """A matrix S with S S = 1 and f(t, S y) = S f(t, y), by rows; None if none is known."""

    lyapunov_exponents: Fact[tuple[float, ...] | None]
    """Published exponents, largest first, in inverse time units; all of them or the leading ones.

    None where no source is known for the system's parameters.
    """

    @abc.abstractmethod
    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        """The right-hand side, an array shaped as `y`. Users call the system itself."""

    @abc.abstractmethod
    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """The divergence of the right-hand side in the state, trace(df/dy), per time unit."""

    @abc.abstractmethod
    def fixed_points(self) -> Float[Array, "num dim"]:
        """The states with f = 0, one a row; no rows where there are none or none are known.

        Their number can depend on the parameters, so `jax.jit` and `jax.vmap` must not trace the
        parameters.
        """

    @abc.abstractmethod
    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        """The times in [t0, t1] at which the right-hand side jumps, increasing.

        A solver of high order must stop at each of them.
        """

    def __check_init__(self):
        check_parameters(self)
        require_count(dim=self.dim)
        if len(self.state_names) != self.dim:
            raise ValueError(f"state_names must be {self.dim} names, got {self.state_names}")

    @property
    def lambda1(self) -> float:
        """The leading one of `lyapunov_exponents`; 1 / lambda1 is a Lyapunov time.

        Raises:
            ValueError: no source is known for the system's parameters.
        """
        if self.lyapunov_exponents is None:
            name = type(self).__name__
            raise ValueError(f"no Lyapunov exponents of {name} are known for these parameters")
        return self.lyapunov_exponents[0]

    @property
    def parameters(self) -> dict[str, PyTree]:
        """The parameters by name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("static", False)
        }

    @checked
    def __call__(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "dim *batch"]:
        """The time derivative of the state.

        Args:
            t: time; a scalar, or one time for each member of a batch.
            y: state; a batch has trailing axes, `(dim, *batch)`.
            args: passed on to a user's function; the other systems ignore it.

        Raises:
            ValueError: `y` does not have `dim` rows, or `t` fits neither form.
        """
        if y.ndim == 0 or y.shape[0] != self.dim:
            raise ValueError(
                f"y must have shape ({self.dim},) or ({self.dim}, *batch), got {y.shape}"
            )
        if jnp.shape(t) not in ((), y.shape[1:]):
            raise ValueError(
                f"t must be a scalar or have the batch's shape {y.shape[1:]}, got {jnp.shape(t)}"
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
    """A number that does not depend on the state, once for each member of a batch."""
    return jnp.broadcast_to(jnp.asarray(value, y.dtype), y.shape[1:])
