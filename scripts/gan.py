"""Adversarial networks: new windows of a chaotic system, new digits, and a solver of equations.

A generator learns to deceive a critic, first with windows of the Lorenz system. One also pays the
residual of single steps on what it makes. Both are scored by the histograms of their states, their
power spectra, the residual and the leading Lyapunov exponent of a step map that is fitted to them,
each beside the same of true windows. Then digits: the Fréchet distance in the features of our own
classifier, beside that of a variational autoencoder of equal size and budget, and the nearest
training image to each. Last, equations solved by a network whose residual a critic judges, beside
Adam and Gauss-Newton.
"""

from dataclasses import dataclass
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

from _adversarial_solver import compare_solvers
from _digit_generators import compare_digits
from _digit_images import DigitsConfig
from _window_generators import compare_windows

from physml import experiment
from physml.experiment import Run


@dataclass(frozen=True)
class Config(DigitsConfig):
    """Options of the experiment."""

    out: Path = Path("results/gan")


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 3)
        compare_windows(run, keys[0], config.quick)
        compare_digits(run, keys[1], config)
        compare_solvers(run, keys[2], config.quick)
        return run.metrics({})


if __name__ == "__main__":
    experiment.cli(main, Config)
