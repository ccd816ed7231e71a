"""The scripts that need files, on small ones of the same formats and on the published ones."""

import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from physml import classify, data, nn
from physml.data.images import _sets as image_sets
from physml.experiment import Run

SCRIPTS = Path(__file__).parents[1] / "scripts"
REAL = os.environ.get("PHYSML_DATA", "")

pytestmark = pytest.mark.slow  # a minute's compiling


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def float32():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both sets, of a few images, in the place of the published files."""
    folder = tmp_path / "data"
    folder.mkdir()
    digits = data.digits()
    pixels = np.kron(np.asarray(digits.images)[..., 0], np.ones((3, 3), np.uint8)) * np.uint8(15)
    pixels = np.pad(pixels, [(0, 0), (2, 2), (2, 2)])  # 28 x 28
    labels = np.asarray(digits.labels, np.uint8)
    for prefix, part in (("train", slice(600, None)), ("t10k", slice(0, 600))):
        for kind, array in (("images-idx3", pixels[part]), ("labels-idx1", labels[part])):
            header = bytes((0, 0, 8, array.ndim)) + np.asarray(array.shape, ">i4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, (10, 3, 1))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = np.arange(300) % 10
        rows = colours[labels] + rng.integers(0, 56, (300, 3, 1024))
        if name == "test_batch":
            labels[::20] = 1  # instead of 0: mistakes to be shown
        batch = {b"data": rows.reshape(300, 3072).astype(np.uint8), b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    for name in ("MNIST", "CIFAR10"):
        known = dataclasses.replace(getattr(image_sets, name), sha256=sums)
        monkeypatch.setattr(image_sets, name, known)
    return folder


def check(out, metrics, keys, figures):
    assert json.loads((out / "metrics.json").read_text()).keys() == metrics.keys() >= keys
    assert all(math.isfinite(metrics[key]) for key in keys)
    assert {path.stem for path in (out / "figures").glob("*.png")} == figures
    assert not (out / "parts").exists()


def test_mnist(folder, tmp_path):
    mnist, out = script("mnist"), tmp_path / "run"
    metrics = mnist.main(mnist.Config(out, data=folder, quick=True, members=2))
    keys = {"test_acc", "images_per_s", "strong.test_acc_mean", "strong.test_acc_1"}
    check(out, metrics, keys | {"ensemble.test_acc"}, {"calibration", "confusion", "worst"})
    assert "seconds_to_99" in metrics
    assert {path.name for path in (out / "models").iterdir()} == {"plain", "strong_0", "strong_1"}
    # After one epoch of the 8 x 8 digits, far better than chance.
    assert metrics["test_acc"] > 0.5


def test_cifar10(folder, tmp_path):
    cifar10, out = script("cifar10"), tmp_path / "run"
    metrics = cifar10.main(cifar10.Config(out, data=folder, quick=True, better=True))
    names = ("confusion", "filters", "maps", "worst")
    figures = {f"{net}_{name}" for net in ("tutorial", "better") for name in names}
    keys = {"test_acc", "images_per_s", "better.test_acc", "better.images_per_s"}
    check(out, metrics, keys, {"accuracy", "images"} | figures)
    assert metrics["test_acc"] > 0.5  # the classes have a colour each


def test_cifar10_without_a_mistake(tmp_path):
    cifar10 = script("cifar10")
    pixels = np.random.default_rng(0).random((10, 32, 32, 3), np.float32)
    images = data.Images.from_arrays(pixels, np.arange(10))
    net = nn.CNN((32, 32, 3), nn.ARCHITECTURES["cifar-tutorial"], 10, rngs=nnx.Rngs(0))
    found = classify.evaluate(np.eye(10, dtype=np.float32), images)
    with Run(tmp_path / "run", cifar10.Config()) as run:
        cifar10.draw(run, "net", net, found, images, images)
    figures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert figures == {"net_confusion", "net_filters", "net_maps"}


def test_codes_of_mnist(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    config = script("autoencoder").Config(tmp_path / "run", quick=True, mnist=True, data=folder)
    with Run(config.out, config) as run:
        script("_digit_codes").compare_codes(run, jax.random.key(0), 4, config)
        metrics = run.metrics({})
    codes = {f"digits.{name}.{key}" for name in ("pca", "dense", "vae", "conv") for key in CODE}
    swept = {f"digits.{name}_{size}.rel_err" for name in ("pca", "dense") for size in (2, 4)}
    figures = {"reconstructions", "samples", "interpolation", "digits_latent_size"}
    check(config.out, metrics, codes | swept, figures)
    # One number of principal components more cannot make the error larger.
    assert metrics["digits.pca_4.rel_err"] < metrics["digits.pca_2.rel_err"] < 1
    assert metrics["digits.pca_4.rel_err"] == metrics["digits.pca.rel_err"]
    assert metrics["digits.dense_4.rel_err"] == metrics["digits.dense.rel_err"] < 1


CODE = ("rel_err", "flagged", "flagged_normal")


def test_generators_of_mnist(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    config = script("gan").Config(tmp_path / "run", quick=True, mnist=True, data=folder)
    with Run(config.out, config) as run:
        script("_digit_generators").compare_digits(run, jax.random.key(0), config)
        metrics = run.metrics({})
    keys = {f"digits.frechet_{name}" for name in ("gan", "vae", "conditional", "floor")}
    check(config.out, metrics, keys | {"digits.test.nearest", "digits.gan.recall"}, {"digits"})
    assert metrics["digits.frechet_floor"] < metrics["digits.frechet_gan"]


@pytest.mark.skipif(not (Path(REAL) / "mnist").is_dir(), reason="needs the files of MNIST")
def test_mnist_of_the_published_files(tmp_path):
    mnist = script("mnist")
    metrics = mnist.main(mnist.Config(tmp_path / "run", data=Path(REAL), epochs=1))
    assert metrics["test_acc"] > 0.97
