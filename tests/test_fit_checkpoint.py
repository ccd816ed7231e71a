"""What is saved comes back, whole, or not at all."""

import errno

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_same_leaves

import physml
from physml import data, fit, nn, reference, saving, surrogate, systems
from physml.fit import checkpoint
from physml.results import RESULTS


class Record(eqx.Module):
    array: jax.Array
    number: float
    count: int
    flag: bool
    function: object
    name: str
    nothing: None


def record(scale=1):
    array = jnp.arange(6.0).reshape(2, 3) * scale
    return Record(array, 0.1 * scale, 3 * scale, scale > 1, jnp.tanh, "a", None)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and getattr(x, "dtype", None) == getattr(y, "dtype", None)
    assert_same_leaves(a, b)


def test_a_record(tmp_path):
    checkpoint.save(tmp_path / "a", record(2))
    same(checkpoint.load(tmp_path / "a", record()), record(2))


def test_arrays_of_all_kinds(tmp_path):
    def tree(seed):
        rng = np.random.default_rng(seed)
        return {
            "float32": jnp.asarray(rng.normal(size=3), jnp.float32),
            "bfloat16": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
            "int": jnp.asarray(seed, jnp.int32),
            "bool": jnp.asarray([seed > 0]),
            "complex": jnp.asarray(rng.normal(size=2) * 1j),
            "numpy": rng.normal(size=(2, 2)),
            "scalar": np.float32(rng.normal()),
            "empty": jnp.zeros((0, 3)),
            "key": jax.random.key(seed),
            "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
            "odd names": [(jnp.asarray(1.0 + seed),), {"a/b.c['d']": jnp.asarray(2.0 + seed)}],
        }

    checkpoint.save(tmp_path / "a", tree(1))
    same(checkpoint.load(tmp_path / "a", tree(0)), tree(1))


def test_a_flax_module(tmp_path):
    def module(seed):
        linear = nnx.Linear(2, 3, rngs=nnx.Rngs(seed))
        return nnx.Sequential(linear, nnx.Dropout(0.5, rngs=nnx.Rngs(seed)))

    checkpoint.save(tmp_path / "a", module(1))
    loaded = checkpoint.load(tmp_path / "a", module(0))
    same(nnx.state(loaded), nnx.state(module(1)))
    assert isinstance(loaded, nnx.Sequential)


def loss(model, batch, key):
    noise = jax.random.normal(key, batch.shape)
    return jnp.mean((batch + noise - model["w"][None]) ** 2), {}


def test_a_fit_goes_on_bit_for_bit_from_disk(tmp_path):
    data = np.random.default_rng(0).normal(size=(20, 2))
    options = dict(optimizer=optax.adam(0.1), batch_size=6, valid=data[:5], valid_every=3)
    key, model = jax.random.key(1), {"w": np.zeros(2)}
    whole = fit.gradient(loss, model, data, key=key, steps=30, **options)
    head = fit.gradient(loss, model, data, key=key, steps=12, **options)
    checkpoint.save(tmp_path / "fit", head.state)
    empty = fit.gradient(loss, model, data, key=key, steps=0, **options)
    state = checkpoint.load(tmp_path / "fit", empty.state)
    tail = fit.gradient(loss, model, data, state=state, steps=30, **options)
    same(tail.state, whole.state)
    np.testing.assert_array_equal(tail.model["w"], whole.model["w"])
    assert bool(tail.result == RESULTS.successful)


def test_saving_again_keeps_the_last_two(tmp_path):
    for scale in (1, 2, 3):
        checkpoint.save(tmp_path, record(scale))
    same(checkpoint.load(tmp_path, record()), record(3))
    assert {entry.name for entry in tmp_path.iterdir()} == {"version_2.zip", "version_3.zip"}


def test_a_damaged_checkpoint_is_named(tmp_path):
    for scale in (1, 2):
        checkpoint.save(tmp_path, record(scale))
    path = tmp_path / "version_2.zip"
    content = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(content), 20, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"version_2.zip is no .*whole: .*version=1"):
            checkpoint.load(tmp_path, record())


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "7").mkdir()
    for scale in (1, 2):
        checkpoint.save(tmp_path, record(scale))
    assert {entry.name for entry in tmp_path.iterdir()} == {
        *("notes.txt", "7", "version_1.zip", "version_2.zip")
    }


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.zeros(4)}, r"float64\[3\] at \['a'\], got float64\[4\]"),
        ({"a": jnp.zeros(3, jnp.float32)}, r"float64\[3\] at .*, got float32\[3\]"),
        ({"b": jnp.zeros(3)}, r"float64\[3\] at \['a'\], got nothing"),
        ({"a": jnp.zeros(3), "b": 1}, r"nothing at \['b'\], got int"),
        ({"a": 1.0}, r"float64\[3\] at .*, got float"),
        ({f"{i}": i for i in range(9)}, "and 5 more"),
        ([jnp.zeros(3)], r"dict at its root, got list"),
        ({"a": np.zeros(3), "b": "x"}, r"nothing at \['b'\], got 'x'"),
    ],
)
def test_mismatch(tmp_path, like, message):
    checkpoint.save(tmp_path, {"a": jnp.zeros(3)})
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path, like)


def mlp(seed=0, **options):
    return nn.MLP(3, (4,), 3, rngs=nnx.Rngs(seed), **options)


def stepper(dt=0.1, **options):
    ys = np.random.default_rng(0).normal(size=(2, 5, 3))
    options = {"symmetry": None, "known": systems.Lorenz()} | options
    trajectories = data.from_arrays(dt * np.arange(5), ys)
    return surrogate.Stepper.create(mlp(), trajectories, **options)


def named(name):
    return data.from_arrays([0.0, 1.0], [[1.0], [2.0]], names=(name,))


def rnn(cell):
    return nn.RNN(cell, 1, 3, 2, rngs=nnx.Rngs(0))


def step(dt):
    return reference.RungeKutta4(systems.Lorenz(), dt)


@pytest.mark.parametrize(
    ("make", "saved", "like", "message"),
    [
        (mlp, {}, {"activation": "sin"}, r"jax.numpy:tanh at \.activation, got jax.numpy:sin"),
        (mlp, {}, {"activation": lambda x: x}, r"tanh at \.activation, got <lambda>"),
        (stepper, {}, {"dt": 0.2}, r"0\.1 at \.dt, got 0\.2"),
        (stepper, {}, {"known": systems.Rossler()}, r"Lorenz at \.known, got .*Rossler"),
        (stepper, {}, {"known": None}, r"Lorenz at \.known, got None"),
        (stepper, {}, {"symmetry": -np.eye(3)}, r"None at \.symmetry, got float64\[3, 3\]"),
        (named, {"name": "x"}, {"name": "y"}, r"'x' at \.names\[0\], got 'y'"),
        (rnn, {"cell": "gru"}, {"cell": "lstm"}, r"'gru' at \.kind, got 'lstm'"),
        (step, {"dt": 0.1}, {"dt": 0.2}, r"0\.1 at \.dt, got 0\.2"),
    ],
)
def test_static_facts_that_differ_are_refused(tmp_path, make, saved, like, message):
    checkpoint.save(tmp_path, make(**saved))
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path, make(**like))
    same(checkpoint.load(tmp_path, make(**saved)), make(**saved))


def test_functions_are_those_of_like(tmp_path):
    def squared(x):
        return x**2

    checkpoint.save(tmp_path, mlp(activation=squared))
    like = mlp(activation=squared)
    assert checkpoint.load(tmp_path, like).activation is squared


def test_arrays_go_to_the_devices_of_like(tmp_path):
    second = jax.devices()[1]
    checkpoint.save(tmp_path, {"a": jnp.arange(3.0), "key": jax.random.key(1)})
    like = {"a": jnp.zeros(3), "key": jax.random.key(0)}
    found = checkpoint.load(tmp_path, jax.device_put(like, second))
    assert all(leaf.devices() == {second} for leaf in jax.tree.leaves(found))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing was saved at .*missing"):
        checkpoint.load(tmp_path / "missing", record())
    with pytest.raises(ValueError, match="must hold arrays or numbers"):
        checkpoint.save(tmp_path / "missing", {"a": jnp.tanh})
    assert not (tmp_path / "missing").exists(), "nothing half-written"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        checkpoint.save(tmp_path / "file", record())


def options(**more):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 2))
    found = dict(data=data, optimizer=optax.adam(0.1), batch_size=6, valid=data[:5], valid_every=4)
    return found | {"key": jax.random.key(1), "steps": 30, "chunk": 3} | more


MODEL = {"w": np.zeros(2)}


def stop_at(step):
    def callback(report):
        if report.step >= step:
            raise RuntimeError("killed")

    return callback


@pytest.fixture
def always_due(monkeypatch):
    """After every chunk a version is written."""
    monkeypatch.setattr(saving.Keeper, "due", True)


@pytest.mark.parametrize("stops", [(4,), (3, 9, 20), (29,)])
def test_a_fit_that_was_cut_ends_as_one_that_was_not(tmp_path, always_due, stops):
    whole = fit.gradient(loss, MODEL, **options())
    for stop in stops:
        with pytest.raises(RuntimeError, match="killed"):
            fit.gradient(loss, MODEL, **options(checkpoint=tmp_path, callback=stop_at(stop)))
    steps = []
    more = options(checkpoint=tmp_path, callback=lambda report: steps.append(report.step))
    ended = fit.gradient(loss, MODEL, **more)
    assert stops[-1] - 3 < steps[0] <= stops[-1] + 3, "little was lost"
    same(ended.state, whole.state)
    same(ended.history, whole.history)
    np.testing.assert_array_equal(ended.model["w"], whole.model["w"])
    steps.clear()
    again = fit.gradient(loss, MODEL, **more)
    same((again.state, again.history), (whole.state, whole.history))
    assert not steps and again.seconds == ended.seconds, "what has ended is not done again"


def falls(model, batch, key):
    """A loss that is NaN at the seventh step."""
    value = jnp.sum(model["w"])
    return jnp.where(value < -6.5, jnp.nan, value), {}


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_fit_that_diverges_after_it_was_cut(tmp_path, always_due, stop):
    model, sgd = {"w": np.zeros(1)}, dict(optimizer=optax.sgd(1.0), steps=20, chunk=3)
    with pytest.warns(UserWarning, match="not finite"):
        whole = fit.gradient(falls, model, **sgd)
    assert whole.step == 6
    if stop < 9:
        with pytest.raises(RuntimeError, match="killed"):
            fit.gradient(falls, model, **sgd, checkpoint=tmp_path, callback=stop_at(stop))
    for _ in range(2):
        with pytest.warns(UserWarning, match="not finite"):
            ended = fit.gradient(falls, model, **sgd, checkpoint=tmp_path)
        same((ended.state, ended.history), (whole.state, whole.history))
        assert ended.nonfinite_step == whole.nonfinite_step


def test_a_fit_that_has_stopped_early_is_not_gone_on_with(tmp_path, always_due):
    more = options(patience=1, steps=300)
    whole = fit.gradient(loss, MODEL, **more)
    assert whole.result == RESULTS.early_stopped and whole.step < 300
    for _ in range(2):
        ended = fit.gradient(loss, MODEL, **more, checkpoint=tmp_path)
        assert ended.result == RESULTS.early_stopped
        same((ended.state, ended.history), (whole.state, whole.history))


def other_loss(model, batch, key):
    return loss(model, batch, key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": jax.random.key(2)}, "uint32"),
        ({"data": np.zeros((20, 2))}, r"float64\[20, 2\]"),
        ({"batch_size": 5}, "6.* at .*, got '5'"),
        ({"optimizer": optax.sgd(0.1)}, "opt_state"),
        ({"steps": 6}, "num_steps must be at least 12, the steps behind the checkpoint, got 6"),
    ],
)
def test_another_fit_is_not_gone_on_with(tmp_path, change, message):
    fit.gradient(loss, MODEL, **options(steps=12, checkpoint=tmp_path))
    with pytest.raises(ValueError, match=message):
        fit.gradient(loss, MODEL, **options(checkpoint=tmp_path) | change)
    with pytest.raises(ValueError, match=r"this very fit, .* loss at .*, got other_loss"):
        fit.gradient(other_loss, MODEL, **options(checkpoint=tmp_path))
    path = tmp_path / "version_1.zip"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"this very fit, .* its end is missing"):
        fit.gradient(loss, MODEL, **options(checkpoint=tmp_path))


def test_another_network_is_not_gone_on_with(tmp_path):
    def misfit(model, batch, key):
        return model(batch)[:, 0]

    more = dict(data=np.ones((4, 3)), optimizer=optax.adam(1e-2), steps=2, checkpoint=tmp_path)
    square = fit.mean_square(misfit)
    fit.gradient(square, mlp(), **more)
    with pytest.raises(ValueError, match=r"this very fit, .*jax.numpy:tanh at .*, got .*:sin"):
        fit.gradient(square, mlp(activation="sin"), **more)


def weighed(weight):
    """A loss of this name that differs in a number it reads from outside."""

    def misfit(model, batch, key):
        return weight * model(batch)[:, 0]

    return fit.mean_square(misfit)


def test_a_fit_that_computes_something_else_is_not_gone_on_with(tmp_path):
    valid = dict(valid=np.ones((2, 3)), valid_loss=weighed(1.0), valid_every=1)
    given = dict(data=np.ones((4, 3)), optimizer=optax.adam(1e-2), steps=2, **valid)
    given |= dict(batch_size=2, key=jax.random.key(0), augment=lambda data, key: 2 * data)
    first = fit.gradient(weighed(1.0), mlp(), **given, checkpoint=tmp_path)
    again = fit.gradient(weighed(1.0), mlp(), **given, checkpoint=tmp_path)
    same(first.state, again.state)
    for loss, model, change, message in [
        (weighed(3.0), mlp(), {}, "computes something else"),
        (weighed(1.0), mlp(), {"optimizer": optax.adam(1e-1)}, "computes something else"),
        (weighed(1.0), mlp(), {"augment": lambda data, key: 3 * data}, "computes something else"),
        (weighed(1.0), mlp(seed=1), {}, "began from another state"),
        (weighed(1.0), mlp(), {"valid": np.zeros((2, 3))}, r"float64\[2, 3\]"),
        (weighed(1.0), mlp(), {"valid_loss": weighed(2.0)}, "computes something else"),
    ]:
        with pytest.raises(ValueError, match=f"checkpoint must be of this very fit, .*{message}"):
            fit.gradient(loss, model, **given | change, checkpoint=tmp_path)


def test_where_a_fit_begins_may_differ_by_rounding(tmp_path):
    given = dict(data=np.ones((4, 3)), optimizer=optax.adam(1e-2), steps=2, checkpoint=tmp_path)
    fit.gradient(weighed(1.0), mlp(), **given)
    nearly = jax.tree.map(lambda x: x * (1 + 4e-16), mlp())
    fit.gradient(weighed(1.0), nearly, **given)
    other = jax.tree.map(lambda x: x * (1 + 1e-9), mlp())
    with pytest.raises(ValueError, match="began from another state"):
        fit.gradient(weighed(1.0), other, **given)


def test_a_full_disk_does_not_end_a_fit(tmp_path, always_due, monkeypatch):
    whole = fit.gradient(loss, MODEL, **options())

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "write_array", full)
        with pytest.warns(UserWarning, match=r"goes on, but it is not kept in .*No space left"):
            ended = fit.gradient(loss, MODEL, **options(checkpoint=tmp_path))
    same(ended.state, whole.state)
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_anything_may_stand_where_like_has_dots(tmp_path):
    checkpoint.save(tmp_path, {"a": jnp.zeros(3), "b": {"c": np.ones(2), "d": [1.5, "x"]}})
    loaded = checkpoint.load(tmp_path, {"a": jnp.zeros(3), "b": ...})
    np.testing.assert_array_equal(loaded["b"]["c"], np.ones(2))
    assert loaded["b"]["d"] == [1.5, "x"]
    with pytest.raises(ValueError, match=r"float64\[3\] at \['a'\], got float64\[4\]"):
        checkpoint.load(tmp_path, {"a": jnp.zeros(4), "b": ...})
    physml.save(tmp_path, {"a": ...})
    assert physml.load(tmp_path) == {"a": ...}
