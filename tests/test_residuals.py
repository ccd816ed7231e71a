"""Residuals under injected noise: what is disturbed, by how much, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np

from physml import residuals
from physml.data import Windows


def rows(model, batch, key=None):
    """A residual that shows what it was given."""
    return batch.ys


WINDOWS = Windows(jnp.full((4000, 3, 2), 7.0), jnp.zeros(4000))
STD = jnp.array([0.1, 2.0])


def test_noise_has_its_spread_and_spares_the_last_row():
    ys = np.asarray(residuals.noisy(rows, STD)(None, WINDOWS, jax.random.key(0)))
    np.testing.assert_array_equal(ys[:, -1], 7.0)
    for row in (0, 1):
        np.testing.assert_allclose(ys[:, row].std(axis=0), STD, rtol=0.05)
        np.testing.assert_allclose(ys[:, row].mean(axis=0), 7.0, atol=0.1)
    flat = (ys[:, :2] - 7.0).reshape(4000, 4)
    np.testing.assert_allclose(np.corrcoef(flat.T), np.eye(4), atol=0.06)


def test_noise_is_drawn_anew_and_only_with_a_key():
    disturbed = residuals.noisy(rows, STD)
    first, again, other = (disturbed(None, WINDOWS, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first[:, :-1]) != np.asarray(other[:, :-1])).all()
    np.testing.assert_array_equal(disturbed(None, WINDOWS), WINDOWS.ys)


def test_noise_follows_the_dtype_of_the_data():
    single = Windows(WINDOWS.ys.astype(jnp.float32), WINDOWS.times)
    assert residuals.noisy(rows, STD)(None, single, jax.random.key(0)).dtype == jnp.float32
