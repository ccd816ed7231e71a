"""The command line: `python -m physml` lists the experiments, runs them, and begins new ones.

It loads nothing but Python's own library before an experiment runs.
"""

import ast
import difflib
import importlib.metadata
import importlib.util
import keyword
import re
import runpy
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parent
# A wheel has the scripts in the package, a checkout beside it.
_PLACES = (_PACKAGE / "_scripts", _PACKAGE.parent / "scripts")
_TEMPLATE = "pendulum"

_USAGE = """\
python -m physml NAME              run an experiment; results/NAME gets its tables and figures
python -m physml NAME --quick      a quick look with less of everything
python -m physml NAME --help       what it does, and its options
python -m physml new NAME          write NAME.py, a script to put your own equation in
python -m physml --version

Most experiments take up to three minutes on two cores, and less once JAX has compiled them;
architecture_study, cifar10 and other_systems take longer. Begin with fourier or lorenz.
"""
_NEW = """\
{path} is written: a pendulum with friction, from its equation to a forecast. Next:

    python {path} --quick      a quick look
    python {path}              tables, figures and metrics in results/{name}
    python {path} --help       its options

Then put your own equation in the pendulum's place. The comments say where.\
"""


def main(words: Sequence[str]) -> None:
    """Do what the words of the command line say.

    Raises:
        SystemExit: with code 2 where the words mean nothing, after a message that says so.
    """
    scripts = _scripts()
    match words:
        case [] | ["-h" | "--help"]:
            print(_USAGE + "\n" + _listed(scripts))
        case ["--version"]:
            print(importlib.metadata.version("physml"))
        case ["new", "-h" | "--help"]:
            print(_USAGE)
        case ["new", name]:
            _begin(name, scripts[_TEMPLATE])
        case ["new", *names]:
            _refuse(f"new must be followed by one NAME, got {len(names)}")
        case [name, *options] if name in scripts:
            _run(scripts[name], options)
        case [name, *_]:
            near = difflib.get_close_matches(name, [*scripts, "new"])
            meant = f"; did you mean {near[0]}?" if near else ""
            _refuse(f"NAME must be one of those that `python -m physml` lists, got {name!r}{meant}")


def _scripts() -> dict[str, Path]:
    """Each experiment's file by its name. An underscore marks what an experiment is made of."""
    return {path.stem: path for place in _PLACES for path in sorted(place.glob("[!_]*.py"))}


def _listed(scripts: dict[str, Path]) -> str:
    """A line for each experiment: its name, and the first line of its docstring."""
    docstrings = {
        name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for name, path in scripts.items()
    }
    indent = max(map(len, scripts)) + 2
    layout = {"width": shutil.get_terminal_size().columns - 1, "subsequent_indent": " " * indent}
    lines = (name.ljust(indent) + doc.split("\n")[0] for name, doc in docstrings.items())
    return "\n".join(textwrap.fill(line, **layout) for line in lines)


def _run(script: Path, options: Sequence[str]) -> None:
    """Run a script as Python does."""
    sys.argv[1:] = options
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except KeyboardInterrupt:  # while it loads; later it says itself what is kept
        print("Interrupted before it began.", file=sys.stderr)
        raise SystemExit(130) from None


def _begin(name: str, template: Path) -> None:
    """Write a copy of the template to the working folder, and say what to do next."""
    name = name.removesuffix(".py")
    path = Path(f"{name}.py")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or keyword.iskeyword(name):
        _refuse(f"NAME must be letters, digits and '_', and begin with a letter, got {name!r}")
    if path.exists():
        _refuse(f"NAME must be that of no file here, got {name!r}: {path} exists and is kept")
    if importlib.util.find_spec(name) is not None:
        # Scripts beside it would import it in place of the module.
        _refuse(f"NAME must be that of no module of Python or of a package, got {name!r}")
    text = template.read_text(encoding="utf-8").replace(f"results/{_TEMPLATE}", f"results/{name}")
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    print(_NEW.format(path=path, name=name))


def _refuse(words: str) -> None:
    print(f"physml: {words}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
