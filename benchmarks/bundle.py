"""Bundles beside vmapped Diffrax: after how many solutions the training has paid.

    python benchmarks/bundle.py [--out DIR] [--seed N] [--quick]

One network solves an equation for a box of starts and parameters; it is trained on the residual
alone. Its error is the relative L2 error over time, worst component, of solutions from random
points of the box. Diffrax (Tsit5, vmapped and compiled) runs at the loosest tolerance of a scan at
which the worst of the same solutions is as good as the network's worst. Where no tolerance is, it
runs at the finest, and the table says "worse". Both answer for all starts in one call: the states
at the end alone, and at 51 times. The break-even count is the training's seconds over the seconds
saved per solution; there is none where the network is slower. Compiling is not counted. The fine
networks have the defaults, the coarse ones 150 units and rtol 1e-4.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np

from physml import dynamics, experiment, pinn, reference, systems
from physml.experiment import Row, Run, best_of

NUM_TIMES = 51
RECIPES = {"fine": {}, "coarse": {"units": 150, "rtol": 1e-4}}
TOLERANCES = tuple(10.0 ** -(0.5 * n) for n in range(6, 24))  # of Diffrax, the loosest first
COLUMNS = {
    "name": "", "recipe": "recipe", "train_s": "train", "windows": "layers",
    "error_median": "err median", "error_max": "err max", "tolerance": "Tsit5 tol",
    "answer": "answer", "network_s": "network", "diffrax_s": "Tsit5", "ratio": "ratio",
    "break_even": "break-even",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_bundle")
    quick: bool = False
    """A tenth of the solutions, short horizons."""
    num: int = 10_000
    """Solutions in one call."""
    num_judged: int = 1_000
    """Solutions whose error is measured."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    num = config.num // 10 if config.quick else config.num
    lines = []
    with Run(config.out, config) as run:
        for (name, case), (recipe, options) in itertools.product(
            cases(config.quick).items(), RECIPES.items()
        ):
            with run.row(f"{name}.{recipe}", name) as row:
                answers = measure(row, case | options, num, config)
            for answer, figures in answers.items():
                shown = {"recipe": recipe, "answer": answer}
                lines.append(row.shown | row.figures | shown | figures)
        run.table(lines, COLUMNS, title=f"Seconds for {num} solutions; break-even in solutions")
        return run.metrics({"num": num, "num_judged": config.num_judged})


def measure(
    row: Row, options: dict[str, Any], num: int, config: Config
) -> dict[str, dict[str, float]]:
    """Train a bundle, and compare its errors and its seconds with Diffrax's for each answer."""
    key = jax.random.key(config.seed)
    trained, train_s, row["train_compile_seconds"] = best_of(
        lambda: pinn.bundle(**options, key=key), 1
    )
    whole, dim = trained.equation.system, trained.dim
    low, high = np.asarray(trained.low), np.asarray(trained.high)
    z = low + (high - low) * np.random.default_rng(config.seed + 1).random((num, len(low)))
    ts = np.linspace(0.0, options["t1"], NUM_TIMES)
    few, starts = jnp.asarray(z[: config.num_judged]), jnp.asarray(z)
    truth = reference.trajectories_from(whole, few, ts).ys[..., :dim]

    def network(ts: np.ndarray, z: Any = z) -> Any:
        parameters = dict(zip(trained.names, z[:, dim:].T, strict=True))
        return trained.solutions(ts, z[:, :dim], parameters)

    error = worst_component(network(ts, np.asarray(few)), truth)
    solve = integrator(whole, dim)
    tol, peer_error, as_good = loosest(
        lambda tol: worst_component(solve(few, jnp.asarray(ts), jnp.asarray(tol)), truth),
        error.max(),
    )
    row.shown["tolerance"] = f"{tol:.0e}{'' if as_good else ', worse'}"
    row.metrics(
        {
            "train_s": train_s,
            "windows": float(trained.stats["num_windows"]),
            "error_median": float(np.median(error)),
            "error_max": float(error.max()),
            "estimated_median": float(trained.stats["error_median"]),
            "estimated_max": float(trained.stats["error_max"]),
            "diffrax_rtol": tol,
            "diffrax_as_good": as_good,
            "diffrax_error_median": float(np.median(peer_error)),
            "diffrax_error_max": float(peer_error.max()),
        }
    )
    answers = {}
    for name, times in (("end", ts[-1:]), ("path", ts)):
        inputs = starts, jnp.asarray(times), jnp.asarray(tol)
        answers[name] = figures = costs(
            lambda times=times: network(times), lambda inputs=inputs: solve(*inputs), num, train_s
        )
        row.metrics({f"{name}.{key}": value for key, value in figures.items()})
    return answers


def costs(own: Callable, peer: Callable, num: int, train_s: float) -> dict[str, float]:
    """The seconds of the network and of Diffrax, and after how many solutions training paid."""
    _, own_s, own_compile = best_of(own, 3)
    _, peer_s, peer_compile = best_of(peer, 3)
    saved = (peer_s - own_s) / num
    return {
        "network_s": own_s,
        "network_compile_seconds": own_compile,
        "diffrax_s": peer_s,
        "diffrax_compile_seconds": peer_compile,
        "ratio": peer_s / own_s,
        "break_even": train_s / saved if saved > 0 else float("inf"),
    }


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """What the bundles are trained for: `pinn.bundle`'s arguments by name."""
    oscillator, lorenz, lotka_volterra = (5.0, 0.2, 4.0) if quick else (20.0, 0.5, 10.0)
    frequencies = {"gamma": (0.1, 0.3), "forcing.frequency": (0.5, 1.5)}
    found = {
        "oscillator": (systems.DrivenOscillator(), [1.0, 0.0], oscillator, frequencies),
        "lorenz": (systems.Lorenz(), [[-10.0, -10.0, 15.0], [10.0, 10.0, 35.0]], lorenz, {}),
        "lotka_volterra": (
            systems.LotkaVolterra(), [[5.0, 1.0], [12.0, 4.0]], lotka_volterra,
            {"alpha": (0.9, 1.3)},
        ),
    }  # fmt: skip
    names = ("system", "y0", "t1", "parameters")
    return {name: dict(zip(names, case, strict=True)) for name, case in found.items()}


def integrator(whole: systems.System, dim: int) -> Callable:
    """Tsit5 as a function of (starts and parameters, times, tolerance), compiled once for all."""

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


def loosest(
    errors_at: Callable[[float], np.ndarray], bound: float
) -> tuple[float, np.ndarray, bool]:
    """The loosest tolerance whose largest error is within a bound, its errors, and True.

    If no tolerance is accurate enough: the finest, its errors, and False.
    """
    tol, errors, as_good = 0.0, np.zeros(0), False
    for tol in TOLERANCES:
        errors = errors_at(tol)
        as_good = bool(errors.max() <= bound)
        if as_good:
            break
    return tol, errors, as_good


def worst_component(ys: Any, truth: jax.Array) -> np.ndarray:
    """The relative L2 error over time of each solution, that of its worst component."""
    return np.asarray(dynamics.relative_l2(jnp.asarray(ys), truth).max(axis=-1))


if __name__ == "__main__":
    experiment.cli(main, Config)
