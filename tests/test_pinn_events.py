"""Events along solutions, and solutions that go on from them, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals

import physml
from physml import pinn, reference
from physml.results import RESULTS
from physml.systems import from_function

G = 9.81
fall = from_function(lambda t, y, args: jnp.stack([y[1], -G + 0 * y[0]]), 2)
swing = from_function(lambda t, y, args: jnp.stack([y[1], -y[0]]), 2)


def floor(restitution):
    restart = lambda t, y, args: y * jnp.array([0.0, -restitution])  # noqa: E731
    return pinn.Event(lambda t, y, args: y[0], restart)


def bounces(count, restitution):
    """When a ball that falls from the height 1 touches the floor, and its speed before."""
    first = np.sqrt(2 / G)
    flights = 2 * first * restitution ** np.arange(1, count)
    return first + np.append(0.0, np.cumsum(flights)), G * first * restitution ** np.arange(count)


def test_a_ball_that_loses_speed():
    ball = pinn.solve_events(fall, [1.0, 0.0], 4.0, floor(0.9))
    times, speeds = bounces(len(ball.times), 0.9)
    assert len(times) == 6
    errors = np.abs(np.asarray(ball.times) - times)
    assert errors.max() < 2e-14  # a few roundings of the first speed come back in every flight
    assert np.all(errors <= 10 * np.asarray(ball.time_errors))
    np.testing.assert_allclose(ball.before[:, 1], -speeds, rtol=1e-13)
    np.testing.assert_allclose(ball.after[:, 1], 0.9 * speeds, rtol=1e-13)
    # Between events, from the last bounce before each time.
    t = np.linspace(0.5, 4.0, 301)
    last = np.searchsorted(times, t, side="right") - 1
    since = t - times[last]
    height = 0.9 * speeds[last] * since - G / 2 * since**2
    off = np.abs(np.asarray(ball(t))[:, 0] - height)
    assert off.max() < 1e-13
    assert np.all(off <= 1e-15 + 10 * np.asarray(ball.solution.error_estimate(t))[:, 0])
    np.testing.assert_allclose(ball(ball.times), ball.after, rtol=1e-14, atol=1e-14)


@pytest.mark.slow  # a thousand short solutions, of which checks of types would be most of the time
@pytest.mark.usefixtures("as_a_user")
def test_errors_of_many_bounces_are_estimated():
    count = 1000
    first = np.sqrt(2 / np.longdouble(G))
    times = first * (2 * np.arange(count) + 1)
    ball = pinn.solve_events(fall, [1.0, 0.0], float(times[-1]) + 0.1, floor(1.0))
    errors = np.abs(np.asarray(ball.times) - times)
    assert np.all(errors < 1e-13 * times)  # roundings of the speed, which all later flights feel
    assert np.all(errors <= 1e-14 + 10 * np.asarray(ball.time_errors))
    assert np.asarray(ball.time_errors)[-1] < 1e-6


@pytest.mark.slow
def test_bounces_that_come_to_rest_are_said():
    with pytest.raises(RuntimeError, match="ever faster"):
        pinn.solve_events(fall, [1.0, 0.0], 3.0, floor(0.3))
    with pytest.warns(UserWarning, match="ever faster"):
        ball = pinn.solve_events(fall, [1.0, 0.0], 3.0, floor(0.3), throw=False)
    rest = np.sqrt(2 / G) * (1 + 2 * 0.3 / 0.7)
    np.testing.assert_allclose(ball.solution.t1, rest, rtol=1e-13)
    assert np.isnan(ball.solution.ys[-1]).all()


@pytest.mark.parametrize("roundings", [-2, 0, 1, 30])
def test_an_end_beside_an_event(roundings):
    """The last leg is so short that the height in it is rounding.

    One rounding past the impact the height at the end is within its own rounding of zero, and its
    sign, which differs between processors, decides whether an impact is seen.
    """
    first = np.sqrt(2 / G)
    ball = pinn.solve_events(fall, [1.0, 0.0], first + roundings * np.spacing(first), floor(0.9))
    assert ball.solution.result == RESULTS.successful
    assert abs(ball.solution.ys[-1, 0]) < 1e-13
    assert len(ball.times) == 1 if roundings > 1 else len(ball.times) <= 1


def test_a_neuron_that_fires():
    """v' = I - v from 0, back to 0 where it reaches 1: a period of log(I / (I - 1))."""
    neuron = from_function(lambda t, v, current: current - v, 1)
    threshold = pinn.Event(lambda t, v, args: v[0] - 1, lambda t, v, args: jnp.zeros_like(v))
    fired = pinn.solve_events(neuron, [0.0], 5.0, threshold, args=jnp.array(1.5))
    period = np.log(1.5 / 0.5)
    np.testing.assert_allclose(fired.times, period * np.arange(1, 5), rtol=1e-14)


def test_a_terminal_event_ends_the_solution():
    top = pinn.Event(lambda t, y, args: y[1], terminal=True)
    thrown = pinn.solve_events(fall, [0.0, 3.0], 1.0, top)
    np.testing.assert_allclose(thrown.solution.t1, 3 / G, rtol=1e-15)
    assert thrown.solution.result == RESULTS.successful
    reached = np.asarray(thrown.solution.ts) <= 3 / G
    np.testing.assert_array_equal(np.isfinite(thrown.solution.ys).all(axis=1), reached)


@pytest.mark.slow
def test_events_at_once_happen_in_their_order():
    """A ball on the diagonal of a box meets two walls in each corner."""
    free = from_function(lambda t, y, args: jnp.stack([y[2], y[3], 0 * y[0], 0 * y[0]]), 4)

    def wall(axis, side):
        flip = jnp.ones(4).at[2 + axis].set(-1.0)
        return pinn.Event(
            lambda t, y, args: side * y[axis] - 1, lambda t, y, args: y * flip, direction=1
        )

    walls = [wall(axis, side) for axis in (0, 1) for side in (-1.0, 1.0)]
    box = pinn.solve_events(free, [0.0, 0.0, 1.0, 1.0], 8.0, walls)
    np.testing.assert_allclose(box.times, np.repeat([1.0, 3.0, 5.0, 7.0], 2), rtol=1e-14)
    np.testing.assert_array_equal(box.which, [1, 3, 0, 2, 1, 3, 0, 2])
    np.testing.assert_allclose(box.solution.ys[-1], [0.0, 0.0, 1.0, 1.0], atol=1e-13)


@pytest.mark.parametrize("solve", ["pinn", pytest.param("reference", marks=pytest.mark.slow)])
def test_roots_of_a_swing(solve):
    ts = np.linspace(0.0, 20.0, 41)
    if solve == "pinn":
        solution = pinn.solve(swing, [0.0, 1.0], 20.0, ts=ts)
    else:
        solution = reference.solve(swing, [0.0, 1.0], ts)
    falling = pinn.find_roots(solution, lambda t, y, args: y[0] - 0.5, direction=-1)
    expected = np.pi - np.pi / 6 + 2 * np.pi * np.arange(3)
    assert int(falling.count) == 3
    tolerance = 1e-13 if solve == "pinn" else 1e-9
    np.testing.assert_allclose(falling.times[:3], expected, rtol=tolerance)
    assert np.isinf(falling.times[3:]).all() and not falling.rising[:3].any()
    few = pinn.find_roots(solution, lambda t, y, args: y[0] - 0.5, max_roots=2)
    assert int(few.count) == 7 and few.times.shape == (2,)


def test_a_zero_at_the_start_is_no_root():
    solution = pinn.solve(swing, [0.0, 1.0], 4.0)
    found = pinn.find_roots(solution, lambda t, y, args: y[0])
    np.testing.assert_allclose(found.times[: int(found.count)], [np.pi], rtol=1e-14)


SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def fading():
    return pinn.solve(lambda t, y: -0.1 * y, jnp.ones(1), 10.0)


def clock(t, y, args):
    rate, level, phase = (*args, 0.1)[:3]
    return jnp.sin(rate * t + phase) + level


@pytest.mark.parametrize("rate", [np.pi, 100 * np.pi])
def test_a_zero_at_the_end_is_a_root(fading, rate):
    for direction, count in ((0, 10), (-1, 5), (1, 5)):
        found = pinn.find_roots(
            fading, clock, args=(rate, 0.0, 0.0), direction=direction, max_roots=1024
        )
        assert int(found.count) == count * round(rate / np.pi)
        last = np.max(found.times[: int(found.count)])
        expected = 10.0 if direction >= 0 else 10.0 - np.pi / rate
        np.testing.assert_allclose(last, expected, rtol=1e-13)


@pytest.mark.parametrize("depth", [1e-3, 1e-6, 1e-10])
def test_two_roots_close_to_each_other(depth):
    solution = pinn.solve(swing, [0.0, 1.0], 10.0)
    found = pinn.find_roots(solution, lambda t, y, args: y[0] - (1 - depth))
    half = np.arccos(1 - depth)
    expected = np.array([np.pi / 2 - half, np.pi / 2 + half])
    expected = np.concatenate([expected, expected + 2 * np.pi])
    assert int(found.count) == 4
    np.testing.assert_allclose(found.times[:4], expected, atol=1e-15 / half + 1e-14)
    assert int(pinn.find_roots(solution, lambda t, y, args: y[0] - 1 - depth).count) == 0


def test_roots_under_vmap():
    solution = pinn.solve(swing, [0.0, 1.0], 10.0)
    levels = jnp.array([0.1, 0.5, 2.0])
    found = jax.vmap(
        lambda level: pinn.find_roots(
            solution, lambda t, y, args: y[0] - args, args=level, max_roots=4
        )
    )(levels)
    np.testing.assert_array_equal(found.count, [4, 4, 0])
    np.testing.assert_allclose(found.times[:2, 0], np.arcsin(levels[:2]), rtol=1e-13)


@pytest.mark.parametrize("rate", [1000.0, *(pytest.param(x, marks=SLOW) for x in (50.0, 3e4))])
def test_a_clock_that_is_faster_than_the_solution(fading, rate):
    expected = (np.pi * np.arange(1, 1 + int((10 * rate + 0.1) // np.pi)) - 0.1) / rate
    for direction, those in ((0, slice(None)), (-1, slice(0, None, 2)), (1, slice(1, None, 2))):
        found = pinn.find_roots(fading, clock, args=(rate, 0.0), direction=direction)
        assert int(found.count) == len(expected[those]) and found.result == RESULTS.successful
        np.testing.assert_allclose(found.times, expected[those][:64], rtol=1e-14)
        assert direction == 0 or (found.rising == (direction == 1)).all()


@pytest.mark.parametrize("rate", [500.0, pytest.param(50.0, marks=SLOW)])
def test_all_pairs_of_a_clock_that_nearly_touches_zero(fading, rate):
    found = pinn.find_roots(fading, clock, args=(rate, 0.999))
    lowest = (2 * np.pi * np.arange(32) + 1.5 * np.pi - 0.1) / rate
    half = np.arccos(0.999) / rate
    np.testing.assert_allclose(found.times[::2], lowest - half, rtol=1e-13)
    np.testing.assert_allclose(found.times[1::2], lowest + half, rtol=1e-13)
    assert int(found.count) == 2 * int((10 * rate + 0.1 + 0.5 * np.pi) // (2 * np.pi))


@pytest.mark.slow
def test_what_no_halving_resolves_is_said(fading):
    with pytest.warns(UserWarning, match="pinn.find_roots: .* varies faster than could be foll"):
        found = pinn.find_roots(fading, clock, args=(1e9, 0.0))
    assert found.result == RESULTS.roots_missed
    fast = pinn.Event(lambda t, y, args: jnp.sin(1e13 * t))
    with pytest.raises(RuntimeError, match=r"solve_events: .* varies faster than could be"):
        pinn.solve_events(lambda t, y: -0.1 * y, jnp.ones(1), 10.0, fast)


def test_jumps_are_found_where_they_are(fading):
    found = pinn.find_roots(fading, lambda t, y, args: jnp.sign(clock(t, y, (40.0, 0.0))))
    assert int(found.count) == 127 and found.result == RESULTS.successful
    np.testing.assert_allclose(found.times, (np.pi * np.arange(1, 65) - 0.1) / 40.0, rtol=1e-14)


@jax.custom_vjp
def less(y):
    return y - 0.5


less.defvjp(lambda y: (y - 0.5, None), lambda kept, slope: (slope,))


def by_numpy(y):
    number = jax.ShapeDtypeStruct((), y.dtype)
    return jax.pure_callback(lambda y: np.asarray(y - 0.5), number, y, vmap_method="expand_dims")


@pytest.mark.parametrize("root", [less, pytest.param(by_numpy, marks=SLOW)])
def test_roots_of_functions_without_a_derivative_along_the_way(fading, root):
    found = pinn.find_roots(fading, lambda t, y, args: root(y[0]))
    np.testing.assert_allclose(found.times[:2], [10 * np.log(2), np.inf], rtol=1e-13)


def test_what_is_only_approached_or_kept_is_no_root():
    rest = pinn.solve(lambda t, y: 1 - y, jnp.zeros(1), 60.0)
    assert int(pinn.find_roots(rest, lambda t, y, args: y[0] - 1).count) == 0
    orbit = pinn.solve(swing, [0.0, 1.0], 400.0)
    assert int(pinn.find_roots(orbit, lambda t, y, args: y[0] ** 2 + y[1] ** 2 - 1).count) == 0
    assert int(pinn.find_roots(orbit, lambda t, y, args: jnp.sin(1e20 * y[0])).count) == 0
    reached = pinn.Event(lambda t, y, args: y[0] - 1, terminal=True)
    never = pinn.solve_events(lambda t, y: 1 - y, jnp.zeros(1), 60.0, reached)
    assert not len(never.times) and never.solution.t1 == 60.0


@pytest.mark.slow
def test_times_of_roots_have_derivatives():
    def crossings(rate, level):
        turns = pinn.solve(lambda t, y: rate * swing(t, y, None), jnp.array([0.0, 1.0]), 4.0)
        return pinn.find_roots(turns, lambda t, y, args: y[0] - args, args=level).times[:2]

    at, level = 1.5, 0.5
    expected = np.array([np.pi / 6, 5 * np.pi / 6]) / at
    slopes = np.array([1.0, -1.0]) / (at * np.cos(np.pi / 6))
    for jacobian in (jax.jacrev, jax.jacfwd):
        by_rate, by_level = jacobian(crossings, argnums=(0, 1))(at, level)
        np.testing.assert_allclose(by_rate, -expected / at, rtol=1e-12)
        np.testing.assert_allclose(by_level, slopes, rtol=1e-12)

    def from_outside(level):
        solution = pinn.solve(swing, jnp.array([0.0, 1.0]), 4.0)
        return pinn.find_roots(solution, lambda t, y, args: y[0] - level).times[0]

    np.testing.assert_allclose(jax.grad(from_outside)(level), at * slopes[0], rtol=1e-12)


def test_it_is_saved(tmp_path):
    top = pinn.Event(lambda t, y, args: y[1])
    thrown = pinn.solve_events(fall, [0.0, 3.0], 0.5, top)
    physml.save(tmp_path / "thrown", thrown)
    again = physml.load(tmp_path / "thrown")
    np.testing.assert_array_equal(again(0.3), thrown(0.3))
    np.testing.assert_array_equal(again.times, thrown.times)
    assert "1 events" in repr(thrown)


HEIGHT = pinn.Event(lambda t, y, args: y[0])


def test_a_direction_is_one_of_three():
    with pytest.raises(ValueError, match="direction must"):
        pinn.Event(HEIGHT.root, direction=2)


def test_a_root_that_becomes_nan():
    """The square root ends where y[0] = cos t falls through zero, close to zero or far from it."""

    def shifted(by):
        return pinn.Event(lambda t, y, args: jnp.sqrt(y[0]) + by)

    found = pinn.solve_events(swing, [1.0, 0.0], 2.0, list(map(shifted, (0.5, 0.0, -0.5))))
    np.testing.assert_allclose(found.times, [np.arccos(0.25), np.pi / 2], rtol=1e-15)
    np.testing.assert_array_equal(found.which, [2, 1])


@refusals(
    ({"events": []}, "events must"),
    ({"events": [HEIGHT.root]}, r"events\[0\] must", TypeError),
    ({"events": pinn.Event(lambda t, y, args: y)}, "root must return a number"),
    ({"events": pinn.Event(lambda t, y: y[0])}, r"root\(t, y, args\)", TypeError),
    ({"events": pinn.Event(HEIGHT.root, lambda t, y, args: y[0])}, "restart must return"),
    (
        {"events": pinn.Event(lambda t, y, args: y[2])},
        r"root must use the components .* got y\[2\]",
    ),
    (
        {"events": pinn.Event(HEIGHT.root, lambda t, y, args: [y[0], y[-3]])},
        r"restart must use the components .* got y\[-3\]",
    ),
    ({"events": pinn.Event(lambda t, y, args: y[0] > 0.5)}, "root .* got truth values", TypeError),
    ({"events": pinn.Event(lambda t, y, args: jnp.sqrt(-y[0]))}, "root must be a number at t0"),
    (
        {"events": pinn.Event(lambda t, y, args: y[0] - 0.5, lambda t, y, args: jnp.log(-y))},
        r"The last restart has returned \[nan",
        RuntimeError,
    ),
    ({"max_events": 0}, "max_events must be at least 1"),
    ({"t1": 0.0}, "t1 must"),
    ({"y0": [1.0]}, "y0 must have shape"),
)
def test_bad_input(change):
    given = {"system": fall, "y0": [1.0, 0.0], "t1": 1.0, "events": HEIGHT}
    pinn.solve_events(**(given | change))
