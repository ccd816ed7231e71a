"""Bundles against closed forms, double-double truth and Diffrax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import coverage, refusals, relative_l2

from physml import pinn, reference
from physml.results import RESULTS
from physml.systems import (
    Cosine,
    DrivenOscillator,
    Lorenz,
    LotkaVolterra,
    SquareWave,
    from_function,
)

KEY = jax.random.key(0)
RANGES = {"gamma": (0.1, 0.3), "forcing.frequency": (0.5, 1.5)}


def draw(trained: pinn.Bundle, num: int, seed: int = 1):
    """Inputs from the box: starts and parameters."""
    low, high = np.asarray(trained.low), np.asarray(trained.high)
    z = low + (high - low) * np.random.default_rng(seed).random((num, len(low)))
    starts, values = np.split(z, [trained.dim], axis=1)
    return starts, dict(zip(trained.names, values.T, strict=True))


@pytest.fixture(scope="module")
def decay():
    """dy/dt = -k y, y(0) in [1, 2], k in [0.5, 1.5]."""
    system = from_function(lambda t, y, args: -args["k"] * y, dim=1, args={"k": 1.0})
    options = {"parameters": {"args.k": (0.5, 1.5)}, "units": 60, "num_checks": 50, "key": KEY}
    return pinn.bundle(system, [[1.0], [2.0]], 2.0, **options)


def test_exponential_decay(decay):
    ts = np.linspace(0.0, 2.0, 11)
    y0s, parameters = draw(decay, 100)
    truth = y0s[:, None] * np.exp(-parameters["args.k"][:, None] * ts)[..., None]
    ys = decay.solutions(ts, y0s, parameters)
    np.testing.assert_allclose(ys, truth, atol=2e-6)
    np.testing.assert_allclose(ys[:, 0], y0s, rtol=1e-14)
    assert decay.result == RESULTS.successful
    assert float(decay.stats["error_max"]) < 2e-6


def test_calls_agree_and_differentiate(decay):
    y0, k, t = np.array([1.3]), 0.8, 1.1
    value = decay(t, y0, {"args.k": k})
    np.testing.assert_allclose(value, decay.solutions([t], y0, {"args.k": k})[0, 0], rtol=1e-12)
    truth = y0 * np.exp(-k * t)
    np.testing.assert_allclose(decay.derivative(t, y0, {"args.k": k}), -k * truth, rtol=1e-5)

    @jax.jit
    def at(y0, k):
        return decay(t, y0, {"args.k": k})[0]

    by_start, by_rate = jax.grad(at, argnums=(0, 1))(jnp.asarray(y0), k)
    np.testing.assert_allclose(by_start, truth / y0, rtol=1e-5)
    np.testing.assert_allclose(by_rate, -t * truth[0], rtol=1e-5)


INSIDE = {"args.k": 1.0}


@refusals(
    (lambda decay: decay(1.0, [2.5], INSIDE), r"y0 must lie in the box.* got 2\.5"),
    (lambda decay: decay(1.0, [1.5], {"args.k": 1.6}), r"args\.k must lie in the box.* got 1\.6"),
    (lambda decay: decay(2.1, [1.5], INSIDE), r"t must lie in \[0\.0, 2\.0\]"),
    (lambda decay: decay(1.0, [1.5], {}), "parameters must name each"),
    (lambda decay: decay(1.0, [1.5], {"k": 1.0}), "parameters must name each"),
    (lambda decay: decay(1.0, None, INSIDE), "y0 must be given"),
    (lambda decay: decay(1.0, [1.5, 1.5], INSIDE), "y0 must have shape"),
    (lambda decay: decay(1.0, [1.5], {"args.k": [1.0, 1.1]}), "y0 must have shape"),
    (lambda decay: decay.solutions([1.0], [[1.5], [0.5]], INSIDE), "solution 1"),
    (lambda decay: decay.solutions([-1.0], [1.5], INSIDE), "ts must lie in"),
    (lambda decay: decay.solutions([1.0], np.zeros((0, 1)), INSIDE), "y0 must have shape"),
)
def test_calls_refuse(call, decay):
    call(decay)


def test_outside_the_box_traced_values_are_nan(decay):
    values = jax.jit(jax.vmap(lambda t, y0: decay(t, y0, INSIDE)))(
        jnp.array([1.0, 1.0, 2.1]), jnp.array([[1.5], [2.5], [1.5]])
    )
    np.testing.assert_array_equal(np.isnan(values[:, 0]), [False, True, True])


BOX = [[1.0, 0.0], [2.0, 1.0]]


@refusals(
    ({"t1": 0.0}, "t1 must be finite and later"),
    ({"y0": [[1.0, 2.0], [2.0, 1.0]]}, "low <= high"),
    ({"y0": [[1.0, np.nan], [2.0, 1.0]]}, "y0 must be finite"),
    ({"y0": [1.0, 0.0]}, "must vary, got one point"),
    ({"y0": [[1.0], [2.0]]}, "y0 must be one start"),
    ({"parameters": {"gama": (0.1, 0.3)}}, "ranges must name parameters of"),
    ({"parameters": {"gamma": (0.3, 0.1)}}, "gamma must have a range low <= high"),
    (
        {"parameters": {"gamma": 0.3}},
        r"parameters\['gamma'\] must be a pair of .* got 0\.3",
        TypeError,
    ),
    ({"units": 1}, "units must be at least 2"),
    ({"rtol": 0.0}, "rtol must be positive"),
    ({"rtol": 1e-17}, "rtol must be at least"),
    (
        {
            "system": DrivenOscillator(forcing=SquareWave()),
            "parameters": {"forcing.period": (0.2, 0.3)},
        },
        "must not move the times",
    ),
    ({"system": from_function(lambda t, y, _: y[:1], dim=2)}, "shape"),
    ({"system": from_function(lambda t, y, _: 1.0, dim=2)}, "shape"),
    (
        {"system": from_function(lambda t, y, _: jnp.sqrt(y - 1.5), dim=2)},
        "right-hand side in the box",
    ),
)
def test_bundle_refuses(options, as_a_user):
    arguments = {"system": DrivenOscillator(), "y0": BOX, "t1": 1.0, "key": KEY} | options
    pinn.bundle(**arguments)


def test_a_march_that_cannot_end_says_why():
    blows_up = from_function(lambda t, y, _: y**2, dim=1)
    options = {"units": 40, "max_windows": 8, "key": KEY}
    with pytest.raises(RuntimeError, match=r"stopped at t = 0\.\d+, before t1 = 3"):
        pinn.bundle(blows_up, [[0.5], [1.0]], 3.0, **options)
    with pytest.warns(UserWarning, match="that is max_windows"):
        trained = pinn.bundle(blows_up, [[0.5], [1.0]], 3.0, throw=False, **options)
    assert trained.result == RESULTS.max_steps_reached
    end = float(trained.edges[-1])
    y0s = np.linspace(0.5, 1.0, 7)[:, None]
    truth = y0s / (1 - y0s * end)
    np.testing.assert_allclose(trained.solutions([end], y0s)[:, 0], truth, rtol=1e-4)


@pytest.mark.slow
def test_driven_oscillator_over_damping_and_frequency():
    trained = pinn.bundle(DrivenOscillator(), [1.0, 0.0], 20.0, parameters=RANGES, key=KEY)
    ts = np.linspace(0.0, 20.0, 101)
    _, values = draw(trained, 300)

    def exact(gamma, frequency, t=ts):
        system = DrivenOscillator(gamma, forcing=Cosine(1.0, frequency))
        return system.exact(jnp.asarray(t), jnp.array([1.0, 0.0]))

    truth = jax.vmap(exact)(*map(jnp.asarray, values.values()))
    error = relative_l2(trained.solutions(ts, None, values), truth)
    assert np.median(error) < 1e-6 and error.max() < 5e-6
    assert trained.result == RESULTS.successful
    # As does the closed form, and the estimate is the error.
    at = {name: float(value[0]) for name, value in values.items()}
    frequency = jnp.asarray(at["forcing.frequency"])
    slope = jax.grad(lambda w: trained(13.0, None, at | {"forcing.frequency": w})[0])(frequency)
    oscillator = jax.grad(lambda w: exact(at["gamma"], w, 13.0)[0])(frequency)
    np.testing.assert_allclose(slope, oscillator, rtol=1e-3)


@pytest.mark.slow
def test_lorenz_over_starts_and_its_error_estimate():
    box = [[-10.0, -10.0, 15.0], [10.0, 10.0, 35.0]]
    trained = pinn.bundle(Lorenz(), box, 0.5, key=KEY)
    y0s, _ = draw(trained, 200)
    ts = np.linspace(0.0, 0.5, 6)
    truth = np.asarray(reference.extended_trajectories(Lorenz(), y0s, ts).ys)
    ys = np.asarray(trained.solutions(ts, y0s))
    error = relative_l2(ys, truth)
    assert np.median(error) < 1e-6 and error.max() < 5e-6
    true = np.abs(ys - truth)
    of_one = jax.vmap(trained.error_estimate, (0, None))
    estimate = jax.vmap(of_one, (None, 0))(jnp.asarray(ts), jnp.asarray(y0s))
    assert coverage(estimate, true, above=1e-9, factor=2) > 0.95
    residual = trained.residual(0.3, y0s[0])
    assert float(jnp.max(jnp.abs(residual))) < 1e-2  # slopes are up to 500


@pytest.mark.slow
def test_lotka_volterra_over_starts_and_parameters():
    box, ranges = [[5.0, 1.0], [12.0, 4.0]], {"alpha": (0.9, 1.3)}
    trained = pinn.bundle(LotkaVolterra(), box, 10.0, parameters=ranges, key=KEY)
    y0s, values = draw(trained, 100)
    ts = np.linspace(0.0, 10.0, 41)
    ys = trained.solutions(ts, y0s, values)
    starts = np.concatenate([y0s, values["alpha"][:, None]], axis=1)
    truth = reference.trajectories_from(trained.equation.system, starts, ts).ys[..., :2]
    error = relative_l2(ys, truth)
    assert np.median(error) < 1e-6 and error.max() < 5e-6
    alphas = jnp.asarray(values["alpha"])
    invariant = jax.vmap(lambda y, a: LotkaVolterra(a).invariant(y.T))(ys, alphas)
    assert float(jnp.max(jnp.ptp(invariant, axis=1))) < 1e-4


@pytest.mark.slow
def test_no_window_crosses_a_jump():
    forcing = SquareWave(period=2.0, width=1.0)
    system, ranges = DrivenOscillator(forcing=forcing), {"gamma": (0.1, 0.3)}
    trained = pinn.bundle(system, BOX, 4.0, parameters=ranges, key=KEY)
    y0s, values = draw(trained, 50)
    ts = np.linspace(0.0, 4.0, 41)
    truth = jax.vmap(
        lambda y0, gamma: DrivenOscillator(gamma, forcing=forcing).exact(jnp.asarray(ts), y0)
    )(jnp.asarray(y0s), jnp.asarray(values["gamma"]))
    assert relative_l2(trained.solutions(ts, y0s, values), truth).max() < 1e-5
    assert {0.5, 1.5, 2.5, 3.5} <= set(np.asarray(trained.edges).tolist())


@pytest.mark.slow
def test_float32():
    box = np.array([[5.0, 1.0], [12.0, 4.0]], np.float32)
    trained = pinn.bundle(LotkaVolterra(), box, 5.0, key=KEY)
    y0s, _ = draw(trained, 100)
    ts = np.linspace(0.0, 5.0, 21)
    ys = trained.solutions(ts, y0s)
    assert ys.dtype == jnp.float32
    truth = reference.trajectories_from(LotkaVolterra(), y0s.astype(float), ts).ys
    assert relative_l2(ys, truth).max() < 1e-3


@pytest.mark.slow
def test_a_small_residual_on_a_repelling_solution_gets_a_verdict():
    # From 1 the solution is cos t for every k; all others leave it as exp(k t).
    system = from_function(
        lambda t, y, k: k * (y - jnp.cos(t)) - jnp.sin(t), dim=1, args=10.0, autonomous=False
    )
    with pytest.warns(UserWarning, match="residual is small"):
        ranges = {"args": (10.0, 12.0)}
        trained = pinn.bundle(system, [1.0], 2.0, parameters=ranges, units=60, key=KEY)
    assert trained.result == RESULTS.suspect
    assert float(trained.stats["error_max"]) > 1e-3


@pytest.mark.slow
def test_states_as_written():
    """A spring in a dictionary, and a complex amplitude with a free frequency."""
    options = dict(key=KEY, units=60, num_checks=20)
    box = [{"x": 0.5, "v": -1.0}, {"x": 1.5, "v": 1.0}]
    spring = pinn.bundle(lambda t, y: {"x": y["v"], "v": -y["x"]}, box, 1.0, **options)
    start, ts = {"x": 1.0, "v": 0.5}, jnp.array([0.3, 0.9])
    found, error = spring(0.9, start), spring.error_estimate(0.9, start)
    truth = np.cos(0.9) + 0.5 * np.sin(0.9)
    assert abs(found["x"] - truth) < 10 * error["x"] < 1e-6
    rows = spring.solutions(ts, {"x": jnp.array([1.0, 0.7]), "v": jnp.array([0.5, 0.0])})
    np.testing.assert_allclose(rows["x"][0, 1], found["x"], rtol=1e-10)
    np.testing.assert_allclose(rows["x"][1], 0.7 * np.cos(ts), atol=1e-6)
    with pytest.raises(ValueError, match=r"must have the structure .*'v': .*, got .*'q'"):
        spring(0.9, {"q": 1.0})
    with pytest.raises(ValueError, match="y0 must have corners of one structure"):
        pinn.bundle(lambda t, y: y, [{"x": 0.5}, {"y": 1.0}], 1.0, **options)

    def turn(t, z, args):
        return jax.lax.complex(0.0, args["w"]) * z

    wave = from_function(turn, like=1j, args={"w": 1.0})
    turning = pinn.bundle(wave, 1.0 + 0j, 1.0, parameters={"args.w": (0.5, 1.5)}, **options)
    value = turning(0.7, None, {"args.w": 1.2})
    assert value.dtype == complex and abs(value - np.exp(0.84j)) < 1e-6
    assert turning.solutions(ts, None, {"args.w": jnp.ones(3)}).shape == (3, 2)
