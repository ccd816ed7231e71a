"""Four equations, each observed in three experiments with gaps and with two kinds of noise."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from physml import noises, pinn, systems

PEOPLE = 50_000.0
GAPS = 0.3  # the share of the numbers that nobody saw
_STEPS = 20  # of the classical Runge-Kutta method, between observations


class Case(NamedTuple):
    """An equation with a guess, what is true, and what is observed.

    Attributes:
        system: with the guess of the parameters.
        free: by name, the true values.
        starts: the true start of each experiment where it is free.
        ts: times, (n,), the same in all experiments.
        noise: the true noise of each experiment, with its scale.
        given: what `pinn.Experiment` is told of each experiment besides, such as `fixed`.
        observe: indices of the observed components.
        num_windows: of each experiment.
        bounds: of the parameters.
    """

    system: systems.System
    free: dict[str, float]
    starts: Sequence[Sequence[float]]
    ts: np.ndarray
    noise: Sequence[noises.Noise]
    given: Sequence[dict[str, Any]]
    observe: tuple[int, ...]
    num_windows: int
    bounds: dict[str, tuple[float, float]]

    @property
    def unknowns(self) -> np.ndarray:
        """The true parameters, then the free starts."""
        starts = [] if self._starts_depend() else np.ravel(self.starts)
        return np.concatenate([list(self.free.values()), starts])

    def _starts_depend(self) -> bool:
        return all(callable(own.get("y0")) for own in self.given)

    def values(self, unknowns: Array) -> list[Array]:
        """What is observed in each experiment without noise, by Runge-Kutta steps."""
        p, rest = jnp.split(unknowns, [len(self.free)])
        values = dict(zip(self.free, p, strict=True))
        every = []
        for number, own in enumerate(self.given):
            known = {**(getattr(self.system, "args", None) or {}), **own.get("fixed", {}), **values}
            if self._starts_depend():
                start = own["y0"](known)
            else:
                start = rest.reshape(len(self.given), -1)[number]
            system, args = self.system, known
            if set(values) <= set(system.parameters):
                system, args = type(system)(**values), None
            states = integrate(lambda t, y, s=system, a=args: s(t, y, a), start, self.ts)
            every.append(states[:, np.asarray(self.observe)])
        return every

    def seen(self) -> np.ndarray:
        """Which numbers are seen, (experiments, n, obs); the first row always is."""
        shape = (len(self.given), len(self.ts), len(self.observe))
        seen = np.random.default_rng(7).uniform(size=shape) >= GAPS
        seen[:, 0] = True
        return seen

    def identify(self, ys: Sequence[Array], **options: Any) -> pinn.Identified:
        """The fit of all experiments, which is told the kinds of noise and not their scales."""
        experiments = []
        for own, noise, y, seen in zip(self.given, self.noise, ys, self.seen(), strict=True):
            kind = noise if not noise.has_scale else _without_scale(noise)
            experiments.append(pinn.Experiment(self.ts, y, noise=kind, seen=seen, **own))
        options = {"bounds": self.bounds, "observe": self.observe} | options
        options["num_windows"] = self.num_windows
        return pinn.identify(self.system, experiments, free=tuple(self.free), **options)

    def bound(self) -> np.ndarray:
        """The bound of Cramér and Rao for the standard deviations of the parameters."""
        truth = jnp.asarray(self.unknowns)
        clean, by = jax.jit(self.values)(truth), jax.jit(jax.jacfwd(self.values))(truth)
        information = 0.0
        for noise, value, slope, seen in zip(self.noise, clean, by, self.seen(), strict=True):
            scale = jnp.broadcast_to(jnp.asarray(noise.scale or 1.0), value.shape)
            weight = np.where(seen, noise.whiten(value, value, scale).slope, 0.0)
            rows = (weight[..., None] * np.asarray(slope)).reshape(-1, truth.size)
            information = information + rows.T @ rows
        return np.sqrt(np.diag(np.linalg.inv(information)))[: len(self.free)]

    def draw(self, key: Array, num: int) -> list[Array]:
        """Observations of each experiment, (num, n, obs), without their gaps."""
        clean = jax.jit(self.values)(jnp.asarray(self.unknowns))
        keys = jax.random.split(key, len(clean))
        return [
            jax.vmap(lambda k, noise=noise, v=v: noise.sample(k, v, jnp.asarray(noise.scale or 1)))(
                jax.random.split(k, num)
            )
            for noise, v, k in zip(self.noise, clean, keys, strict=True)
        ]


def _without_scale(noise: noises.Noise) -> noises.Noise:
    return dataclasses.replace(noise, scale=None)


def integrate(f: Callable, start: Array, ts: np.ndarray) -> Array:
    """The states at `ts`, the start being the state at the first of them."""

    def step(y, ends):
        t, h = ends[0], (ends[1] - ends[0]) / _STEPS

        def substep(i, y):
            at = t + i * h
            k1 = f(at, y)
            k2 = f(at + h / 2, y + h / 2 * k1)
            k3 = f(at + h / 2, y + h / 2 * k2)
            k4 = f(at + h, y + h * k3)
            return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

        y = jax.lax.fori_loop(0, _STEPS, substep, y)
        return y, y

    pairs = jnp.stack([jnp.asarray(ts[:-1]), jnp.asarray(ts[1:])], axis=1)
    start = jnp.asarray(start, float)
    return jnp.concatenate([start[None], jax.lax.scan(step, start, pairs)[1]])


def lotka_volterra() -> Case:
    """Hares and lynxes; the third count is off by a share of what it counts."""
    free = {"alpha": 1.1, "beta": 0.4, "delta": 0.1, "gamma": 0.4}
    normal = noises.NormalNoise(0.3)
    return Case(
        system=systems.LotkaVolterra(alpha=1.4, beta=0.5, delta=0.08, gamma=0.5),
        free=free,
        starts=((10.0, 5.0), (5.0, 2.0), (15.0, 3.0)),
        ts=np.linspace(0.0, 12.0, 40),
        noise=(normal, normal, noises.LogNormalNoise(0.1)),
        given=({}, {}, {}),
        observe=(0, 1),
        num_windows=8,
        bounds=dict.fromkeys(free, (0.0, np.inf)),
    )


def epidemic(t: Array, y: Array, args: dict[str, Any]) -> Array:
    """Susceptible, infected and recovered people of a town of `PEOPLE`."""
    infections, recoveries = args["beta"] * y[0] * y[1] / PEOPLE, args["gamma"] * y[1]
    return jnp.stack([-infections, infections - recoveries, recoveries])


def start_of(name: str) -> Callable[[dict[str, Any]], Array]:
    """A start from a number of infected people that is a parameter."""
    return lambda p: jnp.stack([PEOPLE - p[name], p[name], 0.0 * p[name]])


def sir() -> Case:
    """Daily counts of the infected in three outbreaks, in one of them by a rough estimate."""
    free = {"beta": 0.5, "gamma": 0.2, "i1": 20.0, "i2": 100.0, "i3": 40.0}
    guess = {"beta": 0.6, "gamma": 0.25, "i1": 30.0, "i2": 70.0, "i3": 40.0}
    return Case(
        system=systems.from_function(epidemic, 3, args=guess),
        free=free,
        starts=(),
        ts=np.arange(0.0, 61.0),
        noise=(noises.PoissonNoise(), noises.PoissonNoise(), noises.NormalNoise(200.0)),
        given=tuple({"y0": start_of(name)} for name in ("i1", "i2", "i3")),
        observe=(1,),
        num_windows=8,
        bounds=dict.fromkeys(free, (0.0, np.inf)),
    )


def spring(t: Array, y: Array, args: dict[str, Any]) -> Array:
    """A damped oscillator driven by a measured force."""
    force = args["force"](t)
    return jnp.stack([y[1], force - 2 * args["gamma"] * y[1] - args["omega"] ** 2 * y[0]])


def oscillator() -> Case:
    """Positions alone, under three forces that are tables; in the third some are far off."""
    ts = np.linspace(0.0, 20.0, 61)
    rng = np.random.default_rng(1)
    forces = [systems.Table(ts[::10], rng.normal(size=7)) for _ in range(3)]
    normal = noises.NormalNoise(0.05)
    guess = {"gamma": 0.25, "omega": 1.3, "force": forces[0]}
    return Case(
        system=systems.from_function(spring, 2, args=guess, autonomous=False),
        free={"gamma": 0.15, "omega": 1.0},
        starts=((1.0, 0.0), (0.0, 1.0), (-1.0, 0.5)),
        ts=ts,
        noise=(normal, normal, noises.StudentNoise(4.0, 0.05)),
        given=tuple({"fixed": {"force": force}, "y0": [0.5, 0.5]} for force in forces),
        observe=(0,),
        num_windows=8,
        bounds={},
    )


def duffing() -> Case:
    """A double well driven into chaos, for a short time, from three starts."""
    free = {"alpha": -1.0, "beta": 1.0, "delta": 0.3}
    normal = noises.NormalNoise(0.05)
    return Case(
        system=systems.Duffing(alpha=-0.7, beta=1.3, delta=0.2),
        free=free,
        starts=((1.0, 0.0), (-0.5, 0.5), (0.2, -1.0)),
        ts=np.linspace(0.0, 12.0, 61),
        noise=(normal, normal, noises.StudentNoise(4.0, 0.05)),
        given=({"y0": [1.0, 0.0]}, {"y0": [-0.5, 0.5]}, {"y0": [0.2, -1.0]}),
        observe=(0,),
        num_windows=10,
        bounds={},
    )


CASES = {
    "lotka_volterra": lotka_volterra, "sir": sir, "oscillator": oscillator, "duffing": duffing,
}  # fmt: skip
