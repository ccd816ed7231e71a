"""Oracles: closed-form divergences and spectra, a cosine's maxima, the tent map, Lorenz's sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats
from helpers import Map, linear, refusals

from physml import dynamics, reference, systems
from physml.dynamics import _statistics as statistics

BOUNDS = ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))


def matrix_map(matrix):
    return Map(linear, (jnp.asarray(matrix),), 1.0)


# Distances


def binned_normals():
    edges = np.linspace(-12.0, 14.0, 4001)
    return (np.diff(scipy.stats.norm(m, s).cdf(edges)) for m, s in ((0.0, 1.0), (1.0, 1.5)))


def test_kullback_leibler_of_finely_binned_normals():
    p, q = binned_normals()
    expected = np.log(1.5) + (1 + 1) / (2 * 1.5**2) - 0.5
    np.testing.assert_allclose(dynamics.kullback_leibler(p, q), expected, rtol=1e-4)
    np.testing.assert_allclose(dynamics.kullback_leibler(7 * p, 3 * q), expected, rtol=1e-4)


def test_divergences_by_hand():
    p, q = np.array([[1, 1, 0], [0, 2, 0]]), np.array([[2, 1, 1], [5, 0, 5]])
    np.testing.assert_allclose(
        dynamics.kullback_leibler(p, q), [0.5 * np.log(2), np.inf], rtol=1e-14
    )
    half = 0.5 * (0.5 * np.log(0.5 / 0.375) + 0.5 * np.log(0.5 / 0.375))
    other = 0.5 * (0.5 * np.log(0.5 / 0.5) + 0.25 * np.log(0.25 / 0.375) + 0.25 * np.log(2))
    mixed = 0.5 * (0.5 * np.log(1.0) + 0.5 * np.log(0.5 / 0.375)) + other
    assert mixed < half  # the bins are not those of equal weights
    np.testing.assert_allclose(dynamics.jensen_shannon(p, q), [mixed, np.log(2)], rtol=1e-14)
    np.testing.assert_array_equal(dynamics.jensen_shannon(p, p), 0)
    cosine = np.sqrt(0.5 * 0.5) + np.sqrt(0.5 * 0.25)
    np.testing.assert_allclose(dynamics.hellinger(p, q), [np.sqrt(1 - cosine), 1], rtol=1e-14)


def test_hellinger_of_normals():
    p, q = binned_normals()
    overlap = np.sqrt(2 * 1.5 / (1 + 1.5**2)) * np.exp(-0.25 / (1 + 1.5**2))
    np.testing.assert_allclose(dynamics.hellinger(p, q), np.sqrt(1 - overlap), rtol=1e-5)


# Histograms, spectra, maxima


def test_histograms_are_numpys_with_the_outside_counted():
    ys = np.random.default_rng(0).normal(size=(2, 500, 2))
    ys[0, 0], ys[1, 7, 0] = (np.nan, -np.inf), np.inf
    low, high = np.array([-1.0, -2.0]), np.array([2.0, 1.0])
    counts = statistics.histogram(ys, low, high, 6)
    assert (counts.sum(axis=-1) == 500).all()
    for i in range(2):
        for d in range(2):
            inside = np.histogram(ys[i, :, d], 6, (low[d], high[d]))[0]
            np.testing.assert_array_equal(counts[i, d, 1:-1], inside)
    assert counts[0, 0, -1] == (ys[0, :, 0] >= 2).sum() + 1  # NaN
    assert counts[0, 1, 0] == (ys[0, :, 1] < -2).sum()  # -inf among them
    joint = statistics.joint_histogram(ys, low, high, 6).reshape(2, 8, 8)
    np.testing.assert_array_equal(joint.sum(axis=2), counts[:, 0])
    np.testing.assert_array_equal(joint.sum(axis=1), counts[:, 1])
    both = np.histogramdd(ys[1, np.isfinite(ys[1]).all(axis=1)], 6, [(-1.0, 2.0), (-2.0, 1.0)])[0]
    np.testing.assert_array_equal(joint[1, 1:-1, 1:-1], both)


def test_power_spectrum_of_an_autoregression():
    # x_k = a x_{k-1} + e_k has the spectrum 2 dt / |1 - a exp(-2 pi i f dt)|^2, one-sided.
    rng, a, dt = np.random.default_rng(1), 0.8, 0.5
    noise = rng.normal(size=(8, 60_000, 1))
    ys = scipy.signal.lfilter([1.0], [1.0, -a], noise, axis=1)
    frequencies, density = dynamics.power_spectrum(ys, dt, 256)
    expected = 2 * dt / np.abs(1 - a * np.exp(-2j * np.pi * frequencies * dt)) ** 2
    inner = slice(3, -1)  # a window's own mean and the edges of the band are not the process's
    np.testing.assert_allclose(density.mean(axis=0)[0, inner], expected[inner], rtol=0.1)
    total = density.sum(axis=-1) * frequencies[1]
    np.testing.assert_allclose(total.mean(), 1 / (1 - a**2), rtol=0.05)


@pytest.mark.parametrize("dt", [0.1, 0.05])
def test_maxima_of_a_cosine(dt):
    ts = np.arange(0.3, 40.0, dt)
    found = dynamics.maxima(3.0 + 2.0 * np.cos(ts))
    assert len(found) == 6
    np.testing.assert_allclose(found, 5.0, atol=2.0 * dt**4 * 3 / 128)  # 3 A / 128 at half a step


def test_maxima_of_a_plateau_counts_once():
    np.testing.assert_array_equal(dynamics.maxima(np.array([0.0, 1.0, 1.0, 0.0, -1.0])), [1.125])


def test_return_map_error_of_a_shifted_tent():
    truth = np.stack([x := np.linspace(0.0, 1.0, 1001), 1 - np.abs(2 * x - 1)], axis=1)
    pairs = np.stack([x := np.linspace(0.05, 0.95, 77), 1 - np.abs(2 * x - 1)], axis=1)
    assert dynamics.return_map_error(pairs, truth) < 1e-14
    error = dynamics.return_map_error(pairs + np.array([0.0, 0.03]), truth[::-1])
    np.testing.assert_allclose(error, 0.03 * np.sqrt(12), rtol=2e-3)


# Climate


@pytest.fixture(scope="module")
def lorenz():
    """The truth's climate from eight starts, and that of another rho from four."""
    flow = reference.FlowMap(systems.Lorenz(), 0.01, substeps=1)
    starts = reference.attractor_starts(systems.Lorenz(), jax.random.key(0), 8)
    options = {"bounds": BOUNDS, "bins": 40, "joint_bins": 10, "segment": 1000, "chunk": 2000}
    truth = dynamics.measure_climate(flow, starts[:, None], 6000, **options)
    other = reference.FlowMap(systems.Lorenz(rho=32.0), 0.01, substeps=1)
    return truth, dynamics.measure_climate(other, starts[:4, None], 6000, **options)


def test_climate_is_that_of_the_rollout():
    flow = reference.FlowMap(systems.Lorenz(), 0.01, substeps=1)
    start = jnp.array([[[1.0, 2.0, 20.0]], [[3.0, 4.0, 15.0]]])
    options = {"bounds": BOUNDS, "transient": 0, "segment": 150, "every": 5}
    whole, parts = (
        dynamics.measure_climate(flow, start, 600, chunk=chunk, **options) for chunk in (600, 150)
    )
    ys = np.asarray(dynamics.rollout(flow, start, 600))[:, 1:]
    low, high = map(np.asarray, BOUNDS)
    for found in (whole, parts):
        np.testing.assert_array_equal(found.counts, statistics.histogram(ys, low, high, 100))
        for each, series in zip(found.maxima, ys[..., 2], strict=True):
            np.testing.assert_allclose(each[~np.isnan(each)], dynamics.maxima(series), rtol=1e-12)
    np.testing.assert_array_equal(whole.joint, parts.joint)
    np.testing.assert_allclose(whole.rates, parts.rates, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.spectra, dynamics.power_spectrum(ys, 0.01, 150)[1], rtol=1e-12)
    spectrum = dynamics.lyapunov_spectrum(flow, start, 600, transient=0, every=5)
    np.testing.assert_allclose(whole.lyapunov.exponents, spectrum.exponents, rtol=1e-12)


def test_no_maximum_is_lost_or_counted_twice_between_chunks():
    angle = 0.7
    c, s = np.cos(angle), np.sin(angle)
    options = {"bounds": ((-2.0, -2.0), (2.0, 2.0)), "transient": 0, "segment": 10, "chunk": 10}
    found = dynamics.measure_climate(
        matrix_map([[c, -s], [s, c]]), jnp.array([[[1.0, 0.0]]]), 200, **options
    )
    series = np.sin(angle * np.arange(1, 201))
    np.testing.assert_allclose(found.maxima[0], dynamics.maxima(series), rtol=1e-12)


@pytest.mark.slow
def test_climate_of_lorenz(lorenz):
    truth, _ = lorenz
    assert len(truth) == 8 and not truth.diverged.any()
    np.testing.assert_allclose(truth.lyapunov.exponents.sum(axis=1), -41 / 3, rtol=1e-8)
    np.testing.assert_allclose(np.nanmean(truth.maxima), 38.11, atol=0.5)
    np.testing.assert_allclose(np.nanstd(truth.maxima), 3.04, atol=0.25)
    samples = truth.lyapunov.bootstrap(jax.random.key(1), blocks=5, samples=500)
    low, high = np.percentile(samples, [0.1, 99.9], axis=0)
    assert (low < [0.9056, 0.0, -14.572]).all() and ([0.9056, 0.0, -14.572] < high).all()
    assert (high - low < 0.2).all()


@pytest.mark.slow
def test_another_climate_is_farther_away_than_the_floor(lorenz):
    truth, other = lorenz
    floor = dynamics.climate_floor(truth, jax.random.key(2), samples=20)
    assert floor.divergence.shape == (20, 3) and floor.joint.shape == (20,)
    apart = dynamics.climate_distances(other, truth[:4])
    same = dynamics.climate_distances(truth[4:], truth[:4])
    for far, near, limit in zip(apart, same, floor, strict=True):
        assert (near <= 1.5 * limit.max(axis=0)).all()
        assert np.max(far / limit.max(axis=0)) > 1.5
    zero = dynamics.climate_distances(truth, truth)
    assert all((np.abs(value) < 1e-12).all() for value in zero)


def test_a_diverging_trajectory_is_counted_and_left_out():
    # The first grows past any bounds, the second decays to the origin.
    grown = matrix_map(np.diag([3.0, 0.5]))
    starts = jnp.array([[[1.0, 1.0]], [[0.0, 1.0]]])
    climate = dynamics.measure_climate(
        grown, starts, 900, bounds=((-1.0, -1.0), (1.0, 1.0)), transient=100, segment=100
    )
    np.testing.assert_array_equal(climate.diverged, [True, False])
    assert climate.counts[0, 0, -1] == 900
    kept = climate.survivors
    assert len(kept) == 1
    np.testing.assert_allclose(kept.lyapunov.exponents, [[np.log(3.0), np.log(0.5)]], rtol=1e-12)


def test_block_bootstrap_of_independent_rates():
    # The mean of n independent numbers of unit variance has standard deviation 1 / sqrt(n).
    rates = jax.random.normal(jax.random.key(3), (4, 1000, 2)) + jnp.array([[[5.0, 1.0]]])
    spectrum = dynamics.LyapunovSpectrum.of(rates, 2)
    samples = spectrum.bootstrap(jax.random.key(4), blocks=50, samples=4000)
    assert samples.shape == (4000, 2)
    np.testing.assert_allclose(samples.std(axis=0), 1 / np.sqrt(4000), rtol=0.12)
    np.testing.assert_allclose(samples.mean(axis=0), rates.mean(axis=(0, 1)), atol=2e-3)


def test_block_bootstrap_sees_correlation():
    # Runs of ten equal numbers: ten times the variance, which blocks of one would not see.
    draws = jax.random.normal(jax.random.key(5), (400,))
    spectrum = dynamics.LyapunovSpectrum.of(jnp.repeat(draws, 10)[:, None], 1)
    samples = spectrum.bootstrap(jax.random.key(6), blocks=100, samples=4000)
    np.testing.assert_allclose(samples.std(), 1 / np.sqrt(400), rtol=0.15)


@pytest.mark.usefixtures("as_a_user")
@refusals(
    ({"history": jnp.ones((1, 2))}, "history must have shape"),
    ({"bounds": ((0.0, 0.0), (1.0, 0.0))}, "bounds must be corners"),
    ({"bounds": ((0.0,), (1.0,))}, "bounds must be corners"),
    ({"chunk": 30}, "num_steps must be a multiple of chunk = 30, got 100"),
    ({"every": 7}, "chunk must be a multiple of every = 7, got 100"),
    ({"segment": 101}, "segment must be at most 100, the rows of a chunk, got 101"),
    ({"joint_bins": 1000}, "joint_bins must give at most"),
    ({"exponents": 3}, "exponents must be at most 2, the dimension of the state, got 3"),
)
def test_measure_climate_refuses(changes):
    arguments = {"history": jnp.ones((2, 1, 2)), "bounds": ((0.0, 0.0), (1.0, 1.0)), "segment": 50}
    dynamics.measure_climate(matrix_map(np.eye(2)), num_steps=100, **(arguments | changes))


def test_comparisons_refuse(lorenz):
    truth, _ = lorenz
    with pytest.raises(ValueError, match="even number of trajectories"):
        dynamics.climate_floor(truth[:3], jax.random.key(0))
    options = {"bounds": BOUNDS, "joint_bins": 10, "segment": 50, "transient": 0}
    for bins, message in ((20, "same bounds and bins"), (40, "same segment and time step")):
        other = dynamics.measure_climate(
            matrix_map(np.eye(3)), jnp.ones((2, 1, 3)), 100, bins=bins, **options
        )
        with pytest.raises(ValueError, match=message):
            dynamics.climate_distances(other, truth)


# Pooled


def test_a_pooled_climate_is_the_sum_over_trajectories():
    flow = reference.FlowMap(systems.Lorenz(), 0.01, substeps=1)
    starts = reference.attractor_starts(systems.Lorenz(), jax.random.key(0), 11)[:, None]
    options = {"bounds": BOUNDS, "joint_bins": 10, "segment": 150}
    each = dynamics.measure_climate(flow, starts, 600, transient=0, **options)
    ys = np.array(dynamics.rollout(flow, starts, 600)[:, 1:])
    chunks = (ys[i : i + 3] for i in range(0, 11, 3))  # the last one is shorter
    pooled = dynamics.pool_climate(chunks, 0.01, groups=2, **options)
    even, odd = np.r_[0:3, 6:9], np.r_[3:6, 9:11]
    for row, members in zip((pooled[:1], pooled[1:]), (even, odd), strict=True):
        np.testing.assert_array_equal(row.counts[0], each.counts[members].sum(axis=0))
        np.testing.assert_array_equal(row.joint[0], each.joint[members].sum(axis=0))
        np.testing.assert_allclose(row.spectra[0], each.spectra[members].mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(row.return_map, each[members].return_map, rtol=1e-9)
    np.testing.assert_array_equal(pooled.edges, each.edges)
    np.testing.assert_allclose(pooled.frequencies, each.frequencies, rtol=1e-14)
    whole = dynamics.pool_climate([ys], 0.01, **options)
    assert all(np.abs(x).max() < 1e-7 for x in dynamics.climate_distances(whole, each))


def test_a_pooled_climate_leaves_out_what_diverges_and_keeps_few_maxima(monkeypatch):
    monkeypatch.setattr("physml.dynamics._pooled._MOST_MAXIMA", 30)
    ts = 0.1 * np.arange(200)
    calm = np.stack([np.cos(ts + phase) for phase in (0.0, 1.0, 2.0)])[..., None]
    ys = np.concatenate([calm, np.full((1, 200, 1), np.nan), 9.0 * calm[:1]])
    options = {"bounds": ((-1.1,), (1.1,)), "segment": 100}
    pooled = dynamics.pool_climate([ys] * 20, 0.1, **options)
    assert pooled.diverged.tolist() == [0.4] and len(pooled.survivors) == 1
    assert pooled.counts.sum() == 20 * 5 * 200 and pooled.counts[0, 0, -1] >= 20 * 200
    kept = dynamics.pool_climate([calm], 0.1, **options)
    np.testing.assert_allclose(pooled.spectra, kept.spectra, rtol=1e-12)
    assert pooled.maxima.shape == (1, 30)
    np.testing.assert_allclose(pooled.return_map, 1.0, atol=1e-5)


@pytest.mark.usefixtures("as_a_user")
@refusals(
    ({"chunks": [np.ones((2, 9, 1)), np.ones((2, 8, 1))]}, r"each of chunks must have \(time"),
    ({"chunks": np.ones((9, 1))}, "each of chunks must have shape"),
    ({"chunks": []}, "chunks must be at least as many as groups = 1, got 0"),
    ({"groups": 3}, "chunks must be at least as many as groups = 3, got 2"),
    ({"segment": 10}, "segment must be at most 9, the rows of a chunk, got 10"),
    ({"peak": 1}, "peak must be at most 0, the last component, got 1"),
)
def test_pool_climate_refuses(changes):
    arguments = {"chunks": [np.ones((2, 9, 1))] * 2, "bounds": ((0.0,), (1.0,))}
    dynamics.pool_climate(dt=0.1, **(arguments | changes))
