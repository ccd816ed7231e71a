"""The Fourier coefficients of four waves: from closed forms, by quadrature and from samples."""

import jax
import jax.numpy as jnp
import numpy as np

from physml import fourier, plots, systems
from physml.experiment import TIMES, Run

WORDS = {
    "square": "square wave, jumps",
    "triangle": "triangle, kinks",
    "sawtooth": "sawtooth, jumps",
    "rectified": "rectified sine, kinks",
}


def compare_coefficients(run: Run, n: int) -> None:
    """The first `n` coefficients of four waves, in a table and a figure."""
    ts = np.arange(4096) / 4096
    waves = {
        "square": (fourier.square_wave, lambda t: jnp.where(t % 1 < 0.5, 1.0, -1.0), (0.0, 0.5)),
        "triangle": (fourier.triangle_wave, lambda t: 4 * jnp.abs(t % 1 - 0.5) - 1, (0.0, 0.5)),
        "sawtooth": (fourier.sawtooth_wave, lambda t: 2 * ((t + 0.5) % 1 - 0.5), (0.5,)),
        "rectified": (fourier.rectified_sine, lambda t: jnp.abs(jnp.sin(jnp.pi * t)), (0.0,)),
    }
    sizes = {}
    for name, (closed, force, cuts) in waves.items():
        with run.row(name) as row:
            series = closed(n)
            by_quadrature = row.time(fourier.coefficients, force, n, 1.0, cuts)
            sampled = fourier.coefficients_from_samples(force(ts), n)
            row["quadrature_max_err"] = difference(by_quadrature, series)
            row["samples_max_err"] = difference(sampled, series)
        sizes[WORDS[name]] = jnp.hypot(series.a, series.b)
    errors = {"quadrature_max_err": "error by quadrature", "samples_max_err": "by 4096 samples"}
    run.table(
        run.take_rows(),
        {"name": "wave", **errors, **TIMES},
        title=f"The first {n} Fourier coefficients against their closed forms, float64",
    )
    run.figure("spectra", plots.spectra(np.arange(1, n + 1), sizes))


def difference(series: systems.FourierSeries, other: systems.FourierSeries) -> jax.Array:
    pairs = zip(jax.tree.leaves(series), jax.tree.leaves(other), strict=True)
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x - y)) for x, y in pairs]))
