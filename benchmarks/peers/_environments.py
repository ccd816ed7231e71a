"""An environment for each peer, made once and kept as long as its requirements are the same."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

TABLE = Path(__file__).with_name("requirements.toml")
INSTALL_SECONDS = 1200


class NotInstalled(Exception):
    """A peer's environment cannot be made."""


def requirements() -> dict[str, list[str]]:
    """What each environment holds, by its name."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def interpreter(name: str, folder: Path) -> str:
    """The Python of an environment, which is made in `folder` unless it is there.

    Packages come from where `pip` is set up to find them. The requirements are written into the
    environment last, so that one whose making was interrupted is made again.

    Raises:
        NotInstalled: pip does not find or build what is required.
    """
    wanted = "\n".join([sys.version, *requirements()[name]])
    place = folder.resolve() / name
    python, made = place / "bin" / "python", place / "requirements.txt"
    if sys.platform == "win32":
        python = place / "Scripts" / "python.exe"
    if made.is_file() and made.read_text(encoding="utf-8") == wanted:
        return str(python)
    shutil.rmtree(place, ignore_errors=True)
    print(f"making the environment of {name} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *requirements()[name]]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not within {INSTALL_SECONDS} seconds") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled(lines[0].removeprefix("ERROR: ") if lines else "pip failed")
    made.write_text(wanted, encoding="utf-8")
    return str(python)
