"""The search for the parameters of a kernel: the largest likelihood, from several starts."""

import contextlib
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.blas import single_threaded_blas
from physml._numerics.checks import floating_array, require_positive
from physml.results import RESULTS

_LIMIT = math.log(1e6)  # parameters stay within a factor of a million of where they start
_SHORTEST = 1e-12  # of a quasi-Newton step, as a share of its first length
_NOTHING = 1e-8  # of the log likelihood of one value: no data tell such parameters apart
_IDLE = 45  # steps that together gain nothing; a first step may be halved forty times
_SMALL = 1000  # rows of matrices that one thread factorises about as fast as several
_SPREAD = math.log(10.0)  # other starts are up to a factor of ten away from the first


class Found(NamedTuple):
    """The best point of a search for each task, and how each search ended."""

    parameters: PyTree[Float[Array, "tasks *shape"]]
    values: Float[Array, "tasks starts"]
    steps: Int[Array, "tasks starts"]
    converged: Bool[Array, " tasks"]
    at_bound: PyTree[Bool[Array, " tasks"]]


def threads_for(rows: int) -> contextlib.AbstractContextManager[None]:
    """A block whose factorisations of `rows` rows use one thread, unless several gain something.

    On two idle cores the second thread gains nothing at 600 rows, a tenth of the time at 1000 and a
    quarter at 2000. Beside other work one thread is 5 times as fast as two at 600 rows.
    """
    return single_threaded_blas() if rows <= _SMALL else contextlib.nullcontext()


def positive_parameters(name: str, tree: PyTree, fixed: Collection[str], dtype: DTypeLike) -> tuple:
    """The parameters of a tree that are searched for, and the tree with None in their places.

    A floating leaf is a parameter; one whose name, or the name of what holds it, is fixed is none.

    Raises:
        TypeError, ValueError: a parameter is not positive and finite, or a fixed name is unknown.
    """
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [{_word(part) for part in path} for path, _ in pairs]
    unknown = set(fixed) - set().union(*names)
    if unknown or isinstance(fixed, str):
        known = sorted(set().union(*names))
        raise ValueError(f"fixed must hold names out of {known}, got {fixed!r}")
    parameters, rest = [], []
    for words, (path, leaf) in zip(names, pairs, strict=True):
        floating = isinstance(leaf, float) or jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        leaf = floating_array(name, leaf, dtype) if floating else leaf
        free = floating and not words & set(fixed)
        if free:
            require_positive(**{f"{name}.{_path(path)}": leaf})
        parameters.append(leaf if free else None)
        rest.append(None if free else leaf)
    return jax.tree.unflatten(structure, parameters), jax.tree.unflatten(structure, rest)


def _path(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _word(part: object) -> str:
    return str(getattr(part, "name", getattr(part, "key", getattr(part, "idx", part))))


def maximise(
    value: Callable[[PyTree, PyTree], Array],
    start: PyTree,
    tasks: PyTree,
    key: PRNGKeyArray,
    restarts: int,
    max_steps: int,
    numbers: int,
    at_once: int,
) -> Found:
    r"""The positive parameters with the largest value, for each task.

    A parameter is $p = p_0 e^u$ with $|u| \le \log 10^6$, so it is positive, has no unit, and
    cannot leave by more than a factor of a million. BFGS runs from $u = 0$ and from `restarts`
    other points.

    Args:
        value: of the parameters and a task.
        start: the first parameters, the same for all tasks.
        tasks: arrays with a leading axis for the tasks.
        key: for the other starts.
        restarts: how many there are.
        max_steps: of one search, at most.
        numbers: that the value is a sum over, such as those observed; it sets the tolerance.
        at_once: how many searches run side by side; the others follow.
    """
    num_tasks, starts = len(jax.tree.leaves(tasks)[0]), restarts + 1
    leaves, structure = jax.tree.flatten(start)
    dtype = jnp.result_type(*leaves)

    def parameters(u: list[Array]) -> PyTree:
        factors = [jnp.exp(jnp.clip(v, -_LIMIT, _LIMIT)).astype(dtype) for v in u]
        moved = [p * factor for p, factor in zip(leaves, factors, strict=True)]
        return jax.tree.unflatten(structure, moved)

    def loss(u: list[Array], task: PyTree) -> Array:
        return -value(parameters(u), task).astype(float) / numbers

    solver = _UntilFlat(0.0, float(jnp.finfo(dtype).eps) ** 0.4)  # 5e-7 of float64

    def search(given: tuple[list[Array], PyTree]) -> tuple:
        u, task = given
        found = optx.minimise(loss, solver, u, task, max_steps=max_steps, throw=False)
        converged = found.result == optx.RESULTS.successful
        return (
            found.value,
            value(parameters(found.value), task),
            found.stats["num_steps"],
            converged,
        )

    def points(leaf: Array, key: PRNGKeyArray) -> Array:
        shape = (num_tasks, starts, *leaf.shape)
        # Optimistix wants unknowns of JAX's default dtype, whatever that of the data is.
        moves = jax.random.uniform(key, shape, float, -_SPREAD, _SPREAD)
        return moves.at[:, 0].set(0.0).reshape(num_tasks * starts, *leaf.shape)

    us = [points(p, k) for p, k in zip(leaves, jax.random.split(key, len(leaves)), strict=True)]
    repeated = jax.tree.map(lambda x: jnp.repeat(x, starts, axis=0), tasks)
    ends, values, steps, converged = jax.lax.map(search, (us, repeated), batch_size=at_once)
    values = jnp.where(jnp.isnan(values), -jnp.inf, values).reshape(num_tasks, starts)
    best = jnp.argmax(values, axis=1) + starts * jnp.arange(num_tasks)
    ends = [u[best] for u in ends]
    bounds = [jnp.any(jnp.abs(u).reshape(num_tasks, -1) >= _LIMIT, axis=1) for u in ends]
    return Found(
        jax.vmap(parameters)(ends),
        values,
        steps.reshape(num_tasks, starts),
        converged[best],
        jax.tree.unflatten(structure, bounds),
    )


class _Watched(NamedTuple):
    """The state of a solver, and what its loss was when it last became smaller by something."""

    inner: PyTree
    loss: Float[Array, ""]
    idle: Int[Array, ""]  # steps since then


class _UntilFlat(optx.AbstractMinimiser):
    """BFGS that ends where the loss is flat, or has long been as small as it gets.

    How far a step goes says nothing here: a parameter that no longer matters goes on moving.
    """

    rtol: float
    atol: float
    solver: optx.AbstractMinimiser = optx.BFGS(rtol=0.0, atol=0.0)
    norm: Callable[[PyTree], Scalar] = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        inner = self.solver.init(fn, y, args, options, f_struct, aux_struct, tags)
        return _Watched(inner, jnp.asarray(jnp.inf), jnp.asarray(0))

    def step(self, fn, y, args, options, state, tags):
        y, inner, aux = self.solver.step(fn, y, args, options, state.inner, tags)
        loss = inner.f_info.f
        better = loss < state.loss - _NOTHING
        loss = jnp.where(better, loss, state.loss).astype(state.loss.dtype)
        return y, _Watched(inner, loss, jnp.where(better, 0, state.idle + 1)), aux

    def terminate(self, fn, y, args, options, state, tags):
        inner = state.inner
        done, result = self.solver.terminate(fn, y, args, options, inner, tags)
        flat = self.norm(inner.f_info.grad) < self.atol
        # Where not even a short step improves the loss, what is left of the slope is rounding.
        stuck = inner.search_state.step_size < _SHORTEST
        ended = flat | stuck | (state.idle >= _IDLE)
        return done | (ended & (inner.num_accepted_steps > 0)), result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return self.solver.postprocess(fn, y, aux, args, options, state.inner, tags, result)


def verdict(found: Found) -> tuple[RESULTS, str]:
    """How a search ended, and a sentence about it."""
    best, steps = np.asarray(found.values).max(axis=1), int(np.asarray(found.steps).max())
    if not np.isfinite(best).all():
        return RESULTS.not_positive_definite, ""
    pairs, _ = jax.tree_util.tree_flatten_with_path(found.at_bound)
    ends = [_path(path) for path, at in pairs if np.asarray(at).any()]
    if ends:
        return RESULTS.at_bound, f"Parameters at a bound: {', '.join(ends)}."
    if not np.asarray(found.converged).all():
        return RESULTS.not_converged, f"Steps made: {steps}."
    return RESULTS.successful, ""
