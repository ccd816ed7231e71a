"""Sweeps over the settings of a next-step network, their scores and reports."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _study_settings import Setting, adam, stacked
from _study_subjects import Subject

from physml import experiment, plots, surrogate
from physml.experiment import Run, slug


@dataclass(frozen=True)
class StudyConfig(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/architecture_study")
    problems: tuple[str, ...] = ("lorenz", "oscillator")
    """What to study (Lorenz only if quick)."""
    steps: int = 3000
    """Steps of each fit by batches of 64 (200 if quick)."""
    seeds: int = 3
    """Fits of each setting that differ in their first weights (2 if quick)."""


SCORES = ("eps1", "forecast", "eps1_refit", "forecast_refit")
Found = tuple[list[Setting], dict[str, np.ndarray]]
"""What was fitted, and what came of it."""


class Study:
    """One subject's sweeps and their scores."""

    def __init__(self, run: Run, subject: Subject, config: StudyConfig):
        self.run, self.subject = run, subject
        self.quick = config.quick
        self.steps = 200 if config.quick else config.steps
        self.rates = (3e-3, 1e-2) if config.quick else (1e-3, 3e-3, 1e-2, 3e-2)
        self.seeds = range(2 if config.quick else config.seeds)
        self.key = jax.random.key(config.seed)
        run.metrics({"seeds": len(self.seeds), "steps": self.steps})

    def settings(self, **grids: Iterable[Any]) -> list[Setting]:
        """Every combination, seeds last."""
        combinations = itertools.product(*grids.values(), self.seeds)
        return [
            Setting(**dict(zip((*grids, "seed"), values, strict=True))) for values in combinations
        ]

    def sweep(
        self,
        name: str,
        settings: list[Setting],
        *,
        rows: int | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> dict[str, np.ndarray]:
        """Fit every setting of one shape, and score what comes out.

        Args:
            rows: how many to train on, all unless given.
            steps: of each fit, those of the configuration unless given.
            options: of `surrogate.fit_many`, where they are not the usual ones.
        """
        steps = steps or self.steps
        options = {"hidden": (32, 32), "optimizer": adam, "batch_size": 64} | options

        part = f"{self.subject.name}.{name}"

        def compute() -> dict[str, Any]:
            swept = surrogate.fit_many(
                self.subject.pairs("train", rows),
                self.subject.pairs("valid"),
                settings=stacked(settings, steps, self.key),
                steps=steps,
                key=self.key,
                valid_every=max(1, steps // 20),
                checkpoint=self.run.checkpoint(part),
                **options,
            )
            scores = self.subject.scores(swept.models.network)
            lost = np.where(swept.diverged, np.nan, 1.0)
            return {
                **{name: values * lost for name, values in scores.items()},
                "curves": swept.history["valid_loss"],
                "at": swept.history["valid_step"],
                "seconds": swept.seconds,
                "compile_seconds": swept.compile_seconds,
            }

        return self.run.part(part, compute)

    def by_setting(self, values: np.ndarray) -> np.ndarray:
        """The median over seeds; NaN where a fit has diverged."""
        return np.median(values.reshape(-1, len(self.seeds)), axis=1)

    def report(self, group: str, found: dict[str, Found]) -> list[float]:
        """A table, learning curves and metrics, each row at its best rate; the one-step errors.

        The best rate is the one whose worst seed has the least validation loss.
        """
        name, num = self.subject.name, len(self.seeds)
        curves = {}
        for label, (settings, result) in found.items():
            losses = np.nan_to_num(result["curves"].min(axis=0), nan=np.inf).reshape(-1, num)
            chosen = int(losses.max(axis=1).argmin())
            own = slice(chosen * num, (chosen + 1) * num)
            curves[label] = result["at"] / result["at"][-1], result["curves"][:, own]
            with self.run.row(f"{name}.{group}.{slug(label)}", label) as row:
                row.metrics({key: self.by_setting(result[key])[chosen] for key in SCORES})
                row["rate"] = settings[chosen * num].rate
                row["diverged"] = np.isnan(result["eps1"]).mean()
        forecast = self.subject.forecast
        heads = (group, "eps1", forecast, "eps1, refit", f"{forecast}, refit", "rate", "diverged")
        columns: dict[str, str] = dict(
            zip(("name", *SCORES, "rate", "diverged"), heads, strict=True)
        )
        rows = self.run.take_rows()
        title = f"{name}: {group}, medians of {num} seeds at the best rate"
        self.run.table(rows, columns, title=title)
        figure = plots.bands(
            curves, xlabel="share of the training", ylabel="validation loss", share=1.0,
            title=f"{name.capitalize()}: {group}",
        )  # fmt: skip
        self.run.figure(f"{name}_{group}", figure)
        return [row["eps1"] for row in rows]

    def heat_map(self, name: str, eps1: np.ndarray, **axes: Any) -> None:
        """The one-step errors of a grid of settings, see `plots.heat_map`."""
        title = self.subject.name
        figure = plots.heat_map(eps1, name="one-step error", title=title.capitalize(), **axes)
        self.run.figure(f"{title}_{name}", figure)
