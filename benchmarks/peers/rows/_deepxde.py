"""DeepXDE's rows: hard starts where they are known, Adam and then L-BFGS, in float64."""

import os
import time

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import numpy as np
import torch
from _row import CORES, lorenz, oscillator, serve

dde.config.set_default_float("float64")
dde.config.set_random_seed(0)
torch.set_num_threads(CORES)
MANY = 10**7  # steps: time ends the training


class Until(dde.callbacks.Callback):
    """End a training at a time."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def on_epoch_end(self):
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def train(data, net, limit, share, rate=1e-3, variables=()):
    """A share of the limit for Adam, and the rest for L-BFGS."""
    options = {"external_trainable_variables": list(variables)} if variables else {}
    start = time.perf_counter()
    model = dde.Model(data, net)
    model.compile("adam", lr=rate, **options)
    end = start + share * limit
    model.train(iterations=MANY, display_every=MANY, verbose=0, callbacks=[Until(end)])
    if share < 1.0:
        dde.optimizers.config.set_LBFGS_options(maxiter=MANY, ftol=0, gtol=0)
        # Each call of the optimizer is one look at the clock.
        dde.optimizers.config.LBFGS_options["iter_per_step"] = 50
        dde.optimizers.config.LBFGS_options["fun_per_step"] = 62
        model.compile("L-BFGS", **options)
        model.train(display_every=MANY, verbose=0, callbacks=[Until(start + limit)])
    return model, time.perf_counter() - start


def network(ins, outs, units=32, layers=3):
    return dde.nn.FNN([ins] + [units] * layers + [outs], "tanh", "Glorot uniform")


def forward(rates, scale, points=400):
    def task(data, limit):
        ts, y0 = data["ts"], torch.as_tensor(data["y0"])
        t1, scales = float(ts[-1]), torch.as_tensor(np.asarray(scale))

        def residual(t, y):
            parts = [y[:, i : i + 1] for i in range(len(scale))]
            right = rates(t, parts)
            return [(dde.grad.jacobian(y, t, i=i) - right[i]) / scale[i] for i in range(len(scale))]

        net = network(1, len(scale))
        net.apply_feature_transform(lambda t: 2.0 * t / t1 - 1.0)
        net.apply_output_transform(lambda t, y: y0 + (1.0 - torch.exp(-t)) * scales * y)
        domain = dde.geometry.TimeDomain(0.0, t1)
        points_ = dde.data.PDE(
            domain, residual, [], num_domain=points, num_boundary=2, train_distribution="uniform"
        )
        model, seconds = train(points_, net, limit, 0.5)
        said = f"3 x 32 tanh, {points} points, hard start, states scaled, Adam then L-BFGS"
        return model.predict(ts[:, None]), {"seconds": seconds, "setting": said}

    return task


def inverse(data, limit):
    ts, ys, guess = data["ts"], data["ys"], data["guess"]
    unknowns = [dde.Variable(float(x)) for x in guess[:3]]
    scale, t1 = np.abs(ys).max(axis=0), float(ts[-1])
    scales = torch.as_tensor(scale)

    def residual(t, y):
        sigma, rho, beta = unknowns
        u, v, w = (y[:, i : i + 1] for i in range(3))
        right = [sigma * (v - u), u * (rho - w) - v, u * v - beta * w]
        return [(dde.grad.jacobian(y, t, i=i) - right[i]) / scale[i] for i in range(3)]

    seen = [dde.icbc.PointSetBC(ts[:, None], ys[:, i : i + 1], component=i) for i in range(3)]
    net = network(1, 3)
    net.apply_feature_transform(
        lambda t: torch.cat([torch.sin(k * np.pi * t / t1) for k in range(1, 9)] + [t / t1], dim=1)
    )
    net.linears[0] = torch.nn.Linear(9, 32, dtype=torch.float64)
    net.apply_output_transform(lambda t, y: scales * y)
    points = dde.data.PDE(
        dde.geometry.TimeDomain(0.0, t1), residual, seen, num_domain=400, num_boundary=2,
        anchors=ts[:, None],
    )  # fmt: skip
    _, seconds = train(points, net, limit, 0.7, variables=unknowns)
    said = "3 x 32 tanh on sines of t, states scaled, Adam then L-BFGS, start from the data"
    return [float(x) for x in unknowns], {"seconds": seconds, "setting": said}


def pelts(data, limit):
    ts, ys = data["ts"], data["ys"]
    logs = [dde.Variable(float(x)) for x in np.log(data["guess"])]
    t1 = float(ts[-1])

    def residual(t, z):  # in logarithms, as the noise is
        alpha, beta, gamma, delta = (torch.exp(x) for x in logs)
        u, v = z[:, :1], z[:, 1:]
        return [
            dde.grad.jacobian(z, t, i=0) - alpha + beta * torch.exp(v),
            dde.grad.jacobian(z, t, i=1) + gamma - delta * torch.exp(u),
        ]

    observed = np.log(ys)
    seen = [dde.icbc.PointSetBC(ts[:, None], observed[:, i : i + 1], component=i) for i in range(2)]
    net = network(1, 2)
    net.apply_feature_transform(
        lambda t: torch.cat([torch.sin(k * np.pi * t / t1) for k in range(1, 9)] + [t / t1], dim=1)
    )
    net.linears[0] = torch.nn.Linear(9, 32, dtype=torch.float64)
    net.apply_output_transform(lambda t, y: 2.5 + y)
    points = dde.data.PDE(
        dde.geometry.TimeDomain(0.0, t1), residual, seen, num_domain=200, num_boundary=2
    )
    _, seconds = train(points, net, limit, 0.7, variables=logs)
    said = "3 x 32 tanh on sines of t, all in logarithms, Adam then L-BFGS"
    return np.exp([float(x) for x in logs]), {"seconds": seconds, "setting": said}


def burgers(data, limit):
    viscosity = float(data["viscosity"])

    def residual(x, u):
        u_t = dde.grad.jacobian(u, x, i=0, j=1)
        u_x = dde.grad.jacobian(u, x, i=0, j=0)
        return u_t + u * u_x - viscosity * dde.grad.hessian(u, x, i=0, j=0)

    domain = dde.geometry.GeometryXTime(
        dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0.0, 1.0)
    )
    points = dde.data.TimePDE(domain, residual, [], num_domain=2540)
    net = network(2, 1, units=20)

    def hard(x, y):
        return -torch.sin(np.pi * x[:, :1]) + (1.0 - x[:, :1] ** 2) * x[:, 1:] * y

    net.apply_output_transform(hard)
    model, seconds = train(points, net, limit, 0.5)
    at = np.stack([data["x"].ravel(), data["t"].ravel()], axis=1)
    said = "3 x 20 tanh, 2540 points, hard conditions, Adam then L-BFGS"
    answer = model.predict(at).reshape(data["x"].shape)
    return answer, {"seconds": seconds, "setting": said}


TASKS = {
    "oscillator": forward(lambda t, y: oscillator(t, y, torch.cos), (2.0, 2.0)),
    "lorenz": forward(lorenz, (20.0, 25.0, 50.0), 600),
    "inverse": inverse, "pelts": pelts, "burgers": burgers,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "deepxde")
