"""A system from a user's own right-hand side."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.batch import over_batch
from physml._numerics.calls import answer, ask, checked, takes
from physml._numerics.checks import require_count, require_positive
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.systems._base import (
    Parameter,
    System,
    Time,
    as_parameter,
    as_tuple,
    times_within,
)
from physml.systems.states import Structure, take_apart_state


class FunctionSystem(System):
    """A system whose right-hand side is a user's function; made by `from_function`."""

    function: Callable
    args: PyTree
    dim: int = eqx.field(static=True)
    state_names: tuple[str, ...] = eqx.field(static=True)
    autonomous: bool = eqx.field(static=True)
    period: Parameter | None
    box: tuple[tuple[float, ...], tuple[float, ...]] = eqx.field(static=True)
    symmetry: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)
    lyapunov_exponents: tuple[float, ...] | None = eqx.field(static=True)
    jumps: tuple[float, ...] = eqx.field(static=True)
    takes_args: bool = eqx.field(static=True, default=True)
    structure: Structure | None = eqx.field(static=True, default=None)
    """How the function sees a state: see `from_function`. None for a vector."""

    def rates(self, t: Time, state: PyTree, args: PyTree) -> object:
        """What the function answers for a state as it sees it."""
        if self.takes_args:
            return ask("f", "f(t, y, args)", self.function, t, state, args)
        if args is not None:
            raise ValueError("args must be None where f is called as f(t, y), got a value")
        return ask("f", "f(t, y)", self.function, t, state)

    def _single(self, t: Time, y: Float[Array, " dim"], args: PyTree) -> Float[Array, " dim"]:
        structure = self.structure
        if structure is None:
            return answer("f", "dy/dt", self.rates(t, y, args), y.shape, y.dtype)

        def single(t: Any, y: Any) -> Array:
            dy = self.rates(t, structure.unravel(y), args)
            return structure.ravel_answer("f", "dy/dt", dy, y.dtype)

        return structure.in_real_numbers(single)(t, y)

    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        args = self.args if args is None else args
        return over_batch(lambda t, y: self._single(t, y, args), t, y)

    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """The trace of the Jacobian by forward-mode differentiation."""
        args = self.args if args is None else args

        def trace(t, y):
            return jnp.trace(jax.jacfwd(self._single, argnums=1)(t, y, args))

        return over_batch(trace, t, y)

    def fixed_points(self) -> Float[Array, "0 dim"]:
        """None are known."""
        return jnp.zeros((0, self.dim))

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return times_within(self.jumps, t0, t1)


@checked
def from_function(
    f: Callable[..., Any],
    dim: int | None = None,
    *,
    like: PyTree = None,
    state_names: Sequence[str] | None = None,
    args: PyTree = None,
    period: Parameter | None = None,
    autonomous: bool | None = None,
    box: tuple[Numbers, Numbers] | None = None,
    symmetry: Numbers | None = None,
    lyapunov_exponents: Sequence[float] | None = None,
    jumps: Sequence[float] = (),
) -> FunctionSystem:
    """A system from a right-hand side `f(t, y, args)` or `f(t, y)`, as Diffrax and SciPy have it.

    `pinn.solve`, `reference.solve` and others take a right-hand side as it is, too: it is for the
    facts below, and for what begins without a state, that a system is made first.

    Args:
        f: returns dy/dt for one state `y` of shape `(dim,)`, as an array or a sequence of `dim`
            numbers; batches are vmapped. A callable pytree (an `eqx.Module`, a network) keeps
            its leaves differentiable; a plain function is static, its parameters go in `args`.
        dim: the number of state variables.
        like: in place of `dim`, an example of a state that is no vector: a dict, a tuple, a named
            tuple, an array of any shape, complex numbers, nested in any way. `f` sees such states
            and returns dy/dt in the same structure; the system itself has their numbers one after
            the other, a complex one as its real and its imaginary part.
        state_names: their names; by default `y0, y1, ...`, or those that `like` has.
        args: any pytree, the third argument of `f` where the caller gives none.
        period: the period of the explicit dependence on the time, if it has one.
        autonomous: whether `f` ignores the time; by default True unless there are a period or
            jumps. Say False for a dependence on the time without a period.
        box: corners `(low, high)` of the box of random starts; [-1, 1] in each variable.
        symmetry: a matrix S with S S = 1 and f(t, S y, args) = S f(t, y, args).
        lyapunov_exponents: known exponents, largest first.
        jumps: the times at which `f` jumps.

    Raises:
        TypeError: `f` cannot be called, or returns None when it is called; neither or both of
            `dim` and `like` are given.
        ValueError: a fact does not fit `dim` or contradicts another; `like` holds no numbers.

    Example:
        >>> spring = systems.from_function(lambda t, y, k: [y[1], -k * y[0]], dim=2, args=4.0)
        >>> turn = systems.from_function(lambda t, z: {"z": 1j * z["z"]}, like={"z": 1j})
        >>> turn.dim, turn.state_names
        (2, ('z.re', 'z.im'))
    """
    if (dim is None) == (like is None):
        raise TypeError("dim must be given, or like in its place, got neither or both")
    structure = None
    if like is not None:
        structure = like if isinstance(like, Structure) else take_apart_state("like", like)[0]
        dim = structure.dim
    assert dim is not None
    require_count(dim=dim)
    if state_names is not None:
        names = tuple(state_names)
    else:
        names = tuple(f"y{i}" for i in range(dim)) if structure is None else structure.names
    low, high = (-np.ones(dim), np.ones(dim)) if box is None else map(np.asarray, box)
    if low.shape != (dim,) or high.shape != (dim,) or not np.all(low <= high):
        raise ValueError(f"box must be corners low <= high of {dim} numbers, got {box}")
    rows = None
    if symmetry is not None:
        matrix = np.asarray(symmetry, dtype=float)
        if matrix.shape != (dim, dim) or not np.allclose(matrix @ matrix, np.eye(dim)):
            raise ValueError(
                f"symmetry must be a ({dim}, {dim}) matrix that is its own inverse, got {symmetry}"
            )
        rows = as_tuple(matrix)
    timed = period is not None or len(jumps) > 0
    if autonomous and timed:
        raise ValueError("autonomous must be False with a period or jumps, got True")
    if period is not None:
        require_positive(period=period)
    return FunctionSystem(
        function=as_pytree(f),
        args=args,
        dim=dim,
        state_names=names,
        autonomous=not timed if autonomous is None else autonomous,
        period=as_parameter(period),
        box=(as_tuple(low[None])[0], as_tuple(high[None])[0]),
        symmetry=rows,
        lyapunov_exponents=None if lyapunov_exponents is None else tuple(lyapunov_exponents),
        jumps=tuple(sorted(float(time) for time in jumps)),
        takes_args=takes(f, "f(t, y, args)") or not takes(f, "f(t, y)"),
        structure=None if structure is None or structure.is_vector else structure,
    )
