"""Adaptive weights against their formulas, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import pinn
from physml._numerics.parts import traced

TERMS = jnp.array([False, False, True])


def terms(params):
    return jnp.stack([params[0] ** 2, 10 * params[1], params[0] * params[1]])


def test_fixed():
    rule = traced(pinn.Fixed(equation=2.0, condition=50.0))
    state = rule.start(TERMS, jnp.float64)
    np.testing.assert_array_equal(state["weights"], [2.0, 2.0, 50.0])
    assert rule.move(state, 3, terms, jnp.ones(2), None) is state


def test_gradient_norm_makes_gradients_equally_long():
    rule = traced(pinn.GradientNorm(every=10, memory=0.0))
    params = jnp.array([3.0, 4.0])
    state = rule.start(TERMS, jnp.float64)
    moved = rule.move(state, jnp.asarray(20), terms, params, None)["weights"]
    norms = np.array([6.0, 10.0, 5.0])
    np.testing.assert_allclose(moved, norms.mean() / norms, rtol=1e-12)
    slow = traced(pinn.GradientNorm(every=10, memory=0.9))
    part = slow.move(state, jnp.asarray(20), terms, params, None)["weights"]
    np.testing.assert_allclose(part, 0.9 + 0.1 * norms.mean() / norms, rtol=1e-12)
    kept = rule.move(state, jnp.asarray(21), terms, params, None)["weights"]
    np.testing.assert_array_equal(kept, np.ones(3))


@pytest.mark.parametrize("lookback", [0.0, 1.0])
def test_random_lookback(lookback):
    rule = traced(pinn.RandomLookback(temperature=0.5, memory=0.8, lookback=lookback))
    state = rule.start(TERMS, jnp.float64)
    path = [jnp.array(p) for p in ([3.0, 4.0], [2.0, 5.0], [1.0, 1.0])]
    losses = [np.asarray(terms(p)) for p in path]
    weights = np.ones(3)

    def wanted(now, past):
        exps = np.exp(now / past / 0.5)
        return 3 * exps / exps.sum()

    for step, params in enumerate(path):
        state = rule.move(state, jnp.asarray(step), terms, params, jax.random.key(step))
        now, last = losses[step], losses[max(step - 1, 0)]
        old = weights if lookback == 1.0 else wanted(now, losses[0])
        weights = 0.8 * old + 0.2 * wanted(now, last)
        np.testing.assert_allclose(state["weights"], weights, rtol=1e-12)
