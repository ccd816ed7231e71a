"""PINA's rows: a hard start, Adam and then L-BFGS by its Lightning trainer, in float64."""

import datetime
import time
import warnings

import torch
from _row import CORES, lorenz, oscillator, serve
from pina import Condition, LabelTensor, Trainer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad
from pina.optim import TorchOptimizer
from pina.problem import TimeDependentProblem
from pina.solver import PINN

warnings.filterwarnings("ignore")
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
torch.set_num_threads(CORES)


class Hard(torch.nn.Module):
    """A network that meets the start whatever its weights are."""

    def __init__(self, y0, scale, t1, names):
        super().__init__()
        self.net = FeedForward(1, len(names), layers=[32, 32, 32], func=torch.nn.Tanh)
        self.t1, self.names = t1, names
        self.register_buffer("y0", torch.as_tensor(y0))
        self.register_buffer("scale", torch.as_tensor(scale))

    def forward(self, t):
        raw = t.as_subclass(torch.Tensor)
        y = self.net(2.0 * raw / self.t1 - 1.0)
        return LabelTensor(self.y0 + (1.0 - torch.exp(-raw)) * self.scale * y, self.names)


def forward(rates, names, scale, points):
    def task(data, limit):
        ts, y0 = data["ts"], data["y0"]
        t1 = float(ts[-1])

        def residual(given, found):
            t = given.extract(["t"]).as_subclass(torch.Tensor)
            parts = [found.extract([name]).as_subclass(torch.Tensor) for name in names]
            right = rates(t, parts)
            rows = [
                (grad(found, given, components=[name], d=["t"]).as_subclass(torch.Tensor) - f) / s
                for name, f, s in zip(names, right, scale, strict=True)
            ]
            return torch.cat(rows, dim=1)

        domain = CartesianDomain({"t": [0.0, t1]})
        condition = Condition(domain="D", equation=Equation(residual))
        parts = {
            "output_variables": list(names), "temporal_domain": domain,
            "domains": {"D": domain}, "conditions": {"equation": condition},
        }  # fmt: skip
        problem = type("Problem", (TimeDependentProblem,), parts)()
        problem.discretise_domain(n=points, mode="grid", domains=["D"])
        model = Hard(y0, [float(s) for s in scale], t1, list(names))
        start = time.perf_counter()
        lbfgs = {"lr": 1.0, "max_iter": 20, "history_size": 50, "line_search_fn": "strong_wolfe"}
        for make, options, share in (
            (torch.optim.Adam, {"lr": 1e-3}, 0.5), (torch.optim.LBFGS, lbfgs, 1.0),
        ):  # fmt: skip
            left = start + share * limit - time.perf_counter()
            solver = PINN(problem, model, optimizer=TorchOptimizer(make, **options))
            Trainer(
                solver, max_epochs=-1, max_time=datetime.timedelta(seconds=left),
                accelerator="cpu", precision="64-true", enable_progress_bar=False, logger=False,
                enable_checkpointing=False, enable_model_summary=False,
            ).train()  # fmt: skip
        seconds = time.perf_counter() - start
        with torch.no_grad():
            answer = model(LabelTensor(torch.as_tensor(ts)[:, None], ["t"]))
        said = f"3 x 32 tanh, {points} points, hard start, states scaled, Adam then L-BFGS"
        answer = answer.as_subclass(torch.Tensor).numpy()
        return answer, {"seconds": seconds, "setting": said}

    return task


TASKS = {
    "oscillator": forward(
        lambda t, y: oscillator(t, y, torch.cos), ("x", "v"), (2.0, 2.0), 400
    ),
    "lorenz": forward(lorenz, ("x", "y", "z"), (20.0, 25.0, 50.0), 600),
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "pina-mathlab")
