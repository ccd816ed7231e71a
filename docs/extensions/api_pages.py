"""The pages of the API, one a room, made from what the rooms' `__init__` export.

A name stands on the page of the highest room that exports it: `pinn.solve`, not `pinn.ivp.solve`.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

from docstrings import to_rest
from sphinx.util import logging

import physml

_LOG = logging.getLogger(__name__)
_SHORT = 88  # characters: longer values of data are not shown


def rooms():
    """Every public module of the package, highest first."""
    names = [module.name for module in pkgutil.walk_packages(physml.__path__, "physml.")]
    public = [name for name in names if "._" not in name]
    return [
        importlib.import_module(name) for name in sorted(public, key=lambda n: (n.count("."), n))
    ]


def exported(room):
    """The public names of a room: what a package imports as itself, or what a module defines."""
    names = []
    for node in _tree(room).body:
        if hasattr(room, "__path__"):
            if isinstance(node, ast.ImportFrom):
                names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            assigned = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names += [name for name in assigned if _comment(room, name)]
    return [name for name in names if not name.startswith("_")]


def contents():
    """For each room that has a page the names on it."""
    seen, pages = set(), {}
    for room in rooms():
        names = []
        for name in exported(room):
            value = getattr(room, name)
            if not inspect.ismodule(value) and (name, id(value)) not in seen:
                seen.add((name, id(value)))
                names.append(name)
        if names:
            pages[room] = sorted(names, key=str.lower)
    return pages


def page(room, names):
    """The page of a room, in reStructuredText: what it is, a table of its names, each name."""
    title = room.__name__.removeprefix("physml.")
    rows = []
    for name in names:
        first = to_rest(documentation(room, name)).partition("\n\n")[0].replace("\n", " ")
        rows.append(f"   * - :py:obj:`{name} <{room.__name__}.{name}>`\n     - {first}")
    table = "\n".join([".. list-table::", "   :class: names", "   :widths: 30 70", "", *rows])
    head = [f"{title}\n{'=' * len(title)}", f".. py:module:: {room.__name__}"]
    entries = [_entry(room, name) for name in names]
    return "\n\n".join([*head, to_rest(inspect.getdoc(room) or ""), table, *entries]) + "\n"


def documentation(room, name):
    """The docstring of a public name, or what stands below the assignment of a value."""
    value = getattr(room, name)
    if _is_data(value):
        origin, name = _origin(room, name)
        return _comment(origin, name)
    return inspect.getdoc(value) or ""


def _entry(room, name):
    value, path = getattr(room, name), f"{room.__name__}.{name}"
    if inspect.isclass(value):
        entry = f".. autoclass:: {path}\n   :members:\n   :special-members: __call__, __getitem__\n"
        return "\n\n   ".join([entry, *_results(value)])
    if not _is_data(value):
        return f".. autofunction:: {path}"
    text = to_rest(documentation(room, name)).replace("\n", "\n   ")
    exported_as, (origin, name) = name, _origin(room, name)
    shown = ast.unparse(_assignment(origin, name).value)
    option = f"   :value: {shown}\n" if len(shown) <= _SHORT else ""
    return f".. py:data:: {exported_as}\n{option}\n   {text}"


def _results(value):
    """The members of an enumeration of results, each with its message."""
    for name, item in getattr(value, "_name_to_item", {}).items():
        message = to_rest(" ".join(value[item].split()))
        yield f".. py:attribute:: {name}\n\n      {message}"


def _is_data(value):
    return not (
        inspect.isclass(value) or hasattr(value, "__wrapped__") or inspect.isfunction(value)
    )


def _origin(room, name):
    """The module that defines what a room exports, and its name there."""
    for node in _tree(room).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _origin(importlib.import_module(node.module), alias.name)
    return room, name


def _assignment(module, name):
    for node in _tree(module).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == name:
                return node
    raise LookupError(f"{module.__name__} does not assign {name}")


def _comment(module, name):
    """The docstring below an assignment; empty if there is none."""
    body = _tree(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if node is _assignment(module, name) and isinstance(after, ast.Expr):
            return inspect.cleandoc(ast.literal_eval(after.value))
    return ""


def _tree(module, _parsed={}):  # noqa: B006 -- kept between calls
    path = inspect.getsourcefile(module)
    return _parsed.setdefault(path, ast.parse(Path(path).read_text()))


def _write(app):
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {f"{room.__name__}.rst": page(room, names) for room, names in contents().items()}
    for path in set(folder.glob("physml*.rst")) - {folder / name for name in pages}:
        path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # so that a second build has less to do
            path.write_text(text)


def _check(app, env):
    """Every public name is described somewhere."""
    described = env.get_domain("py").objects
    for room in rooms():
        for name in exported(room):
            value = getattr(room, name)
            if inspect.ismodule(value):
                continue
            places = {
                f"{other.__name__}.{name}" for other in rooms() if vars(other).get(name) is value
            }
            if not described.keys() & places:
                _LOG.warning("%s.%s has no description in the pages", room.__name__, name)
            if not documentation(room, name):
                _LOG.warning("%s.%s has no docstring", room.__name__, name)


def setup(app):
    app.connect("builder-inited", _write)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
