"""Make the pictures of the gallery, small and moving ones, and its page.

    python docs/gallery.py [--page]

docs/gallery.toml says what each picture shows. Commands write their figures into results/, and
rendered notebooks hold theirs: each becomes a small PNG in docs/figures/gallery. Figures that other
pages show become PNGs of full size in docs/figures. The moving pictures are computed here. A
picture whose command has not been run in this checkout stays as it is, and is named. With `--page`
the page alone is written.
"""

import base64
import io
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
WIDTH = 460  # pixels of a small picture
COLOURS = 128


def described(root: Path = ROOT) -> dict[str, Any]:
    """What gallery.toml says."""
    return tomllib.loads((root / "docs" / "gallery.toml").read_text(encoding="utf-8"))


def pictures(said: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The folder, the name and the words of each picture."""
    for section in said["sections"]:
        for folder, own in section["pictures"].items():
            for name, words in own.items():
                yield folder, name, words


def file_of(folder: str, name: str) -> Path:
    """The small picture of a figure."""
    return FIGURES / "gallery" / f"{folder}-{name}.png"


def source_of(folder: str, name: str) -> bytes | None:
    """The figure as its command made it; None where the command was not run."""
    notebook = ROOT / "notebooks" / f"{folder}.ipynb"
    if notebook.exists():
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        found = [x["data"]["image/png"] for x in outputs if "image/png" in x.get("data", {})]
        return base64.b64decode(found[int(name) - 1])
    path = ROOT / "results" / folder / "figures" / f"{name}.png"
    return path.read_bytes() if path.exists() else None


def shrunk(content: bytes, width: int | None = None, colours: int = COLOURS) -> bytes:
    """A picture as PNG of few colours, at most so wide."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    if width is not None and image.width > width:
        size = width, round(image.height * width / image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    # The median cut would lose the colour of a thin line, and dithering even surfaces.
    method, plain = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    image = image.quantize(colours, method=method, kmeans=2, dither=plain)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


def page(said: dict[str, Any]) -> str:
    """The gallery as Markdown."""
    parts = [said["head"].strip()]
    for section in said["sections"]:
        rows = [
            f"| ![{words}]({file_of(folder, name).relative_to(ROOT / 'docs').as_posix()}) "
            f"| {words} {made_by(said, folder, name)} |"
            for folder, own in section["pictures"].items()
            for name, words in own.items()
            if file_of(folder, name).exists()
        ]
        moving = section.get("moving", {}).items()
        parts += [f"## {section['title']}"]
        parts += [f"![{words}](figures/{name}.gif)\n\n{words}" for name, words in moving]
        parts += ["\n".join(["| | |", "| --- | --- |", *rows])] if rows else []
    return "\n\n".join(parts) + "\n"


def made_by(said: dict[str, Any], folder: str, name: str) -> str:
    """The command that makes a figure, or the notebook that holds it."""
    if folder in said["commands"]:
        return f"<br>`{said['commands'][folder]}` writes `figures/{name}.png`."
    return f"<br>Figure {name} of [the notebook](notebooks/{folder}.ipynb)."


def main(page_alone: bool) -> int:
    """Make what can be made, say what cannot, and write the page."""
    said = described()
    if not page_alone:
        make(said)
    (ROOT / "docs" / "gallery.md").write_text(page(said), encoding="utf-8")
    return 0


def make(said: dict[str, Any]) -> None:
    """The pictures, still and moving."""
    (FIGURES / "gallery").mkdir(parents=True, exist_ok=True)
    wanted = [(file_of(*each[:2]), *each[:2], WIDTH, COLOURS) for each in pictures(said)]
    wanted += [
        (FIGURES / f"{name}.png", *figure.split("/"), None, 256)
        for name, figure in said["pages"].items()
    ]
    for path, folder, name, width, colours in wanted:
        content = source_of(folder, name)
        if content is None:
            maker = said["commands"].get(folder, "the notebook")
            print(f"{folder}/{name} stays as it is: run {maker}")
        else:
            path.write_bytes(shrunk(content, width, colours))
    import _moving  # loads JAX, and computes

    _moving.main(FIGURES, ROOT / "results")


if __name__ == "__main__":
    raise SystemExit(main(page_alone="--page" in sys.argv[1:]))
