r"""A single neuron, the two classic activations, and one step of gradient descent written out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import floating_array, floating_arrays, require_positive


@checked
def sigmoid(x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""The logistic function $\sigma(x) = 1 / (1 + e^{-x})$, elementwise, between 0 and 1."""
    return jax.nn.sigmoid(floating_array("x", x))


@checked
def sigmoid_derivative(x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""The sigmoid's slope $\sigma'(x) = \sigma(x) (1 - \sigma(x))$, elementwise.

    The slope is at most 1/4, at zero, and about $e^{-|x|}$ far from zero: the vanishing gradient of
    deep networks of sigmoids. $1 - \sigma(x)$ is computed as $\sigma(-x)$, which keeps its digits
    for large x.
    """
    x = floating_array("x", x)
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


@checked
def relu(x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""The rectified linear unit $\max(0, x)$, elementwise; its slope at zero is taken as 0."""
    return jax.nn.relu(floating_array("x", x))


@checked
def neuron(
    x: Real[ArrayLike, "*batch inputs"],
    w: Real[ArrayLike, " inputs"],
    b: Real[ArrayLike, ""],
    activation: Callable[[Array], Array] = sigmoid,
) -> Float[Array, "*batch"]:
    r"""The output of one neuron, $y = f(\sum_i w_i x_i + b)$.

    Args:
        x: the inputs, one set or a batch of them.
        w: one weight for each input.
        b: the bias, a number.
        activation: $f$, elementwise.

    Raises:
        TypeError: an argument holds no real numbers.
        ValueError: the shapes do not fit.
    """
    x, w, b = floating_arrays(x=x, w=w, b=b)
    _check_neuron(x, w, b)
    z = _weighted(x, w) + b
    return answer("activation", "y", ask("activation", "activation(z)", activation, z), z.shape)


@checked
def squared_error(
    w: Real[ArrayLike, " inputs"],
    b: Real[ArrayLike, ""],
    x: Real[ArrayLike, " inputs"],
    target: Real[ArrayLike, ""],
) -> Float[Array, ""]:
    r"""The loss of a sigmoid neuron on one sample, $L(w, b) = (\sigma(w \cdot x + b) - t)^2$.

    Raises:
        TypeError, ValueError: as `neuron`; the target is not a number.
    """
    w, b, x, target = _sample(w, b, x, target)
    return (neuron(x, w, b) - target) ** 2


@checked
def squared_error_gradient(
    w: Real[ArrayLike, " inputs"],
    b: Real[ArrayLike, ""],
    x: Real[ArrayLike, " inputs"],
    target: Real[ArrayLike, ""],
) -> tuple[Float[Array, " inputs"], Float[Array, ""]]:
    r"""The gradient of `squared_error` in weights and bias, by the chain rule written out.

    With $z = w \cdot x + b$ and $y = \sigma(z)$,

    $$\frac{\partial L}{\partial b} = \frac{\partial L}{\partial y} \frac{dy}{dz}
    = 2 (y - t) \, \sigma'(z), \qquad
    \frac{\partial L}{\partial w_i} = \frac{\partial L}{\partial b} x_i.$$

    `jax.grad(squared_error, argnums=(0, 1))` gives the same.

    Raises:
        TypeError, ValueError: as `squared_error`.
    """
    w, b, x, target = _sample(w, b, x, target)
    z = _weighted(x, w) + b
    slope = 2 * (sigmoid(z) - target) * sigmoid_derivative(z)
    return slope * x, slope


@checked
def gradient_step(
    w: Real[ArrayLike, " inputs"],
    b: Real[ArrayLike, ""],
    x: Real[ArrayLike, " inputs"],
    target: Real[ArrayLike, ""],
    learning_rate: float = 0.1,
) -> tuple[Float[Array, " inputs"], Float[Array, ""]]:
    r"""Weights and bias after one step down the gradient of `squared_error`.

    >>> w, b = neuron.gradient_step([0.4, 0.2, 0.6], 0.1, [0.5, 0.3, 0.1], target=0.4)
    >>> w.round(4).tolist()
    [0.3951, 0.1971, 0.599]

    $$w_i \leftarrow w_i - \alpha \frac{\partial L}{\partial w_i}, \qquad
    b \leftarrow b - \alpha \frac{\partial L}{\partial b}$$

    Args:
        w: the weights.
        b: the bias.
        x: the inputs of one sample.
        target: the output wanted for the sample, $t$.
        learning_rate: $\alpha$.

    Raises:
        TypeError, ValueError: as `squared_error`; the learning rate is not a number.
    """
    require_positive(learning_rate=learning_rate)
    w, b, x, target = _sample(w, b, x, target)
    dw, db = squared_error_gradient(w, b, x, target)
    rate = floating_array("learning_rate", learning_rate, w.dtype)
    _require_number("learning_rate", rate)
    return w - rate * dw, b - rate * db


def _weighted(x: Array, w: Array) -> Array:
    # Accelerators would otherwise round float32 to fewer digits first.
    return jnp.matmul(x, w, precision="highest")


def _check_neuron(x: Array, w: Array, b: Array) -> None:
    if w.ndim != 1 or w.size == 0:
        raise ValueError(f"w must have shape (inputs,), not empty, got shape {w.shape}")
    if x.shape[-1:] != w.shape:
        raise ValueError(
            f"x must hold along its last axis one input for each of the {w.size} weights, "
            f"got shape {x.shape}"
        )
    _require_number("b", b)


def _require_number(name: str, value: Array) -> None:
    if value.shape != ():
        raise ValueError(f"{name} must be a number, got shape {value.shape}")


def _sample(
    w: ArrayLike, b: ArrayLike, x: ArrayLike, target: ArrayLike
) -> tuple[Array, Array, Array, Array]:
    w, b, x, target = floating_arrays(w=w, b=b, x=x, target=target)
    _check_neuron(x, w, b)
    if x.ndim != 1:
        raise ValueError(f"x must be one sample, of shape {w.shape}, got shape {x.shape}")
    _require_number("target", target)
    return w, b, x, target
