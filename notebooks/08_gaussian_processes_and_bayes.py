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
# # Gaussian processes and Bayes: how far to trust an answer
#
# Data with noise never give one answer. This notebook asks for the distribution of answers instead: of a
# function, of the class of a picture, of the force behind a motion, of the next state of a chaotic system, of an
# equation's parameters, and of a network. A distribution can be checked, too: a 95 % band has to hold the truth in
# 95 % of all cases.

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

jax.config.update("jax_enable_x64", True)  # float32 has too few digits for a kernel's matrix

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import nnx

from physml import bayes, data, dynamics, experiment, nn, noises, pinn, plots, reference, systems

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests
INSIDE = 1.96  # standard deviations of a 95 % band

# %% [markdown]
# ## A function
#
# A Gaussian process is a random function. The kernel says how alike its values are at two times; here it is the
# squared exponential, whose scale and height, and the size of the noise, are those with the largest marginal
# likelihood. The data are 40 noisy positions of the driven oscillator.

# %%
oscillator, start = systems.DrivenOscillator(), jnp.array([1.0, 0.0])
key, rng = jax.random.key(0), np.random.default_rng(0)
ts, grid = np.sort(rng.uniform(0.0, 20.0, 40)), np.linspace(0.0, 20.0, 401)
truth = np.asarray(oscillator.exact(grid, start))[:, 0]
xs = np.asarray(oscillator.exact(ts, start))[:, 0] + 0.1 * rng.normal(size=40)

process = bayes.fit_gaussian_process(1.0 * bayes.RBF(), ts, xs, key, restarts=1).model
mean, sd = process(grid), jnp.sqrt(process.variance(grid))
print(f"noise: 0.100 was added, {float(process.noise[0]):.3f} is found")
print(f"the 95 % band holds {jnp.mean(jnp.abs(mean - truth) < INSIDE * sd):.0%} of the true motion")
plots.function_bands(grid, {"process": (mean, sd)}, truth=truth, data=(ts, xs))

# %% [markdown]
# One draw of the noise says little. A hundred draws, each with a process of its own:

# %%
draws = 10 if QUICK else 100
many = np.asarray(oscillator.exact(ts, start))[:, :1] + 0.1 * rng.normal(size=(40, draws))
model = bayes.fit_gaussian_process(bayes.RBF(), ts, many, key, restarts=0).model
inside = jnp.abs(model(grid) - truth[:, None]) < INSIDE * jnp.sqrt(model.variance(grid))
print(f"{draws} draws: the bands hold {jnp.mean(inside):.1%} of the true motion")

# %% [markdown]
# ## A class
#
# With classes for values, the process stays hidden: its logistic function is the probability of a class,
# averaged over what the data leave open. The ten digits have a process each.

# %%
digits = data.digits().scaled(float).split((0.5, 0.5), jax.random.key(7))
known, new = (part.images.reshape(len(part), -1) for part in digits)
rows = slice(100 if QUICK else 300)
classifier = bayes.fit_gaussian_classifier(
    9.0 * bayes.RBF(2.0),
    known[rows],
    digits[0].labels[rows],
    jax.random.key(8),
    standardise=False,
    search_rows=100 if QUICK else 200,
    restarts=0,
).model
probabilities = classifier(new)
sure = jnp.max(probabilities, axis=1)
right = jnp.argmax(probabilities, axis=1) == digits[1].labels
for name, chosen in {"all": sure > 0, "the surer half": sure > jnp.median(sure)}.items():
    share, said = jnp.mean(right[chosen]), jnp.mean(sure[chosen])
    print(f"{name}: {share:.1%} are right, {said:.0%} is the mean probability")

# %% [markdown]
# It is right far more often than it says: with few rows, and by Laplace's approximation, it is too cautious. But it
# knows which of its answers to doubt. Here are the digits of which it is least sure, with the class it would say.

# %%
least = jnp.argsort(sure)[:10]
words = [f"{jnp.argmax(probabilities[i])} with {sure[i]:.0%}" for i in least]
plots.image_grid(digits[1].images[least], words)

# %% [markdown]
# ## The force behind a motion
#
# The oscillator's equation is linear, $F = \ddot x + 2\gamma\dot x + \omega_0^2 x$. If $x$ is a Gaussian process,
# so is $F$, and the two are jointly normal: noisy positions give the force, with a band. The true force is
# $\cos(t/2)$.


# %%
def operator(p):  # the coefficients of x, x' and x''
    return p["omega0"] ** 2, 2 * p["gamma"], 1.0


exact_parameters = {"gamma": 0.2, "omega0": 1.0}
motion = bayes.fit_linear_equation(operator, ts, xs, key, parameters=exact_parameters, restarts=0)
within = np.linspace(1.0, 19.0, 181)
force, variance = motion.force(within)
plots.function_bands(
    within,
    {"force from positions": (force, jnp.sqrt(variance))},
    truth=np.cos(within / 2),
    name="F",
)

# %% [markdown]
# ## A next-step map that knows its error
#
# The same machinery learns to step the Lorenz system, from some hundred rows of its trajectories. From a known
# start the covariance of the error is carried along the forecast. The forecast then says for itself how far it may
# be off, before anyone knows the truth. Compare its standard deviation with the error it makes.

# %%
lorenz, dt = systems.Lorenz(), 0.01
train = reference.trajectories(lorenz, jax.random.key(1), 50, dt * np.arange(401))
fitted = bayes.fit_stepper(
    1.0 * bayes.RBF(np.full(3, 3.0)),
    train,
    jax.random.key(2),
    rows=150 if QUICK else 600,
    search_rows=150 if QUICK else 300,
    noise=0.0,
    restarts=0,
)
num_steps = 300 if QUICK else 1500
starts = reference.attractor_starts(lorenz, jax.random.key(3), 2 if QUICK else 20)
test = reference.trajectories_from(lorenz, starts, dt * np.arange(num_steps + 1))
scale = data.Standardiser.fit(test.ys).std
skill = dynamics.forecast_skill(fitted.step_map, test.ys, scale=scale, history=1)
print(f"valid for {skill.times.mean() * lorenz.lambda1:.1f} Lyapunov times on average")

mean, covariance = bayes.forecast_moments(fitted.step_map, test.ys[0, 0], num_steps)
sd = jnp.sqrt(jnp.diagonal(covariance, axis1=1, axis2=2))
sizes = {"error": jnp.abs(mean - test.ys[0]), "standard deviation": sd}
plots.error_growth(
    test.ts[1:],
    {name: jnp.sqrt(jnp.mean((x[1:] / scale) ** 2, axis=1)) for name, x in sizes.items()},
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# ## An equation's parameters
#
# `pinn.identify` finds the parameters that fit the data best, with standard deviations.
# `bayes.posterior` starts there and draws from the whole posterior distribution by the No-U-Turn sampler, under
# any prior and with any noise. Here are 40 observations of predators and prey, whose errors are relative, of
# a size that nobody knows.

# %%
times = np.linspace(0.0, 12.0, 40)
true = systems.LotkaVolterra()
clean = np.asarray(reference.solve(true, [10.0, 5.0], times).ys)
observed = clean * np.exp(0.1 * rng.normal(size=clean.shape))

names = ("alpha", "beta")
found = pinn.identify(
    systems.LotkaVolterra(alpha=0.8, beta=0.5),
    times,
    observed,
    free=names,
    bounds={name: (0.0, np.inf) for name in names},
    noise=0.1 * observed,
)
options = {"noise": noises.LogNormalNoise(), "priors": {"alpha": dist.LogNormal(0.0, 1.0)}}
sizes = {"num_warmup": 200, "num_draws": 200} if QUICK else {}
belief = bayes.posterior(found, key=jax.random.key(4), **options, **sizes)
normal = bayes.posterior(found, key=jax.random.key(5), method="laplace", **options)
for name in names:
    low, high = belief.intervals(0.95)[name]
    print(f"{name} = {float(getattr(true, name)):.2f}, in [{low:.3f}, {high:.3f}] with 95 %")
print("largest R-hat:", f"{max(float(jnp.max(x)) for x in belief.rhat.values()):.3f}")

# %% [markdown]
# R-hat compares the chains with each other; below 1.01 they agree. Laplace's method takes the normal distribution
# at the mode instead. It needs a fraction of the time, and here it is nearly the same.

# %%
plots.marginals(
    names,
    {
        label: np.stack([np.ravel(x.draws[name]) for name in names], axis=-1)
        for label, x in {"sampler": belief, "Laplace": normal}.items()
    },
)

# %% [markdown]
# The posterior also predicts: each draw of parameters, start and noise is a possible history.

# %%
later = np.linspace(0.0, 15.0, 301)
seen = belief.predict(later, key=jax.random.key(6), num=200 if QUICK else 1000, noisy=True)
kinds = ("prey", "predators")
plots.predictive(
    times,
    dict(zip(kinds, observed.T, strict=True)),
    later,
    dict(zip(kinds, np.moveaxis(np.asarray(seen), -1, 0), strict=True)),
)

# %% [markdown]
# ## A network
#
# A network with a frozen hidden layer is linear in its readout. Its posterior is known in closed form, with the
# sizes of weights and noise by the largest evidence. Between the data, where there are none, the band widens.

# %%
x = rng.uniform(0.3, 1.0, (60, 1)) * rng.choice([-1.0, 1.0], (60, 1))  # none within 0.3 of zero
curve = lambda x: np.sin(4.0 * x) * np.exp(-0.5 * x)  # noqa: E731
y = curve(x) + 0.1 * rng.normal(size=x.shape)
network = nn.MLP.frozen(x, 60, 1, scale=2.0, rngs=nnx.Rngs(0))
at = np.linspace(-1.0, 1.0, 201)
mean, sd, _ = bayes.last_layer(network, x, y).predict(at[:, None])
plots.function_bands(
    at,
    {"last layer": (mean[:, 0], sd[:, 0])},
    truth=curve(at),
    data=(x[:, 0], y[:, 0]),
    name="y",
    xlabel="x",
)

# %% [markdown]
# ## What to try
#
# - `bayes.Matern(1.5)` or `bayes.Periodic` in place of `bayes.RBF`: a kernel says what functions are likely, and
#   a band is as right as its kernel.
# - `noises.StudentNoise()` where some observations are wrong, `noises.PoissonNoise()` for counts.
# - `bayes.compare` for two equations, `bayes.ensemble` and `bayes.sample_network` for other networks.
# - `scripts/gaussian_process.py` and `scripts/bayes.py` are this notebook as experiments, with every number kept
#   in `results`.
