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
# # Digits, MNIST and CIFAR-10
#
# The lecture's three sets of pictures. For the small digits it searches the learning rate and the regularisation on
# a grid of 49 networks; here they are trained together, in one program. For MNIST and CIFAR-10 it trains one
# convolutional network each. Everything runs in float32, which is enough for pictures.

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

jax.config.update("jax_num_cpu_devices", os.cpu_count())  # each core takes a share of the 49

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import classify, data, experiment, fit, nn, plots

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## Digits of 8 x 8 pixels
#
# The 1797 digits that scikit-learn brings along, each with its class below. A fifth of them is kept for the test. A
# fifth of the rest is for validation: choices are made by it, and never by the test.

# %%
images = data.digits().scaled()
whole, test = images.split((0.8, 0.2), jax.random.key(0))
train, valid = whole.split((0.8, 0.2), jax.random.key(1))
print(f"{len(train)} images to train with, {len(valid)} to choose by, {len(test)} to test")
plots.labelled_images(images[:10])

# %% [markdown]
# ## A grid of 49 networks
#
# Ten filters of 3 x 3, pooling, 50 dense units, trained by stochastic gradient descent. The learning rate says how far
# a step goes, and the strength of the L2 regularisation how much large weights cost. Neither is known beforehand, so
# the lecture tries all pairs of seven values. `fit.sweep` makes one program of the 49 networks; a setting is what
# differs between them.

# %%
values = np.logspace(-5, 1, 7)
rate, strength = (x.ravel() for x in np.meshgrid(values, values, indexing="ij"))
settings = {
    "rate": jnp.asarray(rate, jnp.float32),
    "strength": jnp.asarray(strength, jnp.float32),
    "key": jax.random.split(jax.random.key(2), len(rate)),
}
epochs, batch_size = (4 if QUICK else 100), 100
steps = epochs * (len(train) // batch_size)


def network(setting):
    cnn = nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, rngs=nnx.Rngs(setting["key"]))
    return nn.Regularised(cnn, setting["strength"])


def descent(setting):
    return optax.sgd(lambda step: setting["rate"] * (1 - step / steps))  # falls to zero


grid = fit.sweep(
    classify.cross_entropy(),
    network,
    train,
    settings=settings,
    optimizer=descent,
    batch_size=batch_size,
    steps=steps,
    augment=classify.Augmentation(rotation=10.0, scale=0.1),
    key=jax.random.key(3),
    devices=jax.devices(),
)
print(f"{len(grid)} networks in {grid.seconds:.1f} s; {grid.diverged.sum()} of them diverged")

# %% [markdown]
# Each number is the share of validation images that a network reads right, in per cent. Where the learning rate is too
# small nothing is learned, where it is too large or the regularisation too strong everything is forgotten: ten per
# cent is guessing. The frame is around the network whose cross-entropy in validation is least.

# %%
alone, _ = classify.evaluate_members(classify.member_probabilities(grid.models, valid), valid)
accuracy = np.array([each.accuracy for each in alone])
entropy = np.where(grid.diverged, np.nan, [each.cross_entropy for each in alone])
best = int(np.nanargmin(entropy))
print(f"chosen: learning rate {rate[best]:.0e}, L2 strength {strength[best]:.0e}")
plots.heat_map(
    100 * np.where(grid.diverged, np.nan, accuracy).reshape(7, 7),
    values,
    values,
    row_name="learning rate",
    column_name="L2 strength",
    name="accuracy in validation [%]",
    log=False,
    chosen=divmod(best, 7),
)

# %% [markdown]
# Now the test, with the one that was chosen:

# %%
found = classify.evaluate(classify.probabilities(grid[best].model, test), test)
print(found.summary())

# %% [markdown]
# For each class there stand the number of its images, the share that is read right, and what the others are taken
# for. The calibration error says how far, on average, the probability that the network states is from the share of
# answers that are right. The table below shows the same numbers: rows are the true classes, columns the answers.

# %%
plots.evaluation_figures(found, test)["confusion"]

# %% [markdown]
# ## MNIST
#
# 70,000 digits of 28 x 28 pixels. The files are read from the folder that the environment variable `PHYSML_DATA`
# names, or else from `~/.cache/physml`. `data.mnist()` without more would download what is missing; this notebook
# does not, and says so instead.


# %%
def read(make, name):
    """Images to train with and to test, in quick mode few of them; None where files are missing."""
    folder = os.environ.get("PHYSML_DATA") or Path.home() / ".cache" / "physml"
    try:
        train, test = make(folder)
    except FileNotFoundError:
        print(f"The files of {name} are not here, so this part is left out.")
        print(f"data.{make.__name__}() downloads them.")
        return None
    few = (1280, 500) if QUICK else (len(train), len(test))
    return train[: few[0]].scaled(), test[: few[1]].scaled()


mnist = read(data.mnist, "MNIST")

# %% [markdown]
# The usual first network has two layers of filters, each with pooling, and a dense layer. `classify.fit` trains by
# AdamW, whose rate goes up and down once. Each epoch sees every image anew, shifted by up to one pixel. One epoch is
# enough to see how good such a network is; four make 99.4 %.

# %%
if mnist:
    train, test = mnist
    network = nn.CNN((28, 28, 1), nn.ARCHITECTURES["mnist"], 10, rngs=nnx.Rngs(0))
    fitted = classify.fit(
        network,
        train,
        epochs=1,
        learning_rate=2e-3,
        augment=classify.Augmentation(shift=1),
        key=jax.random.key(4),
    )
    found = classify.evaluate(classify.probabilities(fitted.model, test), test)
    print(network.summary())
    print(
        f"{found.accuracy:.2%} of {len(test)} test images are right, after {fitted.seconds:.0f} s"
    )

# %% [markdown]
# The answers of which the network was most sure and that were wrong all the same. Below each stands the answer, and
# what is true:

# %%
plots.evaluation_figures(found, test).get("worst") if mnist else None

# %% [markdown]
# ## CIFAR-10
#
# 60,000 colour photographs of ten kinds of things, 32 x 32 pixels. Some are hard for people too.

# %%
cifar = read(data.cifar10, "CIFAR-10")
plots.labelled_images(cifar[0][:10]) if cifar else None

# %% [markdown]
# The network of TensorFlow's tutorial, which the lecture uses: three layers of filters and a dense one. The tutorial
# trains it for ten epochs, which makes 74 % here as there; one epoch shows how it begins.

# %%
if cifar:
    train, test = cifar
    scale = data.Standardiser.fit(train.images)
    network = nn.CNN((32, 32, 3), nn.ARCHITECTURES["cifar-tutorial"], 10, rngs=nnx.Rngs(0))
    fitted = classify.fit(
        network,
        train.transformed(scale),
        epochs=1,
        batch_size=32,
        learning_rate=2e-3,
        key=jax.random.key(5),
    )
    found = classify.evaluate(classify.probabilities(fitted.model, test.transformed(scale)), test)
    print(network.summary())
    print(
        f"{found.accuracy:.1%} of {len(test)} test images are right, after {fitted.seconds:.0f} s"
    )

# %%
plots.evaluation_figures(found, test)["confusion"] if cifar else None

# %% [markdown]
# Cats and dogs are taken for each other, lorries for cars: what looks alike is confused. So the network has learned
# something about what things look like.
#
# ## What to try
#
# - `epochs=4` for MNIST and `epochs=10` for CIFAR-10.
# - `nn.ARCHITECTURES["cifar-better"]` with `classify.Augmentation(shift=4, flip=True)`.
# - `data.fashion_mnist()` in place of `data.mnist()`: nothing else changes.
# - Your own pictures, a folder for each class: `data.Images.from_folder`.
# - `scripts/digits_grid.py`, `scripts/mnist.py` and `scripts/cifar10.py` are this notebook as experiments, with every
#   number kept in `results`.
