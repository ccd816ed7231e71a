"""Fitting next-step maps: a whole network by gradient, its readout by least squares."""

import os
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from physml import fit as fitting
from physml import residuals
from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_finite, require_share
from physml._numerics.devices import for_each_chunk, num_cores
from physml._types import Residual
from physml.data import Noise, Trajectories, Windows, noise_levels
from physml.reference import FlowMap
from physml.results import RESULTS, conclude
from physml.surrogate._design import Design
from physml.surrogate._noisy import refine
from physml.surrogate._rows import cast, rows_of, unknown_increments
from physml.surrogate._stepper import Matrix, Network, Stepper
from physml.systems import System


class StepperFit(eqx.Module):
    """A fitted step map and how it came about.

    Attributes:
        step_map: the result.
        before_refit: the step map before least squares fitted its readout.
        training: what `fit.gradient` returned: the history, the result, the seconds; None from
            `fit_readout`, which does not train.
        noise: the standard deviation of the noise in each column that was taken out of the data;
            None if the data were taken as they are.
        states: the data without their noise, as the map explains them; None likewise.
    """

    step_map: Stepper
    before_refit: Stepper
    training: fitting.Fit | None
    noise: Float[Array, " dim"] | None = None
    states: Trajectories | None = None

    @property
    def result(self) -> RESULTS:
        """How the training ended. After `interrupted` the readout was not refitted."""
        return RESULTS.successful if self.training is None else self.training.result


@checked
def fit(
    network: Network,
    train: Trajectories,
    valid: Trajectories | None = None,
    *,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 1024,
    length: int = 1,
    residual: Residual = residuals.step,
    symmetry: Matrix | None = None,
    known: System | None = None,
    period: float | None = None,
    refit: bool = True,
    warmup: int = 0,
    rcond: float | None = None,
    refinements: int = 1,
    noise: Noise | None = None,
    patience: int | None = None,
    devices: Sequence[object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fitting.Callback = False,
) -> StepperFit:
    """Train a whole network as a next-step map by gradient, then refit its readout.

    Gradient descent leaves a relative error of 1e-3 to 1e-5 a step, however long it runs. The last
    layer is linear, and least squares on the trained features reduces the error by orders of
    magnitude: the smoother the features, the more. Weight decay on the hidden layers keeps them
    smooth.

    The training runs in the dtype of the network's weights, everything else in that of the data: a
    float32 network on float64 data is trained in float32, which is fast, and refitted in float64.

    Args:
        network: an `nn.MLP`, an `nn.RNN` or a module with the same methods (see `Stepper`). It is
            not changed.
        train: the trajectories to learn from; their time step is the map's.
        valid: trajectories for early stopping; the best network on them is kept.
        optimizer: any optax transformation.
        key: for the order of the batches.
        steps: optimizer steps.
        epochs: passes over the data; give either these or the steps.
        batch_size: windows a step.
        length: steps in a window; back-propagation through a recurrent network goes so far.
        residual: `residuals.step` (each step from the true row) or `residuals.rollout` (the
            network feeds itself for the whole window).
        symmetry: a matrix S to build in, see `Stepper`; often `system.symmetry`.
        known: the part of the vector field that is known, see `Stepper`.
        period: the period of the drive, often `system.period`.
        refit: whether to refit the readout as `fit_readout` does.
        warmup, rcond, refinements: see `fit_readout`.
        noise: the noise to take out of the data, see `fit_readout`. The network is trained on
            smoothed rows, and validated on such.
        patience: validations without improvement before training stops.
        devices: among these each batch is divided, see `fit.gradient`.
        checkpoint: a folder from which the same call goes on, see `fit.gradient`.
        progress: True for a progress bar, or a callback.

    Raises:
        TypeError, ValueError: as `Stepper.create`, `fit.gradient` and `fit_readout`; or the
            trajectories do not hold a window.
    """
    levels, smooth = _without_noise(noise, train, "surrogate.fit")
    start = Stepper.create(network, smooth, symmetry=symmetry, known=known, period=period)
    if levels is not None and valid is not None:
        valid = valid.smoothed(levels)
    require_count(1, (train.ys.shape[1] - 1, "the steps of train"), length=length)
    _check_refit(warmup, train, rcond, refinements)
    dtype = network.readout.kernel[...].dtype

    def windows(trajectories: Trajectories | None) -> Windows | None:
        return None if trajectories is None else cast(trajectories.windows(length + 1), dtype)

    training = fitting.gradient(
        fitting.mean_square(residual),
        cast(start, dtype),
        windows(smooth),
        optimizer=optimizer,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        key=key,
        valid=windows(valid),
        patience=patience,
        devices=devices,
        checkpoint=checkpoint,
        progress=progress,
    )
    trained = eqx.tree_at(lambda s: s.network, start, cast(training.model.network, train.ys.dtype))
    wanted = refit and not bool(training.result == RESULTS.interrupted)
    if not wanted:
        if levels is None:
            return StepperFit(trained, trained, training)
        return StepperFit(trained, trained, training, jnp.asarray(levels), smooth)
    if levels is None:
        step_map = _refit(trained, train, warmup, rcond, refinements)
        return StepperFit(step_map, trained, training)
    step_map, states = _refit_noisy(trained, train, smooth, levels, warmup, rcond, refinements)
    return StepperFit(step_map, trained, training, jnp.asarray(levels), states)


@checked
def fit_readout(
    network: Network,
    train: Trajectories,
    *,
    symmetry: Matrix | None = None,
    known: System | None = None,
    field: System | None = None,
    period: float | None = None,
    warmup: int = 0,
    rcond: float | None = None,
    refinements: int = 1,
    noise: Noise | None = None,
) -> StepperFit:
    r"""Fit a network's readout by least squares; its hidden part stays as it is.

    Minimises the sum over all steps of |increment predicted - increment|^2 by blocked QR and SVD.
    With a symmetry S the sum runs over the data and their mirror images (for an orthogonal S that
    changes nothing), and the problem splits in two: with $\phi$ the features (and 1 for the bias),
    T the increments, $\phi_\pm = (\phi(y) \pm \phi(S y)) / 2$ and $P_\pm = (1 \pm S) / 2$, the
    weights are $\phi_+^{-1} T P_+^\top + \phi_-^{-1} T P_-^\top$ with pseudo-inverses.

    With a vector field the fit is physics-informed (Jacobian matching; Sobolev training: Czarnecki
    et al., NeurIPS 2017): each row also gives the derivative of the increment in every direction,
    Delta'(y_k) = D Phi(y_k) - 1 with Phi the field's flow over dt. The rows of component i, times
    its standard deviation, are added to the least squares; a step does not evaluate the field.

    >>> ts = jnp.linspace(0.0, 1.0, 101)
    >>> train = reference.trajectories(systems.Lorenz(), key, 10, ts)
    >>> inputs = surrogate.network_inputs(train)
    >>> network = nn.MLP.frozen(inputs, 50, 3, scale=0.06, rngs=nnx.Rngs(0))
    >>> step_map = surrogate.fit_readout(network, train).step_map
    >>> dynamics.rollout(step_map, train.ys[:, :1], 100).shape
    (10, 101, 3)

    Args:
        network: an `nn.MLP` or `nn.RNN`, usually made by `.frozen` from `network_inputs(train)`.
        train: the trajectories to learn from; their time step is the map's.
        symmetry: a matrix S to build in, see `Stepper`.
        known: the part of the vector field that is known and stepped, see `Stepper`.
        field: the autonomous vector field of the data, for a network without memory. It makes
            dim + 1 times as many rows, which pays where data are few.
        period: the period of the drive.
        warmup: rows left out at the start of each trajectory, where a recurrent network's memory
            still fills. A recurrent network's features of all rows are held at once.
        rcond: singular values below this share of the largest are left out; 5 machine epsilons
            unless given. Smooth features have singular values down to rounding, and the smallest
            of them carry the last digits.
        refinements: how often the fit is repeated on its residual, see `fit.readout`.
        noise: the noise to take out of the data: "auto", which estimates it (and finds none in
            clean data, which are then fitted as ever), or its standard deviation, one or one for
            each column; 0 takes the rows as they are. By default the rows are taken as they are,
            with a warning if they are noisy. One-step least squares on noisy rows has noise in
            its inputs, which biases the map. With this argument the states become unknowns too:
            the readout and the states are fitted together, so that the map explains the rows over
            many steps (a Kalman smoother within Gauss-Newton), with as many combinations of the
            features as trajectories that are held out need. A recurrent network is fitted to
            smoothed rows, see `Trajectories.smoothed`.

    Raises:
        TypeError, ValueError: as `Stepper.create`; or the warm-up leaves no step, or a field is
            given with a period, a known part, noise or a network that has a memory; or `noise` is
            asked for where `Trajectories.smoothed` refuses.
    """
    levels, smooth = _without_noise(noise, train, "surrogate.fit_readout")
    stepper = Stepper.create(network, smooth, symmetry=symmetry, known=known, period=period)
    _check_refit(warmup, train, rcond, refinements)
    unfit = period or known is not None or stepper.recurrent or levels is not None
    if field is not None and unfit:
        raise ValueError(
            "field must be None for a driven system, a known part, a network with a memory or "
            f"data whose noise is taken out, got {type(field).__name__}"
        )
    if levels is not None:
        step_map, states = _refit_noisy(stepper, train, smooth, levels, warmup, rcond, refinements)
        return StepperFit(step_map, stepper, None, jnp.asarray(levels), states)
    return StepperFit(_refit(stepper, train, warmup, rcond, refinements, field), stepper, None)


def _without_noise(
    noise: Noise | None, train: Trajectories, name: str
) -> tuple[np.ndarray | None, Trajectories]:
    """The noise of each column that is to be taken out, and the smoothed rows, or None and all."""
    require_finite("train.ys", train.ys)
    if noise is None:
        noisy = noise_levels(train.ys)
        if np.any(noisy):
            spread = np.asarray(train.ys).std(axis=(0, 1))
            shares = noisy / np.where(spread > 0, spread, 1.0)
            said = ", ".join(f"{x:.2g}" for x in 100 * shares)
            conclude(None, RESULTS.noisy, name, f"Found: {said} % of the spread.", throw=False)
        return None, train
    levels = noise_levels(train.ys, noise)
    return (levels, train.smoothed(levels)) if levels.any() else (None, train)


def _refit_noisy(
    stepper: Stepper,
    train: Trajectories,
    smooth: Trajectories,
    noise: np.ndarray,
    warmup: int,
    rcond: float | None,
    refinements: int,
) -> tuple[Stepper, Trajectories]:
    """The map of noisy rows, and the states it explains them by."""
    if stepper.recurrent:
        return _refit(stepper, smooth, warmup, rcond, refinements), smooth
    found = refine(stepper, train, smooth, noise, warmup, rcond)
    ys = smooth.ys.at[:, warmup:].set(found.states)
    return _with_weights(stepper, found.weights), eqx.tree_at(lambda t: t.ys, smooth, ys)


def _with_weights(stepper: Stepper, weights: np.ndarray) -> Stepper:
    """The stepper with another readout: a matrix and a bias, in units of the increments."""
    weights = weights / np.asarray(stepper.scale)
    network = nnx.clone(stepper.network)
    network.readout.kernel[...] = jnp.asarray(weights[:-1])
    network.readout.bias[...] = jnp.asarray(weights[-1])  # pyright: ignore[reportOptionalSubscript]
    return eqx.tree_at(lambda s: s.network, stepper, network)


def _refit(
    stepper: Stepper,
    train: Trajectories,
    warmup: int,
    rcond: float | None,
    refinements: int,
    field: System | None = None,
) -> Stepper:
    dim, dtype = train.ys.shape[-1], train.ys.dtype
    rcond = 5 * float(jnp.finfo(dtype).eps) if rcond is None else rcond
    increments = unknown_increments(train, stepper.known)[:, warmup:].reshape(-1, dim)
    rows: tuple[Array, ...] = rows_of(train, warmup)
    if stepper.recurrent:
        rows = _recurrent_rows(stepper, train.ys[:, :-1], train.t0s + train.ts[0], warmup)
    if field is not None:
        flow = FlowMap(system=field, dt=train.dt)
        rows, increments = _with_jacobians(flow, rows, increments, stepper.inputs.std)
    # NumPy, so that no small programs are compiled.
    increments, symmetry = np.asarray(increments), stepper.symmetry
    mirrored = None if symmetry is None else increments @ np.asarray(symmetry).T
    parities = (1.0,) if mirrored is None else (1.0, -1.0)
    found: dict[int, np.ndarray] = {}

    def work(index: np.ndarray, rows_: slice) -> None:
        parity = parities[index[0]]
        targets = increments if mirrored is None else 0.5 * (increments + parity * mirrored)
        design = Design(stepper, jnp.asarray(parity, dtype))
        fitted = fitting.readout(
            design, targets, inputs=rows, rcond=rcond, equilibrate=True, refinements=refinements
        )
        found[rows_.start] = np.asarray(fitted.weights)

    with single_threaded_blas():  # each parity on a core of its own
        for_each_chunk(work, len(parities), 1, num_cores())
    return _with_weights(stepper, np.sum([found[i] for i in range(len(parities))], axis=0))


@eqx.filter_jit
def _with_jacobians(
    flow: FlowMap, rows: tuple[Array, ...], increments: Array, sd: Array
) -> tuple[tuple[Array, ...], Array]:
    """The rows, and below them a row for each component: a direction, and the slope along it."""
    ys = rows[0]
    dim = ys.shape[1]

    def slopes(y: Array) -> Array:
        def increment(y: Array) -> Array:
            return flow.observe(flow.step(flow.init(y[None], 0.0))) - y

        return jax.vmap(lambda v: jax.jvp(increment, (y,), (v,))[1])(jnp.diag(sd))

    targets = jnp.swapaxes(jax.vmap(slopes)(ys), 0, 1).reshape(-1, dim)
    directions = jnp.repeat(jnp.diag(sd), len(ys), axis=0)
    again = [jnp.concatenate([x] * (dim + 1)) for x in rows]
    return (
        (*again, jnp.concatenate([jnp.zeros_like(ys), directions])),
        jnp.concatenate([increments, targets]),
    )


@eqx.filter_jit
def _recurrent_rows(stepper: Stepper, ys: Array, t0s: Array, warmup: int) -> tuple[Array, ...]:
    features = jax.vmap(lambda y, t0: stepper.features_along(y, t0)[1])(ys, t0s)
    return tuple(phi[:, warmup:].reshape(-1, phi.shape[-1]) for phi in features)


def _check_refit(warmup: int, train: Trajectories, rcond: float | None, refinements: int) -> None:
    require_count(0, refinements=refinements)
    if rcond is not None:
        require_share(rcond=rcond)
    steps = train.ys.shape[1] - 1
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup must leave some of the {steps} steps, got {warmup}")
