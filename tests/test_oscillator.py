"""The driven oscillator and its forces against quadrature, solvers and printed numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.signal import square

from physml import systems
from physml.systems import Cosine, DrivenOscillator, FourierSeries, FunctionForcing, SquareWave

# Free, weakly damped, on both sides of critical damping and on it, and strongly damped.
DAMPINGS = [0.0, 0.2, 1.2 * (1 - 1e-7), 1.2, 1.2 * (1 + 1e-7), 1.25, 4.0, 50.0]
SERIES = FourierSeries(0.4, [1.0, 0.2, -0.3], [0.3, 0.0, 2.0], 4.0)
SMOOTH = [Cosine(1.3, 0.5, 0.4), Cosine(0.4, 3.0), SERIES, None]
SQUARE = [SquareWave(), SquareWave(-1.0, 0.7, 5.3, 2.0, 0.4), SquareWave(1.0, -3.0, 0.7, 0.6, -0.2)]


def piecewise_exponential(oscillator, times, y0, t0):
    """The solution under a force that is constant between jumps, by scipy's matrix exponential."""
    matrix = np.zeros((3, 3))
    matrix[0, 1] = 1.0
    matrix[1] = -(oscillator.omega0**2), -2.0 * oscillator.gamma, 1.0 / oscillator.mass
    edges = oscillator.jump_times(t0, times[-1])
    y, t, rows = np.array(y0), t0, []
    for end in sorted({*edges, *times}):
        force = float(oscillator.forcing(0.5 * (t + end)))
        y, t = (expm(matrix * (end - t)) @ [*y, force])[:2], end
        if end in times:
            rows.append(y)
    return np.array(rows)


def force_by_hand(forcing, t):
    """A smooth force from its defining formula, in plain Python."""
    if forcing is None:
        return 0.0
    if isinstance(forcing, Cosine):
        return forcing.amplitude * math.cos(forcing.frequency * t + forcing.phase)
    total = forcing.a0 / 2
    for n, (a, b) in enumerate(zip(forcing.a.tolist(), forcing.b.tolist(), strict=True), 1):
        angle = 2 * math.pi * n * t / forcing.period
        total += a * math.cos(angle) + b * math.sin(angle)
    return total


@jax.jit
def exact(oscillator, t, y0, t0):
    return oscillator.exact(t, y0, t0)


def test_the_lecture_oscillator():
    oscillator = DrivenOscillator()
    assert (oscillator.gamma, oscillator.omega0, oscillator.mass) == (0.2, 1.0, 1.0)
    assert oscillator.forcing == Cosine(1.0, 0.5)
    y = oscillator.exact(jnp.array([0.0, 1.0, 5.0, 20.0]), jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(y[:, 0], [1.0, 0.9907494, -0.7360177, -1.2310953], atol=5e-8)
    np.testing.assert_allclose(systems.amplitude_response(0.5, 0.2, 1.0), 1.2883133, atol=5e-8)
    np.testing.assert_allclose(systems.phase_lag(0.5, 0.2, 1.0), 0.2606024, atol=5e-8)


@pytest.mark.parametrize("omega", [0.3, 1.0, 1.7])
def test_response_to_a_sinusoid(omega):
    transfer = 1.0 / (1.2**2 - omega**2 + 2j * 0.3 * omega)
    np.testing.assert_allclose(systems.amplitude_response(omega, 0.3, 1.2), abs(transfer))
    np.testing.assert_allclose(systems.phase_lag(omega, 0.3, 1.2), -np.angle(transfer))


@pytest.mark.parametrize("gamma", DAMPINGS)
@pytest.mark.parametrize("forcing", SMOOTH, ids=["slow", "fast", "fourier", "free"])
def test_exact_against_dop853(gamma, forcing):
    oscillator = DrivenOscillator(gamma, 1.2, 2.0, forcing)

    def rhs(t, y):
        return [y[1], force_by_hand(forcing, t) / 2.0 - 2.0 * gamma * y[1] - 1.44 * y[0]]

    times = np.linspace(0.3, 5.0, 11)
    y0 = [1.0, -0.5]
    found = exact(oscillator, times, jnp.array(y0), 0.3)
    solved = solve_ivp(rhs, (0.3, 5.0), y0, "DOP853", times, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found, solved.y.T, atol=3e-12)
    np.testing.assert_allclose(found[0], y0, atol=1e-15)


@pytest.mark.parametrize("gamma", DAMPINGS)
@pytest.mark.parametrize("forcing", SQUARE, ids=["lecture", "slow", "wide"])
def test_exact_pulse_train_against_matrix_exponentials(gamma, forcing):
    oscillator = DrivenOscillator(gamma, 1.2, 2.0, forcing)
    times = np.linspace(0.37, 10.0, 23)
    found = exact(oscillator, times, jnp.array([1.0, -0.5]), 0.3)
    expected = piecewise_exponential(oscillator, times, [1.0, -0.5], 0.3)
    np.testing.assert_allclose(found, expected, atol=2e-13)


@jax.jit
def slope_and_rhs(oscillator, t, y0):
    solution = lambda t: oscillator.exact(t, y0, t0=0.3)  # noqa: E731
    return jax.jvp(solution, (t,), (jnp.ones_like(t),))[1], oscillator(t, solution(t))


@pytest.mark.parametrize("gamma", [0.2, 1.2, 4.0])
@pytest.mark.parametrize("forcing", [SMOOTH[0], SMOOTH[2], SQUARE[1], None])
def test_exact_satisfies_the_equation(gamma, forcing):
    oscillator = DrivenOscillator(gamma, 1.2, 2.0, forcing)
    # None of these is a jump; some are before the start.
    for t in (-2.11, 0.35, 0.9, 3.3, 11.17):
        slope, rhs = slope_and_rhs(oscillator, t, jnp.array([1.0, -0.5]))
        np.testing.assert_allclose(slope, rhs, rtol=1e-9, atol=1e-11)


def test_exact_forgets_and_remembers():
    """Far from the start only the steady motion is left, and going back returns to the start."""
    y0 = jnp.array([1.0, -0.5])
    for forcing in (*SMOOTH[:3], *SQUARE):
        oscillator = DrivenOscillator(0.3, 1.2, 1.0, forcing)
        steady = forcing.steady_state(jnp.asarray(200.0), 0.3, 1.2)
        np.testing.assert_allclose(oscillator.exact(200.0, y0), steady, atol=1e-13)
        later = oscillator.exact(3.0, y0, t0=1.0)
        np.testing.assert_allclose(oscillator.exact(1.0, later, t0=3.0), y0, atol=1e-13)
        period = forcing.steady_state(jnp.asarray([0.37, 0.37 + forcing.period]), 0.3, 1.2)
        np.testing.assert_allclose(period[0], period[1], atol=1e-13)


def test_overdamped_motion_does_not_overflow():
    oscillator = DrivenOscillator(200.0, 1.0, 1.0, None)
    x, v = oscillator.exact(1000.0, jnp.array([1.0, 0.0]))
    root = np.sqrt(200.0**2 - 1)
    slow = -1.0 / (200.0 + root)  # the slower root of r^2 + 400 r + 1
    amplitude = (root + 200.0) / (2.0 * root)
    np.testing.assert_allclose(x, amplitude * np.exp(slow * 1000.0), rtol=1e-12)
    np.testing.assert_allclose(v, slow * x, rtol=1e-12)


@pytest.mark.slow
def test_superposition_of_harmonics_meets_the_pulse_train():
    pulses = SquareWave()
    times, y0 = np.linspace(0.0, 20.0, 101), jnp.array([1.0, 0.0])
    exact = DrivenOscillator(forcing=pulses).exact(times, y0)
    errors = []
    for n in (8, 64, 512):
        series = DrivenOscillator(forcing=pulses.fourier_series(n)).exact(times, y0)
        errors.append(float(jnp.max(jnp.abs(series - exact)[:, 0])))
    # What is left out falls as the cube of the number of harmonics kept: 1/n from the force, 1/n^2
    # from the response, and the pulse alternates in sign.
    assert errors[0] < 1e-5 and errors[2] < 1e-10
    assert errors[1] < errors[0] / 8**2.5 and errors[2] < errors[1] / 8**2.5


def test_masses_and_springs():
    forcing = Cosine(3.0, 0.8)
    spring = DrivenOscillator.from_spring(2, 0.6, 8, forcing)
    assert (spring.mass, spring.gamma, spring.omega0) == (2.0, 0.15, 2.0)
    np.testing.assert_allclose(spring.spring_constant, 8.0)
    x, v = 0.7, -0.4
    balance = (3.0 * np.cos(0.8 * 1.1) - 0.6 * v - 8.0 * x) / 2.0
    np.testing.assert_allclose(spring(1.1, jnp.array([x, v])), [v, balance], rtol=1e-14)
    # A constant force F holds the spring at F / k.
    held = DrivenOscillator.from_spring(2.0, 0.6, 8.0, FourierSeries(2 * 5.0, [], [], 1.0))
    np.testing.assert_allclose(held.exact(7.0, jnp.array([0.625, 0.0])), [0.625, 0.0], atol=1e-15)


@pytest.mark.slow
def test_exact_is_differentiable_and_keeps_single_precision():
    y0 = jnp.array([1.0, -0.5])

    @jax.jit
    def position(gamma, period, width):
        forcing = SquareWave(0.0, 2.0, period, width)
        return DrivenOscillator(gamma, 1.0, 1.0, forcing).exact(3.3, y0)[0]

    # On both sides of critical damping and on it, where sqrt(gamma^2 - omega0^2) has no slope.
    for gamma in (0.3, 1.0, 1.7):
        check_grads(position, (gamma, 0.7, 0.3), 1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=0.0)

    times = jnp.linspace(0.0, 5.0, 6, dtype=jnp.float32)
    for forcing in (SMOOTH[0], SMOOTH[2], SQUARE[1], None):
        oscillator = DrivenOscillator(forcing=forcing)
        single = exact(oscillator, times, y0.astype(jnp.float32), 0.0)
        assert single.dtype == jnp.float32 and single.shape == (6, 2)
        double = exact(oscillator, times, y0, 0.0)
        np.testing.assert_allclose(single, double, atol=3e-6)
    grid = exact(oscillator, times.reshape(2, 3), y0, 0.0)
    np.testing.assert_allclose(grid.reshape(6, 2), double, rtol=1e-12)


@pytest.mark.parametrize(
    "forcing",
    [
        Cosine(1.0, 1.0),
        FourierSeries(0.0, [0.0, 1.0], [0.0, 0.0], 4 * np.pi),
        SquareWave(0.0, 1.0, 2 * np.pi, 1.0),
    ],
)
def test_undamped_resonance_has_no_steady_state(forcing):
    y0 = jnp.array([1.0, 0.0])
    with pytest.raises(RuntimeError, match="resonance of an undamped oscillator"):
        DrivenOscillator(0.0, forcing=forcing).exact(1.0, y0)
    assert jnp.all(jnp.isfinite(DrivenOscillator(1e-3, forcing=forcing).exact(1.0, y0)))


def test_a_users_force():
    oscillator = DrivenOscillator(forcing=lambda t: jnp.exp(-t))
    assert isinstance(oscillator.forcing, FunctionForcing)
    assert not oscillator.autonomous and oscillator.period is None
    y = jnp.array([0.5, 2.0])
    np.testing.assert_allclose(oscillator(1.0, y), [2.0, np.exp(-1.0) - 0.4 * 2.0 - 0.5])
    times = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(oscillator.forcing(times), np.exp([0.0, -1.0]))
    with pytest.raises(ValueError, match="no closed form is known"):
        oscillator.exact(1.0, y)
    stepped = FunctionForcing(lambda t: jnp.where(t < 2.0, 0.0, 1.0), period=3, jumps=(2.0, 1.0))
    driven = DrivenOscillator(forcing=stepped)
    assert driven.period == 3.0
    np.testing.assert_array_equal(driven.jump_times(1.5, 9.0), [2.0])


def test_the_lecture_pulse_train():
    pulses = SquareWave()
    times = np.linspace(0.0, 1.0, 487, endpoint=False)
    # The notes' own line of code.
    notes = 1.0 + square(2 * np.pi * 5 * times + np.pi * 0.1 / 0.2)
    np.testing.assert_array_equal(pulses(times), notes)
    series = pulses.fourier_series(6)
    np.testing.assert_allclose(0.5 * series.a0, 1.0)
    expected = [4 / np.pi, 0, -4 / (3 * np.pi), 0, 4 / (5 * np.pi), 0]
    np.testing.assert_allclose(series.a, expected, atol=1e-15)
    np.testing.assert_array_equal(series.b, np.zeros(6))
    assert series.period == pulses.period == 0.2


@pytest.mark.parametrize("pulses", SQUARE, ids=["lecture", "slow", "wide"])
def test_fourier_coefficients_against_quadrature(pulses):
    series, period = pulses.fourier_series(4), pulses.period
    rise, fall = pulses.centre - pulses.width / 2, pulses.centre + pulses.width / 2

    def mean(weight):
        high = pulses.high * quad(weight, rise, fall)[0]
        return (high + pulses.low * quad(weight, fall, rise + period)[0]) / period

    np.testing.assert_allclose(series.a0, 2 * mean(lambda t: 1.0))
    for n in range(1, 5):
        for f, found in ((np.cos, series.a[n - 1]), (np.sin, series.b[n - 1])):
            expected = 2 * mean(lambda t, f=f, n=n: f(2 * np.pi * n * t / period))
            np.testing.assert_allclose(found, expected, atol=1e-13)


def test_an_odd_square_wave():
    series = SquareWave(-3.0, 3.0, 2.0, 1.0, centre=0.5).fourier_series(5)
    np.testing.assert_allclose(series.a, np.zeros(5), atol=1e-15)
    expected = 12.0 / np.pi * np.array([1, 0, 1 / 3, 0, 1 / 5])
    np.testing.assert_allclose(series.b, expected, atol=1e-15)
    np.testing.assert_allclose(series.a0, 0.0, atol=1e-15)


def test_smooth_forces_term_by_term():
    series, cosine = FourierSeries(0.5, [1.0, -2.0], [0.3, 0.7], 1.7), Cosine(2.0, 3.0, 0.4)
    times = np.linspace(-1.0, 4.0, 7)
    for forcing in (series, cosine):
        expected = [force_by_hand(forcing, t) for t in times]
        np.testing.assert_allclose(forcing(times), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(series(2), series(2.0))
    np.testing.assert_allclose(series(0.3 + 1.7), series(0.3))
    np.testing.assert_allclose(cosine.period, 2 * np.pi / 3.0)


compiled_force = jax.jit(lambda forcing, t: forcing(t))


@settings(max_examples=50, deadline=None)
@given(
    period=st.floats(0.01, 10.0),
    duty=st.floats(0.05, 0.95),
    centre=st.floats(-3.0, 3.0),
    start=st.floats(-20.0, 20.0),
)
def test_the_force_jumps_exactly_where_it_says(period, duty, centre, start):
    """The two floats beside each jump see different levels, whatever a compiler contracts."""
    pulses = SquareWave(0.0, 2.0, period, duty * period, centre)
    jumps = pulses.jump_times(start, start + 7.3 * period)
    assert np.all(np.diff(jumps) > 0) and len(jumps) in (14, 15, 16)
    assert start <= jumps[0] and jumps[-1] <= start + 7.3 * period
    jumps = np.resize(jumps, 15)  # one shape, compiled once
    before, after = np.nextafter(jumps, -np.inf), np.nextafter(jumps, np.inf)
    levels = compiled_force(pulses, np.stack([before, jumps, after]))
    np.testing.assert_array_equal(np.abs(levels[2] - levels[0]), 2.0)
    np.testing.assert_array_equal(levels[1], levels[2])


def test_jumps_in_compiled_code_many_turns_out():
    for pulses in (SquareWave(), SquareWave(0.3, 2.1, 0.2, 0.07, 0.013)):
        jumps = pulses.jump_times(-3.0, 500.0)
        before, after = np.nextafter(jumps, -np.inf), np.nextafter(jumps, np.inf)
        for force in (jax.jit(lambda t, pulses=pulses: pulses(t)), pulses):
            assert np.all(force(before) != force(after))
    oscillator = DrivenOscillator(forcing=SquareWave())
    np.testing.assert_allclose(oscillator.jump_times(0.0, 0.5), [0.05, 0.15, 0.25, 0.35, 0.45])


@refusals(
    (lambda: Cosine(1.0, 0.0), "Cosine.frequency must be positive and finite, got 0.0"),
    (lambda: Cosine(np.nan, 1.0), "Cosine.amplitude must be finite, got nan"),
    (lambda: Cosine(1.0, 1.0, np.inf), "Cosine.phase must be finite, got inf"),
    (lambda: SquareWave(period=-1.0), "SquareWave.period must be positive .* got -1.0"),
    (lambda: SquareWave(width=0.2), "width must be less than the period 0.2, got 0.2"),
    (lambda: SquareWave(width=0.0), "SquareWave.width must be positive"),
    (lambda: SquareWave(high=np.nan), "SquareWave.high must be finite"),
    (lambda: SquareWave().fourier_series(-1), "n must be at least 0, got -1"),
    (lambda: FourierSeries(0.0, [1.0, 2.0], [1.0], 1.0), r"got shapes \(2,\) and \(1,\)"),
    (
        lambda: FourierSeries(0.0, [1.0], [np.nan], 1.0),
        r"FourierSeries.b must be finite, got nan at index \(0,\)",
    ),
    (lambda: FourierSeries(0.0, [1.0], [1.0], 0.0), "FourierSeries.period must be positive"),
    (lambda: FunctionForcing(jnp.sin, period=0.0), "FunctionForcing.period must be positive"),
    (lambda: DrivenOscillator(gamma=np.nan), "DrivenOscillator.gamma must be finite"),
    (lambda: DrivenOscillator(omega0=0.0), "omega0 must be positive .* got 0.0"),
    (lambda: DrivenOscillator(mass=-1.0), "DrivenOscillator.mass must be positive"),
    (
        lambda: DrivenOscillator.from_spring(0.0, 1.0, 1.0),
        "mass must be positive and finite, got 0.0",
    ),
    (lambda: DrivenOscillator.from_spring(1.0, np.nan, 1.0), "damping must be a number, got nan"),
    (lambda: DrivenOscillator.from_spring(1.0, 1.0, -1.0), "spring_constant must be positive"),
)
def test_bad_constants(build):
    build()
