"""The rendered notebooks as pages: copies without badges, which come from the network.

Their links to `../docs/` lead to the pages beside them.
"""

import json
from pathlib import Path


def _copy(app):
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in sorted((Path(app.srcdir).parent / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                lines = "".join(cell["source"]).splitlines(keepends=True)
                lines = [line for line in lines if not line.startswith("[![")]
                cell["source"] = [line.replace("](../docs/", "](../") for line in lines]
        text = json.dumps(notebook, indent=1)
        copy = folder / path.name
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)


def setup(app):
    app.connect("builder-inited", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
