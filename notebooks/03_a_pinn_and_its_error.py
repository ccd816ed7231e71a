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
# # A PINN and its error
#
# A physics-informed network *is* the solution of an equation: it is fitted until the equation's residual vanishes,
# and sees no data. This notebook solves an oscillator that every textbook solves, asks the network how wrong it is
# before it looks at the answer, and then does the same where there is no answer in a textbook.

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
import optax
from flax import nnx

from physml import dynamics, experiment, nn, pinn, plots, reference, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## One call
#
# The lecture's oscillator, $\ddot x + 0.4\,\dot x + x = \cos(t/2)$ from $(1, 0)$. `pinn.solve` covers the time by
# windows. In each stands a network with one hidden layer of frozen units; its readout is chosen such that the
# residual vanishes at Gauss points, by Gauss-Newton. What error that leaves is found from the residual between the
# points, and subtracted.

# %%
oscillator, y0, t1 = systems.DrivenOscillator(), jnp.array([1.0, 0.0]), 20.0
solution = pinn.solve(oscillator, y0, t1)
print("x and v at t = 3.7:      ", solution(3.7))
print("their estimated errors:  ", solution.error_estimate(3.7))
print("their errors:            ", jnp.abs(solution(3.7) - oscillator.exact(3.7, y0)))
print("their slopes:            ", solution.derivative(3.7))

# %% [markdown]
# The estimate needs no truth: it carries the residual along the linearised equation. Here is the truth, a closed
# form, to see whether the estimate was right. Both are the rounding of float64 here: an error scatters about the
# size that is estimated for it, and gaps are points where it is exactly zero.

# %%
grid = np.linspace(0.0, t1, 601)
plots.solution_error(
    grid,
    oscillator.exact(grid, y0),
    solution(grid),
    names=oscillator.state_names,
    estimate=solution.error_estimate(grid),
)

# %% [markdown]
# ## The usual way
#
# Usually all weights of one network for the whole time are trained, by Adam and then by L-BFGS, on the mean square
# of the residual. `pinn.train` does that. The residual at its points becomes small, and still the error
# is larger by orders of magnitude. `trained.solution` estimates that error too.

# %%
network = nn.MLP(1, (32, 32), 2, activation="sin", rngs=nnx.Rngs(0))
steps = 50 if QUICK else 1000
adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
trained = pinn.train(
    network, oscillator, y0, t1, stages=((adam, steps), (optax.lbfgs(memory_size=50), steps))
)
exact = oscillator.exact(grid, y0)
for name, found in {"frozen units, windows": solution, "all weights": trained.solution}.items():
    print(f"{name}: relative L2 error {dynamics.relative_l2(found(grid), exact).max():.0e}")
plots.compare_solutions(
    grid,
    exact[:, 0],
    {"frozen units, windows": solution(grid)[:, 0], "all weights": trained.solution(grid)[:, 0]},
)

# %% [markdown]
# ## Where an error grows
#
# The Lorenz system has no closed form, and an error grows by $e$ in each Lyapunov time, 1.10 time units. The
# estimate says how far the digits last. Diffrax is no truth here: its error is the larger one. The truth is by
# Taylor series in arithmetic with twice the digits.

# %%
lorenz, start = systems.Lorenz(), jnp.ones(3)
t1 = 5.0 if QUICK else 25.0
chaotic = pinn.solve(lorenz, start, t1)
until, to_the_end = chaotic.valid_until(1e-10)
print(f"ten digits until t = {until:.1f}" + (", the end" if to_the_end else ""))

grid = np.arange(32 * t1 + 1) / 32
truth = reference.extended_trajectories(lorenz, start[None], grid).ys[0]
usual = reference.solve(lorenz, start, grid).ys
print(f"largest error: PINN {jnp.max(jnp.abs(chaotic(grid) - truth)):.0e}, ", end="")
print(f"Diffrax {jnp.max(jnp.abs(usual - truth)):.0e}")
plots.solution_error(
    grid,
    truth,
    chaotic(grid),
    names=lorenz.state_names,
    estimate=chaotic.error_estimate(grid),
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# ## Your own equation
#
# A pendulum with friction: a function of time, state and arguments is enough.


# %%
def pendulum(t, y, args):
    return jnp.stack([y[1], -jnp.sin(y[0]) - 0.1 * y[1]])


system = systems.from_function(pendulum, dim=2, state_names=("angle", "speed"))
swing = pinn.solve(system, jnp.array([3.0, 0.0]), 10.0 if QUICK else 40.0)
ts = np.linspace(0.0, float(swing.ts[-1]), 801)
print(f"largest estimated error: {jnp.max(swing.error_estimate(ts)):.0e}")
plots.phase_portrait({"pendulum with friction": swing(ts)}, names=system.state_names)

# %% [markdown]
# ## What to try
#
# - A looser tolerance, `pinn.solve(..., rtol=1e-6)`: fewer windows, and an estimate that says so.
# - Stiff equations, `systems.VanDerPol` or your own: the windows find their lengths by themselves.
# - `scripts/oscillator.py`, `scripts/pinn_lorenz.py` and `scripts/pinn_training.py` go further, with every number
#   kept in `results`.
