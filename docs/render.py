"""Fill the figures of README and the docs in from the files that commands recorded.

    python docs/render.py [--check]

A page takes a figure from docs/results/FILE.json in one of three ways:

    4e-15<!-- lorenz:pinn.rel_l2_t20 .0e -->       one figure, with its FILE:KEY FORMAT behind it
    <!-- results: forecast --> ... <!-- end -->    a table that docs/results/tables.toml describes
    <!-- source: lorenz --> ... <!-- end -->       the command that made a file, when and where

A format is one of Python's, or a number of significant digits. A figure of others is typed, and
says where it is from: 2e-2<!-- published: arXiv 2203.07404 -->. With `--check` nothing is written:
the differences are printed, and the exit code is 1 if there are any.
"""

import difflib
import hashlib
import json
import math
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FENCE = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)
BLOCK = re.compile(r"<!-- (results|source): (\w+) -->.*?<!-- end -->", flags=re.S)
NUMBER = r"(?:-?[\d.,]*\d(?:e-?\d+)?(?: %)?|[?-])"
FIGURE = re.compile(
    NUMBER + r"(?P<marker><!-- (?P<file>\w+):(?P<key>\S+)(?: (?P<format>\S+))? -->)"
)
PUBLISHED = re.compile(NUMBER + r"<!-- published: [^>]+ -->")


def pages(root: Path = ROOT) -> list[Path]:
    """README and the docs, without what Sphinx built."""
    found = sorted((root / "docs").rglob("*.md"))
    built = root / "docs" / "build"
    return [root / "README.md", *(page for page in found if built not in page.parents)]


def described(folder: Path = RESULTS) -> dict[str, Any]:
    """What tables.toml says: the commands and the tables."""
    return tomllib.loads((folder / "tables.toml").read_text(encoding="utf-8"))


class Results:
    """The recorded figures by file and key, and the tables that are made of them."""

    def __init__(self, folder: Path = RESULTS):
        said = described(folder)
        self.commands: dict[str, str] = said["commands"] | said["long_commands"]
        self.tables: dict[str, Any] = said["tables"]
        self.folder, self.files = folder, {}
        for path in sorted(folder.glob("*.json")):
            self.files[path.stem] = found = json.loads(path.read_text(encoding="utf-8"))
            found["fingerprint"] = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            if found["command"] != self.commands.get(path.stem):
                wanted = self.commands.get(path.stem)
                raise ValueError(f"{path.name} must be made by {wanted}, got {found['command']}")

    def figure(self, file: str, key: str, spec: str | None) -> str:
        """One figure as text."""
        if key not in self.files.get(file, {}):
            raise ValueError(f"a figure must be in a results file, got {file}:{key}")
        return formatted(self.files[file][key], spec)

    def table(self, name: str, page: Path) -> str:
        """A table, and the commands that made its figures."""
        if name not in self.tables:
            raise ValueError(f"a table must be in tables.toml, got {name}")
        table = self.tables[name]
        columns = table["columns"]
        rows, files = [], []
        for row, label in table["rows"].items():
            file, _, pattern = row.rpartition(":")
            file = file or table["file"]
            if file not in self.commands:
                raise ValueError(f"a row must name a results file, got {file} in table {name}")
            files.append(file)
            if file in self.files:
                rows.append([label, *self._cells(file, pattern, columns.values())])
        files = list(dict.fromkeys(files))
        if not rows:
            commands = " and ".join(f"`{self.commands[file]}`" for file in files)
            return f"*To be measured by {commands}.*"
        named = [(row[0], row[1:]) for row in rows]
        named += zip(columns, list(zip(*rows, strict=True))[1:], strict=True)
        for label, cells in named:
            if set(cells) == {"-"}:
                raise ValueError(f"table {name} must have figures for {label!r}, got none")
        head = [[table["head"], *columns], ["---"] * (1 + len(columns))]
        lines = ["| " + " | ".join(cells) + " |" for cells in head + rows]
        sources = [self.source(file, page) for file in files if file in self.files]
        return "\n".join([*lines, "", *sources])

    def _cells(self, file: str, pattern: str, columns: Any) -> list[str]:
        found = self.files[file]
        return [formatted(found.get(pattern.replace("*", key)), spec) for key, spec in columns]

    def source(self, file: str, page: Path) -> str:
        """The command that made a file, when and where, and the file."""
        if file not in self.files:
            raise ValueError(f"a source must be a results file, got {file}")
        found = self.files[file]
        path = Path(os.path.relpath(self.folder / f"{file}.json", page.parent)).as_posix()
        seconds = found["wall_s"]
        took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        device = found["device"].replace("cpu", "CPU")
        return (
            f"- `{found['command']}` took {took} on a {device} with {found['cpu_count']} cores, "
            f"{found['date'][:10]}, jax {found['versions.jax']}: [{file}.json]({path}), "
            f"SHA-256 {found['fingerprint']}"
        )


def formatted(value: Any, spec: str | None) -> str:
    """A figure as text: a dash where there is none, 4e-15 and 99.4 % as on paper."""
    if value is None or not spec:
        return "-" if value is None else str(value)
    number = float(value) if isinstance(value, str) else value
    if not math.isfinite(number):
        return "-"
    if spec.isdigit():
        number, spec = float(f"{number:.{spec}g}"), ",.12g"
    text = re.sub(r"e(-?)\+?0*(\d)", r"e\1\2", format(number, spec))
    return text.removesuffix("e0").replace("%", " %")


def rendered(text: str, page: Path, results: Results) -> str:
    """The text of a page with its figures filled in.

    Raises:
        ValueError: a marker is not understood, or names what is not there.
    """

    def block(found: re.Match[str]) -> str:
        kind, name = found.groups()
        content = {"results": results.table, "source": results.source}[kind](name, page)
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    def figure(found: re.Match[str]) -> str:
        return results.figure(found["file"], found["key"], found["format"]) + found["marker"]

    comment = re.search("<!--.{,60}", unmarked(text))
    if comment is not None:
        raise ValueError(f"a comment must stand behind a figure or be of a block, got {comment[0]}")
    parts = FENCE.split(text)  # fences at the odd places
    parts[::2] = [BLOCK.sub(block, FIGURE.sub(figure, part)) for part in parts[::2]]
    return "".join(parts)


def unmarked(text: str) -> str:
    """What is typed in a page: all but code, what is rendered, and figures with a source."""
    for pattern in (FENCE, BLOCK, FIGURE, PUBLISHED):
        text = pattern.sub("", text)
    return text


def main(check: bool) -> int:
    """Render all pages, or with `check` only print what differs."""
    results, status = Results(), 0
    for page in pages():
        old = page.read_text(encoding="utf-8")
        try:
            new = rendered(old, page, results)
        except ValueError as error:
            raise SystemExit(f"{page.relative_to(ROOT)}: {error}") from None
        if check and new != old:
            status = 1
            name = str(page.relative_to(ROOT))
            lines = (old.splitlines(), new.splitlines(), name, f"{name}, rendered")
            print("\n".join(difflib.unified_diff(*lines, lineterm="", n=0)))
        elif new != old:
            page.write_text(new, encoding="utf-8")
    return status


if __name__ == "__main__":
    raise SystemExit(main(check="--check" in sys.argv[1:]))
