"""The problems: what all peers are given, and how an answer is judged against the truth."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from physml import dynamics, reference, systems

LORENZ, OSCILLATOR = systems.Lorenz(), systems.DrivenOscillator()
TRUE = np.array([10.0, 28.0, 8.0 / 3.0])
DT, STEPS, HISTORY = 0.01, 3000, 101
PELTS = np.array([0.5469, 0.02775, 0.8001, 0.02409])
"""Posterior means of posteriordb's `hudson_lynx_hare-lotka_volterra`: alpha, beta, gamma, delta."""

Data = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """What the peers are given, how an answer becomes figures, and who answers it."""

    title: str
    data: Callable[[int, bool], Data | None]
    """Of a seed, and of whether the run is quick; None where a file is missing."""
    judge: Callable[[Data, Data, np.ndarray], dict[str, float]]
    """Of what the peers got, of what they did not get, and of an answer."""
    peers: dict[str, tuple[str, str]]
    """By the row's name, the environment and the task; physml's own row is the first."""
    hidden: tuple[str, ...] = ("truth",)
    """The data that the peers do not get."""


def worst_component(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """The relative L2 error of the worst component."""
    error, truth = answer - hidden["truth"], hidden["truth"]
    return {"error": float(np.max(np.linalg.norm(error, axis=0) / np.linalg.norm(truth, axis=0)))}


def oscillator(seed: int, quick: bool) -> Data:
    """The driven oscillator from (1, 0) to t = 20; its truth is the closed form."""
    ts, y0 = np.linspace(0.0, 20.0, 2001), np.array([1.0, 0.0])
    return {"ts": ts, "y0": y0, "truth": np.asarray(OSCILLATOR.exact(ts, y0))}


def lorenz(t1: float) -> Callable[[int, bool], Data]:
    """Lorenz from (1, 1, 1); its truth is a Taylor series in double-double."""

    def data(seed: int, quick: bool) -> Data:
        ts, y0 = DT * np.arange(round(t1 / DT) + 1), np.ones(3)
        truth = reference.extended_trajectories(LORENZ, y0[None], ts).ys[0]
        return {"ts": ts, "y0": y0, "truth": np.asarray(truth)}

    return data


def box(key: jax.Array, num: int) -> jax.Array:
    """Starts in the lecture's box."""
    return jax.random.uniform(key, (num, 3), minval=-15.0, maxval=15.0)


def batch(seed: int, quick: bool) -> Data:
    """Starts of trajectories of 800 steps."""
    starts = np.asarray(box(jax.random.key(seed), 20 if quick else 1000))
    return {"ts": DT * np.arange(801), "starts": starts}


def one_step(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """The largest error of a step of 0.01, from each state of the answer's first trajectories."""
    some = answer[:20]
    starts = jnp.asarray(some[:, :-1].reshape(-1, 3))
    tight = reference.trajectories_from(LORENZ, starts, [0.0, DT / 2, DT], rtol=1e-14).ys[:, 2]
    error = np.abs(np.asarray(tight) - some[:, 1:].reshape(-1, 3))
    return {"error": float(error.max())}


def forecast(seed: int, quick: bool) -> Data:
    """100 trajectories of 800 steps from the box, and starts on the attractor to forecast from."""
    train_key, test_key = jax.random.split(jax.random.key(seed))
    num, ts = 10 if quick else 100, DT * np.arange(801)
    train = reference.trajectories(LORENZ, train_key, 100, ts)
    starts = reference.attractor_starts(LORENZ, test_key, num)
    test = reference.extended_trajectories(LORENZ, starts, DT * np.arange(HISTORY + STEPS))
    ys = np.asarray(test.ys)
    return {
        "train_ts": ts, "train": np.asarray(train.ys), "dt": np.array(DT),
        "history": ys[:, :HISTORY], "steps": np.array(STEPS), "truth": ys[:, HISTORY - 1 :],
    }  # fmt: skip


def valid_time(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """Valid prediction times in Lyapunov times; `error` grows as they shrink."""
    truth = jnp.asarray(hidden["truth"])
    scale = truth.reshape(-1, 3).std(axis=0)
    held = dynamics.valid_prediction_time(jnp.asarray(answer), truth, DT, scale=scale)
    times = np.asarray(held.times) * LORENZ.lambda1
    return {"vpt_mean": float(times.mean()), "vpt_median": float(np.median(times))}


def inverse(seed: int, quick: bool) -> Data:
    """300 noisy states of Lorenz to t = 3, and a guess that is half as large again."""
    ts = np.linspace(0.0, 3.0, 300)
    clean = np.asarray(reference.solve(LORENZ, jnp.ones(3), ts).ys)
    noise = 0.5 * np.random.default_rng(seed).normal(size=clean.shape)
    guess = 1.5 * np.concatenate([TRUE, np.ones(3)])
    return {"ts": ts, "ys": clean + noise, "guess": guess, "truth": TRUE}


def pelts(seed: int, quick: bool) -> Data | None:
    """The pelts of Hudson's Bay in thousands, and a guess of the four rates."""
    root = Path(os.environ.get("PHYSML_DATA") or Path.home() / ".cache" / "physml")
    path = root / "lynx_hare" / "lynx_hare.csv"
    if not path.is_file():
        return None
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    guess = np.array([0.7, 0.04, 0.6, 0.02])
    return {"ts": rows[:, 0] - rows[0, 0], "ys": rows[:, 1:], "guess": guess, "truth": PELTS}


def worst_parameter(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """The relative error of the worst parameter."""
    return {"error": float(np.max(np.abs(answer / hidden["truth"] - 1.0)))}


def process(seed: int, quick: bool) -> Data:
    """Noisy values of a function of two variables, and where to predict it."""
    rng = np.random.default_rng(seed)
    num = 200 if quick else 1000
    x, at = rng.uniform(-3.0, 3.0, (num, 2)), rng.uniform(-3.0, 3.0, (500, 2))

    def function(x: np.ndarray) -> np.ndarray:
        return np.sin(2.0 * x[:, 0]) * np.cos(x[:, 1]) + 0.3 * x[:, 1]

    noise = 0.1 * rng.normal(size=num)
    return {"x": x, "y": function(x) + noise, "at": at, "truth": function(at)}


def rms(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """The root mean square error of the mean, and the share of the truth in 95 % bands."""
    mean, variance = answer
    error = mean - hidden["truth"]
    inside = np.abs(error) < 1.959964 * np.sqrt(variance)
    return {"error": float(np.sqrt(np.mean(error**2))), "coverage": float(inside.mean())}


def burgers(seed: int, quick: bool) -> Data:
    """Burgers' equation from -sin(pi x) with the viscosity 0.01 / pi; its truth is Cole-Hopf's."""
    x, t = np.meshgrid(np.linspace(-1, 1, 257), np.linspace(0, 1, 101), indexing="ij")
    viscosity = 0.01 / np.pi
    truth = np.asarray(reference.cole_hopf(x, t, viscosity))
    return {"x": x, "t": t, "viscosity": np.array(viscosity), "truth": truth}


def relative(given: Data, hidden: Data, answer: np.ndarray) -> dict[str, float]:
    """The relative L2 error on the grid."""
    truth = hidden["truth"]
    return {"error": float(np.linalg.norm(answer - truth) / np.linalg.norm(truth))}


def _rows(task: str, *names: str, **tasks: str) -> dict[str, tuple[str, str]]:
    """Rows whose name is that of the environment, and rows with a task of another name."""
    rows = {name: (name, task) for name in ("physml", *names)}
    return rows | {row: (row.split("_")[0], other) for row, other in tasks.items()}


FORWARD = ("deepxde", "neurodiffeq", "jinns", "pina")
INTEGRATORS = ("diffrax", "scipy", "heyoka")
PROBLEMS = {
    "oscillator": Problem(
        "Driven oscillator to t = 20", oscillator, worst_component,
        _rows("oscillator", *FORWARD, *INTEGRATORS, diffrax_landing="oscillator_landing"),
    ),
    "lorenz_short": Problem(
        "Lorenz to t = 3", lorenz(3.0), worst_component,
        _rows("lorenz", *FORWARD, *INTEGRATORS, diffrax_landing="lorenz_landing"),
    ),
    "lorenz_long": Problem(
        "Lorenz to t = 20", lorenz(20.0), worst_component,
        _rows("lorenz", *INTEGRATORS, diffrax_landing="lorenz_landing"),
    ),
    "batch": Problem(
        "1000 trajectories of Lorenz, 800 steps each", batch, one_step,
        _rows(
            "many", "diffrax", "heyoka", "torchdiffeq", scipy_odeint="odeint",
            scipy_solve_ivp="solve_ivp",
        ),
        hidden=(),
    ),
    "forecast": Problem(
        "Forecasts of Lorenz", forecast, valid_time,
        _rows(
            "forecast", "pysindy", physml_plain="forecast_plain", reservoirpy_esn="echo_state",
            reservoirpy_ngrc="next_generation", sklearn_mlp="mlp", sklearn_ridge="kernel_ridge",
        ),
    ),
    "inverse": Problem(
        "Three parameters of Lorenz", inverse, worst_parameter,
        _rows("inverse", "scipy", "numpyro", "deepxde", "anypinn"),
    ),
    "pelts": Problem(
        "Four rates of the pelts", pelts, worst_parameter,
        _rows("pelts", "scipy", "numpyro", "deepxde", "anypinn"),
    ),
    "process": Problem(
        "A Gaussian process", process, rms, _rows("process", "sklearn", "tinygp")
    ),
    "burgers": Problem(
        "Burgers' equation", burgers, relative, _rows("burgers", "deepxde", "jinns")
    ),
}  # fmt: skip


@functools.cache
def drawn(name: str, seed: int, quick: bool) -> Data | None:
    """The data of a problem, made once."""
    return PROBLEMS[name].data(seed, quick)
