"""The points at which a window's residual is judged, and whether f depends on the time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal
from jaxtyping import Array, Float

from physml._numerics.quadrature import all_nodes, gauss, interpolation
from physml._numerics.units import max_of
from physml.pinn.collocation import Nodes, Tables, VectorField, rounding_of

# A fit's residual is larger at a window's ends than between its points, where the spans are
# chosen by it: for smooth solutions by less than this factor.
_AT_ENDS = 64.0
_NEAR_END = 1 / 32  # of the way from an end to the next Gauss point: at an end f may jump
_FEW = 16  # of the audit's points, where f does not depend on the time


class Place(NamedTuple):
    """Where a window lies.

    Attributes:
        start, end: its times.
        margins: how close to them its residual is not judged.
        y: the state at the start.
    """

    start: Float[Array, ""]
    end: Float[Array, ""]
    margins: Float[Array, "2"]
    y: Float[Array, " dim"]

    @property
    def span(self) -> Float[Array, ""]:
        """The window's length in time."""
        return self.end - self.start


class Audit(NamedTuple):
    """A window's network where it was not fitted.

    Attributes:
        times: when it was looked at.
        u: its values between the points of the fit, which come first among the times.
        states: its values at all times.
        changes: the change of u that the residual at each time would make over the window, as far
            as it counts there.
        rounded: what rounding t and u makes of that change: no fit makes it smaller.
    """

    times: Float[Array, " checks"]
    u: Float[Array, "dim between"]
    states: Float[Array, "dim checks"]
    changes: Float[Array, "dim checks"]
    rounded: Float[Array, " dim"]

    @property
    def change(self) -> Float[Array, " dim"]:
        """The largest of the changes."""
        return max_of(jnp.abs(self.changes), axis=1)


def audit(
    field: VectorField,
    tables: Tables,
    place: Place,
    slope: Float[Array, " dim"],
    coefficients: Float[Array, "dim rank"],
) -> Audit:
    r"""The residual of a window's network where it was not fitted.

    It is looked at between the points of the fit, at the two ends, and at points of a sequence
    without a period. A kink or a jump of f behind the last point of the fit shows at the end alone.
    Where f depends on the time there are many such points, so that a pulse of a hundredth of the
    window is met.
    """
    start, span, y = place.start, place.span, place.y
    half, eps = span / 2, jnp.finfo(y.dtype).eps
    num, many = between(tables).shape[0], tables.check_points.shape[0]
    count = num_looked_at(tables, depends_on_time(field, start, y))
    points, values = tables.check_points[:count], tables.check_values[:count]
    u = y[:, None] + half * (jnp.outer(slope, points + 1) + coefficients @ values.T)
    left, right = jnp.minimum(place.margins, span / 4)
    times = jnp.clip(start + half * (points + 1), start + left, start + span - right)
    some = slice(num + 2, min(num + _FEW, many))  # at an end f may jump
    signs = jnp.asarray(np.where(np.arange(u[:, some].size) % 2, 1.0, -1.0), y.dtype)
    rounded = u[:, some] * (1 + 2 * eps * signs.reshape(u[:, some].shape))
    rates = field(
        jnp.concatenate([times, times[some] * (1 + 2 * eps)]), jnp.concatenate([u, rounded], axis=1)
    )
    rates, moved = rates[:, :count], rates[:, count:]
    residual = slope[:, None] + coefficients @ tables.check_slopes[:count].T - rates
    counts = np.where(np.arange(count) < num, 1.0, 1 / _AT_ENDS)
    return Audit(
        times,
        u[:, :num],
        u,
        span * (residual * jnp.asarray(counts[None], residual.dtype)),
        span * max_of(jnp.abs(moved - rates[:, some]), axis=1),
    )


def num_looked_at(tables: Tables, timed: bool) -> int:
    """The number of an audit's points, by whether f depends on the time."""
    many = tables.check_points.shape[0]
    return many if timed else min(between(tables).shape[0] + _FEW, many)


def between(tables: Tables) -> Float[Array, " between"]:
    """The points between those of the fit, by whose residual the spans are chosen."""
    return tables.check_points[: tables.points.shape[0] + 1]


def beyond(
    field: VectorField,
    nodes: Nodes,
    start: Float[Array, ""],
    values: Float[Array, "dim all_nodes"],
    rates: Float[Array, "dim points"],
    terms: Float[Array, " dim"],
) -> Float[Array, " dim"]:
    r"""What a window's quadrature of f leaves out before its first Gauss point and behind its last.

    A kink of f there changes no value of f at a Gauss point. Close to each end f is compared with
    the polynomial that the quadrature integrates. From the Gauss point to the end, the integral of
    the difference is at most that of a triangle. What may be the rounding of f, or of its `terms`,
    does not count.
    """
    points, dtype = gauss(rates.shape[1]).points, rates.dtype
    gap = float(1 - points[-1])
    near = np.array([-1.0, 1.0]) * (1 - _NEAR_END * gap)
    u = values @ jnp.asarray(interpolation(all_nodes(len(points)), near).T, dtype)
    expected = rates @ jnp.asarray(interpolation(points, near).T, dtype)
    times = start + nodes.half * jnp.asarray(near + 1, dtype)
    differs = max_of(jnp.abs(field(times, u) - expected), axis=1)
    return (
        nodes.half * gap / 2 * jnp.maximum(differs - rounding_of(rates) - rounding_of(terms), 0.0)
    )


def audit_points(num: int) -> Float[np.ndarray, " num"]:
    """The ends of [-1, 1], then a Kronecker sequence: its first points are even, however many."""
    golden = (5**0.5 - 1) / 2
    return np.append([-1.0, 1.0], 2 * (np.arange(1, num - 1) * golden % 1.0) - 1.0)


def depends_on_time(field: VectorField, t: Float[Array, ""], y: Float[Array, " dim"]) -> bool:
    """Whether the time enters what f computes; found as f is traced, whatever a system declares."""
    closed = jax.make_jaxpr(field)(t, y)
    (depends,) = _reached(closed.jaxpr, [True, False])
    return depends


def _reached(jaxpr: Jaxpr, inputs: list[bool]) -> list[bool]:
    """Which outputs depend on the marked inputs; of a loop with a marked input, all outputs do."""
    reached = {x for x, marked in zip(jaxpr.invars, inputs, strict=True) if marked}

    def marked(x) -> bool:
        return not isinstance(x, Literal) and x in reached

    for equation in jaxpr.eqns:
        into = [marked(x) for x in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if any(into) and isinstance(inner, Jaxpr) and len(inner.outvars) == len(equation.outvars):
            if equation.primitive.name in ("pjit", "jit", "closed_call", "custom_jvp_call"):
                out = _reached(inner, into)
            else:
                out = [True] * len(equation.outvars)
        else:
            out = [any(into)] * len(equation.outvars)
        reached.update(x for x, hit in zip(equation.outvars, out, strict=True) if hit)
    return [marked(x) for x in jaxpr.outvars]
