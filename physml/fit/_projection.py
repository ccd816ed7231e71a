"""Gauss-Newton on all weights, with those of the last layer eliminated: a step for the one loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from physml._numerics.blas import single_threaded_blas
from physml._numerics.parts import Parts, as_arrays, take_apart
from physml._types import Residual
from physml.fit._fit import Fit
from physml.fit._gradient import State
from physml.fit._loop import Callback, loop
from physml.fit._objective import scaled

_SHARES = (1.0, 0.3, 0.1, 0.01, 0.0)  # of a step, tried together; the last one is the old point
# The factors of the two dampings after a step that was made whole, and after another.
_FALL, _RISE = (0.1, 0.3), (10.0, 4.0)
_LOWEST, _HIGHEST = (1e-26, 1e-14), 1e6


class VariableProjection(eqx.Module):
    r"""How to take damped Gauss-Newton steps in which the last layer follows the others.

    Attributes:
        damping: of the first step, in units of the Jacobian's largest squared column; that of the
            last layer is ten times as large, in units of its own.
        linear: a part of the path of the weights that are eliminated: the name of the last layer.
    """

    damping: float | Array = 1e-3
    linear: str = eqx.field(static=True, default="readout")

    def init(self, params: Any) -> Float[Array, "2"]:
        """The dampings of the last layer and of the others, all that is carried along.

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


def variable_projection(
    residual: Residual,
    model: Any,
    data: PyTree[Any],
    *,
    method: VariableProjection = VariableProjection(),  # noqa: B008 -- immutable
    steps: int = 50,
    shared: tuple[str, ...] = (),
    wrt: Any = nnx.Param,
    key: PRNGKeyArray | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Fit:
    r"""Fit a model whose last layer is linear by damped Gauss-Newton with variable projection.

    Minimises the same number as `gradient` on `mean_square(residual)`. With a the weights of the
    last layer, b all others, and $J_a$ and $J_b$ the Jacobians of the scaled residual r, a step
    solves

    $$\min_{\delta a, \delta b} \|r + J_a\, \delta a + J_b\, \delta b\|^2 +
    \mu \|\delta a\|^2 + \lambda \|\delta b\|^2$$

    by eliminating $\delta a$ with an SVD of $J_a$, and then takes a step in a alone, which is
    exact where r is linear in a. The two dampings fall at paces of their own, $\mu$ to nothing:
    the last layer, so ill-conditioned that a joint damping crawls on it, is then projected out,
    while early on it cannot run away where r is not linear in it. A step that does not lower the
    loss is cut short or not made, and the dampings raised.

    Costs $O(m^2 (m + n))$ for m residuals and n weights (m < n), so that wide networks are cheap
    and many rows are not.

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
        progress, callback: as for `fit.gradient`.

    Returns:
        A `Fit` with the mean square before each step as `history["loss"]`, and "damping".

    Raises:
        ValueError: if the last layer is not found, or what `fit.loop` refuses.

    Source: G. Golub, V. Pereyra, "Separable nonlinear least squares: the variable projection
    method and its applications", Inverse Problems 19 (2003) R1, with Kaufman's Jacobian (sec. 3).
    """
    parts, params, rest = take_apart(model, wrt)
    data = as_arrays("data", data)
    state = State(params, rest, method.init(params), jnp.zeros((), jnp.int32), key, None)
    with single_threaded_blas():
        outcome = loop(
            ProjectionStep(residual, traced(method), parts, shared),
            state,
            data,
            num_steps=steps,
            key=key,
            progress=progress,
            callback=callback,
        )
    last = outcome.state
    return outcome.as_fit(parts.merge(last.params, last.rest), last)


class ProjectionStep(eqx.Module):
    residual: Residual
    method: VariableProjection
    parts: Parts
    shared: tuple[str, ...] = eqx.field(static=True, default=())

    def __call__(
        self, state: State, batch: Any, key: PRNGKeyArray | None
    ) -> tuple[State, dict[str, Array]]:
        mask = _is_linear(state.params, self.method.linear)
        (a, join_a), (b, join_b) = map(ravel_pytree, eqx.partition(state.params, mask))
        num_rows = jax.tree.leaves(batch)[0].shape[0]

        def params(a: Array, b: Array) -> Any:
            return eqx.combine(join_a(a), join_b(b))

        def blocks(a: Array, b: Array, row: Any, shared: bool) -> Array:
            """The residual's blocks of one row, or those of none, as one vector."""
            model = self.parts.merge(params(a, b), state.rest)
            found = self.residual(model, jax.tree.map(lambda x: x[None], row), key)
            named = found if isinstance(found, dict) else {"residual": found}
            chosen = {n: x for n, x in named.items() if (n in self.shared) == shared}
            return ravel_pytree(scaled(chosen, {}))[0] if chosen else jnp.zeros(0, a.dtype)

        first = jax.tree.map(lambda x: x[0], batch)

        def whole(function: Any, a: Array, b: Array) -> Any:
            """A function of `blocks` for all rows, weighed as in their mean square."""
            each = jax.vmap(lambda row: function(lambda a, b: blocks(a, b, row, False))(a, b))(
                batch
            )
            once = function(lambda a, b: blocks(a, b, first, True))(a, b)

            def stack(rows: Array, shared: Array) -> Array:
                rows = rows.reshape(-1, *rows.shape[2:]) / jnp.sqrt(float(num_rows))
                return jnp.concatenate([rows.astype(a.dtype), shared])

            return jax.tree.map(stack, each, once)

        def loss(a: Array, b: Array) -> Scalar:
            return jnp.sum(whole(lambda f: f, a, b) ** 2)

        def linearized(argnums: Any) -> Any:
            """A function's Jacobians and its value, by one evaluation."""
            return lambda f: jax.jacrev(lambda *x: (f(*x),) * 2, argnums, has_aux=True)

        with jax.default_matmul_precision("highest"):
            (jac_a, jac_b), r = whole(linearized((0, 1)), a, b)
            damping_a, damping_b = state.opt_state
            project, solve = _eliminate(jac_a, damping_a)
            unit = jnp.max(jnp.sum(jac_b**2, axis=0))
            rest = project(jnp.concatenate([jac_b, r[:, None]], axis=1))
            step_b = _damped(rest[:, :-1], rest[:, -1], damping_b * unit)
            step_a = -solve(r + jac_b @ step_b)
            # The last layer once more, where the others have gone.
            far_a, far_b = a + step_a, b + step_b
            jac_a, far_r = whole(linearized(0), far_a, far_b)
            exact_a = far_a - _eliminate(jac_a, damping_a)[1](far_r)
            shares = jnp.asarray(_SHARES, a.dtype)[:, None]
            tries_a = jnp.concatenate([exact_a[None], a[None] + shares * step_a[None]])
            tries_b = jnp.concatenate([far_b[None], b[None] + shares * step_b[None]])
            losses = jax.lax.map(lambda x: loss(*x), (tries_a, tries_b))

        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        best = jnp.argmin(losses)
        factors = jnp.where(best <= 1, jnp.asarray(_FALL, a.dtype), jnp.asarray(_RISE, a.dtype))
        damping = jnp.clip(state.opt_state * factors, jnp.asarray(_LOWEST, a.dtype), _HIGHEST)
        new = params(tries_a[best], tries_b[best])
        state = State(new, state.rest, damping, state.step + 1, state.key, state.best)
        return state, {"loss": losses[-1], "damping": damping}


def traced(settings: Any) -> Any:
    """Settings with their Python numbers as arrays, so that another value compiles nothing."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float | int) else x, settings)


def _is_linear(params: Any, name: str) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: name in jax.tree_util.keystr(path), params
    )


def _eliminate(jacobian: Float[Array, "m k"], damping: Scalar) -> tuple[Callable, Callable]:
    r"""Two maps by the minimum of $\|J x + r\|^2 + \mu \|x\|^2$ over x.

    The minimum is the squared norm of the first map of r, and lies at minus the second. $\mu$ is
    `damping` times the largest squared singular value.
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
