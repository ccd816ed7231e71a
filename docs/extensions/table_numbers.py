"""Cells of tables that hold a number alone, which style.css keeps on one line."""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e-?\d+)?")


class MarkNumbers(SphinxPostTransform):
    default_priority = 400

    def run(self, **kwargs):
        for cell in self.document.findall(nodes.entry):
            if _NUMBER.fullmatch(cell.astext().strip()):
                cell["classes"].append("number")


def setup(app):
    app.add_post_transform(MarkNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
