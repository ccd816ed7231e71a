"""Where the windows of a fit lie, which observations are in them, and smoothed data."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.quadrature import all_nodes, piece_at
from physml.nn import MLP
from physml.pinn.collocation import Tables, basis_at, hidden_layer, tabulate
from physml.pinn.inverse._task import Observations
from physml.systems import System

_NEIGHBOURS = 15  # observations that a smoothed value is made of


class Neighbours(NamedTuple):
    """Local quadratic regression: the smoothed value is weights @ ys[rows]."""

    rows: Int[np.ndarray | Array, "at neighbours"]
    weights: Float[np.ndarray | Array, "at neighbours"]

    def __call__(self, ys: Float[Array, "n obs"]) -> Float[Array, "at obs"]:
        return jnp.einsum("ak,ako->ao", self.weights, ys[self.rows])


class Layout(eqx.Module):
    """The windows, their networks' tables, and the observations in them."""

    network: MLP  # the hidden layer of all windows
    tables: Tables
    starts: Float[np.ndarray | Array, " windows"]
    halves: Float[np.ndarray | Array, " windows"]  # half the windows' spans
    rows: Int[np.ndarray | Array, "windows slots"]  # which observations lie in a window
    used: Bool[np.ndarray | Array, "windows slots"]  # a window may hold fewer than its slots
    basis: Float[np.ndarray | Array, "windows slots rank"]  # values at these observations
    fine_basis: Float[np.ndarray | Array, "nodes rank"]  # values where the error is looked for
    has_jumps: bool = eqx.field(static=True)  # whether the right-hand side jumps


def window_networks(dim: int, units: int, num_points: int) -> tuple[MLP, Tables]:
    """The hidden layer of all windows, and its tables."""
    with jax.ensure_compile_time_eval():
        network = hidden_layer(units, dim, dtype=jnp.float64)
        return network, tabulate(network, num_points, jnp.float64)


def lay_out(
    network: MLP, tables: Tables, system: System, data: Observations, num_windows: int
) -> tuple[Layout, tuple[Neighbours, Neighbours]]:
    """Equal windows, cut at jumps; smoothers of the data, at the windows' starts and its times."""
    ts, end = data.ts, data.ts[-1]
    jumps = system.jump_times(float(data.t0), float(end))
    edges = np.union1d(np.linspace(data.t0, end, num_windows + 1), jumps)
    edges = edges[np.append(True, np.diff(edges) > 1e-12 * (end - data.t0))]
    edges[-1] = end
    starts, halves = edges[:-1], np.diff(edges) / 2
    counts = np.bincount(piece_at(starts, ts), minlength=len(starts))
    slots = np.arange(counts.max())
    used = slots < counts[:, None]
    rows = np.where(used, (np.cumsum(counts) - counts)[:, None] + slots, 0)
    s = np.where(used, (ts[rows] - starts[:, None]) / halves[:, None] - 1, 0.0)
    basis = basis_at(network, tables, s)
    fine_basis = basis_at(network, tables, all_nodes(2 * len(tables.points)))
    has_jumps = jumps.size > 0
    layout = Layout(network, tables, starts, halves, rows, used, basis, fine_basis, has_jumps)
    return layout, (smoother(ts, starts), smoother(ts, ts))


def smoother(ts: Float[np.ndarray, " n"], at: Float[np.ndarray, " at"]) -> Neighbours:
    """The weights by which observations at `ts` give smoothed values at other times."""
    count = min(_NEIGHBOURS, len(ts))
    first = np.clip(np.searchsorted(ts, at) - count // 2, 0, len(ts) - count)
    rows = first[:, None] + np.arange(count)
    distance = ts[rows] - at[:, None]
    reach = np.abs(distance).max(axis=1, keepdims=True)
    x = distance / (1.001 * np.where(reach > 0, reach, 1.0))  # zero of a single observation
    root = (1 - np.abs(x) ** 3) ** 1.5  # of the tricube weights
    powers = x[:, :, None] ** np.arange(min(3, count))
    solution = np.linalg.pinv(root[:, :, None] * powers)[:, 0]
    return Neighbours(rows, solution * root)
