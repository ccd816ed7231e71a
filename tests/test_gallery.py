"""The gallery shows every figure, small, and says which command makes it."""

import importlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SMALL, MOVING = 60_000, 1_500_000  # bytes


@pytest.fixture
def gallery(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("gallery")


def test_the_page_is_what_the_table_says(gallery):
    said = gallery.described()
    assert (ROOT / "docs" / "gallery.md").read_text() == gallery.page(said)
    commands = {folder for folder, *_ in gallery.pictures(said)} & said["commands"].keys()
    assert commands == said["commands"].keys()
    for folder, command in said["commands"].items():
        script = ROOT / command.split()[1]
        sources = [script, *script.parent.glob("_study.py")]  # which has the study's options
        assert any(f'"results/{folder}"' in path.read_text() for path in sources), command


def test_every_figure_that_has_a_name_is_shown(gallery):
    shown = {name for _, name, _ in gallery.pictures(gallery.described())}
    for path in (*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")):
        drawn = set(re.findall(r'run\.figure\(\s*"(\w+)"', path.read_text()))
        assert drawn <= shown, path


def test_pictures_are_small(gallery):
    said = gallery.described()
    wanted = {gallery.file_of(folder, name).name for folder, name, _ in gallery.pictures(said)}
    there = {path.name: path for path in (gallery.FIGURES / "gallery").iterdir()}
    assert there.keys() <= wanted
    sizes = {name: path.stat().st_size for name, path in there.items()}
    assert not {name: size for name, size in sizes.items() if size > SMALL}
    moving = {f"{name}.gif" for each in said["sections"] for name in each.get("moving", ())}
    found = {path.name: path.stat().st_size for path in gallery.FIGURES.glob("*.gif")}
    assert found.keys() == moving and max(found.values()) <= MOVING


def test_a_picture_is_shrunk(gallery):
    ramp = np.linspace(0, 255, 1000).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (500, 1))] * 3, axis=-1))
    written = io.BytesIO()
    image.save(written, "PNG")
    small = Image.open(io.BytesIO(gallery.shrunk(written.getvalue(), 200, 16)))
    assert small.format == "PNG" and small.size == (200, 100)
    values = np.asarray(small.convert("L"), int)
    assert len(np.unique(values)) <= 16
    assert np.abs(values - np.linspace(0, 255, 200)).max() <= 16  # and looks like the ramp
    assert Image.open(io.BytesIO(gallery.shrunk(written.getvalue()))).size == (1000, 500)


def test_figures_are_read_from_notebooks_and_results(gallery, tmp_path, monkeypatch):
    notebook = next((ROOT / "notebooks").glob("03*.ipynb")).stem
    first, second = (gallery.source_of(notebook, number) for number in ("1", "2"))
    assert first != second and first.startswith(b"\x89PNG") and second.startswith(b"\x89PNG")
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    assert gallery.source_of("lorenz", "forecasts") is None
    path = tmp_path / "results" / "lorenz" / "figures" / "forecasts.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(first)
    assert gallery.source_of("lorenz", "forecasts") == first
