"""The base of all systems with constraints."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import require_count
from physml._numerics.parts import as_pytree
from physml.systems._base import Time
from physml.systems.states import Structure


class ImplicitSystem(eqx.Module):
    r"""An implicit system of differential and algebraic equations, $F(t, y, y') = 0$.

    Made by `implicit`, `with_mass`, `with_invariants` and `constrained_motion`, solved by
    `pinn.solve_constrained`.

    Attributes:
        equations: F, called as `equations(t, y, dy, args)`.
        args: what F gets where the caller gives none.
        dim: the number of components and of equations.
        state_names: a short name for each component.
        num_multipliers: how many of the last components start at zero and may be left out of a
            start.
        num_hidden: how many of the last components a solution leaves out, because they stay zero
            where the equations agree.
        structure: of the states as the user writes them, which the other components make up; None
            for vectors.
    """

    equations: Callable
    args: PyTree
    dim: int = eqx.field(static=True)
    state_names: tuple[str, ...] = eqx.field(static=True)
    num_multipliers: int = eqx.field(static=True, default=0)
    num_hidden: int = eqx.field(static=True, default=0)
    structure: Structure | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_count(dim=self.dim)
        if len(self.state_names) != self.dim:
            raise ValueError(f"state_names must be {self.dim} names, got {self.state_names}")

    @checked
    def __call__(
        self, t: Time, y: Float[Array, " dim"], dy: Float[Array, " dim"], args: PyTree = None
    ) -> Float[Array, " dim"]:
        """What the equations miss at one time, F(t, y, y'); zero where they hold.

        Args:
            t: the time.
            y, dy: the state and its time derivative.
            args: passed on to the equations; the system's own unless given.

        Raises:
            ValueError: `y` or the answer does not have `dim` components.
        """
        if y.shape != (self.dim,):
            raise ValueError(f"y must have shape ({self.dim},), got {y.shape}")
        args, t = self.args if args is None else args, jnp.asarray(t, y.dtype)
        missed = ask("F", "F(t, y, dy, args)", self.equations, t, y, dy, args)
        return answer("F", "F(t, y, y')", missed, y.shape, y.dtype)


def implicit_system(
    equations: Callable,
    dim: int,
    state_names: Sequence[str] | None,
    args: PyTree,
    structure: Structure | None = None,
) -> ImplicitSystem:
    """An implicit system whose components have names, made up unless given."""
    require_count(dim=dim)
    of = Structure.of(np.zeros(dim)) if structure is None else structure
    names = of.names if state_names is None else tuple(state_names)
    structure = None if of.is_vector else of
    return ImplicitSystem(as_pytree(equations), args, dim, names, structure=structure)
