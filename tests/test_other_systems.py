"""Surrogates of driven and parametric systems, by the call that any system takes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from physml import dynamics, nn, reference, surrogate, systems


def fitted(system: Any, train, units, scale):
    """What `scripts/other_systems.py` does for every system."""
    inputs = surrogate.network_inputs(train, period=system.period)
    options = {"scale": scale, "activation": nn.fourier, "centres": "mean", "rngs": nnx.Rngs(0)}
    net = nn.MLP.frozen(inputs, units, system.dim, **options)
    structure = {"symmetry": system.symmetry, "period": system.period}
    return surrogate.fit_readout(net, train, **structure).step_map


@pytest.mark.slow
def test_one_surrogate_of_many_parameters():
    system = systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))
    ts = 0.01 * np.arange(101)
    step_map = fitted(system, reference.trajectories(system, jax.random.key(0), 60, ts), 100, 0.1)
    rho = 27.3
    starts = reference.attractor_starts(systems.Lorenz(rho=rho), jax.random.key(1), 5)
    truth = reference.trajectories_from(systems.Lorenz(rho=rho), starts, ts)
    before = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=rho)
    ys = dynamics.rollout(step_map, before[:, None], 100)
    np.testing.assert_array_equal(ys[..., 3], rho)  # not a step's rounding away from it
    np.testing.assert_allclose(ys[..., :3], truth.ys, atol=1e-4)
    signs = jnp.array([[[-1.0, -1, 1, 1]]])
    mirrored = dynamics.rollout(step_map, before[:, None] * signs, 100)
    np.testing.assert_allclose(mirrored, ys * signs, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, bound", [(jnp.float64, 1e-11), (jnp.float32, 1e-5)])
def test_a_driven_oscillator_for_long(dtype, bound):
    system: Any = systems.DrivenOscillator()
    dt, steps = 0.05, 20_000
    start_key, phase_key = jax.random.split(jax.random.key(0))
    # Numbers of float32, so that both precisions start at the same phases.
    t0s = jax.random.uniform(phase_key, (110,), jnp.float32, maxval=float(system.period))
    ts = dt * np.arange(101)
    both = reference.trajectories(system, start_key, 110, ts, t0s=t0s)
    both = jax.tree.map(lambda x: x.astype(dtype), both)
    step_map = fitted(system, both[:100], 100, 0.01)
    test = both[100:]
    ys = dynamics.rollout(step_map, test.ys[:, :1], steps, t0=test.t0s)
    last = np.arange(steps - 500, steps + 1)
    for i in range(len(test)):
        y0, t0 = test.ys[i, 0].astype(float), float(test.t0s[i])
        exact = system.exact(t0 + dt * last, y0, t0)
        np.testing.assert_allclose(ys[i, last], exact, atol=bound)
