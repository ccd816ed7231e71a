"""No constant has a unit: who measures a component or the time in others gets the same answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from physml import nn, pinn, reference, systems
from physml.pinn.collocation import Tolerance
from physml.pinn.training._scales import find_scales
from physml.results import RESULTS


def lotka_volterra(t, y):
    return [1.1 * y[0] - 0.4 * y[0] * y[1], 0.1 * y[0] * y[1] - 0.4 * y[1]]


def lorenz(t, y):
    return [10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]]


def chain(t, y):
    return [-0.7 * y[0], 0.7 * y[0] - 0.25 * y[1], 0.25 * y[1] - 0.1 * y[2], 0.1 * y[2]]


def enzyme(t, y):
    binding, release, product = y[0] * y[1], 0.5 * y[2], 0.3 * y[2]
    return [release + product - binding, release - binding, binding - release - product, product]


def van_der_pol(t, y):
    return [y[1], 100.0 * (1.0 - y[0] ** 2) * y[1] - y[0]]


def driven(t, y):
    return [y[1], jnp.cos(0.5 * t) - 0.4 * y[1] - y[0]]


def decay(t, y):
    return [-y[0], y[0] - 0.5 * y[1]]


def cancelling(t, y):
    """Component 2 stays zero but for rounding, component 3 exactly."""
    return [y[1], 1.0 - y[0], 1e3 * y[0] / 3.0 - y[0] * (1e3 / 3.0), 0.0 * y[0]]


def conserved(t, y):
    """Component 2 is the difference of two that stay equal."""
    return [-y[0] + 0.1 * y[0] ** 2, -y[1] + 0.1 * y[1] ** 2, y[0] - y[1]]


CASES = {
    f.__name__: (f, y0, t1)
    for f, y0, t1 in (
        (lotka_volterra, [10.0, 5.0], 20.0),
        (lorenz, [1.0, 1.0, 1.0], 5.0),
        (chain, [1.0, 0.0, 0.0, 0.0], 20.0),
        (enzyme, [5.0, 1.0, 0.0, 0.0], 50.0),
        (van_der_pol, [2.0, 0.0], 100.0),
        (driven, [0.0, 0.0], 20.0),
        (decay, [1.0, 0.0], 650.0),
        (cancelling, [0.0, 0.0, 0.0, 0.0], 20.0),
        (conserved, [1.0, 1.0, 0.0], 10.0),
    )
}
FAST = ["decay"]  # each case is a program to compile


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


NAMES = pytest.mark.parametrize("name", [*FAST, *slow(*((x,) for x in CASES if x not in FAST))])


@functools.cache
def in_other_units(name):
    """The system measured in the units that its arguments say, so that one program does for all."""
    f, y0, t1 = CASES[name]

    def scaled(t, y, units):
        state, time = units
        return state / time * jnp.stack([jnp.asarray(x) for x in f(t / time, y / state)])

    return systems.from_function(scaled, dim=len(y0), autonomous=False), np.array(y0), t1


def draws(dim, count, most=18):
    random = np.random.default_rng(dim)
    for _ in range(count):
        yield (
            10.0 ** random.integers(-most, most + 1, dim),
            10.0 ** random.integers(-most, most + 1),
        )


def relative(ys, truth):
    """The largest difference of each component relative to its own size."""
    size = np.max(np.abs(truth), axis=0)
    return np.max(np.abs(ys - truth), axis=0) / np.where(size > 0, size, 1.0)


@NAMES
def test_solve_gives_the_same_answer_in_any_unit(name):
    system, y0, t1 = in_other_units(name)
    plain = pinn.solve(system, y0, t1, args=(jnp.ones(len(y0)), jnp.ones(())))
    real = np.max(np.abs(plain.ys), axis=0) > 1e-10  # the others are rounding
    for state, time in draws(len(y0), 5):
        units = jnp.asarray(state), jnp.asarray(time)
        solution = pinn.solve(system, y0 * state, t1 * time, args=units)
        assert solution.result == plain.result == RESULTS.successful
        ys = np.asarray(solution.ys) / state
        assert np.all(relative(ys[:, real], np.asarray(plain.ys)[:, real]) < 1e-9)
        assert np.all(np.abs(ys[:, ~real]) < 1e-10)
        count, others = (int(s.stats["num_windows"]) for s in (plain, solution))
        assert others <= 2 * count


def test_a_component_that_starts_at_zero_is_right_in_large_units():
    system, _, _ = in_other_units("decay")
    solution = pinn.solve(system, [1e13, 0.0], 10.0, args=(jnp.ones(2), jnp.ones(())))
    t = np.asarray(solution.ts)
    right = 1e13 * (np.exp(-0.5 * t) - np.exp(-t)) / 0.5
    assert np.max(np.abs(solution.ys[:, 1] - right)) < 1e-14 * np.max(right)


@pytest.mark.slow
def test_enzyme_kinetics_scales_with_its_amounts():
    """Amounts of u, 5u, and a rate of 1/u: the solution for u = 1, times u."""
    system, start = in_other_units("enzyme")[0], np.array([1.0, 5.0, 0.0, 0.0])

    def solved(unit):
        units = jnp.full(4, unit), jnp.ones(())
        return np.asarray(pinn.solve(system, start * unit, 50.0, args=units).ys) / unit

    plain = solved(1.0)
    for unit in (1e-15, 1e-11, 1e-9, 1e9, 1e15):
        ys = solved(unit)
        assert np.max(relative(ys, plain)) < 1e-13
        np.testing.assert_allclose(ys[:, 0] + ys[:, 2], 1.0, rtol=1e-13)


@pytest.mark.slow
def test_single_precision_gives_the_same_answer_in_any_unit():
    f, y0, t1 = CASES["lotka_volterra"]

    def scaled(t, y, state):
        return state * jnp.stack(f(t, y / state))

    system = systems.from_function(scaled, dim=2)
    ones = jnp.ones(2, jnp.float32)
    plain = pinn.solve(system, jnp.asarray(y0, jnp.float32), t1, args=ones)
    for powers in ((6, -6), (-6, 6), (-6, -5)):
        state = jnp.asarray(10.0 ** np.array(powers), jnp.float32)
        solution = pinn.solve(system, jnp.asarray(y0, jnp.float32) * state, t1, args=state)
        assert np.max(relative(np.asarray(solution.ys / state[None]), np.asarray(plain.ys))) < 1e-5


@pytest.mark.slow
def test_an_absolute_tolerance_is_in_the_units_of_the_state():
    """A residual below it is not looked at: there are fewer windows."""
    system, y0, t1 = in_other_units("enzyme")
    units = jnp.ones(4), jnp.ones(())
    fine, coarse = (pinn.solve(system, y0, t1, args=units, atol=atol) for atol in (None, 1e-3))
    assert int(coarse.stats["num_windows"]) < int(fine.stats["num_windows"])
    assert np.max(np.abs(coarse.ys - fine.ys)) < 1e-3


def test_the_message_says_what_an_absolute_tolerance_would_do():
    assert "atol=..., in the units of the state" in Tolerance(jnp.asarray(1e-10), None).advice
    assert Tolerance(jnp.asarray(1e-10), jnp.asarray(1e-9)).advice == ""


@pytest.mark.parametrize(
    ("name", "stiff"),
    [
        ("cancelling", False),
        *slow(("enzyme", True), ("enzyme", False), ("cancelling", True)),
        *slow(*((x, y) for x in ("lotka_volterra", "chain", "driven") for y in (False, True))),
    ],
)
def test_the_reference_gives_the_same_answer_in_any_unit(name, stiff):
    system, y0, t1 = in_other_units(name)
    ts = np.linspace(0.0, min(t1, 10.0), 21)
    plain = reference.solve(system, y0, ts, args=(jnp.ones(len(y0)), jnp.ones(())), stiff=stiff)
    real = np.max(np.abs(plain.ys), axis=0) > 1e-10
    for state, time in draws(len(y0), 3):
        units = jnp.asarray(state), jnp.asarray(time)
        solution = reference.solve(system, y0 * state, ts * time, args=units, stiff=stiff)
        ys = np.asarray(solution.ys) / state
        accuracy = 1e-8 if stiff else 1e-9  # of many steps of 1e-10 that differ by their rounding
        assert np.all(relative(ys[:, real], np.asarray(plain.ys)[:, real]) < accuracy)
        assert np.all(np.abs(ys[:, ~real]) < 1e-10)


@pytest.mark.parametrize("name", ["chain", "cancelling", *slow(("lotka_volterra",))])
def test_reference_trajectories_are_the_same_in_any_unit(name):
    system, y0, _ = in_other_units(name)
    ts = np.linspace(0.0, 5.0, 51)
    plain = reference.trajectories_from(
        system, y0[None], ts, args=(jnp.ones(len(y0)), jnp.ones(()))
    ).ys[0]
    real = np.max(np.abs(plain), axis=0) > 1e-10
    for state, time in draws(len(y0), 3):
        units = jnp.asarray(state), jnp.asarray(time)
        solved = reference.trajectories_from(system, (y0 * state)[None], ts * time, args=units)
        ys = np.asarray(solved.ys[0]) / state
        assert np.all(relative(ys[:, real], np.asarray(plain)[:, real]) < 1e-9)


@pytest.mark.slow
def test_the_certificate_is_relative_to_each_component():
    system, y0, _ = in_other_units("chain")
    state, time = np.array([1e13, 1e-13, 1e6, 1e-18]), 1e18
    units = jnp.asarray(state), jnp.asarray(time)
    ts = np.linspace(0.0, 10.0, 11) * time
    solution = reference.solve(system, y0 * state, ts, args=units, certify=True)
    estimate = np.asarray(solution.error_estimate(solution.ts)) / state
    assert np.max(estimate) < 1e-13


def test_a_bundle_is_the_same_in_any_unit():
    f, y0, _ = CASES["lotka_volterra"]

    def scaled(t, y, units):
        state, time = units
        return state / time * jnp.stack(f(t / time, y / state))

    system, key = systems.from_function(scaled, dim=2), jax.random.key(0)
    box = np.array([[9.0, 4.0], [11.0, 6.0]])
    answers = []
    for state, time in (([1.0, 1.0], 1.0), ([1e15, 1e-12], 1e-14)):
        units = jnp.asarray(state), jnp.asarray(time)
        trained = pinn.bundle(system, box * np.array(state), time, key=key, args=units, units=60)
        at = jnp.asarray(np.array(y0) * state)
        answers.append(np.asarray(trained(0.7 * time, at)) / state)
    assert np.max(np.abs(answers[1] / answers[0] - 1)) < 1e-9


@pytest.mark.parametrize(
    "name",
    [
        "lotka_volterra",
        pytest.param(
            "cancelling",
            marks=pytest.mark.xfail(
                jax.__version_info__ >= (0, 12),
                reason="rounding chooses the steps of the probe",
                strict=True,
            ),
        ),
    ],
)
def test_scales_follow_the_units(name):
    system, y0, t1 = in_other_units(name)

    def found(state, time):
        units, span = (jnp.asarray(state), jnp.asarray(time)), jnp.asarray(t1 * time)
        scales = find_scales(system, jnp.asarray(y0 * state), jnp.zeros(()), span, units)
        return np.append(scales.state / state, scales.time / time)

    plain = found(np.ones(len(y0)), 1.0)
    moving = np.append(np.arange(len(y0)) < 2, True)
    for state, time in draws(len(y0), 3):
        np.testing.assert_allclose(found(state, time)[moving], plain[moving], rtol=1e-9)


@pytest.mark.slow
def test_training_is_the_same_in_any_unit():
    f, y0, _ = CASES["lotka_volterra"]

    def scaled(t, y, units):
        state, time = units
        return state / time * jnp.stack(f(t / time, y / state))

    system = systems.from_function(scaled, dim=2)
    answers = []
    for state, time in ((np.ones(2), 1.0), (np.array([1e12, 1e-15]), 1e9)):
        units = jnp.asarray(state), jnp.asarray(time)
        network = nn.MLP(1, (20,), 2, activation="sin", rngs=nnx.Rngs(0), dtype=jnp.float64)
        solution = pinn.train(
            network, system, np.array(y0) * state, 2.0 * time, args=units
        ).solution
        assert solution.result == RESULTS.successful
        answers.append(np.asarray(solution.ys) / state)
    assert np.max(relative(answers[1], answers[0])) < 1e-7


@pytest.mark.slow
def test_heat_spreads_from_one_point_through_a_chain_of_zeros():
    """The point d cells away begins as the d-th power of the time, in no window of size one."""
    num = 12
    matrix = (np.eye(num, k=1) - 2 * np.eye(num) + np.eye(num, k=-1)) * (num + 1) ** 2
    system, start = systems.from_function(lambda t, y, m: m @ y, dim=num), np.eye(num)[0]
    solution = pinn.solve(system, start, 0.05, args=jnp.asarray(matrix))
    values, vectors = np.linalg.eigh(matrix)
    decay = np.exp(np.asarray(solution.ts)[:, None] * values[None])
    right = (decay * (vectors.T @ start)[None]) @ vectors.T
    assert solution.result == RESULTS.successful
    assert np.max(relative(np.asarray(solution.ys), right)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "length", "time"),
    [((1e-11, 1e13), 1.0, 1.0), ((1e18, 1e-18), 1e-9, 1e12), ((1e13, 1e-11), 1e6, 1e-9)],
)
def test_a_partial_equation_of_two_unknowns_is_right_in_any_unit(state, length, time):
    """A substance that decays into another, both of which spread; the second starts at zero."""
    slow, fast, rate = 0.1, 0.3, 1.0
    units = jnp.asarray(state)

    def equations(w, x, t):
        (a, _), changes = w(x, t) / units, w.t(x, t) * time / units
        bends = w.xx(x, t) * length**2 / units
        return changes - jnp.stack([slow * bends[0] - rate * a, fast * bends[1] + rate * a])

    solution = pinn.pde(
        equations,
        {"x": (0.0, length), "t": (0.0, time)},
        {
            ("t", 0.0): lambda w, x, t: w(x, t) - units * jnp.array([1.0, 0.0])
            * jnp.sin(jnp.pi * x / length),
            ("x", 0.0): lambda w, x, t: w(x, t),
            ("x", length): lambda w, x, t: w(x, t),
        },
        components=2,
    )  # fmt: skip
    x = np.linspace(0.0, 1.0, 11)[:, None]
    first, second = slow * np.pi**2 + rate, fast * np.pi**2
    made = rate * (np.exp(-first) - np.exp(-second)) / (second - first)
    right = np.array([np.exp(-first), made]) * np.sin(np.pi * x)
    at = x[:, 0] * length, np.full(11, time)
    error = np.abs(np.asarray(solution(*at)) / np.array(state) - right)
    assert solution.result == RESULTS.successful
    assert np.max(error / np.max(right, axis=0)) < 1e-10
    estimate = np.asarray(solution.error_estimate(*at)) / np.array(state)
    assert np.all((error < 1e-13) | (estimate > error / 10))
