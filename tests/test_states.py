"""States as people write them, higher orders and time backwards, against closed forms and SciPy."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.integrate import solve_ivp

import physml
from physml import pinn, reference, systems
from physml._numerics.interpreter import by_pairs
from physml.results import RESULTS
from physml.systems.states import Structure, take_apart_state

TURN = np.linspace(0.0, 2.0, 41)


class Body(NamedTuple):
    x: Any
    v: Any


def kepler(t, y, mu):
    distance = jnp.sqrt(jnp.sum(y["x"] ** 2))
    return {"x": y["v"], "v": -mu * y["x"] / distance**3}


def ellipse(t, eccentricity):
    """Where a body of mu = 1 and semi-major axis 1 is, by Kepler's equation."""
    anomaly = t + 0.0
    for _ in range(60):
        missing = anomaly - eccentricity * np.sin(anomaly) - t
        anomaly = anomaly - missing / (1 - eccentricity * np.cos(anomaly))
    minor = np.sqrt(1 - eccentricity**2)
    place = np.stack([np.cos(anomaly) - eccentricity, minor * np.sin(anomaly)], axis=-1)
    rate = 1 / (1 - eccentricity * np.cos(anomaly))
    return place, np.stack([-np.sin(anomaly) * rate, minor * np.cos(anomaly) * rate], axis=-1)


HAMILTONIAN = jnp.array([[1.0, 0.5 - 0.2j], [0.5 + 0.2j, -0.3]])


def schroedinger(t, psi):
    return -1j * (HAMILTONIAN @ psi)


@pytest.fixture(scope="module")
def levels():
    return pinn.solve(schroedinger, jnp.array([1.0 + 0j, 0.5j]), 5.0)


def exact_levels(t):
    values, vectors = np.linalg.eigh(np.asarray(HAMILTONIAN))
    parts = vectors.conj().T @ np.array([1.0, 0.5j])
    return np.exp(-1j * np.outer(t, values)) * parts @ vectors.T


@pytest.mark.slow
def test_complex_amplitudes_keep_their_norm(levels):
    exact = exact_levels(levels.ts)
    off = np.abs(levels.ys - exact)
    assert levels.ys.dtype == complex and levels.ys.shape == (1001, 2)
    assert off.max() < 1e-14
    estimate = np.asarray(levels.error_estimate(levels.ts))
    assert estimate.dtype == float and estimate.shape == (1001, 2)
    assert np.all(off <= 1e-15 + 10 * estimate) and estimate.max() < 1e-13
    np.testing.assert_allclose(np.sum(np.abs(levels(2.5)) ** 2), 1.25, rtol=1e-14)
    slopes = -1j * exact @ np.asarray(HAMILTONIAN).T
    np.testing.assert_allclose(levels.derivative(levels.ts), slopes, atol=1e-9)
    until, censored = levels.valid_until(1e-12)
    assert bool(censored) and float(until) == 5.0
    assert "(2,)" in repr(levels)


def test_what_is_not_holomorphic():
    """z' = conj(z) + |z|^2 is x' = x + x^2 + y^2, y' = -y."""
    start = 0.1 + 0.2j
    ours = reference.solve(
        lambda t, z: jnp.conj(z) + (jnp.abs(z) ** 2).astype(complex), start, TURN[:21]
    )
    theirs = solve_ivp(
        lambda t, y: [y[0] + y[0] ** 2 + y[1] ** 2, -y[1]], (0.0, 1.0), [0.1, 0.2],
        method="DOP853", t_eval=TURN[:21], rtol=1e-13, atol=1e-15,
    )  # fmt: skip
    np.testing.assert_allclose(ours.ys, theirs.y[0] + 1j * theirs.y[1], rtol=1e-12)


@pytest.mark.parametrize("solver", ["reference", pytest.param("pinn", marks=pytest.mark.slow)])
def test_a_body_on_its_ellipse(solver):
    start = {"x": [0.7, 0.0], "v": np.array([0.0, np.sqrt(1.3 / 0.7)])}
    atol = {"x": 1e-13, "v": [1e-13, 1e-13]}
    ts = np.linspace(0.0, 6.0, 61)
    if solver == "pinn":
        orbit = pinn.solve(kepler, start, 6.0, args=1.0, ts=ts)
    else:
        orbit = reference.solve(kepler, start, ts, args=1.0, atol=atol)
    places, speeds = ellipse(ts, 0.3)
    bound = 1e-13 if solver == "pinn" else 1e-11
    assert np.abs(orbit.ys["x"] - places).max() < bound
    assert np.abs(orbit.ys["v"] - speeds).max() < bound
    np.testing.assert_allclose(orbit(1.2)["x"], places[12], atol=bound)
    assert orbit(ts[:4])["v"].shape == (4, 2)
    np.testing.assert_allclose(orbit.derivative(1.2)["x"], speeds[12], atol=1e-8)
    if solver == "pinn":
        off, estimate = np.abs(orbit.ys["x"] - places), orbit.error_estimate(ts)["x"]
        assert np.all(off <= 1e-15 + 10 * np.asarray(estimate))
    with pytest.raises(ValueError, match=r"t must lie in \[0\.0, 6\.0\]"):
        orbit(6.5)


def test_trees_under_jit_vmap_and_grad():
    def last(stiffness, start):
        f = systems.second_order(lambda t, x, v, k: -k * x)
        return reference.solve(f, (start, 0.0 * start), [0.0, 1.0], args=stiffness, max_steps=64)

    solutions = jax.jit(jax.vmap(last))(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0]))
    assert isinstance(solutions.ys, tuple) and solutions.ys[0].shape == (2, 2)
    exact = np.cos([1.0, 2.0]) * [1.0, 2.0]
    np.testing.assert_allclose(solutions.ys[0][:, 1], exact, rtol=1e-11)
    assert "a batch of (2,)" in repr(solutions)
    slope = jax.grad(lambda k: last(k, jnp.asarray(1.0))(1.0)[0])(4.0)
    np.testing.assert_allclose(slope, -np.sin(2.0) / 4, rtol=1e-10)


def test_vectors_are_solved_bit_for_bit_as_before():
    def f(t, y, k):
        return jnp.stack([y[1], -k * y[0]])

    start = jnp.array([1.0, 0.5])
    systems_of = [f, systems.from_function(f, 2), systems.from_function(f, like=start)]
    found = [reference.solve(one, start, TURN, args=2.0) for one in systems_of]
    for other in found[1:]:
        assert other.structure is None
        assert np.asarray(other.ys).tobytes() == np.asarray(found[0].ys).tobytes()
    text = [
        str(jax.make_jaxpr(lambda t, y, one=one: one(t, y, 2.0))(0.0, start))
        for one in systems_of[1:]
    ]
    assert text[0] == text[1]


# Higher orders.


def test_second_order_from_a_function():
    """x'' = -2 x' - 5 x from (1, 0): exp(-t) (cos 2t + sin 2t / 2)."""
    damped = systems.second_order(lambda t, x, v, k: -2 * v - k * x)
    solution = pinn.solve(damped, (1.0, 0.0), 3.0, args=5.0)
    t = np.asarray(solution.ts)
    x = np.exp(-t) * (np.cos(2 * t) + 0.5 * np.sin(2 * t))
    v = -2.5 * np.exp(-t) * np.sin(2 * t)
    np.testing.assert_allclose(solution.ys[0], x, atol=3e-15)
    np.testing.assert_allclose(solution.ys[1], v, atol=5e-15)
    off = np.abs(solution.ys[0] - x)
    assert np.all(off <= 1e-16 + 10 * np.asarray(solution.error_estimate(t)[0]))
    system = systems.from_function(damped, like=(1.0, 0.0), args=5.0)
    assert system.dim == 2
    np.testing.assert_allclose(system(0.0, jnp.array([1.0, 3.0])), [3.0, -11.0])


def test_named_entries_and_third_order():
    body = reference.solve(lambda t, y: Body(y.v, -y.x), Body([0.0], [1.0]), TURN)
    np.testing.assert_allclose(body.ys.x[:, 0], np.sin(TURN), atol=1e-12)
    assert type(body(1.0)) is Body
    third = reference.solve(systems.higher_order(lambda t, x, v, a: -x, 3), (1.0, -1.0, 1.0), TURN)
    np.testing.assert_allclose(third.ys[0], np.exp(-TURN), rtol=1e-11)


MASSES = jnp.array([[2.0, 1.0], [1.0, 3.0]])


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_a_residual_is_solved_for_the_highest_derivative(unit):
    def residual(t, x, v, a, k):
        return {"q": unit * (MASSES @ a["q"] + k * x["q"] + 0.1 * a["q"] ** 3)}

    state = ({"q": jnp.array([1.0, 0.5])}, {"q": jnp.zeros(2)})
    f = systems.from_residual(residual)
    _, a = f(0.0, state, 2.0)
    left = MASSES @ a["q"] + 2.0 * state[0]["q"] + 0.1 * a["q"] ** 3
    assert np.abs(left).max() < 1e-15

    def highest(k):
        return f(0.0, state, k)[1]["q"]

    jacobian = MASSES + jnp.diag(0.3 * a["q"] ** 2)
    slope = -jnp.linalg.solve(jacobian, state[0]["q"])
    np.testing.assert_allclose(jax.jacfwd(highest)(2.0), slope, rtol=1e-13)
    np.testing.assert_allclose(jax.jacrev(highest)(2.0), slope, rtol=1e-13)
    curved = -jnp.linalg.solve(jacobian, 0.6 * a["q"] * slope**2)
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(highest))(2.0), curved, rtol=1e-12)


@pytest.mark.slow
def test_residuals_solved_by_networks():
    """2 x'' + 2 sin x = 0 is the pendulum, to the same digits."""
    ours = pinn.solve(
        systems.from_residual(lambda t, x, v, a: 2 * a + 2 * jnp.sin(x)), (1.0, 0.0), 4.0
    )
    theirs = pinn.solve(systems.second_order(lambda t, x, v: -jnp.sin(x)), (1.0, 0.0), 4.0)
    assert np.abs(ours.ys[0] - theirs.ys[0]).max() < 2e-15
    assert np.all(np.asarray(ours.error_estimate(4.0)) < 1e-14)


@pytest.mark.slow
def test_where_the_residual_becomes_singular_the_solution_ends():
    ramp = systems.from_residual(lambda t, x, v, a: (t - 0.5) * a + v + 1)
    with pytest.warns(UserWarning, match=r"reference\.solve: .* stopped at t = 0\.4"):
        solution = reference.solve(ramp, (0.0, 1.0), [0.0, 1.0], throw=False, max_steps=1000)
    assert solution.result != RESULTS.successful
    assert 0.45 < float(solution.t1) <= 0.5


# Backwards.


def lorenz(t, y):
    return np.array([10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])


@pytest.mark.parametrize("solver", ["reference", pytest.param("pinn", marks=pytest.mark.slow)])
def test_back_along_an_arc(solver):
    ts = np.linspace(1.0, 0.6, 21)
    # A start on the attractor: backwards, others leave it within a fraction of a time unit.
    start = solve_ivp(lorenz, (0.0, 20.0), [1.0, 1.0, 1.0], rtol=1e-9, atol=1e-9).y[:, -1]
    if solver == "pinn":
        arc = pinn.solve(systems.Lorenz(), start, 0.6, t0=1.0, ts=ts)
    else:
        arc = reference.solve(systems.Lorenz(), start, ts, certify=True)
    theirs = solve_ivp(
        lorenz, (1.0, 0.6), start, method="DOP853", t_eval=ts, rtol=1e-13, atol=1e-12
    )
    assert (float(arc.t0), float(arc.t1)) == (1.0, 0.6)
    np.testing.assert_array_equal(arc.ts, ts)
    np.testing.assert_allclose(arc.ys, theirs.y.T, rtol=1e-8, atol=1e-8)
    # There and back again.
    again = reference.solve(systems.Lorenz(), arc.ys[-1], ts[::-1])
    assert np.abs(again.ys[-1] - start).max() < 1e-10
    between = np.linspace(0.62, 0.98, 7)
    np.testing.assert_allclose(arc(between), again(between), rtol=1e-9, atol=1e-9)
    slopes = np.array([lorenz(0.0, y) for y in np.asarray(arc(between))])
    np.testing.assert_allclose(arc.derivative(between), slopes, rtol=1e-8, atol=1e-8)
    error = np.asarray(arc.error_estimate(between))
    assert np.all((error >= 0) & (error < 1e-8))
    assert np.all(np.abs(arc(between) - again(between)) <= 1e-11 + 10 * error)
    until, censored = arc.valid_until(1e-8)
    assert bool(censored) and float(until) == 0.6
    if solver == "pinn":
        edges = np.asarray(arc.stats["edges"])
        assert edges[0] == 1.0 and edges[-1] == 0.6 and np.all(np.diff(edges) < 0)


def test_back_over_jumps():
    """y' is +1 or -1 by turns, from a jump and over one."""
    square = systems.SquareWave(low=-1.0, high=1.0, period=2.0, width=1.0, centre=0.5)
    for jump in square.jump_times(0.0, 4.0):
        before, after = square(jump - 0.25), square(jump + 0.25)
        assert float(before) == -float(after)
    jump = float(square.jump_times(1.5, 3.5)[0])
    system = systems.from_function(
        lambda t, y: square(t)[None] + 0 * y, 1, jumps=[jump, jump + 1.0]
    )
    for start in (jump, jump + 0.5):
        back = reference.solve(system, [0.0], np.linspace(start, jump - 0.5, 11))
        slope = float(square(jump - 0.25))
        exact = np.where(back.ts < jump, slope * (back.ts - jump), -slope * (back.ts - jump))
        exact = exact + slope * (start - jump)
        np.testing.assert_allclose(back.ys[:, 0], exact, atol=1e-14)


@pytest.mark.slow
def test_time_dependent_and_backwards_by_networks():
    """y' = 3 t^2 y is exp(t^3)."""
    back = pinn.solve(lambda t, y: 3 * t**2 * y, [np.e], -0.4, t0=1.0)
    np.testing.assert_allclose(back.ys[:, 0], np.exp(np.asarray(back.ts) ** 3), rtol=1e-14)
    roots = pinn.find_roots(back, lambda t, y, args: y[0] - jnp.exp(t * 0.25))
    times = np.asarray(roots.times)
    assert int(roots.count) == 2
    np.testing.assert_allclose(times[:2], [0.5, 0.0], atol=1e-13)  # t^3 = t / 4
    assert np.all(np.isneginf(times[3:]))


@pytest.mark.slow
def test_events_of_trees():
    """A ball that is thrown up against a ceiling, forwards and back."""
    fall = systems.second_order(lambda t, x, v, args: -10.0 + 0 * x)
    ceiling = pinn.Event(
        lambda t, y, args: y[0] - 1.0, restart=lambda t, y, args: (y[0], -args * y[1])
    )
    up = pinn.solve_events(fall, (0.0, 6.0), 0.5, ceiling, args=0.5)
    first = (6.0 - np.sqrt(16.0)) / 10
    assert up.times.shape == (1,)
    np.testing.assert_allclose(up.times, [first], atol=1e-15)
    np.testing.assert_allclose([up.before[1][0], up.after[1][0]], [4.0, -2.0], rtol=1e-14)
    since = 0.5 - first
    np.testing.assert_allclose(up(0.5)[0], 1.0 - 2 * since - 5 * since**2, atol=1e-14)
    back = pinn.solve_events(fall, up(0.5), 0.0, ceiling, t0=0.5, args=2.0)
    np.testing.assert_allclose(back.times, [first], atol=1e-14)
    np.testing.assert_allclose([back(0.0)[0], back(0.0)[1]], [0.0, 6.0], atol=1e-13)
    assert back.solution.t1 == 0.0


def by_steps(t, factor):
    """y' = factor y(t - 1) from the history 1."""
    terms = range(math.floor(t) + 2)
    return sum(factor**k * (t - k + 1) ** k / math.factorial(k) for k in terms)


LATE = systems.delayed(
    lambda t, y, past, args: {"z": 1j * past[0]["z"], "x": -past[1]["x"]}, [1.0, 1.0]
)


@pytest.fixture(scope="module")
def late():
    return pinn.solve_delays(LATE, {"z": 1.0 + 0j, "x": [1.0, 2.0]}, 2.5, atol={"z": 0, "x": 0})


def check_late(solution, t):
    found, error = solution(t), solution.error_estimate(t)
    off = abs(complex(found["z"]) - by_steps(t, 1j))
    assert off <= 1e-15 + 10 * float(error["z"]) and off < 1e-13
    np.testing.assert_allclose(found["x"], by_steps(t, -1.0) * np.array([1.0, 2.0]), atol=1e-14)
    assert error["x"].shape == (2,) and error["z"].dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.5, 1.75, 2.5])
def test_delays_of_trees(late, t):
    """Each delay sees a state."""
    check_late(late, t)
    assert late.ys["x"].shape == (1001, 2)


@pytest.mark.slow
def test_an_earlier_solution_of_trees_is_a_history(late):
    went_on = pinn.solve_delays(LATE, late, 3.25, t0=2.5)
    check_late(went_on, 3.25)
    assert went_on.structure == late.structure


@pytest.mark.slow
def test_a_delay_of_a_number_that_depends_on_it():
    """y' = y y(log y) / t, whose solution is exp(t / e) from t = e on."""
    neves = systems.delayed(
        lambda t, y, past, args: y * past[0] / t, lambda t, y, args: t - jnp.log(y)
    )
    solution = pinn.solve_delays(neves, lambda t: jnp.ones(()), 4.0, t0=1.0)
    t = np.array([1.5, 2.5, 3.0, 4.0])
    np.testing.assert_allclose(solution(t), np.where(t < np.e, t, np.exp(t / np.e)), rtol=1e-13)


SPIRAL = {"a": 1.0 + 0.5j, "c": 1.25}
DAMPED = 2j - 0.3


def intensity(t, y):
    """A number that turns and decays, and the square of its size."""
    return {"a": DAMPED * y["a"], "c": y["c"] - jnp.abs(y["a"]) ** 2}


@pytest.mark.slow
def test_constraints_of_trees():
    by_mass = systems.with_mass(intensity, {"a": 1.0, "c": 0.0}, like=SPIRAL)
    by_equations = systems.implicit(
        lambda t, y, dy, args: (dy["a"] - DAMPED * y["a"], y["c"] - jnp.abs(y["a"]) ** 2),
        like=SPIRAL,
    )
    assert by_mass.state_names == by_equations.state_names == ("a.re", "a.im", "c")
    start = pinn.consistent_start(by_mass, {"a": SPIRAL["a"], "c": 7.0})
    np.testing.assert_allclose(start.y["c"], SPIRAL["c"], rtol=1e-15)
    np.testing.assert_allclose(start.dy["c"], -0.6 * SPIRAL["c"], rtol=1e-14)
    turned = SPIRAL["a"] * np.exp(3 * DAMPED)
    for system in (by_mass, by_equations):
        found = pinn.solve_constrained(system, start.y, 3.0, dy0=start.dy, atol={"a": 0, "c": 0})
        np.testing.assert_allclose(found(3.0)["a"], turned, rtol=1e-14)
        np.testing.assert_allclose(found(3.0)["c"], abs(turned) ** 2, rtol=1e-14)
        np.testing.assert_allclose(found.derivative(3.0)["a"], DAMPED * turned, rtol=1e-12)
        assert found.error_estimate(3.0)["a"] < 1e-13
    vector = pinn.solve_constrained(by_mass, [1.0, 0.5, 1.25], 3.0)
    np.testing.assert_allclose(vector(3.0), [turned.real, turned.imag, abs(turned) ** 2])


@pytest.mark.slow
def test_invariants_of_trees():
    def energy(t, y, args):
        return y["v"] @ y["v"] / 2 - args / jnp.sqrt(y["x"] @ y["x"])

    start = {"x": [0.5, 0.0], "v": [0.0, np.sqrt(3.0)]}
    held = systems.with_invariants(lambda t, y, mu: kepler(t, y, mu), energy, start, args=1.0)
    solution = pinn.solve_constrained(held, start, 3.0)
    place, speed = ellipse(3.0, 0.5)
    np.testing.assert_allclose(solution(3.0)["x"], place, atol=1e-12)
    np.testing.assert_allclose(solution(3.0)["v"], speed, atol=1e-12)
    assert solution.stats["multipliers"].shape == (1,)


@pytest.mark.slow
def test_discover_in_what_is_written_as_a_tree():
    """The cubic damping that an oscillator lacks."""
    ts = np.linspace(0.0, 6.0, 150)
    damped = solve_ivp(
        lambda t, y: [-y[1] - 0.5 * y[0] ** 3, y[0]],
        *((0.0, 6.0), [1.0, 0.5]),
        t_eval=ts, rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    ys = damped.y.T + 1e-4 * np.random.default_rng(0).standard_normal((150, 2))
    free = systems.from_function(
        lambda t, y: {"v": -y["x"], "x": y["v"]}, like={"x": 0.0, "v": 0.0}
    )
    found = pinn.discover(
        *(free, ts, ys), component=0, inputs=[0], units=10, key=jax.random.key(0),
        y0={"v": 1.0, "x": 0.5},
    )  # fmt: skip
    assert found.names == ("v^3",)
    np.testing.assert_allclose(found.coefficients, [-0.5], atol=5 * found.sd[0])
    assert found.found.experiments[0].solution(1.0)["x"].shape == ()


@pytest.mark.slow
def test_identify_what_is_written_as_a_tree():
    rng = np.random.default_rng(0)
    ts = np.linspace(0.0, 6.0, 60)
    seen = np.cos(np.sqrt(2.0) * ts)[:, None] + 0.01 * rng.standard_normal((60, 1))
    found = pinn.identify(
        systems.second_order(lambda t, x, v, args: -args["k"] * x), ts, seen, free=("k",),
        y0=(1.0, 0.0), args={"k": 1.7}, observe=lambda y: y[0][None], noise=0.01, num_windows=6,
    )  # fmt: skip
    assert abs(found.values["k"] - 2.0) < 4 * found.sd["k"]
    assert isinstance(found.solution(1.0), tuple)


# Structures.

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
leaves = st.one_of(
    numbers,
    st.complex_numbers(max_magnitude=1e6, allow_nan=False, allow_infinity=False),
    arrays.arrays(float, arrays.array_shapes(max_dims=3, max_side=3), elements=numbers),
    arrays.arrays(
        complex,
        arrays.array_shapes(max_dims=2, max_side=3),
        elements=st.complex_numbers(max_magnitude=1e6, allow_nan=False, allow_infinity=False),
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
        st.tuples(inner, inner),
        st.builds(Body, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=12, deadline=None)
@given(trees)
def test_states_go_in_and_come_out(state):
    structure, vector = take_apart_state("y0", state)
    assert vector.shape == (structure.dim,) == (len(structure.names),)
    assert len(set(structure.names)) == structure.dim
    back = structure.unravel(vector)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for found, given_ in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert found.shape == np.shape(given_)
        np.testing.assert_array_equal(found, given_)
    assert Structure.of(back) == structure and hash(Structure.of(back)) == hash(structure)
    again = structure.ravel_answer("f", "dy/dt", back, vector.dtype)
    np.testing.assert_array_equal(again, vector)
    rows = structure.unravel(jnp.stack([vector, -vector]))
    for found, given_ in zip(jax.tree.leaves(rows), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(found[1], -jnp.asarray(given_))
    sizes = structure.unravel_sizes(vector)
    for found, given_ in zip(jax.tree.leaves(sizes), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(found, np.abs(given_), rtol=1e-15)


def in_complex_numbers(x):
    z = jax.lax.complex(x[:3], x[3:])
    real = jnp.arange(9.0).reshape(3, 3)
    mixed = jax.lax.complex(real, real.T - 1.0)
    w = -1j * (mixed @ z) + jnp.conj(z) * jnp.abs(z).astype(complex) ** 2
    w = w + jnp.exp(1j * z) / (2.0 + z) + jnp.log(z) + jnp.sin(z) * jnp.cosh(z) - jnp.cos(z)
    w = w + jnp.sinh(z) + z**3 + 1.0 / z**2 + jnp.sqrt(z) + jnp.tanh(z)
    w = w + jnp.fft.fft(z) + jnp.vdot(z, z) + jnp.roll(z, 1) + jnp.cumsum(z)
    w = jnp.where(x[:3] > 0, w, jnp.tan(z)) + w[jnp.array([1, 0, 2])].at[1].add(2j)
    w = jax.lax.fori_loop(0, 2, lambda _, w: w * w, w / 100.0)
    w = jax.jit(lambda w: w - 0.5j)(w)
    return jnp.concatenate([w.real, w.imag])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_pairs_compute_what_complex_numbers_do(seed):
    x = jax.random.normal(jax.random.key(seed), (6,))
    ours, theirs = by_pairs(in_complex_numbers), in_complex_numbers
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jax.jacfwd(ours)(x), jax.jacfwd(theirs)(x), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(jax.jacrev(ours)(x), jax.jacfwd(theirs)(x), rtol=1e-11, atol=1e-12)
    text = str(
        jax.make_jaxpr(by_pairs(lambda x: schroedinger(0.0, jax.lax.complex(x, x)).imag))(x[:2])
    )
    assert "c128" not in text.partition(" let")[2]  # nothing that is computed
    for size in (1e-200, 1e200):
        z = jnp.array([3.0, 4.0]) * size
        found = by_pairs(lambda y: jnp.abs(jax.lax.complex(y[0], y[1])))(z)
        np.testing.assert_allclose(found, 5.0 * size, rtol=1e-15)


def test_whole_numbers_become_floating_ones():
    structure, vector = take_apart_state("y0", {"n": 3, "x": np.arange(2, dtype=np.int32)})
    assert vector.dtype == jnp.float64 and structure.is_complex == (False, False)
    _, vector = take_apart_state("y0", {"n": 3, "x": np.ones(2, np.float32)})
    assert vector.dtype == jnp.float32


def test_solutions_of_trees_are_kept(tmp_path):
    orbit = reference.solve(kepler, {"x": [1.0, 0.0], "v": [0.0, 1.0]}, TURN[::-1], args=1.0)
    names = physml.save(tmp_path / "orbit", orbit)
    loaded = physml.load(tmp_path / "orbit", functions={name: kepler for name in names})
    assert loaded.structure == orbit.structure
    np.testing.assert_array_equal(loaded.ys["x"], orbit.ys["x"])
    np.testing.assert_array_equal(loaded(0.3)["v"], orbit(0.3)["v"])


def test_frames_of_trees():
    pytest.importorskip("pandas")
    turn = reference.solve(lambda t, y: {"z": 1j * y["z"]}, {"z": 1.0 + 0j}, TURN[::-1])
    frame = turn.to_dataframe()
    assert list(frame.columns) == ["z.re", "z.im"]
    np.testing.assert_allclose(frame["z.im"], np.sin(TURN[::-1] - 2.0), atol=1e-12)


def solved(f, y0, **options):
    return reference.solve(f, y0, [0.0, 1.0], **options)


@refusals(
    (lambda: solved(lambda t, y: y, {}), "y0 must hold numbers, got {}"),
    (
        lambda: solved(lambda t, y: y, {"x": None}),
        r"y0\['x'\] must hold numbers, got None",
        TypeError,
    ),
    (
        lambda: solved(lambda t, y: y, {"x": "a"}),
        r"y0\['x'\] must hold numbers, got 'a'",
        TypeError,
    ),
    (lambda: solved(lambda t, y: y, [[1.0], [1.0, 2.0]]), "y0 must be an array of", TypeError),
    (lambda: solved(lambda t, y: y, {"x": [1.0, np.nan]}), r"y0\['x'\] must be finite, got nan"),
    (
        lambda: solved(lambda t, y: y, {"x": np.ones(2), "v": np.ones(2, np.float32)}),
        r"y0 must have one precision, got float64 in y0\['x'\] and float32 in y0\['v'\]",
    ),
    (
        lambda: solved(lambda t, y: (y["x"], y["x"]), {"x": [1.0, 2.0]}),
        r"f must return dy/dt of the structure of the state, {'x': \(2,\)}, got \(\(2,\), \(2,\)\)",
    ),
    (
        lambda: solved(lambda t, y: {"x": y["x"][:1]}, {"x": [1.0, 2.0]}),
        r"f must return dy/dt\['x'\] of shape \(2,\), got shape \(1,\)",
    ),
    (lambda: solved(lambda t, y: None, {"x": 1.0}), r"\(is a `return` missing\?\)", TypeError),
    (lambda: solved(lambda t, y: {"x": 1j}, {"x": 1.0}), "start from complex numbers", TypeError),
    (
        lambda: solved(lambda t, y: {"x": y["x"][2] * y["x"]}, {"x": [1.0, 2.0]}),
        r"components y\['x'\]\[0\] to y\['x'\]\[1\], got y\['x'\]\[2\]",
    ),
    (lambda: solved(lambda t, y: y, {"x": 1.0}, args=3.0), "args must be None where f is called"),
    (lambda: solved(lambda: 1.0, {"x": 1.0}), "f must be called as", TypeError),
    (lambda: solved(lambda t, y: y, {"x": 1.0}, atol={"v": 1.0}), "atol must be a number or have"),
    (lambda: solved(systems.Lorenz(), {"x": 1.0}), "y0 must", TypeError),
    (
        lambda: solved(systems.from_function(lambda t, y: y, like={"x": 1.0}), {"v": 1.0}),
        "y0 must have the structure of the system's states",
    ),
    (lambda: systems.from_function(lambda t, y: y), "dim must be given, or like", TypeError),
    (lambda: systems.implicit(lambda t, y, dy, args: y), "dim must be given, or like", TypeError),
    (
        lambda: systems.with_mass(intensity, {"a": 1.0}, like=SPIRAL),
        r"mass must be a number or have the structure of like, {'a': \(\) complex, 'c': \(\)}",
    ),
    (
        lambda: pinn.consistent_start(
            systems.with_mass(intensity, {"a": 1.0, "c": 0.0}, like=SPIRAL), {"a": 1.0, "c": 1.0}
        ),
        r"y0 must have the structure .*{'a': \(\) complex, 'c': \(\)}, or shape \(3,\), got "
        r"{'a': \(\), 'c': \(\)}",
    ),
    (
        lambda: pinn.consistent_start(
            systems.implicit(lambda t, y, dy, args: dy["a"], like=SPIRAL), SPIRAL
        ),
        r"F must return F\(t, y, y'\) of shape \(3,\), got shape \(2,\)",
    ),
    (
        lambda: pinn.solve_delays(LATE, {"z": 1j, "x": [1.0, 2.0]}, 1.0, y0={"z": 1j}),
        "history must return a state of the structure of the state",
    ),
    (
        lambda: pinn.solve_delays(systems.MackeyGlass(), {"x": 1.0}, 1.0),
        r"history must be a state of shape \(dim,\), got {'x': \(\)}",
    ),
    (lambda: solved(systems.second_order(lambda t, x, v: -x), 1.0), "y0 must be the state"),
    (
        lambda: solved(systems.from_residual(lambda t, x, v, a: x * a + v), (0.0, 1.0)),
        "F must be solvable for x'' at the start, got one where its derivative in x'' is singular",
    ),
    (
        lambda: solved(
            systems.from_residual(lambda t, x, v, a: a**2 + 1 + x), (0.0, 1.0), args=None
        ),
        "F must be solvable for x'' at the start",
    ),
    (
        lambda: solved(
            systems.from_residual(lambda t, x, v, a: jnp.stack([a[0] + a[1], 3 * a[0] + 3 * a[1]])),
            (jnp.ones(2), jnp.ones(2)),
        ),
        "is singular",
    ),
    (lambda: reference.solve(systems.Lorenz(), jnp.ones(3), [1.0, 0.5, 0.7]), "ts must decrease"),
    (
        lambda: pinn.solve(systems.Lorenz(), jnp.ones(3), -1.0, ts=[0.0, 0.5]),
        "ts must decrease where time runs backwards",
    ),
)
def test_bad_input(call):
    call()


def test_modules_are_right_hand_sides():
    class Spring(eqx.Module):
        k: jax.Array

        def __call__(self, t, y):
            return {"x": y["v"], "v": -self.k * y["x"]}

    def at_end(k):
        solution = reference.solve(Spring(k), {"x": 1.0, "v": 0.0}, [0.0, 1.0], max_steps=64)
        return solution(1.0)["x"]

    slope = jax.grad(at_end)(jnp.asarray(4.0))
    np.testing.assert_allclose(slope, -np.sin(2.0) / 4, rtol=1e-10)


def shifted(t, z):
    """i z, by a loop whose sums lose three digits of a float."""
    return 1j * jax.lax.fori_loop(0, 2, lambda i, c: c + jnp.where(i == 0, 1e3, -1e3), z)


K = np.where(np.fft.fftfreq(8, 1 / 8) == -4, 0.0, np.fft.fftfreq(8, 1 / 8))
RING = 2 * np.pi * np.arange(8) / 8


def carried(t, u):
    """-u_x of a wave on a ring, by Fourier transforms of a large mean."""
    return -jnp.fft.ifft(1j * K * jnp.fft.fft(u + 1e3)).real


@pytest.mark.slow
@pytest.mark.parametrize(
    ("f", "y0", "truth"),
    [
        (shifted, 1.0 + 0.5j, lambda t: (1.0 + 0.5j) * np.exp(1j * t)),
        (carried, np.sin(RING), lambda t: np.sin(RING - t[:, None])),
    ],
)
def test_what_rounds_in_the_right_hand_side_is_corrected(f, y0, truth):
    solution = pinn.solve(f, jnp.asarray(y0), t1=2.0)
    ts = np.linspace(0.0, 2.0, 51)
    error, estimate = np.abs(solution(ts) - truth(ts)), solution.error_estimate(ts)
    assert np.max(estimate) < 2e-14 and np.all(error < 10 * np.max(estimate))
