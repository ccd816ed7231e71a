"""Formulas as MathML, which every current browser draws without a script or a font of ours."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_OPERATORS = re.compile(r"\\arg(?![a-z])")  # which the converter does not know
# The glyphs of primes are raised by themselves: as superscripts they are too high and hardly seen.
_PRIMES = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>(&#x0203[2-4];)</mi></msup>")


def inline(self, node):
    self.body.append(_converted(node, "inline"))
    raise nodes.SkipNode


def block(self, node):
    self.body.append(f'<div class="math">{_converted(node, "block")}</div>')
    raise nodes.SkipNode


def _converted(node, display):
    latex = _OPERATORS.sub(r"\\operatorname{arg}", node.astext())
    mathml = convert(latex, display=display)
    for unknown in re.findall(r"\\\w+", mathml):
        _LOG.warning("%s in %r has no MathML", unknown, latex, location=node)
    return _PRIMES.sub(r'\1<mo lspace="0" rspace="0">\2</mo>', mathml)


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
