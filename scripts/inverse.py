"""Inverse problems: parameters, starts and an unknown term from noisy observations.

Lorenz from (1, 1, 1), seen 300 times in t = 0 to 3 with noise of standard deviation 0.5, all of it
and x alone: the errors of many noise draws against the Cramér-Rao bound, the intervals' coverage,
likelihood profiles, and single shooting by Diffrax and Levenberg-Marquardt from the same guess,
which is 50 % off. The damping ratio of an oscillator, and Duffing's cubic term, which its equation
is not told of.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import tyro

from physml import fit, pinn, plots, reference, systems
from physml.experiment import Run
from physml.results import RESULTS

NAMES = ("sigma", "rho", "beta")
TS = np.linspace(0.0, 3.0, 300)
NOISE, OFF = 0.5, 1.5  # the noise, and by what the guesses are off
POSITIVE = {name: (0.0, np.inf) for name in NAMES}


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/inverse")
    """Folder for the table, metrics and figures."""
    seed: int = 0
    """Seed of the noise."""
    quick: bool = False
    """A few noise draws only: a look, most of it compiling."""
    draws: int = 200
    """Draws of the noise."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    draws = 10 if config.quick else config.draws
    keys = jax.random.split(jax.random.key(config.seed), 4)
    with Run(config.out, config) as run:
        lorenz(run, "lorenz", (0, 1, 2), draws, keys[0])
        if not config.quick:
            lorenz(run, "lorenz_x", (0,), draws, keys[1])
        oscillator(run, draws, keys[2])
        duffing(run, keys[3])
        return run.metrics({})


def lorenz(run: Run, title: str, observe: tuple[int, ...], draws: int, key: jax.Array) -> None:
    """Errors against the Cramér-Rao bound, coverage, one fit in pictures, single shooting."""
    true, y0 = np.array([10.0, 28.0, 8.0 / 3.0]), np.ones(3)
    unknowns = jnp.asarray(np.concatenate([true, y0]))
    clean = trajectory(unknowns, observe)
    off = systems.Lorenz(*(OFF * true))
    data = clean + NOISE * jax.random.normal(key, (draws, *clean.shape))
    bound = fit.cramer_rao(lambda x: trajectory(x, observe), unknowns, NOISE)[:3] / true

    @eqx.filter_jit
    def identify(data: jax.Array) -> pinn.Identified:
        def one(ys: jax.Array) -> pinn.Identified:
            return pinn.identify(
                off,
                TS,
                ys,
                free=NAMES,
                y0=OFF * y0,
                observe=observe,
                noise=NOISE,
                bounds=POSITIVE,
                num_windows=30,
            )

        return jax.lax.map(one, data, batch_size=20)

    with run.timed() as timing:
        found = jax.block_until_ready(identify(data))
    estimates, ranges = np.asarray(found.estimate), found.intervals()
    errors = estimates / true - 1
    covered = {
        name: float(np.mean((ranges[name][0] <= value) & (value <= ranges[name][1])))
        for name, value in zip(NAMES, true, strict=True)
    }
    ratio = np.sqrt(np.mean(errors**2, axis=0)) / bound
    shot = shooting(OFF * unknowns, data[0], observe)
    rows = []
    for i, name in enumerate(NAMES):
        median, lost = np.median(np.abs(errors[:, i])), abs(shot[i] / true[i] - 1)
        figures = {
            f"{name}_err": median,
            f"{name}_rms_over_crb": ratio[i],
            f"{name}_coverage": covered[name],
            f"{name}_shooting_err": lost,
        }
        run.metrics(figures, prefix=title)
        shares = median, ratio[i] * bound[i], bound[i], covered[name], lost
        rows.append([name, *(100 * float(share) for share in shares)])
    failed = np.mean(np.asarray(found.result != RESULTS.successful))
    figures = {
        "rms_over_crb": ratio.max(),
        "coverage": min(covered.values()),
        "failed": failed,
        "draws": draws,
        "seconds": timing.seconds,
    }
    run.metrics(figures, prefix=title)
    columns = ["parameter", "median error", "rms", "bound", "cover 95 %", "single shooting"]
    seen = "".join("xyz"[i] for i in observe)
    heading = f"Lorenz, {seen} observed, {draws} noise draws, guess {OFF} times the truth, in %"
    run.table(rows, columns, title=heading)
    truth: dict[str, float] = dict(zip(NAMES, map(float, true), strict=True))
    run.figure(f"{title}_intervals", plots.intervals(ranges, truth))
    if observe == (0,):
        pictures(run, jax.tree.map(lambda x: x[0], found), np.asarray(data[0, :, 0]), truth)


def pictures(run: Run, found: pinn.Identified, x: np.ndarray, truth: dict[str, float]) -> None:
    """One fit over its data, x alone, and the likelihood profiles of its parameters."""
    times = np.linspace(0.0, 3.0, 601)
    exact = reference.solve(systems.Lorenz(), [1.0, 1.0, 1.0], times).ys
    paths = (dict(zip("xyz", np.asarray(y).T, strict=True)) for y in (found.solution(times), exact))
    run.figure("lorenz_x_fit", plots.fit_to_data(TS, {"x": x}, times, *paths))
    profiles = {name: pinn.profile(found, name)[1:] for name in NAMES}
    best = {name: (float(found.values[name]), float(found.sd[name])) for name in NAMES}
    run.figure("lorenz_x_profiles", plots.likelihood_profiles(profiles, best, truth))


def trajectory(unknowns: jax.Array, observe: tuple[int, ...]) -> jax.Array:
    """Diffrax's: what is observed, given (sigma, rho, beta, x, y, z at the start)."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(systems.Lorenz(*unknowns[:3])),
        diffrax.Dopri8(),
        TS[0],
        TS[-1],
        0.001,
        unknowns[3:],
        saveat=diffrax.SaveAt(ts=jnp.asarray(TS)),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9),
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys[:, np.asarray(observe)]


def shooting(guess: jax.Array, data: jax.Array, observe: tuple[int, ...]) -> np.ndarray:
    """The classical baseline: one trajectory from the start to the end, Levenberg-Marquardt."""
    solution = optx.least_squares(
        lambda unknowns, data: (trajectory(unknowns, observe) - data) / NOISE,
        optx.LevenbergMarquardt(rtol=1e-8, atol=1e-8),
        guess,
        args=data,
        options={"jac": "fwd"},
        max_steps=200,
        throw=False,
    )
    return np.asarray(solution.value)


def oscillator(run: Run, draws: int, key: jax.Array) -> None:
    """The damping ratio of x'' + 2 zeta x' + x = 0 from positions with noise 0.02."""
    zeta, ts = 0.15, np.linspace(0.0, 20.0, 401)
    true = systems.DrivenOscillator(gamma=zeta, omega0=1.0, forcing=None)
    guess = systems.DrivenOscillator(gamma=OFF * zeta, omega0=OFF, forcing=None)
    clean = true.exact(ts, jnp.asarray([1.0, 0.0]))[:, :1]
    data = clean + 0.02 * jax.random.normal(key, (draws, *clean.shape))
    bounds = {"gamma": (0.0, np.inf), "omega0": (0.0, np.inf)}

    @eqx.filter_jit
    def identify(data: jax.Array) -> tuple[jax.Array, Any]:
        def one(ys: jax.Array) -> tuple[jax.Array, Any]:
            found = pinn.identify(
                guess,
                ts,
                ys,
                free=tuple(bounds),
                y0=[OFF, 0.0],
                observe=(0,),
                bounds=bounds,
                num_windows=20,
            )
            return found.estimate[0] / found.estimate[1], found.result

        return jax.lax.map(one, data, batch_size=20)

    ratios, results = identify(data)
    errors = np.abs(np.asarray(ratios) / zeta - 1)
    run.metrics(
        {
            "oscillator.zeta_err": np.median(errors),
            "oscillator.zeta_rms_err": np.sqrt(np.mean(errors**2)),
            "oscillator.failed": np.mean(np.asarray(results != RESULTS.successful)),
        }
    )
    run.table(
        [["zeta", 100 * np.median(errors), 100 * errors.max()]],
        ["parameter", "median error", "worst"],
        title=f"Damped oscillator, x observed 401 times, {draws} noise draws, noise 0.02, in %",
    )


def duffing(run: Run, key: jax.Array) -> None:
    """The cubic term of a chaotic Duffing oscillator, unknown in form, from noise 0.02."""
    true, ts = systems.Duffing(), np.linspace(0.0, 20.0, 401)
    clean = reference.solve(true, [1.0, 0.0], ts).ys
    noise_key, network_key = jax.random.split(key)
    ys = clean + 0.02 * jax.random.normal(noise_key, clean.shape)
    found = pinn.discover(systems.Duffing(beta=0.0), ts, ys, component=1, key=network_key)
    print(f"Duffing lacks the term {found}")
    terms = dict(zip(found.names, found.coefficients, strict=True))
    run.metrics(
        {
            "duffing.cubic_err": abs(terms.get("x^3", 0.0) + 1.0),
            "duffing.num_terms": len(terms),
        }
    )
    rows = [
        [name, found.candidates.get(name), value, sd]
        for name, value, sd in zip(found.names, found.coefficients, found.sd, strict=True)
    ]
    run.table(
        rows,
        ["monomial", "of the network", "refitted", "sd"],
        title="The term that Duffing's equation lacks, true value -1 x^3; noise 0.02",
    )
    by_monomials, by_network = found.term(clean)
    x, terms = clean[:, 0], {"network": by_network, "monomials": by_monomials}
    figure = plots.recovered_term(x, -(x**3), terms, xlabel="x", ylabel="term of dv/dt")
    run.figure("duffing_term", figure)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
