"""Double-double Taylor series against another method in 50 digits, closed forms and themselves."""

import decimal
from decimal import Decimal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals

from physml import dynamics, reference, systems
from physml._numerics.double_double import exact

pytestmark = pytest.mark.usefixtures("as_compiled_for_users")
LORENZ = systems.Lorenz()
SCALE = np.array([7.92, 9.01, 8.63])
START = np.array([[-9.79, -15.04, 20.53], [1.0, -2.5, 30.25]])
CONTEXT = decimal.Context(prec=50)


def lorenz(u):
    x, y, z = u
    sigma, rho, beta = Decimal(10), Decimal(28), Decimal(8.0 / 3.0)  # the float64, exactly
    return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]


def gragg_bulirsch_stoer(u, step, num, columns=15):
    """`num` steps of the extrapolated midpoint rule: order 2 `columns`, in 50 digits."""
    with decimal.localcontext(CONTEXT):
        step, rows = Decimal(step), [u]
        for _ in range(num):
            table = []
            for column in range(columns):
                n = 2 * (column + 1)
                h = step / n
                before, now = u, [a + h * b for a, b in zip(u, lorenz(u), strict=True)]
                for _ in range(n - 1):
                    slope = lorenz(now)
                    before, now = now, [a + 2 * h * b for a, b in zip(before, slope, strict=True)]
                ends = zip(before, now, lorenz(now), strict=True)
                row = [[(a + b + h * c) / 2 for a, b, c in ends]]
                for k, previous in enumerate(table[-1] if table else []):
                    ratio = (Decimal(n) / Decimal(2 * (column - k))) ** 2 - 1
                    pairs = zip(row[k], previous, strict=True)
                    row.append([a + (a - b) / ratio for a, b in pairs])
                table.append(row)
            u = table[-1][-1]
            rows.append(u)
        return rows


def advanced(flow, y0s, steps):
    """The state after some steps, in double-double."""

    @jax.jit
    def march(y):
        def step(_, followed):
            return flow.advance(followed, jnp.asarray(100))

        return jax.lax.fori_loop(0, steps, step, flow.begin(exact(y))).y

    return march(jnp.asarray(y0s.T))


@pytest.mark.parametrize("options", [{"order": 36}, {}], ids=["fixed", "chosen"])
@pytest.mark.parametrize("steps", [64, 1])
def test_thirty_digits_of_another_method(steps, options):
    # To t = 1, where a perturbation has grown tenfold at the most.
    if steps == 1 and options:
        options = {"order": 36, "substeps": 64}
    flow = reference.TaylorFlow.create(LORENZ, 1.0 / steps, **options)
    y = advanced(flow, START, steps)
    for i, start in enumerate(START):
        end = gragg_bulirsch_stoer([Decimal(float(v)) for v in start], "0.015625", 64)[-1]
        with decimal.localcontext(CONTEXT):
            found = [Decimal(float(y.hi[k, i])) + Decimal(float(y.lo[k, i])) for k in range(3)]
            assert max(abs(a - b) for a, b in zip(found, end, strict=True)) < Decimal("1e-28")


@pytest.mark.slow
def test_the_attractor_is_followed_where_float64_is_lost():
    # To t = 40, where one rounding of float64 has grown to the attractor's size.
    steps, dt = 1280, 2.0**-5
    found = reference.extended_trajectories(LORENZ, START[:1], dt * np.arange(steps + 1))
    start = [Decimal(float(v)) for v in START[0]]
    exact = np.array(gragg_bulirsch_stoer(start, "0.03125", steps, columns=18), float)
    assert found.ys.dtype == jnp.float64 and found.dt == dt
    np.testing.assert_allclose(found.ys[0], exact, rtol=0, atol=1e-11)
    ordinary = reference.trajectories_from(LORENZ, START[:1], found.ts)
    assert np.abs(np.asarray(ordinary.ys[0]) - exact).max() > 1.0


def test_halving_the_step_gains_the_order():
    order, dt = 8, 0.04
    truth = advanced(reference.TaylorFlow.create(LORENZ, dt, order=30, substeps=2), START, 10)
    errors = []
    for substeps in (1, 2, 4):
        flow = reference.TaylorFlow.create(LORENZ, dt, order=order, substeps=substeps)
        y = advanced(flow, START, 10)
        errors.append(np.abs((y.hi - truth.hi) + (y.lo - truth.lo)).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.6)


def test_a_linear_system_has_its_closed_form():
    spring = systems.from_function(lambda t, y, k: [y[1], -k * y[0]], 2, args=4.0)
    ts = 2.0**-5 * np.arange(641)  # exact times
    found = reference.extended_trajectories(spring, np.array([[1.0, 0.0]]), ts)
    np.testing.assert_allclose(found.ys[0, :, 0], np.cos(2 * ts), rtol=0, atol=1.2e-16)
    np.testing.assert_allclose(found.ys[0, :, 1], -2 * np.sin(2 * ts), rtol=0, atol=3.4e-16)


def test_a_constant_and_a_square():
    # y' = 1 + y^2 has the solution tan t: a constant, and a component times itself.
    tangent = systems.from_function(lambda t, y, args: 1.0 + y**2, 1)
    ts = 2.0**-6 * np.arange(65)
    found = reference.extended_trajectories(tangent, np.zeros((1, 1)), ts)
    np.testing.assert_allclose(found.ys[0, :, 0], np.tan(ts), rtol=3e-16)


@pytest.mark.parametrize("dt", [2.0**-6, 0.125, 0.25, 0.5, 1.0])
def test_any_step_of_the_grid_gives_the_same_digits(dt):
    steps, start = round(2 / dt), [Decimal(1)] * 3
    found = reference.extended_trajectories(LORENZ, np.ones((1, 3)), dt * np.arange(steps + 1))
    exact = np.array(gragg_bulirsch_stoer(start, "0.03125", 64, columns=18), float)
    rows = exact[:: round(32 * dt)] if dt > 0.03 else exact
    own = found.ys[0] if dt > 0.03 else found.ys[0, ::2]
    np.testing.assert_array_equal(own, rows)


@pytest.mark.parametrize("unit", [1e-9, 1e12])
def test_any_unit_gives_the_same_digits(unit):
    def scaled(t, y, args):
        x, y, z = y
        return [10.0 * (y - x), 28.0 * x - y - x * z / unit, x * y / unit - 8.0 / 3.0 * z]

    ts, start = 0.25 * np.arange(9), np.ones((1, 3))
    found = reference.extended_trajectories(systems.from_function(scaled, 3), unit * start, ts)
    expected = reference.extended_trajectories(LORENZ, start, ts).ys
    np.testing.assert_allclose(found.ys / unit, expected, rtol=1e-12)


@pytest.mark.parametrize("rate", [30.0, 1000.0])
def test_a_quick_decay_on_a_coarse_grid(rate):
    decay = systems.from_function(lambda t, y, k: [-k * y[0], y[0] - y[1]], 2, args=rate)
    ts = 0.125 * np.arange(17)
    found = reference.extended_trajectories(decay, np.array([[1.0, 0.0]]), ts).ys[0]
    np.testing.assert_allclose(found[:, 0], np.exp(-rate * ts), rtol=3e-16, atol=1e-300)
    slow = (np.exp(-ts) - np.exp(-rate * ts)) / (rate - 1.0)
    np.testing.assert_allclose(found[:, 1], slow, rtol=1e-15)


@pytest.mark.parametrize("distance", [2.0**-3, 2.0**-10])
def test_a_pole_beside_the_axis(distance):
    # z' = z^2 of a complex z = x + i y: z = 1 / (1 + i distance - t).
    square = systems.from_function(lambda t, z, args: [z[0] ** 2 - z[1] ** 2, 2 * z[0] * z[1]], 2)
    ts = 0.5 * np.arange(5)
    exact = 1.0 / (1.0 + 1j * distance - ts)
    start = np.array([[exact[0].real, exact[0].imag]])
    found = np.asarray(reference.extended_trajectories(square, start, ts).ys[0])
    # The start is rounded, which counts 1 / distance at the pole.
    atol = 3e-16 / distance**2
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], exact, rtol=0, atol=atol)


def test_what_blows_up_is_said_and_the_others_go_on():
    tangent = systems.from_function(lambda t, y, args: 1.0 + y**2, 1)
    starts, ts = np.array([[0.0], [1.0], [-1.0]]), 0.25 * np.arange(9)
    with pytest.raises(RuntimeError, match=r"2 of 3 .* numbers \[0, 1\], the first after t = 0.75"):
        reference.extended_trajectories(tangent, starts, ts)
    with pytest.warns(UserWarning, match="End the times before"):
        found = reference.extended_trajectories(tangent, starts, ts, throw=False).ys[:, :, 0]
    angles = ts[None] + np.arctan(starts)
    exact = np.where(angles < np.pi / 2, np.tan(angles), np.nan)
    np.testing.assert_allclose(found, exact, rtol=1e-14)


@pytest.mark.slow
def test_a_kink_that_only_the_trajectory_meets_is_refused():
    # The box of random starts is [-1, 1].
    clipped = systems.from_function(lambda t, y, args: jnp.clip(y, -100.0, 100.0), 1)
    ts = 0.5 * np.arange(8)
    found = reference.extended_trajectories(clipped, np.ones((1, 1)), ts)
    np.testing.assert_allclose(found.ys[0, :, 0], np.exp(ts), rtol=1e-15)
    with pytest.raises(ValueError, match=r"after t = 5 .* use reference.trajectories_from"):
        reference.extended_trajectories(clipped, np.ones((1, 1)), 0.5 * np.arange(13))


@pytest.mark.parametrize(
    "system",
    [systems.Rossler(), systems.Lorenz96(n=5), systems.LotkaVolterra()],
    ids=lambda system: type(system).__name__,
)
def test_other_quadratic_systems(system):
    starts = np.random.default_rng(0).uniform(0.5, 2.0, (3, system.dim))
    ts = 0.02 * np.arange(101)
    found = reference.extended_trajectories(system, starts, ts)
    expected = reference.trajectories_from(system, starts, ts)
    np.testing.assert_allclose(found.ys, expected.ys, rtol=1e-11, atol=1e-11)
    assert found.names == expected.names and found.system == expected.system


def test_chunks_make_no_difference():
    starts = np.random.default_rng(1).uniform(-15, 15, (7, 3))
    ts = 0.01 * np.arange(11)
    whole = reference.extended_trajectories(LORENZ, starts, ts)
    parts = reference.extended_trajectories(LORENZ, starts, ts, chunk=2)
    np.testing.assert_array_equal(whole.ys, parts.ys)
    np.testing.assert_array_equal(whole.ys[:, 0], starts)


def test_the_horizon_is_where_a_low_order_fails():
    ts = 0.02 * np.arange(801)
    truth = reference.extended_trajectories(LORENZ, START, ts)
    flow = reference.TaylorFlow.create(LORENZ, 0.02, order=6)
    ys = dynamics.rollout(flow, jnp.asarray(START)[:, None], 800)
    poor = eqx.tree_at(lambda found: found.ys, truth, ys)
    horizon = reference.extended_horizon(LORENZ, poor, scale=SCALE)
    error = np.sqrt((((poor.ys - truth.ys) / SCALE[None, None]) ** 2).mean(axis=2))
    np.testing.assert_allclose(horizon, ts[(error > 0.4).argmax(axis=1)])
    assert np.all(horizon < 16.0)
    np.testing.assert_array_equal(
        reference.extended_horizon(LORENZ, truth, scale=SCALE), ts[[-1, -1]]
    )


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_a_taylor_flow_rounds_once_a_step(dtype):
    flow = reference.TaylorFlow.create(LORENZ, 0.01)
    start = jnp.asarray(START[0], dtype)
    state = flow.step(flow.init(start[None], 0.0))
    truth = reference.extended_trajectories(
        LORENZ, np.asarray(start, np.float64)[None], [0.0, 0.01]
    ).ys[0, 1]
    assert state.dtype == dtype
    np.testing.assert_array_equal(state, truth.astype(dtype))
    np.testing.assert_array_equal(flow.observe(state), state)


def driven(t, y, args):
    return jnp.sin(t) * y


@refusals(
    (systems.Pendulum(), "quadratic"),
    (systems.Duffing(), "driven|quadratic"),
    (systems.VanDerPol(), "quadratic"),
    (systems.from_function(lambda t, y, args: -jnp.abs(y), 1), "differs from its expansion"),
    (systems.from_function(lambda t, y, args: jnp.clip(y, -0.5, 0.5), 1), "differs"),
    (systems.DrivenOscillator(), "driven"),
    (systems.from_function(driven, 1, autonomous=True), "autonomous"),
    (systems.from_function(lambda t, y, args: 1.0 / y, 1), "quadratic"),
)
def test_refuses_what_is_not_quadratic(system):
    reference.extended_trajectories(system, np.ones((1, system.dim)), [0.0, 0.1])


@refusals(
    ({"y0s": np.ones((2, 3), np.float32)}, "float64", TypeError),
    ({"y0s": np.ones(3)}, "y0s"),
    ({"y0s": np.full((1, 3), np.nan)}, "y0s"),
    ({"y0s": np.ones((2, 4))}, "y0s"),
    ({"ts": [0.0, 1.0, 3.0]}, "ts"),
    ({"max_substeps": 0}, "max_substeps"),
    ({"chunk": 0}, "chunk"),
    ({"system": lorenz}, "system", TypeError),
)
def test_refuses_bad_input_before_it_computes(change):
    reference.extended_trajectories(**({"system": LORENZ, "y0s": START, "ts": [0.0, 0.1]} | change))


def test_refuses_a_step_or_a_scale_that_is_not_positive():
    with pytest.raises(ValueError, match="dt"):
        reference.TaylorFlow.create(LORENZ, 0.0)
    with pytest.raises(ValueError, match="order"):
        reference.TaylorFlow.create(LORENZ, 0.1, order=0)
    with pytest.raises(ValueError, match="substeps"):
        reference.TaylorFlow.create(LORENZ, 0.1, substeps=0)
    found = reference.extended_trajectories(LORENZ, START, [0.0, 0.1])
    with pytest.raises(ValueError, match="scale"):
        reference.extended_horizon(LORENZ, found, scale=[1.0, 1.0, 0.0])
