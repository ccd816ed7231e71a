"""What other programs get from here: functions that run without the package, numbers of a fit."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export

from physml import data, dynamics, fit, nn, reference, surrogate, systems

PAGES = Path(__file__).parents[1] / "docs" / "how_to"
LORENZ = systems.Lorenz()

# In a process that can import neither this package nor what it is made of.
ELSEWHERE = """
import sys
from pathlib import Path

for name in ("physml", "flax", "equinox", "diffrax", "jaxtyping", "optax"):
    sys.modules[name] = None

import jax
import numpy as np
from jax import export

jax.config.update("jax_enable_x64", True)
folder = Path(sys.argv[1])
forecast = export.deserialize((folder / "forecast.bin").read_bytes()).call
for name in ("one", "many"):
    np.save(folder / f"{name}_found.npy", forecast(np.load(folder / f"{name}.npy")))
"""


@pytest.mark.usefixtures("as_a_user")  # whose shapes may hold a batch without a number
@pytest.mark.parametrize(
    "memory", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["mlp", "rnn"]
)
def test_a_step_map_runs_without_this_package(memory, tmp_path):
    pytest.importorskip("flatbuffers")  # by which JAX writes the file
    ts = 0.01 * np.arange(201)
    train = reference.trajectories(LORENZ, jax.random.key(0), 10, ts)
    inputs, rngs = surrogate.network_inputs(train), nnx.Rngs(0)
    if memory:
        network = nn.RNN.frozen("simple", inputs, 20, 3, rngs=rngs)
    else:
        network = nn.MLP.frozen(inputs, 50, 3, scale=0.06, rngs=rngs)
    step_map = surrogate.fit_readout(network, train, symmetry=LORENZ.symmetry).step_map
    length = 7 if memory else 1

    @jax.jit
    def forecast(history):
        return dynamics.rollout(step_map, history, 50)

    shape = export.symbolic_shape(f"batch, {length}, 3")
    exported = export.export(forecast, platforms=("cpu", "cuda", "tpu"))(
        jax.ShapeDtypeStruct(shape, jnp.float64)
    )
    (tmp_path / "forecast.bin").write_bytes(exported.serialize())
    histories = {"one": train.ys[:1, :length], "many": train.ys[:, 3 : 3 + length]}
    for name, history in histories.items():
        np.save(tmp_path / f"{name}.npy", history)
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, history in histories.items():
        found = np.load(tmp_path / f"{name}_found.npy")
        assert found.shape == (len(history), 51, 3)
        np.testing.assert_allclose(found, forecast(history), atol=1e-9)
        assert np.abs(found[:, -1] - found[:, 0]).max() > 0.1, "it moves"


def recipes(page):
    """The blocks of a page that its own test does not run, because they need another package."""
    return re.findall(r"```py\n(.*?)```", (PAGES / page).read_text(), flags=re.S)


def events(folder):
    """What TensorBoard would draw: (tag, step, value) of each scalar in a folder's files."""
    from tensorboardX.proto import event_pb2

    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        while raw:  # a record is a length, its checksum, the event, its checksum
            length = struct.unpack("<Q", raw[:8])[0]
            event = event_pb2.Event.FromString(raw[12 : 12 + length])
            yield from ((x.tag, event.step, x.simple_value) for x in event.summary.value)
            raw = raw[16 + length :]


def test_the_recipe_for_tensorboard_logs_the_loss(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.chdir(tmp_path)
    [recipe] = [code for code in recipes("watch_a_fit.md") if "tensorboardX" in code]
    names = {
        "fit": fit,
        "misfit": lambda network, x, key: network(x) - jnp.sin(x),
        "network": nn.MLP(1, (4,), 1, dtype=jnp.float64, rngs=nnx.Rngs(0)),
        "x": jnp.linspace(-3.0, 3.0, 20)[:, None],
        "options": {"optimizer": optax.adam(1e-2), "steps": 30, "chunk": 10},
    }
    exec(compile(recipe, "recipe", "exec"), names)
    found = list(events(tmp_path / "logs"))
    own = []
    loss = fit.mean_square(names["misfit"])
    fit.gradient(loss, names["network"], names["x"], callback=own.append, **names["options"])
    expected = [("loss", report.step, report.metrics["loss"][-1]) for report in own]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-6)


def test_every_recipe_is_python():
    found = recipes("watch_a_fit.md")
    assert len(found) == 4
    for recipe in found:
        compile(recipe, "recipe", "exec")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("kind", [np.asarray, lambda x: np.asarray(x).tolist()], ids=["np", "list"])
def test_numpy_and_lists_go_in_and_numpy_takes_what_comes_out(kind):
    ts = kind(np.linspace(0.0, 0.1, 11))
    solution = reference.solve(LORENZ, kind(np.ones(3)), ts)
    assert np.asarray(solution.ys).shape == (11, 3)
    train = data.from_arrays(ts, kind(solution.ys))
    network = nn.MLP(3, (4,), 3, dtype=jnp.float64, rngs=nnx.Rngs(0))
    step_map = surrogate.fit_readout(network, train).step_map
    path = np.asarray(dynamics.rollout(step_map, kind(np.ones((1, 3))), 5))
    assert path.shape == (6, 3) and path.dtype == np.float64
