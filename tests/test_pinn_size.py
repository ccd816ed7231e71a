"""Stiff and large systems: the linear algebra of their windows, and solutions with known values."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import hadamard

from physml import pinn, reference
from physml._numerics.quadrature import gauss
from physml.pinn.collocation import (
    accelerate,
    factorise,
    find_band,
    hidden_layer,
    iterate,
    jacobian_of,
    largest_real_part,
    solve_stages,
    tabulate,
    with_implicit,
)
from physml.pinn.collocation._stages import gauss_stages, stages
from physml.pinn.ivp import _room
from physml.results import RESULTS
from physml.systems import Lorenz, Lorenz96, from_function


def ring(dim: int, generator: np.random.Generator) -> np.ndarray:
    """A matrix whose components depend on two neighbours on each side of a ring, in any order."""
    matrix = sum(np.roll(np.diag(generator.normal(size=dim)), k, axis=1) for k in range(-2, 3))
    order = generator.permutation(dim)
    return (np.asarray(matrix) - 8 * np.eye(dim))[np.ix_(order, order)]


def coupling_of_fit() -> np.ndarray:
    tables = with_implicit(tabulate(hidden_layer(40, 1, dtype=float), 30, float), None)
    assert tables.implicit is not None
    identity = np.asarray(tables.implicit.projection @ tables.slopes)
    np.testing.assert_allclose(identity, np.eye(tables.rank), atol=1e-12)
    return np.asarray(tables.implicit.projection @ tables.values)


@pytest.mark.parametrize(
    "matrix",
    [
        coupling_of_fit(),
        gauss(45).integrals[:-1].astype(float),
        gauss(2).integrals[:-1].astype(float),
        np.array([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0], [0.0, 0.0, 4.0]]),  # real eigenvalues only
    ],
    ids=["fit", "gauss45", "gauss2", "real"],
)
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_stages_are_solved_as_the_whole_system(matrix, size):
    generator = np.random.default_rng(0)
    jacobian = size * (generator.normal(size=(6, 6)) - 6 * np.eye(6))
    wanted = generator.normal(size=(6, len(matrix)))
    known = wanted - 0.5 * jacobian @ wanted @ matrix.T
    small = stages(matrix, float)
    factors = factorise(small, jnp.asarray(jacobian), jnp.asarray(0.5))
    found = solve_stages(small, factors, jnp.asarray(known))
    np.testing.assert_allclose(found, wanted, atol=1e-10)
    assert len(small.eigenvalues) == (3 if len(matrix) == 3 else (len(matrix) + 1) // 2)


@pytest.mark.slow
def test_blocks_give_what_the_dense_matrix_gives():
    matrix = 100 * ring(203, np.random.default_rng(1))
    units = jnp.exp(jnp.asarray(np.random.default_rng(2).normal(size=203)))
    band = find_band(matrix != 0)
    assert band is not None
    dense, blocks = (jacobian_of(lambda y: jnp.asarray(matrix) @ y, units, b) for b in (None, band))
    expected = matrix * np.asarray(units) / np.asarray(units)[:, None]
    np.testing.assert_allclose(dense, expected, rtol=1e-14)
    np.testing.assert_allclose(largest_real_part(dense), largest_real_part(blocks), rtol=1e-14)
    assert largest_real_part(dense) >= np.linalg.eigvals(matrix).real.max()
    small, known = gauss_stages(8, np.dtype(float)), jnp.asarray(matrix[:, :8])
    found = [
        solve_stages(small, factorise(small, x, jnp.asarray(0.3)), known) for x in (dense, blocks)
    ]
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


def test_no_band_is_found_where_all_depends_on_all():
    assert find_band(np.ones((200, 200), bool)) is None


def test_acceleration_solves_what_the_iterations_alone_do_not():
    generator = np.random.default_rng(3)
    matrix = np.diag(np.linspace(-3.0, 0.5, 8)) + 0.1 * generator.normal(size=(8, 8))
    known, weights = generator.normal(size=(8, 1)), 10.0 ** np.linspace(-6, 6, 8)

    def step(x):
        new = (
            jnp.asarray(known / weights[:, None])
            + jnp.asarray(matrix * weights[None] / weights[:, None]) @ x
        )
        return new, jnp.max(jnp.asarray(weights)[:, None] * jnp.abs(new - x))

    wanted = np.linalg.solve(np.eye(8) - matrix, known) / weights[:, None]
    start = jnp.zeros((8, 1))
    found, last, count = accelerate(step, start, jnp.asarray(weights), enough=1e-10, limit=1e9)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
    assert last <= 1e-10 and count < 20
    assert iterate(step, start, enough=1e-10, limit=1e9)[1] > 1e-10


def heat(n: int):
    """The heat equation in n points, and its exact solution at t = 0.1."""
    h = 1 / (n + 1)
    x, k = np.arange(1, n + 1) * h, np.arange(1, n + 1)
    y0 = x * (1 - x) * np.exp(np.sin(5 * x))
    modes = np.sin(np.pi * np.outer(x, k))
    rates = -4 / h**2 * np.sin(np.pi * k * h / 2) ** 2
    truth = 2 * h * modes @ (np.exp(0.1 * rates) * (modes @ y0))

    def field(t, y, args):
        padded = jnp.pad(y, 1)
        return (padded[2:] - 2 * y + padded[:-2]) / h**2

    return from_function(field, dim=n), y0, truth


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 100])
def test_heat_by_lines(n):
    system, y0, truth = heat(n)
    solution = pinn.solve(system, y0, 0.1, ts=[0.1])
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.ys[-1], truth, atol=1e-13 * np.max(truth))
    error = np.abs(solution.ys[-1] - truth)
    assert np.all(error < 10 * np.asarray(solution.error_estimate(0.1)) + 1e-15 * np.max(truth))
    assert int(solution.stats["num_windows"]) < 20


LINEAR = from_function(lambda t, y, matrix: matrix @ y, dim=16)


@pytest.mark.slow
def test_complex_eigenvalues_up_to_1e5():
    size = 16
    mixing = hadamard(size) / 4.0  # orthogonal, and exact in floats
    damping = 2.0 ** np.round(np.linspace(0, 17, size // 2))
    turning = 0.75 * damping
    blocks = [[[-a, -b], [b, -a]] for a, b in zip(damping, turning, strict=True)]
    diagonal = np.zeros((size, size))
    for k, block in enumerate(blocks):
        diagonal[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    matrix = jnp.asarray(mixing @ diagonal @ mixing.T)
    start = np.cos(np.arange(size))
    end = (start[0::2] + 1j * start[1::2]) * np.exp(3.0 * (-damping + 1j * turning))
    truth = mixing @ np.stack([end.real, end.imag], axis=1).ravel()
    solution = pinn.solve(LINEAR, mixing @ start, 3.0, ts=[3.0], args=matrix)
    np.testing.assert_allclose(solution.ys[-1], truth, atol=1e-13 * np.max(np.abs(truth)))


def chain_at(rates: np.ndarray, t: float) -> np.ndarray:
    """Bateman's solution of a chain that starts with its first member, to 90 digits."""
    with decimal.localcontext(decimal.Context(prec=90)):
        exact = [decimal.Decimal(float(k)) for k in rates]
        amounts = []
        for last in range(len(rates)):
            total = decimal.Decimal(0)
            for j in range(last + 1):
                quotient = decimal.Decimal(1)
                for i in range(last + 1):
                    quotient *= exact[i] - exact[j] if i != j else 1
                total += (-exact[j] * decimal.Decimal(t)).exp() / quotient
            for k in exact[:last]:
                total *= k
            amounts.append(float(total))
    return np.array(amounts)


@pytest.mark.slow  # compiles the same program as the test above
def test_stiff_chain_in_units_that_differ_by_1e12():
    size = 16
    rates, units = np.logspace(0, 5, size), 10.0 ** -np.linspace(0, 12, size)
    rates[1::2] = rates[1::2][::-1]
    matrix = np.diag(rates[:-1], -1) - np.diag(rates)
    scaled = jnp.asarray(units[:, None] * matrix / units)
    solution = pinn.solve(LINEAR, units, 5.0, ts=[5.0], args=scaled)
    assert solution.result == RESULTS.successful
    parts = [np.append(np.zeros(first), chain_at(rates[first:], 5.0)) for first in range(size)]
    np.testing.assert_allclose(solution.ys[-1], units * np.sum(parts, axis=0), rtol=1e-11)


def forced(t, y, rates):
    """Prothero and Robinson's problem, whose solution from 1 is cos t."""
    return rates * (jnp.cos(t * jnp.ones(16)) - y) - jnp.sin(t)


FORCED = from_function(forced, dim=16, autonomous=False)


@pytest.mark.slow  # compiles the same program as the test of one that repels
def test_forced_components_follow_their_force():
    rates = jnp.asarray(np.logspace(0, 6, 16))
    solution = pinn.solve(FORCED, np.ones(16), 2.0, ts=[2.0], args=rates)
    np.testing.assert_allclose(solution.ys[-1], np.cos(2.0), atol=1e-14)


def brusselator(n: int):
    """By lines, with all values of u before those of v."""
    x = np.arange(1, n + 1) / (n + 1)

    def diffusion(z, edge):
        z = jnp.pad(z, 1, constant_values=edge)
        return (z[2:] - 2 * z[1:-1] + z[:-2]) * (n + 1) ** 2 / 50

    def field(t, y, args):
        u, v = y[:n], y[n:]
        rise = u**2 * v
        rates = 1 + rise - 4 * u + diffusion(u, 1.0), 3 * u - rise + diffusion(v, 3.0)
        return jnp.concatenate(rates)

    return from_function(field, dim=2 * n), np.append(1 + np.sin(2 * np.pi * x), np.full(n, 3.0))


@pytest.mark.parametrize("n", [10, pytest.param(64, marks=pytest.mark.slow)])
def test_brusselator_by_lines(n):
    system, y0 = brusselator(n)
    solution = pinn.solve(system, y0, 2.0, ts=[2.0])
    field = jax.jit(lambda t, y: system(t, y, None))
    truth = solve_ivp(field, (0.0, 2.0), y0, "Radau", rtol=1e-11, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(solution.ys[-1], truth, rtol=1e-9)


def robertson(t, y, args):
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [back - slow, slow - back - fast, fast]


def hires(t, y, args):
    a, b, c, d, e, f, g, h = y
    bound = 280 * f * h
    return [
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -bound + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        bound - 1.81 * g,
        -bound + 1.81 * g,
    ]


def oregonator(t, y, args):
    a, b, c = y
    return [77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)]


# The end values that the Bari test set (F. Mazzia, C. Magherini, 2008) publishes.
PUBLISHED = {
    "robertson": (
        robertson,
        [1.0, 0.0, 0.0],
        1e11,
        [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050],
    ),
    "hires": (
        hires,
        [1.0, 0, 0, 0, 0, 0, 0, 0.0057],
        321.8122,
        [
            *(0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4),
            *(0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2),
            *(0.2849998395185769e-2, 0.2850001604814231e-2),
        ],
    ),
    "oregonator": (
        oregonator,
        [1.0, 2.0, 3.0],
        360.0,
        [0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3],
    ),
}


SLOW = {"oregonator", "robertson", "hires"}  # each of these is a program of its own to compile


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in PUBLISHED]
)
def test_published_end_values(name):
    field, y0, t1, truth = PUBLISHED[name]
    solution = pinn.solve(from_function(field, dim=len(y0)), y0, t1, ts=[t1])
    np.testing.assert_allclose(solution.ys[-1], truth, rtol=1e-9)


def e5(t, y, args):
    start, bind = 7.89e-10 * y[0], 1.1e7 * y[0] * y[2]
    pair, decay = 1.13e9 * y[1] * y[2], 1.13e3 * y[3]
    return [-start - bind, start - pair, start - bind - pair + decay, bind - decay]


@pytest.mark.slow
@pytest.mark.parametrize("state", [1.0, 1e-15])
def test_fast_components_need_no_absolute_tolerance(state):
    """Robertson's second component follows the others."""
    field, y0, t1, truth = PUBLISHED["robertson"]
    system = from_function(
        lambda t, y, state: [state * x for x in field(t, y / state, None)], dim=3
    )
    solution = pinn.solve(system, np.array(y0) * state, t1, ts=[t1], args=jnp.asarray(state))
    np.testing.assert_allclose(solution.ys[-1] / state, truth, rtol=1e-6)
    assert solution.stats["num_windows"] < 90


@pytest.mark.slow
def test_the_first_transient_may_be_shorter_than_the_end_is_rounded():
    system, y0 = from_function(e5, dim=4), np.array([1.76e-3, 0.0, 0.0, 0.0])
    ts = [1e-3, 1e0, 1e3]
    solution = pinn.solve(system, y0, 1e13, ts=ts)
    found = solve_ivp(
        lambda t, y: np.array(e5(t, y, None)), (0.0, 1e3), y0, "Radau",
        t_eval=ts, rtol=1e-10, atol=1e-26,
    )  # fmt: skip
    np.testing.assert_allclose(solution.ys, found.y.T, rtol=1e-6)
    assert solution.stats["num_windows"] < 300


@pytest.mark.slow
def test_burgers_by_lines_though_iterates_overflow():
    """Fixed-point iterations square what they hold: with so many numbers it must not pass."""
    n, nu = 150, 0.02
    h = 1 / (n + 1)

    def field(of):
        def f(t, u):
            wall = of.zeros(1)
            wide = of.concatenate([wall, u, wall])
            second = (wide[2:] - 2 * u + wide[:-2]) / h**2
            return nu * second - u * (wide[2:] - wide[:-2]) / (2 * h)

        return f

    y0 = np.sin(2 * np.pi * h * np.arange(1, n + 1))
    solution = pinn.solve(field(jnp), jnp.asarray(y0), t1=0.5, ts=[0.0, 0.5])
    truth = solve_ivp(field(np), (0, 0.5), y0, method="Radau", rtol=1e-11, atol=1e-13).y[:, -1]
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.ys[-1], truth, atol=1e-12)


@pytest.mark.slow
def test_lorenz96_with_40_components():
    system, y0 = Lorenz96(40), np.full(40, 8.0) + 0.01 * np.eye(40)[0]
    grid = 0.01 * np.arange(501)
    solution = pinn.solve(system, y0, 5.0, ts=grid)
    truth = np.asarray(reference.extended_trajectories(system, y0[None], grid).ys)[0]
    scale = np.max(np.abs(truth))
    assert np.max(np.abs(solution.ys - truth)) < 1e-12 * scale


@pytest.mark.slow
def test_a_large_system_that_repels_is_not_trusted():
    """One of many stiff components follows cos t, from which all other solutions run away."""
    rates = jnp.asarray(np.append(np.logspace(0, 4, 15), -1e4))
    with pytest.warns(UserWarning, match="error estimate"):
        solution = pinn.solve(FORCED, np.ones(16), 2.0, ts=[2.0], args=rates)
    assert solution.result == RESULTS.suspect
    assert not np.all(np.isfinite(solution.error_estimate(2.0)))


@pytest.mark.slow
def test_buffers_grow_where_they_are_full(monkeypatch):
    whole = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 25.0)
    assert int(whole.stats["num_windows"]) > 64
    monkeypatch.setattr(_room, "_ROOM", 1)
    grown = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 25.0)
    np.testing.assert_array_equal(grown.ys, whole.ys)
    np.testing.assert_array_equal(grown.error_estimate(20.0), whole.error_estimate(20.0))
    with pytest.warns(UserWarning, match="66 windows, that is max_windows"):
        few = pinn.solve(Lorenz(), [1.0, 1.0, 1.0], 25.0, max_windows=66, throw=False)
    assert int(few.stats["num_windows"]) == 66 and few.result == RESULTS.max_steps_reached


def largest_array(jaxpr) -> int:
    """The number of elements of the largest array that is made anywhere in a program."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [x.aval.size for x in equation.outvars]
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            sizes += [largest_array(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


def test_memory_grows_as_the_square_of_the_dimension():
    system, y0, _ = heat(100)
    solve = jax.make_jaxpr(lambda y: pinn.solve(system, y, 0.1, ts=[0.1], max_windows=8).ys)
    jaxpr = solve(jnp.asarray(y0)).jaxpr
    # 23 factorisations of the correction; a matrix of all points at once has 45^2 dim^2 elements.
    assert largest_array(jaxpr) <= 50 * 100**2
