"""The legs of a solution, from one event to the next, and the whole that they make."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.quadrature import all_nodes
from physml.pinn.collocation import CorrectedNetworks, Error, linearise, nodes_in
from physml.results import RESULTS
from physml.solution import Solution
from physml.systems import System


class Leg(NamedTuple):
    """A solution that is used up to `end`, and the errors that it has from its start."""

    solution: Solution
    end: float
    carried: Float[np.ndarray, "windows dim"]  # the largest in each of its windows


def end_leg(
    system: System,
    args: PyTree,
    solution: Solution,
    end: float,
    errors: Float[np.ndarray, "dim columns"],
) -> tuple[Leg, Float[np.ndarray, "dim columns"]]:
    """A leg that ends early, and what small errors of its start have become by then.

    A column of errors is what one cause has changed in all components. So causes may cancel as time
    goes on, and what they come to is the sum of their absolute values.
    """
    starts = np.asarray(solution.stats["edges"])[:-1]
    dim, used = len(errors), max(1, int(np.sum(starts < end)))
    carried = np.zeros((used, dim))
    if errors.any():
        for k in range(used):
            changes, at_end = _changes(system, args, solution, k, end)
            carried[k] = np.abs(changes @ errors).sum(axis=2).max(axis=0)
            errors = at_end @ errors
    return Leg(solution, end, carried), errors


def _changes(
    system: System, args: PyTree, solution: Solution, k: int, end: float
) -> tuple[Float[np.ndarray, "nodes dim dim"], Float[np.ndarray, "dim dim"]]:
    """What the start of window k changes at its nodes, and at its end or the leg's before it."""
    dense = solution.dense
    assert isinstance(dense, CorrectedNetworks)
    start, span, terms = (
        np.asarray(x[k])
        for x in (
            dense.polynomials.starts,
            dense.polynomials.spans,
            dense.polynomials.coefficients,
        )
    )
    legendre, degree = np.polynomial.legendre.legvander, len(terms) - 1
    to_nodes = legendre(all_nodes(degree - 1), degree)
    found = np.asarray(_along(system, args, start, span, (to_nodes @ terms).astype(terms.dtype)))
    s = min(2 * (end - float(start)) / float(span) - 1, 1.0)
    at_end = legendre([s], degree)[0] @ np.linalg.inv(to_nodes)
    return found, np.einsum("n,nij->ij", at_end, found)


@eqx.filter_jit
def _along(
    system: System,
    args: PyTree,
    start: Float[Array | np.ndarray, ""],
    span: Float[Array | np.ndarray, ""],
    given: Float[Array | np.ndarray, "nodes dim"],
) -> Float[Array, "nodes dim dim"]:
    """The derivative of the values in a window in the first of them."""
    values = jnp.asarray(given)
    nodes = nodes_in(jnp.asarray(start), jnp.asarray(span), len(values) - 2)
    linearised = linearise(lambda t, y: system(t, y, args), nodes, values.T)
    identity = jnp.eye(values.shape[1], dtype=values.dtype)[:, None]
    known = jnp.repeat(identity, len(values) - 1, axis=1)
    return jnp.concatenate([identity, linearised.solve(known)], axis=1).transpose(1, 0, 2)


def join(legs: list[Leg], ts: Float[Array, " n"], result: RESULTS) -> Solution:
    """The legs as one solution, which is suspect if its estimate leaves few digits."""
    counts = [len(leg.carried) for leg in legs]
    size = max(64, 1 << (sum(counts) - 1).bit_length())  # so that few shapes are compiled
    parts = [_without_hidden(leg) for leg in legs]

    def joined(*leaves: Array | np.ndarray) -> Array:
        rows = [np.asarray(leaf)[:count] for leaf, count in zip(leaves, counts, strict=True)]
        rows.append(np.zeros((size - sum(counts), *rows[0].shape[1:]), rows[0].dtype))
        return jnp.asarray(np.concatenate(rows))

    dense, error = jax.tree.map(joined, *parts)
    starts = jnp.where(np.arange(size) < sum(counts), dense.polynomials.starts, jnp.inf)
    dense, error = eqx.tree_at(
        lambda x: (x[0].polynomials.starts, x[0].networks.starts, x[1].signed.starts),
        (dense, error), (starts, starts, starts),
    )  # fmt: skip
    dense = eqx.tree_at(
        lambda d: d.networks.hidden,
        dense,
        legs[0].solution.dense.networks.hidden,  # pyright: ignore[reportAttributeAccessIssue]
        is_leaf=lambda x: x is None,
    )
    t1 = jnp.asarray(legs[-1].end, ts.dtype)
    if bool(result == RESULTS.successful) and not _trusted(error, dense):
        result = RESULTS.suspect
    stats = [leg.solution.stats for leg in legs]
    edges = [np.asarray(each["edges"])[:n] for each, n in zip(stats, counts, strict=True)]
    residuals = [np.asarray(each["residuals"])[:n] for each, n in zip(stats, counts, strict=True)]
    totals = {
        name: jnp.asarray(sum(int(each[name]) for each in stats))
        for name in ("num_windows", "num_rejected", "num_iterations")
    }
    return Solution(
        ts=ts,
        ys=_ys(dense, ts, t1),
        t0=legs[0].solution.t0,
        t1=t1,
        dense=dense,
        result=result,
        stats=totals
        | {
            "edges": jnp.asarray(np.append(np.concatenate(edges), legs[-1].end)),
            "residuals": jnp.asarray(np.concatenate(residuals)),
        },
        error=error,
    )


def _without_hidden(leg: Leg) -> tuple[CorrectedNetworks, Error]:
    """What has a row for each window, with the errors from the start in the estimate."""
    dense, error = leg.solution.dense, leg.solution.error
    assert isinstance(dense, CorrectedNetworks) and isinstance(error, Error)
    resolution = np.array(error.resolution)
    resolution[: len(leg.carried)] += leg.carried
    error = eqx.tree_at(lambda e: e.resolution, error, resolution)
    return eqx.tree_at(lambda d: d.networks.hidden, dense, None), error


def _trusted(error: Error, dense: Any) -> bool:
    """Whether a third of the digits of each component is right, by its size in the whole.

    In a short leg it may be as small as its rounding.
    """
    sizes = np.max(np.abs(np.asarray(dense.polynomials.coefficients)), axis=(0, 1))
    signed = np.abs(np.asarray(error.signed.coefficients)).sum(axis=1)
    largest = signed + np.asarray(error.resolution)
    few_digits = np.cbrt(np.finfo(sizes.dtype).eps)
    return bool(np.all(np.isfinite(largest) & (largest <= few_digits * sizes)))


@eqx.filter_jit
def _ys(dense: CorrectedNetworks, ts: Float[Array, " n"], t1: Array) -> Float[Array, "n dim"]:
    found = jax.vmap(dense.evaluate)(jnp.minimum(ts, t1))
    return jnp.where((ts <= t1)[:, None], found, jnp.nan)
