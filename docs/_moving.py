"""The moving pictures of README and the docs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation
from PIL import Image, ImageSequence

import physml
from physml import dynamics, experiment, pinn, plots, reference, systems

DPI, COLOURS = 90, 64


def main(figures: Path, results: Path) -> None:
    """Write them; the forecasts need what `python scripts/lorenz.py` has fitted."""
    jax.config.update("jax_enable_x64", True)  # before anything is computed
    experiment.use_compilation_cache()
    written = {"van_der_pol_march": march()}
    models = results / "lorenz" / "models" / "surrogates"
    if models.exists():
        written["lorenz_parting"] = parting(physml.load(models))
    else:
        print("lorenz_parting stays as it is: run python scripts/lorenz.py")
    for name, animation in written.items():
        animation.save(figures / f"{name}.gif", writer="pillow", dpi=DPI)
        shrink(figures / f"{name}.gif")


def shrink(path: Path) -> None:
    """Give all pictures the colours of the last one, so that what does not move takes no room."""
    plain = Image.Dither.NONE
    with Image.open(path) as moving:
        frames = [(x.convert("RGB"), x.info["duration"]) for x in ImageSequence.Iterator(moving)]
    last, _ = frames[-1]
    palette = last.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=plain)
    first, *others = (picture.quantize(palette=palette, dither=plain) for picture, _ in frames)
    durations = [duration for _, duration in frames]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def parting(maps: dict[str, physml.step_maps.StepMap]) -> FuncAnimation:
    """Two forecasts of the Lorenz system from one start, until both have failed."""
    lorenz, dt, history = systems.Lorenz(), 0.01, 101
    start = reference.attractor_starts(lorenz, jax.random.key(1), 1)
    ts = dt * np.arange(3200)
    truth = reference.extended_trajectories(lorenz, start, dt * np.arange(history + len(ts) - 1))
    seen, ahead = truth.ys[0, :history], truth.ys[0, history - 1 :]
    names = {"GRU, trained": "gru_trained", "MLP, frozen": "mlp_frozen"}
    forecasts = {
        name: dynamics.rollout(maps[key], seen, len(ts) - 1) for name, key in names.items()
    }
    return plots.parting_forecasts(
        ts, ahead, forecasts, frames=260, tail=0.8, lambda1=lorenz.lambda1
    )


def march() -> FuncAnimation:
    """The windows of a stiff oscillator, which are short where it jumps."""
    system = systems.VanDerPol(mu=5.0)
    solution = pinn.solve(system, jnp.array([2.0, 0.0]), t1=25.0)
    ts = np.linspace(0.0, 25.0, 2001)
    return plots.marching_windows(
        ts,
        solution(ts),
        solution.stats["edges"],
        names=system.state_names,
        estimate=solution.error_estimate(ts),
    )
