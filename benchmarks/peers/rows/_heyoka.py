"""heyoka's rows: Taylor series of an order that the tolerance sets, compiled by LLVM."""

import time

import heyoka as hy
import numpy as np
from _row import CORES, best_of, lorenz, oscillator, serve


def equations(rates):
    names = hy.make_vars("x", "y", "z")
    names = names[: len(rates(0.0, [0.0, 0.0, 0.0]))]
    return list(zip(names, rates(hy.time, names), strict=True))


def one(rates):
    def task(data, limit):
        ts, y0 = data["ts"], list(data["y0"])
        start = time.perf_counter()
        solver = hy.taylor_adaptive(equations(rates), y0)
        compiling = time.perf_counter() - start

        def solve():
            solver.time, solver.state[:] = ts[0], y0
            return solver.propagate_grid(ts)[-1].copy()

        answer, times = best_of(solve)
        times["compile_seconds"] = compiling
        return answer, times | {"setting": "Taylor series to double precision, its default"}

    return task


def many(data, limit):
    ts, starts = data["ts"], data["starts"]
    start = time.perf_counter()
    width = hy.recommended_simd_size()
    count = -(-len(starts) // width)
    padded = np.concatenate([starts, np.repeat(starts[-1:], count * width - len(starts), axis=0)])
    groups = padded.reshape(count, width, 3).transpose(0, 2, 1)  # (group, component, lane)
    solver = hy.taylor_adaptive_batch(equations(lorenz), np.ascontiguousarray(groups[0]), tol=1e-10)
    compiling = time.perf_counter() - start

    def begin(solver, i):
        solver.set_time(0.0)
        solver.state[:] = groups[i]
        return solver

    def solve():
        found = hy.ensemble_propagate_grid_batch(
            solver, ts, count, begin, algorithm="thread", max_workers=CORES
        )
        states = np.stack([each[-1] for each in found])  # (group, time, component, lane)
        return states.transpose(0, 3, 1, 2).reshape(-1, len(ts), 3)[: len(starts)]

    answer, times = best_of(solve, times=3)
    times["compile_seconds"] = compiling
    return answer, times | {"setting": "an ensemble of batched Taylor series, tol = 1e-10, threads"}


def cosine(t, y):
    return oscillator(t, y, lambda x: hy.cos(x) if isinstance(x, hy.expression) else np.cos(x))


TASKS = {"oscillator": one(cosine), "lorenz": one(lorenz), "many": many}

if __name__ == "__main__":
    serve(TASKS, "heyoka")
