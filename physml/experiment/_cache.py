"""What JAX compiled, kept for the next process."""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import jax

_MOST_BYTES = 1 << 30  # about fifty times what the main job compiles


def use_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep what JAX compiles in a folder, so that the next process need not compile it again.

    Scripts and notebooks call it before they compute anything. The results are the same with and
    without it. A cache that is already switched on, such as by the environment variable
    JAX_COMPILATION_CACHE_DIR, stays as it is.

    Several processes may share the folder. Once it holds more than a GiB, its oldest programs are
    removed. Delete the folder to start anew. JAX trusts what it finds in the folder, so only you
    should be able to write to it.

    Args:
        folder: made if it is missing; the user's own cache folder unless given.

    Returns:
        The folder in use, or None where it cannot be written.

    Warns:
        UserWarning: the folder cannot be written; then everything is compiled anew.
    """
    if (own := jax.config.values["jax_compilation_cache_dir"]) is not None:
        return Path(own)
    if folder is None:
        import pooch  # takes a moment, and few need it

        folder = pooch.os_cache("physml") / "jax"
    folder = Path(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
        _make_room(folder)
    except OSError as error:
        warnings.warn(f"what is compiled is not kept for the next run: {error}", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Many small programs take as long to compile as a large one. JAX would keep only those that
    # take a second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def compilation_cache_is_on() -> bool:
    """Whether JAX takes compiled programs from a folder."""
    settings = jax.config.values
    return bool(settings["jax_compilation_cache_dir"] and settings["jax_enable_compilation_cache"])


def _make_room(folder: Path) -> None:
    """If a folder holds too much, remove the oldest programs until half of the bytes are free.

    JAX's own bound, `jax_compilation_cache_max_size`, reads the whole folder for every program that
    it writes. In JAX 0.10 it then writes nothing more where a killed run left a program without the
    file that says when it was used.
    """
    with contextlib.suppress(FileNotFoundError):  # another process makes room
        found = [(path, path.stat()) for path in folder.iterdir()]
        total = sum(stat.st_size for _, stat in found)
        if total > _MOST_BYTES:
            for path, stat in sorted(found, key=lambda entry: entry[1].st_mtime):
                path.unlink()
                total -= stat.st_size
                if total <= _MOST_BYTES // 2:
                    break
