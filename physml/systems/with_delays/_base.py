"""The base of all systems with delays."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from physml._numerics.checks import require_not_empty, require_positive
from physml.systems._base import Parameter, Time, check_parameters

if TYPE_CHECKING:
    # A type checker would take an AbstractVar for the first argument of every constructor.
    from typing import ClassVar as Fact
else:
    from equinox import AbstractVar as Fact

Delay: TypeAlias = Parameter | Callable[..., object]
"""A positive number, or a function `delay(t, y, args)` of the present time and state."""


class DelayedSystem(eqx.Module):
    r"""A system whose rate of change depends on earlier states too.

    $$\dot y(t) = f(t, y(t), y(t - \tau_1), y(t - \tau_2), \dots)$$

    `pinn.solve_delays` solves it from a history. Its numeric parameters are pytree leaves.
    """

    delays: Fact[tuple[Delay, ...]]
    """The delays, in units of time: positive numbers, or functions delay(t, y, args)."""

    @abc.abstractmethod
    def rate(
        self,
        t: Time,
        y: Float[Array, " dim"],
        delayed: Float[Array, "delays dim"],
        args: PyTree,
    ) -> Array:
        """dy/dt, where row i of `delayed` is the state one delay i ago."""

    def __check_init__(self):
        check_parameters(self)
        require_not_empty(delays=self.delays)
        for i, delay in enumerate(self.delays):
            if not callable(delay):
                require_positive(**{f"delays[{i}]": delay})
