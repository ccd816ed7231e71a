"""Partial differential equations against closed forms, Cole-Hopf and the method of lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_leaves, refusals

from physml import pinn, reference
from physml.pinn.collocation import hidden_layer
from physml.pinn.space_time._elements import axis_functions, halving, with_end_states
from physml.results import RESULTS

UNIT = {"x": (0.0, 1.0), "t": (0.0, 0.1)}


def zero(u, *point):
    return u(*point)


def sine(u, x, t):
    return u(x, t) - jnp.sin(jnp.pi * x)


def heat(u, x, t):
    return u.t(x, t) - u.xx(x, t)


def slower(u, x, t):
    return u.t(x, t) - 0.5 * u.xx(x, t)


ENDS = {("x", 0.0): zero, ("x", 1.0): zero}


def grid(solution, *counts):
    ends = np.asarray(solution.domain)
    axes = [np.linspace(*end, n) for end, n in zip(ends, counts, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def relative_l2(values, truth):
    return np.linalg.norm(values - truth) / np.linalg.norm(truth)


def check_estimate(solution, truth, *points, most=10.0):
    """The estimate is within a factor of the error in the L2 norm, and nowhere a tenth of it."""
    estimate, error = (
        np.asarray(solution.error_estimate(*points)),
        np.abs(solution(*points) - truth),
    )
    assert estimate.shape == error.shape
    ratio = np.linalg.norm(estimate) / np.linalg.norm(error)
    assert 0.3 < ratio < most, ratio
    assert np.mean(estimate < error / 10) < 0.01


@pytest.mark.slow
def test_conditions_that_contradict_each_other_are_said():
    def both(u, x):  # u = 0 and u' = 1 at 0, u = 0 at pi / 2, where sin is 1
        return u(x), u.x(x) - 1.0

    domain, ends = {"x": (0.0, np.pi / 2)}, {("x", 0.0): both, ("x", np.pi / 2): zero}
    with pytest.raises(ValueError, match="must return 2 numbers in all"):
        pinn.pde(lambda u, x: u.xx(x) + u(x), domain, ends)
    first = {("x", 0.0): zero, ("x", np.pi / 2): lambda u, x: u(x) - 1.0}
    with pytest.raises(RuntimeError, match=r"conditions are not met|residual stays above"):
        pinn.pde(lambda u, x: u.x(x) - u(x), domain, first)


@pytest.fixture(scope="module")
def heated():
    return pinn.pde(heat, UNIT, {("t", 0.0): sine, **ENDS}, elements=2)


def test_heat(heated):
    x, t = grid(heated, 41, 31)
    truth = np.exp(-(np.pi**2) * t) * np.sin(np.pi * x)
    assert heated.result == RESULTS.successful
    assert max(heated.stats["residuals"]) <= 1.0
    assert relative_l2(heated(x, t), truth) < 1e-11
    check_estimate(heated, truth, x, t)
    assert relative_l2(heated.derivative("xx", x, t), -(np.pi**2) * truth) < 1e-7
    assert np.max(np.abs(heated.residual(x, t))) < 1e-5
    # What a residual is handed is a function that JAX differentiates.
    slope = jax.grad(heated.field, 0)(jnp.asarray(0.3), jnp.asarray(0.05))
    exact = np.pi * np.exp(-(np.pi**2) * 0.05) * np.cos(0.3 * np.pi)
    np.testing.assert_allclose(slope, exact, rtol=1e-9)
    assert heated(0.5, 0.1).shape == ()
    with pytest.raises(ValueError, match=r"t must lie in \[0.0, 0.1\]"):
        heated(0.5, 0.2)
    with pytest.raises(ValueError, match="coordinates x, t, got 1"):
        heated(0.5)
    with pytest.raises(AttributeError, match="named by coordinates"):
        heated.derivative("xy", 0.5, 0.1)


def test_heat_becomes_a_data_set(heated):
    xarray = pytest.importorskip("xarray")
    found = heated.to_xarray(t=[0.05, 0.1], x=np.linspace(0.0, 1.0, 5))
    assert isinstance(found, xarray.Dataset) and found.u.dims == ("x", "t")
    assert found.attrs == {"result": "Successful."}
    points = np.meshgrid(found.x, found.t, indexing="ij")
    np.testing.assert_allclose(found.u, heated(*points), rtol=1e-12)
    np.testing.assert_allclose(found.u_error, heated.error_estimate(*points), rtol=1e-12)
    np.testing.assert_allclose(found.u.sel(x=0.25, t=0.1), heated(0.25, 0.1), rtol=1e-12)
    with pytest.raises(ValueError, match="coordinates must be x, t, got x"):
        heated.to_xarray(x=[0.5])


def test_functions_are_combinations_of_the_hidden_layer():
    functions = axis_functions(48, 20, 2, 64, 0.7, jnp.float64)
    hidden = hidden_layer(48, 1, slope=0.7, dtype=jnp.float64)
    bend = jax.jacfwd(jax.jacfwd(lambda s: hidden.features(s[None])))
    features = np.asarray(jax.vmap(bend)(jnp.asarray(functions.points)))
    bends = functions.at(functions.points)[2][:, 2:12]
    readout = np.linalg.lstsq(features, bends)[0]
    np.testing.assert_allclose(features @ readout, bends, atol=1e-8)


def test_derivatives_belong_to_each_other_and_neighbours_join():
    tables = with_end_states(axis_functions(48, 20, 2, 26, 1.0, jnp.float64))
    s = np.linspace(-1.0, 1.0, 9)
    values, slopes = (jax.vmap(f)(jnp.asarray(s)) for f in (tables.basis, jax.jacfwd(tables.basis)))
    # A smooth function's coefficients, with which the noise of the last functions does not count.
    target = np.sin(2.0 * tables.points + 0.3)
    coefficients = np.linalg.lstsq(tables.at(tables.points)[0], target)[0]
    np.testing.assert_allclose(values @ coefficients, np.sin(2.0 * s + 0.3), atol=1e-11)
    np.testing.assert_allclose(slopes @ coefficients, 2.0 * np.cos(2.0 * s + 0.3), atol=1e-9)
    np.testing.assert_allclose(tables.at(s)[1], slopes, atol=2e-14)
    # A jump of 4e-14 at the edges once moved the shock of Burgers' equation by 4e-13.
    ends = tables.at(np.array([-1.0, 1.0]))[:2].swapaxes(0, 1).reshape(4, -1)
    np.testing.assert_allclose(ends, np.eye(22)[-4:], atol=1e-16)
    for half, shift in zip(halving(tables), (-0.5, 0.5), strict=True):
        moved = tables.at(s)[0] @ half @ coefficients
        np.testing.assert_allclose(moved, np.sin(2.0 * (s / 2 + shift) + 0.3), atol=1e-11)


@refusals(
    ({"residual": lambda u, x, t: 0.0}, "must return a JAX array", TypeError),
    ({"residual": lambda u, x, t: u.t(x, t) * jnp.nan}, "must be finite"),
    ({"residual": lambda u, x, t: (u.t(x, t), u.x(x, t))}, "1 components, got 2"),
    ({"residual": lambda u, x, t: x + t}, "must depend on u"),
    ({"residual": lambda u, x, t: u.xxxxx(x, t)}, "of at most order 4"),
    ({"domain": {"x": (0.0, 1.0), "t": (0.1, 0.1)}}, r"domain\['t'\]"),
    ({"domain": {"x": (0.0, np.inf), "t": (0.0, 1.0)}}, r"domain\['x'\]"),
    ({"domain": UNIT | {"y": (0.0, 1.0), "z": (0.0, 1.0)}}, "at most two"),
    ({"domain": {"t": (0.0, 1.0)}}, "coordinate of space"),
    ({"domain": {"time": (0.0, 1.0)}}, "single letters"),
    ({"conditions": ENDS}, "conditions at t = 0.0 must return 1"),
    ({"conditions": {("t", 0.0): sine}}, "must name a face of x"),
    (
        {"conditions": {("t", 0.0): sine, ("x", 0.0): zero}},
        "faces of x must return 2 numbers in all",
    ),
    ({"conditions": {("x", 0.5): zero}}, "must name faces"),
    ({"conditions": {("t", 0.1): zero}}, "must name faces"),
    ({"conditions": {("x", 0.0): heat}}, "lower derivatives than the equation"),
    ({"residual": lambda u, x, t: u.t(x, t) + u(x, t)}, "must name no face of x, in which"),
    ({"periodic": "y"}, "periodic must name"),
    ({"periodic": "x"}, "which is periodic"),
    ({"rtol": 0.0}, "rtol must be positive"),
    ({"elements": 0}, "elements must be at least 1"),
    ({"first_span": -1.0}, "first_span must be positive"),
    ({"components": 0}, "components must be at least 1"),
)
def test_bad_input(change):
    problem = {"residual": heat, "domain": UNIT, "conditions": {("t", 0.0): sine, **ENDS}}
    pinn.pde(**(problem | change))


@pytest.mark.slow
def test_poisson_with_mixed_conditions():
    """Values on three sides of the square, the slope on the fourth."""

    def exact(x, y):
        return jnp.exp(x) * jnp.sin(2.0 * jnp.pi * x) * jnp.cos(jnp.pi * y)

    def equation(u, x, y):
        laplacian = jax.grad(jax.grad(exact))(x, y) + jax.grad(jax.grad(exact, 1), 1)(x, y)
        return u.xx(x, y) + u.yy(x, y) - laplacian

    def rim(u, x, y):
        return u(x, y) - exact(x, y)

    faces = {("x", 0.0): rim, ("x", 1.0): rim, ("y", 0.0): rim}
    faces["y", 1.0] = lambda u, x, y: u.y(x, y) - jax.grad(exact, 1)(x, y)
    solution = pinn.pde(equation, {"x": (0.0, 1.0), "y": (0.0, 1.0)}, faces, elements=2)
    x, y = grid(solution, 31, 33)
    assert relative_l2(solution(x, y), np.asarray(exact(x, y))) < 1e-11
    check_estimate(solution, np.asarray(exact(x, y)), x, y, most=30.0)


@pytest.mark.slow
def test_wave():
    def start(u, x, t):
        return u(x, t) - jnp.sin(jnp.pi * x), u.t(x, t)

    def equation(u, x, t):
        return u.tt(x, t) - 4.0 * u.xx(x, t)

    domain = {"x": (0.0, 1.0), "t": (0.0, 0.5)}
    solution = pinn.pde(equation, domain, {("t", 0.0): start, **ENDS}, elements=2)
    x, t = grid(solution, 31, 41)
    truth = np.cos(2.0 * np.pi * t) * np.sin(np.pi * x)
    assert relative_l2(solution(x, t), truth) < 1e-9
    check_estimate(solution, truth, x, t)


@pytest.mark.slow
def test_a_system_and_the_order_of_coordinates():
    """Two waves that pass through each other on a ring: u_t = v_x, v_t = u_x."""

    def equation(u, t, x):
        return u.t(t, x) - u.x(t, x)[::-1]

    def start(u, t, x):
        wave = jnp.sin(2.0 * jnp.pi * x)
        return u(t, x) - jnp.stack([wave, jnp.zeros_like(wave)])

    domain, options = {"t": (0.0, 0.25), "x": (0.0, 1.0)}, {"components": 2, "elements": 2}
    solution = pinn.pde(equation, domain, {("t", 0.0): start}, periodic="x", **options)
    t, x = grid(solution, 21, 31)
    phase = 2.0 * np.pi * np.stack([x + t, x - t])
    right, left = np.sin(phase)
    truth = np.stack([(right + left) / 2, (right - left) / 2], axis=-1)
    assert relative_l2(solution(t, x), truth) < 1e-9
    check_estimate(solution, truth, t, x)


@pytest.mark.slow
def test_a_reaction_without_a_derivative_in_space():
    """u_t = u - u^3 at each x by itself: no condition on the ends, and a closed form."""

    def equation(u, x, t):
        return u.t(x, t) - u(x, t) + u(x, t) ** 3

    start = {("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(x)}
    solution = pinn.pde(equation, {"x": (0.0, 1.0), "t": (0.0, 1.0)}, start, elements=2)
    x, t = grid(solution, 21, 11)
    truth = np.sin(x) * np.exp(t) / np.sqrt(1 + np.sin(x) ** 2 * np.expm1(2 * t))
    assert relative_l2(solution(x, t), truth) < 2e-13
    check_estimate(solution, truth, x, t)


@pytest.mark.slow
def test_burgers_shock():
    viscosity = 0.01 / np.pi

    def equation(u, x, t):
        return u.t(x, t) + u(x, t) * u.x(x, t) - viscosity * u.xx(x, t)

    domain, ends = {"x": (-1.0, 1.0), "t": (0.0, 0.5)}, {("x", -1.0): zero, ("x", 1.0): zero}
    start = {("t", 0.0): lambda u, x, t: u(x, t) + jnp.sin(jnp.pi * x)}
    solution = pinn.pde(equation, domain, start | ends)
    x, t = grid(solution, 257, 51)
    truth = reference.cole_hopf(x, t, viscosity)
    assert relative_l2(solution(x, t), truth) < 8e-14
    check_estimate(solution, truth, x, t)
    lengths = np.diff(np.asarray(solution.edges)[-1])
    assert np.nanmin(lengths) < 0.05 < np.nanmax(lengths[np.isfinite(lengths)])


@pytest.mark.slow
def test_allen_cahn_with_a_kink_at_the_start():
    def equation(u, x, t):
        return u.t(x, t) - 1e-4 * u.xx(x, t) - 5.0 * (u(x, t) - u(x, t) ** 3)

    def shape(x):
        return x**2 * jnp.cos(jnp.pi * x)

    domain = {"x": (-1.0, 1.0), "t": (0.0, 0.2)}
    start = {("t", 0.0): lambda u, x, t: u(x, t) - shape(x)}
    solution = pinn.pde(equation, domain, start, periodic="x", rtol=1e-6)
    x, t = grid(solution, 257, 11)
    lines = reference.reaction_diffusion(
        lambda u: 5.0 * (u - u**3), 1e-4, shape, (-1.0, 1.0), t[0], num_points=2048
    )
    lines = np.asarray(lines)[:, ::8].T
    assert relative_l2(solution(x, t)[:-1], lines) < 1e-5
    np.testing.assert_allclose(solution(-1.0, 0.1), solution(1.0, 0.1), rtol=1e-10)


@pytest.mark.slow
def test_the_solution_zero_and_one_that_starts_there():
    nothing = pinn.pde(heat, UNIT, {("t", 0.0): zero, **ENDS}, elements=2)
    x, t = grid(nothing, 11, 5)
    assert nothing.result == RESULTS.successful
    np.testing.assert_array_equal(nothing(x, t), 0.0)
    np.testing.assert_array_equal(nothing.error_estimate(x, t), 0.0)

    def heating(u, x, t):
        return heat(u, x, t) - jnp.sin(jnp.pi * x)

    warmed = pinn.pde(heating, UNIT, {("t", 0.0): zero, **ENDS}, elements=2)
    truth = -np.expm1(-(np.pi**2) * t) / np.pi**2 * np.sin(np.pi * x)
    assert relative_l2(warmed(x, t), truth) < 1e-10


@pytest.mark.slow
def test_a_condition_that_lets_errors_grow_is_suspect():
    """u_x = k (1 - u) at 0 and k (u - 1) at 1 keep u = 1, and let errors grow as e^(46 t)."""
    rate = 6.8
    ends = {
        ("x", 0.0): lambda u, x, t: u.x(x, t) + rate * (u(x, t) - 1.0),
        ("x", 1.0): lambda u, x, t: u.x(x, t) - rate * (u(x, t) - 1.0),
    }
    start = {("t", 0.0): lambda u, x, t: u(x, t) - 1.0}
    with pytest.warns(UserWarning, match=r"half of the digits asked for are right until t = 0\."):
        solution = pinn.pde(heat, {"x": (0.0, 1.0), "t": (0.0, 1.0)}, start | ends)
    assert solution.result == RESULTS.suspect
    x, t = grid(solution, 21, 41)
    error, estimate = np.abs(solution(x, t) - 1.0), np.asarray(solution.error_estimate(x, t))
    assert error.max() > 1.0 and np.all(estimate > error / 10)


def helmholtz(waves, shift=1.0):
    """u_xx + u_yy + shift u = q on [-1, 1]^2 with u = sin(a pi x) sin(b pi y)."""
    a, b = (np.pi * n for n in waves)

    def exact(x, y):
        return jnp.sin(a * x) * jnp.sin(b * y)

    def equation(u, x, y):
        return u.xx(x, y) + u.yy(x, y) + shift * u(x, y) + (a**2 + b**2 - shift) * exact(x, y)

    faces = {(name, end): zero for name in "xy" for end in (-1.0, 1.0)}
    return equation, {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, faces, exact


@pytest.mark.slow
def test_elements_stand_along_the_coordinate_that_needs_them():
    *problem, exact = helmholtz((1, 4))
    solution = pinn.pde(*problem)
    x, y = grid(solution, 41, 41)
    assert solution.result == RESULTS.successful and solution.axis == 1
    assert relative_l2(solution(x, y), np.asarray(exact(x, y))) < 1e-10
    check_estimate(solution, np.asarray(exact(x, y)), x, y)
    with pytest.raises(
        RuntimeError, match="resolve it in y, and one layer does not in x"
    ) as caught:
        pinn.pde(*helmholtz((4, 4))[:3])
    assert "time" not in str(caught.value) and "Raise rtol" in str(caught.value)


@pytest.mark.slow
def test_the_estimate_knows_of_a_resonance():
    # The lowest eigenvalue of the Laplacian on this square is pi^2 / 2.
    faces = {(name, end): zero for name in "xy" for end in (-1.0, 1.0)}

    def exact(x, y):
        return jnp.exp(x) * (1 - x**2) * (1 - y**2)

    def equation(u, x, y, shift=np.pi**2 / 2 + 1e-3):
        laplacian = jax.grad(jax.grad(exact))(x, y) + jax.grad(jax.grad(exact, 1), 1)(x, y)
        return u.xx(x, y) + u.yy(x, y) + shift * u(x, y) - laplacian - shift * exact(x, y)

    solution = pinn.pde(equation, {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, faces)
    x, y = grid(solution, 31, 31)
    check_estimate(solution, np.asarray(exact(x, y)), x, y, most=30.0)


@pytest.mark.slow
def test_float32():
    conditions = {("t", 0.0): sine, **ENDS}
    solution = pinn.pde(heat, UNIT, conditions, elements=2, dtype=jnp.float32)
    x, t = grid(solution, 21, 11)
    values = solution(x, t)
    assert values.dtype == jnp.float32
    assert relative_l2(values, np.exp(-(np.pi**2) * t) * np.sin(np.pi * x)) < 1e-3


@pytest.mark.slow
def test_what_cannot_be_solved_stops_with_the_solution_so_far():
    """u_t = u^2 from 1 blows up at t = 1."""

    def equation(u, x, t):
        return u.t(x, t) - u(x, t) ** 2 - u.xx(x, t)

    def solve(throw):
        domain, start = {"x": (0.0, 1.0), "t": (0.0, 2.0)}, lambda u, x, t: u(x, t) - 1.0
        options = {"periodic": "x", "elements": 1, "rtol": 1e-6, "max_windows": 60}
        return pinn.pde(equation, domain, {("t", 0.0): start}, throw=throw, **options)

    with pytest.raises(RuntimeError, match=r"stopped at t = 1\."):
        solve(True)
    with pytest.warns(UserWarning, match=r"stopped at t = 1\."):
        solution = solve(False)
    assert solution.result == RESULTS.window_failed
    np.testing.assert_allclose(solution.domain[1, 1], 1.0, atol=1e-4)
    np.testing.assert_allclose(solution(0.3, 0.5), 2.0, rtol=1e-4)


@pytest.mark.slow
def test_too_few_elements_are_reported():
    with pytest.warns(UserWarning, match="do not resolve the solution"):
        equation = lambda u, x: u.xx(x) + jnp.cos(300.0 * x)  # noqa: E731
        solution = pinn.pde(equation, {"x": (0.0, 1.0)}, ENDS, max_elements=8, throw=False)
    assert solution.result == RESULTS.unresolved


@pytest.mark.slow
def test_initial_conditions_that_nothing_fulfils_are_said():
    conditions = {("t", 0.0): lambda u, x, t: (u(x, t) - 0.7) ** 2 + 1.0, **ENDS}
    with pytest.warns(UserWarning, match=r"stopped at t = 0\. No initial values were found"):
        solution = pinn.pde(heat, UNIT, conditions, elements=1, max_elements=2, throw=False)
    assert solution.result == RESULTS.nonlinear_divergence
    assert solution.stats["initial_defect"] > 0.1 and solution.stats["num_windows"] == 0
    assert np.isnan(solution(0.5, 0.0))


def start_of(height):
    return lambda u, x, t: u(x, t) - height * jnp.sin(jnp.pi * x)


@pytest.mark.slow
def test_a_march_goes_on_where_another_one_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("physml.saving.Keeper.due", True)
    problem = heat, UNIT, ENDS | {("t", 0.0): sine}
    options = {"rtol": 1e-6, "elements": 2}
    whole = pinn.pde(*problem, **options)
    assert whole.stats["num_windows"] > 3
    kept = tmp_path / "march"
    with pytest.warns(UserWarning, match="max_windows"):
        part = pinn.pde(*problem, checkpoint=kept, max_windows=2, throw=False, **options)
    assert part.stats["num_windows"] == 2
    starts = [ENDS | {("t", 0.0): start_of(height)} for height in (1.0, 2.0)]
    pinn.pde(heat, UNIT, starts[0], checkpoint=tmp_path / "other", **options)
    with pytest.raises(ValueError, match=r"this march, .* a condition computes something else"):
        pinn.pde(heat, UNIT, starts[1], checkpoint=tmp_path / "other", **options)
    monkeypatch.setattr("physml.pinn.space_time._march.March._initial", None)  # not done again
    found = pinn.pde(*problem, checkpoint=kept, **options)
    assert_same_leaves((found, found.stats), (whole, whole.stats))
    for change in ({"rtol": 1e-5}, {"first_span": 0.01}):
        with pytest.raises(ValueError, match="checkpoint must be of this march"):
            pinn.pde(*problem, checkpoint=kept, **options | change)
    with pytest.raises(ValueError, match="checkpoint must be of this march"):
        pinn.pde(slower, *problem[1:], checkpoint=kept, **options)


def test_an_equation_without_time_has_no_checkpoint(tmp_path):
    square = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    sides = {("x", 0.0): zero, ("x", 1.0): zero, ("y", 0.0): zero, ("y", 1.0): zero}
    with pytest.raises(ValueError, match="checkpoint must be None unless"):
        pinn.pde(lambda u, x, y: u.xx(x, y) + u.yy(x, y) - 1, square, sides, checkpoint=tmp_path)
