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
# # MLP and RNN surrogates: networks that step
#
# A surrogate learns from data how a state becomes the next one, $\mathbf{x}_t \to \mathbf{x}_{t+1}$, and then
# forecasts by feeding itself. This notebook makes four of them for the Lorenz system: a perceptron (MLP) and a
# recurrent network (GRU) whose weights are all trained, and one of each kind whose hidden part stays random. It
# asks which is best and why, and what the memory of a recurrent network is good for.

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

from physml import data, dynamics, experiment, nn, plots, reference, surrogate, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## The data
#
# Trajectories of the Lorenz system from starts uniform in $[-15, 15]^3$, one state every 0.01 time units, until
# $t = 8$. A surrogate sees nothing else, above all not the equation.

# %%
lorenz, dt = systems.Lorenz(), 0.01
keys = jax.random.split(jax.random.key(0), 6)
train = reference.trajectories(lorenz, keys[0], 20 if QUICK else 100, dt * np.arange(801))
pairs = train.pairs()
print("states to learn from:  ", pairs.inputs.shape)
print("and what each becomes: ", pairs.targets.shape)

# %% [markdown]
# For the test we need other states, on the attractor. The spread of each component there is the unit of all errors
# below.

# %%
num_steps, history = (1200 if QUICK else 3200), 101
starts = reference.attractor_starts(lorenz, keys[1], 8 if QUICK else 50)
test = reference.trajectories_from(lorenz, starts, dt * np.arange(history + num_steps))
scale = data.Standardiser.fit(test.ys).std
print("standard deviations of x, y, z on the attractor:", np.round(scale, 2))


def skill_of(step_map):
    """Forecasts from true states, and how long they are valid."""
    return dynamics.forecast_skill(step_map, test.ys, scale=scale, history=history)


def describe(name, skill):
    times = skill.times.mean() * lorenz.lambda1
    print(f"{name}: error of one step {skill.eps1:.0e}, valid for {times:.1f} Lyapunov times")


# %% [markdown]
# A forecast is **valid** until its error passes 0.4 standard deviations. Its times are given in **Lyapunov times**:
# in one of them, 1.10 time units, a small error grows by a factor of $e$.
#
# ## All weights, by gradient
#
# The usual way. The network predicts the change of the state, $\mathbf{x}_{t+1} = \mathbf{x}_t + N(\mathbf{x}_t)$,
# and AdamW changes all of its weights. The gated recurrent unit (GRU) also has a memory $\mathbf{h}_t$, and is
# trained through stretches of `length` steps. `symmetry` says that the system looks the same after
# $(x, y, z) \to (-x, -y, z)$.

# %%
steps = 150 if QUICK else 1000
rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
options = {
    "optimizer": optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels),
    "steps": steps,
    "symmetry": lorenz.symmetry,
    "key": keys[2],
}
single = jnp.float32  # precise enough for a gradient, and faster
mlp = nn.MLP(3, (256,), 3, dtype=single, rngs=nnx.Rngs(keys[3]))
gru = nn.RNN("gru", 3, 64, 3, dtype=single, rngs=nnx.Rngs(keys[3]))
fits = {
    "MLP, trained": surrogate.fit(mlp, train, batch_size=512, **options),
    "GRU, trained": surrogate.fit(gru, train, batch_size=64, length=8, warmup=50, **options),
}
plots.loss_curves({name: fitted.training.history for name, fitted in fits.items()})

# %% [markdown]
# The loss is the mean square error of one step, in units of what a step changes. It falls, and then it falls no
# more: gradient descent leaves a relative error of 1e-3 to 1e-5, however long it runs.
#
# The last layer is linear, so the best values of its weights are the solution of a least-squares problem.
# `surrogate.fit` solves it after training. That costs a second and changes everything:

# %%
skills = {}
for name, fitted in fits.items():
    describe(f"{name}, before", skill_of(fitted.before_refit))
    skills[name] = skill_of(fitted.step_map)
    describe(f"{name}, after ", skills[name])

# %% [markdown]
# ## No training at all
#
# If the last layer does the work, do the others have to be trained? Here they are random and stay so. Only their
# slopes are chosen: small ones, so that the hidden units are smooth functions of the state. The readout, again by
# least squares, is all that is fitted. There are no steps, no rate and no schedule. The recurrent one is known as an
# echo state network.

# %%
inputs = surrogate.network_inputs(train)
units = 100 if QUICK else 300
still_mlp = nn.MLP.frozen(inputs, units, 3, scale=0.06, rngs=nnx.Rngs(keys[4]))
still_rnn = nn.RNN.frozen(
    "simple",
    inputs,
    units * 2 // 3,
    3,
    scale=0.2,
    spectral_radius=0.1,  # of the recurrent matrix: the memory fades by this factor in a step
    centres="mean",
    activation=nn.fourier,
    rngs=nnx.Rngs(keys[4]),
)
frozen = {
    "MLP, frozen": surrogate.fit_readout(still_mlp, train, symmetry=lorenz.symmetry),
    "RNN, frozen": surrogate.fit_readout(still_rnn, train, symmetry=lorenz.symmetry, warmup=50),
}
for name, fitted in frozen.items():
    skills[name] = skill_of(fitted.step_map)
    describe(name, skills[name])

# %% [markdown]
# Why they differ is one picture: the error of a forecast begins with the error of one step, and grows along the same
# slope for all of them. Each digit of the step is worth 2.3 Lyapunov times.

# %%
ts = dt * np.arange(num_steps + 1)
plots.error_growth(
    ts, {name: skill.errors for name, skill in skills.items()}, lambda1=lorenz.lambda1
)

# %%
plots.forecast_series(
    ts,
    test.ys[0, history - 1 :, 0],
    {name: skill.predicted[0, :, 0] for name, skill in skills.items()},
    divergence={name: float(skill.times[0]) for name, skill in skills.items()},
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# ## What a memory is for
#
# So far a memory was of little use: the state $(x, y, z)$ says all about the future. If only $x$ is measured, that
# is no longer so. The same $x$ comes with many $y$ and $z$, and an MLP that sees $x$ alone cannot know which. A
# recurrent network remembers the values before, and these tell the rest.
#
# Its recurrent matrix is now nearly as long as it may be, so that the memory fades slowly. `rcond` leaves small
# singular values out of the least squares: the readout is then less exact for one step, but does not blow up when the
# network is fed its own output.

# %%
seen = data.from_arrays(train.ts, train.ys[..., :1], names=("x",))
column = surrogate.network_inputs(seen)
by_x = {
    "MLP": nn.MLP.frozen(column, 100, 1, rngs=nnx.Rngs(keys[5])),
    "RNN": nn.RNN.frozen("simple", column, 200, 1, spectral_radius=0.97, rngs=nnx.Rngs(keys[5])),
}
only_x, paths = test.ys[..., :1], {}
for name, network in by_x.items():
    step_map = surrogate.fit_readout(network, seen, warmup=100, rcond=1e-7, refinements=0).step_map
    skill = dynamics.forecast_skill(step_map, only_x, scale=scale[:1], history=history)
    paths[f"{name} that sees x alone"] = skill.predicted[0, :, 0]
    describe(f"{name} that sees x alone", skill)
shown = slice(0, 800)
plots.forecast_series(
    ts[shown],
    test.ys[0, history - 1 :, 0][shown],
    {name: path[shown] for name, path in paths.items()},
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# With a memory, one measured column is worth several Lyapunov times. The whole state is worth more.
#
# ## After the forecast has failed
#
# A surrogate that has left the true path may still be a good model of the system. Its **climate** tells: it should
# stay on the attractor, visit all of it as often as the system does, and pull neighbours apart as fast. The Lyapunov
# exponents measure the last point.

# %%
spectrum = dynamics.lyapunov_spectrum(
    frozen["MLP, frozen"].step_map, starts[:4, None], 500 if QUICK else 3000
)
for name, exponents in {
    "surrogate": np.asarray(spectrum.exponents).mean(axis=0),
    "known": np.asarray(lorenz.lyapunov_exponents),
}.items():
    words = ", ".join(f"{exponent:.2f}" for exponent in exponents)
    print(f"{name:10s} exponents {words}, their sum {exponents.sum():.2f}")

# %% [markdown]
# The sum is the rate at which volumes shrink, $-(\sigma + 1 + \beta) = -13.67$. The surrogate has learned it from
# pairs of states.

# %%
plots.attractor_3d(
    test.ys[0], {name: skills[name].predicted[0] for name in ("MLP, frozen", "GRU, trained")}
)

# %% [markdown]
# ## What to try
#
# - Another cell, `nn.RNN("lstm", ...)` or `"simple"`, or two layers, `nn.RNN("gru", 3, (32, 32), 3, ...)`.
# - A fifth of the data. Which of the four suffers most?
# - `residual=residuals.rollout` (from `physml`) in `surrogate.fit`: the network is trained on its own output.
# - `known=` a part of the equation that you know: the network then learns the rest.
# - A driven system: `systems.DrivenOscillator()` with `reference.driven_trajectories`, and `period=` in the fit.
# - `scripts/lorenz.py` and `scripts/other_systems.py` are this notebook as experiments, with every number kept in
#   `results`.
