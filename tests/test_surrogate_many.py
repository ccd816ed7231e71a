"""Many networks at once give what each gives alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from physml import data, dynamics, nn, reference, surrogate, systems

DRIVEN = systems.DrivenOscillator()
PERIOD = float(DRIVEN.period)


@pytest.fixture(scope="module")
def trajectories():
    start, phase = jax.random.split(jax.random.key(0))
    t0s = jax.random.uniform(phase, (8,), maxval=PERIOD)
    return reference.trajectories(DRIVEN, start, 8, 0.05 * np.arange(41), t0s=t0s)


@pytest.fixture(scope="module")
def nets():
    keys = jax.random.split(jax.random.key(1), 3)
    return jax.vmap(lambda key: nn.MLP(4, (16,), 2, dtype=jnp.float32, rngs=nnx.Rngs(key)))(keys)


def member(nets, i):
    return jax.tree.map(lambda x: x[i], nets)


def test_pairs_are_inputs_and_scaled_increments(trajectories, nets):
    stepper = surrogate.Stepper.create(member(nets, 0), trajectories, period=PERIOD)
    other = trajectories[2:4]
    inputs, targets = stepper.pairs(other)
    np.testing.assert_allclose(
        targets * stepper.scale[None], (other.ys[:, 1:] - other.ys[:, :-1]).reshape(-1, 2)
    )
    pairs = other.pairs()
    angle = 2 * np.pi / PERIOD * pairs.times
    standard = data.Standardizer.fit(trajectories.ys[:, :-1])(pairs.inputs)
    expected = jnp.column_stack([standard, jnp.cos(angle), jnp.sin(angle)])
    np.testing.assert_allclose(inputs, expected, atol=1e-12)
    every = surrogate.network_inputs(trajectories, period=PERIOD)
    np.testing.assert_array_equal(stepper.pairs(trajectories)[0], every)


def test_pairs_leave_out_what_is_known(trajectories, nets):
    net = member(nets, 0)
    stepper = surrogate.Stepper.create(net, trajectories, known=DRIVEN, period=PERIOD)
    _, targets = stepper.pairs(trajectories)
    left = targets * stepper.scale[None]
    assert (
        jnp.abs(left).max() < 1e-3 * jnp.abs(trajectories.ys[:, 1:] - trajectories.ys[:, :-1]).max()
    )


def test_readouts_are_those_of_each_alone(trajectories, nets):
    placeholder = surrogate.Stepper.create(member(nets, 0), trajectories, period=PERIOD)
    together = surrogate.refit_many(nets, *placeholder.pairs(trajectories))
    for i in range(3):
        alone = surrogate.fit_readout(member(nets, i), trajectories, period=PERIOD)
        kernel = member(together, i).readout.kernel[...]
        np.testing.assert_allclose(kernel, alone.net.readout.kernel[...], rtol=1e-5, atol=1e-7)
    # What came in is as it was.
    assert member(nets, 0).readout.kernel[...].dtype == jnp.float32


def test_scores_are_those_of_each_alone(trajectories, nets):
    scale = trajectories.ys.std(axis=(0, 1))
    placeholder = surrogate.Stepper.create(member(nets, 0), trajectories, period=PERIOD)
    scores = surrogate.score_many(placeholder, nets, trajectories, scale=scale)
    assert scores.eps1.shape == (3,) and scores.times.shape == (3, 8)
    for i in range(3):
        stepper = surrogate.Stepper.create(member(nets, i), trajectories, period=PERIOD)
        starts = trajectories.t0s + trajectories.ts[0]
        skill = dynamics.forecast_skill(stepper, trajectories.ys, scale=scale, t0=starts)
        np.testing.assert_allclose(scores.times[i], skill.times)
        worst = jnp.abs(skill.predicted - trajectories.ys).max(axis=1)
        np.testing.assert_allclose(scores.worst[i], worst, rtol=1e-9)
        eps1 = dynamics.one_step_error(stepper, trajectories.ys, scale=scale, t0=starts)
        np.testing.assert_allclose(scores.eps1[i], eps1, rtol=1e-12)
    moved = eqx.tree_at(lambda t: t.t0s, trajectories, trajectories.t0s + 1.0)
    other = surrogate.score_many(placeholder, nets, moved, scale=scale)
    assert jnp.abs(other.eps1 - scores.eps1).min() > 1e-4  # the phase of the drive counts
