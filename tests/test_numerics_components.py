"""Indices that users write beyond an array are found, wherever they stand; others are accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from physml._numerics.calls import check_components

Y, TABLE, LOCKED = jnp.zeros(3), jnp.arange(4.0), jnp.array([5])
KEY = jax.random.key(0)

BEYOND = {
    "y[3]": lambda y: y[jnp.array(3)],
    "y[-4]": lambda y: y[np.array([0, -4])],
    "y[5]": lambda y: jnp.take(y, jnp.array([1, 5])),
    "y[3] of a range": lambda y: y[jnp.arange(2) + 2],
    "y[3] by a list of pairs": lambda y: jnp.outer(y, y)[jnp.array([0, 3]), jnp.array([0, 1])],
    "y[3] that is written": lambda y: y.at[3].set(0.0),
    "y[-4] that is added to": lambda y: y.at[jnp.array([-4])].add(1.0),
    "y[2] and y[3] that are written": lambda y: lax.dynamic_update_slice(y, jnp.ones(2), (2,)),
    "y[3] or another": lambda y: lax.cond(y[0] > 0, lambda: y[3], lambda: y[0]),
    "y[4] in a loop": lambda y: lax.fori_loop(0, 3, lambda i, c: c + y[4], 0.0),
    "y[4] in rows": lambda y: lax.scan(lambda c, x: (c + y[4], x), 0.0, y),
    "y[3] in a test": lambda y: lax.while_loop(lambda c: c < y[3], lambda c: c + 1, 0.0),
    "y[3] computed twice": lambda y: jax.checkpoint(lambda y: y[3])(y),
    "TABLE[4]": lambda y: y * TABLE[4],
    "y[5] by an array from outside": lambda y: jax.jit(lambda y: y[LOCKED])(y),
}
INSIDE = {
    "the last": lambda y: y[jnp.array([2])] + y[-3],
    "a mask": lambda y: y[np.array([True, False, True])],
    "a slice as Python cuts it": lambda y: y[1:5],
    "one that is not known": lambda y: y[jnp.argmax(y)],
    "clipped": lambda y: y.at[LOCKED].get(mode="clip"),
    "filled": lambda y: y.at[LOCKED].get(mode="fill", fill_value=0.0),
    "in a ring": lambda y: y[(jnp.arange(3) + 1) % 3] + jnp.roll(y, 1),
    "in a loop": lambda y: lax.fori_loop(0, 3, lambda i, c: c + y[i], 0.0),
    "carried in a loop": lambda y: lax.scan(lambda i, x: (i - 1, x * TABLE[i]), 3, y),
    "rows of an array": lambda y: lax.map(lambda i: y[i], jnp.arange(3)),
    "between nodes": lambda y: jnp.interp(y, jnp.arange(3.0), y),
    "by a library": lambda y: jnp.convolve(y, y) + jnp.median(y) + jnp.linalg.det(jnp.outer(y, y)),
    "sums of groups": lambda y: jax.ops.segment_sum(y, jnp.array([0, 1, 0]), 2),
    "a slope": lambda y: jax.grad(lambda y: y[jnp.array([0, 2])].sum())(y),
    "random ones": lambda y: y[jax.random.randint(jax.random.key(1), (), 0, 3)],
    "by a key from outside": lambda y: y + jax.random.uniform(KEY, (3,)),
    "a triangle": lambda y: jnp.outer(y, y)[jnp.triu_indices(3)],
}


@pytest.mark.parametrize("name", BEYOND)
def test_an_index_beyond_an_array_is_found(name):
    with pytest.raises(ValueError, match=r"f must use .* got .*-?[2-5]"):
        check_components("f", BEYOND[name], y=Y)


@pytest.mark.parametrize("name", INSIDE)
def test_other_indices_are_accepted(name):
    check_components("f", INSIDE[name], y=Y)


def test_names_are_those_of_the_leaves():
    state = {"x": jnp.zeros(2), "v": jnp.zeros((3, 2))}
    for function, words in (
        (lambda y: y["x"][2], r"y\['x'\]\[0\] to y\['x'\]\[1\], got y\['x'\]\[2\]"),
        (lambda y: y["v"][0][jnp.array([2])], r"y\['v'\]\[0\]\[1\], got y\['v'\]\[0\]\[2\]"),
        (lambda y: y["v"][:, 2], r"from 0 to 1 of y\['v'\], got 2"),
    ):
        with pytest.raises(ValueError, match=words):
            check_components("f", function, y=state)


def test_an_index_that_is_traced_outside_is_not_known():
    @jax.jit
    def taken(index):
        function = lambda y: y[index]  # noqa: E731
        check_components("f", function, y=Y)
        return function(jnp.arange(3.0))

    assert taken(jnp.array([1])) == 1.0
