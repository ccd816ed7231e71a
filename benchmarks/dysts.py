"""The chaotic systems of the package dysts: solved by the plain call, and forecast by one recipe.

    python benchmarks/dysts.py [--out DIR] [--quick]

It needs the extra "bench". Nothing in the library was made for these systems, and their right-hand
sides are the package's own. A system that JAX cannot trace is left out, and said.

`pinn.solve` solves each system with its defaults over five periods, or over ten Lyapunov times
where these are shorter. The truth is an extrapolation method in long double, and its doubt how far
it is from two of other orders. Errors are relative to the largest value of each component,
at 201 times. An answer counts as right if its error is at most ten times that of SciPy's DOP853
with a tolerance of 1e-13 (`mark`), or 1e-12, or the doubt at that time. An estimate counts as low
if it is below a tenth of the error at any of the times at which the error is above 1e-13 and above
ten times the doubt; `times` counts these times, `times_low` those with a low estimate, and
`times_within_3` those at which estimate and error are within a factor of three.

Seconds are the best of four calls, without compiling. With the defaults `pinn.solve` stands beside
`reference.solve` with its own. At equal error, that of the default call or 1e-12 where this is
larger, it stands beside Diffrax's Dopri8, each with the loosest tolerance that reaches it. Where
rounding grows too fast for one of them to reach it, its most accurate answer counts, and where this
is Dopri8, `equal_error_reached` is false.

The forecast is scored as in Zhang and Gilpin (arXiv 2409.15771): 20 trajectories of 812 points, of
which 512 are seen and 300 forecast. They are 30 points a Lyapunov time apart here. A map is fitted
to each trajectory alone, and its forecast is valid until the symmetric error, the mean over the
components of 200 |x - y| / (|x| + |y|), passes 30.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _dysts import Flow, flows
from _extrapolation import integrate
from _verdicts import verdict
from flax import nnx
from scipy.integrate import solve_ivp

from physml import data, dynamics, experiment, nn, pinn, reference, surrogate
from physml.experiment import TIMES, Run, best_of, slug

QUICK = ("Chua", "HyperCai", "Lorenz", "SprottMore", "Thomas")
POINTS, SEEN, A_LYAPUNOV_TIME = 812, 512, 30
COLUMNS = {
    "name": "system", "t1": "t1", "error": "error", "mark": "DOP853", "doubt": "doubt",
    "verdict": "verdict", "right": "right", "estimate_ratio": "est./error", **TIMES,
    "ratio_default": "to reference", "ratio_equal_error": "to Dopri8", "vpt": "forecast",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_dysts")
    quick: bool = False
    """Five of the systems."""
    only: tuple[str, ...] = ()
    """Names of systems; all unless given."""
    forecast: bool = True
    """Forecast each system too."""
    starts: int = 20
    """Trajectories to forecast of each system."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    wanted = config.only or (QUICK if config.quick else ())
    with Run(config.out, config) as run:
        found, left = flows()
        for name, why in left.items():
            print(f"left out: {name} ({why})")
        found = [flow for flow in found if not wanted or flow.name in wanted]
        figures: dict[str, dict[str, Any]] = {flow.name: {} for flow in found}
        for flow in found if config.forecast else []:
            arguments = flow, config.starts, config.seed
            vpt = run.part(f"{slug(flow.name)}.forecast", lambda args=arguments: forecast(*args))
            figures[flow.name]["vpt"] = vpt
            print(f"{flow.name:24}{vpt} Lyapunov times", flush=True)
        for flow in found:
            part = f"{slug(flow.name)}.solved"
            figures[flow.name] |= run.part(part, lambda flow=flow: attempted(flow))
        for name in figures:
            with run.row(slug(name), name) as row:
                row.metrics(figures[name])
        rows = run.take_rows()
        run.table(rows, COLUMNS, title="dysts by the plain calls, float64")
        run.metrics({"left_out": len(left), **summary(rows)})
        return run.metrics({})


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all systems together."""

    def median(key: str) -> float | None:
        values = [row[key] for row in rows if row.get(key) is not None]
        return float(np.median(values)) if values else None

    return {
        "systems": len(rows),
        "right": sum(row["right"] for row in rows),
        "suspect": sum(row["verdict"] == "suspect" for row in rows),
        "wrong": sum(not row["right"] and row["verdict"] == "successful" for row in rows),
        "estimate_low": sum(row["estimate_low"] for row in rows),
        "times": sum(row["times"] for row in rows),
        "times_low": sum(row["times_low"] for row in rows),
        "times_within_3": sum(row["times_within_3"] for row in rows),
        "time_ratio_default": median("ratio_default"),
        "time_ratio_equal_error": median("ratio_equal_error"),
        "equal_error_reached": sum(row["equal_error_reached"] for row in rows),
        "forecast.vpt_median": median("vpt"),
    }


def attempted(flow: Flow) -> dict[str, Any]:
    """The figures of `solved`; a system that cannot be solved at all counts as not right."""
    try:
        return solved(flow)
    except (TypeError, ValueError, RuntimeError) as error:
        print(f"{flow.name:24}failed: {error}", flush=True)
        counts = dict.fromkeys(("times", "times_low", "times_within_3"), 0)
        nothing = dict.fromkeys(("right", "estimate_low", "equal_error_reached"), False)
        return {**nothing, **counts, "verdict": "failed"}


def solved(flow: Flow) -> dict[str, Any]:
    """Solve a system by the plain call, and compare with the truth, a mark and two integrators."""
    ts = np.linspace(0.0, flow.t1, 201)
    truth, doubt, mark = true_values(flow, ts)
    size = np.abs(truth).max(axis=0)

    def relative(ys: Any, true: np.ndarray = truth) -> np.ndarray:
        error = np.abs(np.asarray(ys) - true) / size
        return np.nan_to_num(error.astype(float).max(axis=-1), nan=np.inf)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the table has the verdict
        solution, seconds, compile_seconds = best_of(
            lambda: pinn.solve(flow.system, flow.y0, flow.t1, ts=ts, throw=False), 4
        )
    errors = relative(solution.ys)
    estimates = relative(solution.error_estimate(ts), np.zeros(()))
    known = np.isfinite(errors) & (errors > np.maximum(1e-13, 10 * doubt))
    ratios = estimates[known] / errors[known]
    error = float(errors.max())
    _, default, _ = best_of(lambda: reference.solve(flow.system, flow.y0, ts, throw=False), 4)
    ratio, reached = at_equal_error(flow, ts, max(1e-12, error), relative)
    print(f"{flow.name:24}{error:9.1e}  {verdict(solution.result)}", flush=True)
    jax.clear_caches()  # the programs of one system are of no use to the next, and large
    return {
        "t1": flow.t1,
        "error": error,
        "mark": mark,
        "doubt": float(doubt.max()),
        "verdict": verdict(solution.result),
        "right": bool(np.all(errors <= np.maximum(10 * max(mark, 1e-13), doubt))),
        "estimate_ratio": float(ratios.min()) if ratios.size else None,
        "estimate_low": bool((ratios < 0.1).any()),
        "times": ratios.size,
        "times_low": int((ratios < 0.1).sum()),
        "times_within_3": int(((ratios >= 1 / 3) & (ratios <= 3)).sum()),
        "windows": int(solution.stats["num_windows"]),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "ratio_default": seconds / default,
        "ratio_equal_error": ratio,
        "equal_error_reached": reached,
    }


def true_values(flow: Flow, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The states at `ts`, how far they may be off, and the largest error of SciPy's DOP853."""
    truth = integrate(flow.rates, flow.y0, ts, 3e-18, 7)
    others = [integrate(flow.rates, flow.y0, ts, *how) for how in ((1e-17, 6), (1e-18, 8))]
    size = np.abs(truth).max(axis=0)
    doubt = np.max(np.abs(truth - np.stack(others)) / size, axis=(0, 2)).astype(float)
    y, tolerance, mark = flow.y0, 1e-13 * size.astype(float), 0.0
    for i in range(0, len(ts) - 1, 20):  # it steps exactly to these times: nothing is interpolated
        span = ts[i], ts[i + 20]
        y = solve_ivp(flow.rates, span, y, "DOP853", rtol=1e-13, atol=tolerance).y[:, -1]
        mark = max(mark, float(np.max(np.abs(y - truth[i + 20]) / size)))
    return truth, doubt, mark


def at_equal_error(
    flow: Flow, ts: np.ndarray, wanted: float, relative: Callable[[Any], np.ndarray]
) -> tuple[float, bool]:
    """The seconds of `pinn.solve` to those of Dopri8, and if Dopri8 has the wanted error."""
    start, times = jnp.asarray(flow.y0), jnp.asarray(ts)

    def peer(rtol: float) -> Any:
        return reference.dopri8(flow.system, start, times, rtol)

    def network(rtol: float) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return pinn.solve(flow.system, flow.y0, flow.t1, ts=ts, rtol=rtol, throw=False).ys

    dopri8, reached = loosest(peer, 10.0 ** -np.arange(8, 16), wanted, relative)
    ours, _ = loosest(network, 10.0 ** -np.arange(9, 14), wanted, relative)
    return ours / dopri8, reached


def loosest(
    answers: Callable[[float], Any],
    tolerances: np.ndarray,
    wanted: float,
    relative: Callable[[Any], np.ndarray],
) -> tuple[float, bool]:
    """Seconds with the loosest tolerance that has the wanted error, and if one has."""
    best = (np.inf, np.nan)
    for rtol in tolerances:
        ys, seconds, _ = best_of(lambda rtol=rtol: answers(float(rtol)), 4)
        error = float(relative(ys).max())
        if error <= wanted:
            return seconds, True
        best = min(best, (error, seconds))
    return best[1], False


def forecast(flow: Flow, starts: int, seed: int) -> float | None:
    """The median valid time of forecasts, in Lyapunov times; None if the system leaves no data."""
    dt = flow.lyapunov_time / A_LYAPUNOV_TIME
    ts = dt * np.arange(starts * POINTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        long = reference.trajectories_from(flow.system, flow.y0[None], ts, throw=False)
    pieces = flow.observed(np.asarray(long.ys[0])).reshape(starts, POINTS, -1)
    if not np.all(np.isfinite(pieces)):
        return None
    return float(np.median([valid_time(ts[:SEEN], piece, seed) for piece in pieces]))


def valid_time(ts: np.ndarray, piece: np.ndarray, seed: int) -> float:
    """The valid time of one forecast: the recipe."""
    seen, ahead = piece[:SEEN], piece[SEEN:]
    train = data.from_arrays(ts, seen[None])
    network = nn.MLP.frozen(
        surrogate.network_inputs(train), 300, piece.shape[1], scale=0.25, centres="mean",
        activation=nn.fourier, rngs=nnx.Rngs(seed),
    )  # fmt: skip
    step_map = surrogate.fit_readout(network, train).step_map
    found = np.asarray(dynamics.rollout(step_map, jnp.asarray(seen[-1:]), len(ahead)))[1:]
    with np.errstate(all="ignore"):
        errors = np.mean(200 * np.abs(found - ahead) / (np.abs(found) + np.abs(ahead)), axis=1)
    wrong = ~(errors <= 30)
    return (np.argmax(wrong) if wrong.any() else len(ahead)) / A_LYAPUNOV_TIME


if __name__ == "__main__":
    experiment.cli(main, Config)
