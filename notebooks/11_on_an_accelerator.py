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
# # On an accelerator
#
# The same code runs on a CPU, a GPU or a TPU. This notebook shows what changes: where the numbers are, how many digits
# they have, what becomes faster and what does not, and how work is shared out among several devices. It runs on a CPU
# as well, where it makes believe that there are two devices.

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
jax.config.update("jax_num_cpu_devices", 2)  # the CPU as two devices, to try what is meant for GPUs

import time

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import dynamics, experiment, fit, nn, pinn, plots, reference, surrogate, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## Where am I?
#
# JAX takes the best device that it finds. On Colab choose one under *Runtime, Change runtime type*. On your own
# machine a GPU needs a JAX that was built for it, `pip install "jax[cuda13]"`.

# %%
devices = jax.devices()
print("JAX", jax.__version__, "computes on", devices[0].platform, "-", devices[0].device_kind)
print("devices:", len(devices))
print("an array lies on", jnp.zeros(3).devices())

# %% [markdown]
# ## How many digits?
#
# float64 has 16 digits, float32 has 7. Images and trained networks need no more than 7. Equations do: a chaotic error
# grows by $e$ in a Lyapunov time, so that the nine digits are worth twenty of those. CPUs and GPUs compute in float64
# natively, TPUs emulate it slowly.
#
# The precision is that of your data: what you pass in float32 is computed in float32.

# %%
lorenz, t1 = systems.Lorenz(), 5.0 if QUICK else 20.0
grid = np.linspace(0.0, t1, int(32 * t1) + 1)
truth = reference.extended_trajectories(lorenz, np.ones((1, 3)), grid).ys[0]
found = {}
for dtype in (jnp.float32, jnp.float64):
    solution = pinn.solve(lorenz, jnp.ones(3, dtype), t1, throw=False)
    found[str(solution.ys.dtype)] = np.asarray(solution(jnp.asarray(grid, dtype)), float)
    print(f"{solution.ys.dtype}: estimated error at t = 3", solution.error_estimate(3.0).max())
scale = np.std(truth, axis=0)
plots.error_growth(
    grid[1:],
    {
        name: np.sqrt(np.mean(((path - truth) / scale) ** 2, axis=1))[1:]
        for name, path in found.items()
    },
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# If you compute in float32 on a GPU or TPU, know one thing more: JAX rounds products of matrices to fewer digits
# there, 3 of the 7, unless you say `jax.config.update("jax_default_matmul_precision", "highest")`. The solvers of
# this package ask for all digits by themselves.
#
# ## What becomes faster?
#
# A device is fast when it has much to do at once, and slow when one thing follows from the one before. One trajectory
# is a chain of steps. A thousand trajectories are a thousand chains, side by side. So we compute many from different
# starts in one program, and look at the time for one of them.
#
# The first call compiles; it is not counted. And a call returns before its work is done, so the clock waits for the
# result by `block_until_ready`.

# %%
step_by_step = reference.RungeKutta4(lorenz, 0.01)


@jax.jit
def after_two_units(starts):
    return dynamics.rollout(step_by_step, starts[:, None], 200)[:, -1]


def seconds(function, *args):
    jax.block_until_ready(function(*args))  # compiles
    begin = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - begin


sizes = (1, 100, 10_000) if QUICK else (1, 10, 100, 1000, 10_000, 100_000)
starts = 10 * jax.random.normal(jax.random.key(0), (sizes[-1], 3))
each = [seconds(after_two_units, starts[:size]) / size for size in sizes]
for size, one in zip(sizes, each, strict=True):
    print(f"{size:6d} trajectories at once: {1e6 * one:9.2f} microseconds for each")
plots.bands(
    {devices[0].platform.upper(): (np.log10(sizes), np.array(each)[:, None])},
    xlabel="trajectories in one program, powers of ten",
    ylabel="seconds for each",
)

# %% [markdown]
# On a CPU the time for each falls as long as starting the program is most of it. With very many it may rise again,
# because their numbers no longer fit into the processor's cache. On a GPU it goes on falling for longer, because a GPU
# does the work of a thousand in nearly the time of one. [The page on speed](../docs/results/speed.md) has measurements of both.
#
# ## Several devices
#
# Calls that work on many rows take `devices=`. Each device gets a share of the rows; nothing else changes. Here
# trajectories are computed on all of them:

# %%
ts = 0.01 * np.arange(201)
many = reference.trajectories(lorenz, jax.random.key(1), 64, ts, devices=devices)
print("trajectories", many.ys.shape, "divided among", len(many.ys.devices()), "device(s)")
alone = reference.trajectories(lorenz, jax.random.key(1), 64, ts)
print("the same as on one device:", bool(np.all(np.asarray(many.ys) == np.asarray(alone.ys))))

# %% [markdown]
# What is divided stays divided: a step map forecasts where its starts lie, and the result lies there too.

# %%
network = nn.MLP.frozen(surrogate.network_inputs(alone), 100, 3, scale=0.06, rngs=nnx.Rngs(0))
step_map = surrogate.fit_readout(network, alone, symmetry=lorenz.symmetry).step_map
paths = dynamics.rollout(step_map, many.ys[:, -1:], 200)
print("forecasts", paths.shape, "on", len(paths.devices()), "device(s)")

# %% [markdown]
# Your own functions do the same. A **mesh** is a grid of devices with names for its axes; a **sharding** says which
# axis of an array is divided among them. `jax.jit` then compiles one program for all devices.

# %%
mesh = jax.make_mesh((len(devices),), ("starts",), axis_types=(jax.sharding.AxisType.Auto,))
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("starts"))
divided = jax.device_put(starts[: 8 * len(devices)], rows)
ends = after_two_units(divided)
for shard in ends.addressable_shards:
    print(shard.device, "has the rows", shard.index[0], "of", ends.shape)

# %% [markdown]
# ## Many networks at once
#
# The same holds for training. One small network keeps no device busy; `fit.sweep` trains many of them, each with a
# learning rate and first weights of its own, in one program on all devices. These fit one period of a sine, in
# float32.

# %%
x = np.linspace(-1.0, 1.0, 256, dtype=np.float32)[:, None]
y = np.sin(np.pi * x)


@fit.mean_square
def misfit(model, batch, key):
    inputs, targets = batch
    return model(inputs) - targets


rates, count = np.geomspace(1e-4, 1e-1, 7), 4
settings = {
    "rate": jnp.asarray(np.repeat(rates, count), jnp.float32),
    "key": jax.random.split(jax.random.key(2), 7 * count),
}
swept = fit.sweep(
    misfit,
    lambda setting: nn.MLP(1, (32,), 1, dtype=jnp.float32, rngs=nnx.Rngs(setting["key"])),
    (x, y),
    settings=settings,
    optimizer=lambda setting: optax.adam(setting["rate"]),
    steps=200 if QUICK else 2000,
    batch_size=64,
    key=jax.random.key(3),
    devices=devices,
)
losses = swept.history["loss"][-20:].mean(axis=0).reshape(7, count)
print(f"{len(swept)} networks in {swept.seconds:.1f} s, {swept.diverged.sum()} diverged")
plots.bands(
    {"four seeds each": (np.log10(rates), losses)},
    xlabel="learning rate, powers of ten",
    ylabel="loss at the end",
    share=1.0,
)

# %% [markdown]
# ## What to try
#
# - Choose a GPU, run the notebook again, and compare the table of solutions at once.
# - `jax.config.update("jax_num_cpu_devices", 8)` in the first cell, for eight devices on a CPU.
# - Scripts take `--device cpu`, `--device gpu` or `--device tpu`, and `--processes` on several hosts.
# - Data larger than a device, and several processes:
#   [the page on accelerators](../docs/how_to/run_on_an_accelerator.md).
