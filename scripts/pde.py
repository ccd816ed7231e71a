"""Partial differential equations solved by networks: heat, Poisson, wave, Burgers, Allen-Cahn.

Each by one call of `pinn.pde`: networks with a frozen hidden layer on elements in space and windows
in time, the readouts by Gauss-Newton on the equation's residual. The truth is a closed form for the
first three, the Cole-Hopf transform for Burgers, and for Allen-Cahn the method of lines by Diffrax,
which is compared with itself on twice the points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import tyro

from physml import pinn, plots, reference
from physml.experiment import Run

VISCOSITY = 0.01 / np.pi
DIFFUSIVITY = 1e-4


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/pde")
    """Folder for the table, metrics and figures."""
    seed: int = 0
    """Recorded; nothing here is drawn at random."""
    quick: bool = False
    """Looser tolerances and a shorter time for Allen-Cahn."""


@dataclass(frozen=True)
class Problem:
    """What `pinn.pde` is given, and the truth on a grid."""

    residual: Callable[..., Any]
    domain: dict[str, tuple[float, float]]
    conditions: dict[tuple[str, float], Callable[..., Any]]
    truth: Callable[[np.ndarray, np.ndarray], Any]
    options: dict[str, Any]


def zero(u: Any, *point: Any) -> Any:
    """u = 0 on a face."""
    return u(*point)


def heat() -> Problem:
    """u_t = u_xx between ends at zero."""

    def start(u, x, t):
        return u(x, t) - jnp.sin(jnp.pi * x) - jnp.sin(3 * jnp.pi * x) / 2

    def truth(x, t):
        modes = ((1.0, 1), (0.5, 3))
        return sum(a * np.exp(-((k * np.pi) ** 2) * t) * np.sin(k * np.pi * x) for a, k in modes)

    return Problem(
        lambda u, x, t: u.t(x, t) - u.xx(x, t),
        {"x": (0.0, 1.0), "t": (0.0, 0.5)},
        {("t", 0.0): start, ("x", 0.0): zero, ("x", 1.0): zero},
        truth,
        {},
    )


def poisson() -> Problem:
    """u_xx + u_yy = f on the unit square, f made for a u that is not zero on its rim."""

    def exact(x, y):
        return jnp.exp(x) * jnp.sin(2 * jnp.pi * x) * jnp.cos(jnp.pi * y)

    def laplacian(x, y):
        return jax.grad(jax.grad(exact))(x, y) + jax.grad(jax.grad(exact, 1), 1)(x, y)

    def rim(u, x, y):
        return u(x, y) - exact(x, y)

    return Problem(
        lambda u, x, y: u.xx(x, y) + u.yy(x, y) - laplacian(x, y),
        {"x": (0.0, 1.0), "y": (0.0, 1.0)},
        {(name, end): rim for name in "xy" for end in (0.0, 1.0)},
        exact,
        {},
    )


def wave() -> Problem:
    """u_tt = 4 u_xx of a string between fixed ends, let go at rest."""

    def start(u, x, t):
        shape = jnp.sin(jnp.pi * x) + jnp.sin(4 * jnp.pi * x) / 2
        return u(x, t) - shape, u.t(x, t)

    def truth(x, t):
        modes = ((1.0, 1), (0.5, 4))
        return sum(a * np.cos(2 * k * np.pi * t) * np.sin(k * np.pi * x) for a, k in modes)

    return Problem(
        lambda u, x, t: u.tt(x, t) - 4 * u.xx(x, t),
        {"x": (0.0, 1.0), "t": (0.0, 1.0)},
        {("t", 0.0): start, ("x", 0.0): zero, ("x", 1.0): zero},
        truth,
        {},
    )


def burgers() -> Problem:
    """u_t + u u_x = nu u_xx, which makes a shock of width 0.006 at t = 0.32."""

    def residual(u, x, t):
        return u.t(x, t) + u(x, t) * u.x(x, t) - VISCOSITY * u.xx(x, t)

    return Problem(
        residual,
        {"x": (-1.0, 1.0), "t": (0.0, 1.0)},
        {
            ("t", 0.0): lambda u, x, t: u(x, t) + jnp.sin(jnp.pi * x),
            ("x", -1.0): zero,
            ("x", 1.0): zero,
        },
        lambda x, t: reference.cole_hopf(x, t, VISCOSITY),
        {},
    )


def allen_cahn(t1: float) -> Problem:
    """u_t = 1e-4 u_xx + 5 (u - u^3) with periodic ends, where u at the start has a kink."""

    def residual(u, x, t):
        return u.t(x, t) - DIFFUSIVITY * u.xx(x, t) - 5 * (u(x, t) - u(x, t) ** 3)

    return Problem(
        residual,
        {"x": (-1.0, 1.0), "t": (0.0, t1)},
        {("t", 0.0): lambda u, x, t: u(x, t) - x**2 * jnp.cos(jnp.pi * x)},
        lambda x, t: lines(x[:, 0], t[0], num_points=4 * (len(x) - 1)),
        {"periodic": "x", "rtol": 1e-7},
    )


def lines(x: np.ndarray, ts: np.ndarray, num_points: int) -> np.ndarray:
    """Allen-Cahn by the method of lines, at even x from -1 to 1."""
    us = reference.reaction_diffusion(
        lambda u: 5 * (u - u**3),
        DIFFUSIVITY,
        lambda x: x**2 * np.cos(np.pi * x),
        (-1.0, 1.0),
        ts,
        num_points=num_points,
    )
    us = np.asarray(us)[:, :: num_points // (len(x) - 1)]
    return np.concatenate([us, us[:, :1]], axis=1).T


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    problems = {
        "heat": heat(),
        "poisson": poisson(),
        "wave": wave(),
        "burgers": burgers(),
        "allen_cahn": allen_cahn(0.1 if config.quick else 1.0),
    }
    rows = []
    with Run(config.out, config) as run:
        for name, problem in problems.items():
            rows.append([name, *solve(run, name, problem, config)])
        run.table(
            rows,
            ["equation", "relative L2", "residual", "windows", "elements", "seconds", "compiling"],
            title="Networks on elements and windows against the truth, float64",
        )
        return run.metrics({})


def solve(run: Run, name: str, problem: Problem, config: Config) -> list[Any]:
    """One equation: its figures, and a picture of the solution and its error."""
    options: Any = problem.options | ({"rtol": 1e-6} if config.quick else {})
    with run.timed() as timing:
        solution = pinn.pde(problem.residual, problem.domain, problem.conditions, **options)
    sizes = (257, 51) if config.quick else (513, 101)
    grids = [
        np.linspace(*interval, n)
        for interval, n in zip(problem.domain.values(), sizes, strict=True)
    ]
    x, other = np.meshgrid(*grids, indexing="ij")
    truth = np.asarray(problem.truth(x, other))
    values = np.asarray(solution(x, other))
    error = values - truth
    figures = {
        "rel_l2": float(np.linalg.norm(error) / np.linalg.norm(truth)),
        "residual": max(solution.stats["residuals"]),
        "windows": solution.stats["num_windows"],
        "elements": max(solution.stats["num_elements"]),
        "seconds": timing.seconds,
        "compile_seconds": timing.compile_seconds,
    }
    run.metrics(figures, prefix=name)
    if name == "allen_cahn" and not config.quick:
        finer = lines(grids[0], grids[1], num_points=8 * (len(grids[0]) - 1))
        doubt = np.linalg.norm(finer - truth) / np.linalg.norm(truth)
        run.metrics({f"{name}.truth_rel_l2": doubt})
    first, second = problem.domain
    if second == "t":
        figure = plots.field_and_error(grids[1], grids[0], values.T, error.T, names=("t", first))
    else:
        figure = plots.field_and_error(x[:, 0], other[0], values, error, names=(first, second))
    run.figure(name, figure)
    return list(figures.values())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
