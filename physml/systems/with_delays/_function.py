"""A system with delays from a user's own right-hand side."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import is_concrete
from physml._numerics.parts import as_pytree
from physml._types import Numbers
from physml.systems._base import Time, as_parameter
from physml.systems.states import Structure
from physml.systems.with_delays._base import Delay, DelayedSystem


class FunctionDelayedSystem(DelayedSystem):
    """A system whose right-hand side is a user's function; made by `delayed`."""

    function: Callable
    delays: tuple[Delay, ...]
    args: PyTree
    structure: Structure | None = eqx.field(static=True, default=None)
    """How the functions see a state. None for a vector."""

    def of(self, structure: Structure) -> "FunctionDelayedSystem":
        """The same system, whose functions see states of a structure."""
        delays = tuple(
            _Delay(f"delays[{i}]", delay, structure) if callable(delay) else delay
            for i, delay in enumerate(self.delays)
        )
        return dataclasses.replace(self, delays=delays, structure=structure)

    def rate(
        self,
        t: Time,
        y: Float[Array, " dim"],
        delayed: Float[Array, "delays dim"],
        args: PyTree,
    ) -> Array:
        args = self.args if args is None else args
        form, structure = "f(t, y, delayed_ys, args)", self.structure
        if structure is None:
            dy = ask("f", form, self.function, t, y, delayed, args)
            return answer("f", "dy/dt", dy, y.shape, y.dtype)

        def single(t: Array, y: Array, delayed: Array) -> Array:
            past = tuple(structure.unravel(row) for row in delayed)
            dy = ask("f", form, self.function, t, structure.unravel(y), past, args)
            return structure.ravel_answer("f", "dy/dt", dy, y.dtype)

        return structure.in_real_numbers(single)(t, y, delayed)


class _Delay(eqx.Module):
    """A delay that depends on a state that is no vector."""

    name: str = eqx.field(static=True)
    function: Callable
    structure: Structure = eqx.field(static=True)

    def __call__(self, t: Time, y: Float[Array, " dim"], args: PyTree) -> Float[Array, ""]:
        def single(t: Array, y: Array) -> Array:
            form, state = "delay(t, y, args)", self.structure.unravel(y)
            found = ask(self.name, form, self.function, t, state, args)
            return answer(self.name, "a number", found, (), y.dtype)

        return self.structure.in_real_numbers(single)(t, y)


@checked
def delayed(
    f: Callable[[Any, Array, Array, PyTree], Numbers],
    delays: Delay | Sequence[Delay],
    *,
    args: PyTree = None,
) -> FunctionDelayedSystem:
    r"""A system with delays, $\dot y = f(t, y(t), y(t - \tau_1), y(t - \tau_2), \dots)$.

    Args:
        f: `f(t, y, delayed_ys, args)` returns dy/dt for one state `y` of shape (dim,);
            `delayed_ys` has shape (delays, dim). JAX traces it. It gets no delayed rates of change:
            neutral equations are not of this kind. Where the history is a state that is no vector
            (a dict, a tuple, an array of another shape, complex numbers), `y` is such a state,
            `delayed_ys` is a tuple of one for each delay, and dy/dt has the same structure.
        delays: one or several, each a positive number in units of time, or a function
            `delay(t, y, args)` whose value is positive along the solution.
        args: any pytree, the last argument of `f` and of the delays where the caller gives none.

    Raises:
        TypeError: `f` or a delay is of another kind.
        ValueError: there is no delay, or one is not positive and finite, or traced.

    Example:
        >>> decay = systems.delayed(lambda t, y, past, args: -past[0], 1.0)
        >>> decay.delays
        (1.0,)
    """
    single = callable(delays) or np.ndim(delays) == 0  # pyright: ignore[reportArgumentType]
    each = (delays,) if single else tuple(delays)  # pyright: ignore[reportArgumentType]
    converted = []
    for i, delay in enumerate(each):
        number = as_parameter(delay)
        if callable(delay):
            number = as_pytree(delay)
        elif not is_concrete(delay):
            raise ValueError(f"delays[{i}] must not be traced, because legs end by it, got {delay}")
        elif isinstance(delay, bool) or np.ndim(number) != 0 or isinstance(number, str):
            raise TypeError(
                f"delays[{i}] must be a number or a function delay(t, y, args), got {delay!r}"
            )
        converted.append(number)
    return FunctionDelayedSystem(function=as_pytree(f), delays=tuple(converted), args=args)
