"""The networks that learn the Lorenz system's next step, and how each is fitted."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from physml import data, experiment, nn, surrogate, systems
from physml.experiment import Run

LORENZ = systems.Lorenz()
WORDS = {
    "mlp_trained": "MLP, trained", "mlp_frozen": "MLP, frozen",
    "gru_trained": "GRU, trained", "rnn_frozen": "RNN, frozen",
}  # fmt: skip


def surrogates(
    run: Run, train: data.Trajectories, keys: list[jax.Array], quick: bool
) -> dict[str, Callable[[], surrogate.StepperFit]]:
    """What is fitted, by name."""
    inputs = surrogate.network_inputs(train)
    options: dict[str, Any] = {"symmetry": LORENZ.symmetry, "refinements": 0}

    def frozen(network: nn.MLP | nn.RNN, **more: Any) -> surrogate.StepperFit:
        return surrogate.fit_readout(network, train, **options, **more)

    def trained(
        name: str, network: nn.MLP | nn.RNN, steps: int, **more: Any
    ) -> surrogate.StepperFit:
        steps = steps // 8 if quick else steps
        rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 20, steps)
        adam = optax.adamw(rate, weight_decay=1.0, mask=nn.hidden_kernels)
        more |= options | {"optimizer": adam, "steps": steps, "key": keys[0], "progress": True}
        return surrogate.fit(network, train, checkpoint=run.checkpoint(name), **more)

    single = jnp.float32  # what training runs in; the readout is refitted in float64
    rngs = [nnx.Rngs(key) for key in keys]
    unit: dict[str, Any] = {"centres": "mean", "spectral_radius": 0.1, "activation": nn.fourier}
    # Those that are trained are drawn by one program each, in place of two dozen small ones.
    draw_mlp = jax.jit(lambda rngs: nn.MLP(3, (256,), 3, dtype=single, rngs=rngs))
    draw_gru = jax.jit(lambda rngs: nn.RNN("gru", 3, 64, 3, dtype=single, rngs=rngs))
    mlp, frozen_mlp, gru, frozen_rnn = experiment.beside(
        partial(draw_mlp, rngs[0]),
        partial(nn.MLP.frozen, inputs, 300, 3, scale=0.06, rngs=rngs[1]),
        partial(draw_gru, rngs[2]),
        partial(nn.RNN.frozen, "simple", inputs, 200, 3, scale=0.2, rngs=rngs[3], **unit),
    )
    window = {"batch_size": 64, "length": 8, "warmup": 50}
    return {
        "mlp_trained": partial(trained, "mlp_trained", mlp, 1000, batch_size=512),
        "mlp_frozen": partial(frozen, frozen_mlp),
        "gru_trained": partial(trained, "gru_trained", gru, 800, **window),
        "rnn_frozen": partial(frozen, frozen_rnn, warmup=50),
    }
