"""Long buffers are mapped as far as they are used, alone and in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.batch import map_used


def both(rows):
    a, b = rows
    return {"sum": a + b, "outer": jnp.einsum("ni,nj->nij", a, b)}


@pytest.mark.parametrize("count", [0, 1, 64, 65, 150])
def test_rows_that_are_used_are_mapped_and_groups_behind_them_are_zero(count):
    rows = tuple(jnp.asarray(np.random.default_rng(0).normal(size=(2, 150, 3))))
    found = jax.jit(lambda n: map_used(both, rows, n))(jnp.asarray(count))
    wanted = both(rows)
    groups = min(-(-count // 64) * 64, 150)
    for name, x in found.items():
        np.testing.assert_array_equal(x[:groups], wanted[name][:groups])
        assert x.shape == wanted[name].shape and not np.any(x[groups:])


def test_a_batch_is_mapped_as_far_as_its_fullest_member():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, 130, 2)))
    counts = jnp.asarray([1, 70, 20])
    found = jax.vmap(lambda x, n: map_used(jnp.cos, x, n))(rows, counts)
    np.testing.assert_allclose(found[:, :128], np.cos(rows[:, :128]), rtol=1e-14)
    assert not np.any(found[:, 128:])


def test_a_short_buffer_is_one_group():
    found = map_used(lambda x: 2 * x, jnp.ones((5, 2)), jnp.asarray(5))
    np.testing.assert_array_equal(found, np.full((5, 2), 2.0))
