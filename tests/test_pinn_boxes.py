"""Partial equations in two coordinates of space and time against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusals

from physml import pinn
from physml._numerics import compiled
from physml.pinn.space_time._jets import taylor
from physml.pinn.space_time._problem import make_problem
from physml.pinn.space_time.boxes._axis import grid_axis
from physml.pinn.space_time.boxes._grid import make_grid
from physml.pinn.space_time.boxes._jet_field import JetField
from physml.pinn.space_time.boxes._lines import Lines
from physml.results import RESULTS

SQUARE = {"x": (0.0, 1.0), "y": (0.0, 1.0), "t": (0.0, 0.1)}


def zero(u, *point):
    return u(*point)


def heat(u, *point):
    return u.t(*point) - u.xx(*point) - u.yy(*point)


def faces(condition, domain=SQUARE):
    return {(c, end): condition for c in domain if c != "t" for end in domain[c]}


def given(truth):
    return lambda u, *point: u(*point) - truth(*point)


def cooling(x, y, t):
    return jnp.sin(jnp.pi * x) * jnp.sin(jnp.pi * y) * jnp.exp(-2 * jnp.pi**2 * t)


def check(solution, truth, most, high=10.0):
    """The error is at most `most` of u for each component, and the estimate within a factor."""
    assert solution.result == RESULTS.successful
    counts = [7 if c == "t" else 21 for c in solution.coordinates]
    axes = [
        np.linspace(*end, n) for end, n in zip(np.asarray(solution.domain), counts, strict=True)
    ]
    points = np.meshgrid(*axes, indexing="ij")
    exact = np.asarray(truth(*points))
    error = np.abs(np.asarray(solution(*points)) - exact)
    estimate = np.asarray(solution.error_estimate(*points))
    assert estimate.shape == error.shape
    over = tuple(range(len(points)))
    size, error, estimate = (np.sqrt(np.sum(x**2, over)) for x in (exact, error, estimate))
    assert np.all(error <= most * size), error / size
    assert np.all(estimate < high * error) and np.all(error < high * estimate), estimate / error


@pytest.mark.parametrize("periodic", [False, True])
def test_tables_of_an_axis(periodic):
    axis = grid_axis(-1.0, 2.0, periodic, 21)
    wave = 2 * np.pi / 3
    of = lambda x: np.exp(np.sin(wave * x))  # noqa: E731
    x = np.linspace(-1.0, 2.0, 31)
    values, slope = of(axis.points), wave * np.cos(wave * axis.points) * of(axis.points)
    tolerance = 1e-8 if periodic else 1e-4
    np.testing.assert_allclose(axis.at(x) @ values, of(x), atol=tolerance)
    np.testing.assert_allclose(axis.derivative(1) @ values, slope, atol=60 * tolerance)
    twice = axis.derivative(2) @ values
    np.testing.assert_allclose(twice, axis.derivative(1) @ slope, atol=2e3 * tolerance)
    functions = jax.jit(jax.vmap(axis.functions))(jnp.asarray(x))
    np.testing.assert_allclose(functions @ axis.modes, axis.at(x), atol=1e-12)
    assert axis.tail(np.ones(axis.size)) < 1e-14


def test_a_table_of_derivatives_is_differentiated_as_the_polynomial_is():
    derivatives = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0))
    jet = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    point = jnp.array([0.3, -0.4, 2.0])

    def flux(u):
        def own(x, y, t):
            return u(x, y, t) ** 3 * u.x(x, y, t) + y * u.y(x, y, t)

        return jax.jacfwd(own)(*point), u.t(*point), u.xx(*point), jax.jacrev(u.x, 1)(*point)

    found = flux(JetField("xyt", derivatives, jet))
    for value, wanted in zip(found, flux(taylor("xyt", derivatives, jet, point)), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
    with pytest.raises(AttributeError, match=r"u\.z"):
        _ = JetField("xyt", derivatives, jet).z


COOLED = {("t", 0.0): given(cooling), **faces(zero)}


@pytest.mark.slow
def test_lines_are_the_same_while_what_their_functions_read_is():
    rate, matrix = [1.0], np.ones((2, 2))

    def residual(u, *point):
        return u.t(*point) - rate[0] * jnp.asarray(matrix)[0, 1] * (u.xx(*point) + u.yy(*point))

    def lines(residual=residual, domain=SQUARE):
        problem = make_problem(residual, domain, "xy", None, None)
        return Lines(problem, make_grid(problem, (6, 6)))

    first = lines()
    assert lines() == first and hash(lines()) == hash(first)
    assert lines(domain=SQUARE | {"t": (0.0, 0.2)}) != first
    assert lines(lambda *at: residual(*at)) != first
    rate[0] = 2.0
    assert lines() != first
    rate[0], matrix[0, 1] = 1.0, 3.0
    assert lines() != first
    matrix[0, 1] = 1.0
    assert lines() == first

    class Diffusion(eqx.Module):
        k: jax.Array

        def __call__(self, u, *point):
            return u.t(*point) - self.k * u.xx(*point)

    unhashable = Diffusion(jnp.ones(()))
    assert lines(unhashable) != lines(unhashable)


@pytest.fixture(scope="module")
def cooled():
    return pinn.pde(heat, SQUARE, COOLED)


@pytest.mark.slow
def test_heat_in_a_square(cooled):
    check(cooled, cooling, 1e-11, high=50.0)  # both are near rounding
    point = 0.3, 0.6, 0.07
    np.testing.assert_allclose(
        cooled.derivative("xy", *point),
        jax.grad(jax.grad(cooling, 0), 1)(*point),
        rtol=1e-9,
    )
    assert abs(cooled.residual(*point)[0]) < 1e-8
    assert max(cooled.stats["condition_defects"].values()) < 1e-12
    with pytest.raises(ValueError, match="y must lie in"):
        cooled(0.5, 1.5, 0.0)
    assert cooled.to_xarray(x=[0.0, 0.5], y=[0.5], t=[0.0, 0.1]).u.shape == (2, 1, 2)
    assert "BoxSolution" in repr(cooled)
    made = dict(compiled._MADE)
    again = pinn.pde(heat, SQUARE, COOLED)
    assert compiled._MADE == made  # nothing is compiled twice
    np.testing.assert_array_equal(again(*point), cooled(*point))


@pytest.mark.slow
def test_slopes_given_on_all_faces():
    def truth(x, y, t):
        wave = jnp.cos(jnp.pi * x) * jnp.cos(2 * jnp.pi * y)
        return wave * jnp.exp(-0.5 * jnp.pi**2 * t) + x**2 / 2 + 0.1 * t

    solution = pinn.pde(
        lambda u, *point: u.t(*point) - 0.1 * (u.xx(*point) + u.yy(*point)),
        SQUARE | {"t": (0.0, 1.0)},
        {
            ("t", 0.0): given(truth),
            ("x", 0.0): lambda u, *point: u.x(*point),
            ("x", 1.0): lambda u, *point: u.x(*point) - 1.0,
            ("y", 0.0): lambda u, *point: u.y(*point),
            ("y", 1.0): lambda u, *point: u.y(*point),
        },
    )
    check(solution, truth, 1e-9)


@pytest.mark.slow
def test_transport_that_is_periodic():
    def truth(x, y, t):
        return jnp.exp(jnp.sin(x - t) + jnp.cos(y - 2 * t))

    turn = (0.0, 2 * np.pi)
    solution = pinn.pde(
        lambda u, *point: u.t(*point) + u.x(*point) + 2 * u.y(*point),
        {"x": turn, "y": turn, "t": (0.0, 1.0)},
        {("t", 0.0): given(truth)},
        periodic="xy",
    )
    check(solution, truth, 1e-9)


@pytest.mark.slow
def test_a_membrane_of_second_order_in_time():
    def truth(x, y, t):
        return jnp.sin(jnp.pi * x) * jnp.sin(jnp.pi * y) * jnp.cos(jnp.sqrt(2.0) * jnp.pi * t)

    solution = pinn.pde(
        lambda u, *point: u.tt(*point) - u.xx(*point) - u.yy(*point),
        SQUARE | {"t": (0.0, 1.0)},
        {
            ("t", 0.0): lambda u, *point: (u(*point) - truth(*point), u.t(*point)),
            **faces(zero),
        },
    )
    check(solution, truth, 1e-11, high=50.0)  # both are near rounding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "top", "words"),
    [
        (lambda x, y: jnp.sin(jnp.pi * x) * jnp.abs(y - 0.3), zero, "kink"),
        (lambda x, y: 0.0 * x, lambda u, *point: u(*point) - 1.0, "miss the conditions"),
    ],
    ids=["kink", "corner"],
)
def test_what_no_grid_resolves_is_said_before_the_march(start, top, words):
    conditions = {
        ("t", 0.0): lambda u, x, y, t: u(x, y, t) - start(x, y),
        **faces(zero),
        ("y", 1.0): top,
    }
    with pytest.warns(UserWarning, match=words):
        solution = pinn.pde(heat, SQUARE, conditions, throw=False)
    assert solution.result == RESULTS.unresolved
    assert solution.domain[2, 1] == 0.0 and np.isinf(solution.error_estimate(0.5, 0.5, 0.0))


@refusals(
    ({"residual": lambda u, *p: u.t(*p) ** 2 - u.xx(*p) - u.yy(*p)}, r"linear in u\.t"),
    ({"residual": lambda u, *p: u.t(*p) + u.xxt(*p) + u.yy(*p)}, "without derivatives in space"),
    ({"residual": lambda u, *p: u.xx(*p) + u.yy(*p)}, "must determine u.t"),
    (
        {"residual": lambda u, *p: u.t(*p) * u(*p)[2], "components": 2},
        "residual must use indices from 0 to 1 .* got 2",
    ),
    ({"conditions": {("x", 0.0): lambda u, *p: u(*p) ** 2 - 1.0}}, "must be linear in u"),
    ({"conditions": {("x", 0.0): lambda u, *p: p[2] * u.x(*p) + u(*p)}}, "change with t"),
    ({"conditions": {("t", 0.0): lambda u, *p: u(*p) + u.x(*p)}}, "no derivatives in space"),
    ({"domain": {**SQUARE, "z": (0.0, 1.0)}}, "at most two coordinates of space"),
    ({"checkpoint": "somewhere"}, "checkpoint must be None"),
)
def test_bad_input(change):
    conditions = {("t", 0.0): given(cooling), **faces(zero), **change.pop("conditions", {})}
    problem = {"residual": heat, "domain": SQUARE, "conditions": conditions}
    pinn.pde(**(problem | change))


@pytest.mark.slow
def test_kovasznay_flow():
    rate = 20.0 - np.sqrt(400.0 + 4 * np.pi**2)

    def truth(x, y):
        decay, angle = jnp.exp(rate * x), 2 * jnp.pi * y
        cross = rate / (2 * np.pi) * decay * jnp.sin(angle)
        return jnp.stack([1 - decay * jnp.cos(angle), cross, (1 - decay**2) / 2 + 0 * y], axis=-1)

    def residual(u, x, y):
        flow, by_x, by_y = u(x, y), u.x(x, y), u.y(x, y)
        carried = flow[0] * by_x + flow[1] * by_y - (u.xx(x, y) + u.yy(x, y)) / 40.0
        return jnp.stack([carried[0] + by_x[2], carried[1] + by_y[2], by_x[0] + by_y[1]])

    domain = {"x": (-0.5, 1.0), "y": (-0.5, 0.5)}
    solution = pinn.pde(
        residual,
        domain,
        {**faces(lambda u, *p: given(truth)(u, *p)[:2], domain), ("x", 1.0): given(truth)},
        components=3,
    )
    assert solution.result == RESULTS.successful
    points = np.meshgrid(*(np.linspace(*ends, 21) for ends in domain.values()), indexing="ij")
    exact = np.asarray(truth(*points))
    error = np.linalg.norm(np.asarray(solution(*points)) - exact, axis=(0, 1))
    assert np.all(error < np.array([5e-12, 5e-12, 5e-11]) * np.linalg.norm(exact, axis=(0, 1)))


ROD = {"x": (0.0, 1.0), "t": (0.0, 1.0)}


def rod(u, x, t, args):
    return u.t(x, t) - args["k"] * u.xx(x, t)


def sine(u, x, t):
    return u(x, t) - jnp.sin(jnp.pi * x)


def test_on_grid_is_the_method_of_lines():
    grid = pinn.on_grid(rod, ROD, {("t", 0.0): sine, **faces(zero, ROD)}, args={"k": 0.1})
    rates = grid.system.vector_field(0.0, grid.start, {"k": 0.3})
    np.testing.assert_allclose(rates, -0.3 * np.pi**2 * grid.start, rtol=1e-7)
    places = np.array([0.0, 0.21, 0.5])
    np.testing.assert_allclose(grid.at(x=places)(grid.start), np.sin(np.pi * places), atol=1e-12)
    with pytest.raises(ValueError, match="x must lie in"):
        grid.at(x=[2.0])
    with pytest.raises(ValueError, match="coordinates must be x"):
        grid.at(y=[0.0])
    conditions = {("t", 0.0): sine, **faces(lambda u, x, t: u(x, t) - t, ROD)}
    with pytest.raises(ValueError, match="must not change with t"):
        pinn.on_grid(rod, ROD, conditions, args={"k": 0.1})


@pytest.mark.slow
def test_a_diffusivity_with_its_interval():
    conditions = {("t", 0.0): sine, **faces(zero, ROD)}
    grid = pinn.on_grid(rod, ROD, conditions, args={"k": 0.05}, points=12)
    sensors, ts = np.array([0.25, 0.5, 0.7]), np.linspace(0.05, 1.0, 20)
    truth = np.sin(np.pi * sensors) * np.exp(-0.1 * np.pi**2 * ts)[:, None]
    noise = 0.01 * np.random.default_rng(0).standard_normal((50, *truth.shape))

    def fit(ys):
        found = pinn.identify(
            grid.system,
            ts,
            ys,
            y0=grid.start,
            t0=0.0,
            known_start=True,
            free=("k",),
            observe=grid.at(x=sensors),
            num_windows=2,
            throw=False,
        )
        return found.values["k"], found.intervals()["k"]

    values, (low, high) = jax.jit(jax.vmap(fit))(jnp.asarray(truth + noise))
    assert 0.86 <= np.mean((low <= 0.1) & (0.1 <= high)) <= 1.0
    np.testing.assert_allclose(np.mean(values), 0.1, rtol=0.01)
