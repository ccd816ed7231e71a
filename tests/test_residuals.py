"""Residuals under injected noise: what is disturbed, by how much, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np

from physml import reference, residuals, systems
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


def test_defects_are_zero_along_the_flow_and_find_the_row_that_is_off():
    system = systems.DrivenOscillator()
    dt, t0s = 0.05, np.array([0.0, 3.0])
    ts, dim = dt * np.arange(6), system.dim
    starts = np.ones((2, dim)) + np.arange(2)[:, None]
    ys = reference.trajectories_from(system, starts, ts, t0s=t0s).ys
    flow = reference.FlowMap(system=system, dt=dt)
    found = residuals.defects(flow, Windows(ys, jnp.asarray(t0s)))
    assert found.shape == (2, 5, dim)
    np.testing.assert_allclose(found, 0.0, atol=1e-9)
    off = ys.at[1, 3, 0].add(0.5)
    found = residuals.defects(flow, Windows(off, jnp.asarray(t0s)), 2.0)
    np.testing.assert_allclose(found[1, 2, 0], -0.25, atol=1e-9)  # in units of two
    assert np.abs(found[1, 3]).max() > 0.1  # the step from that row
    np.testing.assert_allclose(found[0], 0.0, atol=1e-9)
