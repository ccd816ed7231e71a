"""Several experiments with gaps and two kinds of noise: errors and intervals over many draws.

    python benchmarks/experiments.py [--out DIR] [--draws N] [--quick]

Each of four equations is observed in three experiments, of whose numbers 30 % are missing; two have
noise of one kind, the third of another, and `pinn.identify` is told the kinds and not the scales.
`rms_over_crb` is the largest ratio, over the parameters, of the root mean square error to the bound
of Cramér and Rao, and `coverage` the smallest share of draws in which the interval of 95 % holds
the true value. The bound is from Runge-Kutta steps that know nothing of networks.

The pelts of Hudson's Bay are fitted with lognormal noise, and compared with the mode of the
published posterior, which SciPy finds: `pelts.mode_err` is the largest relative difference.
`bayes.posterior` of the same fit gives means: `pelts.max_z` is the largest distance from the
published ones in their common Monte Carlo error. PHYSML_DATA names the folder with the pelts.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import equinox as eqx
import numpy as np
from _experiments import CASES, Case

from physml import bayes, experiment, noises, pinn
from physml.experiment import TIMES, Run
from physml.results import RESULTS, is_failure

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import _pelts as pelts
from _pelt_mode import identified_at_mode, mode_by_scipy

COLUMNS = {
    "name": "equation", "rms_over_crb": "RMS / bound", "coverage": "least coverage",
    "highest": "greatest", "failed": "failed", "said": "noise contradicted", **TIMES,
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_experiments")
    draws: int = 200
    """Draws of the noise (4 if quick)."""
    only: tuple[str, ...] = ()
    """Names of equations; all unless given."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    keys = dict(zip(CASES, jax.random.split(jax.random.key(config.seed), len(CASES)), strict=True))
    with Run(config.out, config) as run:
        for name in config.only or CASES:
            measure(run, name, CASES[name](), 4 if config.quick else config.draws, keys[name])
        run.table(run.take_rows(), COLUMNS, title="three experiments each, intervals of 95 %")
        pelts_against_reference(run, 200 if config.quick else 2000)
        return run.metrics({})


def measure(run: Run, name: str, case: Case, draws: int, key: jax.Array) -> None:
    """One equation: errors against the bound, and how often intervals hold the truth."""
    with run.row(name) as row:
        row["name"], row["draws"] = name.replace("_", " "), draws
        found = row.time(identify_each, case, case.draw(key, draws))
        truth = np.array(list(case.free.values()))
        errors, bound = np.asarray(found.estimate) - truth, case.bound()
        rms = np.sqrt(np.mean(errors**2, axis=0)) / bound
        ranges = found.intervals()
        covered = {x: float(np.mean((a <= case.free[x]) & (case.free[x] <= b)))
                   for x, (a, b) in ranges.items()}  # fmt: skip
        for i, parameter in enumerate(case.free):
            row[f"{parameter}_rms_over_crb"] = float(rms[i])
            row[f"{parameter}_coverage"] = covered[parameter]
        row["rms_over_crb"] = float(rms.max())
        row["coverage"], row["highest"] = min(covered.values()), max(covered.values())
        row["failed"] = float(np.mean(np.asarray(is_failure(found.result))))
        row["said"] = float(np.mean(np.asarray(found.result == RESULTS.noise_contradicted)))


def identify_each(case: Case, data: list[jax.Array]) -> pinn.Identified:
    """`pinn.identify` for each draw of the noise."""

    @eqx.filter_jit
    def identify(data: list[jax.Array]) -> pinn.Identified:
        return jax.lax.map(case.identify, data, batch_size=20)

    return identify(data)


def pelts_against_reference(run: Run, num_draws: int) -> None:
    """The mode of the published posterior, and its means."""
    data = pelts.read()
    if data is None:
        print("No pelts: lynx_hare/lynx_hare.csv is not in the folder that PHYSML_DATA names.\n")
        return
    mode, scales = mode_by_scipy(*data)
    found = identified_at_mode(*data, scales)
    with run.row("pelts") as row:
        row["mode_err"] = float(np.max(np.abs(np.asarray(found.estimate) / mode - 1)))
        sample = partial(bayes.posterior, priors=pelts.PRIORS, num_draws=num_draws)
        start = pelts.identify(pelts.lotka_volterra(), *data)
        belief = row.part(sample, start, key=jax.random.key(0), noise=noises.LogNormalNoise())
        draws = pelts.columns(belief.draws)
        errors = np.concatenate(
            [np.ravel(belief.mean_error[x]) for x in (*pelts.NAMES, "y0", "noise")]
        )
        z = np.abs(draws.mean(axis=(0, 1)) - pelts.MEANS) / np.hypot(errors, pelts.ERRORS)
        row["max_z"] = float(z.max())


if __name__ == "__main__":
    experiment.cli(main, Config)
