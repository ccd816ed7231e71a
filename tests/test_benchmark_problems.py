"""The problems of the benchmarks are the published ones, and their truth is true."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from _extrapolation import integrate
from _stiff import heat, problem

from physml import pinn
from physml.systems import from_function

LONG = np.finfo(np.longdouble).eps


@pytest.mark.parametrize("columns", [6, 7])
def test_extrapolation_has_the_digits_of_a_long_double(columns):
    ts = np.linspace(0.0, 5.0, 11)
    found = integrate(lambda t, y: np.array([y[1], -y[0]]), [0.0, 1.0], ts, 30 * LONG, columns)
    long = ts.astype(np.longdouble)
    true = np.stack([np.sin(long), np.cos(long)], axis=1)
    assert np.max(np.abs(found - true)) < 1000 * LONG


def test_extrapolation_has_the_order_that_it_says():
    errors = []
    for step in (0.1, 0.05):
        ts = np.arange(0.0, 2.0 + step / 2, step)
        # A tolerance without effect: each interval is one step.
        found = integrate(lambda t, y: -y * np.cos(t), [1.0], ts, 1e30, 2)
        errors.append(float(abs(found[-1, 0] - np.exp(-np.sin(np.longdouble(2.0))))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize("kink", [0.3137, 0.999_999, 1.000_001])
def test_extrapolation_sees_a_kink_anywhere_in_a_step(kink):
    ts = np.array([0.0, 1.0, 2.0])
    found = integrate(lambda t, y: np.atleast_1d(abs(t - kink)), [0.0], ts, 1e-17, 6)[:, 0]
    long = ts.astype(np.longdouble)
    true = (long - kink) * abs(long - kink) / 2 + np.longdouble(kink) ** 2 / 2
    assert np.max(np.abs(found - true)) < 1e-15


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("robertson", 1e-5), ("hires", 1e-5), ("oregonator", 1e-3), ("pollution", 1e-5),
        ("e5", 1e-2), ("van_der_pol", 1e-5), ("akzo_nobel", 1e-5),
    ],
)  # fmt: skip
def test_the_published_end_is_that_of_the_equations(name, largest):
    stated = problem(name)
    rates, slopes = jax.jit(stated.rates), jax.jit(jax.jacfwd(stated.rates, argnums=1))
    size = np.abs([stated.end.get(i, 1e-20) for i in range(len(stated.y0))])
    found = solve_ivp(
        lambda t, y: np.asarray(rates(t, y)), (0.0, stated.t1), stated.y0, "Radau",
        rtol=1e-7, atol=1e-7 * size, jac=lambda t, y: np.asarray(slopes(t, y)),
    )  # fmt: skip
    assert found.success and stated.error(found.y[:, -1]) < largest


def test_the_end_of_heat_is_that_of_the_matrix():
    stated = heat(12)
    matrix = np.asarray(jax.jacfwd(stated.rates, argnums=1)(0.0, stated.y0))
    end = expm(stated.t1 * matrix) @ stated.y0
    np.testing.assert_allclose([stated.end[i] for i in range(12)], end, rtol=1e-11)


def test_an_error_is_relative_in_each_published_component():
    stated = problem("robertson")
    y = np.array([stated.end[i] for i in range(3)])
    assert stated.error(y) == 0
    assert stated.error(y * [1.0, 1.5, 1.0]) == pytest.approx(0.5)


@pytest.mark.slow
def test_e5_has_the_digits_that_the_estimate_says_and_all_when_solved_on():
    e5 = problem("e5")
    system = from_function(lambda t, y, _: e5.rates(t, y), 4)
    for atol in (None, 1e-34):
        solution = pinn.solve(system, e5.y0, e5.t1, atol=atol)
        for component, end in e5.end.items():
            error = abs(float(solution.ys[-1, component]) - end)
            assert float(solution.error_estimate(e5.t1)[component]) > error / 10
    first = pinn.solve(system, e5.y0, 1e8)
    rest = pinn.solve(system, first.ys[-1], e5.t1, t0=1e8)
    assert e5.error(rest.ys[-1]) < 1e-3  # the published digits are no better: they differ by 1e-3
    np.testing.assert_allclose(rest.ys[-1, 1], rest.ys[-1, 2], rtol=1e-5)  # as component 3 is gone
    # Then each is 1 / (1.13e9 t + constant).
    middle = float(rest(1e12)[1])
    right = 1 / (1 / middle + 1.13e9 * (e5.t1 - 1e12))
    np.testing.assert_allclose(rest.ys[-1, 1], right, rtol=1e-5)
