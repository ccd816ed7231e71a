"""What every script can be told, and how a script is run from the command line."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from physml.experiment._cache import use_compilation_cache
from physml.experiment._places import places


@dataclass(frozen=True)
class Config:
    """Options that every experiment has; each extends them by a folder and options of its own.

    Example:
        >>> import dataclasses, pathlib
        >>> @dataclasses.dataclass(frozen=True)
        ... class Options(experiment.Config):
        ...     out: pathlib.Path = pathlib.Path("results/lorenz")
        ...     starts: int = 200
        >>> Options(seed=3).starts
        200
    """

    out: Path
    """Folder for the tables, metrics, figures and models."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """A quick look with less of everything; most of its time is compiling."""
    cache: bool = True
    """Keep compiled programs in JAX's cache on the disk, so that the next run starts sooner."""
    device: Literal["cpu", "gpu", "tpu"] | None = None
    """Where to run: by default the best that JAX finds."""
    processes: str | None = None
    """Run as one of several processes: HOST:PORT,COUNT,NUMBER, or "launcher" where one says it."""
    record: Path | None = None
    """File that gets the numbers too, such as docs/results/NAME.json, which the pages quote."""

    def __post_init__(self) -> None:
        if self.record is not None and self.quick:
            raise ValueError(f"record must be of a full run, got {self.record} with quick")


ConfigType = TypeVar("ConfigType", bound=Config)


def cli(main: Callable[[ConfigType], Any], config: type[ConfigType]) -> None:
    """Run `main` with a configuration read from the command line.

    `--help` shows the docstring of the module of `main`. The first line of the output says where
    the script runs and what its numbers are. After Ctrl-C the process exits with 130, the code that
    shells give to it.
    """
    options = tyro.cli(config, description=sys.modules[main.__module__].__doc__)
    try:
        options = dataclasses.replace(options, **places(options))
        if options.cache:
            use_compilation_cache()
        main(options)
    except KeyboardInterrupt:
        print("Interrupted: the results are not complete.", file=sys.stderr)
        raise SystemExit(130) from None
