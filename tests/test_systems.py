"""Every system against formulas written out by hand, autodiff, and short runs."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from physml import dynamics, reference, systems

COSINE = systems.Cosine(0.7, 1.3, 0.2)
DRIVE = lambda t: 0.7 * np.cos(1.3 * t + 0.2)  # noqa: E731


def lorenz96_by_index(t, *y):
    n = len(y)
    return [(y[(i + 1) % n] - y[(i - 2) % n]) * y[(i - 1) % n] - y[i] + 7.5 for i in range(n)]


def oscillators(forcing, force):
    return {
        "oscillator": (
            systems.DrivenOscillator(0.3, 1.5, 2.0, forcing),
            lambda t, x, v: [v, (force(t) - 2 * 2.0 * 0.3 * v - 2.0 * 1.5**2 * x) / 2.0],
        ),
        "duffing": (
            systems.Duffing(-1.1, 0.9, 0.2, forcing),
            lambda t, x, v: [v, force(t) - 0.2 * v + 1.1 * x - 0.9 * x**3],
        ),
        "van_der_pol": (
            systems.VanDerPol(1.7, forcing),
            lambda t, x, v: [v, force(t) + 1.7 * (1 - x**2) * v - x],
        ),
        "pendulum": (
            systems.Pendulum(9.81, 0.5, 0.1, forcing),
            lambda t, x, v: [v, force(t) - 0.1 * v - 9.81 / 0.5 * np.sin(x)],
        ),
    }


FREE = oscillators(None, lambda t: 0.0)
# Each system at parameters of no special value, beside its equations written out once more.
CASES = {
    "lorenz": (
        systems.Lorenz(9.0, 27.0, 2.5),
        lambda t, x, y, z: [9 * (y - x), x * (27 - z) - y, x * y - 2.5 * z],
    ),
    "rossler": (
        systems.Rossler(0.1, 0.3, 6.0),
        lambda t, x, y, z: [-y - z, x + 0.1 * y, 0.3 + z * (x - 6)],
    ),
    "lorenz96": (systems.Lorenz96(6, 7.5), lorenz96_by_index),
    "lotka_volterra": (
        systems.LotkaVolterra(1.2, 0.5, 0.2, 0.7),
        lambda t, x, y: [1.2 * x - 0.5 * x * y, 0.2 * x * y - 0.7 * y],
    ),
    **oscillators(COSINE, DRIVE),
    **{f"{name}_free": case for name, case in FREE.items()},
    "duffing_hardening": (
        systems.Duffing(1.1, 0.9, 0.0, None),
        lambda t, x, v: [v, -1.1 * x - 0.9 * x**3],
    ),
    "function": (
        systems.from_function(
            lambda t, y, k: [y[1] * y[0] + t, -k * y[0] ** 2], dim=2, args=3.0, autonomous=False
        ),
        lambda t, x, y: [y * x + t, -3 * x**2],
    ),
    "lorenz_of_rho_and_sigma": (
        systems.with_parameters(systems.Lorenz(beta=2.5), rho=(20, 35), sigma=(9, 11)),
        lambda t, x, y, z, rho, s: [s * (y - x), x * (rho - z) - y, x * y - 2.5 * z, 0, 0],
    ),
    "lorenz96_of_force": (
        systems.with_parameters(systems.Lorenz96(6), force=(4, 10)),
        lambda t, *y: [*(np.array(lorenz96_by_index(t, *y[:6])) - 7.5 + y[6]), 0],
    ),
    "duffing_of_delta": (
        systems.with_parameters(systems.Duffing(-1.1, 0.9, forcing=COSINE), delta=(0.1, 0.3)),
        lambda t, x, v, delta: [v, DRIVE(t) - delta * v + 1.1 * x - 0.9 * x**3, 0],
    ),
}
KINDS = "Lorenz Rossler Lorenz96 LotkaVolterra DrivenOscillator Duffing VanDerPol Pendulum".split()
DEFAULTS = [getattr(systems, kind)() for kind in KINDS]
DEFAULTS += [systems.Lorenz96(5), systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))]

every_system = pytest.mark.parametrize("system, rhs", CASES.values(), ids=CASES.keys())


def random_states(system, shape, dtype=float, seed=0):
    """States in general position, positive so that populations make sense."""
    key = jax.random.key(seed)
    return jax.random.uniform(key, (system.dim, *shape), dtype, 0.3, 3.0)


@every_system
def test_right_hand_side(system, rhs):
    states = random_states(system, (5,))
    for i, t in enumerate((0.0, 0.4, 1.1, 2.0, 7.3)):
        expected = np.array(rhs(t, *np.asarray(states[:, i])))
        for found in (system(t, states[:, i]), diffrax.ODETerm(system).vf(t, states[:, i], None)):
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@every_system
def test_batches_are_trailing_axes(system, rhs):
    states = random_states(system, (3, 2))
    times = jnp.linspace(0.0, 5.0, 6).reshape(3, 2)
    evaluate = jax.jit(lambda t, y: (system(t, y), system.divergence(t, y)))
    at_once, shared = evaluate(times, states), evaluate(0.4, states)
    assert at_once[1].shape == shared[1].shape == (3, 2)
    for i in range(3):
        for j in range(2):
            for t, batched in ((times[i, j], at_once), (0.4, shared)):
                one = evaluate(t, states[:, i, j])
                np.testing.assert_allclose(batched[0][:, i, j], one[0], rtol=1e-13)
                np.testing.assert_allclose(batched[1][i, j], one[1], rtol=1e-13)


@every_system
def test_divergence_is_the_trace_of_the_jacobian(system, rhs):
    for seed in range(3):
        y = random_states(system, (), seed=seed)
        trace = jnp.trace(jax.jacfwd(lambda y: system(0.4, y))(y))
        np.testing.assert_allclose(system.divergence(0.4, y), trace, rtol=1e-12, atol=1e-12)


@every_system
def test_fixed_points_are_at_rest(system, rhs):
    points = system.fixed_points()
    assert points.shape[1:] == (system.dim,)
    for point in points:
        np.testing.assert_allclose(rhs(0.4, *np.asarray(point)), np.zeros(system.dim), atol=1e-12)
    if isinstance(system, systems.Oscillator):
        assert (len(points) == 0) == (system.forcing is not None)


@pytest.mark.parametrize(
    "system, points",
    [
        (systems.Lorenz(), [[0, 0, 0], [72**0.5, 72**0.5, 27], [-(72**0.5), -(72**0.5), 27]]),
        (systems.Lorenz(rho=0.5), [[0, 0, 0]]),
        (systems.Duffing(-4.0, 1.0, forcing=None), [[0, 0], [2, 0], [-2, 0]]),
        (systems.Duffing(4.0, -1.0, forcing=None), [[0, 0], [2, 0], [-2, 0]]),
        (systems.Duffing(1.0, 1.0, forcing=None), [[0, 0]]),
        (systems.Pendulum(), [[0, 0], [np.pi, 0]]),
        (systems.VanDerPol(), [[0, 0]]),
        (systems.DrivenOscillator(forcing=None), [[0, 0]]),
        (systems.LotkaVolterra(), [[0, 0], [4.0, 2.75]]),
        (systems.Lorenz96(4), [[8.0] * 4]),
        (systems.Rossler(0.0, 1.0, 2.0), [[0, -0.5, 0.5]]),
        (systems.Rossler(0.2, 0.2, 0.1), np.zeros((0, 3))),
        (systems.Rossler(0.25, 3.0, 2.0), [[0.5, -2.0, 2.0], [1.5, -6.0, 6.0]]),
        (systems.Rossler(0.25, 3.0, -2.0), [[-0.5, 2.0, -2.0], [-1.5, 6.0, -6.0]]),
    ],
)
def test_fixed_points_are_all_there(system, points):
    np.testing.assert_allclose(system.fixed_points(), points, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    "system",
    [case for case, _ in CASES.values() if case.symmetry is not None] + [systems.Lorenz96(8)],
)
def test_symmetry(system):
    matrix = np.array(system.symmetry)
    assert not np.array_equal(matrix, np.eye(system.dim))
    np.testing.assert_array_equal(matrix @ matrix, np.eye(system.dim))
    y = random_states(system, ())
    np.testing.assert_allclose(system(0.4, matrix @ y), matrix @ system(0.4, y), rtol=1e-13)


def test_who_has_a_symmetry():
    assert systems.Lorenz().symmetry == ((-1, 0, 0), (0, -1, 0), (0, 0, 1))
    assert systems.Lorenz96(5).symmetry is None
    for kind in (systems.Duffing, systems.VanDerPol, systems.Pendulum, systems.DrivenOscillator):
        assert kind(forcing=None).symmetry == ((-1, 0), (0, -1))
        assert kind(forcing=COSINE).symmetry is None


@pytest.mark.parametrize("system", DEFAULTS, ids=lambda system: type(system).__name__)
def test_declared_facts_fit_together(system):
    assert len(system.state_names) == system.dim == len(set(system.state_names))
    low, high = np.array(system.box)
    assert low.shape == high.shape == (system.dim,) and np.all(low < high)
    driven = getattr(system, "forcing", None) is not None
    assert system.autonomous == (not driven) == (system.period is None)
    assert system.jump_times(0.0, 10.0).shape == (0,)


def test_parameters_by_name():
    assert systems.Lorenz().parameters == {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}
    assert systems.Lorenz96(5, force=8).parameters == {"force": 8.0}
    assert systems.Duffing().parameters["forcing"] == systems.Cosine(0.5, 1.2)
    assert systems.Lorenz().box == ((-15.0,) * 3, (15.0,) * 3)


@every_system
def test_single_precision_stays_single(system, rhs):
    states = random_states(system, (4,), jnp.float32)
    times = jnp.linspace(0.0, 1.0, 4, dtype=jnp.float32)
    evaluate = jax.jit(lambda system, t, y: (system(t, y), system.divergence(t, y)))
    for t in (0, 0.5, times):
        for dy, divergence in (evaluate(system, t, states), (system(t, states),) * 2):
            assert dy.dtype == divergence.dtype == jnp.float32
    expected = system(times.astype(float), states.astype(float))
    np.testing.assert_allclose(system(times, states), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["lorenz", "rossler", "lorenz96", "lotka_volterra", "oscillator"])
def test_gradients_in_the_parameters(name):
    system, _ = CASES[name]
    y = random_states(system, ())
    value = lambda system: jnp.sum(jnp.sin(system(0.4, y)))  # noqa: E731
    assert len(jax.tree.leaves(jax.grad(value)(system))) == len(jax.tree.leaves(system)) >= 1
    check_grads(value, (system,), 1, modes=["rev"], eps=1e-6, rtol=1e-6, atol=1e-8)


def test_systems_are_vmapped_over_and_built_under_a_trace():
    rhos = jnp.array([0.5, 14.0, 28.0])
    y = jnp.array([1.0, 2.0, 3.0])
    expected = jnp.stack([systems.Lorenz(rho=float(rho))(0.0, y) for rho in rhos])
    inside = jax.jit(jax.vmap(lambda rho: systems.Lorenz(rho=rho)(0.0, y)))(rhos)
    stacked = eqx.filter_vmap(lambda system: system(0.0, y))(
        systems.Lorenz(jnp.full(3, 10.0), rhos, jnp.full(3, 8 / 3))
    )
    np.testing.assert_allclose(inside, expected)
    np.testing.assert_allclose(stacked, expected)
    assert jax.jit(lambda rho: jnp.zeros(systems.Lorenz(rho=rho).dim))(28.0).shape == (3,)
    for kind in (systems.Lorenz, systems.Rossler, systems.Lorenz96):
        traced = jax.jit(lambda tree: jnp.zeros(tree.lyapunov_exponents is None))(kind())
        assert traced.shape == (1,)


@pytest.mark.parametrize(
    "system, conserved",
    [
        (CASES["lotka_volterra"][0], "invariant"),
        (systems.Duffing(-1.1, 0.9, 0.0, None), "energy"),
        (systems.Pendulum(9.81, 0.5), "energy"),
        (systems.DrivenOscillator(0.0, 1.5, 2.0, None), "energy"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_conserved_quantities(system, conserved):
    quantity = getattr(system, conserved)
    for seed in range(3):
        y = random_states(system, (), seed=seed)
        slope = jax.grad(quantity)(y)
        assert jnp.linalg.norm(slope) > 0.1
        np.testing.assert_allclose(slope @ system(0.0, y), 0.0, atol=1e-12)
    assert quantity(random_states(system, (4,))).shape == (4,)


@pytest.mark.parametrize(
    "system, friction",
    [
        (systems.Duffing(-1.1, 0.9, 0.2, COSINE), 0.2),
        (systems.Pendulum(9.81, 0.5, 0.2, COSINE), 0.2),
        (systems.DrivenOscillator(0.3, 1.5, 2.0, COSINE), 2 * 2.0 * 0.3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_energy_changes_by_the_work_done(system, friction):
    y = random_states(system, ())
    v = float(y[1])
    rate = jax.grad(system.energy)(y) @ system(0.4, y)
    np.testing.assert_allclose(rate, v * (DRIVE(0.4) - friction * v), rtol=1e-12)


def spectrum(system, y0, dt, steps, num, transient):
    step_map = reference.RungeKutta4(system=system, dt=dt)
    return dynamics.lyapunov_spectrum(
        step_map, jnp.asarray(y0)[None], steps, num=num, every=5, transient=transient
    ).exponents


@pytest.mark.parametrize(
    "system, y0, dt, steps, atol",
    [
        (systems.Lorenz(), [1.0, 1.0, 20.0], 0.01, 100_000, 0.02),
        (systems.Rossler(), [1.0, 1.0, 0.0], 0.02, 200_000, 0.01),
    ],
    ids=["lorenz", "rossler"],
)
def test_lyapunov_exponents(system, y0, dt, steps, atol):
    found = spectrum(system, y0, dt, steps, 3, 5_000)
    np.testing.assert_allclose(found, system.lyapunov_exponents, atol=atol)
    # The sum of those found is the mean divergence along the run.
    np.testing.assert_allclose(sum(system.lyapunov_exponents), found.sum(), atol=atol / 2)


def test_leading_exponent_of_lorenz96():
    system = systems.Lorenz96()
    y0 = 8.0 + jax.random.normal(jax.random.key(1), (40,))
    (found,) = spectrum(system, y0, 0.025, 40_000, 1, 2_000)
    np.testing.assert_allclose(found, system.lyapunov_exponents[0], atol=0.06)
    assert system.divergence(0.0, y0) == -40.0


def test_exponents_are_claimed_only_where_they_were_published():
    assert systems.Lorenz(beta=jnp.float32(8 / 3)).lyapunov_exponents is not None
    np.testing.assert_allclose(sum(systems.Lorenz().lyapunov_exponents), -41 / 3, rtol=1e-14)
    for system in (
        systems.Lorenz(sigma=9.0),
        systems.Lorenz(rho=20.0),
        systems.Lorenz(beta=2.5),
        systems.Lorenz(rho=jnp.array([28.0, 28.0])),
        systems.Rossler(a=0.1),
        systems.Rossler(b=0.1),
        systems.Rossler(c=5.0),
        systems.Lorenz96(20),
        systems.Lorenz96(40, 7.0),
        systems.Duffing(),
    ):
        assert system.lyapunov_exponents is None
        message = f"no Lyapunov exponents of {type(system).__name__} are"
        with pytest.raises(ValueError, match=message):
            _ = system.lambda1
    assert systems.Rossler().lambda1 == systems.Rossler().lyapunov_exponents[0] > 0


def test_starts_in_the_rossler_box_stay_bounded():
    system = systems.Rossler()
    low, high = np.array(system.box)
    starts = jax.random.uniform(jax.random.key(0), (3, 200)) * (high - low)[:, None] + low[:, None]
    corners = jnp.asarray(np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, 8))
    y = jnp.concatenate([starts, corners], axis=1)

    def step(_, y):
        half = y + 0.0025 * system(0.0, y)
        return y + 0.005 * system(0.0, half)

    assert jnp.max(jnp.abs(jax.lax.fori_loop(0, 20_000, step, y))) < 60.0


LORENZ, joined = systems.Lorenz(), systems.with_parameters
EMPTY = systems.from_function(lambda t, y, args: None, 2)
SHORT = systems.from_function(lambda t, y, args: y[:1], 2)


@refusals(
    (lambda: systems.Lorenz(sigma="ten"), "sigma", TypeError),
    (lambda: systems.Lorenz(rho=True), "rho", TypeError),
    (lambda: systems.Lorenz(beta=np.nan), "Lorenz.beta must be finite, got nan"),
    (lambda: systems.Rossler(c=jnp.inf), "Rossler.c must be finite"),
    (lambda: systems.Lorenz96(3), "Lorenz96.n must be at least 4, got 3"),
    (lambda: systems.Lorenz96(force=np.inf), "Lorenz96.force must be finite"),
    (lambda: systems.LotkaVolterra(beta=-0.1), "beta must be positive and finite, got -0.1"),
    (lambda: systems.Duffing(delta=np.nan), "Duffing.delta must be finite"),
    (lambda: systems.VanDerPol(mu=np.nan), "VanDerPol.mu must be finite"),
    (lambda: systems.Pendulum(length=0.0), "Pendulum.length must be positive"),
    (lambda: systems.Pendulum(damping=np.inf), "Pendulum.damping must be finite"),
    (lambda: systems.VanDerPol(forcing=3.0), "forcing", TypeError),
    (lambda: LORENZ(0.0, jnp.zeros(2)), r"y must have shape \(3,\) or \(3, \*batch\), got \(2,\)"),
    (lambda: LORENZ(0.0, jnp.zeros((5, 3))), r"y must have shape .* got \(5, 3\)"),
    (
        lambda: LORENZ(jnp.zeros(2), jnp.ones((3, 4))),
        r"t must be a scalar or .* \(4,\), got \(2,\)",
    ),
    (
        lambda: systems.from_function(3.0, 2),
        "f must be a function, got 3.0",
        TypeError,
    ),
    (
        lambda: EMPTY(0.0, jnp.ones(2)),
        r"f must return dy/dt of shape \(2,\), got None",
        TypeError,
    ),
    (lambda: SHORT(0.0, jnp.zeros(2)), r"f must return dy/dt of shape \(2,\), got shape \(1,\)"),
    (lambda: joined(LORENZ), "ranges must name parameters of Lorenz"),
    (lambda: joined(LORENZ, tau=(0, 1)), r"\['sigma', 'rho', 'beta'\], got \['tau'\]"),
    (lambda: joined(systems.Duffing(), forcing=(0, 1)), "'alpha', 'beta', 'delta'"),
    (lambda: joined(LORENZ, rho=(35, 20)), "rho must have a range low <= high"),
    (lambda: joined(LORENZ, rho=(20, np.inf)), "rho must have a range"),
)
def test_bad_input(call):
    call()


class Spring(eqx.Module):
    """A callable pytree, as a network would be."""

    stiffness: jax.Array

    def __call__(self, t, y, args):
        return jnp.stack([y[1], -self.stiffness * y[0]])


def test_from_function_takes_arguments_and_callable_pytrees():
    y = jnp.array([2.0, 3.0])
    system = systems.from_function(lambda t, y, k: [y[1], -k * y[0]], 2, args=4.0)
    np.testing.assert_array_equal(system(0.0, y), [3.0, -8.0])
    np.testing.assert_array_equal(system(0.0, y, 5.0), [3.0, -10.0])
    assert system.divergence(0.0, y, 5.0) == 0.0
    assert system.parameters["args"] == 4.0
    assert jax.grad(lambda system: system(0.0, y)[1])(system).args == -2.0
    pytree = systems.from_function(Spring(jnp.asarray(4.0)), 2)
    np.testing.assert_array_equal(jax.jit(lambda system: system(0.0, y))(pytree), [3.0, -8.0])
    assert jax.grad(lambda system: system(0.0, y)[1])(pytree).function.stiffness == -2.0


def test_from_function_keeps_what_it_is_told():
    system = systems.from_function(
        lambda t, y, args: -y,
        2,
        state_names=("a", "b"),
        period=3,
        box=([0, 0], [1, 2]),
        symmetry=np.array([[0, 1], [1, 0]]),
        lyapunov_exponents=[-1.0, -1.0],
        jumps=(5.0, 1.0, 2.0),
    )
    assert system.state_names == ("a", "b") and system.dim == 2
    assert system.period == 3.0 and not system.autonomous
    assert system.box == ((0.0, 0.0), (1.0, 2.0))
    assert system.symmetry == ((0.0, 1.0), (1.0, 0.0))
    assert system.lyapunov_exponents == (-1.0, -1.0)
    np.testing.assert_array_equal(system.jump_times(1.0, 4.0), [1.0, 2.0])
    plain = systems.from_function(lambda t, y, args: -y, 2)
    assert plain.autonomous and plain.period is None and plain.symmetry is None
    assert plain.state_names == ("y0", "y1") and plain.box == ((-1.0, -1.0), (1.0, 1.0))
    assert not systems.from_function(lambda t, y, args: -y, 2, autonomous=False).autonomous
    assert not systems.from_function(lambda t, y, args: -y, 2, jumps=(1.0,)).autonomous


@refusals(
    ({"dim": 0}, "dim must be at least 1, got 0"),
    ({"state_names": ("a",)}, r"state_names must be 2 names, got \(.a.,\)"),
    ({"box": ([0], [1])}, "box must be corners low <= high of 2 numbers"),
    ({"box": ([0, 2], [1, 1])}, "low <= high"),
    (
        {"symmetry": [[0, 1], [-1, 0]]},
        r"symmetry must be a \(2, 2\) matrix that is its own inverse",
    ),
    ({"symmetry": [[1]]}, r"symmetry must be a \(2, 2\) matrix"),
    ({"period": -1.0}, "period must be positive and finite, got -1.0"),
    ({"period": 1.0, "autonomous": True}, "autonomous must be False"),
)
def test_from_function_bad_facts(options):
    systems.from_function(lambda t, y, args: -y, **{"dim": 2, **options})


@settings(max_examples=8, deadline=None)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    name=st.sampled_from(["lorenz", "lorenz96", "duffing", "function"]),
    dtype=st.sampled_from([jnp.float32, jnp.float64]),
)
def test_shape_and_dtype_follow_the_state(batch, name, dtype):
    system, _ = CASES[name]
    y = jnp.ones((system.dim, *batch), dtype)
    for t in (0.5, jnp.ones(batch, dtype)):
        dy, divergence = system(t, y), system.divergence(t, y)
        assert (dy.shape, dy.dtype) == (y.shape, dtype)
        assert (divergence.shape, divergence.dtype) == (batch, dtype)


def test_a_parameter_in_the_state_is_that_parameter():
    whole = systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))
    assert whole.state_names == ("x", "y", "z", "rho")
    assert whole.box == ((-15.0, -15.0, -15.0, 20.0), (15.0, 15.0, 15.0, 35.0))
    y = jnp.array([1.0, 2.0, 20.0, 31.0])
    together = reference.FlowMap(system=whole, dt=0.05)
    alone = lambda rho: reference.FlowMap(system=systems.Lorenz(rho=rho), dt=0.05)  # noqa: E731
    step = lambda flow, y: flow.step(flow.init(y[None], 0.0))[0]  # noqa: E731
    ahead, sensitivity = jax.jvp(lambda y: step(together, y), (y,), (jnp.eye(4)[3],))
    found, derivative = jax.jvp(lambda rho: step(alone(rho), y[:3]), (31.0,), (1.0,))
    np.testing.assert_allclose(ahead, [*found, 31.0], rtol=1e-14)
    np.testing.assert_allclose(sensitivity, [*derivative, 1.0], rtol=1e-12)


def test_trajectories_of_many_parameters_at_once():
    whole = systems.with_parameters(systems.Lorenz(), rho=(20.0, 35.0))
    ts = 0.05 * np.arange(5)
    batch = reference.trajectories(whole, jax.random.key(0), 6, ts)
    rho = batch.ys[:, :, 3]
    assert np.all((20 < rho) & (rho < 35)) and np.all(rho == rho[:, :1]) and np.ptp(rho) > 3
    one = reference.trajectories_from(
        systems.Lorenz(rho=float(rho[2, 0])), batch.ys[2:3, 0, :3], ts
    )
    np.testing.assert_allclose(batch.ys[2, :, :3], one.ys[0], rtol=1e-10)
