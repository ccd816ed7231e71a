"""The posterior of the pelts, beside what is published, what is simpler, and another equation."""

from typing import Any

import _pelts as pelts
import jax
import numpy as np

from physml import bayes, experiment, noises, plots


def pelt_beliefs(run: experiment.Run, config: experiment.Config, key: jax.Array) -> None:
    """Posterior, speed and figures; nothing where the file of the pelts is not."""
    read = pelts.read()
    if read is None:
        print("No pelts: lynx_hare/lynx_hare.csv is not in the folder that PHYSML_DATA names.\n")
        return
    ts, ys = read
    options: dict[str, Any] = {"noise": noises.LogNormalNoise(), "priors": pelts.PRIORS}
    few: dict[str, Any] = {"num_draws": 400, "num_warmup": 150} if config.quick else {}
    with run.row("pelts") as row:
        found = row.part(pelts.identify, pelts.lotka_volterra(), ts, ys)
        seconds, compiling = row.figures["seconds"], row.figures["compile_seconds"]
        chains: Any = {"key": key, "checkpoint": row.checkpoint, **few}
        belief = row.part(bayes.posterior, found, **chains, **options)
        seconds += row.figures["seconds"]
        compiling += row.figures["compile_seconds"]
        draws = pelts.columns(belief.draws)
        ess = np.asarray(bayes.effective_sample_size(draws))
        mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
        z = np.abs(mean - pelts.MEANS) / np.hypot(sd / np.sqrt(ess), pelts.ERRORS)
        row["max_z"], row["rhat_max"] = z.max(), np.max(bayes.split_rhat(draws))
        row["min_ess"], row["ess_per_second"] = ess.min(), ess.min() / seconds
        chain = row.part(pelts.plain, ts, ys, key, 100 if config.quick else 500)
        plain = np.min(bayes.effective_sample_size(pelts.columns(chain)))
        row["plain_seconds"], row["plain_ess"] = row.figures["seconds"], plain
        row["ess_ratio"] = ess.min() / seconds / (plain / row.figures["seconds"])
        row["seconds"], row["compile_seconds"] = seconds, compiling
    normal = run.part("pelts.laplace", bayes.posterior, found, key=key, method="laplace", **options)
    by_laplace = pelts.columns(normal.draws)
    centre, width = by_laplace.mean(axis=(0, 1)), by_laplace.std(axis=(0, 1))
    run.metrics({"pelts.laplace_sd_ratio": np.min(width / sd)})
    rows = zip(pelts.COLUMNS, mean, sd, pelts.MEANS, z, centre, width, strict=True)
    columns = ["unknown", "mean", "sd", "published mean", "z", "Laplace mean", "sd"]
    run.table(list(map(list, rows)), columns, title="Posterior of the pelts, 1900 to 1920")
    speeds = {"min_ess": "effective draws", "seconds": "seconds", "ess_per_second": "draws/s"}
    speeds |= {"plain_ess": "plain draws", "plain_seconds": "plain seconds", "ess_ratio": "ratio"}
    run.table(run.take_rows(), {"name": "data", **speeds}, title="Effective draws per second")
    flat = {"sampler": draws, "Laplace": by_laplace}
    flat = {name: x.reshape(-1, len(mean)) for name, x in flat.items()}
    run.figure("pelts_posterior", plots.marginals(pelts.COLUMNS, flat))
    times = np.linspace(0.0, 20.0, 401)
    seen = belief.predict(times, key=key, num=4000, noisy=True)
    names: list[str] = ["hares [thousands]", "lynxes [thousands]"]
    data = dict(zip(names, ys.T, strict=True))
    bands = dict(zip(names, np.moveaxis(np.asarray(seen), -1, 0), strict=True))
    figure = plots.predictive(ts + 1900, data, times + 1900, bands, time_unit="year")
    run.figure("pelts_prediction", figure)
    compare(run, ts, ys, belief, {"key": key, **few})


def compare(
    run: experiment.Run,
    ts: np.ndarray,
    ys: np.ndarray,
    belief: bayes.Posterior,
    settings: dict[str, Any],
) -> None:
    """Does it help if hares alone would grow to a limit?"""

    def computed() -> list[bayes.Comparison]:
        """The rows alone, as a part of a run holds no equation of one's own."""
        found = pelts.identify(pelts.with_limit(), ts, ys)
        options: dict[str, Any] = {"noise": noises.LogNormalNoise(), **settings}
        options |= {"priors": pelts.PRIORS | pelts.PRIOR_OF_LIMIT}
        other = bayes.posterior(found, checkpoint=run.checkpoint("compare"), **options)
        return bayes.compare({"Lotka-Volterra": belief, "with a limit": other})

    rows = run.part("compare", computed)
    for row in rows:
        figures = {"elpd": row.elpd, "log_evidence": row.log_evidence, "pareto_k": row.pareto_k}
        run.metrics(figures, prefix=f"compare.{row.name.replace(' ', '_')}")
    columns = ["equation", "elpd", "behind", "its error", "Pareto k", "log evidence"]
    run.table(list(map(list, rows)), columns, title="Leave-one-out, and evidence by Laplace")
