"""Work divided among devices and processes is the work of one: to the bit, or sums to rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import refusals

from physml import dynamics, experiment, fit, nn, pinn, reference, systems
from physml.experiment._places import places

DEVICES = jax.devices()
LORENZ, TS = systems.Lorenz(), 0.01 * np.arange(131)  # one stretch and a part of the next
STARTS = jax.random.uniform(jax.random.key(0), (12, 3), minval=-15.0, maxval=15.0)
CHILD = Path(__file__).with_name("many_devices.py")


def start(child, *arguments):
    environment = os.environ | {"PYTHONPATH": str(CHILD.parents[1])}
    command = [sys.executable, str(child), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def said(process):
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return json.loads(text.splitlines()[-1])


@pytest.mark.slow
def test_eight_devices_and_two_processes_do_what_one_device_does():
    address = free_address()
    pair = [start(CHILD, 4, address, 2, number) for number in (0, 1)]
    first, second = map(said, pair)
    one, eight = (said(start(CHILD, number)) for number in (1, 8))
    assert (one["number"], eight["number"], first["number"]) == (1, 8, 8)
    assert first == second
    assert first["bits"] == eight["bits"]
    # What XLA makes of a vmapped map depends on how many members a device has.
    assert eight["bits"][0] == one["bits"][0]
    for name in ("numbers", "losses"):
        for found in (eight, first):
            for x, y in zip(found[name], one[name], strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-10)


@pytest.mark.slow
def test_eight_devices_share_points_starts_and_data_sets():
    found = said(start(CHILD.with_name("divided_work.py")))
    assert {name: rows for name, (_, rows) in found.items()} == {
        "trained": [4, 4],  # of 32 points, in both stages
        "bundled": [72, 2, 2],  # of 576 points; of 16 starts
        "identified": [2],  # of 16 data sets
    }
    assert max(difference for difference, _ in found.values()) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_where_one_of_two_processes_dies_the_other_ends_with_an_error(number):
    child = CHILD.with_name("dying_process.py")
    address = free_address()
    pair = [start(child, address, number) for number in (0, 1)]
    try:
        for process in pair:
            assert any(line.startswith("step") for line in process.stdout)
        pair[number].kill()
        left = pair[1 - number]
        left.communicate(timeout=90)  # thrice what the documentation says
        assert left.returncode not in (0, None)
    finally:
        for process in pair:
            process.kill()
            process.communicate()


@pytest.fixture
def one_core(monkeypatch):
    """Chunks as large as asked for: XLA rounds by their width, which else follows the cores."""
    monkeypatch.setattr("physml.reference._march.num_cores", lambda: 1)


@pytest.mark.parametrize("chunk", [3, 6])
def test_trajectories_on_two_devices(chunk, one_core):
    alone = reference.trajectories_from(LORENZ, STARTS, TS, chunk=chunk)
    divided = reference.trajectories_from(LORENZ, STARTS, TS, chunk=chunk, devices=DEVICES)
    shards = {shard.device: shard.data.shape for shard in divided.ys.addressable_shards}
    assert shards == dict.fromkeys(DEVICES, (6, 131, 3))
    np.testing.assert_array_equal(divided.ys, alone.ys)
    odd = reference.trajectories_from(LORENZ, STARTS[:11], TS, devices=DEVICES)
    np.testing.assert_allclose(odd.ys, alone.ys[:11], rtol=1e-9, atol=1e-9)


def test_an_accelerator_keeps_its_trajectories(monkeypatch, one_core):
    alone = reference.trajectories_from(LORENZ, STARTS, TS, chunk=5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    kept = reference.trajectories_from(LORENZ, STARTS, TS, chunk=5)
    assert kept.ys.shape == alone.ys.shape
    np.testing.assert_allclose(kept.ys, alone.ys, rtol=1e-9, atol=1e-9)


def test_a_failed_trajectory_of_several_devices_is_named():
    pole = systems.from_function(lambda t, y, args: y**2, 1)
    y0s = jnp.array([[0.1], [0.2], [0.1], [5.0]])
    with pytest.raises(RuntimeError, match=r"1 of 4 trajectories failed .* numbers \[3\]"):
        reference.trajectories_from(pole, y0s, TS, devices=DEVICES)


def test_each_device_has_its_own_jumps(one_core):
    driven = systems.DrivenOscillator(forcing=systems.SquareWave())
    options = {"t0s": np.linspace(0.0, 3.0, 12), "chunk": 6}
    alone, divided = (
        reference.trajectories_from(driven, STARTS[:, :2], TS, devices=devices, **options)
        for devices in (None, DEVICES)
    )
    np.testing.assert_array_equal(divided.ys, alone.ys)


def test_a_chunk_on_two_devices_is_reduced_there():
    ys = reference.trajectories_from(LORENZ, STARTS, TS, chunk=6, devices=DEVICES).ys
    bounds = ((-25.0, -30.0, 0.0), (25.0, 30.0, 52.0))
    divided, alone = (
        dynamics.pool_climate([chunk], 0.01, bounds=bounds) for chunk in (ys, np.asarray(ys))
    )
    np.testing.assert_array_equal(divided.joint, alone.joint)
    np.testing.assert_array_equal(divided.maxima, alone.maxima)
    np.testing.assert_allclose(divided.spectra, alone.spectra, rtol=1e-12)


@fit.mean_square
def line(model, x, key):
    return model[0] + model[1] * x - jnp.sin(x)


X = jnp.linspace(0.0, 1.0, 12)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_batch_on_two_devices(batch_size):
    options = {"optimizer": optax.adam(1e-1), "batch_size": batch_size, "key": jax.random.key(0)}
    options |= {"valid": X, "valid_every": 5}
    alone, divided = (
        fit.gradient(line, jnp.zeros(2), X, steps=12, devices=devices, **options)
        for devices in (None, DEVICES)
    )
    np.testing.assert_allclose(divided.history["loss"], alone.history["loss"], rtol=1e-12)
    np.testing.assert_allclose(divided.model, alone.model, rtol=1e-12)
    assert divided.model.devices() == {DEVICES[0]}
    part = fit.gradient(line, jnp.zeros(2), X, steps=7, devices=DEVICES, **options)
    whole = fit.gradient(
        line, jnp.zeros(2), X, steps=12, devices=DEVICES, state=part.state, **options
    )
    np.testing.assert_array_equal(whole.model, divided.model)


def test_data_in_a_file_on_two_devices(tmp_path):
    np.save(tmp_path / "x.npy", np.asarray(X))
    data = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"optimizer": optax.adam(1e-1), "batch_size": 4, "key": jax.random.key(0)}
    alone = fit.gradient(line, jnp.zeros(2), X, steps=12, **options)
    divided = fit.gradient(line, jnp.zeros(2), data, steps=12, devices=DEVICES, **options)
    np.testing.assert_allclose(divided.model, alone.model, rtol=1e-12)
    with pytest.raises(ValueError, match="devices"):
        fit.gradient(
            line, jnp.zeros(2), data, steps=1, devices=DEVICES, **options | {"batch_size": 3}
        )


def test_one_of_several_processes_keeps_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    options = {"key": jax.random.key(0), "checkpoint": tmp_path / "fit"}
    with pytest.raises(ValueError, match="checkpoint must be None in one of several processes"):
        fit.gradient(line, jnp.zeros(2), X, optimizer=optax.sgd(0.1), steps=1, **options)
    config = experiment.Config(out=tmp_path / "run")
    with experiment.Run(config.out, config) as run:
        assert run.checkpoint("fit") is None


@refusals(
    ({"batch_size": 3}, "batch_size must be a multiple of devices = 2, got 3"),
    ({"data": X[:5]}, "rows must be a multiple of devices = 2, got 5"),
    ({"devices": []}, "devices must name one or more"),
)
def test_divided_fits_refuse(changes):
    options = {"data": X, "devices": DEVICES, "key": jax.random.key(0)} | changes
    fit.gradient(line, jnp.zeros(2), optimizer=optax.sgd(0.1), steps=1, **options)


@refusals(
    ({"points": pinn.Even(9)}, "points.num must be a multiple of devices = 2, got 9"),
    ({"devices": ["cpu"]}, "devices must be devices of", TypeError),
    ({"devices": set(DEVICES)}, "devices", TypeError),
    ({"devices": DEVICES[0]}, "devices must be a sequence", TypeError),
    ({"devices": [DEVICES[0]] * 2}, "devices must name each device once, got .* more than once"),
)
def test_divided_training_refuses(changes):
    network = nn.MLP(1, (2,), 3, dtype=jnp.float64, rngs=nnx.Rngs(0))
    pinn.train(network, LORENZ, jnp.ones(3), 1.0, **{"devices": DEVICES} | changes)


@refusals(
    ({"units": 33}, "units must be a multiple of devices = 2, got 33"),
    ({"num_checks": 15}, "num_checks must be a multiple of devices = 2, got 15"),
)
def test_divided_bundles_refuse(changes):
    box = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    pinn.bundle(LORENZ, box, 1.0, key=jax.random.key(0), devices=DEVICES, **changes)


def test_a_script_says_where_it_runs(tmp_path, capsys):
    assert places(experiment.Config(tmp_path)) == {}
    assert capsys.readouterr().out.startswith("On 2 x cpu; numbers are float64 except")
    with pytest.raises(ValueError, match="device must be one that JAX finds, 'cpu', got 'tpu'"):
        places(experiment.Config(tmp_path, device="tpu"))
    with pytest.raises(ValueError, match="processes must be HOST:PORT,COUNT,NUMBER or launcher"):
        places(experiment.Config(tmp_path, processes="localhost:1234"))
