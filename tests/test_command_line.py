"""`python -m physml` lists the experiments, runs them, and begins new ones, from a wheel too."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from physml import __main__ as command_line
from physml.experiment._command import program

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("[!_]*.py"))
TEMPLATE = ROOT / "scripts" / "pendulum.py"


def ask(*words, **options):
    """What `python -m physml WORDS` answers in a process of its own."""
    command = [sys.executable, "-m", "physml", *words]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_experiments_are_listed_in_a_sentence_each(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    command_line.main(words)
    listed = capsys.readouterr().out.partition("fourier or lorenz.\n")[2]
    assert max(map(len, listed.splitlines())) < 50
    monkeypatch.setenv("COLUMNS", "200")
    command_line.main(words)
    lines = capsys.readouterr().out.splitlines()
    for script in SCRIPTS:
        [line] = [line for line in lines if line.startswith(f"{script.stem} ")]
        sentence = line.removeprefix(script.stem).strip()
        assert sentence == ast.get_docstring(ast.parse(script.read_text())).split("\n")[0]
        assert sentence.endswith(".") and len(line) <= 120
    assert not [line for line in lines if line.startswith("_")]


def test_listing_loads_nothing_heavy():
    code = """if True:
        import runpy, sys
        del sys.argv[1:]
        runpy.run_module("physml", run_name="__main__")
        assert not {"jax", "numpy"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "lorenz" in done.stdout, done.stderr


def test_an_experiment_is_run_as_a_script(tmp_path, monkeypatch, capsys):
    (tmp_path / "_helper.py").write_text("WORD = 'helped'\n")
    (tmp_path / "mine.py").write_text(
        "import sys\nfrom _helper import WORD\n"
        "if __name__ == '__main__':\n    print(WORD, sys.argv[1:])\n    raise SystemExit(130)\n"
    )
    monkeypatch.setattr(command_line, "_PLACES", (tmp_path,))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["physml"])
    with pytest.raises(SystemExit) as ended:
        command_line.main(["mine", "--quick", "--seed", "3"])
    assert ended.value.code == 130
    assert capsys.readouterr().out == "helped ['--quick', '--seed', '3']\n"
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt\n")  # while it loads
    with pytest.raises(SystemExit) as ended:
        command_line.main(["mine"])
    assert ended.value.code == 130 and "Interrupted" in capsys.readouterr().err


def test_a_run_records_the_command_that_repeats_it(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/any/lorenz.py", raising=False)
    assert program() == "python lorenz.py"
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-W", "error", "-m", "physml", "lorenz"])
    assert program() == "python -m physml lorenz"


def test_help_of_an_experiment_says_how_it_was_asked_for(tmp_path):
    done = ask("pinn_training", "--help", cwd=tmp_path, env=os.environ | {"COLUMNS": "70"})
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 70
    words = " ".join(done.stdout.replace("│", " ").split())
    assert words.startswith("Classic training of one network on one equation: optimizers,")
    assert "usage: python -m physml pinn_training [-h]" in words
    assert "results/pinn_training" in words and "Seed of everything drawn" in words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lorens"], "NAME must be one of .*, got 'lorens'; did you mean lorenz?"),
        (["--quick"], "NAME must be one of .*, got '--quick'"),
        (["new"], "new must be followed by one NAME, got 0"),
        (["new", "a", "b"], "new must be followed by one NAME, got 2"),
        (["new", "my-equation"], "NAME must be letters, digits"),
        (["new", "../mine"], "NAME must be letters, digits"),
        (["new", "2nd"], "NAME must be letters, digits"),
        (["new", ""], "NAME must be letters, digits"),
        (["new", "class"], "NAME must be letters, digits"),
        (["new", "jax"], "NAME must be that of no module of Python or of a package, got 'jax'"),
        (["new", "random"], "NAME must be that of no module"),
        (["new", "there"], "NAME must be that of no file here, got 'there'"),
        (["new", "there.py"], "there.py exists and is kept"),
    ],
)
def test_what_means_nothing_is_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        command_line.main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert re.match(f"physml: .*{said}", err), err
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["mine", "mine.py"])
def test_a_new_script_is_the_pendulum_with_a_folder_of_its_own(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command_line.main(["new", name])
    written = (tmp_path / "mine.py").read_text()
    assert written == TEMPLATE.read_text().replace("results/pendulum", "results/mine")
    assert "results/pendulum" not in written and "results/mine" in written
    # It is a script of its own: it imports nothing that lies beside the template.
    assert not [line for line in written.splitlines() if line.startswith("from _")]
    said = capsys.readouterr().out
    assert "python mine.py --quick" in said and "results/mine" in said


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, unpacked as an install does, and the names in the source distribution."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    sdist = pytest.importorskip("hatchling.builders.sdist")
    folder = tmp_path_factory.mktemp("built")
    [archive] = sdist.SdistBuilder(str(ROOT)).build(directory=str(folder))
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        names = {name.partition("/")[2] for name in file.getnames()}
    [source] = folder.glob("physml-*/")  # a wheel is made of what the source distribution holds
    [archive] = wheel.WheelBuilder(str(source)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder / "site")
    return folder / "site", names


def test_a_wheel_has_the_package_and_every_script(built):
    site, names = built
    packaged = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("physml/**/*.py")}
    scripts = {f"physml/_scripts/{path.name}" for path in ROOT.glob("scripts/*.py")}
    assert modules | scripts | {"physml/py.typed"} == {
        path for path in packaged if path.startswith("physml/")
    }
    assert modules | {"README.md", "LICENSE", "scripts/lorenz.py", "docs/house.md"} <= names
    assert not [path for path in packaged if path.startswith(("scripts", "tests", "docs"))]


def test_a_wheel_lists_and_begins_scripts(built, tmp_path):
    environment = {"PYTHONPATH": str(built[0]), "PATH": ""}
    listed = ask(cwd=tmp_path, env=environment)
    assert listed.returncode == 0 and "pinn_lorenz" in listed.stdout, listed.stderr
    begun = ask("new", "mine", cwd=tmp_path, env=environment)
    assert begun.returncode == 0, begun.stderr
    assert "results/mine" in (tmp_path / "mine.py").read_text()
    where = [sys.executable, "-c", "import physml; print(physml.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()).parents[1] == built[0], "the wheel is what was asked"
