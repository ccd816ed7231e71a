"""Next-step maps: networks that learn y(t + dt) from y(t), and never see the equation.

The network predicts the increment over a step in units of its spread, from standardised inputs;
what it learns is small and smooth, and the identity comes for free.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from physml import fit as fitting
from physml import residuals
from physml._checks import floating_array, require_finite
from physml._types import Residual, StepMap
from physml.data import Standardizer, Trajectories, Windows
from physml.fit.loop import Callback

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
    inputs = Standardizer.fit(train.ys[:, :-1])
    ys, t0s, counts = _rows(train)
    return jax.vmap(lambda y, t0, k: _inputs(inputs, y, t0, k, train.dt, period))(ys, t0s, counts)


class State(eqx.Module):
    """The state of a `Stepper`.

    The networks' memories belong to the steps before; `t0` is the time of step zero.
    """

    y: Float[Array, " dim"]
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

    Attributes:
        net: has `readout`, the last affine layer, and either `features(x)` (`nn.MLP`) or
            `initial_carry(dtype=)` and `advance(carry, x)` (`nn.RNN`).
        inputs: standardises states.
        scale: the standard deviation of the increments, per component.
        dt: the time step.
        symmetry: the matrix S, or None.
        period: the period of the drive, in the units of dt, or None.
    """

    net: nnx.Module
    inputs: Standardizer
    scale: Float[Array, " dim"]
    symmetry: Float[Array, "dim dim"] | None
    dt: float = eqx.field(static=True)
    period: float | None = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        net: nnx.Module,
        train: Trajectories,
        *,
        symmetry: Matrix | None = None,
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
        if not (hasattr(net, "readout") and (hasattr(net, "features") or hasattr(net, "advance"))):
            raise TypeError(
                "net must have a readout and either features(x) or advance(carry, x), as nn.MLP "
                f"and nn.RNN do; got {type(net).__name__}"
            )
        outputs = net.readout.out_features  # pyright: ignore[reportAttributeAccessIssue]
        if outputs != dim:
            raise ValueError(f"net must give {dim} outputs, got {outputs}")
        increments = Standardizer.fit(train.ys[:, 1:] - train.ys[:, :-1])
        inputs = Standardizer.fit(train.ys[:, :-1])
        period = None if period is None else float(period)
        stepper = cls(
            net=_cast(net, dtype),
            inputs=inputs,
            scale=increments.std,
            symmetry=symmetry,
            dt=train.dt,
            period=period,
        )
        size = dim if period is None else dim + 2
        try:
            jax.eval_shape(stepper.increments, train.ys[0, :1], train.t0s[0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"net must take {size} inputs: {error}") from error
        return stepper

    @property
    def recurrent(self) -> bool:
        """Whether the network has a memory."""
        return hasattr(self.net, "advance")

    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> State:
        """The state at the end of a history; a recurrent network's memory is warmed up on it.

        Args:
            history: consecutive observations `dt` apart, oldest first. One row starts a recurrent
                network with an empty memory.
            t0: the time of the last row.
        """
        t0 = jnp.asarray(t0, history.dtype)
        before = history.shape[0] - 1
        carry, _ = self._features_along(history[:-1], t0, first=-before)
        return State(history[-1], carry, jnp.zeros((), jnp.int32), t0)

    def step(self, state: State) -> State:
        carry, features = self._features(state.carry, state.y, state.t0, state.count)
        return State(state.y + self._increment(features), carry, state.count + 1, state.t0)

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
        _, features = self._features_along(ys, t0)
        return jax.vmap(self._increment)(features)

    def _features_along(self, ys: Array, t0: Array, first: int = 0) -> tuple[Any, tuple[Any, ...]]:
        counts = first + jnp.arange(ys.shape[0], dtype=jnp.int32)
        if not self.recurrent:
            each = jax.vmap(lambda y, k: self._features((), y, t0, k)[1])
            return (), each(ys, counts)
        images = 1 if self.symmetry is None else 2
        empty = self.net.initial_carry(dtype=ys.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        start = (empty,) * images
        return jax.lax.scan(
            lambda carry, row: self._features(carry, row[0], t0, row[1]), start, (ys, counts)
        )

    def _features(
        self, carry: tuple[Any, ...], y: Array, t0: Array, count: Array
    ) -> tuple[tuple[Any, ...], tuple[Array, ...]]:
        net: Any = self.net
        images = (y,) if self.symmetry is None else (y, self.symmetry @ y)
        xs = [_inputs(self.inputs, image, t0, count, self.dt, self.period) for image in images]
        if not self.recurrent:
            return (), tuple(net.features(x) for x in xs)
        advanced = [net.advance(memory, x) for memory, x in zip(carry, xs, strict=True)]
        return tuple(memory for memory, _ in advanced), tuple(phi for _, phi in advanced)

    def _increment(self, features: tuple[Array, ...]) -> Array:
        readout: Any = self.net.readout  # pyright: ignore[reportAttributeAccessIssue]
        outputs = [self.scale * readout(phi) for phi in features]
        if self.symmetry is None:
            return outputs[0]
        return 0.5 * (outputs[0] + self.symmetry @ outputs[1])


class SurrogateFit(eqx.Module):
    """A fitted step map and how it came about.

    Attributes:
        step_map: the result; its readout is refitted unless that was declined.
        trained: the step map as gradient training left it.
        history: by metric, from `fit.gradient`.
        result: how the training ended.
        seconds: training and refitting, without the training's compiling.
        compile_seconds: compiling the training.
    """

    step_map: Stepper
    trained: Stepper
    history: dict[str, np.ndarray]
    result: fitting.RESULTS
    seconds: float
    compile_seconds: float


def fit(
    net: nnx.Module,
    train: Trajectories,
    valid: Trajectories | None = None,
    *,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 1024,
    window: int = 1,
    residual: Residual = residuals.step,
    symmetry: Matrix | None = None,
    period: float | None = None,
    refit: bool = True,
    warmup: int = 0,
    rcond: float | None = None,
    patience: int | None = None,
    progress: bool | Callback = False,
) -> SurrogateFit:
    """Train a whole network as a next-step map by gradient, then refit its readout.

    Gradient descent leaves a relative error of 1e-3 to 1e-5 a step, however long it runs; the last
    layer is linear, and least squares on the features that training found takes it orders of
    magnitude further. Weight decay on the hidden layers keeps those features smooth, which decides
    how far.

    The training runs in the dtype of the network's weights and everything else in that of the data:
    a float32 network on float64 data is trained in float32, quickly, and refitted in float64.

    Args:
        net: an `nn.MLP`, an `nn.RNN` or a module with the same methods (see `Stepper`). It is not
            changed.
        train: the trajectories to learn from; their time step is the map's.
        valid: trajectories for early stopping; the best network on them is kept.
        optimizer: any optax transformation.
        key: for the order of the batches.
        steps: optimizer steps, or
        epochs: passes over the data; give one of the two.
        batch_size: windows a step.
        window: steps in a window. For a recurrent network the stretch that is back-propagated
            through.
        residual: `residuals.step` (each step from the true row) or `residuals.rollout` (the
            network feeds itself for the whole window).
        symmetry: a matrix S to build in, see `Stepper`; often `system.symmetry`.
        period: the period of the drive, often `system.period`.
        refit: whether to refit the readout as `fit_readout` does.
        warmup: see `fit_readout`.
        rcond: see `fit_readout`.
        patience: validations without improvement before training stops.
        progress: True for a progress bar, or a callback.

    Raises:
        TypeError, ValueError: as `Stepper.create`, `fit.gradient` and `fit_readout`; or a window is
            no number of steps that the trajectories hold.
    """
    start = Stepper.create(net, train, symmetry=symmetry, period=period)
    if window < 1:
        raise ValueError(f"window must be at least 1 step, got {window}")
    _check_warmup(warmup, train)
    dtype = _weights(net).dtype

    def windows(trajectories: Trajectories | None) -> Windows | None:
        return None if trajectories is None else _cast(trajectories.windows(window + 1), dtype)

    fitted = fitting.gradient(
        fitting.mean_square(residual),
        _cast(start, dtype),
        windows(train),
        optimizer=optimizer,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        key=key,
        valid=windows(valid),
        patience=patience,
        progress=progress,
    )
    trained = eqx.tree_at(lambda s: s.net, start, _cast(fitted.model.net, train.ys.dtype))
    return SurrogateFit(
        step_map=_refit(trained, train, warmup, rcond) if refit else trained,
        trained=trained,
        history=fitted.history,
        result=fitted.result,
        seconds=fitted.seconds,
        compile_seconds=fitted.compile_seconds,
    )


def fit_readout(
    net: nnx.Module,
    train: Trajectories,
    *,
    symmetry: Matrix | None = None,
    period: float | None = None,
    warmup: int = 0,
    rcond: float | None = None,
) -> Stepper:
    r"""A next-step map whose hidden part stays as it is; the readout is fitted by least squares.

    Minimises the sum over all steps of |increment predicted - increment|^2 by blocked QR and SVD.
    With a symmetry S the sum runs over the data and their mirror images (for an orthogonal S that
    changes nothing), and the problem splits in two: with $\phi$ the features (and 1 for the bias),
    T the increments, $\phi_\pm = (\phi(y) \pm \phi(S y)) / 2$ and $P_\pm = (1 \pm S) / 2$, the
    weights are $\phi_+^{-1} T P_+^\top + \phi_-^{-1} T P_-^\top$ with pseudo-inverses.

    Args:
        net: an `nn.MLP` or `nn.RNN`, usually made by `.frozen` from `network_inputs(train)`.
        train: the trajectories to learn from; their time step is the map's.
        symmetry: a matrix S to build in, see `Stepper`.
        period: the period of the drive.
        warmup: rows left out at the start of each trajectory, where a recurrent network's memory
            still fills. A recurrent network's features of all rows are held at once.
        rcond: singular values below this share of the largest are left out; 5 machine epsilons
            unless given. Smooth features have singular values down to rounding, and it is the
            smallest that carry the last digits.

    Raises:
        TypeError, ValueError: as `Stepper.create`; or the warm-up leaves no step.
    """
    stepper = Stepper.create(net, train, symmetry=symmetry, period=period)
    _check_warmup(warmup, train)
    return _refit(stepper, train, warmup, rcond)


class _Design(eqx.Module):
    """The readout's features of a block of rows, and 1; of one parity if there is a symmetry."""

    stepper: Stepper
    parity: Float[Array, ""]

    def __call__(self, rows: Any) -> Float[Array, "rows columns"]:
        if self.stepper.recurrent:
            features = rows
        else:
            features = jax.vmap(lambda y, t0, k: self.stepper._features((), y, t0, k)[1])(*rows)
        if len(features) == 1:
            return jnp.pad(features[0], ((0, 0), (0, 1)), constant_values=1.0)
        combined = 0.5 * (features[0] + self.parity * features[1])
        return jnp.pad(combined, ((0, 0), (0, 1)), constant_values=0.5 * (1 + self.parity))


def _refit(stepper: Stepper, train: Trajectories, warmup: int, rcond: float | None) -> Stepper:
    dim, dtype = train.ys.shape[-1], train.ys.dtype
    rcond = 5 * float(jnp.finfo(dtype).eps) if rcond is None else rcond
    increments = (train.ys[:, 1:] - train.ys[:, :-1])[:, warmup:].reshape(-1, dim)
    rows: Any = _rows(train, warmup)
    if stepper.recurrent:
        rows = _recurrent_rows(stepper, train.ys[:, :-1], train.t0s, warmup)
    parities = (1.0,) if stepper.symmetry is None else (1.0, -1.0)
    weights = jnp.zeros((), dtype)
    for parity in parities:
        targets = increments
        if stepper.symmetry is not None:
            targets = 0.5 * (increments + parity * increments @ stepper.symmetry.T)
        design = _Design(stepper, jnp.asarray(parity, dtype))
        weights = weights + fitting.readout(design, targets, inputs=rows, rcond=rcond).weights
    weights = weights / jnp.broadcast_to(stepper.scale, weights.shape)
    net: Any = nnx.clone(stepper.net)
    net.readout.kernel[...] = weights[:-1]
    net.readout.bias[...] = weights[-1]
    return eqx.tree_at(lambda s: s.net, stepper, net)


@eqx.filter_jit
def _recurrent_rows(stepper: Stepper, ys: Array, t0s: Array, warmup: int) -> tuple[Array, ...]:
    features = jax.vmap(lambda y, t0: stepper._features_along(y, t0)[1])(ys, t0s)
    return tuple(phi[:, warmup:].reshape(-1, phi.shape[-1]) for phi in features)


def _rows(train: Trajectories, warmup: int = 0) -> tuple[Array, Array, Array]:
    """Every row with a successor: its state, its trajectory's start time and its step count."""
    num, time, dim = train.ys.shape
    counts = jnp.arange(warmup, time - 1, dtype=jnp.int32)
    ys = train.ys[:, warmup:-1].reshape(-1, dim)
    return ys, jnp.repeat(train.t0s + train.ts[0], len(counts)), jnp.tile(counts, num)


def _inputs(
    standardizer: Standardizer, y: Array, t0: Array, count: Array, dt: float, period: float | None
) -> Array:
    x = standardizer(y)
    if period is None:
        return x
    angle = 2 * math.pi * turns(count, t0, dt, period)
    return jnp.concatenate([x, jnp.stack([jnp.cos(angle), jnp.sin(angle)])])


def _cast(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in another dtype."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else x, tree
    )


def _weights(net: Any) -> Array:
    return net.readout.kernel[...]


def _check_warmup(warmup: int, train: Trajectories) -> None:
    steps = train.ys.shape[1] - 1
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup must leave some of the {steps} steps, got {warmup}")
