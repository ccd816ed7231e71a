"""The rows of `device.py` that train networks."""

import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _device_size import Figures, Size, steps_of, timed
from _lorenz import DT, LAMBDA1, LORENZ, lecture_data
from flax import nnx

from physml import classify, data, dynamics, fit, nn, reference, surrogate


def readout(size: Size) -> Figures:
    """The main job: 300 frozen units learn the next step of Lorenz, and forecast."""
    data_key, test_key = jax.random.split(jax.random.key(0))
    train = lecture_data(data_key)
    inputs = surrogate.network_inputs(train)
    network = nn.MLP.frozen(inputs, 300, 3, scale=0.06, rngs=nnx.Rngs(1))
    options: dict[str, Any] = {"symmetry": LORENZ.symmetry, "refinements": 0}
    fitted, times = timed(lambda: surrogate.fit_readout(network, train, **options), 1)
    starts = reference.attractor_starts(LORENZ, test_key, size(10, 50, 200))
    test = reference.trajectories_from(LORENZ, starts, DT * np.arange(2601))
    scale = data.Standardiser.fit(test.ys).std
    begin = time.perf_counter()
    skill = dynamics.forecast_skill(fitted.step_map, test.ys, scale=scale)
    found = skill.summary(1 / LAMBDA1)
    wanted = {key: found[key] for key in ("eps1", "vpt_mean", "vpt_median")}
    return {**times, **wanted, "forecast_wall_seconds": time.perf_counter() - begin}


def adamw(size: Size) -> Figures:
    """An MLP 3-256-3 in float32 trained by AdamW, and its readout refitted in float64."""
    train = lecture_data(jax.random.key(0))
    network = nn.MLP(3, (256,), 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    rule = optax.adamw(1e-3, weight_decay=1e-4)
    steps = size(100, 500, 2000)
    options: dict[str, Any] = {"optimizer": rule, "steps": steps, "batch_size": 512}
    options |= {"symmetry": LORENZ.symmetry, "refinements": 0, "key": jax.random.key(1)}
    fitted = surrogate.fit(network, train, **options)
    scale = data.Standardiser.fit(train.ys).std
    maps = {"error_before_refit": fitted.before_refit, "error": fitted.step_map}
    errors = {
        name: float(dynamics.one_step_error(step_map, train.ys[:5], scale=scale))
        for name, step_map in maps.items()
    }
    return steps_of(fitted.training) | errors


def wide(size: Size) -> Figures:
    """A wide MLP in float32: what the device is built for. The loss with all digits beside it."""
    units, rows, steps = size((256, 1024, 20), (256, 1024, 100), (2048, 8192, 500))
    x = jax.random.normal(jax.random.key(0), (rows, 3), jnp.float32)
    pairs = x, jnp.sin(2 * x)

    def misfit(model: Any, batch: Any, key: Any) -> jax.Array:
        inputs, targets = batch
        return model(inputs) - targets

    losses: Figures = {}
    times: Figures = {}
    for name, precision in (("loss", None), ("loss_highest", "highest")):
        with jax.default_matmul_precision(precision):
            network = nn.MLP(3, (units, units), 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
            rule, loss = optax.adamw(1e-4), fit.mean_square(misfit)
            fitted = fit.gradient(
                loss, network, pairs, optimizer=rule, steps=steps, batch_size=rows,
                key=jax.random.key(1),
            )  # fmt: skip
        losses[name] = float(fitted.history["loss"][-1])
        rate = steps_of(fitted)["steps_per_second"]
        suffix = name.removeprefix("loss")
        times |= {f"steps_per_second{suffix}": rate}
        flops = 3 * 2 * rows * (units**2 + 6 * units)  # forwards, and twice as much backwards
        times |= {f"tflops{suffix}": 1e-12 * flops * rate}
        times |= {"compile_seconds": fitted.compile_seconds, "seconds": fitted.seconds}
    return {"units": units, "rows": rows, "steps": steps, **times, **losses}


@jax.enable_x64(False)  # as the script of MNIST runs
def cnn(size: Size) -> Figures:
    """The usual first network of MNIST; without its files on digits of 8 x 8, drawn larger."""
    folder = os.environ.get("PHYSML_DATA")
    if folder is not None and (Path(folder) / "train-images-idx3-ubyte.gz").exists():
        train, test = (part.scaled() for part in data.mnist(folder))
    else:
        digits = data.digits().scaled()
        larger = np.kron(np.asarray(digits.images), np.ones((1, 3, 3, 1)))
        larger = np.pad(larger, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(np.float32)
        whole = data.Images.from_arrays(larger, digits.labels)
        train, test = whole.split((0.8, 0.2), jax.random.key(0))
    network = nn.CNN((28, 28, 1), nn.ARCHITECTURES["mnist"], 10, rngs=nnx.Rngs(0))
    epochs = max(1, size(1_000, 6_000, 120_000) // len(train))
    fitted = classify.fit(network, train, epochs=epochs, key=jax.random.key(1), learning_rate=2e-3)
    found = classify.evaluate(classify.probabilities(fitted.model, test), test)
    rate = 128 * fitted.step / fitted.seconds
    return steps_of(fitted) | {"images_per_second": rate, "test_acc": found.accuracy}


@jax.enable_x64(False)  # as its script runs
def digits_grid(size: Size) -> Figures:
    """The lecture's 7 x 7 grid on 8 x 8 digits as one program."""
    import _digit_recipes as recipes
    from digits_grid import GRID

    images = data.digits().scaled()
    train, test = images.split((0.8, 0.2), jax.random.key(0))
    scale = data.Standardiser.fit(train.images)
    train, test = train.transformed(scale), test.transformed(scale)
    rates, strengths = np.meshgrid(GRID, GRID, indexing="ij")
    epochs = size(2, 20, 100)
    swept = recipes.fit_many(
        recipes.LECTURE, train, epochs, jax.random.key(1), 49,
        rate=rates.ravel(), l2=strengths.ravel(),
    )  # fmt: skip
    (accuracy, _), _ = recipes.scores(swept, test)
    return {
        "members": 49,
        "steps": swept.step,
        "seconds": swept.seconds,
        "compile_seconds": swept.compile_seconds,
        "member_steps_per_second": 49 * swept.step / swept.seconds,
        "test_acc": float(np.nanmax(accuracy)),
    }
