"""Whatever a user keeps opens again, in a new process, bit for bit; what is damaged is named."""

import dataclasses
import functools
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import saved_things
from flax import nnx

import physml
from physml import nn, saving, systems
from physml.results import RESULTS
from physml.saving._names import find, name_of

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def small():
    return dict(saved_things.small())


def same(found, expected):
    """The same structure, static facts, types, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(x) is type(y)
        if dataclasses.is_dataclass(x):  # that JAX knows nothing of
            same(vars(x), vars(y))
            continue
        if isinstance(x, jax.Array):
            assert x.aval == y.aval  # the weak type, too
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_what_is_small_comes_back(tmp_path, small):
    for name, thing in small.items():
        assert physml.save(tmp_path / name, thing) == (), name
        same(physml.load(tmp_path / name), thing)


def test_values_of_all_kinds(tmp_path):
    thing = {
        "numbers": [1, 2**80, -0.0, 0.1, float("inf"), float("nan"), 1j, True, None, "ü\n"],
        "arrays": [
            jnp.ones((2, 0)), jnp.asarray(1.0), jnp.ones(3, jnp.bfloat16), jnp.ones(2, jnp.int4),
            np.arange(6.0).reshape(2, 3).T, np.float32(0.1), np.array(["a", "bc"]), np.bool_(True),
        ],
        "keys": [jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), 3)],
        "kinds": [jnp.dtype("float32"), jnp.float32, float, {1, 2}, frozenset("a")],
        "functions": [jnp.tanh, jnp.add, jax.nn.relu, nn.fourier, np.sin],
        ("a", 3): {2: eqx.nn.Lambda(jnp.sin), 3: np.zeros(2, [("x", "f4"), ("y", "i8")])},
        "structure": jax.tree.structure([1, {"a": None}]),
        "partial": functools.partial(jnp.sum, axis=0),
    }  # fmt: skip
    physml.save(tmp_path, thing)
    found = physml.load(tmp_path)
    assert repr(found) == repr(thing)
    physml.save(tmp_path, systems.Lorenz(rho=1.0).vector_field)
    field = physml.load(tmp_path)
    assert field(0.0, jnp.array([1.0, 2.0, 3.0]), None).tolist() == [10.0, -4.0, -6.0]
    for name in ("arrays", "keys"):
        same(found[name], thing[name])
    assert found["functions"] == thing["functions"] and found["kinds"] == thing["kinds"]


def test_results_of_a_batch_are_kept_by_name(tmp_path, monkeypatch):
    batch = jax.vmap(lambda n: RESULTS.where(n > 1, RESULTS.suspect, RESULTS.successful))
    result = batch(jnp.arange(3))
    physml.save(tmp_path, result)
    same(physml.load(tmp_path), result)
    # A later version that numbers its results otherwise.
    members = {
        name: eqx.tree_at(lambda x: x._value, item, np.int32(40 - int(item._value)))
        for name, item in RESULTS._name_to_item.items()
    }
    monkeypatch.setattr(RESULTS, "_name_to_item", members)
    suspect, fine = int(members["suspect"]._value), int(members["successful"]._value)
    assert physml.load(tmp_path)._value.tolist() == [fine, fine, suspect]


def test_priors_are_kept(tmp_path):
    priors = {"k": dist.TruncatedNormal(1.0, 0.5, low=0.0), "noise": dist.LogNormal(-1.0, 1.0)}
    assert physml.save(tmp_path, priors) == ()
    found = physml.load(tmp_path)
    for name, prior in priors.items():
        assert found[name].log_prob(0.7) == prior.log_prob(0.7)
    assert found["noise"].support is priors["noise"].support  # of which there is one
    physml.load(tmp_path, like=priors)
    with pytest.raises(ValueError, match=r"1\.0 at \['noise'\]\.scale, got 2\.0"):
        physml.load(tmp_path, like=priors | {"noise": dist.LogNormal(-1.0, 2.0)})


def test_what_is_shared_stays_shared(tmp_path):
    class Tied(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.second = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.second.kernel = self.first.kernel

    assert physml.save(tmp_path, [Tied()]) == ("Tied",)
    (found,) = physml.load(tmp_path, functions={"Tied": Tied})
    assert found.first.kernel is found.second.kernel
    assert found.first.bias is not found.second.bias
    found.second.bias = nnx.Param(jnp.ones(2))  # it can be changed like any module
    assert len(jax.tree.leaves(nnx.state(found))) == 3


def vector(low):
    return dist.Uniform(low).expand([3]).to_event(1)


@pytest.mark.parametrize("kind", [dist.HalfNormal, dist.Uniform, dist.TruncatedNormal, vector])
def test_half_of_a_prior_comes_back(tmp_path, kind):
    prior = kind(jnp.asarray(0.5))
    for half in eqx.partition(prior, eqx.is_array):
        physml.save(tmp_path, [half])
        (found,) = physml.load(tmp_path)
        same(found, half)


# Functions and classes of the user's own


def test_compiled_functions_are_handed_in_as_well(tmp_path):
    def decay(t, y, args):
        return -y

    for compiled in (jax.jit(decay), eqx.filter_jit(decay)):
        (name,) = physml.save(tmp_path, systems.from_function(compiled, 1))
        found = physml.load(tmp_path, functions={name: compiled})
        assert found(0.0, jnp.ones(1)) == -1.0


def test_own_functions_are_named_and_handed_in(tmp_path):
    def spring(t, y, args):
        return jnp.stack([y[1], -4.0 * y[0]])

    pair = [systems.from_function(f, 2) for f in (spring, lambda t, y, args: y, lambda t, y, a: -y)]
    names = physml.save(tmp_path, pair)
    assert names == ("spring", "<lambda>", "<lambda> 2")
    with pytest.raises(ValueError, match=r"(?s)got none, without.*'spring': a function.*-4\.0"):
        physml.load(tmp_path)
    with pytest.raises(ValueError, match=r"got \['spring'\], without\n  '<lambda>'"):
        physml.load(tmp_path, functions={"spring": spring})
    functions = dict(zip(names, (spring, lambda t, y, args: y, lambda t, y, a: -y), strict=True))
    with pytest.raises(TypeError, match=r"functions\['spring'\] must be a function, got a class"):
        physml.load(tmp_path, functions=functions | {"spring": RESULTS})
    found = physml.load(tmp_path, functions=functions)
    assert found[0](0.0, jnp.ones(2)).tolist() == [1.0, -4.0]

    def spring(t, y, args):
        return jnp.stack([y[1], -5.0 * y[0]])

    with pytest.warns(UserWarning, match=r"(?s)functions\['spring'\] is not .*-4\.0"):
        physml.load(tmp_path, functions=functions | {"spring": spring})


def test_a_closure_over_another_number_is_noticed(tmp_path):
    def decay(rate):
        def f(t, y, args):
            return -rate * y

        return f

    physml.save(tmp_path, systems.from_function(decay(2.0), 1))
    assert physml.load(tmp_path, functions={"f": decay(2.0)})(0.0, jnp.ones(1)) == -2.0
    with pytest.warns(UserWarning, match=r"functions\['f'\] is not the function"):
        physml.load(tmp_path, functions={"f": decay(3.0)})


def test_own_classes_are_handed_in_and_their_fields_compared(tmp_path):
    class Circle(eqx.Module):
        radius: jax.Array
        name: str = eqx.field(static=True)

    class Later(eqx.Module):
        radius: jax.Array
        name: str = eqx.field(static=True)
        colour: str = eqx.field(static=True, default="red")

    class Other(eqx.Module):
        side: jax.Array

    assert physml.save(tmp_path, Circle(jnp.ones(2), "a")) == ("Circle",)
    found = physml.load(tmp_path, functions={"Circle": Later})
    assert found.colour == "red" and found.name == "a"
    with pytest.raises(ValueError, match=r"fields \['name', 'radius'\].*got \['side'\]"):
        physml.load(tmp_path, functions={"Circle": Other})


@pytest.mark.parametrize(
    "name",
    [
        "os:system", "builtins:eval", "subprocess:run", "jax._src.lib:xla_client", "numpy:load",
        "physml.saving._save:os.replace", "jax.numpy:np.save", "physml:__path__",
        "jax:__doc__", "saved_things:heat", "physml.nn:MLP.__init__.__globals__", "jax.numpy:no",
    ],
)  # fmt: skip
def test_a_file_names_nothing_else(tmp_path, name):
    with pytest.raises(LookupError, match="no function or class"):
        find(name)
    physml.save(tmp_path, {"f": jnp.tanh})
    forge(tmp_path / "version_1.zip", lambda text: text.replace("jax.numpy:tanh", name))
    with pytest.raises(ValueError, match="no function or class"):
        physml.load(tmp_path)


def forge(path, change):
    """Change the JSON of a file, with a right checksum."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["contents.json"] = change(members["contents.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"?" * saving._file._TAIL
        for name, content in members.items():
            archive.writestr(name, content)
    checksum = b"sha256:" + saving._file._checksum(path)
    path.write_bytes(path.read_bytes()[: -len(checksum)] + checksum)


def test_a_module_of_the_user_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\ndef f(t, y, args):\n    return -y\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine

    assert physml.save(tmp_path / "a", systems.from_function(mine.f, 1)) == ("f",)
    del sys.modules["mine"]
    with pytest.raises(ValueError, match="'f': a function of the module mine"):
        physml.load(tmp_path / "a")
    assert "mine" not in sys.modules
    assert physml.load(tmp_path / "a", functions={"f": mine.f})(0.0, jnp.ones(1)) == -1.0


def test_a_name_holds_although_modules_move():
    assert name_of(nn.MLP) == "physml.nn:MLP" and name_of(nnx.Param) == "flax.nnx:Param"
    assert name_of(jax.nn.relu) == "jax.nn:relu" and name_of(jnp.tanh) == "jax.numpy:tanh"
    assert not any(map(name_of, (lambda: 0, json.dumps, np.sum, np.load, optax.adam(0.1).init)))


def test_every_class_of_the_house_has_a_name():
    modules = [module for name, module in sys.modules.items() if name.startswith("physml.")]
    classes = {
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__
    }
    assert len(classes) > 100
    assert [thing for thing in classes if find(name_of(thing)) is not thing] == []


# Damage


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_every_flipped_bit_is_named(tmp_path, small):
    for scale in (1.0, 2.0):
        physml.save(tmp_path, nn.Regularised(small["mlp"], l2=scale))
    path = tmp_path / "version_2.zip"
    content = path.read_bytes()
    bits = np.random.default_rng(0).choice(8 * len(content), 150, replace=False)
    edges = [*range(40), *range(8 * len(content) - 40, 8 * len(content))]
    for bit in [*bits.tolist(), *edges]:
        path.write_bytes(flipped(content, bit))
        with pytest.raises(ValueError, match=r"version_2.zip is no .*whole: load.*version=1"):
            physml.load(tmp_path)
    assert physml.load(tmp_path, version=1).l2 == 1.0
    path.write_bytes(content)
    assert physml.load(tmp_path).l2 == 2.0 and physml.load(path).l2 == 2.0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "physml did not write it"),
        (lambda content: b"PK\x03\x04", "its end is missing"),
        (lambda content: content[:-1], "its end is missing"),
        (lambda content: content[: len(content) // 2], "its end is missing"),
        (lambda content: content[5:], "its bytes are not those"),
        (lambda content: content + b"\n", "its end is missing"),
        (lambda content: b"1,2\n3,4\n" * 20, "physml did not write it"),
    ],
)
def test_a_cut_or_foreign_file_is_named(tmp_path, damage, words):
    physml.save(tmp_path, jnp.ones(3))
    path = tmp_path / "version_1.zip"
    path.write_bytes(damage(path.read_bytes()))
    for where in (tmp_path, path):
        with pytest.raises(ValueError, match=rf"version_1.zip is no saved thing: {words}"):
            physml.load(where)


def test_a_later_format_is_named(tmp_path):
    physml.save(tmp_path, jnp.ones(3))
    forge(
        tmp_path / "version_1.zip", lambda text: text.replace("physml.saving/1", "physml.saving/2")
    )
    with pytest.raises(ValueError, match=r"format physml.saving/1, got physml.saving/2"):
        physml.load(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing was saved at .*missing"):
        physml.load(tmp_path / "missing")
    physml.save(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match=r"version must be one of \[1\], got 7"):
        physml.load(tmp_path, version=7)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        physml.save(tmp_path / "file", 1)


def test_the_last_versions_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for number in range(5):
        physml.save(tmp_path, number, keep=3)
    names = {f"version_{n}.zip" for n in (3, 4, 5)} | {"notes.txt"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert [physml.load(tmp_path, version=n) for n in (3, 4, 5)] == [2, 3, 4]


FAULTS = """
import os, resource, sys
import numpy as np, physml

def stop(*args):
    raise KeyboardInterrupt

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
for fault in ("full disk", "Ctrl-C"):
    try:
        physml.save(sys.argv[1], np.ones(100_000))
    except (OSError, KeyboardInterrupt) as error:
        print(type(error).__name__, os.listdir(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    os.fsync = stop
os.fsync = lambda *args: os._exit(9)
physml.save(sys.argv[1], np.ones(100_000))
"""


def test_a_save_that_fails_leaves_the_old_one(tmp_path):
    physml.save(tmp_path, 1)
    command = [sys.executable, "-c", FAULTS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = ["OSError ['version_1.zip']", "KeyboardInterrupt ['version_1.zip']"]
    assert done.stdout.splitlines() == lines and done.returncode == 9, done.stderr
    (part,) = tmp_path.glob(".*")  # the process that was killed has left it
    assert len(list(tmp_path.iterdir())) == 2 and physml.load(tmp_path) == 1
    physml.save(tmp_path, 1)
    assert part.exists(), "it could be that of a process that is still writing"
    os.utime(part, (0, 0))
    for number in (2, 3):
        physml.save(tmp_path, number)
    assert len(list(tmp_path.iterdir())) == 2 and physml.load(tmp_path) == 3, "and it is gone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(path=3), "path must be"),
        (dict(keep=0), "keep must be"),
        (dict(thing=np.array([object()])), r"thing must hold numbers, got an array of Python"),
        (dict(thing={"a": [np.array([None])]}), r"thing\['a'\]\[0\] must hold numbers"),
    ],
)
def test_slips(tmp_path, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        physml.save(**{"path": tmp_path / "a", "thing": 1} | arguments)
    assert not (tmp_path / "a").exists()


def test_a_traced_thing_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"thing\.x must not be traced"):
        jax.jit(lambda x: physml.save(tmp_path, eqx.tree_at(lambda p: p.x, Point(0.0), x)))(1.0)


class Point(eqx.Module):
    x: jax.Array | float


def test_float64_needs_x64(tmp_path):
    physml.save(tmp_path, {"a": jnp.ones(2), "b": np.ones(2)})
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"thing\['a'\] is float64, which needs JAX's x64"):
            physml.load(tmp_path)
        physml.save(tmp_path, {"a": jnp.ones(2), "b": np.ones(2)})
        assert physml.load(tmp_path)["b"].dtype == np.float64
    assert physml.load(tmp_path)["a"].dtype == jnp.float32


def test_it_reads_without_physml(tmp_path):
    physml.save(tmp_path, {"a": jnp.arange(3.0)})
    with np.load(tmp_path / "version_1.zip") as arrays:
        assert arrays["0"].tolist() == [0.0, 1.0, 2.0]
        assert b"physml.saving/1" in arrays["contents.json"]


def test_room_that_was_not_used_takes_no_room_in_the_file(tmp_path):
    buffer = np.zeros(100_000)
    buffer[:300] = np.linspace(-1.0, 1.0, 300)
    buffer[-1] = -0.0  # its bits come back too
    physml.save(tmp_path, {"buffer": buffer})
    assert (tmp_path / "version_1.zip").stat().st_size < buffer.nbytes / 50
    assert physml.load(tmp_path)["buffer"].tobytes() == buffer.tobytes()


def test_the_same_thing_gives_the_same_bytes(tmp_path, small):
    for name in "ab":
        physml.save(tmp_path / name, small["cnn"])
    a, b = (tmp_path / name / "version_1.zip" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


# For ever


OLD = HERE / "saved_by_0.1.0"


def test_files_of_old_versions_load_for_ever():
    thing = physml.load(OLD)
    with np.load(OLD / "answers.npz") as answers:
        network, stepper, trajectories, result = thing
        np.testing.assert_array_equal(trajectories.ys, answers["ys"])
        np.testing.assert_allclose(network(saved_things.ROWS), answers["network"], rtol=1e-12)
        step = stepper.observe(stepper.step(stepper.init(trajectories.ys[0], 0.0)))
        np.testing.assert_allclose(step, answers["step"], rtol=1e-12)
    assert bool(result == RESULTS.suspect)


NOT_KEPT = {
    *map("physml.experiment:{}".format, ("Config", "Run", "Row", "Timing")),  # they have a folder
    "physml.saving:Keeper",
    *map("physml.fit:{}".format, ("GradientStep", "GameStep", "ProjectionStep", "Report")),  # loops
    "physml.pinn.training:Adversarial",  # it holds optimizers, which are closures
    *("physml.systems:FlatProblem", "physml.systems.states:Form"),  # what solvers make of a problem
}


def public_classes():
    """The classes that the rooms export and that are not only there to be extended."""
    rooms = (x.name for x in pkgutil.iter_modules(physml.__path__) if not x.name.startswith("_"))
    for room in (importlib.import_module(f"physml.{name}") for name in rooms):
        for name, kind in vars(room).items():
            ours = isinstance(kind, type) and kind.__module__.startswith("physml")
            if ours and not name.startswith("_") and not inspect.isabstract(kind):
                if not getattr(kind, "_is_protocol", False):
                    yield kind


@pytest.mark.slow
def test_everything_opens_in_a_fresh_process(tmp_path, small):
    things = dict(small)
    for make in (*saved_things.MORE, saved_things.large, saved_things.heavy):
        things |= make()
    saved = set()
    for name, thing in things.items():
        names = physml.save(tmp_path / name, thing)
        assert set(names) <= set(saved_things.OWN), name
        with zipfile.ZipFile(tmp_path / name / "version_1.zip") as archive:
            saved |= set(re.findall(r'"of": ?"([^"]+)"', archive.read("contents.json").decode()))
    assert {name_of(kind) for kind in public_classes()} - saved == NOT_KEPT
    script = [sys.executable, HERE / "saved_things.py", tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, thing in things.items():
        with np.load(tmp_path / name / "answers.npz") as found:
            for index, expected in enumerate(saved_things.answers(thing)):
                assert found[f"arr_{index}"].tobytes() == expected.tobytes(), name
