"""Bundles beside vmapped Diffrax: how many solutions until the training has paid.

    python benchmarks/bundle.py [--out DIR] [--quick]

One network for a box of starts and parameters, trained on the residual alone. Its error is the
relative L2 error over time, worst component, of solutions from random points of the box. Diffrax
(Tsit5, vmapped and compiled) runs at the loosest tolerance of a scan at which the worst of the
same solutions is as good as the network's worst; where none is, at the finest, and the table says
that it is worse. Both answer for all starts in one call: the
states at the end alone, and at 51 times. The break-even count is the training's seconds over
the seconds saved per solution; where the network is slower there is none. Compiling is apart.
The fine networks are those of the defaults, the coarse ones have 150 units and rtol 1e-4.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro

jax.config.update("jax_enable_x64", True)
from physml import dynamics, pinn, reference, systems
from physml.experiment import Run, best_of

NUM_TIMES = 51
RECIPES = {"fine": {}, "coarse": {"units": 150, "rtol": 1e-4}}
TOLERANCES = tuple(10.0 ** -(0.5 * n) for n in range(6, 24))  # of Diffrax, the loosest first
COLUMNS = (
    "", "recipe", "train", "layers", "err median", "err max", "Tsit5 tol", "answer", "network",
    "Tsit5", "ratio", "break-even",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    out: pathlib.Path = pathlib.Path("results/benchmark_bundle")
    """Folder for the table and metrics."""
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


def loosest(
    errors_at: Callable[[float], np.ndarray], bound: float
) -> tuple[float, np.ndarray, bool]:
    """The loosest tolerance of a scan whose largest error keeps a bound, its errors, and True.

    Where none does: the finest, its errors, and False.
    """
    tol, errors = 0.0, np.zeros(0)
    for tol in TOLERANCES:
        errors = errors_at(tol)
        if errors.max() <= bound:
            return tol, errors, True
    return tol, errors, False


def worst_component(ys: Any, truth: jax.Array) -> np.ndarray:
    """The relative L2 error over time of each solution, that of its worst component."""
    return np.asarray(dynamics.relative_l2(jnp.asarray(ys), truth).max(axis=-1))


def run_case(case: dict[str, Any], recipe: dict[str, Any], config: Config) -> dict[str, Any]:
    """A bundle's training, its errors and those of Diffrax, and the seconds of both."""
    key, num = jax.random.key(config.seed), config.num // 10 if config.quick else config.num
    trained, train_s, compile_seconds = best_of(lambda: pinn.bundle(**case, **recipe, key=key), 1)
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

    error = worst_component(network(ts, np.asarray(few)), truth)
    solve = integrator(whole, dim)
    tol, peer_error, as_good = loosest(
        lambda tol: worst_component(solve(few, jnp.asarray(ts), jnp.asarray(tol)), truth),
        error.max(),
    )
    row = {
        "train_s": train_s,
        "train_compile_seconds": compile_seconds,
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
    for name, times in (("end", ts[-1:]), ("path", ts)):
        peer_times = jnp.asarray(times)
        _, own_s, own_compile_s = best_of(lambda: network(times), 3)  # noqa: B023
        _, peer_s, peer_compile_s = best_of(
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


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    num = config.num // 10 if config.quick else config.num
    rows = []
    with Run(config.out, config) as run:
        for (name, case), (recipe, options) in itertools.product(
            cases(config.quick).items(), RECIPES.items()
        ):
            row = run_case(case, options, config)
            run.metrics(row, prefix=f"{name}.{recipe}")
            tolerance = f"{row['diffrax_rtol']:.0e}{'' if row['diffrax_as_good'] else ', worse'}"
            training = [row[key] for key in ("train_s", "windows", "error_median", "error_max")]
            for answer in ("end", "path"):
                speeds = [
                    row[f"{answer}.{key}"]
                    for key in ("network_s", "diffrax_s", "ratio", "break_even")
                ]
                rows.append([name, recipe, *training, tolerance, answer, *speeds])
        run.table(rows, COLUMNS, title=f"Seconds for {num} solutions; break-even in solutions")
        return run.metrics({})


if __name__ == "__main__":
    main(tyro.cli(Config))
