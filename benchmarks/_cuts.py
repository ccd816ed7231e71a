"""Runs that are cut at random moments and go on until they end, for `survival.py`.

There are two kinds: work that is killed (`_survival.py`), and scripts that get Ctrl-C.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from _survival import ANSWER

from physml import experiment

WORKER = Path(__file__).with_name("_survival.py")
SCRIPTS = Path(__file__).parents[1] / "scripts"
LONGEST = 1.5  # seconds of work before a kill
TIMES = tuple(
    """date command seconds seconds_t20 wall_s _s speedup diffrax_ratio_t20 batch_ratio
    ess_per_second ess_ratio""".split()
)
"""How the names of those figures of a script end that differ between two runs."""


class Work(Protocol):
    """What a process does in a folder, where it goes on from what is there.

    Attributes:
        cuts_a_run: how often one run is cut at most.
    """

    cuts_a_run: int

    def cut(self, folder: Path, rng: np.random.Generator) -> bool:
        """Let a process work, and cut it; whether it had not ended before."""
        ...

    def answer(self, folder: Path) -> Any:
        """What comes out, of this process or of an earlier one that had ended."""
        ...


class Found(NamedTuple):
    """A run that has ended: how often it was cut, and what came out."""

    cuts: int
    answer: Any


def cut_runs(work: Work, cuts: int, folder: Path, seed: int) -> list[Found]:
    """Cut runs so often in all, each a few times; where one ends before, a new one begins."""
    rng, found = np.random.default_rng(seed), []
    while (left := cuts - sum(run.cuts for run in found)) > 0:
        place, count = folder / f"run_{len(found)}", 0
        while count < min(left, work.cuts_a_run) and work.cut(place, rng):
            count += 1
        found.append(Found(count, work.answer(place)))
    return found


class Killed:
    """A kind of work of `_survival.py`, and SIGKILL; its answer is a checksum of all it found."""

    cuts_a_run = 4

    def __init__(self, kind: str):
        self._kind = kind

    def cut(self, folder: Path, rng: np.random.Generator) -> bool:
        process = self._started(folder)
        time.sleep(rng.uniform(0.0, LONGEST))
        process.kill()
        process.communicate()
        return process.returncode < 0 and not (folder / ANSWER).exists()

    def answer(self, folder: Path) -> str:
        if not (folder / ANSWER).exists():
            process = self._started(folder)
            _, words = process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"a {self._kind} failed: {words}")
        return (folder / ANSWER).read_text()

    def _started(self, folder: Path) -> subprocess.Popen:
        """A process that works, of which something has been computed."""
        process = _start([str(WORKER), self._kind, str(folder)])
        assert process.stdout is not None
        process.stdout.readline()
        return process


class Interrupted:
    """A script with `--quick`, and Ctrl-C at any moment from its start; its answer is its figures.

    A run is resumed and interrupted again until it has ended, so that the moments lie in all parts
    of the script, and what many interrupts leave together is compared.

    Attributes:
        faults: what was wrong after a Ctrl-C, in words.
        longest_wait: the most seconds between a Ctrl-C and the end of the process.
    """

    cuts_a_run = 1000  # of which no run gets so many: it goes on, and ends

    def __init__(self, name: str):
        self.faults: list[str] = []
        self.longest_wait = 0.0
        self._name = name
        self._seconds = np.inf  # that a run takes which nobody interrupts

    def cut(self, folder: Path, rng: np.random.Generator) -> bool:
        moment, resumed = rng.uniform(0.0, self._seconds), folder.exists()
        begin = time.perf_counter()
        process = self._started(folder)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        pressed = time.perf_counter()
        _, words = process.communicate()
        if (folder / "metrics.json").exists():  # the script had all it wanted
            self._took(resumed, begin)
            return False
        self.longest_wait = max(self.longest_wait, time.perf_counter() - pressed)
        self._look(folder, process.returncode, words)
        return True

    def answer(self, folder: Path) -> dict[str, Any]:
        if not (folder / "metrics.json").exists():
            resumed, begin = folder.exists(), time.perf_counter()
            process = self._started(folder)
            _, words = process.communicate()
            if process.returncode != 0 and not resumed:
                raise RuntimeError(f"{self._name}.py failed: {words}")
            if process.returncode != 0:
                self.faults.append(f"{self._name}.py failed when resumed: {words[-2000:]}")
                return {}
            self._took(resumed, begin)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return {key: value for key, value in metrics.items() if not key.endswith(TIMES)}

    def _took(self, resumed: bool, begin: float) -> None:
        """Note how long a whole run takes; the first one compiles what the next ones do not."""
        if not resumed:
            self._seconds = min(self._seconds, time.perf_counter() - begin)

    def _started(self, folder: Path) -> subprocess.Popen:
        return _start(
            [str(SCRIPTS / f"{self._name}.py"), "--quick", "--resume", "--out", str(folder)]
        )

    def _look(self, folder: Path, code: int, words: str) -> None:
        """Note what is wrong with a process that has ended, and what it has left."""
        # While Python imports it dies of the signal itself; numpy says then that its import failed,
        # and jaxlib aborts.
        importing = "\nKeyboardInterrupt" in words and code in (1, -signal.SIGABRT)
        importing &= "<frozen importlib._bootstrap>" in words or "\nImportError: " in words
        if code not in (130, -signal.SIGINT) and not importing:
            self.faults.append(f"{self._name}.py ended with {code}: {words[-2000:]}")
        state = (experiment.record_of(folder) or {}).get("state", "interrupted")
        if state != "interrupted" or (folder / "table.txt").exists():
            self.faults.append(f"{self._name}.py left a folder that looks {state}")


def _start(command: list[str]) -> subprocess.Popen:
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], text=True, **pipes)
