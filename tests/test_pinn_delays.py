"""Equations with delays against closed forms and the method of steps by another solver."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import physml
from physml import pinn, systems
from physml.results import RESULTS

E = math.e


# One function for several tests, so that its programs are compiled once.
def _line(t, y, past, a):
    return a[0] * y + a[1] * past[0]


linear = systems.delayed(_line, 1.0)
DECAY = jnp.array([0.0, -1.0])
neves = systems.delayed(
    lambda t, y, past, args: y * past[0] / t, lambda t, y, args: t - jnp.log(y[0])
)


def decayed(t):
    """y' = -y(t - 1) from the history 1, in rational numbers."""
    terms = range(math.floor(t) + 2)
    return float(sum(Fraction(-1) ** k * (Fraction(t) - k + 1) ** k / math.factorial(k)
                     for k in terms))  # fmt: skip


def check(solution, t, truth, within):
    """The error is small, and the estimate is not too small for it, nor far too large."""
    errors = np.abs(np.asarray(solution(t))[:, 0] - truth)
    estimates = np.asarray(solution.error_estimate(t))[:, 0]
    rounding = 2e-15 * np.max(np.abs(truth))
    assert solution.result == RESULTS.successful
    assert errors.max() < within
    assert np.all(errors <= rounding + 10 * estimates)
    assert estimates.max() <= rounding + 100 * errors.max()


def test_a_linear_equation_against_its_closed_form():
    solution = pinn.solve_delays(linear, jnp.ones(1), 8.0, args=DECAY)
    t = np.arange(0, 8.01, 0.0625)
    check(solution, t, np.array([decayed(x) for x in t]), 1e-14)
    np.testing.assert_array_equal(solution.stats["breaks"], np.arange(9.0))
    slopes = [0.0 if x == 0 else -decayed(x - 1) if x >= 1 else -1.0 for x in t[1:]]
    np.testing.assert_allclose(solution.derivative(t[1:])[:, 0], slopes, atol=1e-11)


def test_an_answer_has_the_units_of_the_question():
    """The state in units of 1e9, the time in units of 1e-6."""
    scaled = systems.delayed(linear.function, 1e-6)
    solution = pinn.solve_delays(scaled, jnp.full(1, 1e9), 3e-6, args=1e6 * DECAY)
    t = np.array([0.5, 1.25, 3.0])
    np.testing.assert_allclose(
        solution(1e-6 * t)[:, 0], [1e9 * decayed(x) for x in t], rtol=1e-13, atol=1e-6
    )


def test_a_start_beside_its_history():
    """y(0) = 0 from the history 1: -t, and from t = 1 on -1 + (t - 1)^2 / 2."""
    solution = pinn.solve_delays(linear, jnp.ones(1), 2.0, y0=jnp.zeros(1), args=DECAY)
    t = np.linspace(0, 2, 41)
    check(solution, t, np.where(t <= 1, -t, -1 + np.maximum(t - 1, 0) ** 2 / 2), 1e-14)


@pytest.mark.slow
def test_a_solution_goes_on_from_an_earlier_one():
    first = pinn.solve_delays(linear, jnp.ones(1), 3.0, args=DECAY)
    second = pinn.solve_delays(linear, first, 6.0, t0=2.5, args=DECAY)
    t = np.linspace(2.5, 6, 31)
    check(second, t, np.array([decayed(x) for x in t]), 1e-14)
    # It might have jumped at 0, so that legs end at 3, 4 and 5.
    np.testing.assert_array_equal(first.stats["break_orders"], [0, 1, 2, 3])
    assert {3.0, 4.0, 5.0} <= set(np.asarray(second.stats["edges"]).tolist())
    assert int(second.stats["num_rejected"]) <= 1


def test_an_earlier_solution_that_is_too_short():
    """It is known from 0 on: not what a delay of 1 sees at 0.5."""
    first = pinn.solve_delays(linear, jnp.ones(1), 0.5, args=DECAY)
    with pytest.raises(ValueError, match=r"history must be known from t = -0.5 on, where delays"):
        pinn.solve_delays(linear, first, 2.0, t0=0.5, args=DECAY)
    with pytest.raises(ValueError, match=r"t0 must lie in \[0.0, 0.5\], where the history is"):
        pinn.solve_delays(linear, first, 2.0, t0=0.75, y0=[1.0], args=DECAY)


@pytest.mark.slow
def test_a_growing_delay_that_looks_before_what_is_known():
    """An earlier solution is known from 0 on; from 0.75 on a delay of 2 t - 0.75 looks before."""
    first = pinn.solve_delays(linear, jnp.ones(1), 0.5, args=DECAY)
    growing = systems.delayed(_line, lambda t, y, args: 0.25 + 2 * (t - 0.5))
    with pytest.warns(UserWarning, match="could not be solved"):
        solution = pinn.solve_delays(growing, first, 1.0, t0=0.5, args=DECAY, throw=False)
    assert float(solution.t1) == pytest.approx(0.75, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("declared", [True, False])
def test_a_history_that_changes_its_sign(declared):
    """From sign(t + 1/2): 1 + t, then 2 - t, and so on; the slope jumps at 1/2."""
    solution = pinn.solve_delays(
        linear, _sign, 2.0, args=DECAY, history_jumps=[-0.5] if declared else []
    )
    t = np.linspace(0, 2, 201)
    pieces = [1 + t, 2 - t, 1 - (t - 1) - (t - 1) ** 2 / 2,
              0.375 - 1.5 * (t - 1.5) + (t - 1.5) ** 2 / 2]  # fmt: skip
    check(solution, t, np.select([t <= 0.5, t <= 1, t <= 1.5, t <= 2], pieces), 2e-14)
    if declared:
        assert int(solution.stats["num_rejected"]) == 0
        np.testing.assert_array_equal(solution.stats["breaks"], [-0.5, 0, 0.5, 1, 1.5, 2])


def _sign(t):
    return jnp.where(t < -0.5, -1.0, 1.0)[None]


@pytest.mark.slow
def test_a_delay_that_depends_on_the_state():
    """t, then exp(t / e) from e on, then (e / (3 - log t))^e from e^2 on (Neves 1975)."""
    solution = pinn.solve_delays(neves, jnp.ones(1), 10.0, t0=1.0)
    t = np.linspace(1, 10, 301)
    last = (E / (3 - np.log(t))) ** E
    truth = np.where(t <= E, t, np.where(t <= E**2, np.exp(t / E), last))
    check(solution, t, truth, 2e-12)
    np.testing.assert_allclose(solution.stats["breaks"], [1, E, E**2], rtol=1e-13)


@pytest.mark.slow  # programs of its own
def test_the_end_may_be_where_a_delay_sees_a_break():
    """A delay that is a function is located there by rounding only, here just before the end."""
    same = systems.delayed(lambda t, y, past, args: -past[0], lambda t, y, args: 0.5 + 0.0 * t)
    constant = systems.delayed(lambda t, y, past, args: -past[0], 0.5)
    for t1 in (1.0, 2.0):
        found, truth = (pinn.solve_delays(x, jnp.ones(1), t1) for x in (same, constant))
        np.testing.assert_allclose(found(t1), truth(t1), rtol=0, atol=1e-15)


@pytest.mark.slow  # programs of its own
def test_an_error_moves_the_time_at_which_a_delay_sees_a_jump():
    """y' = 1 + y(y - 2) from 1 beside the history 0: 1 + t, then 2 exp(t - 1) from t = 1 on."""
    jump = systems.delayed(lambda t, y, past, args: 1 + past[0], lambda t, y, args: t - y[0] + 2)
    solution = pinn.solve_delays(jump, jnp.zeros(1), 1.4, y0=jnp.ones(1))
    t = np.linspace(0, 1.4, 101)
    check(solution, t, np.where(t <= 1, 1 + t, 2 * np.exp(t - 1)), 4e-14)
    np.testing.assert_allclose(solution.stats["breaks"], [0, 1], atol=1e-14)


@pytest.mark.slow
def test_an_error_that_its_own_past_does_not_cancel():
    """Infections last 7 days: errors grow 30 times in each of them, from rounding on.

    The truth is the limit of the fourth-order Runge-Kutta method at 1400 and 2800 steps a delay, in
    long double.
    """

    def infect(t, y, past, args):
        new, over = (0.5 * x[0] * x[1] / 7.9e6 for x in (y, past[0]))
        return [-new, new - over, over]

    epidemic = systems.delayed(infect, 7.0)
    solution = pinn.solve_delays(epidemic, [7.9e6 - 10, 10.0, 0.0], 50.0)
    error = abs(float(solution(50.0)[1]) + 488669.44667315)
    estimate = float(solution.error_estimate(50.0)[1])
    assert error <= 1e-7 + 10 * estimate and estimate < 1e-3


@pytest.mark.slow  # programs of its own
def test_two_delays_in_two_components():
    """exp(0.3 t) (cos t, sin t), a solution from t = -2 on of an equation made for it."""
    rate, turn = 0.3, 1.0
    delays = [1.0, math.sqrt(2)]

    def propagator(t):
        c, s = np.cos(turn * t), np.sin(turn * t)
        return np.exp(rate * t) * np.array([[c, -s], [s, c]])

    generator = np.array([[rate, -turn], [turn, rate]])
    own = generator - 0.5 * propagator(-delays[0]) + 0.25 * propagator(-delays[1])
    system = systems.delayed(
        lambda t, y, past, a: a @ y + 0.5 * past[0] - 0.25 * past[1], delays, args=jnp.asarray(own)
    )
    history = lambda t: jnp.exp(rate * t) * jnp.stack([jnp.cos(t), jnp.sin(t)])  # noqa: E731
    solution = pinn.solve_delays(system, history, 5.0)
    t = np.linspace(0, 5, 101)
    check(solution, t, np.exp(rate * t) * np.cos(t), 1e-12)
    sums = sorted({i + j * delays[1] for i in range(6) for j in range(4) if i + j * delays[1] < 5})
    np.testing.assert_allclose(solution.stats["breaks"][: len(sums)], sums, rtol=1e-14)


@pytest.mark.slow  # programs of its own, and SciPy's steps
def test_mackey_glass_against_legs_side_by_side():
    """The truth has no interpolation: six legs at once are one ordinary equation."""
    system, tau, history = systems.MackeyGlass(), 17.0, 0.5
    solution = pinn.solve_delays(system, [history], 100.0)
    starts = [history]
    for _ in range(6):

        def rates(s, y):
            past = np.append(history, y[:-1])
            return 0.2 * past / (1 + past**10) - 0.1 * y

        legs = solve_ivp(rates, (0, tau), starts, "DOP853", rtol=3e-14, atol=1e-16)
        starts = [history, *legs.y[:, -1]]
    t = tau * np.arange(1, 6)
    errors = np.abs(np.asarray(solution(t))[:, 0] - starts[1:6])
    assert errors.max() < 1e-12
    assert np.all(errors <= 1e-14 + 10 * np.asarray(solution.error_estimate(t))[:, 0])


def _decay(t0, t1):
    """exp(-t)."""
    decay = systems.from_function(lambda t, y, args: -y, dim=1)
    return pinn.solve(decay, jnp.exp(-jnp.array([float(t0)])), t1, t0=t0)


@pytest.mark.slow
def test_a_history_that_is_a_solution_backwards_or_beyond_the_start():
    """From exp(-t), with a delay of 1/2: up to 1/2 by one integral, up to 1 by two."""
    halved, e = systems.delayed(_line, 0.5), math.exp(0.5)
    t = np.linspace(0, 1, 101)
    first = 1 + e * (np.exp(-t) - 1)
    since = t - 0.5
    second = 1 + e * (math.exp(-0.5) - 1) - (1 - e) * since - e * (1 - np.exp(-since))
    truth = np.where(t <= 0.5, first, second)
    for history in (_decay(-1.0, 3.0), _decay(1.0, -1.0)):
        solution = pinn.solve_delays(halved, history, 1.0, args=DECAY)
        check(solution, t, truth, 1e-13)
        start = np.asarray(solution.error_estimate(0.0))
        assert start >= 0.9 * np.asarray(history.error_estimate(0.0))


def test_what_cannot_be_solved_is_said():
    with pytest.raises(ValueError, match=r"delays\[0\] must be positive and finite, got -1.0"):
        systems.delayed(lambda t, y, past, args: y, -1.0)
    with pytest.raises(TypeError, match="delays must hold real numbers"):
        systems.delayed(lambda t, y, past, args: y, ["1"])
    vanishing = systems.delayed(lambda t, y, past, args: -past[0], lambda t, y, args: 0.0 * t)
    with pytest.raises(ValueError, match=r"delays\[0\] must be positive and finite, got 0.0 at t"):
        pinn.solve_delays(vanishing, [1.0], 1.0)
    with pytest.raises(ValueError, match="history must return a state of shape"):
        pinn.solve_delays(linear, lambda t: jnp.ones(2), 1.0, y0=[1.0], args=DECAY)
    with pytest.raises(ValueError, match="history_jumps must be finite and before t0"):
        pinn.solve_delays(linear, [1.0], 1.0, history_jumps=[0.5], args=DECAY)
    with pytest.raises(TypeError, match="args must be given where f uses them"):
        pinn.solve_delays(linear, [1.0], 1.0)
    for f, message in (
        (lambda t, y, past, args: -past[1], "f must use .* of delayed_ys, got 1"),
        (
            lambda t, y, past, args: [-past[0][2]],
            r"components delayed_ys\[0\]\[0\] to .*\[0\]\[2\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pinn.solve_delays(systems.delayed(f, 1.0), [1.0], 2.0)
    beyond = systems.delayed(lambda t, y, past, args: -past[0], lambda t, y, args: 1.0 + y[2])
    with pytest.raises(ValueError, match=r"delays\[0\] must use the components .* got y\[2\]"):
        pinn.solve_delays(beyond, [1.0], 2.0)
    with pytest.raises(RuntimeError, match="in 2 legs"):
        pinn.solve_delays(linear, [1.0], 5.0, args=DECAY, max_legs=2)


@pytest.mark.slow  # many short legs
def test_a_delay_that_vanishes_on_the_way():
    """The delay 1 - t is zero at 1."""
    system = systems.delayed(lambda t, y, past, args: -past[0], lambda t, y, args: 1.0 - t)
    with pytest.warns(UserWarning, match="A delay became zero"):
        solution = pinn.solve_delays(system, [1.0], 2.0, throw=False)
    assert abs(float(solution.t1) - 1.0) < 1e-6


def test_a_solution_is_kept(tmp_path):
    solution = pinn.solve_delays(linear, jnp.ones(1), 2.0, args=DECAY)
    physml.save(tmp_path / "solution", solution)
    again = physml.load(tmp_path / "solution")
    t = np.linspace(0, 2, 21)
    np.testing.assert_array_equal(again(t), solution(t))
    np.testing.assert_array_equal(again.error_estimate(t), solution.error_estimate(t))
    physml.save(tmp_path / "system", systems.MackeyGlass(tau=20.0))
    assert float(physml.load(tmp_path / "system").tau) == 20.0


@pytest.mark.parametrize(
    "system, expected",
    [
        (systems.MackeyGlass(), 0.2 * 0.8 / (1 + 0.8**10) - 0.05),
        (systems.IkedaDelay(), -20 * math.sin(0.8) - 0.5),
        (systems.SprottDelay(), math.sin(0.8)),
        (systems.ScrollDelay(), -0.2 * 0.8 + 0.2 * math.tanh(8.0)),
        (systems.PiecewiseCircuit(), -0.8 - (0.8 / 2.24) ** 3 + 2.4 / 2.24),
        (systems.VossDelay(), -1.62 - 10.44 * 0.512 - 13.95 * 0.64 - 3.63 * 0.8 + 0.85),
    ],
)
def test_known_systems(system, expected):
    """As the collection dysts writes them."""
    found = system.rate(0.0, jnp.array([0.5]), jnp.array([[0.8]]), None)
    np.testing.assert_allclose(found, [expected], rtol=1e-14)
    assert system.delays == (system.tau,)


def test_traced_arguments_are_refused_with_the_remedy():
    def end(k, delay=1.0):
        decay = systems.delayed(lambda t, y, past, args: -args * past[0], delay)
        return pinn.solve_delays(decay, [1.0], 2.0, args=k)(1.0)[0]

    for transform in (jax.jit, jax.grad):
        with pytest.raises(
            ValueError, match=r"must not be traced, .*: call it outside of jax\.jit"
        ):
            transform(end)(1.0)
    with pytest.raises(ValueError, match=r"delays\[0\] must not be traced"):
        jax.grad(end, argnums=1)(1.0, 1.0)
