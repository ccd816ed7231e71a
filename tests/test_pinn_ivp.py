"""Window networks against closed forms, and against Lorenz in extended precision."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import refusals, relative_l2

from physml import nn, pinn, residuals
from physml.results import RESULTS
from physml.systems import DrivenOscillator, Lorenz, SquareWave, from_function


def lorenz_by_taylor(t1: float, order: int = 24, bits: int = 160) -> np.ndarray:
    """Lorenz from (1, 1, 1) on a grid of 0.01: Taylor series in fixed-point arithmetic."""
    one = 1 << bits
    sigma, rho, beta, h = (int(Fraction(x) * one) for x in (10, 28, 8.0 / 3.0, Fraction(1, 100)))
    state, rows = (one, one, one), [(one, one, one)]
    for _ in range(round(t1 * 100)):
        x, y, z = ([value] for value in state)
        for k in range(order):
            xz = sum(x[i] * z[k - i] for i in range(k + 1)) >> bits
            xy = sum(x[i] * y[k - i] for i in range(k + 1)) >> bits
            slopes = (
                (sigma * (y[k] - x[k])) >> bits,
                (rho * x[k] >> bits) - xz - y[k],
                xy - (beta * z[k] >> bits),
            )
            for series, slope in zip((x, y, z), slopes, strict=True):
                series.append(slope // (k + 1))
        state = tuple(_horner(series, h, bits) for series in (x, y, z))
        rows.append(state)
    return np.array([[value / one for value in row] for row in rows])


def _horner(series: list[int], h: int, bits: int) -> int:
    value = series[-1]
    for coefficient in reversed(series[:-1]):
        value = coefficient + (value * h >> bits)
    return value


@pytest.fixture(scope="module")
def lorenz():
    grid = np.arange(2001) * 0.01
    return pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 20.0, ts=grid), lorenz_by_taylor(20.0)


def test_lorenz_to_t20(lorenz):
    solution, truth = lorenz
    assert solution.result == RESULTS.successful
    assert relative_l2(solution.ys, truth) < 1e-12
    assert int(solution.stats["num_windows"]) < 150
    assert solution.stats["edges"][-1] == 20.0
    assert np.all(np.asarray(solution.stats["residuals"]) <= 1.0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_smooth_solutions_are_right_to_a_rounding(dtype):
    """A fall, whose Legendre terms end, and a decay, whose terms do not, at any time."""
    g, k, starts = (np.asarray(x, dtype) for x in (9.81, 0.7, [1.0, 0.3, 1.0]))
    fall = from_function(lambda t, y, args: jnp.stack([y[1], -g + 0 * y[0], -k * y[2]]), 3)
    solution = pinn.solve(fall, starts, 3.0, ts=np.array([3.0], dtype))
    t = np.random.default_rng(0).uniform(0, 3, 400).astype(dtype)
    long, (y, v, _), g, k = (np.asarray(x, np.longdouble) for x in (t, starts, g, k))
    truth = np.stack([y + v * long - g * long**2 / 2, v - g * long, np.exp(-k * long)], axis=1)
    errors, size = np.abs(np.asarray(solution(t)) - truth), np.abs(truth).max(axis=0)
    assert np.all(errors < 2 * np.finfo(dtype).eps * size)
    assert np.all(errors <= np.asarray(solution.error_estimate(t)))


def test_a_solution_is_evaluated_on_the_devices_where_times_are(lorenz):
    solution, _ = lorenz
    mesh = jax.sharding.Mesh(jax.devices(), ("rows",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    times = jnp.linspace(0.0, 20.0, 500)
    found = solution(jax.device_put(times, rows))
    assert {shard.data.shape for shard in found.addressable_shards} == {(250, 3)}
    np.testing.assert_array_equal(found, solution(times))


def test_networks_fulfil_the_equation_between_their_points(lorenz):
    solution, _ = lorenz
    times = jax.random.uniform(jax.random.key(0), (500,), maxval=20.0)
    residual = residuals.equation(Lorenz())(solution.dense.evaluate, times)
    # The slope is up to 300; a residual is accepted as a change of u over a window.
    assert float(jnp.max(jnp.abs(residual))) < 1e-6
    slope = jax.vmap(Lorenz(), in_axes=(0, 0))(times, solution(times))
    np.testing.assert_allclose(solution.derivative(times), slope, atol=1e-6)


def test_a_window_is_one_frozen_tanh_layer_and_a_readout(lorenz):
    solution, _ = lorenz
    index = 17
    dense = solution.dense.networks
    network = solution.dense.network(index)
    (layer,) = network.hidden
    assert isinstance(layer.kernel, nn.Frozen) and isinstance(layer.bias, nn.Frozen)
    assert network.activation is jnp.tanh
    s = jnp.linspace(-1.0, 0.99, 7)
    half = dense.spans[index] / 2
    expected = jax.vmap(dense.evaluate)(dense.starts[index] + half * (s + 1))
    ramp = np.outer(s + 1, dense.slopes[index])
    u = np.asarray(dense.ys[index]) + np.asarray(half * (ramp + network(s[:, None])))
    np.testing.assert_allclose(u, expected, rtol=1e-12)
    np.testing.assert_allclose(u, solution(dense.starts[index] + half * (s + 1)), rtol=1e-9)
    np.testing.assert_allclose(network(jnp.array([-1.0])), 0.0, atol=1e-12)
    num_windows = int(solution.stats["num_windows"])
    with pytest.raises(IndexError, match=f"must be in .0, {num_windows}"):
        dense.network(num_windows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_random_hidden_layers_do_as_well(seed):
    solution = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 3.0, key=jax.random.key(seed))
    truth = lorenz_by_taylor(3.0)
    assert relative_l2(solution(np.arange(301) * 0.01), truth) < 1e-11


@pytest.mark.parametrize(
    ("t0", "y0", "options"),
    # The last: a relative tolerance alone, from a component that is zero.
    [
        (3.0, (-0.5, 2.0), {}),
        *(pytest.param(0.0, (1.0, 0.0), x, marks=pytest.mark.slow) for x in ({}, {"atol": 0.0})),
    ],
)
def test_driven_oscillator(t0, y0, options):
    system, y0 = DrivenOscillator(), jnp.array(y0)
    solution = pinn.solve(system, y0, t0 + 20.0, t0=t0, **options)
    assert solution.ts[0] == t0 and solution.ts[-1] == t0 + 20.0
    np.testing.assert_allclose(solution.ys, system.exact(solution.ts, y0, t0=t0), atol=1e-11)


@pytest.mark.slow
def test_pulse_train_is_not_smeared_over_its_jumps():
    system, y0 = DrivenOscillator(forcing=SquareWave(0.0, 2.0, 0.2, 0.1)), jnp.array([1.0, 0.0])
    solution = pinn.solve(system, y0, 1.0)
    np.testing.assert_allclose(solution.ys, system.exact(solution.ts, y0), atol=1e-12)
    edges = np.asarray(solution.stats["edges"])
    jumps = system.jump_times(0.05, 0.95)
    assert np.min(np.abs(edges[:, None] - jumps), axis=0).max() < 1e-15


def test_logistic_growth_with_args():
    system = from_function(lambda t, y, rate: rate * y * (1 - y), 1)
    solution = pinn.solve(system, [0.01], 8.0, args=2.0)
    growth = 0.01 * np.exp(2.0 * np.asarray(solution.ts))
    np.testing.assert_allclose(solution.ys[:, 0], growth / (0.99 + growth), rtol=1e-11)


def test_stiff_relaxation():
    """y' = -10^4 (y - cos t) - sin t stays on cos t; an explicit method needs 10^4 steps."""
    slope = lambda t, y, _: -1e4 * (y - jnp.cos(t)) - jnp.sin(t)  # noqa: E731
    system = from_function(slope, 1, autonomous=False)
    solution = pinn.solve(system, [1.0], 10.0)
    np.testing.assert_allclose(solution.ys[:, 0], np.cos(solution.ts), atol=1e-11)
    assert int(solution.stats["num_windows"]) < 60


@pytest.mark.parametrize("start", [1e-17, 1.2246e-16, -3e-15, 1e-12])
def test_a_start_that_is_rounding_is_as_good_as_zero(start):
    """The time in which it changes by its own size is none at all beside t0."""
    swing = from_function(lambda t, y, args: jnp.stack([y[1], -y[0]]), 2)
    solution = pinn.solve(swing, jnp.array([start, 1.0]), 5.0, t0=1.3)
    t = np.asarray(solution.ts) - 1.3
    expected = np.sin(t) + start * np.cos(t)
    np.testing.assert_allclose(solution.ys[:, 0], expected, rtol=0, atol=5e-15)


@pytest.mark.slow
def test_tolerance_is_kept_and_saves_windows():
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    coarse = pinn.solve(system, y0, 20.0, rtol=1e-3, network=small_network())
    # Twelve units take many windows to a tolerance that each component keeps by its own size.
    fine = pinn.solve(system, y0, 20.0, rtol=1e-9, network=small_network(), max_windows=8192)
    errors = [np.abs(s.ys - system.exact(s.ts, y0)).max() for s in (coarse, fine)]
    assert errors[0] < 1e-3 and errors[1] < 1e-9
    assert coarse.stats["num_windows"] < fine.stats["num_windows"]


def small_network() -> nn.MLP:
    normal = nnx.initializers.normal(2.0)
    return nn.MLP(1, (12,), 2, kernel_init=normal, bias_init=normal, rngs=nnx.Rngs(0))


def test_blow_up_stops_with_the_solution_so_far():
    system = from_function(lambda t, y, _: y**2, 1)  # y = 1 / (1 - t)
    with pytest.warns(UserWarning, match="shortest span"):
        solution = pinn.solve(system, [1.0], 2.0, throw=False)
    assert solution.result == RESULTS.window_failed
    assert 0.999 < float(solution.t1) <= 1.0
    good = np.asarray(solution.ts) < 0.9
    np.testing.assert_allclose(solution.ys[good, 0], 1 / (1 - solution.ts[good]), rtol=1e-9)
    assert np.all(np.isnan(solution.ys[np.asarray(solution.ts) > solution.t1]))
    with pytest.raises(RuntimeError, match=r"stopped at t = 0\.99.*window.*atol="):
        pinn.solve(system, [1.0], 2.0)


@pytest.mark.slow
def test_too_few_windows():
    with pytest.warns(UserWarning, match="3 windows, that is max_windows"):
        solution = pinn.solve(DrivenOscillator(), [1.0, 0.0], 20.0, max_windows=3, throw=False)
    assert solution.result == RESULTS.max_steps_reached
    assert int(solution.stats["num_windows"]) == 3 and solution.t1 < 20.0


def test_right_hand_side_turning_nan_is_told_apart():
    system = from_function(lambda t, y, _: jnp.sqrt(1.0 - t) * y, 1, autonomous=False)
    with pytest.warns(UserWarning, match="before t1 = 2"):
        solution = pinn.solve(system, [1.0], 2.0, throw=False, rtol=1e-4)
    assert solution.result in (RESULTS.window_failed, RESULTS.nonfinite)
    assert float(solution.t1) <= 1.0
    exact = np.exp(2 / 3 * (1 - (1 - 0.5) ** 1.5))
    np.testing.assert_allclose(solution(0.5), [exact], rtol=1e-5)


def test_jit_vmap_and_forward_derivative_in_parameters():
    """u = exp(k t): du/dk = t exp(k t)."""
    system = from_function(lambda t, y, k: k * y, 1)

    def end(k, y0):
        return pinn.solve(system, y0, 1.0, args=k, ts=[1.0], max_windows=16).ys[0, 0]

    def end_and_slope(k):
        return jax.jvp(lambda k: end(k, jnp.ones(1)), (k,), (jnp.ones(()),))

    rates = jnp.array([0.5, -2.0])
    ends, slopes = jax.jit(jax.vmap(end_and_slope))(rates)
    np.testing.assert_allclose(ends, jnp.exp(rates), rtol=1e-12)
    np.testing.assert_allclose(slopes, jnp.exp(rates), rtol=1e-8)


def test_float32():
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0], jnp.float32)
    solution = pinn.solve(system, y0, 20.0)
    assert solution.ys.dtype == jnp.float32
    exact = system.exact(jnp.asarray(solution.ts, jnp.float64), jnp.array([1.0, 0.0]))
    assert relative_l2(np.asarray(solution.ys, np.float64), np.asarray(exact)) < 1e-6


@refusals(
    ({"t1": 0.0}, "t1 must be finite and later than t0 = 0.0, got t1 = 0.0"),
    ({"t1": np.inf}, "t1 must be finite"),
    ({"y0": [1.0]}, r"y0 must have shape \(2,\)"),
    ({"y0": [1.0, np.nan]}, "y0 must be finite"),
    ({"ts": [0.0, 2.0]}, r"ts must lie in \[0.0, 1.0\]"),
    ({"ts": [0.5, 0.2]}, "ts must increase"),
    ({"rtol": 1e-18}, "rtol must be at least"),
    ({"units": 1}, "units must be at least 2"),
    ({"first_span": -1.0}, "first_span must be positive"),
    ({"max_windows": 0}, "max_windows must be at least 1"),
    ({"key": jax.random.key(0), "network": small_network()}, "got both"),
    ({"system": "lorenz"}, "System", TypeError),
    ({"system": from_function(lambda t, y, _: y[0], 2)}, "shape"),
    ({"system": from_function(lambda t, y, _: 1.0, 2)}, "shape"),
    ({"system": from_function(lambda t, y, _: y / 0.0, 2)}, "right-hand side at t0"),
    ({"y0": jnp.ones(2, jnp.float32), "rtol": 1e-9}, "rtol must be at least .* float32 allows"),
)
def test_bad_input(change):
    pinn.solve(**({"system": DrivenOscillator(), "y0": [1.0, 0.0], "t1": 1.0} | change))
