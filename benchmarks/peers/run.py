"""This package beside its peers: the same data, the same cores, float64, one process a row.

    python benchmarks/peers/run.py [--only PROBLEM ...] [--limit SECONDS] [--out DIR] [--quick]

Each peer has an environment of its own, made by `pip` from `requirements.toml` and kept between
runs, and each row a process of its own; rows run one after another. A row says the setting in a
sentence: the one its library's documentation recommends, or a better one where we know it. Networks
that are trained get `limit` seconds, and what they have reached by then counts. Seconds do not
include compiling, where a library compiles; then a first call has been made. Error and seconds of a
row are compared with those of this package from the same run, and `better` says where the peer
wins. A row without figures says why.

With --only the other problems are left out; a file to --record in keeps what it says of them, and
gets the date of the new figures. After an interruption --resume continues the run.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _environments import NotInstalled, interpreter
from _peer_problems import PROBLEMS, Problem, drawn

from physml import experiment
from physml.experiment import Run

ROWS = Path(__file__).with_name("rows")
NETWORKS = ("deepxde", "neurodiffeq", "jinns", "pina", "anypinn")
GRACE = 120.0  # seconds of importing, compiling and evaluating, on top of a limit
COLUMNS = {
    "name": "", "better": "better in", "error": "error", "vpt_mean": "valid for",
    "seconds": "seconds", "compile_seconds": "compiling", "setting": "setting",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_peers")
    only: tuple[str, ...] = ()
    """Problems by name; all unless given."""
    limit: float = 40.0
    """Seconds for which a network is trained (5 if quick)."""
    quick: bool = False
    """Small batches and short training."""
    environments: Path = Path("results/peers_environments")
    """Folder of the peers' environments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.only) - set(PROBLEMS):
            raise ValueError(f"only must name {', '.join(PROBLEMS)}, got {', '.join(unknown)}")
        if not self.limit > 0:
            raise ValueError(f"limit must be positive, got {self.limit}")


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    limit = min(5.0, config.limit) if config.quick else config.limit
    partial = replace(config, record=None) if config.only else config
    with Run(config.out, partial) as run:
        run.metrics({"limit": limit})
        for name in config.only or PROBLEMS:
            problem, own = PROBLEMS[name], None
            for peer, (environment, task) in problem.peers.items():
                with run.row(f"{name}.{peer}", peer) as row:
                    found = run.part(
                        f"{name}.{peer}", measure, config, name, environment, task, limit
                    )
                    own = found if own is None else own
                    row.metrics(found)
                    if found is not own:
                        row.metrics(beside(found, own))
            found = run.take_rows()
            run.metrics(best(found), prefix=name)
            rows = [{"better": "", "setting": "", **row} for row in found]
            used = {key for row in rows for key in row}
            columns = {key: words for key, words in COLUMNS.items() if key in used}
            run.table(rows, columns, title=problem.title)
        metrics = run.metrics({})
    if config.only and config.record is not None:
        renew(config.record, config.only, metrics)
    return metrics


def renew(record: Path, only: Sequence[str], metrics: Mapping[str, Any]) -> None:
    """Replace the figures of some problems in the file of a run of all.

    Raises:
        ValueError: there is no such file, or it is of another limit.
    """
    old = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if old.get("limit") != metrics["limit"]:
        raise ValueError(f"record must be of a run with the same limit, got {record}")

    def belongs(key: str) -> bool:
        return key.split(".")[0] in only

    new = {key: value for key, value in old.items() if not belongs(key)}
    new |= {key: value for key, value in metrics.items() if belongs(key)}
    new |= {f"{name}.date": metrics["date"] for name in only}
    new["wall_s"] = round(old["wall_s"] + metrics["wall_s"], 3)
    text = json.dumps(dict(sorted(new.items())), indent=2) + "\n"
    record.write_text(text, encoding="utf-8")


def measure(
    config: Config, name: str, environment: str, task: str, limit: float
) -> dict[str, float | str]:
    """The figures of one row, or why it has none."""
    problem, data = PROBLEMS[name], drawn(name, config.seed, config.quick)
    if data is None:
        return {"setting": "left out: its data are not in the folder that PHYSML_DATA names"}
    python = sys.executable
    if environment != "physml":
        try:
            python = interpreter(environment, config.environments)
        except NotInstalled as error:
            return {"setting": plain(f"does not install: {error}")}
    return answered(python, ROWS / f"_{environment}.py", task, problem, data, config.out, limit)


def answered(
    python: str, script: Path, task: str, problem: Problem, data: dict[str, np.ndarray],
    folder: Path, limit: float,
) -> dict[str, float | str]:  # fmt: skip
    """Run a row in its own process, and judge what it answers."""
    answer, said = folder.resolve() / "answer.npz", folder.resolve() / "said.json"
    for path in (answer, said):
        path.unlink(missing_ok=True)
    given = {key: value for key, value in data.items() if key not in problem.hidden}
    np.savez(folder / "data.npz", **given)  # pyright: ignore[reportArgumentType]
    # A cache on the disk would leave nothing of the compiling that the table shows.
    kept = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    root = str(Path(__file__).parents[2])
    environment = kept | {"PYTHONPATH": root if python == sys.executable else ""}
    command = [python, str(script), task, str(folder.resolve()), str(limit)]
    print(f"{script.stem[1:]}, {task} ...", flush=True)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=limit + GRACE,
            cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"setting": f"ran past its limit of {limit + GRACE:.0f} seconds"}
    if done.returncode != 0 or not said.is_file():
        print(done.stderr[-3000:], file=sys.stderr)
        errors = re.findall(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*", done.stderr, flags=re.M)
        what = errors[-1] if errors else f"exit code {done.returncode}"
        return {"setting": plain(f"breaks with {what}")}
    figures = json.loads(said.read_text(encoding="utf-8"))
    with np.load(answer) as file:
        values = file["answer"]
    hidden = {key: data[key] for key in problem.hidden}
    return figures | problem.judge(given, hidden, values)


def plain(words: str) -> str:
    """One line of words without the places of files."""
    kept = [word for word in words.split() if "/" not in word and "\\" not in word]
    return " ".join(kept)[:160].replace("|", " ")


def beside(found: dict[str, Any], own: dict[str, Any]) -> dict[str, float | str]:
    """Where a peer is better than this package, and by which factors."""
    if "seconds" not in found or "seconds" not in own:
        return {}
    better, figures = [], {}
    if "vpt_mean" in found:
        if found["vpt_mean"] > own["vpt_mean"]:
            better.append("forecast")
    elif not np.isfinite(found["error"]):
        pass
    else:
        figures["error_ratio"] = found["error"] / own["error"]
        if figures["error_ratio"] < 1.0:
            better.append("error")
    figures["seconds_ratio"] = found["seconds"] / own["seconds"]
    if figures["seconds_ratio"] < 1.0:
        better.append("time")
    return figures | {"better": " and ".join(better) or "neither"}


def best(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Error and seconds in words: ours, Diffrax's, and those of the most accurate peers."""
    known = [row for row in rows if "error" in row and np.isfinite(row["error"])]

    def least(wanted: Callable[[str], bool], named: bool) -> str | None:
        chosen = [row for row in known if wanted(str(row["name"]))]
        if not chosen:
            return None
        row = min(chosen, key=lambda row: row["error"])
        words = f"{shown(row['error'], '.0e')} in {shown(row['seconds'], '.2g')} s"
        return f"{words} ({row['name']})" if named else words

    def other(name: str) -> bool:
        return not name.startswith(("physml", "diffrax")) and name not in NETWORKS

    found = {
        "in_words.physml": least(lambda name: name == "physml", False),
        "in_words.diffrax": least(lambda name: name.startswith("diffrax"), False),
        "in_words.networks": least(lambda name: name in NETWORKS, True),
        "in_words.others": least(other, True),
    }
    return {key: words for key, words in found.items() if words is not None}


def shown(number: float, form: str) -> str:
    """A number as on paper, 4e-15 and not 4.0e-15, 1e-5 and not 1e-05."""
    return re.sub(r"e(-?)\+?0*(\d)", r"e\1\2", format(number, form)).removesuffix("e0")


if __name__ == "__main__":
    experiment.cli(main, Config)
