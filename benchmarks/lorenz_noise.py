r"""Lorenz surrogates from noisy observations: which training withstands noise, and at what cost.

    python benchmarks/lorenz_noise.py [--out DIR] [--seed N] [--quick] [--levels ...]

The lecture's data (100 trajectories of 800 steps of 0.01) get normal noise of 0.1 %, 1 % and 10 %
of each component's standard deviation on every row. One-step least squares then has noise in its
inputs as well as in its targets (errors in variables): the best one-step predictor of noisy rows
is not the flow but the flow plus $\sigma^2 \nabla \log p$ of the noisy data's density p (Tweedie's
formula). This bias pulls towards where data are dense; it grows as the noise squared over the step,
and more data do not remove it. The methods are:

- plain: an MLP trained on single steps by Adam;
- plain, refitted: the same network with its readout fitted by least squares;
- truncated: frozen random features; least squares without the singular values below a cut-off,
  which is chosen by forecasts of the validation data (a small one fits the noise, a large one
  cannot bend);
- injection: as plain, with more noise of the same size on the inputs of every batch;
- multi-step: plain, then trained on forecasts of 16 steps with the gradient through all of them:
  one noisy start serves 16 steps, which spreads its bias over them;
- smoothed: the data are smoothed by Savitzky and Golay's filter of degree 4, whose window is chosen
  with the cut-off, then truncated; the neighbours of a row on both sides reduce its noise.

Validation forecasts noisy trajectories that are left out of training. Forecasts are scored from
exact starts and from noisy ones; the row of the exact flow says what is possible from noisy starts.
The climate is that of ten rollouts.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
import scipy.signal
from _lorenz import DT, LAMBDA1, LORENZ, lecture_data, measure_climate
from flax import nnx
from matplotlib.figure import Figure

from physml import data, dynamics, experiment, nn, reference, residuals, surrogate
from physml.experiment import Run, slug
from physml.step_maps import StepMap

NUM_CLIMATE = 10
COLUMNS = {
    "noise": "noise", "name": "method", "vpt_mean": "from exact starts",
    "vpt_noisy_mean": "from noisy starts", "lambda1": "lambda1", "lambda3": "lambda3",
    "divergence": "joint divergence", "diverged": "diverged", "seconds": "seconds",
    "chosen": "chosen",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/lorenz_noise")
    quick: bool = False
    """One level of noise, shorter training, fewer and shorter rollouts."""
    levels: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Noise, as shares of each component's standard deviation (0.01 if quick)."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    levels = (0.01,) if config.quick else config.levels
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 4)
        judge = Judge(keys[0], config.quick)
        clean = lecture_data(keys[1], 120)
        unit = np.asarray(jax.random.normal(keys[2], clean.ys.shape))
        scores = {}
        for level in levels:
            sigma = level * judge.scale
            noisy = data.from_arrays(np.asarray(clean.ts), np.asarray(clean.ys) + sigma * unit)
            scores["true flow", level] = judge(judge.flow, sigma) | {"seconds": None}
            for name, fit in methods(noisy[:100], noisy[100:], sigma, keys[3], config.quick):
                with run.timed() as timing:
                    step_map, chosen = fit()
                figures = judge(step_map, sigma)
                scores[name, level] = figures | {"seconds": timing.seconds, "chosen": chosen}
        table = []
        for (name, level), figures in scores.items():
            table.append({"noise": f"{level:.1%}", "name": name} | figures)
            label = slug(name)
            run.metrics({f"{label}.{key}_{level:g}": value for key, value in figures.items()})
        run.metrics({"starts": judge.num, "floor.divergence_p99": judge.floor})
        title = (
            f"Valid prediction time in Lyapunov times from {judge.num} starts; climate of "
            f"{NUM_CLIMATE} x {judge.num_steps} steps (divergence of a truth from itself: up "
            f"to {judge.floor:.2g}); float64"
        )
        run.table(table, COLUMNS, title=title)
        run.figure("noise", draw(scores, levels, judge.floor))
        return run.metrics({})


class Judge:
    """Scores step maps against the truth."""

    def __init__(self, key: jax.Array, quick: bool):
        self.num, self.num_steps = (50, 4000) if quick else (200, 20_000)
        keys = jax.random.split(key, 3)
        starts = reference.attractor_starts(LORENZ, keys[0], self.num)
        self.test = reference.trajectories_from(LORENZ, starts, DT * np.arange(1501)).ys
        self.scale = np.asarray(data.Standardiser.fit(self.test).std)
        self.disturbance = np.asarray(jax.random.normal(keys[1], starts.shape))
        self.flow = reference.FlowMap(system=LORENZ, dt=DT, substeps=1)
        truth = self.climate(self.flow, 2 * NUM_CLIMATE)
        self.truth = truth[:NUM_CLIMATE]
        self.floor = float(np.percentile(dynamics.climate_floor(truth, keys[2]).joint, 99))

    def climate(self, step_map: StepMap, num: int) -> dynamics.Climate:
        return measure_climate(step_map, self.test[-num:, :1], self.num_steps, self.test)

    def vpt(self, step_map: StepMap, starts: np.ndarray) -> float:
        predicted = dynamics.rollout(step_map, jnp.asarray(starts)[:, None], self.test.shape[1] - 1)
        scale = jnp.asarray(self.scale)
        valid = dynamics.valid_prediction_time(predicted, self.test, DT, scale=scale)
        return LAMBDA1 * float(valid.times.mean())

    def __call__(self, step_map: StepMap, sigma: np.ndarray) -> dict[str, Any]:
        """The figures of a row; the exact flow is not scored from exact starts."""
        starts, perfect = np.asarray(self.test[:, 0]), step_map is self.flow
        climate = self.truth if perfect else self.climate(step_map, NUM_CLIMATE)
        kept = climate.survivors
        exponents = np.asarray(kept.lyapunov.exponents).mean(axis=0) if len(kept) else [None] * 3
        apart = None if perfect else dynamics.climate_distances(climate, self.truth).joint
        return {
            "vpt_mean": None if perfect else self.vpt(step_map, starts),
            "vpt_noisy_mean": self.vpt(step_map, starts + sigma * self.disturbance),
            "lambda1": exponents[0],
            "lambda3": exponents[2],
            "divergence": apart,
            "diverged": float(climate.diverged.mean()),
        }


Found = tuple[surrogate.Stepper, str | None]
"""A step map, and the settings that were chosen on the validation data."""


def methods(
    train: data.Trajectories, valid: data.Trajectories, sigma: np.ndarray, key: jax.Array,
    quick: bool,
) -> Iterator[tuple[str, Callable[[], Found]]]:  # fmt: skip
    """The methods by name, each as a function that fits it."""
    symmetry, rngs = LORENZ.symmetry, nnx.Rngs(key)
    steps = 500 if quick else 2000

    def trained(network: Any, rate: float, **options: Any) -> surrogate.StepperFit:
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 20, steps)
        adam = optax.adamw(schedule, weight_decay=0.1, mask=nn.hidden_kernels)
        options = {"batch_size": 512, "refit": False, "noise": 0.0} | options
        return surrogate.fit(
            network, train, optimizer=adam, steps=steps, key=key, symmetry=symmetry, **options
        )

    network = nn.MLP(3, (64,), 3, dtype=jnp.float32, rngs=rngs)
    plain = functools.cache(lambda: trained(network, 1e-2, refit=True))
    yield "plain", lambda: (plain().before_refit, None)
    yield "plain, refitted", lambda: (plain().step_map, None)
    noisy = residuals.noisy(residuals.step, jnp.asarray(sigma, jnp.float32))
    yield "injection", lambda: (trained(network, 1e-2, residual=noisy).step_map, None)

    def multi_step() -> Found:
        start = jax.tree.map(lambda x: x.astype(jnp.float32), plain().before_refit.network)
        options = {"residual": residuals.rollout, "length": 16, "batch_size": 256}
        return trained(start, 5e-3, **options).step_map, None

    yield "multi-step", multi_step

    scale = data.Standardiser.fit(train.ys).std
    ahead = valid.ys[:, :800].reshape(-1, 100, 3)

    def forecast_error(step_map: surrogate.Stepper) -> float:
        predicted = dynamics.rollout(step_map, ahead[:, :1], ahead.shape[1] - 1)
        errors = np.asarray(dynamics.normalised_error(predicted, ahead, scale))
        return float(np.median(np.sqrt((errors**2).mean(axis=1))))

    def truncated(windows: tuple[int, ...]) -> Found:
        candidates = {}
        for window in windows:
            smooth = smoothed(train, window)
            inputs = surrogate.network_inputs(smooth)
            frozen = nn.MLP.frozen(inputs, 100, 3, scale=0.06, rngs=nnx.Rngs(key))
            for cutoff in 10.0 ** -np.arange(2, 11, 2):
                fitted = surrogate.fit_readout(
                    frozen, smooth, symmetry=symmetry, rcond=cutoff, noise=0.0
                )
                chosen = f"{window} rows, {cutoff:.0e}" if window else f"{cutoff:.0e}"
                candidates[chosen] = fitted.step_map
        best = min(candidates, key=lambda chosen: forecast_error(candidates[chosen]))
        return candidates[best], best

    yield "truncated", lambda: truncated((0,))
    yield "smoothed", lambda: truncated((9, 21) if quick else (7, 11, 15, 21, 31, 45))


def smoothed(train: data.Trajectories, window: int) -> data.Trajectories:
    """The data smoothed by local polynomials of degree 4 over `window` rows, not at all if 0."""
    if window == 0:
        return train
    ys = scipy.signal.savgol_filter(np.asarray(train.ys), window, 4, axis=1)
    return data.from_arrays(np.asarray(train.ts), np.asarray(ys))


WORDS = {
    "plain": "MLP, trained",
    "plain, refitted": "MLP, trained and refitted",
    "injection": "trained with noise on its inputs",
    "multi-step": "trained on 16 steps",
    "truncated": "MLP, frozen, truncated",
    "smoothed": "the same on smoothed data",
}


def draw(scores: dict[tuple[str, float], Any], levels: tuple[float, ...], floor: float) -> Figure:
    """Valid prediction times and climate over the noise, a line for each method."""
    colours = ("#000000", "#B0B0B0", "#0072B2", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")
    panels = {
        "vpt_mean": "valid prediction time from exact starts\n[Lyapunov times]",
        "vpt_noisy_mean": "valid prediction time from noisy starts\n[Lyapunov times]",
        "divergence": "joint Jensen-Shannon divergence\n[nats]",
    }
    fig = Figure(figsize=(13.0, 4.4), layout="constrained")
    axes = fig.subplots(1, len(panels))
    names = dict.fromkeys(name for name, _ in scores)
    for ax, (key, ylabel) in zip(axes, panels.items(), strict=True):
        for name, colour in zip(names, colours, strict=True):
            values = [scores[name, level][key] for level in levels]
            if None not in values:
                style = ":" if name == "true flow" else "-"
                label = WORDS.get(name, name)
                ax.plot(100 * np.asarray(levels), values, "o" + style, color=colour, label=label)
        ax.set(xscale="log", xlabel="noise [% of the standard deviation]", ylabel=ylabel)
        ax.grid(color="#E4E4E4", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    axes[2].axhspan(0.0, floor, color="#000000", alpha=0.12, label="truth from truth, 99 %")
    axes[2].set(yscale="log")
    handles = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
    handles |= dict(zip(*reversed(axes[2].get_legend_handles_labels()), strict=True))
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False)
    return fig


if __name__ == "__main__":
    experiment.cli(main, Config)
