"""Equations with constraints, against closed forms, published digits and SciPy's Radau."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from scipy.integrate import solve_ivp
from scipy.special import ellipj, ellipk

from physml import pinn
from physml.pinn.constraints._pencil import take_apart
from physml.results import RESULTS
from physml.systems import constrained_motion, from_function, implicit, with_invariants, with_mass

ROUNDING = 1e-14  # of a truth, and of a time


def right(solution, times, truth, within, multiple=10):
    """Whether the errors are small, and no more than a multiple of what is estimated."""
    truth, found = np.asarray(truth), np.asarray(solution(times))
    size = np.max(np.abs(truth), axis=0)
    error = np.abs(found - truth)
    estimate = np.asarray(solution.error_estimate(times))
    assert np.all(error <= within * size)
    assert np.all(estimate <= within * size)
    assert np.all(error <= multiple * estimate + ROUNDING * size)


def rotation(t, y, dy, args):
    return dy**2 + args["w"] ** 2 * (y**2 - args["size"] ** 2)


circle = implicit(rotation, 1)


@pytest.mark.parametrize(("size", "w"), [(1.0, 1.0), (1e12, 1e-7), (1e-9, 1e5)])
def test_an_equation_that_is_not_solved_for_its_derivative(size, w):
    # y'^2 = w^2 (size^2 - y^2) has the solution size sin(w t + 0.3) until its slope is zero.
    args = {"size": jnp.asarray(size), "w": jnp.asarray(w)}
    start, slope = size * np.sin(0.3), w * size
    solution = pinn.solve_constrained(circle, [start], 1 / w, dy0=[slope], args=args)
    times = np.linspace(0.0, 1 / w, 201)
    right(solution, times, size * np.sin(w * times + 0.3)[:, None], 1e-13)
    slopes = np.asarray(solution.derivative(times))[:, 0]
    np.testing.assert_allclose(slopes, size * w * np.cos(w * times + 0.3), rtol=1e-12)
    other = pinn.solve_constrained(circle, [start], 1 / w, dy0=[-slope], args=args)
    right(other, times, size * np.sin(0.3 - w * times)[:, None], 1e-13)


def growing_mass(t, y, args):
    return jnp.array([[1.0, t], [0.0, 0.0]])


def forced(t, y, args):
    rate = jnp.cos(t) - t * jnp.exp(-t) + y[1] - jnp.exp(-t)
    return [rate, y[0] + (1 + t) * y[1] - jnp.sin(t) - (1 + t) * jnp.exp(-t)]


def test_a_mass_matrix_that_depends_on_the_time():
    # y = (sin t, exp(-t)); the direction without a derivative turns with the time.
    system = with_mass(forced, growing_mass, 2)
    start = pinn.consistent_start(system, [0.0, 1.0])
    assert start.num_differential == 1
    np.testing.assert_allclose(start.dy, [1.0, -1.0], rtol=1e-14)
    solution = pinn.solve_constrained(system, [0.0, 1.0], 5.0)
    times = np.linspace(0.0, 5.0, 501)
    right(solution, times, np.stack([np.sin(times), np.exp(-times)], axis=1), 1e-13)
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.ys, solution(solution.ts), rtol=1e-14, atol=1e-14)


def robertson(t, y, args):
    units, _ = args
    a, b, c = y / units
    slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return jnp.stack([units[0] * (back - slow), units[1] * (slow - back - fast), a + b + c - 1.0])


def robertson_mass(t, y, args):
    return jnp.diag(jnp.array([1.0, 1.0, 0.0])) * args[1]


@pytest.mark.slow
@pytest.mark.parametrize(("units", "seconds"), [([1.0, 1.0, 1.0], 1.0), ([1e9, 1.0, 1e-7], 1e-6)])
def test_robertsons_reaction_as_a_dae(units, seconds):
    # The digits at t = 1e11 are those of the Bari test set for initial value problems. They add up
    # to 1 - 1e-14, so that no more than 14 of them are known.
    units = np.asarray(units)
    system = with_mass(robertson, robertson_mass, 3)
    args = jnp.asarray(units), jnp.asarray(seconds)
    solution = pinn.solve_constrained(system, [units[0], 0.0, 0.0], 1e11 * seconds, args=args)
    end = np.asarray(solution(1e11 * seconds)) / units
    published = [0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050]
    np.testing.assert_allclose(end, published, rtol=1e-12)
    estimate = np.asarray(solution.error_estimate(1e11 * seconds)) / units
    assert np.all(np.abs(end - published) <= 10 * estimate + 2e-14 * np.abs(published))
    times = np.geomspace(1e-4, 1e4, 30)
    ys = np.asarray(solution(times * seconds)) / units

    def rates(t, y):
        slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [back - slow, slow - back - fast, fast]

    exact = solve_ivp(
        rates, (0, 1e4), [1.0, 0, 0], "Radau", t_eval=times, rtol=1e-12, atol=[1e-14, 1e-19, 1e-16]
    )
    np.testing.assert_allclose(ys, exact.y.T, rtol=1e-10, atol=1e-18)
    np.testing.assert_allclose(ys.sum(axis=1), 1.0, rtol=1e-14)


def transistors(t, y, args):
    def current(u):
        return 1e-6 * (jnp.exp(u / 0.026) - 1)

    first, second = current(y[1] - y[2]), current(y[4] - y[5])
    return [
        (0.1 * jnp.sin(200 * jnp.pi * t) - y[0]) / 1000,
        (6 - 2 * y[1]) / 9000 - 0.01 * first,
        first - y[2] / 9000,
        (6 - y[3]) / 9000 - 0.99 * first,
        (6 - 2 * y[4]) / 9000 - 0.01 * second,
        second - y[5] / 9000,
        (6 - y[6]) / 9000 - 0.99 * second,
        -y[7] / 9000,
    ]


CAPACITIES = np.zeros((8, 8))
for pair, capacity in (((0, 1), 1e-6), ((3, 4), 3e-6), ((6, 7), 5e-6)):
    CAPACITIES[np.ix_(pair, pair)] = capacity * np.array([[1, -1], [-1, 1]])
CAPACITIES[2, 2], CAPACITIES[5, 5] = 2e-6, 4e-6


@pytest.mark.slow
def test_the_transistor_amplifier():
    # The digits at t = 0.2 are those of the Bari test set for initial value problems.
    start = [0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0]
    system = with_mass(transistors, CAPACITIES)
    found = pinn.consistent_start(system, start)
    assert found.num_differential == 5
    np.testing.assert_allclose(found.dy[2], -3 / 9000 / 2e-6, rtol=1e-13)
    solution = pinn.solve_constrained(system, start, 0.2)
    published = [
        *(-0.5562145012262709e-2, 0.3006522471903042e1, 0.2849958788608128e1),
        *(0.2926422536206241e1, 0.2704617865010554e1, 0.2761837778393145e1),
        *(0.4770927631616772e1, 0.1236995868091548e1),
    ]
    end, estimate = np.asarray(solution(0.2)), np.asarray(solution.error_estimate(0.2))
    np.testing.assert_allclose(end, published, rtol=1e-12)
    assert np.all(np.abs(end - published) <= 10 * estimate + 1e-15)
    assert np.all(estimate < 1e-12)


G = 9.81
swing = constrained_motion(
    lambda t, q, v, args: [0.0, -G], lambda t, q, args: q @ q - 1.0, num_coordinates=2
)


def test_the_pendulum_in_two_coordinates():
    # sin(angle / 2) = k sn(K - w t), released at rest from the height of the pivot, k^2 = 1/2.
    solution = pinn.solve_constrained(swing, [1.0, 0.0, 0.0, 0.0], 10.0)
    times, w = np.linspace(0.0, 10.0, 501), np.sqrt(G)
    sn, cn, _, _ = ellipj(ellipk(0.5) - w * times, 0.5)
    angle, speed = 2 * np.arcsin(np.sqrt(0.5) * sn), -2 * np.sqrt(0.5) * w * cn
    q = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    v = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = np.asarray(solution(times))
    assert found.shape == (501, 5)
    assert np.abs(found[:, :2] - q).max() < 1e-13
    assert np.abs(found[:, 2:4] - v).max() < 1e-12
    reaction = np.asarray(solution.derivative(times))[:, 4]  # twice this is the pull of the rod
    np.testing.assert_allclose(reaction, (speed**2 + G * np.cos(angle)) / 2, atol=1e-11)
    assert np.abs(np.sum(found[:, :2] ** 2, axis=1) - 1).max() < 1e-14
    estimate = np.asarray(solution.error_estimate(times))[:, :4]
    assert np.all(np.abs(found[:, :4] - np.hstack([q, v])) <= 10 * estimate + 1e-14)
    assert solution.result == RESULTS.successful
    assert float(solution.stats["multipliers"][0]) < 1e-14


def test_a_start_off_the_surface_is_moved_onto_it_along_its_normal():
    start = pinn.consistent_start(swing, [0.6, -0.9, 0.4, 0.1])
    q, v = np.asarray(start.y[:2]), np.asarray(start.y[2:4])
    np.testing.assert_allclose(q, np.array([0.6, -0.9]) / np.hypot(0.6, 0.9), rtol=1e-12)
    np.testing.assert_allclose(q @ v, 0.0, atol=1e-15)
    with pytest.raises(ValueError, match=r"consistent_start finds \[0\.55470"):
        pinn.solve_constrained(swing, [0.6, -0.9, 0.4, 0.1], 1.0)


def kepler(t, y, args):
    distance = jnp.hypot(y[0], y[1])
    return [y[2], y[3], -y[0] / distance**3, -y[1] / distance**3]


def energy_and_momentum(t, y, args):
    energy = 0.5 * (y[2] ** 2 + y[3] ** 2) - 1 / jnp.hypot(y[0], y[1])
    return jnp.stack([energy, y[0] * y[3] - y[1] * y[2]])


@pytest.mark.slow
def test_energy_and_momentum_are_held():
    y0, period = jnp.array([0.4, 0.0, 0.0, 2.0]), 2 * np.pi
    free = from_function(kepler, 4)
    held = with_invariants(free, energy_and_momentum, y0)
    loose = pinn.solve_constrained(held, y0, 3 * period, rtol=1e-4)
    edges = loose(loose.stats["edges"])
    kept = jax.vmap(lambda y: energy_and_momentum(0.0, y, None))(edges)
    np.testing.assert_allclose(kept, np.tile([-0.5, 0.8], (len(edges), 1)), atol=3e-15)
    solution = pinn.solve_constrained(held, y0, 3 * period)
    assert solution.ys.shape == (1001, 4)
    for turns in (1, 2, 3):
        off = np.abs(solution(turns * period) - y0)
        assert np.all(off <= 10 * solution.error_estimate(turns * period))
        assert np.all(off < 1e-12)
    assert np.all(np.asarray(solution.stats["multipliers"]) < 1e-13)
    exact = pinn.solve(free, y0, 3 * period)
    np.testing.assert_allclose(solution.ys, exact(solution.ts), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_motion_that_is_forced_onto_a_circle():
    # A constant wind along x, with the norm held, turns to the wind: tan(phi / 2) = exp(-t).
    wind = from_function(lambda t, y, args: [1.0 + 0 * y[0], 0 * y[1]], 2)
    held = with_invariants(wind, lambda t, y, args: y @ y / 2, [0.0, 1.0])
    solution = pinn.solve_constrained(held, [0.0, 1.0], 3.0)
    times = np.linspace(0.0, 3.0, 101)
    right(solution, times, np.stack([np.tanh(times), 1 / np.cosh(times)], axis=1), 1e-13)
    assert float(solution.stats["multipliers"][0]) == pytest.approx(np.log(np.cosh(3.0)))


def raw_pendulum(t, y, dy, args):
    return [
        *(dy[0] - y[2], dy[1] - y[3]),
        *(dy[2] + y[4] * y[0], dy[3] + y[4] * y[1] + G),
        *([y[0] ** 2 + y[1] ** 2 - 1.0] if args is None else [y[0] * y[2] + y[1] * y[3]]),
    ]


PENDULUM = [1.0, 0.0, 0.0, 0.0, 0.0]
mixed = with_mass(lambda t, y, args: [-y[0] + y[1], y[0] - 2 * y[1]], np.diag([1.0, 0.0]))


@refusals(
    (lambda: pinn.solve_constrained(implicit(raw_pendulum, 5), PENDULUM, 1.0),
     "index 2 or more at t = 0.0.*Replace a constraint by its time derivative"),
    (lambda: pinn.consistent_start(implicit(raw_pendulum, 5, args=1), PENDULUM),
     "must have index 1, got index 2"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.4], 1.0),
     r"y0 must be consistent.*consistent_start finds \[1.0, 0.5\]"),
    (lambda: pinn.consistent_start(with_mass(lambda t, y, args: [y[0], y[0]], np.zeros((2, 2))),
                                   [1.0, 0.0]), "leave a component free"),
    (lambda: pinn.consistent_start(
        with_mass(lambda t, y, args: [-y[0], y[1] ** 2 + 1.0], np.diag([1.0, 0.0])), [1.0, 0.5]),
     "y0 must have a consistent state near it, got none"),
    (lambda: pinn.solve_constrained(circle, [0.3], 1.0, args={"size": 1.0, "w": 1.0}),
     "dy0 must be near the derivative"),
    (lambda: pinn.consistent_start(mixed, [1.0, 0.5], fixed=[0, 1]), "fixed must be 1 components"),
    (lambda: pinn.consistent_start(mixed, [1.0, 0.5], fixed=["z"]), "fixed must name different"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.5, 0.0], 1.0), r"y0 must have shape \(2,\)"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.5], 1.0, dy0=[1.0]), "dy0 must have shape"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.5], -1.0), "t1 must be finite and later"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.5], 1.0, num_points=4), "at least 8, got 4"),
    (lambda: pinn.solve_constrained(mixed, [1.0, 0.5], 1.0, max_window=0.0), "must be positive"),
    (lambda: pinn.solve_constrained(mixed, [1.0, np.nan], 1.0), "y0 must be finite"),
    (lambda: with_mass(lambda t, y, args: y, np.zeros((2, 3))), "mass must be a square matrix"),
    (lambda: with_mass(lambda t, y, args: y, np.eye(2), 3), r"dim must be one number.*\[3, 2\]"),
    (lambda: pinn.consistent_start(implicit(lambda t, y, dy, args: [dy[0]], 2), [1.0, 0.0]),
     r"F must return F\(t, y, y'\) of shape \(2,\), got shape \(1,\)"),
    (lambda: pinn.solve_constrained(
        with_mass(lambda t, y, args: [-y[0] + y[3], y[0] - 2 * y[1]], np.diag([1.0, 0.0])),
        [1.0, 0.5], 1.0), r"F must use the components y\[0\] to y\[1\], got y\[3\]"),
    (lambda: pinn.consistent_start(implicit(lambda t, y: y, 1), [1.0]), "F must be called as F",
     TypeError),
)  # fmt: skip
def test_refusals(case):
    case()


def test_consistent_starts():
    found = pinn.consistent_start(mixed, [1.0, 7.0])
    np.testing.assert_allclose(found.y, [1.0, 0.5], rtol=1e-15)
    np.testing.assert_allclose(found.dy, [-0.5, -0.25], rtol=1e-15)
    found = pinn.consistent_start(mixed, [1.0, 7.0], fixed=["y1"])
    np.testing.assert_allclose(found.y, [14.0, 7.0], rtol=1e-15)
    # 0 = z^3 + z - x, whose real root is found from far away.
    cubic = with_mass(lambda t, y, args: [-y[1], y[1] ** 3 + y[1] - y[0]], np.diag([1.0, 0.0]))
    found = pinn.consistent_start(cubic, [10.0, -30.0])
    np.testing.assert_allclose(found.y, [10.0, 2.0], rtol=1e-15)
    np.testing.assert_allclose(found.dy, [-2.0, -2.0 / 13], rtol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e9])
def test_the_index_does_not_depend_on_units(scale):
    units = scale ** np.array([1.0, -1.0, 2.0, 0.0, -2.0])
    rates, states = np.diag([1.0, 1.0, 1.0, 1.0, 0.0]), np.zeros((5, 5))
    states[0, 2] = states[1, 3] = -1.0
    states[2, 4], states[4, 0] = 1.0, 2.0  # a pendulum at rest on one side
    assert take_apart(rates * units, states * units).index == 2
    states[4, 4] = 1.0
    found = take_apart((rates * units).T * units, (states * units).T * units)
    assert (found.index, found.rank) == (1, 4)
    assert take_apart(np.diag(units), states).index == 0
    assert take_apart(rates, np.zeros((5, 5))).index == -1


@pytest.mark.slow
def test_the_march_stops_where_the_index_changes():
    # 0 = (1 - t) z - x: z grows without bound towards t = 1.
    system = with_mass(lambda t, y, args: [0 * t, (1 - t) * y[1] - y[0]], np.diag([1.0, 0.0]))
    with pytest.warns(UserWarning, match="the solution blows up"):
        solution = pinn.solve_constrained(system, [1.0, 1.0], 2.0, throw=False)
    assert solution.result == RESULTS.window_failed
    assert 0.99 < float(solution.t1) <= 1.0
    np.testing.assert_allclose(solution(0.9)[1], 10.0, rtol=1e-12)
    assert np.isnan(solution.ys[-1]).all()
    with pytest.raises(RuntimeError, match="The march stopped at t = "):
        pinn.solve_constrained(system, [1.0, 1.0], 2.0)
    with pytest.raises(RuntimeError, match="after 2 windows"):
        pinn.solve_constrained(system, [1.0, 1.0], 2.0, max_windows=2)


@pytest.mark.slow
def test_a_kink_is_met_and_estimated():
    # x' = -x + z with 0 = z - |cos t|: the kink at pi / 2 is no point of any window.
    def kinked(t, y, args):
        return [-y[0] + y[1], y[1] - jnp.abs(jnp.cos(t))]

    solution = pinn.solve_constrained(with_mass(kinked, np.diag([1.0, 0.0])), [0.0, 1.0], 4.0)
    times = np.linspace(0.0, 4.0, 401)

    def particular(t):
        return (np.cos(t) + np.sin(t)) / 2

    def before(t):
        return particular(t) - 0.5 * np.exp(-t)

    kink = np.pi / 2
    x = np.where(
        times < kink,
        before(times),
        -particular(times) + (before(kink) + particular(kink)) * np.exp(-(times - kink)),
    )
    error = np.abs(np.asarray(solution(times)) - np.stack([x, np.abs(np.cos(times))], axis=1))
    assert error.max() < 1e-9
    assert np.all(error <= 10 * np.asarray(solution.error_estimate(times)) + ROUNDING)


@pytest.mark.slow
def test_single_precision():
    y0 = jnp.array([1.0, 0.5], jnp.float32)
    solution = pinn.solve_constrained(mixed, y0, 2.0)
    assert solution.ys.dtype == jnp.float32
    truth = np.exp(-np.asarray(solution.ts) / 2)[:, None] * np.array([1.0, 0.5])
    error = np.abs(np.asarray(solution.ys) - truth)
    assert error.max() < 1e-6
    assert np.all(error <= 10 * np.asarray(solution.error_estimate(solution.ts)))


@pytest.mark.parametrize("time", [0, 0.0, np.float64(0.0)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_motion_is_asked_at_times_of_any_dtype(dtype, time):
    y = jnp.array([1.0, 0.0, 0.0, 2.0, 0.0, 0.0], dtype)
    missed = swing(time, y, jnp.zeros(6, dtype))
    assert missed.dtype == dtype
    np.testing.assert_allclose(missed[4:], 0.0, atol=1e-7)  # on the circle, and along it


def test_traced_arguments_are_refused_with_the_remedy():
    def end(k):
        mixed = with_mass(lambda t, y, args: [-k * y[0], y[0] + y[1] - 1], np.diag([1.0, 0.0]))
        return pinn.solve_constrained(mixed, [0.5, 0.5], 1.0)(1.0)[0]

    for transform in (jax.jit, jax.grad):  # k is closed over
        with pytest.raises(
            ValueError, match=r"must not be traced, .*: call it outside of jax\.jit"
        ):
            transform(end)(1.0)
