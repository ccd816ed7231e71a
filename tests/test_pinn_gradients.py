"""Derivatives of window networks in starts and parameters."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import pinn, systems
from physml._numerics import compiled
from physml.systems import DrivenOscillator, Lorenz, from_function

TIMES = jnp.array([1.7, 3.0])


def ours(start, sigma, rho):
    system = Lorenz(sigma=sigma, rho=rho)
    return pinn.solve(system, start, 3.0, ts=TIMES, max_windows=64).ys


def diffraxs(start, sigma, rho):
    controller = diffrax.PIDController(rtol=1e-12, atol=1e-12)
    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(Lorenz(sigma=sigma, rho=rho)),
        diffrax.Dopri8(),
        0.0,
        3.0,
        1e-3,
        start,
        saveat=diffrax.SaveAt(ts=TIMES),
        stepsize_controller=diffrax.ClipStepSizeController(controller, step_ts=TIMES),
    )
    return solved.ys


def decayed(rate):
    """e^-rate by a function that reads the rate from outside."""
    return pinn.solve(lambda t, y: -rate * y, jnp.ones(1), 1.0).ys[-1, 0]


@pytest.mark.usefixtures("programs_stay")
def test_numbers_from_outside_have_derivatives():
    value, expected = 1.5, np.exp(-1.5)
    np.testing.assert_allclose(jax.grad(decayed)(value), -expected, rtol=1e-12)
    made = set(compiled._MADE)
    np.testing.assert_allclose(jax.grad(decayed)(2.0), -np.exp(-2.0), rtol=1e-12)
    assert set(compiled._MADE) == made  # another number compiles nothing
    _, slope = jax.jvp(decayed, (value,), (1.0,))
    np.testing.assert_allclose(slope, -expected, rtol=1e-12)


@pytest.mark.slow
def test_numbers_from_outside_under_other_transformations():
    values = jnp.array([1.5, 2.0])
    batch = jax.vmap(decayed)(values)
    np.testing.assert_allclose(batch, np.exp(-np.asarray(values)), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(decayed))(1.5), -np.exp(-1.5), rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(jax.grad(decayed))(1.5), np.exp(-1.5), rtol=1e-12)


@pytest.mark.slow
def test_numbers_from_outside_in_other_states_and_times():
    def turned(rate):
        turn = pinn.solve(lambda t, z: {"z": -rate * (1 + 1j) * z["z"]}, {"z": 1.0 + 1.0j}, 1.0)
        return jnp.real(turn(1.0)["z"])

    np.testing.assert_allclose(turned(1.5), np.real((1 + 1j) * np.exp(-1.5 - 1.5j)), rtol=1e-12)
    slope = np.real(-((1 + 1j) ** 2) * np.exp(-1.5 - 1.5j))
    np.testing.assert_allclose(jax.grad(turned)(1.5), slope, rtol=1e-12)

    def before(rate):
        return pinn.solve(lambda t, y: -rate * y, jnp.ones(1), -1.0).ys[-1, 0]

    np.testing.assert_allclose(jax.grad(before)(1.5), np.exp(1.5), rtol=1e-12)

    def swung(stiffness):
        spring = systems.second_order(lambda t, x, v: -stiffness * x)
        return pinn.solve(spring, (1.0, 0.0), 1.0)(1.0)[0]

    slope = -np.sin(np.sqrt(2.0)) / (2 * np.sqrt(2.0))
    np.testing.assert_allclose(jax.grad(swung)(2.0), slope, rtol=1e-12)

    def driven(strength):  # by a force that reads it; the solution is linear in the force
        force = systems.FunctionForcing(lambda t: strength * jnp.cos(t), 2 * np.pi)
        driven = systems.DrivenOscillator(forcing=force)
        return pinn.solve(driven, jnp.zeros(2), 1.0).ys[-1, 0]

    np.testing.assert_allclose(jax.grad(driven)(1.5), driven(1.0), rtol=1e-12)


@pytest.mark.parametrize(
    "solver",
    ["events", "event", *(pytest.param(x, marks=pytest.mark.slow) for x in ("delays", "orbit"))],
)
def test_solvers_on_the_host_say_that_they_have_no_derivative(solver):
    def solved(rate):
        def f(t, y):
            return -rate * y

        half = pinn.Event(lambda t, y, args: y[0] - 0.5)
        if solver == "events":
            pinn.solve_events(f, jnp.ones(1), 1.0, half)
        elif solver == "event":
            half = pinn.Event(lambda t, y, args: y[0] - 0.5 * rate)
            pinn.solve_events(lambda t, y: -y, jnp.ones(1), 1.0, half)
        elif solver == "delays":
            late = systems.delayed(lambda t, y, past, args: -rate * past[0], 1.0)
            pinn.solve_delays(late, jnp.ones(1), 1.0)
        else:
            turn = from_function(lambda t, y: rate * jnp.stack([y[1], -y[0]]), 2)
            pinn.periodic_orbit(turn, [1.0, 0.0], 6.0)
        return rate

    with pytest.raises((TypeError, ValueError), match=r"must not (be|read) traced"):
        jax.grad(solved)(1.0)


@pytest.mark.slow
def test_lorenz_as_diffrax():
    point = jnp.ones(3), jnp.array(10.0), jnp.array(28.0)
    weights = jnp.array([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0]])
    expected = jax.grad(lambda p: jnp.sum(weights * diffraxs(*p)))(point)

    def loss(p):
        return jnp.sum(weights * ours(*p))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), jax.grad(loss)(point), expected
    )
    ones = jax.tree.map(jnp.ones_like, point)
    _, slope = jax.jvp(loss, (point,), (ones,))
    np.testing.assert_allclose(slope, sum(jnp.sum(x) for x in expected), rtol=1e-9)
    rhos = jnp.array([28.0, 20.0])
    batch = jax.jit(jax.vmap(jax.grad(lambda rho: loss((point[0], point[1], rho)))))(rhos)
    np.testing.assert_allclose(batch[0], expected[2], rtol=1e-9)
    step = 1e-4
    ends = [jnp.sum(weights * ours(*point[:2], rhos[1] + sign * step)) for sign in (1, -1)]
    np.testing.assert_allclose(batch[1], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


@pytest.mark.slow
def test_first_and_second_derivatives_of_an_exponential():
    """u = y0 exp(k t), between grid points too."""
    system = from_function(lambda t, y, k: k * y, 1)

    def u(k, y0):
        return pinn.solve(system, y0[None], 2.0, args=k, max_windows=16)(1.3)[0]

    k, y0 = jnp.array(0.7), jnp.array(2.0)
    value = y0 * jnp.exp(1.3 * k)
    np.testing.assert_allclose(jax.grad(u, (0, 1))(k, y0), (1.3 * value, value / y0), rtol=1e-12)
    second = jax.hessian(u, (0, 1))(k, y0)
    expected = ((1.69 * value, 1.3 * value / y0), (1.3 * value / y0, 0.0))
    np.testing.assert_allclose(second, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_driven_oscillator_in_its_damping_and_in_time():
    times, y0 = jnp.linspace(0.5, 20.0, 8), jnp.array([1.0, 0.0])

    def curve(gamma):
        return pinn.solve(DrivenOscillator(gamma=gamma), y0, 20.0, max_windows=16)(times)

    def exact(gamma):
        return DrivenOscillator(gamma=gamma).exact(times, y0)

    gamma = jnp.array(0.2)
    found = jax.jit(jax.jacrev(curve))(gamma)
    np.testing.assert_allclose(found, jax.jacfwd(exact)(gamma), atol=1e-11)


@pytest.mark.slow
def test_the_start_alone_of_a_system_without_numbers():
    fall = from_function(lambda t, y, args: jnp.stack([y[1], -9.81 + 0 * y[0]]), 2)
    solved = jax.jacfwd(lambda start: pinn.solve(fall, start, 3.0, ts=TIMES, max_windows=8).ys)
    expected = np.stack([[[1.0, t], [0.0, 1.0]] for t in TIMES])
    np.testing.assert_allclose(solved(jnp.array([1.0, 0.0])), expected, rtol=1e-13, atol=1e-13)
