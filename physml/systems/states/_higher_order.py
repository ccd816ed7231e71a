"""Equations of second and higher order as right-hand sides of first order."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import ask, checked, takes
from physml._numerics.checks import require_count
from physml._numerics.parts import as_pytree
from physml.systems.states._newton import solve_for
from physml.systems.states._structure import Structure


class HigherOrder(eqx.Module):
    """A right-hand side of states (x, x', ...), whose last entry's derivative is a function's."""

    function: Callable
    order: int = eqx.field(static=True)
    takes_args: bool = eqx.field(static=True)

    def __call__(self, t: Any, y: Any, args: PyTree = None) -> Any:
        """(x', x'', ...), the last of them from the function."""
        state = _entries(y, self.order)
        highest = _asked(self, "f", t, state, args)
        return (*state[1:], highest) if self.order > 1 else highest

    def check_start(self, t: Any, y: Any, args: PyTree) -> None:
        """Raise ValueError where the equation has no highest derivative at the start."""
        if isinstance(self.function, Solved):
            self.function.check_start(t, _entries(y, self.order), args)


class Solved(eqx.Module):
    """The highest derivative that makes a residual zero."""

    function: Callable
    order: int = eqx.field(static=True)
    takes_args: bool = eqx.field(static=True)
    guess: PyTree

    def __call__(self, t: Any, *state_and_args: Any) -> Any:
        """The highest derivative, in the structure of x; NaN where there is none."""
        *state, args = state_and_args
        structure, residual, start = self._equation(t, tuple(state), args)
        return structure.unravel(solve_for(residual, start)[0])

    def check_start(self, t: Any, state: tuple, args: PyTree) -> None:
        """Raise ValueError unless the residual can be solved for the highest derivative."""
        _, residual, start = self._equation(t, state, args)
        _, solved, regular = solve_for(residual, start)
        if not bool(solved):
            what = "x" + "'" * self.order
            why = (
                "its iterations from guess do not converge"
                if bool(regular)
                else f"its derivative in {what} is singular"
            )
            raise ValueError(f"F must be solvable for {what} at the start, got one where {why}")

    def _equation(
        self, t: Any, state: tuple, args: PyTree
    ) -> tuple[Structure, Callable[[Array], Array], Float[Array, " dim"]]:
        """The structure of x, the residual of a highest derivative as a vector, and the guess."""
        structure = Structure.of(state[0])
        vectors = tuple(structure.ravel(x) for x in state)
        dtype = vectors[0].dtype

        def residual(highest: Any) -> Array:
            x = (*map(structure.unravel, vectors), structure.unravel(highest))
            found = _asked(self, "F", t, x, args)
            return structure.ravel_answer("F", "a residual", found, dtype)

        guess = structure.spread("guess", self.guess, of="x")
        start = jnp.broadcast_to(jnp.asarray(guess, dtype), vectors[0].shape)
        return structure, structure.in_real_numbers(residual), start


def _entries(y: Any, order: int) -> tuple:
    """The entries of a state (x, x', ...)."""
    if order == 1:
        return (y,)
    names = "(" + ", ".join("x" + "'" * n for n in range(order)) + ")"
    listed = isinstance(y, tuple) or getattr(y, "ndim", 0) > 0
    if not listed or len(y) != order:
        raise ValueError(f"y0 must be the state {names}, got {Structure.of(y).words}")
    return tuple(y)


def _asked(of: HigherOrder | Solved, name: str, t: Any, state: tuple, args: PyTree) -> Any:
    """What a user's function returns for t, x, x', ..., and args if it takes them."""
    count = of.order + isinstance(of, Solved)
    if of.takes_args:
        return ask(name, _form(name, count, True), of.function, t, *state, args)
    if args is not None:
        raise ValueError(f"args must be None where {name} takes none, got a value")
    return ask(name, _form(name, count, False), of.function, t, *state)


def _form(name: str, count: int, with_args: bool) -> str:
    entries = ["t", *("x" + "'" * n for n in range(count)), *(["args"] if with_args else [])]
    return f"{name}({', '.join(entries)})"


def _takes_args(name: str, function: Callable, count: int) -> bool:
    with_args, without = (_form(name, count, which) for which in (True, False))
    return takes(function, with_args) or not takes(function, without)


@checked
def second_order(f: Callable[..., Any]) -> HigherOrder:
    r"""The right-hand side of $x'' = f(t, x, x')$, for states `(x, v)` with $v = x'$.

    It is for `pinn.solve`, `reference.solve` and all that take a right-hand side, started from
    `(x0, v0)`; `systems.from_function(systems.second_order(f), like=(x0, v0))` is a system.

    Args:
        f: `f(t, x, v, args)` or `f(t, x, v)`, the second derivative in the structure of x: a
            number, an array, a dict, ...

    Raises:
        TypeError: f cannot be called.

    Example:
        >>> solution = pinn.solve(systems.second_order(lambda t, x, v: -x), (1.0, 0.0), t1=3.0)
        >>> x, v = solution(2.0)
        >>> x.round(6)
        Array(-0.416147, dtype=float64)
    """
    return higher_order(f, 2)


@checked
def higher_order(f: Callable[..., Any], order: int) -> HigherOrder:
    r"""The right-hand side of $x^{(n)} = f(t, x, x', \dots)$, for states `(x, x', ...)`.

    Args:
        f: `f(t, x, x', ..., args)` or without args: the derivative of order n.
        order: n, at least 2, which is the number of entries of a state.

    Raises:
        TypeError: f cannot be called, or `order` is no integer.
        ValueError: `order` is less than 2.

    Example:
        >>> third = systems.higher_order(lambda t, x, v, a: -x, 3)
        >>> solution = pinn.solve(third, (1.0, -1.0, 1.0), t1=1.0)  # exp(-t)
        >>> solution(1.0)[0].round(6)
        Array(0.367879, dtype=float64)
    """
    require_count(2, order=order)
    return HigherOrder(as_pytree(f), order, _takes_args("f", f, order))


@checked
def from_residual(F: Callable[..., Any], order: int = 2, *, guess: PyTree = 0.0) -> HigherOrder:
    r"""The right-hand side of an implicit equation, $F(t, x, x', \dots, x^{(n)}) = 0$.

    Newton's method, damped, solves it for the highest derivative at every time and state. Of
    several that make F zero it takes the one that it reaches from `guess`. F may have units of any
    size. Where the derivative of F in the highest derivative is singular, there is no right-hand
    side: at the start that is refused, and on the way a solution ends there.

    Args:
        F: `F(t, x, x', ..., args)` or without args, which returns as many numbers as x has, in the
            structure of x.
        order: n, the order of the highest derivative; 1 for F(t, x, x').
        guess: the highest derivative where Newton's method begins: a number, or a tree like x.

    Returns:
        A right-hand side for states `(x, x', ...)` of n entries; for n = 1, of x itself.

    Raises:
        TypeError: F cannot be called, or `order` is no integer.
        ValueError: `order` is less than 1; later, F is not solvable at the start.

    Example:
        >>> pendulum = systems.from_residual(lambda t, x, v, a: 2 * a + 2 * jnp.sin(x))
        >>> solution = pinn.solve(pendulum, (1.0, 0.0), t1=1.0)
        >>> solution(1.0)[0].round(6)
        Array(0.600085, dtype=float64)
    """
    require_count(order=order)
    solved = Solved(as_pytree(F), order, _takes_args("F", F, order + 1), guess)
    return HigherOrder(solved, order, True)
