"""What survives: runs that are killed or interrupted, files whose bits flip; what checkpoints cost.

    python benchmarks/survival.py [--out DIR] [--quick]
    python benchmarks/survival.py --kills 0 --flips 0 --scripts lorenz bayes

Processes of six kinds are killed (SIGKILL) at random moments and started again, until they end: a
fit, a sweep, a PINN trained in two stages, two networks against each other, chains of the No-U-Turn
sampler, and a script of marches. What comes out has to be equal to the bit to what comes out of a
process that was never killed. Every script with `--quick` gets Ctrl-C at random moments: it has to
end with 130, to leave nothing that looks complete, and to end with the figures of a run that nobody
interrupted when it is resumed. Then single bits of saved things are flipped, and `physml.load` has
to name the file each time. Last, the CPU time of a fit with checkpoints is compared with that of
the same fit without them.
"""

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
from _cuts import SCRIPTS, Interrupted, Killed, cut_runs
from _survival import KEY, KINDS, LOSS, network, pairs
from flax import nnx

import physml
from physml import experiment, fit, nn, pinn, reference, surrogate, systems
from physml.experiment import Run

NO_EXPERIMENTS = ("runs",)


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/survival")
    quick: bool = False
    """One kill of each kind, one Ctrl-C in the first script, and twelve flips."""
    kills: int = 54
    """Processes that are killed, of all kinds together."""
    interrupts: int = 10
    """Ctrl-C in each script; without it the benchmark takes minutes, with it most of an hour."""
    scripts: tuple[str, ...] = ()
    """Which scripts get it; all unless given. MNIST and CIFAR-10 are downloaded if need be."""
    flips: int = 150
    """Bits that are flipped, in all saved things together; without, checkpoints are not timed."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    kills, flips = (len(KINDS), 12) if config.quick else (config.kills, config.flips)
    scripts, interrupts = config.scripts or every_script(), config.interrupts
    if config.quick:
        scripts, interrupts = scripts[:1], 1
    with Run(config.out, config) as run, tempfile.TemporaryDirectory() as folder:
        if kills:
            killed(run, Path(folder), kills, config.seed)
        if interrupts:
            interrupted(run, Path(folder), scripts, interrupts, config.seed)
        if flips:
            flipped(run, Path(folder), flips, config.seed)
            steps = 500 if config.quick else 4000
            run.metrics({"checkpoint_share": checkpoint_share(Path(folder), steps)})
        return run.metrics({})


def every_script() -> tuple[str, ...]:
    """The names of all experiments."""
    names = (path.stem for path in sorted(SCRIPTS.glob("[!_]*.py")))
    return tuple(name for name in names if name not in NO_EXPERIMENTS)


def killed(run: Run, folder: Path, kills: int, seed: int) -> None:
    """Kill processes of each kind."""
    shares = np.diff(np.linspace(0, kills, len(KINDS) + 1).round().astype(int)).tolist()

    def survived(kind: str, share: int, seed: int) -> tuple[int, int, int]:
        work = Killed(kind)
        whole = work.answer(folder / kind / "whole") if share else ""
        found = cut_runs(work, share, folder / kind, seed)
        equal = sum(one.cuts for one in found if one.answer == whole)
        return len(found), sum(one.cuts for one in found), equal

    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(survived, KINDS, shares, range(seed, seed + len(KINDS))))
    for kind, (runs, count, equal) in zip(KINDS, rows, strict=True):
        with run.row(kind) as row:
            row["kills"], row["kills_bitwise"], row["runs"] = count, equal, runs
    _, count, equal = map(sum, zip(*rows, strict=True))
    run.metrics({"kills": count, "kills_bitwise": equal})
    columns = {"name": "run", "runs": "runs", "kills": "kills", "kills_bitwise": "equal to the bit"}
    run.table(run.take_rows(), columns, title="Processes that were killed and started again")


def interrupted(
    run: Run, folder: Path, scripts: tuple[str, ...], interrupts: int, seed: int
) -> None:
    """Press Ctrl-C in each script, and print what was wrong."""

    def survived(name: str, seed: int) -> tuple[int, int, float]:
        work = Interrupted(name)
        whole = work.answer(folder / name / "whole")
        found = cut_runs(work, interrupts, folder / name, seed)
        wrong = [one for one in found if one.answer != whole]
        for words in [*work.faults, *(differing(name, whole, one.answer) for one in wrong)]:
            print(words, file=sys.stderr, flush=True)
        equal = sum(one.cuts for one in found if one not in wrong)
        cuts = sum(one.cuts for one in found)
        return cuts, max(0, equal - len(work.faults)), work.longest_wait

    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(survived, scripts, range(seed, seed + len(scripts))))
    for name, (count, right, wait) in zip(scripts, rows, strict=True):
        with run.row(name) as row:
            row["interrupts"], row["interrupts_right"], row["longest_wait_s"] = count, right, wait
    counts, rights, waits = zip(*rows, strict=True)
    figures = {"interrupts": sum(counts), "interrupts_right": sum(rights)}
    run.metrics(figures | {"longest_wait_s": max(waits)})
    columns = {"name": "script", "interrupts": "Ctrl-C", "interrupts_right": "right"}
    columns |= {"longest_wait_s": "longest wait, seconds"}
    run.table(run.take_rows(), columns, title="Scripts that were interrupted and resumed")


def differing(name: str, whole: dict[str, Any], answer: dict[str, Any]) -> str:
    """Which figures of a resumed script are not those of one that nobody interrupted."""
    keys = sorted(key for key in whole | answer if whole.get(key) != answer.get(key))
    return f"{name}.py has other figures after Ctrl-C: {', '.join(keys)}"


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
