"""The solution type on a function known in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from physml import data
from physml.results import RESULTS
from physml.solution import Dense, Solution


class Circle(Dense):
    radius: Array

    def evaluate(self, t):
        return self.radius * jnp.stack([jnp.cos(t), jnp.sin(t)])

    def derivative(self, t):
        return self.radius * jnp.stack([-jnp.sin(t), jnp.cos(t)])


def circle(error=None, t1=10.0, radius=3.0):
    ts = jnp.linspace(0.0, t1, 11)
    dense = Circle(jnp.asarray(radius))
    ys = jax.vmap(dense.evaluate)(ts)
    return Solution(ts, ys, ts[0], ts[-1], dense, RESULTS.successful, {}, error)


def test_answers_scalars_and_times():
    solution = circle()
    ts = jnp.array([0.0, 1.0, 2.5])
    np.testing.assert_allclose(solution(1.0), 3 * jnp.array([np.cos(1), np.sin(1)]))
    np.testing.assert_allclose(solution(ts)[2], solution(2.5))
    np.testing.assert_allclose(solution.derivative(1.0), 3 * jnp.array([-np.sin(1), np.cos(1)]))
    assert solution(1).shape == (2,)
    assert solution.derivative(ts).shape == (3, 2)


@pytest.mark.parametrize("t", [-0.1, 10.1, np.nan, [0.0, 11.0]])
def test_never_answers_outside_what_is_known(t):
    with pytest.raises(ValueError, match=r"t must (lie in \[0\.0, 10\.0\]|be a number, got nan)"):
        circle()(t)
    with pytest.raises(RuntimeError, match="outside"):
        jax.jit(lambda s, t: s(t))(circle(), jnp.asarray(t)).block_until_ready()


def test_times_of_two_axes_are_refused():
    with pytest.raises(ValueError, match="scalar or have shape"):
        circle()(jnp.zeros((2, 2)))


def test_valid_until_is_where_the_error_crosses_the_bound():
    # The largest value of each component is 3, so that 1e-9 exp(t) = rtol * 3 at the crossing.
    solution = circle(lambda t: jnp.full(2, 1e-9) * jnp.exp(t))
    for rtol in (1e-8, 1e-7, 1e-6):
        time, censored = solution.valid_until(rtol)
        assert not censored
        assert time == pytest.approx(np.log(3 * rtol / 1e-9), abs=0.011)
    time, censored = solution.valid_until(1e-4)
    assert censored and time == 10.0
    np.testing.assert_allclose(solution.error_estimate(2.0), 1e-9 * np.exp(2.0))


def test_valid_until_takes_the_worst_component_and_the_first_failure():
    def error(t):  # too large only in the second component, and only for a while
        return jnp.stack([0.0 * t, jnp.where((t > 4) & (t < 5), 1.0, 0.0)])

    time, censored = circle(error).valid_until(1e-3)
    assert not censored and time == pytest.approx(4.0, abs=0.011)


def test_no_estimate_says_how_to_get_one():
    for ask in (circle().error_estimate, circle().valid_until):
        with pytest.raises(ValueError, match="certify=True"):
            ask(1e-3)
    with pytest.raises(ValueError, match="rtol must be positive"):
        circle(lambda t: jnp.zeros(2)).valid_until(0.0)


def test_is_a_pytree_under_jit_and_vmap():
    radii = jnp.array([1.0, 2.0])
    batch = jax.vmap(lambda r: circle(radius=r))(radii)
    values = jax.jit(jax.vmap(lambda s: s(0.5)))(batch)
    np.testing.assert_allclose(values[1], circle(radius=2.0)(0.5))


def test_becomes_a_frame_and_a_data_set():
    pytest.importorskip("xarray")  # which brings pandas
    ts = np.linspace(0.0, 10.0, 4)
    frame = circle().to_dataframe(ts, names=("x", "y"))
    assert list(frame.columns) == ["x", "y"] and frame.index.name == "t"
    np.testing.assert_allclose(frame["y"], 3 * np.sin(ts))
    np.testing.assert_array_equal(frame.index, ts)
    assert data.from_dataframe(frame).names == ("x", "y")
    with_error = circle(lambda t: jnp.full(2, 1e-3) * t).to_xarray()
    assert list(with_error) == ["y0", "y1", "y0_error", "y1_error"]
    np.testing.assert_allclose(with_error.y1_error.sel(time=4.0), 4e-3)
    assert with_error.attrs == {"result": "Successful."}
    states = data.from_xarray(with_error, columns=["y0", "y1"])
    np.testing.assert_allclose(states.ys[0], circle().ys)


def test_a_frame_ends_where_the_solution_does():
    pytest.importorskip("pandas")
    solution = eqx.tree_at(lambda s: s.t1, circle(), jnp.asarray(4.5))
    assert circle().to_dataframe().index[-1] == 10.0
    assert solution.to_dataframe().index[-1] == 4.0
    with pytest.raises(ValueError, match=r"t must lie in \[0\.0, 4\.5\]"):
        solution.to_dataframe([5.0])


@pytest.mark.parametrize("names", [["x"], ["x", "x"], ["t", "x"], ["x", "time"], ["x", "x_error"]])
def test_names_of_a_frame_are_refused(names):
    with pytest.raises(ValueError, match="names must be 2 different ones"):
        circle(lambda t: jnp.zeros(2)).to_dataframe(names=names)


def test_a_batch_is_no_frame():
    batch = jax.vmap(lambda radius: circle(radius=radius))(jnp.ones(3))
    with pytest.raises(ValueError, match=r"solution must be a single one, got a batch \(3,\)"):
        batch.to_xarray()
