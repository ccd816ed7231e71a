# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Periodic forces: Fourier series, superposition, resonance
#
# A periodic force is a sum of harmonics,
#
# $$F(t) = \frac{a_0}{2} + \sum_{n=1}^{N} a_n \cos n\omega t + b_n \sin n\omega t, \qquad \omega = 2\pi/\tau.$$
#
# A linear oscillator answers each harmonic by itself, and the answers add up. This notebook goes the way of
# the lecture: the coefficients, what their sum does at a jump, the steady motion term by term, resonance. At
# the end the same force drives a network that solves the equation.

# %% [markdown]
# ## Installing
#
# On Colab, first put a clone of the repository beside this notebook, as the folder `physml`. The next cell
# installs the package and keeps Colab's own JAX. Elsewhere it does nothing.

# %%
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CLONE = Path("physml").resolve()  # the folder that holds pyproject.toml

if "google.colab" in sys.modules:
    kept = "".join(f"{name}=={version(name)}\n" for name in ("jax", "jaxlib"))
    Path("constraints.txt").write_text(kept)
    install = [sys.executable, "-m", "pip", "install", "-q", "-c", "constraints.txt"]
    subprocess.run([*install, str(CLONE)], check=True)

# %%
import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np

from physml import convolution, experiment, fourier, pinn, plots, reference, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## The coefficients of a force
#
# There are three ways to them. A closed form, where somebody has done the integrals. Quadrature, for any force
# that is a function, between the times at which it jumps or has a kink. Samples of one period, by the fast
# Fourier transform, where a table is all there is.

# %%
num = 25
closed = fourier.triangle_wave(num)
integrated = fourier.coefficients(
    lambda t: 4 * jnp.abs(t % 1 - 0.5) - 1, num, period=1.0, jumps=(0.0, 0.5)
)
sampled = fourier.coefficients_from_samples(closed(np.arange(4096) / 4096), num)
print(f"by quadrature the largest error is {jnp.abs(integrated.a - closed.a).max():.0e}")
print(f"by 4096 samples of the sum         {jnp.abs(sampled.a - closed.a).max():.0e}")

# %% [markdown]
# How fast the coefficients fall says how smooth the force is: as $1/n$ where it jumps, as $1/n^2$ where it has
# kinks.

# %%
waves = {
    "square wave, jumps": fourier.square_wave(num),
    "sawtooth, jumps": fourier.sawtooth_wave(num),
    "triangle, kinks": closed,
    "rectified sine, kinks": fourier.rectified_sine(num),
}
plots.spectra(
    np.arange(1, num + 1), {name: jnp.hypot(wave.a, wave.b) for name, wave in waves.items()}
)

# %% [markdown]
# ## What the sum does at a jump
#
# The lecture's pulses have height 2, period 0.2 and width 0.1. The sum of their harmonics overshoots each edge.
# More harmonics make the overshoot narrower and not lower: its share of the jump tends to
# $\mathrm{Si}(\pi)/\pi - 1/2$, which is 0.0895.

# %%
pulses = systems.SquareWave()
ts = np.linspace(0.0, 0.2, 2001)
sums = {f"up to harmonic {n}": pulses.fourier_series(n)(ts) for n in (5, 25, 125)}
for n in (5, 25, 125, 625):
    print(f"{n:4d} harmonics overshoot by {fourier.gibbs_overshoot(pulses, n):.4f} of the jump")
print(f"and with no end of them by   {fourier.GIBBS:.4f}")
plots.partial_sums(ts, pulses(ts), sums)

# %% [markdown]
# ## Superposition
#
# The steady motion of $\ddot x + 2\gamma\dot x + \omega_0^2 x = F$ is a Fourier series again. Each harmonic of
# the force is divided by $\omega_0^2 - (n\omega)^2 + 2i\gamma n\omega$. Here the pulses are slow, so that their
# harmonics lie on both sides of the natural frequency. We start on the steady motion, and let Diffrax integrate
# under the same force.

# %%
oscillator = systems.DrivenOscillator()  # gamma = 0.2, omega0 = 1
slow = systems.SquareWave(period=12.0, width=4.0)
force = slow.fourier_series(num)
motion = fourier.response(force, oscillator)

ts = np.linspace(0.0, 24.0, 601)
start = jnp.stack([motion(0.0), jax.grad(motion)(0.0)])
driven = systems.DrivenOscillator(forcing=force)
truth = reference.solve(driven, start, ts)
print(f"superposition and Diffrax differ by {jnp.abs(motion(ts) - truth.ys[:, 0]).max():.0e}")

# %% [markdown]
# What is left out are the harmonics above the 25th. They are small in the force and far from resonance, so the
# motion hardly misses them, though the force near its jumps does.

# %%
at_start = slow.steady_state(jnp.asarray(0.0), oscillator.gamma, oscillator.omega0)
exact = systems.DrivenOscillator(forcing=slow).exact(ts, at_start)[:, 0]
few = fourier.response(slow.fourier_series(2), oscillator)
print(f"25 harmonics miss {jnp.abs(motion(ts) - exact).max():.0e} of the motion under true pulses")
plots.compare_solutions(
    ts,
    exact,
    {"2 harmonics": few(ts), "25 harmonics": motion(ts)},
    truth_name="pulses, closed form",
)

# %% [markdown]
# ## Resonance
#
# With little damping an oscillator answers most to a force at its natural frequency. A force with harmonics
# meets it at fractions of that frequency too: a square wave, which has odd harmonics only, at 1/3, 1/5, ..., a
# sawtooth also at 1/2 and 1/4.

# %%
frequencies = np.geomspace(0.1, 3.0, 500 if QUICK else 2000)
weak = systems.DrivenOscillator(gamma=0.02)
shapes = {
    "cosine": systems.FourierSeries(a0=0.0, a=jnp.ones(1), b=jnp.zeros(1), period=1.0),
    "square wave": fourier.square_wave(num),
    "sawtooth": fourier.sawtooth_wave(num),
}
plots.resonance_curves(
    frequencies,
    {name: fourier.resonance_curve(x, weak, frequencies) for name, x in shapes.items()},
)

# %% [markdown]
# ## A network under the same force
#
# The series is a force like any other. `pinn.solve` finds a network that is the motion from rest, from the
# equation alone; the closed form says how good it is.

# %%
t1 = 6.0 if QUICK else 24.0
rest = jnp.zeros(2)
solution = pinn.solve(driven, rest, t1)
grid = np.linspace(0.0, t1, 601)
plots.solution_error(
    grid,
    driven.exact(grid, rest),
    solution(grid),
    names=("x", "v"),
    estimate=solution.error_estimate(grid),
)

# %% [markdown]
# ## The convolution theorem
#
# A product of transforms is the transform of a convolution: the sum that a convolutional network's layer does
# term by term, three fast Fourier transforms do at once.

# %%
rng = np.random.default_rng(0)
x, kernel = rng.normal(size=2000), rng.normal(size=101)
by_transforms = fourier.convolve(x, kernel)
by_sum = convolution.convolve(x, kernel, padding=kernel.size - 1)
print(f"both ways differ by {jnp.abs(by_transforms - by_sum).max():.0e}")

# %% [markdown]
# ## What to try
#
# - Your own force: `fourier.coefficients(lambda t: ..., n, period, jumps=(...))`.
# - `systems.DrivenOscillator(gamma=0.0)`: which forces has it no steady motion under?
# - `scripts/fourier.py` is this notebook as an experiment, with every number kept in `results/fourier`.
