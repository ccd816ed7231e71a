r"""Fourier series of periodic forces, what they do to an oscillator, and the convolution theorem.

A periodic force is a sum of harmonics, $\omega = 2\pi/\tau$,

$$F(t) = \frac{a_0}{2} + \sum_{n=1}^{N} a_n \cos n\omega t + b_n \sin n\omega t,$$

a `systems.FourierSeries`, which is called with the time. Its coefficients come from a closed form,
from integrals of any force, or from samples. A linear oscillator answers each harmonic by itself;
the answers add up.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from physml._numerics.calls import checked
from physml._numerics.checks import (
    floating_array,
    floating_arrays,
    is_concrete,
    require_count,
    require_finite,
    require_positive,
)
from physml._numerics.quadrature import gauss
from physml.systems import (
    DrivenOscillator,
    Forcing,
    FourierSeries,
    FunctionForcing,
    SquareWave,
)

GIBBS = 0.0894898722360836
r"""The overshoot of the partial sums at a jump, $\mathrm{Si}(\pi)/\pi - 1/2$ of the jump's height,
in the limit of many harmonics. The first maximum is 1.0895 jumps above the lower level."""

_POINTS = 32  # Gauss points of a panel, which holds at most three periods of the last harmonic


@checked
def square_wave(n: int, amplitude: float = 1.0, period: float = 1.0) -> FourierSeries:
    r"""An odd wave that jumps between ±F₀: $b_k = 4 F_0 / (\pi k)$ for odd k.

    `systems.SquareWave.fourier_series` has pulses of any width, height and place.

    Args:
        n: the number of harmonics.
        amplitude: $F_0$.
        period: $\tau > 0$.

    Raises:
        TypeError, ValueError: `n` is no count, the amplitude is not finite, or the period is not
            positive.
    """
    k = _harmonics(n, amplitude, period)
    return _series(0.0, 0.0 * k, amplitude * 4.0 / (math.pi * k) * (k % 2), period)


@checked
def triangle_wave(n: int, amplitude: float = 1.0, period: float = 1.0) -> FourierSeries:
    r"""An even wave of straight lines, F₀ at t = 0: $a_k = 8 F_0 / (\pi k)^2$ for odd k.

    Args and raises as `square_wave`.
    """
    k = _harmonics(n, amplitude, period)
    return _series(0.0, amplitude * 8.0 / (math.pi * k) ** 2 * (k % 2), 0.0 * k, period)


@checked
def sawtooth_wave(n: int, amplitude: float = 1.0, period: float = 1.0) -> FourierSeries:
    r"""An odd wave that rises from −F₀ to F₀ and jumps back at τ/2:
    $b_k = (-1)^{k+1}\, 2 F_0 / (\pi k)$.

    Args and raises as `square_wave`.
    """
    k = _harmonics(n, amplitude, period)
    sign = 2.0 * (k % 2) - 1.0
    return _series(0.0, 0.0 * k, amplitude * sign * 2.0 / (math.pi * k), period)


@checked
def rectified_sine(n: int, amplitude: float = 1.0, period: float = 1.0) -> FourierSeries:
    r"""What a rectifier leaves, $F_0 |\sin(\pi t / \tau)|$:
    $a_0 = 4 F_0/\pi,\ a_k = -4 F_0 / (\pi (4 k^2 - 1))$.

    Args and raises as `square_wave`.
    """
    k = _harmonics(n, amplitude, period)
    a = -amplitude * 4.0 / (math.pi * (4.0 * k**2 - 1.0))
    return _series(amplitude * 4.0 / math.pi, a, 0.0 * k, period)


@checked
def coefficients(
    force: Forcing | Callable[[Array], ArrayLike],
    n: int,
    period: float | None = None,
    jumps: Sequence[float] = (),
) -> FourierSeries:
    r"""The series of any periodic force, by quadrature of the integrals over one period.

    $$a_k = \frac{2}{\tau} \int_0^\tau F(t) \cos k\omega t \, dt, \qquad
    b_k = \frac{2}{\tau} \int_0^\tau F(t) \sin k\omega t \, dt.$$

    Gauss-Legendre panels lie between the jumps. They are halved until the coefficients no longer
    change, so the result is right to rounding where the force is smooth between its jumps.

    >>> series = fourier.coefficients(lambda t: jnp.cos(t) ** 2, n=3, period=2 * jnp.pi)
    >>> round(float(series.a0), 12), round(float(series.a[1]), 12)
    (1.0, 0.5)

    Args:
        force: a `systems.Forcing`, or a function of the time.
        n: the number of harmonics.
        period: $\tau$, where the force does not know its own.
        jumps: the times at which a plain function jumps or has a kink; any one period will do.

    Raises:
        TypeError, ValueError: an argument of the wrong kind; no period is known; the force is
            not finite, or not smooth between its jumps.

    Source: the lecture notes, eq. 6.
    """
    require_count(n=n)
    if not isinstance(force, Forcing):
        force = FunctionForcing(function=force, period=period, jumps=tuple(map(float, jumps)))
    elif period is not None or jumps:
        raise ValueError("period and jumps must be left out where the force is a Forcing")
    if force.period is None:
        raise ValueError("period must be given for a force that does not know its own, got None")
    if not is_concrete(force.period):
        raise ValueError("period must not be traced: the panels are laid out beforehand")
    tau = float(force.period)
    known = np.asarray(force.jumps) if isinstance(force, FunctionForcing) else None
    inner = force.jump_times(0.0, tau) if known is None else known % tau
    edges = np.unique([0.0, *inner, tau])
    panels = np.ceil(n * np.diff(edges) / (3.0 * tau)).astype(int)
    most = max(256, 8 * panels.sum())
    last = _integrals(force, n, edges, panels)
    while True:
        panels = 2 * panels
        c = _integrals(force, n, edges, panels)
        size, change = np.max(np.abs(c)), np.max(np.abs(c - last))
        if not np.isfinite(size):
            raise ValueError("force must be finite, got NaN or infinity within a period")
        if change <= 256 * jnp.finfo(float).eps * size:
            return _series(2.0 * np.real(c[0]), 2.0 * np.real(c[1:]), -2.0 * np.imag(c[1:]), tau)
        if panels.sum() >= most:
            break
        last = c
    raise ValueError(
        "force must be smooth between its jumps, got coefficients that still change with "
        f"{panels.sum()} panels: name the times of its jumps and kinks in `jumps`"
    )


@checked
def coefficients_from_samples(
    samples: Real[ArrayLike, " samples"], n: int, period: float = 1.0
) -> FourierSeries:
    r"""The series of equally spaced samples of one period, by the fast Fourier transform.

    With N samples from t = 0 on, what the force has at the harmonics $N \pm k, 2N \pm k, \ldots$
    is added to harmonic k: the coefficients of a force that jumps are right to 1/N, those of a
    smooth force to rounding.

    Args:
        samples: F at t = 0, τ/N, ..., τ − τ/N.
        n: the number of harmonics, less than N / 2.
        period: $\tau > 0$.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or too few samples.
    """
    samples = floating_array("samples", samples)
    require_finite("samples", samples)
    require_count(n=n)
    require_positive(period=period)
    if samples.ndim != 1 or samples.shape[0] <= 2 * n:
        raise ValueError(
            f"samples must have shape (samples,) with more than {2 * n} of them for {n} "
            f"harmonics, got shape {samples.shape}"
        )
    c = jnp.fft.rfft(samples)[: n + 1] / samples.shape[0]
    return _series(2.0 * c[0].real, 2.0 * c[1:].real, -2.0 * c[1:].imag, period)


@checked
def mean_square(series: FourierSeries) -> Float[Array, ""]:
    r"""The mean of $F^2$ over a period, by Parseval: $a_0^2/4 + \sum_n (a_n^2 + b_n^2)/2$."""
    return series.a0**2 / 4.0 + 0.5 * jnp.sum(series.a**2 + series.b**2)


@checked
def gibbs_overshoot(wave: SquareWave, n: int) -> Float[Array, ""]:
    """How far the sum of n harmonics rises above the upper level, as a share of the jump.

    It is measured: the highest value over a period, found on a grid of 32 points to a wavelength of
    the last harmonic and then by Newton's iteration on the slope. It tends to `GIBBS` and not to
    zero; only its place moves towards the jump.

    Args:
        wave: the pulses.
        n: the number of harmonics.

    Raises:
        TypeError, ValueError: `wave` is no `SquareWave`, or `n` no count.
    """
    require_count(n=n)
    series = wave.fourier_series(n)
    ts = jnp.arange(32 * n, dtype=float) * (wave.period / (32 * n))
    top, slope = ts[jnp.argmax(series(ts))], jax.grad(series)
    for _ in range(4):
        top = top - slope(top) / jax.grad(slope)(top)
    return (series(top) - wave.high) / (wave.high - wave.low)


@checked
def response(series: FourierSeries, oscillator: DrivenOscillator) -> FourierSeries:
    r"""The steady motion of a damped linear oscillator under a periodic force, as a series too.

    Each harmonic answers by itself, and the answers add up (superposition). With k the spring
    constant and $\delta_n = \operatorname{atan2}(2\gamma n\omega, \omega_0^2 - n^2\omega^2)$,

    $$x(t) = \frac{a_0}{2k} + \sum_n \alpha_n \cos(n\omega t - \delta_n)
    + \beta_n \sin(n\omega t - \delta_n), \qquad
    (\alpha_n, \beta_n) = \frac{(a_n, b_n) / m}
    {\sqrt{(\omega_0^2 - n^2\omega^2)^2 + 4\gamma^2 n^2\omega^2}}.$$

    The force of the oscillator itself is not looked at.

    Returns:
        x in m as a `FourierSeries`; its terms are $\alpha_n \cos\delta_n - \beta_n \sin\delta_n$
        and $\alpha_n \sin\delta_n + \beta_n \cos\delta_n$.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a harmonic meets the resonance of an undamped oscillator.

    Source: the lecture notes, eq. 5, with the square under the root and the quadrant of the angle
    put right.
    """
    n = jnp.arange(1, series.a.shape[0] + 1, dtype=series.a.dtype)
    omega = n * (2.0 * math.pi / series.period)
    in_phase = (oscillator.omega0 - omega) * (oscillator.omega0 + omega)
    behind = 2.0 * oscillator.gamma * omega
    size = in_phase**2 + behind**2
    driven = (series.a != 0) | (series.b != 0)
    if is_concrete(size) and np.any(np.asarray(driven & (size == 0))):
        raise ValueError(
            "oscillator must be damped where a harmonic meets its natural frequency, "
            f"got gamma = {oscillator.gamma} at harmonic {int(jnp.argmin(size)) + 1}"
        )
    a, b = series.a / oscillator.mass, series.b / oscillator.mass
    size = jnp.where(driven, size, 1.0)
    return _series(
        series.a0 / oscillator.spring_constant,
        (a * in_phase - b * behind) / size,
        (a * behind + b * in_phase) / size,
        series.period,
    )


@checked
def resonance_curve(
    series: FourierSeries, oscillator: DrivenOscillator, frequencies: Real[ArrayLike, " n"]
) -> Float[Array, " n"]:
    r"""The root-mean-square steady motion when the force is repeated at other frequencies.

    A force with harmonics has a peak near every $\omega = \omega_0 / n$, not only near
    $\omega_0$. The mean position $a_0 / 2k$ is left out.

    Args:
        series: the shape of the force; its own period is not used.
        oscillator: as in `response`.
        frequencies: angular frequencies $\omega > 0$, rad/s.

    Returns:
        m, at each frequency.

    Raises:
        TypeError, ValueError: as `response`; a frequency is not positive.
    """
    frequencies = floating_array("frequencies", frequencies, series.a.dtype)
    require_positive(frequencies=frequencies)
    if frequencies.ndim != 1:
        raise ValueError(f"frequencies must have shape (n,), got shape {frequencies.shape}")

    def rms(omega: Array) -> Array:
        force = _series(0.0, series.a, series.b, 2.0 * math.pi / omega)
        return jnp.sqrt(mean_square(response(force, oscillator)))

    return jax.vmap(rms)(frequencies)


@checked
def convolve_periodic(f: FourierSeries, g: FourierSeries) -> FourierSeries:
    r"""The convolution over a period, $h(t) = \frac1\tau \int_0^\tau f(s) g(t - s) \, ds$.

    By the convolution theorem its complex coefficients $c_n = (a_n - i b_n)/2$ are the products
    of those of f and g. A wave convolved with a narrow pulse of mean one is smoothed.

    Raises:
        TypeError: an argument is no `FourierSeries`.
        ValueError: the periods or the numbers of harmonics differ.
    """
    if f.a.shape != g.a.shape:
        raise ValueError(f"g must have as many harmonics as f, {f.a.shape[0]}, got {g.a.shape[0]}")
    known = is_concrete(f.period) and is_concrete(g.period)
    if known and not math.isclose(float(f.period), float(g.period), rel_tol=1e-6):
        raise ValueError(f"g must have the period of f, {f.period}, got {g.period}")
    a = 0.5 * (f.a * g.a - f.b * g.b)
    b = 0.5 * (f.a * g.b + f.b * g.a)
    return _series(0.5 * f.a0 * g.a0, a, b, f.period)


@checked
def convolve(
    x: Real[ArrayLike, "*shape"], kernel: Real[ArrayLike, "*window"]
) -> Float[Array, "*full"]:
    r"""The full convolution by the convolution theorem, $x * K = F^{-1}(Fx \cdot FK)$.

    Both are padded with zeros to the length n + k − 1 along every axis, so that nothing wraps
    around. It equals `convolution.convolve` with the kernel's lengths less one as padding, and
    needs $N \log N$ operations where that needs $N k$; its rounding errors are equally large in all
    entries.

    Raises:
        TypeError: an argument holds no real numbers.
        ValueError: the numbers of axes differ, or one is empty.
    """
    x, kernel = floating_arrays(x=x, kernel=kernel)
    if x.ndim != kernel.ndim or x.ndim == 0 or 0 in (x.size, kernel.size):
        raise ValueError(
            "x and kernel must have entries and the same number of axes, at least one, "
            f"got shapes {x.shape} and {kernel.shape}"
        )
    shape = [n + k - 1 for n, k in zip(x.shape, kernel.shape, strict=True)]
    return jnp.fft.irfftn(jnp.fft.rfftn(x, shape) * jnp.fft.rfftn(kernel, shape), shape)


def _harmonics(n: int, amplitude: float, period: float) -> Float[Array, " n"]:
    require_count(n=n)
    require_finite("amplitude", amplitude)
    require_positive(period=period)
    return jnp.arange(1, n + 1, dtype=float)


def _series(a0: object, a: object, b: object, period: object) -> FourierSeries:
    return FourierSeries(a0=a0, a=jnp.asarray(a), b=jnp.asarray(b), period=period)  # type: ignore


def _integrals(force: Forcing, n: int, edges: np.ndarray, panels: np.ndarray) -> np.ndarray:
    """The complex coefficients 0 to n, (1 / period) times the integrals of F exp(-i k w t)."""
    rule, period = gauss(_POINTS), edges[-1]
    cuts = [
        np.linspace(first, last, count + 1)[:-1]
        for first, last, count in zip(edges[:-1], edges[1:], panels, strict=True)
    ]
    starts = np.concatenate(cuts)
    spans = np.diff(np.append(starts, period))
    ts = (starts[:, None] + spans[:, None] * (rule.points + 1.0) / 2.0).ravel()
    weights = (spans[:, None] * rule.weights / 2.0).ravel()
    weighted = np.asarray(force(jnp.asarray(ts))) * weights / period
    turns = ts / period
    return np.stack([np.sum(weighted * np.exp(-2j * np.pi * k * turns)) for k in range(n + 1)])
