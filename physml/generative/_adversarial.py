"""Adversarial networks: a generator learns to deceive a critic, which learns to find it out."""

import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray, PyTree, Scalar

from physml import fit as fitting
from physml._numerics.calls import answer, ask, checked, summary
from physml._numerics.checks import (
    floating_array,
    require_count,
    require_finite,
    require_not_negative,
)
from physml.generative._codec import Rows, cast, checked_rows, normalisation
from physml.generative._objectives import Objective, Wasserstein

RowsResidual = Callable[[Float[Array, "rows *row"]], Float[Array, "rows ..."]]
"""What is zero where rows of data, in their own unit, obey an equation."""

Labels = Int[Array | np.ndarray, " rows"]
Batch = tuple[Array, Array]  # normalised rows, and the codes of their classes


class Generator(eqx.Module):
    r"""Data from noise: $x = m + s\, G(z, c)$ with z from the standard normal distribution.

    m and s normalise the training data as in a `Codec`; c is the class that is asked for, if there
    are classes, as a row of zeros with a one. With bounds a and b, such as those of an image's
    pixels, $x = a + (b - a)\, \sigma(G(z, c))$ instead, $\sigma$ the logistic function.

    Attributes:
        network: G, from `latent` + `classes` numbers to a row of the data.
        mean: m.
        scale: s.
        latent: how many numbers z has.
        classes: how many classes there are, 0 if data have none.
        bounds: a and b, between which all numbers lie, or None.
    """

    network: nnx.Module
    mean: Float[Array, "*row"]
    scale: Float[Array, ""]
    latent: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    bounds: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.bounds is not None:
            _check_bounds(self.bounds)

    def __repr__(self) -> str:
        facts = {
            "network": type(self.network).__name__,
            "a row": " x ".join(map(str, self.mean.shape)),
            "latent": self.latent,
            "classes": self.classes or "none",
        }
        if self.bounds is not None:
            facts["all numbers"] = "from {:g} to {:g}".format(*self.bounds)
        return summary("Generator", facts)

    @checked
    def __call__(
        self, z: Float[Array | np.ndarray, "rows latent"], labels: Labels | None = None
    ) -> Float[Array, "rows *row"]:
        """The rows that latent numbers, and classes, stand for.

        Raises:
            ValueError: z has another number of columns than `latent`; labels are missing, not
                wanted, not one for each row, or not from 0 to `classes` - 1.
        """
        z = floating_array("z", z)
        require_finite("z", z)
        if z.shape[1] != self.latent:
            raise ValueError(f"z must have {self.latent} columns, got {z.shape[1]}")
        codes = checked_labels(labels, len(z), self.classes, z.dtype)
        x = self.scale * _made(self.network, z, codes, (self.mean, self.scale), self.bounds)
        return x + jnp.broadcast_to(self.mean, x.shape)

    @checked
    def sample(
        self, num: int, key: PRNGKeyArray, labels: Labels | None = None
    ) -> Float[Array, "num *row"]:
        """New rows of data.

        Args:
            num: how many.
            key: for the latent numbers.
            labels: the class of each, if the generator has classes.

        Raises:
            ValueError: as `__call__`, or fewer than one row.
        """
        require_count(num=num)
        return self(jax.random.normal(key, (num, self.latent), self.mean.dtype), labels)


class AdversarialFit(eqx.Module):
    """A trained generator and how it came about.

    Attributes:
        generator: the result.
        critic: the network it was trained against.
        training: what `fit.game` returned: the history, the result, the state to go on from.
    """

    generator: Generator
    critic: nnx.Module
    training: fitting.Fit


@checked
def fit_adversarial(
    network: nnx.Module,
    critic: nnx.Module,
    train: Rows,
    labels: Labels | None = None,
    *,
    latent: int,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    key: PRNGKeyArray,
    steps: int,
    objective: Objective = Wasserstein(),  # noqa: B008 -- immutable
    residual: RowsResidual | None = None,
    residual_weight: float = 1.0,
    bounds: tuple[float, float] | None = None,
    batch_size: int = 128,
    turns: int = 1,
    memory: float | None = 0.999,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fitting.Callback = False,
    callback: fitting.Callback | None = None,
    state: fitting.GameState | None = None,
) -> AdversarialFit:
    r"""Train a generator against a critic, as `fit.game` does.

    With labels both see the class: the generator as further inputs, the critic by having one
    output for each class, of which that of the row's class is its score.

    With a residual, the generator also pays `residual_weight` times its root mean square in each
    row that it makes, on average over the rows: it learns an equation that the data obey together
    with their distribution. Squares would punish few rows of large residuals most, and a generator
    that avoids these misses a part of the data.

    The training runs in the dtype of the networks' weights, on normalised rows.

    Args:
        network: the generator's, from `latent` + classes numbers to a row; not changed. Its output
            may have any shape with as many numbers as a row.
        critic: from rows to one score, or one for each class; not changed.
        train: the data to learn from.
        labels: the class of each row, from 0 to the number of classes - 1.
        latent: how many random numbers a row is made from.
        optimizers: of the generator and of the critic, whose schedule has `turns` times `steps`.
        key: for the order of the batches and the noise.
        steps: steps of the generator, those behind `state` included.
        objective: `Wasserstein(...)`, `NonSaturating(...)`, `Relativistic(...)`, or your own
            subclass of `Objective`.
        residual: of rows in the data's own unit, with a row of numbers or a number for each, such
            as `residuals.defects` of windows.
        residual_weight: how much it weighs.
        bounds: what all numbers of the data lie between, such as the (0, 1) of black and white. A
            network whose outputs have no bounds needs many steps to learn where pixels are black.
        batch_size: rows in a batch.
        turns: steps of the critic before each step of the generator.
        memory: see `fit.game`: the generator that comes back has the mean weights.
        checkpoint, progress, callback, state: as for `fit.game`.

    Raises:
        TypeError, ValueError: as `fit.game`; data with fewer than two rows, not finite or all the
            same; labels that are not one for each row or negative; bounds that are not two numbers,
            the lower one first, or do not hold the data; or networks that do not take or give such
            rows.
    """
    train = checked_rows("train", train)
    require_count(latent=latent, turns=turns)
    classes = 0 if labels is None else int(np.max(np.asarray(labels), initial=0)) + 1
    mean, scale = normalisation(train)
    if not scale > 0:
        raise ValueError("train must have rows that differ, got rows that are all the same")
    require_count(1, (len(train) // turns, "the rows of train by turns"), batch_size=batch_size)
    require_not_negative(residual_weight=residual_weight)
    if bounds is not None:
        _check_bounds(bounds, train)
        bounds = (float(bounds[0]), float(bounds[1]))
    dtype = _dtype(network)
    codes = checked_labels(labels, len(train), classes, dtype)
    data = (((train - mean[None]) / scale).astype(dtype), codes)
    unit = (mean.astype(dtype), scale.astype(dtype))
    weight = jnp.asarray(residual_weight, dtype)
    game = _Game(objective, residual, weight, unit, latent, bounds)
    _check_networks(game, network, critic, data)
    training = fitting.game(
        (game.of_generator, game.of_critic),
        (network, critic),
        data,
        optimizers=optimizers,
        steps=steps,
        batch_size=batch_size,
        turns=turns,
        memory=memory,
        key=key,
        checkpoint=checkpoint,
        progress=progress,
        callback=callback,
        state=state,
    )
    made, judge = training.model
    generator = Generator(cast(made, train.dtype), mean, scale, latent, classes, bounds)
    return AdversarialFit(generator, judge, training)


class _Game(eqx.Module):
    """The losses of both networks on normalised rows and the codes of their classes."""

    objective: Objective
    residual: RowsResidual | None
    residual_weight: Array
    unit: tuple[Array, Array]  # mean and scale
    latent: int = eqx.field(static=True)
    bounds: tuple[float, float] | None = eqx.field(static=True)

    def of_generator(
        self, generator: PyTree, critic: PyTree, batch: Batch, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        real, codes = batch
        made = self.make(generator, batch, key)
        lost = self.objective.generator(_scores(critic, real, codes), _scores(critic, made, codes))
        if self.residual is None:
            return lost, {}
        mean, scale = self.unit
        rows = mean[None] + scale * made
        found = ask("residual", "residual(rows)", self.residual, rows)
        found = answer("residual", "an array", found)
        if found.shape[:1] != (len(rows),):
            raise ValueError(
                f"residual must have an entry for each of {len(rows)} rows, got shape {found.shape}"
            )
        squares = jnp.mean(found.reshape(len(rows), -1) ** 2, axis=1)
        # The root has no slope at zero.
        size = jnp.mean(jnp.sqrt(squares + jnp.finfo(squares.dtype).tiny))
        return lost + self.residual_weight * size, {"residual": size}

    def of_critic(
        self, critic: PyTree, generator: PyTree, batch: Batch, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        assert key is not None
        real, codes = batch
        noise_key, penalty_key = jax.random.split(key)
        made = self.make(generator, batch, noise_key)
        lost = self.objective.critic(_scores(critic, real, codes), _scores(critic, made, codes))
        penalty = self.objective.penalise(
            lambda rows: _scores(critic, rows, codes), real, made, penalty_key
        )
        return lost + penalty, {}

    def make(self, generator: PyTree, batch: Batch, key: PRNGKeyArray | None) -> Array:
        """Rows of the same classes, made from fresh noise."""
        assert key is not None
        real, codes = batch
        z = jax.random.normal(key, (len(real), self.latent), real.dtype)
        return _made(generator, z, codes, self.unit, self.bounds)


def _made(
    network: Callable[[Array], Array],
    z: Array,
    codes: Array,
    unit: tuple[Array, Array],
    bounds: tuple[float, float] | None,
) -> Array:
    """Normalised rows."""
    mean, scale = unit
    outputs = network(jnp.concatenate([z, codes], axis=1)).reshape(len(z), *mean.shape)
    if bounds is None:
        return outputs
    low, high = ((end - mean) / scale for end in bounds)
    return low[None] + (high - low)[None] * jax.nn.sigmoid(outputs)


def _scores(critic: Callable[[Array], Array], rows: Array, codes: Array) -> Array:
    """The critic's only output for each row, or that of the row's class."""
    found = critic(rows)
    return jnp.sum(found * codes, axis=1) if codes.shape[1] else found[:, 0]


def checked_labels(labels: Labels | None, rows: int, classes: int, dtype: DTypeLike) -> Array:
    """The classes of rows, as rows of zeros with a one; of no numbers if there are no classes.

    Raises:
        ValueError: labels where there are no classes, or none where there are some; not one for
            each row; or one that is no class.
    """
    if labels is None or not classes:
        if labels is not None or classes:
            raise ValueError(f"labels must be given for {classes} classes, got {labels}")
        return jnp.zeros((rows, 0), dtype)
    found = np.asarray(labels)
    if found.shape != (rows,):
        raise ValueError(f"labels must be one for each of {rows} rows, got shape {found.shape}")
    if found.min() < 0 or found.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {found.min()} to {found.max()}"
        )
    return jax.nn.one_hot(labels, classes, dtype=dtype)


def _check_bounds(bounds: tuple[float, float], train: Array | None = None) -> None:
    """Raise a ValueError unless the bounds are two numbers, the lower one first, and hold data."""
    if np.shape(bounds) != (2,) or not np.isfinite(bounds).all() or not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be two finite numbers, the lower one first, got {bounds}")
    if train is None:
        return
    least, most = float(train.min()), float(train.max())
    if least < bounds[0] or most > bounds[1]:
        raise ValueError(f"bounds must hold the data, {least:g} to {most:g}, got {bounds}")


def _dtype(network: nnx.Module) -> jnp.dtype:
    """The dtype of a network's weights."""
    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    return leaves[0].dtype if leaves else jnp.zeros(()).dtype


def _check_networks(game: _Game, network: nnx.Module, critic: nnx.Module, data: Batch) -> None:
    rows, codes = (part[:1] for part in data)
    scores = codes.shape[1] or 1
    inputs = jnp.zeros((1, game.latent + codes.shape[1]), rows.dtype)
    for name, player, given, size in (
        ("network", network, inputs, rows.size), ("critic", critic, rows, scores),
    ):  # fmt: skip
        function: Any = player
        try:
            found = jax.eval_shape(lambda x, f=function: f(x), given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must take shape {given.shape}: {error}") from error
        if found.size != size or found.shape[0] != 1:
            raise ValueError(
                f"{name} must give {size} numbers for inputs of shape {given.shape}, got "
                f"shape {found.shape}"
            )
