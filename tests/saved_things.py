"""One of every class that a user keeps, and what it answers: here and in a fresh process."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

if __name__ == "__main__":  # before the first array
    jax.config.update("jax_enable_x64", True)
    # What the tests have compiled, for two devices, is not compiled again for one.
    jax.config.update("jax_num_cpu_devices", 2)

import saved_kinds
from saved_kinds import ROWS, decay, lorenz_trajectories, rngs

from physml import bayes, classify, data, fit, generative, nn, pinn, reference, surrogate, systems
from physml.solution import Solution
from physml.step_maps import StepMap

TIMES = jnp.linspace(0.05, 0.95, 7)


def heat(u, x, t):
    return u.t(x, t) - u.xx(x, t)


def start(u, x, t):
    return u(x, t) - jnp.sin(jnp.pi * x)


def edge(u, *point):
    return u(*point)


def conducting(u, x, t, args):
    return u.t(x, t) - args["k"] * u.xx(x, t)


def plate(u, x, y, t):
    return u.t(x, y, t) - u.xx(x, y, t) - u.yy(x, y, t)


def hill(u, x, y, t):
    return u(x, y, t) - jnp.sin(jnp.pi * x) * jnp.sin(jnp.pi * y)


def constrained(t, y, args):
    return [-y[0] + y[1], y[0] - 2 * y[1], y[2]]


def growth(t, y, args):
    return y


def turning(t, y):
    return {"z": 1j * y["z"]}


def misfit(model, batch, key):
    return model(batch) - batch**2


def small():
    """What is made in no time."""
    cnn_layers = [
        nn.Filters(2, batch_norm=True), nn.Pool(), nn.Dropout(0.1), nn.Dense(3)
    ]  # fmt: skip
    yield "mlp", nn.MLP(3, (4,), 3, activation="sin", rngs=rngs())
    yield "frozen", nn.MLP.frozen(ROWS, 10, 3, rngs=rngs())
    yield from (
        (cell, nn.RNN(cell, 3, (4, 3), 3, rngs=rngs())) for cell in ("simple", "gru", "lstm")
    )
    yield "frozen rnn", nn.RNN.frozen("gru", ROWS, 6, 3, rngs=rngs())
    yield "cnn", nn.CNN((6, 6, 1), cnn_layers, 2, rngs=rngs())
    yield (
        "features",
        nnx.Sequential(nn.FourierFeatures(3, 4, rngs=rngs()), nn.MLP(8, (), 3, rngs=rngs())),
    )
    yield "regularised", nn.Regularised(nn.MLP(3, (), 1, rngs=rngs()), l2=0.5)
    yield "bfloat16", nn.MLP(3, (4,), 3, dtype=jnp.bfloat16, rngs=rngs())
    yield "float32", nn.MLP(3, (4,), 3, dtype=jnp.float32, rngs=rngs())
    for system in (
        systems.Lorenz(rho=20.0), systems.Rossler(), systems.LotkaVolterra(), systems.Lorenz96(),
        systems.DrivenOscillator(), systems.DrivenOscillator(forcing=systems.SquareWave()),
    ):  # fmt: skip
        yield f"{type(system).__name__} {system.period}", system
    yield "flow map", reference.FlowMap(systems.Lorenz(), 0.05)
    yield "diffrax step", reference.RungeKutta4(systems.Rossler(), 0.05)
    yield "standardiser", data.Standardiser.fit(ROWS)
    pixels = np.random.default_rng(0).uniform(size=(4, 6, 6, 1))
    images = data.Images.from_arrays(pixels, [0, 1, 0, 1])
    yield "images", images
    yield "autoencoder", nn.Autoencoder.dense(3, (4,), 2, rngs=rngs())
    yield "variational", nn.Variational(nn.Autoencoder.dense(3, (), 2, rngs=rngs()), rngs=rngs())
    yield "decoder", nn.ImageDecoder(3, (4, 4, 1), (3,), rngs=rngs())
    yield "kernels", saved_kinds.settings_of_processes()
    yield "settings", saved_kinds.settings_of_fits()
    yield "pairs", data.Pairs(ROWS, ROWS, ROWS[:, 0])
    yield "windows", data.Windows(ROWS[None], ROWS[:1, 0])
    yield "evaluation", classify.evaluate(np.full((4, 2), 0.5), images)


def large():
    """What takes its time."""
    lorenz, trajectories = systems.Lorenz(), lorenz_trajectories()
    y0, ts = jnp.ones(3), jnp.linspace(0.0, 1.0, 11)
    options = dict(optimizer=optax.adam(1e-2), key=jax.random.key(0), steps=4, batch_size=16)
    yield "trajectories", trajectories
    yield "truth", reference.solve(lorenz, y0, ts)
    yield "certified", reference.solve(lorenz, y0, ts, certify=True)
    yield "stiff", reference.solve(lorenz, y0, ts, stiff=True)
    yield "driven", reference.solve(systems.DrivenOscillator(), y0[:2], ts)
    solve = jax.vmap(lambda y: reference.solve(lorenz, y, ts, throw=False, max_steps=64))
    yield "truths", solve(jnp.stack([y0, 2 * y0]))
    yield "solution", pinn.solve(lorenz, y0, t1=1.0)
    yield "networks", pinn.solve(lorenz, y0, t1=1.0, correct=False)
    reaction = systems.with_mass(constrained, np.diag([1.0, 0.0, 0.0]))
    yield "constrained", pinn.solve_constrained(reaction, [1.0, 0.5, 0.0], t1=1.0)
    yield "tree backwards", pinn.solve(turning, {"z": 1.0 + 0j}, t1=0.0, t0=1.0)
    yield "float32 solution", pinn.solve(lorenz, y0.astype(jnp.float32), t1=1.0)
    solve = jax.vmap(lambda y: pinn.solve(lorenz, y, t1=1.0))
    yield "solutions", solve(jnp.stack([y0, 2 * y0]))
    for map_ in ("flow", "network"):
        network = nn.MLP(3, (5,), 3, rngs=rngs())
        known = lorenz if map_ == "flow" else None
        fitted = surrogate.fit(
            network, trajectories, symmetry=lorenz.symmetry, known=known, **options
        )
        yield f"stepper fit {map_}", fitted
    yield (
        "recurrent stepper",
        surrogate.fit_readout(nn.RNN.frozen("gru", ROWS, 6, 3, rngs=rngs()), trajectories),
    )
    network = nn.MLP(1, (6,), 2, activation="sin", rngs=rngs())
    yield "training", pinn.train(network, systems.DrivenOscillator(), [1.0, 0.0], t1=1.0)
    x = jnp.linspace(-1.0, 1.0, 8)[:, None]
    network = nn.MLP(1, (4,), 1, rngs=rngs())
    yield "least squares", fit.least_squares(misfit, nn.MLP(1, (), 1, rngs=rngs()), x)
    yield "projection", fit.variable_projection(misfit, network, x, steps=3)
    yield (
        "sweep",
        fit.sweep(
            fit.mean_square(misfit),
            lambda s: nn.MLP(1, (4,), 1, rngs=nnx.Rngs(s["key"])),
            x,
            settings={"rate": jnp.array([1e-3, 1e-2]), "key": jax.random.split(jax.random.key(0))},
            optimizer=lambda s: optax.adam(s["rate"]),
            steps=4,
        ),
    )


def heavy():
    """What takes longest."""
    ts = np.linspace(0.0, 2.0, 50)
    ys = np.exp(-1.3 * ts)[:, None] + 0.01 * np.random.default_rng(0).standard_normal((50, 1))
    guess = systems.from_function(decay, 1, args={"k": 1.0})
    identified = pinn.identify(guess, ts, ys, free=("k",))
    yield "identified", identified
    yield "profile", pinn.profile(identified, "k", num=5)
    ts = np.linspace(0.0, 6.0, 100)
    noise = 0.001 * np.random.default_rng(0).standard_normal((100, 1))
    ys = 1 / (1 + 9 * np.exp(-ts))[:, None] + noise
    growing = systems.from_function(growth, 1, state_names=("y",))
    options = dict(component=0, degree=2, units=10, key=jax.random.key(0))
    yield "discovery", pinn.discover(growing, ts, ys, **options)
    yield (
        "field",
        pinn.pde(
            heat,
            {"x": (0.0, 1.0), "t": (0.0, 0.1)},
            {("t", 0.0): start, ("x", 0.0): edge, ("x", 1.0): edge},
        ),
    )
    square = {"x": (0.0, 1.0), "y": (0.0, 1.0), "t": (0.0, 0.05)}
    faces = {(name, end): edge for name in "xy" for end in (0.0, 1.0)}
    yield "plate", pinn.pde(plate, square, {("t", 0.0): hill} | faces, rtol=1e-3)
    faces = {("x", end): edge for end in (0.0, 1.0)}
    rod = {"x": (0.0, 1.0), "t": (0.0, 1.0)}, {("t", 0.0): start} | faces
    yield "rod", pinn.on_grid(conducting, *rod, args={"k": 1.0}, points=6)
    box = jnp.array([[0.5, 0.5], [1.5, 1.5]])
    options = dict(parameters={"gamma": (0.1, 0.3)}, key=jax.random.key(0))
    yield "bundle", pinn.bundle(systems.DrivenOscillator(), box, 1.0, **options)


OWN = {"heat": heat, "growth": growth, "turning": turning} | saved_kinds.OWN
OWN |= {"plate": plate, "hill": hill, "edge": edge, "start": start, "conducting": conducting}
"""What `load` is handed for them."""

MORE = (saved_kinds.equations, saved_kinds.statistics, saved_kinds.beliefs, saved_kinds.made)
"""What else there is to save."""


def answers(thing):
    """What a thing says when it is asked, as arrays."""
    return [_bits(x) for x in jax.tree.leaves(_answers(thing)) if eqx.is_array(x)]


def _bits(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def _answers(thing):
    match thing:
        case nn.Regularised():
            return thing(ROWS), thing.penalty()
        case nn.RNN():
            return thing(thing.initial_carry((12,)), ROWS)
        case nn.CNN():
            nn.set_evaluation(thing)
            return thing(jnp.ones((2, *thing.in_shape)))
        case nnx.Module():
            return thing(ROWS.astype(jax.tree.leaves(nnx.state(thing, nnx.Param))[0].dtype))
        case systems.System():
            return thing(0.3, jnp.arange(1.0, thing.dim + 1))
        case StepMap():
            history = jnp.ones((2, 3))
            return thing.observe(thing.step(thing.init(history, 0.0)))
        case data.Standardiser():
            return thing(ROWS), thing.inverse(ROWS)
        case data.Images() | data.Trajectories():
            return thing[0]
        case Solution() if thing.t0.ndim:
            return jax.vmap(lambda s: asked(s, jnp.linspace(0.05, 0.3, 3, dtype=s.ts.dtype)))(thing)
        case Solution():
            return asked(thing, TIMES.astype(thing.ts.dtype))
        case surrogate.StepperFit():
            return _answers(thing.step_map), _answers(thing.before_refit), thing.training
        case pinn.Training():
            return _answers(thing.solution), thing.losses
        case fit.Sweep():
            return thing[1].model(jnp.ones((3, 1))), thing.history
        case fit.Fit():
            return thing.model(jnp.ones((3, 1))), thing.history
        case pinn.Identified():
            solutions = [_answers(run.solution) for run in thing.experiments]
            return solutions, thing.values, thing.intervals()
        case pinn.Discovery():
            return thing.term(jnp.ones((2, 1))), _answers(thing.found), thing.coefficients
        case pinn.PDESolution():
            return (
                thing(0.3, 0.05),
                thing.derivative("xx", 0.5, 0.1),
                thing.error_estimate(0.3, 0.1),
            )
        case pinn.BoxSolution():
            return thing(0.3, 0.4, 0.02), thing.error_estimate(0.3, 0.4, 0.02)
        case pinn.OnGrid():
            return thing.system(0.0, thing.start), thing.at(x=[0.3])(thing.start)
        case pinn.Bundle():
            asked_at = 0.7, jnp.ones(2), {"gamma": 0.2}
            return thing(*asked_at), thing.error_estimate(*asked_at)
        case bayes.NetworkBelief() | bayes.SampledNetwork() | generative.Codec():
            return thing, _answer_of(thing)
        case pinn.EventSolution():
            return thing, _answers(thing.solution)
        case classify.Evaluation():
            return vars(thing)
        case _:
            return thing


def _answer_of(thing):
    """What a belief predicts, and what a code gives back."""
    match thing:
        case generative.Codec():
            return thing(ROWS[:, : thing.mean.shape[0]])
        case _:
            return thing.predict(jnp.ones((2, 1)))


def asked(solution, times):
    """A solution's values, slopes and, where it has one, its error estimate."""
    found = [solution(times), solution.derivative(times)]
    return [*found, solution.error_estimate(times)] if solution.error is not None else found


if __name__ == "__main__":  # the fresh process: python saved_things.py FOLDER
    import physml

    for folder in sorted(Path(sys.argv[1]).iterdir()):
        thing = physml.load(folder, functions=OWN)
        np.savez(folder / "answers.npz", *answers(thing))
