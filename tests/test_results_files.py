"""README and the docs say what the results files say, and nothing that no file says."""

import importlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = r"-?[\d.,]*\d(?:e-?\d+)?(?: ?%)?"


def load(root):
    """The renderer of a tree."""
    spec = importlib.util.spec_from_file_location("render", root / "docs" / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = load(ROOT)
FILES = sorted(path.stem for path in (ROOT / "docs" / "results").glob("*.json"))
PAGES = {str(page.relative_to(ROOT)): page for page in render.pages()}


@pytest.fixture
def tree(tmp_path):
    """A copy of README and the docs, to change."""
    shutil.copy(ROOT / "README.md", tmp_path)
    ignored = shutil.ignore_patterns("build", "figures", "__pycache__")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=ignored)
    return tmp_path


def change(path, pattern):
    """Change the digit that ends what a pattern matches first."""
    text = path.read_text()
    end = re.search(pattern, text).end()
    path.write_text(f"{text[: end - 1]}{(int(text[end - 1]) + 1) % 10}{text[end:]}")


def test_pages_say_what_the_files_say(capsys):
    assert render.main(check=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", FILES)
def test_a_changed_digit_in_a_file_is_seen(name, tree, capsys):
    change(tree / "docs" / "results" / f"{name}.json", r"\"[\w.-]+\": \d*\.\d")
    assert load(tree).main(check=True) == 1
    assert f"{name}.json" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", [r"\| \d", r"\d(?=[\d.,e-]*<!-- \w+:)"], ids=["cell", "prose"])
def test_a_changed_digit_in_a_page_is_seen_and_rendered_away(pattern, tree, capsys):
    page, changed = tree / "README.md", load(tree)
    before = page.read_text()
    change(page, pattern)
    assert page.read_text() != before
    assert changed.main(check=True) == 1
    assert "README.md, rendered" in capsys.readouterr().out and page.read_text() != before
    assert changed.main(check=False) == 0 and page.read_text() == before


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_used_and_says_where_it_is_from(name):
    assert any(f"{name}.json" in page.read_text() for page in PAGES.values())
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    assert list(found) == sorted(found)
    recorded = "command cpu_count date device dtype seed versions.jax versions.physml wall_s"
    assert set(recorded.split()) <= found.keys()
    words = [value for value in found.values() if isinstance(value, str)]
    local = re.compile(r"(^|[\s=])[/~]|[A-Z]:\\")  # a path of one machine
    assert not [word for word in words if local.search(word)]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_names_the_commands_of_its_figures(name):
    text = PAGES[name].read_text()
    for figure in re.finditer(render.FIGURE, re.sub(render.FENCE, "", text)):
        assert f"[{figure['file']}.json]" in text, figure[0]


@pytest.mark.parametrize("name", PAGES)
def test_no_figure_is_typed(name):
    """A measured figure is rendered; what else is a number in a table, or small, has a source."""
    text = render.unmarked(PAGES[name].read_text())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert not [row for row in rows if re.search(rf"\|\s*{NUMBER}\s*\|", row)]
    if name == "README.md" or "results" in PAGES[name].parts:
        prose = re.sub(r"`[^`]*`", "", text)
        assert not re.findall(r"\d+e-\d+|\d s\b|\d seconds", prose)


def test_readme_is_read_in_five_minutes():
    assert len(PAGES["README.md"].read_text().splitlines()) <= 200


def test_commands_name_files_that_exist():
    described = render.described()
    commands = described["commands"] | described["long_commands"]
    assert len(commands) == len(set(commands.values())) >= 8
    assert not [name for name in FILES if not (ROOT / commands[name].split()[1]).exists()]


@pytest.mark.parametrize("names", [[], ["mnist_strong"]])
def test_measuring_runs_each_command_and_records_it(names, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    measure, ran = importlib.import_module("measure"), []
    monkeypatch.setattr(measure.subprocess, "run", lambda words, **_: ran.append(words))
    monkeypatch.setattr(measure.render, "main", lambda check: int(check))
    monkeypatch.setattr(measure.gallery, "main", lambda page_alone: int(page_alone))
    assert measure.main(names) == 0
    described = render.described()
    commands = described["commands"] if not names else described["long_commands"]
    wanted = {name: command for name, command in commands.items() if not names or name in names}
    for (name, command), words in zip(wanted.items(), ran, strict=True):
        assert words[0] == sys.executable
        assert " ".join(["python", *words[1:-3]]) == command
        path = ROOT / "docs" / "results" / f"{name}.json"
        assert words[-3:] == ["--no-cache", "--record", str(path)]


TABLES = """
[commands]
one = "python scripts/one.py"
[long_commands]
long = "python scripts/one.py --long"
[tables.both]
file = "one"
head = "method"
rows = {"mlp.*" = "MLP", "long:*" = "long", "gru.*" = "GRU"}
columns = {"error" = ["error", ".0e"], "share" = ["share", ".1%"]}
[tables.typo]
file = "one"
head = "method"
rows = {"mpl.*" = "MLP"}
columns = {"error" = ["error", ".0e"]}
[tables.column]
file = "one"
head = "method"
rows = {"mlp.*" = "MLP"}
columns = {"error" = ["error", ".0e"], "oops" = ["eror", ".0e"]}
[tables.none]
head = "method"
rows = {"long:error" = "long"}
columns = {"error" = ["", ".0e"]}
[tables.unknown]
head = "method"
rows = {"lnog:error" = "long"}
columns = {"error" = ["", ".0e"]}
"""
ONE = {
    "mlp.error": 4.1e-15, "mlp.share": 0.994, "gru.error": 0.02, "gru.share": None, "n": 118_234,
    "lost": "inf", "command": "python scripts/one.py", "wall_s": 41.2, "device": "cpu",
    "cpu_count": 2, "date": "2026-11-25T20:00:00+00:00", "versions.jax": "0.10.2",
}  # fmt: skip


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "tables.toml").write_text(TABLES)
    (folder / "one.json").write_text(json.dumps(ONE))
    return render.Results(folder)


def test_a_table_has_what_is_measured(results, tmp_path):
    lines = results.table("both", tmp_path / "docs" / "page.md").splitlines()
    assert lines[:5] == [
        "| method | error | share |",
        "| --- | --- | --- |",
        "| MLP | 4e-15 | 99.4 % |",
        "| GRU | 2e-2 | - |",
        "",
    ]
    command = "- `python scripts/one.py` took 41 s on a CPU with 2 cores, 2026-11-25, jax 0.10.2: "
    assert lines[5].startswith(command + "[one.json](results/one.json), ") and len(lines) == 6
    assert results.table("none", tmp_path) == "*To be measured by `python scripts/one.py --long`.*"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("typo", "table typo must have figures for 'MLP'"),
        ("column", "table column must have figures for 'oops'"),
        ("unknown", "must name a results file, got lnog"),
        ("tpyo", "must be in tables.toml, got tpyo"),
    ],
)
def test_a_table_without_its_figures_is_refused(name, words, results, tmp_path):
    with pytest.raises(ValueError, match=words):
        results.table(name, tmp_path)


@pytest.mark.parametrize(
    ("typed", "marker", "shown"),
    [
        ("?", "one:mlp.error .0e", "4e-15"),
        ("an error of 9e-9", "one:mlp.error .1e", "an error of 4.1e-15"),
        ("99 %", "one:mlp.share .0%", "99 %"),
        ("12.5 %", "one:mlp.share .1%", "99.4 %"),
        ("(1,000", "one:n 2", "(120,000"),
        ("3", "one:n", "118234"),
        ("3", "one:n ,", "118,234"),
        ("3", "one:wall_s 1", "40"),
        ("3", "one:wall_s .0e", "4e1"),
        ("3", "one:cpu_count .1e", "2.0"),
        ("7", "one:lost 2", "-"),
        ("-", "one:gru.error .2f", "0.02"),
    ],
)
def test_a_figure_is_filled_in(typed, marker, shown, results, tmp_path):
    text = render.rendered(f"{typed}<!-- {marker} --> more", tmp_path / "page.md", results)
    assert text == f"{shown}<!-- {marker} --> more"
    assert render.rendered(text, tmp_path / "page.md", results) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4e-15<!-- one:mlp.eror .0e -->", "got one:mlp.eror"),
        ("4e-15<!-- two:mlp.error .0e -->", "got two:mlp.error"),
        ("<!-- source: two -->\n<!-- end -->", "got two"),
        ("<!-- one:mlp.error .0e --> 4e-15", "behind a figure"),
        ("<!-- results: both -->", "of a block"),
        ("<!-- note -->", "got <!-- note"),
    ],
)
def test_a_marker_that_is_not_understood_is_refused(text, words, results, tmp_path):
    with pytest.raises(ValueError, match=words):
        render.rendered(text, tmp_path / "page.md", results)


def test_code_and_figures_of_others_stay(results, tmp_path):
    text = "```\n1<!-- one:n -->\n<!-- results: both -->\n```\n2e-2<!-- published: a paper -->\n"
    assert render.rendered(text, tmp_path / "page.md", results) == text
    assert not re.search(r"\d", render.unmarked(text))


def test_a_file_of_another_command_is_refused(results):
    for command in ("python scripts/one.py --few 3", "python scripts/two.py"):
        (results.folder / "one.json").write_text(json.dumps(ONE | {"command": command}))
        with pytest.raises(ValueError, match=r"made by python scripts/one\.py, got"):
            render.Results(results.folder)
