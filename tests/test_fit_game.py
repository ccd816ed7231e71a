"""Two models that learn against each other, against closed forms and against themselves."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml import fit
from physml.results import RESULTS

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
ROWS = jnp.arange(12.0)[:, None]


def attract(model, opponent, batch, key):
    """A bilinear game, x y, with some friction: its spiral has a closed form."""
    return jnp.sum(model * opponent + 0.1 * model**2), {}


def repel(model, opponent, batch, key):
    return jnp.sum(-model * opponent + 0.1 * model**2), {}


def follow(model, opponent, batch, key):
    return jnp.sum((model - opponent) ** 2), {"seen": jnp.sum(batch)}


def learn(model, opponent, batch, key):
    noise = 0.0 if key is None else jax.random.normal(key)
    return jnp.mean((model[None] - batch - noise) ** 2), {"rows": batch[:, 0]}


def test_each_player_descends_its_own_loss_against_the_other():
    x, y = 1.0, -0.5
    players = (jnp.array([x]), jnp.array([y]))
    fitted = fit.game((attract, repel), players, optimizers=(SGD, SGD), steps=30)
    for _ in range(30):
        y = y - 0.1 * (-x + 0.2 * y)  # the second moves first
        x = x - 0.1 * (y + 0.2 * x)
    np.testing.assert_allclose(fitted.model, [[x], [y]], rtol=1e-12)
    assert fitted.result == RESULTS.successful and fitted.step == 30
    history = fitted.history
    np.testing.assert_allclose(history["loss"], history["first_loss"] + history["second_loss"])


def test_the_second_takes_its_turns_on_rows_of_their_own():
    players = (jnp.zeros(1), jnp.zeros(1))
    options = {"optimizers": (optax.sgd(0.5), SGD), "steps": 2, "batch_size": 3, "key": KEY}
    fitted = fit.game((follow, learn), players, ROWS, turns=2, **options)
    assert fitted.history["rows"].shape == (2, 3)  # of the last turn
    first = np.sort(ROWS[:, 0])
    assert len(set(np.concatenate(fitted.history["rows"])) & set(first)) == 6
    np.testing.assert_allclose(fitted.history["seen"], fitted.history["rows"].sum(axis=1))
    whole = fit.game((follow, learn), players, ROWS, turns=3, optimizers=(SGD, SGD), steps=1)
    expected = 5.5 * (1 - 0.8**3)  # three steps towards the mean of all rows
    np.testing.assert_allclose(whole.model[1], [expected], rtol=1e-12)


def test_the_mean_of_the_weights_comes_back():
    players = (jnp.zeros(1), jnp.ones(1))
    options = {"optimizers": (SGD, optax.sgd(0.0)), "steps": 20}

    def chase(model, opponent, batch, key):
        return jnp.sum((model - opponent) ** 2), {}

    def rest(model, opponent, batch, key):
        return jnp.sum(model), {}

    last = fit.game((chase, rest), players, **options).model[0]
    fitted = fit.game((chase, rest), players, memory=0.9, **options)
    mean, x = 0.0, 0.0
    for _ in range(20):
        x += 0.2 * (1 - x)
        mean = 0.9 * mean + 0.1 * x
    mean /= 1 - 0.9**20
    np.testing.assert_allclose(last, [x], rtol=1e-12)
    np.testing.assert_allclose(fitted.model[0], [mean], rtol=1e-12)
    np.testing.assert_allclose(fitted.state.params, [x], rtol=1e-12)
    none = fit.game((chase, rest), players, memory=0.9, **options | {"steps": 0})
    np.testing.assert_array_equal(none.model[0], players[0])


@pytest.mark.parametrize("memory", [None, 0.9])
def test_a_game_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, memory):
    players = (jnp.zeros(1), jnp.zeros(1))
    adam = optax.adam(0.1)
    options = {"optimizers": (adam, adam), "batch_size": 4, "memory": memory, "key": KEY}
    whole = fit.game((follow, learn), players, ROWS, steps=20, **options)
    half = fit.game((follow, learn), players, ROWS, steps=9, **options)
    fit.checkpoint.save(tmp_path / "state", half.state)
    state = fit.checkpoint.load(tmp_path / "state", half.state)
    rest = fit.game((follow, learn), players, ROWS, steps=20, state=state, **options)
    for one, two in zip(jax.tree.leaves(whole.model), jax.tree.leaves(rest.model), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole.history["loss"][9:], rest.history["loss"])
    with pytest.raises(ValueError, match="state must belong to this model"):
        fit.game((follow, learn), players, ROWS, steps=20, state=state, **options | {"memory": 0.5}
                 if memory is None else options | {"memory": None})  # fmt: skip


@pytest.mark.parametrize("loser", [0, 1])
def test_a_loss_that_is_not_finite_ends_with_the_last_good_models(loser):
    def diverge(model, opponent, batch, key):
        return jnp.sum(jnp.where(model > 0.5, jnp.nan, -model)), {}

    def rest(model, opponent, batch, key):
        return jnp.sum(0.0 * model), {}

    losses = (diverge, rest) if loser == 0 else (rest, diverge)
    players = (jnp.zeros(1), jnp.zeros(1))
    with pytest.warns(UserWarning, match="fit.game.*not finite"):
        fitted = fit.game(losses, players, optimizers=(SGD, SGD), steps=50)
    assert fitted.result == RESULTS.nonfinite
    assert all(np.isfinite(player).all() for player in fitted.model)
    assert fitted.nonfinite_step == 6  # 0.1 a step: the seventh finds 0.6


def test_ctrl_c_ends_a_game_with_usable_models():
    def interrupt(report):
        signal.raise_signal(signal.SIGINT)

    players = (jnp.ones(1), jnp.ones(1))
    with pytest.warns(UserWarning, match="fit.game"):
        fitted = fit.game(
            (attract, repel), players, optimizers=(SGD, SGD), steps=100, chunk=10,
            callback=interrupt,
        )  # fmt: skip
    assert fitted.result == RESULTS.interrupted and fitted.step == 10


def test_a_game_that_was_cut_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    def interrupt(report):
        signal.raise_signal(signal.SIGINT)

    players, adam = (jnp.zeros(1), jnp.zeros(1)), optax.adam(0.1)
    options = {"optimizers": (adam, adam), "batch_size": 4, "key": KEY, "chunk": 5, "steps": 20}
    whole = fit.game((follow, learn), players, ROWS, **options)
    options["checkpoint"] = tmp_path / "game"
    with pytest.warns(UserWarning, match="fit.game"):
        fit.game((follow, learn), players, ROWS, callback=interrupt, **options)
    rest = fit.game((follow, learn), players, ROWS, **options)
    for one, two in zip(whole.model, rest.model, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole.history["loss"], rest.history["loss"])
    with pytest.raises(ValueError, match="step"):
        fit.game((follow, attract), players, ROWS, **options)


def test_two_losses_may_not_record_the_same_name():
    players = (jnp.zeros(1), jnp.zeros(1))
    with pytest.raises(ValueError, match="aux of the two losses must have different names"):
        fit.game((follow, follow), players, ROWS, optimizers=(SGD, SGD), steps=1)
