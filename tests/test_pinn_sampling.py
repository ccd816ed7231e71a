"""Collocation points against the density that they are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np

from physml import pinn
from physml._numerics.parts import traced

SPAN = (jnp.asarray(2.0), jnp.asarray(6.0))
KEY = jax.random.key(0)


def draw(magnitude, step=10, **options):
    rule = traced(pinn.Resampled(400, every=10, **options))
    times = rule.start(*SPAN, jnp.float64)
    return times, rule.move(times, SPAN, jnp.asarray(step), magnitude, KEY)


def test_even_points_are_the_middles_of_cells():
    times = pinn.Even(4).start(*SPAN, jnp.float64)
    np.testing.assert_allclose(times, [2.5, 3.5, 4.5, 5.5])


def test_density_follows_the_residual():
    """|r| = 9 in a quarter of the span and 1 elsewhere: by eq. 2, p is 9/3 + 1 to 1/3 + 1."""
    _, times = draw(lambda t: jnp.where(t < 3.0, 9.0, 1.0))
    assert np.all(np.diff(times) > 0) and times[0] >= 2 and times[-1] <= 6
    np.testing.assert_allclose(np.mean(times < 3.0), 4 / (4 + 3 * 4 / 3), atol=3e-3)
    _, times = draw(lambda t: jnp.where(t < 3.0, 9.0, 1.0), power=2.0, floor=0.0)
    np.testing.assert_allclose(np.mean(times < 3.0), 81 / 84, atol=3e-3)


def test_no_residual_means_uniform_points():
    _, times = draw(jnp.zeros_like)
    np.testing.assert_allclose(times, 2 + (np.arange(400) + 0.5) / 100, atol=0.5 / 100 + 1e-12)


def test_points_stay_between_draws_and_at_the_start():
    for step in (0, 11):
        before, after = draw(lambda t: t, step=step)
        np.testing.assert_array_equal(before, after)
