"""A known input as a function of the time, from a table."""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import (
    floating_array,
    is_concrete,
    require_finite,
    require_increasing,
    require_one_of,
)
from physml._numerics.quadrature import piece_at
from physml._types import Numbers
from physml.systems._base import Time, times_within

Rule = Literal["linear", "constant"]


class Table(eqx.Module):
    """Measured or planned values between which a rule says what an input is.

    "linear" joins the rows by straight lines; "constant" keeps a row's values until the next row's
    time. Before the first row and after the last one their values hold. As a value in `args`, a
    right-hand side calls it: `args["feed"](t)`. `pinn.identify` ends its windows at the kinks; give
    other solvers `jumps=table.ts` in `systems.from_function`.

    Attributes:
        ts: increasing times, shape (n,).
        values: the input at these times, shape (n,) or (n, columns), in units of its own.
        rule: how it goes on between them.

    Example:
        >>> feed = systems.Table([0.0, 1.0, 3.0], [0.0, 2.0, 0.0])
        >>> print(feed(jnp.array([0.5, 2.0, 9.0])))
        [1. 1. 0.]
    """

    ts: Float[np.ndarray | Array, " n"]
    values: Float[Array, "n *columns"]
    rule: Rule = eqx.field(static=True)

    @checked
    def __init__(self, ts: Numbers, values: Numbers, rule: Rule = "linear"):
        floating_array("ts", ts, jnp.zeros(()).dtype)
        # On the host where that is possible, also while something else is traced.
        self.ts = np.asarray(ts, float) if is_concrete(ts) else jnp.asarray(ts)
        require_increasing("ts", self.ts)
        self.values = floating_array("values", values)
        if self.values.shape[:1] != self.ts.shape or self.values.ndim > 2:
            raise ValueError(
                f"values must have shape ({self.ts.size},) or ({self.ts.size}, columns), "
                f"got {self.values.shape}"
            )
        require_finite("values", self.values)
        require_one_of(get_args(Rule), rule=rule)
        self.rule = rule

    @checked
    def __call__(self, t: Time) -> Float[Array, "*times"]:
        """The input at one time, (columns,) or a number, or at many, which come first."""
        t, ts = jnp.asarray(t, self.values.dtype), jnp.asarray(self.ts, self.values.dtype)
        before = piece_at(ts, t)
        after = jnp.minimum(before + 1, ts.size - 1)
        low, high = self.values[before], self.values[after]
        if self.rule == "constant":
            return low
        span = ts[after] - ts[before]
        share = jnp.clip((t - ts[before]) / jnp.where(span > 0, span, 1.0), 0.0, 1.0)
        return low + share.reshape(share.shape + (1,) * (low.ndim - share.ndim)) * (high - low)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        """The times in [t0, t1] at which the input, or its slope, jumps.

        Raises:
            ValueError: the table's times are traced.
        """
        if not is_concrete(self.ts):
            raise ValueError("ts of a table must not be traced: windows and steps end there")
        return times_within(np.asarray(self.ts)[np.isfinite(self.ts)], t0, t1)

    def padded(self, length: int) -> "Table":
        """The same table with rows that no time reaches, so that tables have one shape."""
        more = length - self.ts.size
        beside = ((0, more),) + ((0, 0),) * (self.values.ndim - 1)
        ts = jnp.pad(self.ts, (0, more), constant_values=jnp.inf)
        values = jnp.pad(self.values, beside, mode="edge")
        return eqx.tree_at(lambda table: (table.ts, table.values), self, (ts, values))
