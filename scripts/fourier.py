"""Periodic forces: their Fourier series, the Gibbs overshoot, an oscillator's answer, resonance.

The coefficients of four waves come from closed forms, from quadrature and from samples. The partial
sums of the lecture's pulses overshoot their edges, by a share of the jump that does not shrink. The
lecture's oscillator answers each harmonic by itself: every term and their sum are compared with
Diffrax. A force with harmonics meets the resonance at fractions of the natural frequency. Last, the
convolution theorem: a product of transforms is a convolution.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _wave_coefficients import compare_coefficients

from physml import convolution, experiment, fourier, plots, reference, systems
from physml.experiment import TIMES, Run

OSCILLATOR = systems.DrivenOscillator()  # x'' + 0.4 x' + x


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/fourier")
    harmonics: int = 25
    """Harmonics of every series."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        compare_coefficients(run, config.harmonics)
        gibbs(run, config)
        superposition(run, config)
        resonance(run, config)
        theorem(run, config)
        return run.metrics({})


def gibbs(run: Run, config: Config) -> None:
    """How far the partial sums of the pulse train rise above it."""
    pulses, counts = systems.SquareWave(), (1, 5, 25, 125, 625)
    overshoot = {n: float(fourier.gibbs_overshoot(pulses, n)) for n in counts}
    run.metrics({"gibbs": 1.0 + overshoot[counts[-1]], "gibbs_limit": 1.0 + fourier.GIBBS})
    run.table(
        [[n, value] for n, value in overshoot.items()] + [["no end of them", fourier.GIBBS]],
        ["harmonics", "overshoot, share of the jump"],
        title="The Gibbs overshoot of a pulse train",
    )
    ts = np.linspace(0.0, 0.2, 2001)
    sums = {f"up to harmonic {n}": pulses.fourier_series(n)(ts) for n in (5, 25, 125)}
    run.figure("gibbs", plots.partial_sums(ts, pulses(ts), sums))


def superposition(run: Run, config: Config) -> None:
    """The oscillator's answer to the terms of a pulse train and to their sum, against Diffrax."""
    pulses, ts = systems.SquareWave(period=12.0, width=4.0), np.linspace(0.0, 24.0, 601)
    force = pulses.fourier_series(config.harmonics)
    terms = {"the mean": term(force, 0)}
    terms |= {f"harmonic {n}": term(force, n) for n in range(1, 4 if config.quick else 10)}
    rows, paths = [], {}
    for name, part in (terms | {"all harmonics": force}).items():
        x = fourier.response(part, OSCILLATOR)
        start = jnp.stack([x(0.0), jax.grad(x)(0.0)])
        truth = reference.solve(systems.DrivenOscillator(forcing=part), start, ts).ys[:, 0]
        rows.append([name, float(jnp.abs(x(ts)).max()), float(jnp.abs(x(ts) - truth).max())])
        paths = {"superposition": x(ts), "Diffrax": truth}
    run.metrics({"superposition.max_err": max(error for *_, error in rows)})
    run.table(
        rows,
        ["force", "max |x|", "max |x error|"],
        title="Steady motion under pulses, term by term, against Diffrax over 24 time units",
    )
    closed = systems.DrivenOscillator(forcing=pulses)
    start = pulses.steady_state(jnp.asarray(0.0), OSCILLATOR.gamma, OSCILLATOR.omega0)
    exact = closed.exact(ts, start)[:, 0]
    run.metrics({"superposition.left_out": jnp.abs(paths["superposition"] - exact).max()})
    figure = plots.compare_solutions(ts, exact, paths, truth_name="pulses, closed form")
    run.figure("superposition", figure)


def term(series: systems.FourierSeries, n: int) -> systems.FourierSeries:
    """One harmonic of a series; the mean is harmonic 0."""
    one = jnp.arange(1, series.a.size + 1) == n
    mean = series.a0 if n == 0 else 0.0
    return systems.FourierSeries(a0=mean, a=one * series.a, b=one * series.b, period=series.period)


def resonance(run: Run, config: Config) -> None:
    """A weakly damped oscillator under forces of several shapes at many frequencies."""
    oscillator, frequencies = systems.DrivenOscillator(gamma=0.02), np.geomspace(0.1, 3.0, 2000)
    n = config.harmonics
    shapes = {
        "cosine": systems.FourierSeries(a0=0.0, a=jnp.ones(1), b=jnp.zeros(1), period=1.0),
        "square": fourier.square_wave(n),
        "sawtooth": fourier.sawtooth_wave(n),
    }
    sweep = partial(fourier.resonance_curve, oscillator=oscillator, frequencies=frequencies)
    curves = {name: sweep(series) for name, series in shapes.items()}
    third = np.argmin(np.abs(frequencies - 1 / 3))
    run.metrics({f"resonance.third.{name}": curve[third] for name, curve in curves.items()})
    run.figure("resonance", plots.resonance_curves(frequencies, curves))


def theorem(run: Run, config: Config) -> None:
    """A convolution by transforms against the sum that defines it."""
    rng = np.random.default_rng(config.seed)
    x, kernel = rng.normal(size=2000), rng.normal(size=101)
    by_sum = partial(convolution.convolve, padding=kernel.size - 1)
    for name, convolve in {"transforms": fourier.convolve, "sum": by_sum}.items():
        with run.row(name) as row:
            row["max_err"] = np.abs(row.time(convolve, x, kernel) - np.convolve(x, kernel)).max()
    run.table(
        run.take_rows(),
        {"name": "by", "max_err": "against NumPy", **TIMES},
        title="The convolution of 2000 numbers with 101",
    )


if __name__ == "__main__":
    experiment.cli(main, Config)
