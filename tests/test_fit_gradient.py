"""Gradient descent: optima known in closed form, validation, resuming, kinds of models."""

import os
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import Counted, assert_same_leaves

from physml import fit
from physml._numerics.shuffle import shuffle_words, shuffled
from physml.results import RESULTS

ADAM = optax.adam(0.1)
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * np.random.default_rng(1).normal(size=40)

SINGLE = (X.astype(np.float32), Y.astype(np.float32))  # Flax's BatchNorm knows no float64


def line(model, batch, key):
    x, y = batch
    return x @ model["w"] - y


LINE = fit.mean_square(line)


def ridge(model, batch, key):
    value, aux = LINE(model, batch, key)
    return value + 0.3 * jnp.sum(model["w"] ** 2), aux


def rosenbrock(x, batch, key):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, {}


class Net(nnx.Module):
    def __init__(self, dtype=jnp.float64, dropout=0.0, norm=False, width=8):
        rngs = nnx.Rngs(0)
        self.inner = nnx.Linear(3, width, rngs=rngs, param_dtype=dtype, dtype=dtype)
        self.norm = norm and nnx.BatchNorm(width, rngs=rngs, param_dtype=dtype, dtype=dtype)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.readout = nnx.Linear(width, 1, rngs=rngs, param_dtype=dtype, dtype=dtype)

    def __call__(self, x):
        x = self.inner(x)
        x = self.norm(x) if self.norm else x
        return self.readout(self.dropout(jnp.tanh(x)))[..., 0]


def net_residual(model, batch, key):
    x, y = batch
    return {"data": model(x) - y}


NET = fit.mean_square(net_residual)


def weights():
    return {"w": np.zeros(3)}


DECAYING = optax.adam(optax.cosine_decay_schedule(0.1, 600))


@pytest.mark.parametrize("optimizer", [optax.sgd(0.2), DECAYING, optax.lbfgs()])
def test_linear_least_squares(optimizer):
    out = fit.gradient(LINE, weights(), (X, Y), optimizer=optimizer, steps=600)
    np.testing.assert_allclose(out.model["w"], np.linalg.lstsq(X, Y)[0], atol=1e-7)
    assert out.history["loss"].shape == (600,) and out.step == 600
    np.testing.assert_allclose(out.history["loss"][0], np.mean(Y**2), rtol=1e-14)
    assert bool(out.result == RESULTS.successful)


def test_ridge():
    out = fit.gradient(ridge, weights(), (X, Y), optimizer=optax.lbfgs(), steps=30)
    expected = np.linalg.solve(X.T @ X / 40 + 0.3 * np.eye(3), X.T @ Y / 40)
    np.testing.assert_allclose(out.model["w"], expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_lbfgs_on_rosenbrock(dtype):
    start = jnp.asarray([-1.2, 1.0], dtype)
    out = fit.gradient(rosenbrock, start, optimizer=optax.lbfgs(), steps=60)
    np.testing.assert_allclose(out.model, 1, atol=1e-12 if dtype == jnp.float64 else 1e-4)
    assert out.model.dtype == dtype and out.history["loss"].dtype == dtype


def test_one_step_of_sgd():
    out = fit.gradient(rosenbrock, np.array([0.5, 2.0]), optimizer=optax.sgd(1e-3), steps=1)
    gradient = np.array([-400 * 0.5 * (2 - 0.25) - 2 * 0.5, 200 * (2 - 0.25)])
    np.testing.assert_allclose(out.model, np.array([0.5, 2.0]) - 1e-3 * gradient, rtol=1e-14)


def batch_rows(key, epoch, batch_size, length=40):
    """The rows of each batch of an epoch."""
    words = shuffle_words(jax.random.split(key)[1])
    order = np.asarray(shuffled(jnp.arange(length), length, jnp.asarray(epoch), words))
    return order[: length // batch_size * batch_size].reshape(-1, batch_size)


def test_batches_are_those_of_the_loop():
    options = dict(optimizer=optax.sgd(0.1), epochs=2, batch_size=15, key=KEY)
    out = fit.gradient(LINE, weights(), (X, Y), **options)
    assert out.step == 4
    w = np.zeros(3)
    for rows in [*batch_rows(KEY, 0, 15), *batch_rows(KEY, 1, 15)]:
        w -= 0.1 * 2 * X[rows].T @ (X[rows] @ w - Y[rows]) / 15
    np.testing.assert_allclose(out.model["w"], w, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_flax_model(dtype):
    model = Net(dtype)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    data = (X.astype(dtype), Y.astype(dtype))
    out = fit.gradient(NET, model, data, optimizer=ADAM, steps=200)
    assert out.history["loss"][-1] < 0.02 < 1 < out.history["loss"][0]
    np.testing.assert_array_equal(out.history["data"], out.history["loss"])
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(nnx.state(out.model, nnx.Param)))
    assert out.history["loss"].dtype == dtype
    assert_same_leaves(before, nnx.state(model))  # the model passed in is not changed
    assert isinstance(out.model, Net)


def test_batch_norm_follows_the_data():
    still = optax.sgd(0.0)
    out = fit.gradient(NET, Net(jnp.float32, norm=True), SINGLE, optimizer=still, steps=999)
    before = X @ np.asarray(out.model.inner.kernel[...])
    np.testing.assert_allclose(out.model.norm.mean[...], before.mean(axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(out.model.norm.var[...], before.var(axis=0), rtol=1e-3)


def test_dropout_draws_anew_each_step_and_is_off_in_validation():
    options = dict(optimizer=optax.sgd(0.0), steps=6, valid=(X, Y), valid_every=1)
    out = fit.gradient(NET, Net(dropout=0.5), (X, Y), **options)
    assert len(set(out.history["loss"])) == 6
    plain = fit.gradient(NET, Net(), (X, Y), **options)
    np.testing.assert_array_equal(out.history["valid_loss"], plain.history["valid_loss"])
    assert not out.model.dropout.deterministic, "the model comes back in the mode it came in"


class Fixed(nnx.Variable):
    pass


def test_other_variables_stay_fixed():
    model = Net()
    model.inner.kernel = Fixed(model.inner.kernel[...])
    out = fit.gradient(NET, model, (X, Y), optimizer=ADAM, steps=5)
    np.testing.assert_array_equal(out.model.inner.kernel[...], model.inner.kernel[...])
    assert np.all(np.asarray(out.model.readout.kernel[...] != model.readout.kernel[...]))
    out = fit.gradient(NET, model, (X, Y), optimizer=ADAM, steps=5, wrt=Fixed)
    assert np.all(np.asarray(out.model.inner.kernel[...] != model.inner.kernel[...]))
    np.testing.assert_array_equal(out.model.readout.kernel[...], model.readout.kernel[...])


class Scaled(eqx.Module):
    """A record that holds a network and an array: only the network is trained."""

    network: Net
    scale: jax.Array
    name: str

    def __call__(self, x):
        return self.scale * self.network(x)


class Curve(eqx.Module):
    """No Flax in it: floating arrays are trained, and nothing else."""

    w: jax.Array
    shift: jax.Array
    power: float
    count: jax.Array

    def __call__(self, x):
        return (x @ self.w) ** self.power + self.shift


def test_record_that_holds_a_network():
    model = Scaled(Net(), jnp.asarray(2.0), "name")
    out = fit.gradient(NET, model, (X, Y), optimizer=ADAM, steps=100)
    assert out.history["loss"][-1] < 0.1
    assert out.model.scale == 2 and out.model.name == "name"


def test_plain_record():
    model = Curve(jnp.zeros(3), jnp.zeros(()), 1.0, jnp.asarray(7))
    out = fit.gradient(NET, model, (X, Y), optimizer=optax.lbfgs(), steps=20)
    solution = np.linalg.lstsq(np.c_[X, np.ones(40)], Y)[0]
    np.testing.assert_allclose(np.r_[out.model.w, out.model.shift], solution, atol=1e-7)
    assert out.model.power == 1.0 and out.model.count == 7


def test_loss_gets_the_key_of_the_step():
    def noisy(model, batch, key):
        return jnp.sum(model**2) + jax.random.normal(key), {}

    out = fit.gradient(noisy, np.zeros(1), optimizer=ADAM, steps=3, key=KEY)
    keys = [jax.random.fold_in(jax.random.split(KEY)[0], i) for i in range(3)]
    np.testing.assert_allclose(out.history["loss"], [jax.random.normal(key) for key in keys])


def overfit(model, batch, key):
    return jnp.sum((model - batch) ** 2), {}


def test_validation_keeps_the_best_model_and_stops():
    # Descends from 0 towards 1 and passes 0.5, where the validation loss is least, at step 7.
    options = dict(steps=1000, valid=np.full((), 0.5), valid_every=1, patience=3)
    out = fit.gradient(overfit, np.zeros(()), np.ones(()), optimizer=optax.sgd(0.05), **options)
    path = 1 - 0.9 ** np.arange(1, 11)
    np.testing.assert_allclose(out.history["valid_loss"], (path - 0.5) ** 2, rtol=1e-10)
    np.testing.assert_array_equal(out.history["valid_step"], np.arange(1, 11))
    assert bool(out.result == RESULTS.early_stopped) and out.step == 10
    np.testing.assert_allclose(out.model, 1 - 0.9**7)
    np.testing.assert_allclose(out.state.params, 1 - 0.9**10)


def test_validation_has_its_own_loss_and_beat():
    def product(model, batch, key):
        return model * batch, {}

    options = dict(steps=25, valid=np.full((), -2.0), valid_loss=product, valid_every=10)
    out = fit.gradient(overfit, np.zeros(()), np.ones(()), optimizer=optax.sgd(0.05), **options)
    np.testing.assert_array_equal(out.history["valid_step"], [10, 20, 25])
    np.testing.assert_allclose(out.history["valid_loss"], -2 * (1 - 0.9 ** np.array([10, 20, 25])))
    assert bool(out.result == RESULTS.successful)


@pytest.mark.parametrize("optimizer", [ADAM, pytest.param(optax.lbfgs(), marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted_bit_for_bit(optimizer):
    options = dict(optimizer=optimizer, steps=31, batch_size=16, chunk=5, valid_every=4)
    options |= dict(valid=jax.tree.map(lambda x: x[:10], SINGLE))
    model = Net(jnp.float32, dropout=0.2, norm=True)
    whole = fit.gradient(NET, model, SINGLE, key=KEY, **options)

    def interrupt(report):
        if report.step >= 12:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.warns(UserWarning, match=r"fit\.gradient: Ctrl-C.* Steps made: 12\.") as warned:
        head = fit.gradient(NET, model, SINGLE, key=KEY, callback=interrupt, **options)
    assert len(warned) == 1
    assert bool(head.result == RESULTS.interrupted) and head.step == 12
    tail = fit.gradient(NET, model, SINGLE, state=head.state, **options)
    assert tail.step == 31
    assert_same_leaves(whole.state, tail.state)
    assert_same_leaves(nnx.state(whole.model), nnx.state(tail.model))
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), head.history, tail.history)
    assert_same_leaves(joined, whole.history)


def test_state_in_a_report_goes_on_as_well():
    reports = []
    options = dict(optimizer=ADAM, steps=20, chunk=5)
    whole = fit.gradient(LINE, weights(), (X, Y), callback=reports.append, **options)
    tail = fit.gradient(LINE, weights(), (X, Y), state=reports[1].state, **options)
    np.testing.assert_array_equal(tail.model["w"], whole.model["w"])
    np.testing.assert_array_equal(tail.history["step"], np.arange(10, 20))


def test_nan_in_the_data_is_reported():
    x = X.copy()
    x[25] = np.nan
    bad = int(np.argmax(np.any(batch_rows(KEY, 0, 4) == 25, axis=1)))
    with pytest.warns(UserWarning, match=f"The loss of step {bad} was not finite"):
        out = fit.gradient(LINE, weights(), (x, Y), optimizer=ADAM, steps=50, batch_size=4, key=KEY)
    assert bool(out.result == RESULTS.nonfinite) and out.nonfinite_step == bad
    assert out.step == max(bad - 1, 0) == out.state.step
    assert np.all(np.isfinite(out.model["w"])) and np.all(np.isfinite(out.history["loss"]))


def poisoned(model, batch, key):
    # Finite, with a gradient that is not: the square root at zero.
    return jnp.sum(jnp.sqrt(jnp.maximum(model - batch, 0.0) * 0.0)), {}


def test_nonfinite_parameters_after_the_last_step():
    with pytest.warns(UserWarning, match="Nonfinite"):
        out = fit.gradient(poisoned, np.ones(2), np.zeros(2), optimizer=ADAM, steps=1)
    assert bool(out.result == RESULTS.nonfinite) and out.nonfinite_step == 1
    np.testing.assert_array_equal(out.model, [1, 1])


def test_divergence_returns_finite_loss():
    with pytest.warns(UserWarning, match="Nonfinite"):
        out = fit.gradient(LINE, weights(), (X, Y), optimizer=optax.sgd(1e3), steps=500)
    assert bool(out.result == RESULTS.nonfinite)
    value, _ = LINE(out.model, (X, Y), None)
    assert np.isfinite(value)


@pytest.mark.usefixtures("programs_stay")
def test_a_second_fit_compiles_nothing():
    counted = Counted(net_residual)
    options = dict(optimizer=ADAM, batch_size=8)
    for fits, (seed, steps) in enumerate([(0, 20), (1, 30)]):
        loss = fit.mean_square(counted)  # a new object, of the same function
        fit.gradient(loss, Net(), (X, Y), steps=steps, key=jax.random.key(seed), **options)
        assert counted.traces == 2 + fits  # one to see what it does, and one to compile it
    fit.gradient(loss, Net(width=9), (X, Y), steps=1, key=KEY, **options)
    assert counted.traces == 5


class Shift(nnx.Module):
    def __init__(self, net):
        self.network = net

    def residual(self, shift, batch, key):
        x, y = batch
        return self.network(x) + shift - y


def test_method_of_a_module_that_has_changed_since():
    target = Shift(Net())
    loss = fit.mean_square(target.residual)
    options = dict(optimizer=optax.sgd(0.0), steps=1)
    before = fit.gradient(loss, np.zeros(()), (X, Y), **options).history["loss"][0]
    target.network.readout.bias[...] = target.network.readout.bias[...] + 10.0
    after = fit.gradient(loss, np.zeros(()), (X, Y), **options).history["loss"][0]
    np.testing.assert_allclose(after, loss(jnp.zeros(()), (X, Y), None)[0], rtol=1e-12)
    assert before < 10 < 90 < after


def two_blocks(model, batch, key):
    return {"a": model * jnp.asarray([1.0, 2.0]), "b": (model - 3.0)[None]}


def test_mean_square_of_weighted_blocks():
    pointwise = {"a": jnp.asarray([1.0, 0.25]), "b": 2}
    for weights, total in [(None, (4 + 16) / 2 + 1), ({"a": 0.5}, 6), (pointwise, 4 + 2)]:
        value, aux = fit.mean_square(two_blocks, weights)(jnp.asarray(2.0), None, None)
        assert value == total and aux == {"a": 10, "b": 1}


def test_mean_square_of_nested_blocks_counts_all_entries():
    def nested(model, batch, key):
        return {"a": [jnp.full(3, 2.0), jnp.full((1, 1), 4.0)]}

    value, _ = fit.mean_square(nested)(None, None, None)
    assert value == (3 * 4 + 16) / 4
    value, aux = fit.mean_square(lambda m, b, k: nested(m, b, k)["a"])(None, None, None)
    assert value == (3 * 4 + 16) / 4 and aux == {}


@pytest.mark.parametrize(
    ("residual", "weights", "message"),
    [
        (two_blocks, {"c": 1.0}, r"\['a', 'b'\], got \['c'\]"),
        (lambda m, b, k: {"a": jnp.zeros(0)}, None, "must return numbers"),
        (lambda m, b, k: {}, None, "must return numbers"),
    ],
)
def test_mean_square_refuses(residual, weights, message):
    with pytest.raises(ValueError, match=message):
        fit.mean_square(residual, weights)(jnp.asarray(2.0), None, None)


GOOD = dict(optimizer=ADAM, steps=2)


@pytest.mark.parametrize(
    ("loss", "model", "options", "message"),
    [
        (LINE, weights(), dict(steps=None), "steps=None and epochs=None"),
        (LINE, weights(), dict(epochs=3), "steps=2 and epochs=3"),
        (LINE, weights(), dict(patience=3), "valid must be given for patience"),
        (LINE, weights(), dict(valid=(X, Y), patience=0), "patience must be at least 1, got 0"),
        (
            LINE,
            weights(),
            dict(batch_size=41, key=KEY),
            "at most 40, the rows of data, got 41",
        ),
        (LINE, weights(), dict(batch_size=4), "key must be given"),
        (LINE, weights(), dict(wrt=nnx.BatchStat), "wrt must be nnx.Param"),
        (LINE, {"w": np.zeros(3, int)}, {}, "wrt must select something to train"),
        (NET, Net(), dict(wrt=nnx.Cache), "wrt must select something to train"),
    ],
)
def test_bad_arguments(loss, model, options, message):
    with pytest.raises(ValueError, match=message):
        fit.gradient(loss, model, (X, Y), **(GOOD | options))


def test_float64_while_x64_is_off():
    with jax.enable_x64(False):
        single = {"w": np.zeros(3, np.float32)}
        with pytest.raises(ValueError, match=r"data\[1\] must be float32 .* got float64"):
            fit.gradient(LINE, single, (SINGLE[0], Y), **GOOD)
        with pytest.raises(ValueError, match=r"model\['w'\] must be float32 .* got float64"):
            fit.gradient(LINE, weights(), SINGLE, **GOOD)
        assert fit.gradient(LINE, single, SINGLE, **GOOD).model["w"].dtype == np.float32


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda m, b, k: jnp.sum(m["w"]), TypeError, "loss must return"),
        (lambda m, b, k: (m["w"], {}), TypeError, r"shape \(3,\)"),
        (lambda m, b, k: (m["w"].sum(), {"loss": m["w"]}), ValueError, r"\['loss'\]"),
    ],
)
def test_bad_losses(loss, error, message):
    with pytest.raises(error, match=message):
        fit.gradient(loss, weights(), **GOOD)


def test_state_of_another_fit():
    state = fit.gradient(LINE, weights(), (X, Y), optimizer=ADAM, steps=0).state
    assert state.step == 0
    for model, options, message in [
        ({"w": np.zeros(4)}, {}, r"\.params\['w'\] must be float64\(4,\), got float64\(3,\)"),
        (weights(), dict(optimizer=optax.sgd(1.0)), "differs in"),
        (weights(), dict(valid=(X, Y)), "best"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit.gradient(LINE, model, (X, Y), state=state, **(GOOD | options))
