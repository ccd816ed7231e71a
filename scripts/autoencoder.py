"""Autoencoders: how many numbers data need, what these numbers obey, and what does not fit.

The state of the Lorenz system is lifted to fields of 128 points that depend on it nonlinearly, as
Champion and others do (PNAS 116, 2019). Codes of one to five latent numbers show that three are
enough; principal components need six. A network with matrices between encoder and decoder, trained
with weight decay, stops at these six. The latent numbers are then stepped by a fitted map, and by
sparse equations that are found for them; both forecast the field. Last, four codes of equal size
for the 8 x 8 digits or MNIST, samples of the variational one, digits upside down, which do not fit,
and the error for several numbers.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from _digit_codes import compare_codes
from _digit_images import DigitsConfig
from flax import nnx

from physml import data, dynamics, experiment, generative, nn, plots, reference, surrogate, systems
from physml.data import Trajectories
from physml.experiment import Run

DT, LORENZ = 0.01, systems.Lorenz()
WORDS = {"dynamic": "learned map", "latent_equations": "latent equations"}
FORECASTS = {"vpt_mean": "mean", "vpt_median": "median", "vpt_p5": "5 %", "eps1": "eps1"}


@dataclass(frozen=True)
class Config(DigitsConfig):
    """Options of the experiment."""

    out: Path = Path("results/autoencoder")
    restarts: int = 3
    """Starts for each code of the lift; the best on held-out rows is tested (1 if quick)."""
    latent: int = 8
    """Latent numbers of the digits."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 4)
        num = 20 if config.quick else 100
        states = reference.trajectories(LORENZ, keys[0], num, DT * np.arange(801))
        lifted = data.from_arrays(states.ts, generative.legendre_lift(states.ys))
        codec = lift(run, config, lifted, keys[1])
        forecast(run, config, codec, lifted, keys[2])
        compare_codes(run, keys[3], config.latent, config)
        return run.metrics({})


def lift(run: Run, config: Config, lifted: Trajectories, key: jax.Array) -> generative.Codec:
    """Codes of several sizes, beside principal components; returns that of three numbers."""
    train_key, test_key, linear_key = jax.random.split(key, 3)
    train = lifted.ys[:, ::4].reshape(-1, 128)
    test = generative.legendre_lift(reference.trajectories(LORENZ, test_key, 20, lifted.ts).ys)
    test = test.reshape(-1, 128)
    sizes = (2, 3, 4) if config.quick else (1, 2, 3, 4, 5)
    errors, linear, codecs = {}, {}, {}
    for size in sizes:
        restarts = 1 if config.quick else config.restarts
        options = {"key": train_key, "restarts": restarts}
        fitted = run.part(f"lift_{size}", generative.fit_projection, train, size, **options)
        codecs[size], components = fitted.codec, generative.principal_components(train, size)
        errors[size] = float(fitted.codec.relative_error(test))
        linear[size] = float(components.relative_error(test))
        run.metrics({f"lift.rel_err_{size}": errors[size]})
        run.metrics({f"lift.pca_rel_err_{size}": linear[size]})
    rows = [[size, errors[size], linear[size]] for size in sizes]
    names = ["latent numbers", "autoencoder", "principal components"]
    run.table(rows, names, title="Relative error of fields on the test set, float64")
    found = generative.latent_dimension([1.0, *errors.values()])
    run.metrics({"lift.dimension": found.dimension + sizes[0] - 1, "lift.drop": found.drop})
    curves = {name: (sizes, [[row[i]] for row in rows]) for i, name in enumerate(names) if i}
    run.figure("latent_size", plots.bands(curves, xlabel=names[0], ylabel="relative error"))
    spectrum(run, config, train, linear_key)
    return codecs[3]


def spectrum(run: Run, config: Config, train: jax.Array, key: jax.Array) -> None:
    """How many of eight numbers a code uses, by matrices between and weight decay."""
    single: dict[str, Any] = {"dtype": jnp.float32, "rngs": nnx.Rngs(key)}
    network = nn.Autoencoder.dense(128, (64,), 8, linear_layers=4, **single)
    steps = 200 if config.quick else 5000
    adam = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-2)
    options: dict[str, Any] = {"optimizer": adam, "steps": steps, "key": key}
    options["checkpoint"] = run.checkpoint("linear_layers")
    fitted = run.part("linear_layers", generative.fit_autoencoder, network, train, **options)
    codec = fitted.codec
    sizes = generative.latent_spectrum(codec, train)
    run.metrics({"linear_layers.dimension": generative.latent_dimension(sizes).dimension})
    run.metrics({"linear_layers.rel_err": codec.relative_error(train)})
    curves = {"with matrices between": (np.arange(1, 9), sizes[:, None])}
    figure = plots.bands(curves, xlabel="principal axis", ylabel="standard deviation")
    run.figure("latent_spectrum", figure)


def forecast(
    run: Run, config: Config, codec: generative.Codec, lifted: Trajectories, key: jax.Array
) -> None:
    """Step the latent numbers by a map and by equations, and forecast the field."""
    starts_key, equations_key, units_key = jax.random.split(key, 3)
    starts = reference.attractor_starts(LORENZ, starts_key, 10 if config.quick else 30)
    states = reference.trajectories_from(LORENZ, starts, DT * np.arange(2501))
    truth = generative.legendre_lift(states.ys)
    scale, latent = data.Standardiser.fit(truth).std, generative.encode_trajectories(codec, lifted)
    network = nn.MLP.frozen(
        surrogate.network_inputs(latent), 400, 3, scale=0.06, rngs=nnx.Rngs(units_key)
    )
    stepped = run.part("step", surrogate.fit_readout, network, latent, refinements=0).step_map
    discover = partial(generative.discover_equations, codec, lifted, key=equations_key)
    found = run.part("equations", discover)
    print(f"{found}\n")
    flow = reference.FlowMap(system=found.system, dt=DT)
    maps = {
        "dynamic": generative.LatentStepper(codec=codec, latent=stepped),
        "latent_equations": generative.LatentStepper(codec=found.codec, latent=flow),
    }
    errors = {}
    for name, step_map in maps.items():
        with run.row(name, WORDS[name]) as row:
            skill = row.part(dynamics.forecast_skill, step_map, truth, scale=scale)
            row.metrics(skill.summary(1 / LORENZ.lambda1))
            errors[WORDS[name]] = skill.errors
    title = "Valid prediction time of the field in Lyapunov times, float64"
    run.table(run.take_rows(), {"name": "latent step", **FORECASTS}, title=title)
    run.metrics({"latent_equations.terms": found.terms, "latent_equations.left": found.residual})
    run.figure("error_growth", plots.error_growth(states.ts, errors, lambda1=LORENZ.lambda1))
    z = np.asarray(found.codec.encode(truth[0]))
    design, state = np.column_stack([z, np.ones(len(z))]), np.asarray(states.ys[0])
    mapped = design @ np.linalg.lstsq(design, state, rcond=None)[0]
    run.figure("attractor", plots.attractor_3d(state, {"latent numbers, scaled": mapped}))


if __name__ == "__main__":
    experiment.cli(main, Config)
