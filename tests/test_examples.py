"""Every example in a docstring or a page runs and shows what it says."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import physml

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if "```python" in page.read_text()
]


def docstrings():
    """Every docstring with examples, by the name of its object.

    They are read from the source: a decorated function hides its docstring from `DocTestFinder`.
    """
    for path in sorted(ROOT.glob("physml/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                if ">>>" in text:
                    yield f"{module}.{node.name}".removesuffix("."), text


EXAMPLES = dict(docstrings())
SLOW = {  # what compiles for more than two seconds
    "physml.pinn.inverse._discover.discover",
    "physml.pinn.inverse._identify.identify",
    "physml.pinn.space_time._pde.pde",
    "physml.pinn.training._train.train",
}


@pytest.fixture
def names():
    """What an example may use without defining it: JAX's usual names, the rooms, and a key."""
    rooms = [room.name for room in pkgutil.iter_modules(physml.__path__) if room.name[0] != "_"]
    return {
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "nnx": nnx,
        "optax": optax,
        "physml": physml,
        "key": jax.random.key(0),
    } | {room: importlib.import_module(f"physml.{room}") for room in rooms}


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXAMPLES]
)
def test_docstring(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], names, name, None, None)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, tmp_path):
    """A page's examples, in a row, run in a new process; text blocks are what they print."""
    code, printed = (
        "".join(re.findall(rf"```{kind}\n(.*?)```", page.read_text(), flags=re.S))
        for kind in ("python", "text")
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(printed, done.stdout, flags)
    assert same or not printed, f"{page.stem} printed\n{done.stdout}\nfor\n{printed}"
