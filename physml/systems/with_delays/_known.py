"""Known equations with one delay, each scalar and chaotic at its default parameters."""

import abc
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml.systems._base import Parameter, Time, parameter
from physml.systems.with_delays._base import DelayedSystem

if TYPE_CHECKING:
    # A type checker would take an AbstractVar for the first argument of every constructor.
    from typing import ClassVar as Fact
else:
    from equinox import AbstractVar as Fact


class _OneDelay(DelayedSystem):
    """An equation for one number that depends on its value one delay ago."""

    tau: Fact[Parameter]

    @property
    def delays(self) -> tuple[Parameter]:
        """The delay tau."""
        return (self.tau,)

    @abc.abstractmethod
    def change(self, x: Array, past: Array) -> Array:
        """dx/dt from x and from x one delay ago."""

    def rate(
        self, t: Time, y: Float[Array, " dim"], delayed: Float[Array, "delays dim"], args: PyTree
    ) -> Array:
        return self.change(y, delayed[0])


class MackeyGlass(_OneDelay):
    r"""The number of blood cells, whose production answers one delay later.

    $$\dot x = \frac{\beta \, x_\tau}{1 + x_\tau^n} - \gamma x, \qquad x_\tau = x(t - \tau)$$

    Source: M. C. Mackey, L. Glass, Oscillation and chaos in physiological control systems, Science
    197 (1977) 287, eq. 4b; chaotic at the delay 17.
    """

    beta: Parameter = parameter(0.2)
    gamma: Parameter = parameter(0.1)
    n: Parameter = parameter(10.0, positive=True)
    tau: Parameter = parameter(17.0, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        return self.beta * past / (1 + past**self.n) - self.gamma * x


class IkedaDelay(_OneDelay):
    r"""The phase of light in a ring cavity, $\dot x = \mu \sin(x_\tau - x_0) - c x$.

    Source: K. Ikeda, K. Matsumoto, High-dimensional chaotic behavior in systems with time-delayed
    feedback, Physica D 29 (1987) 223; parameters as in the collection dysts.
    """

    mu: Parameter = parameter(-20.0)
    c: Parameter = parameter(1.0)
    x0: Parameter = parameter(0.0)
    tau: Parameter = parameter(2.0, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        return self.mu * jnp.sin(past - self.x0) - self.c * x


class SprottDelay(_OneDelay):
    r"""The simplest equation of its kind, $\dot x = \sin x_\tau$.

    Source: J. C. Sprott, A simple chaotic delay differential equation, Phys. Lett. A 366 (2007)
    397.
    """

    tau: Parameter = parameter(5.1, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        return jnp.sin(past)


class ScrollDelay(_OneDelay):
    r"""Two scrolls, $\dot x = -\alpha x_\tau + \beta \tanh(10 x_\tau)$.

    Source: the collection dysts (W. Gilpin, Chaos as an interpretable benchmark for forecasting and
    data-driven modelling, 2021).
    """

    alpha: Parameter = parameter(0.2)
    beta: Parameter = parameter(0.2)
    tau: Parameter = parameter(10.0, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        return -self.alpha * past + self.beta * jnp.tanh(10 * past)


class PiecewiseCircuit(_OneDelay):
    r"""A circuit, $\dot x = -\alpha x_\tau + \beta (3 x_\tau / c - (x_\tau / c)^3)$.

    Source: A. Tamasevicius, G. Mykolaitis, S. Bumeliene, Delayed feedback chaotic oscillator with
    improved spectral characteristics, Electron. Lett. 42 (2006) 13, as in the collection dysts.
    """

    alpha: Parameter = parameter(1.0)
    beta: Parameter = parameter(1.0)
    c: Parameter = parameter(2.24)
    tau: Parameter = parameter(4.9, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        scaled = past / self.c
        return -self.alpha * past + self.beta * (3 * scaled - scaled**3)


class VossDelay(_OneDelay):
    r"""A circuit, $\dot x = -\alpha x - 10.44 x_\tau^3 - 13.95 x_\tau^2 - 3.63 x_\tau + 0.85$.

    Source: H. U. Voss, Real-time anticipation of chaotic states of an electronic circuit, Int. J.
    Bifurcation and Chaos 12 (2002) 1619, as in the collection dysts.
    """

    alpha: Parameter = parameter(3.24)
    tau: Parameter = parameter(13.28, positive=True)

    def change(self, x: Array, past: Array) -> Array:
        return -self.alpha * x + ((-10.44 * past - 13.95) * past - 3.63) * past + 0.85
