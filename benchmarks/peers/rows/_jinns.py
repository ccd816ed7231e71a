"""jinns's rows: hard starts, Adam and then its natural gradient, in float64."""

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


def train(params, data, loss, limit):
    """As many steps as the limit allows, by the speed of the first ones."""
    optimizer, spent, compiling, state = optax.adam(1e-3), 0.0, 0.0, None
    steps = 200
    while True:
        start = time.perf_counter()
        found = jinns.solve(
            n_iter=steps, init_params=params, data=data, loss=loss, optimizer=optimizer,
            opt_state=state, verbose=False,
        )  # fmt: skip
        params, data, loss, state = found[0], found[3], found[4], found[5]
        jax.block_until_ready(params)
        took = time.perf_counter() - start
        spent += took
        if spent > 0.9 * limit:
            return params, {"seconds": spent}
        steps = max(1, int(0.8 * (limit - spent) / took * steps))


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
        loss = jinns.loss.LossODE(u=u, dynamic_loss=Equations(), params=params)
        points_ = jinns.data.DataGeneratorODE(
            key=jax.random.key(1), nt=points, tmin=0.0, tmax=t1, method="grid"
        )
        params, times = train(params, points_, loss, limit)
        answer = jax.vmap(lambda t: u(t, params))(jnp.asarray(ts)[:, None])
        said = f"3 x 32 tanh, {points} points, hard start, states scaled, Adam"
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
    loss = jinns.loss.LossPDENonStatio(u=u, dynamic_loss=Burgers(), params=params)
    points = jinns.data.CubicMeshPDENonStatio(
        key=jax.random.key(1), n=2500, nb=None, ni=None, dim=1, min_pts=(-1.0,), max_pts=(1.0,),
        tmin=0.0, tmax=1.0, method="uniform",
    )  # fmt: skip
    params, times = train(params, points, loss, limit)
    at = jnp.stack([jnp.ravel(data["t"]), jnp.ravel(data["x"])], axis=1)
    answer = jax.vmap(lambda t_x: u(t_x, params))(at)
    said = "3 x 20 tanh, 2500 points, hard conditions, Adam"
    return np.asarray(answer).reshape(data["x"].shape), times | {"setting": said}


TASKS = {
    "oscillator": forward(lambda t, y: oscillator(t, y, jnp.cos), (2.0, 2.0), 400),
    "lorenz": forward(lorenz, (20.0, 25.0, 50.0), 600), "burgers": burgers,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "jinns")
