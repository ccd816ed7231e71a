"""PINNs as solvers: nine equations by the plain call, and error against time beside Diffrax.

    python benchmarks/pinn.py [--out DIR] [--quick]

The first table solves each equation with the defaults. The truth of quadratic ones is a Taylor
series in double-double arithmetic, at 1024 even times; of the others Gauss collocation in NumPy's
long double (19 digits where the platform has them), on halves of the PINN's windows and at their
ends, of right-hand sides written anew. The error estimate is judged where the true error is above
1e-12 and ten times what two truths, on halves and on quarters, differ by: the share of those values
it is within a factor 3 of. The networks' own error, before it is subtracted, is judged in the same
way.

The second table is error against time, on the lecture's oscillator and on Lorenz, both to t = 20:
the PINN and Diffrax's Dopri8 at several tolerances, and classic training of one network. Seconds
are the best of five calls after the first (classic training: of its one run), without compiling.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import dynamics, nn, pinn, plots, reference, systems
from physml._numerics.quadrature import gauss
from physml.experiment import Run, best_of, slug
from physml.results import RESULTS
from physml.solution import Solution

NODES = 24  # of the truth's collocation
ABOVE = 1e-12  # errors below it are rounding


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_pinn")
    """Folder for the tables, metrics and figures."""
    quick: bool = False
    """Three of the equations, few tolerances, short training."""


class Equation(NamedTuple):
    """A system, where it starts and ends, and its right-hand side in plain arithmetic."""

    system: systems.System
    y0: tuple[float, ...]
    t1: float
    rates: Callable[[Any, Any], list[Any]]
    series: tuple[systems.System, tuple[float, ...]] | None = None  # quadratic, in more states


def robertson(t: Any, y: Any, args: Any = None) -> list[Any]:
    """Robertson's reactions, whose rates lie nine orders of magnitude apart."""
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [back - slow, slow - back - fast, fast]


def van_der_pol(mu: float) -> Callable[[Any, Any], list[Any]]:
    """Van der Pol's equation."""
    return lambda t, y: [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


EQUATIONS = {
    "Lorenz": Equation(
        systems.Lorenz(),
        (1.0, 1.0, 1.0),
        20.0,
        lambda t, y: [
            10 * (y[1] - y[0]),
            y[0] * (28 - y[2]) - y[1],
            y[0] * y[1] - (8.0 / 3.0) * y[2],
        ],
        (systems.Lorenz(), (1.0, 1.0, 1.0)),
    ),
    "driven oscillator": Equation(
        systems.DrivenOscillator(),
        (1.0, 0.0),
        100.0,
        lambda t, y: [y[1], np.cos(0.5 * t) - 2 * 0.2 * y[1] - y[0]],
    ),
    "Duffing": Equation(
        systems.Duffing(),
        (1.0, 0.0),
        100.0,
        lambda t, y: [y[1], 0.5 * np.cos(1.2 * t) - 0.3 * y[1] + y[0] - y[0] ** 3],
        # With the further states x^2, cos and sin.
        (
            systems.from_function(
                lambda t, y, args: [
                    y[1],
                    0.5 * y[3] - 0.3 * y[1] + y[0] - y[0] * y[2],
                    2.0 * y[0] * y[1],
                    -1.2 * y[4],
                    1.2 * y[3],
                ],
                5,
            ),
            (1.0, 0.0, 1.0, 1.0, 0.0),
        ),
    ),
    "Van der Pol, mu = 5": Equation(systems.VanDerPol(5.0), (2.0, 0.0), 50.0, van_der_pol(5.0)),
    "Van der Pol, mu = 1000": Equation(
        systems.VanDerPol(1000.0), (2.0, 0.0), 2000.0, van_der_pol(1000.0)
    ),
    "Lotka-Volterra": Equation(
        systems.LotkaVolterra(),
        (10.0, 5.0),
        50.0,
        lambda t, y: [y[0] * (1.1 - 0.4 * y[1]), y[1] * (0.1 * y[0] - 0.4)],
        (systems.LotkaVolterra(), (10.0, 5.0)),
    ),
    "pendulum": Equation(
        systems.Pendulum(), (2.0, 0.0), 50.0, lambda t, y: [y[1], -9.81 * np.sin(y[0])]
    ),
    "Rossler": Equation(
        systems.Rossler(),
        (1.0, 1.0, 1.0),
        50.0,
        lambda t, y: [-y[1] - y[2], y[0] + 0.2 * y[1], 0.2 + y[2] * (y[0] - 5.7)],
        (systems.Rossler(), (1.0, 1.0, 1.0)),
    ),
    "Robertson": Equation(systems.from_function(robertson, 3), (1.0, 0.0, 0.0), 1e4, robertson),
}


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        equations(run, list(EQUATIONS)[: 3 if config.quick else None])
        error_against_time(run, config)
        return run.metrics({})


def equations(run: Run, names: list[str]) -> None:
    """Each equation by the plain call, against the truth in long double."""
    rows = []
    for name in names:
        equation = EQUATIONS[name]
        solution, seconds, compile_seconds = best_of(
            lambda equation=equation: pinn.solve(equation.system, equation.y0, equation.t1)
        )
        ts, truth, doubt = true_values(equation, solution)
        dense: Any = solution.dense
        networks = np.asarray(jax.jit(jax.vmap(dense.networks.evaluate))(ts))
        error = np.asarray(solution(ts)) - truth
        figures = {
            "windows": int(solution.stats["num_windows"]),
            "rel_l2": np.max(np.linalg.norm(error, axis=0) / np.linalg.norm(truth, axis=0)),
            "estimate_coverage": coverage(solution.error_estimate(ts), error, doubt),
            "network_coverage": coverage(
                networks - np.asarray(solution(ts)), networks - truth, doubt
            ),
            "seconds": seconds,
            "compile_seconds": compile_seconds,
        }
        rows.append([name, equation.t1, *figures.values()])
        known = {key: float(value) for key, value in figures.items() if value is not None}
        run.metrics(known, prefix=slug(name.replace("-", " ")))
    run.table(
        rows,
        ["equation", "t1", "windows", "rel. L2", "within 3x", "networks", "seconds", "compiling"],
        title="pinn.solve with its defaults, float64; '-': no error above 1e-12 to estimate",
    )


def coverage(estimate: Any, error: Any, doubt: Any) -> float | None:
    """The share of values within a factor 3, of those where the error is large and known."""
    estimate, error = np.abs(np.asarray(estimate)), np.abs(np.asarray(error))
    there = (error > ABOVE) & (error > 10 * doubt)
    if not there.any():
        return None
    ratio = estimate[there] / error[there]
    return float(np.mean((ratio < 3) & (ratio > 1 / 3)))


def true_values(equation: Equation, solution: Solution) -> tuple[np.ndarray, np.ndarray, Any]:
    """Times, the truth there, rounded to float64, and how far it may be off."""
    if equation.series is None:
        ts, truth = collocate(equation, solution, 2)
        _, other = collocate(equation, solution, 4)
        return ts, truth, np.abs(truth - other[::2])
    system, y0 = equation.series
    ts = np.linspace(0.0, equation.t1, 1025)
    rows = reference.extended_trajectories(system, np.array([y0]), ts, substeps=2).ys[0]
    return ts, np.asarray(rows)[:, : len(equation.y0)], 0.0


def collocate(equation: Equation, solution: Solution, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of equal parts of a solution's windows, and the truth there by collocation.

    Newton's iteration from the solution: residuals in long double, steps in float64.
    """
    rule, long = gauss(NODES), np.longdouble
    integrals = np.array(
        [[long(float(x)) + long(float(x - Fraction(float(x)))) for x in row]
         for row in rule.integrals]
    )  # fmt: skip
    edges = np.asarray(solution.stats["edges"])
    inner = edges[:-1, None] + np.diff(edges)[:, None] * np.arange(parts) / parts
    edges = np.append(inner, edges[-1])
    jacobian = jax.jit(jax.vmap(jax.jacfwd(equation.system, argnums=1)))
    guess = jax.jit(jax.vmap(solution.dense.evaluate))
    y, rows = np.array(equation.y0, long), [np.array(equation.y0)]
    dim, identity = len(equation.y0), np.eye(len(equation.y0) * NODES)
    for start, end in itertools.pairwise(edges):
        half = (long(end) - long(start)) / 2
        t = long(start) + half * (rule.points.astype(long) + 1)
        u = np.asarray(guess(t.astype(float)), long).T

        def rates(u: np.ndarray, t: np.ndarray = t) -> np.ndarray:
            return np.stack([np.broadcast_to(x, t.shape) for x in equation.rates(t, u)])

        slopes = np.asarray(jacobian(t.astype(float), u.T.astype(float)))
        matrix = float(half) * np.einsum("pq,qij->ipjq", integrals[:-1].astype(float), slopes)
        matrix = identity - matrix.reshape(identity.shape)
        for _ in range(20):
            residual = y[:, None] + half * rates(u) @ integrals[:-1].T - u
            step = np.linalg.solve(matrix, residual.astype(float).ravel()).reshape(dim, NODES)
            u = u + step
            if np.max(np.abs(step)) <= 1e-18 * np.max(np.abs(u)):
                break
        y = y + half * rates(u) @ integrals[-1]
        rows.append(y.astype(float))
    return edges, np.stack(rows)


def error_against_time(run: Run, config: Config) -> None:
    """The PINN, Diffrax and classic training on two equations, in a table and a picture each."""
    for name in ("driven oscillator", "Lorenz"):
        equation = EQUATIONS[name]._replace(t1=20.0)
        ts, truth, _ = true_values(equation, pinn.solve(equation.system, equation.y0, equation.t1))
        rows = [
            [method, setting, float(dynamics.relative_l2(ys, jnp.asarray(truth)).max()), *cost]
            for method, setting, ys, *cost in answers(equation, ts, config)
        ]
        run.table(
            rows,
            ["method", "setting or verdict", "rel. L2", "seconds", "compiling"],
            title=f"{name} to t = 20: error against time, float64",
        )
        system = slug(name)
        points: dict[str, list[tuple[float, float]]] = {}
        for method, _, error, seconds, _ in rows:
            points.setdefault(method, []).append((seconds, error))
        for method, pairs in points.items():
            seconds, error = min(pairs, key=lambda pair: pair[1])
            prefix = f"{system}.{slug(method.replace('-', ' '))}"
            run.metrics({"seconds": seconds, "rel_l2": error}, prefix=prefix)
        run.figure(f"{system}_error_against_time", plots.work_precision(points, title=name))


def answers(equation: Equation, ts: np.ndarray, config: Config) -> Iterator[list[Any]]:
    """Method, setting, rows at `ts`, seconds and seconds of compiling."""
    system, y0 = equation.system, equation.y0
    tolerances = (1e-4, 1e-8) if config.quick else (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
    for rtol in tolerances:
        solution, *cost = best_of(
            lambda rtol=rtol: pinn.solve(system, y0, equation.t1, ts=ts, rtol=rtol)
        )
        yield ["PINN", f"rtol {rtol:.0e}", solution.ys, *cost]
    start, times = jnp.asarray(y0), jnp.asarray(ts)
    tolerances = (1e-8,) if config.quick else (1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
    for rtol in tolerances:
        ys, *cost = best_of(lambda rtol=rtol: reference.dopri8(system, start, times, rtol))
        yield ["Diffrax Dopri8", f"rtol {rtol:.0e}", ys, *cost]
    for method, stages in classic(config).items():
        network = nn.MLP(1, (32, 32), len(y0), activation="sin", rngs=nnx.Rngs(0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the table has the verdict
            training = pinn.train(
                network, system, y0, equation.t1, ts=ts, stages=stages, throw=False
            )
        good = training.solution.result == RESULTS.successful
        yield [
            method,
            "trusted" if good else "suspect",
            training.solution.ys,
            sum(stage.seconds for stage in training.fits),
            sum(stage.compile_seconds for stage in training.fits),
        ]


def classic(config: Config) -> dict[str, Any]:
    """The stages of classic training by the method's name."""
    adam, lbfgs = (100, 100) if config.quick else (1000, 3000)
    rate = optax.cosine_decay_schedule(3e-3, adam)
    return {
        "classic, Gauss-Newton": None,
        "classic, Adam and L-BFGS": (
            (optax.adam(rate), adam),
            (optax.lbfgs(memory_size=50), lbfgs),
        ),
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
