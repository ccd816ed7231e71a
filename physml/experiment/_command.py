"""The command line that repeats a run."""

import dataclasses
import shlex
import sys
from pathlib import Path

from physml._numerics.calls import Dataclass

PLACES = ("out", "record", "cache", "resume")
"""Options that say where files go and come from, which changes no figure."""


def command(config: Dataclass) -> str | None:
    """What to type to repeat a run: the script, and the options that differ from their defaults.

    The script is named from the working folder if it lies there, by its file's name otherwise. A
    folder of the user's own is written as DIR, because it is elsewhere for everybody else. A
    notebook has no command: None.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is None:
        return None
    script, here = Path(main).resolve(), Path.cwd()
    name = script.relative_to(here).as_posix() if here in script.parents else script.name
    words = ["python", name]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in PLACES and value != field.default:
            words += _option(field.name.replace("_", "-"), value)
    return shlex.join(words)


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
