"""Boundary value problems against closed forms, published numbers and SciPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from scipy.integrate import solve_bvp
from scipy.optimize import brentq
from scipy.special import erf, mathieu_a

from physml import pinn, systems
from physml.results import RESULTS

ZERO_ENDS = lambda y0, y1: [y0[0], y1[0]]  # noqa: E731
SPRING = systems.from_function(lambda t, y, args: [y[1], -y[0]], 2)
PENDULUM = systems.from_function(lambda t, y, args: [y[1], -jnp.sin(y[0])], 2)


def bratu(strength=1.0):
    def rates(t, y, strength):
        return [y[1], -strength * jnp.exp(y[0])]

    return systems.from_function(rates, 2, args=strength)


def check(solution, truth, within=1e-12):
    """The error is small, and nowhere more than ten times the estimate."""
    ts = np.linspace(float(solution.t0), float(solution.t1), 501)
    exact = np.asarray(truth(ts))
    error = np.abs(np.asarray(solution(ts))[:, 0] - exact)
    estimate = np.asarray(solution.error_estimate(ts))[:, 0]
    size = np.max(np.abs(exact))
    assert solution.result == RESULTS.successful
    assert np.max(error) < within * size
    assert np.max(estimate) < 10 * within * size
    # The truth itself is rounded, too.
    assert np.all(error < 10 * estimate + 8 * np.finfo(float).eps * np.abs(exact))


def bratu_truth(low, high):
    theta = brentq(lambda x: x - np.sqrt(2) * np.cosh(x / 4), low, high, xtol=1e-15)
    return lambda t: -2 * np.log(np.cosh((t - 0.5) * theta / 2) / np.cosh(theta / 4))


def test_both_branches_of_bratu():
    low = pinn.solve_boundary(bratu(), ZERO_ENDS, 0.0, 1.0)
    check(low, bratu_truth(1, 3), 1e-13)
    guess = np.stack([16 * (x := np.linspace(0, 1, 9)) * (1 - x), 16 - 32 * x], axis=1)
    check(pinn.solve_boundary(bratu(), ZERO_ENDS, 0.0, 1.0, guess=guess), bratu_truth(8, 14), 1e-13)
    again = pinn.solve_boundary(bratu(), ZERO_ENDS, 0.0, 1.0, guess=low, ts=[0.0, 0.5])
    assert again.ys.shape == (2, 2) and again.stats["num_iterations"] <= 2
    np.testing.assert_allclose(again.ys, low(again.ts), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(low.derivative(0.3)[0], low(0.3)[1], rtol=1e-12)


@pytest.mark.parametrize("strength", [3.52, 100.0])
def test_no_solution(strength):
    with pytest.raises(RuntimeError, match=r"pinn.solve_boundary: .* did not converge"):
        pinn.solve_boundary(bratu(strength), ZERO_ENDS, 0.0, 1.0)


def test_a_boundary_layer_and_an_inner_one():
    def rates(t, y, eps):
        return [y[1], -(y[1] + y[0]) / eps]

    eps = 1e-3
    layer = systems.from_function(rates, 2, args=eps)
    found = pinn.solve_boundary(layer, lambda a, b: [a[0], b[0] - 1], 0.0, 1.0)
    root = np.sqrt(1 - 4 * eps)
    fast, slow = (-1 - root) / (2 * eps), -2 / (1 + root)
    check(found, lambda t: np.exp(slow * (t - 1)) - np.exp(fast * t - slow), 1e-12)
    inner = systems.from_function(lambda t, y, eps: [y[1], -t * y[1] / eps], 2, args=1e-6)
    found = pinn.solve_boundary(inner, lambda a, b: [a[0] + 1, b[0] - 1], -1.0, 1.0)
    check(found, lambda t: erf(t / np.sqrt(2e-6)), 1e-11)


@pytest.mark.parametrize(("num_points", "rtol", "error"), [(12, 1e-4, 1e-12), (8, 1e-2, 1e-6)])
def test_the_estimate_of_coarse_windows(num_points, rtol, error):
    found = pinn.solve_boundary(
        SPRING, lambda a, b: [a[0], b[0] - np.sin(100.0)], 0.0, 100.0,
        num_points=num_points, rtol=rtol,
    )  # fmt: skip
    ts = np.linspace(0.0, 100.0, 2001)
    errors = np.abs(found(ts)[:, 0] - np.sin(ts))
    assert 0.01 * error < np.max(errors) < error
    assert np.all(errors < 10 * found.error_estimate(ts)[:, 0])


def test_troesch_beside_scipy():
    def rates(t, y, mu):
        return [y[1], mu * jnp.sinh(mu * y[0])]

    troesch = systems.from_function(rates, 2, args=5.0)
    found = pinn.solve_boundary(troesch, lambda a, b: [a[0], b[0] - 1], 0.0, 1.0)
    x = np.linspace(0, 1, 200)
    other = solve_bvp(
        lambda t, y: [y[1], 5 * np.sinh(5 * y[0])],
        lambda a, b: [a[0], b[0] - 1],
        x, np.stack([x, 0 * x + 1]), tol=1e-10, max_nodes=100_000,
    )  # fmt: skip
    np.testing.assert_allclose(found(x), other.sol(x).T, rtol=1e-8, atol=1e-10)
    assert abs(found(0.0)[1] - 0.0457504614) < 1e-9  # Troesch's problem, as tabulated


def test_free_parameters_are_eigenvalues():
    def mathieu(t, y, p):
        return [y[1], -(p["a"] - 2 * p["q"] * jnp.cos(2 * t)) * y[0]]

    system = systems.from_function(mathieu, 2, args={"a": 1.5, "q": 1.0})
    found = pinn.solve_boundary(
        system, lambda a, b, p: [a[0] - 1, a[1], b[1]], 0.0, np.pi, free=("a",),
        guess=lambda t: [jnp.cos(t), -jnp.sin(t)],
    )  # fmt: skip
    assert found.parameters.keys() == {"a"} and "a" in repr(found)
    error = abs(found.parameters["a"] - mathieu_a(1, 1.0))
    assert error < 10 * found.parameter_errors["a"] + 2e-15 and error < 1e-13


def test_an_integral_as_a_component():
    def rates(t, y, p):
        return [y[1], -p["k"] * y[0], y[0] ** 2]

    found = pinn.solve_boundary(
        systems.from_function(rates, 3, args={"k": 30.0}),
        lambda a, b, p: [a[0], b[0], a[2], b[2] - 0.5],
        0.0, 1.0, free=("k",),
        guess=lambda t: [jnp.sin(6 * t), 6 * jnp.cos(6 * t), t],
    )  # fmt: skip
    check(found, lambda t: np.sin(2 * np.pi * t), 1e-13)
    assert abs(found.parameters["k"] - 4 * np.pi**2) < 1e-12


def test_a_well_on_the_whole_line():
    def rates(t, y, p):
        potential = jnp.where(jnp.abs(t) < 1, -10.0, 0.0)
        return [y[1], 2 * (potential - p["energy"]) * y[0]]

    k = brentq(lambda k: k * np.tan(k) - np.sqrt(20 - k * k), 0.1, 1.5, xtol=1e-15)
    well = systems.from_function(rates, 2, args={"energy": -9.0}, jumps=(-1.0, 1.0))
    found = pinn.solve_boundary(
        well, lambda a, b, c, p: [a[0], b[0] - 1, c[0]], -np.inf, np.inf, at=(-np.inf, 0.0, np.inf),
        free=("energy",), guess=lambda t: [jnp.exp(-(t**2)), -2 * t * jnp.exp(-(t**2))],
    )  # fmt: skip
    assert abs(found.parameters["energy"] - (k * k / 2 - 10)) < 1e-13
    assert found.t0 < -5 and found.t1 > 5 and {-1.0, 0.0, 1.0} <= set(found.stats["edges"].tolist())


def test_ends_at_infinity():
    def blasius(t, y, args):
        return [y[1], y[2], -y[0] * y[2] / 2]

    found = pinn.solve_boundary(
        systems.from_function(blasius, 3), lambda a, b: [a[0], a[1], b[1] - 1], 0.0, np.inf,
        guess=lambda t: [t - 1 + jnp.exp(-t), 1 - jnp.exp(-t), jnp.exp(-t)],
    )  # fmt: skip
    assert abs(found(0.0)[2] - 0.332057336215196298937) < 1e-15  # J. P. Boyd (1999)
    slowly = systems.from_function(lambda t, y, args: [y[1], 6 * y[0] ** 2], 2)
    found = pinn.solve_boundary(
        slowly, lambda a, b: [a[0] - 1, b[0]], 0.0, np.inf, guess=[0.5, -1.0]
    )
    check(found, lambda t: 1 / (1 + t) ** 2, 1e-12)


def test_a_stable_orbit_and_its_period():
    orbit = pinn.periodic_orbit(
        systems.VanDerPol(mu=1.0), lambda t: [2 * jnp.cos(t), -2 * jnp.sin(t)], 6.4
    )
    assert abs(orbit.period - 6.663286859323130) < 1e-14  # C. M. Andersen, J. F. Geer (1982)
    np.testing.assert_allclose(orbit.multipliers[0], 1.0, atol=1e-10)
    np.testing.assert_allclose(orbit(orbit.t0), orbit(orbit.t1), rtol=0, atol=1e-13)


def test_an_unstable_orbit_from_a_state():
    orbit = pinn.periodic_orbit(systems.Lorenz(), [-13.76, -19.58, 27.0], 1.56)
    error = abs(orbit.period - 1.5586522107161747256)  # D. Viswanath (2004)
    assert error < 1e-14 and error < 10 * orbit.period_error
    assert orbit.t0 == 0.0 and "multipliers" in repr(orbit)
    # By Liouville's formula, the divergence is -(sigma + 1 + beta).
    product = np.prod(np.asarray(orbit.multipliers)).real
    np.testing.assert_allclose(product, np.exp(-41 / 3 * float(orbit.period)), rtol=1e-3)


def test_a_forced_orbit_has_the_period_of_its_force():
    driven = systems.DrivenOscillator()
    orbit = pinn.periodic_orbit(driven, lambda t: [0.0 * t, 0.0 * t], float(driven.period))
    omega, amplitude = 0.5, 1 / np.hypot(1 - 0.5**2, 2 * 0.2 * 0.5)
    lag = np.arctan2(2 * 0.2 * omega, 1 - omega**2)
    assert orbit.period_error == 0
    check(orbit, lambda t: amplitude * np.cos(omega * t - lag), 1e-14)


def test_units_do_not_matter():
    def scaled(x, v, time):
        def rates(t, y, args):
            return [x / time * (y[1] / v), -v / time * jnp.sin(y[0] / x)]

        ends = lambda a, b: [a[0] - x, b[0] + 0.5 * x]  # noqa: E731
        found = pinn.solve_boundary(systems.from_function(rates, 2), ends, 0.0, 2 * time)
        return found(jnp.array([0.0, 2 * time])) / jnp.array([[x, v]])

    plain = scaled(1.0, 1.0, 1.0)
    np.testing.assert_allclose(scaled(1e-9, 1e12, 1e6), plain, rtol=1e-13)
    np.testing.assert_allclose(scaled(1e12, 1e-9, 1e-7), plain, rtol=1e-13)


def test_float32():
    found = pinn.solve_boundary(PENDULUM, ZERO_ENDS, 0.0, 2.0, guess=np.ones(2, np.float32))
    assert found.ys.dtype == jnp.float32 and np.max(np.abs(found.ys)) < 1e-5


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_conditions_that_determine_nothing(end):
    # Every multiple of sin t starts and ends at zero, and no solution ends elsewhere.
    with pytest.raises(RuntimeError, match="no solution is nearby, or many are"):
        pinn.solve_boundary(SPRING, lambda a, b: [a[0], b[0] - end], 0.0, np.pi)


def test_conditions_that_determine_hardly_anything():
    with pytest.warns(UserWarning, match="did not converge|hardly determine the solution"):
        found = pinn.solve_boundary(
            SPRING, lambda a, b: [a[0], b[0] - 1], 0.0, np.pi + 1e-14, throw=False
        )
    assert np.isinf(found.error_estimate(1.0)).all()


def test_a_failure_that_does_not_raise():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = pinn.solve_boundary(bratu(5.0), ZERO_ENDS, 0.0, 1.0, throw=False)
    assert len(said) == 1 and found.result == RESULTS.not_converged
    assert np.isinf(found.error_estimate(0.5)).all() and found.ys.shape == (1001, 2)
    inner = systems.from_function(lambda t, y, eps: [y[1], -t * y[1] / eps], 2, args=1e-6)
    with pytest.raises(RuntimeError, match="max_windows is 9"):
        pinn.solve_boundary(inner, lambda a, b: [a[0] + 1, b[0] - 1], -1.0, 1.0, max_windows=9)
    singular = systems.from_function(lambda t, y, args: [1 / y[0], y[1]], 2)
    with pytest.raises(RuntimeError, match="derivative at the guess"):
        pinn.solve_boundary(singular, ZERO_ENDS, 0.0, 1.0)


def test_a_branch_goes_round_its_fold():
    def rates(t, y, p):
        return [y[1], -p["strength"] * jnp.exp(y[0])]

    system = systems.from_function(rates, 2, args={"strength": 2.0})
    branch = pinn.follow_branch(
        system, lambda a, b, p: [a[0], b[0]], 0.0, 1.0, parameter="strength", within=(1.8, 4.0)
    )
    assert branch.result == RESULTS.successful and branch.values[-1] < 1.8
    (fold,) = branch.folds
    theta = brentq(lambda x: x * np.tanh(x / 4) - 4, 4, 6, xtol=1e-15)
    truth = (theta / np.cosh(theta / 4)) ** 2 / 2
    assert abs(fold.parameters["strength"] - truth) < 1e-13
    assert np.max(branch.values) <= fold.parameters["strength"] + 1e-13
    middle = np.array([float(x(0.5)[0]) for x in branch.solutions])
    assert np.all(np.diff(middle) > 0) and not branch.branch_points and "3.51383" in repr(branch)


@pytest.mark.slow
def test_branches_that_cross():
    # A rod under load stays straight; bent shapes leave that branch at the squares of k pi.
    rod = systems.from_function(
        lambda t, y, p: [y[1], -p["load"] * jnp.sin(y[0])], 2, args={"load": 5.0}
    )
    branch = pinn.follow_branch(
        rod, lambda a, b, p: [a[1], b[1]], 0.0, 1.0, parameter="load", within=(4.0, 50.0)
    )
    found = [float(x.parameters["load"]) for x in branch.branch_points]
    np.testing.assert_allclose(found, [np.pi**2, 4 * np.pi**2], rtol=1e-12)
    assert not branch.folds
    options = dict(t0=0.0, t1=1.0, parameter="load")
    with pytest.raises(ValueError, match="conditions must return 2 numbers"):
        pinn.follow_branch(rod, lambda a, b, p: [a[1]], within=(4.0, 50.0), **options)
    with pytest.raises(ValueError, match="within must hold load"):
        pinn.follow_branch(rod, lambda a, b, p: [a[1], b[1]], within=(6.0, 50.0), **options)


@refusals(
    ({"conditions": lambda a, b: a[0]}, "conditions must return 2 numbers"),
    ({"conditions": lambda a, b: [a[0], b[0], b[1]]}, r"got shape \(3,\)"),
    ({"conditions": lambda a: a}, r"called as conditions\(y0, y1\)", TypeError),
    ({"conditions": lambda a, b: [a[0], b[2]]}, "conditions must use .*got .*2"),
    ({"conditions": lambda a, b: (a[0] == 0, b[0] == 1)}, "conditions .* truth values", TypeError),
    ({"free": ("k",)}, "free must name parameters"),
    ({"guess": [1.0, 2.0, 3.0]}, "guess must have shape"),
    ({"guess": lambda t: [t]}, r"guess must return a state of shape \(2,\)"),
    ({"guess": np.full((3, 2), np.nan)}, "guess must be finite"),
    ({"at": [0.0, 2.0]}, "at must lie in"),
    ({"at": [1.0, 0.0]}, "at must be increasing times"),
    ({"t1": -1.0}, "t1 must be later than t0"),
    ({"ts": [0.5, 3.0]}, "ts must lie in"),
    ({"t1": np.inf, "guess": np.ones((3, 2))}, "where an end is infinite"),
    ({"num_points": 3}, "num_points must be at least 8"),
)
def test_refusals(wrong):
    arguments = {"system": SPRING, "conditions": ZERO_ENDS, "t0": 0.0, "t1": 1.0} | wrong
    pinn.solve_boundary(**arguments)


def test_states_as_written():
    heated = systems.second_order(lambda t, u, v: -jnp.exp(u))
    found = pinn.solve_boundary(heated, lambda a, b: (a[0], b[0]), 0.0, 1.0, guess=(0.0, 0.0))
    plain = pinn.solve_boundary(bratu(), ZERO_ENDS, 0.0, 1.0)
    np.testing.assert_allclose(found(0.5)[0], plain(0.5)[0], rtol=1e-14)
    assert "states" in repr(found) and found.ys[1].shape == (1001,)
    again = pinn.solve_boundary(heated, lambda a, b: (a[0], b[0]), 0.0, 1.0, guess=found)
    np.testing.assert_allclose(again(0.3)[1], found(0.3)[1], rtol=1e-13)


def test_complex_states_and_conditions():
    """z' = i z with z(1) = i."""
    found = pinn.solve_boundary(
        lambda t, y: {"z": 1j * y["z"]}, lambda a, b: {"end": b["z"] - 1j}, 0.0, 1.0,
        guess=lambda t: {"z": jax.lax.complex(jnp.ones_like(t), t)},
    )  # fmt: skip
    ts = np.linspace(0.0, 1.0, 11)
    error = np.abs(found(ts)["z"] - 1j * np.exp(1j * (ts - 1)))
    estimate = found.error_estimate(ts)["z"]
    assert np.max(estimate) < 1e-13 and np.all(error < 10 * np.max(estimate))


@pytest.mark.slow
def test_orbits_and_branches_of_states_as_written():
    def oscillator(t, y):
        return {"x": y["v"], "v": (1 - y["x"] ** 2) * y["v"] - y["x"]}

    orbit = pinn.periodic_orbit(oscillator, {"x": 2.0, "v": 0.0}, 6.6)
    assert abs(orbit.period - 6.6632868593231) < 1e-12 and set(orbit(1.0)) == {"x", "v"}

    def heated(t, y, p):
        return {"u": y["v"], "v": -p["strength"] * jnp.exp(y["u"])}

    branch = pinn.follow_branch(
        heated, lambda a, b, p: {"left": a["u"], "right": b["u"]}, 0.0, 1.0,
        parameter="strength", within=(0.5, 4.0), guess={"u": 0.0, "v": 0.0},
        args={"strength": 1.0},
    )  # fmt: skip
    assert abs(branch.folds[0].parameters["strength"] - 3.513830719125) < 1e-10


@refusals(
    ({"guess": None}, "guess must be given where the system is a function", TypeError),
    ({"conditions": lambda a, b: (a[0],)}, "conditions must return 2 numbers"),
    ({"conditions": lambda a, b: None}, "conditions must return numbers", TypeError),
    ({"conditions": lambda a, b: a[0] == b[0]}, "conditions .* truth values", TypeError),
    ({"conditions": lambda a, b: "no"}, "conditions must return numbers", TypeError),
)
def test_refusals_of_states_as_written(wrong):
    heated = systems.second_order(lambda t, u, v: -jnp.exp(u))
    options = {"conditions": lambda a, b: (a[0], b[0]), "guess": (0.0, 0.0)} | wrong
    pinn.solve_boundary(heated, t0=0.0, t1=1.0, **options)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad])
def test_traced_arguments_are_refused_with_the_remedy(transform):
    def end(k):
        return pinn.solve_boundary(SPRING, lambda a, b: [a[0] - k, b[0]], 0.0, 1.0)(0.5)[0]

    with pytest.raises(ValueError, match=r"must not be traced, .*: call it outside of jax\.jit"):
        transform(end)(1.0)
