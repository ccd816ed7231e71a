"""Parameters, starts and window networks of one problem: Bock's multiple shooting by collocation.

The solution is cut into windows, and the state at every window's start is an unknown of its own.
A parameter that is far off then spoils each window a little and not the whole trajectory, so the
method converges from poor guesses and through chaos. The jumps between windows are penalised,
weakly at first and in the end so strongly that they vanish.

Source: H. G. Bock, "Recent advances in parameter identification techniques for O.D.E.", Numerical
Treatment of Inverse Problems in Differential and Integral Equations, Birkhäuser (1983).
"""

from typing import Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from physml._numerics.units import max_of
from physml.noises import Whitened
from physml.pinn.collocation import Parameters, defect, nodes_in
from physml.pinn.inverse._layout import Layout
from physml.pinn.inverse._likelihood import Group
from physml.pinn.inverse._task import Observations, Starts

DataLoss = Literal["squares", "huber", "soft_l1"]
"""How a residual counts: by its square, or less where it is large."""

LOSSES: tuple[DataLoss, ...] = get_args(DataLoss)
HARDEST = 1e9  # the weight, in typical states, of what has to hold exactly
_HUBER = 1.345  # Huber's constant: 95 % efficient if the noise is normal
_LAST_COUPLING = 1e5  # times the data's size in units of the noise
# The smallest noise that is estimated, as a share of a column's spread; a relative noise as it is.
_FINEST = 1e-6
_KNOWN_FINEST = 1e-8  # the smallest that is given: about what the windows' own error is
_FIRST_FINEST = 3e-3  # the same at first, over the coupling: exact data would pin the windows


class ShootingProblem(eqx.Module):
    """The equation, the windows and the data; `p` are the free parameters, transformed."""

    field: Parameters  # field(t, y, p, experiment); y of shape (dim, *batch)
    loss: DataLoss = eqx.field(static=True)
    num_free: int = eqx.field(static=True)  # unknown numbers: parameters and starts
    layout: Layout
    data: Observations
    held: Float[Array, "n obs"] | None  # scales of the noise that are not to change
    first_scale: Float[Array, "n obs"]  # a guess of the noise's scale
    size: Float[Array, "n obs"]  # of the data of the same column and experiment
    unit: Float[Array, "n obs"]  # of the scale: what the least noise is a share of
    scales: "Scales"
    seen: Bool[np.ndarray | Array, "experiments dim"]  # the components whose scales the data give
    # Rows weight * (unknown - mean) of the least-squares problem.
    prior: tuple[Float[Array, " p"], Float[Array, " p"]]  # mean, weight
    starts: Starts

    @property
    def ys(self) -> Float[Array, "n obs"]:
        """The observations; 1 where nothing was seen."""
        return self.data.ys


class Scales(NamedTuple):
    """The sizes of the states and the parameters, on which all that is tolerated depends.

    Nothing here has a unit of its own, so that data in other units give the same answer.
    """

    y: Float[Array, "experiments dim"]
    p: Float[Array, " p"]


class LinearisedWindows(NamedTuple):
    """The problem linearised about a point, the networks' readouts eliminated.

    The columns are the derivatives in a window's start, then in p, then the value itself.
    """

    readouts: Float[Array, "windows size inputs"]  # without the value
    jumps: Float[Array, "gaps dim columns"]
    data: Float[Array, "windows rows columns"]  # what is observed; zero in unused slots
    newton: Float[Array, " windows"]  # last change of u, in the states' scales

    @property
    def values(self) -> Float[Array, "windows rows"]:
        """What is observed, without noise."""
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

    def solve(start, half, s, c, basis, used, experiment):
        rank, dim = c.shape
        # Only the last step's derivatives count. All steps compute them, so that one step is
        # compiled and not two.
        readouts = jnp.zeros((c.size, dim + p.size), c.dtype)
        c, readouts, newton = jax.lax.fori_loop(
            0,
            newton_steps,
            lambda _, carry: _newton(problem, (start, half, experiment), s, carry[0], p),
            (c, readouts, jnp.zeros((), c.dtype)),
        )
        by = readouts.reshape(rank, dim, -1)
        ahead = jnp.eye(dim, by.shape[-1], dtype=c.dtype)

        end = s + half * (layout.tables.end @ c)
        end_by = ahead + half * jnp.einsum("r,rdk->dk", layout.tables.end, by)
        u = s[None] + half * (basis @ c)
        u_by = ahead[None] + half * jnp.einsum("nr,rdk->ndk", basis, by)

        def observed(u, u_by):
            value, tangent = jax.linearize(lambda u: observe(problem, experiment, u), u)
            return value, jax.vmap(tangent, 1, 1)(u_by)

        value, value_by = jax.vmap(observed)(u, u_by)
        data = jnp.concatenate([value_by, value[:, :, None]], axis=2)
        data = jnp.where(used[:, None, None], data, 0.0).reshape(value.size, -1)
        return c, jnp.concatenate([end_by, end[:, None]], axis=1), readouts, data, newton

    c, ends, readouts, data, newton = jax.vmap(solve)(
        layout.starts, layout.halves, s, c, layout.basis, layout.used, layout.experiment
    )
    jumps = ends[:-1].at[:, :, -1].add(-s[1:])
    jumps = jnp.where(layout.follows[:, None, None], jumps, 0.0)
    return ShootingPoint(p, s, c, LinearisedWindows(readouts, jumps, data, newton))


def observe(
    problem: ShootingProblem, experiment: Int[ArrayLike, ""], u: Float[Array, " dim"]
) -> Float[Array, " obs"]:
    """What an experiment sees of a state, zero in columns that it does not have."""
    data, width = problem.data, problem.ys.shape[1]

    def widened(observer):
        def see(u):
            value = observer(u)
            return jnp.pad(value, (0, width - value.size))

        return see

    every = [widened(observer) for observer in data.observers]
    if len(every) == 1:
        return every[0](u)
    return jax.lax.switch(jnp.asarray(data.observer)[experiment], every, u)


def _newton(problem: ShootingProblem, window, s, c, p):
    """A Gauss-Newton step of one window's readout, and the readout's derivatives."""
    tables, (start, half, experiment) = problem.layout.tables, window
    times = start + half * (tables.points + 1)
    (rank, dim), root = c.shape, jnp.sqrt(tables.weights)
    u = s[:, None] + half * (tables.values @ c).T
    f, tangent = jax.linearize(lambda u, p: problem.field(times, u, p, experiment), u, p)
    eye, eye_p = jnp.eye(dim, dtype=c.dtype), jnp.eye(p.size, dtype=c.dtype)
    # In units of the scales, because least squares add the components' residuals.
    scale = problem.scales.y[experiment]
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
    change = max_of(jnp.abs(half * (tables.values @ step)))
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


class DataRows(NamedTuple):
    """The data as least squares take them; zero in unused slots and where nothing was seen."""

    jacobian: Float[Array, "windows rows unknowns"]  # without the value
    r: Float[Array, "windows rows"]  # residuals in standard deviations of the noise
    cost: Float[Array, "windows rows"]
    weight: Float[Array, "windows rows"]  # of a loss that outliers hardly move; 1 for squares


def data_rows(problem: ShootingProblem, point: ShootingPoint, scale: Array) -> DataRows:
    """The linearised data with a scale of the noise for each observation, (n, obs)."""
    data, linear = problem.data, point.linear
    kind, ys, scale, seen = (
        _in_windows(problem, x) for x in (data.likelihood.kind, data.ys, scale, data.seen)
    )
    seen = seen & used_rows(problem)
    r, slope, cost = data.likelihood.whiten(kind, linear.values, ys, scale)
    weight = jnp.ones_like(r)
    if problem.loss != "squares":
        cost, weight, _ = weigh(problem.loss, r)
    r, slope, cost = (jnp.where(seen, x, 0.0) for x in (r, slope, cost))
    jacobian = jnp.where(seen[:, :, None], slope[:, :, None] * linear.data[:, :, :-1], 0.0)
    return DataRows(jacobian, r, cost, weight)


def _in_windows(problem: ShootingProblem, x: Array | np.ndarray) -> Array:
    """Numbers of the observations, in the order of the rows of the windows' data."""
    rows = jnp.asarray(x)[problem.layout.rows]
    return rows.reshape(len(rows), -1)


def values_at_data(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, "n obs"]:
    """What is observed, without noise."""
    layout, (n, columns) = problem.layout, problem.ys.shape
    values = point.linear.values.reshape(len(layout.rows), -1, columns)
    return jnp.zeros((n, columns), values.dtype).at[layout.rows].add(values)


def whitened_at_data(
    problem: ShootingProblem, point: ShootingPoint, scale: Float[Array, "n obs"]
) -> Whitened:
    """The observations as least squares take them, where nothing was seen too."""
    likelihood, values = problem.data.likelihood, values_at_data(problem, point)
    return likelihood.whiten(jnp.asarray(likelihood.kind), values, problem.ys, scale)


def data_cost(problem: ShootingProblem, point: ShootingPoint, scale: Array) -> Float[Array, ""]:
    """The loss of the data, and the squares of the rows of priors and starts."""
    cost, anchors = data_rows(problem, point, scale).cost, anchor_rows(problem, point)[..., -1]
    return jnp.sum(cost) + jnp.sum(prior_rows(problem, point) ** 2) + jnp.sum(anchors**2)


def prior_rows(problem: ShootingProblem, point: ShootingPoint) -> Float[Array, " p"]:
    """The rows of the parameters' priors at a point."""
    mean, precision = problem.prior
    return precision * (point.p - mean)


def anchor_rows(
    problem: ShootingProblem, point: ShootingPoint
) -> Float[Array, "experiments dim columns"]:
    """The rows that hold the starts that are known, or functions of the parameters, linearised.

    The columns are the derivatives in the start, then in p, then the value; zero of a free start.
    """
    starts, field = problem.starts, problem.field
    first = point.s[np.asarray(problem.layout.firsts)]
    held = np.asarray(starts.held)[:, None]
    weight = jnp.where(held, HARDEST, 0.0) / problem.scales.y
    where, by = starts.at(field, point.p), jnp.zeros((*first.shape, point.p.size), first.dtype)
    if any(function is not None for function in starts.functions):
        by = jax.jacfwd(lambda p: starts.at(field, p))(point.p)
    away = jnp.where(held, first - where, 0.0)
    own = jnp.broadcast_to(jnp.eye(first.shape[1]), (*first.shape, first.shape[1]))
    rows = jnp.concatenate([own, -by, away[:, :, None]], axis=2)
    return weight[:, :, None] * rows


def total_cost(
    problem: ShootingProblem, point: ShootingPoint, scale: Array, coupling: Array
) -> Float[Array, ""]:
    """The cost of data and priors, and of the jumps and the windows' last Newton steps."""
    jumps = point.linear.jumps[:, :, -1] / problem.scales.y[problem.layout.experiment[1:]]
    gaps = jnp.sum(jumps**2) + jnp.sum(point.linear.newton**2)
    return data_cost(problem, point, scale) + coupling**2 * gaps


def last_coupling(problem: ShootingProblem, point: ShootingPoint, scale: Array) -> Float[Array, ""]:
    """The coupling at which jumps no longer matter."""
    slope = whitened_at_data(problem, point, scale).slope
    precision = jnp.where(problem.data.seen, problem.size * slope, 0.0)
    return jnp.minimum(_LAST_COUPLING * max_of(precision), HARDEST)


def used_rows(problem: ShootingProblem) -> Bool[Array, "windows rows"]:
    """Which rows of the residual are data: each observed number of a slot is a row."""
    return jnp.repeat(jnp.asarray(problem.layout.used), problem.ys.shape[1], axis=1)


def estimate_scale(
    problem: ShootingProblem, point: ShootingPoint, coupling: Array
) -> Float[Array, "n obs"]:
    """The scale of the noise of each observation: as given, or estimated for each column.

    A column that could be fitted exactly by itself would draw all weight to it. Where there are so
    few observations, the columns' ratios stay those of the first guess.
    """
    if problem.held is not None:
        return problem.held
    count = problem.data.count

    def estimate(group: Group, values: Array, ys: Array) -> Array:
        counts = np.asarray(group.counts, float)
        first = max_of(jnp.where(group.mask, problem.first_scale, 0.0), axis=0)
        first = jnp.where(first > 0, first, 1.0)
        if problem.loss == "squares":
            share = max(count - problem.num_free, 1) / count
            square = group.noise.guess(values, ys) ** 2 / share
        else:  # the median hardly moves with outliers; of normal noise it is the sd / 1.4826
            square = (1.4826 * jnp.nanmedian(jnp.abs(ys - values), axis=0)) ** 2
        if np.min(counts[counts > 0]) >= 2 * problem.num_free:
            return jnp.sqrt(square)
        ratio = jnp.where(counts > 0, counts * square / first**2, 0.0)
        return first * jnp.sqrt(jnp.sum(ratio) / np.sum(counts))

    likelihood, values = problem.data.likelihood, values_at_data(problem, point)
    scale = likelihood.scales(values, problem.ys, estimate)
    known = jnp.maximum(_KNOWN_FINEST, _FIRST_FINEST / coupling)
    finest = jnp.full_like(scale, known)
    for group in likelihood.groups:
        if group.is_estimated:
            finest = jnp.where(group.mask, _FINEST, finest)
    return jnp.maximum(scale, finest * problem.unit)


def rescale(problem: ShootingProblem, point: ShootingPoint, first: Bool[Array, ""]) -> Scales:
    """The scales at a point.

    A component that is not observed takes the size that it has in the windows, or in the windows
    laid end to end if that is larger: a component that starts at zero is small in each window of
    the first guess. A parameter that starts at zero takes the size at which its effect on the
    states is as large as they are.
    """
    layout, tables, (y, p) = problem.layout, problem.layout.tables, problem.scales
    halves = jnp.asarray(layout.halves)[:, None]
    u = point.s[:, None] + halves[:, :, None] * (tables.values @ point.c)
    change = halves * jnp.einsum("r,wrd->wd", tables.end, point.c)
    ends = jnp.concatenate(
        [point.s[a][None] + jnp.cumsum(change[a:b], axis=0) for a, b in layout.own]
    )
    squares = (layout.average(x) for x in (jnp.mean(u**2, axis=1), ends**2))
    size = jnp.sqrt(jnp.maximum(*squares))
    y = jnp.where(~problem.seen & (size > 0) & jnp.isfinite(size), size, y)
    by = point.linear.readouts.reshape(*point.c.shape, -1)[..., y.shape[1] :]
    by = halves[:, :, None] * jnp.einsum("r,wrdk->wdk", tables.end, by)
    by = jnp.abs(by) / y[layout.experiment][:, :, None]
    effect = max_of(jnp.stack([jnp.sum(by[a:b], axis=0) for a, b in layout.own]), axis=(0, 1))
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

    def largest(start, half, s, c, experiment):
        u = s[:, None] + half * (layout.fine_basis @ c).T
        nodes = nodes_in(start, 2 * half, num_points)
        missing = defect(lambda t, u: problem.field(t, u, point.p, experiment), nodes, u)
        return max_of(jnp.abs(missing) / problem.scales.y[experiment][:, None])

    windows = layout.starts, layout.halves, point.s, point.c, layout.experiment
    return jax.vmap(largest)(*windows)
