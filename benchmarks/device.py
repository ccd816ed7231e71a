"""What the device that JAX finds can do: rates, compiling, and errors beside a known truth.

    python benchmarks/device.py [--quick] [--rows NAME ...] [--out DIR] [--record FILE]

Trajectories, networks that step and networks that solve, images and a Gaussian process, each small
enough that all take a few minutes on a GPU; a CPU gets less to do. The rows run in a process of
their own. If one raises, crashes, or takes longer than `patience`, its reason is recorded, and the
next one begins. The figures are written after every row, their names begin with the device's name,
and what the recorded file holds of other devices, and of rows that
are not measured now, stays in it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two processes share the device

import jax

jax.config.update("jax_enable_x64", True)  # as in the rows' own process, for the record

from physml import experiment
from physml.experiment import Run

POLICY = (
    "Equations are solved in float64 and networks trained in float32. Products of float32 matrices "
    "keep all digits where accuracy is claimed, and have the device's default in training."
)
COLUMNS = {
    "name": "row", "compile_seconds": "compiling", "seconds": "seconds", "rate": "a second",
    "what": "of", "error": "error", "failed": "failed",
}  # fmt: skip
RATES = {
    "steps_per_second": "trajectory or training steps",
    "images_per_second": "images",
    "member_steps_per_second": "steps of members",
    "solves_per_second": "solutions",
}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_device")
    seed: int = 0
    """Recorded; the rows draw by keys of their own."""
    quick: bool = False
    """The least of everything, in about a minute."""
    rows: tuple[str, ...] = ()
    """The rows to measure; all unless given."""
    patience: float = 120.0
    """Seconds after which a row is given up."""
    budget: float = 600.0
    """Seconds after which no further row begins."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        run.metrics(kept(config))
        prefix = ""
        for name, figures in measured(config):
            if name == "about":
                prefix = slug(figures["name"])
                print(f"{figures['name']}, {figures['driver']}, jax {figures['jax']}\n{POLICY}")
                run.metrics(figures | {"policy": POLICY}, prefix=prefix)
                continue
            with run.row(f"{prefix}.{name}", name) as row:
                row.metrics(figures)
                for key, what in RATES.items():
                    if key in figures:
                        row.shown |= {"rate": figures[key], "what": what}
            said = ", ".join(f"{key} {shown(value)}" for key, value in figures.items())
            print(f"{name}: {said}", flush=True)
        run.table(run.take_rows(), COLUMNS, title=f"On {prefix}")
        return run.metrics({})


def slug(name: str) -> str:
    """A device's name without dots, which part the names of figures."""
    return experiment.slug(name).replace(".", "_")


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def kept(config: Config) -> dict[str, Any]:
    """What the recorded file holds of other devices, and of rows that are not measured now."""
    if config.record is None or not config.record.exists():
        return {}
    own = slug(jax.devices()[0].device_kind)
    held = json.loads(config.record.read_text(encoding="utf-8"))
    devices = {key.removesuffix(".driver") for key in held if key.endswith(".driver")}

    def stays(key: str) -> bool:
        device, _, rest = key.partition(".")
        again = not config.rows or rest.split(".")[0] in config.rows
        return device in devices and not (device == own and again)

    return {key: value for key, value in held.items() if stays(key)}


def measured(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and figures of each row, after those of the device itself, called "about"."""
    begun, names, known = time.perf_counter(), list(config.rows), False
    while True:
        current = None
        for line in lines(names, config):
            if "about" in line and not known:
                known, names = True, line["rows"]
                yield "about", line["about"]
            elif "begin" in line:
                current = line["begin"]
                print(f"[{time.perf_counter() - begun:6.1f} s] {current} ...", flush=True)
            elif "row" in line:
                names, current = names[1:], None
                yield line["row"], line["figures"]
                if time.perf_counter() - begun > config.budget:
                    break
        if not known:
            raise RuntimeError("no device answered; the reason is above")
        if current is not None:  # the process has ended in it
            names = names[1:]
            yield current, {"failed": f"the process died, or took over {config.patience:g} s"}
        if time.perf_counter() - begun > config.budget:
            yield from ((name, {"failed": "not begun within the budget"}) for name in names)
            return
        if not names:
            return


def lines(names: list[str], config: Config) -> Iterator[dict[str, Any]]:
    """What a process that measures these rows says, one line for each step of it."""
    script = Path(__file__).with_name("_device_rows.py")
    command = [sys.executable, str(script), *(["--quick"] * config.quick), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while True:
                timer = threading.Timer(config.patience, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line:
                    return
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            process.kill()


if __name__ == "__main__":
    experiment.cli(main, Config)
