"""A run's folder holds whole files, strict JSON and honest provenance."""

import dataclasses
import datetime
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro
from matplotlib.figure import Figure

import physml
from physml import experiment, fit
from physml.experiment import _cache, _config


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 7
    rate: float = math.inf
    out: Path = Path("somewhere")
    widths: tuple[int, ...] = (8, 8)


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def run(tmp_path):
    with experiment.Run(tmp_path, Config()) as run:
        yield run


def files(folder):
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {"run.json", "run.lock"}  # which every run has


def test_config_is_written_on_entry(tmp_path):
    with experiment.Run(tmp_path / "deep" / "run", Config()):
        written = strict_json(tmp_path / "deep" / "run" / "config.json")
    assert written == {"seed": 7, "rate": "inf", "out": "somewhere", "widths": [8, 8]}


def test_metrics_are_flat_strict_and_complete(tmp_path):
    values = {"mlp.eps1": jnp.asarray(1e-12), "mlp.count": np.int64(3), "mlp.ok": np.bool_(True)}
    values |= {"mlp.note": "fine", "mlp.none": None, "bad.nan": math.nan, "bad.low": -jnp.inf}
    with experiment.Run(tmp_path, Config()) as run:
        returned = run.metrics(values)
    written = strict_json(tmp_path / "metrics.json")
    assert written["mlp.eps1"] == 1e-12
    assert written["mlp.count"] == 3 and written["mlp.ok"] is True
    assert written["mlp.note"] == "fine" and written["mlp.none"] is None
    assert math.isnan(float(written["bad.nan"])) and float(written["bad.low"]) == -math.inf
    assert written["seed"] == 7 and written["dtype"] == "float64"
    assert written["device"].startswith(jax.devices()[0].platform)
    assert written["versions.jax"] == jax.__version__
    assert written["cache"] == bool(jax.config.jax_compilation_cache_dir)
    for package in ("flax", "optax", "diffrax", "physml", "python", "platform"):
        assert written[f"versions.{package}"]
    assert returned.keys() == written.keys()
    assert all(not isinstance(value, dict | list) for value in written.values())


def test_metrics_accumulate(tmp_path):
    with experiment.Run(tmp_path, Config()) as run:
        run.metrics({"first": 1})
        run.metrics({"second": 2})
    written = strict_json(tmp_path / "metrics.json")
    assert written["first"] == 1 and written["second"] == 2


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"mlp": {"eps1": 1.0}}, TypeError, "for 'mlp' a nested mapping"),
        ({"vpt": np.ones(3)}, TypeError, "for 'vpt' ndarray"),
        ({"vpt": jnp.ones((1,))}, TypeError, "scalars, got for 'vpt'"),
        ({"vpt": [1.0]}, TypeError, "for 'vpt' list"),
        ({"vpt": 1j}, TypeError, "for 'vpt' complex"),
        ({3: 1.0}, TypeError, "strings as names"),
        ({"wall_s": 1.0}, ValueError, "'wall_s': the run itself records it"),
    ],
)
def test_metrics_refuse(tmp_path, run, values, error, words):
    with pytest.raises(error, match=words):
        # Past the signature's own check, as a caller without run-time type checks arrives.
        getattr(experiment.Run.metrics, "__wrapped__", experiment.Run.metrics)(run, values)
    assert files(tmp_path) == {"config.json"}


def test_compile_time_is_counted_once_and_only_inside(tmp_path):
    @jax.jit
    def inner(x):
        return jnp.sin(x)

    with experiment.Run(tmp_path, Config()) as run:
        before = run.metrics({})
        jax.jit(lambda x: inner(x) + jnp.linalg.svd(x)[0])(jnp.ones((3, 3)))
        after = run.metrics({})
    assert before["compile_seconds"] == 0.0
    assert 0.0 < after["compile_seconds"] <= after["wall_s"]
    seconds = run._timing.compile_seconds
    jax.jit(lambda x: x * 3)(jnp.ones(5))
    assert run._timing.compile_seconds == seconds


@pytest.mark.parametrize(
    ("spans", "total"),
    [
        ([], 0.0),
        ([(1.0, 2.0), (4.0, 6.0)], 3.0),
        ([(1.0, 5.0), (2.0, 3.0)], 4.0),
        ([(2.0, 5.0), (1.0, 3.0)], 4.0),
    ],
)
def test_nested_and_overlapping_spans(spans, total):
    assert experiment._timing._covered(spans) == total


def test_failed_writes_leave_nothing_and_keep_the_old(tmp_path, run):
    class Broken(Figure):
        def savefig(self, fname, **_):
            Path(fname).write_bytes(b"half")
            raise OSError("disk full")

    good = run.figure("plot", Figure())
    content = good.read_bytes()
    for name in ("plot", "other"):
        with pytest.raises(OSError, match="disk full"):
            run.figure(name, Broken())
    assert content.startswith(b"\x89PNG")
    assert good.read_bytes() == content
    assert files(tmp_path) == {"config.json", "figures/plot.pdf", "figures/plot.png"}


def test_history_is_read_back(tmp_path, run):
    recorded = {"loss": jnp.arange(3.0), "valid_loss": np.ones(1)}
    path = run.history("mlp", recorded)
    assert path == tmp_path / "history" / "mlp.npz"
    with np.load(path) as arrays:
        assert set(arrays) == set(recorded)
        np.testing.assert_array_equal(arrays["loss"], [0.0, 1.0, 2.0])


def test_a_model_opens_by_itself(tmp_path, run):
    model = {"weights": jnp.arange(3.0), "count": 4}
    path = run.save_model("mlp", model)
    assert path == tmp_path / "models" / "mlp"
    loaded = physml.load(path)
    assert loaded["count"] == 4
    np.testing.assert_array_equal(loaded["weights"], model["weights"])


def test_a_new_run_drops_the_old_claims(tmp_path):
    with experiment.Run(tmp_path, Config()) as run:
        run.metrics({"a": 1})
        run.table([["a", 1]], ["name", "value"])
    with pytest.raises(RuntimeError, match="stop"), experiment.Run(tmp_path, Config(seed=8)):
        raise RuntimeError("stop")
    assert files(tmp_path) == {"config.json"}
    assert strict_json(tmp_path / "config.json")["seed"] == 8


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_names_stay_in_the_folder(run, name):
    for write, content in [(run.figure, Figure()), (run.save_model, {})]:
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            write(name, content)


def test_bad_config_and_folder(tmp_path):
    for config in ({"seed": 0}, Config):
        with pytest.raises(TypeError, match="config must be a dataclass instance"):
            experiment.Run(tmp_path, config)
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="out_dir must be a folder"):
        experiment.Run(tmp_path / "taken", Config())


def test_table_is_aligned_printed_and_written(tmp_path, capsys):
    rows = [["MLP", 20.71234, 7.1e-12, None], ["GRU, frozen", 8.0, jnp.asarray(2e-3), 12]]
    columns = ["model", "VPT (LT)", "eps1", "seconds"]
    with experiment.Run(tmp_path, Config()) as run:
        text = run.table(rows, columns, title="Lorenz")
        run.table([["PINN", 1]], ["model", "n"])
    assert text.splitlines() == [
        "Lorenz",
        "model        VPT (LT)     eps1  seconds",
        "-----------  --------  -------  -------",
        "MLP             20.71  7.1e-12        -",
        "GRU, frozen         8  2.0e-03       12",
    ]
    assert text in capsys.readouterr().out
    assert (tmp_path / "table.txt").read_text() == (text + "\n\nmodel  n\n-----  -\nPINN   1\n")


def test_a_row_is_metrics_and_a_row_of_the_table(run):
    with run.row("mlp", "MLP") as row:
        assert row.time(lambda x, y: x + y, 1, y=2) == 3
        row["eps1"] = jnp.asarray(0.5)
        row.metrics({"more": 1})
        row.shown["steps"] = 7
    with run.row("gru") as row:
        row["eps1"] = 0.25
    with pytest.raises(RuntimeError, match="stop"), run.row("rnn") as row:
        row["eps1"] = 0.125
        raise RuntimeError("stop")
    rows = run.take_rows()
    assert run.take_rows() == []
    text = run.table(rows, {"name": "net", "steps": "n", "eps1": "error"}, title="Nets")
    everything = run.metrics({})
    cells = [["MLP", 7, 0.5], ["gru", None, 0.25]]
    assert text == experiment.format_table(cells, ["net", "n", "error"], title="Nets")
    assert [key for key in everything if key[:4] in ("mlp.", "gru.", "rnn.")] == [
        "mlp.seconds", "mlp.compile_seconds", "mlp.eps1", "mlp.more", "gru.eps1",
    ]  # fmt: skip


def quadratic(model, batch, key):
    return jnp.sum(model**2), {}


def press(report=None):
    signal.raise_signal(signal.SIGINT)


def test_an_interrupted_fit_leaves_nothing_that_looks_complete(tmp_path):
    options = {"optimizer": optax.sgd(0.1), "steps": 10, "chunk": 5}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), experiment.Run(tmp_path, Config()) as run:
        with run.row("first") as row:
            row.time(lambda: 1)
        run.table(run.take_rows(), {"name": "net"})
        with run.row("second") as row:
            row.time(fit.gradient, quadratic, jnp.ones(1), callback=press, **options)
            raise AssertionError("the fit returned")
    assert files(tmp_path) == {"config.json", "metrics.json.unfinished", "table.txt.unfinished"}
    written = strict_json(tmp_path / "metrics.json.unfinished")
    assert not any(key.startswith("second") for key in written)
    assert experiment.record_of(tmp_path)["state"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    with experiment.Run(tmp_path, Config()):
        pass
    assert files(tmp_path) == {"config.json"}


@dataclasses.dataclass(frozen=True)
class Options(experiment.Config):
    """Options."""

    out: Path = Path("results/here")
    draws: int = 3
    """Draws of the noise."""


def options(tmp_path, **more):
    return Options(out=tmp_path / "run", record=tmp_path / "docs" / "here.json", **more)


def test_a_finished_run_is_recorded(tmp_path):
    config = options(tmp_path, draws=4)
    with experiment.Run(config.out, config) as run:
        run.metrics({"z": 1.5, "a": math.nan})
        assert not config.record.exists()
    written = config.record.read_text()
    assert strict_json(config.record) == strict_json(config.out / "metrics.json")
    names = list(json.loads(written))
    assert names == sorted(names) and {"a", "z", "date", "command", "cpu_count"} <= set(names)
    moment = datetime.datetime.fromisoformat(json.loads(written)["date"])
    assert moment.utcoffset() == datetime.timedelta(0)
    assert not [word for word in (str(tmp_path), str(Path.home())) if word in written]


@pytest.mark.parametrize("then", ["metrics", "part", "exit"])
def test_ctrl_c_is_not_lost_where_python_drops_exceptions(tmp_path, monkeypatch, then):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: dropped.append(what.exc_type))

    class Rubbish:
        def __del__(self):
            press()

    with pytest.raises(KeyboardInterrupt), experiment.Run(tmp_path, Config()) as run:
        run.metrics({"z": 1.5})
        Rubbish()
        assert dropped == [KeyboardInterrupt]
        if then == "metrics":
            run.metrics({"z": 2.5})
        if then == "part":
            run.part("next", lambda: 1)
        assert then == "exit"
    assert not (tmp_path / "metrics.json").exists() and not (tmp_path / "parts").exists()


def test_an_interrupted_run_or_a_quick_one_is_not_recorded(tmp_path):
    config = options(tmp_path)
    with pytest.raises(KeyboardInterrupt), experiment.Run(config.out, config) as run:
        run.metrics({"z": 1.5})
        raise KeyboardInterrupt
    assert not config.record.exists()
    with pytest.raises(
        ValueError, match=r"record must be of a full run, got .*here\.json with quick"
    ):
        options(tmp_path, quick=True)


@dataclasses.dataclass(frozen=True)
class More(Options):
    """More options."""

    data: Path | None = None
    rows: tuple[str, ...] = ()
    better: bool = False
    plain: bool = True
    wide_epochs: int = 60


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"seed": 3, "draws": 3}, " --seed 3"),
        ({"data": Path("/home/me/data"), "better": True}, " --data DIR --better"),
        ({"rows": ("mlp", "a b"), "plain": False}, " --rows mlp 'a b' --no-plain"),
        ({"wide_epochs": 2, "record": Path("x.json")}, " --wide-epochs 2"),
    ],
)
def test_the_command_repeats_the_run(tmp_path, monkeypatch, changed, words):
    main = sys.modules["__main__"]  # which in a worker of pytest-xdist is of no file
    monkeypatch.setattr(main, "__file__", str(tmp_path / "scripts" / "it.py"), raising=False)
    config = More(out=tmp_path / "run", **changed)
    for folder, script in ((tmp_path, "scripts/it.py"), (tmp_path.parent / "else", "it.py")):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        with experiment.Run(config.out, config) as run:
            assert run.metrics({})["command"] == f"python {script}{words}"
    monkeypatch.delattr(main, "__file__")
    with experiment.Run(config.out, config) as run:
        assert run.metrics({})["command"] is None
    read = tyro.cli(More, args=shlex.split(words))
    own = {"out": read.out, "record": None, "data": config.data and Path("DIR")}
    assert read == dataclasses.replace(config, **own)


def test_a_command_line_is_read_and_ctrl_c_is_a_failure(monkeypatch, capsys):
    def interrupted(config):
        assert config == Options(seed=3, draws=4, cache=False)
        error = KeyboardInterrupt()
        error.add_note("go on so.")
        raise error

    monkeypatch.setattr(sys, "argv", ["script", "--seed", "3", "--draws", "4", "--no-cache"])
    with pytest.raises(SystemExit) as stop:
        experiment.cli(interrupted, Options)
    words = capsys.readouterr().err
    assert stop.value.code == 130 and "not complete" in words and words.endswith("go on so.\n")
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit):
        experiment.cli(interrupted, Options)
    words = capsys.readouterr().out
    assert all(part in words for part in (__doc__[:20], "results/here", "Draws of", "Seed of"))


@pytest.mark.parametrize(
    ("label", "expected"),
    [("Adam, 0.1", "adam_0.1"), ("L-BFGS", "l-bfgs"), ("w x d (a/b)", "w_x_d_a_b")],
)
def test_slug_is_a_plain_file_name(run, label, expected):
    assert experiment.slug(label) == expected
    run.figure(experiment.slug(label), Figure())


def test_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match="must have 2 cells"):
        experiment.format_table([["a", 1], ["b"]], ["name", "value"])


def test_a_table_is_plain_in_files_and_drawn_at_a_terminal(run, monkeypatch, capsys):
    rows = [["MLP [32] of many units", 7.1e-12], ["GRU", None]]
    text = run.table(rows, ["network", "eps1"], title="Errors [relative]")
    assert capsys.readouterr().out == text + "\n\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("TERM", "xterm")
    assert run.table(rows, ["network", "eps1"], title="Errors [relative]") == text
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)  # without its bold letters
    assert shown != text + "\n\n" and max(map(len, shown.splitlines())) <= 24
    for words in ("Errors [relative]", "network", "MLP [32]", "units", "7.1e-12", "GRU"):
        assert words in shown
    with pytest.raises(ValueError, match="must have 2 cells"):
        run.table([["a"]], ["network", "eps1"])


def test_a_timed_block_keeps_compiling_apart(run):
    with run.timed() as first:
        jax.jit(lambda x: jnp.sin(x) * 3.25)(jnp.ones(7)).block_until_ready()
    with run.timed() as nothing:
        pass
    assert first.compile_seconds > 0.0 and first.seconds >= 0.0
    assert nothing.compile_seconds == 0.0 and nothing.seconds < first.compile_seconds


@pytest.mark.parametrize("repeats", [1, 4])
def test_the_best_of_several_calls_leaves_the_first_out(monkeypatch, repeats):
    clock = iter([0.0, 9.0, 10.0, 13.0, 20.0, 22.0, 30.0, 34.0, 40.0, 45.0])  # 9, then 3, 2, 4, 5
    monkeypatch.setattr(experiment._timing.time, "perf_counter", lambda: next(clock))
    answers = iter(range(5))
    answer, seconds, compiling = experiment.best_of(lambda: next(answers), repeats)
    assert answer == repeats
    assert (seconds, compiling) == ((3.0, 6.0) if repeats == 1 else (2.0, 7.0))


def test_computations_beside_each_other():
    met = threading.Barrier(3, timeout=60)

    def compute(number):
        met.wait()  # for the others: one after the other they would never come
        return number, jnp.zeros(()).dtype

    with jax.enable_x64(False):
        found = experiment.beside(*(partial(compute, number) for number in range(3)))
    assert found == ((0, "float32"), (1, "float32"), (2, "float32"))
    with pytest.raises(ZeroDivisionError):
        experiment.beside(lambda: 1, lambda: 1 / 0)
    assert experiment.beside() == ()


def test_error_factors_leave_out_what_is_not_known():
    error = np.array([1e-6, -1e-6, 1e-3, 1e-13, 0.0])
    estimate = jnp.array([2e-6, 2.5e-7, -1e-3, 1.0, 1.0])
    np.testing.assert_allclose(experiment.error_factors(estimate, error), [2.0, 4.0, 1.0])
    floor = np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(experiment.error_factors(estimate, error, floor), [2.0, 1e13])


@dataclasses.dataclass(frozen=True)
class Resumable(Config):
    resume: bool = False


def test_an_interrupted_run_goes_on(tmp_path):
    calls = []

    def compute(path, name, fails=False):
        calls.append(name)
        path.mkdir()
        (path / "begun").touch()
        if fails:
            raise KeyboardInterrupt
        return {"x": jnp.arange(3), "calls": len(calls)}

    def run(config, fails):
        with experiment.Run(tmp_path, config) as run, run.row("first", "a b") as row:
            first = row.part(compute, row.checkpoint, "first")
            time = row.figures["seconds"]
            second = run.part("second", compute, run.checkpoint("second"), "second", fails=fails)
        return first, second, time

    with pytest.raises(KeyboardInterrupt) as caught:
        run(Resumable(), fails=True)
    assert calls == ["first", "second"]
    assert caught.value.__notes__ == [
        f"{tmp_path / 'parts'} keeps 1 finished part and a checkpoint of second: "
        "the same command with --resume goes on from there."
    ]
    kept = {"begun.json", "first/version_1.zip", "second.checkpoint/begun"}
    assert files(tmp_path / "parts") == kept
    before = json.loads((tmp_path / "parts/begun.json").read_text())["spent"]

    with pytest.raises(ValueError, match=r"which .*parts holds parts, got .* seed = 8, not 7$"):
        run(Resumable(resume=True, seed=8), fails=False)
    assert files(tmp_path / "parts") == kept
    shutil.rmtree(tmp_path / "parts/second.checkpoint")
    first, second, time = run(Resumable(resume=True, out=tmp_path), fails=False)
    assert calls == ["first", "second", "second"]
    np.testing.assert_array_equal(first["x"], np.arange(3))
    assert (first["calls"], second["calls"]) == (1, 3)
    metrics = strict_json(tmp_path / "metrics.json")
    assert metrics["first.seconds"] == time and metrics["wall_s"] > before["wall_s"] > 0
    assert not (tmp_path / "parts").exists(), "what is done starts anew"

    with pytest.raises(KeyboardInterrupt):
        run(Resumable(), fails=True)
    first, _, _ = run(Resumable(), fails=False)
    assert first["calls"] == 6, "without resume it begins anew"


def test_another_version_is_not_gone_on_with(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="disk"), experiment.Run(tmp_path, Config()) as run:
        run.part("first", lambda: 1)
        raise OSError("disk")
    versions = {"versions.jax": "0.0.1"}
    monkeypatch.setattr(experiment._parts, "versions", lambda: versions)
    with pytest.raises(ValueError, match=r"versions\.jax = 0\.0\.1, not"):
        experiment.Run(tmp_path, Resumable(resume=True)).__enter__()
    assert experiment.record_of(tmp_path)["state"] == "failed"


def test_no_two_parts_have_one_name(run):
    assert run.part("one", lambda: 1) == 1
    with pytest.raises(ValueError, match="no other part of this run, got 'one'"):
        run.part("one", lambda: 2)


def test_an_answer_that_cannot_be_kept_is_not_lost(tmp_path):
    def own():
        calls.append("own")
        return {"function": lambda x: 2 * x, "number": len(calls)}

    calls, words = [], r"computes this part again: .* by itself, got for 'own' one .*, <lambda>"
    with pytest.raises(KeyboardInterrupt) as caught, experiment.Run(tmp_path, Config()) as run:
        with pytest.warns(UserWarning, match=words):
            assert run.part("own", own)["function"](3) == 6
        with pytest.warns(UserWarning, match="objects"):
            assert run.part("text", lambda: np.array(["a", None]))[0] == "a"
        raise KeyboardInterrupt
    assert files(tmp_path / "parts") == {"begun.json"} and not hasattr(caught.value, "__notes__")
    with experiment.Run(tmp_path, Resumable(resume=True)) as run:
        with pytest.warns(UserWarning, match=words):
            assert run.part("own", own)["number"] == 2


def cut(folder, config=Config()):
    """Interrupt a run that has two parts, a figure, a history and a model."""
    with pytest.raises(KeyboardInterrupt), experiment.Run(folder, config) as run:
        run.part("first", lambda: np.arange(5))
        run.part("second", lambda: 2)
        run.figure("plot", Figure())
        run.history("fit", {"loss": np.ones(2)})
        run.save_model("map", 1)
        raise KeyboardInterrupt


def test_a_damaged_part_is_computed_again(tmp_path):
    cut(tmp_path)
    path = tmp_path / "parts/first/version_1.zip"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(KeyboardInterrupt) as caught:
        with experiment.Run(tmp_path, Resumable(resume=True)) as run:
            with pytest.warns(
                UserWarning, match="'first' is computed again: .*not those that were"
            ):
                assert run.part("first", lambda: "again") == "again"
            assert run.part("second", lambda: "again") == 2
            raise KeyboardInterrupt
    assert "keeps 2 finished parts: " in caught.value.__notes__[0]
    with experiment.Run(tmp_path, Resumable(resume=True)) as run:
        assert run.part("first", lambda: "anew") == "again"


def test_a_part_of_another_mode_is_refused_and_kept(tmp_path):
    cut(tmp_path)
    with jax.enable_x64(True), pytest.raises(KeyboardInterrupt):
        with experiment.Run(tmp_path, Resumable(resume=True)) as run:
            run.part("jax", lambda: jnp.ones(3, jnp.float64))
            raise KeyboardInterrupt
    with jax.enable_x64(False), pytest.raises(ValueError, match="x64") as caught:
        with experiment.Run(tmp_path, Resumable(resume=True)) as run:
            run.part("jax", lambda: 1)
    assert f"To compute the part 'jax' again, remove {tmp_path / 'parts/jax'}." in str(
        caught.value.__notes__
    )
    assert (tmp_path / "parts/jax/version_1.zip").exists()


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"run": 1, "spent": {}}'])
def test_parts_of_a_run_that_nobody_knows_are_refused(tmp_path, content):
    cut(tmp_path)
    (tmp_path / "parts/begun.json").write_text(content)
    with pytest.raises(ValueError, match=r"parts holds parts of one that .*: without resume"):
        experiment.Run(tmp_path, Resumable(resume=True)).__enter__()
    assert experiment.record_of(tmp_path)["state"] == "interrupted"
    with experiment.Run(tmp_path, Config()):
        pass


def test_a_resume_that_is_refused_changes_nothing(tmp_path):
    cut(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"resume must go on with the run .* seed = 8"):
        experiment.Run(tmp_path, Resumable(resume=True, seed=8)).__enter__()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with experiment.Run(tmp_path, Resumable(resume=True)) as run:
        assert run.part("second", lambda: 3) == 2


def test_a_new_run_removes_what_earlier_ones_wrote_and_nothing_else(tmp_path):
    outside = tmp_path / "outside.png"
    own = ["out/figures/own.png", "out/models/map/notes.txt", "out/history.txt", "outside.png"]
    folder = tmp_path / "out"
    cut(folder)
    for name in own:
        (tmp_path / name).touch()
    record = strict_json(folder / "run.json")
    wrote = ["figures/plot.png", "figures/plot.pdf", "history/fit.npz", "models/map"]
    assert record["files"] == wrote
    foreign = ["../outside.png", "figures/../../outside.png", str(outside), "config.json", 3]
    (folder / "run.json").write_text(json.dumps(record | {"files": wrote + foreign}))
    with experiment.Run(folder, Config(seed=8)) as run:
        assert run.figure("other", Figure()).exists()
    left = {"config.json", "figures/other.png", "figures/other.pdf"}
    assert files(folder) == left | {name.removeprefix("out/") for name in own[:3]}
    assert outside.exists() and not (folder / "history").exists()
    for damaged in ("{", json.dumps({"files": "plot"}), "[]"):
        (folder / "run.json").write_text(damaged)
        with experiment.Run(folder, Config()):
            pass
    assert experiment.record_of(folder)["state"] == "complete"


def test_a_change_of_the_working_folder_moves_no_run(tmp_path, monkeypatch):
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    config = Options(out=Path("run"), record=Path("docs/here.json"))
    with experiment.Run("run", config) as run:
        monkeypatch.chdir(tmp_path / "else")
        run.metrics({"a": 1})
        run.part("p", lambda: 1)
        run.figure("plot", Figure())
    assert strict_json(tmp_path / "run/metrics.json")["a"] == 1
    assert strict_json(tmp_path / "docs/here.json")["a"] == 1
    assert run.out_dir == tmp_path / "run" and not list((tmp_path / "else").iterdir())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught, experiment.Run("run", config) as run:
        run.part("p", lambda: 1)
        raise KeyboardInterrupt
    assert caught.value.__notes__[0].startswith(f"{Path('run/parts')} keeps 1 finished part: ")


def test_a_complete_run_that_is_resumed_is_not_made_again(tmp_path, monkeypatch, capsys):
    def main(config):
        made.append(config)
        with experiment.Run(config.out, config) as run:
            run.figure("plot", Figure())
            run.metrics({"a": len(made)})

    def made_by(*words):
        made.clear()
        monkeypatch.setattr(sys, "argv", ["script", "--no-cache", *words])
        experiment.cli(main, Options)
        return bool(made)

    made, out = [], tmp_path / "run"
    resume = ("--out", str(out), "--resume")
    assert made_by(*resume)
    assert not made_by(*resume)
    assert capsys.readouterr().out.endswith(
        f"{out} is complete already: without --resume the run begins anew.\n"
    )
    assert made_by(*resume, "--draws", "4") and not made_by(*resume, "--draws", "4")
    assert not made_by(*resume, "--draws", "4", "--record", str(tmp_path / "here.json"))
    assert strict_json(tmp_path / "here.json")["a"] == 1
    assert made_by("--out", str(out), "--draws", "4"), "without --resume it runs anew"
    for name in ("figures/plot.png", "metrics.json"):
        (out / name).unlink()
        assert made_by(*resume, "--draws", "4"), "something of it is gone"
    (out / "run.json").write_text("{")
    assert made_by(*resume, "--draws", "4")
    monkeypatch.setattr(experiment._parts, "versions", lambda: {"versions.jax": "0.0.1"})
    assert made_by(*resume, "--draws", "4")
    cut(out, Options(draws=4))
    with pytest.raises(ValueError, match="draws = 5"):
        made_by(*resume, "--draws", "5")
    assert made_by(*resume, "--draws", "4"), "what was interrupted goes on"


# In processes of their own: JAX decides once in a process whether it keeps what it compiles.
CACHED = """
import json, sys
import jax
import jax.numpy as jnp
from physml import experiment

read = []
events = jax.monitoring.register_event_listener
events(lambda event, **_: read.append(event) if event.endswith("/cache_hits") else None)
folder = experiment.use_compilation_cache(*sys.argv[1:])
value = jax.jit(lambda x: jnp.sin(x) @ jnp.exp(x))(jnp.arange(9.0))
print(json.dumps([folder and str(folder), float(value), len(read)]))
"""


def start(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", CACHED, *map(str, arguments)],
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return *json.loads(out), err


@pytest.mark.slow
def test_the_next_process_reads_what_was_compiled(tmp_path):
    user = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    folder, value, read, _ = answer(start(**user))
    assert read == 0 and folder is not None
    cache = Path(folder)
    assert cache.is_relative_to(tmp_path) and any(cache.iterdir())
    assert answer(start(cache))[:3] == (folder, value, len(list(cache.glob("*-cache"))))


@pytest.mark.slow
def test_a_cache_that_cannot_be_used_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    folder, value, _, err = answer(start(tmp_path / "file" / "cache"))
    assert folder is None and err.count("is not kept for the next run") == 1
    # Two processes that start together, then one that finds half of each program.
    for process in [start(tmp_path / "cache"), start(tmp_path / "cache")]:
        assert answer(process)[1] == value
    for path in (tmp_path / "cache").glob("*-cache"):
        path.write_bytes(path.read_bytes()[:50])
    _, same, read, err = answer(start(tmp_path / "cache"))
    assert same == value and read == 0 and "Error reading persistent compilation cache" in err
    # A user's own cache stays as it is.
    own = answer(start(tmp_path / "cache", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own")))
    assert own[:2] == (str(tmp_path / "own"), value)


def test_the_oldest_programs_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "_MOST_BYTES", 1000)
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(b"0" * 240)
        os.utime(tmp_path / name, (0, 100 - age))
    _cache._make_room(tmp_path)
    assert files(tmp_path) == set("abcd")
    (tmp_path / "new").write_bytes(b"0" * 240)
    _cache._make_room(tmp_path)
    assert files(tmp_path) == {"a", "new"}


def test_debug_finds_a_nan_where_it_arises(tmp_path, monkeypatch):
    def main(config):
        @jax.jit
        def step(x):
            harmless = jnp.where(x > 0, jnp.log(x), 0.0)
            return harmless + jnp.sqrt(x)  # NaN

        step(-jnp.ones(()))

    monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path), "--no-cache"])
    experiment.cli(main, Options)
    sys.argv.append("--debug")
    try:
        with pytest.raises(FloatingPointError, match="nan") as caught:
            experiment.cli(main, Options)
    finally:
        jax.config.update("jax_debug_nans", False)
    # Where JAX has run the logarithm before, it names the call of the program, and no line in it.
    assert any("step(-jnp.ones(()))" in str(entry.statement) for entry in caught.traceback)


@pytest.mark.parametrize("flag", ["--cache", "--no-cache"])
def test_the_command_line_decides_on_the_cache(tmp_path, monkeypatch, capsys, flag):
    asked = []
    monkeypatch.setattr(_config, "use_compilation_cache", lambda: asked.append(True))
    monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path), flag])
    experiment.cli(lambda config: None, Options)
    assert asked == [True] * (flag == "--cache")
    assert capsys.readouterr().out.endswith(f"The results are in {tmp_path}.\n")
