r"""The damped linear oscillator $\ddot x + 2\gamma\dot x + \omega_0^2 x = F(t)$ in closed form.

An exact solution needs the motion of the free oscillator and its response to a sinusoidal force.
The same formulas hold for under-, critically and over-damped oscillators.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml.systems._base import Parameter


@checked
def amplitude_response(
    omega: Parameter, gamma: Parameter, omega0: Parameter
) -> Float[Array, "..."]:
    r"""The steady amplitude per unit of sinusoidal force per mass, in s².

    $$|\chi(\omega)| = \frac{1}{\sqrt{(\omega_0^2 - \omega^2)^2 + 4\gamma^2\omega^2}}$$

    Args:
        omega: angular frequency of the force, rad/s.
        gamma: damping rate, 1/s.
        omega0: natural angular frequency, rad/s.

    Returns:
        Infinity at the resonance of an undamped oscillator.

    Source: J. R. Taylor, Classical Mechanics (2005), eq. 5.64.
    """
    return 1.0 / jnp.hypot((omega0 - omega) * (omega0 + omega), 2.0 * gamma * omega)


@checked
def phase_lag(omega: Parameter, gamma: Parameter, omega0: Parameter) -> Float[Array, "..."]:
    r"""The angle by which the steady motion lags behind a sinusoidal force, in [0, π] rad.

    $$\delta(\omega) = \operatorname{atan2}(2\gamma\omega, \omega_0^2 - \omega^2)$$

    The two-argument arctangent gives angles past $\pi/2$ above the resonance, where a plain
    arctangent would jump back by π.

    Args:
        omega: angular frequency of the force, rad/s.
        gamma: damping rate, 1/s.
        omega0: natural angular frequency, rad/s.
    """
    return jnp.arctan2(2.0 * gamma * omega, (omega0 - omega) * (omega0 + omega))


def free_motion(
    t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
    r"""The two functions $c, s$ of the free oscillator's propagator.

    $$c = e^{-\gamma t} \cos \omega_d t, \qquad s = e^{-\gamma t} \sin(\omega_d t) / \omega_d,
    \qquad \omega_d^2 = \omega_0^2 - \gamma^2,$$

    with hyperbolic functions where $\omega_d^2 < 0$ and the limit $c = e^{-\gamma t}$,
    $s = t e^{-\gamma t}$ at critical damping. Both and their derivatives are smooth in all three
    arguments, because near critical damping they are power series in
    $(\gamma^2 - \omega_0^2) t^2$.

    Args:
        t: time, s.
        gamma: damping rate, 1/s.
        omega0: natural angular frequency, rad/s.
    """
    z = (gamma - omega0) * (gamma + omega0) * t * t
    near = jnp.abs(z) < 1e-2
    small = jnp.where(near, z, 0.0)
    # cosh(sqrt z) and sinh(sqrt z) / sqrt z; the terms left out are below 3e-17.
    cosine = 1.0 + small / 2 * (1.0 + small / 12 * (1.0 + small / 30 * (1.0 + small / 56)))
    sine = 1.0 + small / 6 * (1.0 + small / 20 * (1.0 + small / 42 * (1.0 + small / 72)))
    decay = jnp.exp(-gamma * t)

    under = (z < 0) & ~near
    angle = jnp.sqrt(jnp.where(under, -z, 1.0))

    # One exponential of the slower rate, sqrt(z) - gamma t, cannot overflow. The product of the two
    # rates gives it without cancellation.
    over = (z > 0) & ~near
    rate = jnp.sqrt(jnp.where(over, z, 1.0))
    total = rate + jnp.abs(gamma * t)
    exponent = jnp.where(gamma * t > 0, -((omega0 * t) ** 2) / total, total)
    slow = jnp.exp(jnp.where(over, exponent, 0.0))
    fast = -jnp.expm1(-2.0 * rate)  # 1 - exp(-2 rate)

    c = jnp.where(over, slow * (1.0 - fast / 2), decay * jnp.where(under, jnp.cos(angle), cosine))
    s = jnp.where(
        over, slow * fast / (2.0 * rate), decay * jnp.where(under, jnp.sin(angle) / angle, sine)
    )
    return c, t * s


def propagate(
    t: Float[Array, "*times"], state: Float[Array, "2"], gamma: Parameter, omega0: Parameter
) -> Float[Array, "*times 2"]:
    r"""The free oscillator's state (x, v) a time later.

    $$\begin{pmatrix} x \\ v \end{pmatrix}(t) = \begin{pmatrix} c + \gamma s & s \\
    -\omega_0^2 s & c - \gamma s \end{pmatrix} \begin{pmatrix} x \\ v \end{pmatrix}(0).$$

    Args:
        t: elapsed time, s.
        state: position in m and velocity in m/s at time 0.
        gamma: damping rate, 1/s.
        omega0: natural angular frequency, rad/s.
    """
    c, s = free_motion(t, gamma, omega0)
    x, v = state
    return jnp.stack(
        [(c + gamma * s) * x + s * v, (c - gamma * s) * v - omega0**2 * s * x], axis=-1
    )
