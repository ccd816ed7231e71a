"""Signatures with the names of types that stand for long unions, and without empty entries."""

import functools

import jaxtyping
from sphinx.util.typing import stringify_annotation

from physml import _types


@functools.cache
def _expansions():
    """What autodoc makes of a type's name, longest first, and the name."""
    named = {name: getattr(jaxtyping, name) for name in ("ArrayLike", "PRNGKeyArray")}
    named |= {name: getattr(_types, name) for name in ("Numbers", "Residual", "Loss")}
    written = {stringify_annotation(value, "smart"): name for name, value in named.items()}
    return dict(sorted(written.items(), key=lambda item: -len(item[0])))


def _shorten(app, what, name, obj, options, signature, returned):
    def shortened(text):
        for long, short in _expansions().items():
            text = text.replace(long, short)
        return text

    return signature and shortened(signature), returned and shortened(returned)


def _skip(app, what, name, obj, skip, options):
    """A `__call__` that says nothing would get the docstring of any callable."""
    return True if name == "__call__" and not obj.__doc__ else None


def setup(app):
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
