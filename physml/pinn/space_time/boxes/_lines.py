"""A partial equation by the method of lines: the values on a grid, and how they change with t."""

import functools
from collections.abc import Hashable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml.pinn.space_time._jets import stacked
from physml.pinn.space_time._problem import PDEProblem
from physml.pinn.space_time.boxes._grid import Grid, condition_rows, space_of, whole_point
from physml.pinn.space_time.boxes._jet_field import JetField

_NEWTON_STEPS = 20  # for the initial values; they are mostly given as they are
_SINGULAR = 1e-10  # of the factors of the highest derivatives in t, relative to the largest


@dataclass(frozen=True, eq=False)
class Lines:
    """The right-hand side of the values on a grid, `lines(t, y, args)`.

    The state has the free values of u, and behind them those of its derivatives in t below the
    order of the equation.

    Attributes:
        problem: the equation, which has t.
        grid: where u is known.
        args: parameters like those that the residual is given; None if it takes none.

    Raises:
        ValueError: the equation is not linear in its highest derivatives in t, or does not
            determine them.
    """

    problem: PDEProblem
    grid: Grid
    args: PyTree = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lines) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @functools.cached_property
    def _key(self) -> Hashable:
        """What the programs of these lines depend on: the same lines compile them once."""
        problem = self.problem._replace(intervals=self.problem.intervals.tobytes())
        key = problem, self.grid.shape
        try:
            hash(key)
        except TypeError:  # a function that holds arrays, say
            return id(self)
        return key if self.args is None else id(self)

    def __post_init__(self):
        _ = self._rows, self._constant_faces, self._inverses  # what is wrong is said here

    @property
    def time(self) -> int:
        """The index of t."""
        assert self.problem.time is not None
        return self.problem.time

    @property
    def components(self) -> int:
        """The number of components of u."""
        return self.problem.components or 1

    @functools.cached_property
    def _tops(self) -> np.ndarray:
        """Which derivatives are the highest in t."""
        problem = self.problem
        return np.array([d[self.time] == problem.stages for d in problem.derivatives])

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """The places of all values behind the free ones and the fixed ones."""
        return np.argsort(np.concatenate([self.grid.free, self.grid.fixed]))

    @property
    def dim(self) -> int:
        """The length of the state."""
        return self.problem.stages * len(self.grid.free)

    def __call__(self, t: ArrayLike, y: Float[Array, " states"], args: PyTree = None) -> Array:
        t = jnp.asarray(t, y.dtype)
        values = self.values(t, y)
        places = jnp.asarray(self.grid.points, y.dtype)
        jets, zero = self._jets(values), jnp.zeros(self.components, y.dtype)
        if self._inverses is not None:
            missing = jax.vmap(lambda jet, place: self._residual(t, place, jet, zero, args))(
                jets, places
            )
            inverses = jnp.asarray(self._inverses, y.dtype)
            top = -jnp.sum(inverses * missing[:, None, :], axis=2)
        else:
            missing, factors = jax.vmap(lambda jet, place: self._equation(t, place, jet, args))(
                jets, places
            )
            top = _solve(factors[:, self._rows], -missing[:, self._rows])
        return jnp.concatenate([value.T.ravel()[self.grid.free] for value in (*values[1:], top)])

    def values(self, t: Array, y: Float[Array, " states"]) -> Array:
        """u and its lower derivatives in t at all points: (stages, points, components)."""
        grid, found = self.grid, []
        for block, given in zip(
            jnp.reshape(y, (self.problem.stages, -1)), self._faces(t), strict=True
        ):
            fixed = jnp.asarray(grid.from_free, y.dtype) @ block
            fixed = fixed + jnp.asarray(grid.from_faces, y.dtype) @ given
            every = jnp.concatenate([block, fixed])[self._order]
            found.append(every.reshape(self.components, -1).T)
        return jnp.stack(found)

    def start(self) -> Float[np.ndarray, "stages points components"]:
        """u and its lower derivatives in t at the start, from the conditions there.

        Raises:
            ValueError: these depend on derivatives in space, or no values fulfil them.
        """
        problem = self.problem
        t0 = jnp.asarray(problem.intervals[self.time, 0], problem.dtype)
        given = [c for c in problem.conditions if c.axis == self.time]
        if any(sum(d) > d[self.time] for c in given for d in c.derivatives):
            raise ValueError(
                "conditions in t must have no derivatives in space, where space has two coordinates"
            )

        def rows(state: Array, place: Array) -> Array:
            jets = (state[np.array([d[self.time] for d in c.derivatives])] for c in given)
            found = [
                condition_rows(problem, c, jet, place, t0)
                for c, jet in zip(given, jets, strict=True)
            ]
            return jnp.concatenate(found)

        @jax.jit
        @jax.vmap
        def newton(state: Array, place: Array) -> Array:
            slopes = jax.jacfwd(rows)(state, place).reshape(state.size, state.size)
            step = jnp.linalg.solve(slopes, rows(state, place))
            return state - step.reshape(state.shape)

        shape = len(self.grid.points), problem.stages, self.components
        state, places = jnp.zeros(shape, problem.dtype), jnp.asarray(self.grid.points)
        for _ in range(_NEWTON_STEPS):
            before, state = state, newton(state, places)
            if np.allclose(before, state, rtol=1e-13, atol=0.0):
                break
        if not np.isfinite(state).all():
            raise ValueError("conditions in t must determine finite initial values")
        return np.moveaxis(np.asarray(state, float), 0, 1)

    def require_constant_faces(self) -> None:
        """Raise ValueError if the conditions on the faces change with t."""
        if self._constant_faces is None:
            raise ValueError("conditions on the faces of space must not change with t")

    @functools.cached_property
    def _constant_faces(self) -> np.ndarray | None:
        """What the conditions return for u = 0, if that is the same at all times."""
        with jax.ensure_compile_time_eval():  # a solution that was loaded may be asked in a program
            first, *others = (np.asarray(jax.jit(self._given)(t)) for t in self._times)
        return first if all(np.array_equal(first, other) for other in others) else None

    @functools.cached_property
    def _inverses(self) -> np.ndarray | None:
        """The inverse of what multiplies the highest derivatives in t, if that never changes."""
        if self.args is not None:
            return None
        with jax.ensure_compile_time_eval():
            first, *others = self._factors()
        if all(np.array_equal(first, other) for other in others):
            return np.linalg.inv(first)
        return None

    def _factors(self) -> list[np.ndarray]:
        """What multiplies the highest derivatives in t, for some values of u at some times."""
        random = np.random.default_rng(0)
        shape = len(self._times), len(self.problem.derivatives), self.components
        jets = jnp.asarray(random.uniform(0.5, 1.5, shape), self.problem.dtype)
        places = jnp.asarray(self.grid.points, self.problem.dtype)
        ask = jax.jit(
            jax.vmap(lambda t, jet, place: self._equation(t, place, jet, None)[1], (None, None, 0))
        )
        return [np.asarray(ask(*at, places)) for at in zip(self._times, jets, strict=True)]

    @property
    def _times(self) -> Float[Array, " times"]:
        """Some times in general position."""
        t0, t1 = self.problem.intervals[self.time]
        return jnp.asarray(t0 + (t1 - t0) * np.array([0.0, 0.137, 0.411, 0.773, 1.0]))

    def free(self, values: Float[np.ndarray, "stages points components"]) -> np.ndarray:
        """The state that has these values."""
        return np.concatenate([value.T.ravel()[self.grid.free] for value in values])

    def _faces(self, t: Array) -> list[Array]:
        """What the conditions return for u = 0, and the derivatives of that in t."""
        if self._constant_faces is not None:
            held = jnp.asarray(self._constant_faces, t.dtype)
            return [held, *[jnp.zeros_like(held)] * (self.problem.stages - 1)]
        functions = [self._given]
        for _ in range(self.problem.stages - 1):
            functions.append(jax.jacfwd(functions[-1]))
        return [function(t) for function in functions]

    def _given(self, t: Array) -> Array:
        """What the conditions return for u = 0."""
        rows = [jnp.zeros(0, t.dtype)]
        for condition, points in self.grid.faces:
            jet = jnp.zeros((len(condition.derivatives), self.components), t.dtype)

            def at(place: Array, condition=condition, jet=jet) -> Array:
                return condition_rows(self.problem, condition, jet, place, t)

            rows.append(jax.vmap(at)(jnp.asarray(points, t.dtype)).ravel())
        return jnp.concatenate(rows)

    def _jets(self, values: Float[Array, "stages points components"]) -> Array:
        """The derivatives of u at all points, (points, derivatives, components).

        Those of the equation's order in t are zero.
        """
        grid, found = self.grid, []
        for derivative in self.problem.derivatives:
            if derivative[self.time] == self.problem.stages:
                found.append(jnp.zeros_like(values[0]))
                continue
            u = values[derivative[self.time]].reshape(*grid.shape, -1)
            for place, index in enumerate(space_of(self.problem)):
                if order := derivative[index]:
                    matrix = jnp.asarray(grid.axes[place].derivative(order), u.dtype)
                    u = jnp.moveaxis(jnp.tensordot(matrix, u, (1, place)), 0, place)
            found.append(u.reshape(values.shape[1:]))
        return jnp.stack(found, axis=1)

    def _equation(self, t: Array, place: Array, jet: Array, args: PyTree) -> tuple[Array, Array]:
        """The residual without the highest derivatives in t, and how it depends on those."""
        zero = jnp.zeros(self.components, jet.dtype)

        def rows(top: Array) -> Array:
            return self._residual(t, place, jet, top, args)

        return rows(zero), jax.jacfwd(rows)(zero)

    def _residual(self, t: Array, place: Array, jet: Array, top: Array, args: PyTree) -> Array:
        problem = self.problem
        point = whole_point(problem, place, t)
        every = [top if is_top else own for is_top, own in zip(self._tops, jet, strict=True)]
        own = jnp.stack(every)
        own = own[:, 0] if problem.components is None else own
        u = JetField(problem.coordinates, problem.derivatives, own)
        return stacked(problem.residual(u, *point, *([] if args is None else [args])))

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """The order of the residual's rows in which elimination meets no zero."""
        problem = self.problem
        letters = "t" * problem.stages
        mixed = [d for d in problem.derivatives if d[self.time] == problem.stages < sum(d)]
        if mixed:
            raise ValueError(f"residual must have u.{letters} without derivatives in space")
        random = np.random.default_rng(0)
        shape = len(problem.derivatives), self.components
        jet, top = (jnp.asarray(random.uniform(0.5, 1.5, s)) for s in (shape, shape[1:]))
        place = jnp.asarray(self.grid.points[len(self.grid.points) // 2])
        at = jnp.asarray(problem.intervals[self.time, 0]), place, jet
        with jax.ensure_compile_time_eval():
            rows, factors = map(np.asarray, self._equation(*at, self.args))
            expected = np.asarray(self._residual(*at, top, self.args))
        linear = rows + factors @ np.asarray(top)
        if not np.allclose(linear, expected, rtol=1e-9):
            raise ValueError(f"residual must be linear in u.{letters}")
        sizes = np.linalg.svd(factors, compute_uv=False)
        if not sizes[-1] > _SINGULAR * sizes[0]:
            raise ValueError(f"residual must determine u.{letters} of each component")
        from scipy.linalg import lu_factor  # here, because it takes time to load

        order = np.arange(self.components)
        for i, other in enumerate(lu_factor(factors)[1]):
            order[[i, other]] = order[[other, i]]
        return order


def _solve(
    factors: Float[Array, "points rows components"], right: Float[Array, "points rows"]
) -> Float[Array, "points components"]:
    """Solves a small linear system at each point by elimination, in operations on all points."""
    size = right.shape[1]
    rows = [[*(factors[:, i, j] for j in range(size)), right[:, i]] for i in range(size)]
    for i in range(size):
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(size):
            if j != i:
                share = rows[j][i]
                rows[j] = [a - share * b for a, b in zip(rows[j], rows[i], strict=True)]
    return jnp.stack([row[-1] for row in rows], axis=1)
