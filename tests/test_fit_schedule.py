"""Traced schedules against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Counted

from physml import fit


def loss(model, batch, key):
    return jnp.sum((model - batch) ** 2), {}


@pytest.mark.parametrize(
    ("ours", "theirs", "atol", "rtol"),
    [
        (fit.Cosine(3e-3, 50), optax.cosine_decay_schedule(3e-3, 50), 1e-18, 1e-7),
        (fit.OneCycle(3e-3, 50), optax.cosine_onecycle_schedule(50, 3e-3), 0, 1e-12),
    ],
)
def test_schedules_are_those_of_optax(ours, theirs, atol, rtol):
    counts = [0, 1, 14, 15, 16, 20, 30, 49, 50, 70]
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies by booleans
        expected = [theirs(k) for k in counts]
    found = [ours(jnp.asarray(k)) for k in counts]
    np.testing.assert_allclose(found, expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.usefixtures("programs_stay")
def test_scheduled_adam_is_adam_and_another_rate_compiles_nothing(dtype):
    counted = Counted(loss)
    for fits, (rate, steps) in enumerate([(0.1, 10), (0.3, 20)]):
        ours = fit.scheduled(optax.adam, learning_rate=fit.Cosine(rate, steps), b1=0.8)
        theirs = optax.adam(optax.cosine_decay_schedule(rate, steps), b1=0.8)
        start, target = jnp.zeros(3, dtype), jnp.arange(3, dtype=dtype)
        fitted = fit.gradient(counted, start, target, optimizer=ours, steps=15)
        assert counted.traces == 2 + fits  # one to see what it does, and one to compile it
        expected = fit.gradient(loss, start, target, optimizer=theirs, steps=15)
        assert fitted.model.dtype == dtype
        np.testing.assert_allclose(fitted.model, expected.model, rtol=10 * jnp.finfo(dtype).eps)
