"""Bundles beside vmapped Diffrax: how many solutions until the training has paid.

    python benchmarks/bundle.py [--out DIR] [--quick]

One network for a box of starts and parameters, trained on the residual alone. Its error is the
relative L2 error over time, worst component, of solutions from random points of the box. Diffrax
(Tsit5, vmapped and compiled) runs at the loosest tolerance of a scan at which the worst of the
same solutions is as good as the network's worst. Both answer for all starts in one call: the
states at the end alone, and at 51 times. The break-even count is the training's seconds over
the seconds saved per solution; where the network is slower there is none. Compiling is apart.
The fine networks are those of the defaults, the coarse ones have 150 units and rtol 1e-4.
"""

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro

jax.config.update("jax_enable_x64", True)
from physml import pinn, reference, systems

NUM_TIMES = 51
RECIPES = {"fine": {}, "coarse": {"units": 150, "rtol": 1e-4}}


@dataclasses.dataclass(frozen=True)
class Config:
    out: pathlib.Path = pathlib.Path("results/benchmark_bundle")
    """Where metrics.json goes."""
    num: int = 10_000
    """Solutions in one call."""
    num_judged: int = 1_000
    """Solutions whose error is measured."""
    seed: int = 0
    """Draws the networks and the box's points."""
    quick: bool = False
    """Few solutions, short horizons."""


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    return {
        "oscillator": {
            "system": systems.DrivenOscillator(),
            "y0": [1.0, 0.0],
            "t1": 5.0 if quick else 20.0,
            "parameters": {"gamma": (0.1, 0.3), "forcing.frequency": (0.5, 1.5)},
        },
        "lorenz": {
            "system": systems.Lorenz(),
            "y0": [[-10.0, -10.0, 15.0], [10.0, 10.0, 35.0]],
            "t1": 0.2 if quick else 0.5,
            "parameters": {},
        },
        "lotka_volterra": {
            "system": systems.LotkaVolterra(),
            "y0": [[5.0, 1.0], [12.0, 4.0]],
            "t1": 4.0 if quick else 10.0,
            "parameters": {"alpha": (0.9, 1.3)},
        },
    }


def seconds(compute: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """What it answers, the seconds of the first call beyond one more, and the best of others."""
    start = time.perf_counter()
    answer = jax.block_until_ready(compute())
    first, best = time.perf_counter() - start, float("inf")
    for _ in range(repeats):  # another process can only add to the time
        start = time.perf_counter()
        jax.block_until_ready(compute())
        best = min(best, time.perf_counter() - start)
    return answer, first - best, best


def integrator(whole: systems.System, dim: int) -> Callable:
    """Tsit5 from inputs (start, parameters) at any times, compiled once for all tolerances."""

    @eqx.filter_jit
    def solve(z, ts, tol):
        def one(z):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, p: whole(t, jnp.concatenate([y, p]))[:dim]),
                diffrax.Tsit5(), 0.0, ts[-1], None, z[:dim], z[dim:],
                saveat=diffrax.SaveAt(ts=ts),
                stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol),
            )  # fmt: skip
            return solution.ys

        return jax.vmap(one)(z)

    return solve


def relative_l2(ys: Any, truth: Any) -> np.ndarray:
    error = np.linalg.norm(np.asarray(ys) - np.asarray(truth), axis=1)
    return np.max(error / np.linalg.norm(truth, axis=1), axis=1)


def run_case(case: dict[str, Any], recipe: dict[str, Any], config: Config) -> dict[str, float]:
    key, num = jax.random.key(config.seed), config.num // 10 if config.quick else config.num
    trained, compile_s, train_s = seconds(lambda: pinn.bundle(**case, **recipe, key=key), 1)
    whole, dim = trained.equation.system, trained.dim
    low, high = np.asarray(trained.low), np.asarray(trained.high)
    z = low + (high - low) * np.random.default_rng(config.seed + 1).random((num, len(low)))
    ts = np.linspace(0.0, case["t1"], NUM_TIMES)
    few = jnp.asarray(z[: config.num_judged])
    truth = reference.trajectories_from(whole, few, ts).ys[..., :dim]

    def network(ts: np.ndarray, z: Any = z) -> Any:
        return trained.solutions(
            ts, z[:, :dim], dict(zip(trained.names, z[:, dim:].T, strict=True))
        )

    error = relative_l2(network(ts, np.asarray(few)), truth)
    solve = integrator(whole, dim)
    for tol in 10.0 ** -np.arange(3.0, 12.0, 0.5):
        peer_error = relative_l2(solve(few, jnp.asarray(ts), jnp.asarray(tol)), truth)
        if peer_error.max() <= error.max():
            break
    row = {
        "train_s": train_s,
        "train_compile_s": compile_s,
        "windows": float(trained.stats["num_windows"]),
        "error_median": float(np.median(error)),
        "error_max": float(error.max()),
        "estimated_median": float(trained.stats["error_median"]),
        "estimated_max": float(trained.stats["error_max"]),
        "diffrax_rtol": float(tol),
        "diffrax_error_median": float(np.median(peer_error)),
        "diffrax_error_max": float(peer_error.max()),
    }
    for name, times in (("end", ts[-1:]), ("path", ts)):
        peer_times = jnp.asarray(times)
        _, own_compile_s, own_s = seconds(lambda: network(times), 3)  # noqa: B023
        _, peer_compile_s, peer_s = seconds(
            lambda: solve(jnp.asarray(z), peer_times, jnp.asarray(tol)),  # noqa: B023
            3,
        )
        saved = (peer_s - own_s) / num
        row |= {
            f"{name}.network_s": own_s,
            f"{name}.network_compile_s": own_compile_s,
            f"{name}.diffrax_s": peer_s,
            f"{name}.diffrax_compile_s": peer_compile_s,
            f"{name}.ratio": peer_s / own_s,
            f"{name}.break_even": train_s / saved if saved > 0 else float("inf"),
        }
    return row


def main(config: Config) -> dict[str, float]:
    num = config.num // 10 if config.quick else config.num
    print(f"seconds for {num} solutions; break-even in solutions")
    print(f"{'':16}{'recipe':>8}{'train':>7}{'layers':>7}{'err med':>9}{'err max':>9}", end="")
    print(f"{'Tsit5 tol':>10}{'answer':>7}{'network':>9}{'Tsit5':>8}{'ratio':>7}{'break-even':>12}")
    metrics: dict[str, float] = {}
    for (name, case), (recipe, options) in itertools.product(
        cases(config.quick).items(), RECIPES.items()
    ):
        row = run_case(case, options, config)
        for answer in ("end", "path"):
            print(f"{name:16}{recipe:>8}{row['train_s']:7.1f}{row['windows']:7.0f}", end="")
            print(f"{row['error_median']:9.1e}{row['error_max']:9.1e}", end="")
            print(
                f"{row['diffrax_rtol']:10.0e}{answer:>7}{row[f'{answer}.network_s']:9.3f}", end=""
            )
            print(f"{row[f'{answer}.diffrax_s']:8.3f}{row[f'{answer}.ratio']:7.1f}", end="")
            print(f"{row[f'{answer}.break_even']:12.0f}", flush=True)
        metrics |= {f"{name}.{recipe}.{key}": value for key, value in row.items()}
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics


if __name__ == "__main__":
    main(tyro.cli(Config))
