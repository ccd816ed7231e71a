"""What the Lorenz benchmarks share: the system, the lecture's data, and how climates are taken."""

import jax
import numpy as np

from physml import data, dynamics, reference, systems
from physml.step_maps import StepMap

DT = 0.01
HISTORY = 101  # true rows before a forecast; a recurrent network is warmed up on them
LORENZ = systems.Lorenz()
LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time


def lecture_data(key: jax.Array, num: int = 100) -> data.Trajectories:
    """The lecture's trajectories: starts uniform in [-15, 15]^3, 800 steps of 0.01."""
    return reference.trajectories(LORENZ, key, num, DT * np.arange(801))


def measure_climate(
    step_map: StepMap, history: jax.Array, num_steps: int, rows: jax.Array
) -> dynamics.Climate:
    """The climate of rollouts, counted in cells over the range of true rows and 5 % around it."""
    low, high = np.asarray(rows.min(axis=(0, 1))), np.asarray(rows.max(axis=(0, 1)))
    margin = 0.05 * (high - low)
    bounds = low - margin, high + margin
    return dynamics.measure_climate(
        step_map, history, num_steps, bounds=bounds, chunk=min(20_000, num_steps)
    )
