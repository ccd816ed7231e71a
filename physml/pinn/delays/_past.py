"""What an equation with delays sees of its past, and the equation without delays that remains."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, PyTree

from physml._numerics.batch import over_batch
from physml._numerics.calls import answer, ask
from physml._numerics.checks import require_finite
from physml._numerics.parts import as_pytree
from physml.pinn.collocation import CorrectedNetworks, Polynomials
from physml.solution import Solution
from physml.systems import DelayedSystem, System
from physml.systems.states import Path, Structure
from physml.systems.with_delays import Delay

_BEYOND = 64  # roundings by which a delay may look beyond what is known
JETS = 4  # derivatives by which the past is continued where a leg looks for the end of a region


class History(eqx.Module):
    """The states before the start, as a function of the time."""

    function: Callable | None
    constant: Float[Array, " dim"] | None

    def __call__(self, t: Array, like: tuple[int, ...], dtype: DTypeLike) -> Float[Array, " dim"]:
        if self.function is None:
            assert self.constant is not None
            return answer("history", "a state", self.constant, like, dtype)
        found = ask("history", "history(t)", self.function, t)
        return answer("history", "a state", found, like, dtype)


class _Earlier(eqx.Module):
    """An earlier solution as a history: NaN where it is not known.

    Attributes:
        state: the solution.
        low, high: from when to when it is known.
    """

    state: Callable
    low: Float[Array, ""]
    high: Float[Array, ""]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        rounding = _BEYOND * jnp.finfo(t.dtype).eps * jnp.maximum(abs(self.low), abs(self.high))
        known = (t >= self.low - rounding) & (t <= self.high + rounding)
        return jnp.where(known, self.state(t), jnp.nan)


def as_history(history: PyTree, structure: Structure, dtype: DTypeLike) -> History:
    """The history that a user gives: a function, a constant state, or an earlier solution.

    Raises:
        TypeError, ValueError: it has no states of this structure, or a constant is not finite.
    """
    if isinstance(history, Solution):
        vector = history.dense.evaluate(history.t0)
        found = Structure.of(vector) if history.structure is None else history.structure
        if found != structure:
            raise ValueError(
                f"history must have the structure {structure.words}, got {found.words}"
            )
        dense = history.dense  # of networks that were corrected the polynomials say all
        dense = dense.polynomials if isinstance(dense, CorrectedNetworks) else dense
        known = jnp.minimum(history.t0, history.t1), jnp.maximum(history.t0, history.t1)
        return History(_Earlier(dense.evaluate, *known), None)
    if callable(history):
        function = as_pytree(history)
        function = function if structure.is_vector else Path("history", function, structure)
        return History(function, None)
    constant = structure.ravel_answer("history", "a state", history, dtype)
    require_finite("history", constant)
    return History(None, constant)


class Region(eqx.Module):
    """Where one delay looks during one leg, between points where the past is not smooth.

    Beside it the past is continued as a Taylor series, so that the equation stays smooth while a
    leg goes past the end of the region, which is then located.

    Attributes:
        low, high: from when to when.
        from_history: whether the history is seen there, and not the solution.
        below, above: derivatives of the past at `low` and `high`; None for constant delays, which
            look beyond the region by rounding alone.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]
    from_history: Bool[Array, ""]
    below: Float[Array, "jets dim"] | None
    above: Float[Array, "jets dim"] | None


class WithPast(System):
    """The equation in one leg, whose past is known: a system without delays."""

    delayed: DelayedSystem
    history: History
    polynomials: Polynomials
    regions: tuple[Region, ...]
    t0: Float[Array, ""]
    dim: int = eqx.field(static=True)
    state_names: tuple[str, ...] = eqx.field(static=True)

    autonomous = False
    period = None
    symmetry = None
    lyapunov_exponents = None

    @property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (-1.0,) * self.dim, (1.0,) * self.dim

    def sees(
        self, t: Float[Array, ""], y: Float[Array, " dim"], args: PyTree
    ) -> tuple[Float[Array, " delays"], Float[Array, "delays dim"]]:
        """When the delays look, and the states there."""
        delays = self.delayed.delays
        times = [t - delay_of(i, delay, t, y, args) for i, delay in enumerate(delays)]
        seen = [self._see(*each, y) for each in zip(times, self.regions, strict=True)]
        return jnp.stack(times), jnp.stack(seen)

    def _see(self, time: Array, region: Region, like: Array) -> Float[Array, " dim"]:
        inside = jnp.clip(time, region.low, region.high)
        before = jnp.where(region.from_history, inside, jnp.minimum(inside, self.t0))
        seen = jnp.where(
            region.from_history,
            self.history(before, like.shape, like.dtype),
            self.polynomials.evaluate(inside),
        )
        if region.below is None or region.above is None:
            return seen
        beyond = time - inside
        jets, factor = jnp.where(beyond > 0, region.above, region.below), jnp.ones_like(beyond)
        for k in range(JETS):
            factor = factor * beyond / (k + 1)
            seen = seen + factor * jets[k]
        return seen

    def _single(self, t: Array, y: Float[Array, " dim"], args: PyTree) -> Float[Array, " dim"]:
        _, seen = self.sees(t, y, args)
        return answer("f", "dy/dt", self.delayed.rate(t, y, seen, args), y.shape, y.dtype)

    def vector_field(self, t: Array, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        return over_batch(lambda t, y: self._single(t, y, args), jnp.asarray(t, y.dtype), y)

    def divergence(
        self, t: Array, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """The trace of the Jacobian, where the past stays as it is."""

        def trace(t: Array, y: Array) -> Array:
            return jnp.trace(jax.jacfwd(self._single, argnums=1)(t, y, args))

        return over_batch(trace, jnp.asarray(t, y.dtype), y)

    def fixed_points(self) -> Float[Array, "0 dim"]:
        return jnp.zeros((0, self.dim))

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return np.zeros(0)


def delay_of(i: int, delay: Delay, t: Array, y: Array, args: PyTree) -> Float[Array, ""]:
    """The delay as a number."""
    if not callable(delay):
        return jnp.asarray(delay, y.dtype)
    name = f"delays[{i}]"
    found = ask(name, "delay(t, y, args)", delay, t, y, args)
    return answer(name, "a number", found, (), y.dtype)


@eqx.filter_jit
def history_jets(
    history: History, t: Float[Array, ""], like: Float[Array, " dim"]
) -> Float[Array, "jets dim"]:
    """The derivatives of the history, zero where they are not finite."""
    found, function = [], lambda t: history(t, like.shape, like.dtype)
    for _ in range(JETS):
        function = _derivative(function)
        found.append(function(t))
    jets = jnp.stack(found)
    return jnp.where(jnp.isfinite(jets), jets, 0.0)


def _derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


class Pieces:
    """The windows behind a solution, on the host."""

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike):
        self.shape, self.dtype = shape, dtype
        self.starts: list[float] = []
        self.spans: list[float] = []
        self.coefficients: list[np.ndarray] = []

    def append(self, start: float, span: float, coefficients: np.ndarray) -> None:
        """One more window."""
        self.starts.append(start)
        self.spans.append(span)
        self.coefficients.append(coefficients)

    def between(self, low: float, high: float) -> Polynomials:
        """The windows that are needed between two times, in a buffer of a power of two of them."""
        starts = np.asarray(self.starts)
        first = max(int(np.searchsorted(starts, low, side="right")) - 1, 0)
        last = max(int(np.searchsorted(starts, high, side="right")), first)
        size = max(32, 1 << max(last - first - 1, 0).bit_length())  # few shapes to compile
        buffers = np.full(size, np.inf), np.ones(size), np.zeros((size, *self.shape))
        lists = self.starts, self.spans, self.coefficients
        for buffer, rows in zip(buffers, lists, strict=True):
            if last > first:
                buffer[: last - first] = rows[first:last]
        if last == first:
            buffers[0][0] = 0.0  # nothing looks there, but the numbers must be finite
        return Polynomials(*(jnp.asarray(buffer, self.dtype) for buffer in buffers))

    def jets(self, t: float, *, before: bool) -> Float[np.ndarray, "jets dim"]:
        """The derivatives at an edge, of the window before it or after it."""
        side = "left" if before else "right"
        k = max(int(np.searchsorted(self.starts, t, side=side)) - 1, 0)
        terms, span = np.asarray(self.coefficients[k], float), self.spans[k]
        s = 2 * (t - self.starts[k]) / span - 1
        legendre = np.polynomial.legendre
        return np.stack(
            [
                legendre.legval(s, legendre.legder(terms, n)) * (2 / span) ** n
                for n in range(1, JETS + 1)
            ]
        )
