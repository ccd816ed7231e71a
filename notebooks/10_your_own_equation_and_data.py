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
# # Your own equation and your own data
#
# This notebook is a template. It takes one equation, a pendulum with friction, through all that the package does
# with it: solve it, know how far to trust the solution, read a table of measurements, find the equation's parameters
# from it, and forecast. Replace the pendulum by your equation and the table by yours, and run it again.

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

import tempfile

import jax.numpy as jnp
import numpy as np
from flax import nnx

import physml
from physml import data, dynamics, experiment, nn, pinn, plots, reference, surrogate, systems
from physml.results import RESULTS

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## The equation
#
# $$\ddot\varphi = -\omega^2 \sin\varphi - c\,\dot\varphi$$
#
# An equation of second order becomes two of first order, for the angle and the speed. Write $f(t, y, \text{args})$
# with `jnp` in place of `np`, and without `if` on values. What may change later goes into `args`.


# %%
def pendulum(t, y, args):
    angle, speed = y
    return [speed, -(args["omega"] ** 2) * jnp.sin(angle) - args["friction"] * speed]


true = {"omega": 3.0, "friction": 0.2}  # in 1/s
system = systems.from_function(
    pendulum, dim=2, args=true, state_names=("angle", "speed"), box=([-2.5, -4.0], [2.5, 4.0])
)
y0 = jnp.array([2.5, 0.0])  # radians, radians per second
print("rates of change of angle and speed at the start:", system(0.0, y0))

# %% [markdown]
# ## Solve it, and trust the solution
#
# `pinn.solve` makes networks that fulfil the equation; `reference.solve` calls an integrator, Diffrax. Both answer
# alike: `solution(t)` at any time, `.derivative(t)`, and how far to trust it.

# %%
t1 = 10.0
solution = pinn.solve(system, y0, t1)
ts = np.linspace(0.0, t1, 501)
truth = reference.solve(system, y0, ts, certify=True)
print("angle and speed at t = 3.7:", solution(3.7))
print("estimated error there:     ", solution.error_estimate(3.7))
until, to_the_end = solution.valid_until(1e-10)
print(f"ten digits hold until t = {until:.1f}" + (", the end" if to_the_end else ""))
apart = float(jnp.abs(solution(ts) - truth.ys).max())
print(f"the integrator differs by {apart:.0e}, and expects an error of", end=" ")
print(f"{float(truth.error_estimate(t1).max()):.0e} itself")

# %% [markdown]
# No closed form is known for this pendulum, and none is needed: the estimate comes from the equation's residual. That
# an independent integrator agrees is the second witness.

# %%
plots.phase_portrait(
    {"from rest at 2.5": solution(ts), "from 0, pushed": pinn.solve(system, [0.0, 6.5], t1)(ts)},
    names=("angle", "speed"),
    units=("rad", "rad/s"),
)

# %% [markdown]
# The pushed pendulum goes over the top once, so that its angle ends near $2\pi$.
#
# The solution is a differentiable function of all that it depends on. How much does the angle after 3 s change with
# the friction?

# %%
slope = jax.grad(lambda c: pinn.solve(system, y0, 3.0, args=true | {"friction": c})(3.0)[0])(0.2)
print(f"d angle(3 s) / d friction = {slope:.3f} s")

# %% [markdown]
# ## Your own data
#
# A table of text with a line of names and one state in each line is read by `data.from_csv`. It recognises
# separators, decimal commas, units in names and encodings, and it refuses what it cannot be sure of, with the line and
# the column. Here we make such a file, as a camera might: the angle alone, 50 times a second, with an error of 0.05
# radians.

# %%
rng = np.random.default_rng(0)
seen = ts[:201]  # the first four seconds
measured = np.asarray(truth.ys)[:201, 0] + 0.05 * rng.normal(size=201)
folder = Path(tempfile.mkdtemp())
lines = [f"{t:.3f};{angle:.4f}".replace(".", ",") for t, angle in zip(seen, measured, strict=True)]
(folder / "camera.csv").write_text("\n".join(["time (s);angle (rad)", *lines]))

table = data.from_csv(folder / "camera.csv")
print(table)

# %% [markdown]
# ## Parameters from the data
#
# Nobody measured the speed, the frequency or the friction. Guesses that are off by half are enough.

# %%
guess = {"omega": 2.0, "friction": 0.4}
found = pinn.identify(
    system,
    table.ts,
    table.ys[0],
    free=("omega", "friction"),
    args=guess,
    observe=[0],  # the angle
    y0=[2.0, 0.0],
    bounds={"friction": (0.0, np.inf)},
)
for name, (low, high) in found.intervals().items():
    print(f"{name}: between {low:.3f} and {high:.3f} with 95 %, true is {true[name]:.3f}")
print(f"error of the camera: {float(found.noise[0]):.3f} rad")
print("verdict:", RESULTS[found.result])

# %% [markdown]
# If your own data get another verdict, [the page on identification](../docs/how_to/identify_parameters.md) says what
# each one means and what to do.
#
# ## A forecast by the equation
#
# Four seconds were seen. The equation with the values found says what comes next; the true motion, which nobody has
# measured, is there for comparison.

# %%
ahead = pinn.solve(system, found.y0, t1, args=found.args)
late = float(jnp.abs(ahead(ts)[:, 0] - truth.ys[:, 0]).max())
print(f"largest error of the angle until t = 10: {late:.3f} rad, less than one measurement's")
plots.fit_to_data(
    seen,
    {"angle [rad]": measured},
    ts,
    dict(zip(("angle [rad]", "speed [rad/s]"), np.asarray(ahead(ts)).T, strict=True)),
    dict(zip(("angle [rad]", "speed [rad/s]"), np.asarray(truth.ys).T, strict=True)),
    unit="s",
)

# %% [markdown]
# ## A forecast without the equation
#
# Sometimes there is no equation, but there are many good recordings of the whole state. A surrogate learns the step
# from one line of the table to the next. Here are some swings from random starts; the column `swing` tells them
# apart.

# %%
recorded = reference.trajectories(
    system, jax.random.key(0), 30 if QUICK else 100, 0.02 * np.arange(201)
)
data.to_csv(folder / "swings.csv", recorded, trajectory="swing")
swings = data.from_csv(folder / "swings.csv", trajectory="swing")
print(swings)

network = nn.MLP.frozen(
    surrogate.network_inputs(swings), 200 if QUICK else 400, 2, scale=0.3, rngs=nnx.Rngs(0)
)
step_map = surrogate.fit_readout(network, swings).step_map
forecast = dynamics.rollout(step_map, truth.ys[:1], 500)
print(f"largest error of the angle: {float(jnp.abs(forecast - truth.ys)[:, 0].max()):.0e} rad")
plots.compare_solutions(
    ts,
    truth.ys[:, 0],
    {"networks and equation": ahead(ts)[:, 0], "learned step": forecast[:, 0]},
    name="angle",
    unit="rad",
    truth_name="truth",
    time_unit="s",
)

# %% [markdown]
# The learned step is the better forecast here, because its data have no noise. Each has its place: few noisy data and
# a good equation, or many clean data and none.
#
# ## Keep what was found
#
# `physml.save` writes a folder that describes itself and holds no code. `physml.load` opens it, next year too.

# %%
physml.save(folder / "step_map", step_map)
again = physml.load(folder / "step_map")
same = dynamics.rollout(again, truth.ys[:1], 500)
print("the loaded map forecasts the same:", bool(jnp.all(same == forecast)))

# %% [markdown]
# ## What to try
#
# - Your own `f`. If it jumps at known times, say `jumps=[...]`; if it is driven with a period, `period=`.
# - The measured columns as they are: `data.from_csv(path, columns=[...], time=...)`, or `data.from_dataframe`.
# - Friction that grows with the square of the speed, $c\,|\dot\varphi|\,\dot\varphi$: does `identify` notice if you fit
#   the wrong law to it?
# - `pinn.discover` for a term that you do not know; notebook 04 shows it.
# - [Write an experiment](../docs/how_to/write_an_experiment.md): a script with a folder, a table and figures.
