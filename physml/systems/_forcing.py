"""Forces that drive an oscillator, and the steady motion of a linear oscillator under each."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float

from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import is_concrete, require_count
from physml._numerics.parts import as_pytree
from physml.systems._base import Fact, Parameter, Time, check_parameters, parameter, times_within
from physml.systems._linear import amplitude_response, free_motion, phase_lag


class Forcing(eqx.Module):
    """A force as a function of time, `forcing(t)`, in newtons for t in seconds."""

    period: Fact[Parameter | None]
    """The period, s; None if there is none or none is known."""

    def __check_init__(self):
        check_parameters(self)

    @abc.abstractmethod
    def __call__(self, t: Time) -> Float[Array, "..."]:
        """The force at one or many times, of the shape of `t`."""

    @abc.abstractmethod
    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        """The times in [t0, t1] at which the force jumps, increasing."""

    @abc.abstractmethod
    def steady_state(
        self, t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
    ) -> Float[Array, "*times 2"]:
        r"""The periodic solution (x, v) of $\ddot x + 2\gamma\dot x + \omega_0^2 x = F(t)$.

        Args:
            t: time, s.
            gamma: damping rate, 1/s.
            omega0: natural angular frequency, rad/s.

        Returns:
            Position in m and velocity in m/s of an oscillator of 1 kg.

        Raises:
            ValueError: no closed form is known for this force.
            RuntimeError: a resonance of an undamped oscillator, which has no steady state.
        """


def _not_resonant(value: Array, distance: Array, scale: Array) -> Array:
    """`value`, or a run-time error where rounding hides the distance to a resonance."""
    floor = 16.0 * jnp.finfo(distance.dtype).eps * scale
    message = "the force meets the resonance of an undamped oscillator: there is no steady state"
    return eqx.error_if(value, distance <= floor, message)


def as_floating(t: Time) -> Float[Array, "..."]:
    """Times as an array of floats; whole numbers become floats."""
    return jnp.asarray(t, None if jnp.issubdtype(jnp.result_type(t), jnp.floating) else float)


class Cosine(Forcing):
    r"""A sinusoidal force $F(t) = F_0 \cos(\Omega t + \varphi)$.

    Attributes:
        amplitude: $F_0$, N.
        frequency: angular frequency $\Omega > 0$, rad/s.
        phase: $\varphi$, rad.
    """

    amplitude: Parameter = parameter()
    frequency: Parameter = parameter(positive=True)
    phase: Parameter = parameter(0.0)

    @property
    def period(self) -> Parameter:
        r"""$2\pi/\Omega$, s."""
        return 2.0 * math.pi / self.frequency

    @checked
    def __call__(self, t: Time) -> Float[Array, "..."]:
        return self.amplitude * jnp.cos(self.frequency * as_floating(t) + self.phase)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return np.zeros(0)

    @checked
    def steady_state(
        self, t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
    ) -> Float[Array, "*times 2"]:
        r"""$x = A \cos(\Omega t + \varphi - \delta)$ with $A = F_0 |\chi(\Omega)|$ and the lag
        $\delta$ of `physml.systems.phase_lag`."""
        gain = amplitude_response(self.frequency, gamma, omega0)
        gain = _not_resonant(gain, 1.0 / gain, jnp.asarray(omega0**2))
        amplitude = self.amplitude * gain
        angle = self.frequency * t + self.phase - phase_lag(self.frequency, gamma, omega0)
        return jnp.stack(
            [amplitude * jnp.cos(angle), -self.frequency * amplitude * jnp.sin(angle)], axis=-1
        )


class FourierSeries(Forcing):
    r"""A periodic force by its Fourier coefficients.

    With $\omega = 2\pi/\tau$,

    $$F(t) = \frac{a_0}{2} + \sum_{n=1}^{N} a_n \cos n\omega t + b_n \sin n\omega t.$$

    Attributes:
        a0: twice the mean, N.
        a: cosine coefficients $a_1 \ldots a_N$, N.
        b: sine coefficients $b_1 \ldots b_N$, N.
        period: $\tau > 0$, s.

    Source: the lecture notes, eq. 3 (there f and g for a and b).
    """

    a0: Parameter = parameter()
    a: Float[Array, " harmonics"] = parameter()
    b: Float[Array, " harmonics"] = parameter()
    period: Parameter = parameter(positive=True)

    def __check_init__(self):
        check_parameters(self)
        if jnp.ndim(self.a) != 1 or jnp.shape(self.a) != jnp.shape(self.b):
            raise ValueError(
                "FourierSeries.a and b must have one axis and one length, "
                f"got shapes {jnp.shape(self.a)} and {jnp.shape(self.b)}"
            )

    def _frequencies(self, dtype: DTypeLike) -> Float[Array, " harmonics"]:
        return jnp.arange(1, self.a.shape[0] + 1, dtype=dtype) * (2.0 * math.pi / self.period)

    def _sum(self, t: Array, a: Array, b: Array, lag: Array | float) -> Array:
        """The sum of a cos(n w t - lag) + b sin(n w t - lag), at each time."""
        angle = jnp.multiply.outer(t, self._frequencies(t.dtype))
        angle = angle - jnp.broadcast_to(lag, angle.shape)
        total = jnp.dot(jnp.cos(angle), a, precision="highest")
        return total + jnp.dot(jnp.sin(angle), b, precision="highest")

    @checked
    def __call__(self, t: Time) -> Float[Array, "..."]:
        t = as_floating(t)
        a, b = self.a.astype(t.dtype), self.b.astype(t.dtype)
        return 0.5 * self.a0 + self._sum(t, a, b, 0.0)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return np.zeros(0)

    @checked
    def steady_state(
        self, t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
    ) -> Float[Array, "*times 2"]:
        r"""The superposition of the harmonics' answers, with $\chi_n, \delta_n$ at $n\omega$:

        $$x = \frac{a_0}{2\omega_0^2} + \sum_n |\chi_n| \left(a_n \cos(n\omega t - \delta_n)
        + b_n \sin(n\omega t - \delta_n)\right)$$

        Source: the lecture notes, eq. 5, where the root, the spring constant and the quadrant of
        the angle are corrected here.
        """
        n_omega = self._frequencies(t.dtype)
        gain = amplitude_response(n_omega, gamma, omega0)
        gain = _not_resonant(gain, 1.0 / gain, jnp.asarray(omega0**2))
        lag = phase_lag(n_omega, gamma, omega0)
        a, b = gain * self.a.astype(t.dtype), gain * self.b.astype(t.dtype)
        x = 0.5 * self.a0 / omega0**2 + self._sum(t, a, b, lag)
        return jnp.stack([x, self._sum(t, n_omega * b, -n_omega * a, lag)], axis=-1)


class SquareWave(Forcing):
    r"""A train of rectangular pulses.

    The force is `high` for `width` seconds around `centre` and around every time a whole number
    of periods from it, and `low` between. The defaults are the lecture notes' pulse train, of
    levels 0 and 2 and mean 1. An odd wave ±F₀ is `SquareWave(-F0, F0, period, period / 2,
    centre=period / 4)`.

    Attributes:
        low, high: the two levels, N.
        period: $\tau > 0$, s.
        width: duration of `high`, between 0 and the period, s.
        centre: the middle of a pulse, s.
    """

    low: Parameter = parameter(0.0)
    high: Parameter = parameter(2.0)
    period: Parameter = parameter(0.2, positive=True)
    width: Parameter = parameter(0.1, positive=True)
    centre: Parameter = parameter(0.0)

    def __check_init__(self):
        check_parameters(self)
        known = is_concrete(self.period) and is_concrete(self.width)
        if known and not np.all(np.asarray(self.period) > np.asarray(self.width)):
            raise ValueError(
                f"SquareWave.width must be less than the period {self.period}, got {self.width}"
            )

    def _middle(self, t: Array) -> Array:
        """The middle of the pulse nearest to a time."""
        # A compiler contracts a product and a sum to one rounding and regroups sums of constants.
        # If an edge differed in the last digit from that of `jump_times`, a solver that continues
        # right after a jump would see the force from before it. With the period split in two, both
        # products are exact, so contraction changes nothing; the barrier keeps later sums separate.
        turns = jnp.round((t - self.centre) / self.period)
        period, kind = jnp.asarray(self.period, t.dtype), jnp.finfo(t.dtype)
        head = jax.lax.reduce_precision(period, kind.nexp, kind.nmant // 2)
        middle = (turns * head + turns * (period - head)) + self.centre
        return jax.lax.optimization_barrier(middle)

    @checked
    def __call__(self, t: Time) -> Float[Array, "..."]:
        t = as_floating(t)
        middle, half = self._middle(t), 0.5 * self.width
        inside = (t >= middle - half) & (t < middle + half)
        return jnp.where(inside, self.high, self.low)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        period, centre, half = float(self.period), float(self.centre), 0.5 * float(self.width)
        first = (t0 - centre) / period - 1.0
        last = (t1 - centre) / period + 1.0
        middles = np.arange(math.floor(first), math.ceil(last) + 1) * period + centre
        return times_within(np.concatenate([middles - half, middles + half]), t0, t1)

    @checked
    def fourier_series(self, n: int) -> FourierSeries:
        r"""The first `n` harmonics, with D = `high` − `low`, width w and centre c:

        $$a_0 = 2\left(\text{low} + D \frac{w}{\tau}\right), \qquad
        (a_k, b_k) = \frac{2 D}{\pi k} \sin\frac{\pi k w}{\tau}\,
        (\cos k\omega c, \sin k\omega c)$$

        Raises:
            ValueError: `n` is negative.
        """
        require_count(0, n=n)
        k = jnp.arange(1, n + 1, dtype=float)
        step = self.high - self.low
        height = 2.0 * step / (math.pi * k) * jnp.sin(math.pi * k * (self.width / self.period))
        angle = k * (2.0 * math.pi * self.centre / self.period)
        return FourierSeries(
            a0=2.0 * (self.low + step * (self.width / self.period)),
            a=height * jnp.cos(angle),
            b=height * jnp.sin(angle),
            period=self.period,
        )

    @checked
    def steady_state(
        self, t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
    ) -> Float[Array, "*times 2"]:
        r"""The fixed point of the affine map of one period, propagated to the times t.

        With $\Phi$ the free oscillator's propagator, $e = (D/\omega_0^2, 0)$ and u the time
        since the pulse began, the motion above the rest position under `low` is

        $$y = \begin{cases} e - (1 - \Phi_\tau)^{-1} (\Phi_u - \Phi_{u+\tau-w})\,e & u < w \\
        (1 - \Phi_\tau)^{-1} (\Phi_{u-w} - \Phi_u)\,e & u \ge w. \end{cases}$$

        The inverse is the geometric series over all earlier periods, so there is no loop over them.
        """
        # Within half a period; the motion is continuous, so rounding at an edge does no harm.
        offset = t - self._middle(t)
        half = 0.5 * self.width
        inside = (offset >= -half) & (offset < half)
        since_fall = jnp.where(offset < half, offset + self.period, offset) - half
        since_rise = jnp.where(offset < -half, offset + self.period, offset) + half

        # (1 - Phi)^-1 as an explicit 2 x 2 inverse.
        c, s = free_motion(jnp.asarray(self.period, t.dtype), gamma, omega0)
        determinant = (1.0 - c) ** 2 + (omega0 - gamma) * (omega0 + gamma) * s**2
        distance = jnp.sqrt(jnp.maximum(determinant, 0.0))
        determinant = _not_resonant(determinant, distance, jnp.asarray(omega0 * self.period))

        # Both cases apply a difference of first columns, Phi_later - Phi_earlier.
        c_rise, s_rise = free_motion(since_rise, gamma, omega0)
        c_fall, s_fall = free_motion(since_fall, gamma, omega0)
        dc, ds = c_fall - c_rise, s_fall - s_rise
        p, q = dc + gamma * ds, -(omega0**2) * ds
        step = (self.high - self.low) / omega0**2
        x = step * ((1.0 - c + gamma * s) * p + s * q) / determinant
        v = step * ((1.0 - c - gamma * s) * q - omega0**2 * s * p) / determinant
        rest = self.low / omega0**2
        return jnp.stack([rest + x + jnp.where(inside, step, 0.0), v], axis=-1)


class FunctionForcing(Forcing):
    """A user's own force.

    Attributes:
        function: the force in N at one time in s, vectorised over many times. A callable pytree
            keeps its leaves differentiable; a plain function is static.
        period: its period, s, if it has one.
        jumps: the times at which it jumps, s.
    """

    function: Callable[[Array], ArrayLike] = eqx.field(converter=as_pytree)
    period: Parameter | None = parameter(None, positive=True)
    jumps: tuple[float, ...] = eqx.field(default=(), static=True)

    @checked
    def __call__(self, t: Time) -> Float[Array, "..."]:
        def one(t: Array) -> Array:
            force = ask("function", "function(t)", self.function, t)
            return answer("function", "a force", force, jnp.shape(t))

        return jnp.vectorize(one)(as_floating(t))

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return times_within(self.jumps, t0, t1)

    @checked
    def steady_state(
        self, t: Float[Array, "*times"], gamma: Parameter, omega0: Parameter
    ) -> Float[Array, "*times 2"]:
        raise ValueError(
            "no closed form is known for a user's force: integrate with "
            "physml.reference.solve, or give the force as a FourierSeries"
        )


def as_forcing(value: object) -> Any:
    """Any callable but a `Forcing` as a `FunctionForcing`; everything else unchanged."""
    if callable(value) and not isinstance(value, Forcing):
        return FunctionForcing(function=value)
    return value
