"""Sphinx's configuration; `sphinx-build -W -b html docs docs/build` builds the pages."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "physml"
author = "the authors of physml"
version = release = importlib.metadata.version("physml")
html_title = f"physml {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    # in docs/extensions
    "api_pages",
    "docstrings",
    "html_check",
    "mathml",
    "mentions",
    "notebook_pages",
    "signatures",
    "table_numbers",
]
exclude_patterns = ["build", "extensions"]
nitpicky = True  # a reference written by hand must lead somewhere; see extensions/mentions.py

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"  # which browsers draw by themselves, so that nothing is downloaded
html_copy_source = html_show_copyright = html_show_sourcelink = False

myst_enable_extensions = ["dollarmath", "amsmath", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the stored outputs are shown

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "literal"  # in a docstring single backticks stand for code
napoleon_numpy_docstring = False
napoleon_use_param = False  # "rtol, atol" is one entry
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 80
