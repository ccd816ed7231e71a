"""Oracles: matrix powers, eigenvalues, closed-form exponents, crafted forecasts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import Counting, Map, linear, refusals

from physml import dynamics, nn, reference, systems
from physml.step_maps import StepMap

A = jnp.array([[0.9, 0.5, 0.0], [0.0, 0.7, 0.3], [0.0, 0.1, 1.1]])


class Clock(Counting):
    """y' = y / 2 + t, with the time from the start and the count, as driven maps have it."""

    dt: float

    def step(self, state):
        y, count, t0 = state
        return 0.5 * y + t0 + count.astype(y.dtype) * self.dt, count + 1, t0


class Remembering(StepMap):
    """y_{k+1} = y_k + y_{k-1}: its state is two rows and needs a history of two."""

    dt: float = 1.0

    def init(self, history, t0):
        return history[-2:]

    def step(self, state):
        return jnp.stack([state[1], state[0] + state[1]])

    def observe(self, state):
        return state[1]


class Recurrent(StepMap):
    """A recurrent network as a step map."""

    network: nn.RNN
    dt: float = 0.1

    def init(self, history, t0):
        carry, features = self.network.scan(self.network.initial_carry(), history)
        return carry, self.network.readout(features[-1])

    def step(self, state):
        return self.network(*state)

    def observe(self, state):
        return state[1]


def logistic(y):
    return 4.0 * y * (1.0 - y)


def henon(y):
    return jnp.stack([1.0 - 1.4 * y[0] ** 2 + y[1], 0.3 * y[0]])


LINEAR = Map(linear, (A,), 0.1)
RATES = np.sort(np.log(np.abs(np.linalg.eigvals(A))))[::-1] / 0.1  # of LINEAR
user = pytest.mark.usefixtures("as_a_user")


# Rollout


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (130,)])
def test_rollout_is_the_matrix_power(batch):
    history = jax.random.normal(jax.random.key(0), (*batch, 2, 3))
    ys = dynamics.rollout(LINEAR, history, 7)
    assert ys.shape == (*batch, 8, 3)
    np.testing.assert_array_equal(dynamics.rollout(LINEAR, history, 0), history[..., -1:, :])
    for k in (0, 1, 7):
        power = np.linalg.matrix_power(np.asarray(A), k)
        np.testing.assert_allclose(
            ys[..., k, :], history[..., -1, :] @ power.T, rtol=1e-13, atol=1e-15
        )


def test_rollout_uses_the_whole_history():
    ys = dynamics.rollout(Remembering(), jnp.array([[[0.0], [1.0]], [[2.0], [1.0]]]), 6)
    np.testing.assert_array_equal(ys[0, :, 0], [1, 1, 2, 3, 5, 8, 13])  # Fibonacci
    np.testing.assert_array_equal(ys[1, :, 0], [1, 3, 4, 7, 11, 18, 29])  # Lucas


def test_rollout_hands_each_history_its_own_time():
    t0 = jnp.array([0.0, 2.0])
    ys = dynamics.rollout(Clock(0.1), jnp.zeros((2, 1, 1)), 2, t0=t0)
    np.testing.assert_allclose(ys[:, :, 0], [[0, 0, 0.1], [0, 2, 3.1]], rtol=1e-15)
    same = dynamics.rollout(Clock(0.1), jnp.zeros((2, 1, 1)), 2, t0=2.0)
    np.testing.assert_array_equal(same[0], ys[1])


def test_rollout_lets_one_forecast_diverge():
    square = Map(jnp.square, (), 1.0)
    ys = dynamics.rollout(square, jnp.array([[[0.5]], [[10.0]]]), 12)
    assert jnp.isfinite(ys[0]).all()
    assert ys[1, -1, 0] == jnp.inf


def test_rollout_follows_the_dtype_of_the_data():
    step_map = Map(linear, (A.astype(jnp.float32),), 0.1)
    assert dynamics.rollout(step_map, jnp.ones((1, 3), jnp.float32), 3).dtype == jnp.float32


@pytest.mark.usefixtures("programs_stay")
def test_rollout_of_a_network_compiles_once():
    traces = []

    def f(y, net):
        traces.append(None)
        return y + net(y)

    for seed in (0, 1):
        net = nn.MLP(3, (4,), 3, rngs=nnx.Rngs(seed))
        dynamics.rollout(Map(f, (net,), 0.1), jnp.full((2, 1, 3), 0.1 + seed), 5)
        if seed == 0:
            first = len(traces)
    assert len(traces) == first


def test_rollout_of_a_recurrent_network_continues_its_warm_up():
    net = nn.RNN("gru", 3, 5, 3, rngs=nnx.Rngs(0))
    history = jax.random.normal(jax.random.key(0), (10, 3))
    ys = dynamics.rollout(Recurrent(net), history, 1)
    carry, features = net.scan(net.initial_carry(), history)
    first = net.readout(features[-1])
    np.testing.assert_allclose(ys, jnp.stack([first, net(carry, first)[1]]), rtol=1e-13)


ROW, ROWS, ONES = jnp.ones((1, 3)), jnp.ones((5, 3)), jnp.ones(3)
STEEP, NUMBERS, DRAWS = jnp.array([1e-3, 0.5, 0.9]), np.ones((2, 3)), np.random.default_rng(0)
skill_of = functools.partial(dynamics.forecast_skill, LINEAR, jnp.ones((2, 4, 3)), scale=ONES)
error_of = functools.partial(dynamics.one_step_error, LINEAR, ROWS)
spectrum_of = functools.partial(dynamics.lyapunov_spectrum, LINEAR, ROW)


@user
@refusals(
    (lambda: dynamics.rollout(LINEAR, ONES, 5), "history must have shape"),
    (lambda: dynamics.rollout(LINEAR, jnp.ones((0, 1, 3)), 5), "history must have shape"),
    (lambda: dynamics.rollout(LINEAR, jnp.ones((0, 3)), 5), "history must have shape"),
    (lambda: dynamics.rollout(LINEAR, jnp.nan * ROW, 5), "history must be finite"),
    (lambda: dynamics.rollout(LINEAR, ROW, -1), "num_steps must be at least 0, got -1"),
    (
        lambda: dynamics.rollout(LINEAR, jnp.ones((2, 1, 3)), 5, t0=ONES),
        r"t0 must be a scalar or have shape \(2,\)",
    ),
    (
        lambda: error_of(scale=ONES, history=5),
        "at most 4, which leaves a row .*, got 5",
    ),
    (lambda: error_of(scale=ONES[:2]), r"scale must have shape \(3,\)"),
    (lambda: dynamics.bootstrap(np.ones(3), DRAWS), "seeds, starts"),
    (lambda: dynamics.bootstrap(NUMBERS, DRAWS, level=1.0), "level"),
    (lambda: dynamics.bootstrap(NUMBERS, DRAWS, resamples=0), "resamples"),
    (lambda: skill_of(escape=1.0), "escape must be finite and above 1"),
    (lambda: skill_of(history=4), "history must be at most 3, which leaves a row .*, got 4"),
    (lambda: dynamics.growth_rate(STEEP, 0.1), "three rows between floor"),
    (lambda: dynamics.growth_rate(ONES, -0.1), "dt must be positive"),
    (lambda: spectrum_of(0), "num_steps must be at least 1"),
    (lambda: spectrum_of(10, every=3), "num_steps must be a multiple of every = 3, got 10"),
    (lambda: spectrum_of(10, every=0), "every must be at least 1"),
    (lambda: spectrum_of(10, num=4), "num must be at most 3, the dimension of the state, got 4"),
    (lambda: spectrum_of(10, num=0), "num must be at least 1"),
    (lambda: spectrum_of(10, transient=-1), "transient must be at least 0"),
)
def test_bad_input(call):
    call()


@user
def test_numpy_arrays_and_lists_are_taken():
    ys = dynamics.rollout(LINEAR, [[1.0, 2.0, 3.0]], 5)
    truth = np.asarray(ys)
    valid = dynamics.valid_prediction_time(truth, truth, 0.1, scale=[1.0, 1.0, 1.0])
    assert valid.censored
    assert dynamics.one_step_error(LINEAR, truth, scale=np.ones(3)) < 1e-15
    assert dynamics.lyapunov_spectrum(LINEAR, truth[:1], 10).dimension == 3


# One-step error


def test_one_step_error_of_a_known_perturbation():
    ys = dynamics.rollout(LINEAR, jax.random.normal(jax.random.key(1), (4, 1, 3)), 20)
    scale = jnp.array([1.0, 2.0, 4.0])
    assert dynamics.one_step_error(LINEAR, ys, scale=scale) < 1e-15
    shifted = Map(lambda y, a: a @ y + jnp.array([0.3, 0.0, 0.8]), (A,), 0.1)
    eps1 = dynamics.one_step_error(shifted, ys, scale=scale)
    np.testing.assert_allclose(eps1, np.sqrt((0.3**2 + 0.2**2) / 3), rtol=1e-12)


def test_one_step_error_gives_every_window_its_history_and_time():
    fibonacci = dynamics.rollout(Remembering(), jnp.array([[0.0], [1.0]]), 10)
    assert dynamics.one_step_error(Remembering(), fibonacci, scale=jnp.ones(1), history=2) == 0
    t0 = jnp.array([0.0, 5.0])
    ys = dynamics.rollout(Clock(0.1), jnp.ones((2, 1, 1)), 10, t0=t0)
    assert dynamics.one_step_error(Clock(0.1), ys, scale=jnp.ones(1), t0=t0) < 1e-15
    late = dynamics.one_step_error(Clock(0.1), ys, scale=jnp.ones(1), t0=t0 + 0.25)
    np.testing.assert_allclose(late, 0.25, rtol=1e-12)


def test_one_step_error_warms_up_a_recurrent_network():
    net = nn.RNN("simple", 2, 4, 2, rngs=nnx.Rngs(0))
    ys = jax.random.normal(jax.random.key(0), (1, 5, 2))
    eps1 = dynamics.one_step_error(Recurrent(net), ys, scale=jnp.ones(2), history=4)
    carry, features = net.scan(net.initial_carry(), ys[0, :4])
    _, out = net(carry, net.readout(features[-1]))
    np.testing.assert_allclose(eps1, jnp.sqrt(((out - ys[0, 4]) ** 2).mean()), rtol=1e-12)


# Valid prediction time


def test_normalised_error_by_hand():
    truth = jnp.zeros((2, 2))
    predicted = jnp.array([[3.0, 8.0], [jnp.nan, 0.0]])
    errors = dynamics.normalised_error(predicted, truth, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(errors, [np.sqrt((9 + 16) / 2), np.inf], rtol=1e-15)


def forecast_with_errors(errors):
    """A forecast of two components whose normalised error, for scales 1 and 2, is `errors`."""
    errors = jnp.asarray(errors)
    return jnp.stack([errors, 2.0 * errors], axis=-1), jnp.zeros((*errors.shape, 2), errors.dtype)


SCALE = jnp.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("errors", "horizon", "time", "censored"),
    [
        ([0.0, 0.1, 0.39, 0.41, 0.1], None, 0.3, False),  # the first crossing, on the grid
        ([0.0, 0.41, 0.39, 0.41, 0.9], None, 0.1, False),
        ([0.9, 0.0, 0.0, 0.0, 0.0], None, 0.0, False),
        ([0.0, 0.1, 0.2, 0.3, 0.39], None, 0.4, True),  # outlives the rows
        ([0.0, 0.1, 0.2, 0.3, 0.5], None, 0.4, False),  # a crossing in the last row counts
        ([0.0, 0.1, 0.2, np.nan, 0.0], None, 0.3, False),
        ([0.0, np.inf, 0.2, 0.0, 0.0], None, 0.1, False),
        ([0.0, 0.1, 0.2, 0.5, 0.9], 0.25, 0.25, True),  # outlives the truth's horizon
        ([0.0, 0.1, 0.5, 0.5, 0.9], 0.25, 0.2, False),
        ([0.0, 0.1, 0.2, 0.3, 0.3], 9.0, 0.4, True),  # a horizon past the rows is the rows'
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_valid_prediction_time(errors, horizon, time, censored, dtype):
    predicted, truth = forecast_with_errors(jnp.asarray(errors, dtype))
    valid = dynamics.valid_prediction_time(
        predicted, truth, 0.1, scale=SCALE.astype(dtype), horizon=horizon
    )
    np.testing.assert_allclose(valid.times, time, rtol=1e-6)
    assert valid.censored == censored
    assert valid.times.dtype == dtype


def test_valid_prediction_time_threshold_and_batch():
    predicted, truth = forecast_with_errors([[0.0, 0.2, 0.6], [0.0, 0.0, 0.3]])
    valid = dynamics.valid_prediction_time(
        predicted, truth, 2.0, scale=SCALE, threshold=0.1, horizon=jnp.array([1.0, 4.0])
    )
    np.testing.assert_array_equal(valid.times, [1.0, 4.0])
    np.testing.assert_array_equal(valid.censored, [True, False])


@user
@refusals(
    ({"dt": 0.0}, "dt must be positive"),
    ({"threshold": -1.0}, "threshold must be positive"),
    ({"horizon": 0.0}, "horizon must be positive"),
    ({"horizon": jnp.ones(2)}, r"horizon must be a scalar or have shape \(\)"),
    ({"scale": jnp.array([1.0, 0.0])}, "scale must be positive"),
    ({"scale": jnp.ones(3)}, r"scale must have shape \(2,\)"),
    ({"truth": jnp.full((5, 2), jnp.nan)}, "truth must be finite"),
    ({"truth": jnp.ones((0, 2)), "predicted": jnp.ones((0, 2))}, "not empty"),
    (
        {"predicted": jnp.zeros((4, 2))},
        r"truth .* \(4, 2\), .*\(5, 2\): predicted has time = 4",
    ),
)
def test_valid_prediction_time_refuses(change):
    zeros = jnp.zeros((5, 2))
    arguments = {"predicted": zeros, "truth": zeros, "dt": 0.1, "scale": SCALE}
    dynamics.valid_prediction_time(**(arguments | change))


# Error growth


def test_relative_l2_of_each_component(as_a_user):
    truth = jnp.stack([jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])], axis=-1)
    predicted = truth + jnp.array([[0.3, 1.0], [0.4, 0.0]])
    np.testing.assert_allclose(dynamics.relative_l2(predicted, truth), [0.1, 0.5])
    both = dynamics.relative_l2(jnp.stack([predicted, truth]), jnp.stack([truth, truth]))
    np.testing.assert_allclose(both, [[0.1, 0.5], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"truth must have shape \(1, 2\), got shape \(2, 2\)"):
        dynamics.relative_l2(predicted[:1], truth)


def test_relative_l2_until_takes_the_worst_component_up_to_each_end():
    truth = jnp.ones((301, 2))
    off = jnp.zeros((301, 2)).at[:101, 0].set(0.1).at[150:, 1].set(2.0)
    found = dynamics.relative_l2_until(truth + off, truth, 0.01, (1, 3.0))
    np.testing.assert_allclose([found[1], found[3.0]], [0.1, 2.0 * np.sqrt(151 / 301)])
    for end in (0.0, 3.02, -1.0):
        with pytest.raises(ValueError, match=r"ends must be in \(0, 3\], the time of the rows"):
            dynamics.relative_l2_until(truth, truth, 0.01, (1.0, end))


def test_forecast_skill_is_made_of_its_parts():
    truth = jax.random.normal(jax.random.key(4), (6, 40, 3)).cumsum(axis=1)
    scale, t0 = jnp.array([1.0, 2.0, 3.0]), jnp.arange(6.0)
    step_map = Clock(dt=0.5)
    options = {"scale": scale, "threshold": 2.0, "horizon": 9.0}
    skill = dynamics.forecast_skill(step_map, truth, history=5, t0=t0, **options)
    predicted = dynamics.rollout(step_map, truth[:, :5], 35, t0=t0 + 2.0)
    valid = dynamics.valid_prediction_time(predicted, truth[:, 4:], 0.5, **options)
    np.testing.assert_array_equal(skill.predicted, predicted)
    np.testing.assert_array_equal(skill.times, valid.times)
    np.testing.assert_array_equal(skill.censored, valid.censored)
    eps1 = dynamics.one_step_error(step_map, truth[:, :10], scale=scale, history=5, t0=t0)
    np.testing.assert_array_equal(skill.eps1, eps1)
    errors = dynamics.error_growth(predicted, truth[:, 4:], scale)
    np.testing.assert_array_equal(skill.errors, errors)
    assert skill.at == {}
    summary = skill.summary(unit=2.0)
    assert summary["vpt_mean"] == pytest.approx(float(valid.times.mean()) / 2)
    assert summary["vpt_p5"] <= summary["vpt_median"]
    assert summary["censored"] == pytest.approx(float(valid.censored.mean()))


def test_forecast_skill_at_other_thresholds_and_who_diverged():
    # y' = 3 y from truths that stay where they are: two at rest, one a unit, one four from it.
    truth = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0, -1.0])[:, None, None], (4, 6, 1))
    tripled, options = Map(lambda y: 3.0 * y, (), 0.5), {"thresholds": (1.0, 3.0, 1e6)}
    skill = dynamics.forecast_skill(tripled, truth, scale=jnp.ones(1), escape=100.0, **options)
    growing = [0.0, 2.0, 8.0, 26.0, 80.0, 242.0]  # |3^k - 1|
    np.testing.assert_allclose(skill.at[1.0].times, [2.5, 2.5, 0.5, 0.5])
    np.testing.assert_allclose(skill.at[3.0].times, [2.5, 2.5, 1.0, 1.0])
    assert bool(skill.at[1e6].censored.all())
    np.testing.assert_array_equal(skill.diverged, [False, False, True, True])
    np.testing.assert_allclose(skill.errors, np.array(growing) / 2)
    summary = skill.summary(unit=0.5)
    assert summary["vpt_mean_at_3"] == pytest.approx(3.5)
    assert summary["vpt_median_at_1"] == pytest.approx(3.0)
    assert summary["censored_at_1"] == summary["diverged"] == pytest.approx(0.5)


def test_a_forecast_that_is_not_finite_has_diverged():
    truth = jnp.zeros((2, 4, 1)) + jnp.array([1.0, -1.0])[:, None, None]
    spoiling = Map(lambda y: jnp.where(y > 0, jnp.nan, y), (), 0.5)
    skill = dynamics.forecast_skill(spoiling, truth, scale=jnp.ones(1))
    np.testing.assert_array_equal(skill.diverged, [True, False])


def test_the_bootstrap_interval_covers_the_mean_of_crossed_effects():
    # value = seed effect + start effect + noise: var(mean) = 1/seeds + 4/starts + 1/(both).
    seeds, starts, hits, widths = 8, 60, 0, []
    random = np.random.default_rng(0)
    for _ in range(200):
        values = random.normal(size=(seeds, 1)) + 2 * random.normal(size=(1, starts))
        values = values + random.normal(size=(seeds, starts))
        low, high = dynamics.bootstrap(values, random, resamples=200)
        hits += low <= 0.0 <= high
        widths.append(high - low)
    expected = 2 * 1.96 * (1 / seeds + 4 / starts + 1 / (seeds * starts)) ** 0.5
    assert 0.85 <= hits / 200 <= 0.99
    assert np.median(widths) == pytest.approx(expected, rel=0.15)


def test_the_bootstrap_of_one_seed_is_that_of_its_starts():
    values = np.random.default_rng(1).normal(size=(1, 400))
    low, high = dynamics.bootstrap(values, np.random.default_rng(2), level=0.9)
    assert high - low == pytest.approx(2 * 1.645 * values.std() / 20, rel=0.1)
    same = dynamics.bootstrap(values, np.random.default_rng(2), level=0.9)
    assert same == (low, high)
    median = dynamics.bootstrap(values, np.random.default_rng(2), statistic=np.median)
    assert median[0] < np.median(values) < median[1]


def test_error_growth_is_the_median():
    predicted, truth = forecast_with_errors([[0.1, 0.2], [0.3, np.nan], [0.5, 0.4]])
    np.testing.assert_allclose(dynamics.error_growth(predicted, truth, SCALE), [0.3, 0.4])


def test_growth_rate_fits_between_floor_and_saturation():
    ts = 0.1 * jnp.arange(400.0)
    errors = jnp.minimum(1e-9 * jnp.exp(0.9 * ts), 1.0) + 1e-8
    errors = errors.at[0].set(0.0).at[-5:].set(jnp.inf)
    rate = dynamics.growth_rate(errors, 0.1, floor=1e-5)
    np.testing.assert_allclose(rate, 0.9, rtol=1e-3)
    # The noise in the window and the saturation past it would both lower the slope.
    assert dynamics.growth_rate(errors, 0.1, floor=1e-8) < 0.89
    assert dynamics.growth_rate(errors, 0.1, floor=1e-5, ceiling=10.0) < 0.85


def test_growth_rate_takes_its_floor_from_the_first_error():
    ts = 0.1 * jnp.arange(200.0)
    errors = (1e-8 * (jnp.exp(0.9 * ts) + 30.0 * jnp.exp(-3.0 * ts))).at[0].set(0.0)
    np.testing.assert_allclose(dynamics.growth_rate(errors, 0.1), 0.9, rtol=2e-3)


def test_growth_rate_of_forecasts_from_perturbed_starts_is_the_exponent():
    y0 = jnp.array([[1.0, 0.3, 0.4]])
    truth = dynamics.rollout(LINEAR, y0, 200)
    predicted = dynamics.rollout(LINEAR, y0 + 1e-9, 200)
    errors = dynamics.error_growth(predicted, truth, jnp.ones(3))
    rate = dynamics.growth_rate(errors, LINEAR.dt)
    np.testing.assert_allclose(rate, RATES[0], rtol=1e-2)


# Lyapunov spectrum


@pytest.mark.parametrize(("every", "batch", "num"), [(1, (), None), (5, (), None), (1, (2,), 2)])
def test_lyapunov_spectrum_of_a_linear_map_is_log_of_its_eigenvalues(every, batch, num):
    start, options = jnp.full((*batch, 1, 3), 1e-12), {"num": num, "transient": 200}
    spectrum = dynamics.lyapunov_spectrum(LINEAR, start, 100, every=every, **options)
    expected = np.broadcast_to(RATES[:num], (*batch, num or 3))
    np.testing.assert_allclose(spectrum.exponents, expected, rtol=1e-9)
    assert spectrum.dimension == 3  # neither the count nor the start time
    assert spectrum.rates.shape == (*batch, 100 // every, num or 3)


def test_lyapunov_exponents_are_sorted_with_their_rates():
    # A diagonal map with its weakest direction first, and no time to turn: QR finds it unsorted.
    diagonal = Map(lambda y: jnp.array([0.5, 2.0]) * y, (), 1.0)
    spectrum = dynamics.lyapunov_spectrum(diagonal, jnp.zeros((1, 2)), 40, transient=100)
    np.testing.assert_allclose(spectrum.exponents, [np.log(2), -np.log(2)], rtol=1e-12)
    np.testing.assert_allclose(spectrum.rates.mean(axis=0), spectrum.exponents, rtol=1e-12)


def test_lyapunov_exponent_of_the_logistic_map_is_ln_2():
    start = jnp.array([[0.1234]])
    spectrum = dynamics.lyapunov_spectrum(Map(logistic, (), 1.0), start, 50_000, every=1)
    np.testing.assert_allclose(spectrum.exponents, [np.log(2)], atol=1e-3)


def test_lyapunov_spectrum_of_the_henon_map():
    step_map = Map(henon, (), 1.0)
    spectrum = dynamics.lyapunov_spectrum(step_map, jnp.array([[0.1, 0.1]]), 50_000)
    # Sprott, Chaos and Time-Series Analysis (2003): 0.41922, -1.62319; D = 1.25827.
    error = spectrum.standard_error()
    assert (jnp.abs(spectrum.exponents - jnp.array([0.41922, -1.62319])) < 4 * error).all()
    assert (error < 4e-3).all()
    # |det J| = 0.3 everywhere.
    np.testing.assert_allclose(spectrum.exponents.sum(), np.log(0.3), rtol=1e-12)
    dimension = dynamics.kaplan_yorke_dimension(spectrum.exponents)
    np.testing.assert_allclose(dimension, 1.25827, atol=5e-3)


def test_lyapunov_spectrum_of_lorenz():
    step_map = reference.RungeKutta4(systems.Lorenz(), 0.01)
    starts = jnp.array([[1.0, 1.0, 20.0], [-5.0, -7.0, 22.0], [8.0, 3.0, 30.0], [2.0, 4.0, 15.0]])
    spectrum = dynamics.lyapunov_spectrum(
        step_map, starts[:, None], 20_000, every=5, transient=2_000
    )
    np.testing.assert_allclose(spectrum.exponents.sum(axis=-1), -41 / 3, rtol=1e-5)
    mean = spectrum.exponents.mean(axis=0)
    np.testing.assert_allclose(mean, [0.9056, 0.0, -14.572], atol=0.015)
    dimension = dynamics.kaplan_yorke_dimension(mean)
    np.testing.assert_allclose(dimension, 2.062, atol=2e-3)


def test_lyapunov_transient_is_a_tenth_unless_given():
    unit = jnp.ones((1, 3))
    default, given_transient, none = (
        dynamics.lyapunov_spectrum(LINEAR, unit, 100, **options)
        for options in ({}, {"transient": 10}, {"transient": 0})
    )
    np.testing.assert_array_equal(default.rates, given_transient.rates)
    np.testing.assert_array_equal(default.rates[:90], none.rates[10:])


def test_lyapunov_exponents_of_the_flow_add_up_to_its_divergence():
    flow = reference.FlowMap(systems.Lorenz(), 0.01)
    spectrum = dynamics.lyapunov_spectrum(flow, jnp.array([[1.0, 1.0, 20.0]]), 20)
    assert spectrum.dimension == 3
    np.testing.assert_allclose(spectrum.exponents.sum(), -41 / 3, rtol=1e-12)


def test_lyapunov_spectrum_counts_a_hidden_carry():
    net = nn.RNN("lstm", 2, 3, 2, rngs=nnx.Rngs(0))
    spectrum = dynamics.lyapunov_spectrum(Recurrent(net), jnp.ones((1, 2)), 20, num=1)
    assert spectrum.dimension == 2 + 3 + 3
    assert spectrum.exponents.shape == (1,)


def test_lyapunov_spectrum_of_a_driven_map_leaves_out_its_clock():
    spectrum = dynamics.lyapunov_spectrum(Clock(0.1), jnp.zeros((1, 1)), 10, t0=3.0)
    assert spectrum.dimension == 1
    np.testing.assert_allclose(spectrum.exponents, [np.log(0.5) / 0.1], rtol=1e-12)


def test_lyapunov_spectrum_of_a_diverging_map_is_not_a_number():
    spectrum = dynamics.lyapunov_spectrum(Map(jnp.square, (), 1.0), jnp.array([[10.0]]), 50)
    assert not jnp.isfinite(spectrum.exponents).any()


def test_standard_error_is_that_of_batch_means():
    rates = jax.random.normal(jax.random.key(0), (1003, 2))
    spectrum = dynamics.LyapunovSpectrum(rates.mean(axis=0), rates, 2)
    blocks = np.asarray(rates)[:1000].reshape(10, 100, 2).mean(axis=1)
    expected = blocks.std(axis=0, ddof=1) / np.sqrt(10)
    np.testing.assert_allclose(spectrum.standard_error(blocks=10), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="blocks must be at least 2, got 1"):
        spectrum.standard_error(blocks=1)


@pytest.mark.parametrize(
    ("exponents", "dimension"),
    [
        ([0.9056, 0.0, -14.572], 2 + 0.9056 / 14.572),
        ([-14.572, 0.9056, 0.0], 2 + 0.9056 / 14.572),  # in any order
        ([-0.1, -0.2], 0.0),
        ([0.0, -1.0], 1.0),
        ([0.5, -0.2], 2.0),
        ([0.5, 0.2, -0.3, -1.0], 3 + 0.4),
    ],
)
def test_kaplan_yorke_dimension(exponents, dimension):
    exponents = jnp.array(exponents)
    np.testing.assert_allclose(
        dynamics.kaplan_yorke_dimension(jnp.stack([exponents, exponents])), [dimension] * 2
    )
