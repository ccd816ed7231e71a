"""Two models that learn against each other: both steps of gradient descent as one step."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, PyTree, Scalar

from physml._numerics.calls import ask, checked
from physml._numerics.checks import require_count, require_share
from physml._numerics.parts import Parts, take_apart
from physml.fit._fit import Fit, Model, concluded
from physml.fit._gradient import FitState, GradientStep, belonging, nonfinite
from physml.fit._loop import Callback, loop
from physml.results import RESULTS

GameLoss = Callable[[PyTree, PyTree, PyTree, PRNGKeyArray | None], tuple[Scalar, dict[str, Array]]]
"""`loss(model, opponent, batch, key) -> (value, aux)`, whose gradient is taken in `model` alone."""


class GameState(eqx.Module):
    """Everything that a game needs to go on: one pytree of arrays, which checkpoints save."""

    first: FitState
    second: FitState
    average: PyTree | None  # of the first model's weights, if one is kept; it begins with zero

    @property
    def params(self) -> PyTree:
        """The weights of the first model."""
        return self.first.params

    @property
    def rest(self) -> PyTree:
        """What the first model holds besides weights."""
        return self.first.rest

    @property
    def step(self) -> Int[Array, ""]:
        """Steps made."""
        return self.first.step


class _Against(eqx.Module):
    """A loss against an opponent, whose arrays come with the batch."""

    loss: GameLoss
    opponent: Parts

    def __call__(
        self, model: PyTree, batch: tuple[PyTree, PyTree, PyTree], key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        params, rest, data = batch
        form = "loss(model, opponent, batch, key)"
        return ask("loss", form, self.loss, model, self.opponent.merge(params, rest), data, key)


class GameStep(eqx.Module):
    """A step of `fit.loop`: the second model moves `turns` times, then the first one once."""

    first: GradientStep
    second: GradientStep
    turns: int = eqx.field(static=True, default=1)
    shares: bool = eqx.field(static=True, default=False)  # each turn takes its part of the batch
    memory: float | Array | None = None

    @classmethod
    def of(
        cls,
        losses: tuple[GameLoss, GameLoss],
        parts: tuple[Parts, Parts],
        optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
        *,
        turns: int = 1,
        shares: bool = False,
        memory: float | Array | None = None,
    ) -> "GameStep":
        """The step of two losses, models and optimizers."""
        rules = map(optax.with_extra_args_support, optimizers)
        against = map(_Against, losses, reversed(parts))
        first, second = map(GradientStep, against, rules, parts)
        return cls(first, second, turns, shares, memory)

    def begin(
        self, params: Sequence[PyTree], rest: Sequence[PyTree], key: PRNGKeyArray | None
    ) -> GameState:
        """The state of no steps."""
        first, second = (
            FitState.begin(p, r, step.optimizer.init(p), key)
            for p, r, step in zip(params, rest, (self.first, self.second), strict=True)
        )
        none = None if self.memory is None else jax.tree.map(jnp.zeros_like, first.params)
        return GameState(first, second, none)

    @property
    def parts(self) -> Parts:
        """How the first model is put together."""
        return self.first.parts

    def __call__(
        self, state: GameState, batch: PyTree, key: PRNGKeyArray | None
    ) -> tuple[GameState, dict[str, Array]]:
        own, other = (None, None) if key is None else tuple(jax.random.split(key))
        first = state.first

        def move(second: FitState, turn: tuple[PyTree, Array]) -> tuple[FitState, PyTree]:
            share, number = turn
            turn_key = None if other is None else jax.random.fold_in(other, number)
            given = share if self.shares else batch
            return self.second(second, (first.params, first.rest, given), turn_key)

        shares = jax.tree.map(self._shares, batch) if self.shares else None
        second, rows = jax.lax.scan(move, state.second, (shares, jnp.arange(self.turns)))
        last = batch if shares is None else jax.tree.map(lambda x: x[-1], shares)
        first, metrics = self.first(first, (second.params, second.rest, last), own)
        lost = {name: values[-1] for name, values in rows.items()}
        if common := sorted(metrics.keys() & lost.keys() - {"loss"}):
            raise ValueError(f"aux of the two losses must have different names, got {common}")
        losses = {"first_loss": metrics["loss"], "second_loss": lost["loss"]}
        total = losses["first_loss"] + losses["second_loss"]  # finite where both are
        average = self._averaged(state.average, first.params)
        return GameState(first, second, average), metrics | lost | losses | {"loss": total}

    def _shares(self, rows: Array) -> Array:
        return rows.reshape(self.turns, len(rows) // self.turns, *rows.shape[1:])

    def _averaged(self, average: PyTree, params: PyTree) -> PyTree:
        if self.memory is None:
            return None
        share = 1 - self.memory
        return jax.tree.map(lambda a, p: (a + share * (p - a)).astype(a.dtype), average, params)


@checked
def game(
    losses: tuple[GameLoss, GameLoss],
    players: tuple[Model, Model],
    data: PyTree = None,
    *,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    steps: int,
    batch_size: int | None = None,
    turns: int = 1,
    memory: float | None = None,
    key: PRNGKeyArray | None = None,
    chunk: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
    state: GameState | None = None,
) -> Fit[tuple[Model, Model]]:
    r"""Fit two models by gradient descent, each on a loss of its own that the other has a part in.

    In each step the second model moves `turns` times, each time on other rows of the data, then the
    first one moves once. No loss falls in a game that goes well, and none says when to stop: score
    what the first model does.

    Near the equilibrium the weights circle round it. `memory` keeps a running mean of the first
    model's weights, $\bar w_k = \sum_{j \le k} m^{k-j} w_j / \sum_{j \le k} m^{k-j}$, which is
    closer to it and becomes the model that comes back.

    Args:
        losses: of the first model and of the second, `loss(model, opponent, batch, key) -> (value,
            aux)`, value a scalar, aux a dict of arrays that are recorded; the gradient is taken in
            `model`, not in `opponent`.
        players: the first and the second model, as for `fit.gradient`. They are not changed.
        data: pytree of arrays, whose rows are the batches as for `fit.gradient`.
        optimizers: any optax transformations, of the first model and of the second. Each counts
            its own moves: a schedule for the second one has `turns` times `steps` of them.
        steps: steps in all, those behind `state` included.
        batch_size: rows for each move; all of them, in their order, if None.
        turns: moves of the second model in a step.
        memory: m, the share of the mean that a step keeps; without it no mean is kept.
        key: for the order of the data and for the losses. A `state` brings its own.
        chunk, checkpoint, progress, callback: as for `fit.gradient`.
        state: the `state` of an earlier game, to go on exactly where it was.

    Returns:
        A `Fit` whose model is the pair. Its history holds "first_loss", "second_loss", their sum
        as "loss", and what the losses record. `result` is as for `fit.gradient`: after `nonfinite`
        the models are those of the last step whose losses were finite.

    Raises:
        TypeError, ValueError: as `fit.gradient`; or a memory outside [0, 1).

    Example:
        Two numbers, of which the first wants to be the second, and the second to be two:

        >>> def follow(model, opponent, batch, key):
        ...     return jnp.sum((model - opponent) ** 2), {}
        >>> def lead(model, opponent, batch, key):
        ...     return jnp.sum((model - 2.0) ** 2), {}
        >>> sgd = optax.sgd(0.1)
        >>> fitted = fit.game(
        ...     (follow, lead), (jnp.zeros(1), jnp.ones(1)), optimizers=(sgd, sgd), steps=200)
        >>> [player.round(6).tolist() for player in fitted.model]
        [[2.0], [2.0]]

    Source of the mean: Y. Yazici et al., "The unusual effectiveness of averaging in GAN training",
    ICLR 2019, arXiv 1806.04498.
    """
    require_count(0, steps=steps)
    require_count(turns=turns)
    if batch_size is not None:
        require_count(batch_size=batch_size)
    if memory is not None:
        require_share(memory=memory)
    key = key if state is None else state.first.key
    parts, params, rest = zip(*(take_apart(player, nnx.Param) for player in players), strict=True)
    step = GameStep.of(
        losses,
        parts,
        optimizers,
        turns=turns,
        shares=batch_size is not None and turns > 1,
        memory=None if memory is None else jnp.asarray(memory),
    )
    fresh = step.begin(params, rest, key)
    begin = fresh if state is None else belonging(state, fresh)
    fitted = loop(
        step,
        begin,
        data,
        num_steps=steps,
        start=int(begin.step),
        key=key,
        batch_size=None if batch_size is None else turns * batch_size,
        chunk=chunk,
        review=_review,
        checkpoint=checkpoint,
        progress=progress,
        callback=callback,
    )
    last = fitted.state
    weights = last.params
    if memory is not None and last.step > 0:
        known = 1 - memory ** int(last.step)  # the weights of all steps behind, in the mean
        weights = jax.tree.map(lambda mean: (mean / known).astype(mean.dtype), last.average)
    model = (
        parts[0].merge(weights, last.rest),
        parts[1].merge(last.second.params, last.second.rest),
    )
    return concluded(replace(fitted, model=model), "fit.game")


def _review(state: GameState) -> tuple[GameState, dict[str, ArrayLike], RESULTS | None]:
    """The loop ends where the weights of a player are not finite."""
    verdicts = (nonfinite(player) for player in (state.first, state.second))
    return state, {}, next((verdict for verdict in verdicts if verdict is not None), None)
