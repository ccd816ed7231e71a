"""`pinn.solve` where f is not smooth: kinks, jumps, pulses, and starts of several solutions."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.special import ndtr

from physml import pinn
from physml.results import RESULTS
from physml.systems import DrivenOscillator, SquareWave, from_function


def switched(
    matrix: Callable[[int], np.ndarray],
    switch: np.ndarray,
    start: list[float],
    times: np.ndarray,
    levels: tuple[float, ...] = (0.0,),
) -> np.ndarray:
    """z' = matrix(number of levels below switch z) z, by matrix exponentials.

    The times at which switch z passes a level are found by Brent's method.
    """
    z, t, rows, step = np.array(start), 0.0, [], 0.01

    def after(a: np.ndarray, delay: float, z: np.ndarray) -> np.ndarray:
        """exp(a delay) z in short steps: the exponential of a long one loses three digits."""
        num = 1 + int(4 * delay)
        short = expm(a * (delay / num))
        for _ in range(num):
            z = short @ z
        return z

    def place(z: np.ndarray) -> int:
        return int(np.searchsorted(levels, switch @ z))

    side = place(z + 1e-9 * matrix(place(z)) @ z)
    while len(rows) < len(times):
        a, begin = matrix(side), t
        short, ahead, delay = expm(a * step), z, 0.0
        while begin + delay < times[-1] and (place(ahead) == side or delay == 0.0):
            ahead, delay = short @ ahead, delay + step
        other = place(ahead)
        crossed, end = other != side, begin + delay
        if crossed:
            level = levels[side] if other > side else levels[side - 1]
            at = lambda d, a=a, z=z, level=level: switch @ after(a, d, z) - level  # noqa: E731
            end = begin + brentq(at, max(delay - step, 1e-9), delay, xtol=1e-16, rtol=1e-15)
            side += 1 if other > side else -1
        while len(rows) < len(times) and (times[len(rows)] <= end or not crossed):
            rows.append(after(a, times[len(rows)] - begin, z))
        z, t = after(a, end - begin, z), end
    return np.array(rows)


def relay(above: int) -> np.ndarray:
    """v' = -sign(x) - 0.1 v, on (x, v, 1)."""
    return np.array([[0, 1, 0], [0, -0.1, -1 if above else 1], [0, 0, 0.0]])


def stop(above: int) -> np.ndarray:
    """v' = -x - 0.1 v - 100 max(x - 0.3, 0), on (x, v, 1)."""
    return np.array([[0, 1, 0], [-101 if above else -1, -0.1, 30 if above else 0], [0, 0, 0.0]])


_CASES = {
    "sign": (
        lambda t, y, _: [y[1], -jnp.sign(y[0]) - 0.1 * y[1]],
        (relay, np.array([1.0, 0, 0])),
        ([2.0, 0.5], [-1.0, 1.7]),
    ),
    "max": (
        lambda t, y, _: [y[1], -y[0] - 0.1 * y[1] - 100 * jnp.maximum(y[0] - 0.3, 0.0)],
        (stop, np.array([1.0, 0, -0.3])),
        ([-2.0, 0.5], [0.1, 1.0]),
    ),
}


@pytest.mark.parametrize("name", ["sign", pytest.param("max", marks=pytest.mark.slow)])
def test_kinks_and_jumps_in_the_state(name):
    f, (matrix, switch), starts = _CASES[name]
    times = np.linspace(0.0, 8.0, 50)[1:]
    for start in starts:
        solution = pinn.solve(from_function(f, 2), start, 8.0)
        truth = switched(matrix, switch, [*start, 1.0], times)[:, :2]
        error, estimate = np.abs(solution(times) - truth), solution.error_estimate(times)
        # Brent's method finds a switch to some 1e-15 of the time.
        assert np.max(error) < 1e-12
        assert np.all((error < 2e-13) | (estimate > error / 10))
        assert np.max(estimate) < 1e-8
        assert int(solution.stats["num_windows"]) < 100


def clipped(region: int) -> np.ndarray:
    """v' = -clip(5 x, -1, 1) - 0.1 v, on (x, v, 1)."""
    slope, rest = [(0, 1), (-5, 0), (0, -1)][region]
    return np.array([[0, 1, 0], [slope, -0.1, rest], [0, 0, 0.0]])


def folded(above: int) -> np.ndarray:
    """v' = 1 - |x| - 0.1 v, on (x, v, 1)."""
    return np.array([[0, 1, 0], [-1 if above else 1, -0.1, 1], [0, 0, 0.0]])


def stepped(above: int) -> np.ndarray:
    """v' = -x - 0.1 v + (t > 3.137), on (x, v, 1, t)."""
    rows = [[0, 1, 0, 0], [-1, -0.1, above, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    return np.array(rows, float)


_RANDOM = {
    "clip": (
        lambda t, y, _: [y[1], -jnp.clip(5 * y[0], -1, 1) - 0.1 * y[1]],
        (clipped, np.array([5.0, 0, 0]), (-1.0, 1.0)),
    ),
    "sign": (_CASES["sign"][0], (relay, np.array([1.0, 0, 0]), (0.0,))),
    "abs": (
        lambda t, y, _: [y[1], 1 - jnp.abs(y[0]) - 0.1 * y[1]],
        (folded, np.array([1.0, 0, 0]), (0.0,)),
    ),
    "step": (
        lambda t, y, _: [y[1], jnp.where(t > 3.137, 1.0, 0.0) - y[0] - 0.1 * y[1]],
        (stepped, np.array([0.0, 0, 0, 1]), (3.137,)),
    ),
}


@pytest.mark.slow
def test_estimates_from_random_starts():
    """The estimate is a tenth of the error or more at all times, from 95 of 96 starts."""
    random, times, kept = np.random.default_rng(0), np.linspace(0.0, 8.0, 50)[1:], {}
    for name, (f, (matrix, switch, levels)) in _RANDOM.items():
        system = from_function(f, 2)
        for start in random.uniform([-1.5, -1.0], [1.5, 1.0], (24, 2)):
            solution = pinn.solve(system, start, 8.0)
            whole = [*start, 1.0, 0.0][: len(switch)]
            truth = switched(matrix, switch, whole, times, levels)[:, :2]
            error, estimate = np.abs(solution(times) - truth), solution.error_estimate(times)
            good = bool(np.all((error < 2e-13) | (estimate > error / 10)))
            kept.setdefault(name, []).append(good and np.max(error) < 1e-9)
    assert sum(map(sum, kept.values())) >= 95, kept


def test_clipped_controller_is_right_or_suspect():
    """A window's edge lies at each kink, where 5 y0 = -1 or 1."""
    f = lambda t, y, _: [y[1], -jnp.clip(5 * y[0], -1, 1) - 0.1 * y[1]]  # noqa: E731
    solution = pinn.solve(from_function(f, 2), [2.0, 0.0], 20.0)
    other = pinn.solve(from_function(f, 2), [2.0, 0.0], 20.0, max_window=0.37)
    times = np.linspace(0.1, 20.0, 97)
    difference = np.abs(solution(times) - other(times))
    assert np.max(difference) < 1e-9
    both = solution.error_estimate(times) + other.error_estimate(times)
    assert np.all((difference < 1e-13) | (both > difference / 10))
    edges = solution.stats["edges"]
    inner = np.abs(5 * np.asarray(solution(edges))[:, 0])
    state = np.asarray(solution(solution.ts))[:, 0] * 5
    kinks = np.sum(np.diff(np.sign(state - 1)) != 0) + np.sum(np.diff(np.sign(state + 1)) != 0)
    assert kinks > 5 and np.sum(np.abs(inner - 1) < 1e-5) >= kinks


@pytest.mark.slow
def test_a_step_in_time_that_was_not_declared():
    step = 3.137
    f = lambda t, y, at: -y + jnp.where(t > at, 1.0, 0.0)  # noqa: E731
    solution = pinn.solve(from_function(f, 1, args=step), [1.0], 10.0)
    times = np.linspace(0.0, 10.0, 80)[1:]
    late = np.maximum(times - step, 0.0)
    error = np.abs(solution(times)[:, 0] - (np.exp(-times) + 1 - np.exp(-late)))
    assert np.max(error) < 1e-13
    assert np.min(np.abs(solution.stats["edges"] - step)) < 1e-12
    declared = pinn.solve(from_function(f, 1, args=step, jumps=[step]), [1.0], 10.0)
    np.testing.assert_allclose(declared(times), solution(times), atol=1e-13)
    assert declared.stats["num_windows"] < solution.stats["num_windows"]


def test_a_kink_behind_the_last_gauss_point_counts():
    """An edge lies so shortly behind a kink that no Gauss point shows it, and no search begins."""
    kink, late, rate = 0.01, 3e-7, 6.0
    f = lambda t, y, _: -y + rate * jnp.maximum(t - kink, 0.0)  # noqa: E731
    system = from_function(f, 1, jumps=[kink + late])
    solution = pinn.solve(system, [1.0], 0.05, max_window=0.002)
    times = np.linspace(0.011, 0.05, 40)
    after = times - kink
    error = np.abs(solution(times)[:, 0] - (np.exp(-times) + rate * (after + np.expm1(-after))))
    assert np.all(error > 0.8 * rate * late**2 / 2)
    assert np.all(solution.error_estimate(times)[:, 0] > error / 10)


def smooth_pulse(t, y, shape):
    centre, width = shape
    return -0.1 * y + jnp.exp(-(((t - centre) / width) ** 2) / 2) / width


def flat_pulse(t, y, shape):
    centre, width = shape
    return -0.1 * y + jnp.where((t > centre) & (t < centre + width), 1 / width, 0.0)


def after_pulse(f, start, times, centre, width):
    """The closed form of both pulses, from `start` at the time zero."""
    decayed = start * np.exp(-0.1 * times)
    if f is smooth_pulse:
        late = (times - centre) / width - 0.1 * width
        kick = np.sqrt(2 * np.pi) * np.exp(0.005 * width**2) * ndtr(late)
        return decayed + kick * np.exp(-0.1 * (times - centre))
    on = np.clip(times - centre, 0.0, width)
    kick = np.where(on > 0, -np.expm1(-0.1 * on) / (0.1 * width), 0.0)
    return decayed + kick * np.exp(-0.1 * (times - centre - on))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.0, 1e-20, 1.0])
@pytest.mark.parametrize("f", [smooth_pulse, flat_pulse])
def test_pulses_in_time_from_any_start(f, start):
    """Windows of fifty widths meet a pulse; one of 1/6000 of the interval needs no help."""
    for centre, width, max_window in (
        (77.7, 0.1, 5.0), (500.3, 0.1, 5.0), (500.3, 1.0, 50.0), (500.3, 10.0, None),
        (500.3, 0.1, None),
    ):  # fmt: skip
        shape = jnp.asarray(centre), jnp.asarray(width)
        solution = pinn.solve(
            from_function(f, 1), [start], 600.0, args=shape, max_window=max_window
        )
        times = np.append(np.linspace(1.0, 600.0, 60), centre + width * np.linspace(-3, 5, 20))
        error = np.abs(solution(times)[:, 0] - after_pulse(f, start, times, centre, width))
        estimate = np.asarray(solution.error_estimate(times))[:, 0]
        assert solution.result == RESULTS.successful
        assert np.max(error) < 1e-12 and np.max(estimate) < 1e-10
        assert np.all((error < 3e-13) | (estimate > error / 10))
        assert int(solution.stats["num_windows"]) < 500


@pytest.mark.slow
def test_pulses_in_a_solution_at_rest():
    """One window would hold the whole interval; neither pulse touches a point of its audit."""

    def f(t, y, _):
        at = t[..., None] - jnp.array([300.3, 777.7])
        return jnp.sum(jnp.exp(-((at / 0.03) ** 2) / 2) / 0.03, axis=-1) - 0.1 * y

    solution = pinn.solve(from_function(f, 1), [0.0], 1000.0)
    times = np.append(np.linspace(0.0, 1000.0, 101), np.linspace(777.6, 777.8, 21))
    exact = sum(after_pulse(smooth_pulse, 0.0, times, centre, 0.03) for centre in (300.3, 777.7))
    error = np.abs(solution(times)[:, 0] - exact)
    assert np.max(error) < 1e-12
    assert np.all((error < 3e-13) | (solution.error_estimate(times)[:, 0] > error / 10))


@pytest.mark.slow
def test_a_narrow_bump_that_the_state_crosses():
    solution = pinn.solve(
        from_function(lambda t, y, _: jnp.where((y > 50.2) & (y < 50.3), 21.0, 1.0), 1), [0.0], 99.0
    )
    times = np.linspace(0.0, 99.0, 991)
    into = np.clip(times - 50.2, 0.0, 0.1 / 21)
    np.testing.assert_allclose(solution(times)[:, 0], times + 20 * into, atol=1e-11)
    assert solution.result == RESULTS.successful


@pytest.mark.slow  # compiles the same program as the test above
def test_rounding_of_the_time_costs_no_windows():
    """A roundoff of the time changes the flank of this pulse by 1e-9 of itself."""
    shape = jnp.asarray(500.3), jnp.asarray(0.01)
    solution = pinn.solve(from_function(smooth_pulse, 1), [0.0], 600.0, t0=1.0, args=shape)
    assert solution.result == RESULTS.successful
    end = after_pulse(smooth_pulse, 0.0, np.array(600.0), 500.3, 0.01)
    np.testing.assert_allclose(solution.ys[-1, 0], end, rtol=1e-10)
    assert int(solution.stats["num_windows"]) < 500


def test_no_window_is_wider_than_max_window():
    solution = pinn.solve(from_function(lambda t, y, _: -y, 1), [1.0], 6.0, max_window=0.1)
    assert np.max(np.diff(solution.stats["edges"])) < 0.1 * 1.02
    np.testing.assert_allclose(solution.ys[:, 0], np.exp(-solution.ts), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "f",
    [lambda t, y, _: jnp.sqrt(y), lambda t, y, _: jnp.sqrt(jnp.abs(y)) * jnp.sign(y)],
)
def test_a_start_of_several_solutions_is_suspect(f):
    with pytest.warns(UserWarning, match="no finite derivative in y: it is not Lipschitz"):
        solution = pinn.solve(from_function(f, 1), [0.0], 2.0)
    assert solution.result == RESULTS.suspect
    assert np.all(np.isinf(solution.error_estimate(np.array([0.5, 2.0]))))


def test_a_jump_of_the_state_shifts_with_the_error_before_it():
    """The estimate of networks alone, of a low tolerance, is carried across the jumps."""
    f, (matrix, switch), (start, _) = _CASES["sign"]
    with np.errstate(all="ignore"):
        solution = pinn.solve(from_function(f, 2), start, 8.0, rtol=1e-6, correct=False)
    times = np.linspace(6.0, 8.0, 20)
    error = np.abs(solution(times) - switched(matrix, switch, [*start, 1.0], times)[:, :2])
    assert np.all((error < 1e-12) | (solution.error_estimate(times) > error / 10))


@pytest.mark.slow
def test_declared_jumps_need_no_search():
    system = DrivenOscillator(forcing=SquareWave(0.0, 2.0, 0.2, 0.1))
    solution = pinn.solve(system, [1.0, 0.0], 1.0)
    np.testing.assert_allclose(
        solution.ys, system.exact(solution.ts, jnp.array([1.0, 0.0])), atol=1e-12
    )
    assert int(solution.stats["num_windows"]) < 25 and int(solution.stats["num_rejected"]) == 0


@refusals(
    ({"max_window": 0.0}, "max_window must be positive"),
    ({"max_window": np.nan}, "max_window must be"),
)
def test_bad_max_window(change):
    pinn.solve(from_function(lambda t, y, _: -y, 1), [1.0], 1.0, **change)
