"""Tables as people have them: text files of many kinds, data frames; what is refused, and where."""

import codecs
import sys
import types

import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st

from physml import data

ROWS = [(0.0, 1.5, -2.0), (0.5, 2.25, 1e-3), (1.0, 3.0, 0.125)]


def table(sep, header="t,x,y", end="\n", decimal=".", before="", after=""):
    lines = [header.replace(",", sep)] if header else []
    lines += [sep.join(map(repr, row)).replace(".", decimal) for row in ROWS]
    return before + "".join(line + end for line in lines) + after


def read(folder, content, **options):
    path = folder / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return data.from_csv(path, **options)


def assert_rows(trajectories, names=("x", "y")):
    """The three rows above, to the last bit."""
    expected = np.asarray(ROWS)
    assert trajectories.names == names and trajectories.t0s.tolist() == [0.0]
    np.testing.assert_array_equal(trajectories.ts, expected[:, 0])
    np.testing.assert_array_equal(trajectories.ys, expected[None, :, 1:])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("sep", [",", ", ", ";", "\t", "|", " ", "   ", " \t "])
def test_separators_and_line_ends(sep, end, tmp_path):
    assert_rows(read(tmp_path, table(sep, end=end)))
    assert_rows(read(tmp_path, table(sep, end=end, before=end + end, after=end)))


@pytest.mark.parametrize("sep", [";", "\t", "|", " "])
def test_decimal_commas(sep, tmp_path):
    assert_rows(read(tmp_path, table(sep, decimal=",")))
    assert_rows(read(tmp_path, table(sep, decimal=","), decimal=","))
    assert_rows(read(tmp_path, table(sep, "", decimal=","), names=("t", "x", "y")))
    quoted = ['"' + repr(x).replace(".", ",") + '"' for x in ROWS[1]]
    assert_rows(
        read(
            tmp_path,
            f"t,x,y\n0.0,1.5,-2.0\n{','.join(quoted)}\n1,3,0.125\n".replace(
                "0.0,1.5,-2.0", '0,"1,5",-2'
            ).replace("0.125", '"0,125"'),
        )
    )


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
)
def test_encodings(encoding, tmp_path):
    text = table(";", "Zeit / s;Höhe (µm);y", decimal=",")
    trajectories = read(tmp_path, text.encode(encoding), time="Zeit")
    assert_rows(trajectories, ("Höhe (µm)", "y"))
    assert_rows(
        read(tmp_path, text.encode("cp437"), time="Zeit", encoding="cp437"), ("Höhe (µm)", "y")
    )
    big = codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    assert_rows(read(tmp_path, big, time="Zeit"), ("Höhe (µm)", "y"))


@pytest.mark.parametrize(
    "text",
    [
        table(",", before="# a comment; with signs\n%and more\n", after="# the end\n"),
        table(",", "", before="# t,x,y\n"),  # numpy.savetxt(..., header="t,x,y")
        table(" ", "", before="# t x y\n"),
        table(",", "", before="# t x y\n"),
        table(";", before="sep=;\n", decimal=","),
        table(",", '"t","x","y"'),
        table(",", "t,x,y,").replace("\n", ",\n").replace(",,", ","),
        table(",", after=",,\n\n"),
        table(",", " t , x , y"),
        "t,x,y\n0,1.5D0,\N{MINUS SIGN}2\n0.5,+2.25,1e-3\n1.,3,.125\n",
    ],
)
def test_what_stands_around_the_numbers(text, tmp_path):
    assert_rows(read(tmp_path, text))


@pytest.mark.parametrize("name", ["", "index", "Unnamed: 0"])
@pytest.mark.parametrize("first", [0, 1])
def test_an_index_is_left_out(name, first, tmp_path):
    rows = [f"{first + i},{','.join(map(repr, row))}\n" for i, row in enumerate(ROWS)]
    assert_rows(read(tmp_path, f"{name},t,x,y\n" + "".join(rows)))
    if name:  # but not where it is wanted
        trajectories = read(tmp_path, f"{name},t,x,y\n" + "".join(rows), columns=(name, "y"))
        np.testing.assert_array_equal(trajectories.ys[0, :, 0], np.arange(3) + first)


@pytest.mark.parametrize(
    "time", ["t", "time", "Time", "TIME (s)", "t [s]", "t(s)", "t / s", "time[ms]"]
)
def test_times_are_known_by_name(time, tmp_path):
    assert_rows(read(tmp_path, table(",", f"{time},x,y")))


def test_columns_are_found_without_their_units(tmp_path):
    text = table(",", "t,x [m],y / (m/s)")
    assert_rows(read(tmp_path, text), ("x [m]", "y / (m/s)"))
    trajectories = read(tmp_path, text, columns=("x",))
    assert trajectories.names == ("x [m]",)
    text = table(",", 't,"height\n(m)","a ""b"" c"')
    assert_rows(read(tmp_path, text), ("height (m)", 'a "b" c'))


def test_a_temperature_is_no_time(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv must have columns with the time.*by time="):
        read(tmp_path, table(",", "T,x,y"))
    assert_rows(read(tmp_path, table(",", "t,T,time")), ("T", "time"))


def test_thousands_of_rows(tmp_path):
    ys = np.random.default_rng(0).standard_normal((20_000, 2))
    lines = [f"{i * 0.25!r};{a!r};{b!r}" for i, (a, b) in enumerate(ys.tolist())]
    trajectories = read(tmp_path, "t;a;b\n" + "\n".join(lines).replace(".", ","))
    np.testing.assert_array_equal(trajectories.ys[0], ys)


@refusals(
    ("", "got an empty file"),
    ("# nothing\n\n", "got an empty file"),
    ("t,x\n", r"must hold rows below its header, got \['t', 'x'\]"),
    ("0,1\n1,2\n", r"line 1 must be a header of names.*pass names=\('t', 'y0'\)"),
    ("t,x\n0,1\n\n# c\n1,\n", r"line 5, column 'x' must be .* got '': fill what is missing"),
    ("t,x\n0,1\n1,NA\n", "line 3, column 'x' must be .* got 'NA': fill"),
    ("t,x\n0,1\n1,inf\n", "line 3, column 'x' must be .* got 'inf'"),
    ("t,x\n0,1\n1,1e999\n", "line 3, column 'x' must be .* got '1e999'"),
    ("t,x\n0,1\n1,1_0\n", "line 3, column 'x' must be .* got '1_0'"),
    ("t;x\n0;1.5\n1;1,5\n", r"line 3, column 'x' .*sign is '\.'.*got '1,5': write numbers without"),
    ("t;x\n0;0,5\n1;1.234,5\n", r"line 2, column 'x' .*got '0,5': write numbers without"),
    ("t;x\n0;1,234\n1;5,678\n", "line 2, column 'x' must show .* got '1,234'.*pass decimal=','"),
    (
        "t,x\n0,0,1,5\n0,5,1,6\n",
        "line 2 must have 2 cells, .*got 4: where the comma is the decimal",
    ),
    ("t,x,x\n0,1,2\n1,2,3\n", "must have each column once.*got 'x' twice"),
    ("t,t,x\n0,1,2\n1,2,3\n", r"must have each column once.*'t', 't'"),
    ("t [s],t [h],x\n0,1,2\n1,2,3\n", r"must have each column once.*'t \[s\]', 't \[h\]'"),
    ("t,x,\n0,1,2\n1,2,3\n", "must have a name for each column"),
    ("run,x\n0,1\n1,2\n", "must have columns with the time, named t or time"),
    ("2024-01-01,x\n0,1\n", "must have columns with the time"),
    ("t,x\n2024-01-01,1\n2024-01-02,2\n", "line 2, column 't' .*times count from a start"),
    ("t,x\n0,1\n1,2\n1,3\n", r"line 4, column 't' must increase.*by trajectory="),
    ("t,x\n0,1\n1,2\n2,3\n4,4\n", r"line 5, column 't' must be uniform"),
    ("t,x\n0,1\n", "line 2, column 't' must have at least 2"),
    ('t,x\n0,"1\n1,2\n', "line 3 must close each quote"),
    ("t0,t,x\n0,0,1\n1,1,2\n", "line 3, column 't0' must be the same in all rows"),
    (b"PK\3\4\0\0", "must be a table of text, got a binary file"),
    (table(";").encode("utf-16-le"), "encoding='utf-16-le'"),
    (b"t,x\n0,1\n1,\x81\n", "line 3 must be text in cp1252, got the byte 0x81: name the encoding"),
)
def test_messages_say_where_and_what_to_do(content, tmp_path):
    try:
        read(tmp_path, content)
    except ValueError as error:
        assert "a.csv" in str(error)
        raise


GOOD = table(",")


@refusals(
    ({"time": 5}, "time must be text, got 5", TypeError),
    ({"time": "z"}, r"a\.csv must have columns with one 'z' among them, got \['t', 'x', 'y'\]"),
    ({"trajectory": "z"}, "must have columns with one 'z'"),
    ({"columns": "xy"}, "columns must be a list or tuple of strings, got 'xy'", TypeError),
    ({"columns": 5}, "columns must be a list or tuple of strings, got 5", TypeError),
    ({"columns": ("x", "x")}, "columns must differ"),
    ({"columns": ("t", "x")}, "must have each column once.*'t' twice"),
    ({"columns": ()}, "must have columns with the states"),
    ({"names": ("t", "x", "x")}, "names must differ"),
    ({"names": ("t", "x")}, "line 1 must have 2 cells, .* got 3"),
    ({"names": ("t", "x", "y")}, "line 1, column 't' must be .* got 't'"),
    ({"delimiter": ""}, "delimiter must be one sign"),
    ({"delimiter": 5}, "delimiter must be text", TypeError),
    ({"delimiter": ";"}, "must have columns with the time"),
    ({"decimal": ";"}, "decimal must be one of"),
    ({"decimal": ","}, r"line 2, column 't' .*decimal sign is ','.* got '0\.0'"),
    ({"encoding": "klingon"}, "encoding must be one that Python knows, got 'klingon'"),
    ({"encoding": "ascii"}, "line 1 must be text in ascii, got the byte 0xc2"),
    ({"dtype": int}, r"a\.csv: ys must have a floating dtype", TypeError),
)
@pytest.mark.usefixtures("as_a_user")
def test_arguments_refused(options, tmp_path):
    read(tmp_path, GOOD.replace("y", "y (µm)") if "encoding" in options else GOOD, **options)


@refusals(
    (5, "path must be a path, got 5", TypeError),
    (b"a.csv", "path must be a path", TypeError),
    ("none.csv", "none.csv", FileNotFoundError),
    (".", "directory", IsADirectoryError),
)
@pytest.mark.usefixtures("as_a_user")
def test_paths_refused(path):
    data.from_csv(path)


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=8)
NAMES = WORDS.map(str.strip).filter(
    lambda name: name and name == " ".join(name.split()) and name not in ("t", "t0")
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def trajectories_and_column(draw):
    num, time, dim = (draw(st.integers(low, 3)) for low in (1, 2, 1))
    names = draw(st.lists(NAMES, min_size=dim + 1, max_size=dim + 1, unique=True))
    ys = draw(st.lists(FLOATS, min_size=num * time * dim, max_size=num * time * dim))
    start, dt = (
        draw(st.sampled_from([0.0, 0.1, -3.7, 1e5])),
        draw(st.sampled_from([0.1, 1 / 3, 7e3])),
    )
    t0s = draw(st.none() | st.lists(st.floats(-1e6, 1e6), min_size=num, max_size=num))
    ts = start + dt * np.arange(time)
    return ts, np.asarray(ys).reshape(num, time, dim), t0s, names[1:], names[0]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(case=trajectories_and_column())
def test_a_table_is_the_trajectories_to_the_last_bit(case, tmp_path_factory):
    ts, ys, t0s, names, column = case
    written = data.from_arrays(ts, ys, t0s=t0s, names=names)
    path = tmp_path_factory.getbasetemp() / "identity.csv"
    if column.startswith(("#", "%")):
        with pytest.raises(ValueError, match="trajectory must not begin like a comment"):
            data.to_csv(path, written, trajectory=column)
        return
    data.to_csv(path, written, trajectory=column)
    found = data.from_csv(path, trajectory=column)
    assert found.names == written.names
    for name in ("ts", "ys", "t0s"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
    assert np.asarray(found.ys).tobytes() == np.asarray(written.ys).tobytes()


def named(*names):
    return data.from_arrays([0.0, 1.0], np.zeros((2, len(names))), names=names)


@refusals(
    (lambda p: data.to_csv(p, named("t"), trajectory="run"), "names must differ .* from t"),
    (lambda p: data.to_csv(p, named("t0"), trajectory="run"), "names must differ .* from t0"),
    (lambda p: data.to_csv(p, named("x"), trajectory="x"), "names must differ"),
    (lambda p: data.to_csv(p, named("x"), trajectory="t"), "names must differ"),
    (lambda p: data.to_csv(p, named(" x"), trajectory="run"), "names must be text on one line"),
    (lambda p: data.to_csv(p, named(""), trajectory="run"), "names must be text on one line"),
    (lambda p: data.to_csv(p, named("x\n"), trajectory="run"), "names must be text on one line"),
    (lambda p: data.to_csv(p, named("x"), trajectory="#"), "trajectory must not begin like"),
    (lambda p: data.to_csv(p, named("x"), trajectory=0), "trajectory must be text", TypeError),
    (
        lambda p: data.to_csv(p, None, trajectory="i"),
        "a data.Trajectories such as data.from_",
        TypeError,
    ),
    (lambda p: data.to_csv(5, named("x"), trajectory="i"), "path must be a path", TypeError),
)
@pytest.mark.usefixtures("as_a_user")
def test_what_could_not_be_read_back_is_not_written(write, tmp_path):
    try:
        write(tmp_path / "a.csv")
    finally:
        assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=50)
@given(case=trajectories_and_column())
def test_frames_and_data_sets_are_the_trajectories_to_the_last_bit(case):
    pytest.importorskip("xarray")  # which brings pandas
    ts, ys, t0s, names, column = case
    given = data.from_arrays(ts, ys, t0s=t0s, names=names, system="made")
    frame = data.to_dataframe(given, trajectory=column)
    found = [data.from_dataframe(frame, trajectory=column)]
    if not {"trajectory", "time"} & {*names}:
        dataset = data.to_xarray(given)
        assert dict(dataset.sizes) == {"trajectory": len(given), "time": len(ts)}
        found += [data.from_xarray(dataset), data.from_xarray(dataset.transpose())]
        assert found[-1].system == "made"
    for again in found:
        assert again.names == given.names
        for name in ("ts", "ys", "t0s"):
            np.testing.assert_array_equal(getattr(again, name), getattr(given, name))


def test_data_sets_of_others():
    xarray = pytest.importorskip("xarray")
    ts = np.asarray([2.0, 2.5, 3.0])
    one = xarray.Dataset({"x": ("hours", [1.0, 2.0, 4.0]), "n": 5}, coords={"hours": ts})
    found = data.from_xarray(one, time="hours", columns=["x"], dtype="float32", system="other")
    assert (found.ys.dtype, found.system, found.t0s.tolist()) == (np.float32, "other", [2.0])
    assert found.ys.tolist() == [[[1.0], [2.0], [4.0]]]
    field = xarray.DataArray(np.arange(12.0).reshape(3, 2, 2), dims=("time", "run", "component"))
    field = field.assign_coords(time=ts, component=["u", "v"]).to_dataset("component")
    found = data.from_xarray(field, trajectory="run")
    assert found.names == ("u", "v") and found.ys.shape == (2, 3, 2)
    assert found.ys[1, 2].tolist() == [10.0, 11.0] and found.t0s.tolist() == [2.0, 2.0]
    for found, options, message in [
        (one, {}, "dataset must have .* the coordinate 'time'"),
        (one, {"time": "hours"}, "variables with the axes \\['hours'\\], got 'n'"),
        (one, {"time": "hours", "columns": ["y"]}, "dataset must have the variables \\['y'\\]"),
        (one.isel(hours=[0, 2, 1]), {"time": "hours", "columns": ["x"]}, "ts must increase"),
        (one.where(one.x > 1), {"time": "hours", "columns": ["x"]}, "ys must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            data.from_xarray(found, **options)
    dated = one.assign_coords(hours=np.asarray(["2024-01-01"] * 3, "M8[ns]"))
    with pytest.raises(TypeError, match="ts must hold real numbers, got dtype datetime64"):
        data.from_xarray(dated, time="hours", columns=["x"])
    with pytest.raises(TypeError, match=r"dataset must be an xarray\.Dataset, got DataArray"):
        data.from_xarray(one.x)
    with pytest.raises(ValueError, match="names must differ from those of the coordinates"):
        data.to_xarray(named("time"))


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pandas must be .*pip install "physml\[frames\]"'):
        data.to_dataframe(named("x"), trajectory="run")


def frame_of(**columns):
    """The least that a frame is."""
    cells = list(columns.values())
    kind = None if all(isinstance(x, float | int) for column in cells for x in column) else object
    array = np.asarray(cells, kind).T
    return types.SimpleNamespace(columns=list(columns), to_numpy=lambda: array)


T, X, Y = (list(column) for column in zip(*ROWS, strict=True))


def test_a_frame_is_anything_with_columns_and_cells():
    assert_rows(data.from_dataframe(frame_of(t=T, x=X, y=Y)))
    several = frame_of(run=["a", "b"] * 3, t=[0, 5, 1, 6, 2, 7], x=range(6))
    trajectories = data.from_dataframe(several, trajectory="run", system="made", dtype="float32")
    assert (trajectories.t0s.tolist(), trajectories.system) == ([0, 5], "made")
    np.testing.assert_array_equal(trajectories.ys[..., 0], np.asarray([[0, 2, 4], [1, 3, 5]], "f"))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_libraries(library):
    module = pytest.importorskip(library)
    frame = module.DataFrame({"t": T, "x": X, "y": Y})
    assert_rows(data.from_dataframe(frame))
    mixed = module.DataFrame({"run": ["a"] * 3, "when": T, "x": X, "y": Y})
    assert_rows(data.from_dataframe(mixed, time="when", trajectory="run"))
    assert data.from_dataframe(mixed, time="when", columns=["y"]).names == ("y",)
    missing = module.DataFrame({"t": T, "x": [1.0, None, 2.0]})
    with pytest.raises(ValueError, match="frame, row 1, column 'x' must be a finite number, got"):
        data.from_dataframe(missing)
    if library == "pandas":
        assert_rows(data.from_dataframe(frame.set_index("t")))
        assert_rows(data.from_dataframe(frame.set_index("t").rename_axis("age"), time="age"))
        assert_rows(data.from_dataframe(frame.set_index("t").rename_axis(None)))
        with pytest.raises(ValueError, match="frame must have columns with the time"):
            data.from_dataframe(frame[["x", "y"]])  # its index only counts the rows
        dated = frame.set_index(module.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]))
        with pytest.raises(ValueError, match="frame, row 0, column 't' must be a finite number"):
            data.from_dataframe(dated[["x", "y"]])


@refusals(
    (None, "frame must be a data frame", TypeError),
    (np.zeros((3, 2)), "frame must be a data frame", TypeError),
    (frame_of(t=T, x=["1", "2", "3"]), "frame, row 0, column 'x' must be .* got '1'"),
    (frame_of(t=T, x=[1.0, np.nan, 2.0]), "frame, row 1, column 'x' must be .* got nan"),
    (frame_of(t=T, x=[1.0, np.inf, None]), "frame, row 1, column 'x' must be .* got inf"),
    (frame_of(t=[0, 1, 1], x=X), "frame, row 2, column 't' must increase"),
    (frame_of(x=X, y=Y), "frame must have columns with the time"),
    (frame_of(t=[], x=[]), "frame must have rows"),
    (types.SimpleNamespace(columns=["t", "x", "x"], to_numpy=lambda: np.eye(3)), "'x' twice"),
    (types.SimpleNamespace(columns=["t"], to_numpy=lambda: np.eye(3)), "frame must have rows"),
)
@pytest.mark.usefixtures("as_a_user")
def test_frames_refused(frame):
    data.from_dataframe(frame)
