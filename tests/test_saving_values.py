"""Small values of every kind come back equal, or are refused where they are."""

import datetime
import enum
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from test_saving import forge, same

import physml
from physml.fit import checkpoint

VALUES = {
    "bytes": b"\x00a\xff",
    "range": range(2, 9, 3),
    "slice": [slice(None, 3), slice("a", 2.5, None)],
    "deque": [deque([1, (2, 3)]), deque("ab", maxlen=5)],
    "fraction": Fraction(-2, 3),
    "decimal": [Decimal("1.10"), Decimal("-Infinity")],
    "path": [Path("/a/b.c"), Path("a/ü"), Path()],
    "date": datetime.date(2026, 2, 28),
    "times": [datetime.time(1, 2, 3, 4), datetime.datetime(2026, 1, 2, fold=1)],
    "zone": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "named zone": [datetime.UTC, datetime.timezone(datetime.timedelta(hours=-1), "west")],
    "timedelta": datetime.timedelta(-3, 5, 7),
    "shape": jax.ShapeDtypeStruct((2, 3), jnp.float32),
    "weak shape": jax.ShapeDtypeStruct((), jnp.float64, weak_type=True),
    "default dict": defaultdict(list, {"a": [1], 3: []}),
    "frozen dict": FrozenDict({"a": {"b": 1.5}}),
    "ordered dict": OrderedDict(b=1, a=2),
    "sets": [{b"a"}, frozenset({(1, None)}), {Fraction(1, 2): {3}}],
    "classes": [list, dict, frozenset, bytes, complex],
}


class Colour(enum.Enum):
    RED = "r"
    GREEN = np.float32  # what could not be saved itself


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(tmp_path, name):
    thing = VALUES[name]
    assert physml.save(tmp_path, thing) == ()
    for found in (physml.load(tmp_path), physml.load(tmp_path, like=thing)):
        assert found == thing and repr(found) == repr(thing)


def test_what_a_maker_and_a_length_say_is_kept(tmp_path):
    physml.save(tmp_path, [defaultdict(list), deque(maxlen=2), defaultdict(lambda: 3)])
    made, short, own = physml.load(tmp_path, functions={"<lambda>": lambda: 3})
    short.extend("abc")
    assert made["new"] == [] and list(short) == ["b", "c"] and own["new"] == 3


def test_members_of_enumerations_come_back(tmp_path):
    thing = [Colour.GREEN, Access.READ | Access.WRITE, Access(0), jax.lax.Precision.HIGH]
    assert physml.save(tmp_path, thing) == ("Colour", "Access")
    own = {"Colour": Colour, "Access": Access}
    assert physml.load(tmp_path, functions=own) == thing
    assert physml.load(tmp_path, like=thing) == thing
    for at, other in ((0, Colour.RED), (1, Access.READ)):
        with pytest.raises(ValueError, match=rf"like must be what was saved, .* at \[{at}\]\."):
            physml.load(tmp_path, like=[other if i == at else x for i, x in enumerate(thing)])
    later = enum.Enum("Colour", {"BLUE": 1})
    with pytest.raises(ValueError, match=r"Colour must have the member 'GREEN', got \['BLUE'\]"):
        physml.load(tmp_path, functions=own | {"Colour": later})


def test_a_checkpoint_takes_collections_of_arrays(tmp_path):
    def made(of, start):
        arrays = {"b": jnp.arange(2.0) + start, "a": jnp.ones(()) + start}
        return [of(arrays), start]

    for of in (dict, OrderedDict, FrozenDict, lambda x: defaultdict(list, x)):
        checkpoint.save(tmp_path, made(of, 1.0))
        same(checkpoint.load(tmp_path, made(of, 7.0)), made(of, 1.0))
        with pytest.raises(ValueError, match=r"float64\[2\] at \[0\]\['b'\], got nothing"):
            checkpoint.load(tmp_path, [of({"a": jnp.ones(())}), 1.0])


def test_a_set_is_the_same_in_any_order(tmp_path):
    numbers = [2**61 - 1, 0, 2 * (2**61 - 1)]  # of one hash, so that sets keep them as they came
    assert list(set(numbers)) != list(set(numbers[::-1]))
    physml.save(tmp_path / "a", {"names": set(numbers)})
    physml.save(tmp_path / "b", {"names": set(numbers[::-1])})
    a, b = (tmp_path / name / "version_1.zip" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    physml.save(tmp_path, {1, "a", None, (2, b"b")})
    assert physml.load(tmp_path) == {1, "a", None, (2, b"b")}


# Arrays


NUMPY = [
    *np.typecodes["All"].translate(dict.fromkeys(map(ord, "OMm"))),  # without objects and units
    ">f8", ">i4", ">c16", ">M8[s]", "M8[D]", "m8[25ns]", ">U3", "S3", "V5",
    *(np.dtype(vars(ml_dtypes)[x]) for x in dir(ml_dtypes) if x[-1].isdigit()),
    jax.dtypes.float0, [("a", "f4"), ("b", "U3"), ("c", ">f8", (2,))], [("a", [("x", "i1")])],
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
]  # fmt: skip
JAX = [
    "bool", "bfloat16", "complex64", "complex128", *(f"float{n}" for n in (16, 32, 64)),
    *(f"{sign}int{n}" for n in (2, 4, 8, 16, 32, 64) for sign in ("", "u")),
    *(x for x in dir(jnp) if x.startswith(("float8_", "float4_"))),
]  # fmt: skip


def zeros_and_ones(dtype):
    """An array of a dtype, whose values differ where they can."""
    array = np.zeros(4, dtype)
    if array.dtype.names is None and array.dtype.kind != "V":
        array[1:] = np.ones(3, array.dtype)
    return array


def test_arrays_of_every_dtype_of_numpy_come_back(tmp_path):
    arrays = [zeros_and_ones(dtype) for dtype in NUMPY]
    things = [*arrays, *(x[1] for x in arrays), *(x[:0] for x in arrays), *(x[2] for x in arrays)]
    physml.save(tmp_path, things)
    for found, thing in zip(physml.load(tmp_path), things, strict=True):
        assert isinstance(found, np.ndarray) == isinstance(thing, np.ndarray)
        assert found.dtype == thing.dtype and found.shape == thing.shape
        assert str(found) == str(thing)
        assert thing.dtype.names or type(found.flat[:1]) is type(thing.flat[:1])


def test_arrays_of_every_dtype_of_jax_come_back(tmp_path):
    keys = [
        jax.random.split(jax.random.key(3, impl=name))
        for name in ("threefry2x32", "rbg", "unsafe_rbg")
    ]
    things = [*keys, *(jnp.asarray(np.arange(4).astype(jnp.dtype(name))) for name in JAX)]
    physml.save(tmp_path, things)
    same(physml.load(tmp_path), things)
    same(physml.load(tmp_path, like=things), things)


class Metres(np.float64):
    pass


RECORDS = np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
REFUSED = {
    "recarray": RECORDS,
    "record": RECORDS[0],
    "of records": RECORDS.view(np.ndarray),
    "inner objects": np.zeros(2, [("a", "O")]),
    "texts of any length": np.array(["a"], np.dtypes.StringDType()),
    "inner bfloat16": np.zeros(2, [("a", jnp.bfloat16)]),
    "masked": np.ma.array([1.0], mask=[True]),
    "masked constant": np.ma.masked,
    "matrix": np.matrix([[1.0]]),
    "scalar": Metres(1.0),
    "structured dtype": np.dtype([("a", "f4")]),
    "dtype of texts": np.dtypes.StringDType(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_come_back_as_something_else_is_refused(tmp_path, name):
    with pytest.raises(TypeError, match=r"thing\['x'\]\[1\] must be a (plain array|dtype) .*, got"):
        physml.save(tmp_path / "a", {"x": [0, REFUSED[name]]})
    assert not (tmp_path / "a").exists()


def test_arrays_in_files_come_back_as_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    physml.save(tmp_path, np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert physml.load(tmp_path).tolist() == [0.0, 1.0, 2.0]


# Depth


def test_what_holds_itself_is_refused(tmp_path):
    cycle = [1, {"a": []}]
    cycle[1]["a"].append(cycle[1])
    with pytest.raises(ValueError, match=r"thing\[1\]\['a'\]\[0\] must not be what it is inside"):
        physml.save(tmp_path, cycle)
    one = [1]
    physml.save(tmp_path, [one, one, (one, one)])
    assert physml.load(tmp_path) == [[1], [1], ([1], [1])]


def nested(depth, wrap):
    thing = 0.5
    for _ in range(depth):
        thing = wrap(thing)
    return thing


class Pair(NamedTuple):
    first: object
    second: float


class Layer(nnx.Module):
    def __init__(self, inner):
        self.inner = inner


WRAPS = {  # how many levels of nodes there are in one of them
    "list": (1, lambda x: [x]),
    "dict": (1, lambda x: {"a": x}),
    "ordered dict": (1, lambda x: OrderedDict(a=x)),
    "named tuple": (1, lambda x: Pair(x, 0.0)),
    "module": (1, lambda x: Layer(nnx.data(x))),
    "deque": (2, lambda x: deque([x])),
    "partial": (2, lambda x: jax.tree_util.Partial(jnp.sum, x)),
}
OWN = {"Pair": Pair, "Layer": Layer}


@pytest.mark.parametrize("name", WRAPS)
def test_what_is_nested_too_deep_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"thing must be nested at most 100 deep, "):
        physml.save(tmp_path / "a", nested(600, WRAPS[name][1]))
    assert not (tmp_path / "a").exists()
    thing = nested(15, WRAPS[name][1])
    physml.save(tmp_path, thing)
    assert repr(physml.load(tmp_path, functions=OWN)) == repr(thing)


@pytest.mark.slow
def test_the_deepest_things_load(tmp_path):
    # In a process of its own, where the types are not checked, which takes calls, too.
    script = """
import sys, physml
from test_saving_values import OWN, WRAPS, nested
for name, (levels, wrap) in WRAPS.items():
    thing = nested(98 // levels, wrap)
    physml.save(sys.argv[1], thing)
    for given in ({"functions": OWN}, {"like": thing}):
        assert physml.load(sys.argv[1], **given) is not None, name
    try:
        physml.save(sys.argv[1], nested(101 // levels + 1, wrap))
    except ValueError as error:
        assert "deep, got more at thing" in str(error), name
    else:
        raise AssertionError(name)
"""
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=here)
    assert done.returncode == 0


# For ever


OLD = Path(__file__).parent / "saved_by_0.2.0"


def test_values_of_old_versions_load_for_ever():
    found = physml.load(OLD, functions={"Colour": Colour})
    assert repr(found) == repr([VALUES, Colour.RED])


def test_a_kind_of_a_later_version_is_named(tmp_path):
    physml.save(tmp_path, {"a": [b"abc"]})
    forge(tmp_path / "version_1.zip", lambda text: text.replace('"bytes"', '"quaternion"'))
    for given in (None, {"a": ...}):
        with pytest.raises(ValueError, match=r"\['a'\]\[0\] .* knows, got 'quaternion': a newer"):
            physml.load(tmp_path, like=given)
    with pytest.raises(ValueError, match=r"quaternion at \['a'\]\[0\], got bytes"):
        physml.load(tmp_path, like={"a": [b"abc"]})
