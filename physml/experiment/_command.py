"""The command line that repeats a run."""

import dataclasses
import itertools
import shlex
import sys
from pathlib import Path

from physml._numerics.calls import Dataclass

PLACES = ("out", "record", "cache", "resume")
"""Options that say where files go and come from, which changes no figure."""


def program() -> str | None:
    """What to type to run the script that runs, without options; None in a notebook.

    An experiment that `python -m physml` has started is named so. Any other script is named from
    the working folder if it lies there, by its file's name otherwise.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is None:
        return None
    script, here = Path(main).resolve(), Path.cwd()
    if ("-m", "physml") in itertools.pairwise(sys.orig_argv):
        return f"python -m physml {script.stem}"
    name = script.relative_to(here).as_posix() if here in script.parents else script.name
    return shlex.join(["python", name])


def command(config: Dataclass) -> str | None:
    """What to type to repeat a run: the program, and the options that differ from their defaults.

    A folder of the user's own is written as DIR, because it is elsewhere for everybody else. A
    notebook has no command: None.
    """
    if (words := program()) is None:
        return None
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in PLACES and value != field.default:
            words += " " + shlex.join(_option(field.name.replace("_", "-"), value))
    return words


def _option(name: str, value: object) -> list[str]:
    match value:
        case bool():
            return [f"--{name}" if value else f"--no-{name}"]
        case Path():
            return [f"--{name}", "DIR"]
        case tuple() | list():
            return [f"--{name}", *map(str, value)]
        case _:
            return [f"--{name}", str(value)]
