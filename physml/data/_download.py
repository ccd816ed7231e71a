"""Downloads by pooch: checked, whole or absent, and continued where an earlier one was cut."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock

from physml._numerics.progress import bar as progress_bar

_CHUNK = 1 << 14  # bytes; a download that is cut loses what it had of the last chunk
_TIMEOUT = 30.0  # seconds without a byte after which a mirror is given up


def fetch(urls: Sequence[str], path: Path, sha256: str, *, progress: bool = False) -> None:
    """Download one file from the first mirror that gives it.

    The bytes are collected in `<name>.part`. An attempt that is cut leaves that file, and the next
    attempt, at whatever mirror, asks for the rest. The file is renamed to `path` only when its
    checksum is right, so the file at `path` is whole; a part with a wrong checksum is deleted. When
    several processes want the same file, the first downloads it and the others wait.

    Args:
        urls: where the file can be had, in the order of asking.
        path: where the file is put; its folders are made.
        sha256: the checksum in hexadecimal digits.
        progress: show a progress bar.

    Raises:
        ConnectionError: no mirror gave the file; the message says for each mirror what was wrong.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):  # pooch itself does not lock
        if not path.exists():
            _fetch(urls, path, sha256, progress)


def _fetch(urls: Sequence[str], path: Path, sha256: str, progress: bool) -> None:
    import pooch  # only where something is downloaded
    from requests import RequestException

    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        while True:
            have = part.stat().st_size if part.exists() else 0
            try:
                _receive(url, part, have, progress)
            except RequestException as error:
                # 416 says that nothing comes after the part: the checksum decides.
                if not have or error.response is None or error.response.status_code != 416:
                    failures.append(f"{url}: {error}")
                    break
            found = pooch.file_hash(str(part))
            if found == sha256:
                os.replace(part, path)
                return
            part.unlink()
            if not have:  # else the old part may have been of another file: ask for all of it
                failures.append(f"{url}: sha256 must be {sha256}, got {found}")
                break
    if part.exists() and not part.stat().st_size:
        part.unlink()
    raise ConnectionError(f"could not download {path.name}\n  " + "\n  ".join(failures))


def _receive(url: str, part: Path, have: int, progress: bool) -> None:
    """Append what a server sends after the first `have` bytes."""
    import pooch

    headers = {"Accept-Encoding": "identity"}  # the file as it is stored, whose checksum is known
    if have:
        headers["Range"] = f"bytes={have}-"
    # A bar without a total counts as false, and pooch would ignore it; pooch sets the true total.
    bar = progress_bar(progress, desc=part.stem, total=1, unit="B", unit_scale=True)
    with open(part, "ab") as file, bar, ExitStack() as responses:
        download = pooch.HTTPDownloader(
            bar,
            chunk_size=_CHUNK,
            headers=headers,
            timeout=_TIMEOUT,
            # pooch does not close the response itself
            hooks={"response": lambda response, **_: responses.enter_context(response)},
        )
        download(url, file, None)
