"""Inverse problems: parameters, starts and an unknown term from noisy observations.

Lorenz from (1, 1, 1) is observed 300 times in t = 0 to 3 with noise of standard deviation 0.5,
first in all components, then in x alone. The script compares the errors of many noise draws with
the Cramér-Rao bound, counts how often the intervals cover the truth, and draws likelihood profiles;
beside them is single shooting by Diffrax and Levenberg-Marquardt from the same guess, which is 50 %
off. Two more problems are the damping ratio of an oscillator, and Duffing's cubic term, which is
missing in the equation that is given.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from _missing_term import find_missing_term
from _shooting import shooting, trajectory

from physml import experiment, fit, pinn, plots, reference, systems
from physml.experiment import Run
from physml.results import is_failure

NAMES = ("sigma", "rho", "beta")
TRUE = np.array([10.0, 28.0, 8.0 / 3.0])
TS = np.linspace(0.0, 3.0, 300)
NOISE = 0.5
OFF = 1.5  # a guess over the truth


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/inverse")
    draws: int = 200
    """Draws of the noise (10 if quick)."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    draws = 10 if config.quick else config.draws
    keys = jax.random.split(jax.random.key(config.seed), 4)
    with Run(config.out, config) as run:
        lorenz(run, "lorenz", (0, 1, 2), draws, keys[0])
        if not config.quick:
            lorenz(run, "lorenz_x", (0,), draws, keys[1])
        oscillator(run, draws, keys[2])
        find_missing_term(run, keys[3])
        return run.metrics({})


def identify_each(
    system: systems.System, ts: np.ndarray, data: jax.Array, **options: Any
) -> pinn.Identified:
    """`pinn.identify` for each draw of the noise."""

    @eqx.filter_jit
    def identify(data: jax.Array) -> pinn.Identified:
        one = partial(pinn.identify, system, ts, **options)
        return jax.lax.map(one, data, batch_size=20)

    return identify(data)


def lorenz(run: Run, title: str, observe: tuple[int, ...], draws: int, key: jax.Array) -> None:
    """Errors against the Cramér-Rao bound, coverage, one fit in pictures, single shooting."""
    unknowns = jnp.asarray(np.concatenate([TRUE, np.ones(3)]))
    clean = trajectory(unknowns, TS, observe)
    data = clean + NOISE * jax.random.normal(key, (draws, *clean.shape))
    bound = fit.cramer_rao(lambda x: trajectory(x, TS, observe), unknowns, NOISE)[:3] / TRUE
    truth: dict[str, float] = dict(zip(NAMES, map(float, TRUE), strict=True))
    rows = []
    with run.row(title) as row:
        guess, y0 = systems.Lorenz(*(OFF * TRUE)), OFF * np.ones(3)
        found = row.part(
            identify_each, guess, TS, data, free=NAMES, y0=y0, observe=observe, noise=NOISE,
            bounds={name: (0.0, np.inf) for name in NAMES}, num_windows=30,
        )  # fmt: skip
        errors, ranges = np.asarray(found.estimate) / TRUE - 1, found.intervals()
        rms = np.sqrt(np.mean(errors**2, axis=0))
        shot = run.part(f"{title}.shot", shooting, OFF * unknowns, TS, data[0], observe, NOISE)
        lost = np.abs(shot[:3] / TRUE - 1)
        covered = [np.mean((a <= truth[x]) & (truth[x] <= b)) for x, (a, b) in ranges.items()]
        for i, name in enumerate(NAMES):
            median, ratio = np.median(np.abs(errors[:, i])), rms[i] / bound[i]
            row[f"{name}_err"], row[f"{name}_rms_over_crb"] = median, ratio
            row[f"{name}_rms"], row[f"{name}_crb"] = rms[i], bound[i]
            row[f"{name}_coverage"], row[f"{name}_shooting_err"] = covered[i], lost[i]
            shares = median, rms[i], bound[i], covered[i], lost[i]
            rows.append([name, *(100 * float(share) for share in shares)])
        row["rms_over_crb"], row["coverage"], row["draws"] = max(rms / bound), min(covered), draws
        row["failed"] = np.mean(np.asarray(is_failure(found.result)))
    columns = ["parameter", "median error", "rms", "bound", "cover 95 %", "single shooting"]
    seen = "".join("xyz"[i] for i in observe)
    heading = f"Lorenz, {seen} observed, {draws} noise draws, guess {OFF} times the truth, in %"
    run.table(rows, columns, title=heading)
    run.figure(f"{title}_intervals", plots.intervals(ranges, truth))
    if observe == (0,):
        pictures(run, jax.tree.map(lambda x: x[0], found), np.asarray(data[0, :, 0]), truth)


def pictures(run: Run, found: pinn.Identified, x: np.ndarray, truth: dict[str, float]) -> None:
    """One fit over its data, x alone, and the likelihood profiles of its parameters."""
    times = np.linspace(0.0, 3.0, 601)
    exact = reference.solve(systems.Lorenz(), [1.0, 1.0, 1.0], times).ys
    paths = (dict(zip("xyz", np.asarray(y).T, strict=True)) for y in (found.solution(times), exact))
    run.figure("lorenz_x_fit", plots.fit_to_data(TS, {"x": x}, times, *paths))
    profiles = {name: pinn.profile(found, name)[1:] for name in NAMES}
    best = {name: (float(found.values[name]), float(found.sd[name])) for name in NAMES}
    run.figure("lorenz_x_profiles", plots.likelihood_profiles(profiles, best, truth))


def oscillator(run: Run, draws: int, key: jax.Array) -> None:
    """The damping ratio of x'' + 2 zeta x' + x = 0 from positions with noise 0.02."""
    zeta, ts = 0.15, np.linspace(0.0, 20.0, 401)
    true = systems.DrivenOscillator(gamma=zeta, omega0=1.0, forcing=None)
    guess = systems.DrivenOscillator(gamma=OFF * zeta, omega0=OFF, forcing=None)
    clean = true.exact(ts, jnp.asarray([1.0, 0.0]))[:, :1]
    data = clean + 0.02 * jax.random.normal(key, (draws, *clean.shape))
    bounds = {"gamma": (0.0, np.inf), "omega0": (0.0, np.inf)}
    options = {"free": tuple(bounds), "y0": [OFF, 0.0], "observe": (0,), "bounds": bounds}
    found = run.part("oscillator", identify_each, guess, ts, data, num_windows=20, **options)
    errors = np.abs(np.asarray(found.estimate[:, 0] / found.estimate[:, 1]) / zeta - 1)
    with run.row("oscillator", "zeta") as row:
        row["zeta_err"], row["zeta_rms_err"] = np.median(errors), np.sqrt(np.mean(errors**2))
        row["failed"] = np.mean(np.asarray(is_failure(found.result)))
        row["draws"] = draws
    title = f"Damped oscillator, x observed 401 times, {draws} noise draws, noise 0.02, in %"
    rows = [["zeta", 100 * np.median(errors), 100 * errors.max()]]
    run.table(rows, ["parameter", "median error", "worst"], title=title)


if __name__ == "__main__":
    experiment.cli(main, Config)
