"""What several test files share."""

import jax
import jax.numpy as jnp
import numpy as np


class Counted:
    """A function and how often it was called: under jit, how often it was traced."""

    def __init__(self, function):
        self.function, self.traces = function, 0

    def __call__(self, *args):
        self.traces += 1
        return self.function(*args)


def assert_same_leaves(found, expected, **tolerances):
    """The same numbers, bit for bit where no tolerance is given; the types may differ."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            assert x.dtype == y.dtype
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        if tolerances:
            np.testing.assert_allclose(x, y, **tolerances)
        else:
            np.testing.assert_array_equal(x, y)


def central_difference(loss, net, parameter, index, step=1e-6):
    """The slope of loss(net) in one entry of one of the network's parameters."""
    value = parameter[...]
    parameter[...] = value.at[index].add(step)
    above = loss(net)
    parameter[...] = value.at[index].add(-step)
    below = loss(net)
    parameter[...] = value
    return (above - below) / (2 * step)
