"""The units found for an equation: those of its solution, whatever they are."""

import jax.numpy as jnp
import numpy as np
import pytest

from physml import pinn
from physml.systems import Lorenz, VanDerPol, from_function


def scales(system, y0, t1, args=None):
    found = pinn.find_scales(system, jnp.asarray(y0), jnp.asarray(0.0), jnp.asarray(t1), args)
    return float(found.time), np.asarray(found.state)


rotation = from_function(
    lambda t, y, args: args[0] * jnp.stack([y[1] / args[1], -args[1] * y[0]]), 2
)


@pytest.mark.parametrize(("omega", "ratio"), [(1.0, 1.0), (1e6, 1e-3), (1e-5, 1e7)])
def test_rotation(omega, ratio):
    """y = (a cos, -a q sin)(omega t): the probe damps it, but not its pace."""
    args = jnp.array([omega, ratio])
    time, state = scales(rotation, [1e-9, 0.0], 6.3 / omega, args)
    assert 0.7 < omega * time < 1.4
    assert np.all(state / (1e-9 * np.array([1.0, ratio])) > 0.4)
    assert np.all(state / (1e-9 * np.array([1.0, ratio])) < 1.2)


def test_units_of_the_equation_do_not_matter():
    one, other = (
        scales(rotation, [a, 0.0], 30.0 / w, jnp.array([w, 1.0]))
        for w, a in [(1.0, 1.0), (64.0, 8.0)]
    )
    np.testing.assert_allclose(other[0], one[0] / 64, rtol=1e-9)
    np.testing.assert_allclose(other[1], 8 * one[1], rtol=1e-9)


@pytest.mark.slow
def test_chaos_and_stiffness():
    time, state = scales(Lorenz(), [1.0, 1.0, 1.0], 20.0)
    assert 0.03 < time < 0.5 and np.all((state > 4) & (state < 40))
    time, state = scales(VanDerPol(1000.0), [2.0, 0.0], 2000.0)
    assert 0 < time <= 1000 and np.all(np.isfinite(state) & (state > 0))


def test_what_does_not_move_has_its_own_size():
    system = from_function(lambda t, y, args: 0.0 * y, 2)
    time, state = scales(system, [0.0, 5.0], 4.0)
    assert time == 2.0  # half of the interval
    np.testing.assert_array_equal(state, [1.0, 5.0])


def test_a_right_hand_side_that_breaks_down_leaves_finite_units():
    system = from_function(lambda t, y, args: jnp.sqrt(0.5 - t) * y, 1)
    time, state = scales(system, [1.0], 2.0)
    assert np.isfinite(time) and np.all(np.isfinite(state))
