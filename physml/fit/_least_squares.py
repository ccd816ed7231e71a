"""Nonlinear least squares by Gauss-Newton or Levenberg-Marquardt, on a residual as it is."""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import answer, as_traced, ask, checked, trace
from physml._numerics.checks import require_count, require_finite, require_positive
from physml._numerics.compiled import compiled
from physml._numerics.parts import Filter, Parts, as_arrays, take_apart
from physml._types import Residual
from physml.fit._fit import Fit, Model, concluded
from physml.fit._objective import Weights, ask_residual, scaled
from physml.results import RESULTS


@checked
def least_squares(
    residual: Residual,
    model: Model,
    batch: PyTree = None,
    *,
    method: optx.AbstractGaussNewton | None = None,
    weights: Weights | None = None,
    wrt: Filter = nnx.Param,
    max_steps: int = 100,
    key: PRNGKeyArray | None = None,
) -> Fit[Model]:
    r"""Fit a model by nonlinear least squares on the whole of a residual.

    Minimises the same number as `gradient` on `mean_square(residual, weights)`. Each step solves

    $$\min_\delta \|J \delta + r\|^2 + \lambda \|\delta\|^2$$

    by a QR or SVD of the Jacobian J, never by its normal equations, which would square its
    condition number. Gauss-Newton has $\lambda = 0$ and takes the step as it is;
    Levenberg-Marquardt adapts $\lambda$ until the step improves. J has a row for each residual and
    a column for each trained number, and is held whole.

    Args:
        residual: `residual(model, batch, key) -> blocks`, zero where the model is right.
        model: an `nnx.Module`, a pytree that holds some, or a pytree of arrays. It is not changed.
        batch: passed to the residual.
        method: a solver of Optimistix: `optx.GaussNewton(rtol, atol, linear_solver=lx.QR())`, which
            needs a J of full rank, is the default. Its tolerances are the root of the dtype's
            epsilon: after so short a step, the next one is only rounding. `lineax.SVD(rcond)`
            leaves directions alone whose singular value is below `rcond` times the largest.
            `optx.LevenbergMarquardt`, `optx.Dogleg` and `optx.IndirectLevenbergMarquardt` shorten
            steps that go too far; the last two need models in JAX's default dtype.
        weights: by block name, as in `mean_square`.
        wrt: a Flax filter for what is trained; the rest stays fixed. A model without Flax variables
            trains all its floating arrays.
        max_steps: evaluations of the residual, at most.
        key: passed to the residual, the same in every step.

    Returns:
        A `Fit` with the best model that was evaluated and the mean square after each step as
        `history["loss"]`. `result` is `successful`, or a failure, which warns: `max_steps_reached`,
        `nonfinite`, or what Optimistix and Lineax say.

    Raises:
        TypeError: if the method is none of those.
        ValueError: if `max_steps` is not positive, or what `mean_square` refuses.

    Example:
        >>> def line(model, batch, key):
        ...     return model[0] + model[1] * batch - jnp.array([1.0, 3.0, 5.0])
        >>> fit.least_squares(line, jnp.zeros(2), jnp.arange(3.0)).model.round(6).tolist()
        [1.0, 2.0]
    """
    require_count(max_steps=max_steps)
    parts, params, rest = take_apart(model, wrt)
    if method is None:
        tolerance = float(jnp.finfo(jax.tree.leaves(params)[0].dtype).eps) ** 0.5
        method = optx.GaussNewton(tolerance, tolerance, linear_solver=lx.QR())
    if not isinstance(method, optx.AbstractGaussNewton):
        raise TypeError(
            "method must be an optimistix.GaussNewton, LevenbergMarquardt, Dogleg or "
            f"IndirectLevenbergMarquardt, got {method!r}"
        )
    inner = eqx.tree_at(lambda m: m.search, method, _InDtypeOf(method.search))
    solver = _Recording(inner.rtol, inner.atol, inner.norm, inner, max_steps)
    batch = as_arrays("batch", batch)
    traced, _ = trace(Partial(_blocks, residual, parts), params, rest, batch, key)
    residual = as_traced(residual, traced)
    arguments = (residual, dict(weights or {}), parts, solver, params, rest, batch, key)
    program, compile_seconds = compiled(_solve, *arguments)
    begin = time.perf_counter()
    with single_threaded_blas():
        params, losses, steps, verdict = jax.block_until_ready(program(*arguments))
    loss = np.asarray(losses)[: int(steps)]
    bad = np.flatnonzero(~np.isfinite(loss))
    fitted = Fit(
        model=parts.merge(params, rest),
        history={"loss": loss, "step": np.arange(len(loss))},
        result=RESULTS.nonfinite if bad.size else _result(verdict),
        step=len(loss),
        nonfinite_step=int(bad[0]) if bad.size else None,
        seconds=time.perf_counter() - begin,
        compile_seconds=compile_seconds,
    )
    return concluded(fitted, "fit.least_squares")


@checked
def cramer_rao(
    predict: Callable[[Array], Array], unknowns: Float[Array, " unknowns"], noise: float
) -> Float[np.ndarray, " unknowns"]:
    r"""The least standard deviations that unbiased estimates can have, whatever finds them.

    For unknowns p of data $h(p) + \sigma \xi$, $\xi \sim \mathcal N(0, 1)$ in each number, they are

    $$\sigma \sqrt{\operatorname{diag} (J^\top J)^{-1}}, \qquad J = \partial h / \partial p,$$

    by a QR of J, which is differentiated forwards.

    Args:
        predict: h, an array of any shape.
        unknowns: their true values.
        noise: $\sigma$.

    Raises:
        ValueError: the data do not tell all unknowns: the rank of J is too small.

    Source: H. Cramér, "Mathematical Methods of Statistics" (1946), chapter 32.
    """

    def predicted(unknowns: Array) -> Array:
        numbers = ask("predict", "predict(unknowns)", predict, unknowns)
        return answer("predict", "data", numbers, dtype=unknowns.dtype)

    require_positive(noise=noise)
    require_finite("unknowns", unknowns)
    jacobian = np.asarray(jax.jit(jax.jacfwd(predicted))(unknowns)).reshape(-1, unknowns.size)
    rank = np.linalg.matrix_rank(jacobian)
    if rank < unknowns.size:
        raise ValueError(
            f"predict must tell all {unknowns.size} unknowns, got a Jacobian of rank {rank}"
        )
    return noise * np.linalg.norm(np.linalg.inv(np.linalg.qr(jacobian, mode="r")), axis=1)


class _InDtypeOf(optx.AbstractSearch):
    """A search whose step size has the dtype of the unknowns.

    Optimistix's trust region starts from 1.0 in JAX's default dtype, with which its
    Levenberg-Marquardt refuses float32 unknowns while x64 is on.
    """

    search: optx.AbstractSearch

    def init(self, y, f_info_struct):
        return self.search.init(y, f_info_struct)

    def step(self, first_step, y, y_eval, f_info, f_eval_info, state):
        size, *rest = self.search.step(first_step, y, y_eval, f_info, f_eval_info, state)
        return size.astype(jnp.result_type(*jax.tree.leaves(y))), *rest


def _blocks(
    residual: Residual,
    parts: Parts,
    params: PyTree,
    rest: PyTree,
    batch: PyTree,
    key: PRNGKeyArray | None,
) -> PyTree[Array]:
    return ask_residual(residual, parts.merge(params, rest), batch, key)


def _solve(
    residual: Residual,
    weights: Weights,
    parts: Parts,
    solver: "_Recording",
    params: PyTree,
    rest: PyTree,
    batch: PyTree,
    key: PRNGKeyArray | None,
) -> tuple[PyTree, Float[Array, " max_steps"], Int[Array, ""], optx.RESULTS]:
    """The best parameters, the loss after each step, the number of steps, and how it ended."""
    # The solver sees plain arrays: Lineax builds the trees of its unknowns and residuals anew while
    # it evaluates shapes, where Flax's variables cannot be made.
    unknowns, structure = jax.tree.flatten(params)

    def blocks(unknowns: list[Array], _: None) -> list[Array]:
        model = parts.merge(jax.tree.unflatten(structure, unknowns), rest)
        return jax.tree.leaves(scaled(ask_residual(residual, model, batch, key), weights))

    found = optx.least_squares(blocks, solver, unknowns, max_steps=solver.max_steps, throw=False)
    best = jax.tree.unflatten(structure, found.value)
    return best, found.state.losses, found.stats["num_steps"], found.result


class _RecordingState(eqx.Module):
    inner: PyTree
    losses: Float[Array, " max_steps"]  # after each step
    count: Int[Array, ""]
    best: PyTree
    best_loss: Scalar


class _Recording(optx.AbstractLeastSquaresSolver):
    """A solver that also keeps the loss after each step and the best point seen.

    `optimistix.BestSoFarLeastSquares` (0.1.0) never looks at the last point, which is the best one
    of a method that converges, and refuses float32 unknowns while x64 is on.
    """

    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar]
    solver: optx.AbstractGaussNewton
    max_steps: int

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        inner = self.solver.init(fn, y, args, options, f_struct, aux_struct, tags)
        dtype = jnp.result_type(*jax.tree.leaves(f_struct))
        losses = jnp.full(self.max_steps, jnp.nan, dtype)
        return _RecordingState(inner, losses, jnp.asarray(0), y, jnp.asarray(jnp.inf, dtype))

    def step(self, fn, y, args, options, state, tags):
        y, inner, aux = self.solver.step(fn, y, args, options, state.inner, tags)
        # The residual at the point just accepted, which is `y`.
        squares = [jnp.sum(jnp.square(r)) for r in jax.tree.leaves(inner.f_info.residual)]
        loss = sum(squares[1:], squares[0])
        better = loss < state.best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), y, state.best)
        best_loss = jnp.where(better, loss, state.best_loss)
        losses = state.losses.at[state.count].set(loss)
        return y, _RecordingState(inner, losses, state.count + 1, best, best_loss), aux

    def terminate(self, fn, y, args, options, state, tags):
        return self.solver.terminate(fn, y, args, options, state.inner, tags)

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return state.best, aux, {}


def _result(verdict: optx.RESULTS) -> RESULTS:
    if bool(verdict == optx.RESULTS.nonlinear_max_steps_reached):
        return RESULTS.max_steps_reached
    return RESULTS.promote(verdict)
