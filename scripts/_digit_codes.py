"""Codes of digits of equal size: principal components and three autoencoders."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _digit_images import DigitsConfig
from flax import nnx

from physml import generative, nn, plots
from physml.experiment import TIMES, Run

SHOWN = 10
COLUMNS = {
    "name": "code", "rel_err": "relative error", "flagged": "upside down",
    "flagged_normal": "upright", **TIMES,
}  # fmt: skip
WORDS = {
    "pca": "principal components",
    "dense": "dense",
    "vae": "variational",
    "conv": "convolutional",
}


@dataclass(frozen=True)
class Size:
    """How large the networks for a set of digits are, and how long they are trained."""

    hidden: tuple[int, ...]
    steps: int
    batch_size: int
    filters: tuple[int, ...] = (16, 32)
    sweep: tuple[int, ...] = (2, 4, 8, 16, 32)  # latent numbers


SMALL = Size((128, 64), 3000, 256)
MNIST = Size((256, 128), 3000, 128)  # twelve times the pixels, and thirty times the images


class Codes:
    """Digits, and the codes that are fitted to them, all with an equal number of steps."""

    def __init__(self, run: Run, config: DigitsConfig, key: jax.Array):
        images = config.images(key).scaled(jnp.float32)
        parts = images.split((0.7, 0.1, 0.2), key)
        self.train, self.held, self.test = (part.images for part in parts)
        self.run, self.key, self.size = run, key, MNIST if config.mnist else SMALL
        self.steps = 100 if config.quick else self.size.steps
        _, height, width, channels = self.train.shape
        self.shape = (height, width, channels)
        # Made once, so that nothing is compiled again.
        self.adam = optax.adamw(optax.cosine_decay_schedule(2e-3, self.steps))

    def network(self, name: str, latent: int) -> nn.Autoencoder | nn.Variational:
        """An autoencoder that is not trained yet."""
        single: dict[str, Any] = {"dtype": jnp.float32, "rngs": nnx.Rngs(self.key)}
        if name == "conv":
            return nn.Autoencoder.convolutional(self.shape, self.size.filters, latent, **single)
        count = self.train[0].size
        dense = nn.Autoencoder.dense(count, self.size.hidden, latent, activation="elu", **single)
        return nn.Variational(dense, rngs=nnx.Rngs(self.key)) if name == "vae" else dense

    def rows(self, name: str, images: jax.Array) -> jax.Array:
        """Images as the code of this name takes them: as images, or as rows of numbers."""
        return images if name == "conv" else images.reshape(len(images), -1)

    def fitted(self, part: str, name: str, latent: int) -> generative.Codec:
        """The code, trained under the name of a part of the run."""
        known = self.rows(name, self.train)
        if name == "pca":
            return generative.principal_components(known, latent)
        options: dict[str, Any] = {"steps": self.steps, "batch_size": self.size.batch_size}
        options |= {"key": self.key, "checkpoint": self.run.checkpoint(part)}
        network = self.network(name, latent)
        return generative.fit_autoencoder(network, known, optimizer=self.adam, **options).codec


def compare_codes(run: Run, key: jax.Array, latent: int, config: DigitsConfig) -> None:
    """Reconstructions and samples, and how many digits upside down are found to be strange."""
    of = Codes(run, config, key)
    codecs, back = {}, {"image": of.test[:SHOWN]}
    for name in WORDS:
        normal, new = of.rows(name, of.held), of.rows(name, of.test)
        turned = of.rows(name, of.test[:, ::-1, ::-1])
        with run.row(f"digits.{name}", WORDS[name]) as row:
            codec = row.part(of.fitted, f"digits.{name}", name, latent)
            score = generative.AnomalyScore.fit(codec, normal)  # not those it has learned
            row["rel_err"] = codec.relative_error(new)
            row["flagged"] = jnp.mean(score(turned) > score.quantile(0.95))
            row["flagged_normal"] = jnp.mean(score(new) > score.quantile(0.95))
        codecs[name], back[name] = codec, codec(new[:SHOWN]).reshape(-1, *of.shape)
    title = f"Digits by {latent} numbers, float32; shares above 95 % of the errors held out"
    run.table(run.take_rows(), COLUMNS, title=title)
    words = [WORDS.get(name, name) if i == 0 else "" for name in back for i in range(SHOWN)]
    pictures = {
        "reconstructions": (jnp.concatenate(list(back.values())), words),
        "samples": (generative.sample(codecs["vae"], 5 * SHOWN, key), None),
        "interpolation": (between(codecs["vae"], of.rows("vae", of.test[:4])), None),
    }
    for name, (rows, words) in pictures.items():
        pixels = jnp.clip(rows.reshape(-1, *of.shape), 0, 1)
        run.figure(name, plots.image_grid(pixels, words, columns=SHOWN))
    sweep(run, of, config.quick)


def sweep(run: Run, of: Codes, quick: bool) -> None:
    """How many numbers digits need: there is no number at which the error falls to nothing."""
    sizes, names = of.size.sweep[:2] if quick else of.size.sweep, ("dense", "pca")
    errors: dict[str, list[float]] = {name: [] for name in names}
    for latent in sizes:
        for name in names:
            part = f"digits.{name}_{latent}"
            codec = run.part(part, of.fitted, part, name, latent)
            error = float(codec.relative_error(of.rows(name, of.test)))
            run.metrics({f"{part}.rel_err": error})
            errors[name].append(error)
    head = ["latent numbers", *(WORDS[name] for name in names)]
    rows = [[size, *pair] for size, *pair in zip(sizes, *errors.values(), strict=True)]
    run.table(rows, head, title="Relative error of digits on the test set, float32")
    curves = {WORDS[name]: (sizes, [[x] for x in found]) for name, found in errors.items()}
    figure = plots.bands(curves, xlabel=head[0], ylabel="relative error")
    run.figure("digits_latent_size", figure)


def between(codec: generative.Codec, images: jax.Array) -> jax.Array:
    """Paths from each image to the next one."""
    pairs = pairwise(images)
    return jnp.concatenate([generative.interpolate(codec, a, b, SHOWN) for a, b in pairs])
