"""One row of `stiff.py`, in a process of its own: prints figures as lines of JSON.

    python benchmarks/_stiff_row.py LIMIT_GIB PROBLEM (pinn | peers) [TOLERANCE ...]

The process may take `LIMIT_GIB` of memory. `peers` prints a line as soon as it has one, so that a
process that is stopped leaves what it has.
"""

import functools
import itertools
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)  # before anything is computed

from _stiff import Problem, problem
from _verdicts import verdict
from scipy.integrate import solve_ivp

from physml import experiment, pinn, systems

LEAST = 1e-30  # an absolute tolerance for what is zero in the end


def solved(problem: Problem) -> dict[str, Any]:
    """The figures of `pinn.solve` with its defaults."""
    system = systems.from_function(
        lambda t, y, args: problem.rates(t, y), len(problem.y0), jumps=problem.jumps
    )
    warnings.simplefilter("ignore", UserWarning)  # the table has the verdict
    ts = [problem.t1]
    seconds, first = np.inf, None
    for _ in range(4):
        with experiment.Run.timed() as timing:
            solution = pinn.solve(system, problem.y0, problem.t1, ts=ts, throw=False)
            jax.block_until_ready(solution.ys)
        first = first or timing
        seconds = min(seconds, timing.seconds)
        if timing.wall_seconds > 10:
            break
    assert first is not None
    kind = verdict(solution.result)
    whole = kind != "stopped"
    return {
        "verdict": kind,
        "error": problem.error(solution.ys[-1]) if whole else None,
        "estimate": largest(solution.error_estimate(problem.t1), problem) if whole else None,
        "reached": float(solution.t1) / problem.t1,
        "windows": int(solution.stats["num_windows"]),
        "seconds": seconds,
        "compile_seconds": first.compile_seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def largest(estimate: Any, problem: Problem) -> float | None:
    """The largest error that a solution expects of itself, in the measure of `Problem.error`."""
    shifted = np.asarray(estimate, float)
    if not np.all(np.isfinite(shifted)):
        return None
    return max(abs(shifted[i]) / max(abs(x), problem.floor) for i, x in problem.end.items())


def peers(problem: Problem, tolerances: list[float]) -> None:
    """Diffrax's and SciPy's stiff solvers; their absolute tolerances know the end values."""
    size = np.full(len(problem.y0), max(np.abs(list(problem.end.values()))))
    size[list(problem.end)] = np.abs(list(problem.end.values()))
    for rtol in tolerances:
        atol = rtol * np.maximum(size, LEAST)
        for name, solve in {"kvaerno5": kvaerno5, "radau": scipys("Radau"), "bdf": scipys("BDF"),
                            "lsoda": scipys("LSODA")}.items():  # fmt: skip
            try:
                y, seconds = solve(problem, rtol, atol)
            except (ValueError, FloatingPointError) as error:  # SciPy's, of what became infinite
                print(f"{name} at {rtol}: {error}", file=sys.stderr)
                continue
            figures = {"solver": name, "rtol": rtol, "error": problem.error(y), "seconds": seconds}
            print(json.dumps(figures), flush=True)


def kvaerno5(problem: Problem, rtol: float, atol: np.ndarray) -> tuple[Any, float]:
    """Diffrax's Kvaerno5: the end state, and seconds."""
    y, seconds, _ = experiment.best_of(
        lambda: _kvaerno5(problem.rates, problem.y0, problem.t1, rtol, atol, problem.jumps), 1
    )
    return y, seconds


@functools.partial(jax.jit, static_argnums=(0, 5))
def _kvaerno5(
    rates: Callable[..., Any], y0: Any, t1: Any, rtol: Any, atol: Any, jumps: tuple[float, ...]
) -> Any:
    controller: Any = diffrax.PIDController(rtol=rtol, atol=atol)
    if jumps:
        controller = diffrax.ClipStepSizeController(controller, jump_ts=jnp.asarray(jumps))
    term = diffrax.ODETerm(lambda t, y, args: rates(t, y))
    solution = diffrax.diffeqsolve(
        term, diffrax.Kvaerno5(), 0.0, t1, None, jnp.asarray(y0), stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True), max_steps=200_000, throw=False,
    )  # fmt: skip
    assert solution.ys is not None  # the last state was asked for
    return solution.ys[0]


def scipys(method: Any) -> Callable[[Problem, float, np.ndarray], tuple[Any, float]]:
    """One of SciPy's solvers: the end state, and seconds of a single run."""

    def solve(problem: Problem, rtol: float, atol: np.ndarray) -> tuple[Any, float]:
        compiled, slopes = jax.jit(problem.rates), jax.jit(jax.jacfwd(problem.rates, argnums=1))
        jax.block_until_ready((compiled(0.0, problem.y0), slopes(0.0, problem.y0)))
        start, y = time.perf_counter(), problem.y0
        edges = [0.0, *problem.jumps, problem.t1]
        for span in itertools.pairwise(edges):
            # The right-hand side at a jump is that before it; a start just after it has the other.
            begin = np.nextafter(span[0], np.inf) if span[0] else 0.0
            found = solve_ivp(
                lambda t, y: np.asarray(compiled(t, y)), (begin, span[1]), y, method,
                rtol=rtol, atol=atol, jac=lambda t, y: np.asarray(slopes(t, y)),
            )  # fmt: skip
            y = found.y[:, -1] if found.success else np.full_like(y, np.inf)
        return y, time.perf_counter() - start

    return solve


if __name__ == "__main__":
    limit_gib, name, who, *words = sys.argv[1:]
    limit = round(float(limit_gib) * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if who == "peers":
        peers(problem(name), [float(word) for word in words])
    else:
        print(json.dumps(solved(problem(name))))
