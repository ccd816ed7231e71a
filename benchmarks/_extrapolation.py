"""Initial value problems in NumPy's long double, by the extrapolation of Gragg, Bulirsch and Stoer.

The truth of `dysts.py`: it shares nothing with the solvers under test. A long double has 19 digits
where the platform has them. The method is explicit, so it suits equations that are not very stiff.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Rates = Callable[[Any, np.ndarray], np.ndarray]
LONG = np.finfo(np.longdouble)
ROUNDING = (
    16 * LONG.eps
)  # what the last two extrapolations differ by where the step is next to none


def integrate(rates: Rates, y0: Any, ts: np.ndarray, rtol: float, columns: int) -> np.ndarray:
    """The states at `ts` in long double; `y0` is the first of them.

    Args:
        rates: dy/dt from t and y, in the precision of both.
        y0: the state at `ts[0]`.
        ts: increasing times.
        rtol: the error of a step in each component, relative to its largest value so far. Many
            columns amplify rounding: with 7 it is reached down to 3e-18.
        columns: midpoint rules with 2, 4, ..., 2 columns substeps; the order is 2 columns.
    """
    y, t = np.asarray(y0, np.longdouble), np.longdouble(ts[0])
    size, step = np.abs(y), np.longdouble(ts[1] - ts[0])
    least = 1e-17 * (ts[-1] - ts[0])  # where the right-hand side jumps, no step is small enough
    rows = [y]
    for end in ts[1:].astype(np.longdouble):
        while t < end:
            span = min(step, end - t)
            new, error = _step(rates, t, y, span, columns)
            bound = rtol * np.maximum(size, np.abs(new)) + LONG.tiny
            # A shorter step has no less of what is rounding, so that says nothing for one.
            error = np.maximum(error - ROUNDING * np.abs(new), 0)
            ratio = float(np.max(error / bound)) if np.all(np.isfinite(new)) else 1e30
            wanted = span * min(4, max(0.1, 0.9 * max(ratio, 1e-30) ** (-1 / (2 * columns - 1))))
            if ratio <= 1 or span <= least:
                t = end if span == end - t else t + span
                y, size = new, np.maximum(size, np.abs(new))
                # A step that an output time cut short says nothing against the longer one.
                wanted = max(wanted, step) if span < step else wanted
            step = max(wanted, least)
        rows.append(y)
    return np.stack(rows)


def _step(
    rates: Rates, t: Any, y: np.ndarray, span: Any, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """One step by all columns, and how far the last two extrapolations differ."""
    slope = rates(t, y)
    last: list[np.ndarray] = []
    for k in range(1, columns + 1):
        h = span / (2 * k)
        old, now = y, y + h * slope
        for i in range(1, 2 * k):
            old, now = now, old + 2 * h * rates(t + i * h, now)
        # Gragg's smoothing looks at the end too, where a kink would otherwise go unseen.
        row = [(old + now + h * rates(t + span, now)) / 2]
        for j in range(1, k):
            ratio = np.longdouble(k) / (k - j)
            row.append(row[j - 1] + (row[j - 1] - last[j - 1]) / (ratio**2 - 1))
        last = row
    return last[-1], np.abs(last[-1] - last[-2])
