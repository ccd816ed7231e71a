"""Errors of window networks, as estimated and as they are."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import coverage, relative_l2

from physml import pinn, reference
from physml.pinn.collocation import estimate
from physml.results import RESULTS
from physml.solution import Dense
from physml.systems import DrivenOscillator, Lorenz, from_function


@pytest.fixture(scope="module")
def truth():
    grid = np.arange(5001) * 0.01
    return np.asarray(reference.extended_trajectories(Lorenz(), np.ones((1, 3)), grid).ys[0])


@pytest.fixture(scope="module")
def lorenz(truth):
    grid = np.arange(3501) * 0.01
    return pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 35.0, ts=grid), truth[:3501]


def test_lorenz_to_t35(lorenz):
    solution, truth = lorenz
    assert solution.result == RESULTS.successful
    for end, bound in ((20, 1e-13), (30, 1e-11), (35, 1e-7)):
        part = slice(100 * end + 1)
        assert relative_l2(solution.ys[part], truth[part]) < bound


def test_the_estimate_is_the_error(lorenz):
    solution, truth = lorenz
    error = np.abs(np.asarray(solution.ys) - truth)
    estimate = solution.error_estimate(solution.ts)
    # How much is left to find differs a thousandfold with the processor's rounding.
    assert error[-1].max() > 1e-11
    assert coverage(estimate, error, above=1e-12) > 0.95
    # And not by its size alone: where it is well above rounding, it is right to a few per cent.
    np.testing.assert_allclose(np.asarray(estimate)[-100:], error[-100:], rtol=0.05, atol=5e-11)


def test_what_is_subtracted_is_the_error_of_the_networks(lorenz):
    solution, truth = lorenz
    raw = np.asarray(jax.vmap(solution.dense.networks.evaluate)(solution.ts))
    error = np.abs(raw - truth)
    assert coverage(np.abs(raw - np.asarray(solution.ys)), error, above=1e-12) > 0.95
    assert error.max() > 100 * np.abs(np.asarray(solution.ys) - truth).max()


@pytest.mark.slow
def test_without_the_correction_the_estimate_is_that_of_the_networks(lorenz):
    corrected, truth = lorenz
    ts, truth = corrected.ts[:2001], truth[:2001]
    solution = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 20.0, ts=ts, correct=False)
    raw = jax.vmap(solution.dense.networks.evaluate)(ts)
    np.testing.assert_allclose(solution.ys, raw, atol=1e-9)
    error = np.abs(np.asarray(solution.ys) - truth)
    assert error.max() > 1e-11
    assert coverage(solution.error_estimate(ts), error, above=1e-12) > 0.95


@pytest.mark.slow
def test_driven_oscillator_to_rounding():
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    solution = pinn.solve(system, y0, 100.0)
    exact = system.exact(solution.ts, y0)
    np.testing.assert_allclose(solution.ys, exact, atol=2e-15)
    assert float(jnp.max(solution.error_estimate(solution.ts))) < 1e-14
    raw = jax.vmap(solution.dense.networks.evaluate)(solution.ts)
    assert coverage(jnp.abs(raw - solution.ys), jnp.abs(raw - exact), above=1e-13) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rtol", "dtype", "t1"), [(1e-3, jnp.float64, 100.0), (1e-4, jnp.float32, 20.0)]
)
def test_truncation_and_rounding_are_part_of_the_estimate(rtol, dtype, t1):
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    solution = pinn.solve(system, y0.astype(dtype), t1, rtol=rtol)
    exact = np.asarray(system.exact(solution.ts.astype(jnp.float64), y0))
    error = np.abs(np.asarray(solution.ys, np.float64) - exact).max(axis=0)
    estimate = np.asarray(solution.error_estimate(solution.ts)).max(axis=0)
    # It counts half a rounding of the time too, which the closed form at the same time has not.
    slopes = np.abs(np.asarray(solution.derivative(solution.ts))).max(axis=0)
    late = np.finfo(dtype).eps / 2 * t1 * slopes
    assert np.all((estimate - late < 3 * error) & (estimate > error / 3))


@pytest.mark.slow
def test_hopeless_horizon_is_said(truth):
    grid = np.arange(5001) * 0.01
    with pytest.warns(UserWarning, match=r"half of the digits .* until t = \d\d\.\d+ of 50"):
        solution = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 50.0, ts=grid)
    assert solution.result == RESULTS.suspect
    until, censored = solution.valid_until(1e-5)
    lost = np.linalg.norm(solution.ys - truth, axis=1) > 1e-5 * np.linalg.norm(truth, axis=1)
    assert abs(float(until) - grid[np.argmax(lost)]) < 1.0 and not censored
    # Past it the networks are left as they are: on the attractor, not at infinity.
    assert float(jnp.max(jnp.abs(solution.ys))) < 60.0


@pytest.mark.slow
def test_collapse_to_a_solution_that_repels_is_said():
    """y' = 10^4 (y - cos t) - sin t leaves cos t by rounding alone; its residual there is zero."""
    system = from_function(lambda t, y, _: 1e4 * (y - jnp.cos(t)) - jnp.sin(t), 1, autonomous=False)
    with pytest.warns(UserWarning, match="may belong to another solution"):
        solution = pinn.solve(system, [np.cos(0.3)], 10.0, t0=0.3)
    assert solution.result == RESULTS.suspect
    assert np.all(np.asarray(solution.stats["residuals"]) <= 1)
    assert np.isinf(solution.error_estimate(10.0)).all()


@pytest.mark.slow
def test_verdict_under_jit_and_vmap():
    def verdict(y0):
        solution = pinn.solve(Lorenz(), y0, 45.0, ts=[45.0], max_windows=256)
        return solution.result == RESULTS.suspect, solution.error_estimate(1.0)

    starts = jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    suspect, errors = jax.jit(jax.vmap(verdict))(starts)
    assert np.all(suspect) and float(jnp.max(errors)) < 1e-12


@pytest.mark.slow
def test_duffing_in_chaos():
    """With x^2, cos and sin as further states Duffing's equation is quadratic."""
    from physml.systems import Duffing

    def quadratic(t, y, _):
        x, v, square, cos, sin = y
        return [v, 0.5 * cos - 0.3 * v + x - x * square, 2.0 * x * v, -1.2 * sin, 1.2 * cos]

    grid = np.linspace(0.0, 100.0, 1001)
    start = np.array([[1.0, 0.0, 1.0, 1.0, 0.0]])
    truth = reference.extended_trajectories(from_function(quadratic, 5), start, grid)
    solution = pinn.solve(Duffing(), [1.0, 0.0], 100.0, ts=grid)
    error = np.abs(np.asarray(solution.ys - truth.ys[0, :, :2]))
    assert error.max() < 1e-8
    assert coverage(solution.error_estimate(grid), error, above=1e-12) > 0.95


class Wrong(Dense):
    """The exact oscillator and something added to it."""

    added: Callable = eqx.field(static=True)

    def evaluate(self, t):
        exact = DrivenOscillator().exact(t, jnp.array([1.0, 0.0]))
        return exact + jnp.stack([self.added(t), jnp.zeros_like(t)])

    def derivative(self, t):
        return jax.jvp(self.evaluate, (t,), (jnp.ones_like(t),))[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("added", "at"),
    [
        # The initial condition is missed as well, and the two errors must add with their signs.
        (lambda t: 0.5 + 0.1 * jnp.sin(3 * t), 3.3),
        # A step between the points of a window: no pointwise residual shows it.
        (lambda t: jnp.where(t > 10.0, 0.3, 0.0), 16.0),
    ],
)
def test_estimate_for_any_trajectory(added, at):
    """The oscillator is linear: its estimate is the error itself."""
    system, ends = DrivenOscillator(), (jnp.asarray(0.0), jnp.asarray(20.0))
    slope = lambda t, y: system(t, y, None)  # noqa: E731
    error = estimate(slope, Wrong(added), jnp.array([1.0, 0.0]), *ends, 100)
    np.testing.assert_allclose(error(jnp.asarray(at)), [abs(added(at)), 0.0], atol=1e-10)
