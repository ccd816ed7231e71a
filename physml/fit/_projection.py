"""Gauss-Newton on all weights, with those of the last layer eliminated: a step for the one loop."""

import os
from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked, require_fields
from physml._numerics.checks import require_positive
from physml._numerics.parts import Filter, Parts, as_arrays, take_apart, traced
from physml._numerics.units import max_of
from physml._types import Residual
from physml.fit._fit import Fit, Model, concluded
from physml.fit._gradient import FitState
from physml.fit._loop import Callback, loop
from physml.fit._objective import ask_residual, scaled

_SHARES = (1.0, 0.3, 0.1, 0.01, 0.0)  # of a step, tried together; the last share is the old point
# The factors of the two dampings after a whole step, and after a shortened one.
_FALL, _RISE = (0.1, 0.3), (10.0, 4.0)
_LOWEST, _HIGHEST = (1e-26, 1e-14), 1e6


class VariableProjection(eqx.Module):
    r"""The settings of damped Gauss-Newton steps in which the last layer follows the others.

    Attributes:
        damping: in the first step, in units of the Jacobian's largest squared column. The last
            layer's damping is ten times as large, in units of its own largest column.
        linear: the name of the last layer, whose weights are eliminated: a part of their paths.
    """

    damping: float | Float[Array, ""] = 1e-3
    linear: str = eqx.field(static=True, default="readout")

    def __check_init__(self):
        require_fields(self)
        require_positive(damping=self.damping)

    def init(self, params: PyTree) -> Float[Array, "2"]:
        """The dampings of the last layer and of the others: the state of the method.

        Raises:
            ValueError: no weight's path has `linear` in it, or all of them have.
        """
        chosen = jax.tree.leaves(_is_linear(params, self.linear))
        if not any(chosen) or all(chosen):
            paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
            raise ValueError(
                f"linear must name the last layer and nothing else, got {self.linear!r} for "
                f"weights {paths}"
            )
        dtype = jax.tree.leaves(params)[0].dtype
        return jnp.asarray(self.damping, dtype) * jnp.asarray([10.0, 1.0], dtype)


@checked
def variable_projection(
    residual: Residual,
    model: Model,
    data: PyTree,
    *,
    method: VariableProjection = VariableProjection(),  # noqa: B008 -- immutable
    steps: int = 50,
    shared: tuple[str, ...] = (),
    wrt: Filter = nnx.Param,
    key: PRNGKeyArray | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Fit[Model]:
    r"""Fit a model whose last layer is linear by damped Gauss-Newton with variable projection.

    Minimises the same number as `gradient` on `mean_square(residual)`. With a the weights of the
    last layer, b all others, and $J_a$ and $J_b$ the Jacobians of the scaled residual r, a step
    solves

    $$\min_{\delta a, \delta b} \|r + J_a\, \delta a + J_b\, \delta b\|^2 +
    \mu \|\delta a\|^2 + \lambda \|\delta b\|^2$$

    by eliminating $\delta a$ with an SVD of $J_a$, and then takes a step in a alone, which is
    exact where r is linear in a. The two dampings fall at different rates. The last layer is so
    ill-conditioned that with the damping of the others it would converge slowly: $\mu$ falls to
    nothing, which projects the last layer out, but not at once, since r need not be linear in a. A
    step that does not lower the loss is shortened or not made, and both dampings are raised.

    A step costs $O(m^2 (m + n))$ for m residuals and n weights (m < n): wide networks are cheap,
    many rows are not.

    Args:
        residual: `residual(model, batch, key) -> blocks`. Row i of a block must depend on row i of
            the batch alone, but for the blocks named in `shared`; it is called with batches of one
            row.
        model: an `nnx.Module` or a pytree that holds some. It is not changed.
        data: pytree of arrays of one leading length.
        method: the settings; its numbers are traced.
        steps: steps, each with one Jacobian.
        shared: the blocks that belong to no row of the data, such as an initial condition.
        wrt: a Flax filter for what is trained.
        key: passed to the residual.
        checkpoint, progress, callback: as for `fit.gradient`.

    Returns:
        A `Fit` with the mean square before each step as `history["loss"]`, and "damping".

    Raises:
        ValueError: if the last layer is not found, or what `fit.loop` refuses.

    Source: G. Golub, V. Pereyra, "Separable nonlinear least squares: the variable projection
    method and its applications", Inverse Problems 19 (2003) R1, with Kaufman's Jacobian (sec. 3).
    """
    parts, params, rest = take_apart(model, wrt)
    data = as_arrays("data", data)
    with single_threaded_blas():
        fitted = loop(
            ProjectionStep(residual, traced(method), parts, shared),
            FitState.begin(params, rest, method.init(params), key),
            data,
            num_steps=steps,
            key=key,
            checkpoint=checkpoint,
            progress=progress,
            callback=callback,
        )
    model = parts.merge(fitted.state.params, fitted.state.rest)
    return concluded(replace(fitted, model=model), "fit.variable_projection")


class ProjectionStep(eqx.Module):
    """A step of `fit.loop`: damped Gauss-Newton in which the last layer follows the others."""

    residual: Residual
    method: VariableProjection
    parts: Parts
    shared: tuple[str, ...] = eqx.field(static=True, default=())

    def __call__(
        self, state: FitState, batch: PyTree, key: PRNGKeyArray | None
    ) -> tuple[FitState, dict[str, Array]]:
        of = _Separated(self, state, batch, key)
        a, b = of.a, of.b

        def loss(a: Array, b: Array) -> Scalar:
            return jnp.sum(of.all_rows(lambda f: f, a, b) ** 2)

        def linearised(argnums: int | tuple[int, ...]) -> Callable:
            """A function's Jacobians and its value, by one evaluation."""
            return lambda f: jax.jacrev(lambda *x: (f(*x),) * 2, argnums, has_aux=True)

        with jax.default_matmul_precision("highest"):
            (jac_a, jac_b), r = of.all_rows(linearised((0, 1)), a, b)
            damping_a, damping_b = state.opt_state
            project, solve = _eliminate(jac_a, damping_a)
            unit = max_of(jnp.sum(jac_b**2, axis=0))
            rest = project(jnp.concatenate([jac_b, r[:, None]], axis=1))
            step_b = _damped(rest[:, :-1], rest[:, -1], damping_b * unit)
            step_a = -solve(r + jac_b @ step_b)
            # Fit the last layer once more, at the new values of the others.
            far_a, far_b = a + step_a, b + step_b
            jac_a, far_r = of.all_rows(linearised(0), far_a, far_b)
            exact_a = far_a - _eliminate(jac_a, damping_a)[1](far_r)
            shares = jnp.asarray(_SHARES, a.dtype)[:, None]
            tries_a = jnp.concatenate([exact_a[None], a[None] + shares * step_a[None]])
            tries_b = jnp.concatenate([far_b[None], b[None] + shares * step_b[None]])
            losses = jax.lax.map(lambda x: loss(*x), (tries_a, tries_b))

        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        best = jnp.argmin(losses)
        factors = jnp.where(best <= 1, jnp.asarray(_FALL, a.dtype), jnp.asarray(_RISE, a.dtype))
        damping = jnp.clip(state.opt_state * factors, jnp.asarray(_LOWEST, a.dtype), _HIGHEST)
        new = of.params(tries_a[best], tries_b[best])
        state = FitState(new, state.rest, damping, state.step + 1, state.key, state.best)
        return state, {"loss": losses[-1], "damping": damping}


class _Separated:
    """The scaled residual as a function of two vectors: the last layer's weights and all others.

    Attributes:
        a, b: the two vectors of the state.
    """

    def __init__(
        self, step: ProjectionStep, state: FitState, batch: PyTree, key: PRNGKeyArray | None
    ):
        self._step, self._state, self._batch, self._key = step, state, batch, key
        mask = _is_linear(state.params, step.method.linear)
        (self.a, self._join_a), (self.b, self._join_b) = map(
            ravel_pytree, eqx.partition(state.params, mask)
        )

    def params(self, a: Array, b: Array) -> PyTree:
        """The trained arrays as the state holds them."""
        return eqx.combine(self._join_a(a), self._join_b(b))

    def all_rows(self, function: Callable, a: Array, b: Array) -> PyTree:
        """A function of the residual for all rows, weighed as in their mean square."""
        num_rows = jax.tree.leaves(self._batch)[0].shape[0]
        first = jax.tree.map(lambda x: x[0], self._batch)
        each = jax.vmap(lambda row: function(lambda a, b: self._blocks(a, b, row, False))(a, b))(
            self._batch
        )
        once = function(lambda a, b: self._blocks(a, b, first, True))(a, b)

        def stack(rows: Array, shared: Array) -> Array:
            rows = rows.reshape(-1, *rows.shape[2:]) / jnp.sqrt(float(num_rows))
            return jnp.concatenate([rows.astype(a.dtype), shared])

        return jax.tree.map(stack, each, once)

    def _blocks(self, a: Array, b: Array, row: PyTree, shared: bool) -> Array:
        """The residual's blocks of one row, or those that belong to no row, as one vector."""
        model = self._step.parts.merge(self.params(a, b), self._state.rest)
        batch = jax.tree.map(lambda x: x[None], row)
        found = ask_residual(self._step.residual, model, batch, self._key)
        named = found if isinstance(found, dict) else {"residual": found}
        chosen = {n: x for n, x in named.items() if (n in self._step.shared) == shared}
        return ravel_pytree(scaled(chosen, {}))[0] if chosen else jnp.zeros(0, a.dtype)


def _is_linear(params: PyTree, name: str) -> PyTree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: name in jax.tree_util.keystr(path), params
    )


def _eliminate(jacobian: Float[Array, "m k"], damping: Scalar) -> tuple[Callable, Callable]:
    r"""Returns (project, solve), which minimise $\|J x + r\|^2 + \mu \|x\|^2$ over x.

    The minimum is $\|\mathrm{project}(r)\|^2$, at $x = -\mathrm{solve}(r)$. $\mu$ is `damping`
    times the largest squared singular value of J.
    """
    left, singular, right = jnp.linalg.svd(jacobian, full_matrices=False)
    # NumPy's matrix_rank: below this, a singular value is rounding.
    kept = singular > max(jacobian.shape) * jnp.finfo(jacobian.dtype).eps * singular[0]
    relative = jnp.where(kept, singular / jnp.where(kept, singular[0], 1.0), 0.0)
    sizes = jnp.where(kept, relative**2 + damping, 1.0)
    share = jnp.where(kept, 1 - jnp.sqrt(damping / sizes), 0.0)
    inverse = relative / sizes / jnp.where(singular[0] > 0, singular[0], 1.0)
    return (
        lambda x: x - left @ (share[:, None] * (left.T @ x)),
        lambda r: right.T @ (inverse * (left.T @ r)),
    )


def _damped(
    jacobian: Float[Array, "m n"], r: Float[Array, " m"], damping: Scalar
) -> Float[Array, " n"]:
    r"""The minimiser of $\|J x + r\|^2 + \lambda \|x\|^2$, by QR of the taller of two matrices."""
    m, n = jacobian.shape
    root = jnp.sqrt(damping) * jnp.eye(min(m, n), dtype=r.dtype)
    if m < n:  # x = -J^T (J J^T + lambda)^-1 r
        q, triangle = jnp.linalg.qr(jnp.concatenate([jacobian.T, root]))
        return -q[:n] @ jax.scipy.linalg.solve_triangular(triangle, r, trans=1)
    q, triangle = jnp.linalg.qr(jnp.concatenate([jacobian, root]))
    return -jax.scipy.linalg.solve_triangular(triangle, q[:m].T @ r)
