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
# # Autoencoders: how many numbers data need
#
# An autoencoder passes data through a few latent numbers and learns to give them back. How few are enough is
# the dimension of the data. If the data move in time, the latent numbers move too, and they are easier to
# forecast than the data.
#
# The first data are fields of 128 points that hide the Lorenz system, as Champion, Lusch, Kutz and Brunton made
# them (PNAS 116, 2019). The second are pictures of digits.

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

from physml import (
    data,
    dynamics,
    experiment,
    fit,
    generative,
    nn,
    plots,
    reference,
    surrogate,
    systems,
)

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## Fields that hide three numbers
#
# Each state $(x, y, z)$ of the Lorenz system becomes a field: Legendre polynomials over 128 points, multiplied by
# $x$, $y$, $z$ and by $x^3$, $y^3$, $z^3$. Whoever sees the fields sees 128 numbers, which span six directions
# and depend on three numbers.

# %%
lorenz, dt = systems.Lorenz(), 0.01
keys = jax.random.split(jax.random.key(0), 8)
states = reference.trajectories(lorenz, keys[0], 10 if QUICK else 40, dt * np.arange(801))
fields = data.from_arrays(states.ts, generative.legendre_lift(states.ys))
train = fields.ys[:, ::4].reshape(-1, 128)
unseen = reference.trajectories(lorenz, keys[1], 10, fields.ts)
test = generative.legendre_lift(unseen.ys).reshape(-1, 128)
print("fields to learn from:", train.shape)

# %% [markdown]
# ## Three are enough
#
# Principal components are the best *linear* code. `generative.fit_projection` has a linear encoder too, but its
# decoder is curved: a layer of frozen units with a readout by least squares. Look at the error on fields that
# neither has seen.

# %%
sizes, errors, linear, codecs = (2, 3, 4), {}, {}, {}
for size in sizes:
    fitted = generative.fit_projection(train, size, key=keys[2], restarts=1)
    codecs[size] = fitted.codec
    errors[size] = float(fitted.codec.relative_error(test))
    linear[size] = float(generative.principal_components(train, size).relative_error(test))
    print(
        f"{size} numbers: autoencoder {errors[size]:.0e}, principal components {linear[size]:.0e}"
    )
print("dimension:", generative.latent_dimension([1.0, *errors.values()]).dimension + sizes[0] - 1)

# %% [markdown]
# The error falls by orders of magnitude from two numbers to three, and no further with four. That step is
# how `generative.latent_dimension` finds the dimension.

# %%
curves = {"autoencoder": errors, "principal components": linear}
plots.bands(
    {name: (np.array(sizes), np.array([[x[n]] for n in sizes])) for name, x in curves.items()},
    xlabel="latent numbers",
    ylabel="relative error of unseen fields",
)

# %% [markdown]
# ## Forecasting by latent numbers
#
# The code turns trajectories of fields into trajectories of three numbers. A surrogate learns to step these, and
# `generative.LatentStepper` puts encoder, step and decoder together: a step map of the field, which everything
# that works with step maps takes.

# %%
latent = generative.encode_trajectories(codecs[3], fields)
network = nn.MLP.frozen(
    surrogate.network_inputs(latent), 100 if QUICK else 400, 3, scale=0.06, rngs=nnx.Rngs(keys[3])
)
stepped = surrogate.fit_readout(network, latent, refinements=0).step_map
by_map = generative.LatentStepper(codec=codecs[3], latent=stepped)

# %% [markdown]
# ## Equations of the latent numbers
#
# A map forecasts, but it does not explain. `generative.discover_equations` looks for latent numbers that obey
# polynomial equations of few terms. It sees fields only. What it finds is the Lorenz system up to scale and
# sign.

# %%
found = generative.discover_equations(codecs[3], fields, key=keys[4])
print(found)
flow = reference.FlowMap(system=found.system, dt=dt)
by_equations = generative.LatentStepper(codec=found.codec, latent=flow)

# %% [markdown]
# Both forecast fields from starts on the attractor. The time until the error passes 0.4 standard deviations is
# given in Lyapunov times.

# %%
starts = reference.attractor_starts(lorenz, keys[5], 5 if QUICK else 20)
later = reference.trajectories_from(lorenz, starts, dt * np.arange(501 if QUICK else 2501))
truth = generative.legendre_lift(later.ys)
scale = data.Standardiser.fit(truth).std
skills = {
    name: dynamics.forecast_skill(step_map, truth, scale=scale)
    for name, step_map in {"map": by_map, "equations": by_equations}.items()
}
for name, skill in skills.items():
    print(f"by {name}: {skill.times.mean() * lorenz.lambda1:.1f} Lyapunov times on average")
plots.error_growth(
    later.ts,
    {f"latent {name}": skill.errors for name, skill in skills.items()},
    lambda1=lorenz.lambda1,
)

# %% [markdown]
# The latent numbers of the first forecast, mapped to $(x, y, z)$ by the best affine map, beside the truth that
# nobody showed:

# %%
z = np.asarray(found.codec.encode(truth[0]))
design, hidden = np.column_stack([z, np.ones(len(z))]), np.asarray(later.ys[0])
mapped = design @ np.linalg.lstsq(design, hidden, rcond=None)[0]
plots.attractor_3d(hidden, {"latent numbers, mapped": mapped})

# %% [markdown]
# ## Digits
#
# Pictures have no small number that is exactly enough. Here are 8 x 8 digits by eight numbers: by principal
# components, by a dense autoencoder trained by Adam, and by a variational one, which is a model of the data:
# its latent numbers are normally distributed, so that it can be asked for new digits.

# %%
digits = data.digits().scaled(jnp.float32).split((0.7, 0.1, 0.2), keys[6])
known, held, new = (part.images.reshape(-1, 64) for part in digits)
dense = nn.Autoencoder.dense(
    64, (128, 64), 8, activation="elu", dtype=jnp.float32, rngs=nnx.Rngs(keys[7])
)
networks = {"dense": dense, "variational": nn.Variational(dense, rngs=nnx.Rngs(keys[7]))}
steps = 200 if QUICK else 3000
adam = optax.adamw(optax.cosine_decay_schedule(2e-3, steps))
codes = {"principal components": generative.principal_components(known, 8)}
for name, network in networks.items():
    options = {"optimizer": adam, "steps": steps, "key": keys[7]}
    codes[name] = generative.fit_autoencoder(network, known, **options).codec
for name, code in codes.items():
    print(f"{name}: relative error {code.relative_error(new):.2f}")

# %%
rows = {"image": new[:8]} | {name: code(new[:8]) for name, code in codes.items()}
pixels = jnp.clip(jnp.concatenate([*rows.values()]).reshape(-1, 8, 8, 1), 0, 1)
words = [name if i == 0 else "" for name in rows for i in range(8)]
plots.image_grid(pixels, words, columns=8)

# %% [markdown]
# New digits, drawn from the variational autoencoder, and below them a way from one digit to another that is
# straight in the latent numbers:

# %%
drawn = generative.sample(codes["variational"], 16, keys[7])
path = generative.interpolate(codes["variational"], new[0], new[1], 8)
pixels = jnp.clip(jnp.concatenate([drawn, path]).reshape(-1, 8, 8, 1), 0, 1)
plots.image_grid(pixels, ["drawn"] * 16 + ["on the way"] * 8, columns=8)

# %% [markdown]
# ## Two networks against each other
#
# Another way to new digits has no encoder: a generator makes digits from random numbers, and a critic learns to
# tell them from true ones. When the critic can only guess, they are distributed as the true ones.

# %%
single = {"activation": "silu", "dtype": jnp.float32, "rngs": nnx.Rngs(keys[7])}
slowing = fit.Cosine(1e-3, steps)
adam = fit.scheduled(optax.adam, learning_rate=slowing, b1=0.0, b2=0.99)  # without momentum
generator = generative.fit_adversarial(
    nn.MLP(16, (128, 128), 64, **single),
    nn.MLP(64, (128, 128), 1, **single),
    known,
    latent=16,
    objective=generative.Relativistic(3.0),
    optimizers=(adam, adam),
    steps=steps,
    key=keys[7],
).generator
made = {
    "autoencoder": generative.sample(codes["variational"], len(new), keys[7]),
    "adversarial": generator.sample(len(new), keys[7]),
}

# %% [markdown]
# No loss says how good they are. Precision is the share of them that lies among true digits, recall the share of
# true digits that lies among them; a generator that makes one digit only has a recall near zero. A generator that
# copies is found by the distance to the nearest digit it has learned from.

# %%
for name, images in made.items():
    covered = generative.coverage(new, images)
    print(f"{name}: precision {covered.precision:.2f}, recall {covered.recall:.2f}")
near = generative.nearest(made["adversarial"], known)
others = generative.nearest(new, known)
print(f"to the nearest: {np.median(near.distance):.2f}, of unseen {np.median(others.distance):.2f}")
rows = {"made": made["adversarial"][:8], "nearest known": known[near.index[:8]]}
pixels = jnp.clip(jnp.concatenate([*rows.values()]).reshape(-1, 8, 8, 1), 0, 1)
plots.image_grid(pixels, [name for name in rows for _ in range(8)], columns=8)

# %% [markdown]
# ## What does not fit
#
# What is unlike the data comes back badly. The error of digits that were held out says what is normal; digits
# upside down are beyond it more often.

# %%
score = generative.AnomalyScore.fit(codes["dense"], held)
limit = score.quantile(0.95)
upside_down = new.reshape(-1, 8, 8)[:, ::-1, ::-1].reshape(-1, 64)
for name, images in {"upright": new, "upside down": upside_down}.items():
    print(
        f"{name}: {jnp.mean(score(images) > limit):.0%} have an error above that of 95 % held out"
    )

# %% [markdown]
# Some digits are nearly the same upside down, such as 0, 1 and 8: no score can find these strange.
#
# ## What to try
#
# - `nn.Autoencoder.convolutional` for the digits, or another number of latent numbers.
# - Data of a dimension that nobody knows: `nn.Autoencoder.dense(..., linear_layers=4)` with weight decay, and
#   `generative.latent_spectrum`.
# - `fit_adversarial(..., labels)` for a generator that is asked for a class, `residual=` for one that obeys an
#   equation.
# - `scripts/autoencoder.py` and `scripts/gan.py` are this notebook as experiments, with every number kept in
#   `results`.
