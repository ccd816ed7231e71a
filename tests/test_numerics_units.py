"""Largest and smallest numbers against NumPy's, which keep NaN."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.units import max_of, min_of


@pytest.mark.parametrize("shape", [(7,), (3, 31), (6000,), (200, 30), (70, 3, 31)])
@pytest.mark.parametrize("lost", ["none", "middle", "last", "all but one"])
def test_nothing_that_is_lost_is_forgotten(shape, lost):
    x = np.random.default_rng(0).normal(size=shape)
    flat = x.reshape(-1)
    places = {"none": [], "middle": [x.size // 2], "last": [-1], "all but one": range(1, x.size)}
    flat[list(places[lost])] = np.nan
    for ours, numpys in ((max_of, np.max), (min_of, np.min)):
        np.testing.assert_array_equal(jax.jit(ours)(jnp.asarray(x)), numpys(x))
        for axis in (0, -1, tuple(range(1, x.ndim))):
            found = jax.jit(ours, static_argnums=1)(jnp.asarray(x), axis)
            np.testing.assert_array_equal(found, numpys(x, axis=axis))
        found = jax.vmap(partial(ours, axis=-1, keepdims=True))(jnp.asarray(x)[None])
        np.testing.assert_array_equal(found[0], numpys(x, axis=-1, keepdims=True))


@pytest.mark.parametrize("axis", [None, 0, (0, 2)])
def test_derivatives_are_those_of_jax(axis):
    x = jnp.round(jax.random.normal(jax.random.key(0), (5, 4, 30)), 1)  # several are largest
    along = jax.random.normal(jax.random.key(1), x.shape)
    for ours, its in ((max_of, jnp.max), (min_of, jnp.min)):
        for transform in (jax.jvp, jax.jit(jax.jvp, static_argnums=0)):
            found, wanted = (transform(partial(f, axis=axis), (x,), (along,)) for f in (ours, its))
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-15, atol=1e-16), found, wanted)
        found, wanted = (jax.grad(lambda x, f=f: jnp.sum(f(x, axis) ** 2))(x) for f in (ours, its))
        np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=1e-16)
