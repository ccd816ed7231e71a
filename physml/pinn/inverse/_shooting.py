"""Parameters, starts and window networks of one problem: Bock's multiple shooting by collocation.

The solution is cut into windows, and the state at every window's start is an unknown of its own.
A parameter that is far off then spoils each window a little and not the whole trajectory, so the
method converges from poor guesses and through chaos. The jumps between windows are penalised,
weakly at first and in the end so strongly that they vanish.

Source: H. G. Bock, "Recent advances in parameter identification techniques for O.D.E.", Numerical
Treatment of Inverse Problems in Differential and Integral Equations, Birkhäuser (1983).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from physml.pinn.inverse._layout import Layout
from physml.pinn.inverse._parameters import Parameters

DataLoss = Literal["squares", "huber", "soft_l1"]
"""How a residual counts: by its square, or less where it is large."""

LOSSES: tuple[DataLoss, ...] = get_args(DataLoss)
HARDEST = 1e9  # the weight, in typical states, of what has to hold exactly
_HUBER = 1.345  # Huber's constant: 95 % efficient if the noise is normal
_LAST_COUPLING = 1e5  # times the data's size in units of the noise
_FINEST = 1e-6  # the smallest noise that is assumed, as a share of the data's size


class ShootingProblem(eqx.Module):
    """The equation, the windows and the data; `p` are the free parameters, transformed."""

    field: Parameters  # field(t, y, p); y of shape (dim, *batch)
    observe: Callable[[Array], Array]  # (dim,) to (obs,)
    loss: DataLoss = eqx.field(static=True)
    known_noise: bool = eqx.field(static=True)
    num_free: int = eqx.field(static=True)  # unknown numbers: parameters and start
    layout: Layout
    ys: Float[Array, "n obs"]
    noise: Float[Array, " obs"]  # unit of the residual: its standard deviation, where known
    signal: Float[Array, ""]  # the data's size in units of `noise`
    typical_p: Float[Array, " p"]
    typical_y: Float[Array, " dim"]
    # Rows weight * (unknown - mean) of the least-squares problem.
    prior: tuple[Float[Array, " p"], Float[Array, " p"]]  # mean, weight
    start: tuple[Float[Array, " dim"], Float[Array, " dim"]]


class LinearisedWindows(NamedTuple):
    """The problem linearised about a point, the networks' readouts eliminated.

    The columns are the derivatives in a window's start, then in p, then the value itself.
    """

    readouts: Float[Array, "windows size inputs"]  # without the value
    jumps: Float[Array, "gaps dim columns"]
    data: Float[Array, "windows rows columns"]  # in units of `noise`; zero in unused slots
    newton: Float[Array, " windows"]  # last change of u, in typical states

    @property
    def residual(self) -> Float[Array, "windows rows"]:
        """The residual of the data, in units of `noise`."""
        return self.data[:, :, -1]


class ShootingPoint(NamedTuple):
    """A point of the iteration."""

    p: Float[Array, " p"]
    s: Float[Array, "windows dim"]  # states at the windows' starts
    c: Float[Array, "windows rank dim"]  # readouts in the tables' basis
    linear: LinearisedWindows


def evaluate(
    problem: ShootingProblem, p: Array, s: Array, c: Array, newton_steps: Int[ArrayLike, ""]
) -> ShootingPoint:
    """Solve all windows from their starts s at p, by Newton steps from the readouts c."""
    layout = problem.layout

    def solve(start, half, s, c, basis, rows, used):
        rank, dim = c.shape
        # Only the last step's derivatives count. All steps compute them, so that one step is
        # compiled and not two.
        readouts = jnp.zeros((c.size, dim + p.size), c.dtype)
        c, readouts, newton = jax.lax.fori_loop(
            0,
            newton_steps,
            lambda _, carry: _newton(problem, start, half, s, carry[0], p),
            (c, readouts, jnp.zeros((), c.dtype)),
        )
        by = readouts.reshape(rank, dim, -1)
        ahead = jnp.eye(dim, by.shape[-1], dtype=c.dtype)

        end = s + half * (layout.tables.end @ c)
        end_by = ahead + half * jnp.einsum("r,rdk->dk", layout.tables.end, by)
        u = s[None] + half * (basis @ c)
        u_by = ahead[None] + half * jnp.einsum("nr,rdk->ndk", basis, by)

        def observed(u, u_by):
            value, tangent = jax.linearize(problem.observe, u)
            return value, jax.vmap(tangent, 1, 1)(u_by)

        value, value_by = jax.vmap(observed)(u, u_by)
        weight = jnp.where(used[:, None], 1 / problem.noise[None], 0.0)
        data = jnp.concatenate([value_by, (value - problem.ys[rows])[:, :, None]], axis=2)
        data = (weight[:, :, None] * data).reshape(value.size, -1)
        return c, jnp.concatenate([end_by, end[:, None]], axis=1), readouts, data, newton

    c, ends, readouts, data, newton = jax.vmap(solve)(
        layout.starts, layout.halves, s, c, layout.basis, layout.rows, layout.used
    )
    jumps = ends[:-1].at[:, :, -1].add(-s[1:])
    return ShootingPoint(p, s, c, LinearisedWindows(readouts, jumps, data, newton))


def _newton(problem: ShootingProblem, start, half, s, c, p):
    """A Gauss-Newton step of one window's readout, and the readout's derivatives."""
    tables = problem.layout.tables
    times = start + half * (tables.points + 1)
    (rank, dim), root = c.shape, jnp.sqrt(tables.weights)
    u = s[:, None] + half * (tables.values @ c).T
    f, tangent = jax.linearize(lambda u, p: problem.field(times, u, p), u, p)
    eye, eye_p = jnp.eye(dim, dtype=c.dtype), jnp.eye(p.size, dtype=c.dtype)
    directions = jnp.broadcast_to(eye[:, :, None], (dim, *u.shape))
    f_u = jax.vmap(lambda v: tangent(v, jnp.zeros_like(p)))(directions)
    f_p = jax.vmap(lambda v: tangent(jnp.zeros_like(u), v))(eye_p)
    residual = (tables.slopes @ c).T - f
    matrix = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, eye)
    matrix = matrix - half * jnp.einsum("p,pr,jip->ipjr", root, tables.values, f_u)
    matrix = matrix.transpose(0, 1, 3, 2).reshape(dim * root.size, rank * dim)
    right = root[None, None] * jnp.concatenate([residual[None], -f_u, -f_p])
    right = right.reshape(right.shape[0], -1).T
    # The triangle of [A B] holds that of A, and Q^T B beside it.
    triangle = jnp.linalg.qr(jnp.concatenate([matrix, right], axis=1), mode="r")
    size = rank * dim
    answer = -jax.scipy.linalg.solve_triangular(triangle[:size, :size], triangle[:size, size:])
    step = answer[:, 0].reshape(rank, dim)
    change = jnp.max(jnp.abs(half * (tables.values @ step)) / problem.typical_y[None])
    return c + step, answer[:, 1:], change


def weigh(loss: DataLoss, r: Array) -> tuple[Array, Array, Array]:
    r"""Returns $\rho, \rho'/(2r), \rho''/2$ of residuals r in standard deviations."""
    if loss == "huber":
        size = jnp.abs(r)
        inside = size <= _HUBER
        cost = jnp.where(inside, r**2, _HUBER * (2 * size - _HUBER))
        weight = _HUBER / jnp.maximum(size, _HUBER)
        return cost, weight, inside.astype(r.dtype)
    if loss == "soft_l1":
        root = jnp.sqrt(1 + r**2)
        return 2 * (root - 1), 1 / root, root**-3
    return r**2, jnp.ones_like(r), jnp.ones_like(r)


def data_cost(problem: ShootingProblem, point: ShootingPoint, scale: Array) -> Float[Array, ""]:
    """The loss of the data, and the squares of the priors' rows."""
    cost = weigh(problem.loss, point.linear.residual / scale)[0]
    return jnp.sum(cost) + jnp.sum(prior_rows(problem, point) ** 2)


def prior_rows(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, " unknowns"]:
    """The priors' rows of the least-squares problem at a point: of the start, then of p."""
    anchored = (point.s[0], *problem.start), (point.p, *problem.prior)
    return jnp.concatenate([weight * (x - mean) for x, mean, weight in anchored])


def total_cost(
    problem: ShootingProblem, point: ShootingPoint, scale: Array, coupling: Array
) -> Float[Array, ""]:
    """The cost of data and priors, and of the jumps and the windows' last Newton steps."""
    jumps = point.linear.jumps[:, :, -1] / problem.typical_y[None]
    gaps = jnp.sum(jumps**2) + jnp.sum(point.linear.newton**2)
    return data_cost(problem, point, scale) + coupling**2 * gaps


def last_coupling(problem: ShootingProblem, scale: Array) -> Float[Array, ""]:
    """The coupling at which jumps no longer matter."""
    return jnp.minimum(_LAST_COUPLING * problem.signal / scale, HARDEST)


def used_rows(problem: ShootingProblem) -> Bool[Array, "windows rows"]:
    """Which rows of the residual are data: each observed number of a slot is a row."""
    return jnp.repeat(problem.layout.used, problem.ys.shape[1], axis=1)


def estimate_scale(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, ""]:
    """The standard deviation of the residual in units of `noise`; 1 where that is known."""
    residual = point.linear.residual
    if problem.known_noise:
        return jnp.ones((), residual.dtype)
    least = _FINEST * problem.signal
    if problem.loss == "squares":
        variance = jnp.sum(residual**2) / max(problem.ys.size - problem.num_free, 1)
        return jnp.maximum(jnp.sqrt(variance), least)
    # The median of |r| hardly moves with outliers; of normal noise it is the sd / 1.4826.
    size = jnp.where(used_rows(problem), jnp.abs(residual), jnp.nan)
    return jnp.maximum(1.4826 * jnp.nanmedian(size), least)


def states_at_data(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, "n dim"]:
    """The states at the times of the observations, by the tables of their windows."""
    layout = problem.layout
    u = point.s[:, None] + layout.halves[:, None, None] * (layout.basis @ point.c)
    u = jnp.where(layout.used[:, :, None], u, 0.0)
    return jnp.zeros((len(problem.ys), u.shape[2]), u.dtype).at[layout.rows].add(u)


def window_residuals(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, " windows"]:
    """The largest residual of each window between the Gauss points, times the window's span.

    This estimates by how much u is wrong, in units of a typical state.
    """
    tables = problem.layout.tables

    def largest(start, half, s, c):
        u = s[:, None] + half * (tables.check_values @ c).T
        f = problem.field(start + half * (tables.check_points + 1), u, point.p)
        change = 2 * half * jnp.max(jnp.abs((tables.check_slopes @ c).T - f), axis=1)
        return jnp.max(change / problem.typical_y)

    return jax.vmap(largest)(problem.layout.starts, problem.layout.halves, point.s, point.c)
