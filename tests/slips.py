"""A right call of every public function, for `test_slips`, which spoils one argument at a time."""

import types
import warnings

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from flax import nnx

from physml import (
    bayes,
    classify,
    convolution,
    data,
    dynamics,
    fit,
    fourier,
    generative,
    neuron,
    nn,
    noises,
    pinn,
    plots,
    reference,
    residuals,
    surrogate,
    systems,
)
from physml.results import RESULTS
from physml.solution import Dense, Solution

matplotlib.use("agg")

KEY = jax.random.key(0)
LORENZ, DRIVEN = systems.Lorenz(), systems.DrivenOscillator()
SQUARE = systems.SquareWave()
HARMONIC = systems.FourierSeries(a0=1.0, a=jnp.ones(1), b=jnp.ones(1), period=1.0)
DECAY = systems.from_function(lambda t, y, args: -y, 1)
DELAYED = systems.delayed(lambda t, y, past, args: -past[0], 1.0)
MAP = reference.RungeKutta4(LORENZ, 0.05)
ONES, HISTORY = jnp.ones(3), jnp.ones((2, 3))
TIMES = np.linspace(0.0, 1.0, 6)
PATHS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 3)))
TRAJECTORIES = data.from_arrays(TIMES, PATHS)
FRAME = types.SimpleNamespace(
    columns=["run", "t", "x"], to_numpy=lambda: np.array([[1, 0.0, 2.0], [1, 1.0, 3.0]])
)
PIXELS = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 6, 6, 1)))
IMAGES = data.Images.from_arrays(PIXELS, [0, 1, 0, 1])
KERNEL = jnp.ones((2, 2, 1, 1))
SHARES, LABELS = (
    np.asarray([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9]]),
    np.asarray([0, 1] * 2),
)
ROWS = np.abs(np.random.default_rng(0).normal(size=(3, 5)))
ADAM = optax.adam(1e-2)
SERIES = np.sin(np.linspace(0.0, 20.0, 100))
FITTED_ROWS = (jnp.ones((8, 2)), jnp.ones((8, 1)))


def mlp(inputs=3, outputs=3, **options):
    return nn.MLP(inputs, (4,), outputs, rngs=nnx.Rngs(0), **options)


def cnn():
    return nn.CNN((6, 6, 1), [nn.Filters(2), nn.Pool(), nn.Dense(3)], 2, rngs=nnx.Rngs(0))


def line(model, batch, key):
    return model[0] + model[1] * batch - jnp.array([1.0, 3.0, 5.0])


def loss(model, batch, key):
    return jnp.sum((model - 3.0) ** 2), {}


def against(model, opponent, batch, key):
    return jnp.sum((model - opponent) ** 2), {}


def of_network(model, batch, key):
    return model(batch) - 1.0


def heat(u, x, t):
    return u.t(x, t) - u.xx(x, t)


def at_end(u, x, t):
    return u(x, t)


def step_of(state, batch, key):
    return state + 1.0, {"loss": jnp.sum(state)}


MLP, CNN, RNN = mlp(), cnn(), nn.RNN("gru", 3, 4, 3, rngs=nnx.Rngs(0))
WINDOWS = data.Windows(PATHS, jnp.zeros(3))
STEPPER = surrogate.Stepper.create(MLP, TRAJECTORIES)
PROCESS = bayes.GaussianProcess.condition(bayes.RBF(), ROWS.T, SERIES[:5], noise=0.1)
GAUSSIAN = bayes.GaussianStepper(
    bayes.GaussianProcess.condition(bayes.RBF(), ROWS.T, ROWS.T, noise=0.1), 0.1
)
ASKED = np.array([0, 1, 0, 1, 1])
with warnings.catch_warnings(action="ignore"):  # it need not converge
    CLASSIFIER = bayes.fit_gaussian_classifier(
        bayes.RBF(), ROWS.T, ASKED, KEY, restarts=0, max_steps=5, throw=False
    ).model
SPECTRUM = dynamics.LyapunovSpectrum(jnp.ones(3), jnp.ones((40, 3)), 3)
SWEEP = {"learning_rate": jnp.asarray([0.1, 0.2])}
GRID = np.asarray([0.0, 0.5, 1.0])
MANY = {"key": jax.random.split(KEY, 2)} | {x: jnp.zeros(2) for x in ("l2", "l1", "noise")}
CLIMATE_KEPT = {
    "step_map": MAP, "history": jnp.ones((1, 1, 3)), "num_steps": 40,
    "bounds": ([-30.0, -30.0, 0.0], [30.0, 30.0, 50.0]), "bins": 10, "joint_bins": 4,
    "segment": 20, "peak": -1, "exponents": 1, "every": 10, "transient": 10, "chunk": 20, "t0": 0.0,
}  # fmt: skip
CURVE = {"a": (GRID, GRID, GRID)}
CODEC = generative.principal_components(ROWS, 1)
VARIATIONAL = nn.Variational(nn.Autoencoder.dense(5, (), 1, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
VARIATIONAL = generative.Codec.create(VARIATIONAL, ROWS)
GENERATOR = generative.Generator(mlp(1, 5), jnp.zeros(5), jnp.ones(()), 1, 0)
CODED = data.from_arrays(TIMES, jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 5))))
ABC = ("x", "y", "z")


class Still(Dense):
    """u(t) = 1, with an error of zero: a solution that needs no solving."""

    def evaluate(self, t):
        return ONES + 0 * t

    def derivative(self, t):
        return 0 * ONES * t


SOLUTION = Solution(
    jnp.asarray(TIMES), jnp.ones((6, 3)), jnp.zeros(()), jnp.ones(()), Still(),
    RESULTS.successful, {}, lambda t: 0 * ONES * t,
)  # fmt: skip
PROFILE = pinn.Profile("k", np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 5) ** 2 * 9)
SKILL = dynamics.Skill(PATHS, jnp.ones(()), ONES, ONES > 2, ONES, {}, ONES > 2)

CALLS = {
    # bayes
    bayes.linear: {"features": PATHS[0], "targets": PATHS[1]},
    bayes.last_layer: {"network": MLP, "inputs": PATHS[0], "targets": PATHS[1]},
    bayes.split_rhat: {"draws": ROWS},
    bayes.effective_sample_size: {"draws": ROWS},
    bayes.coverage_of_draws: {"draws": ROWS, "truth": ROWS[0], "levels": (0.5, 0.9)},
    bayes.coverage_of_normals: {
        "mean": ROWS[0], "sd": ROWS[1], "truth": ROWS[2], "levels": (0.5, 0.9),
    },
    noises.NormalNoise: {"scale": 0.1},
    noises.LogNormalNoise: {"scale": 0.1},
    noises.StudentNoise: {"degrees": 4.0, "scale": 0.1},
    bayes.Constant: {"variance": 1.0},
    bayes.Linear: {"scale": 1.0},
    bayes.Matern: {"order": 2.5, "scale": 1.0},
    bayes.Periodic: {"period": 1.0, "scale": 1.0},
    bayes.RationalQuadratic: {"scale": 1.0, "alpha": 1.0},
    bayes.RBF: {"scale": 1.0},
    bayes.Inducing: {"num": 3},
    bayes.fit_gaussian_process: {
        "kernel": bayes.RBF(), "x": ROWS.T, "y": SERIES[:5], "key": KEY, "noise": 0.1,
        "solver": None, "shared": False, "fixed": (), "standardise": True, "search_rows": None,
        "restarts": 0, "max_steps": 5, "throw": True,
    },
    bayes.fit_gaussian_classifier: {
        "kernel": bayes.RBF(), "x": ROWS.T, "labels": ASKED, "key": KEY, "fixed": (),
        "standardise": True, "search_rows": None, "restarts": 0, "max_steps": 5, "throw": False,
    },
    bayes.GaussianClassifier.__call__: {"self": CLASSIFIER, "x": ROWS.T},
    bayes.GaussianProcess.condition: {
        "kernel": bayes.RBF(), "x": ROWS.T, "y": SERIES[:5], "noise": 0.1, "solver": None,
        "standardise": True,
    },
    bayes.GaussianProcess.__call__: {"self": PROCESS, "x": ROWS.T},
    bayes.GaussianProcess.variance: {"self": PROCESS, "x": ROWS.T},
    bayes.GaussianProcess.derivative: {"self": PROCESS, "x": ROWS.T},
    bayes.GaussianProcess.samples: {"self": PROCESS, "x": ROWS.T, "key": KEY, "num": 2},
    bayes.fit_linear_equation: {
        "coefficients": lambda p: (p["k"], 1.0), "ts": TIMES, "xs": SERIES[:6], "key": KEY,
        "parameters": {"k": 1.0}, "force_ts": None, "forces": None, "kernel": None, "noise": 0.1,
        "force_noise": None, "restarts": 0, "max_steps": 5, "throw": True,
    },
    bayes.fit_stepper: {"kernel": bayes.RBF(), "train": TRAJECTORIES, "key": KEY, "rows": 10},
    bayes.forecast_moments: {"step_map": GAUSSIAN, "start": ONES, "num_steps": 2},
    bayes.forecast_samples: {
        "step_map": GAUSSIAN, "start": ONES, "num_steps": 2, "key": KEY, "num": 2,
    },
    # classify
    classify.accuracy: {"probabilities": SHARES, "labels": LABELS},
    classify.calibration: {"probabilities": SHARES, "labels": LABELS, "bins": 5},
    classify.confusion_matrix: {"probabilities": SHARES, "labels": LABELS},
    classify.top_errors: {"probabilities": SHARES, "labels": LABELS, "k": 1},
    classify.evaluate: {"probabilities": SHARES, "images": IMAGES, "bins": 5, "errors": 2},
    classify.evaluate_members: {"probabilities": [SHARES, SHARES], "images": IMAGES},
    classify.cross_entropy: {"label_smoothing": 0.1, "l2": 0.0, "batch_size": None},
    classify.error_rate: {"batch_size": 2},
    classify.fit: {
        "network": CNN, "train": IMAGES, "valid": None, "key": KEY, "epochs": 1, "batch_size": 2,
        "learning_rate": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "augment": None,
    },
    classify.logits: {"model": CNN, "images": IMAGES, "batch_size": 2},
    classify.probabilities: {
        "model": CNN, "images": IMAGES, "batch_size": 2, "views": 1, "augment": None, "key": None,
    },
    classify.Augmentation: {"shift": 1, "rotation": 5.0, "scale": 0.1, "flip": True},
    classify.Augmentation.__call__: {
        "self": classify.Augmentation(1), "images": IMAGES, "key": KEY,
    },
    # convolution
    convolution.average_pool: {"x": ROWS, "window": 2, "stride": None},
    convolution.max_pool: {"x": ROWS, "window": 2, "stride": None},
    convolution.box_filter: {"shape": (2, 2), "dtype": None},
    convolution.gaussian_filter: {"shape": (3, 3), "sigma": 1.0, "dtype": None},
    convolution.convolution_matrix: {"kernel": np.ones(2), "shape": (4,)},
    convolution.convolution_parameters: {"window": (3, 3), "channels": 1, "filters": 2},
    convolution.dense_parameters: {"inputs": 2, "outputs": 3},
    convolution.convolve: {"x": ROWS, "kernel": np.ones((2, 2)), "stride": 1, "padding": 0},
    convolution.cross_correlate: {"x": ROWS, "kernel": np.ones((2, 2)), "stride": 1, "padding": 0},
    convolution.deconvolve: {"y": np.asarray([1.0, 3.0, 2.0]), "kernel": np.asarray([1.0, 2.0])},
    convolution.output_shape: {"shape": (5, 5), "window": 2, "stride": 1, "padding": 0},
    convolution.polynomial_product: {"alpha": np.ones(2), "beta": np.ones(3), "method": "fft"},
    convolution.polynomial_product_operations: {"m": 2, "n": 3},
    convolution.receptive_field: {"layers": [(3, 1), (2, 2)]},
    # dynamics
    dynamics.bootstrap: {
        "values": ROWS, "generator": np.random.default_rng(0), "statistic": np.mean, "level": 0.9,
        "resamples": 10,
    },
    dynamics.error_growth: {"predicted": PATHS, "truth": PATHS, "scale": ONES},
    dynamics.forecast_skill: {
        "step_map": MAP, "truth": PATHS, "scale": ONES, "history": 1, "threshold": 0.4,
        "thresholds": (0.1,), "horizon": None, "escape": 3.0, "t0": 0.0,
    },
    dynamics.growth_rate: {
        "errors": jnp.asarray([1e-6, 1e-5, 1e-4, 1e-3, 1e-2]), "dt": 0.1, "floor": None,
        "ceiling": 0.1,
    },
    dynamics.hellinger: {"p": [1.0, 2.0], "q": [2.0, 1.0]},
    dynamics.jensen_shannon: {"p": [1.0, 2.0], "q": [2.0, 1.0]},
    dynamics.kullback_leibler: {"p": [1.0, 2.0], "q": [2.0, 1.0]},
    dynamics.kaplan_yorke_dimension: {"exponents": jnp.asarray([0.9, 0.0, -14.0])},
    dynamics.lyapunov_spectrum: {
        "step_map": MAP, "history": HISTORY, "num_steps": 4, "num": 1, "transient": 2, "every": 2,
        "t0": 0.0,
    },
    dynamics.LyapunovSpectrum.bootstrap: {"self": SPECTRUM, "key": KEY, "blocks": 4, "samples": 5},
    dynamics.LyapunovSpectrum.standard_error: {"self": SPECTRUM, "blocks": 4},
    dynamics.maxima: {"series": SERIES},
    dynamics.measure_climate: CLIMATE_KEPT,
    dynamics.normalised_error: {"predicted": PATHS, "truth": PATHS, "scale": ONES},
    dynamics.one_step_error: {
        "step_map": MAP, "ys": PATHS, "scale": ONES, "history": 1, "t0": 0.0,
    },
    dynamics.pool_climate: {
        "chunks": (PATHS, PATHS), "dt": 0.1, "bounds": CLIMATE_KEPT["bounds"], "bins": 10,
        "joint_bins": 4, "segment": 4, "peak": -1, "groups": 2,
    },
    dynamics.power_spectrum: {"ys": PATHS, "dt": 0.1, "segment": 4},
    dynamics.relative_l2: {"predicted": PATHS, "truth": PATHS},
    dynamics.relative_l2_until: {
        "predicted": PATHS[0], "truth": PATHS[0], "dt": 0.1, "ends": (0.2, 0.5),
    },
    dynamics.return_map_error: {"pairs": ROWS[:, :2], "truth": ROWS[:, :2]},
    dynamics.rollout: {"step_map": MAP, "history": HISTORY, "num_steps": 3, "t0": 0.0},
    dynamics.valid_prediction_time: {
        "predicted": PATHS, "truth": PATHS, "dt": 0.1, "scale": ONES, "threshold": 0.4,
        "horizon": None,
    },
    # fit
    fit.Cosine: {"first": 1e-3, "steps": 10},
    fit.OneCycle: {"largest": 1e-3, "steps": 10},
    fit.scheduled: {"optimizer": optax.adam, "learning_rate": 1e-3},
    fit.cramer_rao: {"predict": lambda p: p, "unknowns": ONES, "noise": 0.1},
    fit.gradient: {
        "loss": loss, "model": ONES, "data": None, "optimizer": ADAM, "steps": 2, "epochs": None,
        "batch_size": None, "augment": None, "key": None, "valid": None, "valid_loss": None,
        "valid_every": None, "patience": None, "devices": None, "chunk": None, "progress": False,
        "callback": None,
    },
    fit.game: {
        "losses": (against, against), "players": (ONES, ONES), "data": None,
        "optimizers": (ADAM, ADAM), "steps": 2, "batch_size": None, "turns": 1, "memory": None,
        "key": None, "chunk": None, "progress": False, "callback": None,
    },
    fit.least_squares: {
        "residual": line, "model": jnp.zeros(2), "batch": jnp.arange(3.0), "method": None,
        "weights": None, "max_steps": 20, "key": None,
    },
    fit.loop: {
        "step": step_of, "state": ONES, "data": None, "num_steps": 2, "start": 0, "key": None,
        "batch_size": None, "augment": None, "chunk": None, "review": None, "review_every": None,
        "progress": False, "callback": None,
    },
    fit.mean_square: {"residual": line, "weights": None},
    fit.readout: {
        "features": ROWS, "targets": ROWS[:, :1], "inputs": None, "rcond": None,
        "block_size": None, "equilibrate": False, "refinements": 0,
    },
    fit.sweep: {
        "loss": loss, "build_model": lambda setting: ONES, "data": None, "settings": SWEEP,
        "optimizer": lambda setting: optax.sgd(setting["learning_rate"]), "steps": 2,
        "batch_size": None, "augment": None, "key": None, "valid": None, "valid_loss": None,
        "valid_every": 100, "devices": None, "checkpoint": None, "chunk": None, "progress": False,
        "callback": None,
    },
    fit.VariableProjection: {"damping": 1e-3, "linear": "readout"},
    fit.variable_projection: {
        "residual": of_network, "model": MLP, "data": PATHS[0], "steps": 2, "shared": (),
        "key": None, "progress": False, "callback": None,
    },
    # fourier
    fourier.coefficients: {"force": SQUARE, "n": 3, "period": None, "jumps": ()},
    fourier.coefficients_from_samples: {"samples": SERIES, "n": 3, "period": 1.0},
    fourier.convolve: {"x": ONES, "kernel": ONES},
    fourier.convolve_periodic: {"f": HARMONIC, "g": HARMONIC},
    fourier.gibbs_overshoot: {"wave": SQUARE, "n": 3},
    fourier.mean_square: {"series": HARMONIC},
    fourier.rectified_sine: {"n": 3, "amplitude": 1.0, "period": 1.0},
    fourier.resonance_curve: {"series": HARMONIC, "oscillator": DRIVEN, "frequencies": [0.5, 1.0]},
    fourier.response: {"series": HARMONIC, "oscillator": DRIVEN},
    fourier.sawtooth_wave: {"n": 3, "amplitude": 1.0, "period": 1.0},
    fourier.square_wave: {"n": 3, "amplitude": 1.0, "period": 1.0},
    fourier.triangle_wave: {"n": 3, "amplitude": 1.0, "period": 1.0},
    # generative
    generative.AnomalyScore.fit: {"codec": CODEC, "normal": ROWS},
    generative.AnomalyScore.quantile: {
        "self": generative.AnomalyScore.fit(CODEC, ROWS), "share": 0.5,
    },
    generative.Codec.create: {"network": CODEC.network, "train": ROWS},
    generative.Codec.errors: {"self": CODEC, "x": ROWS},
    generative.Codec.relative_error: {"self": CODEC, "x": ROWS},
    generative.discover_equations: {
        "codec": CODEC, "trajectories": CODED, "key": KEY, "degree": 2, "threshold": 0.1,
        "starts": 2, "units": 10,
    },
    generative.encode_trajectories: {"codec": CODEC, "trajectories": CODED},
    generative.evidence_bound: {"codec": VARIATIONAL, "x": ROWS, "key": KEY, "samples": 1},
    generative.coverage: {"real": ROWS.T, "made": ROWS.T, "neighbours": 1},
    generative.fit_adversarial: {
        "network": mlp(1 + 2, 5), "critic": mlp(5, 2), "train": ROWS, "labels": np.arange(3) % 2,
        "latent": 1, "optimizers": (ADAM, ADAM), "key": KEY, "steps": 1,
        "objective": generative.Wasserstein(), "residual": None, "residual_weight": 1.0,
        "bounds": None, "batch_size": 2, "turns": 1, "memory": 0.9, "progress": False,
        "callback": None,
    },
    generative.frechet_distance: {"real": ROWS.T, "made": ROWS.T},
    generative.Generator.__call__: {"self": GENERATOR, "z": ROWS[:, :1], "labels": None},
    generative.Generator.sample: {"self": GENERATOR, "num": 2, "key": KEY, "labels": None},
    generative.nearest: {"x": ROWS, "train": ROWS},
    generative.NonSaturating: {"penalty": 1.0},
    generative.Relativistic: {"penalty": 1.0},
    generative.Wasserstein: {"penalty": 1.0},
    generative.fit_autoencoder: {
        "network": CODEC.network, "train": ROWS, "optimizer": ADAM, "key": KEY, "steps": 2,
        "epochs": None, "batch_size": 2, "refit": True, "patience": None, "progress": False,
    },
    generative.fit_projection: {
        "train": PATHS.reshape(-1, 3), "latent": 1, "key": KEY, "units": 5, "narrow": 5,
        "scale": 0.1, "restarts": 1, "max_steps": 100,
    },
    generative.interpolate: {"codec": CODEC, "start": ROWS[0], "end": ROWS[1], "num": 3},
    generative.latent_dimension: {"values": [1.0, 0.1]},
    generative.latent_spectrum: {"codec": CODEC, "x": ROWS},
    generative.legendre_lift: {"states": ROWS, "points": 20, "unit": 40.0},
    generative.principal_components: {"train": ROWS, "latent": 1},
    generative.sample: {"codec": VARIATIONAL, "num": 2, "key": KEY},
    # neuron
    neuron.gradient_step: {
        "w": ONES, "b": 0.5, "x": ONES, "target": 1.0, "learning_rate": 0.1,
    },
    neuron.neuron: {"x": ONES, "w": ONES, "b": 0.5, "activation": neuron.sigmoid},
    neuron.squared_error: {"w": ONES, "b": 0.5, "x": ONES, "target": 1.0},
    neuron.squared_error_gradient: {"w": ONES, "b": 0.5, "x": ONES, "target": 1.0},
    neuron.relu: {"x": ONES},
    neuron.sigmoid: {"x": ONES},
    neuron.sigmoid_derivative: {"x": ONES},
    # nn
    nn.MLP: {
        "in_features": 3, "hidden": (4,), "out_features": 1, "activation": "tanh", "dropout": 0.0,
        "dtype": None, "rngs": nnx.Rngs(0),
    },
    nn.MLP.__call__: {"self": MLP, "x": ONES},
    nn.MLP.features: {"self": MLP, "x": ONES},
    nn.RNN: {
        "cell": "gru", "in_features": 3, "hidden": 4, "out_features": 1, "keep_bias": 0.0,
        "activation": "tanh", "dtype": None, "rngs": nnx.Rngs(0),
    },
    nn.CNN: {
        "in_shape": (6, 6, 1), "layers": [nn.Filters(2), nn.Dense(3)], "out_features": 2,
        "activation": "relu", "dtype": None, "rngs": nnx.Rngs(0),
    },
    nn.CNN.__call__: {"self": CNN, "x": PIXELS},
    nn.CNN.features: {"self": CNN, "x": PIXELS},
    nn.CNN.feature_maps: {"self": CNN, "x": PIXELS},
    nn.Conv: {
        "in_features": 1, "out_features": 2, "kernel_size": 3, "stride": 1, "padding": "VALID",
        "dtype": None, "rngs": nnx.Rngs(0),
    },
    nn.Dense: {"units": 3, "batch_norm": False},
    nn.Dropout: {"rate": 0.5},
    nn.Filters: {"count": 2, "kernel": 3, "stride": 1, "padding": "VALID", "batch_norm": False},
    nn.Pool: {"size": 2, "kind": "max"},
    nn.FourierFeatures: {
        "in_features": 1, "num_frequencies": 3, "scale": 1.0, "dtype": None, "rngs": nnx.Rngs(0),
    },
    nn.Regularised: {"network": MLP, "l2": 0.0, "l1": 0.0, "noise": 0.0},
    nn.correlate: {"x": PIXELS, "kernel": KERNEL, "stride": 1, "padding": "VALID"},
    nn.correlate_max: {"x": PIXELS, "kernel": KERNEL, "size": 2, "padding": "VALID"},
    nn.fourier: {"x": jnp.ones(4)},
    nn.pool: {"x": PIXELS, "size": 2, "kind": "max"},
    # pinn
    pinn.Event: {
        "root": lambda t, y, args: y[0] - 0.5, "restart": None, "terminal": False, "direction": 0,
    },
    pinn.solve_delays: {
        "system": DELAYED, "history": [1.0], "t1": 1.5, "t0": 0.0, "y0": None, "ts": None,
        "history_jumps": (), "rtol": None, "atol": None, "max_window": None, "max_legs": 10,
        "throw": True,
    },
    pinn.solve_events: {
        "system": DECAY, "y0": [1.0], "t1": 1.0, "t0": 0.0, "ts": None, "args": None,
        "events": pinn.Event(lambda t, y, args: y[0] - 0.5), "rtol": None, "atol": None,
        "max_window": None, "max_events": 10, "throw": True,
    },
    pinn.find_roots: {
        "solution": SOLUTION, "root": lambda t, y, args: y[0] - 0.5, "args": None, "direction": 0,
        "max_roots": 4,
    },
    pinn.solve: {
        "system": LORENZ, "y0": ONES, "t1": 0.1, "t0": 0.0, "ts": None, "rtol": None, "atol": None,
        "units": 20, "num_points": 12, "key": None, "network": None, "first_span": None,
        "max_window": None, "max_steps": 10, "max_windows": 64, "correct": True, "throw": True,
    },
    pinn.solve_boundary: {
        "system": DECAY, "conditions": lambda a, b: a - 1.0, "t0": 0.0, "t1": 1.0, "guess": None,
        "free": (), "at": None, "ts": None, "rtol": None, "atol": None, "num_points": 8,
        "max_windows": 64, "max_steps": 5, "settling": None, "throw": True,
    },
    pinn.follow_branch: {
        "system": systems.from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 1.0}),
        "conditions": lambda a, b, p: a - 1.0, "t0": 0.0, "t1": 1.0, "parameter": "k",
        "within": (0.9, 1.1), "guess": None, "backwards": False, "free": (), "rtol": None,
        "atol": None, "num_points": 8, "max_windows": 64, "max_steps": 5, "max_points": 2,
        "throw": False,
    },
    pinn.periodic_orbit: {
        "system": DRIVEN, "guess": [1.0, 0.0], "period": 4.0 * np.pi, "t0": 0.0, "ts": None,
        "rtol": None, "atol": None, "num_points": 8, "max_windows": 64, "max_steps": 5,
        "throw": True,
    },
    pinn.bundle: {
        "system": DECAY, "y0": [[1.0], [2.0]], "t1": 0.2, "key": KEY, "parameters": None, "t0": 0.0,
        "rtol": None, "atol": None, "units": 20, "time_units": 20, "num_points": 12,
        "num_checks": 20, "max_windows": 32, "throw": True,
    },
    pinn.identify: {
        "system": LORENZ, "ts": TIMES, "ys": PATHS[0], "free": ("rho",), "y0": ONES, "t0": None,
        "observe": None, "noise": None, "bounds": None, "prior": None, "ties": None,
        "known_start": False,
        "loss": "squares", "num_windows": None, "units": 10, "num_points": 8, "max_steps": 5,
        "throw": True,
    },
    pinn.Experiment: {
        "ts": TIMES, "ys": PATHS[0], "t0": None, "y0": ONES, "known_start": None, "observe": None,
        "noise": None, "fixed": None, "seen": None,
    },
    pinn.experiments_from_dataframe: {
        "frame": FRAME, "time": "t", "columns": ["x"], "experiment": "run",
    },
    pinn.discover: {
        "system": LORENZ, "ts": TIMES, "ys": PATHS[0], "component": 1, "inputs": None, "degree": 2,
        "threshold": 0.1, "units": 10, "size": 10.0, "key": KEY, "observe": None,
    },
    pinn.pde: {
        "residual": heat, "domain": {"x": (0.0, 1.0), "t": (0.0, 0.1)},
        "conditions": {
            ("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x),
            ("x", 0.0): at_end, ("x", 1.0): at_end,
        },
        "periodic": (), "components": None, "rtol": None, "elements": 2, "max_elements": 8,
        "first_span": None, "max_windows": 20, "max_steps": 12, "dtype": None, "throw": True,
    },
    pinn.on_grid: {
        "residual": lambda u, x, t, args: u.t(x, t) - args["k"] * u.xx(x, t),
        "domain": {"x": (0.0, 1.0), "t": (0.0, 0.1)},
        "conditions": {
            ("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x),
            ("x", 0.0): at_end, ("x", 1.0): at_end,
        },
        "args": {"k": 1.0}, "points": 6, "periodic": (), "components": None,
    },
    pinn.train: {
        "network": mlp(1, 3), "system": LORENZ, "y0": ONES, "t1": 0.1, "t0": 0.0, "ts": None,
        "condition": "hard", "scales": None, "points": pinn.Even(20), "weights": pinn.Fixed(),
        "stages": [(ADAM, 2)], "key": None, "progress": False, "throw": True,
    },
    pinn.Adversarial: {
        "critic": mlp(3, 1), "optimizer": ADAM, "critic_optimizer": ADAM, "noise": 1.0,
        "penalty": 0.1, "turns": 1,
    },
    pinn.find_scales: {"system": LORENZ, "y0": ONES, "t0": 0.0, "t1": 1.0},
    pinn.Even: {"num": 20},
    pinn.Resampled: {"num": 20, "every": 10, "power": 1.0, "floor": 1.0, "grid": 10},
    pinn.Fixed: {"equation": 1.0, "condition": 1.0},
    pinn.GradientNorm: {"every": 10, "memory": 0.9},
    pinn.RandomLookback: {"temperature": 1.0, "memory": 0.9, "lookback": 0.9},
    # plots
    plots.parting_forecasts: {
        "ts": TIMES, "truth": PATHS[0], "forecasts": {"a": PATHS[1]}, "plane": (0, 2),
        "names": ABC, "tail": 1.0, "frames": 2, "lambda1": None, "threshold": 0.4,
    },
    plots.marching_windows: {
        "ts": TIMES, "states": PATHS[0], "edges": GRID, "names": ABC, "estimate": PATHS[1],
        "time_unit": None,
    },
    plots.accuracy_curves: {"curves": CURVE, "title": None},
    plots.belief_bands: {
        "x": GRID, "y": GRID, "grid": GRID, "truth": GRID, "bands": {"a": (GRID, GRID)},
    },
    plots.marginals: {"names": ("a", "b"), "draws": {"a": ROWS[:, :2]}},
    plots.predictive: {
        "ts": GRID, "data": {"a": GRID}, "times": GRID, "draws": {"a": ROWS[:, :3]},
    },
    plots.reliability: {"curves": CURVE, "title": None},
    plots.field_and_error: {
        "horizontal": GRID, "vertical": GRID, "values": np.eye(3), "error": np.eye(3),
        "names": ("t", "x"), "units": (None, None), "value_name": "u",
    },
    plots.spectra: {"harmonics": GRID + 1, "sizes": {"a": GRID + 1}},
    plots.resonance_curves: {"frequencies": GRID + 1, "curves": {"a": GRID + 1}},
    plots.filters: {"kernel": np.ones((3, 3, 1, 2)), "title": None},
    plots.feature_maps: {
        "image": np.ones((4, 4, 1)), "layers": {"a": np.ones((2, 2, 3))}, "title": None,
    },
    plots.fit_to_data: {
        "ts": GRID, "data": {"a": GRID}, "times": GRID, "fit": {"a": GRID}, "truth": None,
        "unit": None,
    },
    plots.likelihood_profiles: {
        "profiles": {"a": (GRID, GRID)}, "estimates": {"a": (0.5, 0.1)}, "truth": {"a": 0.5},
        "level": 3.8,
    },
    plots.intervals: {"ranges": {"a": (GRID, GRID)}, "truth": {"a": 0.5}, "unit": None},
    plots.recovered_term: {
        "x": GRID, "truth": GRID, "terms": {"a": GRID}, "xlabel": "x", "ylabel": "y",
    },
    plots.labelled_images: {"images": IMAGES},
    plots.forecast_series: {
        "ts": GRID, "truth": GRID, "forecasts": {"a": GRID}, "divergence": None, "name": "x",
        "unit": None, "time_unit": None, "lambda1": None,
    },
    plots.solution_error: {
        "ts": TIMES, "truth": PATHS[0], "solution": PATHS[1], "names": ABC, "label": "PINN",
        "estimate": None, "time_unit": None, "lambda1": None,
    },
    plots.partial_sums: {
        "ts": GRID, "forcing": GRID, "sums": {"a": GRID}, "name": "F", "unit": None,
        "time_unit": None,
    },
    plots.parameter_scan: {
        "parameters": GRID, "values": {"a": np.ones((3, 2))}, "xlabel": "x", "ylabel": "y",
    },
    plots.work_precision: {"methods": {"a": [(1.0, 0.1)]}, "title": None},
    plots.heat_map: {
        "values": np.ones((1, 1)), "rows": [1], "columns": [1], "row_name": "a",
        "column_name": "b", "name": "c", "log": True, "chosen": None, "title": None,
    },
    plots.attractor_3d: {"truth": PATHS[0], "forecasts": {"a": PATHS[1]}, "truth_name": "truth"},
    plots.bands: {
        "curves": {"a": (GRID, ROWS[:, :3])}, "xlabel": "x", "ylabel": "y", "share": 0.8,
        "title": None,
    },
    plots.compare_solutions: {
        "ts": GRID, "truth": GRID, "solutions": {"a": GRID}, "name": "x", "unit": None,
    },
    plots.confusion_matrix: {"counts": np.eye(2, dtype=int), "names": ("a", "b"), "title": None},
    plots.convergence: {"curves": CURVE, "ylabel": "loss", "title": None},
    plots.error_growth: {
        "ts": GRID, "errors": {"a": GRID + 1}, "lambda1": None, "threshold": 0.4,
    },
    plots.function_bands: {
        "ts": GRID, "functions": {"a": (GRID, GRID)}, "truth": None, "name": "x", "xlabel": "t",
    },
    plots.image_grid: {"images": PIXELS, "titles": None, "columns": 2, "title": None},
    plots.loss_curves: {"histories": {"a": {"loss": GRID + 1, "step": GRID}}},
    plots.windows: {
        "ts": TIMES, "samples": {"truth": np.asarray(PATHS)}, "names": ABC, "bins": 5, "shown": 2,
    },
    plots.phase_portrait: {"trajectories": {"a": PATHS[0][:, :2]}, "names": ("x", "v")},
    # what functions return
    Solution.__call__: {"self": SOLUTION, "t": 0.5},
    Solution.derivative: {"self": SOLUTION, "t": 0.5},
    Solution.error_estimate: {"self": SOLUTION, "t": 0.5},
    Solution.valid_until: {"self": SOLUTION, "rtol": 1e-3},
    Solution.to_dataframe: {"self": SOLUTION, "t": [0.5], "names": ["x"]},
    Solution.to_xarray: {"self": SOLUTION, "t": [0.5], "names": ["x"]},
    dynamics.Skill.summary: {"self": SKILL, "unit": 1.0},
    pinn.Profile.interval: {"self": PROFILE, "level": 0.9},
    reference.RungeKutta4.init: {"self": MAP, "history": jnp.ones((1, 3)), "t0": 0.0},
    surrogate.Stepper.init: {"self": STEPPER, "history": jnp.ones((1, 3)), "t0": 0.0},
    # reference
    reference.FlowMap: {"system": LORENZ, "dt": 0.1, "substeps": 1},
    reference.RungeKutta4: {"system": LORENZ, "dt": 0.1},
    reference.agreement_horizon: {
        "system": LORENZ, "trajectories": TRAJECTORIES, "scale": ONES, "threshold": 0.4,
    },
    reference.attractor_starts: {
        "system": LORENZ, "key": KEY, "num": 2, "burn_in": 0.1, "dt": 0.01,
    },
    reference.cole_hopf: {"x": 0.5, "t": 0.5, "viscosity": 0.1},
    reference.driven_trajectories: {"system": DRIVEN, "key": KEY, "num": 2, "ts": TIMES},
    reference.extended_horizon: {
        "system": LORENZ, "trajectories": TRAJECTORIES, "scale": ONES, "threshold": 0.4,
    },
    reference.extended_trajectories: {
        "system": LORENZ, "y0s": PATHS[:, 0], "ts": TIMES, "max_substeps": 100, "throw": True,
    },
    reference.TaylorFlow.create: {"system": LORENZ, "dt": 0.1, "order": None, "substeps": None},
    reference.reaction_diffusion: {
        "reaction": lambda u: -u, "diffusivity": 0.1, "u0": np.sin, "interval": (0.0, 1.0),
        "ts": TIMES, "num_points": 8, "rtol": 1e-6,
    },
    reference.runge_kutta: {"system": LORENZ, "t": jnp.zeros(()), "y": ONES, "dt": 0.1},
    reference.solve: {
        "system": LORENZ, "y0": ONES, "ts": TIMES, "t0": None, "rtol": None, "atol": None,
        "stiff": False, "certify": False, "max_steps": 1000, "throw": True,
    },
    reference.trajectories: {"system": LORENZ, "key": KEY, "num": 2, "ts": TIMES, "box": None},
    reference.trajectories_from: {
        "system": LORENZ, "y0s": PATHS[:, 0], "ts": TIMES, "t0s": None, "devices": None,
    },
    # residuals
    residuals.equation: {"system": LORENZ},
    residuals.defects: {"step_map": MAP, "batch": WINDOWS, "scale": 1.0},
    residuals.noisy: {"residual": residuals.step, "std": ONES},
    # surrogate
    surrogate.fit: {
        "network": MLP, "train": TRAJECTORIES, "valid": None, "optimizer": ADAM, "key": KEY,
        "steps": 2, "epochs": None, "batch_size": 4, "length": 1, "residual": residuals.step,
        "symmetry": None, "known": None, "period": None, "refit": False, "warmup": 0, "rcond": None,
        "refinements": 1, "patience": None, "devices": None, "progress": False,
    },
    surrogate.fit_readout: {
        "network": MLP, "train": TRAJECTORIES, "symmetry": None, "known": None, "period": None,
        "warmup": 0, "rcond": None, "refinements": 1,
    },
    surrogate.network_inputs: {"train": TRAJECTORIES, "period": None},
    surrogate.Stepper.create: {
        "network": MLP, "train": TRAJECTORIES, "symmetry": None, "known": None, "period": None,
    },
    surrogate.Stepper.pairs: {"self": STEPPER, "trajectories": TRAJECTORIES},
    surrogate.score_many: {
        "stepper": STEPPER, "networks": jax.tree.map(lambda x: x[None], MLP), "truth": TRAJECTORIES,
        "scale": ONES,
    },
    surrogate.fit_many: {
        "train": FITTED_ROWS, "valid": FITTED_ROWS, "settings": MANY, "hidden": (3,),
        "activation": "tanh", "dropout": 0.0, "optimizer": lambda setting: optax.adam(1e-3),
        "key": KEY, "steps": 2, "batch_size": 4,
    },
    # systems
    systems.Lorenz: {"sigma": 10.0, "rho": 28.0, "beta": 2.5},
    systems.Rossler: {"a": 0.2, "b": 0.2, "c": 5.7},
    systems.LotkaVolterra: {"alpha": 1.0, "beta": 1.0, "delta": 1.0, "gamma": 1.0},
    systems.VanDerPol: {"mu": 1.0},
    systems.Lorenz96: {"n": 5, "force": 8.0},
    systems.Pendulum: {"gravity": 9.81, "length": 1.0, "damping": 0.0},
    systems.Duffing: {"alpha": -1.0, "beta": 1.0, "delta": 0.3},
    systems.DrivenOscillator: {"gamma": 0.2, "omega0": 1.0, "mass": 1.0},
    systems.Cosine: {"amplitude": 1.0, "frequency": 1.0, "phase": 0.0},
    systems.SquareWave: {"low": 0.0, "high": 2.0, "period": 0.2, "width": 0.1, "centre": 0.0},
    systems.SquareWave.fourier_series: {"self": systems.SquareWave(), "n": 3},
    systems.FourierSeries: {"a0": 1.0, "a": [1.0], "b": [1.0], "period": 1.0},
    systems.Table: {"ts": [0.0, 1.0], "values": [2.0, 3.0], "rule": "linear"},
    systems.amplitude_response: {"omega": 1.0, "gamma": 0.2, "omega0": 1.0},
    systems.phase_lag: {"omega": 1.0, "gamma": 0.2, "omega0": 1.0},
    systems.from_function: {
        "f": lambda t, y, args: -y, "dim": 2, "state_names": None, "period": None,
        "autonomous": None, "box": None, "symmetry": None, "lyapunov_exponents": None, "jumps": (),
    },
    systems.delayed: {"f": lambda t, y, past, args: -past[0], "delays": 1.0},
    systems.MackeyGlass: {"beta": 0.2, "gamma": 0.1, "n": 10.0, "tau": 17.0},
    systems.IkedaDelay: {"mu": -20.0, "c": 1.0, "x0": 0.0, "tau": 2.0},
    systems.SprottDelay: {"tau": 5.1},
    systems.ScrollDelay: {"alpha": 0.2, "beta": 0.2, "tau": 10.0},
    systems.PiecewiseCircuit: {"alpha": 1.0, "beta": 1.0, "c": 2.24, "tau": 4.9},
    systems.VossDelay: {"alpha": 3.24, "tau": 13.28},
    systems.with_parameters: {"system": LORENZ, "rho": (20.0, 30.0)},
    systems.System.__call__: {"self": LORENZ, "t": 0.0, "y": ONES, "args": None},
}  # fmt: skip

OPEN = {"data", "model", "batch", "state", "valid", "settings", "args", "inputs", "wrt", "review"}
"""Arguments that may be any pytree."""

REAL = {
    "lambda1", "t0", "t1", "phase", "amplitude", "low", "high", "centre", "a", "b", "c", "sigma",
    "rho", "beta", "alpha", "delta", "gamma", "mu", "force", "a0", "target", "keep_bias", "x",
    "t", "damping", "peak", "rotation", "component", "largest", "first", "frequency", "y",
    "gravity", "truth of coverage_of_draws", "truth of coverage_of_normals",
    "mean of coverage_of_normals", "omega", "forcing", "omega0", "equation", "condition",
    "learning_rate of scheduled", "direction of Event", "direction of find_roots",
    "x0 of IkedaDelay",
}  # fmt: skip
WITH_ZERO = REAL | {
    "l2", "l1", "noise of Regularised", "weight_decay", "label_smoothing", "dropout", "atol",
    "rcond", "scale of Augmentation", "shift", "start", "warmup", "refinements", "transient",
    "padding", "errors", "memory", "lookback", "temperature", "steps", "power", "floor", "rate",
    "threshold of error_growth", "num_steps of rollout", "n of SquareWave.fourier_series",
    "share of AnomalyScore.quantile", "threshold of discover_equations",
    "num_steps of loop", "steps of loop", "mass", "length of Pendulum", "diffusivity", "damping",
    "restarts", "penalty", "residual_weight", "noise of fit_linear_equation", "force_noise",
}  # fmt: skip
WITH_INFINITY = {
    "t1 of solve_boundary", "horizon", "t0 of _EquationMap.init", "t0 of Stepper.init", "omega",
    "gamma of phase_lag", "omega0 of phase_lag",
    "gamma of amplitude_response", "omega0 of amplitude_response", "t of System.__call__",
    "b of neuron", "b of gradient_step", "target", "x of relu", "x of sigmoid",
    "x of sigmoid_derivative", "b of squared_error", "b of squared_error_gradient",
}  # fmt: skip
"""Numbers that may be negative, zero, infinite."""

CHOICES = {"activation", "cell"}
"""Texts that are one of several names."""

PASSED_ON = {
    "System.__call__", "y of runge_kutta", "t of runge_kutta", "t of System.__call__",
    "y of System.__call__", "plots", "deep x of cole_hopf", "deep t of cole_hopf",
    "text checkpoint of sweep", "systems", "predicted", "none batch_size of fit_many",
    "number learning_rate of scheduled", "list learning_rate of scheduled",
    "array learning_rate of scheduled", "convolution", "neuron", "nn", "images of logits",
    "images of probabilities", "history of _EquationMap.init", "history of Stepper.init",
    "t0 of _EquationMap.init", "t0 of Stepper.init", "empty t of Solution.__call__",
    "empty list t of Solution.__call__", "empty t of Solution.derivative",
    "empty list t of Solution.derivative", "empty t of Solution.error_estimate",
    "empty list t of Solution.error_estimate", "number noise of identify",
    "array noise of identify", "number noise of Experiment", "array noise of Experiment",
    "nan ys of Experiment", "array y0 of Experiment",
    "array y0 of identify", "number delays of delayed", "array delays of delayed",
    "complex array history of solve_delays", "complex history of solve_delays",
    "complex array y0 of solve_delays", "complex y0 of solve_delays",
    "function history of solve_delays",
}  # fmt: skip
"""Arrays whose NaN is the answer's NaN, and slips that are none."""
