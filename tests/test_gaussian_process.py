"""Oracles: scikit-learn, Rasmussen and Williams' formulas in NumPy, tinygp, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from helpers import refusals
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from physml import bayes, data, dynamics
from physml.results import RESULTS

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, NEW = RNG.uniform(0.0, 4.0, (30, 2)), RNG.uniform(0.0, 4.0, (7, 2))
Y = np.sin(X[:, 0]) * X[:, 1] + 0.1 * RNG.normal(size=30)
TS = np.sort(RNG.uniform(0.0, 9.0, 40))
WAVE = np.sin(TS) + 0.1 * RNG.normal(size=40)

PEERS = {
    "rbf": (bayes.RBF([0.9, 1.7]), kernels.RBF([0.9, 1.7])),
    "matern12": (bayes.Matern(0.5, 1.3), kernels.Matern(1.3, nu=0.5)),
    "matern32": (bayes.Matern(1.5, 1.3), kernels.Matern(1.3, nu=1.5)),
    "matern52": (bayes.Matern(2.5, [0.9, 1.7]), kernels.Matern([0.9, 1.7], nu=2.5)),
    "matern72": (bayes.Matern(3.5, 1.3), kernels.Matern(1.3, nu=3.5)),
    "quadratic": (bayes.RationalQuadratic(1.3, 0.7), kernels.RationalQuadratic(1.3, 0.7)),
    "linear": (bayes.Constant(0.5) + bayes.Linear(), kernels.DotProduct(np.sqrt(0.5))),
    "sum": (
        2.0 * bayes.RBF(0.8) + 0.3 * bayes.Matern(1.5, 2.0),
        2.0 * kernels.RBF(0.8) + 0.3 * kernels.Matern(2.0, nu=1.5),
    ),
    "product": (
        bayes.RBF(0.8) * bayes.Linear() + 0.1 * bayes.RBF(1.0),
        kernels.RBF(0.8) * kernels.DotProduct(1e-9) + 0.1 * kernels.RBF(1.0),
    ),
}


def conditioned(kernel, x, y, noise=0.1, **options):
    return bayes.GaussianProcess.condition(kernel, x, y, noise=noise, standardise=False, **options)


@pytest.mark.parametrize("name", PEERS)
def test_as_scikit_learn(name):
    ours, theirs = PEERS[name]
    process = conditioned(ours, X, Y)
    peer = GaussianProcessRegressor(theirs, alpha=0.01, optimizer=None).fit(X, Y)
    mean, sd = peer.predict(NEW, return_std=True)
    wanted = peer.log_marginal_likelihood_value_
    np.testing.assert_allclose(process.log_likelihood[0], wanted, rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(process(NEW), mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(process.variance(NEW), sd**2, rtol=1e-6, atol=1e-10)


def test_periodic_as_scikit_learn():
    process = conditioned(bayes.Periodic(5.0, 0.8), TS, WAVE)
    theirs = kernels.ExpSineSquared(0.8, 5.0)
    peer = GaussianProcessRegressor(theirs, alpha=0.01, optimizer=None).fit(TS[:, None], WAVE)
    wanted = peer.log_marginal_likelihood_value_
    np.testing.assert_allclose(process.log_likelihood[0], wanted, atol=1e-8)


def test_as_rasmussen_and_williams():
    noise = RNG.uniform(0.05, 0.2, 30)  # one for each row
    process = conditioned(bayes.RBF(1.2), X, Y, noise)
    square = np.sum((X[:, None] - X[None]) ** 2, axis=-1)
    covariance = np.exp(-0.5 * square / 1.44) + np.diag(noise**2)
    inverse = np.linalg.inv(covariance)
    (_, determinant) = np.linalg.slogdet(covariance)
    evidence = -0.5 * Y @ inverse @ Y - 0.5 * determinant - 15 * np.log(2 * np.pi)  # eq. 2.30
    np.testing.assert_allclose(process.log_likelihood[0], evidence, rtol=1e-10)
    across = np.exp(-0.5 * np.sum((NEW[:, None] - X[None]) ** 2, axis=-1) / 1.44)
    np.testing.assert_allclose(process(NEW), across @ inverse @ Y, rtol=1e-8)  # eq. 2.25
    left = 1 - np.sum(across @ inverse * across, axis=1)  # eq. 2.26
    np.testing.assert_allclose(process.variance(NEW), left, rtol=1e-6, atol=1e-10)


def test_kernels_of_tinygp_are_taken():
    theirs = 2.0 * tinygp.kernels.ExpSquared(scale=1.2) + bayes_free()
    ours = 2.0 * bayes.RBF(1.2) + bayes.Constant(0.3)
    a, b = (conditioned(kernel, X, Y) for kernel in (theirs, ours))
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(a(NEW), b(NEW), rtol=1e-8)


def bayes_free():
    return tinygp.kernels.Constant(0.3)


def test_the_fit_is_as_good_as_scikit_learns():
    x, y = (X - X.mean(0)) / X.std(0), (Y - Y.mean()) / Y.std()
    theirs = 1.0 * kernels.RBF([1.0, 1.0]) + kernels.WhiteKernel(0.01)
    peer = GaussianProcessRegressor(theirs, alpha=0.0).fit(x, y)
    wanted = peer.log_marginal_likelihood_value_ - 30 * np.log(Y.std())
    fitted = bayes.fit_gaussian_process(1.0 * bayes.RBF([1.0, 1.0]), X, Y, KEY, restarts=2)
    assert fitted.result == RESULTS.successful
    np.testing.assert_allclose(fitted.model.log_likelihood[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(fitted.log_likelihoods.max(), wanted, rtol=1e-6)
    scales = fitted.model.kernel.second.scale[0]
    np.testing.assert_allclose(scales, peer.kernel_.k1.k2.length_scale, rtol=1e-3)
    np.testing.assert_allclose(
        fitted.model.noise[0], Y.std() * peer.kernel_.k2.noise_level**0.5, rtol=1e-3
    )


@pytest.mark.parametrize("k", [-9, 9])
def test_units_do_not_matter(k):
    kernel, options = 1.0 * bayes.RBF(), {"restarts": 1}
    plain = bayes.fit_gaussian_process(kernel, TS, WAVE, KEY, **options).model
    scaled = bayes.fit_gaussian_process(
        kernel, TS * 10.0**k, WAVE * 10.0 ** (2 * k), KEY, **options
    ).model
    at = np.asarray([1.0, 4.5])
    unit = 10.0 ** (2 * k)
    np.testing.assert_allclose(scaled(at * 10.0**k), plain(at) * unit, rtol=1e-5)
    np.testing.assert_allclose(
        scaled.variance(at * 10.0**k), plain.variance(at) * unit**2, rtol=1e-4
    )
    np.testing.assert_allclose(scaled.noise, plain.noise * unit, rtol=1e-4)
    change = scaled.log_likelihood - plain.log_likelihood
    np.testing.assert_allclose(change, -40 * np.log(unit), rtol=1e-5)


@pytest.mark.slow
def test_several_outputs_are_several_processes():
    both = np.stack([Y, 1e3 * X[:, 1] ** 2], axis=1)

    def fit(y):
        return bayes.fit_gaussian_process(bayes.RBF(), X, y, KEY, noise=0.1, restarts=0).model

    process = fit(both)
    for i in range(2):
        alone = fit(both[:, i])
        np.testing.assert_allclose(process(NEW)[:, i], alone(NEW), rtol=1e-6)
        np.testing.assert_allclose(process.log_likelihood[i], alone.log_likelihood[0], rtol=1e-8)
    shared = bayes.fit_gaussian_process(bayes.RBF(), X, both, KEY, shared=True, restarts=0).model
    assert shared.log_likelihood.shape == (1,) and shared.noise.shape == (2,)
    assert shared(NEW).shape == shared.variance(NEW).shape == (7, 2)
    assert process.derivative(NEW).shape == (7, 2, 2)


@pytest.mark.parametrize(
    "order", [1.5, *(pytest.param(order, marks=pytest.mark.slow) for order in (0.5, 2.5))]
)
def test_quasiseparable_is_exact(order):
    kernel = 0.8 * bayes.Matern(order, 1.3) + 0.3 * bayes.Matern(0.5, 4.0)
    shuffled = RNG.permutation(40)
    at = np.asarray([-1.0, 0.4, 5.0, 2.2, 12.0])
    exact = conditioned(kernel, TS, WAVE)
    quick = conditioned(kernel, TS[shuffled], WAVE[shuffled], solver=bayes.Quasiseparable())
    np.testing.assert_allclose(quick.log_likelihood, exact.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(quick(at), exact(at), rtol=1e-7)
    np.testing.assert_allclose(quick.variance(at), exact.variance(at), rtol=1e-6)
    drawn = quick.samples(at, KEY, 20_000)
    np.testing.assert_allclose(np.var(drawn, axis=0), exact.variance(at), rtol=0.06)


@pytest.mark.slow
def test_inducing_points_are_exact_where_all_rows_are_kept():
    kernel = 1.5 * bayes.Matern(1.5, [0.9, 1.7])
    exact = conditioned(kernel, X, Y)
    all_rows = conditioned(kernel, X, Y, solver=bayes.Inducing(30))
    np.testing.assert_allclose(all_rows.log_likelihood, exact.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(all_rows(NEW), exact(NEW), rtol=1e-7)
    np.testing.assert_allclose(all_rows.variance(NEW), exact.variance(NEW), rtol=1e-6)
    bounds = [
        float(conditioned(kernel, X, Y, solver=bayes.Inducing(num)).log_likelihood[0])
        for num in (5, 10, 20, 30)
    ]
    assert bounds == sorted(bounds) and bounds[0] < exact.log_likelihood[0] - 1  # from below


@pytest.mark.parametrize("kernel", [bayes.RBF(1.1), bayes.Matern(1.5, 1.1)], ids=["rbf", "matern"])
def test_derivative(kernel):
    process = bayes.GaussianProcess.condition(kernel, X, Y, noise=0.1)
    h = 1e-5
    for i, step in enumerate(h * np.eye(2)):
        slope = (process(NEW + step) - process(NEW - step)) / (2 * h)
        np.testing.assert_allclose(process.derivative(NEW)[:, i], slope, rtol=1e-5, atol=1e-7)
    assert np.isfinite(process.derivative(X)).all()  # at the rows themselves too


def test_kernels_have_their_derivatives_at_coincident_points():
    def on_diagonal(kernel):
        k = lambda a, b: kernel.evaluate(a[None], b[None])  # noqa: E731
        first = jax.grad(jax.grad(k, 0), 1)
        second = jax.grad(jax.grad(first, 0), 1)
        return jax.jit(lambda at: (first(at, at), second(at, at)))(jnp.asarray(0.7))

    # Of exp(-r^2/2): 1 and 3. Of Matern 5/2: 5/3 and 25. Of Matern 3/2 the first: 3.
    np.testing.assert_allclose(on_diagonal(bayes.RBF()), (1.0, 3.0), rtol=1e-12)
    np.testing.assert_allclose(on_diagonal(bayes.Matern(2.5)), (5 / 3, 25.0), rtol=1e-12)
    np.testing.assert_allclose(on_diagonal(bayes.Matern(1.5))[0], 3.0, rtol=1e-12)


def test_samples_have_the_mean_and_the_covariance():
    process = conditioned(bayes.RBF(1.2), X, np.stack([Y, -2 * Y], axis=1))
    drawn = process.samples(NEW[:3], KEY, 40_000)
    assert drawn.shape == (40_000, 3, 2)
    mean, variance = process(NEW[:3]), process.variance(NEW[:3])
    error = np.sqrt(variance / 40_000)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * error)
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.05)


@pytest.mark.slow
def test_data_without_noise_are_interpolated():
    fitted = bayes.fit_gaussian_process(1.0 * bayes.RBF(), TS, np.sin(TS), KEY, noise=0.0)
    between = (TS[1:] + TS[:-1]) / 2
    np.testing.assert_allclose(fitted.model(between), np.sin(between), atol=1e-6)


def test_what_is_fixed_stays():
    kernel = bayes.Periodic(period=0.7, scale=1.0) * bayes.RBF(3.0)
    fitted = bayes.fit_gaussian_process(kernel, TS, WAVE, KEY, fixed=("period",), restarts=0)
    assert fitted.model.kernel.first.period.tolist() == [0.7]
    assert fitted.model.kernel.first.scale.tolist() != [1.0]


@pytest.mark.slow
def test_float32_stays():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    model = bayes.fit_gaussian_process(bayes.RBF(), x, y, KEY, noise=0.1, restarts=0).model
    assert model(x).dtype == model.variance(x).dtype == jnp.float32
    double = bayes.fit_gaussian_process(bayes.RBF(), X, Y, KEY, noise=0.1, restarts=0).model
    np.testing.assert_allclose(model(x), double(X), atol=1e-2)


@pytest.mark.slow
def test_a_step_map_of_a_linear_system():
    ts = jnp.linspace(0.0, 3.0, 31)
    turn = jnp.stack([jnp.cos(ts), -jnp.sin(ts)], axis=1)
    train = data.from_arrays(ts, jnp.stack([turn, 2.0 * turn]))
    fitted = bayes.fit_stepper(1.0 * bayes.RBF(3.0), train, KEY, rows=40, noise=0.0, restarts=0)
    path = dynamics.rollout(fitted.step_map, turn[None, :1], 30)[0]
    np.testing.assert_allclose(path, turn, atol=1e-4)
    mean, covariance = bayes.forecast_moments(fitted.step_map, turn[0], 30)
    np.testing.assert_allclose(mean, path, atol=1e-12)
    assert np.all(np.linalg.eigvalsh(covariance) > -1e-15)


def test_the_spread_of_forecasts_in_closed_form():
    # y' = (1 + w) y with w normal: the error after n steps is n (1 + w)^(n - 1) y0 dw.
    ys = np.linspace(0.5, 2.0, 8)[:, None]
    process = conditioned(bayes.Linear(), ys, 0.05 * ys, 0.01)
    step_map = bayes.GaussianStepper(process, 1.0)
    slope = 1 + float(process(np.ones((1, 1)))[0, 0])
    sd = float(process.variance(np.ones((1, 1)))[0, 0]) ** 0.5
    n = np.arange(1, 11)
    mean, covariance = bayes.forecast_moments(step_map, jnp.ones(1), 10)
    np.testing.assert_allclose(mean[1:, 0], slope**n, rtol=1e-10)
    np.testing.assert_allclose(covariance[1:, 0, 0] ** 0.5, n * slope ** (n - 1) * sd, rtol=1e-6)
    # Drawn anew at each step the errors add in squares: each is y_k sd, carried on by the slope.
    drawn = bayes.forecast_samples(step_map, jnp.ones(1), 10, KEY, 20_000)
    wanted = np.sqrt(n) * slope ** (n - 1) * sd
    np.testing.assert_allclose(drawn[:, 1:, 0].std(axis=0), wanted, rtol=0.03)


def oscillator(parameters):
    return parameters["omega0"] ** 2, 2 * parameters["gamma"], 1.0


@pytest.mark.slow
def test_the_force_behind_a_motion():
    ts, at = np.linspace(0.0, 12.0, 40), np.linspace(0.5, 11.5, 9)
    xs = np.sin(ts) + 0.5 * ts  # x'' + 0.4 x' + 4 x
    force = 3 * np.sin(at) + 0.4 * (np.cos(at) + 0.5) + 2 * at
    known = {"gamma": 0.2, "omega0": 2.0}
    fit = bayes.fit_linear_equation(
        oscillator, ts, xs, KEY, parameters=known, noise=1e-4, restarts=0
    )
    mean, variance = fit.force(at)
    np.testing.assert_allclose(mean, force, atol=0.05)
    assert np.all(np.abs(mean - force) < 4 * np.sqrt(variance))
    np.testing.assert_allclose(fit.solution(at)[0], np.sin(at) + 0.5 * at, atol=1e-3)


@pytest.mark.slow
def test_parameters_and_force_from_positions_and_some_forces():
    ts, some, at = np.linspace(0.0, 12.0, 40), np.linspace(0.0, 12.0, 8), np.linspace(1.0, 11.0, 9)
    rng = np.random.default_rng(3)

    def force(t):
        return 3 * np.sin(t) + 0.4 * (np.cos(t) + 0.5) + 2 * t

    fit = bayes.fit_linear_equation(
        oscillator,
        ts,
        np.sin(ts) + 0.5 * ts + 0.01 * rng.normal(size=40),
        KEY,
        parameters={"gamma": 0.4, "omega0": 1.5},
        force_ts=some,
        forces=force(some) + 0.02 * rng.normal(size=8),
        restarts=0,
    )
    for name, truth in {"gamma": 0.2, "omega0": 2.0}.items():
        sd = fit.standard_deviations[name]
        assert sd < 0.1 and abs(fit.parameters[name] - truth) < 4 * sd
    mean, variance = fit.force(at)
    assert np.all(np.abs(mean - force(at)) < 4 * np.sqrt(variance))
    assert np.all(np.sqrt(variance) < 0.3)


@refusals(
    ({"forces": np.ones(3)}, "forces must be given together"),
    ({"ts": np.ones(40)}, "ts must differ"),
    ({"xs": np.ones(3)}, "xs must have 40 rows"),
    ({"noise": -1.0}, "noise must not be negative"),
    ({"coefficients": lambda p: 3.0}, "coefficients must return a list"),
    (
        {"parameters": {"k": -1.0}, "force_ts": TS, "forces": WAVE},
        "parameters.k must be positive",
    ),
)
def test_refusals_of_linear_equations(case):
    arguments = {"coefficients": lambda p: (p["k"], 1.0), "parameters": {"k": 1.0}}
    bayes.fit_linear_equation(**{"ts": TS, "xs": WAVE, "key": KEY} | arguments | case)


class Wrong(bayes.Kernel):
    """No kernel: the matrix of squared distances has negative eigenvalues."""

    scale: float = 1.0

    def evaluate(self, x, y, /):
        return jnp.sum((x - y) ** 2) / self.scale


def test_endings():
    options = {"noise": 0.1, "restarts": 0}
    with pytest.raises(RuntimeError, match="not positive definite"):
        bayes.fit_gaussian_process(Wrong(), X, Y, KEY, **options)
    with pytest.raises(RuntimeError, match="did not converge"):
        bayes.fit_gaussian_process(bayes.RBF(9.0), X, Y, KEY, max_steps=1, **options)
    with pytest.warns(UserWarning, match=r"at a bound: first\.variance"):
        fitted = bayes.fit_gaussian_process(
            1.0 * bayes.RBF(), X, 1e5 * Y, KEY, standardise=False, **options
        )
    assert fitted.result == RESULTS.at_bound


@refusals(
    ({"x": X[:5]}, "y must have 5 rows"),
    ({"x": X[:, :, None]}, "x must have shape"),
    ({"y": np.where(Y > 0, Y, np.nan)}, "y must be finite"),
    ({"noise": -1.0}, "noise must not be negative"),
    ({"noise": np.ones(3)}, "noise must be a number or have shape"),
    ({"fixed": ("period",)}, "fixed must hold names"),
    ({"fixed": ("scale",), "noise": 0.1}, "fixed must leave something"),
    ({"solver": 3}, "solver must be", TypeError),
    ({"solver": bayes.Quasiseparable()}, "kernel must be a Matern", TypeError),
    ({"solver": bayes.Quasiseparable(), "kernel": bayes.Matern()}, "x must have one input"),
    ({"kernel": bayes.RBF([1.0, 1.0, 1.0])}, "kernel must"),
    ({"kernel": 3.0}, "kernel must", TypeError),
    ({"restarts": -1}, "restarts must"),
    ({"search_rows": 99}, "search_rows must"),
)
def test_refusals(case):
    arguments = {"kernel": bayes.RBF(), "x": X, "y": Y, "key": KEY} | case
    bayes.fit_gaussian_process(**arguments)


@refusals(
    (lambda: bayes.RBF(-1.0), "scale must be positive"),
    (lambda: bayes.RBF(np.ones((2, 2))), "scale must be a number or one for each input"),
    (lambda: bayes.RBF("x"), "scale must", TypeError),
    (lambda: bayes.Matern(2.0), "order must be one of"),
    (lambda: bayes.RBF() + "x", "variance must", TypeError),
    (lambda: bayes.Inducing(0), "num must be at least 1"),
)
def test_refusals_of_kernels(case):
    case()
