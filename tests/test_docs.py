"""The pages of the documentation have all that is public, and what checks them notices faults."""

import importlib
import sys
import types
from pathlib import Path
from typing import TypeVar

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def extension(monkeypatch):
    """A module of docs/extensions, without Sphinx, which these tests do not need."""
    logger = types.SimpleNamespace(getLogger=lambda name: None)
    monkeypatch.setitem(sys.modules, "sphinx", types.ModuleType("sphinx"))
    monkeypatch.setitem(sys.modules, "sphinx.util", types.SimpleNamespace(logging=logger))
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    return importlib.import_module


def test_every_public_name_has_a_page(extension):
    pages = extension("api_pages").contents()
    paged = {id(getattr(room, name)) for room, names in pages.items() for name in names}
    loaded = [module for path, module in sys.modules.items() if path.startswith("physml.")]
    rooms = [module for module in loaded if "._" not in module.__name__]
    public = {
        f"{room.__name__}.{name}": value
        for room in rooms
        for name, value in vars(room).items()
        # What a room that is one module imports is not its own.
        if hasattr(room, "__path__") or getattr(value, "__module__", "") == room.__name__
        if not name.startswith("_") and not isinstance(value, types.ModuleType | TypeVar)
    }
    assert len(public) > 200
    assert not [name for name, value in public.items() if id(value) not in paged]


def test_a_name_stands_on_the_page_of_the_highest_room(extension):
    pages = {room.__name__: names for room, names in extension("api_pages").contents().items()}
    assert "solve" in pages["physml.pinn"] and "physml.pinn.ivp" not in pages
    assert {"Loss", "ACTIVATIONS"} <= {*pages["physml.fit"], *pages["physml.nn"]}
    assert pages["physml.fit.checkpoint"] == ["load", "save"]


@pytest.mark.parametrize(
    ("docstring", "written"),
    [
        ("the time $t_0$ of `y0`", "the time :math:`t_0` of `y0`"),
        ("the code `a $ b` and $c$", "the code `a $ b` and :math:`c`"),
        ("an error |u| of (*batch, dim)", r"an error \|u\| of (\*batch, dim)"),
        ("a network that *is* the solution", "a network that *is* the solution"),
        ("many `Fit`s", r"many `Fit`\ s"),
        ("where\n- one\n- two", "where\n\n- one\n- two"),
        ("    $$a +\n    b$$", "    .. math::\n\n       a +\n       b\n"),
        (
            "Example:\n    ```python\n    f(**x)\n    ```",
            "Example:\n    .. code-block:: python\n\n       f(**x)\n",
        ),
        (">>> f(*x) | 2\n$3$", ">>> f(*x) | 2\n$3$"),
    ],
)
def test_docstring_becomes_restructured_text(extension, docstring, written):
    assert extension("docstrings").to_rest(docstring) == written


def test_built_pages_are_checked(extension, tmp_path):
    problems = extension("html_check").problems
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="here"></p><a href="../a.html">back</a>')
    page = tmp_path / "a.html"
    page.write_text('<a href="sub/b.html#here">b</a><a href="https://example.org">far</a>')
    assert list(problems(tmp_path)) == []
    page.write_text(
        '<a href="sub/b.html#there"></a><a href="c.html"></a><a href="#no"></a>'
        '<img src="d.png"><script src="https://example.org/e.js"></script>'
    )
    found = "\n".join(problems(tmp_path))
    assert found.count("\n") == 4
    for fault in ("b.html#there", "c.html", "#no", "d.png", "https://example.org/e.js"):
        assert fault in found
