"""Stiff test problems by the plain call, beside stiff integrators: error against time.

    python benchmarks/stiff.py [--out DIR] [--quick]

The problems and their end values are those of the Bari Test Set for Initial Value Problem Solvers,
and diffusion by lines, whose end is a closed form (`_stiff.py` cites them). An error is the largest
of an end value's components, each relative to the published value. A problem counts as solved if
`pinn.solve` with its defaults ends with success and an error of at most 1e-9.

Each problem runs in a process of its own, which shows its peak of memory and is stopped after
`limit_s` seconds or when it wants more than `limit_gib` of memory; the row says so. Diffrax's
Kvaerno5 and SciPy's Radau, BDF and LSODA are given several tolerances, and as absolute tolerance
the published value of each component times the relative one, which no user knows beforehand.
Seconds do not include compiling; they are the best of four calls, for SciPy of one.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # as in the rows' own processes, for the record

from _stiff import problem

from physml import experiment, plots
from physml.experiment import TIMES, Run

NAMES = (
    "robertson", "hires", "oregonator", "pollution", "e5", "van_der_pol", "akzo_nobel",
    "ring_modulator", "medical_akzo_nobel", "heat100", "heat500",
)  # fmt: skip
SOLVERS = {"kvaerno5": "Kvaerno5", "radau": "Radau", "bdf": "BDF", "lsoda": "LSODA"}
COLUMNS = {
    "name": "problem", "dim": "dim", "verdict": "verdict", "error": "error",
    "estimate": "estimate", "windows": "windows", **TIMES, "peak_gib": "peak GiB",
    **{f"{name}.cell": label for name, label in SOLVERS.items()},
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_stiff")
    quick: bool = False
    """Two small problems, few tolerances."""
    only: tuple[str, ...] = ()
    """Names of problems; all unless given."""
    tolerances: tuple[float, ...] = (1e-5, 1e-8, 1e-11)
    """Relative tolerances of the integrators."""
    limit_s: float = 90.0
    """Seconds after which a process is stopped."""
    limit_gib: float = 8.0
    """Memory that a process may take."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    names = config.only or (NAMES[:2] if config.quick else NAMES)
    tolerances = config.tolerances[:2] if config.quick else config.tolerances
    with Run(config.out, config) as run:
        for name in names:
            measure(run, config, name, tolerances)
        rows = run.take_rows()
        run.table(rows, COLUMNS, title="error in seconds of each integrator at its most accurate")
        run.metrics({
            "problems": len(rows),
            "solved": sum(row["solved"] for row in rows),
            "wrong": sum(row["verdict"] == "successful" and not row["solved"] for row in rows),
        })  # fmt: skip
        return run.metrics({})


def measure(run: Run, config: Config, name: str, tolerances: tuple[float, ...]) -> None:
    """One problem: its row, and error against time beside the integrators."""
    stated = problem(name)
    with run.row(name, stated.label) as row:
        row["dim"] = len(stated.y0)
        lines, end = child(config, name, "pinn")
        found: dict[str, Any] = lines[0] if lines else {"verdict": end}
        row.metrics(found)
        error = found.get("error")
        row["solved"] = found["verdict"] == "successful" and error is not None and error <= 1e-9
        points: dict[str, list[tuple[float, float]]] = {}
        if error is not None:
            points["pinn.solve"] = [(found["seconds"], error)]
        others, _ = child(config, name, "peers", *map(str, tolerances))
        for solver, label in SOLVERS.items():
            pairs = [
                (line["seconds"], line["error"]) for line in others if line["solver"] == solver
            ]
            if pairs:
                points[label] = pairs
                seconds, error = min(pairs, key=lambda pair: pair[1])
                row.metrics({f"{solver}.seconds": seconds, f"{solver}.error": error})
                row.shown[f"{solver}.cell"] = f"{error:.0e} in {seconds:.2g}"
        print(f"{stated.label:24}{found['verdict']}", flush=True)
    run.figure(f"{name}_error_against_time", plots.work_precision(points, title=stated.label))


def child(config: Config, *words: str) -> tuple[list[dict[str, Any]], str]:
    """The lines that a process of its own prints within its limits, and how it ended."""
    script = Path(__file__).with_name("_stiff_row.py")
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(config.limit_gib), *words],
            capture_output=True, text=True, timeout=config.limit_s,
        )  # fmt: skip
        text, end = done.stdout, ending(done)
    except subprocess.TimeoutExpired as stopped:
        output = stopped.stdout or b""
        text = output if isinstance(output, str) else output.decode()
        end = f"not in {config.limit_s:.0f} s"
    return list(parsed(text)), end


def ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended, in a word; nothing if it ended well."""
    if done.returncode == 0:
        return ""
    words = ("RESOURCE_EXHAUSTED", "MemoryError", "bad_alloc", "allocate", "Out of memory")
    if done.returncode < 0 or any(word in done.stderr for word in words):
        return "out of memory"
    print(done.stderr[-2000:], file=sys.stderr)
    return "failed"


def parsed(text: str) -> Iterator[dict[str, Any]]:
    """The figures of the complete lines."""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


if __name__ == "__main__":
    experiment.cli(main, Config)
