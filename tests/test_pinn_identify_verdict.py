"""Verdicts of inverse problems: data without noise, too few of them, and noise that is not one."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import refusals

from physml import pinn, reference
from physml.pinn.inverse._verdict import CONTRADICTED, residual_tests
from physml.results import RESULTS
from physml.systems import Lorenz, LotkaVolterra, from_function

DECAY = from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 0.5})
PREY = {"alpha": 1.1, "beta": 0.4, "delta": 0.1, "gamma": 0.4}
GUESS = LotkaVolterra(alpha=0.8, beta=0.3, delta=0.15, gamma=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1e-14, 1e-10, 1e-8, 1e-6, 1e-3, 0.1])
def test_the_better_the_data_the_better_the_answer(noise):
    ts = np.linspace(0.0, 5.0, 40)
    ys = np.exp(-ts)[:, None] + noise * np.random.default_rng(0).standard_normal((40, 1))
    found = pinn.identify(DECAY, ts, ys, free=("k",))
    assert found.result == RESULTS.successful
    low, high = found.intervals(0.999)["k"]
    assert low < 1.0 < high
    assert abs(found.values["k"] - 1) < 4 * noise + 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1e-12, 1e-6, 1e-3])
def test_data_are_better_than_the_noise_that_is_given(noise):
    ts = np.linspace(0.0, 5.0, 40)
    found = pinn.identify(DECAY, ts, np.exp(-ts)[:, None], free=("k",), noise=noise)
    assert found.result == RESULTS.successful
    assert abs(found.values["k"] - 1) < 2e-8


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-6])
def test_chaos_without_noise(noise):
    ts = np.linspace(0.0, 2.0, 100)
    ys = np.asarray(reference.solve(Lorenz(rho=28.0), [1.0, 1.0, 1.0], ts).ys)
    ys = ys + noise * np.random.default_rng(0).standard_normal(ys.shape)
    found = pinn.identify(Lorenz(rho=20.0), ts, ys, free=("rho",))
    assert found.result == RESULTS.successful
    assert abs(found.values["rho"] - 28.0) < 1e-7
    assert found.stats["coarseness"] < 10


@pytest.mark.slow
def test_a_single_observation_from_a_known_start():
    """k = 1.3 as the closed form has it, but nothing to tell the noise from."""
    options = {"free": ("k",), "t0": 0.0, "y0": [2.0], "known_start": True}
    ys = 2.0 * np.exp(-1.3 * np.ones((1, 1)))
    with pytest.warns(UserWarning, match="nothing is left to estimate the noise from"):
        found = pinn.identify(DECAY, [1.0], ys, **options)
    assert found.result == RESULTS.noise_unknown
    np.testing.assert_allclose(found.values["k"], 1.3, rtol=1e-6)
    assert found.intervals()["k"] == (-np.inf, np.inf)
    np.testing.assert_allclose(found.y0_interval(), [[2.0], [2.0]], rtol=1e-6)
    known = pinn.identify(DECAY, [1.0], ys, noise=0.01, **options)
    assert known.result == RESULTS.successful
    np.testing.assert_allclose(known.sd["k"], 0.01 / ys[0, 0], rtol=1e-4)


@pytest.mark.slow
def test_as_many_unknowns_as_numbers():
    ts = np.linspace(0.0, 6.0, 3)
    clean = np.asarray(reference.solve(LotkaVolterra(**PREY), [10.0, 5.0], ts).ys)
    ys = clean * np.exp(0.15 * np.random.default_rng(0).standard_normal(clean.shape))
    with pytest.warns(UserWarning, match="nothing is left to estimate the noise from"):
        found = pinn.identify(GUESS, ts, ys, free=tuple(PREY))
    assert found.result == RESULTS.noise_unknown
    assert all(low < PREY[name] < high for name, (low, high) in found.intervals().items())


def test_intervals_of_few_data_are_students():
    """One degree of freedom: the quantile is 12.7, and the residual is all there is."""
    ts = np.array([0.5, 1.0])
    ys = np.exp(-1.3 * ts)[:, None] + np.array([[0.01], [-0.02]])
    found = pinn.identify(DECAY, ts, ys, free=("k",), t0=0.0, y0=[1.0], known_start=True)
    low, high = found.intervals()["k"]
    np.testing.assert_allclose(high - low, 2 * scipy.stats.t.ppf(0.975, 1) * found.sd["k"])
    assert low < 1.3 < high


def draws(num, columns=2, n=40):
    """Residuals of a right model: white noise without its part along four smooth functions."""
    t = np.linspace(0.0, 1.0, n)
    smooth = np.linalg.qr(np.stack([np.ones(n), t, np.exp(-2 * t), np.sin(9 * t)], 1))[0]
    r = np.random.default_rng(0).standard_normal((num, n, columns))
    return r - np.einsum("np,mp,bmc->bnc", smooth, smooth, r)


def test_right_noise_is_seldom_contradicted():
    values = np.stack([np.exp(-np.linspace(0.0, 2.0, 40)), np.sin(np.linspace(0.0, 9.0, 40))], 1)
    tests = jax.vmap(lambda r: residual_tests(jnp.asarray(values), r))(jnp.asarray(draws(2000)))
    for z in tests.values():
        assert np.mean(z > CONTRADICTED) < 0.01
        assert 0.7 < np.std(z) < 1.2


def test_growing_noise_and_noise_with_a_memory_are_contradicted():
    values = np.exp(-np.linspace(0.0, 3.0, 40))[:, None]
    growing = jax.vmap(lambda r: residual_tests(jnp.asarray(values), jnp.asarray(values) * r))
    white = draws(500, 1)
    assert np.mean(growing(jnp.asarray(white))["growth"] > CONTRADICTED) > 0.8
    values = np.exp(-np.linspace(0.0, 3.0, 80))[:, None]
    alike = draws(500, 1, n=80)
    for i in range(1, 80):
        alike[:, i] += 0.7 * alike[:, i - 1]
    remembering = jax.vmap(lambda r: residual_tests(jnp.asarray(values), r))
    assert np.mean(remembering(jnp.asarray(alike))["memory"] > CONTRADICTED) > 0.95
    assert float(residual_tests(jnp.asarray(values), 0.01 * jnp.asarray(alike[0]))["memory"]) == 0.0


def test_a_column_without_noise_contradicts_nothing():
    """What is always zero leaves the rounding of its fitted values, which are its residuals too."""
    values = np.stack([np.exp(-np.linspace(0.0, 3.0, 40)), 1e-17 * np.arange(40.0)], axis=1)
    white = jnp.asarray(draws(1, 1)[0])
    alone = residual_tests(jnp.asarray(values[:, :1]), white)
    beside = jnp.concatenate([white, 1e6 * jnp.asarray(values[:, 1:])], axis=1)
    for name, z in residual_tests(jnp.asarray(values), beside).items():
        np.testing.assert_allclose(z, alone[name])


@pytest.mark.slow
def test_multiplicative_noise_is_said_and_both_remedies_help():
    """20 yearly counts of prey and hunters, each 15 % off."""
    ts = np.linspace(0.0, 19.0, 20)
    clean = np.asarray(reference.solve(LotkaVolterra(**PREY), [10.0, 5.0], ts).ys)
    said, covered = 0, {"noise": 0, "log": 0}
    for seed in range(10):
        ys = clean * np.exp(0.15 * np.random.default_rng(seed).standard_normal(clean.shape))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            plain = pinn.identify(GUESS, ts, ys, free=tuple(PREY))
        said += bool(plain.result == RESULTS.noise_contradicted)
        logs = {"observe": jnp.log, "y0": ys[0]}
        every = {
            "noise": pinn.identify(GUESS, ts, ys, free=tuple(PREY), noise=lambda y: 0.15 * y),
            "log": pinn.identify(GUESS, ts, np.log(ys), free=tuple(PREY), **logs),
        }
        for name, found in every.items():
            assert found.result == RESULTS.successful
            ranges = found.intervals().items()
            covered[name] += sum(float(a) < PREY[k] < float(b) for k, (a, b) in ranges)
    assert said >= 6
    assert min(covered.values()) >= 34  # of 40


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32_data_are_computed_in_float64(dtype):
    ts = np.linspace(0.0, 2.0, 30)
    ys = np.exp(-1.3 * ts)[:, None] + 0.01 * np.random.default_rng(0).standard_normal((30, 1))
    y0 = np.ones(1, dtype)
    found = pinn.identify(DECAY, ts, ys.astype(dtype), free=("k",), y0=y0, num_windows=4)
    assert found.estimate.dtype == jnp.float64
    assert abs(found.values["k"] - 1.3) < 4 * found.sd["k"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["identify", "discover"])
def test_without_float64_the_message_names_it(name, dtype):
    ts, ys = np.linspace(0.0, 1.0, 5, dtype=dtype), np.ones((5, 1), dtype)
    more = {
        "identify": {"free": ("k",)},
        "discover": {"component": 0, "key": jax.random.key(0)},
    }
    with jax.enable_x64(False), pytest.raises(ValueError, match=f"must be on, because pinn.{name}"):
        getattr(pinn, name)(DECAY, ts, ys, **more[name])


@refusals(
    (np.ones((5, 2)), "noise must be a number, 1, or an array of the shape of ys"),
    (-1.0, "noise must be positive"),
    (lambda y: y[0], r"noise at the observations must have their shape \(5, 1\)"),
    (lambda y: jnp.nan * y, "noise at the observations must be finite"),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_noise(noise):
    pinn.identify(DECAY, np.linspace(0.0, 1.0, 5), np.ones((5, 1)), free=("k",), noise=noise)
