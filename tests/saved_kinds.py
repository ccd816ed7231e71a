"""What `saved_things` is made of beyond networks, solutions and fits: other equations, beliefs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import (
    bayes,
    classify,
    dynamics,
    fit,
    generative,
    nn,
    noises,
    pinn,
    reference,
    surrogate,
    systems,
)

ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))
STARTS = np.random.default_rng(1).normal(size=(4, 3)) + 5.0


def decay(t, y, args):
    return -args["k"] * y


def arch(t, y, args):
    return [y[1], -args["strength"] * jnp.exp(y[0])]


def held(start, end, args=None):
    return [start[0], end[0]]


def fall(t, y, args):
    return jnp.stack([y[1], -9.81 + 0 * y[0]])


def height(t, y, args):
    return y[0]


def bounce(t, y, args):
    return y * jnp.array([0.0, -0.9])


def late(t, y, past, args):
    return -args["k"] * past[0]


def spring(t, x, v, args):
    return -x


def reaction(t, y, rate, args):
    return [rate[0] + y[0], y[1] - y[0]]


def oscillator(p):
    return 2 * p["gamma"], p["omega0"] ** 2


def triangle(t):
    return jnp.abs(t % 2.0 - 1.0)


def rngs():
    return nnx.Rngs(0)


def lorenz_trajectories():
    return reference.trajectories_from(systems.Lorenz(), STARTS, 0.05 * np.arange(21))


def settings_of_processes():
    """Kernels, solvers, noises and what they say."""
    kernels = bayes.RBF(2.0) + bayes.Constant(1.0) * bayes.Matern(1.5) + bayes.Linear()
    kernels = [kernels, bayes.Periodic(), bayes.RationalQuadratic()]
    solvers = [bayes.Exact(), bayes.Inducing(3), bayes.Quasiseparable()]
    laws = [noises.NormalNoise(0.1), noises.LogNormalNoise(), noises.PoissonNoise()]
    laws += [noises.StudentNoise(5.0)]
    return kernels, solvers, laws, laws[0].whiten(ROWS, ROWS + 0.1, jnp.asarray(0.1))


def settings_of_fits():
    """What a fit is told: points, weights, schedules, objectives, augmentation."""
    points = [pinn.Even(20), pinn.Resampled(30)]
    weights = [pinn.Fixed(2.0), pinn.GradientNorm(), pinn.RandomLookback(), pinn.Scales(1.0, 2.0)]
    rates = [fit.Cosine(0.1, 100), fit.OneCycle(0.1, 100), fit.VariableProjection(0.1)]
    games = [generative.NonSaturating(), generative.Relativistic(), generative.Wasserstein()]
    layers = [nn.Filters(2), nn.Pool(), nn.Dropout(0.1), nn.Dense(3)]
    return points, weights, rates, games, layers, classify.Augmentation(shift=1, flip=True)


def equations():
    """Boundary values, events, delays, constraints, and what is written in other ways."""
    rod = systems.from_function(arch, 2, args={"strength": 2.0})
    options = dict(parameter="strength", within=(1.9, 2.1))
    yield "branch", pinn.follow_branch(rod, held, 0.0, 1.0, **options)
    yield "boundary", pinn.solve_boundary(rod, held, 0.0, 1.0)
    yield "orbit", pinn.periodic_orbit(systems.VanDerPol(), [2.0, 0.0], 6.6)
    falling = systems.from_function(fall, 2)
    event = pinn.Event(height, bounce)
    ball = pinn.solve_events(falling, [1.0, 0.0], 1.0, event)
    yield "events", ball
    yield "event", event
    yield "roots", pinn.find_roots(ball.solution, height)
    delayed = systems.delayed(late, 1.0, args={"k": 1.0})
    yield "delays", pinn.solve_delays(delayed, jnp.ones(1), 2.0)
    known = [systems.MackeyGlass(), systems.IkedaDelay(), systems.PiecewiseCircuit()]
    yield "delayed", [*known, systems.ScrollDelay(), systems.SprottDelay(), systems.VossDelay()]
    mass = systems.implicit(reaction, 2)
    yield "constrained implicitly", pinn.solve_constrained(mass, [1.0, 1.0], t1=1.0)
    yield "implicit", mass
    yield "consistent", pinn.consistent_start(mass, [1.0, 0.0], fixed=[0])
    twice = systems.second_order(spring)
    yield "second order", pinn.solve(twice, (1.0, 0.0), t1=1.0)
    yield "higher order", twice
    forces = [systems.FourierSeries(1.0, [1.0], [0.5], 2.0), systems.Cosine(1.0, 2.0)]
    forces += [systems.FunctionForcing(triangle, 2.0)]
    oscillators = [systems.Duffing(), systems.Pendulum(), systems.VanDerPol()]
    yield "other systems", [*oscillators, *(systems.Pendulum(forcing=f) for f in forces)]
    yield "parametric", systems.with_parameters(systems.Lorenz(), rho=(20.0, 30.0))
    yield "table", systems.Table([0.0, 1.0], [1.0, 2.0])
    yield "taylor", reference.TaylorFlow.create(systems.Lorenz(), 0.05)
    ts = np.linspace(0.0, 2.0, 20)
    runs = [pinn.Experiment(ts, y * np.exp(-1.3 * ts)[:, None], y0=[y]) for y in (1.0, 2.0)]
    guess = systems.from_function(decay, 1, args={"k": 1.0})
    yield "measured", runs
    yield "experiments", pinn.identify(guess, runs, free=("k",))
    ys = np.exp(-1.3 * ts)[:, None] + 0.01 * np.sin(99 * ts)[:, None]
    found = pinn.identify(guess, ts, ys, free=("k",))
    options = dict(key=jax.random.key(0), method="laplace", num_draws=50, num_chains=1)
    belief = bayes.posterior(found, **options)
    yield "laplace", [belief, bayes.leave_one_out(belief), bayes.compare({"decay": belief})]


def statistics():
    """What is measured of step maps and forecasts."""
    trajectories = lorenz_trajectories()
    flow = reference.RungeKutta4(systems.Lorenz(), 0.05)
    bounds = ((-30.0, -40.0, -10.0), (30.0, 40.0, 60.0))
    climate = dynamics.pool_climate([trajectories.ys], 0.05, bounds=bounds, segment=10)
    scale = jnp.ones(3)
    yield "climate", [climate, dynamics.climate_distances(climate, climate)]
    options = dict(num=2, transient=2)
    yield "spectrum", dynamics.lyapunov_spectrum(flow, trajectories.ys[0, :1], 8, **options)
    ys = trajectories.ys
    stepper = surrogate.fit_readout(nn.MLP.frozen(ROWS, 10, 3, rngs=rngs()), trajectories)
    yield "state", stepper.step_map.init(ys[0, :1], 0.0)
    yield "scores of many", surrogate.Scores(ROWS[:, 0], ROWS, ROWS[None])
    yield "skill", dynamics.forecast_skill(flow, ys, scale=scale)
    yield "valid time", dynamics.valid_prediction_time(ys, 1.1 * ys, 0.05, scale=scale)


def beliefs():
    """Gaussian processes, and beliefs of networks."""
    key, ts = jax.random.key(0), np.linspace(0.0, 6.0, 20)
    options = dict(noise=0.01, restarts=0)
    kernel = 1.0 * bayes.RBF(1.0)
    yield "process", bayes.fit_gaussian_process(kernel, ts, np.sin(ts), key, **options)
    sparse = bayes.fit_gaussian_process(
        kernel, ts, np.sin(ts), key, solver=bayes.Inducing(6), **options
    )
    yield "sparse process", sparse
    quick = bayes.Quasiseparable()
    kernel = 1.0 * bayes.Matern(1.5)
    yield (
        "quick process",
        bayes.fit_gaussian_process(kernel, ts, np.sin(ts), key, solver=quick, **options),
    )
    kernel = 1.0 * bayes.RBF(1.0)
    labels = (np.sin(ts) > 0).astype(int)
    yield "classifier", bayes.fit_gaussian_classifier(kernel, ts, labels, key, restarts=0)
    known = {"gamma": 0.2, "omega0": 2.0}
    yield (
        "equation",
        bayes.fit_linear_equation(
            oscillator, ts, np.sin(ts), key, parameters=known, noise=1e-4, restarts=0
        ),
    )
    kernel = 1.0 * bayes.RBF(3.0)
    options = dict(rows=20, noise=0.0, restarts=0)
    yield "gaussian stepper", bayes.fit_stepper(kernel, lorenz_trajectories(), key, **options)
    network, x = nn.MLP(1, (3,), 1, rngs=rngs()), jnp.asarray(ts)[:, None]
    yield "last layer", bayes.last_layer(network, x, jnp.sin(x))
    yield "laplace network", bayes.laplace_network(network, x, jnp.sin(x))
    options = dict(num_draws=4, num_warmup=4)
    yield "sampled", bayes.sample_network(network, x, jnp.sin(x), key=key, **options)
    belief = bayes.linear(ROWS, ROWS + 0.1 * ROWS**2)
    yield "linear belief", [belief, belief.predict(ROWS), fit.readout(ROWS, ROWS**2)]
    yield "coverage", bayes.coverage_of_draws(ROWS, ROWS[0])


def made():
    """Codes and generators."""
    key, rows = jax.random.key(0), jnp.asarray(np.random.default_rng(2).normal(size=(40, 3)))
    options = dict(optimizer=optax.adam(1e-2), steps=4, key=key)
    network = nn.Autoencoder.dense(3, (4,), 2, rngs=rngs())
    yield "code", generative.fit_autoencoder(network, rows, **options)
    yield "projection code", generative.fit_projection(rows, 2, key=key, units=10, restarts=1)
    codec = generative.principal_components(rows, 3)
    yield "components", [codec, generative.AnomalyScore.fit(codec, rows)]
    trajectories = lorenz_trajectories()
    latent = surrogate.fit_readout(nn.MLP.frozen(ROWS, 10, 3, rngs=rngs()), trajectories)
    yield "latent stepper", generative.LatentStepper(codec, latent.step_map)
    options = dict(key=key, starts=2, units=10)
    yield "latent equations", generative.discover_equations(codec, trajectories, **options)
    rates = (optax.adam(1e-3), optax.adam(1e-3))
    networks = nn.MLP(2, (4,), 3, rngs=rngs()), nn.MLP(3, (4,), 1, rngs=rngs())
    options = dict(latent=2, optimizers=rates, steps=4, batch_size=8, key=key)
    yield "game", generative.fit_adversarial(*networks, rows, **options)
    scores = [generative.coverage(rows, rows + 0.1), generative.nearest(rows, rows + 0.1)]
    yield "scores", [*scores, generative.latent_dimension([1.0, 0.1, 0.01])]


OWN = {"decay": decay, "arch": arch, "held": held, "fall": fall, "height": height}
OWN |= {"bounce": bounce, "late": late, "spring": spring, "reaction": reaction}
OWN |= {"oscillator": oscillator, "triangle": triangle}
