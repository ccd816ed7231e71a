"""What `test_devices` runs in processes of their own: prints figures of divided work as JSON.

python tests/many_devices.py DEVICES [COORDINATOR COUNT NUMBER]
"""

import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import dynamics, fit, nn, reference, systems
from physml._numerics.devices import on_host

jax.config.update("jax_enable_x64", True)

LORENZ = systems.Lorenz()
BOUNDS = ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))
INPUTS = np.linspace(-1.0, 1.0, 48).reshape(16, 3)


def network(setting=None):
    return nn.MLP(3, (4,), 3, rngs=nnx.Rngs(0))


def adam(setting):
    return optax.adam(setting["rate"])


@fit.mean_square
def misfit(model, batch, key):
    inputs, targets = batch
    return model(inputs) - targets


def bits(x):
    return hashlib.sha256(np.ascontiguousarray(on_host(x)).tobytes()).hexdigest()


def main(devices):
    """What the devices have found: digests, and the numbers themselves."""
    ts = 0.01 * np.arange(11)
    made = reference.trajectories(LORENZ, jax.random.key(0), 16, ts, chunk=2, devices=devices)
    forecast = dynamics.rollout(reference.RungeKutta4(LORENZ, 0.01), made.ys[:, -1:], 10)
    climate = dynamics.pool_climate([forecast], 0.01, bounds=BOUNDS, joint_bins=5)
    pairs, key = (INPUTS, np.sin(INPUTS)), jax.random.key(1)
    losses = [
        fit.gradient(
            misfit, network(), pairs, optimizer=optax.adam(1e-2), steps=5, batch_size=size, key=key,
            devices=devices,
        ).history["loss"].tolist()
        for size in (8, None)
    ]  # fmt: skip
    settings = {"rate": jnp.geomspace(1e-3, 1e-1, 8)}
    swept = fit.sweep(
        misfit, network, pairs, settings=settings, optimizer=adam, steps=5, devices=devices
    )
    found = made.ys, forecast, climate.joint, climate.maxima, swept.history["loss"]
    return {
        "number": len(jax.devices()),
        "bits": [bits(x) for x in found],
        "numbers": [on_host(x).ravel().tolist() for x in (forecast, swept.history["loss"])],
        "losses": losses,
    }


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    if len(sys.argv) > 2:
        address, count, number = sys.argv[2:]
        jax.distributed.initialize(address, int(count), int(number))
    print(json.dumps(main(jax.devices())))
