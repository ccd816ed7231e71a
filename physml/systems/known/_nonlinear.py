"""Nonlinear oscillators: Duffing, van der Pol and the pendulum."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml.systems._base import Parameter, Time, parameter, per_member
from physml.systems._forcing import Cosine, Forcing, as_forcing
from physml.systems._oscillator import Oscillator


class Duffing(Oscillator):
    r"""The Duffing oscillator, a spring with a cubic term.

    $$\ddot x + \delta \dot x + \alpha x + \beta x^3 = F(t)$$

    State (x, v) and time are dimensionless. The defaults are a double well driven into chaos,
    $F = 0.5 \cos 1.2 t$.

    Attributes:
        alpha: linear stiffness; negative for a double well.
        beta: cubic stiffness.
        delta: damping.
        forcing: the force per mass F(t): a `Forcing`, any function of the time, or None.

    Source: J. Guckenheimer, P. Holmes, Nonlinear Oscillations, Dynamical Systems, and
    Bifurcations of Vector Fields (1983), section 2.2.
    """

    alpha: Parameter = parameter(-1.0)
    beta: Parameter = parameter(1.0)
    delta: Parameter = parameter(0.3)
    forcing: Forcing | None = eqx.field(default=Cosine(0.5, 1.2), converter=as_forcing)

    state_names = ("x", "v")
    box = ((-2.0, -2.0), (2.0, 2.0))
    lyapunov_exponents = None

    def acceleration(self, x: Array, v: Array, force: Array) -> Array:
        return force - self.delta * v - self.alpha * x - self.beta * x**3

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "2 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$-\delta$."""
        return per_member(-self.delta, y)

    def rest_positions(self) -> Float[Array, " num"]:
        r"""0 and, where α and β differ in sign, $\pm\sqrt{-\alpha/\beta}$."""
        if self.alpha * self.beta >= 0:
            return jnp.zeros(1)
        well = jnp.sqrt(-self.alpha / self.beta)
        return jnp.stack([jnp.zeros_like(well), well, -well])

    @checked
    def energy(self, y: Float[Array, "2 *batch"]) -> Float[Array, "*batch"]:
        r"""$\frac12 v^2 + \frac12 \alpha x^2 + \frac14 \beta x^4$; constant without damping and
        forcing."""
        x, v = y
        return 0.5 * v**2 + 0.5 * self.alpha * x**2 + 0.25 * self.beta * x**4


class VanDerPol(Oscillator):
    r"""The van der Pol oscillator, whose damping changes sign at |x| = 1.

    $$\ddot x - \mu (1 - x^2) \dot x + x = F(t)$$

    State (x, v) and time are dimensionless. It is stiff for large μ.

    Attributes:
        mu: strength of the nonlinear damping.
        forcing: the force per mass F(t): a `Forcing`, any function of the time, or None.

    Source: B. van der Pol, On relaxation-oscillations, Phil. Mag. 2 (1926) 978.
    """

    mu: Parameter = parameter(1.0)
    forcing: Forcing | None = eqx.field(default=None, converter=as_forcing)

    state_names = ("x", "v")
    box = ((-3.0, -3.0), (3.0, 3.0))
    lyapunov_exponents = None

    def acceleration(self, x: Array, v: Array, force: Array) -> Array:
        return force + self.mu * (1.0 - x**2) * v - x

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "2 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$\mu (1 - x^2)$."""
        return self.mu * (1.0 - y[0] ** 2)

    def rest_positions(self) -> Float[Array, "1"]:
        """The origin."""
        return jnp.zeros(1)


class Pendulum(Oscillator):
    r"""The pendulum, at any amplitude.

    $$\ddot\theta + c \dot\theta + \frac{g}{l} \sin\theta = F(t)$$

    State: angle θ from the hanging position in rad, not wrapped, and angular velocity ω in
    rad/s; time in s.

    Attributes:
        gravity: g > 0, m/s².
        length: l > 0, m.
        damping: c, 1/s.
        forcing: the torque per moment of inertia F(t), 1/s²: a `Forcing`, any function of the
            time, or None.
    """

    gravity: Parameter = parameter(9.81, positive=True)
    length: Parameter = parameter(1.0, positive=True)
    damping: Parameter = parameter(0.0)
    forcing: Forcing | None = eqx.field(default=None, converter=as_forcing)

    state_names = ("theta", "omega")
    box = ((-3.0, -3.0), (3.0, 3.0))
    lyapunov_exponents = None

    def acceleration(self, x: Array, v: Array, force: Array) -> Array:
        return force - self.damping * v - self.gravity / self.length * jnp.sin(x)

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "2 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$-c$, 1/s."""
        return per_member(-self.damping, y)

    def rest_positions(self) -> Float[Array, "2"]:
        """Hanging, 0, and upside down, π; the same again at every 2π."""
        return jnp.asarray([0.0, math.pi])

    @checked
    def energy(self, y: Float[Array, "2 *batch"]) -> Float[Array, "*batch"]:
        r"""$\frac12 \omega^2 + \frac{g}{l} (1 - \cos\theta)$, the energy per moment of inertia in
        1/s²; constant without damping and forcing."""
        theta, omega = y
        # 1 - cos without the cancellation at small angles
        return 0.5 * omega**2 + 2.0 * self.gravity / self.length * jnp.sin(0.5 * theta) ** 2
