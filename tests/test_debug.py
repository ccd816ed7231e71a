"""Where JAX looks for NaN, the operation that made one is named, and NaN with a meaning passes."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import fit, nn, pinn, reference, systems
from physml._numerics.compiled import compiled, watched

ROOT = Path(__file__).parents[1]
SYSTEM = systems.DrivenOscillator()
X = np.linspace(-1.0, 1.0, 16)[:, None]


@pytest.fixture(autouse=True)
def looking():
    with jax.debug_nans(True):
        yield


def falling(t, y):
    return -y * jnp.sqrt(0.5 - t)


def trained(system):
    network = nn.MLP(1, (4,), 2, activation="sin", rngs=nnx.Rngs(0))
    stages = ((optax.adam(1e-2), 3),)
    points = pinn.Even(8)
    return pinn.train(
        network, system, [1.0, 0.0], 1.0, stages=stages, points=points, throw=False
    ).losses


def fitted(target):
    loss = fit.mean_square(lambda model, batch, key: model(batch) - target(batch))
    network = nn.MLP(1, (4,), 1, rngs=nnx.Rngs(0))
    return fit.gradient(loss, network, X, optimizer=optax.adam(1e-2), steps=5).history["loss"]


@pytest.mark.filterwarnings("ignore:.*residual is small:UserWarning")
@pytest.mark.parametrize(
    "compute",
    [
        lambda: reference.solve(SYSTEM, jnp.ones(2), jnp.linspace(0.0, 0.5, 5)).ys,
        lambda: (
            reference.trajectories(
                systems.Lorenz(), jax.random.key(0), 4, np.linspace(0.0, 0.1, 11)
            ).ys
        ),
        lambda: fitted(jnp.square),
        pytest.param(lambda: trained(SYSTEM), marks=pytest.mark.slow),
        pytest.param(lambda: pinn.solve(SYSTEM, [1.0, 0.0], 0.2).ys, marks=pytest.mark.slow),
    ],
    ids=["reference", "trajectories", "fit", "train", "pinn"],
)
def test_healthy_work_passes(compute):
    assert np.isfinite(compute()).all()


@pytest.mark.parametrize(
    "compute",
    [
        lambda: reference.solve(falling, jnp.ones(2), jnp.linspace(0.0, 1.0, 5)),
        pytest.param(lambda: trained(falling), marks=pytest.mark.slow),
        pytest.param(lambda: pinn.solve(falling, [1.0, 0.5], 1.0), marks=pytest.mark.slow),
    ],
    ids=["reference", "train", "pinn"],
)
def test_the_line_of_a_right_hand_side_is_named(compute):
    line = inspect.getsourcelines(falling)[1] + 1
    with pytest.raises(FloatingPointError, match=rf'NaN made by sqrt, File ".*", line {line}, in'):
        compute()


def test_a_nan_of_a_loss_is_named():
    with pytest.raises(FloatingPointError, match="NaN made by log"):
        fitted(jnp.log)


@pytest.mark.slow
def test_gaps_in_data_are_no_mistake():
    ts = np.linspace(0.0, 1.5, 16)
    ys = (np.exp(-ts) + 1e-3 * np.cos(50 * ts))[:, None]
    ys[3] = np.nan
    system = systems.from_function(lambda t, y, args: -args["k"] * y, 1, args={"k": 0.8})
    assert pinn.identify(system, ts, ys, free=("k",)).values["k"] == pytest.approx(1.0, abs=0.01)


def loops(x, fill):
    """A loop within a loop, a branch, and NaN that has a meaning or is dropped."""

    def turn(y, t):
        dropped = jnp.where(y > 10.0, jnp.log(y - 10.0), 0.0)
        y = jax.lax.cond(t > 2, lambda y: y - 1.0, lambda y: y, y + dropped)
        y = jax.lax.while_loop(lambda y: jnp.any(y > 1.2), lambda y: 0.9 * y, y)
        return y, jnp.where(t > 1, fill, y)

    return jax.vmap(lambda x: jax.lax.scan(turn, x, jnp.arange(5)))(x)


def root(x):
    return jax.lax.map(jnp.sqrt, loops(x, 0.0)[0])


X2 = jnp.linspace(1.0, 3.0, 4)


def test_a_fill_passes_and_an_operation_within_loops_is_found():
    program, _ = compiled(loops, X2, jnp.nan)
    rows = np.asarray(program(X2, jnp.nan)[1])
    assert np.isnan(rows[:, 2:]).all() and np.isfinite(rows[:, :2]).all()
    np.testing.assert_array_equal(watched(jax.jit(loops))(X2, np.float64(np.nan))[1], rows)
    for call in (compiled(root, X2)[0], watched(jax.jit(root))):
        with pytest.raises(FloatingPointError, match="NaN made by sqrt"):
            call(X2)


def test_a_difference_of_infinities_is_named():
    with pytest.raises(FloatingPointError, match="NaN made by sub"):
        watched(jax.jit(lambda x: x - x))(jnp.full(3, jnp.inf))


def test_an_unset_flag_lets_all_pass():
    with jax.debug_nans(False):
        assert np.isnan(watched(jax.jit(jnp.log))(-jnp.ones(()))).all()


SCRIPT = """
from dataclasses import dataclass
from pathlib import Path
import jax.numpy as jnp
from physml import experiment, reference

def rate(t, y):
    return -y * jnp.sqrt(0.5 - t)

@dataclass(frozen=True)
class Config(experiment.Config):
    out: Path = Path("results")

def main(config):
    with experiment.Run(config.out, config) as run:
        solution = reference.solve(rate, [1.0], jnp.linspace(0.0, 1.0, 5))
        return run.metrics({"last": solution.ys[-1, 0]})

if __name__ == "__main__":
    experiment.cli(main, Config)
"""


def run(script, out):
    command = [sys.executable, str(script), "--quick", "--debug", "--out", str(out)]
    return subprocess.run(command, cwd=out.parent, env=os.environ, capture_output=True, text=True)


@pytest.mark.slow
def test_a_script_that_meets_nan_fails_and_names_the_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run(script, tmp_path / "out")
    assert done.returncode == 1
    assert f'NaN made by sqrt, File "{script}", line 8, in rate' in done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fourier", "pendulum"])
def test_a_healthy_script_runs(name, tmp_path):
    done = run(ROOT / "scripts" / f"{name}.py", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metrics.json").exists()
