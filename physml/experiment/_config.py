"""What every script can be told, and how a script is run from the command line."""

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import jax
import tyro

from physml.experiment._cache import use_compilation_cache
from physml.experiment._command import program
from physml.experiment._complete import copy_metrics, is_complete
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
    """Run as one of several processes: HOST:PORT,COUNT,NUMBER, or "launcher" under Slurm or MPI."""
    resume: bool = False
    """Go on with what an interrupted run of the same options has left; end if it is complete."""
    debug: bool = False
    """Stop at the first NaN that a program gives, and name the operation and line that made it."""
    record: Path | None = None
    """File that gets the numbers too, such as those that the documentation quotes."""

    def __post_init__(self) -> None:
        for option in ("quick", "debug"):
            if self.record is not None and getattr(self, option):
                raise ValueError(f"record must be of a full run, got {self.record} with {option}")
        if self.debug and self.processes is not None:  # of which only some may meet a NaN
            raise ValueError(f"processes must be None with debug, got {self.processes!r}")


Options = TypeVar("Options")
ConfigType = TypeVar("ConfigType", bound=Config)


def read_options(options: type[Options], about: str | None = None) -> Options:
    """Options as the command line gives them: an instance of a dataclass.

    `--help` shows `about`, such as the docstring of a script, and then each option with its
    docstring. Where the command line is wrong, the message says so, and the process exits.
    """
    if about and {"-h", "--help"} & set(sys.argv[1:]):
        # tyro would join the lines of a paragraph, and not wrap them.
        width = shutil.get_terminal_size().columns
        paragraphs = about.strip().split("\n\n")
        print("\n\n".join(textwrap.fill(text, width) for text in paragraphs), end="\n\n")
    return tyro.cli(options, prog=program(), description="")


def cli(main: Callable[[ConfigType], object], config: type[ConfigType]) -> None:
    """Run `main` with a configuration read from the command line.

    `--help` shows the docstring of the module of `main`. The first line of the output says where
    the script runs and what its numbers are, the last one where its results are. After Ctrl-C the
    last one says what is kept and how to go on, and the process exits with 130, the code that
    shells give to it. With `--resume` a run that is complete is not made again.
    """
    options = read_options(config, sys.modules[main.__module__].__doc__)
    try:
        if options.resume and options.processes is None and is_complete(options):
            if options.record is not None:
                copy_metrics(options.out, options.record)
            print(f"{options.out} is complete already: without --resume the run begins anew.")
            return
        options = dataclasses.replace(options, **places(options))
        if options.cache:
            use_compilation_cache()
        if options.debug:
            jax.config.update("jax_debug_nans", True)
        main(options)
        print(f"The results are in {options.out}.")
    except KeyboardInterrupt as error:
        words = ["Interrupted: the results are not complete.", *getattr(error, "__notes__", ())]
        print("\n".join(words), file=sys.stderr)
        raise SystemExit(130) from None
