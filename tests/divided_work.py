"""What `test_devices` runs in a process with eight simulated devices: work divided and not divided.

Prints, as JSON, how much the two differ, and how many rows of the work a device has.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import fit, nn, pinn, reference, systems
from physml.pinn.family import _march

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

DEVICES, KEY = jax.devices(), jax.random.key(0)
OSCILLATOR = systems.DrivenOscillator()
TS = np.linspace(0.0, 1.0, 12)


def difference(one, other):
    """The largest difference, relative to the largest number."""
    one, other = np.asarray(one), np.asarray(other)
    return float(np.abs(one - other).max() / np.abs(one).max())


def rows(x):
    """How many rows each device has; the same number on all of them."""
    shards = x.addressable_shards
    assert len({shard.device for shard in shards}) == len(DEVICES)
    (num,) = {len(shard.data) for shard in shards}
    return num


def trained():
    """A network by both kinds of stages, with points and weights that move."""
    stages = ((optax.adam(1e-2), 12), (fit.VariableProjection(), 3))
    options = {"stages": stages, "condition": "soft", "key": KEY, "throw": False}
    options |= {"points": pinn.Resampled(32, every=5), "weights": pinn.GradientNorm()}
    network = nn.MLP(1, (8,), 2, activation="sin", rngs=nnx.Rngs(0))
    one, all_ = (
        pinn.train(network, OSCILLATOR, [1.0, 0.0], 1.0, devices=devices, **options)
        for devices in (None, DEVICES)
    )
    assert all_.solution.ys.devices() == {DEVICES[0]}
    divided = [stage.state.times for stage in all_.fits]
    return difference(one.losses, all_.losses), [rows(times) for times in divided]


def bundled():
    """A bundle, and what one bundle answers for starts that are divided."""
    made, fit_layer = [], _march.fit_layer

    def noted(*args):
        made.append(rows(args[5].basis))
        return fit_layer(*args)

    box, spread = jnp.array([[0.5, 0.5], [1.5, 1.5]]), {"gamma": (0.1, 0.3)}
    options = {"parameters": spread, "key": KEY, "units": 96, "num_checks": 16, "rtol": 1e-3}
    one = pinn.bundle(OSCILLATOR, box, 0.5, **options)
    _march.fit_layer = noted
    all_ = pinn.bundle(OSCILLATOR, box, 0.5, devices=DEVICES, **options)
    starts = reference.attractor_starts(systems.Lorenz(), KEY, 16, devices=DEVICES)
    starts = 1.0 + starts[:, :2] / 100.0
    here = one.solutions(TS / 2, np.asarray(starts), {"gamma": 0.2})
    there = one.solutions(TS / 2, starts, {"gamma": 0.2})
    other = all_.solutions(TS / 2, starts, {"gamma": 0.2})
    differing = max(difference(here, there), difference(here, other))
    return differing, [*set(made), rows(there), rows(other)]


def identified():
    """A parameter from each of many data sets, by `jax.vmap`."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, (16, 12, 1))
    data = np.exp(-1.3 * TS)[None, :, None] + noise
    guess = systems.from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 1.0})

    @jax.jit
    @jax.vmap
    def one(ys):
        return pinn.identify(guess, TS, ys, free=("k",), num_windows=3).values["k"]

    mesh = jax.sharding.Mesh(np.asarray(DEVICES), ("sets",))
    places = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("sets"))
    here, there = one(data), one(jax.device_put(data, places))
    return difference(here, there), [rows(there)]


if __name__ == "__main__":
    print(json.dumps({work.__name__: work() for work in (trained, bundled, identified)}))
