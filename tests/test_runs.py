"""One run has a folder, its end is recorded, and `scripts/runs.py` shows it."""

import dataclasses
import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from physml import experiment

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
