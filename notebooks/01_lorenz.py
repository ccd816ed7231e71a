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
# # Lorenz: the truth, a network that steps it, and a network that solves it
#
# One right-hand side, three ways to its solution:
#
# 1. the **truth**, by a classical integrator (Diffrax), with a number that says how long to trust it;
# 2. a **surrogate**: a network that learns the map from one state to the next from data alone and never
#    sees the equation;
# 3. a **PINN**: a network that *is* the solution, found from the equation alone without any data.
#
# The Lorenz system is chaotic: two states that differ by $\varepsilon$ differ by
# $\varepsilon\, e^{\lambda_1 t}$ later, with $\lambda_1 \approx 0.906$. One **Lyapunov time** (LT),
# $1/\lambda_1 \approx 1.10$, is the time in which an error grows by a factor of $e$. However good a model,
# its forecast ends; the question is when, and only the number of correct digits it starts with decides.

# %% [markdown]
# ## Installing
#
# On Colab, first put a clone of the repository beside this notebook, as the folder `physml`. The next cell
# installs the package from there and *keeps Colab's own JAX*, which was built for the GPU or TPU it runs
# on: pip may add packages but not replace that one. Elsewhere, install the package as its README says, and
# the cell does nothing.

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

# %% [markdown]
# ## Device and precision
#
# JAX computes in float32 unless it is told otherwise. Here the last digits are the point, since each digit
# buys $\ln(10) \approx 2.3$ Lyapunov times: we ask for float64 before anything else is computed. CPUs and
# GPUs do it natively. TPUs emulate it slowly. If you want to stay in float32 on an accelerator, also set
# `jax.config.update("jax_default_matmul_precision", "highest")`, or matrix products keep 3 digits of 7.

# %%
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import data, dynamics, experiment, nn, pinn, plots, reference, surrogate, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

print("JAX", jax.__version__, "on", jax.devices()[0].device_kind)
print("floating point numbers are", jnp.zeros(()).dtype)
assert jnp.zeros(()).dtype == jnp.float64, "set jax_enable_x64 before the first computation"

# %% [markdown]
# ## The truth
#
# A system is a right-hand side and what is known about it. `systems.from_function(f, dim=3)` makes one from
# your own `f(t, y, args)`.

# %%
lorenz = systems.Lorenz()
lambda1 = lorenz.lyapunov_exponents[0]

y0 = jnp.array([1.0, 1.0, 1.0])
ts = jnp.linspace(0.0, 20.0, 2001)
truth = reference.solve(lorenz, y0, ts, certify=True)
until, to_the_end = truth.valid_until(1e-6)

print("f(0, y0) =", lorenz(0.0, y0))
print("u(20) =", truth(20.0), "with an estimated error of", truth.error_estimate(20.0))
print(f"six digits hold until t = {until:.1f}" + (", the end" if to_the_end else ""))

# %% [markdown]
# The error is estimated by solving again with an independent code and comparing. Two integrators that agree
# to six digits at the end of a chaotic trajectory are both right until then.
#
# ## The data
#
# A hundred trajectories from starts uniform in $[-15, 15]^3$, time step 0.01, until $t = 8$. The network's
# inputs are the states $\mathbf{x}_t$ and its targets the states $\mathbf{x}_{t+1}$: 80,000 pairs, none
# across two trajectories.

# %%
data_key, split_key, net_key, fit_key, test_key = jax.random.split(jax.random.key(0), 5)
trajectories = reference.trajectories(
    lorenz, data_key, 20 if QUICK else 100, jnp.linspace(0.0, 8.0, 801)
)
train, valid = data.split(trajectories, (0.9, 0.1), split_key)
pairs = trajectories.pairs()
print("inputs", pairs.inputs.shape, "targets", pairs.targets.shape)

# %% [markdown]
# ## A network that steps
#
# Two networks of the same kind, $\mathbf{x}_{t+1} = \mathbf{x}_t + N(\mathbf{x}_t)$.
#
# The first is trained as networks usually are: all its weights, by Adam.
#
# The second has a hidden layer of random $\tanh$ units that is never trained, with small slopes so that the
# features are smooth. Only the last layer is fitted, and since the output is *linear* in it that is one
# least-squares problem with one solution, which is found to the last digit. Its units know nothing but
# where the data lie and how far they spread.
#
# The Lorenz system looks the same after $(x, y, z) \to (-x, -y, z)$. Passing `symmetry` builds that in.

# %%
trained = surrogate.fit(
    nn.MLP(3, (64, 64), 3, rngs=nnx.Rngs(net_key)),
    train,
    valid,
    optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, 300 if QUICK else 4000)),
    steps=300 if QUICK else 4000,
    key=fit_key,
    symmetry=lorenz.symmetry,
    refit=False,
)
frozen = surrogate.fit_readout(
    nn.MLP.frozen(
        surrogate.network_inputs(trajectories), 100 if QUICK else 600, 3, rngs=nnx.Rngs(net_key)
    ),
    trajectories,
    symmetry=lorenz.symmetry,
).step_map
plots.loss_curves({"MLP": trained.training.history})

# %% [markdown]
# ## How good is one step, and how long is a forecast?
#
# We start on the attractor, at states that neither network has seen, and let each run on its own output.
# The **valid prediction time** is the first time at which the error, in standard deviations of the
# attractor, passes 0.4.

# %%
num_steps = 1500 if QUICK else 3600
starts = reference.attractor_starts(lorenz, test_key, 8 if QUICK else 50)
horizon = 0.01 * jnp.arange(num_steps + 1)
test = reference.trajectories_from(lorenz, starts, horizon)
scale = data.Standardiser.fit(test.ys).std

forecasts = {}
models = {"trained by Adam": trained.step_map, "frozen, fitted readout": frozen}
for name, model in models.items():
    forecasts[name] = dynamics.rollout(model, starts[:, None], num_steps)
    eps1 = dynamics.one_step_error(model, test.ys[:, :101], scale=scale)
    times = dynamics.valid_prediction_time(forecasts[name], test.ys, test.dt, scale=scale).times
    print(
        f"{name}: one-step error {eps1:.1e}, valid for {times.mean() * lambda1:.1f} Lyapunov times"
        f" on average, {np.percentile(times, 5) * lambda1:.1f} for the worst 5 %"
    )

# %% [markdown]
# The error of a forecast starts at the error of one step and grows by $e$ in each Lyapunov time, so that
# each digit of the step is worth 2.3 Lyapunov times. Here it is, the median over all starts:

# %%
plots.error_growth(
    horizon,
    {name: dynamics.error_growth(f, test.ys, scale) for name, f in forecasts.items()},
    lambda1=lambda1,
)

# %% [markdown]
# And one forecast, with the moment at which it leaves the truth:

# %%
first = {name: forecast[0] for name, forecast in forecasts.items()}
divergence = {
    name: float(dynamics.valid_prediction_time(f, test.ys[0], test.dt, scale=scale).times)
    for name, f in first.items()
}
plots.forecast_series(
    horizon,
    test.ys[0, :, 0],
    {name: f[:, 0] for name, f in first.items()},
    divergence=divergence,
    lambda1=lambda1,
)

# %% [markdown]
# After that moment a forecast is wrong, but it may still be *typical*: a good surrogate stays on the
# attractor and has its Lyapunov exponents. Their sum is the rate at which volumes shrink,
# $-(\sigma + 1 + \beta) = -13.67$.

# %%
spectrum = dynamics.lyapunov_spectrum(frozen, starts[:1], 1000 if QUICK else 20000)
print("learned ", np.round(spectrum.exponents, 3), "sum", f"{spectrum.exponents.sum():.3f}")
print("known   ", np.round(lorenz.lyapunov_exponents, 3), "sum", f"{-(10 + 1 + 8 / 3):.3f}")
plots.attractor_3d(test.ys[0], first)

# %% [markdown]
# ## A network that solves
#
# No data now. In each of many short windows in time the solution is a network with one hidden layer, whose
# readout is chosen such that the equation's residual $\dot u - f(t, u)$ vanishes. Again only the last layer
# is fitted, here by Gauss-Newton, since the equation is not linear. The initial condition is built in, and
# the end of one window starts the next.

# %%
t1 = 5.0 if QUICK else 20.0
solution = pinn.solve(lorenz, y0, t1)
grid = jnp.linspace(0.0, t1, 2001)
error = dynamics.relative_l2(solution(grid), truth(grid))
print(f"relative L2 error of x, y, z on [0, {t1:.0f}]:", error)
print("at t = 3.7:", solution(3.7), "with the slope", solution.derivative(3.7))
plots.solution_error(grid, truth(grid), solution(grid), names=lorenz.state_names, lambda1=lambda1)

# %% [markdown]
# ## What to try
#
# - Another system: `systems.Rossler()`, `systems.Lorenz96(8)`, or your own by `systems.from_function`.
# - Another network: `nn.RNN("gru", 3, 64, 3, ...)` in `surrogate.fit`, with `length=` the stretch of time
#   that it is trained over.
# - `refit=True` for the trained network (it is the default): its last layer by least squares, on the
#   features that training found.
# - Fewer data, or a wider hidden layer: watch the one-step error and predict the valid time before you
#   measure it.
# - `scripts/lorenz.py` is this notebook as an experiment, with every number kept in `results/lorenz`.
