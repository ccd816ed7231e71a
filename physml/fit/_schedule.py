"""Optimizers whose hyper-parameters follow schedules that are traced, not compiled in."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Real

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import floating_array, require_finite, require_positive


def _floating(value: ArrayLike) -> Array:
    return jnp.asarray(1.0 * value)


def _size_and_steps(name: str, size: ArrayLike, steps: ArrayLike) -> tuple[Array, Array]:
    """What a schedule is made of, checked: its size, which has this name, and its steps."""
    require_positive(steps=steps)
    require_finite(name, size)
    return _floating(size), _floating(steps)


class Cosine(eqx.Module):
    r"""$v_k = \tfrac{v_0}{2} (1 + \cos(\pi \min(k / n, 1)))$: from a first value to zero.

    Attributes:
        first: $v_0$, the value of step 0.
        steps: $n$, after which the value is zero.
    """

    first: Float[Array, ""]
    steps: Float[Array, ""]

    @checked
    def __init__(self, first: Real[ArrayLike, ""], steps: Real[ArrayLike, ""]):
        self.first, self.steps = _size_and_steps("first", first, steps)

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        with jax.numpy_dtype_promotion("standard"):  # weakly typed: the dtype is the gradient's
            share = jnp.minimum(count / self.steps, 1.0)
            return 0.5 * self.first * (1 + jnp.cos(jnp.pi * share))


class OneCycle(eqx.Module):
    r"""Up from v / 25 to a largest value v in the first 30 % of n steps, then down to v / 250000.

    Each way is half a period of a cosine, as in `optax.cosine_onecycle_schedule(n, v)` (Smith,
    Topin, arXiv 1708.07120).

    Attributes:
        largest: $v$.
        steps: $n$, after which the value stays constant.
    """

    largest: Float[Array, ""]
    steps: Float[Array, ""]

    @checked
    def __init__(self, largest: Real[ArrayLike, ""], steps: Real[ArrayLike, ""]):
        self.largest, self.steps = _size_and_steps("largest", largest, steps)

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        with jax.numpy_dtype_promotion("standard"):  # as in `Cosine`
            share = jnp.minimum(count / self.steps, 1.0)
            up = share < 0.3
            begin, end = jnp.where(up, 0.04, 1.0), jnp.where(up, 1.0, 4e-6)
            part = jnp.where(up, share / 0.3, (share - 0.3) / 0.7)
            return self.largest * (end + 0.5 * (begin - end) * (1 + jnp.cos(jnp.pi * part)))


@checked
def scheduled(
    optimizer: Callable[..., optax.GradientTransformation], **values: ArrayLike | Callable
) -> optax.GradientTransformationExtraArgs:
    """`optimizer(**values)` with traced values: other values use the same compiled program.

    Optax compiles the numbers and schedules that a transformation was made with into the step.
    Here they are arrays beside it: a second fit with another learning rate compiles nothing.

    Args:
        optimizer: such as `optax.adam`.
        values: its hyper-parameters: numbers, arrays, or schedules that are pytrees of arrays
            (an `eqx.Module` with `__call__(count)`, such as `Cosine`).

    Example:
        >>> optimizer = fit.scheduled(optax.adam, learning_rate=fit.Cosine(3e-3, steps=1000))
    """
    for name, value in values.items():
        if not callable(value):
            require_finite(name, floating_array(name, value))
    rule = _Scheduled(
        optimizer, {name: v if callable(v) else jnp.asarray(v) for name, v in values.items()}
    )
    return optax.GradientTransformationExtraArgs(rule.init, rule.update)


def _scheduled_value(name: str, schedule: Callable, count: Array) -> Array:
    value = ask(name, f"{name}(count)", schedule, count)
    return answer(name, "a number", value, ())


class _Scheduled(eqx.Module):
    optimizer: Callable[..., optax.GradientTransformation]
    values: dict[str, Array | Callable]

    def _at(self, count: Array) -> optax.GradientTransformationExtraArgs:
        values = {
            name: _scheduled_value(name, v, count) if callable(v) else v
            for name, v in self.values.items()
        }
        return optax.with_extra_args_support(self.optimizer(**values))

    def init(self, params: PyTree) -> tuple[Array, PyTree]:
        count = jnp.zeros((), jnp.int32)
        return count, self._at(count).init(params)

    def update(
        self, updates: PyTree, state: PyTree, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, tuple[Array, PyTree]]:
        count, inner = state
        updates, inner = self._at(count).update(updates, inner, params, **extra)
        return updates, (count + 1, inner)
