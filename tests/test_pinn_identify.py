"""Identified parameters against closed forms, the Cramér-Rao bound by Diffrax, and known terms."""

import threading
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from helpers import refusals

from physml import pinn, reference
from physml.pinn.collocation import free_parameters
from physml.pinn.inverse._shooting import weigh
from physml.pinn.inverse._verdict import CONTRADICTED, residual_tests
from physml.results import RESULTS
from physml.systems import DrivenOscillator, Duffing, Lorenz, SquareWave, from_function

NAMES = ("sigma", "rho", "beta")
TRUE = np.array([10.0, 28.0, 8.0 / 3.0])
POSITIVE = {name: (0.0, np.inf) for name in NAMES}
TS = np.linspace(0.0, 3.0, 300)


def lorenz_by_diffrax(unknowns):
    """The trajectory in (sigma, rho, beta, x, y, z at the start), differentiable forward."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(Lorenz(*unknowns[:3])),
        diffrax.Dopri8(),
        0.0,
        3.0,
        0.001,
        unknowns[3:],
        saveat=diffrax.SaveAt(ts=jnp.asarray(TS)),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10),
        adjoint=diffrax.ForwardMode(),
    ).ys


@pytest.fixture(scope="module")
def lorenz():
    """The clean trajectory, and its Jacobian in parameters and start, (n, 3, 6)."""
    unknowns = jnp.asarray(np.concatenate([TRUE, np.ones(3)]))
    jacobian = jax.jit(jax.jacfwd(lorenz_by_diffrax))(unknowns)
    return np.asarray(jax.jit(lorenz_by_diffrax)(unknowns)), np.asarray(jacobian)


def draws(clean, count, seed):
    return clean + 0.5 * np.random.default_rng(seed).standard_normal((count, *clean.shape))


@pytest.mark.slow
@pytest.mark.parametrize(("observe", "factor"), [((0, 1, 2), 1.5), ((0,), 0.5)])
def test_lorenz_reaches_the_cramer_rao_bound(lorenz, observe, factor):
    """A guess 50 % off to either side. Each error is, to first order, the linear estimate's."""
    clean, jacobian = (x[:, np.asarray(observe)] for x in lorenz)
    data = draws(clean, 12, seed=1)
    guess, known = Lorenz(*(factor * TRUE)), {"noise": 0.5, "bounds": POSITIVE}
    options = {"free": NAMES, "y0": [1.5, 1.5, 1.5], "observe": observe, "num_windows": 30, **known}
    found = jax.jit(jax.vmap(lambda ys: pinn.identify(guess, TS, ys, **options)))(data)
    # A right noise is contradicted by chance in one fit of a hundred: where its own draw does so.
    own = jax.vmap(residual_tests, (None, 0))(jnp.asarray(clean), jnp.asarray(data - clean) / 0.5)
    chance = jnp.maximum(own["growth"], own["memory"]) > CONTRADICTED
    assert np.sum(chance) <= 1
    np.testing.assert_array_equal(found.result == RESULTS.noise_contradicted, chance)
    assert np.all((found.result == RESULTS.successful) | chance)
    matrix = jacobian.reshape(-1, 6)
    covariance = 0.25 * np.linalg.inv(matrix.T @ matrix)
    bound = np.sqrt(np.diag(covariance))
    linear = np.linalg.lstsq(matrix, (data - clean).reshape(12, -1).T)[0].T
    estimate = np.concatenate([found.estimate, found.y0], axis=1)
    error = estimate - np.concatenate([TRUE, np.ones(3)])
    # Beside the linear estimate there is what is quadratic in the errors.
    curved = 0.1 if len(observe) == 3 else 0.6
    assert np.max(np.abs(error - linear) / bound) < curved
    ratio = np.sqrt(np.mean(error**2, axis=0) / np.mean(linear**2, axis=0))
    assert np.all(ratio < 1.2), ratio
    sd = np.sqrt(np.mean(np.diagonal(found.covariance, axis1=1, axis2=2), axis=0))
    np.testing.assert_allclose(sd, bound, rtol=0.15)


def decay(ts, rate, start):
    return start * np.exp(-rate * ts)


@pytest.fixture(scope="module")
def decaying():
    """y' = -k y: irregular times, one of two copies observed; its log-linear oracle is exact."""
    ts = np.sort(np.random.default_rng(3).uniform(0.0, 4.0, 40))
    system = from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 2.0})
    noise = 0.01 * np.random.default_rng(4).standard_normal(40)
    ys = (decay(ts, 1.3, 2.0) + noise)[:, None]
    return system, ts, ys


@pytest.fixture(scope="module")
def decayed(decaying):
    system, ts, ys = decaying
    return pinn.identify(system, ts, ys, free=("k",), t0=0.0, bounds={"k": (0.0, np.inf)})


def test_closed_form_estimate_covariance_and_intervals(decaying, decayed):
    _, ts, ys = decaying
    exact = {"p0": (1.0, 1.0), "xtol": 1e-14, "ftol": 1e-14}
    best, covariance = scipy.optimize.curve_fit(decay, ts, ys[:, 0], **exact)
    np.testing.assert_allclose([decayed.values["k"], decayed.y0[0]], best, rtol=1e-6)
    np.testing.assert_allclose(decayed.covariance, covariance, rtol=1e-3)
    residual = ys[:, 0] - decay(ts, *best)
    np.testing.assert_allclose(decayed.noise, np.sqrt(residual @ residual / 38), rtol=1e-6)
    np.testing.assert_allclose(decayed.residuals[:, 0], -residual, atol=1e-7)
    low, high = decayed.intervals(0.9)["k"]
    away = scipy.stats.t.ppf(0.95, 38) * np.sqrt(covariance[0, 0]) / best[0]
    np.testing.assert_allclose([low, high], best[0] * np.exp([-away, away]), rtol=1e-5)
    np.testing.assert_allclose(decayed.solution(2.0), [decay(2.0, *best)], rtol=1e-6)
    assert decayed.args["k"] == decayed.values["k"]


@pytest.mark.slow
def test_profile_is_the_closed_forms(decaying, decayed):
    """With k fixed the start is a linear least-squares problem."""
    _, ts, ys = decaying
    profile = pinn.profile(decayed, "k", num=5)

    def squares(k):
        column = np.exp(-k * ts)
        start = column @ ys[:, 0] / (column @ column)
        return np.sum((ys[:, 0] - start * column) ** 2)

    best = squares(float(decayed.values["k"]))
    expected = [ys.size * np.log(squares(k) / best) for k in profile.values]
    np.testing.assert_allclose(profile.deviance, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match=r"name must be one of \['k'\]"):
        pinn.profile(decayed, "rate")


def test_profile_interval_interpolates():
    profile = pinn.Profile("k", np.linspace(-3, 3, 601), np.linspace(-3, 3, 601) ** 2)
    np.testing.assert_allclose(profile.interval(0.95), (-1.95996, 1.95996), atol=1e-3)
    low, high = pinn.Profile("k", np.array([0.0, 1.0]), np.array([0.0, 9.0])).interval()
    assert low == -np.inf and 0 < high < 1


@pytest.mark.slow
def test_outliers_hardly_move_a_robust_fit(decaying):
    system, ts, ys = decaying
    spoiled = ys.copy()
    spoiled[5::8] += 0.5
    with pytest.warns(UserWarning, match="residuals are not those of the noise"):
        squares = pinn.identify(system, ts, spoiled, free=("k",), t0=0.0)
    huber = pinn.identify(system, ts, spoiled, free=("k",), t0=0.0, loss="huber")
    error = abs(float(huber.values["k"]) - 1.3)
    assert error < 0.1 * abs(float(squares.values["k"]) - 1.3)
    assert error < 4 * huber.sd["k"] < 0.1


@pytest.mark.slow
def test_damping_ratio_of_positions_alone():
    zeta, ts = 0.15, np.linspace(0.0, 20.0, 401)
    clean = DrivenOscillator(gamma=zeta, forcing=None).exact(ts, jnp.array([1.0, 0.0]))
    ys = np.asarray(clean[:, :1]) + 0.02 * np.random.default_rng(0).standard_normal((401, 1))
    guess = DrivenOscillator(gamma=1.5 * zeta, omega0=1.5, forcing=None)
    options = {"observe": lambda y: y[:1], "bounds": {"gamma": (0.0, 2.0)}, "known_start": True}
    found = pinn.identify(guess, ts, ys, free=("gamma", "omega0"), y0=[1.0, 0.0], **options)
    ratio = found.values["gamma"] / found.values["omega0"]
    assert abs(ratio / zeta - 1) < 0.01
    np.testing.assert_allclose(found.y0, [1.0, 0.0], atol=1e-8)
    assert np.all(found.y0_sd < 1e-6)


@pytest.mark.slow
def test_what_cannot_be_told_is_said():
    """A product of two parameters: only it is known."""
    system = from_function(lambda t, y, a: -a["k"] * a["m"] * y, 1, args={"k": 1.0, "m": 1.0})
    ts = np.linspace(0.0, 2.0, 40)
    ys = decay(ts, 1.3, 2.0)[:, None] + 0.01 * np.random.default_rng(4).standard_normal((40, 1))
    with pytest.warns(UserWarning, match="do not determine all parameters"):
        found = pinn.identify(system, ts, ys, free=("k", "m"))
    assert found.result == RESULTS.unidentifiable
    np.testing.assert_allclose(found.values["k"] * found.values["m"], 1.3, rtol=0.02)
    assert found.singular_values[-1] < 1e-6


@pytest.mark.slow
def test_a_wrong_model_is_said(decaying):
    _, ts, ys = decaying
    constant = from_function(lambda t, y, args: 0.0 * args["k"] * y + args["k"], 1, args={"k": 1.0})
    with pytest.warns(UserWarning, match="does not explain the data"):
        found = pinn.identify(constant, ts, ys, free=("k",), noise=0.01)
    assert found.result == RESULTS.misfit


@pytest.mark.slow
def test_too_few_iterations_are_an_error(decaying):
    system, ts, ys = decaying
    with pytest.raises(RuntimeError, match="did not converge"):
        pinn.identify(system, ts, ys, free=("k",), num_windows=4, max_steps=2)


@pytest.mark.parametrize("loss", ["squares", "huber", "soft_l1"])
def test_losses_and_their_derivatives(loss):
    r = jnp.linspace(-4.0, 4.0, 82)
    cost, weight, curvature = weigh(loss, r)
    slope = jax.grad(lambda r: weigh(loss, r)[0].sum())
    np.testing.assert_allclose(slope(r), 2 * weight * r, atol=1e-12)
    np.testing.assert_allclose(jax.jvp(slope, (r,), (jnp.ones_like(r),))[1], 2 * curvature)
    np.testing.assert_allclose(cost[jnp.abs(r) < 0.1], r[jnp.abs(r) < 0.1] ** 2, rtol=0.01)


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (1.0, np.inf), (-np.inf, 3.0), (1.0, 3.0)])
def test_bounds_are_kept_and_transforms_invert(bounds):
    parameters, guess = free_parameters(Lorenz(rho=2.0), None, ("rho",), {"rho": bounds})
    np.testing.assert_allclose(parameters.constrain(parameters.unconstrain(guess)), [2.0])
    for p in (-30.0, 0.5, 30.0):
        value = parameters.constrain(jnp.array([p]))
        assert bounds[0] <= value[0] <= bounds[1]
    p = jnp.array([0.3])
    step = (parameters.constrain(p + 1e-6) - parameters.constrain(p - 1e-6)) / 2e-6
    np.testing.assert_allclose(parameters.slope(p), step, rtol=1e-8)


@pytest.mark.slow
def test_duffing_gets_its_cubic_term_back():
    ts = np.linspace(0.0, 10.0, 201)
    clean = reference.solve(Duffing(), [1.0, 0.0], ts).ys
    ys = np.asarray(clean) + 0.01 * np.random.default_rng(2).standard_normal(clean.shape)
    known = Duffing(beta=0.0)
    found = pinn.discover(known, ts, ys, component=1, units=20, key=jax.random.key(0))
    assert found.names == ("x^3",)
    assert abs(found.coefficients[0] + 1) < min(0.01, 4 * found.sd[0])
    monomials, network = found.term(clean)
    np.testing.assert_allclose(monomials, found.coefficients[0] * clean[:, 0] ** 3, rtol=1e-12)
    # Where the trajectory has been, the network alone has the term as well.
    assert np.sqrt(np.mean((network + clean[:, 0] ** 3) ** 2)) < 0.1
    assert "x^3" in str(found)


LINE = np.linspace(0.0, 1.0, 5)


@pytest.mark.slow
def test_the_solution_says_its_error_given_the_parameters():
    """Beside the closed form for the parameters and the start that were found."""
    ts = np.linspace(0.0, 20.0, 401)
    clean = DrivenOscillator().exact(ts, jnp.array([1.0, 0.0]))
    ys = clean + 0.02 * np.random.default_rng(0).standard_normal(clean.shape)
    found = pinn.identify(DrivenOscillator(gamma=0.3), ts, ys, free=("gamma",), num_windows=5)
    times = np.linspace(0.0, 20.0, 77)
    system: Any = found.system
    error = np.abs(found.solution(times) - system.exact(times, found.y0))
    estimate = found.solution.error_estimate(times)
    assert error.max() > 1e-8
    np.testing.assert_allclose(estimate, error, rtol=0.2, atol=0.01 * error.max())
    until, censored = found.solution.valid_until(1e-6)
    assert until == 20.0 and censored


@pytest.mark.slow
def test_no_error_is_claimed_across_jumps():
    system = DrivenOscillator(forcing=SquareWave(period=5.0, width=2.5))
    ts = np.linspace(0, 10, 101)
    ys = system.exact(ts, jnp.array([1.0, 0.0]))
    found = pinn.identify(system, ts, ys, free=("gamma",), noise=0.01, num_windows=6)
    with pytest.raises(ValueError, match="estimate"):
        found.solution.error_estimate(1.0)


@refusals(
    ({"t0": 0.5}, "ts must lie within the horizon that starts at t0 = 0.5"),
    ({"ts": LINE[::-1]}, "ts must not decrease"),
    ({"ts": LINE[:4]}, r"ys must have shape \(4, obs\)"),
    ({"ys": np.ones(5)}, r"ys must have shape \(5, obs\)"),
    ({"ys": np.full((5, 2), np.nan)}, "ys must hold observations, got only NaN"),
    ({"ys": np.full((5, 2), np.inf)}, "ys must be finite, got inf"),
    ({"ys": np.ones((5, 3))}, "got 3 columns"),
    ({"observe": (0,), "ys": np.ones((5, 1))}, "y0 must be given"),
    ({"observe": (0, 2)}, "observe must hold different indices below 2"),
    ({"observe": lambda y: [y[0], y[2]]}, r"observe must use the components .* got y\[2\]"),
    ({"observe": lambda y: y[jnp.array([2])]}, r"observe must use the components .* got y\[2\]"),
    ({"y0": lambda p: jnp.ones(2)[jnp.array([0, 2])]}, "y0 must use indices from 0 to 1"),
    ({"observe": lambda y: y[:1]}, "got 2 columns"),
    ({"y0": [1.0]}, r"y0 must have shape \(2,\)"),
    ({"ts": LINE[:1], "ys": np.ones((1, 2))}, "hold a later time"),
    (
        {"ts": LINE[:2], "ys": np.ones((2, 1)), "y0": [1.0, 0.0], "observe": (0,)},
        "as many numbers as are unknown, 3, got 2",
    ),
    ({"free": ("rate",)}, "free must name parameters of DrivenOscillator"),
    ({"free": ()}, "free must name parameters"),
    ({"bounds": {"gamma": (0.5, 1.0)}}, "gamma must hold the guess 0.2"),
    ({"bounds": {"gamma": (1.0, 0.0)}}, "gamma must be low < high"),
    ({"bounds": {"mass": (0.0, 1.0)}}, "bounds must name free parameters"),
    ({"prior": {"mass": 1.0}}, "prior must name free parameters"),
    ({"prior": {"gamma": 0.0}}, "prior of gamma must be a positive"),
    ({"noise": 0.0}, "noise must be positive"),
    ({"noise": [0.1, 0.1, 0.1]}, "noise must be a number, 2, or an array"),
    ({"loss": "cubes"}, "loss must be one of"),
    ({"num_windows": -1}, "num_windows must be at least 1"),
    ({"system": lambda t, y, args: -y}, "System", TypeError),
    (
        {"system": from_function(lambda t, y, a: a["k"] * y / 0.0, 2, args={"k": 1.0})}
        | {"free": ("k",)},
        "right-hand side at the first observation",
    ),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_input(change):
    good = {"system": DrivenOscillator(), "ts": LINE, "ys": np.ones((5, 2)), "free": ("gamma",)}
    pinn.identify(**(good | change))


@refusals(
    ({"component": 2}, "component must be an index below 2"),
    ({"inputs": (1, 2)}, "inputs must be observed"),
    ({"threshold": 1.0}, "threshold"),
    ({"ys": np.ones((5, 1))}, r"ys must have shape \(n, 2\)"),
    ({"ys": np.ones((5, 2))}, r"ys must vary in every component of inputs, \(0, 1\)"),
)
def test_bad_input_to_discover(change):
    arguments = {"ts": LINE, "ys": np.ones((5, 2)), "component": 1} | change
    pinn.discover(Duffing(), key=jax.random.key(0), **arguments)


@pytest.mark.slow
def test_two_threads_may_identify_at_once():
    clean = np.asarray(reference.solve(Lorenz(), jnp.ones(3), TS).ys)
    noise = np.random.default_rng(0).normal(size=(4, *clean.shape))

    def found(number):
        guess, ys = Lorenz(rho=20.0), clean + 0.5 * noise[number]
        return float(pinn.identify(guess, TS, ys, free=("rho",)).values["rho"])

    alone = [found(number) for number in range(4)]
    together = {}
    threads = [
        threading.Thread(
            target=lambda first=first: together.update({n: found(n) for n in (first, first + 2)}),
            daemon=True,  # a thread that waits for ever must not keep the tests from ending
        )
        for first in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [together.get(number) for number in range(4)] == alone
