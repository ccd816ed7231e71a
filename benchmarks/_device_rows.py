"""The rows of `device.py`, one after another in one process, which prints a line of JSON for each.

    python benchmarks/_device_rows.py [--quick] ROW ...

A row that raises is reported with its reason, and the next one begins.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import _device_equations as equations
import _device_networks as networks
from _device_size import Figures, Size

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))  # some rows are those of scripts


def rows(size: Size) -> dict[str, Callable[[Size], Figures]]:
    """What can be measured, by name: the most wanted first."""
    return {
        "products": equations.products,
        **equations.batches(size),
        "climate": equations.climate,
        "readout": networks.readout,
        "adamw": networks.adamw,
        "wide": networks.wide,
        "pinn_solve": equations.pinn_solve,
        "pinn_single": equations.pinn_single,
        "cnn": networks.cnn,
        "digits_grid": networks.digits_grid,
        "likelihood": equations.likelihood,
        "pinn_batch": equations.pinn_batch,
        "identify": equations.identify,
        "pde": equations.pde,
        "pinn_stiff": equations.pinn_stiff,
        "box": equations.box,
    }


SLOW = {"pinn_batch", "identify", "pde", "pinn_stiff", "box"}  # to compile: not in a quick look


def about() -> dict[str, Any]:
    """The device, and what drives it."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "name": device.device_kind,
        "platform": device.platform,
        "num_devices": jax.device_count(),
        "memory_gib": stats.get("bytes_limit", 0) / 2**30 or None,
        "driver": " ".join(device.client.platform_version.split()),
        "jax": jax.__version__,
        "cpu_count": os.cpu_count(),
    }


def main(names: list[str], quick: bool) -> None:
    """Say what the device is, and measure the rows of these names, or all."""

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    facts = about()
    size = Size(quick, facts["platform"] != "cpu")
    found = rows(size)
    names = names or [name for name in found if not (quick and name in SLOW)]
    say({"about": facts, "rows": names})
    for name in names:
        say({"begin": name})
        try:
            say({"row": name, "figures": found[name](size)})
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().splitlines() or [""]
            say({"row": name, "figures": {"failed": f"{type(error).__name__}: {said[0][:200]}"}})


if __name__ == "__main__":
    words = sys.argv[1:]
    main([word for word in words if word != "--quick"], "--quick" in words)
