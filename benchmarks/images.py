"""Training speed of convolutional networks beside Keras and PyTorch, on the CPU.

    python benchmarks/images.py [--out DIR] [--seed N] [--quick]

Each library trains the same networks by its usual loop, in float32, on the same images drawn at
random: the plain network for MNIST (32 and 64 filters, 256 dense units, batches of 128, Adam),
TensorFlow's tutorial for CIFAR-10 (batches of 32, Adam), and the lecture's network for digits (10
filters, 50 dense units, batches of 100, SGD with an L2 term). Of the last a grid of 49 settings is
trained: here as one program, elsewhere one model after another, of which one is timed and counted
49 times; 20 epochs are timed and counted five times. PyTorch is timed with channels first and with
channels last, and the better one counts. Compiling and a first epoch are not counted. The best of
several turns is taken, and the libraries take turns, so that a busy machine slows all alike.

Keras (on TensorFlow) and PyTorch come with the extra `bench`; one that is missing is left out.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import classify, data, experiment, fit, nn
from physml.experiment import Run
from physml.nn import Layer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
jax.config.update("jax_num_cpu_devices", os.cpu_count())  # the grid is shared out among them
L2, RATE = 1e-4, 0.1
GRID, GRID_EPOCHS = 49, 100

Training = Callable[[], Any]
"""A task's epochs of training."""


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_images")
    quick: bool = False
    """Fewer batches and turns."""


@dataclass(frozen=True)
class Task:
    """A network, what it is trained on, and how."""

    name: str
    shape: tuple[int, int, int]
    layers: Sequence[Layer]
    batch_size: int
    batches: int  # in an epoch
    epochs: int
    optimizer: str
    l2: float = 0.0

    def images(self, seed: int) -> data.Images:
        rng, num = np.random.default_rng(seed), self.batches * self.batch_size
        pixels = rng.random((num, *self.shape), dtype=np.float32)
        return data.Images.from_arrays(pixels, np.arange(num) % 10)


TASKS = (
    Task("mnist", (28, 28, 1), nn.ARCHITECTURES["mnist"], 128, 60, 1, "adam"),
    Task("cifar", (32, 32, 3), nn.ARCHITECTURES["cifar-tutorial"], 32, 120, 1, "adam"),
    Task("digits", (8, 8, 1), nn.ARCHITECTURES["digits"], 100, 14, 20, "sgd", L2),
)


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    turns = 2 if config.quick else 5
    libraries = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    speeds, grid = [], []
    with Run(config.out, config) as run:
        for task in TASKS:
            if config.quick:
                task = replace(task, batches=max(10, task.batches // 10), epochs=1)
            seconds = best_seconds(libraries, task, config.seed, turns)
            grid_s = seconds.pop("grid", None)
            seen = task.epochs * task.batches * task.batch_size
            found = {name: seen / value for name, value in seconds.items()}
            speeds.append({"name": task.name} | found)
            run.metrics({f"{task.name}.{name}.images_per_s": x for name, x in found.items()})
            if len(found) > 1:
                others = max(speed for name, speed in found.items() if name != "physml")
                run.metrics({f"{task.name}.speedup": found["physml"] / others})
            if grid_s is not None:
                long = GRID_EPOCHS / task.epochs
                together = long * grid_s
                times = {name: long * GRID * value for name, value in seconds.items()}
                grid = [{"name": "in one program", "physml": together}]
                grid.append({"name": "one by one"} | times)
                run.metrics({"grid.seconds": together})
                for name, value in times.items():
                    ratio = {f"speedup_over_{name}": value / together}
                    run.metrics(ratio | {f"{name}.one_by_one_s": value}, prefix="grid")
        run.table(speeds, {"name": "images/s"} | COLUMNS)
        run.table(grid, {"name": "seconds of the digits grid"} | COLUMNS)
        peers = [peer for name in libraries for peer in PEERS.get(name, ())]
        return run.metrics({f"versions.{peer}": importlib.metadata.version(peer) for peer in peers})


def best_seconds(libraries: Sequence[str], task: Task, seed: int, turns: int) -> dict[str, float]:
    """The shortest time of each training; the trainings take turns, and the first does not count.

    Each library has a process of its own, because TensorFlow and PyTorch conflict in one.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        trainings: dict[str, Any] = {}
        for library in libraries:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, library, task, seed), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(here.send, None)
            trainings |= dict.fromkeys(here.recv(), here)
        best = dict.fromkeys(trainings, np.inf)
        for turn in range(1 + turns):
            for name, connection in trainings.items():
                connection.send(name)
                seconds = connection.recv()
                if turn > 0:
                    best[name] = min(best[name], seconds)
    return best


def serve(connection: Any, library: str, task: Task, seed: int) -> None:
    """Run each training that the connection names, and send how long it took, until None comes."""
    trainings = LIBRARIES[library](task, task.images(seed))
    connection.send(list(trainings))
    while (name := connection.recv()) is not None:
        with Run.timed() as timing:
            trainings[name]()
        connection.send(timing.wall_seconds)


def physml(task: Task, images: data.Images) -> dict[str, Training]:
    """A network by `fit.gradient`, and if the task has an L2 term the grid by `fit.sweep`."""

    def build(setting: Any = None) -> nn.CNN:
        return nn.CNN(task.shape, task.layers, 10, rngs=nnx.Rngs(0))

    network, loss = build(), classify.cross_entropy(l2=task.l2)
    optimizer = optax.adam(1e-3) if task.optimizer == "adam" else optax.sgd(RATE)
    options: dict[str, Any] = {"batch_size": task.batch_size, "key": jax.random.key(0)}
    trainings: dict[str, Training] = {
        "physml": lambda: fit.gradient(
            loss, network, images, optimizer=optimizer, epochs=task.epochs, **options
        )
    }
    if task.l2:
        trainings["grid"] = grid(build, task, images, **options)
    return trainings


def grid(
    build: Callable[[Any], nn.CNN], task: Task, images: data.Images, **options: Any
) -> Training:
    """All of the grid's models at once, with rates at which none diverges and so stops early."""

    def regularised(setting: Any) -> nn.Regularised:
        return nn.Regularised(build(setting), setting["l2"])

    def sgd(setting: Any) -> optax.GradientTransformation:
        return optax.sgd(setting["rate"])

    rates, strengths = np.meshgrid(np.geomspace(1e-5, 0.1, 7), np.geomspace(1e-5, 0.1, 7))
    grids = {"rate": rates, "l2": strengths}
    options["settings"] = {name: jnp.asarray(x.ravel(), jnp.float32) for name, x in grids.items()}
    options |= {"steps": task.epochs * task.batches, "devices": jax.devices()}
    loss = classify.cross_entropy()
    return lambda: fit.sweep(loss, regularised, images, optimizer=sgd, **options)


def keras(task: Task, images: data.Images) -> dict[str, Training]:
    """A network by Keras's `fit`."""
    library: Any = importlib.import_module("keras")
    layers: Any = library.layers
    options = {"activation": "relu"}
    if task.l2:
        options["kernel_regularizer"] = library.regularizers.L2(task.l2)
    model = library.Sequential([library.Input(task.shape)])
    for layer in task.layers:
        match layer:
            case nn.Filters(count, kernel):
                model.add(layers.Conv2D(count, kernel, **options))
            case nn.Pool(size):
                model.add(layers.MaxPooling2D(size))
            case nn.Dense(units):
                if len(model.output_shape) > 2:
                    model.add(layers.Flatten())
                model.add(layers.Dense(units, **options))
    model.add(layers.Dense(10, **options | {"activation": None}))
    optimizers: Any = library.optimizers
    optimizer = optimizers.Adam(1e-3) if task.optimizer == "adam" else optimizers.SGD(RATE)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    x, y = np.asarray(images.images), np.asarray(images.labels)
    counts = {"batch_size": task.batch_size, "epochs": task.epochs}
    return {"keras": lambda: model.fit(x, y, verbose=0, **counts)}


def torch(task: Task, images: data.Images) -> dict[str, Training]:
    """A network by the loop that PyTorch's users write, with channels first and channels last."""
    library: Any = importlib.import_module("torch")
    layers: Any = library.nn
    formats = {"torch": library.contiguous_format, "torch_channels_last": library.channels_last}

    def training_in(memory_format: Any) -> Training:
        parts: list[Any] = []
        for layer in task.layers:
            match layer:
                case nn.Filters(count, kernel):
                    parts += [layers.LazyConv2d(count, kernel), layers.ReLU()]
                case nn.Pool(size):
                    parts.append(layers.MaxPool2d(size))
                case nn.Dense(units):
                    parts += [layers.Flatten(), layers.LazyLinear(units), layers.ReLU()]
        x = library.from_numpy(np.moveaxis(np.asarray(images.images), -1, 1).copy())
        x = x.contiguous(memory_format=memory_format)
        y = library.from_numpy(np.asarray(images.labels, np.int64))
        model = layers.Sequential(*parts, layers.LazyLinear(10))
        model(x[:1])  # finds the shapes
        model = model.to(memory_format=memory_format)
        cross_entropy = layers.CrossEntropyLoss()
        kernels = [weights for weights in model.parameters() if weights.ndim > 1]
        descent = library.optim.Adam if task.optimizer == "adam" else library.optim.SGD
        optimizer = descent(model.parameters(), 1e-3 if task.optimizer == "adam" else RATE)

        def train() -> None:
            for _ in range(task.epochs):
                for rows in library.randperm(len(x)).split(task.batch_size):
                    optimizer.zero_grad()
                    loss = cross_entropy(model(x[rows]), y[rows])
                    if task.l2:
                        loss = loss + task.l2 * sum((each**2).sum() for each in kernels)
                    loss.backward()
                    optimizer.step()

        return train

    return {name: training_in(memory_format) for name, memory_format in formats.items()}


PEERS = {"keras": ("keras", "tensorflow"), "torch": ("torch",)}  # the packages of a library
LIBRARIES = {"physml": physml, "keras": keras, "torch": torch}
COLUMNS = {name: name for name in ("physml", "keras", "torch", "torch_channels_last")}


if __name__ == "__main__":
    experiment.cli(main, Config)
