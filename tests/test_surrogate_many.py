"""Many networks at once give what each gives alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import data, dynamics, fit, nn, reference, surrogate, systems
from physml.surrogate._many import regularised_loss

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


@pytest.mark.slow
def test_pairs_are_inputs_and_scaled_increments(trajectories, nets):
    stepper = surrogate.Stepper.create(member(nets, 0), trajectories, period=PERIOD)
    other = trajectories[2:4]
    inputs, targets = stepper.pairs(other)
    steps = (other.ys[:, 1:] - other.ys[:, :-1]).reshape(-1, 2)
    np.testing.assert_allclose(targets * stepper.scale[None], steps)
    pairs = other.pairs()
    angle = 2 * np.pi / PERIOD * pairs.times
    standard = data.Standardiser.fit(trajectories.ys[:, :-1])(pairs.inputs)
    expected = jnp.column_stack([standard, jnp.cos(angle), jnp.sin(angle)])
    np.testing.assert_allclose(inputs, expected, atol=1e-12)
    every = surrogate.network_inputs(trajectories, period=PERIOD)
    np.testing.assert_array_equal(stepper.pairs(trajectories)[0], every)


def test_pairs_leave_out_what_is_known(trajectories, nets):
    net = member(nets, 0)
    stepper = surrogate.Stepper.create(net, trajectories, known=DRIVEN, period=PERIOD)
    _, targets = stepper.pairs(trajectories)
    steps = trajectories.ys[:, 1:] - trajectories.ys[:, :-1]
    assert jnp.abs(targets * stepper.scale[None]).max() < 1e-3 * jnp.abs(steps).max()


def test_readouts_are_those_of_each_alone(trajectories, nets):
    placeholder = surrogate.Stepper.create(member(nets, 0), trajectories, period=PERIOD)
    together = surrogate.refit_many(nets, *placeholder.pairs(trajectories))
    for i in range(3):
        alone = surrogate.fit_readout(member(nets, i), trajectories, period=PERIOD).step_map
        kernel = member(together, i).readout.kernel[...]
        np.testing.assert_allclose(kernel, alone.network.readout.kernel[...], rtol=1e-5, atol=1e-7)
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


def test_many_fits_are_those_of_each_alone(trajectories):
    placeholder = nn.MLP(4, (), 2, rngs=nnx.Rngs(0))
    stepper = surrogate.Stepper.create(placeholder, trajectories, period=PERIOD)
    rows = stepper.pairs(trajectories)
    train, valid = jax.tree.map(lambda x: x[:200], rows), jax.tree.map(lambda x: x[200:], rows)
    settings = {
        "key": jax.random.split(jax.random.key(1), 3),
        "l2": jnp.array([0.0, 0.01, 0.0]),
        "l1": jnp.array([0.0, 0.0, 0.02]),
        "noise": jnp.zeros(3),
        "rate": jnp.array([0.1, 0.1, 0.2]),
    }
    options = {"steps": 6, "batch_size": 32, "key": jax.random.key(2), "valid_every": 3}
    several = {"settings": settings, "hidden": (8,), "optimizer": lambda s: optax.sgd(s["rate"])}
    swept = surrogate.fit_many(train, valid, **several, **options)
    for i, (penalty, strength) in enumerate([(None, 0), (jnp.square, 0.01), (jnp.abs, 0.02)]):

        def loss(net, batch, key, penalty=penalty, strength=strength):
            error = jnp.mean((net(batch[0]) - batch[1]) ** 2)
            if penalty is not None:
                for layer in (*net.hidden, net.readout):
                    error = error + strength * penalty(layer.kernel[...]).sum()
            return error, {}

        net = nn.MLP(4, (8,), 2, rngs=nnx.Rngs(settings["key"][i]))
        options["optimizer"] = optax.sgd(settings["rate"][i])
        mean_square = fit.mean_square(lambda net, batch, key: net(batch[0]) - batch[1])
        alone = fit.gradient(loss, net, train, valid=valid, valid_loss=mean_square, **options)
        np.testing.assert_allclose(swept.history["loss"][:, i], alone.history["loss"], rtol=1e-9)
        kernel = member(swept.models.network, i).readout.kernel[...]
        np.testing.assert_allclose(kernel, alone.model.readout.kernel[...], rtol=1e-9)


@pytest.mark.slow
def test_noise_is_on_the_inputs_and_dropout_ends_with_the_training(trajectories):
    net = nn.MLP(2, (4,), 2, dropout=0.5, rngs=nnx.Rngs(0))
    net.eval()
    zero, x = jnp.zeros(()), jnp.ones((50_000, 2))
    held = nn.Regularised(net, zero, zero, jnp.asarray(1e-3))
    # To first order noise adds the square of its standard deviation times that of the slope.
    slope = jax.jacobian(net)(x[0])
    found, _ = regularised_loss(held, (x, net(x)), jax.random.key(0))
    np.testing.assert_allclose(found, 1e-6 * (slope**2).sum() / 2, rtol=0.03)
    rows = x[:8], x[:8]
    settings = {"key": jax.random.split(jax.random.key(1), 1)}
    settings |= dict.fromkeys(("l2", "l1", "noise"), jnp.zeros(1))
    options = {"hidden": (4,), "dropout": 0.5, "optimizer": lambda s: optax.sgd(0.1), "steps": 1}
    swept = surrogate.fit_many(rows, rows, settings=settings, key=jax.random.key(2), **options)
    assert member(swept.models.network, 0).dropout.deterministic
