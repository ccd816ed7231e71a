"""Importing the library does nothing but import it, and the house keeps its rules."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import physml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "physml").rglob("*.py"))
ROOMS = sorted({file.parent for file in FILES if not file.parent.name.startswith("_")})
MODULES = [module.name for module in pkgutil.walk_packages(physml.__path__, "physml.")]
SHARED = {"_numerics", "_types"}  # private to the package, not to a room

HEAVY = {
    *("IPython", "PIL", "matplotlib", "numpy.polynomial", "orbax", "pooch", "requests"),
    *("scipy.integrate", "scipy.linalg", "scipy.signal", "scipy.special", "scipy.stats"),
    *("numpyro", "pandas", "sklearn", "tarfile", "threadpoolctl", "tinygp", "tqdm", "tyro"),
    "xarray",
}

# In a fresh interpreter: this one has set JAX's options and holds everything in memory already.
CODE = """
import pathlib, sys
import jax, flax.nnx, optax, diffrax

settings, loaded = dict(jax.config.values), set(sys.modules)
import physml
rooms = [name for name in sys.modules if name.startswith("physml.")]
assert not rooms, f"import physml loaded {rooms}"

root = pathlib.Path(physml.__path__[0])
files = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
names = [".".join(file.parts).removesuffix(".__init__") for file in files]
names = [name for name in names if not name.startswith(("physml.plots", "physml.experiment"))]
for name in names:
    __import__(name)
changed = {key for key, value in settings.items() if jax.config.values[key] != value}
assert not changed, f"the rooms changed jax.config: {changed}"
heavy = set(sys.argv[1:]) & (set(sys.modules) - loaded)
assert not heavy, f"the rooms loaded {heavy}"
assert len(names) > 10, names
"""


def test_import_is_free_of_side_effects(tmp_path):
    environment = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        # A backend that does not exist: choosing a device or making an array would fail.
        "JAX_PLATFORMS": "nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", CODE, *HEAVY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr
    assert list(tmp_path.iterdir()) == []


def imported(path):
    """The names of the package that a file imports, with their modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.startswith("physml."))


def owner(name):
    """The room whose private module or name this is; none where all of it is public."""
    parts = name.split(".")
    private = [at for at, part in enumerate(parts) if part.startswith("_")]
    return parts[: private[0]] if private and parts[private[0]] not in SHARED else []


def test_private_modules_stay_in_their_room():
    borrowed = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in imported(path)
        if owner(name) != list(path.relative_to(ROOT).parts[:-1])[: len(owner(name))]
    ]
    assert not borrowed


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_room_exports_what_it_imports(room):
    tree = ast.parse((room / "__init__.py").read_text())
    aliases = [a for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names]
    exported = {alias.asname for alias in aliases if alias.asname == alias.name}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported |= set(ast.literal_eval(node.value))
    assert exported == {alias.asname or alias.name for alias in aliases}
    public = {file.stem for file in room.glob("*.py") if not file.stem.startswith("_")}
    assert public <= exported


def test_every_room_is_an_attribute():
    rooms = [room.name for room in pkgutil.iter_modules(physml.__path__) if room.name[0] != "_"]
    assert dir(physml) == sorted([*rooms, "load", "save"])
    assert (physml.save, physml.load) == (physml.saving.save, physml.saving.load)
    assert [getattr(physml, room).__name__ for room in rooms] == [f"physml.{r}" for r in rooms]
    with pytest.raises(AttributeError, match="module 'physml' has no attribute 'rooms'"):
        _ = physml.rooms


def test_no_name_shadows_a_module():
    modules = {name: importlib.import_module(name) for name in MODULES} | {"physml": physml}
    shadowed = [
        name
        for name in MODULES
        if getattr(modules[name.rpartition(".")[0]], name.rpartition(".")[2]) is not modules[name]
    ]
    assert not shadowed


def test_rooms_and_modules_are_small():
    rooms = {path.parent: len(list(path.parent.glob("[!_]*/__init__.py"))) for path in FILES}
    for path in FILES:
        rooms[path.parent] += path.name != "__init__.py"
    del rooms[ROOT / "physml"]  # the house itself
    assert not {room: size for room, size in rooms.items() if size > 14}
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert not {path: length for path, length in lengths.items() if length > 400}


def test_nothing_private_lies_loose():
    loose = {path.name for path in (ROOT / "physml").glob("_*.py")}
    assert loose == {"__init__.py", "__main__.py", "_types.py"}


def test_house_page_names_files_that_exist():
    page = (ROOT / "docs" / "house.md").read_text()
    paths = re.findall(r"`((?:physml|scripts|tests|docs|benchmarks|notebooks)/[^`]*)`", page)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {project['version']}" in cited
    assert f"license: {project['license']}" in cited
