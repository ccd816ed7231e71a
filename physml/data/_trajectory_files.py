"""Trajectories in files: tables (CSV) and NumPy archives (npz)."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from physml._numerics import checks
from physml._numerics.calls import require_instance
from physml.data._arguments import checked_names, checked_path
from physml.data._tables import Table, columns_of, read_trajectories
from physml.data._text_tables import COMMENTS, read_table
from physml.data._trajectories import Trajectories, from_arrays
from physml.saving import replacing

_FORMAT = "physml.trajectories/1"


def to_csv(path: str | os.PathLike[str], trajectories: Trajectories, *, trajectory: str) -> None:
    """Write trajectories as a table that `from_csv` reads back to the last bit.

    The header holds the name `trajectory`, "t" for the times `ts`, and the names of the state's
    components; between them "t0" for the starts, unless all times count from 0. The trajectories,
    numbered from 0, follow one another. The file appears whole or not at all.

    >>> trajectories = data.from_arrays([0.0, 0.5], [[1.0], [2.0]], names=("x",))
    >>> data.to_csv("x.csv", trajectories, trajectory="run")
    >>> with open("x.csv") as file:
    ...     print(file.read())
    run,t,x
    0,0.0,1.0
    0,0.5,2.0

    Args:
        path: the file; what it held is replaced.
        trajectories: what is written, num * time rows of dim components.
        trajectory: the name of the column that says to which trajectory a row belongs.

    Raises:
        TypeError: arguments of another kind.
        ValueError: two columns would have one name, a name is empty or has line ends or blanks at
            its sides, or a state is not finite: none of this could be read back.
    """
    path = checked_path("path", path)
    require_instance(Trajectories, trajectories=trajectories)
    require_instance(str, trajectory=trajectory)
    checks.require_finite("trajectories.ys", trajectories.ys)
    columns = columns_of(trajectories, trajectory)
    for name in columns:
        if not name or not name.isprintable() or name != " ".join(name.split()):
            raise ValueError(
                f"names must be text on one line, without blanks at its sides, got {name!r}"
            )
    if trajectory.startswith(COMMENTS):
        raise ValueError(f"trajectory must not begin like a comment, got {trajectory!r}")
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def from_csv(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    trajectory: str | None = None,
    columns: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    dtype: DTypeLike | None = None,
) -> Trajectories:
    """Trajectories from a table with a header line, one state a row.

    What the file does not say by itself is refused, and the message names the argument that says
    it. These are recognised:

    - Encodings: a byte order mark of UTF-8, UTF-16 or UTF-32; without one UTF-8, and Windows-1252
      (Latin-1) where the bytes are no UTF-8. Any line ends.
    - Separators: the first of tab, semicolon, bar, comma and blanks that cuts the first two rows
      into equally many cells, two or more. A first line such as `sep=;` decides. Cells may be in
      double quotes.
    - Numbers: 1.5, 1.5e-3, 1.5D-3. The comma is the decimal sign where cells have commas and none
      has a point.
    - Lines that begin with # or % are comments, and blank lines are left out. Where no other line
      has names, the comment above the first row may, as `numpy.savetxt` writes them.
    - The time is the column `t` or `time`. A name may end in a unit, as in "t [s]", "t (s)" or
      "t / s". A first column without a name, or named index, that numbers the rows is left out. A
      column `t0` is the start of each trajectory, to which its times are relative.

    >>> with open("fields.csv", "w") as file:
    ...     _ = file.write("Time (d);prey;predators\\n0,0;1,5;2\\n0,5;1,75;2,25\\n")
    >>> trajectories = data.from_csv("fields.csv")
    >>> trajectories.names, trajectories.ys.tolist()
    (('prey', 'predators'), [[[1.5, 2.0], [1.75, 2.25]]])

    Args:
        path: the file.
        time: the name of the time's column.
        trajectory: the name of the column that says to which trajectory a row belongs (any text;
            the rows of one trajectory need not be adjacent). Without it the file is one trajectory.
        columns: the state's columns; all others by default.
        names: the names of all columns, for a file without a header line.
        delimiter: what separates the cells; " " stands for any blanks and tabs.
        decimal: the decimal sign, "." or ",".
        encoding: an encoding that Python knows.
        dtype: a floating dtype; JAX's default by default.

    Returns:
        Trajectories of shape (num, time, dim), in the order of their first rows. `system` is the
        name of the file.

    Raises:
        TypeError: arguments of another kind.
        ValueError: a missing column, or two with one name; a cell that is not a finite number (the
            message names its line and column); trajectories of different lengths or steps; times
            that do not increase uniformly; a file that is no table of text.
    """
    path = checked_path("path", path)
    for name, value in (("delimiter", delimiter), ("decimal", decimal), ("encoding", encoding)):
        if value is not None:
            require_instance(str, **{name: value})
    if decimal is not None:
        checks.require_one_of((".", ","), decimal=decimal)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one sign that may separate cells, got {delimiter!r}")
    names = None if names is None else checked_names("names", names)
    text = read_table(path, names=names, delimiter=delimiter, encoding=encoding)
    table = Table(
        str(path),
        text.place,
        text.header,
        column=lambda i: [row[i] for row in text.rows],
        numbers=lambda columns: text.numbers(columns, decimal),
    )
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return read_trajectories(
        table, time=time, trajectory=trajectory, columns=columns, system=path.name, dtype=dtype
    )


def save_npz(path: str | os.PathLike[str], trajectories: Trajectories) -> None:
    """Write trajectories with their names and system; the file appears whole or not at all.

    >>> data.save_npz("a.npz", data.from_arrays([0.0, 0.5], [[1.0], [2.0]], names=("x",)))
    >>> data.load_npz("a.npz").names
    ('x',)

    Raises:
        TypeError: arguments of another kind.
        ValueError: a state is not finite, which `load_npz` refuses.
    """
    path = checked_path("path", path)
    require_instance(Trajectories, trajectories=trajectories)
    checks.require_finite("trajectories.ys", trajectories.ys)
    metadata = {
        "format": _FORMAT,
        "names": trajectories.names,
        "system": trajectories.system,
        "dt": trajectories.dt,
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            ts=np.asarray(trajectories.ts),
            ys=np.asarray(trajectories.ys),
            t0s=np.asarray(trajectories.t0s),
            metadata=np.asarray(json.dumps(metadata)),
        )


def load_npz(path: str | os.PathLike[str], *, dtype: DTypeLike | None = None) -> Trajectories:
    """Read what `save_npz` wrote, with every check of `from_arrays`.

    Args:
        path: the file.
        dtype: a floating dtype; that of the file by default.

    Raises:
        TypeError: arguments of another kind.
        ValueError: the file was not written by `save_npz` (the message names the arrays found and
            those expected) or is damaged, or holds float64 while JAX's x64 mode is off and no
            `dtype` asks for rounding.
    """
    path = checked_path("path", path)
    with open(path, "rb") as file:
        arrays = _read_archive(path, file)
    wanted = ("ts", "ys", "t0s", "metadata")
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(
            f"{path} must be a file that save_npz wrote, with the arrays {', '.join(wanted)}, "
            f"got {', '.join(sorted(arrays)) or 'none'}, without {', '.join(missing)}: pass your "
            "own arrays to from_arrays"
        )
    try:
        metadata = json.loads(str(arrays["metadata"]))
        found, names, system = (metadata[key] for key in ("format", "names", "system"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must hold metadata that save_npz wrote, got {str(arrays['metadata'])[:80]!r}"
        ) from error
    if found != _FORMAT:
        raise ValueError(f"{path} must have format {_FORMAT!r}, got {found!r}")
    try:
        return from_arrays(
            arrays["ts"],
            arrays["ys"],
            t0s=arrays["t0s"],
            names=names,
            system=system,
            dtype=dtype,
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def _read_archive(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            return {"one array without a name": archive}
        return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive can raise nearly anything
        raise ValueError(f"{path} must be a file that save_npz wrote, got {error}") from error
