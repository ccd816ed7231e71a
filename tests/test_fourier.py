"""Oracles: integrals by SciPy, the lecture's formulas put right, Diffrax, direct convolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.signal
import scipy.special
from helpers import refusals

from physml import convolution, fourier, reference, systems

TAU = 0.7
T = np.linspace(0.0, TAU, 57)
OSCILLATOR = systems.DrivenOscillator(gamma=0.3, omega0=1.7, mass=2.5)
SERIES = systems.FourierSeries(0.8, [1.0, 0.0, -0.3], [0.2, 0.7, 0.0], 5.0)


def square(t):
    return 1.5 * jnp.where((t / TAU) % 1 < 0.5, 1.0, -1.0)


def triangle(t):
    return 1.5 * (1 - 4 * abs((t / TAU + 0.5) % 1 - 0.5))


def sawtooth(t):
    return 3.0 * ((t / TAU + 0.5) % 1 - 0.5)


def rectified(t):
    return 1.5 * abs(jnp.sin(jnp.pi * t / TAU))


WAVES = {
    "square": (fourier.square_wave, square, (0.0, TAU / 2)),
    "triangle": (fourier.triangle_wave, triangle, (0.0, TAU / 2)),
    "sawtooth": (fourier.sawtooth_wave, sawtooth, (TAU / 2,)),
    "rectified": (fourier.rectified_sine, rectified, (0.0,)),
}


def integral(function, k, trigonometric, cuts):
    """(2 / tau) times the integral of F cos or F sin, by SciPy."""
    function, cuts = jax.jit(function), sorted({0.0, TAU, *cuts})
    parts = itertools.pairwise(cuts)
    total = sum(
        scipy.integrate.quad(
            lambda t: function(t) * trigonometric(2 * np.pi * k * t / TAU), *part, epsabs=1e-14
        )[0]
        for part in parts
    )
    return 2 / TAU * total


@pytest.mark.parametrize("name", WAVES)
def test_closed_forms_against_integrals(name):
    closed, function, cuts = WAVES[name]
    series = closed(6, 1.5, TAU)
    cosines = [integral(function, k, np.cos, cuts) for k in range(7)]
    sines = [integral(function, k, np.sin, cuts) for k in range(1, 7)]
    np.testing.assert_allclose(series.a0, cosines[0], atol=1e-13)
    np.testing.assert_allclose(series.a, cosines[1:], atol=1e-13)
    np.testing.assert_allclose(series.b, sines, atol=1e-13)


@pytest.mark.parametrize("name", WAVES)
def test_quadrature_gives_the_closed_forms(name):
    closed, function, cuts = WAVES[name]
    series, expected = fourier.coefficients(function, 40, TAU, cuts), closed(40, 1.5, TAU)
    for got, wanted in zip(jax.tree.leaves(series), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-13)
    late = fourier.coefficients(function, 40, TAU, [c + 3 * TAU for c in cuts])
    np.testing.assert_allclose(late.b, expected.b, atol=1e-12)  # of any one period


def test_quadrature_of_a_forcing_and_of_its_own_series():
    pulses = systems.SquareWave(-1.0, 2.0, 0.9, 0.2, 0.35)
    series, expected = fourier.coefficients(pulses, 30), pulses.fourier_series(30)
    for got, wanted in zip(jax.tree.leaves(series), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-13)
    again = fourier.coefficients(SERIES, 5)
    np.testing.assert_allclose(again.a, [1.0, 0.0, -0.3, 0.0, 0.0], atol=1e-14)
    np.testing.assert_allclose(again.b, [0.2, 0.7, 0.0, 0.0, 0.0], atol=1e-14)
    # exp(cos x) has the modified Bessel functions for coefficients.
    smooth = fourier.coefficients(lambda t: jnp.exp(jnp.cos(t)), 8, 2 * np.pi)
    np.testing.assert_allclose(smooth.a, 2 * scipy.special.iv(range(1, 9), 1.0), atol=1e-14)


def test_the_coefficients_of_the_lectures_pulse_train():
    # Its code: a0 = Fmax Width / T, then 2 Fmax / (pi i) sin(pi i Width / T) cos(2 pi i t / T).
    i = np.arange(1, 200)
    series = fourier.coefficients(systems.SquareWave(), 199)
    np.testing.assert_allclose(series.a0 / 2, 2.0 * 0.1 / 0.2, rtol=1e-13)
    np.testing.assert_allclose(series.a, 4 / (np.pi * i) * np.sin(np.pi * i * 0.5), atol=1e-13)
    np.testing.assert_allclose(series.b, 0.0, atol=1e-13)


def test_a_force_that_is_not_smooth_is_refused():
    def hidden(t):
        return jnp.abs(jnp.sin(t) - 0.3)

    with pytest.raises(ValueError, match=r"force must be smooth between its jumps.*`jumps`"):
        fourier.coefficients(hidden, 5, 2 * np.pi)
    kink = np.arcsin(0.3)
    series = fourier.coefficients(hidden, 5, 2 * np.pi, (kink, np.pi - kink))
    mean = scipy.integrate.quad(
        lambda t: abs(np.sin(t) - 0.3), 0, 2 * np.pi, points=(kink, np.pi - kink)
    )[0]
    np.testing.assert_allclose(series.a0, mean / np.pi, rtol=1e-13)


def test_samples_of_a_smooth_force_and_their_aliases():
    samples = SERIES(np.arange(16) * (5.0 / 16))
    series = fourier.coefficients_from_samples(samples, 3, 5.0)
    for got, wanted in zip(jax.tree.leaves(series), jax.tree.leaves(SERIES), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-15)
    # 13 samples: harmonic 12 looks like harmonic 1.
    high = systems.FourierSeries(0.0, jnp.zeros(12).at[11].set(2.0), jnp.zeros(12), 1.0)
    folded = fourier.coefficients_from_samples(high(np.arange(13) / 13), 6)
    np.testing.assert_allclose(folded.a, [2.0, 0, 0, 0, 0, 0], atol=1e-13)


def test_orthogonality_and_parseval():
    # Eq. 7 to 9 of the lecture: putting the series into the integrals gives back the series.
    again = fourier.coefficients(SERIES, 3)
    np.testing.assert_allclose(again.a, SERIES.a, atol=1e-14)
    mean = scipy.integrate.quad(lambda t: float(SERIES(t)) ** 2, 0, 5.0, epsabs=1e-13)[0] / 5.0
    np.testing.assert_allclose(fourier.mean_square(SERIES), mean, rtol=1e-12)
    # The square wave's mean square is one: the sum over odd k of 8 / (pi k)^2.
    rest = 1.0 - fourier.mean_square(fourier.square_wave(1001))
    np.testing.assert_allclose(rest, 4 / np.pi**2 / 1001, rtol=2e-3)


@pytest.mark.slow
def test_gibbs_overshoot_against_the_sine_integral():
    assert fourier.GIBBS == pytest.approx(scipy.special.sici(np.pi)[0] / np.pi - 0.5, abs=1e-15)
    # With m odd harmonics the first maximum is at omega t = pi / 2m, where the sum is known.
    m = 20
    k = 2 * np.arange(1, m + 1) - 1
    peak = 2 / np.pi * np.sum(np.sin(k * np.pi / (2 * m)) / k)  # of a jump from -1/2 to 1/2
    got = fourier.gibbs_overshoot(systems.SquareWave(3.0, 7.0, 2.0, 1.0), 2 * m)
    np.testing.assert_allclose(got, peak - 0.5, atol=1e-13)
    narrow = fourier.gibbs_overshoot(systems.SquareWave(0.0, 2.0, 1.0, 0.3), 1000)
    np.testing.assert_allclose(narrow, fourier.GIBBS, atol=1e-3)


def test_response_is_the_lectures_superposition_put_right():
    series = fourier.response(SERIES, OSCILLATOR)
    n = np.arange(1, 4)
    omega, gamma, omega0 = 2 * np.pi * n / 5.0, OSCILLATOR.gamma, OSCILLATOR.omega0
    root = np.sqrt((omega0**2 - omega**2) ** 2 + 4 * gamma**2 * omega**2)
    delta = np.arctan2(2 * gamma * omega, omega0**2 - omega**2)
    alpha, beta = SERIES.a / OSCILLATOR.mass / root, SERIES.b / OSCILLATOR.mass / root
    angle = omega * T[:, None] - delta
    x = SERIES.a0 / (2 * OSCILLATOR.spring_constant)
    x = x + np.cos(angle) @ np.asarray(alpha) + np.sin(angle) @ np.asarray(beta)
    np.testing.assert_allclose(series(T), x, atol=1e-14)


def test_each_term_and_their_sum_against_diffrax():
    ts = np.linspace(0.0, 12.0, 61)
    total = 0.0
    parts = [systems.FourierSeries(SERIES.a0, jnp.zeros(3), jnp.zeros(3), 5.0)]
    for one in jnp.eye(3):
        parts.append(systems.FourierSeries(0.0, one * SERIES.a, one * SERIES.b, 5.0))
    for force in [*parts, SERIES]:
        x = fourier.response(force, OSCILLATOR)
        driven = systems.DrivenOscillator(0.3, 1.7, 2.5, force)
        start = jnp.stack([x(0.0), jax.grad(x)(0.0)])
        truth = reference.solve(driven, start, ts).ys[:, 0]
        np.testing.assert_allclose(x(ts), truth, atol=1e-12)
        total = total + (0.0 if force is SERIES else x(ts))
    np.testing.assert_allclose(total, fourier.response(SERIES, OSCILLATOR)(ts), atol=1e-14)


@pytest.mark.slow
def test_an_anharmonic_term_breaks_superposition():
    # x^3 of a sum has the cross terms 3 x1^2 x2 + 3 x1 x2^2, which the lecture prints as a square.
    one = systems.FourierSeries(0.0, [0.4], [0.0], 5.0)
    two = systems.FourierSeries(0.0, [0.0, 0.3], [0.0, 0.0], 5.0)
    both = systems.FourierSeries(0.0, [0.4, 0.3], [0.0, 0.0], 5.0)
    ts = np.linspace(0.0, 60.0, 601)

    def motion(force):
        system = systems.Duffing(forcing=force)
        return reference.solve(system, jnp.zeros(2), ts).ys[-100:, 0]

    assert np.max(np.abs(motion(one) + motion(two) - motion(both))) > 0.01


def test_resonance_curve_has_a_peak_for_each_harmonic():
    oscillator = systems.DrivenOscillator(gamma=0.01)
    frequencies = np.linspace(0.15, 1.3, 2301)
    curve = fourier.resonance_curve(fourier.square_wave(7), oscillator, frequencies)
    peaks = scipy.signal.find_peaks(curve)[0]
    np.testing.assert_allclose(frequencies[peaks], [1 / 5, 1 / 3, 1], atol=1e-3)
    single = fourier.resonance_curve(SERIES, OSCILLATOR, np.array([2 * np.pi / 5]))
    steady = fourier.response(SERIES, OSCILLATOR)(np.arange(64) * 5.0 / 64)
    np.testing.assert_allclose(single, [np.std(steady)], rtol=1e-13)


def test_response_can_be_differentiated_and_mapped():
    def rms(gamma):
        oscillator = systems.DrivenOscillator(gamma=gamma)
        return jnp.sqrt(fourier.mean_square(fourier.response(SERIES, oscillator)))

    slope = jax.grad(rms)(0.2)
    numeric = (rms(0.2 + 1e-6) - rms(0.2 - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, numeric, rtol=1e-8)


def test_an_undamped_resonance_is_refused():
    free = systems.DrivenOscillator(gamma=0.0, omega0=2.0)
    with pytest.raises(ValueError, match="harmonic 2"):
        fourier.response(systems.FourierSeries(0.0, [0.0, 1.0], [0.0, 0.0], 2 * np.pi), free)
    silent = systems.FourierSeries(0.0, [1.0, 0.0], [0.0, 0.0], 2 * np.pi)
    np.testing.assert_allclose(fourier.response(silent, free).a, [1 / 3, 0.0], rtol=1e-15)


def test_convolution_over_a_period_against_its_integral():
    other = systems.FourierSeries(-0.6, [0.5, 0.1, 0.9], [0.0, -1.2, 0.4], 5.0)
    product = fourier.convolve_periodic(SERIES, other)
    for t in (0.0, 1.3, 4.1):
        value = scipy.integrate.quad(
            lambda s, t=t: float(SERIES(s) * other(t - s)), 0, 5.0, epsabs=1e-13
        )
        np.testing.assert_allclose(product(t), value[0] / 5.0, atol=1e-13)


@pytest.mark.parametrize(
    ("shape", "window"), [((30,), (7,)), ((9, 12), (3, 4)), ((3, 4, 5), (2, 2, 2))]
)
def test_the_convolution_theorem(shape, window):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=window)
    direct = convolution.convolve(x, kernel, padding=[k - 1 for k in window])
    np.testing.assert_allclose(fourier.convolve(x, kernel), direct, atol=1e-13)
    np.testing.assert_allclose(fourier.convolve(kernel, x), direct, atol=1e-13)


@refusals(
    (lambda: fourier.square_wave(2.5), "n must be an integer, got 2.5", TypeError),
    (lambda: fourier.sawtooth_wave(0), "n must be at least 1, got 0"),
    (lambda: fourier.square_wave(3, period=0.0), "period must be positive"),
    (
        lambda: fourier.coefficients(3.0, 2),
        "force must be a systems.Forcing such as systems.SquareWave.* or a function",
        TypeError,
    ),
    (lambda: fourier.coefficients(jnp.sin, 2), "period must be given"),
    (lambda: fourier.coefficients(systems.SquareWave(), 2, 1.0), "must be left out"),
    (lambda: fourier.coefficients(lambda t: jnp.log(t - 0.5), 2, 1.0), "force must be finite"),
    (lambda: fourier.coefficients_from_samples(np.ones(8), 4), "with more than 8 of them"),
    (
        lambda: fourier.mean_square(3.0),
        "series must .* such as fourier.coefficients.*, got 3.0",
        TypeError,
    ),
    (lambda: fourier.gibbs_overshoot(SERIES, 3), "wave must be a systems.SquareWave", TypeError),
    (
        lambda: fourier.response(SERIES, systems.Lorenz()),
        "oscillator must be a systems.DrivenOscillator",
        TypeError,
    ),
    (
        lambda: fourier.resonance_curve(SERIES, OSCILLATOR, [0.0]),
        "frequencies must be positive",
    ),
    (
        lambda: fourier.convolve_periodic(SERIES, fourier.square_wave(2, period=5.0)),
        "g must have as many harmonics as f, 3, got 2",
    ),
    (
        lambda: fourier.convolve_periodic(SERIES, fourier.square_wave(3)),
        "g must have the period of f",
    ),
    (lambda: fourier.convolve([1.0], [[1.0]]), "same number of axes"),
)
def test_bad_input_is_named(call, as_a_user):
    call()
