"""What `test_devices` starts twice: a fit of two processes that does not end by itself.

python tests/dying_process.py COORDINATOR NUMBER
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax

from physml import fit
from physml.experiment._places import places

jax.config.update("jax_num_cpu_devices", 1)
address, number = sys.argv[1:]
places(SimpleNamespace(device=None, processes=f"{address},2,{number}", out=Path(), record=None))
X = jnp.linspace(0.0, 1.0, 12)


@fit.mean_square
def line(model, x, key):
    return model[0] + model[1] * x - jnp.sin(x)


def note(report):
    print(f"step {report.step}", flush=True)


fit.gradient(
    line, jnp.zeros(2), X, optimizer=optax.adam(1e-3), steps=1 << 30, devices=jax.devices(),
    callback=note,
)  # fmt: skip
