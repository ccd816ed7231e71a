"""torchdiffeq's row: a batch of trajectories as one state."""

import torch
from _row import CORES, lorenz, once, serve
from torchdiffeq import odeint

torch.set_num_threads(CORES)


def many(data, limit):
    ts, starts = torch.as_tensor(data["ts"]), torch.as_tensor(data["starts"])

    def rates(t, y):
        return torch.stack(lorenz(t, y.unbind(-1)), dim=-1)

    def solve():
        with torch.no_grad():
            return odeint(rates, starts, ts, rtol=1e-10, atol=1e-10, method="dopri8")

    answer, times = once(solve)
    said = "dopri8 with the batch as one state, rtol = atol = 1e-10, no_grad"
    return answer.transpose(0, 1).numpy(), times | {"setting": said}


if __name__ == "__main__":
    serve({"many": many}, "torchdiffeq")
