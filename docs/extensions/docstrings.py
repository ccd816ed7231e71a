"""The docstrings' few words of Markdown, in reStructuredText.

A docstring has `code` in single backticks, $formulas$ as in LaTeX and fenced examples. What means
something in reStructuredText alone, such as |u| or (*batch, units), is taken as it stands.
"""

import re

_TOKENS = re.compile(
    r"(?P<fence>^(?P<indent> *)```\w*\n(?P<code>.*?)^ *```$)"
    r"|(?P<example>^ *>>> .*?(?=^\s*$|\Z))"
    r"|(?P<block>^(?P<margin> *)\$\$(?P<display>.*?)\$\$)"
    r"|(?P<literal>``[^`]+``|`[^`]+`)(?P<glued>(?=\w))?"
    r"|\$(?P<formula>[^$]+?)\$"
    r"|(?P<emphasis>(?<!\w)\*{1,2}\w[^*`$,]*\w\*{1,2}(?!\w))"
    r"|(?P<special>[|*]|(?<=\w)_(?!\w))",
    flags=re.S | re.M,
)


_LIST = re.compile(r"^( *)(?![- ])(.+)\n(?=\1- )", flags=re.M)  # right below a paragraph


def to_rest(text):
    """A docstring as reStructuredText."""
    return _LIST.sub(r"\1\2\n\n", _TOKENS.sub(_rewritten, text))


def _rewritten(match):
    found = match.groupdict()
    if found["fence"]:
        return _directive("code-block:: python", found["indent"], found["code"])
    if found["block"]:
        return _directive("math::", found["margin"], found["display"])
    if found["formula"]:
        return f":math:`{found['formula']}`"
    if found["special"]:
        return "\\" + found["special"]
    return match[0] + "\\ " * (found["glued"] is not None)


def _directive(name, indent, content):
    lines = [
        f"{indent}   {line.strip() if name == 'math::' else line.removeprefix(indent)}"
        for line in content.strip("\n").splitlines()
    ]
    return "\n".join([f"{indent}.. {name}", "", *lines, ""])


def _process(app, what, name, obj, options, lines):
    lines[:] = to_rest("\n".join(lines)).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
