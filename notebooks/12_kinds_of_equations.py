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
# # Kinds of equations
#
# Many problems are no first-order initial value problems of a vector. This notebook solves one of each other kind:
# a boundary value problem written in its second order, a constraint, events, and a delay. Each solution carries an
# estimate of its error, and each is compared with what is known about it.

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
from scipy.optimize import brentq

from physml import experiment, pinn, plots, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## Boundary values
#
# Bratu's problem is $u'' + e^u = 0$ with $u(0) = u(1) = 0$: heat is made by a reaction and leaves at two walls. The
# right-hand side is written in its second order, so a state is a pair $(u, u')$. There are two solutions, and the
# guess decides which one is found.

# %%
bratu = systems.second_order(lambda t, u, slope: -jnp.exp(u))


def at_walls(left, right):
    return left[0], right[0]  # zero where the conditions are met


cold = pinn.solve_boundary(bratu, at_walls, 0.0, 1.0, guess=(0.0, 0.0))
hot = pinn.solve_boundary(
    bratu, at_walls, 0.0, 1.0, guess=lambda t: (16.0 * t * (1.0 - t), 16.0 - 32.0 * t)
)


def closed_form(places, bracket):
    theta = brentq(lambda x: x - np.sqrt(2) * np.cosh(x / 4), *bracket, xtol=1e-15)
    return -2 * np.log(np.cosh((places - 0.5) * theta / 2) / np.cosh(theta / 4))


places = jnp.linspace(0.0, 1.0, 201)
truths = {
    "cold": closed_form(np.asarray(places), (1.0, 3.0)),
    "hot": closed_form(np.asarray(places), (8.0, 12.0)),
}
for name, solution in (("cold", cold), ("hot", hot)):
    error = np.abs(solution(places)[0] - truths[name]).max()
    estimate = solution.error_estimate(places)[0].max()
    print(f"{name}: u(1/2) = {solution(0.5)[0]:.12f}, error {error:.1e}, estimate {estimate:.1e}")

# %%
plots.phase_portrait(
    {name: jnp.stack(x(places), axis=1) for name, x in (("cold", cold), ("hot", hot))},
    names=("u", "du/dx"),
)

# %% [markdown]
# ## Constraints
#
# A pendulum in its coordinates x and y: gravity pulls, and a rod holds its length. The pull of the rod is not known
# before, so this is a differential-algebraic equation. Length and energy must not change.

# %%
rod = systems.constrained_motion(
    lambda t, q, v, args: [0.0, -9.81], lambda t, q, args: q @ q - 1.0, num_coordinates=2
)
t1 = 2.0 if QUICK else 10.0
swing = pinn.solve_constrained(rod, [1.0, 0.0, 0.0, 0.0], t1)
x, y, vx, vy, _ = swing.ys.T
energy = (vx**2 + vy**2) / 2 + 9.81 * y
print(
    f"length kept to {np.abs(np.hypot(x, y) - 1).max():.1e}, energy to {np.abs(energy).max():.1e}"
)
print(f"estimated error of x and y: {swing.error_estimate(swing.ts)[:, :2].max():.1e}")

# %%
plots.solution_error(
    swing.ts, jnp.stack([jnp.ones_like(x), jnp.zeros_like(x)], axis=1),
    jnp.stack([jnp.hypot(x, y), energy / 9.81], axis=1),
    names=["length", "energy / mg"],
    label="pendulum on a rod",
)  # fmt: skip

# %% [markdown]
# ## Events
#
# A ball falls, and the floor throws it back with 0.8 of its speed. The instants are roots on the solution between
# the windows' edges, and the error of each is estimated too. A ball that falls from 1 m meets the floor at known
# times.

# %%
fall = systems.from_function(lambda t, y, args: [y[1], -9.81], dim=2, state_names=("height", "v"))
floor = pinn.Event(
    lambda t, y, args: y[0],  # zero where it happens
    restart=lambda t, y, args: jnp.array([0.0, -0.8 * y[1]]),
)
ball = pinn.solve_events(fall, [1.0, 0.0], 3.0, floor)
first = np.sqrt(2 / 9.81)
expected = first + 2 * first * np.cumsum(np.append(0.0, 0.8 ** np.arange(1, len(ball.times))))
print("bounces at", ball.times.round(6))
print(f"off by {np.abs(ball.times - expected).max():.1e}, estimate {ball.time_errors.max():.1e}")


def height(ts):
    """Parabolas between the bounces."""
    k = np.searchsorted(expected, ts, side="right")
    since = ts - np.append(0.0, expected)[k]
    speed = np.append(0.0, 9.81 * first * 0.8 ** np.arange(1, len(expected) + 1))[k]
    return np.where(k == 0, 1.0, 0.0) + speed * since - 9.81 * since**2 / 2


# %%
ts = np.linspace(0.0, 3.0, 601)
plots.compare_solutions(
    ts, height(ts), {"events": ball(ts)[:, 0]}, name="height", unit="m", time_unit="s"
)

# %% [markdown]
# ## Delays
#
# Mackey and Glass let the number of blood cells now depend on the number 17 days ago. The state is then a whole
# stretch of the past, and the plane of x now and x then shows the chaos in it.

# %%
t1 = 60.0 if QUICK else 300.0
cells = pinn.solve_delays(systems.MackeyGlass(), [0.5], t1=t1)
print(f"x({t1:.0f}) = {cells(t1)[0]:.8f}, estimated error {cells.error_estimate(t1)[0]:.1e}")

# %%
days = np.linspace(t1 / 3, t1, 2000)
plots.phase_portrait(
    {"blood cells": jnp.stack([cells(days)[:, 0], cells(days - 17.0)[:, 0]], axis=1)},
    names=("x(t)", "x(t - 17)"),
)

# %% [markdown]
# The how-to pages on [boundary values](../docs/how_to/solve_boundary_values.md), [constrained
# systems](../docs/how_to/solve_constrained_systems.md), [events](../docs/how_to/solve_with_events.md) and [delay
# equations](../docs/how_to/solve_delay_equations.md) say what else these solvers
# take, and where they end badly.
