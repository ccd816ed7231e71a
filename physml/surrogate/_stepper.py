"""A network as a next-step map: normalisation, exact phase, built-in symmetry, memory."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int

from physml._numerics.checks import floating_array, require_finite
from physml.data import Standardizer, Trajectories
from physml.reference import runge_kutta
from physml.step_maps import StepMap
from physml.systems import System

Matrix = Sequence[Sequence[float]] | Float[Array | np.ndarray, "dim dim"]


def turns(
    count: Int[Array, ""], t0: Float[Array, ""], dt: float, period: float
) -> Float[Array, ""]:
    """(t0 + count dt) / period modulo 1, as exact after millions of steps as after one.

    dt / period = R / 2^32 + rest. count R modulo 2^32 is integer arithmetic that wraps round by
    itself and loses nothing; count rest is a small correction. So in float32 too the error stays
    near the rounding of the answer, where t0 + count dt would lose a digit with every tenfold.

    Args:
        count: steps since t0, of either sign, int32.
        t0: the time of step zero; the result has its dtype.
        dt: the time step.
        period: the period, in the units of dt.

    Returns:
        The phase in turns; multiples of one are not all taken out.
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


def network_inputs(
    train: Trajectories, *, period: float | None = None
) -> Float[Array, "rows inputs"]:
    """Every input that a network will be shown: what `MLP.frozen` and `RNN.frozen` are made for.

    One row for each step: the state standardised over the data and, for a driven system,
    (cos, sin) of the drive's phase 2 pi t / period.
    """
    return _network_inputs(Standardizer.fit(train.ys[:, :-1]), train, period)


class State(eqx.Module):
    """The state of a `Stepper`.

    The networks' memories belong to the steps before; `t0` is the time of step zero. `rest` is
    what rounding took from y so far, as bits: it is no coordinate and has no derivative.
    """

    y: Float[Array, " dim"]
    rest: Int[Array, " dim"]
    carry: tuple[Any, ...]  # a memory for y, another for its mirror image; () without memory
    count: Int[Array, ""]
    t0: Float[Array, ""]


class Stepper(StepMap):
    r"""A network as a step map: $y_{k+1} = y_k + s \odot N(\tilde y_k)$.

    $\tilde y$ is y standardised over the training data, with $\cos, \sin$ of $2\pi t_k/T$ appended
    where the system is driven with period T, and s is the standard deviation of the increments.
    A recurrent N also takes the memory of the steps before. The phase comes from the integer step
    count (`turns`) and is never rolled out.

    A symmetry S of the flow (S S = 1, f(S y) = S f(y)) is built in by the average over the group,

    $$\Delta(y) = \tfrac12 \left(s \odot N(\tilde y) + S\, (s \odot N(\widetilde{S y}))\right),$$

    so that Delta(S y) = S Delta(y) holds whatever N is. It costs two evaluations a step, and makes
    a set of features fit as well as two to three times as many without it.

    With a known vector field g the step is a hybrid: one step of the classical Runge-Kutta method
    for g is added, and the network learns what is left, of an equation known in part or of the
    method's own error.

    Increments are much smaller than y. What their addition rounds away is carried along and added
    to the next one (compensated summation: Kahan, Comm. ACM 8, 1965; Hairer, Lubich and Wanner,
    Geometric Numerical Integration, section VIII.5), so that a forecast is no worse than its
    increments. In float32 that is worth half a Lyapunov time of the Lorenz system.

    Attributes:
        network: has `readout`, the last affine layer, and either `features(x)` (`nn.MLP`) or
            `initial_carry(dtype=)` and `advance(carry, x)` (`nn.RNN`).
        inputs: standardises states.
        scale: the standard deviation of the increments, per component.
        dt: the time step.
        symmetry: the matrix S, or None.
        known: the vector field g, or None.
        period: the period of the drive, in the units of dt, or None.
    """

    network: nnx.Module
    inputs: Standardizer
    scale: Float[Array, " dim"]
    symmetry: Float[Array, "dim dim"] | None
    known: System | None
    dt: float = eqx.field(static=True)
    period: float | None = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        network: nnx.Module,
        train: Trajectories,
        *,
        symmetry: Matrix | None = None,
        known: System | None = None,
        period: float | None = None,
    ) -> "Stepper":
        """A step map around a network as it is, normalised by the data it is to be fitted to.

        Raises:
            TypeError: the network has no readout, or neither `features` nor `advance`.
            ValueError: the network takes or gives the wrong number of values, the data are not
                finite, S is no matrix of the data's dimension with S S = 1, or the period is not
                positive.
        """
        require_finite("train.ys", train.ys)
        dim, dtype = train.ys.shape[-1], train.ys.dtype
        if period is not None and not (math.isfinite(period) and period > 0):
            raise ValueError(f"period must be positive and finite, got {period}")
        if symmetry is not None:
            symmetry = floating_array("symmetry", symmetry, dtype)
            if symmetry.shape != (dim, dim):
                raise ValueError(f"symmetry must have shape ({dim}, {dim}), got {symmetry.shape}")
            if not np.allclose(symmetry @ symmetry, np.eye(dim), atol=1e-5):
                raise ValueError(f"symmetry must be its own inverse, got {symmetry.tolist()}")
        if not (
            hasattr(network, "readout")
            and (hasattr(network, "features") or hasattr(network, "advance"))
        ):
            raise TypeError(
                "network must have a readout and either features(x) or advance(carry, x), "
                f"as nn.MLP and nn.RNN do; got {type(network).__name__}"
            )
        outputs = network.readout.out_features  # pyright: ignore[reportAttributeAccessIssue]
        if outputs != dim:
            raise ValueError(f"network must give {dim} outputs, got {outputs}")
        increments = Standardizer.fit(unknown_increments(train, known))
        inputs = Standardizer.fit(train.ys[:, :-1])
        period = None if period is None else float(period)
        stepper = cls(
            network=cast(network, dtype),
            inputs=inputs,
            scale=increments.std,
            symmetry=symmetry,
            known=known,
            dt=train.dt,
            period=period,
        )
        size = dim if period is None else dim + 2
        try:
            jax.eval_shape(stepper.increments, train.ys[0, :1], train.t0s[0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"network must take {size} inputs: {error}") from error
        return stepper

    @property
    def recurrent(self) -> bool:
        """Whether the network has a memory."""
        return hasattr(self.network, "advance")

    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> State:
        """The state at the end of a history; a recurrent network's memory is warmed up on it.

        Args:
            history: consecutive observations `dt` apart, oldest first. One row starts a recurrent
                network with an empty memory.
            t0: the time of the last row.
        """
        t0 = jnp.asarray(t0, history.dtype)
        before = history.shape[0] - 1
        carry, _ = self.features_along(history[:-1], t0, first=-before)
        y = history[-1]
        return State(y, _bits(jnp.zeros_like(y)), carry, jnp.zeros((), jnp.int32), t0)

    def step(self, state: State) -> State:
        y, t0, count = state.y, state.t0, state.count
        carry, features = self.features(state.carry, y, t0, count)
        increment = self._increment(features, y, t0 + count.astype(t0.dtype) * self.dt)
        increment = increment + jax.lax.bitcast_convert_type(state.rest, y.dtype)
        following = y + increment
        # What the sum lost, exactly (Knuth's two-sum).
        added = following - y
        rest = (y - (following - added)) + (increment - added)
        return State(following, _bits(rest), carry, count + 1, t0)

    def observe(self, state: State) -> Float[Array, " dim"]:
        return state.y

    def increments(
        self, ys: Float[Array, "time dim"], t0: Float[Array, ""]
    ) -> Float[Array, "time dim"]:
        """The increment predicted after every row, each made from the true rows up to it.

        Args:
            ys: consecutive observations `dt` apart.
            t0: the time of the first row. A recurrent network starts there with an empty memory.
        """
        _, features = self.features_along(ys, t0)
        times = t0 + self.dt * jnp.arange(ys.shape[0], dtype=ys.dtype)
        return jax.vmap(self._increment)(features, ys, times)

    def pairs(
        self, trajectories: Trajectories
    ) -> tuple[Float[Array, "rows inputs"], Float[Array, "rows dim"]]:
        """What the bare network is shown at every row, and what it should say: scaled increments.

        Rows to train a network without memory on, one for each step of the trajectories.
        """
        inputs = _network_inputs(self.inputs, trajectories, self.period)
        increments = unknown_increments(trajectories, self.known) / self.scale[None, None]
        return inputs, increments.reshape(len(inputs), -1)

    def features_along(
        self, ys: Float[Array, "time dim"], t0: Float[Array, ""], first: int = 0
    ) -> tuple[Any, tuple[Float[Array, "time features"], ...]]:
        """The carry after a stretch of true rows, and what the readout sees at every row.

        Args:
            ys: consecutive observations `dt` apart.
            t0: the time of step zero.
            first: the step count of the first row.
        """
        counts = first + jnp.arange(ys.shape[0], dtype=jnp.int32)
        if not self.recurrent:
            each = jax.vmap(lambda y, k: self.features((), y, t0, k)[1])
            return (), each(ys, counts)
        images = 1 if self.symmetry is None else 2
        empty = self.network.initial_carry(dtype=ys.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        start = (empty,) * images
        return jax.lax.scan(
            lambda carry, row: self.features(carry, row[0], t0, row[1]), start, (ys, counts)
        )

    def features(
        self,
        carry: tuple[Any, ...],
        y: Float[Array, " dim"],
        t0: Float[Array, ""],
        count: Int[Array, ""],
    ) -> tuple[tuple[Any, ...], tuple[Float[Array, " features"], ...]]:
        """One step on: the carry, and what the readout sees of y and, with a symmetry, of S y."""
        network: Any = self.network
        images = (y,) if self.symmetry is None else (y, self.symmetry @ y)
        xs = [_inputs(self.inputs, image, t0, count, self.dt, self.period) for image in images]
        if not self.recurrent:
            return (), tuple(network.features(x) for x in xs)
        advanced = [network.advance(memory, x) for memory, x in zip(carry, xs, strict=True)]
        return tuple(memory for memory, _ in advanced), tuple(phi for _, phi in advanced)

    def _increment(self, features: tuple[Array, ...], y: Array, t: Array) -> Array:
        readout: Any = self.network.readout  # pyright: ignore[reportAttributeAccessIssue]
        if self.symmetry is None:
            (phi,) = features
            learned = self.scale * readout(phi)
        else:
            # The group's average, with the features combined before the readout: a readout made
            # for the odd ones would make large values of the even ones, only for them to cancel.
            here, mirrored = features
            even = self.scale * readout(0.5 * (here + mirrored))
            odd = self.scale * (0.5 * (here - mirrored) @ readout.kernel[...])
            learned = 0.5 * (even + self.symmetry @ even + odd - self.symmetry @ odd)
        return learned if self.known is None else learned + runge_kutta(self.known, t, y, self.dt)


def unknown_increments(train: Trajectories, known: System | None) -> Float[Array, "num steps dim"]:
    """What a network is to learn: all increments, less those of what is known."""
    return _unknown_increments(train, known, None if known is None else train.dt)


@eqx.filter_jit
def _unknown_increments(train: Trajectories, known: System | None, dt: float | None) -> Array:
    increments = train.ys[:, 1:] - train.ys[:, :-1]
    if known is None or dt is None:
        return increments
    times = train.t0s[:, None] + train.ts[None, :-1]
    ys = jnp.moveaxis(train.ys[:, :-1], -1, 0)
    return increments - jnp.moveaxis(runge_kutta(known, times, ys, dt), 0, -1)


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.int64 if x.dtype == jnp.float64 else jnp.int32)


def _inputs(
    standardizer: Standardizer, y: Array, t0: Array, count: Array, dt: float, period: float | None
) -> Array:
    x = standardizer(y)
    if period is None:
        return x
    angle = 2 * math.pi * turns(count, t0, dt, period)
    return jnp.concatenate([x, jnp.stack([jnp.cos(angle), jnp.sin(angle)])])


def _network_inputs(
    standardizer: Standardizer, trajectories: Trajectories, period: float | None
) -> Array:
    dt = trajectories.dt
    each = jax.vmap(lambda y, t0, k: _inputs(standardizer, y, t0, k, dt, period))
    return each(*rows_of(trajectories))


def rows_of(train: Trajectories, warmup: int = 0) -> tuple[Array, Array, Array]:
    """Every row with a successor: its state, its trajectory's start time and its step count."""
    num, time, dim = train.ys.shape
    counts = jnp.arange(warmup, time - 1, dtype=jnp.int32)
    ys = train.ys[:, warmup:-1].reshape(-1, dim)
    return ys, jnp.repeat(train.t0s + train.ts[0], len(counts)), jnp.tile(counts, num)


@eqx.filter_jit
def cast(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in another dtype."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else x, tree
    )
