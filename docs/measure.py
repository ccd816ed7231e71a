"""Run the commands that record the figures of README and the docs, and fill the figures in.

The gallery's pictures are then made from what the commands have drawn.

    python docs/measure.py [NAME ...]

The names are those of docs/results/tables.toml; without any, all but the long commands run, one
after another. Let nothing else run meanwhile, because the pages quote seconds; for the same reason
everything is compiled anew. The files of MNIST and CIFAR-10 are looked for in the folder that
PHYSML_DATA names, and downloaded if they are not there.
"""

import shlex
import subprocess
import sys

import gallery
import render


def main(names: list[str]) -> int:
    """Record the figures of each command in docs/results/NAME.json."""
    described = render.described()
    commands = described["commands"] | described["long_commands"]
    for name in names or described["commands"]:
        print(f"\n{name}: {commands[name]}", flush=True)
        words = [sys.executable, *shlex.split(commands[name])[1:]]
        record = ["--no-cache", "--record", str(render.RESULTS / f"{name}.json")]
        subprocess.run(words + record, cwd=render.ROOT, check=True)
    return render.main(check=False) or gallery.main(page_alone=False)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
