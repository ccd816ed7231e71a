"""Autoencoders: how many numbers data need, what these numbers obey, and what does not fit.

The state of the Lorenz system is lifted to fields of 128 points that depend on it nonlinearly, as
Champion and others do (PNAS 116, 2019). Codes of one to five latent numbers show that three are
enough; principal components need six. A deep linear encoder with weight decay finds the same
number by itself. The latent numbers are then stepped by a fitted map, and by sparse equations that
are found for them; both forecast the field. Last, four codes of equal size for the 8 x 8 digits,
samples of the variational one, and digits upside down, which do not fit.
"""

from dataclasses import dataclass
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import data, dynamics, experiment, generative, nn, plots, reference, surrogate, systems
from physml.experiment import TIMES, Run

DT, LORENZ = 0.01, systems.Lorenz()
FORECASTS = {"vpt_mean": "mean", "vpt_median": "median", "vpt_p5": "5 %", "eps1": "eps1"}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/autoencoder")
    seeds: int = 3
    """Codes of each size, of which the best on held-out rows is tested (1 if quick)."""
    latent: int = 8
    """Latent numbers of the digits."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 4)
        states = reference.trajectories(LORENZ, keys[0], 100, DT * np.arange(801))
        lifted = data.from_arrays(states.ts, generative.legendre_lift(states.ys))
        codec = lift(run, config, lifted, keys[1])
        forecast(run, config, codec, lifted, keys[2])
        digits(run, config, keys[3])
        return run.metrics({})


def lift(run: Run, config: Config, lifted: data.Trajectories, key: jax.Array) -> generative.Codec:
    """Codes of several sizes, beside principal components; returns the best of three numbers."""
    train_key, test_key, linear_key = jax.random.split(key, 3)
    train = lifted.ys[:, ::4].reshape(-1, 128)
    test = generative.legendre_lift(reference.trajectories(LORENZ, test_key, 20, lifted.ts).ys)
    test = test.reshape(-1, 128)
    sizes = (2, 3, 4) if config.quick else (1, 2, 3, 4, 5)
    errors, linear, best = {}, {}, {}
    for size in sizes:
        linear[size] = generative.principal_components(train, size).relative_error(test)
        with run.row(f"lift.size_{size}", f"{size} latent numbers") as row:
            fits = [
                row.time(generative.fit_projection, train, size, key=one)
                for one in jax.random.split(train_key, 1 if config.quick else config.seeds)
            ]
            best[size] = min(fits, key=lambda fitted: fitted.valid_error).codec
            errors[size] = [float(fitted.codec.relative_error(test)) for fitted in fits]
            row["rel_err"] = best[size].relative_error(test)
            row["pca_rel_err"] = linear[size]
            run.metrics({f"lift.rel_err_{size}": row["rel_err"]})
            run.metrics({f"lift.pca_rel_err_{size}": row["pca_rel_err"]})
    columns = {"name": "code", "rel_err": "relative error", "pca_rel_err": "of components", **TIMES}
    run.table(run.take_rows(), columns, title="Fields of 128 points on the test set, float64")
    found = generative.latent_dimension([1.0, *(min(errors[size]) for size in sizes)])
    run.metrics({"lift.dimension": found.dimension + sizes[0] - 1, "lift.drop": found.drop})
    curves = {
        "autoencoder": (sizes, [errors[size] for size in sizes]),
        "principal components": (sizes, [[linear[size]] for size in sizes]),
    }
    figure = plots.bands(curves, xlabel="latent numbers", ylabel="relative error", share=1.0)
    run.figure("latent_size", figure)
    spectrum(run, config, train, linear_key)
    return best[3]


def spectrum(run: Run, config: Config, train: jax.Array, key: jax.Array) -> None:
    """The dimension from one code of eight numbers, with matrices between and weight decay."""
    network = nn.Autoencoder.dense(
        128, (64,), 8, linear_layers=4, dtype=jnp.float32, rngs=nnx.Rngs(key)
    )
    steps = 1000 if config.quick else 6000
    rate = optax.cosine_decay_schedule(2e-3, steps)
    fitted = generative.fit(
        network, train, optimizer=optax.adamw(rate, weight_decay=1e-2), steps=steps, key=key
    )
    sizes = np.asarray(generative.latent_spectrum(fitted.codec, train))
    run.metrics({"linear_layers.dimension": generative.latent_dimension(sizes).dimension})
    run.metrics({"linear_layers.rel_err": fitted.codec.relative_error(train)})
    bars = plots.spectra(np.arange(1, 9), {"latent numbers": sizes / sizes[0]})
    run.figure("latent_spectrum", bars)


def forecast(
    run: Run, config: Config, codec: generative.Codec, lifted: data.Trajectories, key: jax.Array
) -> None:
    """Step the latent numbers by a map and by equations, and forecast the field."""
    starts_key, equations_key, units_key = jax.random.split(key, 3)
    starts = reference.attractor_starts(LORENZ, starts_key, 10 if config.quick else 30)
    states = reference.trajectories_from(LORENZ, starts, DT * np.arange(2501))
    truth = generative.legendre_lift(states.ys)
    scale, latent = data.Standardiser.fit(truth).std, generative.encode_trajectories(codec, lifted)
    found = generative.discover_equations(codec, lifted, key=equations_key)
    print(f"{found}\n")
    inputs = surrogate.network_inputs(latent)
    network = nn.MLP.frozen(inputs, 500, 3, scale=0.06, rngs=nnx.Rngs(units_key))
    stepped = surrogate.fit_readout(network, latent, refinements=0).step_map
    flow = reference.FlowMap(found.system, DT)
    maps = {
        "dynamic": ("fitted map", generative.LatentStepper(codec, stepped)),
        "latent_equations": ("equations", generative.LatentStepper(found.codec, flow)),
    }
    errors = {}
    for name, (label, step_map) in maps.items():
        with run.row(name, label) as row:
            skill = row.time(dynamics.forecast_skill, step_map, truth, scale=scale)
            row.metrics(skill.summary(1 / LORENZ.lambda1))
            errors[label] = skill.errors
    title = "Valid prediction time of the field in Lyapunov times, float64"
    run.table(run.take_rows(), {"name": "latent step", **FORECASTS}, title=title)
    run.metrics({"latent_equations.terms": found.terms, "latent_equations.left": found.residual})
    run.figure("error_growth", plots.error_growth(states.ts, errors, lambda1=LORENZ.lambda1))
    u = np.asarray(found.codec.encode(truth[0]))
    run.figure("attractor", plots.attractor_3d(u, {}, truth_name="latent numbers"))


def digits(run: Run, config: Config, key: jax.Array) -> None:
    """Four codes of the digits, samples, and digits upside down."""
    parts = data.digits().scaled().split((0.8, 0.2), key)
    train, test = (part.images.astype(float) for part in parts)
    steps = 300 if config.quick else 4000
    rate = optax.cosine_decay_schedule(2e-3, steps)
    single = {"dtype": jnp.float32, "rngs": nnx.Rngs(key)}
    dense = nn.Autoencoder.dense(64, (128, 64), config.latent, activation="elu", **single)
    conv = nn.Autoencoder.convolutional((8, 8, 1), (32, 64), config.latent, **single)
    networks = {"dense": dense, "vae": nn.Variational(dense, rngs=nnx.Rngs(key)), "conv": conv}
    codecs, back = {}, {"test": test[:10]}
    for name in ("pca", *networks):
        shape = (8, 8, 1) if name == "conv" else (64,)
        rows = [x.reshape(-1, *shape) for x in (train, test)]
        with run.row(f"digits.{name}", name) as row:
            if name == "pca":
                codecs[name] = row.time(generative.principal_components, rows[0], config.latent)
            else:
                codecs[name] = row.time(
                    generative.fit, networks[name], rows[0], optimizer=optax.adamw(rate),
                    steps=steps, key=key,
                ).codec  # fmt: skip
            row["rel_err"] = codecs[name].relative_error(rows[1])
            score = generative.AnomalyScore.fit(codecs[name], rows[0])
            turned = test[:, ::-1, ::-1].reshape(-1, *shape)
            row["flagged"] = jnp.mean(score(turned) > score.quantile(0.95))
            row["flagged_normal"] = jnp.mean(score(rows[1]) > score.quantile(0.95))
        back[name] = codecs[name](rows[1][:10]).reshape(-1, 8, 8, 1)
    columns = {"rel_err": "relative error", "flagged": "upside down", "flagged_normal": "upright"}
    title = f"Digits by {config.latent} numbers; shares above 95 % of the training errors"
    run.table(run.take_rows(), {"name": "code", **columns, **TIMES}, title=title)
    shown = jnp.clip(jnp.concatenate(list(back.values())), 0, 1)
    words = [name if i == 0 else "" for name in back for i in range(10)]
    run.figure("reconstructions", plots.image_grid(shown, words, columns=10))
    drawn = generative.sample(codecs["vae"], 30, key)
    path = [generative.interpolate(codecs["vae"], test[i].reshape(64), test[i + 1].reshape(64), 10)
            for i in range(2)]  # fmt: skip
    for name, rows in {"samples": drawn, "interpolation": jnp.concatenate(path)}.items():
        pixels = jnp.clip(rows.reshape(-1, 8, 8, 1), 0, 1)
        run.figure(name, plots.image_grid(pixels, columns=10))


if __name__ == "__main__":
    experiment.cli(main, Config)
