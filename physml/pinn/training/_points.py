"""Where the residual is taken while a network trains: even times, or more where it is large."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from physml._numerics.calls import require_fields
from physml._numerics.checks import require_count, require_not_negative, require_positive

Magnitude = Callable[[Float[Array, " times"]], Float[Array, " times"]]
"""The size of the residual at some times."""


class Points(eqx.Module):
    """A rule for the times at which the residual is taken; a subclass is a rule of your own.

    It holds `num`, the number of times, as a static field, and defines `move`, which is traced.
    Numbers in its other fields are traced too. A rule with `random = True` gets a key.

    Example:
        Times that spread from the start over the whole interval:

        >>> import equinox as eqx
        >>> class Growing(pinn.Points):
        ...     num: int = eqx.field(static=True, default=100)
        ...     steps: float = 1000.0
        ...
        ...     def move(self, times, span, step, magnitude, key):
        ...         share = jnp.minimum((step + 1) / self.steps, 1.0)
        ...         return span[0] + share * (span[1] - span[0]) * jnp.linspace(0, 1, self.num)
        >>> float(Growing().move(None, (0.0, 8.0), 499, None, None)[-1])
        4.0
    """

    num: eqx.AbstractVar[int]
    random: ClassVar[bool] = False  # whether `move` needs a key

    def start(self, t0: Array, t1: Array, dtype: DTypeLike) -> Float[Array, " num"]:
        """The times of the first step: the middles of `num` equal cells."""
        return t0 + (t1 - t0) * _middles(self.num, dtype)

    @abc.abstractmethod
    def move(
        self,
        times: Float[Array, " num"],
        span: tuple[Array, Array],
        step: Int[Array, ""],
        magnitude: Magnitude,
        key: PRNGKeyArray | None,
    ) -> Float[Array, " num"]:
        """The times of a step.

        Args:
            times: the times of the step before, or of `start`.
            span: t0 and t1.
            step: the number of the step, from 0.
            magnitude: a function from times to the size of the present network's residual there.
            key: a key of this step, for random times.
        """


class Even(Points):
    """The middles of `num` equal cells of [t0, t1], in every step."""

    num: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        require_fields(self)
        require_count(num=self.num)

    def move(self, times, span, step, magnitude, key):
        return times


class Resampled(Points):
    r"""Random times, drawn anew every so many steps, more of them where the residual is large.

    Their density is

    $$p(t) \propto \frac{|r(t)|^k}{\langle |r|^k \rangle} + c,$$

    with $|r|$ the residual's norm on an even grid: the residual-based adaptive distribution of
    Wu et al. k = 0 is uniform, c = 0 follows the residual alone. One time is drawn in each of
    `num` equal shares of the probability, so that none bunch by chance.

    Attributes:
        num: the number of times.
        every: steps between draws.
        power: $k$.
        floor: $c$.
        grid: points of the even grid for each time.

    Source: C. Wu, M. Zhu, Q. Tan, Y. Kartha, L. Lu, "A comprehensive study of non-adaptive and
    residual-based adaptive sampling for physics-informed neural networks", CMAME 403 (2023)
    115671, eq. 2.
    """

    num: int = eqx.field(static=True, default=200)
    every: int | Int[Array, ""] = 100
    power: float | Float[Array, ""] = 1.0
    floor: float | Float[Array, ""] = 1.0
    grid: int = eqx.field(static=True, default=10)
    random: ClassVar[bool] = True

    def __check_init__(self):
        require_fields(self)
        require_count(num=self.num, grid=self.grid)
        require_positive(every=self.every)
        require_not_negative(power=self.power, floor=self.floor)

    def move(self, times, span, step, magnitude, key):
        assert key is not None

        def draw() -> Array:
            cells = _middles(self.grid * self.num, times.dtype)
            sizes = magnitude(span[0] + (span[1] - span[0]) * cells) ** self.power
            mean = jnp.mean(sizes)
            density = jnp.where(mean > 0, sizes / jnp.where(mean > 0, mean, 1.0), 1.0) + self.floor
            below = jnp.concatenate([jnp.zeros(1, times.dtype), jnp.cumsum(density)])
            jitter = jax.random.uniform(key, (self.num,), times.dtype)
            shares = (jnp.asarray(np.arange(self.num), times.dtype) + jitter) / self.num
            edges = jnp.asarray(np.linspace(0.0, 1.0, below.size), times.dtype)
            places = jnp.interp(shares, below / below[-1], edges)
            return (span[0] + (span[1] - span[0]) * places).astype(times.dtype)

        return jax.lax.cond((step > 0) & (step % self.every == 0), draw, lambda: times)


def _middles(num: int, dtype: DTypeLike) -> Array:
    return jnp.asarray((np.arange(num) + 0.5) / num, dtype)
