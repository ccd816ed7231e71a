"""What survives: runs that are killed, files whose bits flip, and what checkpoints cost.

    python benchmarks/survival.py [--out DIR] [--quick]

Processes of four kinds are killed (SIGKILL) at random moments and started again, until they end: a
fit, a sweep, the training of a PINN in two stages, and a script of marches. What comes out has to
be equal to the bit to what comes out of a process that was never killed. Then single bits of saved
things are flipped, and `physml.load` has to name the file each time. Last, the CPU time of a fit
with checkpoints is compared with that of the same fit without them.
"""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from _survival import ANSWER, KEY, KINDS, LOSS, network, pairs
from flax import nnx

import physml
from physml import experiment, fit, nn, pinn, reference, surrogate, systems
from physml.experiment import Run

WORKER = Path(__file__).with_name("_survival.py")
LONGEST = 1.5  # seconds of work before a kill


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/survival")
    quick: bool = False
    """One kill of each kind, and twelve flips."""
    kills: int = 50
    """Processes that are killed, of all kinds together."""
    flips: int = 150
    """Bits that are flipped, in all saved things together."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    kills, flips = (len(KINDS), 12) if config.quick else (config.kills, config.flips)
    with Run(config.out, config) as run, tempfile.TemporaryDirectory() as folder:
        killed(run, Path(folder), kills, config.seed)
        flipped(run, Path(folder), flips, config.seed)
        steps = 500 if config.quick else 4000
        run.metrics({"checkpoint_share": checkpoint_share(Path(folder), steps)})
        return run.metrics({})


def killed(run: Run, folder: Path, kills: int, seed: int) -> None:
    """Kill processes of each kind, in runs of about four kills each."""
    shares = np.diff(np.linspace(0, kills, len(KINDS) + 1).round().astype(int))
    jobs = []
    for kind, share in zip(KINDS, shares.tolist(), strict=True):
        parts = np.array_split(np.arange(share), max(1, share // 4))
        jobs += [(kind, len(part), folder / f"{kind}_{i}") for i, part in enumerate(parts)]
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda kind: uncut(kind, folder / kind), KINDS)
        whole = dict(zip(KINDS, answers, strict=True))
        kinds, counts, folders = zip(*jobs, strict=True)
        seeds = range(seed, seed + len(jobs))
        found = list(pool.map(survived, kinds, counts, folders, seeds))
    totals = {"kills": 0, "kills_bitwise": 0}
    for kind in KINDS:
        own = [one for one, job in zip(found, jobs, strict=True) if job[0] == kind]
        equal = sum(count for count, answer in own if answer == whole[kind])
        with run.row(kind) as row:
            row["kills"], row["kills_bitwise"] = sum(count for count, _ in own), equal
            row["runs"] = len(own)
        totals["kills"] += row.figures["kills"]
        totals["kills_bitwise"] += equal
    run.metrics(totals)
    columns = {"name": "run", "runs": "runs", "kills": "kills", "kills_bitwise": "equal to the bit"}
    run.table(run.take_rows(), columns, title="Processes that were killed and started again")


def start(kind: str, folder: Path) -> subprocess.Popen:
    """A process that works, of which something has been computed."""
    command = [sys.executable, str(WORKER), kind, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def uncut(kind: str, folder: Path) -> str:
    """What comes out of a process that nobody kills."""
    process = start(kind, folder)
    _, words = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a {kind} failed: {words}")
    return (folder / ANSWER).read_text()


def survived(kind: str, kills: int, folder: Path, seed: int) -> tuple[int, str]:
    """Returns how often a run was killed, and what came out in the end."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(kills):
        process = start(kind, folder)
        time.sleep(rng.uniform(0.0, LONGEST))
        process.kill()
        process.communicate()
        count += process.returncode < 0
    return count, uncut(kind, folder)


def saved_things() -> dict[str, Any]:
    """Things of several rooms."""
    lorenz, ts = systems.Lorenz(), np.linspace(0.0, 1.0, 101)
    train = reference.trajectories(lorenz, KEY, 10, ts)
    frozen = nn.MLP.frozen(surrogate.network_inputs(train), 30, 3, scale=0.06, rngs=nnx.Rngs(0))
    options: Any = {"optimizer": optax.adam(1e-3), "steps": 20, "batch_size": 50, "key": KEY}
    return {
        "solution": pinn.solve(lorenz, jnp.ones(3), 2.0),
        "trajectories": train,
        "step map": surrogate.fit_readout(frozen, train).step_map,
        "fit": fit.gradient(LOSS, network(KEY), pairs(), **options),
        "network": nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, rngs=nnx.Rngs(0)),
    }


def flipped(run: Run, folder: Path, flips: int, seed: int) -> None:
    """Flip one bit at a time, and count how often the file is named."""
    things, named = saved_things(), 0
    rng = np.random.default_rng(seed)
    for i, (name, thing) in enumerate(things.items()):
        place = folder / experiment.slug(name)
        physml.save(place, thing)
        (path,) = place.glob("*.zip")
        content = path.read_bytes()
        count = flips // len(things) + (i < flips % len(things))
        for bit in rng.choice(8 * len(content), count, replace=False).tolist():
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                physml.load(place)
            except ValueError as error:
                named += str(path) in str(error)
    run.metrics({"flips": flips, "flips_named": named})
    rows = [[flips, len(things), named]]
    run.table(rows, ["bits flipped", "things", "named"], title="Single bits of saved things")


def checkpoint_share(folder: Path, steps: int) -> float:
    """The CPU time that checkpoints add to a fit, as a share of the fit's own; at least zero."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 64)).astype(np.float32)
    model = nn.MLP(64, (512, 512), 64, dtype=jnp.float32, rngs=nnx.Rngs(0))
    options: Any = {"optimizer": optax.adam(1e-3), "batch_size": 256, "key": KEY}

    def cpu_seconds(steps: int, checkpoint: Path | None) -> float:
        begin = time.process_time()
        fit.gradient(LOSS, model, (x, np.tanh(x)), steps=steps, checkpoint=checkpoint, **options)
        return time.process_time() - begin

    cpu_seconds(10, None)  # compiles
    pairs = [
        (cpu_seconds(steps, folder / f"checkpoint_{i}"), cpu_seconds(steps, None)) for i in range(3)
    ]
    return max(0.0, float(np.median([kept / plain - 1 for kept, plain in pairs])))


if __name__ == "__main__":
    experiment.cli(main, Config)
