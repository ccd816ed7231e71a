"""The rows of `device.py`, one after another in one process, which prints a line of JSON for each.

    python benchmarks/_device_rows.py [--quick] ROW ...

A row that raises is reported with its reason, and the next one begins. All that can be checked is
compared with a truth that the device has no part in: closed forms, SciPy and NumPy on the host, or
numbers computed elsewhere in double-double.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from _lorenz import DT, LAMBDA1, LORENZ, lecture_data

from physml import (
    classify,
    data,
    dynamics,
    experiment,
    fit,
    nn,
    pinn,
    reference,
    surrogate,
    systems,
)
from physml.bayes import gaussian_processes as gp

# Lorenz at t = 20 from (1, 1, 1), by `reference.extended_trajectories` on a CPU.
LORENZ_AT_20 = np.array([13.793199595130377, 12.951803936192455, 34.90160868113685])


class Size(NamedTuple):
    """How much a row does: a CPU gets less, and a quick look the least."""

    quick: bool
    accelerator: bool

    def __call__(self, quick: Any, cpu: Any, accelerator: Any) -> Any:
        return quick if self.quick else accelerator if self.accelerator else cpu


Figures = dict[str, float]


def timed(compute: Callable[[], Any], repeats: int = 2) -> tuple[Any, Figures]:
    """The answer, and the seconds of the fastest call and of compiling."""
    answer, seconds, compiling = experiment.best_of(compute, repeats)
    return answer, {"seconds": seconds, "compile_seconds": compiling}


def relative(found: Any, truth: Any) -> float:
    """The relative error, root mean square over all that there is."""
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def lorenz_by_scipy(y0s: Any, t1: float) -> np.ndarray:
    """The states at `t1`, by DOP853 on the host."""
    from scipy.integrate import solve_ivp

    def rates(t: float, y: np.ndarray) -> tuple[float, ...]:
        return 10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]

    tight: dict[str, Any] = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-13}
    return np.stack([solve_ivp(rates, (0, t1), y0, **tight).y[:, -1] for y0 in np.asarray(y0s)])


def products(size: Size) -> Figures:
    """Products of matrices: how fast, and how many digits of float32 the device keeps."""
    n = size(1024, 1024, 8192)
    a, b = (jax.random.normal(key, (n, n)) for key in jax.random.split(jax.random.key(0)))
    truth = np.asarray(a[:64]) @ np.asarray(b)  # by NumPy, in float64
    figures: Figures = {"n": n}
    ways = (
        ("float64", jnp.float64, None),
        ("float32", jnp.float32, None),
        ("float32_highest", jnp.float32, "highest"),
    )
    for name, dtype, precision in ways:
        x, y = a.astype(dtype), b.astype(dtype)
        product = jax.jit(lambda x, y, precision=precision: jnp.matmul(x, y, precision=precision))
        answer, times = timed(lambda product=product, x=x, y=y: product(x, y), 4)
        figures[f"{name}.tflops"] = 2e-12 * n**3 / times["seconds"]
        figures[f"{name}.error"] = relative(answer[:64], truth)
    return figures


def trajectories(size: Size, num: int, dtype: Any) -> Figures:
    """A batch of Lorenz trajectories of 800 steps; the error after the first hundred."""
    y0s = jax.random.uniform(jax.random.key(0), (num, 3), dtype, minval=-15.0, maxval=15.0)
    ts = DT * np.arange(801)
    ys, times = timed(lambda: reference.trajectories_from(LORENZ, y0s, ts).ys)
    return {
        "num": num,
        **times,
        "steps_per_second": 800 * num / times["seconds"],
        "error": relative(ys[:20, 100], lorenz_by_scipy(y0s[:20], 1.0)),
    }


def climate(size: Size) -> Figures:
    """Trajectories of 800 steps reduced to the climate of all, a chunk at a time."""
    num, width = size((2_000, 1_000), (10_000, 1_000), (1_000_000, 125_000))
    ts, bounds = DT * np.arange(801), ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))
    starts = reference.attractor_starts(LORENZ, jax.random.key(0), num, chunk=width)

    def chunks() -> Iterator[jax.Array]:
        for i in range(0, num, width):
            own = starts[i : i + width]
            yield reference.trajectories_from(LORENZ, own, ts, chunk=width).ys

    first = dynamics.pool_climate([next(chunks())], DT, bounds=bounds, segment=400)
    begin = time.perf_counter()
    pooled = dynamics.pool_climate(chunks(), DT, bounds=bounds, segment=400)
    seconds = time.perf_counter() - begin
    x, counts = 0.5 * (pooled.edges[0, 1:] + pooled.edges[0, :-1]), pooled.counts[0, 0, 1:-1]
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "num": num,
        "seconds": seconds,
        "steps_per_second": 800 * num / seconds,
        "states": int(pooled.joint.sum()),
        # By the symmetry the mean of x is 0; in standard deviations of x.
        "error": abs(float(x @ counts)) / float(np.sqrt(x**2 @ counts * counts.sum())),
        "first_divergence": float(dynamics.climate_distances(first, pooled).joint),
        "peak_device_gib": peak / 2**30,
        "peak_host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


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


def steps_of(fitted: Any) -> Figures:
    """How fast a fit by gradient was."""
    return {
        "steps": fitted.step,
        "seconds": fitted.seconds,
        "compile_seconds": fitted.compile_seconds,
        "steps_per_second": fitted.step / fitted.seconds,
    }


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


def pinn_solve(size: Size) -> Figures:
    """Lorenz to t = 20 by networks, float64."""
    solution, times = timed(lambda: pinn.solve(LORENZ, jnp.ones(3), t1=20.0))
    error = relative(solution(20.0), LORENZ_AT_20)
    estimate = relative(solution.error_estimate(20.0) + LORENZ_AT_20, LORENZ_AT_20)
    windows = int(solution.stats["num_windows"])
    return {**times, "windows": windows, "error": error, "estimate": estimate}


def pinn_single(size: Size) -> Figures:
    """The driven oscillator to t = 20 in float32: the error shows digits lost in products."""
    oscillator, y0 = systems.DrivenOscillator(), jnp.array([1.0, 0.0], jnp.float32)
    solution, times = timed(lambda: pinn.solve(oscillator, y0, t1=20.0))
    exact = oscillator.exact(np.asarray(solution.ts, float), np.array([1.0, 0.0]))
    return {**times, "error": relative(solution.ys, exact)}


def pinn_stiff(size: Size) -> Figures:
    """y' = -1000 (y - cos t) - sin t: windows by Gauss-Newton, eigenvalues and triangulations."""

    def rates(t: Any, y: jax.Array, args: Any) -> jax.Array:
        return -1000.0 * (y - jnp.cos(t)) - jnp.sin(t)

    system = systems.from_function(rates, dim=1)
    solution, times = timed(lambda: pinn.solve(system, jnp.array([2.0]), t1=5.0), 1)
    ts = np.asarray(solution.ts)
    exact = np.cos(ts) + np.exp(-1000.0 * ts)
    return {**times, "error": relative(solution.ys[:, 0], exact)}


def pinn_batch(size: Size) -> Figures:
    """Many solutions in one program, Lorenz to t = 2."""
    num = size(8, 16, 1024)
    y0s = jax.random.uniform(jax.random.key(0), (num, 3), minval=-15.0, maxval=15.0)

    def end(y0: jax.Array) -> jax.Array:
        return pinn.solve(LORENZ, y0, t1=2.0, max_windows=64, throw=False).ys[-1]

    program = jax.jit(jax.vmap(end))
    ends, times = timed(lambda: program(y0s), 1)
    error = relative(ends[:8], lorenz_by_scipy(y0s[:8], 2.0))
    return {"num": num, **times, "solves_per_second": num / times["seconds"], "error": error}


def identify(size: Size) -> Figures:
    """rho of Lorenz and the start, from 100 observations without noise."""
    ts = np.linspace(0.0, 2.0, 100)
    ys = reference.trajectories_from(LORENZ, jnp.ones((1, 3)), ts).ys[0]
    guess = systems.Lorenz(rho=20.0)
    found, times = timed(lambda: pinn.identify(guess, ts, ys, free=("rho",)).values, 1)
    return {**times, "error": abs(float(found["rho"]) / 28.0 - 1.0)}


def pde(size: Size) -> Figures:
    """Burgers' equation with a shock; the truth is the Cole-Hopf transform."""
    from _equations import burgers  # pyright: ignore[reportMissingImports]

    equation = burgers()
    options: dict[str, Any] = equation.options | {"rtol": 1e-6}
    call = equation.residual, equation.domain, equation.conditions
    solution, times = timed(lambda: pinn.pde(*call, **options), 1)
    x, t = np.meshgrid(np.linspace(-1.0, 1.0, 129), np.linspace(0.0, 1.0, 26), indexing="ij")
    return {**times, "error": relative(solution(x, t), equation.truth(x, t))}


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
    import digits_grid as script  # pyright: ignore[reportMissingImports]

    images = data.digits().scaled()
    train, test = images.split((0.8, 0.2), jax.random.key(0))
    scale = data.Standardiser.fit(train.images)
    train, test = train.transformed(scale), test.transformed(scale)
    rates, strengths = np.meshgrid(script.GRID, script.GRID, indexing="ij")
    settings = {"rate": rates.ravel(), "l2": strengths.ravel()}
    epochs = size(2, 20, 100)
    swept = script.fit_many(script.LECTURE, train, epochs, jax.random.key(1), 49, **settings)
    (accuracy, _), _ = script.scores(swept, test)
    return {
        "members": 49,
        "steps": swept.step,
        "seconds": swept.seconds,
        "compile_seconds": swept.compile_seconds,
        "member_steps_per_second": 49 * swept.step / swept.seconds,
        "test_acc": float(np.nanmax(accuracy)),
    }


def likelihood(size: Size) -> Figures:
    """The likelihood of a Gaussian process of 1000 rows and its gradient, float64."""
    x, y = jax.random.normal(jax.random.key(0), (2, 1000, 1))
    y = jnp.sin(3 * x) + 0.1 * y
    noise = jnp.full(1000, 0.01)

    @jax.jit
    @jax.value_and_grad
    def by_physml(scale: jax.Array) -> jax.Array:
        return gp.Exact().log_likelihood(gp.RBF(scale=scale), noise, x, y)

    (found, slope), times = timed(lambda: by_physml(jnp.asarray(0.7)), 4)

    def by_numpy(scale: float) -> float:
        points = np.asarray(x)
        matrix = np.exp(-0.5 * ((points - points.T) / scale) ** 2) + 0.01 * np.eye(1000)
        factor = np.linalg.cholesky(matrix)
        white = np.linalg.solve(factor, np.asarray(y))
        return float(
            -0.5 * (white**2).sum() - np.log(np.diag(factor)).sum() - 500 * np.log(2 * np.pi)
        )

    difference = (by_numpy(0.7 + 1e-4) - by_numpy(0.7 - 1e-4)) / 2e-4
    return {
        **times,
        "error": abs(float(found) / by_numpy(0.7) - 1),
        "gradient_error": abs(float(slope) / difference - 1),
    }


def _batches(size: Size) -> dict[str, Callable[[Size], Figures]]:
    nums = size((1_000,), (1_000, 10_000), (1_000, 10_000, 100_000))
    kinds = (("float64", jnp.float64), ("float32", jnp.float32))
    return {
        f"trajectories_{name}_{num}": lambda size, n=num, d=dtype: trajectories(size, n, d)
        for name, dtype in kinds
        for num in nums
    }


def rows(size: Size) -> dict[str, Callable[[Size], Figures]]:
    """What can be measured, by name: the most wanted first."""
    return {
        "products": products,
        **_batches(size),
        "climate": climate,
        "readout": readout,
        "adamw": adamw,
        "wide": wide,
        "pinn_solve": pinn_solve,
        "pinn_single": pinn_single,
        "cnn": cnn,
        "digits_grid": digits_grid,
        "likelihood": likelihood,
        "pinn_batch": pinn_batch,
        "identify": identify,
        "pde": pde,
        "pinn_stiff": pinn_stiff,
    }


SLOW = {"pinn_batch", "identify", "pde", "pinn_stiff"}  # to compile; a quick look leaves them out


def about() -> dict[str, Any]:
    """The device, and what drives it."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "name": device.device_kind,
        "platform": device.platform,
        "num_devices": jax.device_count(),
        "memory_gib": stats.get("bytes_limit", 0) / 2**30 or None,
        "driver": " ".join(device.client.platform_version.split()),
        "jax": jax.__version__,
        "cpu_count": os.cpu_count(),
    }


def main(names: list[str], quick: bool) -> None:
    """Say what the device is, and measure the rows of these names, or all."""

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    facts = about()
    size = Size(quick, facts["platform"] != "cpu")
    found = rows(size)
    names = names or [name for name in found if not (quick and name in SLOW)]
    say({"about": facts, "rows": names})
    for name in names:
        say({"begin": name})
        try:
            say({"row": name, "figures": found[name](size)})
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            say({"row": name, "figures": {"failed": f"{type(error).__name__}: {said[0][:200]}"}})


if __name__ == "__main__":
    words = sys.argv[1:]
    main([word for word in words if word != "--quick"], "--quick" in words)
