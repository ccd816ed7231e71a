"""Every notebook runs, and what is rendered is what its source says."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

SOURCES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


def cells(path):
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


@pytest.mark.slow
@pytest.mark.usefixtures("started_quickly")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs(source, tmp_path):
    # A percent-format notebook is a script; its magics are comments there.
    done = subprocess.run(
        [sys.executable, str(source)],
        cwd=tmp_path,
        env=os.environ | {"PHYSML_QUICK": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_rendering_is_of_this_source(source):
    rendered = jupytext.read(source.with_suffix(".ipynb"))
    assert cells(source.with_suffix(".ipynb")) == cells(source)
    code = [cell for cell in rendered.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
