"""Variable projection against linear least squares and a separable problem with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import fit, nn
from physml._numerics.parts import take_apart
from physml.results import RESULTS

X = jnp.linspace(-1.0, 1.0, 40)[:, None]


def network(width: int = 8) -> nn.MLP:
    normal = nnx.initializers.normal(2.0)  # features far from each other
    options = {"kernel_init": normal, "bias_init": normal, "activation": "sin"}
    return nn.MLP(1, (width,), 1, **options, rngs=nnx.Rngs(1))


def misfit(model, batch, key):
    x, y = batch
    return model(x) - y


def test_frozen_features_are_solved_by_the_last_layer():
    """With the hidden layer at rest one undamped step is linear least squares."""
    net, targets = network(), jnp.cos(3 * X)
    parts, params, rest = take_apart(net, nnx.Param)
    step = fit.ProjectionStep(misfit, fit.VariableProjection(), parts)
    # So heavily damped that the hidden layer does not move.
    state = fit.FitState.begin(params, rest, jnp.array([0.0, 1e30]), None)
    new, metrics = jax.jit(step)(state, (X, targets), None)
    model = parts.merge(new.params, new.rest)
    features = np.concatenate([np.asarray(net.features(X)), np.ones((40, 1))], axis=1)
    best = np.linalg.lstsq(features, np.asarray(targets))[0]
    np.testing.assert_allclose(model(X), features @ best, atol=1e-9)
    before = float(jnp.mean((net(X) - targets) ** 2))
    np.testing.assert_allclose(metrics["loss"], before, rtol=1e-12)


@pytest.mark.slow
def test_finds_the_frequencies_of_a_sum_of_sines():
    """A network of the same form, with units to spare: the minimum is zero."""
    targets = 2 * jnp.sin(1.3 * X + 0.2) - jnp.sin(2.9 * X - 0.5)
    fitted = fit.variable_projection(misfit, network(), (X, targets), steps=60)
    assert fitted.result == RESULTS.successful
    assert fitted.history["loss"].shape == (60,)
    assert float(jnp.mean((fitted.model(X) - targets) ** 2)) < 1e-15
    assert np.all(np.diff(fitted.history["loss"]) <= 0)


@pytest.mark.slow
def test_shared_blocks_count_once():
    """A block that belongs to no row weighs as in `mean_square`, whatever the number of rows."""

    def both(model, batch, key):
        x, y = batch
        return {"data": model(x) - y, "size": 0.3 * model.readout.kernel[...]}

    data = (X, jnp.cos(3 * X))
    fitted = fit.variable_projection(both, network(3), data, steps=150, shared=("size",))
    loss = fit.mean_square(both)
    value, gradient = nnx.value_and_grad(lambda net: loss(net, data, None)[0])(fitted.model)
    np.testing.assert_allclose(fitted.history["loss"][-1], value, rtol=1e-6)
    assert float(optax.tree.norm(gradient)) < 1e-6


@pytest.mark.parametrize("linear", ["head", ""])
def test_the_last_layer_must_be_found(linear):
    method = fit.VariableProjection(linear=linear)
    with pytest.raises(ValueError, match="linear must name the last layer and nothing else"):
        fit.variable_projection(misfit, network(), (X, X), method=method)
