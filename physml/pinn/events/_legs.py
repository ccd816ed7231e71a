"""The legs of a solution, from one event to the next, and the whole that they make."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.quadrature import all_nodes
from physml.pinn.collocation import CorrectedNetworks, Error, Polynomials
from physml.pinn.ivp import flow
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
    if not errors.any():
        return Leg(solution, end, np.zeros((used, dim))), errors
    changes = flow(solution, system, args)
    at_end = np.asarray(_at(changes, end)).reshape(dim, dim)
    terms = np.asarray(changes.coefficients)[:used]
    degree = terms.shape[1] - 1
    values = np.polynomial.legendre.legvander(all_nodes(degree - 1), degree)
    found = np.einsum("nt,wtk->wnk", values, terms).reshape(*terms.shape[:1], -1, dim, dim)
    carried = np.abs(found @ errors).sum(axis=3).max(axis=1)
    return Leg(solution, end, carried), at_end @ errors


@eqx.filter_jit
def _at(function: Polynomials, t: float) -> Array:
    return function.evaluate(jnp.asarray(t))


def join(legs: list[Leg], ts: Float[Array, " n"], result: RESULTS) -> Solution:
    """The legs as one solution. It is suspect if a leg is, or few digits of its end are left."""
    counts = [len(leg.carried) for leg in legs]
    size = max(64, 1 << (sum(counts) - 1).bit_length())  # so that few shapes are compiled
    parts = [_without_hidden(leg) for leg in legs]

    def joined(*leaves: Array) -> Array:
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
    if bool(result == RESULTS.successful) and not _trusted(legs, error, dense):
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


def _trusted(legs: list[Leg], error: Error, dense: Any) -> bool:
    """Whether all legs are, and what they have from their starts leaves a third of the digits."""
    sizes = np.max(np.abs(np.asarray(dense.polynomials.coefficients)), axis=(0, 1))
    few_digits = np.cbrt(np.finfo(sizes.dtype).eps)
    small = all(bool(np.all(leg.carried <= few_digits * sizes)) for leg in legs)
    return small and not any(bool(leg.solution.result == RESULTS.suspect) for leg in legs)


@eqx.filter_jit
def _ys(dense: CorrectedNetworks, ts: Float[Array, " n"], t1: Array) -> Float[Array, "n dim"]:
    found = jax.vmap(dense.evaluate)(jnp.minimum(ts, t1))
    return jnp.where((ts <= t1)[:, None], found, jnp.nan)
