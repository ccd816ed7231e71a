"""Surrogates: exact phase, built-in symmetry, normalisation, memory, training and refitting."""

import dataclasses
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from physml import dynamics, fit, nn, reference, residuals, surrogate, systems
from physml.data import Trajectories, Windows, from_arrays
from physml.results import RESULTS
from physml.surrogate._rows import turns

LORENZ_SPREAD = jnp.array([7.92, 9.01, 8.63])
SWAP = ((0.0, 1.0), (1.0, 0.0))
ADAM = {"optimizer": optax.adam(1e-2), "key": jax.random.key(0)}


@pytest.fixture(scope="module")
def lorenz() -> Trajectories:
    """20 trajectories of 200 steps, by the module that is trusted to 1e-12."""
    system, ts = systems.Lorenz(), jnp.linspace(0.0, 2.0, 201)
    return reference.trajectories(system, jax.random.key(0), 20, ts)


@pytest.fixture(scope="module")
def driven() -> tuple[systems.DrivenOscillator, float, Trajectories]:
    """The driven oscillator from many starts and phases, by its closed form."""
    system = systems.DrivenOscillator()
    assert system.period is not None
    period = float(system.period)
    keys = jax.random.split(jax.random.key(1))
    y0s = jax.random.uniform(keys[0], (30, 2), minval=-2, maxval=2)
    t0s = jax.random.uniform(keys[1], (30,), maxval=period)
    ts = jnp.linspace(0.0, 5.0, 101)
    ys = jax.vmap(lambda y, t: system.exact(t + ts, y, t))(y0s, t0s)
    return system, period, from_arrays(ts, ys, t0s=t0s)


def random_trajectories(dtype=float) -> Trajectories:
    ys = jax.random.normal(jax.random.key(2), (3, 9, 2), dtype)
    return from_arrays(np.arange(9) * 0.1, ys, t0s=[0.3, 1.7, 2.9])


def network(kind: str, inputs: int = 2) -> surrogate.Network:
    if kind == "mlp":
        return nn.MLP(inputs, (8,), 2, rngs=nnx.Rngs(3))
    return nn.RNN(kind, inputs, 8, 2, rngs=nnx.Rngs(3))


def constant(dim: int) -> nn.MLP:
    """An affine network that gives its bias, which starts at zero."""
    return nn.MLP(dim, (), dim, kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0))


def one_step(stepper, y, t0=0.0):
    return stepper.step(stepper.init(y[None], t0)).y


def one_step_errors(ys, *steppers):
    """Of maps of Lorenz's system."""
    return [float(dynamics.one_step_error(s, ys, scale=LORENZ_SPREAD)) for s in steppers]


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1.2e-7), (jnp.float64, 9e-14)])
@pytest.mark.parametrize("period", [4 * np.pi, 0.2, 0.013])
def test_the_phase_stays_exact_over_many_steps(dtype, bound, period):
    dt = 0.01
    counts = np.concatenate([np.arange(-500, 500), np.arange(19_000, 20_001), [10**6]])
    found = jax.vmap(lambda k: turns(k, jnp.zeros((), dtype), dt, period))(
        jnp.asarray(counts, jnp.int32)
    )
    assert found.dtype == dtype
    exact = [int(k) * Fraction(dt / period) for k in counts]
    errors = [Fraction(float(f)) - e for f, e in zip(found, exact, strict=True)]
    assert max(abs(float(e - round(e))) for e in errors) < bound


def test_the_phase_starts_at_t0():
    found = turns(jnp.int32(3), jnp.asarray(2.75), 0.25, 2.0)
    assert (float(found) - (2.75 + 3 * 0.25) / 2.0) % 1.0 == 0.0


def test_network_inputs_are_standardised_states_and_the_phase():
    train = random_trajectories()
    rows = surrogate.network_inputs(train, period=0.7)
    states, angle = np.asarray(train.ys[:, :-1]), 2 * np.pi * np.asarray(train.pairs().times) / 0.7
    states = ((states - states.mean((0, 1))) / states.std((0, 1))).reshape(-1, 2)
    expected = np.column_stack([states, np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_step_is_the_formula(kind):
    train = random_trajectories()
    net = network(kind)
    stepper = surrogate.Stepper.create(net, train)
    y = train.ys[0, 0]
    x = (y - train.ys[:, :-1].mean((0, 1))) / train.ys[:, :-1].std((0, 1))
    spread = (train.ys[:, 1:] - train.ys[:, :-1]).std((0, 1))
    out = net(x) if kind == "mlp" else net(net.initial_carry(), x)[1]  # pyright: ignore
    np.testing.assert_allclose(one_step(stepper, y), y + spread * out, rtol=1e-13)


@pytest.mark.parametrize("symmetry", [((-1.0, 0.0), (0.0, 1.0)), SWAP, ((1.0, 2.0), (0.0, -1.0))])
@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_steps_commute_with_the_symmetry(kind, symmetry):
    train, matrix = random_trajectories(), jnp.asarray(symmetry)
    stepper = surrogate.Stepper.create(network(kind), train, symmetry=symmetry)
    history = train.ys[0, :3]
    paths = dynamics.rollout(stepper, jnp.stack([history, history @ matrix.T]), 4)
    np.testing.assert_allclose(paths[1], paths[0] @ matrix.T, rtol=1e-11, atol=1e-11)
    assert float(jnp.abs(paths[1] - paths[0]).max()) > 0.1


def test_what_rounding_takes_is_given_back():
    """A constant increment far below y's last place: 2^12 steps of it arrive all the same."""
    ys = [[[0.0, 0.0], [1.0, 2.0]], [[1.0, 1.0], [2.0, 3.0]]]
    stepper = surrogate.Stepper.create(constant(2), from_arrays([0.0, 1.0], ys))
    tiny, steps = 2.0**-60, 2**12
    stepper = eqx.tree_at(lambda s: s.scale, stepper, jnp.ones(2))
    stepper.network.readout.bias[...] = jnp.array([tiny, -tiny])  # pyright: ignore
    end = dynamics.rollout(stepper, jnp.ones((1, 2)), steps)[-1]
    np.testing.assert_array_equal(end, [1 + steps * tiny, 1 - steps * tiny])
    spectrum = dynamics.lyapunov_spectrum(stepper, jnp.ones((1, 2)), 4)
    assert spectrum.dimension == 2  # the rest is no coordinate
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-12)


@pytest.mark.slow
def test_a_known_vector_field_is_stepped_and_the_rest_is_learned(lorenz):
    """With the right field and no network the step is Runge-Kutta's; a network mends it."""
    system, nothing = systems.Lorenz(), constant(3)
    hybrid = surrogate.Stepper.create(nothing, lorenz, known=system)

    def classical(y, h=0.01):
        k1 = system(0.0, y)
        k2 = system(0.0, y + h / 2 * k1)
        k3 = system(0.0, y + h / 2 * k2)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + system(0.0, y + h * k3))

    y = lorenz.ys[0, 50]
    np.testing.assert_allclose(one_step(hybrid, y), classical(y), rtol=1e-14)
    # What the network is shown is what Runge-Kutta leaves.
    left = lorenz.ys[:, 1:] - jax.vmap(jax.vmap(classical))(lorenz.ys[:, :-1])
    np.testing.assert_allclose(hybrid.scale, left.std((0, 1)), rtol=1e-6)
    net = nn.MLP.frozen(surrogate.network_inputs(lorenz), 60, 3, scale=0.2, rngs=nnx.Rngs(0))
    almost = systems.Lorenz(rho=27.0)
    field, network, both, exact = one_step_errors(
        lorenz.ys[:, 100:],
        surrogate.Stepper.create(nothing, lorenz, known=almost),
        surrogate.fit_readout(net, lorenz).step_map,
        surrogate.fit_readout(net, lorenz, known=almost).step_map,
        surrogate.fit_readout(net, lorenz, known=system).step_map,
    )
    assert both < 0.1 * min(field, network)
    assert exact < 0.1 * both


@pytest.mark.slow
def test_a_known_drive_is_stepped_at_its_time(driven):
    system, _, train = driven
    hybrid = surrogate.Stepper.create(constant(2), train, known=system)
    y0, t0 = jnp.array([0.5, -1.0]), 17.3
    path = dynamics.rollout(hybrid, y0[None], 100, t0=t0)
    exact = system.exact(t0 + np.arange(101) * hybrid.dt, y0, t0)
    np.testing.assert_allclose(path, exact, atol=1e-6)


@pytest.mark.slow
def test_jacobians_of_a_field_are_worth_more_rows(lorenz):
    """36 pairs for 60 units: with the flow's derivative they are enough."""
    few = from_arrays(lorenz.ts[:4], lorenz.ys[:12, 20:24])
    net = nn.MLP.frozen(surrogate.network_inputs(few), 60, 3, scale=0.1, rngs=nnx.Rngs(0))
    with_field = surrogate.fit_readout(net, few, field=systems.Lorenz()).step_map
    without = surrogate.fit_readout(net, few).step_map
    errors = one_step_errors(lorenz.ys[:12, 24:34], without, with_field)
    assert errors[1] < 0.4 * errors[0]


@pytest.mark.slow
def test_jacobians_fit_a_linear_map_from_one_pair():
    """One pair does not tell a matrix; its Jacobian does: exp(A dt) of the free oscillator."""
    matrix = jnp.array([[0.0, 1.0], [-4.0, -0.3]])
    system = systems.from_function(lambda t, y, args: matrix @ y, 2)
    dt, starts = 0.1, jnp.array([[1.0, 0.5], [1.1, 0.4]])
    flow = jax.scipy.linalg.expm(matrix * dt)
    train = from_arrays([0.0, dt], jnp.stack([starts, starts @ flow.T], axis=1))
    affine = nn.MLP(2, (), 2, rngs=nnx.Rngs(0))
    stepper = surrogate.fit_readout(affine, train, field=system).step_map
    y = jnp.array([-3.0, 2.0])
    np.testing.assert_allclose(one_step(stepper, y), flow @ y, rtol=1e-10)
    with pytest.raises(ValueError, match="field must be None for a driven system"):
        surrogate.fit_readout(affine, train, field=system, known=system)


@pytest.mark.parametrize("kind", ["mlp", "simple"])
def test_warming_up_on_a_history_is_following_it(kind):
    """Memory and phase at the end of a history are those of going through it from its start."""
    train = random_trajectories()
    stepper = surrogate.Stepper.create(network(kind, 4), train, symmetry=SWAP, period=0.7)
    history, t0 = train.ys[0, :5], train.t0s[0]
    state = stepper.init(history, t0 + 4 * stepper.dt)
    followed = stepper.increments(history, t0)
    np.testing.assert_allclose(
        stepper.step(state).y, history[-1] + followed[-1], rtol=0, atol=1e-12
    )
    memoryless = stepper.step(stepper.init(history[-1:], t0 + 4 * stepper.dt)).y
    forgot = float(jnp.abs(memoryless - history[-1] - followed[-1]).max())
    assert forgot < 1e-12 if kind == "mlp" else forgot > 1e-3


def test_the_step_residual_is_the_error_of_the_increments_in_units_of_their_spread():
    train = random_trajectories()
    net = constant(2)
    net.readout.bias[...] = jnp.array([1.0, -2.0])  # pyright: ignore[reportOptionalSubscript]
    stepper = surrogate.Stepper.create(net, train)
    windows = train.windows(4)
    steps = np.diff(np.asarray(windows.ys), axis=1)
    spread = np.diff(np.asarray(train.ys), axis=1).std((0, 1))
    found = residuals.step(stepper, windows)
    np.testing.assert_allclose(found, [1.0, -2.0] - steps / spread, rtol=1e-12)
    forecast = np.asarray(windows.ys)[:, :1] + np.arange(1, 4)[:, None] * spread * [1.0, -2.0]
    found = residuals.rollout(stepper, windows)
    expected = (forecast - np.asarray(windows.ys)[:, 1:]) / spread
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("symmetry", [None, SWAP, ((1.0, 2.0), (0.0, -1.0))])
@pytest.mark.parametrize("kind", ["mlp", "simple"])
def test_the_refitted_readout_is_stationary(kind, symmetry):
    """No readout does better on the data and their mirror images: the slope in it is zero."""
    train, options = random_trajectories(), {"symmetry": symmetry, "period": 0.7, "warmup": 2}
    stepper = surrogate.fit_readout(network(kind, 4), train, **options).step_map

    def loss(kernel, bias):
        net = nnx.clone(stepper.network)
        net.readout.kernel[...], net.readout.bias[...] = kernel, bias  # pyright: ignore
        changed = dataclasses.replace(stepper, network=net)
        wrong = residuals.step(changed, Windows(train.ys, train.t0s))[:, 2:]
        errors = wrong * stepper.scale[None, None]
        mirrored = errors if symmetry is None else errors @ jnp.asarray(symmetry).T
        return (errors**2 + mirrored**2).mean()

    readout = stepper.network.readout  # pyright: ignore[reportAttributeAccessIssue]
    value, slopes = jax.value_and_grad(loss, (0, 1))(readout.kernel[...], readout.bias[...])
    assert value > 1e-3
    assert max(float(jnp.abs(slope).max()) for slope in slopes) < 1e-10


def test_a_frozen_network_forecasts_lorenz(lorenz):
    net = nn.MLP.frozen(surrogate.network_inputs(lorenz), 60, 3, scale=0.08, rngs=nnx.Rngs(0))
    symmetry = systems.Lorenz().symmetry
    stepper = surrogate.fit_readout(net, lorenz, symmetry=symmetry).step_map
    plain = surrogate.fit_readout(net, lorenz).step_map
    errors = one_step_errors(lorenz.ys[:, 100:], stepper, plain)
    assert errors[0] < 1e-6
    assert errors[0] < errors[1] / 5
    assert stepper.dt == 0.01


@pytest.mark.slow
@pytest.mark.parametrize("cell", [None, "simple"])
def test_a_driven_oscillator_is_followed_from_any_phase(driven, cell):
    system, period, train = driven
    x = surrogate.network_inputs(train, period=period)
    if cell is None:
        net, warmup = nn.MLP.frozen(x, 60, 2, scale=0.005, rngs=nnx.Rngs(0)), 0
    else:
        net = nn.RNN.frozen(cell, x, 60, 2, scale=0.005, spectral_radius=0.3, rngs=nnx.Rngs(0))
        warmup = 30
    stepper = surrogate.fit_readout(net, train, period=period, warmup=warmup).step_map
    y0, t0 = jnp.array([0.5, -1.0]), 17.3
    exact = system.exact(t0 + np.arange(431) * stepper.dt, y0, t0)
    history = exact[:31]
    found = dynamics.rollout(stepper, history, 400, t0=t0 + 30 * stepper.dt)
    assert float(jnp.abs(found - exact[30:]).max()) < (1e-7 if cell is None else 1e-5)
    wrong = dynamics.rollout(stepper, history, 400, t0=t0 + 1.0)
    assert float(jnp.abs(wrong - exact[30:]).max()) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_training_moves_all_parameters_and_refitting_goes_further(lorenz, kind):
    options = {**ADAM, "steps": 60, "batch_size": 64, "symmetry": systems.Lorenz().symmetry}
    if kind == "mlp":
        net = nn.MLP(3, (16,), 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    else:
        net = nn.RNN("gru", 3, 8, 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
        options |= {"length": 5, "warmup": 20}
    before = jax.tree.map(jnp.copy, nnx.state(net))
    fitted = surrogate.fit(net, lorenz, lorenz[:2], **options)
    assert fitted.training.result == RESULTS.successful
    loss = fitted.training.history["loss"]
    assert loss[-10:].mean() < 0.7 * loss[:10].mean()
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, before, nnx.state(net))))
    after = nnx.state(fitted.before_refit.network, nnx.Param)
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)
    refitted = jax.tree.leaves(nnx.state(fitted.step_map.network))
    assert {leaf.dtype for leaf in refitted} == {jnp.dtype("float64")}

    def rms(stepper):
        wrong = residuals.step(stepper, Windows(lorenz.ys, lorenz.t0s))[:, 20:]
        return float(jnp.sqrt((wrong**2).mean()))

    assert rms(fitted.step_map) < 0.7 * rms(fitted.before_refit)


def test_training_on_rollouts_lowers_their_error():
    train = random_trajectories()
    loss = fit.mean_square(residuals.rollout)
    options = {**ADAM, "steps": 40, "batch_size": 8, "length": 3, "residual": residuals.rollout}
    fitted = surrogate.fit(network("mlp"), train, refit=False, **options)
    start = surrogate.Stepper.create(network("mlp"), train)
    windows = train.windows(4)
    assert loss(fitted.step_map, windows, None)[0] < 0.8 * loss(start, windows, None)[0]


def test_float32_data_give_a_float32_map(driven):
    _, period, train = driven
    ts, t0s = np.asarray(train.ts), np.asarray(train.t0s)
    small = from_arrays(ts, train.ys.astype(jnp.float32), t0s=t0s)
    net = nn.MLP(4, (4,), 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    stepper = surrogate.fit_readout(net, small, period=period).step_map
    state = stepper.step(stepper.init(small.ys[0, :1], 0.0))
    assert state.y.dtype == jnp.float32 and state.count == 1


THREE_OUTPUTS = nn.MLP(2, (3,), 3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "symmetry must have shape", {"symmetry": np.eye(3)}),
        (ValueError, "own inverse", {"symmetry": [[0.0, 2.0], [1.0, 0.0]]}),
        (ValueError, "period must be positive", {"period": -1.0}),
        (ValueError, "network must take 4 inputs", {"period": 1.0}),
        (ValueError, "warmup must leave some of the 8 steps", {"warmup": 8}),
        (ValueError, "network must give 2 outputs, got 3", {"net": THREE_OUTPUTS}),
        (
            TypeError,
            "must be a network with .* a `readout`",
            {"net": nnx.Linear(2, 2, rngs=nnx.Rngs(0))},
        ),
    ],
)
def test_bad_input_is_named(as_a_user, error, match, options):
    options = {"net": network("mlp"), **options}
    with pytest.raises(error, match=match):
        surrogate.fit_readout(options.pop("net"), random_trajectories(), **options)


def test_bad_windows_and_data_are_named():
    train = random_trajectories()
    for length, message in [
        (0, "must be at least 1"),
        (9, "must be at most 8, the steps of train, got 9"),
    ]:
        with pytest.raises(ValueError, match=f"length {message}"):
            surrogate.fit(network("mlp"), train, length=length, steps=1, **ADAM)
    broken = Trajectories(train.ts, train.ys.at[1, 2, 0].set(jnp.nan), train.t0s, train.names)
    with pytest.raises(ValueError, match=r"train.ys must be finite.*\(1, 2, 0\)"):
        surrogate.fit_readout(network("mlp"), broken)
