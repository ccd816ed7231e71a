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
# # Inverse problems: an equation from its solution
#
# So far an equation was given and its solution wanted. Here it is the other way round: noisy observations are given,
# and parameters of the equation, its start, or a whole term of it are wanted. Every answer comes with an interval,
# and with a verdict that says whether the interval can be believed.

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

import warnings

import jax.numpy as jnp
import numpy as np

from physml import data, experiment, pinn, plots, reference, systems
from physml.results import RESULTS

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests
rng = np.random.default_rng(0)

# %% [markdown]
# ## Three parameters and three starts, from one column
#
# The Lorenz system runs from $(1, 1, 1)$ to $t = 3$. We see $x$ alone, 300 times, with noise of standard deviation
# 0.5. We know neither $\sigma, \rho, \beta$ nor the start; our guesses are 50 % too large. Nobody shows us $y$ and
# $z$.

# %%
names = ("sigma", "rho", "beta")
lorenz = systems.Lorenz()
true = {name: float(getattr(lorenz, name)) for name in names}
ts = np.linspace(0.0, 3.0, 300)
clean = np.asarray(reference.solve(lorenz, jnp.ones(3), ts).ys)
x = clean[:, :1] + 0.5 * rng.normal(size=(300, 1))

guess = systems.Lorenz(**{name: 1.5 * value for name, value in true.items()})
found = pinn.identify(
    guess,
    ts,
    x,
    free=names,
    y0=1.5 * np.ones(3),  # a guess as well
    observe=[0],
    bounds={name: (0.0, np.inf) for name in names},
    num_windows=30,
)
for name, (low, high) in found.intervals().items():
    print(f"{name}: {true[name]:.2f} is true, found with 95 %: {low:.2f} to {high:.2f}")
print(f"noise: 0.50 was added, {float(found.noise[0]):.2f} is found")
print("verdict:", RESULTS[found.result])

# %% [markdown]
# How it works: the time is cut into windows, and in each the solution is a network, as in `pinn.solve`. Networks,
# starts and parameters are found together. At first the windows need not fit to each other, which keeps the problem
# tame though the system is chaotic; in the end they do.
#
# The fit is the solution of the whole system. So it has $y$ and $z$ too:

# %%
fine = np.linspace(0.0, 3.0, 601)
exact = np.asarray(reference.solve(lorenz, jnp.ones(3), fine).ys)
fitted = np.asarray(found.solution(fine))
plots.fit_to_data(
    ts,
    {"x": x[:, 0]},
    fine,
    dict(zip("xyz", fitted.T, strict=True)),
    dict(zip("xyz", exact.T, strict=True)),
)

# %% [markdown]
# ## What an interval means
#
# The interval above takes the likelihood for that of a linear problem, which is a parabola. `pinn.profile` looks:
# it holds one parameter at a value, fits all others anew, and says by how much the fit becomes worse. Where its dots
# lie on the parabola, the interval is right. The line at 3.84 cuts the interval of 95 %.

# %%
parameter = "rho"
curve = pinn.profile(found, parameter, num=7 if QUICK else 15)
best = float(found.values[parameter]), float(found.sd[parameter])
low, high = curve.interval()
print(f"{parameter} by its profile: {low:.2f} to {high:.2f}")
plots.likelihood_profiles({parameter: curve[1:]}, {parameter: best}, true)

# %% [markdown]
# A 95 % interval has to hold the truth in 95 of 100 cases. We can try that, because `identify` works under
# `jax.vmap`: here is the damping of an oscillator, from many draws of the noise.

# %%
draws = 20 if QUICK else 200
damped = systems.DrivenOscillator(gamma=0.15, omega0=1.0, forcing=None)
times = np.linspace(0.0, 20.0, 101)
positions = np.asarray(damped.exact(times, jnp.array([1.0, 0.0])))[:, :1]
many = positions + 0.05 * rng.normal(size=(draws, *positions.shape))


def identify(positions):
    first = systems.DrivenOscillator(gamma=0.2, omega0=1.2, forcing=None)
    return pinn.identify(
        first,
        times,
        positions,
        free=("gamma", "omega0"),
        y0=[1.5, 0.0],
        observe=[0],
        num_windows=10,
        throw=False,
    ).intervals()


ranges = jax.jit(lambda x: jax.lax.map(identify, x, batch_size=10))(many)
truth = {"gamma": 0.15, "omega0": 1.0}
for name, (low, high) in ranges.items():
    share = np.mean((low <= truth[name]) & (truth[name] <= high))
    print(f"{name}: {share:.0%} of {draws} intervals hold the truth")
plots.intervals(ranges, truth)

# %% [markdown]
# ## What data cannot tell
#
# Some questions have no answer. In $\dot y = -a\,b\,y$ the data tell the product of $a$ and $b$, and no data in the
# world tell the two apart. A fit of least squares would give some numbers all the same. `identify` warns and names
# those that it cannot know.

# %%
product = systems.from_function(
    lambda t, y, args: -args["a"] * args["b"] * y, 1, args={"a": 1.0, "b": 1.2}
)
decay = 5.0 * np.exp(-1.5 * np.linspace(0.0, 3.0, 40))[:, None] + 0.02 * rng.normal(size=(40, 1))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the verdict is printed below
    vague = pinn.identify(product, np.linspace(0.0, 3.0, 40), decay, free=("a", "b"))
print("verdict:", RESULTS[vague.result])
print("not determined:", vague.undetermined_names)
print(f"but their product is: {float(vague.values['a'] * vague.values['b']):.2f}, 1.50 is true")

# %% [markdown]
# ## Lynxes and hares
#
# Real data. The Hudson's Bay Company counted the pelts that it bought, of snowshoe hares and of the lynxes that eat
# them. Here are the years 1900 to 1920, in thousands, and the equations of Lotka and Volterra,
#
# $$\dot u = (\alpha - \beta v)\, u, \qquad \dot v = (\delta u - \gamma)\, v .$$
#
# The table is read from `lynx_hare/lynx_hare.csv` in the folder that the environment variable `PHYSML_DATA` names.
# Where it is not there, the cell makes one like it: the same equations, years and noise.

# %%
table = Path(os.environ.get("PHYSML_DATA", ".")) / "lynx_hare" / "lynx_hare.csv"
if table.is_file():
    pelts = data.from_csv(table, time="year")
    years, counts = np.asarray(pelts.t0s[0] + pelts.ts), np.asarray(pelts.ys[0])
    print("the pelts of", table.name)
else:
    years, published = np.arange(1900.0, 1921.0), (0.5469, 0.02775, 0.02409, 0.8001)
    smooth = reference.solve(systems.LotkaVolterra(*published), [34.0, 5.9], years - 1900.0).ys
    counts = np.asarray(smooth) * np.exp(0.25 * rng.normal(size=(21, 2)))
    print("pelts made by the equations, with noise of 25 %")

# %% [markdown]
# A count is wrong by a share of itself, so the logarithm of it has noise of one size. `observe=jnp.log` says that
# the logarithm of the state is what we see.

# %%
free = ("alpha", "beta", "gamma", "delta")
with warnings.catch_warnings(record=True) as doubts:
    warnings.simplefilter("always")
    hunted = pinn.identify(
        systems.LotkaVolterra(alpha=0.7, beta=0.04, delta=0.02, gamma=0.6),
        years - 1900.0,
        np.log(counts),
        free=free,
        bounds={name: (0.0, np.inf) for name in free},
        observe=jnp.log,
        y0=counts[0],
    )
for name, (low, high) in hunted.intervals().items():
    print(f"{name}: {float(hunted.values[name]):.4f}, with 95 % in {low:.4f} to {high:.4f}")
print("noise, as a share:", np.round(hunted.noise, 2))
for doubt in doubts:
    print("warning:", doubt.message)

# %% [markdown]
# The published values, from a Bayesian analysis of the same table with priors, are 0.547, 0.028, 0.800 and 0.024. If
# there is a warning, read it: animals do not obey two equations exactly, and residuals that resemble their neighbours
# are how that shows. The intervals are then too narrow.

# %%
later = np.linspace(0.0, 20.0, 401)
kinds = ("hares, thousands", "lynxes, thousands")
plots.fit_to_data(
    years,
    dict(zip(kinds, counts.T, strict=True)),
    later + 1900.0,
    dict(zip(kinds, np.asarray(hunted.solution(later)).T, strict=True)),
    unit="year",
)

# %% [markdown]
# ## A term that is missing
#
# Last, we do not even know the form of the equation. An oscillator between two wells is measured. We believe in
# $\ddot x = x - 0.3\,\dot x + \tfrac12 \cos 1.2\, t$, and something is missing. `pinn.discover` puts a network in
# its place, finds the network with the solution, and then writes it as a few powers of $x$ and $v$.

# %%
when = np.linspace(0.0, 20.0, 201 if QUICK else 401)
measured = np.asarray(reference.solve(systems.Duffing(), [1.0, 0.0], when).ys)
noisy = measured + 0.02 * rng.normal(size=measured.shape)
believed = systems.Duffing(beta=0.0)
discovered = pinn.discover(believed, when, noisy, component=1, key=jax.random.key(0))
print("what is missing in the equation of v:", discovered)

# %% [markdown]
# It is Duffing's cubic force, $-x^3$. The number in brackets is the standard deviation of the coefficient. The
# network knew it first (blue), less exactly; the formula (red) goes on where no data are.

# %%
formula, network = discovered.term(measured)
plots.recovered_term(
    measured[:, 0],
    -(measured[:, 0] ** 3),
    {"network": network, "formula": formula},
    xlabel="x",
    ylabel="what is missing in dv/dt",
)

# %% [markdown]
# ## What to try
#
# - Fewer observations, or more noise: which interval of the first example grows first?
# - `loss="huber"` where some observations are plainly wrong.
# - `prior={"rho": 1.0}` for what you know beforehand, as a standard deviation about the guess.
# - A distribution in place of an interval: notebook 08, `bayes.posterior`.
# - `scripts/inverse.py` is this notebook as an experiment, with every number kept in `results`.
