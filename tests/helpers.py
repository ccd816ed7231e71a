"""What the tests of several modules share."""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml.step_maps import StepMap


def refusals(*rows):
    """Run a test for every row (case, message) or (case, message, error): the case must raise.

    The case is the test's first argument. The error is a ValueError where the row names no other.
    """

    def decorate(test):
        case = next(iter(inspect.signature(test).parameters))

        @functools.wraps(test)
        def refused(**arguments):
            value, message, *error = arguments[case]
            with pytest.raises(*error or [ValueError], match=message):
                test(**arguments | {case: value})

        return pytest.mark.parametrize(case, rows)(refused)

    return decorate


def relative_l2(ys, truth):
    """The error relative to the truth, both (..., time, component), of the worst component."""
    error = np.linalg.norm(np.asarray(ys) - np.asarray(truth), axis=-2)
    return np.max(error / np.linalg.norm(truth, axis=-2), axis=-1)


def coverage(estimate, error, above, factor=3):
    """The share of estimates within a factor of the errors that are above some size."""
    estimate, error = np.asarray(estimate), np.asarray(error)
    ratio = estimate[error > above] / error[error > above]
    assert ratio.size > 50
    return np.mean((ratio < factor) & (ratio > 1 / factor))


class Counting(StepMap):
    """A map whose state is the coordinates, the steps taken and the start time."""

    def init(self, history, t0):
        return history[-1], jnp.zeros((), jnp.int32), t0

    def observe(self, state):
        return state[0]


class Map(Counting):
    """y' = f(y, *parameters)."""

    f: object = eqx.field(static=True)
    parameters: tuple
    dt: float

    def step(self, state):
        y, count, t0 = state
        return self.f(y, *self.parameters), count + 1, t0


def linear(y, matrix):
    return matrix @ y


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
