"""What is saved comes back, whole, or not at all."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_same_leaves

from physml import fit
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


def test_saving_again_replaces(tmp_path):
    for scale in (1, 2, 3):
        checkpoint.save(tmp_path, record(scale))
    same(checkpoint.load(tmp_path, record()), record(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["version_3"]


def test_a_crash_while_saving_leaves_the_old_one(tmp_path):
    checkpoint.save(tmp_path, record(1))
    code = f"""
import os
import jax.numpy as jnp
from physml.fit import checkpoint
import orbax.checkpoint._src.path.atomicity as atomicity
async def die(self, *args, **kwargs):
    os._exit(9)
for name in ("AtomicRenameTemporaryPath", "CommitFileTemporaryPath"):
    getattr(atomicity, name).finalize = die
checkpoint.save({str(tmp_path)!r}, {{"other": jnp.ones(3)}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert len(list(tmp_path.iterdir())) == 2, "the unfinished one is there as well"
    same(checkpoint.load(tmp_path, record()), record(1))
    checkpoint.save(tmp_path, record(2))
    same(checkpoint.load(tmp_path, record()), record(2))
    assert len(list(tmp_path.iterdir())) == 1, "and goes with the next save"


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "7").mkdir()
    for scale in (1, 2):
        checkpoint.save(tmp_path, record(scale))
    assert {entry.name for entry in tmp_path.iterdir()} == {"notes.txt", "7", "version_2"}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.zeros(4)}, r"float64\[3\] at \['a'\], got float64\[4\]"),
        ({"a": jnp.zeros(3, jnp.float32)}, r"float64\[3\] at .*, got float32\[3\]"),
        ({"b": jnp.zeros(3)}, r"float64\[3\] at \['a'\], got nothing"),
        ({"a": jnp.zeros(3), "b": 1}, r"nothing at \['b'\], got int"),
        ({"a": 1.0}, r"float64\[3\] at .*, got float"),
        ({f"{i}": i for i in range(9)}, "and 5 more"),
    ],
)
def test_mismatch(tmp_path, like, message):
    checkpoint.save(tmp_path, {"a": jnp.zeros(3)})
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path, like)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*missing"):
        checkpoint.load(tmp_path / "missing", record())
    with pytest.raises(ValueError, match="must hold arrays or numbers"):
        checkpoint.save(tmp_path / "missing", {"a": jnp.tanh})
    assert not (tmp_path / "missing").exists(), "nothing half-written"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        checkpoint.save(tmp_path / "file", record())
