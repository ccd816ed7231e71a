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
# # From a neuron to a convolutional network
#
# The way of the lecture notes, with every number that they print: one neuron, its gradient, a step down it; the
# convolution of an image, and why it is a cross-correlation; pooling; the sizes and parameters of a network; the
# product of polynomials. At the end the same pieces read digits.

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

jax.config.update("jax_enable_x64", True)  # the notes compute in float64

import jax.numpy as jnp
import numpy as np
from flax import nnx

from physml import classify, convolution, data, experiment, neuron, nn, plots

# %matplotlib inline

experiment.use_compilation_cache()  # the next run need not compile again

QUICK = "PHYSML_QUICK" in os.environ  # smaller sizes, for the tests

# %% [markdown]
# ## One neuron
#
# A neuron weighs its inputs, adds a bias and applies an activation, $y = f(\sum_i w_i x_i + b)$. Here $f$ is the
# sigmoid.

# %%
x, w, b = np.array([0.5, 0.3, 0.1]), np.array([0.4, 0.2, 0.6]), 0.1
print("output of the neuron:", float(neuron.neuron(x, w, b)))

# %% [markdown]
# ## A step down the gradient
#
# The neuron should answer 0.4. The loss is the squared error. The chain rule, written out, gives its gradient; JAX
# finds the same one by itself. A step of 0.1 down the gradient gives the numbers that the notes print.

# %%
target = 0.4
new_w, new_b = neuron.gradient_step(w, b, x, target, learning_rate=0.1)
print("updated weights:", new_w)
print("updated bias:", new_b)
assert str(np.asarray(new_w)) == "[0.39513082 0.19707849 0.59902616]"
assert float(new_b) == 0.09026164910025532

by_hand = neuron.squared_error_gradient(w, b, x, target)
by_jax = jax.grad(neuron.squared_error, argnums=(0, 1))(
    jnp.asarray(w), jnp.asarray(b), jnp.asarray(x), jnp.asarray(target)
)
print("the gradient by hand:", *by_hand)
print("the gradient by JAX: ", *by_jax)

# %% [markdown]
# Far from zero the sigmoid is flat, and its slope vanishes. In a deep network such slopes are multiplied, which is
# why deep networks use the rectified linear unit instead.

# %%
z = np.array([0.0, 5.0, 10.0, 20.0])
print("slope of the sigmoid at", z, "is", neuron.sigmoid_derivative(z))

# %% [markdown]
# ## The convolution of an image
#
# A kernel slides over the image; at each place the products are summed. This is what the notes print for their
# 4 x 4 image:

# %%
image = np.arange(1, 17).reshape(4, 4)
edges = convolution.cross_correlate(image, convolution.EDGE_BELOW)
print("kernel\n", convolution.EDGE_BELOW)
print(edges)
assert np.all(np.asarray(edges) == 8)

# %% [markdown]
# What networks call a convolution, and the notes too, is a cross-correlation: the kernel slides unchanged. A
# convolution slides the mirrored kernel, as in the formula $(f * g)(t) = \sum_\tau f(\tau)\, g(t - \tau)$, and
# gives the other sign here. For a network it makes no difference, since it learns the kernel.

# %%
print(convolution.convolve(image, convolution.EDGE_BELOW))

# %% [markdown]
# ## Pooling
#
# The largest of each 2 x 2 block stays:

# %%
pooled = convolution.max_pool(image)
print(pooled)
assert str(np.asarray(pooled)) == "[[ 6.  8.]\n [14. 16.]]"

# %% [markdown]
# ## Why not dense layers?
#
# A neuron that sees a whole image has a weight for every pixel of every colour. The notes count:

# %%
for height, width, channels in ((32, 32, 3), (200, 200, 3), (28, 28, 1), (128, 128, 3)):
    weights = convolution.dense_parameters(height * width * channels, 1) - 1  # without the bias
    print(f"{height} x {width} x {channels}: {weights} weights for one neuron")
hidden = convolution.dense_parameters(10**6, 10**4) + convolution.dense_parameters(10**4, 1)
print(f"a million samples of sound and 10,000 hidden neurons: {hidden:.2e} parameters")

# %% [markdown]
# A convolutional layer uses the same few weights everywhere. The tutorial for CIFAR-10 in the notes has two such
# layers, each with a pooling layer after it, and a third one; their outputs end at 4 x 4 x 64.

# %%
shape = (32, 32)
for name, window, stride in (
    ("filters 3 x 3", 3, 1),
    ("pooling", 2, 2),
    ("filters 3 x 3", 3, 1),
    ("pooling", 2, 2),
    ("filters 3 x 3", 3, 1),
):
    shape = convolution.output_shape(shape, window, stride)
    print(f"after {name:13s} {shape}")
depths = ((3, 32), (32, 64), (64, 64))
counts = [convolution.convolution_parameters((3, 3), *depth) for depth in depths]
counts += [convolution.dense_parameters(4 * 4 * 64, 64), convolution.dense_parameters(64, 10)]
print("parameters of its layers:", counts)
assert counts == [896, 18496, 36928, 65600, 650]

# %% [markdown]
# ## Polynomials
#
# The coefficients of the product of two polynomials are the convolution of their coefficients. With a matrix that
# has them along its diagonals, a Toeplitz matrix, the convolution is a linear map; with Fourier transforms it is
# a product.

# %%
alpha, beta = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0, 7.0])
print(convolution.convolution_matrix(alpha, (4,)))
for method in ("direct", "toeplitz", "fft"):
    print(f"{method:8s}", np.round(convolution.polynomial_product(alpha, beta, method=method), 12))

# %% [markdown]
# ## The pieces put together
#
# A convolutional network reads 8 x 8 digits: filters, pooling, a dense layer. Training takes seconds.

# %%
train, test = data.digits().scaled(jnp.float32).split((0.8, 0.2), jax.random.key(0))
network = nn.CNN(
    (8, 8, 1),
    [nn.Filters(10), nn.Pool(), nn.Dense(50)],
    10,
    dtype=jnp.float32,
    rngs=nnx.Rngs(0),
)
fitted = classify.fit(network, train, epochs=5 if QUICK else 40, key=jax.random.key(1))
found = classify.evaluate(classify.probabilities(fitted.model, test), test)
print(found.summary())

# %% [markdown]
# The ten filters that it has learned, and what they make of a digit:

# %%
model = fitted.model
model.eval()
plots.filters(model.kernels[0])

# %%
layers = {f"layer {i + 1}": maps[0] for i, maps in enumerate(model.feature_maps(test.images[:1]))}
plots.feature_maps(test.images[0], layers)

# %% [markdown]
# And which digits it takes for which:

# %%
plots.evaluation_figures(found, test)["confusion"]

# %% [markdown]
# ## What to try
#
# - Other layers: `nn.Dropout`, more `nn.Filters`, `nn.ARCHITECTURES["digits"]` as in the notes.
# - Digits that are shifted and rotated while it learns: `classify.Augmentation` in `classify.fit`.
# - `scripts/digits_grid.py` is the notes' search for the learning rate and the regularisation, and
#   `scripts/cifar10.py` their tutorial for colour images.
