"""States and derivatives that fulfil all equations at one time, and the refusal where none do."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike, Float, PyTree

from physml._numerics.calls import as_traced, check_components, checked
from physml._numerics.checks import floating_array, require_finite
from physml._numerics.compiled import constant
from physml._numerics.units import ROUNDINGS
from physml.pinn.constraints._equation import Derivatives, Equation
from physml.pinn.constraints._pencil import Pencil, is_regular, rank_of, solve, take_apart
from physml.systems import ImplicitSystem
from physml.systems.states import Form, Structure

_MOST_STEPS = 50
_HALVINGS = 20  # of a Newton step that leads nowhere
_DRAWS = 3  # of derivatives near the start, at which the rank is looked at
_REMEDY = (
    "Replace a constraint by its time derivative until the index is 1; or hold it beside its "
    "derivative by systems.constrained_motion or systems.with_invariants"
)


class ConsistentStart(NamedTuple):
    """A start that fulfils all equations.

    Attributes:
        y: the state.
        dy: its time derivative, of the algebraic components too.
        num_differential: the number of differential components, those that a start is free in.
    """

    y: PyTree
    dy: PyTree
    num_differential: int


@checked
def consistent_start(
    system: ImplicitSystem,
    y0: PyTree,
    dy0: PyTree = None,
    *,
    t0: float = 0.0,
    fixed: Sequence[str | int] | None = None,
    args: PyTree = None,
) -> ConsistentStart:
    r"""The state near y0 and the derivative that fulfil F(t0, y, y') = 0.

    Differential components are kept, algebraic ones are found by Newton's method: y moves in those
    directions alone whose derivatives the equations do not contain, $F_{y'} (y - y_0) = 0$. Ranks
    are found by singular values. The derivatives of the algebraic components follow from the
    equations' time derivative.

    Args:
        system: the equations.
        y0: the differential components, and a guess of the algebraic ones; shape (dim,). What
            `systems.with_invariants` and `systems.constrained_motion` append may be left out. Or
            states as the system's functions see them, which the answer has, too.
        dy0: a guess of the derivative, zero unless given. It is needed where F is not linear in y'.
        t0: the time.
        fixed: names or numbers of the components to keep instead, as many as there are
            differential ones.
        args: passed on to the equations.

    Raises:
        TypeError: arguments of the wrong kind.
        ValueError: arguments of the wrong shape or precision, or there is no consistent start: the
            message says whether the index is 2 or more, the equations contradict each other,
            `fixed` does not determine the start, or Newton's method found none.

    Example:
        >>> mixed = systems.with_mass(
        ...     lambda t, y, args: [-y[0] + y[1], y[0] - 2 * y[1]], [[1.0, 0.0], [0.0, 0.0]]
        ... )
        >>> print(pinn.consistent_start(mixed, [1.0, 0.0]).y)
        [1.  0.5]
    """
    equation, state, rate, form = check_equation(system, y0, dy0, t0, args)
    kept = None if fixed is None else _numbers(fixed, system.state_names)
    y, dy, pencil = find_start(equation, t0, state, rate, kept)
    return ConsistentStart(form.state(constant(y)), form.state(constant(dy)), pencil.rank)


def check_equation(
    system: ImplicitSystem, y0: PyTree, dy0: PyTree, t0: float, args: PyTree
) -> tuple[Equation, np.ndarray, np.ndarray, Form]:
    """The problem as users hand it in, checked: the equation, the state, the derivative, the form.

    Raises:
        TypeError, ValueError: see `consistent_start`.
    """
    require_finite("t0", t0)
    state, structure = _vector(system, "y0", y0)
    rate = np.zeros_like(state)
    if dy0 is not None:
        rate = _vector(system, "dy0", dy0, state.dtype)[0]
    system, args = jax.tree.map(
        lambda x: constant(x) if isinstance(x, float) else x, (system, args)
    )
    equation, at = Equation(system, args), jnp.asarray(t0, state.dtype)
    traced = check_components("F", equation.single, t=at, y=state, dy=rate)
    return as_traced(equation, traced), state, rate, Form(structure)


def _vector(
    system: ImplicitSystem, name: str, given: PyTree, dtype: DTypeLike | None = None
) -> tuple[Float[np.ndarray, " dim"], Structure | None]:
    """A state or a derivative as a vector of all components, and the structure that it had."""
    if system.structure is None:
        vector, structure = floating_array(name, given, dtype), None
        require_finite(name, vector)
    else:
        vector, structure = system.structure.ravel_like(name, given)
    vector = np.asarray(vector, dtype)
    if vector.shape == (system.dim - system.num_multipliers,):
        vector = np.append(vector, np.zeros(system.num_multipliers, vector.dtype))
    if vector.shape != (system.dim,):
        raise ValueError(f"{name} must have shape ({system.dim},), got {vector.shape}")
    return vector, structure


def _numbers(fixed: Sequence[str | int], names: tuple[str, ...]) -> np.ndarray:
    """Components by name or number as numbers."""
    found = [names.index(x) if isinstance(x, str) and x in names else x for x in fixed]
    wrong = [x for x in found if isinstance(x, str) or not 0 <= x < len(names)]
    if wrong or len(set(found)) < len(found):
        raise ValueError(f"fixed must name different components out of {names}, got {list(fixed)}")
    return np.asarray(found, int)


def find_start(
    equation: Equation, t0: float, y0: np.ndarray, dy0: np.ndarray, fixed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Pencil]:
    """The consistent state, its derivative, and the structure of the equations there.

    Raises:
        ValueError: see `consistent_start`.
    """
    y, dy = y0, dy0
    for number in range(_MOST_STEPS):
        at = _finite(equation.derivatives(t0, y, dy), t0)
        pencil = take_apart(at.by_rate, at.by_state)
        if number == 0:
            _require_lasting_rank(equation, t0, y, dy, pencil.rank)
        system = _NewtonSystem.at(at, pencil, t0, fixed)
        change, rate = system.steps(at.missed)
        y_off, dy_off = system.rounding(at, y, dy)
        if np.all(np.abs(change) <= y_off):
            if np.array_equal(y, y0):  # a start that fulfils the equations stays as it is
                change = np.zeros_like(y)
            if np.all(np.abs(rate) <= dy_off):
                y, dy = y + change, dy + rate
                break
        y, dy = _damped(equation, t0, (y, dy), (change, rate), system)
    else:
        raise ValueError(
            f"y0 must have a consistent state near it, got none at t0 = {t0}: Newton's method for "
            "the algebraic components did not converge. Another guess of them, or of dy0, may help"
        )
    require_index_one(pencil, t0)
    return y, _whole_rate(equation, t0, y, dy), pencil


def require_index_one(pencil: Pencil, t: float) -> None:
    """Raise ValueError unless the index is 0 or 1; say what to do."""
    if pencil.index in (0, 1):
        return
    if pencil.index < 0:
        raise ValueError(
            f"system must determine its state, got equations at t = {t} that depend on each other "
            "or leave a component free (their pencil is singular)"
        )
    raise ValueError(
        f"system must have index 1, got index 2 or more at t = {t}: the equations without "
        f"derivatives do not determine the algebraic components. {_REMEDY}"
    )


def _finite(at: Derivatives, t: float) -> Derivatives:
    for name, values in zip(("F", "dF/dt", "dF/dy", "dF/dy'"), at, strict=True):
        require_finite(f"{name} at t = {t}", values)
    return at


def _require_lasting_rank(
    equation: Equation, t0: float, y: np.ndarray, dy: np.ndarray, rank: int
) -> None:
    """Raise ValueError if the derivatives' matrix has a higher rank at other derivatives.

    That is so for F = y'^2 + ... at y' = 0, where the equation would be taken for an algebraic one.
    """
    random = np.random.default_rng(0)
    size = np.where(dy != 0, np.abs(dy), np.where(y != 0, np.abs(y), 1.0))
    for _ in range(_DRAWS):
        other = (dy + size * random.normal(size=dy.shape)).astype(dy.dtype)
        found = equation.derivatives(t0, y, other).by_rate
        if np.isfinite(found).all() and (near := rank_of(found)) > rank:
            raise ValueError(
                f"dy0 must be near the derivative at the start, got {dy}, where dF/dy' has the "
                f"rank {rank} and {near} nearby"
            )


class _NewtonSystem(NamedTuple):
    """The linear equations of a Newton step.

    Attributes:
        matrix: of the equations, for a step along the columns of the two others.
        moved: the directions of the derivative.
        directions: those of the state.
    """

    matrix: Float[np.ndarray, "dim dim"]
    moved: Float[np.ndarray, "dim rank"]
    directions: Float[np.ndarray, "dim free"]

    @classmethod
    def at(
        cls, at: Derivatives, pencil: Pencil, t0: float, fixed: np.ndarray | None
    ) -> "_NewtonSystem":
        """The equations at a state and a derivative.

        Raises:
            ValueError: they are singular.
        """
        directions = pencil.unseen
        if fixed is not None:
            if len(fixed) != pencil.rank:
                raise ValueError(
                    f"fixed must be {pencil.rank} components, as many as there are differential "
                    f"ones, got {len(fixed)}"
                )
            directions = np.delete(np.eye(len(at.missed), dtype=at.missed.dtype), fixed, axis=1)
        matrix = np.concatenate([at.by_rate @ pencil.moved, at.by_state @ directions], axis=1)
        if not is_regular(matrix):
            require_index_one(pencil, t0)
            kept = "none" if fixed is None else fixed.tolist()
            raise ValueError(f"fixed must determine the other components at t = {t0}, got {kept}")
        return cls(matrix, pencil.moved, directions)

    def steps(self, missed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps of the state and of its derivative that take up a miss, or several."""
        rank, found = self.moved.shape[1], solve(self.matrix, -missed)
        return self.directions @ found[rank:], self.moved @ found[:rank]

    def rounding(
        self, at: Derivatives, y: np.ndarray, dy: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The steps that may be rounding of the equations' terms, or of the values."""
        eps = np.finfo(y.dtype).eps
        terms = np.abs(at.by_state) @ np.abs(y) + np.abs(at.by_rate) @ np.abs(dy)
        steps = self.steps(np.diag(ROUNDINGS * eps * (terms + np.abs(at.missed))))
        off = (np.abs(step).sum(axis=1) for step in steps)
        y_off, dy_off = (x + 4 * eps * np.abs(value) for x, value in zip(off, (y, dy), strict=True))
        return y_off, dy_off


def _damped(
    equation: Equation,
    t0: float,
    start: tuple[np.ndarray, np.ndarray],
    step: tuple[np.ndarray, np.ndarray],
    system: _NewtonSystem,
) -> tuple[np.ndarray, np.ndarray]:
    """The start after so much of a Newton step that the next simplified step is shorter."""
    units = [np.abs(x) + np.abs(s) for x, s in zip(start, step, strict=True)]
    units = [np.where(unit > 0, unit, 1.0) for unit in units]

    def norm(steps: tuple[np.ndarray, np.ndarray]) -> float:
        return float(max(np.max(np.abs(s) / u) for s, u in zip(steps, units, strict=True)))

    share = 1.0
    for _ in range(_HALVINGS):
        y, dy = (x + share * s for x, s in zip(start, step, strict=True))
        missed = equation.derivatives(t0, y, dy).missed
        if np.isfinite(missed).all():
            after = system.steps(missed)
            if norm(after) <= (1 - share / 4) * norm(step) or norm(step) < 1e-6:
                return y, dy
        share /= 2
    return y, dy


def _whole_rate(equation: Equation, t0: float, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The derivative, with that of the algebraic components, from the equations' own."""
    for _ in range(2):  # the second time for equations that are not linear in y'
        at = equation.derivatives(t0, y, dy)
        pencil = take_apart(at.by_rate, at.by_state)
        if pencil.rank == len(y) or not is_regular(pencil.coupling):
            break
        lacks = pencil.algebraic @ (at.by_time + at.by_state @ dy)
        dy = dy - pencil.unseen @ solve(pencil.coupling, lacks)
    return dy
