"""Importing the library does nothing but import it, and README's example works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# In a fresh interpreter: this one has set JAX's options and holds everything in memory already.
CODE = """
import pathlib, sys
import jax, flax.nnx, optax, diffrax

settings, loaded = dict(jax.config.values), set(sys.modules)
import physml

root = pathlib.Path(physml.__path__[0])
files = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
names = [".".join(file.parts).removesuffix(".__init__") for file in files]
names = [name for name in names if not name.startswith(("physml.plots", "physml.experiment"))]
for name in names:
    __import__(name)
changed = {key for key, value in settings.items() if jax.config.values[key] != value}
assert not changed, f"import physml changed jax.config: {changed}"
tops = {name.partition(".")[0] for name in set(sys.modules) - loaded}
heavy = tops & {"matplotlib", "orbax", "pooch", "requests", "tqdm", "sklearn", "tyro", "IPython"}
assert not heavy, f"import physml loaded {heavy}"
assert len(names) > 10, names
"""


def test_import_is_free_of_side_effects(tmp_path):
    environment = os.environ | {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        # A backend that does not exist: choosing a device or making an array would fail.
        "JAX_PLATFORMS": "nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", CODE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_readme_examples_run(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    examples = "".join(re.findall(r"```python\n(.*?)```", readme, flags=re.S))
    done = subprocess.run(
        [sys.executable, "-c", examples], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
