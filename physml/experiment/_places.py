"""Where a script runs: on which devices, in how many processes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead


def places(options: Any) -> dict[str, Path | None]:
    """Begin to run where the options say, print where that is, and return what files it changes.

    Of several processes the first has the folder and the record; each of the others has a folder
    in it for its own files.

    Raises:
        ValueError: JAX does not find the device, or the processes are not named as they must be.
    """
    if options.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if options.processes is not None:
        _join(options.processes)
    found, number, count = jax.devices(), jax.process_index(), jax.process_count()
    platform = jax.default_backend()
    if options.device not in (None, platform):
        raise ValueError(
            f"device must be one that JAX finds, {platform!r}, got {options.device!r}; a GPU needs "
            'pip install "jax[cuda13]"'
        )
    kind = found[0].device_kind
    several = "" if count == 1 else f", process {number} of {count}"
    print(
        f"On {len(found)} x {kind if kind == platform else f'{platform} {kind}'}{several}; numbers "
        f"are {jnp.zeros(()).dtype} except in networks that are made in float32.",
        flush=True,
    )
    return {} if number == 0 else {"out": options.out / f"process_{number}", "record": None}


def _join(processes: str) -> None:
    """Join the other processes; all wait until all are there."""
    if processes == "launcher":  # such as Slurm, Open MPI, Kubernetes or a TPU pod
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)
        return
    try:
        address, count, number = processes.split(",")
        own: dict[str, Any] = {"num_processes": int(count), "process_id": int(number)}
    except ValueError:
        raise ValueError(
            f"processes must be HOST:PORT,COUNT,NUMBER or launcher, got {processes!r}"
        ) from None
    jax.distributed.initialize(address, heartbeat_timeout_seconds=_HEARTBEAT, **own)
