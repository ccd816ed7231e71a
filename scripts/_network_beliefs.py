"""Networks that say how far to trust them, on noisy data with a gap: four of them compared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import bayes, experiment, fit, nn, plots

NOISE = 0.1
INSIDE = np.linspace(-1.0, 1.0, 201)


def curve(x: np.ndarray | jax.Array) -> jax.Array:
    """The truth: an oscillation that dies out."""
    x = jnp.asarray(x)
    return jnp.sin(4.0 * x) * jnp.exp(-0.5 * x)


def network_beliefs(run: experiment.Run, config: experiment.Config, key: jax.Array) -> None:
    """Coverage of bands by the last layer, by Laplace, by draws of all weights, by an ensemble."""
    x_key, noise_key, network_key, draw_key = jax.random.split(key, 4)
    x = jax.random.uniform(x_key, (60, 1), minval=-1.0, maxval=1.0)
    x = 0.7 * x + 0.3 * jnp.sign(x)  # none within 0.3 of zero
    y = curve(x) + NOISE * jax.random.normal(noise_key, x.shape)
    fitted = run.part(
        "networks", fit.sweep,
        mean_square, build, (x, y), settings={"key": jax.random.split(network_key, 10)},
        optimizer=lambda _: optax.adam(1e-2), steps=500 if config.quick else 3000,
        checkpoint=run.checkpoint("networks"),
    )  # fmt: skip
    wide = nn.MLP.frozen(x, 60, 1, scale=2.0, rngs=nnx.Rngs(network_key))
    one, grid = fitted[0].model, jnp.asarray(INSIDE)[:, None]
    chains: dict[str, Any] = {"key": draw_key, "checkpoint": run.checkpoint("all_weights")}
    chains |= {"num_draws": 100, "num_warmup": 150} if config.quick else {}
    beliefs = {
        "last layer": lambda: bayes.last_layer(wide, x, y).predict(grid),
        "Laplace": lambda: bayes.laplace_network(one, x, y).predict(grid),
        "all weights": lambda: bayes.sample_network(one, x, y, **chains).predict(grid),
        "ensemble": lambda: bayes.ensemble(fitted.models, grid),
    }
    truth, bands = curve(INSIDE), {}
    for name, predict in beliefs.items():
        with run.row(name.lower().replace(" ", "_"), name) as row:
            mean, sd, _ = row.part(predict)
            cover = bayes.coverage_of_normals(mean[:, 0], sd[:, 0], truth)
            row["coverage"] = cover.at(0.95)
            row["rms_err"] = jnp.sqrt(jnp.mean((mean[:, 0] - truth) ** 2))
            row["mean_sd"] = jnp.mean(sd)
        bands[name] = (mean[:, 0], sd[:, 0])
    columns = {"name": "belief", "coverage": "share in 95 %", "rms_err": "rms error"}
    columns |= {"mean_sd": "mean sd", **experiment.TIMES}
    run.table(
        run.take_rows(),
        columns,
        title="Networks on 60 points with noise 0.1 and a gap, 95 % bands of the curve",
    )
    run.figure("networks", plots.belief_bands(x[:, 0], y[:, 0], INSIDE, truth, bands))


def build(setting: dict[str, jax.Array]) -> nn.MLP:
    return nn.MLP(1, (12,), 1, dtype=jnp.float64, rngs=nnx.Rngs(setting["key"]))


def mean_square(model: nn.MLP, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    x, y = batch
    return jnp.mean((model(x) - y) ** 2) + 1e-5 * sum(
        jnp.sum(w**2) for w in jax.tree.leaves(nnx.state(model, nnx.Param))
    ), {}
