"""The peers' benchmark judges answers rightly, and a row without figures says why."""

import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))

import _environments as environments
import _peer_problems as problems
import run as peers

ROOT, PROBLEMS = Path(__file__).parents[1], problems.PROBLEMS


def row(tmp_path, text, limit=20.0):
    """What is said of a row that is this program."""
    script = tmp_path / "_peer.py"
    script.write_text(text)
    data = {"ts": np.linspace(0.0, 1.0, 5), "truth": np.ones((5, 2))}
    problem = PROBLEMS["oscillator"]
    return peers.answered(sys.executable, script, "task", problem, data, tmp_path, limit)


ANSWER = """
import json, sys
import numpy as np
folder = sys.argv[2]
given = np.load(folder + "/data.npz")
assert set(given) == {"ts"}  # the truth is not given away
np.savez(folder + "/answer.npz", answer=np.ones((5, 2)) + [0.1, -0.2])
open(folder + "/said.json", "w").write(json.dumps({"seconds": 2.0, "setting": "none"}))
"""


def test_an_answer_is_judged_by_its_worst_component(tmp_path):
    found = row(tmp_path, ANSWER)
    assert found["seconds"] == 2.0 and found["setting"] == "none"
    assert found["error"] == pytest.approx(0.2)


def test_a_row_that_breaks_says_with_what_and_not_where(tmp_path):
    found = row(tmp_path, "raise ValueError('no such thing in /home/somebody/x.py')")
    assert set(found) == {"setting"}
    assert found["setting"] == "breaks with ValueError: no such thing in"


def test_a_row_that_ends_without_an_answer_says_so(tmp_path):
    assert row(tmp_path, ANSWER)["error"] > 0
    assert row(tmp_path, "pass")["setting"] == "breaks with exit code 0"


def test_a_row_that_takes_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "GRACE", 0.5)
    found = row(tmp_path, "import time\ntime.sleep(60)", limit=0.5)
    assert found == {"setting": "ran past its limit of 1 seconds"}


@pytest.mark.slow
def test_what_pip_does_not_find_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(environments, "requirements", lambda: {"peer": ["no-such-package==1.0"]})
    with pytest.raises(environments.NotInstalled, match="no-such-package"):
        environments.interpreter("peer", tmp_path)
    assert not (tmp_path / "peer" / "requirements.txt").exists()  # it is tried again


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("scipy", 1e-11),
        ("diffrax", 1e-10),
        pytest.param("physml", 1e-13, marks=pytest.mark.slow),
    ],
)
def test_rows_solve_the_oscillator(name, largest, tmp_path):
    """These packages are there without an environment of their own."""
    data = problems.oscillator(0, True)
    script = peers.ROWS / f"_{name}.py"
    problem = PROBLEMS["oscillator"]
    found = peers.answered(sys.executable, script, "oscillator", problem, data, tmp_path, 60.0)
    assert found["error"] < largest and found["seconds"] > 0 and re.match(r"\d", found["version"])


def test_comparisons_say_where_a_peer_is_better():
    own = {"error": 1e-12, "seconds": 1.0}
    cases = {(1e-13, 0.5): "error and time", (1e-13, 2.0): "error", (1e-3, 0.5): "time"}
    for (error, seconds), words in (cases | {(1e-3, 2.0): "neither"}).items():
        assert peers.beside({"error": error, "seconds": seconds}, own)["better"] == words
    spoiled = {"error": float("nan"), "seconds": 2.0}
    assert peers.beside(spoiled, own)["better"] == "neither"
    longer = {"vpt_mean": 9.0, "seconds": 2.0}
    assert peers.beside(longer, {"vpt_mean": 8.0, "seconds": 1.0})["better"] == "forecast"
    assert peers.beside({"setting": "breaks"}, own) == {}


def test_the_best_peer_is_the_most_accurate_one():
    rows = [
        {"name": "physml", "error": 4e-15, "seconds": 0.04},
        {"name": "heyoka", "error": 1e-15, "seconds": 3e-5},
        {"name": "scipy", "error": float("nan"), "seconds": 1.0},
        {"name": "pina", "setting": "breaks"},
        {"name": "jinns", "error": 1e-3, "seconds": 60.0},
    ]
    assert peers.best(rows) == {
        "in_words.physml": "4e-15 in 0.04 s",
        "in_words.others": "1e-15 in 3e-5 s (heyoka)",
        "in_words.networks": "1e-3 in 60 s (jinns)",
    }


def test_some_problems_are_measured_anew_and_the_others_kept(tmp_path):
    record = tmp_path / "record.json"
    new = {"limit": 40.0, "pelts.a.error": 3.0, "date": "today", "wall_s": 10.0, "command": "new"}
    with pytest.raises(ValueError, match="record must be of a run with the same limit"):
        peers.renew(record, ["pelts"], new)
    old = {"limit": 40.0, "pelts.a.error": 1.0, "pelts.gone.error": 1.0, "batch.a.error": 2.0}
    record.write_text(json.dumps(old | {"date": "before", "wall_s": 100.0, "command": "old"}))
    peers.renew(record, ["pelts"], new)
    found = json.loads(record.read_text())
    assert list(found) == sorted(found)
    assert found == {
        "limit": 40.0, "pelts.a.error": 3.0, "pelts.date": "today", "batch.a.error": 2.0,
        "date": "before", "wall_s": 110.0, "command": "old",
    }  # fmt: skip


def test_every_row_is_in_a_table_and_has_an_environment_and_a_task():
    described = tomllib.loads((ROOT / "docs" / "results" / "tables.toml").read_text())["tables"]
    for name, problem in PROBLEMS.items():
        rows = {f"{name}.{peer}.*" for peer in problem.peers}
        assert set(described[f"peers_{name}"]["rows"]) == rows
        assert next(iter(problem.peers)) == "physml"  # the others are compared with it
        for environment, task in problem.peers.values():
            assert environment == "physml" or environment in environments.requirements()
            assert f'"{task}"' in (peers.ROWS / f"_{environment}.py").read_text()


def test_a_problem_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"only must name oscillator, .*, got nonsense"):
        peers.Config(only=("nonsense",))
