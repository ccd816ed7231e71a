"""The times at which a solution with delays is not smooth."""

import bisect
import heapq
from typing import NamedTuple

MOST_SMOOTH = 10  # a jump of this derivative changes no digit of a window's polynomial


class Break(NamedTuple):
    """A time at which a derivative of the solution jumps, that of the smallest order.

    Of order 0 the solution itself jumps.
    """

    time: float
    order: int


class Breaks:
    r"""The breaking points up to now, and those that are known to come.

    What is not smooth at a time is less so, by one derivative, when a delay looks there:
    $\xi + \tau$ for a constant delay.

    Source: A. Bellen, M. Zennaro, Numerical Methods for Delay Differential Equations (Oxford 2003),
    section 2.2.
    """

    def __init__(self, constant: list[float]):
        self.constant = constant
        self.times: list[float] = []
        self.orders: list[int] = []
        self._coming: list[tuple[float, int]] = []

    def add(self, time: float, order: int) -> None:
        """A breaking point; of one that is smooth enough nothing is kept."""
        if order >= MOST_SMOOTH:
            return
        at = bisect.bisect_left(self.times, time)
        if at < len(self.times) and self.times[at] == time:
            order = min(order, self.orders[at])
            self.orders[at] = order
        else:
            self.times.insert(at, time)
            self.orders.insert(at, order)
        for delay in self.constant:
            heapq.heappush(self._coming, (time + delay, order + 1))

    def next(self, time: float) -> float:
        """The next one that is known to come after a time; infinite if there is none."""
        while self._coming and self._coming[0][0] <= time:
            heapq.heappop(self._coming)
        return self._coming[0][0] if self._coming else float("inf")

    def reach(self, time: float, slack: float) -> int | None:
        """Pass all that were to come until a time, or by rounding after it, which happen there.

        Returns:
            The smallest order, if there were any.
        """
        orders = []
        while self._coming and self._coming[0][0] <= time + slack:
            orders.append(heapq.heappop(self._coming)[1])
        if not orders:
            return None
        self.add(time, min(orders))
        return min(orders)

    def around(self, time: float) -> tuple[Break | None, Break | None]:
        """The last one at or before a time, and the first one after it."""
        at = bisect.bisect_right(self.times, time)
        before = Break(self.times[at - 1], self.orders[at - 1]) if at else None
        after = Break(self.times[at], self.orders[at]) if at < len(self.times) else None
        return before, after
