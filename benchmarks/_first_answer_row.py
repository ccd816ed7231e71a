"""One first answer, in this process; `first_answer.py` starts it, in one checkout or another.

    python benchmarks/_first_answer_row.py NAME

The figures go to the last line as JSON. It must run in old checkouts too, so it calls nothing but
what it measures, and passes by position what has changed its name.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

start = time.perf_counter()
import diffrax  # noqa: F401
import flax.nnx as nnx
import jax
import optax  # noqa: F401

between = time.perf_counter()
import physml  # noqa: F401

package = time.perf_counter()
from physml import data, dynamics, fit, nn, pinn, reference, surrogate, systems  # noqa: F401

rooms = time.perf_counter()

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np

LORENZ = systems.Lorenz()


def reference_solve() -> Callable[[], Any]:
    """The truth to t = 20."""
    y0, ts = jnp.ones(3), jnp.linspace(0.0, 20.0, 2001)
    return lambda: reference.solve(LORENZ, y0, ts).ys


def pinn_solve() -> Callable[[], Any]:
    """Networks to t = 20, looked at once."""
    y0 = jnp.ones(3)
    return lambda: pinn.solve(LORENZ, y0, t1=20.0)(20.0)


def fit_readout() -> Callable[[], Any]:
    """300 frozen units on the lecture's 80,000 pairs."""
    train = reference.trajectories(LORENZ, jax.random.key(0), 100, 0.01 * np.arange(801))
    inputs = surrogate.network_inputs(train)
    network = nn.MLP.frozen(inputs, 300, 3, scale=0.06, rngs=nnx.Rngs(1))
    options: dict[str, Any] = {"symmetry": LORENZ.symmetry, "refinements": 0}
    return lambda: jax.tree.leaves(surrogate.fit_readout(network, train, **options))


def identify() -> Callable[[], Any]:
    """One parameter and the start from 100 noisy observations."""
    ts = jnp.linspace(0.0, 2.0, 100)
    truth = reference.solve(LORENZ, jnp.ones(3), jnp.linspace(0.0, 2.0, 100)).ys
    ys = truth + 0.5 * jax.random.normal(jax.random.key(0), (100, 3))
    guess = systems.Lorenz(rho=20.0)
    return lambda: pinn.identify(guess, ts, ys, free=("rho",)).values


CALLS = {call.__name__: call for call in (reference_solve, pinn_solve, fit_readout, identify)}


def main(name: str) -> dict[str, float]:
    """The seconds of the imports, or of the first and of the second call."""
    if name == "imports":
        return {
            "dependencies_seconds": between - start,
            "package_seconds": package - between,
            "seconds": rooms - between,
        }
    call = CALLS[name]()
    seconds, user_seconds = [], []
    for _ in range(2):
        begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        jax.block_until_ready([x for x in jax.tree.leaves(call()) if isinstance(x, jax.Array)])
        seconds.append(time.perf_counter() - begin)
        user_seconds.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime - used)
    first, second = seconds
    return {"seconds": first, "user_seconds": user_seconds[0], "again_seconds": second}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
