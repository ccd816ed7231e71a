"""The form in which a user writes states and runs time, and the solvers' own beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics import checks
from physml._numerics.calls import ask
from physml.systems.states._structure import Structure


@dataclass(frozen=True)
class Form:
    """How a user writes a problem that the solvers see as real vectors and growing times.

    Attributes:
        structure: of the states; None for vectors of real numbers.
        backwards: whether the time falls, from t0 to an earlier t1.
    """

    structure: Structure | None = None
    backwards: bool = False

    def time(self, t: Any) -> Any:
        """The solvers' time for the user's, or the user's for the solvers'."""
        return -t if self.backwards else t

    def state(self, y: Float[Array, "*batch dim"]) -> PyTree:
        """The user's state."""
        return y if self.structure is None else self.structure.unravel(y)

    def tolerances(self, rtol: Any, atol: Any, dim: int) -> tuple[Any, Any]:
        """Tolerances as numbers, or `atol` as one for each component: see `Structure.spread`.

        A relative tolerance has no unit: of several the least counts for all.
        """
        rtol, atol = (self.spread(*x, dim) for x in (("rtol", rtol), ("atol", atol)))
        return rtol if np.ndim(rtol) == 0 else float(np.min(rtol)), atol

    def spread(self, name: str, value: Any, dim: int) -> Any:
        """A number, or one for each component of a state: see `Structure.spread`."""
        structure = Structure.of(np.zeros(dim)) if self.structure is None else self.structure
        return structure.spread(name, value)

    def times(self, ts: Any, name: str = "ts") -> Any:
        """The solvers' times for the user's, which fall where time runs backwards.

        Raises:
            ValueError: they do not.
        """
        if not self.backwards or ts is None:
            return ts
        given = np.asarray(ts) if checks.is_concrete(ts) else ts
        if np.ndim(given) == 1 and checks.is_concrete(given):
            steps = np.diff(given)
            if (steps >= 0).any():
                i = int(np.argmax(steps >= 0))
                raise ValueError(
                    f"{name} must decrease where time runs backwards, got {name}[{i}] = {given[i]} "
                    f"then {name}[{i + 1}] = {given[i + 1]}"
                )
        return -given

    def reader(self, name: str, function: Callable[..., object]) -> "Reader":
        """A user's function of t, y and args as one of the solvers' t and y."""
        return Reader(self, name, function)

    def writer(self, name: str, function: Callable[..., object]) -> "Reader":
        """As `reader`, of a function that returns a state."""
        return _Writer(self, name, function)

    def observer(self, function: Callable[..., object]) -> Callable[[Array], object]:
        """What a user's function sees of a state, as a function of the solvers' vector."""
        return _Observer(self, function)


@dataclass(frozen=True)
class _Observer:
    form: Form
    function: Callable[..., object]

    def __call__(self, y: Any) -> object:
        return ask("observe", "observe(y)", self.function, self.form.state(y))


class Path(eqx.Module):
    """A user's function of the time whose values are states, as one whose values are vectors."""

    name: str = eqx.field(static=True)
    function: Callable
    structure: Structure = eqx.field(static=True)

    def __call__(self, t: Array) -> Float[Array, " dim"]:
        def vector(t: Array) -> Array:
            found = ask(self.name, f"{self.name}(t)", self.function, t)
            return self.structure.ravel_answer(self.name, "a state", found, t.dtype)

        return self.structure.in_real_numbers(vector)(t)


@dataclass(frozen=True)
class Reader:
    """Hashable, so that another one for the same function compiles nothing."""

    form: Form
    name: str
    function: Callable[..., object]

    def __call__(self, t: Any, y: Any, args: PyTree) -> object:
        """What the user's function answers."""
        called = f"{self.name}(t, y, args)"
        return ask(self.name, called, self.function, self.form.time(t), self.form.state(y), args)


@dataclass(frozen=True)
class _Writer(Reader):
    def __call__(self, t: Any, y: Any, args: PyTree) -> object:
        found, structure = super().__call__(t, y, args), self.form.structure
        if structure is None:
            return found
        return structure.ravel_answer(self.name, "a state", found, y.dtype)
