"""Trajectories as data: counts and order of pairs and windows, splits, files, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st

from physml import data


def coded(num, time, dim=2):
    """States that say where they come from: trajectory * 1000 + row + component / 8."""
    i, j, k = np.ogrid[:num, :time, :dim]
    return data.from_arrays(0.5 * np.arange(time), 1000.0 * i + j + k / 8)


def test_the_lectures_data_set_has_80000_pairs():
    pairs = data.from_arrays(np.linspace(0, 8, 801), np.zeros((100, 801, 3))).pairs()
    assert pairs.inputs.shape == pairs.targets.shape == (80_000, 3)
    assert pairs.times.shape == (80_000,)


# Each shape is a program of its own to compile: few of them, with the smallest and the largest.
@pytest.mark.parametrize(("num", "time"), [(1, 2), (4, 2), (1, 7), (3, 6)])
def test_pairs_are_one_step_apart_in_one_trajectory(num, time):
    pairs = coded(num, time).pairs()
    assert pairs.inputs.shape == (num * (time - 1), 2)
    np.testing.assert_array_equal(pairs.targets - pairs.inputs, 1.0)
    np.testing.assert_array_equal(pairs.times, 0.5 * (pairs.inputs[:, 0] % 1000))
    assert len(np.unique(pairs.inputs[:, 0])) == num * (time - 1)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([1, 3]), st.integers(2, 9), st.integers(1, 9), st.integers(1, 4))
def test_windows_never_cross_trajectories(num, time, length, stride):
    trajectories = coded(num, time)
    if length > time:
        with pytest.raises(ValueError, match="length must be at most"):
            trajectories.windows(length)
        return
    windows = trajectories.windows(length, stride)
    assert windows.ys.shape == (num * ((time - length) // stride + 1), length, 2)
    np.testing.assert_array_equal(np.diff(windows.ys[:, :, 0], axis=1), 1.0)
    np.testing.assert_array_equal(windows.times, 0.5 * (windows.ys[:, 0, 0] % 1000))
    assert (windows.ys[:, 0, 0] % 1000 % stride == 0).all()


def test_times_hold_each_trajectorys_own_start():
    trajectories = data.from_arrays([0.0, 0.1, 0.2], np.zeros((2, 3, 1)), t0s=[5.0, 7.0])
    np.testing.assert_allclose(trajectories.pairs().times, [5.0, 5.1, 7.0, 7.1])
    np.testing.assert_allclose(trajectories.windows(3).times, [5.0, 7.0])
    own = data.from_arrays([3.0, 3.5], np.zeros((2, 2, 1)))
    np.testing.assert_allclose(own.t0s, [3.0, 3.0])
    np.testing.assert_allclose(own.ts, [0.0, 0.5])


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [4]),
        (np.int64(3), [3]),
        (jnp.asarray(3), [3]),
        (slice(1, 3), [1, 2]),
        (slice(3, 99), [3, 4]),
        (slice(None, None, -2), [4, 2, 0]),
        ([4, -5, 4], [4, 0, 4]),
        (np.array([5 - 1]), [4]),
        (np.arange(5) > 2, [3, 4]),
        ([True, False, False, False, True], [0, 4]),
    ],
)
def test_trajectories_are_picked_by_their_numbers(index, rows):
    made = data.from_arrays([0.0, 0.5], np.arange(10.0).reshape(5, 2, 1), t0s=np.arange(5.0))
    np.testing.assert_array_equal(made[index].t0s, rows)
    np.testing.assert_array_equal(made[index].ys, np.asarray(made.ys)[rows])
    images = data.Images.from_arrays(np.arange(5.0)[:, None, None], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(images[index].labels, rows)


def test_trajectories_are_iterated_one_by_one():
    assert [len(one) for one in coded(3, 2)] == [1, 1, 1]


@refusals(
    (2, "index must be from -2 to 1 for 2 trajectories, got 2", IndexError),
    (-3, "index must be from -2 to 1 for 2 trajectories, got -3", IndexError),
    (np.array([5]), "index must be from -2 to 1 for 2 trajectories, got 5", IndexError),
    (np.array([True]), "index must have 2 entries as a mask, .* got 1", IndexError),
    (np.ones(3, bool), "index must have 2 entries as a mask, .* got 3", IndexError),
    (np.zeros(2, bool), "index must pick at least one of 2 trajectories", IndexError),
    (slice(2, 2), "index must pick at least one", IndexError),
    ([], "index must pick at least one", IndexError),
    (slice(0.5, 1), "index must be a slice of whole numbers", TypeError),
    (slice(0, 2, 0), "index must be a slice of whole numbers", TypeError),
    (True, "index must be a whole number", TypeError),
    (1.0, "index must be a whole number", TypeError),
    ("x", "index must be a whole number", TypeError),
    (None, "index must be a whole number", TypeError),
    (np.zeros((1, 1), int), "index must be a whole number", TypeError),
    ((0, slice(None)), "index must be a whole number", TypeError),
)
@pytest.mark.usefixtures("as_a_user")
def test_indices_refused(index):
    coded(2, 3)[index]


def test_a_traced_index_picks_and_a_traced_mask_is_refused():
    made = coded(3, 2)
    pick = jax.jit(lambda index: made[index].ys)
    np.testing.assert_array_equal(pick(jnp.array([2, 0])), np.asarray(made.ys)[[2, 0]])
    with pytest.raises(TypeError, match="index must hold whole numbers"):
        pick(jnp.array([True, False, True]))


def test_split_is_a_partition_by_trajectory():
    trajectories = coded(20, 3)
    parts = data.split(trajectories, (0.7, 0.2, 0.1), jax.random.key(0))
    assert [len(part) for part in parts] == [14, 4, 2]
    ids = [set(np.asarray(part.ys[:, 0, 0] // 1000)) for part in parts]
    assert set.union(*ids) == set(range(20)) and sum(map(len, ids)) == 20
    again = data.split(trajectories, (0.7, 0.2, 0.1), jax.random.key(0))
    np.testing.assert_array_equal(parts[0].ys, again[0].ys)
    other = data.split(trajectories, (0.7, 0.2, 0.1), jax.random.key(1))
    assert not np.array_equal(parts[0].ys, other[0].ys)


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (), (0.99, 0.01)])
def test_split_refuses(fractions):
    with pytest.raises(ValueError, match="fractions must"):
        data.split(coded(20, 3), fractions, jax.random.key(0))


def test_standardizer_gives_mean_0_and_deviation_1_and_back():
    x = jax.random.normal(jax.random.key(0), (5, 40, 3)) * 7.0 + 2.0
    x = x.at[..., 1].set(1e9 / 3)
    standardiser = data.Standardiser.fit(x)
    z = standardiser(x)
    np.testing.assert_allclose(z.mean(axis=(0, 1)), 0.0, atol=1e-6)  # 1e9 / 3 is rounded
    np.testing.assert_allclose(z.std(axis=(0, 1)), [1.0, 0.0, 1.0], atol=1e-13)
    np.testing.assert_allclose(standardiser.inverse(z), x, rtol=1e-14)
    np.testing.assert_allclose(standardiser.inverse(z[0, 0]), x[0, 0], rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("exponent", [-30, -18, 0, 18, 30])
def test_a_standardiser_has_no_unit(exponent, dtype):
    x = jax.random.normal(jax.random.key(0), (200, 2), dtype) + 1
    power = jnp.asarray(2.0 ** round(exponent * np.log2(10)), dtype)
    one, other = data.Standardiser.fit(x), data.Standardiser.fit(x * power)
    np.testing.assert_array_equal(other.mean, one.mean * power)
    np.testing.assert_array_equal(other.std, one.std * power)
    mean, std = x.mean(axis=0), jnp.sqrt(jnp.mean((x - x.mean(axis=0, keepdims=True)) ** 2, axis=0))
    np.testing.assert_allclose(one.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(one.std, std, rtol=1e-6)


def test_a_standardiser_of_huge_and_of_constant_values():
    x = np.random.default_rng(0).standard_normal((100, 2)) * 1e300
    z = data.Standardiser.fit(jnp.asarray(x))(jnp.asarray(x))
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=1e-12)
    for constant in (0.0, 1e-300, -1e300):
        fitted = data.Standardiser.fit(jnp.full((7, 1), constant))
        assert fitted.std.tolist() == [1.0]
        np.testing.assert_allclose(fitted.mean, [constant], rtol=1e-15)


def test_npz_round_trip_keeps_everything(tmp_path):
    made = data.from_arrays(
        [0.0, 0.1], np.ones((3, 2, 2)), t0s=[0.0, 1.0, 2.0], names=("x", "v"), system="Test"
    )
    data.save_npz(tmp_path / "a.npz", made)
    read = data.load_npz(tmp_path / "a.npz")
    for name in ("ts", "ys", "t0s"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    assert (read.names, read.system, read.dt) == (made.names, "Test", made.dt)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    data.save_npz(path, coded(1, 3))

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        data.save_npz(path, coded(2, 3))
    assert len(data.load_npz(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.usefixtures("as_a_user")
def test_load_refuses_what_is_not_ours(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    ours = {"ts": [0.0, 1.0], "ys": np.zeros((1, 2, 1)), "t0s": [0.0]}
    said = '{"format": "physml.trajectories/1", "names": ["x"], "system": ""}'
    archives = {
        "other": {"a": np.zeros(3), "b": 1},
        "new": ours | {"metadata": '{"format": "x/9", "names": ["x"], "system": ""}'},
        "list": ours | {"metadata": "[1]"},
        "none": ours | {"metadata": "{}"},
        "shape": ours | {"metadata": said, "ys": np.zeros((1, 3, 1))},
        "names": ours | {"metadata": said.replace('["x"]', "5")},
        "nan": ours | {"metadata": said, "ys": np.full((1, 2, 1), np.nan)},
    }
    for name, arrays in archives.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for name, message in (
        ("text", "must be a file that save_npz wrote"),
        ("one", "with the arrays ts, ys, t0s, metadata, got one array without a name"),
        ("other", "with the arrays ts, ys, t0s, metadata, got a, b, without ts, .*from_arrays"),
        ("new", "must have format 'physml.trajectories/1', got 'x/9'"),
        ("list", r"must hold metadata that save_npz wrote, got '\[1\]'"),
        ("none", "must hold metadata that save_npz wrote"),
        ("shape", r"ts and t0s must have shapes"),
        ("names", "names must be a list or tuple of strings, got 5"),
        ("nan", "ys must be finite"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name}\\.npz.* {message}"):
            data.load_npz(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        data.load_npz(tmp_path / "none" / "none.npz")


def test_csv_is_read_back_to_the_last_bit(tmp_path):
    ys = np.random.default_rng(0).standard_normal((3, 4, 2))
    ys = ys * np.geomspace(1e-300, 1e300, 4)[:, None]
    written = data.from_arrays(0.1 * np.arange(4), ys, names=("prey", "predators"))
    data.to_csv(tmp_path / "fields.csv", written, trajectory="field")
    assert (tmp_path / "fields.csv").read_text().startswith("field,t,prey,predators\n0,0.0,")
    read = data.from_csv(tmp_path / "fields.csv", trajectory="field")
    assert read.names == written.names
    np.testing.assert_array_equal(read.ys, written.ys)
    np.testing.assert_array_equal(read.ts, written.ts)


def test_csv_of_one_trajectory(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t, x, y\n0.0,1,2\n0.1,3,4\n\n0.2,5,6\n")
    trajectories = data.from_csv(path)
    assert trajectories.names == ("x", "y") and trajectories.system == "a.csv"
    np.testing.assert_allclose(trajectories.ts, [0, 0.1, 0.2])
    np.testing.assert_array_equal(trajectories.ys[0], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(data.from_csv(path, columns=("y",)).ys[0, :, 0], [2, 4, 6])


def test_csv_of_several_trajectories(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("run;x;time\na;1;0.0\nb;10;5.0\na;2;0.5\nb;20;5.5\n")
    trajectories = data.from_csv(path, time="time", trajectory="run", delimiter=";")
    np.testing.assert_array_equal(trajectories.ys[:, :, 0], [[1, 2], [10, 20]])
    np.testing.assert_allclose(trajectories.t0s, [0.0, 5.0])
    np.testing.assert_allclose(trajectories.ts, [0.0, 0.5])


@refusals(
    ("", "got an empty file"),
    ("a,b\n1,2\n", "must have columns"),
    ("t\n1\n", "must have columns"),
    ("t,x\n0,1\n1,nan\n", "line 3, column 'x'.*'nan'"),
    ("t,x\n0,1\n1,two\n", "line 3, column 'x'.*'two'"),
    ("t,x\n0,1\n1\n", "line 3 must have 2 cells, .*got 1: pass delimiter="),
    ("t,x\n0,1\n1,2\n1,3\n", "must increase"),
    ("t,x\n0,1\n1,2\n3,3\n", "uniform"),
    ("t,x\n0,1\n", "at least 2"),
    ("id,t,x\na,0,1\na,1,2\nb,0,1\n", "equally many rows"),
    ("id,t,x\na,0,1\na,1,2\nb,0,1\nb,2,1\n", "one time step"),
)
def test_csv_errors_say_where(text, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    data.from_csv(path, trajectory="id" if text.startswith("id") else None)


def test_printed_times_count_as_uniform():
    ts = np.round(np.linspace(0, 20, 3001), 6)
    assert data.from_arrays(ts, np.zeros((3001, 1))).dt == pytest.approx(20 / 3000)


made = data.from_arrays


@refusals(
    (lambda: made([0, 1], np.array([[[0.0], [np.nan]]])), r"nan at index \(0, 1, 0\)"),
    (lambda: made([0, 1], [["a"], ["b"]]), "real numbers", TypeError),
    (lambda: made([0, 1], [[1.0], [1j]]), "real numbers", TypeError),
    (lambda: made([0, 1], [[1.0], [2.0, 3.0]]), "real numbers", TypeError),
    (lambda: made([0, 1, 2], np.zeros((2, 2, 1))), "ts and t0s must have"),
    (lambda: made([0, 1], np.zeros(2)), "ys must have shape"),
    (lambda: made([0, 1], np.zeros((0, 2, 1))), "ys must have shape"),
    (lambda: made([0], np.zeros((1, 1, 1))), "at least 2"),
    (lambda: made([1, 0], np.zeros((2, 1))), "must increase"),
    (lambda: made([0, np.inf], np.zeros((2, 1))), "finite"),
    (lambda: made([0, 1], np.zeros((2, 1)), names=("a", "b")), "names"),
    (lambda: made([0, 1], np.zeros((2, 1)), t0s=[0.0, 1.0]), "ts and t0s must have"),
    (lambda: made([0, 1], np.zeros((2, 1)), t0s=[np.nan]), "t0s must be finite"),
    (lambda: made([0, 1], np.zeros((2, 1)), dtype=int), "floating dtype", TypeError),
    (lambda: made([0, 1], np.zeros((2, 2)), names=("a", "a")), "names must differ"),
    (lambda: made([0, 1], np.ma.masked_less([[0.0], [1.0]], 0.5)), "ys must have no masked"),
    (
        lambda: made([0, 1], np.zeros((2, 1), "float32"), t0s=[1.7e9 + 1]),
        "t0s must be far smaller for float32",
    ),
    (lambda: data.Standardiser.fit(jnp.zeros((0, 3))), "rows"),
    (lambda: data.Standardiser.fit(jnp.array([[-1.7e308], [1.7e308]])), "range of x must be fin"),
    (lambda: data.Standardiser(jnp.zeros(2), jnp.array([1.0, 0.0])), "std must be positive"),
    (lambda: data.Standardiser.fit(jnp.eye(3))(jnp.zeros(2)), r"x must have shape \(\.\.\., 3\)"),
)
def test_bad_arrays(call):
    call()


def test_float64_is_never_rounded_in_silence():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="jax_enable_x64"):
            data.from_arrays([0, 1], np.zeros((2, 1)))
        assert data.from_arrays([0, 1], np.zeros((2, 1)), dtype="float32").ys.dtype == "float32"
        assert data.from_arrays([0, 1], [[0.0], [1.0]]).ys.dtype == "float32"
