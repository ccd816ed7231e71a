"""What next-step maps are fitted to and tested on: trajectories of other systems than Lorenz."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physml import data, reference, systems

PRECISE = 1e-14  # relative tolerance of a step of the truth
LORENZ = systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))


@dataclass(frozen=True)
class Problem:
    """What a surrogate is fitted to and tested on, and what is known of it beforehand."""

    name: str
    system: Any  # a systems.System; None where all there is are data
    train: data.Trajectories
    test: data.Trajectories
    units: int
    scale: float  # the slope of a hidden unit over a standard deviation of the data
    chaotic: bool = False


def problems(folder: Path, key: jax.Array, quick: bool) -> Iterator[Problem]:
    """All problems, each with its data; the last one is read from a file, written into `folder`."""
    num, share, fewer = (4, 0.1, 4) if quick else (20, 1.0, 1)
    train_key, test_key = jax.random.split(key)

    def chaotic(
        name: str,
        system: systems.System,
        dt: float,
        shape: tuple[int, int],
        span: float,
        box: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        **options: Any,
    ) -> Problem:
        """Trajectories from the system's box to fit, and from its attractor to test."""
        ts = dt * np.arange(shape[1] + 1)
        train = reference.trajectories(system, train_key, shape[0] // fewer, ts)
        starts = reference.attractor_starts(system, test_key, num, burn_in=50.0, dt=dt, box=box)
        steps = round(share * span / dt)
        test = reference.trajectories_from(system, starts, dt * np.arange(steps + 1), rtol=PRECISE)
        return Problem(name, system, train, test, chaotic=True, **options)

    # At phases that float32 holds too, so that both precisions learn the same.
    driven = partial(reference.driven_trajectories, rtol=PRECISE, phase_dtype=jnp.float32)

    yield chaotic("rossler", systems.Rossler(), 0.05, (100, 800), 450.0, units=500, scale=0.2)
    box = ((-15.0, -15.0, -15.0, 25.0), (15.0, 15.0, 15.0, 35.0))  # chaos alone attracts here
    yield chaotic("lorenz_rho", LORENZ, 0.01, (200, 500), 35.0, box, units=500, scale=0.1)
    if not quick:
        ring = systems.Lorenz96(8)
        yield chaotic("thomas", thomas(), 0.05, (100, 800), 800.0, units=600, scale=1.0)
        yield chaotic("lorenz96", ring, 0.01, (200, 400), 20.0, units=1000, scale=0.05)

    system, dt = systems.Duffing(), 0.02
    wide = ((-2.3, -2.3), (2.3, 2.3))  # a map is best well inside of its data
    train = driven(system, train_key, 800 // fewer, dt * np.arange(101), box=wide)
    test = driven(system, test_key, num, dt * np.arange(round(2000 * share) + 1))
    yield Problem("duffing", system, train, test, units=600, scale=0.1)

    system, dt = systems.DrivenOscillator(), 0.05
    train = driven(system, train_key, 200 // fewer, dt * np.arange(401))
    starts = driven(system, test_key, num, dt * np.arange(2))
    ts = dt * np.arange(round(20_000 * share) + 1)
    exact = jax.vmap(lambda y0, t0: system.exact(t0 + ts, y0, t0))
    ys = exact(starts.ys[:, 0], starts.t0s)
    test = data.from_arrays(ts, ys, t0s=starts.t0s, names=system.state_names)
    yield Problem("driven", system, train, test, units=200, scale=0.01)
    train, test = jax.tree.map(lambda x: x.astype(jnp.float32), (train, test))
    yield Problem("driven32", system, train, test, units=200, scale=0.01)

    path = measurements(folder, key)
    train, test = data.split(data.from_csv(path, trajectory="field"), (0.8, 0.2), key)
    yield Problem("file", None, train, test, units=400, scale=0.2)


def thomas() -> systems.System:
    """Thomas's cyclically symmetric attractor (Int. J. Bifurcation Chaos 9, 1999), b = 0.18."""

    def vector_field(t: jax.Array, y: jax.Array, b: float) -> jax.Array:
        return jnp.sin(jnp.roll(y, -1)) - b * y

    box = ((-3.0, -3.0, -3.0), (3.0, 3.0, 3.0))
    return systems.from_function(
        vector_field, 3, args=0.18, box=box, state_names=("x", "y", "z"), symmetry=-np.eye(3)
    )


def measurements(folder: Path, key: jax.Array) -> Path:
    """A table such as a user may have: prey and predators of 50 fields, observed without noise."""
    system = systems.LotkaVolterra()
    observed = reference.trajectories(system, key, 50, 0.05 * np.arange(601), rtol=PRECISE)
    path = folder / "fields.csv"
    data.to_csv(path, observed, trajectory="field")
    return path
