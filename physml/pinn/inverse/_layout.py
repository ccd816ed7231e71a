"""Where the windows of a fit lie, which observations are in them, and smoothed data."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.quadrature import all_nodes, piece_at
from physml.nn import MLP
from physml.pinn.collocation import Parameters, Tables, basis_at, hidden_layer, tabulate
from physml.pinn.inverse._experiments import Experiment
from physml.pinn.inverse._task import Observations
from physml.systems import Table

_NEIGHBOURS = 15  # observations that a smoothed value is made of


class Neighbours(NamedTuple):
    """Local quadratic regression of each column: the smoothed value is weights @ ys[rows]."""

    rows: Int[np.ndarray | Array, "at neighbours obs"]
    weights: Float[np.ndarray | Array, "at neighbours obs"]

    def __call__(self, ys: Float[Array, "n obs"]) -> Float[Array, "at obs"]:
        return jnp.einsum("ako,ako->ao", self.weights, ys[self.rows, np.arange(ys.shape[1])])


class Layout(eqx.Module):
    """The windows of all experiments, their networks' tables, and the observations in them."""

    network: MLP  # the hidden layer of all windows
    tables: Tables
    starts: Float[np.ndarray | Array, " windows"]
    halves: Float[np.ndarray | Array, " windows"]  # half the windows' spans
    rows: Int[np.ndarray | Array, "windows slots"]  # which observations lie in a window
    used: Bool[np.ndarray | Array, "windows slots"]  # a window may hold fewer than its slots
    basis: Float[np.ndarray | Array, "windows slots rank"]  # values at these observations
    fine_basis: Float[np.ndarray | Array, "nodes rank"]  # values where the error is looked for
    experiment: Int[np.ndarray | Array, " windows"]  # to which a window belongs
    own: tuple[tuple[int, int], ...] = eqx.field(static=True)  # an experiment's windows, as a range
    has_jumps: tuple[bool, ...] = eqx.field(static=True)  # whether the right-hand side jumps

    @property
    def firsts(self) -> list[int]:
        """The first window of each experiment."""
        return [first for first, _ in self.own]

    @property
    def follows(self) -> Bool[np.ndarray, " gaps"]:
        """Which windows but the first go on where the one before them ends."""
        follows = np.ones(self.own[-1][1] - 1, bool)
        follows[np.asarray(self.firsts[1:], int) - 1] = False
        return follows

    def average(self, x: Float[Array, "windows *shape"]) -> Float[Array, "experiments *shape"]:
        """The mean over each experiment's windows."""
        return jnp.stack([jnp.mean(x[a:b], axis=0) for a, b in self.own])


def window_networks(dim: int, units: int, num_points: int) -> tuple[MLP, Tables]:
    """The hidden layer of all windows, and its tables."""
    with jax.ensure_compile_time_eval():
        network = hidden_layer(units, dim, dtype=jnp.float64)
        return network, tabulate(network, num_points, jnp.float64)


def lay_out(
    network: MLP,
    tables: Tables,
    parameters: Parameters,
    experiments: Sequence[Experiment],
    data: Observations,
    counts: Sequence[int],
) -> tuple[Layout, tuple[Neighbours, Neighbours]]:
    """Each experiment in equal windows, cut at jumps; smoothers of the data.

    The smoothers give the data at the windows' starts, and at their own times.
    """
    starts, halves, pieces, cut = [], [], [], []
    at_starts, at_data = [], []
    for number, (experiment, count) in enumerate(zip(experiments, counts, strict=True)):
        edges, jumps = _edges(parameters, experiment, count)
        cut.append(bool(jumps.size))
        pieces.append(piece_at(edges[:-1], experiment.ts) + sum(map(len, starts)))
        starts.append(edges[:-1])
        halves.append(np.diff(edges) / 2)
        own = slice(*data.rows[number])
        for smoothers, at in ((at_starts, edges[:-1]), (at_data, experiment.ts)):
            smoothers.append(
                _smoother_of_columns(experiment.ts, np.asarray(data.seen)[own], at, own.start)
            )
    belongs = np.repeat(np.arange(len(starts)), [len(x) for x in starts])
    ends = np.cumsum([0, *map(len, starts)]).tolist()
    starts, halves, pieces = map(np.concatenate, (starts, halves, pieces))
    ts = np.concatenate(data.ts)
    held = np.bincount(pieces, minlength=len(starts))
    slots = np.arange(held.max())
    used = slots < held[:, None]
    rows = np.where(used, (np.cumsum(held) - held)[:, None] + slots, 0)
    s = np.where(used, (ts[rows] - starts[:, None]) / halves[:, None] - 1, 0.0)
    layout = Layout(
        network=network,
        tables=tables,
        starts=starts,
        halves=halves,
        rows=rows,
        used=used,
        basis=basis_at(network, tables, s),
        fine_basis=basis_at(network, tables, all_nodes(2 * len(tables.points))),
        experiment=belongs,
        own=tuple(itertools.pairwise(ends)),
        has_jumps=tuple(cut),
    )
    first, second = (
        Neighbours(*map(np.concatenate, zip(*x, strict=True))) for x in (at_starts, at_data)
    )
    return layout, (first, second)


def _edges(
    parameters: Parameters, experiment: Experiment, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of an experiment's windows, and the times of jumps and kinks among them."""
    start, end = experiment.start_time, float(experiment.ts[-1])
    equation = parameters.having(experiment.fixed)
    inputs = jax.tree.leaves(equation, is_leaf=lambda x: isinstance(x, Table))
    times = [x.jump_times(start, end) for x in inputs if isinstance(x, Table)]
    jumps = np.unique(np.concatenate([equation[0].jump_times(start, end), *times]))
    edges = np.union1d(np.linspace(start, end, count + 1), jumps)
    edges = edges[np.append(True, np.diff(edges) > 1e-12 * (end - start))]
    edges[-1] = end
    return edges, jumps


def _smoother_of_columns(
    ts: Float[np.ndarray, " n"],
    seen: Bool[np.ndarray, "n obs"],
    at: Float[np.ndarray, " at"],
    first_row: int,
) -> Neighbours:
    """A smoother of each column by the observations that it has; zero of a column without any."""
    rows = np.full((len(at), _NEIGHBOURS, seen.shape[1]), first_row)
    weights = np.zeros(rows.shape)
    for column in range(seen.shape[1]):
        those = np.flatnonzero(seen[:, column])
        if those.size:
            # In a gap at either end the nearest observations say more than a parabola.
            inside = np.clip(at, ts[those[0]], ts[those[-1]]) if those.size < len(ts) else at
            found = smoother(ts[those], inside)
            count = found[0].shape[1]
            rows[:, :count, column] = first_row + those[found[0]]
            weights[:, :count, column] = found[1]
    return Neighbours(rows, weights)


def smoother(
    ts: Float[np.ndarray, " n"], at: Float[np.ndarray, " at"]
) -> tuple[np.ndarray, np.ndarray]:
    """By which rows and weights observations at `ts` give smoothed values at other times."""
    count = min(_NEIGHBOURS, len(ts))
    first = np.clip(np.searchsorted(ts, at) - count // 2, 0, len(ts) - count)
    rows = first[:, None] + np.arange(count)
    distance = ts[rows] - at[:, None]
    reach = np.abs(distance).max(axis=1, keepdims=True)
    x = distance / (1.001 * np.where(reach > 0, reach, 1.0))  # zero of a single observation
    root = (1 - np.abs(x) ** 3) ** 1.5  # of the tricube weights
    powers = x[:, :, None] ** np.arange(min(3, count))
    solution = np.linalg.pinv(root[:, :, None] * powers)[:, 0]
    return rows, solution * root
