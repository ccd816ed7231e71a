"""The rows of `device.py` that solve equations, and those of linear algebra alone.

They are compared with a truth that the device has no part in: closed forms, SciPy and NumPy on the
host, or numbers computed elsewhere in double-double.
"""

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import _boxes
import jax
import jax.numpy as jnp
import numpy as np
from _device_size import Figures, Size, relative, timed
from _lorenz import DT, LORENZ

from physml import dynamics, pinn, reference, systems
from physml.bayes import gaussian_processes as gp

# Lorenz at t = 20 from (1, 1, 1), by `reference.extended_trajectories` on a CPU.
LORENZ_AT_20 = np.array([13.793199595130377, 12.951803936192455, 34.90160868113685])


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


def batches(size: Size) -> dict[str, Callable[[Size], Figures]]:
    """The rows of many trajectories, by name."""
    nums = size((1_000,), (1_000, 10_000), (1_000, 10_000, 100_000))
    kinds = (("float64", jnp.float64), ("float32", jnp.float32))
    return {
        f"trajectories_{name}_{num}": lambda size, n=num, d=dtype: trajectories(size, n, d)
        for name, dtype in kinds
        for num in nums
    }


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


def box(size: Size) -> Figures:
    """Heat in a square, by one call; the truth is a product of sines that decays."""
    problem = _boxes.heat()
    solution, times = timed(problem.solve, 1)
    axes = np.linspace(0.0, 1.0, 17), np.linspace(0.0, 1.0, 17), np.linspace(0.0, 0.1, 5)
    points = np.meshgrid(*axes, indexing="ij")
    return {**times, "error": relative(solution(*points), problem.truth(*points))}


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
