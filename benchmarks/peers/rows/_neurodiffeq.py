"""neurodiffeq's rows: one network a component, its hard start, Adam and then L-BFGS."""

import time

import torch
from _row import CORES, lorenz, oscillator, serve
from neurodiffeq import diff
from neurodiffeq.conditions import IVP
from neurodiffeq.generators import Generator1D
from neurodiffeq.networks import FCNN
from neurodiffeq.solvers import Solver1D

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
torch.set_num_threads(CORES)


class Net(torch.nn.Module):
    """A network of time brought to [-1, 1]."""

    def __init__(self, t1):
        super().__init__()
        self.net, self.t1 = FCNN(1, 1, hidden_units=(32, 32, 32)), t1

    def forward(self, t):
        return self.net(2.0 * t / self.t1 - 1.0)


class Ended(Exception):
    """The time is up."""


def forward(rates, scale, points):
    def task(data, limit):
        ts, y0 = data["ts"], data["y0"] / scale
        t1 = float(ts[-1])

        def residual(*u_and_t):
            *parts, t = u_and_t
            right = rates(t, [s * u for s, u in zip(scale, parts, strict=True)])
            return [diff(u, t) - f / s for u, f, s in zip(parts, right, scale, strict=True)]

        start = time.perf_counter()
        nets = [Net(t1) for _ in scale]
        generator = Generator1D(points, 0.0, t1, method="equally-spaced-noisy")
        solver = None
        for share, make in (
            (0.5, lambda p: torch.optim.Adam(p, lr=1e-3)),
            (1.0, lambda p: torch.optim.LBFGS(p, history_size=50, line_search_fn="strong_wolfe")),
        ):
            end = start + share * limit

            def check(solver, end=end):
                if time.perf_counter() > end:
                    raise Ended

            parameters = [p for net in nets for p in net.parameters()]
            solver = Solver1D(
                residual, [IVP(0.0, float(y)) for y in y0], t_min=0.0, t_max=t1, nets=nets,
                optimizer=make(parameters), train_generator=generator, n_batches_valid=0,
            )  # fmt: skip
            try:
                solver.fit(10**7, callbacks=[check], tqdm_file=None)
            except Ended:
                pass
        seconds = time.perf_counter() - start
        found = solver.get_solution(best=False)(ts, to_numpy=True)
        answer = [[s * float(x) for x in u] for s, u in zip(scale, found, strict=True)]
        said = f"a 3 x 32 tanh network a component, {points} points, hard start, states scaled,"
        said += " Adam then L-BFGS"
        answer = list(zip(*answer, strict=True))
        return answer, {"seconds": seconds, "setting": said}

    return task


TASKS = {
    "oscillator": forward(lambda t, y: oscillator(t, y, torch.cos), (2.0, 2.0), 400),
    "lorenz": forward(lorenz, (20.0, 25.0, 50.0), 600),
}

if __name__ == "__main__":
    serve(TASKS, "neurodiffeq")
