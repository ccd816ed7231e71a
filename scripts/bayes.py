"""Beliefs about equations and networks, and whether their intervals cover what they promise.

The pelts of Hudson's Bay are the data of Stan's case study: parameters, start and noise of a
predator-prey equation by the No-U-Turn sampler, started from `pinn.identify`, beside the published
posterior, Laplace's method, the model as one writes it in numpyro with `odeint`, and an equation
with one term more. A noisy oscillator and noisy Lorenz, drawn many times, say how often intervals
hold the truth. Last, networks on noisy data with a gap: the last layer, all weights, draws of them,
an ensemble.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from _network_beliefs import network_beliefs
from _pelt_beliefs import pelt_beliefs
from _shooting import trajectory

from physml import bayes, experiment, pinn, plots, systems
from physml.experiment import Run
from physml.results import is_failure


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/bayes")
    draws: int = 200
    """Draws of the noise for the coverage (20 if quick)."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    keys = jax.random.split(jax.random.key(config.seed), 4)
    with Run(config.out, config) as run:
        pelt_beliefs(run, config, keys[0])
        draws = 20 if config.quick else config.draws
        oscillator(run, draws, keys[1])
        lorenz(run, draws, keys[2])
        title = "Shares of the intervals that hold the truth; noise unknown"
        run.table(run.take_rows(), {"name": "intervals", **LEVELS, "draws": "draws"}, title=title)
        network_beliefs(run, config, keys[3])
        return run.metrics({})


LEVELS = {"cover_50": "of 50 %", "cover_80": "of 80 %", "coverage": "of 95 %"}


def beliefs_of_each(
    system: systems.System, ts: np.ndarray, data: jax.Array, key: jax.Array, **options: Any
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Laplace's draws of the parameters for each draw of the noise, and which of them failed."""

    @eqx.filter_jit
    def beliefs(data: jax.Array, keys: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        def one(case: tuple[jax.Array, jax.Array]) -> tuple[dict[str, jax.Array], jax.Array]:
            data, key = case
            found = pinn.identify(system, ts, data, **options)
            settings: Any = {"method": "laplace", "num_chains": 1, "throw": False}
            belief = bayes.posterior(found, key=key, **settings)
            return belief.draws, is_failure(belief.result)

        return jax.lax.map(one, (data, keys), batch_size=20)

    return beliefs(data, jax.random.split(key, len(data)))


def covered(
    run: Run, name: str, truth: dict[str, float], draws: dict[str, jax.Array], failed: jax.Array
) -> None:
    """The row of the table of coverage."""
    stacked = jnp.stack([draws[x][:, 0] for x in truth], axis=-1)  # (repeats, draws, parameters)
    right = jnp.broadcast_to(jnp.asarray([*truth.values()]), stacked[:, 0].shape)
    cover = bayes.coverage_of_draws(jnp.swapaxes(stacked, 0, 1), right)
    with run.row(name, f"{name}, by Laplace") as row:
        for key, share in zip(LEVELS, cover.shares, strict=True):
            row[key] = share
        row["draws"], row["failed"] = len(stacked), np.mean(np.asarray(failed))
    ends = jnp.quantile(stacked, jnp.asarray([0.025, 0.975]), axis=1)
    ranges = {x: (ends[0, :, i], ends[1, :, i]) for i, x in enumerate(truth)}
    run.figure(f"{name}_intervals", plots.intervals(ranges, truth))


def oscillator(run: Run, draws: int, key: jax.Array) -> None:
    """Damping and frequency of a free oscillator, from 60 positions with noise 0.05."""
    truth, ts = {"gamma": 0.15, "omega0": 1.0}, np.linspace(0.0, 12.0, 60)
    true = systems.DrivenOscillator(**truth, forcing=None)
    clean = true.exact(ts, jnp.asarray([1.0, 0.0]))[:, :1]
    data = clean + 0.05 * jax.random.normal(key, (draws, *clean.shape))
    guess = systems.DrivenOscillator(gamma=0.2, omega0=1.2, forcing=None)
    options = {"y0": [1.0, 0.0], "observe": (0,), "num_windows": 6}
    bounds = {name: (0.0, np.inf) for name in truth}
    options |= {"free": tuple(truth), "bounds": bounds}
    found = run.part("oscillator", beliefs_of_each, guess, ts, data, key, **options)
    covered(run, "oscillator", truth, *found)


def lorenz(run: Run, draws: int, key: jax.Array) -> None:
    """The parameters of Lorenz from 300 states with noise 0.5, guesses half as large again."""
    truth, ts = {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0}, np.linspace(0.0, 3.0, 300)
    clean = trajectory(jnp.asarray([*truth.values(), 1.0, 1.0, 1.0]), ts, (0, 1, 2))
    data = clean + 0.5 * jax.random.normal(key, (draws, *clean.shape))
    guess = systems.Lorenz(**{name: 1.5 * x for name, x in truth.items()})
    bounds = {name: (0.0, np.inf) for name in truth}
    options = {"free": tuple(truth), "bounds": bounds, "num_windows": 30}
    found = run.part("lorenz", beliefs_of_each, guess, ts, data, key, **options)
    covered(run, "lorenz", truth, *found)


if __name__ == "__main__":
    experiment.cli(main, Config)
