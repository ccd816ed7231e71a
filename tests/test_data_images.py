"""Images as data: files made here and the published ones, downloads from a server of our own, bad
input. The published files are read where PHYSML_DATA names the folder that has them."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from PIL import Image

from physml import data
from physml.data._download import fetch
from physml.data.images import _sets as image_sets
from physml.data.images._files import parse_cifar, parse_idx

REAL = os.environ.get("PHYSML_DATA", "")


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.asarray(array.shape, ">i4").tobytes() + array.tobytes()


def cifar_batch(data, labels, **more):
    """As Python 2 wrote it: protocol 2, strings of bytes."""
    return pickle.dumps({b"data": data, b"labels": labels, **more}, protocol=2)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


RNG = np.random.default_rng(0)
PIXELS = {
    part: RNG.integers(0, 256, (n, 4, 5), np.uint8) for part, n in (("train", 20), ("t10k", 10))
}
LABELS = {part: np.arange(len(x), dtype=np.uint8) % 10 for part, x in PIXELS.items()}
IDX_FILES = {
    f"{part}-{kind}-ubyte": idx(array)
    for kind, arrays in (("images-idx3", PIXELS), ("labels-idx1", LABELS))
    for part, array in arrays.items()
}
GZ_FILES = {name + ".gz": gzip.compress(content) for name, content in IDX_FILES.items()}

CIFAR_PIXELS = RNG.integers(0, 256, (6, 10, 32, 32, 3), np.uint8)
CIFAR_NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
CIFAR_FILES = {
    name: cifar_batch(x.transpose(0, 3, 1, 2).reshape(10, 3072), list(range(10)))
    for name, x in zip(CIFAR_NAMES, CIFAR_PIXELS, strict=True)
}


def archived(files, *links):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for link in links:
            tar.addfile(link)
    return stream.getvalue()


CIFAR_ARCHIVE = archived(CIFAR_FILES)
ONE_BATCH = {"data_batch_1": CIFAR_FILES["data_batch_1"]}
ARCHIVED = {image_sets.ARCHIVE: CIFAR_ARCHIVE}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def files_in(folder):
    """But for those by which processes wait for each other."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.fixture
def small(monkeypatch):
    """Sets of small files in the place of the published ones."""

    def publish(*mirrors):
        for name, files in (
            ("MNIST", {**IDX_FILES, **GZ_FILES}),
            ("FASHION_MNIST", GZ_FILES),
            ("CIFAR10", {**CIFAR_FILES, image_sets.ARCHIVE: CIFAR_ARCHIVE}),
        ):
            sums = {file: sha256(content) for file, content in files.items()}
            known = replace(getattr(image_sets, name), sha256=sums, mirrors=mirrors)
            monkeypatch.setattr(image_sets, name, known)

    publish("http://127.0.0.1:9/")  # nobody answers there
    return publish


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; cuts the connection after `cut` bytes; notes what it was asked for."""

    def __init__(self, files, cut=None, ranges=True):
        self.files, self.cut, self.ranges, self.asked = files, cut, ranges, []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, name = self.server, self.path[1:]
        server.asked.append((name, self.headers["Range"]))
        if name not in server.files:
            self.send_error(404)
            return
        content, start = server.files[name], 0
        if server.ranges and self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cut])


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(files, **options):
        server = Server(files, **options)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# What the loaders read


def test_mirrors_are_encrypted():
    sets = [x for x in vars(image_sets).values() if isinstance(x, image_sets.Published)]
    mirrors = [mirror for published in sets for mirror in published.mirrors]
    assert len(sets) == 3 and all(mirror.startswith("https://") for mirror in mirrors)


@pytest.mark.parametrize("files", [IDX_FILES, GZ_FILES], ids=["idx", "gz"])
@pytest.mark.parametrize("sub", ["", "mnist"])
def test_mnist_files_are_read(tmp_path, small, files, sub):
    write(tmp_path / sub, files)
    for images, part in zip(data.mnist(tmp_path), ("train", "t10k"), strict=True):
        np.testing.assert_array_equal(images.images[..., 0], PIXELS[part])
        np.testing.assert_array_equal(images.labels, LABELS[part])
        assert images.names == tuple("0123456789") and images.white == 255
        assert images.images.dtype == jnp.uint8 and images.labels.dtype == jnp.int32


def test_fashion_mnist_is_not_taken_for_what_it_may_not_be(tmp_path, small):
    (tmp_path / "mnist").mkdir()  # what is not its own folder does not count
    train, test = data.fashion_mnist(write(tmp_path, GZ_FILES))
    assert train.names[9] == "ankle boot" and train.source == "fashion-mnist"
    np.testing.assert_array_equal(test.images[..., 0], PIXELS["t10k"])
    with pytest.raises(FileNotFoundError, match=r"has no train-images-idx3-ubyte\.gz, "):
        data.fashion_mnist(write(tmp_path / "unpacked", IDX_FILES))  # could be MNIST's


@pytest.mark.parametrize("files", [CIFAR_FILES, ARCHIVED], ids=["folder", "archive"])
def test_cifar_files_are_read(tmp_path, small, files):
    train, test = data.cifar10(write(tmp_path, files))
    np.testing.assert_array_equal(train.images, CIFAR_PIXELS[:5].reshape(50, 32, 32, 3))
    np.testing.assert_array_equal(test.images, CIFAR_PIXELS[5])
    np.testing.assert_array_equal(train.labels, np.tile(np.arange(10), 5))
    assert test.names[0] == "airplane" and test.names[9] == "truck"


@pytest.mark.parametrize("sub", [{}, ONE_BATCH], ids=["empty", "partial"])
def test_an_incomplete_folder_hides_nothing_beside_it(tmp_path, small, sub):
    write(tmp_path / "cifar-10-batches-py", sub)
    assert len(data.cifar10(write(tmp_path, ARCHIVED))[0]) == 50
    write(tmp_path / "mnist", dict(list(GZ_FILES.items())[: len(sub)]))
    assert len(data.mnist(write(tmp_path, GZ_FILES))[1]) == 10


def test_an_incomplete_cache_is_made_good(tmp_path, small, serve, monkeypatch):
    monkeypatch.setenv("PHYSML_DATA", str(tmp_path))
    write(tmp_path / "cifar-10-batches-py", ONE_BATCH)
    small(serve(ARCHIVED).url())
    assert len(data.cifar10()[0]) == 50


def test_digits_are_those_of_the_lecture():
    digits = data.digits()
    assert digits.images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(digits.labels[:12], [*range(10), 0, 1])
    # The first row of pixels of the first image, as scikit-learn's documentation prints it.
    np.testing.assert_array_equal(digits.images[0, 0, :, 0], [0, 0, 5, 13, 9, 1, 0, 0])
    scaled = digits.scaled(jnp.float32)
    assert scaled.images.dtype == jnp.float32 and scaled.images.max() == 1.0
    assert digits.scaled().images[0, 0, 3, 0] == 13 / 16


@pytest.mark.slow
@pytest.mark.skipif(not (Path(REAL) / "mnist").is_dir(), reason="needs the files of MNIST")
def test_real_mnist():
    train, test = data.mnist(REAL)
    assert (len(train), len(test)) == (60_000, 10_000)
    np.testing.assert_array_equal(
        np.bincount(train.labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    )
    # The mean and deviation that everyone standardises by.
    pixels = np.asarray(train.images) / 255
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0.1307, 0.3081], atol=5e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(REAL) / "cifar-10-batches-py").is_dir(), reason="needs the files of CIFAR-10"
)
def test_real_cifar10():
    train, test = data.cifar10(REAL)
    np.testing.assert_array_equal(np.bincount(train.labels), 5000)
    np.testing.assert_array_equal(np.bincount(test.labels), 1000)
    means = [np.asarray(train.images[..., c]).mean() / 255 for c in range(3)]
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)
    first = [train.names[i] for i in train.labels[:5]]
    assert first == "frog truck truck deer automobile".split()


# Files that are not what they should be


@refusals(
    (
        idx(PIXELS["t10k"])[:-1],
        r"f is cut or corrupt: it must have 200 bytes for shape \(10, 4, 5\), got 199",
    ),
    (idx(PIXELS["t10k"]) + b"\0", "f is cut or corrupt"),
    (gzip.compress(idx(PIXELS["t10k"]))[:-9], "f is cut or corrupt"),
    (gzip.compress(b"\0" * 999)[:-6] + b"\1" * 6, "f is cut or corrupt"),
    (idx(LABELS["t10k"]), "f must be an idx file of bytes in 3 dimensions"),
    (b"<html>not found</html>", "f must be an idx file"),
    (b"", "f must be an idx file"),
    (bytes((0, 0, 8, 3, 0)), "f must be an idx file"),
)
def test_idx_refuses(content):
    parse_idx(content, "f", 3)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_batch_can_run_nothing(tmp_path):
    trap = tmp_path / "trap"
    content = cifar_batch(np.zeros((2, 3072), np.uint8), [0, 1], more=Evil(str(trap)))
    with pytest.raises(ValueError, match=r"f is cut, .* it asks for \w+\.open, which no batch"):
        parse_cifar(content, "f")
    assert not trap.exists()
    pickle.loads(content, encoding="bytes")["more"].close()
    assert trap.exists(), "the trap works"


GOOD = np.zeros((2, 3072), np.uint8)


@refusals(
    (CIFAR_FILES["test_batch"][:-100], "f is cut, corrupt"),
    (b"", "f is cut, corrupt"),
    (pickle.dumps([1, 2], 2), "a dict with data and labels"),
    (cifar_batch(GOOD[:, :-1], [0, 1]), r"data of \(n, 3072\) bytes, got \(2, 3071\)"),
    (cifar_batch(GOOD.astype(float), [0, 1]), "data must be rows of bytes"),
    (cifar_batch([0, 1], [0, 1]), r"data of \(n, 3072\) bytes, got list"),
    (cifar_batch(GOOD, ["a", "b"]), "labels in a list of integers"),
)
def test_cifar_refuses(content):
    parse_cifar(content, "f")


@pytest.mark.parametrize("change", ["cut", "flipped", "another"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"])
def test_a_file_with_another_checksum_is_named(tmp_path, small, change, name):
    files = GZ_FILES if name.endswith(".gz") else IDX_FILES
    content = files[name]
    wrong = {
        "cut": content[:-5],
        "flipped": content[:-1] + bytes((content[-1] ^ 1,)),
        "another": next(c for n, c in files.items() if n != name),
    }[change]
    write(tmp_path, files | {name: wrong})
    message = (
        f"{name} must be the file of mnist with sha256 .*, got .*corrupt or another.*Remove it"
    )
    with pytest.raises(ValueError, match=message):
        data.mnist(tmp_path)


def test_damaged_cifar_files_are_named(tmp_path, small):
    bad = CIFAR_FILES["data_batch_3"][:-1]
    with pytest.raises(ValueError, match="data_batch_3 must be the file of cifar-10"):
        data.cifar10(write(tmp_path / "folder", CIFAR_FILES | {"data_batch_3": bad}))
    link = tarfile.TarInfo("data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "data_batch_1"
    for name, content, message in (
        ("link", archived({}, link), "has no data_batch_1, "),
        ("inside", archived(CIFAR_FILES | {"data_batch_3": bad}), "data_batch_3 must be the file"),
        ("cut", CIFAR_ARCHIVE[:-2000], "tar.gz is cut or corrupt, remove it"),
        ("text", b"<html>", "tar.gz is cut or corrupt, remove it"),
        ("other", archived({"data_batch_1": b""}), "has no data_batch_2, .*test_batch"),
    ):
        with pytest.raises(ValueError, match=message):
            data.cifar10(write(tmp_path / name, {image_sets.ARCHIVE: content}))
    (tmp_path / "folder" / "data_batch_4").unlink()
    write(tmp_path / "folder", {"data_batch_3": CIFAR_FILES["data_batch_3"]})
    with pytest.raises(FileNotFoundError, match=r"has no data_batch_4, and .*: put cifar.*tar\.gz"):
        data.cifar10(tmp_path / "folder")
    write(tmp_path / "folder", ARCHIVED)
    assert len(data.cifar10(tmp_path / "folder")[0]) == 50


def test_a_folder_that_is_not_the_set_says_what_to_put_there(tmp_path, small):
    message = (
        r"has no train-images-idx3-ubyte\.gz or train-images-idx3-ubyte, .*, which mnist needs: "
        r"put train-images-idx3-ubyte\.gz, .*t10k-labels-idx1-ubyte\.gz, from http"
        f".*, into {re.escape(str(tmp_path))}, or pass no folder"
    )
    with pytest.raises(FileNotFoundError, match=message):
        data.mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no data_batch_1, .*no cifar-10-.*\.tar"):
        data.cifar10(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").mkdir()  # a folder is no file
    with pytest.raises(FileNotFoundError, match=message):
        data.mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder must be a folder with fashion-mnist, got"):
        data.fashion_mnist(tmp_path / "nowhere")


# Downloads


def test_sets_are_downloaded_once(tmp_path, small, serve, monkeypatch, capfd):
    monkeypatch.setenv("PHYSML_DATA", str(tmp_path))
    server = serve(GZ_FILES | ARCHIVED)
    small(server.url())
    for _ in range(2):
        train, test = data.mnist()
        np.testing.assert_array_equal(train.images[..., 0], PIXELS["train"])
        assert len(test) == 10
        assert len(data.cifar10()[0]) == 50
    assert sorted(name for name, _ in server.asked) == sorted([*GZ_FILES, image_sets.ARCHIVE])
    assert {*files_in(tmp_path)} == {*GZ_FILES, image_sets.ARCHIVE}
    assert capfd.readouterr() == ("", "")


def test_the_cache_is_in_the_home_folder(tmp_path, small, serve, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # the bar is for whom it may reach
    monkeypatch.delenv("PHYSML_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    small(serve(GZ_FILES).url())
    data.mnist(progress=True)
    assert (tmp_path / ".cache/physml/mnist/train-images-idx3-ubyte.gz").is_file()
    assert "train-images-idx3-ubyte.gz: 100%" in capsys.readouterr().err


def test_without_a_network_it_says_what_to_put_where(tmp_path, small, monkeypatch):
    monkeypatch.setenv("PHYSML_DATA", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    message = (
        r"(?s)could not download train-images-idx3-ubyte.gz\n  http://127.0.0.1:9/train-.*refused.*"
        r"Without a network, put train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz, from "
        f".*, into {tmp_path}/mnist"
    )
    with pytest.raises(ConnectionError, match=message):
        data.mnist()
    assert files_in(tmp_path) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("PHYSML_DATA", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write to .*file/mnist, .*\$PHYSML_DATA names"):
        data.mnist()


CONTENT = RNG.bytes(50_000)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole files only"])
def test_a_cut_download_goes_on_and_is_never_trusted(tmp_path, serve, ranges):
    server = serve({"f.gz": CONTENT}, cut=20_000, ranges=ranges)
    path = tmp_path / "cache" / "f.gz"
    with pytest.raises(ConnectionError, match="20000 bytes read, 30000 more expected"):
        fetch([server.url() + "f.gz"], path, sha256(CONTENT))
    assert not path.exists()
    server.cut = None
    fetch([server.url() + "f.gz"], path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    afresh = [] if ranges else [("f.gz", None)]  # the whole file came behind the part of it
    assert server.asked == [("f.gz", None), ("f.gz", "bytes=16384-"), *afresh]
    assert files_in(path.parent) == ["f.gz"]


def test_a_full_disk_is_no_fault_of_the_network(tmp_path, serve):
    server = serve({"f": CONTENT})
    (tmp_path / "f.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        fetch([server.url() + "f"] * 2, tmp_path / "f", sha256(CONTENT))
    assert not isinstance(caught.value, ConnectionError) and len(server.asked) == 1


def test_one_of_many_processes_downloads(tmp_path, serve):
    server = serve({"f": CONTENT})
    get = functools.partial(fetch, [server.url() + "f"], tmp_path / "f", sha256(CONTENT))
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(get) for _ in range(8)]:
            future.result()
    assert (tmp_path / "f").read_bytes() == CONTENT and len(server.asked) == 1


@pytest.mark.parametrize("stale", [b"x" * 2000, CONTENT, b"x" * 50_000, b"x" * 90_000])
def test_a_part_of_another_file_does_no_harm(tmp_path, serve, stale):
    server = serve({"f": CONTENT})
    (tmp_path / "f.part").write_bytes(stale)
    fetch([server.url() + "f"], tmp_path / "f", sha256(CONTENT))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["f"]
    assert len(server.asked) == (1 if stale == CONTENT else 2)


def test_mirrors_are_asked_in_turn_and_a_wrong_file_is_thrown_away(tmp_path, serve):
    wrong, empty, right = serve({"f": b"<html>"}), serve({}), serve({"f": CONTENT})
    bad = [wrong.url() + "f", empty.url() + "f"]
    message = (
        f"(?s){bad[0]}: sha256 must be {sha256(CONTENT)}, got {sha256(b'<html>')}.*{bad[1]}: .*404"
    )
    with pytest.raises(ConnectionError, match=message):
        fetch(bad, tmp_path / "f", sha256(CONTENT))
    assert files_in(tmp_path) == []
    fetch([*bad, right.url() + "f"], tmp_path / "f", sha256(CONTENT))
    assert (tmp_path / "f").read_bytes() == CONTENT


# The record


def coded(counts):
    """Images whose one pixel counts them, in an order that mixes the classes."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    return data.Images.from_arrays(np.arange(len(labels), dtype=float)[:, None, None], labels)


def test_split_is_stratified_and_keyed():
    whole = coded([40, 20, 10])
    key = jax.random.key(0)
    parts = whole.split((0.7, 0.2, 0.1), key)
    counts = np.stack([np.bincount(part.labels) for part in parts])
    np.testing.assert_array_equal(counts, [[28, 14, 7], [8, 4, 2], [4, 2, 1]])
    rows = [np.asarray(part.images.ravel()).astype(int) for part in parts]
    assert sorted(np.concatenate(rows)) == list(range(70))
    assert all((np.diff(row) > 0).all() for row in rows), "in the order that they came in"
    for part, row in zip(parts, rows, strict=True):
        np.testing.assert_array_equal(part.labels, np.asarray(whole.labels)[row])
    np.testing.assert_array_equal(whole.split((0.7, 0.2, 0.1), key)[2].images, parts[2].images)
    other = whole.split((0.7, 0.2, 0.1), jax.random.key(1))[2]
    assert not np.array_equal(other.images, parts[2].images)


def test_images_are_selected_scaled_and_standardised():
    pixels = RNG.integers(0, 256, (30, 3, 4, 2), np.uint8)
    images = data.Images.from_arrays(pixels, np.arange(30) % 3, ("a", "b", "c"))
    some = images[np.array([4, 1])]
    np.testing.assert_array_equal(some.images, pixels[[4, 1]])
    assert some.labels.tolist() == [1, 1] and some.names == ("a", "b", "c")
    assert len(images[5:8]) == 3
    for wrong in (30, -31):
        with pytest.raises(
            IndexError, match=f"index must be from -30 to 29 for 30 images, got {wrong}"
        ):
            images[np.array([4, wrong])]
    few = jnp.array([4, 1])
    np.testing.assert_array_equal(images[few].images, some.images)
    inside = jax.jit(lambda images, traced: (images[few].images, images[traced].images))
    for chosen in inside(images, few):
        np.testing.assert_array_equal(chosen, some.images)
    halved = images.transformed(lambda x: x[:, ::2])
    np.testing.assert_allclose(halved.scaled().images, pixels[:, ::2] / 255, rtol=1e-15)
    scaled = images.scaled()
    np.testing.assert_allclose(scaled.images, pixels / 255, rtol=1e-15)
    assert scaled.white == 1
    standard = scaled.transformed(data.Standardiser.fit(scaled.images)).images
    np.testing.assert_allclose(standard.mean(axis=(0, 1, 2)), 0, atol=1e-13)
    np.testing.assert_allclose(standard.std(axis=(0, 1, 2)), 1, rtol=1e-13)


def test_images_are_a_pytree_of_two_arrays():
    images = coded([3, 3])
    assert len(jax.tree.leaves(images)) == 2
    doubled = jax.jit(lambda images: images.transformed(lambda x: 2 * x))(images)
    np.testing.assert_array_equal(doubled.images, 2 * images.images)


SQUARES, BIG = np.zeros((4, 5, 6), np.uint8), 2**32 + 1


def made(images, labels=(0, 1, 0, 1), names=None, **options):
    return data.Images.from_arrays(images, np.asarray(labels), names, **options)


@pytest.mark.usefixtures("as_a_user")
@refusals(
    (lambda: made(np.zeros((4, 30))), r"images must have shape .*\(4, 30\): reshape the"),
    (lambda: made(np.zeros((0, 5, 6)), []), "images must have shape .*not empty"),
    (lambda: made(np.zeros((4, 3, 8, 8))), r"channels last.*np\.moveaxis"),
    (lambda: made(np.zeros((4, 2, 8, 8))), r"channels last.*np\.moveaxis"),
    (lambda: made(np.full((4, 5, 6), np.nan)), "images must be finite"),
    (lambda: made(SQUARES.astype(int) - 1), "from 0 to 255, got -1 to -1"),
    (lambda: made(SQUARES, [0, 1, 0]), r"labels must have shape \(4,\).*got \(3,\)"),
    (lambda: made(SQUARES, np.eye(4, dtype=int)), r"labels must have shape .*argmax"),
    (lambda: made(SQUARES, np.zeros((4, 1), int)), r"labels must have shape .*labels\[:, 0\]"),
    (lambda: made(SQUARES, [0, 1, 0, -1]), "labels must .* from 0 to 3 .*got -1 at index 3"),
    (lambda: made(SQUARES, [0, 1, 0, BIG]), f"from 0 to 3 at most, got {BIG} at index 3"),
    (lambda: made([np.zeros((2, 2)), np.zeros((3, 3))], [0, 1]), "images must all have one shape"),
    (
        lambda: made(SQUARES, [0, 1, 2, 1], ("a", "b")),
        r"from 0 to 1 at most, got 2 at index 2 \(1 of 4",
    ),
    (
        lambda: made(SQUARES, [0, 1, 0, 3]),
        r"images of every class, got none of .*\[2\]: number the labels",
    ),
    (lambda: made(SQUARES, white=0.0), "white must be positive and finite"),
    (lambda: made(SQUARES, white=-1.0), "white must be positive and finite"),
    (lambda: made(SQUARES, white=np.nan), "white must be positive and finite"),
    (lambda: made(SQUARES, white=np.inf), "white must be positive and finite"),
    (lambda: made(SQUARES, np.zeros(4)), "labels must be integers, got dtype float64", TypeError),
    (lambda: made(SQUARES.astype(complex)), "images must hold real numbers", TypeError),
)
def test_arrays_refused(call):
    call()


@pytest.mark.usefixtures("as_a_user")
def test_names_may_be_an_array_and_test_images_lack_a_class():
    images = made(SQUARES, names=np.array(["a", "b"]))
    assert [type(name) for name in images.names] == [str, str]
    assert made(np.zeros((2, 4, 8, 3)), [0, 1]).images.shape == (2, 4, 8, 3)  # not channels first
    images = made(SQUARES, [0, 2, 0, 2], ("a", "b", "c"))
    assert images.names == ("a", "b", "c") and images.labels.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (), (0.9, 0.1)])
def test_split_refuses(fractions):
    message = r"fractions must (be positive|leave no .* '1', .* 3 images)"
    with pytest.raises(ValueError, match=message):
        coded([20, 3]).split(fractions, jax.random.key(0))


# A user's own folder


def save_images(folder, images, suffix=".png"):
    for name, arrays in images.items():
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            path = folder / name / f"{i}{suffix}"
            np.save(path, array) if suffix == ".npy" else Image.fromarray(array).save(path)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".npy", ".PPM"])
def test_a_folder_of_images_by_class(tmp_path, suffix):
    pixels = RNG.integers(0, 256, (5, 6, 7, 3), np.uint8)
    save_images(tmp_path, {"dog": pixels[2:], "cat": pixels[:2]}, suffix)
    (tmp_path / "cat" / "notes.txt").write_text("left alone")
    (tmp_path / "cat" / "._0.png").write_bytes(b"what a Mac notes beside a file")
    (tmp_path / ".git").mkdir()
    images = data.Images.from_folder(tmp_path)
    np.testing.assert_array_equal(images.images, pixels)
    assert images.labels.tolist() == [0, 0, 1, 1, 1] and images.names == ("cat", "dog")
    assert images.source == tmp_path.name


def test_a_folder_of_test_images_has_the_numbers_of_the_training_images(tmp_path):
    save_images(tmp_path, {"cat": [SQUARES[0]], "owl": [SQUARES[1], SQUARES[2]]})
    images = data.Images.from_folder(tmp_path, names=("cat", "dog", "owl"))
    assert images.labels.tolist() == [0, 2, 2] and images.names == ("cat", "dog", "owl")
    with pytest.raises(ValueError, match=r"no other classes than names, .*got a folder for owl"):
        data.Images.from_folder(tmp_path, names=("cat", "dog"))


def encoded(save, *args, **options):
    stream = io.BytesIO()
    save(stream, *args, **options)
    return stream.getvalue()


def picture(array, kind="PNG", **options):
    return encoded(Image.fromarray(array).save, kind, **options)


ARRAY, BITMAP = encoded(np.save, SQUARES), picture(SQUARES[0], "BMP")
HUGE = np.asarray([1 << 15, 1 << 15], "<i4").tobytes()  # in the place of width and height


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0.png", picture(SQUARES[0])[:-30], " is cut, corrupt or no image"),
        ("0.png", b"<html>", " is cut, corrupt or no image"),
        ("0.png", b"", " is cut, corrupt or no image"),
        ("0.ppm", b"P6\n5", " is cut, corrupt or no image"),
        ("0.bmp", BITMAP[:18] + HUGE + BITMAP[26:], " is cut, corrupt or no image"),
        ("0.png", picture(np.zeros((5, 6, 4), np.uint8)), " must be grey .* mode RGBA: convert"),
        ("0.gif", picture(SQUARES[0], "GIF", transparency=0), ".* with transparency: convert"),
        ("0.npy", encoded(np.save, np.asarray([{}], object)), " .* no array of numbers"),
        ("0.npy", ARRAY.replace(b"}", b" "), " is cut, corrupt or no array of numbers"),
        ("0.npy", encoded(np.savez, SQUARES), " must hold one array"),
        ("0.npy", encoded(np.save, np.zeros(3)), " must have shape"),
        ("0.npy", encoded(np.save, np.full((5, 6), np.nan)), ": images must be finite"),
        ("0.npy", encoded(np.save, np.full((5, 6), 256)), ": images of .* from 0 to 255, got 256"),
        ("0.npy", encoded(np.save, np.full((5, 6), "a")), ": images must hold real numbers"),
    ],
)
def test_files_refused(tmp_path, name, content, message):
    save_images(tmp_path, {"a": [SQUARES[0]]})
    write(tmp_path / "b", {name: content})
    with pytest.raises((TypeError, ValueError), match=f"b/{re.escape(name)}{message}"):
        data.Images.from_folder(tmp_path)


def test_arrays_of_other_sizes_are_named(tmp_path):
    save_images(tmp_path, {"a": [SQUARES[0], SQUARES[0, :4]]}, ".npy")
    message = r"1\.npy must be .*\(5, 6, 1\), got uint8\(4, 6, 1\): .*make them alike"
    with pytest.raises(ValueError, match=message):
        data.Images.from_folder(tmp_path, size=(5, 6))


def test_images_of_many_sizes_and_colours_are_read_alike(tmp_path):
    grey, colour = np.full((4, 6), 100, np.uint8), np.full((9, 5, 3), 100, np.uint8)
    save_images(tmp_path, {"a": [grey], "b": [colour]})
    message = r"0\.png must be as the first .*, got uint8\(9, 5, 3\): .*size="
    with pytest.raises(ValueError, match=message):
        data.Images.from_folder(tmp_path)
    for channels in (1, 3):
        images = data.Images.from_folder(tmp_path, size=(8, 7), channels=channels)
        assert images.images.shape == (2, 8, 7, channels)
        np.testing.assert_array_equal(images.images, 100)


def test_a_folder_of_arrays(tmp_path):
    pixels = RNG.random((4, 3, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", pixels)
    np.save(tmp_path / "labels.npy", [1, 0, 1, 0])
    images = data.Images.from_folder(tmp_path)
    np.testing.assert_array_equal(images.images[..., 0], pixels)
    assert images.images.dtype == jnp.float32 and images.names == ("0", "1")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("size", [8, (0, 8), (8, 7, 3), (2.5, 3.0), ("8", "7")])
def test_sizes_refused(tmp_path, size):
    message = r"size must be two positive integers, \(height, width\), got "
    with pytest.raises(ValueError, match=message + re.escape(str(size))):
        data.Images.from_folder(tmp_path, size=size)


def test_folders_refused(tmp_path):
    refused = functools.partial(data.Images.from_folder, tmp_path)
    with pytest.raises(ValueError, match="must have a folder of images for each class, or the"):
        refused()
    np.save(tmp_path / "images.npy", SQUARES)
    with pytest.raises(ValueError, match=r"got no folder and no labels\.npy"):
        refused()
    save_images(tmp_path, {"a": [SQUARES[0]], "b": []})
    with pytest.raises(ValueError, match="b must have images of its class"):
        refused()
    with pytest.raises(ValueError, match="channels must be 1, 3 or None, got 2"):
        refused(channels=2)
    with pytest.raises(FileNotFoundError, match="folder must be a folder with images"):
        data.Images.from_folder(tmp_path / "nowhere")
