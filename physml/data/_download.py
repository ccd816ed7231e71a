"""Downloads that are verified, go on where they were cut and are never half there."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

CHUNK = 1 << 18  # bytes between two looks at the connection
TIMEOUT = 30.0  # seconds without a byte, after which a mirror is given up


def fetch(urls: Sequence[str], path: Path, sha256: str, *, progress: bool = False) -> None:
    """Download one file from the first mirror that gives it.

    Bytes are collected in `<name>.part`. An attempt that is cut leaves that file, and the next one,
    from whatever mirror, asks for the rest. Only when the checksum is right is the file renamed to
    `path`, so what stands there is whole; a part whose checksum is wrong is deleted. Of processes
    that want the same file at once the first downloads it, and the others wait.

    Args:
        urls: where the file can be had, in the order of asking.
        path: where it is to stand; folders are made.
        sha256: its checksum, in hexadecimal digits.
        progress: show a progress bar.

    Raises:
        ConnectionError: no mirror gave the file; it says for each what was wrong.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.exists():
            _fetch(urls, path, sha256, progress)


def digest(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(urls: Sequence[str], path: Path, sha256: str, progress: bool) -> None:
    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        try:
            resumed = part.exists()
            _receive(url, part, progress)
            if resumed and digest(part) != sha256:  # what was there may have been of another file
                part.unlink()
                _receive(url, part, progress)
        except ConnectionError as error:
            failures.append(f"{url}: {error}")
            continue
        found = digest(part)
        if found == sha256:
            os.replace(part, path)
            return
        part.unlink()
        failures.append(f"{url}: sent a file whose sha256 is {found}, expected {sha256}")
    raise ConnectionError(f"could not download {path.name}\n  " + "\n  ".join(failures))


def _receive(url: str, part: Path, progress: bool) -> None:
    """Add to `part` what it lacks, or write it anew where the server sends only whole files."""
    from tqdm import tqdm  # only where something is downloaded

    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except (OSError, HTTPException) as error:
        # Nothing comes after what there is: the checksum decides.
        if have and isinstance(error, HTTPError) and error.code == 416:
            return
        raise _failed(error) from error
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        length = response.headers["Content-Length"]
        total = None if length is None else have + int(length)
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(
                desc=part.stem,
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            for chunk in _chunks(response):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    if total is not None and have != total:  # a closed connection is no error to urllib
        raise ConnectionError(f"was cut after {have} of {total} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """What a server sends; only what goes wrong with that is a ConnectionError."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> ConnectionError:
    return ConnectionError(str(error) or type(error).__name__)
