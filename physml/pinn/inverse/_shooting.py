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

from physml.pinn.collocation import Parameters, defect, nodes_in
from physml.pinn.inverse._layout import Layout
from physml.pinn.inverse._task import NoiseModel

DataLoss = Literal["squares", "huber", "soft_l1"]
"""How a residual counts: by its square, or less where it is large."""

LOSSES: tuple[DataLoss, ...] = get_args(DataLoss)
HARDEST = 1e9  # the weight, in typical states, of what has to hold exactly
_HUBER = 1.345  # Huber's constant: 95 % efficient if the noise is normal
_LAST_COUPLING = 1e5  # times the data's size in units of the noise
_FINEST = 1e-6  # the smallest noise that is estimated, as a share of a column's spread
_KNOWN_FINEST = 1e-8  # the smallest that is given: about what the windows' own error is
_FIRST_FINEST = 3e-3  # the same at first, over the coupling: exact data would pin the windows


class ShootingProblem(eqx.Module):
    """The equation, the windows and the data; `p` are the free parameters, transformed."""

    field: Parameters  # field(t, y, p); y of shape (dim, *batch)
    observe: Callable[[Array], Array]  # (dim,) to (obs,)
    loss: DataLoss = eqx.field(static=True)
    num_free: int = eqx.field(static=True)  # unknown numbers: parameters and start
    layout: Layout
    ys: Float[Array, "n obs"]
    noise: NoiseModel  # as given; None where it is estimated
    first_noise: Float[Array, " obs"]  # a guess of it, by columns
    size: Float[Array, " obs"]  # of the data, by columns
    spread: Float[Array, " obs"]  # their standard deviation, of which the least noise is a share
    scales: "Scales"
    seen: Bool[Array, " dim"]  # the components whose scales the data give
    # Rows weight * (unknown - mean) of the least-squares problem; the start's mean / its scale.
    prior: tuple[Float[Array, " p"], Float[Array, " p"]]  # mean, weight
    start: tuple[Float[Array, " dim"], Float[Array, " dim"]]
    start_known: bool = eqx.field(static=True)


class Scales(NamedTuple):
    """The sizes of the states and the parameters, on which all that is tolerated depends.

    Nothing here has a unit of its own, so that data in other units give the same answer.
    """

    y: Float[Array, " dim"]
    p: Float[Array, " p"]


class LinearisedWindows(NamedTuple):
    """The problem linearised about a point, the networks' readouts eliminated.

    The columns are the derivatives in a window's start, then in p, then the value itself.
    """

    readouts: Float[Array, "windows size inputs"]  # without the value
    jumps: Float[Array, "gaps dim columns"]
    data: Float[Array, "windows rows columns"]  # as the data are; zero in unused slots
    newton: Float[Array, " windows"]  # last change of u, in the states' scales

    @property
    def residual(self) -> Float[Array, "windows rows"]:
        """The residual of the data."""
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
        data = jnp.concatenate([value_by, (value - problem.ys[rows])[:, :, None]], axis=2)
        data = jnp.where(used[:, None, None], data, 0.0).reshape(value.size, -1)
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
    # In units of the scales, because least squares add the components' residuals.
    scale = problem.scales.y
    directions = jnp.broadcast_to(jnp.diag(scale)[:, :, None], (dim, *u.shape))
    f_u = jax.vmap(lambda v: tangent(v, jnp.zeros_like(p)))(directions) / scale[None, :, None]
    f_p = jax.vmap(lambda v: tangent(jnp.zeros_like(u), v))(eye_p) / scale[None, :, None]
    residual = ((tables.slopes @ c).T - f) / scale[:, None]
    matrix = jnp.einsum("p,pr,ij->ipjr", root, tables.slopes, eye)
    matrix = matrix - half * jnp.einsum("p,pr,jip->ipjr", root, tables.values, f_u)
    matrix = matrix.transpose(0, 1, 3, 2).reshape(dim * root.size, rank * dim)
    right = root[None, None] * jnp.concatenate([residual[None], -f_u, -f_p])
    right = right.reshape(right.shape[0], -1).T
    # The triangle of [A B] holds that of A, and Q^T B beside it.
    triangle = jnp.linalg.qr(jnp.concatenate([matrix, right], axis=1), mode="r")
    size = rank * dim
    answer = -jax.scipy.linalg.solve_triangular(triangle[:size, :size], triangle[:size, size:])
    answer = answer.reshape(rank, dim, -1)
    step, by = answer[:, :, 0], scale[None, :, None] * answer[:, :, 1:]
    by = by / jnp.concatenate([scale, jnp.ones_like(p)])[None, None]
    change = jnp.max(jnp.abs(half * (tables.values @ step)))
    return c + scale[None] * step, by.reshape(size, -1), change


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


def standardised(
    problem: ShootingProblem, point: ShootingPoint, noise: Array
) -> Float[Array, "windows rows"]:
    """The residual of the data in standard deviations of the noise; zero in unused slots."""
    return point.linear.residual / _in_windows(problem, noise)


def data_rows(
    problem: ShootingProblem, point: ShootingPoint, noise: Array
) -> Float[Array, "windows rows columns"]:
    """The linearised data in standard deviations of the noise."""
    return point.linear.data / _in_windows(problem, noise)[:, :, None]


def _in_windows(problem: ShootingProblem, x: Array) -> Float[Array, "windows rows"]:
    """Numbers of the observations, in the order of the rows of the windows' data."""
    rows = jnp.broadcast_to(x, problem.ys.shape)[problem.layout.rows]
    return rows.reshape(len(rows), -1)


def residuals(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, "n obs"]:
    """h(u) - data."""
    layout, (n, columns) = problem.layout, problem.ys.shape
    residual = point.linear.residual.reshape(len(layout.rows), -1, columns)
    return jnp.zeros((n, columns), residual.dtype).at[layout.rows].add(residual)


def data_cost(problem: ShootingProblem, point: ShootingPoint, noise: Array) -> Float[Array, ""]:
    """The loss of the data, and the squares of the priors' rows."""
    cost = weigh(problem.loss, standardised(problem, point, noise))[0]
    return jnp.sum(cost) + jnp.sum(prior_rows(problem, point) ** 2)


def prior_rows(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, " unknowns"]:
    """The priors' rows of the least-squares problem at a point: of the start, then of p."""
    (start, weight), (mean, precision) = problem.start, problem.prior
    anchored = weight / problem.scales.y * (point.s[0] - start), precision * (point.p - mean)
    return jnp.concatenate(anchored)


def total_cost(
    problem: ShootingProblem, point: ShootingPoint, noise: Array, coupling: Array
) -> Float[Array, ""]:
    """The cost of data and priors, and of the jumps and the windows' last Newton steps."""
    jumps = point.linear.jumps[:, :, -1] / problem.scales.y[None]
    gaps = jnp.sum(jumps**2) + jnp.sum(point.linear.newton**2)
    return data_cost(problem, point, noise) + coupling**2 * gaps


def last_coupling(problem: ShootingProblem, noise: Array) -> Float[Array, ""]:
    """The coupling at which jumps no longer matter."""
    return jnp.minimum(_LAST_COUPLING * jnp.max(problem.size / jnp.min(noise, axis=0)), HARDEST)


def used_rows(problem: ShootingProblem) -> Bool[Array, "windows rows"]:
    """Which rows of the residual are data: each observed number of a slot is a row."""
    return jnp.repeat(problem.layout.used, problem.ys.shape[1], axis=1)


def estimate_noise(
    problem: ShootingProblem, point: ShootingPoint, coupling: Array
) -> Float[Array, "rows obs"]:
    """The noise's standard deviation: as given, or estimated for each column.

    A column that could be fitted exactly by itself would draw all weight to it. Where there are so
    few observations, the columns' ratios stay those of the first guess.
    """
    residual, (n, columns) = residuals(problem, point), problem.ys.shape
    if problem.noise is not None:
        given = problem.noise(problem.ys + residual) if callable(problem.noise) else problem.noise
        finest = jnp.maximum(_KNOWN_FINEST, _FIRST_FINEST / coupling)
        return jnp.maximum(given, finest * problem.spread[None])
    unit = jnp.ones(columns) if n >= 2 * problem.num_free else problem.first_noise
    axis = 0 if n >= 2 * problem.num_free else None
    if problem.loss == "squares":
        share = max(n * columns - problem.num_free, 1) / (n * columns)
        noise = jnp.sqrt(jnp.mean((residual / unit[None]) ** 2, axis) / share)
    else:  # the median hardly moves with outliers; of normal noise it is the sd / 1.4826
        noise = 1.4826 * jnp.median(jnp.abs(residual / unit[None]), axis)
    return jnp.maximum(unit * noise, _FINEST * problem.spread)[None]


def rescale(problem: ShootingProblem, point: ShootingPoint, first: Bool[Array, ""]) -> Scales:
    """The scales at a point.

    A component that is not observed takes the size that it has in the windows, or in the windows
    laid end to end if that is larger: a component that starts at zero is small in each window of
    the first guess. A parameter that starts at zero takes the size at which its effect on the
    states is as large as they are.
    """
    tables, halves = problem.layout.tables, problem.layout.halves
    y, p = problem.scales
    u = point.s[:, None] + halves[:, None, None] * (tables.values @ point.c)
    change = halves[:, None] * jnp.einsum("r,wrd->wd", tables.end, point.c)
    ends = point.s[0][None] + jnp.cumsum(change, axis=0)
    size = jnp.sqrt(jnp.maximum(jnp.mean(u**2, axis=(0, 1)), jnp.mean(ends**2, axis=0)))
    y = jnp.where(~problem.seen & (size > 0) & jnp.isfinite(size), size, y)
    by = point.linear.readouts.reshape(*point.c.shape, -1)[..., y.size :]
    by = halves[:, None, None] * jnp.einsum("r,wrdk->wdk", tables.end, by)
    effect = jnp.max(jnp.sum(jnp.abs(by), axis=0) / y[:, None], axis=0)
    mean, precision = problem.prior
    lost = first & (mean == 0) & (precision == 0) & ~problem.field.bounded
    return Scales(y, jnp.where(lost & (effect > 0) & jnp.isfinite(effect), 1 / effect, p))


def states_at_data(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, "n dim"]:
    """The states at the times of the observations, by the tables of their windows."""
    layout = problem.layout
    u = point.s[:, None] + layout.halves[:, None, None] * (layout.basis @ point.c)
    u = jnp.where(layout.used[:, :, None], u, 0.0)
    return jnp.zeros((len(problem.ys), u.shape[2]), u.dtype).at[layout.rows].add(u)


def window_errors(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, " windows"]:
    """The largest error that the networks make in each window, in the states' scales.

    It is the equation's defect in integral form at twice as many Gauss points as the fit has.
    """
    layout = problem.layout
    num_points = len(layout.fine_basis) - 2

    def largest(start, half, s, c):
        u = s[:, None] + half * (layout.fine_basis @ c).T
        nodes = nodes_in(start, 2 * half, num_points)
        missing = defect(lambda t, u: problem.field(t, u, point.p), nodes, u)
        return jnp.max(jnp.abs(missing) / problem.scales.y[:, None])

    return jax.vmap(largest)(layout.starts, layout.halves, point.s, point.c)
