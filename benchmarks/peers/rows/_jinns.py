"""jinns's rows: hard starts, Adam and then its self-scaled Broyden method, in float64."""

import jax

jax.config.update("jax_enable_x64", True)

import time
import warnings

import equinox as eqx
import jax.numpy as jnp
import jinns
import numpy as np
import optax
from _row import lorenz, oscillator, serve

warnings.filterwarnings("ignore")


def layers(ins, outs, units):
    return (
        (eqx.nn.Linear, ins, units), (jnp.tanh,), (eqx.nn.Linear, units, units), (jnp.tanh,),
        (eqx.nn.Linear, units, units), (jnp.tanh,), (eqx.nn.Linear, units, outs),
    )  # fmt: skip


def callback_loss(params, loss, batch):
    """The loss alone, for a line search."""
    return loss.evaluate(params, batch)[0]


def callback_slope(params, loss, batch):
    """The gradient of the loss."""
    return jax.grad(lambda params: loss.evaluate(params, batch)[0])(params)


def variables(**names):
    return {key: jinns.solver.GetJinnsVariableName(name) for key, name in names.items()}


# What the line search is given, by the names that jinns has for it.
EXTRA = variables(value="train_loss_value", grad_pt="grads", loss="loss", batch="batch")
EXTRA |= {"value_fn": callback_loss, "grad_fn": callback_slope}


def train(params, data, loss, limit):
    """A third of the limit by Adam, the rest by self-scaled Broyden, by the speed of few steps."""
    begin = time.perf_counter()
    broyden = jinns.optimizers.scale_by_SSBroyden_family()
    for optimizer, extra, end in (
        (optax.adam(1e-3), None, limit / 3), (broyden, EXTRA, limit),
    ):  # fmt: skip
        state, steps = None, 100
        while True:
            start = time.perf_counter()
            found = jinns.solve(
                n_iter=steps, init_params=params, data=data, loss=loss, optimizer=optimizer,
                opt_state=state, verbose=False, extra_optax_args_and_kwargs=extra,
            )  # fmt: skip
            params, data, loss, state = found[0], found[3], found[4], found[5]
            jax.block_until_ready(params)
            took, left = time.perf_counter() - start, begin + end - time.perf_counter()
            if left < 0.15 * end:
                break
            steps = int(max(100, 0.5 * left / took * steps))
    return params, {"seconds": time.perf_counter() - begin}


def forward(rates, scale, points):
    def task(data, limit):
        ts, y0, scales = data["ts"], jnp.asarray(data["y0"]), jnp.asarray(scale)
        t1 = float(ts[-1])

        class Equations(jinns.loss.ODE):
            def equation(self, t, u, params):
                y, slope = jax.jvp(lambda t: u(t, params), (t,), (jnp.ones_like(t),))
                return (slope - jnp.stack(rates(t[0], y))) / scales

        u, start = jinns.nn.PINN_MLP.create(
            key=jax.random.key(0), eqx_list=layers(1, len(scale), 32), eq_type="ODE",
            input_transform=lambda t, params: 2.0 * t / t1 - 1.0,
            output_transform=lambda t, y, params: y0 + (1.0 - jnp.exp(-t)) * scales * y,
        )  # fmt: skip
        params = jinns.parameters.Params(nn_params=start, eq_params={})
        loss = jinns.loss.LossODE(
            u=u,
            dynamic_loss=Equations(),
            params=params,
            loss_weights=jinns.loss.LossWeightsODE(dyn_loss=1.0),
        )
        points_ = jinns.data.DataGeneratorODE(
            key=jax.random.key(1), nt=points, tmin=0.0, tmax=t1, method="grid"
        )
        params, times = train(params, points_, loss, limit)
        answer = jax.vmap(lambda t: u(t, params))(jnp.asarray(ts)[:, None])
        said = f"3 x 32 tanh, {points} points, hard start, states scaled, Adam, then SSBroyden"
        return np.asarray(answer), times | {"setting": said}

    return task


def burgers(data, limit):
    viscosity = float(data["viscosity"])

    class Burgers(jinns.loss.PDENonStatio):
        def equation(self, t_x, u, params):
            def value(t_x):
                return u(t_x, params)[0]

            along = jnp.array([0.0, 1.0])
            slope = jax.grad(value)
            u_xx = jax.jvp(slope, (t_x,), (along,))[1][1]
            u_t, u_x = slope(t_x)
            return jnp.array([u_t + value(t_x) * u_x - viscosity * u_xx])

    def hard(t_x, y, params):
        return -jnp.sin(jnp.pi * t_x[1:2]) + (1.0 - t_x[1:2] ** 2) * t_x[:1] * y

    u, start = jinns.nn.PINN_MLP.create(
        key=jax.random.key(0),
        eqx_list=layers(2, 1, 20),
        eq_type="PDENonStatio",
        output_transform=hard,
    )
    params = jinns.parameters.Params(nn_params=start, eq_params={})
    loss = jinns.loss.LossPDENonStatio(
        u=u,
        dynamic_loss=Burgers(),
        params=params,
        loss_weights=jinns.loss.LossWeightsPDENonStatio(dyn_loss=1.0),
    )
    points = jinns.data.CubicMeshPDENonStatio(
        key=jax.random.key(1), n=2500, nb=None, ni=None, dim=1, min_pts=(-1.0,), max_pts=(1.0,),
        tmin=0.0, tmax=1.0, method="uniform",
    )  # fmt: skip
    params, times = train(params, points, loss, limit)
    at = jnp.stack([jnp.ravel(data["t"]), jnp.ravel(data["x"])], axis=1)
    answer = jax.vmap(lambda t_x: u(t_x, params))(at)
    said = "3 x 20 tanh, 2500 points, hard conditions, Adam, then SSBroyden"
    return np.asarray(answer).reshape(data["x"].shape), times | {"setting": said}


TASKS = {
    "oscillator": forward(lambda t, y: oscillator(t, y, jnp.cos), (2.0, 2.0), 400),
    "lorenz": forward(lorenz, (20.0, 25.0, 50.0), 600), "burgers": burgers,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "jinns")
