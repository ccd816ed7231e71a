"""Every public function of the data room with slips of every kind: no call may answer nonsense, and
no error may come from inside of JAX or NumPy."""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import data

KEY = jax.random.key(0)
TS, YS = [0.0, 0.5, 1.0], np.arange(12.0).reshape(2, 3, 2)
PIXELS, LABELS = np.arange(36.0).reshape(4, 3, 3) / 36, np.asarray([0, 1, 0, 1])
TRAJECTORIES = data.from_arrays(TS, YS)
IMAGES = data.Images.from_arrays(PIXELS, LABELS)
STANDARDISER = data.Standardiser.fit(YS)
FRAME = types.SimpleNamespace(columns=["t", "x"], to_numpy=lambda: np.eye(2)[::-1])

STANDARDISER_MAPS = (data.Standardiser.__call__, data.Standardiser.inverse)
CALLS = {  # a call that is right, by its arguments
    data.from_arrays: {
        "ts": TS, "ys": YS, "t0s": [0.0, 1.0], "names": ("a", "b"), "system": "s",
        "dtype": "float32",
    },
    data.Trajectories: {
        "ts": jnp.asarray(TS), "ys": jnp.asarray(YS), "t0s": jnp.zeros(2), "names": ("a", "b"),
        "system": "s",
    },
    data.Trajectories.__getitem__: {"self": TRAJECTORIES, "index": 0},
    data.Trajectories.windows: {"self": TRAJECTORIES, "length": 2, "stride": 1},
    data.split: {"trajectories": TRAJECTORIES, "fractions": (0.5, 0.5), "key": KEY},
    data.Standardiser: {"mean": jnp.zeros(2), "std": jnp.ones(2)},
    data.Standardiser.fit: {"x": YS},
    data.Standardiser.__call__: {"self": STANDARDISER, "x": YS},
    data.Standardiser.inverse: {"self": STANDARDISER, "x": YS},
    data.from_dataframe: {
        "frame": FRAME, "time": "t", "trajectory": None, "columns": ("x",), "system": "",
        "dtype": None,
    },
    data.to_dataframe: {"trajectories": TRAJECTORIES, "trajectory": "run"},
    data.to_xarray: {"trajectories": TRAJECTORIES},
    data.from_xarray: {
        "dataset": data.to_xarray(TRAJECTORIES), "time": "time", "trajectory": "trajectory",
        "columns": ("y0",), "system": None, "dtype": "float32",
    },
    data.from_csv: {
        "path": "a.csv", "time": "t", "trajectory": None, "columns": ("x",), "names": None,
        "delimiter": ",", "decimal": ".", "encoding": "utf-8", "dtype": "float32",
    },
    data.to_csv: {"path": "b.csv", "trajectories": TRAJECTORIES, "trajectory": "run"},
    data.load_npz: {"path": "a.npz", "dtype": "float32"},
    data.save_npz: {"path": "b.npz", "trajectories": TRAJECTORIES},
    data.Images: {
        "images": jnp.asarray(PIXELS)[..., None], "labels": jnp.asarray(LABELS, jnp.int32),
        "names": ("a", "b"), "white": 1.0, "source": "",
    },
    data.Images.from_arrays: {
        "images": PIXELS, "labels": LABELS, "names": ("a", "b"), "white": 1.0, "source": "",
    },
    data.Images.from_folder: {"folder": "images", "names": None, "size": None, "channels": None},
    data.Images.__getitem__: {"self": IMAGES, "index": slice(1, 3)},
    data.Images.split: {"self": IMAGES, "fractions": (0.5, 0.5), "key": KEY},
    data.Images.scaled: {"self": IMAGES, "dtype": "float32"},
    data.Images.transformed: {"self": IMAGES, "function": lambda x: 2 * x},
    data.mnist: {"folder": "nowhere"},
    data.fashion_mnist: {"folder": "nowhere"},
    data.cifar10: {"folder": "nowhere"},
}  # fmt: skip
PLACES = [(call, name) for call, kept in CALLS.items() for name in kept if name != "self"]
PASSED_ON = [(data.Trajectories, "ys"), *((f, "x") for f in STANDARDISER_MAPS)]  # NaN stays NaN
SLIPS = [
    None, True, 0, -1, 1, 2, 5, 2.5, -0.5, 0.0, np.nan, np.inf, 1e300, 1j, "", "x", "t", "12", b"x",
    (), [], {}, [1], [5], [0, 1], [0.5], [0.5, 0.5], [1.0, -1.0, 2.0], [np.nan, 1.0], ["a", "a"],
    ("a", "b"), ("a", 1), [[1.0], [1.0, 2.0]], [[0.0, 1.0], [1.0, 2.0]], object(), Path("x"), len,
    lambda x: None, lambda x: x * np.nan, lambda x: x[:1], slice(5, 9), slice(0.5, 2), slice(1, 1),
    np.zeros(0), np.zeros((0, 2)), np.zeros((2, 0, 2)), np.zeros(2), np.ones(3),
    np.zeros((2, 3, 1)),
    np.full((2, 3, 2), np.nan), np.full((2, 3, 2), 1e300), np.zeros((2, 3, 2), complex),
    np.zeros((2, 3, 2), bool), np.asarray(["a", "b"]), np.asarray([None, 1]), np.asarray([5]),
    np.asarray([True]), np.asarray([True, False]), np.asarray([False, False]), np.zeros((4, 3, 3)),
    np.asarray(["2024-01-01", "2024-01-02", "2024-01-03"], "M8[D]"),
    np.ma.masked_less(np.arange(12.0).reshape(2, 3, 2), 3), np.arange(3.0)[::-1],
    jnp.zeros((2, 3, 2), jnp.bfloat16), jnp.asarray(3), jax.random.key_data(KEY),
    jax.random.split(KEY), "float33", "int32", np.int8, TRAJECTORIES, IMAGES, FRAME, "none/b.csv",
    types.SimpleNamespace(columns=["t"], to_numpy=lambda: None),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slips")
    (folder / "a.csv").write_text("t,x\n0,1\n1,2\n")
    data.save_npz(folder / "a.npz", TRAJECTORIES)
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
        np.save(folder / "images" / name / "0.npy", PIXELS[0])
    return folder


def judge(call, name, slip):
    """How a call went: "refused", "answered", or what is wrong with it."""
    try:
        found = call(**CALLS[call] | {name: slip})
    except (TypeError, ValueError, IndexError, OSError) as error:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        inside = "/physml/" in last.tb_frame.f_code.co_filename
        said = (
            " must " in str(error) if not isinstance(error, OSError) else error.filename or "must"
        )
        return "refused" if (inside or isinstance(error, OSError)) and said else repr(error)
    except Exception as error:
        return f"raised {error!r}"
    arrays = [x for x in jax.tree.leaves(found) if isinstance(x, jax.Array | np.ndarray)]
    finite = all(np.isfinite(np.asarray(x, float)).all() and x.size for x in arrays)
    return (
        "answered"
        if finite or (call, name) in PASSED_ON
        else f"answered {found} with what is not finite or nothing"
    )


# Equinox warns of an array that is handed to a constructor in the place of a name.
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("call", "name"), PLACES, ids=lambda x: getattr(x, "__qualname__", x))
def test_slips_are_refused_in_our_words(call, name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with jax.numpy_dtype_promotion("standard"):
        verdicts = {index: judge(call, name, slip) for index, slip in enumerate(SLIPS)}
    wrong = {
        f"{index}: {SLIPS[index]!r}"[:80]: verdict
        for index, verdict in verdicts.items()
        if verdict not in ("refused", "answered")
    }
    assert not wrong, "\n".join(f"{slip}: {verdict}" for slip, verdict in wrong.items())


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_the_right_calls_are_right(call, folder, monkeypatch):
    monkeypatch.chdir(folder)
    kept = CALLS[call]
    if "nowhere" not in map(str, kept.values()):  # no folder of ours holds these sets
        assert judge(call, *next(iter(kept.items()))) == "answered"
