"""A recurrent surrogate uses its hidden state where the system demands one.

Of a harmonic oscillator only x is seen. One value leaves the velocity's sign open: with amplitude
a and a phase spread evenly, the best forecast from x_k alone is cos(w dt) x_k, and its error
relative to x's spread a / sqrt(2) is sin(w dt). Two values are enough: x_{k+1} = 2 cos(w dt) x_k -
x_{k-1}.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import dynamics, nn, surrogate
from physml.data import Trajectories, from_arrays
from physml.step_maps import StepMap

DT = 0.3
BLIND = math.sin(DT)


def positions(num: int, time: int, offset: float) -> Trajectories:
    """x = cos(t + phase), the phases spread evenly over a turn."""
    ts = DT * np.arange(time)
    phases = 2 * np.pi * (np.arange(num) + offset) / num
    return from_arrays(ts, np.cos(phases[:, None] + ts)[..., None])


TRAIN, TEST = positions(32, 51, 0.0), positions(40, 26, 0.5)


def error(step_map: StepMap, seen: int) -> float:
    """The error of a step made from so many true rows; one row leaves the memory empty."""
    scale = jnp.full(1, 0.5**0.5)
    return float(dynamics.one_step_error(step_map, TEST.ys, scale=scale, history=seen))


@pytest.mark.parametrize("kind", ["simple", "gru", "lstm"])
def test_a_hidden_state_holds_what_one_observation_does_not(kind):
    inputs = surrogate.network_inputs(TRAIN)
    net = nn.RNN.frozen(kind, inputs, 40, 1, scale=0.5, rngs=nnx.Rngs(0))
    stepper = surrogate.fit_readout(net, TRAIN, warmup=20).step_map
    assert error(stepper, 25) < 1e-4
    assert error(stepper, 1) > 0.9 * BLIND


def test_without_a_hidden_state_the_velocity_is_unknown():
    net = nn.MLP.frozen(surrogate.network_inputs(TRAIN), 40, 1, rngs=nnx.Rngs(0))
    assert error(surrogate.fit_readout(net, TRAIN).step_map, 25) == pytest.approx(BLIND, rel=0.02)


def test_back_propagation_through_time_learns_to_remember():
    """By gradient alone, each step from the true row: only the memory can tell the velocity."""
    options = {"steps": 400, "batch_size": 64, "length": 10, "refit": False}
    options |= {"optimizer": optax.adam(1e-2), "key": jax.random.key(0)}
    fitted = surrogate.fit(nn.RNN("gru", 1, 12, 1, rngs=nnx.Rngs(0)), TRAIN, **options)
    assert error(fitted.step_map, 10) < 0.1 * BLIND
    assert error(fitted.step_map, 1) > 0.9 * BLIND
