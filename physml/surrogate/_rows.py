"""What a next-step network learns from: its inputs with the drive's phase, and the increments."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import require_positive
from physml.data import Standardiser, Trajectories
from physml.reference import runge_kutta
from physml.systems import System


@checked
def network_inputs(
    train: Trajectories, *, period: float | None = None
) -> Float[Array, "rows inputs"]:
    """All inputs that a network gets from the data, for which `MLP.frozen` draws its weights.

    One row for each step: the state standardised over the data and, for a driven system,
    (cos, sin) of the drive's phase 2 pi t / period.
    """
    if period is not None:
        require_positive(period=period)
    return standardised_inputs(Standardiser.fit(train.ys[:, :-1]), train, period)


def turns(
    count: Int[Array, ""], t0: Float[Array, ""], dt: float, period: float
) -> Float[Array, ""]:
    """(t0 + count dt) / period modulo 1, as exact after millions of steps as after one.

    dt / period = R / 2^32 + rest. Integer arithmetic wraps round by itself, so count R modulo 2^32
    is exact, and count rest is a small correction. In float32 too the error stays near the rounding
    of the result; t0 + count dt would lose a digit whenever the count grows tenfold. The count is
    int32, of either sign; the result has the dtype of t0, and may be off by whole turns.
    """
    ratio = math.fmod(dt / period, 1.0)
    whole = round(ratio * 2**32)
    rest = ratio - whole / 2**32
    wrapped = count.astype(jnp.uint32) * jnp.asarray(whole % 2**32, jnp.uint32)
    signed = jax.lax.bitcast_convert_type(wrapped, jnp.int32)
    start = t0 / period
    return (
        (start - jnp.round(start)) + signed.astype(t0.dtype) / 2**32 + count.astype(t0.dtype) * rest
    )


def inputs_of(
    standardiser: Standardiser, y: Array, t0: Array, count: Array, dt: float, period: float | None
) -> Array:
    """A network's input at step `count`: the standardised state, and the drive's phase if any."""
    x = standardiser(y)
    if period is None:
        return x
    angle = 2 * math.pi * turns(count, t0, dt, period)
    return jnp.concatenate([x, jnp.stack([jnp.cos(angle), jnp.sin(angle)])])


def standardised_inputs(
    standardiser: Standardiser, trajectories: Trajectories, period: float | None
) -> Array:
    """A network's inputs at every step of the trajectories."""
    dt = trajectories.dt
    each = jax.vmap(lambda y, t0, k: inputs_of(standardiser, y, t0, k, dt, period))
    return each(*rows_of(trajectories))


@eqx.filter_jit  # one program in place of a dozen small ones
def rows_of(train: Trajectories, warmup: int = 0) -> tuple[Array, Array, Array]:
    """Of every row with a successor: its state, its trajectory's start time, its step count."""
    num, time, dim = train.ys.shape
    counts = jnp.arange(warmup, time - 1, dtype=jnp.int32)
    ys = train.ys[:, warmup:-1].reshape(-1, dim)
    return ys, jnp.repeat(train.t0s + train.ts[0], len(counts)), jnp.tile(counts, num)


def unknown_increments(train: Trajectories, known: System | None) -> Float[Array, "num steps dim"]:
    """The increments that a network has to learn: all, less those of the known part."""
    return _unknown_increments(train, known, None if known is None else train.dt)


@eqx.filter_jit
def _unknown_increments(train: Trajectories, known: System | None, dt: float | None) -> Array:
    increments = train.ys[:, 1:] - train.ys[:, :-1]
    if known is None or dt is None:
        return increments
    times = train.t0s[:, None] + train.ts[None, :-1]
    ys = jnp.moveaxis(train.ys[:, :-1], -1, 0)
    return increments - jnp.moveaxis(runge_kutta(known, times, ys, dt), 0, -1)


@eqx.filter_jit
def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The tree with its floating arrays in another dtype."""
    floating, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda x: x.astype(dtype), floating), rest)
