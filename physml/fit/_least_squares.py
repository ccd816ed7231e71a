"""Nonlinear least squares by Gauss-Newton or Levenberg-Marquardt, on a residual as it is."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.blas import single_threaded_blas
from physml._numerics.compiled import compiled
from physml._numerics.parts import Parts, as_arrays, take_apart
from physml._types import Residual
from physml.fit._fit import Fit
from physml.fit._objective import Weights, scaled
from physml.results import RESULTS

_METHODS = ("gauss_newton", "levenberg_marquardt")
_LINEAR = ("qr", "svd")


def least_squares(
    residual: Residual,
    model: Any,
    batch: PyTree[Any] = None,
    *,
    weights: Weights | None = None,
    wrt: Any = nnx.Param,
    method: str = "gauss_newton",
    linear: str = "qr",
    rcond: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100,
    key: PRNGKeyArray | None = None,
) -> Fit:
    r"""Fit a model by nonlinear least squares on the whole of a residual.

    Minimises the same number as `gradient` on `mean_square(residual, weights)`. Each step solves

    $$\min_\delta \|J \delta + r\|^2 + \lambda \|\delta\|^2$$

    by a QR or SVD of the Jacobian J, never by its normal equations, which would square its
    condition number; Gauss-Newton has $\lambda = 0$ and takes the step as it is,
    Levenberg-Marquardt adapts $\lambda$ until the step improves. J has a row for each residual and
    a column for each trained number, and is held whole.

    Gauss-Newton with "qr" needs a J of full rank; with "svd", directions of singular value below
    `rcond` times the largest are left alone.

    Args:
        residual: `residual(model, batch, key) -> blocks`, zero where the model is right.
        model: an `nnx.Module`, a pytree that holds some, or a pytree of arrays. It is not changed.
        batch: passed to the residual.
        weights: by block name, as in `mean_square`.
        wrt: a Flax filter for what is trained; the rest stays fixed. A model without Flax variables
            trains all its floating arrays.
        method: "gauss_newton" or "levenberg_marquardt".
        linear: "qr" or "svd".
        rcond: for "svd"; by default the larger side of J times the dtype's epsilon.
        rtol, atol: converged when a step changes the trained numbers and the scaled residual by
            less than `atol + rtol * (their size)`, largest entry counting; by default the root of
            the dtype's epsilon, beyond which Gauss-Newton's next step would be the last.
        max_steps: evaluations of the residual, at most.
        key: passed to the residual, the same in every step.

    Returns:
        A `Fit` with the best model that was evaluated and the mean square after each step as
        `history["loss"]`. `result` is `completed`, `max_steps_reached`, `nonfinite` or `failed`.

    Raises:
        ValueError: for an unknown `method` or `linear`, an `rcond` without "svd", tolerances or
            `max_steps` that are not positive, or what `mean_square` refuses.
    """
    for name, choice, choices in [("method", method, _METHODS), ("linear", linear, _LINEAR)]:
        if choice not in choices:
            raise ValueError(f"{name} is {choice!r}, expected one of {choices}")
    if rcond is not None and linear != "svd":
        raise ValueError(f"rcond is for linear='svd', linear is {linear!r}")
    limits = {"rtol": rtol, "atol": atol, "max_steps": max_steps}
    for name, limit in limits.items():
        if limit is not None and limit <= 0:
            raise ValueError(f"{name} is {limit}, expected a positive number")

    parts, params, rest = take_apart(model, wrt)
    batch = as_arrays("batch", batch)
    tolerance = float(jnp.finfo(jax.tree.leaves(params)[0].dtype).eps) ** 0.5
    inner = _solver(method, linear, rcond, rtol or tolerance, atol or tolerance)
    solver = _Recording(inner.rtol, inner.atol, inner.norm, inner, max_steps)
    arguments = (
        _Problem(residual, dict(weights or {}), parts),
        solver,
        params,
        (rest, batch, key),
    )
    program, compile_seconds = compiled(_solve, *arguments)
    begin = time.perf_counter()
    with single_threaded_blas():
        params, losses, steps, verdict = jax.block_until_ready(program(*arguments))
    loss = np.asarray(losses)[: int(steps)]
    bad = np.flatnonzero(~np.isfinite(loss))
    return Fit(
        model=parts.merge(params, rest),
        history={"loss": loss, "step": np.arange(len(loss))},
        result=RESULTS.nonfinite if bad.size else _result(verdict),
        state=None,
        step=len(loss),
        nonfinite_step=int(bad[0]) if bad.size else None,
        seconds=time.perf_counter() - begin,
        compile_seconds=compile_seconds,
    )


def cramer_rao(
    predict: Callable[[Array], Array], unknowns: Float[Array, " unknowns"], noise: float
) -> Float[np.ndarray, " unknowns"]:
    r"""The least standard deviations that unbiased estimates can have, whatever finds them.

    Of unknowns p behind data $h(p) + \sigma \xi$, $\xi \sim \mathcal N(0, 1)$ in each number:

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
    jacobian = np.asarray(jax.jit(jax.jacfwd(predict))(unknowns)).reshape(-1, unknowns.size)
    rank = np.linalg.matrix_rank(jacobian)
    if rank < unknowns.size:
        raise ValueError(
            f"predict must tell all {unknowns.size} unknowns; its Jacobian has rank {rank}"
        )
    return noise * np.linalg.norm(np.linalg.inv(np.linalg.qr(jacobian, mode="r")), axis=1)


def _solver(
    method: str, linear: str, rcond: float | None, rtol: float, atol: float
) -> optx.AbstractLeastSquaresSolver:
    solver = lx.SVD(rcond) if linear == "svd" else lx.QR()
    if method == "gauss_newton":
        return optx.GaussNewton(rtol, atol, linear_solver=solver)
    return _LevenbergMarquardt(
        rtol=rtol,
        atol=atol,
        norm=optx.max_norm,
        descent=optx.DampedNewtonDescent(solver),
        search=_InDtypeOf(optx.ClassicalTrustRegion()),
        verbose=_silent,
    )


def _silent(**_: Any) -> None:
    """What Optimistix calls with each step's numbers."""


class _InDtypeOf(optx.AbstractSearch):
    """A search whose step size has the dtype of the unknowns.

    Optimistix's trust region starts from 1.0 in JAX's default dtype, and its Levenberg-Marquardt
    then refuses float32 unknowns while x64 is on.
    """

    search: optx.AbstractSearch

    def init(self, y, f_info_struct):
        return self.search.init(y, f_info_struct)

    def step(self, first_step, y, y_eval, f_info, f_eval_info, state):
        size, *rest = self.search.step(first_step, y, y_eval, f_info, f_eval_info, state)
        return size.astype(jnp.result_type(*jax.tree.leaves(y))), *rest


class _LevenbergMarquardt(optx.AbstractGaussNewton):
    """`optimistix.LevenbergMarquardt`, with a search of our own."""

    rtol: float
    atol: float
    norm: Callable[[Any], Scalar]
    descent: optx.DampedNewtonDescent
    search: optx.AbstractSearch
    verbose: Callable[..., None]


class _Problem(eqx.Module):
    residual: Residual
    weights: dict[str, Any]
    parts: Parts

    def __call__(self, params: Any, args: Any) -> list[PyTree[Array]]:
        rest, batch, key = args
        return scaled(self.residual(self.parts.merge(params, rest), batch, key), self.weights)


def _solve(problem: _Problem, solver: Any, params: Any, args: Any) -> Any:
    solution = optx.least_squares(
        problem, solver, params, args, max_steps=solver.max_steps, throw=False
    )
    steps = solution.stats["num_steps"]
    return solution.value, solution.state.losses, steps, solution.result


class _RecordingState(eqx.Module):
    inner: Any
    losses: Float[Array, " max_steps"]  # after each step
    count: Int[Array, ""]
    best: Any
    best_loss: Scalar


class _Recording(optx.AbstractLeastSquaresSolver):
    """A solver that also keeps the loss after each step and the best point seen."""

    rtol: float
    atol: float
    norm: Callable[[Any], Scalar]
    solver: Any
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
