"""Double-double Taylor series against another method in 50 digits, closed forms and themselves."""

import decimal
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals

from physml import reference, systems
from physml._numerics.double_double import exact

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
    march = jax.jit(lambda y: jax.lax.fori_loop(0, steps, lambda _, y: flow.advance(y), exact(y)))
    return march(jnp.asarray(y0s.T))


def test_thirty_digits_of_another_method():
    # 64 steps of 2^-6, to t = 1, where a perturbation has grown tenfold at the most.
    flow = reference.TaylorFlow.create(LORENZ, 2.0**-6, order=36)
    y = advanced(flow, START, 64)
    for i, start in enumerate(START):
        end = gragg_bulirsch_stoer([Decimal(float(v)) for v in start], "0.015625", 64)[-1]
        with decimal.localcontext(CONTEXT):
            found = [Decimal(float(y.hi[k, i])) + Decimal(float(y.lo[k, i])) for k in range(3)]
            assert max(abs(a - b) for a, b in zip(found, end, strict=True)) < Decimal("1e-28")


def test_the_attractor_is_followed_where_float64_is_lost():
    # To t = 40, where one rounding of float64 has grown to the attractor's size.
    steps, dt = 1280, 2.0**-5
    found = reference.extended_trajectories(
        LORENZ, START[:1], dt * np.arange(steps + 1), order=28, substeps=2
    )
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
    found = reference.extended_trajectories(tangent, np.zeros((1, 1)), ts, order=30, substeps=4)
    np.testing.assert_allclose(found.ys[0, :, 0], np.tan(ts), rtol=3e-16)


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
    poor = reference.extended_trajectories(LORENZ, START, ts, order=6)
    horizon = reference.extended_horizon(LORENZ, poor, scale=SCALE)
    truth = reference.extended_trajectories(LORENZ, START, ts, order=30)
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
        LORENZ, np.asarray(start, np.float64)[None], [0.0, 0.01], order=30
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
    ({"order": 0}, "order"),
    ({"substeps": 0}, "substeps"),
    ({"chunk": 0}, "chunk"),
    ({"system": lorenz}, "system", TypeError),
)
def test_refuses_bad_input_before_it_computes(change):
    reference.extended_trajectories(**({"system": LORENZ, "y0s": START, "ts": [0.0, 0.1]} | change))


def test_refuses_a_step_or_a_scale_that_is_not_positive():
    with pytest.raises(ValueError, match="dt"):
        reference.TaylorFlow.create(LORENZ, 0.0)
    found = reference.extended_trajectories(LORENZ, START, [0.0, 0.1])
    with pytest.raises(ValueError, match="scale"):
        reference.extended_horizon(LORENZ, found, scale=[1.0, 1.0, 0.0])
