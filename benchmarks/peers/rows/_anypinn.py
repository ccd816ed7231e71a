"""AnyPINN's rows: its Lorenz and Lotka-Volterra examples on our data, in float64."""

import typing

import typing_extensions

if not hasattr(typing, "override"):  # Python 3.11 has not what AnyPINN takes from there
    setattr(typing, "override", typing_extensions.override)  # noqa: B010

import datetime
import time
import warnings

import numpy as np
import torch
from _row import CORES, serve
from anypinn.core import (
    Field,
    FieldsRegistry,
    GenerationConfig,
    MLPConfig,
    Parameter,
    ParamsRegistry,
    PINNDataModule,
    ReduceLROnPlateauConfig,
    ScalarConfig,
)
from anypinn.lightning import PINNModule
from anypinn.lightning.callbacks import DataScaling
from anypinn.problems import ODEHyperparameters, ODEInverseProblem, ODEProperties
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore")
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
torch.set_num_threads(CORES)


class Observed(PINNDataModule):
    """Data that were measured, in place of data that the package draws."""

    def __init__(self, hyper, ts, ys, callbacks):
        super().__init__(hyper, None, callbacks)
        self.seen = torch.as_tensor(ts)[:, None], torch.as_tensor(ys)[:, :, None]

    def gen_data(self, config):
        return self.seen

    def train_dataloader(self):  # the package's own starts processes, which costs more than a step
        return DataLoader(self.pinn_ds, batch_size=None)


def identify(rates, names, scale):
    def task(data, limit):
        ts, ys, guess = data["ts"], data["ys"], data["guess"][: len(names)]
        span, states = float(ts[-1]), [f"y{i}" for i in range(ys.shape[1])]
        hyper = ODEHyperparameters(
            lr=1e-3, max_epochs=100_000, gradient_clip_val=0.5, criterion="huber",
            training_data=GenerationConfig(
                batch_size=100, data_ratio=2, collocations=8000,
                collocation_sampler="latin_hypercube", x=torch.as_tensor(ts), args_to_train={},
                noise_level=0,
            ),
            fields_config=MLPConfig(
                in_dim=1, out_dim=1, hidden_layers=[64, 128, 128, 64], activation="tanh",
                output_activation=None,
                encode=torch.Tensor.double,  # the initial time is float32 whatever is set
            ),
            params_config=ScalarConfig(init_value=1.0),
            scheduler=ReduceLROnPlateauConfig(
                mode="min", factor=0.5, patience=55, threshold=5e-3, min_lr=1e-6
            ),
            pde_weight=1e-3, ic_weight=10, data_weight=5,
        )  # fmt: skip

        def scaled(x, y, args):  # states over `scale`, time over `span`, parameters over guesses
            p = [g * args[name](x) for g, name in zip(guess, names, strict=True)]
            right = rates([scale * each for each in y], p)
            return torch.stack([span / scale * each for each in right])

        def predicted(x, fields, params):
            return torch.stack([fields[name](x) for name in states], dim=1)

        problem = ODEInverseProblem(
            props=ODEProperties(ode=scaled, y0=torch.as_tensor(ys[0]) / scale, args={}),
            hp=hyper, predict_data=predicted,
            fields=FieldsRegistry({name: Field(config=hyper.fields_config) for name in states}),
            params=ParamsRegistry({n: Parameter(config=hyper.params_config) for n in names}),
        )  # fmt: skip
        scaling = DataScaling(y_scale=[1 / scale] * len(states))
        module = PINNModule(problem=problem, hp=hyper)
        start = time.perf_counter()
        Trainer(
            max_epochs=hyper.max_epochs, gradient_clip_val=hyper.gradient_clip_val,
            max_time=datetime.timedelta(seconds=limit), precision="64-true", accelerator="cpu",
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, Observed(hyper, ts, ys, [scaling]))  # fmt: skip
        seconds = time.perf_counter() - start
        at = torch.zeros(1, 1)
        found = [
            g * float(problem.params[name](at).detach().ravel()[0])
            for g, name in zip(guess, names, strict=True)
        ]
        said = "the settings of its Lorenz example: fields of 64, 128, 128 and 64 tanh, Adam"
        return np.array(found), {"seconds": seconds, "setting": said}

    return task


def lorenz(y, p):
    return [p[0] * (y[1] - y[0]), y[0] * (p[1] - y[2]) - y[1], y[0] * y[1] - p[2] * y[2]]


def hares(y, p):
    return [(p[0] - p[1] * y[1]) * y[0], (p[3] * y[0] - p[2]) * y[1]]


TASKS = {
    "inverse": identify(lorenz, ("sigma", "rho", "beta"), 20.0),
    "pelts": identify(hares, ("alpha", "beta", "gamma", "delta"), 50.0),
}

if __name__ == "__main__":
    serve(TASKS, "anypinn")
