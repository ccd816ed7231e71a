"""Classic training against closed forms."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import coverage, refusals, relative_l2

from physml import fit, nn, pinn, residuals
from physml.results import RESULTS
from physml.systems import DrivenOscillator, Lorenz, from_function

decay = from_function(lambda t, y, rate: -rate * y, 1)


def network(out_features: int = 1, width: int = 12) -> nn.MLP:
    return nn.MLP(1, (width,), out_features, activation="sin", rngs=nnx.Rngs(0))


ADAM = optax.adam(1e-2)
LBFGS = optax.lbfgs()
STILL = ((optax.sgd(0.0), 1),)  # stages that leave a network as it is
UNTRAINED = pytest.mark.filterwarnings("ignore:pinn.train")


def short(steps: int = 200):
    return ((ADAM, 100), (LBFGS, steps))


def test_equation_residual_is_the_slope_minus_the_right_hand_side():
    system = DrivenOscillator()
    times = jnp.linspace(0.0, 3.0, 5)
    exact = residuals.equation(system)(lambda t: system.exact(t, jnp.array([1.0, 0.0])), times)
    assert exact.shape == (5, 2)
    np.testing.assert_allclose(exact, 0.0, atol=1e-14)
    # u = (t^2, 0): u' = (2 t, 0), f = (0, cos(t / 2) - t^2).
    wrong = residuals.equation(system)(lambda t: jnp.stack([t**2, 0.0 * t]), times)
    expected = np.stack([2 * times, times**2 - np.cos(times / 2)], axis=1)
    np.testing.assert_allclose(wrong, expected, atol=1e-14)
    found = residuals.equation(decay, 3.0)(lambda t: jnp.exp(-2 * t)[None], times)
    np.testing.assert_allclose(found[:, 0], np.exp(-2 * times), atol=1e-14)


@pytest.mark.slow
def test_oscillator_over_a_period():
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    training = pinn.train(network(2, 16), system, y0, 6.0, points=pinn.Even(60), stages=short(600))
    solution = training.solution
    assert solution.result == RESULTS.successful
    exact = system.exact(solution.ts, y0)
    assert relative_l2(solution.ys, exact) < 1e-3
    np.testing.assert_allclose(solution.derivative(2.0), system(2.0, solution(2.0)), atol=1e-2)
    assert training.losses.shape == (700,)
    assert training.losses[-1] < 1e-3 * training.losses[0]
    # The mean square is in units of the state per unit of time, the statistic in those of f.
    scales = solution.dense.scales
    scaled = solution.stats["rms_residual"] * scales.time / scales.state
    np.testing.assert_allclose(np.mean(np.square(scaled)), training.losses[-1], rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["hard", "soft"])
def test_default_is_far_better_than_adam_and_lbfgs(condition):
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    training = pinn.train(network(2, 64), system, y0, 20.0, condition=condition)
    solution = training.solution
    exact = system.exact(solution.ts, y0)
    assert solution.result == RESULTS.successful
    assert relative_l2(solution.ys, exact) < 1e-6  # Adam and L-BFGS: 2e-5
    estimate = solution.error_estimate(solution.ts)
    assert coverage(estimate, jnp.abs(solution.ys - exact), above=1e-11) > 0.95


@pytest.mark.slow
def test_collapse_to_the_fixed_point_gets_a_verdict():
    """The network of a soft condition comes to rest in the origin, an exact solution."""
    with pytest.warns(UserWarning, match="may belong to another solution"):
        options = {"scales": pinn.Scales(time=0.3, state=1.0), "stages": ((ADAM, 1500),)}
        net = nn.MLP(1, (32,), 3, rngs=nnx.Rngs(0))
        training = pinn.train(net, Lorenz(), [1.0, 1.0, 1.0], 3.0, condition="soft", **options)
    solution = training.solution
    assert solution.result == RESULTS.suspect
    assert float(jnp.max(jnp.abs(solution.ys[200:]))) < 5.0  # the true z reaches 48
    assert float(jnp.max(solution.error_estimate(solution.ts))) > 10


@UNTRAINED
@pytest.mark.parametrize("condition", ["hard", pytest.param("soft", marks=pytest.mark.slow)])
def test_ansatz(condition):
    net, t, scales = network(), jnp.asarray(3.0), pinn.Scales(time=0.5, state=10.0)
    options = {"condition": condition, "scales": scales, "stages": STILL}
    training = pinn.train(net, decay, [0.7], 6.0, t0=2.0, args=1.0, **options)
    ramp = 1 - np.exp(-(3.0 - 2.0) / 0.5) if condition == "hard" else 1.0
    expected = 0.7 + 10.0 * ramp * net(jnp.array([(3.0 - 4.0) / 0.5]))
    np.testing.assert_allclose(training.solution(t), expected, rtol=1e-12)
    if condition == "hard":  # whatever the weights
        np.testing.assert_allclose(training.solution(2.0), [0.7], rtol=0, atol=0)


@pytest.mark.slow
def test_decay_with_args_and_shifted_start():
    training = pinn.train(network(), decay, [2.0], 4.0, t0=1.0, args=0.8, stages=short())
    times = np.linspace(1.0, 4.0, 7)
    exact = 2 * np.exp(-0.8 * (times - 1))
    np.testing.assert_allclose(training.solution(times)[:, 0], exact, rtol=2e-3)


@pytest.mark.slow
def test_float32():
    net = nn.MLP(1, (16,), 1, activation="sin", dtype=jnp.float32, rngs=nnx.Rngs(0))
    solution = pinn.train(net, decay, jnp.ones(1, jnp.float32), 3.0, args=1.0).solution
    assert solution.ys.dtype == jnp.float32
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.ys[:, 0], np.exp(-np.asarray(solution.ts)), atol=1e-4)


@pytest.fixture
def programs():
    """What XLA has compiled, or found compiled on the disk, by the seconds that this took."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
@pytest.mark.usefixtures("programs_stay")
def test_other_numbers_compile_nothing(programs):
    system = from_function(lambda t, y, rate: -rate * y, 1)
    net = network()
    counts = []
    for number in (1.0, 2.0):
        rate, steps = fit.Cosine(1e-3 * number, 5 * number), int(5 * number)
        adam = fit.scheduled(optax.adam, learning_rate=rate)
        projection = fit.VariableProjection(damping=1e-3 * number)
        options = {
            "points": pinn.Resampled(20, every=int(number), power=number, floor=number),
            "weights": pinn.RandomLookback(number, 0.1 * number, 0.1 * number),
            "stages": ((adam, steps), (projection, steps)),
            "args": jnp.asarray(number),
        }
        t1, key = 1.0 + 0.1 * number, jax.random.key(0)
        pinn.train(net, system, [number], t1, condition="soft", key=key, **options)
        counts.append(len(programs))
    assert 0 < counts[0] == counts[1]


@UNTRAINED
def test_a_loss_that_overflows_is_told():
    stages = ((optax.sgd(1e300), 5),)
    with pytest.raises(RuntimeError, match="loss was not finite at step"):
        pinn.train(network(), decay, [1.0], 1.0, args=1.0, stages=stages)
    training = pinn.train(network(), decay, [1.0], 1.0, args=1.0, stages=stages, throw=False)
    assert training.solution.result == RESULTS.nonfinite
    assert training.fits[-1].result == RESULTS.nonfinite
    assert np.all(np.isfinite(training.solution.ys))


def test_an_interrupted_stage_is_the_last_and_says_so():
    def interrupt(report):
        signal.raise_signal(signal.SIGINT)

    options = {"stages": ((ADAM, 99), (ADAM, 1)), "progress": interrupt}
    with pytest.warns(UserWarning, match="Ctrl-C"):
        training = pinn.train(network(), decay, [1.0], 1.0, args=1.0, **options)
    assert training.solution.result == RESULTS.interrupted
    assert [stage.result for stage in training.fits] == [RESULTS.interrupted]


def test_traced_problems_are_refused():
    with pytest.raises(ValueError, match="must not be traced"):
        jax.jit(lambda y0: pinn.train(network(), decay, y0, 1.0, args=1.0).solution.ys)(jnp.ones(1))


@refusals(
    ({"t1": 0.0}, "t1 must be finite and later than t0"),
    ({"y0": [1.0, 2.0]}, r"y0 must have shape \(1,\)"),
    ({"y0": jnp.ones(1, jnp.float32)}, "float32, the dtype of y0"),
    ({"network": network(2)}, r"network must turn \(..., 1\) into \(..., 1\)"),
    ({"system": from_function(lambda t, y, _: 1.0, 1)}, r"shape \(\)"),
    ({"system": from_function(lambda t, y, _: jnp.ones(3), 1)}, r"shape \(3,\)"),
    ({"system": from_function(lambda t, y, _: y / 0, 1)}, "must be finite"),
    ({"condition": "firm"}, "condition must be one of"),
    (
        {"points": 200},
        r"points must be a pinn\.Points such as pinn\.Even\(.*, got 200",
        TypeError,
    ),
    ({"points": pinn.Resampled(9)}, "key must be given"),
    ({"weights": pinn.RandomLookback()}, "key must be given"),
    (
        {"weights": {"equation": 1.0}},
        r"weights must .* such as pinn\.Fixed\(.*, got",
        TypeError,
    ),
    ({"scales": pinn.Scales(0.0, 1.0)}, "scales.time must be positive"),
    ({"scales": pinn.Scales(1.0, jnp.ones(2))}, "scales.state must have shape"),
    ({"stages": ()}, "stages must hold"),
    (
        {"stages": (("adam", 10),)},
        r"stages\[0\]\[0\] must .*optax\.adam\(1e-3\).*, got 'adam'",
        TypeError,
    ),
    ({"stages": ((optax.sgd(0.0), 0),)}, "steps of a stage must be at least 1"),
    (
        {"stages": ((optax.sgd(0.0), 10**9), (fit.VariableProjection(linear="head"), 1))},
        "linear must name the last layer",
    ),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_input(change):
    arguments = {"network": network(), "system": decay, "y0": [1.0], "t1": 1.0, "args": 1.0}
    pinn.train(**(arguments | change))


@pytest.mark.slow
def test_states_as_written_and_back_in_time():
    """z' = i z of a complex number, from 0 back to -2."""
    options = dict(ts=[0.0, -1.0, -2.0], points=pinn.Even(40))
    training = pinn.train(
        network(2), lambda t, y: {"z": 1j * y["z"]}, {"z": 1.0 + 0j}, -2.0, **options
    )
    solution = training.solution
    np.testing.assert_allclose(solution.ys["z"], np.exp([0j, -1j, -2j]), atol=1e-6)
    error = np.abs(solution(-1.5)["z"] - np.exp(-1.5j))
    assert error < 10 * solution.error_estimate(-1.5)["z"] < 1e-5
    with pytest.raises(ValueError, match=r"scales\.state must be a number or have"):
        pinn.train(
            network(2), lambda t, y: {"z": 1j * y["z"]}, {"z": 1.0 + 0j}, -2.0,
            scales=pinn.Scales(1.0, {"x": 1.0}),
        )  # fmt: skip
