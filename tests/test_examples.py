"""Every example in a docstring or a page runs and shows what it says."""

import ast
import doctest
import importlib
import json
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
SLOW = {  # what compiles for long
    "physml.bayes._posterior.posterior",
    "physml.bayes.gaussian_processes._classification.fit_gaussian_classifier",
    "physml.nn._autoencoder.ImageDecoder",
    "physml.pinn.boundary._branch.follow_branch",
    "physml.pinn.boundary._periodic.periodic_orbit",
    "physml.pinn.constraints._solve.solve_constrained",
    "physml.pinn.delays._solve.solve_delays",
    "physml.pinn.events._roots.find_roots",
    "physml.pinn.events._solve.solve_events",
    "physml.pinn.family._train.bundle",
    "physml.pinn.inverse._discover.discover",
    "physml.pinn.inverse._identify.identify",
    "physml.pinn.space_time._pde.pde",
    "physml.pinn.space_time.boxes._on_grid.on_grid",
    "physml.pinn.training._train.train",
    "physml.systems.states._higher_order.from_residual",
    "physml.systems.states._higher_order.higher_order",
    "physml.systems.states._higher_order.second_order",
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


RUN_PAGES = """
import contextlib, io, json, os, sys, traceback
import jax

said = {}
for name, code in json.load(sys.stdin).items():
    os.mkdir(name)
    jax.config.update("jax_enable_x64", False)  # as a new process has it
    with contextlib.chdir(name), contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
            said[name] = printed.getvalue(), None
        except BaseException:
            said[name] = printed.getvalue(), traceback.format_exc()
json.dump(said, sys.stdout)
"""


def blocks(page, kind):
    return "".join(re.findall(rf"```{kind}\n(.*?)```", page.read_text(), flags=re.S))


@pytest.mark.slow
@pytest.mark.usefixtures("started_quickly")
@pytest.mark.parametrize("pages", [PAGES[::2], PAGES[1::2]], ids=["one half", "the other"])
def test_pages(pages, tmp_path):
    """A page's examples run in a row, as a user's do; text blocks are what they print."""
    codes = {page.stem: blocks(page, "python") for page in pages}
    assert len(codes) == len(pages)
    # One process for all: it takes JAX longer to start than most pages to run.
    command = [sys.executable, "-c", RUN_PAGES]
    done = subprocess.run(
        command, cwd=tmp_path, input=json.dumps(codes), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said, flags = json.loads(done.stdout), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for page in pages:
        printed, error = said[page.stem]
        assert error is None, f"{page}\n{error}"
        expected = blocks(page, "text")
        same = doctest.OutputChecker().check_output(expected, printed, flags)
        assert same or not expected, f"{page} printed\n{printed}\nfor\n{expected}"
