"""The hyper-parameters of the study's fits, as the arrays that one compiled program takes."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclass(frozen=True)
class Setting:
    """A fit's hyper-parameters that share a compiled program."""

    rate: float = 1e-2
    schedule: str = "cosine"
    l2: float = 0.0
    l1: float = 0.0
    noise: float = 0.0
    seed: int = 0


SCHEDULES = ("constant", "exponential", "cosine", "warm-up, cosine", "one-cycle")


@cache
def schedule_tables(steps: int) -> dict[str, np.ndarray]:
    """The learning rate of every step, the largest 1."""
    schedules: tuple[optax.Schedule, ...] = (
        optax.constant_schedule(1.0),
        optax.exponential_decay(1.0, steps, 1e-3),
        optax.cosine_decay_schedule(1.0, steps),
        optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10 + 1, steps + 1),
        optax.cosine_onecycle_schedule(steps, 1.0),
    )
    tables = jax.jit(lambda n: [jax.vmap(f)(n) for f in schedules])(jnp.arange(steps))
    return dict(zip(SCHEDULES, map(np.asarray, tables), strict=True))


def stacked(settings: list[Setting], steps: int, key: jax.Array) -> dict[str, jax.Array]:
    """Settings as arrays; a schedule becomes the table of its values."""
    tables = schedule_tables(steps)
    columns = {
        name: [getattr(setting, name) for setting in settings] for name in ("l2", "l1", "noise")
    }
    columns["rates"] = [setting.rate * tables[setting.schedule] for setting in settings]
    arrays = {name: jnp.asarray(np.array(x, np.float32)) for name, x in columns.items()}
    return arrays | {"key": jnp.stack([jax.random.fold_in(key, s.seed) for s in settings])}


def adam(setting: dict[str, jax.Array]) -> optax.GradientTransformation:
    return optax.adam(lambda count: setting["rates"][count])
