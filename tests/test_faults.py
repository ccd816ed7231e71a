"""Faults for real: full disks, folders that are read only, too little memory, killed processes."""

import dataclasses
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same_leaves

import physml
from physml import experiment, fit

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import _cuts


@pytest.fixture
def small_files():
    """No file can be longer than 50 kB: to a process this is as a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def quadratic(model, batch, key):
    return jnp.sum(model**2), {}


def fitted(**more):
    return fit.gradient(quadratic, jnp.ones(9000), optimizer=optax.sgd(0.1), steps=20, **more)


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("somewhere")


def test_a_full_disk(tmp_path, small_files):
    physml.save(tmp_path / "thing", np.ones(10))
    with pytest.raises(OSError, match="File too large"):
        physml.save(tmp_path / "thing", np.ones(10_000))
    np.testing.assert_array_equal(physml.load(tmp_path / "thing"), np.ones(10))
    with pytest.warns(UserWarning, match="the work goes on, but it is not kept in .*too large"):
        ended = fitted(checkpoint=tmp_path / "fit")
    assert_same_leaves(ended.model, fitted().model)
    with pytest.raises(OSError, match="File too large"), experiment.Run(tmp_path, Config()) as run:
        run.part("small", lambda: 1)
        run.metrics({"a": 1})
        run.part("large", lambda: np.ones(10_000))
    assert experiment.record_of(tmp_path)["state"] == "failed"
    assert not (tmp_path / "metrics.json").exists()
    assert {path.name for path in (tmp_path / "parts").glob("*/*")} == {"version_1.zip"}
    assert not list(tmp_path.rglob("*.part"))


READ_ONLY = Path("/sys/kernel")  # for root too


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason="needs a folder that nobody can write in")
def test_a_folder_that_is_read_only():
    with (
        pytest.raises(OSError, match="out_dir must be a folder to write in, got /sys/kernel"),
        experiment.Run(READ_ONLY, Config()),
    ):
        pass
    with pytest.raises(OSError, match="sys/kernel"):
        physml.save(READ_ONLY / "thing", np.ones(10))
    with pytest.warns(UserWarning, match="it is not kept in /sys/kernel/fit"):
        ended = fitted(checkpoint=READ_ONLY / "fit")
    assert_same_leaves(ended.model, fitted().model)


TOO_LARGE = """
    import resource, sys
    import jax, jax.numpy as jnp, numpy as np, optax
    from physml import fit

    def loss(model, batch, key):
        far = batch[:, None] - batch[None]  # 8 n^2 bytes
        return jnp.mean(jnp.sin(far @ jnp.ones((batch.size, batch.size)) * model).T), {}

    options = {"optimizer": optax.sgd(0.1), "steps": 1, "key": jax.random.key(0)}
    data = np.ones(1 << 20, np.float32)
    fit.gradient(loss, jnp.ones(()), data, batch_size=8, **options)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29),) * 2)
    try:
        fit.gradient(loss, jnp.ones(()), data, batch_size=1 << 17, **options)
    except MemoryError as error:
        print(error)
        size = int(str(error).split()[-2])
        fit.gradient(loss, jnp.ones(()), data, batch_size=size, **options)
"""


@pytest.mark.slow
def test_a_batch_that_is_too_large_is_told_a_size_that_fits():
    command = [sys.executable, "-c", textwrap.dedent(TOO_LARGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = done.stdout.strip()
    assert words.startswith("batch_size must fit into the memory of cpu, got 131072: ")
    assert 256 <= int(words.split()[-2]) <= 16384 and words.endswith(" fits")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fit", "sweep", "march"])
def test_a_process_that_is_killed(tmp_path, kind):
    work = _cuts.Killed(kind)
    runs = _cuts.cut_runs(work, 1, tmp_path, seed=1)
    whole = work.answer(tmp_path / "whole")
    assert sum(run.cuts for run in runs) == 1 and {run.answer for run in runs} == {whole}


def read(terminal):
    """What a program has written to a terminal by now; nothing once it has ended."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # so Linux says that no program has the terminal
        return ""


@pytest.mark.slow
def test_a_script_that_is_interrupted_goes_on(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "lorenz.py"

    def command(name, *more):
        return [sys.executable, str(script), "--quick", "--out", str(tmp_path / name), *more]

    terminal, end = pty.openpty()  # a progress bar is shown at a terminal alone
    termios.tcsetwinsize(end, (24, 80))
    with subprocess.Popen(command("cut"), stderr=end, stdout=subprocess.DEVNULL) as process:
        os.close(end)
        shown = ""
        while shown.count("%") < 2:  # of the first fit's bar, until a chunk of steps is made
            shown += read(terminal)
            assert process.poll() is None, f"the script ended: {shown}"
        process.send_signal(signal.SIGINT)
        words = "".join(iter(lambda: read(terminal), "")).replace("\r\n", " ")
    os.close(terminal)
    assert process.returncode == 130 and "a checkpoint of mlp_trained: the same command" in words
    assert experiment.record_of(tmp_path / "cut")["state"] == "interrupted"
    assert not any((tmp_path / "cut" / name).exists() for name in ("metrics.json", "table.txt"))
    for arguments in (command("cut", "--resume"), command("whole")):
        subprocess.run(arguments, check=True, capture_output=True)
    cut, whole = (json.loads((tmp_path / x / "metrics.json").read_text()) for x in ("cut", "whole"))
    assert not {key for key in cut if cut[key] != whole[key] and not key.endswith(_cuts.TIMES)}
