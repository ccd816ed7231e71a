"""Four codes of the digits of equal size: principal components and three autoencoders."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from physml import data, generative, nn, plots
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


def compare_codes(run: Run, key: jax.Array, latent: int, steps: int) -> None:
    """Reconstructions and samples, and how many digits upside down are found to be strange."""
    parts = data.digits().scaled(jnp.float32).split((0.7, 0.1, 0.2), key)
    train, held, test = (part.images for part in parts)
    dense = nn.Autoencoder.dense(
        64, (128, 64), latent, activation="elu", dtype=jnp.float32, rngs=nnx.Rngs(key)
    )
    networks = {
        "dense": dense,
        "vae": nn.Variational(dense, rngs=nnx.Rngs(key)),
        "conv": nn.Autoencoder.convolutional(
            (8, 8, 1), (16, 32), latent, dtype=jnp.float32, rngs=nnx.Rngs(key)
        ),
    }
    adam = optax.adamw(optax.cosine_decay_schedule(2e-3, steps))
    codecs, back = {}, {"image": test[:SHOWN]}
    for name in ("pca", *networks):
        shape = (8, 8, 1) if name == "conv" else (64,)
        known, normal, new = (x.reshape(-1, *shape) for x in (train, held, test))
        turned = test[:, ::-1, ::-1].reshape(-1, *shape)
        with run.row(f"digits.{name}", WORDS[name]) as row:
            if name == "pca":
                codec = row.part(generative.principal_components, known, latent)
            else:
                options = {"optimizer": adam, "steps": steps, "key": key}
                options["checkpoint"] = row.checkpoint
                codec = row.part(generative.fit_autoencoder, networks[name], known, **options).codec
            score = generative.AnomalyScore.fit(codec, normal)  # not those it has learned
            row["rel_err"] = codec.relative_error(new)
            row["flagged"] = jnp.mean(score(turned) > score.quantile(0.95))
            row["flagged_normal"] = jnp.mean(score(new) > score.quantile(0.95))
        codecs[name], back[name] = codec, codec(new[:SHOWN]).reshape(-1, 8, 8, 1)
    title = f"Digits by {latent} numbers, float32; shares above 95 % of the errors held out"
    run.table(run.take_rows(), COLUMNS, title=title)
    words = [WORDS.get(name, name) if i == 0 else "" for name in back for i in range(SHOWN)]
    pictures = {
        "reconstructions": (jnp.concatenate(list(back.values())), words),
        "samples": (generative.sample(codecs["vae"], 5 * SHOWN, key), None),
        "interpolation": (between(codecs["vae"], test[:4].reshape(4, 64)), None),
    }
    for name, (rows, words) in pictures.items():
        pixels = jnp.clip(rows.reshape(-1, 8, 8, 1), 0, 1)
        run.figure(name, plots.image_grid(pixels, words, columns=SHOWN))


def between(codec: generative.Codec, images: jax.Array) -> jax.Array:
    """Paths from each image to the next one."""
    pairs = pairwise(images)
    return jnp.concatenate([generative.interpolate(codec, a, b, SHOWN) for a, b in pairs])
