"""The adversarial solver: a critic in place of the mean square of the residual."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import refusals

from physml import fit, nn, pinn
from physml.results import RESULTS
from physml.systems import from_function

KEY = jax.random.key(0)
DECAY = from_function(lambda t, y, rate: -rate * y, 1)


def network():
    return nn.MLP(1, (12,), 1, activation="sin", rngs=nnx.Rngs(0))


def critic(size=1, outputs=1):
    return nn.MLP(size, (16,), outputs, rngs=nnx.Rngs(1))


def stage(steps, **options):
    rate = fit.scheduled(optax.adam, learning_rate=fit.Cosine(1e-2, steps), b1=0.5)
    return (pinn.Adversarial(critic(), rate, rate, **options), steps)


def train(stages, y0=1.0, **options):
    options = {"args": 2.0, "key": KEY, "points": pinn.Even(40)} | options
    return pinn.train(network(), DECAY, [y0], 1.0, stages=stages, **options)


@pytest.mark.slow
def test_a_critic_leads_to_the_solution_in_any_unit():
    training = train([stage(600)])
    ts = np.linspace(0.0, 1.0, 50)
    errors = np.abs(training.solution(ts)[:, 0] - np.exp(-2 * ts))
    assert training.solution.result == RESULTS.successful
    assert errors.max() < 1e-2
    assert training.losses[-1] < 1e-3 * training.losses[0]
    np.testing.assert_allclose(training.losses, training.fits[0].history["mean_square"])
    other = train([stage(600)], y0=2.0**30)
    np.testing.assert_allclose(other.solution(ts), 2.0**30 * training.solution(ts), rtol=1e-9)


@pytest.mark.slow
def test_it_stands_beside_other_stages_and_points_that_move():
    points = pinn.Resampled(40, every=10)
    training = train([stage(50), (fit.VariableProjection(), 10)], points=points)
    assert [outcome.step for outcome in training.fits] == [50, 10]
    assert training.losses.shape == (60,)
    assert training.losses[-1] < 1e-10 < training.losses[49]


def test_a_game_that_breaks_down_raises():
    with pytest.raises(RuntimeError, match="The loss was not finite at step 0 of stage 1"):
        rule = optax.sgd(jnp.inf)
        train([(pinn.Adversarial(critic(), rule, rule), 5)])


@refusals(
    ({"key": None}, "key must be given for an adversarial stage"),
    ({"condition": "soft"}, "condition must be 'hard' for an adversarial stage"),
    ({"critic": critic(2)}, r"critic must take residuals of shape \(1, 1\)"),
    ({"critic": critic(1, 2)}, r"critic must turn \(times, 1\) into \(times, 1\)"),
    ({"noise": 0.0}, "noise must be positive"),
    ({"penalty": -1.0}, "penalty must .*not.*negative"),
    ({"turns": 0}, "turns must be at least 1"),
)
def test_what_does_not_fit_is_refused(case):
    own = {name: case[name] for name in case if name in ("critic", "noise", "penalty", "turns")}
    options = {"critic": critic(), "optimizer": optax.sgd(0.1), "critic_optimizer": optax.sgd(0.1)}
    rest = {name: value for name, value in case.items() if name not in own}
    train([(pinn.Adversarial(**options | own), 1)], **rest)
