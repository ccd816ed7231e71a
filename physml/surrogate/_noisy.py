r"""Maps from noisy rows: states and readout are fitted together, so that the map explains the rows.

One-step least squares on noisy rows has noise in its inputs, which biases the map, however many the
rows. Here the states are unknowns too (errors in variables):

$$y_k = x_k + e_k, \quad x_{k+1} = \Phi_\theta(x_k) + w_k, \qquad e \sim N(0, R), w \sim N(0, Q).$$

About a smoothed path the model is linear in x and, since the readout is linear, in $\theta$. The
Kalman filter eliminates the states: its innovations, divided by their standard deviation, are
linear in $\theta$ with a Jacobian that the filter's own recursion gives, and least squares for them
is a step of Gauss-Newton for the likelihood of the rows (the prediction-error method: Ljung, System
Identification, 2nd ed. 1999, section 7.4). The smoother then moves the path (Rauch, Tung and
Striebel, AIAA J. 3, 1965) and gives the expected $w w^\top$, from which Q follows (Shumway and
Stoffer, J. Time Ser. Anal. 3, 1982). R is the noise of the data; Q falls as far as the map is able
to explain the rows over many steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from physml._numerics.blas import single_threaded_blas
from physml.data import Trajectories
from physml.surrogate._basis import Basis, Rows, basis_above, directions_of
from physml.surrogate._stepper import Stepper

MAX_STEPS = 12
"""Gauss-Newton steps; the likelihood of the rows settles in five to ten."""

TOLERANCE = 2e-4
"""The smallest gain of the mean log-likelihood for which another step is worth its time."""

CUTOFFS = tuple(10.0 ** -np.arange(1.0, 10.1))
"""Shares of the largest singular value below which directions of the readout are left out."""

MARGIN = 1e-3
"""By so much more of the mean -2 log-likelihood further directions must explain."""

MOST_UNKNOWNS = 450
ROWS_PER_UNKNOWN = 20
FACTORS = tuple(10.0 ** np.arange(1.0, -4.1, -1.0))
"""Multiples of Q among which each step takes the likeliest."""

LEAST_Q = 1e-8
"""The smallest Q, as a share of R: the map is then followed for thousands of steps."""


class Refined(NamedTuple):
    """The readout's weights, the states they belong to, and the mean -2 log-likelihood of a row."""

    weights: Float[np.ndarray, "columns dim"]
    states: Float[Array, "num time dim"]
    misfit: float


def refine(
    stepper: Stepper,
    noisy: Trajectories,
    smoothed: Trajectories,
    noise: np.ndarray,
    warmup: int = 0,
    rcond: float | None = None,
) -> Refined:
    """The readout and the states that explain the noisy rows best.

    Args:
        stepper: the map; its readout's weights are of no account.
        noisy: the rows as they were observed.
        smoothed: a first guess of the states.
        noise: the standard deviation of each column's noise.
        warmup: rows left out at the start of each trajectory.
        rcond: the cut-off of the features' singular values, chosen unless given.
    """
    spread = np.asarray(noisy.ys).std(axis=(0, 1))
    least = float(jnp.finfo(noisy.ys.dtype).eps) ** 0.5
    R = jnp.diag(jnp.asarray(np.maximum(noise, least * spread) ** 2))
    counts = jnp.arange(warmup, noisy.ys.shape[1] - 1, dtype=jnp.int32)
    rows = Rows(noisy.ys[:, warmup:], noisy.t0s + noisy.ts[0], counts)
    path = smoothed.ys[:, warmup:]
    with single_threaded_blas():
        held = np.arange(len(noisy)) % 5 == 4 if len(noisy) >= 5 else np.ones(len(noisy), bool)
        cutoffs = CUTOFFS if rcond is None else (rcond,)
        return _iterate(_chosen_basis(stepper, rows, path, R, held, cutoffs), rows, path, R)


def _iterate(basis: Basis, rows: Rows, path: Array, R: Array) -> Refined:
    theta, Q = _one_step_fit(basis, rows, path)
    best = None
    for _ in range(MAX_STEPS):
        linear = _linearised(basis, theta, rows, path)
        scores = _scores(linear, rows.ys - path, R, _candidates(Q, R))
        pick = int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))
        Q, misfit = _candidates(Q, R)[pick], float(scores[pick])
        settled = best is not None and not misfit < best[0] - TOLERANCE
        if best is None or misfit < best[0]:
            best = misfit, theta, path
        if settled or not np.isfinite(misfit):
            break
        change = _gauss_newton(basis, rows, path, linear, R, Q)
        moved, Q = _smoothed(basis, rows, path, linear, R, Q, change)
        theta, path = theta + change, path + moved
    misfit, theta, path = best  # pyright: ignore[reportGeneralTypeIssues]
    return Refined(basis.weights(np.asarray(theta)), path, misfit)


def _candidates(Q: Array, R: Array) -> Array:
    each = jnp.asarray(FACTORS, Q.dtype)[:, None] * jnp.diag(Q)[None]
    return jax.vmap(jnp.diag)(jnp.maximum(each, LEAST_Q * jnp.diag(R)[None]))


def _chosen_basis(
    stepper: Stepper,
    rows: Rows,
    path: Array,
    R: Array,
    held: np.ndarray,
    cutoffs: tuple[float, ...],
) -> Basis:
    """As few directions as explain the rows of trajectories that are held out as well as more."""
    parts = directions_of(stepper, rows, path)
    learnt = ~held if not held.all() else held
    data = [Rows(rows.ys[kept], rows.t0s[kept], rows.counts) for kept in (learnt, held)]
    most = min(MOST_UNKNOWNS, path[learnt, 1:].size // ROWS_PER_UNKNOWN)
    fit = [cut for cut in cutoffs if basis_above(stepper, parts, cut).size <= most]
    cutoffs = tuple(fit) or cutoffs[:1]
    whole = basis_above(stepper, parts, cutoffs[-1])
    triangle = np.asarray(_one_step_triangle(whole, data[0], path[learnt]))
    scores = []
    for cutoff in cutoffs:  # all in one program: the directions left out have theta = 0
        kept = np.flatnonzero(whole.kept(basis_above(stepper, parts, cutoff)))
        theta = np.zeros(whole.size, path.dtype)
        theta[kept] = np.linalg.lstsq(triangle[:, kept], triangle[:, -1])[0]
        Q = _one_step_error(whole, jnp.asarray(theta), data[0], path[learnt])
        linear = _linearised(whole, jnp.asarray(theta), data[1], path[held])
        found = _scores(linear, data[1].ys - path[held], R, _candidates(Q, R))
        scores.append(np.nanmin(np.append(np.asarray(found), np.inf)))
    good = np.flatnonzero(np.asarray(scores) <= min(scores) + MARGIN)
    return basis_above(stepper, parts, cutoffs[good[0]])


def _along(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of a state, its start time and its step count, along every trajectory."""
    inner = jax.vmap(function, in_axes=(0, None, 0))
    return jax.vmap(inner, in_axes=(0, 0, None))


def _one_step_fit(basis: Basis, rows: Rows, path: Array) -> tuple[Array, Array]:
    """The readout by single steps along the path, and the mean square of what it misses."""
    theta = _solved(_one_step_triangle(basis, rows, path))
    return theta, _one_step_error(basis, theta, rows, path)


@eqx.filter_jit
def _one_step_triangle(basis: Basis, rows: Rows, path: Array) -> Array:
    def absorb(triangle: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        xs, t0 = one
        B = jax.vmap(basis.rows, (0, None, 0))(xs[:-1], t0, rows.counts)
        zero = jnp.zeros(basis.size, xs.dtype)
        known = jax.vmap(lambda y, k: basis.increment(zero, y, t0, k))(xs[:-1], rows.counts)
        scale = basis.stepper.scale
        wanted = (xs[1:] - xs[:-1] - known) / scale[None]
        return _merged(triangle, B / scale[None, :, None], wanted), None

    empty = jnp.zeros((basis.size + 1, basis.size + 1), path.dtype)
    return jax.lax.scan(absorb, empty, (path, rows.t0s))[0]


@eqx.filter_jit
def _one_step_error(basis: Basis, theta: Array, rows: Rows, path: Array) -> Array:
    step = _along(lambda y, t0, k: basis.increment(theta, y, t0, k))
    missed = path[:, 1:] - path[:, :-1] - step(path[:, :-1], rows.t0s, rows.counts)
    return jnp.diag((missed**2).mean(axis=(0, 1)))


def _merged(triangle: Array, design: Array, targets: Array) -> Array:
    """The triangle of the least squares so far and of further rows."""
    size = triangle.shape[1]
    block = jnp.concatenate([design.reshape(-1, size - 1), targets.reshape(-1, 1)], axis=1)
    return jnp.linalg.qr(jnp.concatenate([triangle, block]), mode="r")


def _solved(triangle: Array) -> Array:
    found = np.linalg.lstsq(np.asarray(triangle[:, :-1]), np.asarray(triangle[:, -1]))[0]
    return jnp.asarray(found)


class Linear(NamedTuple):
    """The map along the path: its Jacobians, and by how much it misses the next state."""

    A: Float[Array, "num steps dim dim"]
    c: Float[Array, "num steps dim"]


@eqx.filter_jit
def _linearised(basis: Basis, theta: Array, rows: Rows, path: Array) -> Linear:
    def step(y: Array, t0: Array, k: Array) -> Array:
        return y + basis.increment(theta, y, t0, k)

    A = _along(jax.jacfwd(step))(path[:, :-1], rows.t0s, rows.counts)
    return Linear(A, _along(step)(path[:, :-1], rows.t0s, rows.counts) - path[:, 1:])


def _predict(A: Array, m: Array, P: Array, Q: Array) -> tuple[Array, Array]:
    return A @ m, A @ P @ A.T + Q


def _updated(P: Array, R: Array) -> tuple[Array, Array, Array]:
    """The innovation's Cholesky factor, the gain, and the covariance after it (Joseph's form)."""
    L = jnp.linalg.cholesky(P + R)
    K = cho_solve((L, True), P).T
    rest = jnp.eye(len(R), dtype=R.dtype) - K
    return L, K, rest @ P @ rest.T + K @ R @ K.T


@eqx.filter_jit
def _scores(linear: Linear, seen: Array, R: Array, Qs: Array) -> Array:
    """The mean -2 log-likelihood of a number, for each Q."""

    def one(A: Array, c: Array, v: Array, Q: Array) -> Array:
        def step(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple, Array]:
            A, c, v = row
            m, P = _predict(A, *carry, Q)
            missed = v - m - c
            L, K, P = _updated(P, R)
            white = solve_triangular(L, missed, lower=True)
            score = (white**2).sum() + 2 * jnp.log(jnp.diag(L)).sum()
            return (m + c + K @ missed, P), score

        return jax.lax.scan(step, (v[0], R), (A, c, v[1:]))[1].mean() / len(R)

    each = jax.vmap(one, (0, 0, 0, None))
    return jax.lax.map(lambda Q: each(linear.A, linear.c, seen, Q).mean(), Qs)


def _gauss_newton(
    basis: Basis, rows: Rows, path: Array, linear: Linear, R: Array, Q: Array
) -> Array:
    """The change of theta: least squares of the whitened innovations of all trajectories."""
    return _solved(_innovations(basis, rows, path, linear, R, Q))


@eqx.filter_jit
def _innovations(
    basis: Basis, rows: Rows, path: Array, linear: Linear, R: Array, Q: Array
) -> Array:
    def absorb(triangle: Array, one: tuple[Array, ...]) -> tuple[Array, None]:
        A, c, xs, v, t0 = one

        def step(carry: tuple[Array, ...], row: tuple[Array, ...]) -> tuple[tuple, tuple]:
            m, P, G = carry
            A, c, y, k, v = row
            m, P = _predict(A, m, P, Q)
            missed, G = v - m - c, A @ G + basis.rows(y, t0, k)
            L, K, P = _updated(P, R)
            white = solve_triangular(L, jnp.concatenate([G, missed[:, None]], axis=1), lower=True)
            return (m + c + K @ missed, P, G - K @ G), (white[:, :-1], white[:, -1])

        start = v[0], R, jnp.zeros((len(R), basis.size), v.dtype)
        _, (design, targets) = jax.lax.scan(step, start, (A, c, xs[:-1], rows.counts, v[1:]))
        return _merged(triangle, design, targets), None

    empty = jnp.zeros((basis.size + 1, basis.size + 1), path.dtype)
    seen = rows.ys - path
    return jax.lax.scan(absorb, empty, (linear.A, linear.c, path, seen, rows.t0s))[0]


@eqx.filter_jit
def _smoothed(
    basis: Basis, rows: Rows, path: Array, linear: Linear, R: Array, Q: Array, change: Array
) -> tuple[Array, Array]:
    """By how much the path moves, and the expected square of what the map then misses."""
    more = _along(lambda y, t0, k: basis.rows(y, t0, k) @ change)

    def one(A: Array, c: Array, v: Array) -> tuple[Array, Array]:
        def forth(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple, tuple]:
            A, c, v = row
            before, Pb = _predict(A, *carry, Q)
            before = before + c
            _, K, P = _updated(Pb, R)
            m = before + K @ (v - before)
            return (m, P), (m, P, before, Pb)

        (last, P_last), (ms, Ps, before, Pb) = jax.lax.scan(forth, (v[0], R), (A, c, v[1:]))
        ms, Ps = jnp.concatenate([v[:1], ms]), jnp.concatenate([R[None], Ps])

        def back(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple, tuple]:
            after, P_after = carry
            A, c, m, P, mb, Pb = row
            J = cho_solve((jnp.linalg.cholesky(Pb), True), A @ P).T
            here, P_here = m + J @ (after - mb), P + J @ (P_after - Pb) @ J.T
            cross = A @ J @ P_after
            missed = after - A @ here - c
            square = missed**2 + jnp.diag(P_after + A @ P_here @ A.T - cross - cross.T)
            return (here, P_here), (here, square)

        each = (A, c, ms[:-1], Ps[:-1], before, Pb)
        _, (states, squares) = jax.lax.scan(back, (last, P_last), each, reverse=True)
        return jnp.concatenate([states, last[None]]), squares.mean(axis=0)

    c = linear.c + more(path[:, :-1], rows.t0s, rows.counts)
    moved, squares = jax.vmap(one)(linear.A, c, rows.ys - path)
    return moved, jnp.diag(jnp.maximum(squares.mean(axis=0), LEAST_Q * jnp.diag(R)))
