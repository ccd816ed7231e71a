"""Nonlinear least squares against closed forms and scipy."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize
from flax import nnx
from helpers import Counted

from physml import fit
from physml.results import RESULTS

KINDS = [optx.GaussNewton, optx.LevenbergMarquardt]
LINEAR = [lx.QR(), lx.SVD()]
T = np.linspace(0.0, 3.0, 30)
DECAY = 2.0 * np.exp(-1.3 * T) + 0.3 + 0.02 * np.random.default_rng(0).normal(size=30)


def method(kind, linear=LINEAR[0], dtype=jnp.float64, rtol=None):
    tolerance = float(jnp.finfo(dtype).eps) ** 0.5
    return kind(rtol or tolerance, tolerance, linear_solver=linear)


def rosenbrock(x, batch, key):
    return {"valley": 10 * (x[1] - x[0] ** 2), "end": 1 - x[0]}


def decay(model, batch, key):
    t, y = batch
    return model["a"] * jnp.exp(-model["rate"] * t) + model["c"] - y


def start():
    return {"a": np.array(1.0), "rate": np.array(1.0), "c": np.array(0.0)}


def hilbert(n):
    return 1.0 / (np.arange(n)[:, None] + np.arange(n)[None, :] + 1)


def linear(x, batch, key):
    a, b = batch
    return a @ x - b


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_rosenbrock(kind, linear, dtype):
    x = jnp.asarray([-1.2, 1.0], dtype)
    out = fit.least_squares(rosenbrock, x, method=method(kind, linear, dtype))
    assert bool(out.result == RESULTS.successful) and out.nonfinite_step is None
    np.testing.assert_allclose(out.model, 1.0, rtol=1e-12 if dtype == jnp.float64 else 1e-4)
    assert out.model.dtype == dtype and out.history["loss"].dtype == dtype
    np.testing.assert_allclose(out.history["loss"][0], 4.4**2 + 2.2**2, rtol=1e-6)
    np.testing.assert_array_equal(out.history["step"], np.arange(out.step))


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("kind", [*KINDS, optx.Dogleg, optx.IndirectLevenbergMarquardt])
def test_agrees_with_scipy(kind, linear):
    solver = method(kind, linear, rtol=1e-10)
    out = fit.least_squares(decay, start(), (T, DECAY), method=solver)

    def misfit(p):
        return p[0] * np.exp(-p[1] * T) + p[2] - DECAY

    theirs = scipy.optimize.least_squares(misfit, [1.0, 1.0, 0.0], xtol=1e-15, ftol=1e-15)
    ours = [out.model[name] for name in ("a", "rate", "c")]
    np.testing.assert_allclose(ours, theirs.x, rtol=1e-7)
    np.testing.assert_allclose(out.history["loss"][-1], np.mean(theirs.fun**2), rtol=1e-12)


def test_levenberg_marquardt_never_goes_up():
    solver = method(optx.LevenbergMarquardt)
    out = fit.least_squares(rosenbrock, np.array([-1.2, 1.0]), method=solver)
    assert np.all(np.diff(out.history["loss"]) <= 0)


def test_gauss_newton_solves_a_linear_problem_in_one_step():
    a = np.random.default_rng(0).normal(size=(20, 4))
    b = np.random.default_rng(1).normal(size=20)
    out = fit.least_squares(linear, np.zeros(4), (a, b))
    np.testing.assert_allclose(out.model, np.linalg.lstsq(a, b)[0], rtol=1e-12)
    assert out.step == 3, "the start, the solution, and a look that it is one"


def test_svd_keeps_digits_that_normal_equations_lose():
    a = hilbert(8)  # condition number 1.5e10
    x = np.ones(8)
    solver = method(optx.GaussNewton, lx.SVD())
    with pytest.warns(UserWarning, match="maximum number of solver steps"):
        out = fit.least_squares(linear, np.zeros(8), (a, a @ x), method=solver, max_steps=3)
    normal = np.linalg.solve(a.T @ a, a.T @ (a @ x))
    assert np.max(np.abs(out.model - x)) < 1e-5 < 1e-2 < np.max(np.abs(normal - x))


@pytest.mark.parametrize(
    ("a", "b", "rcond", "x", "rtol"),
    [
        (np.diag([1.0, 1e-3, 1e-6]), np.ones(3), 1e-4, [1.0, 1e3, 0.0], 1e-9),
        (np.ones((5, 2)), np.full(5, 3.0), None, [1.5, 1.5], 1e-12),
    ],
    ids=["weak", "rank-deficient"],
)
def test_svd_leaves_directions_without_data_alone(a, b, rcond, x, rtol):
    solver = method(optx.GaussNewton, lx.SVD(rcond))
    out = fit.least_squares(linear, np.zeros(len(x)), (a, b), method=solver)
    np.testing.assert_allclose(out.model, x, rtol=rtol)


def test_minimises_the_weighted_mean_square():
    def blocks(x, batch, key):
        return {"a": jnp.full(3, 1.0) * (x - 1.0), "b": (x - 4.0)[None]}

    weights = {"a": 2.0, "b": jnp.asarray([0.5])}
    out = fit.least_squares(blocks, np.zeros(()), weights=weights)
    np.testing.assert_allclose(out.model, (2.0 * 1 + 0.5 * 4) / 2.5, rtol=1e-12)
    value, _ = fit.mean_square(blocks, weights)(out.model, None, None)
    np.testing.assert_allclose(out.history["loss"][-1], value, rtol=1e-12)


class Net(nnx.Module):
    def __init__(self):
        self.inner = nnx.Linear(1, 6, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        self.inner.kernel = nnx.Cache(4 * self.inner.kernel[...])
        self.inner.bias = nnx.Cache(jnp.linspace(-2.0, 2.0, 6))
        self.readout = nnx.Linear(6, 1, rngs=nnx.Rngs(1), param_dtype=jnp.float64)

    def features(self, t):
        return jnp.tanh(self.inner(t[:, None]))

    def __call__(self, t):
        return self.readout(self.features(t))[:, 0]


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_flax_model_trains_what_wrt_selects(kind, linear):
    def residual(model, batch, key):
        t, y = batch
        # A block that is a Flax variable, which does not depend on what is trained.
        return {"data": model(t) - y, "still": model.inner.bias}

    model, options = Net(), dict(method=method(kind, linear), weights={"still": 0.0})
    out = fit.least_squares(residual, model, (T, DECAY), **options)
    features = np.c_[model.features(T), np.ones(30)]
    best = features @ np.linalg.lstsq(features, DECAY)[0]
    np.testing.assert_allclose(out.model(T), best, rtol=1e-9)
    np.testing.assert_array_equal(out.model.inner.kernel[...], model.inner.kernel[...])
    assert not np.allclose(out.model.readout.kernel[...], model.readout.kernel[...])


def test_residual_gets_the_key():
    key = jax.random.key(5)
    out = fit.least_squares(lambda x, b, k: x - jax.random.normal(k, (2,)), np.zeros(2), key=key)
    np.testing.assert_allclose(out.model, jax.random.normal(key, (2,)), rtol=1e-12)


def test_too_few_steps():
    solver = method(optx.LevenbergMarquardt)
    with pytest.warns(UserWarning, match=r"fit\.least_squares: The maximum .* Steps made: 9\."):
        out = fit.least_squares(rosenbrock, np.array([-1.2, 1.0]), method=solver, max_steps=9)
    assert bool(out.result == RESULTS.max_steps_reached) and out.step == 9
    value, _ = fit.mean_square(rosenbrock)(out.model, None, None)
    np.testing.assert_allclose(value, out.history["loss"].min(), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:fit.least_squares")
@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_nonfinite_returns_the_best_model(kind, linear):
    def wall(x, batch, key):
        return jnp.where(x > 3.0, jnp.nan, x - 5.0)[None]

    out = fit.least_squares(wall, np.array(0.0), method=method(kind, linear))
    value, _ = fit.mean_square(wall)(out.model, None, None)
    assert np.isfinite(value)
    if kind is optx.GaussNewton:
        assert bool(out.result == RESULTS.nonfinite) and out.nonfinite_step == 1
    else:
        assert 2.5 < out.model <= 3.0, "steps into the wall are rejected and shortened"


@pytest.mark.parametrize("kind", KINDS)
def test_nonfinite_from_the_start(kind):
    with pytest.warns(UserWarning, match="The loss of step 0 was not finite"):
        out = fit.least_squares(lambda x, b, k: jnp.log(x), np.array([-1.0]), method=method(kind))
    assert bool(out.result == RESULTS.nonfinite) and out.nonfinite_step == 0
    assert out.model == -1


def test_diverging_gauss_newton_returns_its_best():
    with pytest.warns(UserWarning, match=r"fit\.least_squares"):
        out = fit.least_squares(lambda x, b, k: jnp.arctan(x), np.array([1.5]), max_steps=6)
    assert bool(out.result != RESULTS.successful)
    np.testing.assert_allclose(np.arctan(out.model[0]) ** 2, np.nanmin(out.history["loss"]))
    assert out.history["loss"][3] > out.history["loss"][0]


@pytest.mark.usefixtures("programs_stay")
def test_a_second_fit_compiles_nothing():
    counted = Counted(decay)
    first = fit.least_squares(counted, start(), (T, DECAY))
    count = counted.traces
    again = fit.least_squares(counted, start(), (T, DECAY + 1))
    assert counted.traces == count + 1  # to see what it does
    assert again.compile_seconds < first.compile_seconds
    np.testing.assert_allclose(again.model["c"], first.model["c"] + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(method=optx.BFGS(1e-8, 1e-8)),
            "an optimistix.* such as optimistix.Leven.*, got a BFGS",
        ),
        (dict(method="newton"), "method must be .* got 'newton'"),
        (dict(max_steps=0), "max_steps must be at least 1, got 0"),
        (dict(weights={"x": 1.0}), r"weights must name blocks .* got \['x'\]"),
    ],
)
def test_bad_arguments(as_a_user, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fit.least_squares(rosenbrock, np.zeros(2), **options)


def test_cramer_rao_is_reached_by_scipy():
    """Of a decay in noise: the spread of least-squares estimates, and the covariance of one."""

    def decay(t, size, rate):
        return size * np.exp(-rate * t)

    true, draws = (2.0, 1.3), np.random.default_rng(1)
    data = decay(T, *true) + 0.01 * draws.normal(size=(400, T.size))
    found = [scipy.optimize.curve_fit(decay, T, y, true)[0] for y in data]
    bound = fit.cramer_rao(lambda p: p[0] * jnp.exp(-p[1] * T), jnp.array(true), 0.01)
    np.testing.assert_allclose(np.std(found, axis=0), bound, rtol=0.1)
    known = dict(sigma=np.full(T.size, 0.01), absolute_sigma=True)
    _, covariance = scipy.optimize.curve_fit(decay, T, decay(T, *true), true, **known)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), bound, rtol=1e-6)
    with pytest.raises(ValueError, match="must tell all 2 unknowns, got a Jacobian of rank 1"):
        fit.cramer_rao(lambda p: (p[0] + p[1]) * T, jnp.array(true), 0.01)
