"""What a march takes on as it goes: longer buffers, and the tables of stiff windows."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from physml._numerics.compiled import compiling, lower, once
from physml._numerics.devices import placed_as
from physml.pinn.collocation import FEW_COMPONENTS, Tables, find_band, with_implicit
from physml.pinn.ivp._march import InitialValueProblem, March

_LEAST_BAND = 96  # components: of fewer, dense matrices cost no more
_ROOM = 1 << 15  # numbers of states: windows times components


def room_at_first(dim: int) -> int:
    """The windows that a march begins with room for: all that are allowed, or some 60 MB of them.

    A power of two, so that few programs are compiled.
    """
    return max(64, 1 << (_ROOM // dim).bit_length() >> 1)


def grow(marched: March, num_windows: int) -> March:
    """The march with longer buffers, made on the host, where nothing has to be compiled."""

    def longer(x: Array) -> Array:
        rows = np.zeros((num_windows, *x.shape[1:]), x.dtype)
        rows[: len(x)] = x
        return placed_as(rows, x)

    return eqx.tree_at(lambda m: m.windows, marched, jax.tree.map(longer, marched.windows))


def for_stiff(problem: InitialValueProblem, tables: Tables, marched: March | None) -> Tables:
    """The tables with what stiff windows of many components need.

    Where the march stands, the Jacobian shows which component depends on which.
    """
    dim = problem.y0.size
    if dim <= FEW_COMPONENTS:
        return tables
    if marched is None or dim < _LEAST_BAND:
        return with_implicit(tables, None)
    jacobian = once(_compile_jacobian, problem, marched.t, marched.y)
    pattern = np.asarray(jacobian(problem, marched.t, marched.y)) != 0
    return with_implicit(tables, find_band(pattern))


def _compile_jacobian(*args: object) -> Callable[..., Array]:
    return compiling(lower(_jacobian, *args), quickly=True)


def _jacobian(problem: InitialValueProblem, t: Array, y: Array) -> Array:
    return jax.jacfwd(problem.rates, argnums=1)(t, y)
