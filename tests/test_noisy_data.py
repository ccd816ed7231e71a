"""Noise in trajectories: how much is found, what smoothing removes, maps fitted in spite of it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import refusals

from physml import data, nn, reference, surrogate, systems
from physml.data import Trajectories

TS = 0.01 * np.arange(301)
LORENZ = systems.Lorenz()


def disturbed(clean: Trajectories, share: float, seed: int = 0) -> Trajectories:
    """The rows with normal noise, a share of each column's spread."""
    ys = np.asarray(clean.ys)
    draws = np.random.default_rng(seed).standard_normal(ys.shape)
    return data.from_arrays(clean.ts, ys + share * ys.std(axis=(0, 1)) * draws)


def distance(part: Trajectories | None, whole: Trajectories | None) -> float:
    """Root mean square difference, in spreads of the whole."""
    assert part is not None and whole is not None
    apart = np.asarray(part.ys - whole.ys) / np.asarray(whole.ys).std(axis=(0, 1))
    return float(np.sqrt((apart**2).mean()))


@pytest.fixture(scope="module")
def clean() -> Trajectories:
    starts = reference.attractor_starts(LORENZ, jax.random.key(0), 15)
    return reference.trajectories_from(LORENZ, starts, TS)


@pytest.fixture(scope="module")
def noisy(clean) -> Trajectories:
    return disturbed(clean, 0.02)


def network_for(rows: Trajectories, units: int = 40) -> nn.MLP:
    inputs = surrogate.network_inputs(rows)
    return nn.MLP.frozen(inputs, units, 3, scale=0.06, rngs=nnx.Rngs(1))


@pytest.fixture(scope="module")
def fitted(noisy) -> surrogate.StepperFit:
    return surrogate.fit_readout(network_for(noisy), noisy, symmetry=LORENZ.symmetry, noise="auto")


def one_step_error(step_map: surrogate.Stepper, rows: Trajectories) -> float:
    """Root mean square error of the increments at exact rows, as a share of the increments."""
    found = jax.vmap(step_map.increments)(rows.ys[:, :-1], rows.t0s)
    true = np.diff(np.asarray(rows.ys), axis=1)
    return float(np.sqrt((np.asarray(found - true) ** 2).mean() / (true**2).mean()))


@pytest.mark.parametrize("share", [1e-4, 1e-2, 0.1])
def test_the_noise_is_found_to_a_tenth(clean, share):
    spread = np.asarray(clean.ys).std(axis=(0, 1))
    np.testing.assert_allclose(disturbed(clean, share).noise() / spread, share, rtol=0.1)


def test_noise_in_one_column_is_found_there_alone(clean):
    ys = np.array(clean.ys)
    ys[:, :, 1] += 0.3 * np.random.default_rng(1).standard_normal(ys.shape[:2])
    rows = data.from_arrays(TS, ys)
    np.testing.assert_allclose(rows.noise(), [0.0, 0.3, 0.0], rtol=0.1)
    smooth = rows.smoothed()
    np.testing.assert_array_equal(smooth.ys[:, :, ::2], ys[:, :, ::2])
    assert distance(smooth, clean) < 0.45 * distance(rows, clean)


def test_clean_rows_have_no_noise_and_stay_as_they_are(clean):
    np.testing.assert_array_equal(clean.noise(), 0.0)
    assert clean.smoothed() is clean


def test_the_rounding_of_float32_is_no_noise(clean):
    single = data.from_arrays(TS, np.asarray(clean.ys, np.float32) + np.float32(1000.0))
    np.testing.assert_array_equal(single.noise(), 0.0)


def test_an_orbit_of_a_map_is_not_taken_for_noise():
    orbit = [np.array([0.1, 0.1])]
    for _ in range(999):
        x, y = orbit[-1]
        orbit.append(np.array([1 - 1.4 * x**2 + y, 0.3 * x]))
    rows = data.from_arrays(np.arange(1000.0), np.stack(orbit))
    np.testing.assert_array_equal(rows.noise(), 0.0)


@pytest.mark.parametrize(("share", "factor"), [(0.01, 0.55), (0.1, 0.45)])
def test_smoothing_reduces_the_error_by_half(clean, share, factor):
    rows = disturbed(clean, share)
    assert distance(rows.smoothed(), clean) < factor * distance(rows, clean)


def test_smoothing_scales_with_each_column(noisy):
    units = np.array([1e-8, 1.0, 1e9])
    scaled = data.from_arrays(TS, np.asarray(noisy.ys) * units)
    np.testing.assert_allclose(scaled.noise(), noisy.noise() * units, rtol=1e-10)
    np.testing.assert_allclose(
        np.asarray(scaled.smoothed().ys) / units, noisy.smoothed().ys, rtol=1e-9
    )


def test_a_polynomial_survives_smoothing_up_to_the_ends():
    ts = np.linspace(-1.0, 1.0, 101)
    rows = data.from_arrays(ts, np.stack([ts**4 - ts, 2 * ts**3], axis=1))
    np.testing.assert_allclose(rows.smoothed(0.01).ys, rows.ys, atol=1e-12)


def test_states_and_map_are_fitted_to_noisy_rows(clean, noisy, fitted):
    """The states come from the map, so they are far better than those of any window."""
    assert distance(fitted.states, clean) < 0.4 * distance(noisy.smoothed(), clean)
    np.testing.assert_allclose(fitted.noise, noisy.noise())
    options = {"symmetry": LORENZ.symmetry}
    plain = surrogate.fit_readout(network_for(noisy), noisy, noise=0.0, **options)
    smooth = surrogate.fit_readout(network_for(noisy), noisy.smoothed(), noise=0.0, **options)
    best = min(one_step_error(fit.step_map, clean) for fit in (plain, smooth))
    assert one_step_error(fitted.step_map, clean) < 0.5 * best


def test_the_answer_scales_with_each_column(noisy, fitted):
    units = np.array([1e6, 1e6, 1e-5])
    scaled = data.from_arrays(TS, np.asarray(noisy.ys) * units)
    again = surrogate.fit_readout(
        network_for(noisy), scaled, symmetry=LORENZ.symmetry, noise="auto"
    )
    assert again.states is not None
    states = data.from_arrays(TS, np.asarray(again.states.ys) / units)
    assert distance(states, fitted.states) < 0.02 * distance(noisy, fitted.states)


def test_clean_rows_are_fitted_as_ever(clean):
    network = network_for(clean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = surrogate.fit_readout(network, clean)
        asked = surrogate.fit_readout(network, clean, noise="auto")
    for one, other in zip(*map(jax.tree.leaves, (plain, asked)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert asked.noise is None and asked.states is None


def test_noisy_rows_are_said_with_the_remedy(noisy):
    with pytest.warns(UserWarning, match=r'fit_readout: .*noise="auto".* 2, 2, 2 % of the spread'):
        surrogate.fit_readout(network_for(noisy, 5), noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surrogate.fit_readout(network_for(noisy, 5), noisy, noise=0.0)


@pytest.mark.slow
def test_a_trained_network_is_refitted_to_noisy_rows(clean, noisy):
    network = nn.MLP(3, (30,), 3, rngs=nnx.Rngs(0))
    options = {"optimizer": optax.adam(1e-3), "steps": 200, "key": jax.random.key(1)}
    with pytest.warns(UserWarning, match=r"surrogate\.fit: The rows are noisy"):
        plain = surrogate.fit(network, noisy, **options)
    better = surrogate.fit(network, noisy, noisy[:3], noise="auto", **options)
    assert one_step_error(better.step_map, clean) < 0.8 * one_step_error(plain.step_map, clean)
    assert distance(better.states, clean) < distance(noisy.smoothed(), clean)


@pytest.mark.slow
def test_a_known_part_and_a_drive_are_kept(noisy):
    """A driven oscillator of which the spring is known: the map is linear, so it is found."""
    system = systems.DrivenOscillator()
    spring = systems.from_function(lambda t, y, _: jnp.stack([y[1], -y[0]]), dim=2)
    assert system.period is not None
    period = float(system.period)
    ts = np.linspace(0.0, 20.0, 401)
    starts = np.random.default_rng(0).uniform(-2.0, 2.0, (8, 2))
    exact = np.stack([np.asarray(reference.solve(system, y0, ts).ys) for y0 in starts])
    clean = data.from_arrays(ts, exact)
    rows = disturbed(clean, 0.02)
    inputs = surrogate.network_inputs(rows, period=period)
    network = nn.MLP.frozen(inputs, 20, 2, scale=0.05, rngs=nnx.Rngs(1))
    options = {"known": spring, "period": period}
    found = surrogate.fit_readout(network, rows, noise="auto", **options)
    plain = surrogate.fit_readout(network, rows, noise=0.0, **options)
    assert distance(found.states, clean) < 0.2 * distance(rows, clean)
    assert one_step_error(found.step_map, clean) < 0.2 * one_step_error(plain.step_map, clean)


def test_a_recurrent_network_is_fitted_to_smoothed_rows(noisy):
    inputs = surrogate.network_inputs(noisy)
    network = nn.RNN.frozen("simple", inputs, 20, 3, rngs=nnx.Rngs(0))
    found = surrogate.fit_readout(network, noisy, warmup=20, noise="auto")
    assert found.states is not None
    np.testing.assert_array_equal(found.states.ys, noisy.smoothed().ys)


@pytest.mark.slow
def test_rows_before_the_warm_up_are_only_smoothed(noisy):
    found = surrogate.fit_readout(
        network_for(noisy, 10), noisy, warmup=200, noise="auto", rcond=1e-4
    )
    assert found.states is not None
    np.testing.assert_array_equal(found.states.ys[:, :200], noisy.smoothed().ys[:, :200])
    assert not np.array_equal(found.states.ys[:, 200:], noisy.smoothed().ys[:, 200:])


@refusals(
    ("some", "noise must be", TypeError),
    ([1.0, 2.0], "noise must be one number or 3, got"),
    (-1.0, "noise must"),
    (jnp.nan, "noise must be a number, got nan"),
    ([0.1, 0.1, jnp.inf], "noise must be finite"),
    ({}, "noise must be", TypeError),
)
def test_a_noise_that_is_none_is_refused(noise, noisy):
    noisy.smoothed(noise)


def test_few_rows_and_gaps_are_refused(noisy):
    short = data.from_arrays(TS[:11], np.asarray(noisy.ys[:, :11]))
    gap = Trajectories(noisy.ts, noisy.ys.at[1, 5, 2].set(jnp.nan), noisy.t0s, noisy.names)
    network = network_for(noisy, 5)
    for rows, message in (
        (short, "ys must have 12 rows in a trajectory or more"),
        (gap, r"ys must be finite, got nan at index \(1, 5, 2\)"),
    ):
        for ask in (
            rows.noise,
            rows.smoothed,
            lambda rows=rows: surrogate.fit_readout(network, rows, noise="auto"),
        ):
            with pytest.raises(ValueError, match=message):
                ask()
    with pytest.raises(ValueError, match="field must be None"):
        surrogate.fit_readout(network, noisy, noise="auto", field=LORENZ)
    surrogate.fit_readout(network, short)  # too short for an estimate, which nobody asked for
