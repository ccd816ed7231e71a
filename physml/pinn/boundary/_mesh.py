"""The mesh of windows: where it resolves a solution, and a better one."""

import functools

import numpy as np
from jaxtyping import Float

from physml._numerics.quadrature import all_nodes, piece_at

Array = np.ndarray

_MOST_PIECES = 8  # of one window at once
_FULL = 0.7  # of what a window can hold, up to which neighbours are merged
_SHORTEST = 64  # roundings of the time in a window


def even_mesh(stops: Float[Array, " stops"], count: int) -> Float[Array, " edges"]:
    """About `count` windows between the stops, each of which is an edge."""
    lengths = np.diff(stops)
    shares = np.maximum(np.round(count * lengths / lengths.sum()), 1).astype(int)
    pieces = [
        np.linspace(a, b, n + 1)[:-1]
        for a, b, n in zip(stops[:-1], stops[1:], shares.tolist(), strict=True)
    ]
    return np.concatenate([*pieces, stops[-1:]]).astype(stops.dtype)


@functools.cache
def transform(num_points: int) -> Float[Array, "terms nodes"]:
    """The matrix from values at a window's nodes to Legendre coefficients."""
    nodes = all_nodes(num_points)
    return np.linalg.inv(np.polynomial.legendre.legvander(nodes, num_points + 1))


def fullness(
    values: Float[Array, "windows nodes dim"],
    allowed: Float[Array, " dim"],
    rounding: Float[Array, "windows dim"],
) -> tuple[Float[Array, " windows"], float]:
    """How full each window is: up to 1 its polynomial resolves the solution.

    It is the number of Legendre coefficients that are not negligible, beside the number that there
    are. Where the last ones are not negligible, the number needed follows from their decay.

    Args:
        values: at the nodes.
        allowed: the error allowed in each component.
        rounding: what rounding may have changed.

    Returns:
        The fullness, and the largest of the last coefficients in units of what is allowed.
    """
    matrix = transform(values.shape[1] - 2)
    terms = np.abs(np.einsum("np,kpi->kni", matrix, values))
    limit = np.maximum(allowed + 8 * rounding, np.finfo(values.dtype).tiny)
    size = np.max(terms / limit[:, None], axis=2)
    largest = np.maximum.accumulate(size[:, ::-1], axis=1)[:, ::-1]  # of all later terms
    count = size.shape[1]
    last, middle = largest[:, -2], largest[:, count // 2]
    needed = np.argmax(largest <= 1, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        decay = np.log(middle / last) / (count - 2 - count // 2)
        missing = np.where(last > 1, np.log(last) / decay, 0.0)
    full = np.where(last > 1, 1 + np.nan_to_num(missing, nan=np.inf) / count, needed / count)
    return np.minimum(full, _MOST_PIECES), float(np.max(last))


def unresolved(edges: Float[Array, " edges"], full: Float[Array, " windows"]) -> Array:
    """Which windows are too full, and not yet as short as the time can be told apart."""
    shortest = _SHORTEST * np.finfo(edges.dtype).eps * np.maximum(abs(edges[:-1]), abs(edges[1:]))
    return (full > 1) & (np.diff(edges) > shortest)


def refine(
    edges: Float[Array, " edges"], full: Float[Array, " windows"], stops: Float[Array, " stops"]
) -> Float[Array, " new_edges"]:
    """A mesh in which windows that were too full are cut, and neighbours with room are merged."""
    too_full, fixed = unresolved(edges, full), np.isin(edges, stops)
    new, held = [edges[:1]], np.inf
    for k, share in enumerate(full.tolist()):
        if too_full[k]:
            pieces = max(2, int(np.ceil(share)))
            new.append(np.linspace(edges[k], edges[k + 1], pieces + 1)[1:])
            held = np.inf
        elif held + share <= _FULL and not fixed[k]:
            new[-1] = np.append(new[-1][:-1], edges[k + 1])
            held += share
        else:
            new.append(edges[k + 1 : k + 2])
            held = share
    return np.concatenate(new).astype(edges.dtype)


def interpolate(
    edges: Float[Array, " edges"],
    values: Float[Array, "windows nodes dim"],
    times: Float[Array, "*times"],
) -> Float[Array, "*times dim"]:
    """The windows' polynomials at any times."""
    coefficients = np.einsum("np,kpi->kni", transform(values.shape[1] - 2), values)
    index = np.minimum(piece_at(edges, times), len(edges) - 2)
    start, end = edges[index], edges[index + 1]
    s = np.clip((2 * times - start - end) / (end - start), -1.0, 1.0)
    basis = np.polynomial.legendre.legvander(s, coefficients.shape[1] - 1)
    return np.einsum("...n,...ni->...i", basis, coefficients[index]).astype(values.dtype)
