"""One run has a folder, its end is recorded, and `scripts/runs.py` shows it."""

import dataclasses
import errno
import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import physml
from physml import experiment
from physml.experiment import _files

SCRIPTS = Path(__file__).parents[1] / "scripts"
HOLD = """
import dataclasses, pathlib, sys, time
from physml import experiment

@dataclasses.dataclass(frozen=True)
class Config:
    out: pathlib.Path

with experiment.Run(sys.argv[1], Config(pathlib.Path(sys.argv[1]))) as run:
    run.metrics({"error": 0.5})
    print("ready", flush=True)
    time.sleep(600)
"""


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("somewhere")


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("runs")


def state(folder):
    return experiment.record_of(folder)["state"]


def test_how_a_run_ended_is_recorded(tmp_path):
    for error, ends in [
        (None, "complete"),
        (KeyboardInterrupt, "interrupted"),
        (OSError, "failed"),
    ]:
        folder = tmp_path / ends
        try:
            with experiment.Run(folder, Config()):
                assert state(folder) == "running"
                if error is not None:
                    raise error("the disk")
        except (KeyboardInterrupt, OSError):
            pass
        assert state(folder) == ends
    assert experiment.record_of(tmp_path / "failed")["error"] == "OSError: the disk"
    assert experiment.record_of(tmp_path) is None


def test_two_runs_in_one_process_are_refused(tmp_path):
    with experiment.Run(tmp_path, Config()):
        with pytest.raises(RuntimeError, match=r"out_dir must be free, .*@.* has been running"):
            experiment.Run(tmp_path, Config()).__enter__()
        assert state(tmp_path) == "running"
    with experiment.Run(tmp_path, Config()):
        pass
    (tmp_path / "table.txt").unlink(missing_ok=True)
    (tmp_path / "table.txt").mkdir()  # which the next run cannot remove
    for _ in range(2):
        with pytest.raises(OSError), experiment.Run(tmp_path, Config()):
            pass
    assert state(tmp_path) == "failed"


def test_a_second_run_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            with pytest.raises(RuntimeError, match=rf"\(process {other.pid}\) has been running"):
                experiment.Run(tmp_path, Config()).__enter__()
            assert (tmp_path / "metrics.json.unfinished").exists(), "nothing of it is touched"
            assert state(tmp_path) == "running"
        finally:
            other.send_signal(signal.SIGKILL)
    assert state(tmp_path) == "killed"
    with experiment.Run(tmp_path, Config()):
        pass
    assert state(tmp_path) == "complete"


def test_runs_are_listed_and_compared(tmp_path, runs, capsys):
    for name, error in [("a", 0.25), ("b", 0.5)]:
        with experiment.Run(tmp_path / name, Config()) as run:
            run.metrics({"mlp.error": error, "starts": 3, "name": "x"})
    with pytest.raises(ValueError, match="no"), experiment.Run(tmp_path / "c", Config()):
        raise ValueError("no")
    runs.main(runs.Options(below=tmp_path))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.strip().splitlines()[2:]}
    assert "complete" in lines["a"] and "mlp.error 0.25, starts 3" in lines["a"]
    assert "failed" in lines["c"] and "ValueError: no" in lines["c"]
    runs.main(runs.Options(compare=(tmp_path / "a", tmp_path / "b")))
    lines = {
        line.split()[0]: line.split() for line in capsys.readouterr().out.strip().splitlines()[2:]
    }
    assert lines["mlp.error"] == ["mlp.error", "0.25", "0.5", "2"] and "starts" not in lines


def full_disk(monkeypatch, name, state=None):
    """Let no file of a name be written: everywhere, or where it says a state of a run."""
    before = _files.write_json

    def write_json(path, content):
        if path.name == name and state in (None, content["state"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        before(path, content)

    monkeypatch.setattr(_files, "write_json", write_json)


@pytest.mark.parametrize(
    ("error", "ends"),
    [(KeyboardInterrupt, "interrupted"), (ValueError, "failed"), (None, "complete")],
)
def test_a_full_disk_hides_no_error_and_keeps_no_folder(tmp_path, monkeypatch, error, ends):
    with monkeypatch.context() as patch:
        full_disk(patch, "run.json", ends)
        with pytest.raises(error or OSError) as caught, experiment.Run(tmp_path, Config()):
            if error is not None:
                raise error
    if error is not None:
        assert "does not say how the run ended: [Errno 28] No space" in caught.value.__notes__[-1]
    assert state(tmp_path) == "killed"
    with experiment.Run(tmp_path, Config()):  # in the same process
        pass
    assert state(tmp_path) == "complete"


def test_a_full_disk_on_entry_is_said_and_keeps_no_folder(tmp_path, monkeypatch):
    with experiment.Run(tmp_path, Config()):
        pass
    with monkeypatch.context() as patch:
        full_disk(patch, "run.json")
        with pytest.raises(OSError, match=r"out_dir must be .* No space left on device"):
            experiment.Run(tmp_path, Config()).__enter__()
    assert state(tmp_path) == "complete"
    with experiment.Run(tmp_path, Config()):
        pass


def test_ctrl_c_on_a_full_disk_ends_with_130(tmp_path, monkeypatch, capsys):
    def main(config):
        with experiment.Run(config.out, config) as run:
            run.part("one", lambda: 1)
            raise KeyboardInterrupt

    @dataclasses.dataclass(frozen=True)
    class Options(experiment.Config):
        out: Path = tmp_path

    monkeypatch.setattr(sys, "argv", ["script", "--no-cache"])
    full_disk(monkeypatch, "run.json", "interrupted")
    with pytest.raises(SystemExit) as stop:
        experiment.cli(main, Options)
    words = capsys.readouterr().err
    assert stop.value.code == 130 and "keeps 1 finished part: " in words and "No space" in words


def test_an_empty_folder_is_no_finished_part(tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        with experiment.Run(tmp_path, Config()) as run:
            run.part("small", lambda: 1)
            run.checkpoint("large").mkdir()
            monkeypatch.setattr(physml.saving._file, "write", full)
            run.part("large", lambda: 2)
    assert (tmp_path / "parts/large").is_dir()
    assert "keeps 1 finished part: the same" in caught.value.__notes__[0]


def test_one_bad_file_hides_no_other_run(tmp_path, runs, capsys):
    for name in "abcdefg":
        with experiment.Run(tmp_path / name, Config()) as run:
            run.metrics({"error": 0.5})
    (tmp_path / "b/run.json").write_text('{"state": "comp')
    (tmp_path / "c/metrics.json").write_text('{"error": 0.')
    (tmp_path / "d/run.json").write_text('{"name": "of another program"}')
    (tmp_path / "e/run.json").write_bytes(b"\xff\xfe")
    (tmp_path / "f/metrics.json").write_text('{"wall_s": [1]}')
    (tmp_path / "g/run.json").write_text('{"state": 1, "started": 2, "error": [3]}')
    runs.main(runs.Options(below=tmp_path))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.strip().splitlines()[2:]}
    assert sorted(lines) == list("abcdefg") and "complete" in lines["a"]
    for name in "bcdef":
        file = tmp_path / name / ("metrics.json" if name in "cf" else "run.json")
        assert "unreadable" in lines[name] and str(file) in lines[name]
    with pytest.raises(ValueError, match=r"c/metrics\.json is damaged"):
        runs.main(runs.Options(compare=(tmp_path / "a", tmp_path / "c")))


def test_folders_that_are_not_there_are_refused(tmp_path, runs):
    with experiment.Run(tmp_path / "a", Config()) as run:
        run.metrics({"error": 0.5})
    for pair in [(tmp_path / "a", tmp_path / "no"), (tmp_path / "no", tmp_path / "a")]:
        with pytest.raises(ValueError, match=r"compare must name two runs that have .*no$"):
            runs.main(runs.Options(compare=pair))
    with pytest.raises(ValueError, match=r"below must be a folder that is there, got .*no$"):
        runs.main(runs.Options(below=tmp_path / "no"))
