"""Code that names something public leads to its description.

`pinn.solve` in the prose of a page or a docstring becomes a link, so that pages are plain Markdown.
A name that a room does not have is a warning, outside of the changelog: it was renamed or misspelt.
"""

import functools
import re
import sys

from api_pages import rooms
from docutils import nodes
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"(?:physml\.)?([A-Za-z_][\w.]*)(\(.*\))?", flags=re.S)
# Rooms whose names are also what examples call their variables.
_VARIABLES = {"solution", "data", "results"}


def _link(app, doctree, docname):
    objects = app.env.get_domain("py").objects
    names = {room.__name__.split(".")[1] for room in rooms()} - _VARIABLES
    for node in list(doctree.findall(nodes.literal)):
        match = _NAME.fullmatch(node.astext())
        if match is None or _inside(node, nodes.reference, nodes.title, nodes.Text):
            continue
        target = _find(objects, match[1], docname)
        if target is None:
            if docname != "changelog" and "." in match[1] and match[1].split(".")[0] in names:
                _LOG.warning("physml has no %s", match[1], location=node)
            continue
        entry = objects[target]
        uri = app.builder.get_relative_uri(docname, entry.docname) + "#" + entry.node_id
        reference = nodes.reference("", "", internal=True, refuri=uri, reftitle=target)
        node.replace_self(reference)
        reference += node


def _inside(node, *kinds):
    while node := node.parent:
        if isinstance(node, kinds):
            return True
    return False


def _find(objects, name, docname):
    """The full name of something public; a class may be named without its room.

    So may what has two words in its name, on the page of its room: one word is often an argument.
    """
    first, *rest = name.split(".")
    full = f"physml.{name}" if rest else ""
    if "_" in first and docname.startswith("api/"):
        full = f"{docname.removeprefix('api/')}.{name}"
    elif first[0].isupper():
        found = [full for full in objects if full.endswith(f".{first}") and "._" not in full]
        full = ".".join(found + rest) if len(found) == 1 == _meanings(first) else ""
    for candidate in (full, full.rpartition(".")[0]):
        entry = objects.get(candidate)
        if entry and (candidate == full or entry.objtype == "class"):
            return candidate  # an attribute has no description of its own, but its class has
    return None


@functools.cache
def _meanings(name):
    """How many things have this name in the package, private ones too."""
    modules = [module for path, module in sys.modules.items() if path.startswith("physml.")]
    return len({id(vars(module)[name]) for module in modules if name in vars(module)})


def _missing(app, domain, node):
    """Whether to be silent: of the types in a signature many are private or another package's."""
    return node["refdoc"].startswith("api/")


def setup(app):
    app.connect("warn-missing-reference", _missing)
    app.connect("doctree-resolved", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
