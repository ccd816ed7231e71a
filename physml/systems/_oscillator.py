"""Driven oscillators, and the linear one with its exact solution."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from physml._numerics.calls import checked
from physml.systems._base import (
    Fact,
    Parameter,
    System,
    Time,
    as_parameter,
    check_parameter,
    parameter,
    per_member,
)
from physml.systems._forcing import Cosine, Forcing, as_forcing
from physml.systems._linear import propagate


class Oscillator(System):
    r"""One degree of freedom under a force of time, $\ddot x = a(x, \dot x) + F(t)/m$.

    The state is (x, v) with $v = \dot x$. Every oscillator here has an odd a(x, v), so without a
    forcing the symmetry (x, v) → (−x, −v) maps solutions to solutions.
    """

    forcing: Fact[Forcing | None]

    dim = 2

    @abc.abstractmethod
    def acceleration(self, x: Array, v: Array, force: Array) -> Array:
        """dv/dt under a force; without a force it is odd in (x, v)."""

    def __check_init__(self):
        if not (self.forcing is None or isinstance(self.forcing, Forcing)):
            raise TypeError(
                f"{type(self).__name__}.forcing must be a Forcing, a function of the time "
                f"or None, got {self.forcing!r}"
            )

    @property
    def autonomous(self) -> bool:
        """True without a forcing."""
        return self.forcing is None

    @property
    def period(self) -> Parameter | None:
        """The forcing's period."""
        return None if self.forcing is None else self.forcing.period

    @property
    def symmetry(self) -> tuple[tuple[float, ...], ...] | None:
        """Minus the identity without a forcing, None with one."""
        return ((-1.0, 0.0), (0.0, -1.0)) if self.forcing is None else None

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        """The forcing's jumps."""
        return np.zeros(0) if self.forcing is None else self.forcing.jump_times(t0, t1)

    def fixed_points(self) -> Float[Array, "num 2"]:
        """The positions of rest at velocity 0; none under a forcing."""
        if self.forcing is not None:
            return jnp.zeros((0, 2))
        rest = self.rest_positions()
        return jnp.stack([rest, jnp.zeros_like(rest)], axis=-1)

    @abc.abstractmethod
    def rest_positions(self) -> Float[Array, " num"]:
        """The positions at which the free oscillator can stay."""

    def vector_field(self, t: Time, y: Float[Array, "2 *batch"], args: PyTree) -> Array:
        x, v = y
        force = per_member(0.0 if self.forcing is None else self.forcing(t), y)
        return jnp.stack([v, self.acceleration(x, v, force)])


class DrivenOscillator(Oscillator):
    r"""A mass on a spring, damped and driven: a linear system, with its exact solution.

    $$m \ddot x + 2 m \gamma \dot x + m \omega_0^2 x = F(t)$$

    State: position x in m, velocity v in m/s; time in s. The defaults are the lecture notes'
    oscillator, $\ddot x + 0.4 \dot x + x = \cos(t/2)$.

    Attributes:
        gamma: damping rate γ, 1/s; the motion is underdamped below ω₀, overdamped above.
        omega0: natural angular frequency ω₀ > 0, rad/s.
        mass: m > 0, kg.
        forcing: the force F(t) in N: a `Forcing`, any function of the time, or None.

    Example:
        >>> oscillator = systems.DrivenOscillator(gamma=0.1, forcing=systems.SquareWave())
        >>> oscillator.exact(jnp.linspace(0.0, 20.0, 201), jnp.array([1.0, 0.0])).shape
        (201, 2)
    """

    gamma: Parameter = parameter(0.2)
    omega0: Parameter = parameter(1.0, positive=True)
    mass: Parameter = parameter(1.0, positive=True)
    forcing: Forcing | None = eqx.field(default=Cosine(1.0, 0.5), converter=as_forcing)

    state_names = ("x", "v")
    box = ((-2.0, -2.0), (2.0, 2.0))
    lyapunov_exponents = None

    @classmethod
    @checked
    def from_spring(
        cls,
        mass: Parameter,
        damping: Parameter,
        spring_constant: Parameter,
        forcing: Forcing | Callable[[Array], ArrayLike] | None = None,
    ) -> "DrivenOscillator":
        r"""The oscillator $m \ddot x + \eta \dot x + k x = F(t)$.

        Args:
            mass: m > 0, kg.
            damping: η, kg/s.
            spring_constant: k > 0, N/m.
            forcing: F(t), N.

        Raises:
            ValueError: the mass or the spring constant is not positive.
        """
        mass, damping, spring_constant = map(as_parameter, (mass, damping, spring_constant))
        check_parameter("damping", damping)
        check_parameter("mass", mass, positive=True)
        check_parameter("spring_constant", spring_constant, positive=True)
        omega0 = (spring_constant / mass) ** 0.5
        return cls(damping / (2.0 * mass), omega0, mass, as_forcing(forcing))

    @property
    def spring_constant(self) -> Parameter:
        r"""$k = m \omega_0^2$, N/m."""
        return self.mass * self.omega0**2

    def acceleration(self, x: Array, v: Array, force: Array) -> Array:
        return force / self.mass - 2.0 * self.gamma * v - self.omega0**2 * x

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "2 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$-2\gamma$, 1/s."""
        return per_member(-2.0 * self.gamma, y)

    def rest_positions(self) -> Float[Array, "1"]:
        """The origin."""
        return jnp.zeros(1)

    @checked
    def energy(self, y: Float[Array, "2 *batch"]) -> Float[Array, "*batch"]:
        r"""$\frac12 m v^2 + \frac12 k x^2$, J; constant without damping and forcing."""
        x, v = y
        return 0.5 * self.mass * v**2 + 0.5 * self.spring_constant * x**2

    @checked
    def exact(
        self, t: Real[ArrayLike, "*times"], y0: Float[ArrayLike, "2"], t0: Real[ArrayLike, ""] = 0.0
    ) -> Float[Array, "*times 2"]:
        r"""The exact solution, for any damping, of a forcing with a closed-form steady state.

        By superposition, with the force's steady state p and the free propagator Φ,

        $$y(t) = p(t) + \Phi(t - t_0)\,(y_0 - p(t_0)).$$

        It is accurate to rounding, but for a loss of a factor 1/d where an undamped oscillator is
        within a relative distance d of a resonance of its force.

        Args:
            t: times, s, of any shape; before or after `t0`.
            y0: the state (m, m/s) at `t0`. Its dtype is the answer's.
            t0: the time of `y0`, s.

        Returns:
            Position in m and velocity in m/s at each time.

        Raises:
            ValueError: no closed form is known for this forcing.
            RuntimeError: an undamped oscillator is driven at its resonance.
        """
        y0 = jnp.asarray(y0)
        t, t0 = jnp.asarray(t, y0.dtype), jnp.asarray(t0, y0.dtype)
        if self.forcing is None:
            return propagate(t - t0, y0, self.gamma, self.omega0)
        steady = self.forcing.steady_state(t, self.gamma, self.omega0)
        start = self.forcing.steady_state(t0, self.gamma, self.omega0)
        free = propagate(t - t0, y0 - start / self.mass, self.gamma, self.omega0)
        return steady / self.mass + free
