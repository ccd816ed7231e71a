"""No constant has a unit: who measures a component or the time in others gets the same answer."""

import jax.numpy as jnp
import numpy as np
import pytest

from physml import pinn, systems
from physml.results import RESULTS


def lotka_volterra(t, y):
    return [1.1 * y[0] - 0.4 * y[0] * y[1], 0.1 * y[0] * y[1] - 0.4 * y[1]]


def lorenz(t, y):
    return [10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]]


def chain(t, y):
    return [-0.7 * y[0], 0.7 * y[0] - 0.25 * y[1], 0.25 * y[1] - 0.1 * y[2], 0.1 * y[2]]


def enzyme(t, y):
    binding, release, product = y[0] * y[1], 0.5 * y[2], 0.3 * y[2]
    return [release + product - binding, release - binding, binding - release - product, product]


def van_der_pol(t, y):
    return [y[1], 100.0 * (1.0 - y[0] ** 2) * y[1] - y[0]]


def driven(t, y):
    return [y[1], jnp.cos(0.5 * t) - 0.4 * y[1] - y[0]]


def decay(t, y):
    return [-y[0], y[0] - 0.5 * y[1]]


def cancelling(t, y):
    """Component 2 stays zero but for rounding, component 3 exactly."""
    return [y[1], 1.0 - y[0], 1e3 * y[0] / 3.0 - y[0] * (1e3 / 3.0), 0.0 * y[0]]


def conserved(t, y):
    """Component 2 is the difference of two that stay equal."""
    return [-y[0] + 0.1 * y[0] ** 2, -y[1] + 0.1 * y[1] ** 2, y[0] - y[1]]


CASES = {
    f.__name__: (f, y0, t1)
    for f, y0, t1 in (
        (lotka_volterra, [10.0, 5.0], 20.0),
        (lorenz, [1.0, 1.0, 1.0], 5.0),
        (chain, [1.0, 0.0, 0.0, 0.0], 20.0),
        (enzyme, [5.0, 1.0, 0.0, 0.0], 50.0),
        (van_der_pol, [2.0, 0.0], 100.0),
        (driven, [0.0, 0.0], 20.0),
        (decay, [1.0, 0.0], 650.0),
        (cancelling, [0.0, 0.0, 0.0, 0.0], 20.0),
        (conserved, [1.0, 1.0, 0.0], 10.0),
    )
}
NAMES = pytest.mark.parametrize("name", CASES)


def in_other_units(name):
    """The system measured in the units that its arguments say, so that one program does for all."""
    f, y0, t1 = CASES[name]

    def scaled(t, y, units):
        state, time = units
        return state / time * jnp.stack([jnp.asarray(x) for x in f(t / time, y / state)])

    return systems.from_function(scaled, dim=len(y0), autonomous=False), np.array(y0), t1


def draws(dim, count, most=18):
    random = np.random.default_rng(dim)
    for _ in range(count):
        yield (
            10.0 ** random.integers(-most, most + 1, dim),
            10.0 ** random.integers(-most, most + 1),
        )


def relative(ys, truth):
    """The largest difference of each component relative to its own size."""
    size = np.max(np.abs(truth), axis=0)
    return np.max(np.abs(ys - truth), axis=0) / np.where(size > 0, size, 1.0)


@NAMES
def test_solve_gives_the_same_answer_in_any_unit(name):
    system, y0, t1 = in_other_units(name)
    plain = pinn.solve(system, y0, t1, args=(jnp.ones(len(y0)), jnp.ones(())))
    real = np.max(np.abs(plain.ys), axis=0) > 1e-10  # the others are rounding
    for state, time in draws(len(y0), 5):
        units = jnp.asarray(state), jnp.asarray(time)
        solution = pinn.solve(system, y0 * state, t1 * time, args=units)
        assert solution.result == plain.result == RESULTS.successful
        ys = np.asarray(solution.ys) / state
        assert np.all(relative(ys[:, real], np.asarray(plain.ys)[:, real]) < 1e-9)
        assert np.all(np.abs(ys[:, ~real]) < 1e-10)
        count, others = (int(s.stats["num_windows"]) for s in (plain, solution))
        assert others <= 2 * count
