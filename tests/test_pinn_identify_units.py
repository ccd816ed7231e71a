"""Inverse problems do not know the units of their data: SciPy's fits, and data in other units."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize

from physml import pinn, reference
from physml.results import RESULTS
from physml.systems import from_function

PEOPLE = 7_900_010.0
DAYS = np.arange(151.0)
START = np.array([PEOPLE - 79.0, 79.0, 0.0])


# Right-hand sides stand outside of the tests, so that JAX traces each of them once.
def epidemic(t, y, args):
    infections, recoveries = args["beta"] * y[0] * y[1] / PEOPLE, args["gamma"] * y[1]
    return jnp.stack([-infections, infections - recoveries, recoveries])


def sir(beta, gamma):
    return from_function(epidemic, 3, args={"beta": beta, "gamma": gamma})


def infected_by_scipy(rates):
    def f(t, y):
        infections, recoveries = rates[0] * y[0] * y[1] / PEOPLE, rates[1] * y[1]
        return [-infections, infections - recoveries, recoveries]

    span = (0.0, DAYS[-1])
    out = scipy.integrate.solve_ivp(f, span, START, "DOP853", DAYS, rtol=1e-11, atol=1e-6)
    return out.y[1]


@pytest.fixture(scope="module")
def infected():
    noise = 100.0 * np.random.default_rng(0).standard_normal(DAYS.size)
    return infected_by_scipy([0.5, 0.33]) + noise


@pytest.mark.parametrize("guess", [(0.5, 0.33), (0.75, 0.165), (0.25, 0.495)])
def test_an_epidemic_in_people_is_what_scipy_fits(infected, guess):
    """Two of three components are hidden, and one of these starts at zero."""
    best = scipy.optimize.least_squares(lambda p: infected_by_scipy(p) - infected, [0.5, 0.33])
    noise = np.sqrt(2 * best.cost / (DAYS.size - 2))
    sd = noise * np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
    options = {"y0": START, "observe": (1,), "known_start": True}
    found = pinn.identify(sir(*guess), DAYS, infected[:, None], free=("beta", "gamma"), **options)
    assert found.result == RESULTS.successful
    assert np.all(np.abs(found.estimate - best.x) < 0.01 * sd)
    np.testing.assert_allclose(np.stack([*found.sd.values()]), sd, rtol=1e-3)
    np.testing.assert_allclose(found.noise, noise, rtol=1e-4)
    np.testing.assert_allclose(found.solution.ys.sum(axis=1), PEOPLE, rtol=1e-6)


RATES = np.array([0.7, 0.25, 0.1])
TIMES = np.linspace(0.0, 20.0, 60)


def decays(t, y, args):
    """A -> B -> C -> D."""
    a, b, c = args["k"] * y[:3]
    return jnp.stack([-a, a - b, b - c, c])


def chain(rates):
    return from_function(decays, 4, args={"k": rates})


@pytest.fixture(scope="module")
def amounts():
    start = np.array([1.0, 0.1, 0.1, 0.1])
    return np.asarray(reference.solve(chain(jnp.asarray(RATES)), start, TIMES).ys)


def first_half_over_second(y):
    return ((y[0] + y[1]) / (y[2] + y[3]))[None]


@pytest.mark.slow
def test_a_ratio_is_the_same_for_every_unit(amounts):
    """The third rate moves nothing between the halves, so that it cannot be found."""
    ratio = np.apply_along_axis(first_half_over_second, 1, amounts)
    data = ratio + 0.01 * np.random.default_rng(1).standard_normal(ratio.shape)
    system, every = chain(jnp.array([0.5, 0.4, 0.2])), []
    for unit in (1.0, 1e-6, 1e-9, 1e3, 1e6):
        options = {"y0": unit * amounts[0], "observe": first_half_over_second, "known_start": True}
        with pytest.warns(UserWarning, match=r"Not determined: k\[2\]\."):
            found = pinn.identify(system, TIMES, data, free=("k",), num_windows=6, **options)
        assert found.result == RESULTS.unidentifiable
        assert found.undetermined_names == ("k[2]",)
        every.append(found)
    estimates = np.stack([found.estimate[:2] for found in every])
    np.testing.assert_allclose(estimates, np.tile(estimates[0], (5, 1)), rtol=1e-9)
    assert np.all(np.abs(estimates[0] - RATES[:2]) < 4 * every[0].sd["k"][:2])


def decays_in_units(t, y, args):
    return args["units"] * decays(t, y / args["units"], args)


def in_units(ys, units, second, guess):
    """The chain's rates and start, where B, C and D are observed in units of their own."""
    args = {"k": jnp.array([1.0, 0.2, 0.15]) / second, "units": jnp.asarray(units)}
    options = {"free": ("k",), "y0": guess * units, "observe": (1, 2, 3), "num_windows": 6}
    return pinn.identify(
        from_function(decays_in_units, 4, args=args), second * TIMES, units[1:] * ys, **options
    )


@pytest.fixture(scope="module")
def noisy(amounts):
    return amounts[:, 1:] + 0.01 * np.random.default_rng(8).standard_normal((60, 3))


def amounts_by_scipy(unknowns):
    """B, C and D for three rates and four amounts at the start, by the exponential of a matrix."""
    rates, start = unknowns[:3], unknowns[3:]
    matrix = np.diag([*-rates, 0.0]) + np.diag(rates, -1)
    return np.stack([scipy.linalg.expm(t * matrix) @ start for t in TIMES])[:, 1:]


def fitted_by_scipy(ys, noise):
    """The fit for a noise of each column: unknowns, standard deviations and the noise it leaves."""

    def residuals(unknowns):
        return ((amounts_by_scipy(unknowns) - ys) / noise).ravel()

    guess = np.array([1.0, 0.2, 0.15, 0.8, 0.1, 0.1, 0.1])
    best = scipy.optimize.least_squares(residuals, guess, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    freedom = len(ys) - len(guess) / len(noise)
    left = noise * np.sqrt(np.sum(best.fun.reshape(ys.shape) ** 2, axis=0) / freedom)
    return best.x, np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac))), left


@pytest.mark.parametrize("start", [0.8, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_components_and_time_in_other_units(noisy, seed, start):
    """Each component times its own 10^k and the time times 10^m: the same, relative to units."""
    rng = np.random.default_rng(seed)
    units, second = 10.0 ** rng.integers(-18, 19, 4), 10.0 ** rng.integers(-9, 10)
    guess = np.array([start, 0.1, 0.1, 0.1])
    plain = in_units(noisy, np.ones(4), 1.0, guess)
    found = in_units(noisy, units, second, guess)
    assert found.result == plain.result == RESULTS.successful
    np.testing.assert_allclose(found.estimate * second, plain.estimate, rtol=1e-9)
    np.testing.assert_allclose(found.y0 / units, plain.y0, rtol=1e-9)
    np.testing.assert_allclose(found.sd["k"] * second, plain.sd["k"], rtol=1e-7)
    np.testing.assert_allclose(found.y0_sd / units, plain.y0_sd, rtol=1e-7)
    np.testing.assert_allclose(found.noise / units[1:], plain.noise, rtol=1e-7)
    # Against SciPy and not against the true rates: of this noise, k[1] is 4.2 sd off in both fits.
    best, sd, noise = fitted_by_scipy(noisy, np.asarray(plain.noise))
    unknowns = np.concatenate([plain.estimate, plain.y0])
    assert np.all(np.abs(unknowns - best) < 1e-3 * sd)
    np.testing.assert_allclose(np.concatenate([plain.sd["k"], plain.y0_sd]), sd, rtol=1e-3)
    np.testing.assert_allclose(plain.noise, noise, rtol=1e-5)
