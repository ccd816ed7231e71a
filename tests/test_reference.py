"""The reference against closed forms, published values, SciPy and itself at other tolerances."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from physml import data, dynamics, reference, systems
from physml.results import RESULTS

LORENZ = systems.Lorenz()
SPRING = systems.from_function(lambda t, y, k: [y[1], -k * y[0]], 2, args=1.0)
PULSED = systems.DrivenOscillator(forcing=systems.SquareWave())
SCALE = (7.92, 9.01, 8.63)


def circle(t):
    return jnp.stack([jnp.cos(t), -jnp.sin(t)], axis=-1)


def largest(difference):
    return float(jnp.max(jnp.abs(difference)))


# --- solve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [2, 201])
def test_nothing_is_lost_on_the_grid_or_between(num):
    solution = reference.solve(SPRING, [1.0, 0.0], jnp.linspace(0, 20, num))
    between = jnp.linspace(0.0, 20.0, 777)
    assert largest(solution.ys - circle(solution.ts)) < 2e-13
    assert largest(solution(between) - circle(between)) < 2e-13
    slope = jnp.stack([-jnp.sin(between), -jnp.cos(between)], axis=-1)
    assert largest(solution.derivative(between) - slope) < 2e-13
    assert largest(solution(solution.ts) - solution.ys) == 0.0
    assert solution.result == RESULTS.successful and solution.t1 == 20.0


def test_starts_before_the_first_time_asked_for():
    solution = reference.solve(SPRING, [1.0, 0.0], [2.0, 3.0], t0=-1.0, args=4.0)
    ts = jnp.array([-1.0, 0.5, 2.0, 3.0])
    np.testing.assert_allclose(solution(ts)[:, 0], jnp.cos(2 * (ts + 1)), atol=1e-12)
    np.testing.assert_allclose(solution.ys[:, 0], jnp.cos(2 * (ts[2:] + 1)), atol=1e-12)


def test_a_right_hand_side_without_a_return_is_named():
    class Silent(systems.Lorenz):
        def __call__(self, t, y, args=None):
            pass

    with pytest.raises(TypeError, match=r"right-hand side must answer .* \(3,\), got None"):
        reference.solve(Silent(), [1.0, 1.0, 1.0], [0.0, 1.0])
    with pytest.raises(TypeError, match="f must return dy/dt"):
        reference.solve(systems.from_function(lambda t, y, args: None, 3), [1.0] * 3, [0.0, 1.0])


def test_plain_dopri8_is_as_good_as_it_is_asked_to_be():
    y0, ts = jnp.array([1.0, 0.0]), jnp.linspace(1.0, 11.0, 101)
    loose, tight = (
        reference.dopri8(SPRING, y0, ts, rtol) - circle(ts - 1.0) for rtol in (1e-4, 1e-11)
    )
    assert 1e-5 < largest(loose) < 1e-3
    assert largest(tight) < 1e-8 and largest(tight[-1]) < 1e-10  # where it interpolates, and ends


@pytest.mark.parametrize(
    "system",
    [PULSED, pytest.param(systems.DrivenOscillator(), marks=pytest.mark.slow)],
    ids=["pulses", "cosine"],
)
def test_driven_oscillator_against_its_exact_solution(system):
    # Every jump of the pulses is, up to rounding, a time of the grid.
    y0, ts = jnp.array([1.0, 0.0]), jnp.linspace(0, 20, 401)
    solution = reference.solve(system, y0, ts)
    between = jnp.linspace(0.0, 20.0, 1777)
    assert largest(solution.ys - system.exact(ts, y0)) < 1e-12
    assert largest(solution(between) - system.exact(between, y0)) < 1e-12


@pytest.mark.slow
def test_answers_at_jumps_and_an_ulp_beside_them():
    y0 = jnp.array([1.0, 0.0])
    jumps = PULSED.jump_times(0.01, 0.66)
    assert len(jumps) == 7
    solution = reference.solve(PULSED, y0, [0.0, jumps[-1]])
    for t in (jumps, np.nextafter(jumps, 0), np.nextafter(jumps[:-1], 1)):
        assert largest(solution(t) - PULSED.exact(t, y0)) < 1e-13


@pytest.mark.slow
def test_certificate_knows_the_error_and_the_horizon_of_chaos():
    ts = jnp.linspace(0, 25, 251)
    solution = reference.solve(LORENZ, [1.0, 1.0, 1.0], ts, certify=True)
    # A perturbation grows by about 8e3 to t = 20: small there, and larger afterwards.
    assert largest(solution.error_estimate(5.0)) < 1e-11
    assert 1e-13 < largest(solution.error_estimate(20.0)) < 1e-8
    soon, _ = solution.valid_until(1e-12)
    late, censored = solution.valid_until(1e-6)
    assert 5.0 < soon < 20.0 and late == 25.0 and censored
    # A loose solve is found out, and its own estimate says by how much.
    loose = reference.solve(LORENZ, [1.0, 1.0, 1.0], ts, rtol=1e-7, certify=True)
    time, censored = loose.valid_until(1e-3)
    sizes = jnp.max(jnp.abs(solution.ys), axis=0)
    wrong = jnp.max(jnp.abs(loose.ys - solution.ys) / sizes[None], axis=1)
    assert not censored and wrong[ts <= time].max() < 1e-2 and wrong[-1] > 1e-3


@pytest.mark.slow
def test_certificate_goes_through_jumps_and_stiffness():
    jumpy = reference.solve(PULSED, [1.0, 0.0], [0.0, 1.0, 2.0], certify=True)
    assert jumpy.valid_until(1e-11)[1]
    pull = lambda t, y, k: -k * (y - jnp.cos(t))  # noqa: E731
    relaxing = systems.from_function(pull, 1, args=1e3, autonomous=False)
    stiff = reference.solve(relaxing, [0.0], [0.0, 3.0], stiff=True, rtol=1e-7, certify=True)
    assert stiff.valid_until(1e-5)[1] and not stiff.valid_until(1e-13)[1]


@pytest.mark.slow
def test_robertson_against_published_values():
    """SUNDIALS' cvRoberts_dns prints t = 0.4, 40, 4e4 to the digits below (LLNL, user guide)."""

    def f(t, y, args):
        a, b, c = y
        slow, fast = 0.04 * a - 1e4 * b * c, 3e7 * b * b
        return [-slow, slow - fast, fast]

    robertson = systems.from_function(f, 3)
    ts = [0.0, 0.4, 40.0, 4e4]
    solution = reference.solve(robertson, [1.0, 0.0, 0.0], ts, stiff=True, atol=1e-14)
    published = [
        [9.8517e-01, 3.3864e-05, 1.4794e-02],
        [7.1583e-01, 9.1855e-06, 2.8416e-01],
        [3.8983e-02, 1.6218e-07, 9.6102e-01],
    ]
    np.testing.assert_allclose(solution.ys[1:], published, rtol=3e-5)
    np.testing.assert_allclose(solution.ys.sum(axis=1), 1.0, atol=1e-13)
    # Between the solver's own steps too: against a solve that lands there.
    between = jnp.geomspace(1e-3, 3e4, 9)
    landed = reference.solve(robertson, [1.0, 0.0, 0.0], between, t0=0.0, stiff=True, atol=1e-14)
    np.testing.assert_allclose(solution(between), landed.ys, rtol=1e-9)


def test_van_der_pol_against_published_values():
    """mu = 1000 at t = 2000: the reference solution of the IVP test set (Mazzia & Magherini)."""
    system = systems.VanDerPol(1000.0)
    solution = reference.solve(system, [2.0, 0.0], [0.0, 2000.0], stiff=True)
    published = [1.706167732170483, -0.8928097010247975e-3]
    np.testing.assert_allclose(solution.ys[1], published, rtol=5e-8)


@pytest.mark.parametrize(
    ("f", "result", "low", "high"),
    [
        (lambda t, y, _: y**2, RESULTS.diverged, 0.99, 1.0),
        (lambda t, y, _: -1 - jnp.sqrt(y), RESULTS.nonfinite, 0.6, 0.6138),
        (lambda t, y, _: jnp.where(t > 1.3, jnp.nan, y), RESULTS.nonfinite, 1.2, 1.3),
        (lambda t, y, _: y * jnp.nan, RESULTS.nonfinite, 0.0, 0.0),
        (lambda t, y, _: 500.0 * y, RESULTS.nonfinite, 1.2, 1.5),
    ],
    ids=["blows up", "leaves its domain", "NaN from a time on", "always NaN", "overflows"],
)
def test_a_failed_solve_says_how_and_where(f, result, low, high):
    system, ts = systems.from_function(f, 1, autonomous=False), jnp.linspace(0, 5, 11)
    with pytest.warns(UserWarning, match="It stopped at t = "):
        solution = reference.solve(system, [1.0], ts, throw=False)
    assert solution.result == result
    assert low <= solution.t1 <= high
    np.testing.assert_array_equal(jnp.isnan(solution.ys[:, 0]), ts > solution.t1)
    assert jnp.isfinite(solution(solution.t1)).all()
    with pytest.raises(ValueError, match="t must lie in"):
        solution(2.0)
    with pytest.raises(RuntimeError, match=r"stopped at t = .* before ts\[-1\] = 5\.0"):
        reference.solve(system, [1.0], ts)


def test_running_out_of_steps_says_so():
    ts = jnp.linspace(0, 20, 5)
    with pytest.warns(UserWarning, match="max_steps"):
        solution = reference.solve(LORENZ, [1.0, 1.0, 1.0], ts, max_steps=100, throw=False)
    assert solution.result == RESULTS.max_steps_reached and 0 < solution.t1 < 20
    with pytest.raises(RuntimeError, match="max_steps"):
        reference.solve(LORENZ, [1.0, 1.0, 1.0], ts, max_steps=100)
    with pytest.raises(RuntimeError, match="max_steps"):
        jax.jit(lambda y: reference.solve(LORENZ, y, ts, max_steps=100).ys)(jnp.ones(3))


@pytest.mark.slow
def test_under_jit_vmap_and_grad():
    ts = jnp.linspace(0.0, 3.0, 4)

    def end(y0, k):
        return reference.solve(SPRING, y0, ts, args=k, max_steps=64, throw=False)

    ks = jnp.array([1.0, 4.0, 9.0])
    batch = jax.jit(jax.vmap(end, in_axes=(None, 0)))(jnp.array([1.0, 0.0]), ks)
    np.testing.assert_allclose(batch.ys[:, -1, 0], jnp.cos(3 * jnp.sqrt(ks)), atol=1e-11)
    between = jax.vmap(lambda s: s(1.3))(batch)[:, 0]
    np.testing.assert_allclose(between, jnp.cos(1.3 * jnp.sqrt(ks)), atol=1e-11)
    # d/dk cos(3 sqrt k)
    slope = jax.grad(lambda k: end(jnp.array([1.0, 0.0]), k).ys[-1, 0])(4.0)
    assert slope == pytest.approx(-3 * np.sin(6) / 4, abs=1e-10)


def test_float32_data_stay_float32():
    y0 = np.array([1.0, 0.0], np.float32)
    solution = reference.solve(SPRING, y0, np.linspace(0, 3, 4))
    assert solution.ys.dtype == solution(1.5).dtype == jnp.float32
    np.testing.assert_allclose(solution.ys, circle(solution.ts), atol=3e-5)
    with pytest.raises(ValueError, match=r"rtol .*float32.*jax_enable_x64"):
        reference.solve(SPRING, y0, [0.0, 1.0], rtol=1e-9)


@refusals(
    ({"system": "lorenz"}, "system", TypeError),
    ({"y0": [1.0]}, r"y0 must have shape \(2,\), got \(1,\)"),
    ({"y0": 1.0}, "y0 must have shape"),
    ({"y0": [1.0, np.nan]}, r"y0 must be finite, got nan at index \(1,\)"),
    ({"y0": ["a", "b"]}, "y0 must hold real numbers", TypeError),
    ({"ts": [0.0, 1.0, 1.0]}, r"ts must increase, got ts\[1\] = 1.0"),
    ({"ts": [0.0, np.inf]}, "ts must be finite"),
    ({"ts": []}, "ts must have shape"),
    ({"ts": [0.0]}, "less than ts"),
    ({"t0": 0.5}, "t0 must be at most"),
    ({"t0": np.nan}, "t0 must be a number, got nan"),
    ({"rtol": 1e-17}, "rtol must be at least"),
    ({"rtol": np.nan}, "rtol must be a number, got nan"),
    ({"atol": -1.0}, "atol must be finite and not negative"),
    ({"max_steps": 0}, "max_steps must be at least 1"),
)
def test_solve_refuses(changes):
    reference.solve(**({"system": SPRING, "y0": [1.0, 0.0], "ts": [0.0, 1.0]} | changes))


def test_solve_refuses_what_tracing_does_not_allow():
    with pytest.raises(ValueError, match="certify must be False"):
        jax.jit(lambda y: reference.solve(SPRING, y, [0.0, 1.0], certify=True).ys)(jnp.ones(2))
    with pytest.raises(ValueError, match="ts and t0 must not be traced"):
        jax.jit(lambda ts: reference.solve(PULSED, [1.0, 0.0], ts).ys)(jnp.arange(3.0))
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        reference.solve(SPRING, np.array([1.0, 0.0]), [0.0, 1.0])


# --- trajectories ----------------------------------------------------------------------------


def test_trajectories_make_one_step_errors_below_tolerance():
    ts = np.linspace(0, 1, 101)  # the transients, where errors are largest
    trajectories = reference.trajectories(LORENZ, jax.random.key(0), 64, ts)
    assert trajectories.ys.shape == (64, 101, 3)
    assert trajectories.names == ("x", "y", "z") and trajectories.system == "Lorenz"
    loose = reference.trajectories(LORENZ, jax.random.key(0), 64, ts, rtol=1e-6)
    tight = reference.FlowMap(LORENZ, 0.01, substeps=8)
    error, loose_error = (
        largest(dynamics.rollout(tight, pairs.inputs[:, None], 1)[:, 1] - pairs.targets)
        for pairs in (trajectories.pairs(), loose.pairs())
    )
    assert error < 1e-11 < loose_error < 1e-6


def test_trajectories_agree_with_scipy():
    ts = np.linspace(0, 2, 21)
    trajectories = reference.trajectories(LORENZ, jax.random.key(1), 3, ts)
    f = jax.jit(lambda y: LORENZ(0.0, y))
    for ys in np.asarray(trajectories.ys):
        other = solve_ivp(
            lambda t, y: np.asarray(f(y)),
            (0, 2), ys[0], "DOP853", t_eval=ts[[-1]], rtol=1e-12, atol=1e-12,
        )  # fmt: skip
        np.testing.assert_allclose(ys[-1], other.y[:, 0], rtol=1e-8)


def test_starts_fill_the_box_and_follow_the_key():
    ts, key = [0.0, 0.01], jax.random.key(2)
    starts = reference.trajectories(LORENZ, key, 500, ts).ys[:, 0]
    assert starts.min() < -14.5 and starts.max() > 14.5 and largest(starts) <= 15
    np.testing.assert_array_equal(reference.trajectories(LORENZ, key, 500, ts).ys[:, 0], starts)
    box = ((1.0, 2.0, 3.0), (1.0, 2.5, 3.5))
    boxed = reference.trajectories(LORENZ, key, 500, ts, box=box).ys[:, 0]
    np.testing.assert_allclose(boxed.min(axis=0), box[0], atol=0.01)
    np.testing.assert_allclose(boxed.max(axis=0), box[1], atol=0.01)


def test_chunks_change_nothing_but_rounding():
    y0s = jax.random.uniform(jax.random.key(3), (11, 3), minval=-15.0, maxval=15.0)
    ts = np.linspace(0, 0.5, 26)
    whole = reference.trajectories_from(LORENZ, y0s, ts)
    parts = reference.trajectories_from(LORENZ, y0s, ts, chunk=4)
    np.testing.assert_array_equal(parts.ys[:, 0], y0s)
    np.testing.assert_allclose(parts.ys, whole.ys, atol=1e-9)


@pytest.mark.parametrize("system", [systems.DrivenOscillator(), PULSED], ids=["cosine", "pulses"])
def test_driven_trajectories_start_at_their_own_times(system):
    t0s = jnp.array([0.0, 0.013, 0.05, 3.7])  # jumps inside, and at the ends, of intervals
    y0s = jax.random.normal(jax.random.key(4), (4, 2))
    ts = jnp.linspace(0, 2, 41)
    trajectories = reference.trajectories_from(system, y0s, ts, t0s=t0s)
    np.testing.assert_array_equal(trajectories.t0s, t0s)
    for y0, t0, ys in zip(y0s, t0s, trajectories.ys, strict=True):
        assert largest(ys - system.exact(t0 + ts, y0, t0)) < 1e-12


def test_diverging_trajectories_are_named():
    system = systems.from_function(lambda t, y, a: y**2, 1)
    y0s, ts = jnp.array([[-1.0], [1.0], [0.2], [0.5]]), np.linspace(0, 3, 31)
    with pytest.raises(RuntimeError, match=r"2 of 4 .* numbers \[1, 3\], the first at t = 0\.9"):
        reference.trajectories_from(system, y0s, ts)
    with pytest.warns(UserWarning, match="2 of 4 trajectories failed"):
        ys = reference.trajectories_from(system, y0s, ts, throw=False).ys[:, :, 0]
    exact = y0s / (1 - y0s * ts[None])
    finite = (y0s * ts[None] < 1 - 1e-9) | (y0s < 0)
    np.testing.assert_array_equal(jnp.isnan(ys), ~finite)
    np.testing.assert_allclose(ys[finite], exact[finite], rtol=1e-10)


def chua(t, u, args):
    x, y, z = u
    drop = -5 / 7 * x - 3 / 14 * (jnp.abs(x + 1) - jnp.abs(x - 1))
    return [15.6 * (y - x - drop), x - y + z, -28.0 * y]


def test_trajectories_through_kinks():
    system, ts = systems.from_function(chua, 3), 0.02 * np.arange(151)
    box = ((-2.0, -0.4, -3.0), (2.0, 0.4, 3.0))
    found = reference.trajectories(system, jax.random.key(0), 12, ts, box=box)
    for ys in np.asarray(found.ys)[:3]:
        other = reference.solve(system, ys[0], ts)
        np.testing.assert_allclose(ys, other.ys, atol=1e-9)
    # A spring that is only pushed: bounces of sines, each from a kink to the next.
    one_sided = systems.from_function(lambda t, y, a: [y[1], -jnp.maximum(y[0], 0.0) - 1.0], 2)
    ball = reference.trajectories_from(one_sided, [[-0.5, 1.5], [-2.0, 3.0]], 0.25 * np.arange(5))
    for (height, speed), ys in zip(ball.ys[:, 0], ball.ys, strict=True):
        touch = speed - jnp.sqrt(speed**2 + 2 * height)  # height + speed t - t^2 / 2 = 0
        hit, t = speed - touch, ball.ts
        inside = hit * jnp.sin(t - touch) + jnp.cos(t - touch) - 1.0
        flying = height + speed * t - t**2 / 2
        np.testing.assert_allclose(ys[:, 0], jnp.where(t < touch, flying, inside), atol=1e-11)


def test_a_right_hand_side_that_slides_is_said():
    relay = systems.from_function(lambda t, y, a: [-jnp.sign(y[0])], 1)
    with pytest.raises(RuntimeError, match=r"1 of 2 .*numbers \[0\].*raise rtol or max_substeps"):
        reference.trajectories_from(relay, [[0.3], [2.0]], 0.25 * np.arange(5))


def test_trajectories_in_float32():
    trajectories = reference.trajectories(
        SPRING, jax.random.key(5), 3, np.linspace(0, 1, 11), dtype="float32", args=1.0
    )
    assert trajectories.ys.dtype == jnp.float32
    x, v = trajectories.ys[:, 0].T
    end = x * jnp.cos(1.0) + v * jnp.sin(1.0)
    np.testing.assert_allclose(trajectories.ys[:, -1, 0], end, atol=1e-5)
    with jax.enable_x64(False):  # set by a context, which threads do not inherit
        inside = reference.trajectories(SPRING, jax.random.key(5), 3, np.linspace(0, 1, 11))
        assert inside.ys.dtype == jnp.float32


@refusals(
    ({"y0s": jnp.ones(2)}, "y0s must have shape"),
    ({"y0s": jnp.ones((2, 3))}, "y0 must have shape"),
    ({"y0s": jnp.full((2, 2), jnp.inf)}, "must be finite"),
    ({"ts": [0.0, 1.0, 3.0]}, "ts must be uniform"),
    ({"ts": [0.0]}, "at least 2"),
    ({"t0s": [0.0]}, "t0s must have shape"),
    ({"chunk": 0}, "chunk must be at least 1"),
    ({"max_substeps": 0}, "max_substeps must be at least 1"),
    ({"rtol": 1e-18}, "rtol must be at least"),
    ({"system": None}, "system", TypeError),
)
def test_trajectories_refuse(changes):
    call = {"system": SPRING, "y0s": jnp.ones((2, 2)), "ts": [0.0, 1.0]} | changes
    reference.trajectories_from(**call)


def starting(num=2, **options):
    return reference.trajectories(SPRING, jax.random.key(0), num, [0.0, 1.0], **options)


@refusals(
    (lambda: starting(box=((0.0,), (1.0,))), "box must be corners"),
    (lambda: starting(box=((0.0, 0.0), (1.0, -1.0))), "box must be corners"),
    (lambda: starting(0), "num must be at least 1"),
    (
        lambda: reference.driven_trajectories(SPRING, jax.random.key(0), 2, [0.0, 1.0]),
        "system must have a period, got FunctionSystem",
    ),
    (lambda: reference.FlowMap(LORENZ, 0.0), "dt must be positive"),
    (lambda: reference.FlowMap(LORENZ, 0.01, substeps=0), "substeps must be at least 1"),
    (lambda: reference.FlowMap(PULSED, 0.01), "system must not jump"),
)
def test_other_refusals(call):
    call()


def test_attractor_starts_have_the_attractors_statistics():
    starts = reference.attractor_starts(LORENZ, jax.random.key(6), 512, 15.0)
    assert starts.shape == (512, 3)
    # Long-time means 0, 0, 23.54 and deviations SCALE; four standard errors of 512 draws.
    np.testing.assert_allclose(starts.mean(axis=0), [0, 0, 23.54], atol=4 * 9 / np.sqrt(512))
    np.testing.assert_allclose(starts.std(axis=0), SCALE, rtol=0.15)


def test_attractor_starts_of_a_driven_system_are_at_time_zero():
    system = systems.DrivenOscillator()
    starts = reference.attractor_starts(system, jax.random.key(7), 4, 150.0, 0.5)
    steady = system.forcing.steady_state(jnp.zeros(4), system.gamma, system.omega0)
    np.testing.assert_allclose(starts, steady, atol=1e-11)


def test_agreement_horizon_is_where_two_solutions_part():
    # Data that grow as exp(1.01 t) against the law exp(t), and a component that stays as it is:
    # sqrt(mean of squares) is |exp(1.01 t) - exp(t)| / 2 / sqrt(2).
    growth = systems.from_function(lambda t, y, a: [y[0], 0.0 * y[1]], 2)
    ts = np.linspace(0, 4, 401)
    still = np.ones_like(ts)
    rows = [np.stack([np.exp(rate * ts), still], axis=1) for rate in (1.01, 1.0)]
    made = data.from_arrays(ts, np.stack(rows))
    horizon = reference.agreement_horizon(growth, made, scale=[2.0, 1.0], threshold=0.1)
    crossing = ts[np.argmax(np.exp(1.01 * ts) - np.exp(ts) > 0.2 * np.sqrt(2))]
    np.testing.assert_allclose(horizon, [crossing, 4.0], atol=1e-12)
    with pytest.raises(ValueError, match="scale must be positive"):
        reference.agreement_horizon(growth, made, scale=[0.0, 1.0])


def test_lorenz_can_be_trusted_for_25_lyapunov_times():
    starts = reference.attractor_starts(LORENZ, jax.random.key(8), 16, 5.0)
    truth = reference.trajectories_from(LORENZ, starts, np.linspace(0, 38, 3801), rtol=1e-13)
    times = reference.agreement_horizon(LORENZ, truth, scale=SCALE) * 0.9056
    assert 25 < times.mean() < 38 and times.min() > 20


def test_driven_trajectories_start_at_any_phase():
    system, ts = systems.DrivenOscillator(), 0.1 * np.arange(11)
    found = reference.driven_trajectories(
        system, jax.random.key(0), 60, ts, phase_dtype=jnp.float32
    )
    assert found.t0s.dtype == jnp.float64
    np.testing.assert_array_equal(found.t0s, found.t0s.astype(jnp.float32))
    shares = np.sort(np.asarray(found.t0s) / float(system.period))
    assert shares[0] >= 0 and shares[-1] < 1
    # Kolmogorov and Smirnov: at 60 draws the distance is above 0.25 once in a thousand times.
    assert np.abs(shares - (np.arange(60) + 0.5) / 60).max() < 0.25
    for t0, ys in zip(found.t0s[:3], found.ys, strict=False):
        np.testing.assert_allclose(ys, system.exact(t0 + ts, ys[0], t0), atol=1e-11)


# --- FlowMap, RungeKutta4 --------------------------------------------------------------------


def test_flow_map_has_the_order_of_its_method():
    y0, dt = jnp.array([1.0, 0.0]), 0.8
    system = systems.DrivenOscillator()
    errors = []
    for substeps in (1, 2, 4):
        flow = reference.FlowMap(system, dt, substeps)
        rows = dynamics.rollout(flow, y0[None], 5, t0=0.3)
        exact = system.exact(0.3 + dt * jnp.arange(6.0), y0, 0.3)
        errors.append(largest(rows - exact))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (orders > 7.5).all() and (orders < 9.5).all(), (errors, orders)


def test_flow_map_is_what_the_trajectories_follow():
    truth = reference.trajectories(LORENZ, jax.random.key(9), 2, np.linspace(0, 0.5, 51))
    rows = dynamics.rollout(reference.FlowMap(LORENZ, 0.01), truth.ys[:, :1], 50)
    np.testing.assert_allclose(rows, truth.ys, atol=1e-10)


@pytest.mark.parametrize(
    ("system", "start"),
    [(LORENZ, (1.0, -2.5, 30.25)), (systems.DrivenOscillator(), (1.0, 0.0))],
    ids=["lorenz", "driven"],
)
def test_runge_kutta_converges_at_its_order(system, start):
    y0, t0, errors = jnp.array(start), 1.5, []
    for dt in (0.04, 0.02):
        truth = reference.solve(system, y0, t0 + dt * np.arange(3)).ys
        step_map = reference.RungeKutta4(system=system, dt=dt)
        ys = dynamics.rollout(step_map, y0[None], 2, t0=t0)
        errors.append(jnp.abs(ys - truth)[-1].max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.3)


# --- cole_hopf -------------------------------------------------------------------------------


def by_quadrature(x, t, viscosity):
    """The two integrals by SciPy, between points that follow the deepest minima of G."""

    def depth(y):
        return np.cos(np.pi * y) / np.pi + (x - y) ** 2 / (2 * t)

    fine = np.linspace(x - 2.2, x + 2.2, 200_001)
    heights = depth(fine)
    deep = fine[1:-1][(heights[1:-1] <= heights[:-2]) & (heights[1:-1] <= heights[2:])]
    ends = x + np.array([-1, 1]) * (2.2 + np.sqrt(200 * viscosity * t))
    around = deep[:, None] + 36 * np.sqrt(viscosity) * np.linspace(-1, 1, 61)
    edges = np.unique(np.concatenate([ends, around.ravel()]))

    def weight(y):
        return np.exp(-(depth(y) - heights.min()) / (2 * viscosity))

    def whole(function):
        parts = (quad(function, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges))
        return sum(parts)

    return -whole(lambda y: np.sin(np.pi * y) * weight(y)) / whole(weight)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize("viscosity", [0.3, 1e-2, 1e-4, 1e-6])
def test_cole_hopf_against_scipys_quadrature(viscosity):
    points = ((0.5, 0.5), (1e-3, 0.9), (-0.9, 1.4), (0.2, 1 / np.pi), (3.7, 0.02))
    for x, t in points:
        expected = by_quadrature(x, t, viscosity)
        found = reference.cole_hopf(x, t, viscosity)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 + 1e-16 / viscosity)


@pytest.mark.parametrize("viscosity", [1e-4, 1e-5, 1e-8])
def test_cole_hopf_tends_to_the_characteristics(viscosity):
    # u = -sin(pi y) with y - t sin(pi y) = x; after t = 1 / pi the y on x's own side of the shock.
    x, t = np.meshgrid(np.linspace(0.1, 0.9, 9), [0.1, 0.5, 1.0], indexing="ij")
    y = np.vectorize(lambda x, t: brentq(lambda y: y - t * np.sin(np.pi * y) - x, x, 1.0))(x, t)
    found = reference.cole_hopf(x, t, viscosity)
    np.testing.assert_allclose(found, -np.sin(np.pi * y), rtol=0, atol=20 * viscosity)
    np.testing.assert_allclose(reference.cole_hopf(-x, t, viscosity), -found, rtol=0, atol=1e-12)
    assert reference.cole_hopf(0.25, 0.0, viscosity) == -np.sin(np.pi / 4)


def test_cole_hopf_solves_burgers_equation():
    x, t, nu, h = 0.3, 0.8, 0.02, 1e-3
    steps = h * np.array([-2, -1, 0, 1, 2])
    along, later = reference.cole_hopf(x + steps, t, nu), reference.cole_hopf(x, t + steps, nu)
    first = np.array([1, -8, 0, 8, -1]) / (12 * h)
    second = np.array([-1, 16, -30, 16, -1]) / (12 * h**2)
    assert abs(first @ later + along[2] * (first @ along) - nu * (second @ along)) < 1e-8


@refusals(
    ({"viscosity": 0.0}, "viscosity must be positive"),
    ({"viscosity": -1e-3}, "viscosity must be positive"),
    ({"t": -0.1}, "t must not be negative"),
    ({"x": np.nan}, "x must be a number"),
    ({"viscosity": 10.0, "t": 1e3}, r"viscosity \* t must be at most 5000"),
)
def test_cole_hopf_refuses(change):
    reference.cole_hopf(**({"x": 0.5, "t": 0.5, "viscosity": 0.01} | change))
