"""Classic training against closed forms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import fit, nn, pinn, residuals
from physml.solution import RESULTS
from physml.systems import DrivenOscillator, from_function

decay = from_function(lambda t, y, rate: -rate * y, 1)


def network(out_features: int = 1, width: int = 12) -> nn.MLP:
    return nn.MLP(1, (width,), out_features, activation="sin", rngs=nnx.Rngs(0))


def short(steps: int = 200):
    return ((optax.adam(1e-2), 100), (optax.lbfgs(), steps))


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
    np.testing.assert_allclose(
        residuals.equation(decay, 3.0)(lambda t: jnp.exp(-2 * t)[None], times)[:, 0],
        np.exp(-2 * times),
        atol=1e-14,
    )


def test_oscillator_over_a_period():
    system, y0 = DrivenOscillator(), jnp.array([1.0, 0.0])
    training = pinn.train(network(2, 16), system, y0, 6.0, num_points=60, stages=short(600))
    solution = training.solution
    assert solution.result == RESULTS.successful
    exact = system.exact(solution.ts, y0)
    error = jnp.linalg.norm(solution.ys - exact, axis=0) / jnp.linalg.norm(exact, axis=0)
    assert float(jnp.max(error)) < 1e-3
    np.testing.assert_allclose(solution.derivative(2.0), system(2.0, solution(2.0)), atol=1e-2)
    assert training.losses.shape == (700,)
    assert training.losses[-1] < 1e-3 * training.losses[0]
    rms = np.sqrt(np.mean(np.square(solution.stats["rms_residual"])))
    np.testing.assert_allclose(rms, np.sqrt(training.losses[-1]), rtol=0.2)


def test_initial_condition_holds_for_any_weights():
    training = pinn.train(
        network(), decay, [0.7], 5.0, t0=2.0, args=1.0, stages=((optax.sgd(0.0), 1),)
    )
    np.testing.assert_allclose(training.solution(2.0), [0.7], rtol=0, atol=0)
    assert training.solution.dense.network is not None
    assert abs(float(training.solution(5.0)[0]) - 0.7) > 1e-6


def test_ansatz():
    net, t = network(), jnp.asarray(3.0)
    training = pinn.train(
        net, decay, [0.7], 6.0, t0=2.0, args=1.0, time_scale=0.5, stages=((optax.sgd(0.0), 1),)
    )
    expected = 0.7 + (1 - np.exp(-(3.0 - 2.0) / 0.5)) * net(jnp.array([(3.0 - 4.0) / 0.5]))
    np.testing.assert_allclose(training.solution(t), expected, rtol=1e-12)


def test_decay_with_args_and_shifted_start():
    training = pinn.train(network(), decay, [2.0], 4.0, t0=1.0, args=0.8, stages=short())
    times = np.linspace(1.0, 4.0, 7)
    np.testing.assert_allclose(
        training.solution(times)[:, 0], 2 * np.exp(-0.8 * (times - 1)), rtol=2e-3
    )


def test_float32():
    net = nn.MLP(1, (8,), 1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    y0 = jnp.ones(1, jnp.float32)
    stages = ((optax.adam(1e-2), 20),)
    solution = pinn.train(net, decay, y0, 1.0, args=1.0, stages=stages).solution
    assert solution.ys.dtype == jnp.float32


def test_a_loss_that_overflows_is_told():
    stages = ((optax.sgd(1e300), 5),)
    with pytest.raises(RuntimeError, match="loss was not finite at step"):
        pinn.train(network(), decay, [1.0], 1.0, args=1.0, stages=stages)
    training = pinn.train(network(), decay, [1.0], 1.0, args=1.0, stages=stages, throw=False)
    assert training.solution.result == RESULTS.nonfinite
    assert training.fits[-1].result == fit.RESULTS.nonfinite
    assert np.all(np.isfinite(training.solution.ys))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t1": -1.0}, ValueError, "t1 must be finite and later than t0"),
        ({"y0": [1.0, 2.0]}, ValueError, r"y0 must have shape \(1,\)"),
        ({"y0": jnp.ones(1, jnp.float32)}, ValueError, "float32, the dtype of y0"),
        ({"network": network(2)}, ValueError, r"network must turn \(..., 1\) into \(..., 1\)"),
        ({"num_points": 0}, ValueError, "num_points must be at least 1"),
        ({"time_scale": 0.0}, ValueError, "time_scale must be positive"),
        ({"stages": ()}, ValueError, "stages must hold"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"network": network(), "system": decay, "y0": [1.0], "t1": 1.0, "args": 1.0}
    with pytest.raises(error, match=message):
        pinn.train(**(arguments | change))
