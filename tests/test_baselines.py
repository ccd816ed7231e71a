"""The forecast benchmark: its baselines on maps that they can represent, and its bookkeeping."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import data, dynamics, reference, systems

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import _baselines as baselines
import lorenz_forecast
from _recipes import RECIPES

LORENZ = systems.Lorenz()


def trajectories(step, starts, rows, dt=0.1):
    """Trajectories of a map of rows of states."""
    ys = [np.asarray(starts)]
    for _ in range(rows - 1):
        ys.append(step(ys[-1]))
    ys = np.stack(ys, axis=1)
    return data.from_arrays(dt * np.arange(rows), ys, t0s=np.zeros(len(ys)))


def henon(y):
    """A polynomial map of degree 2, from 40 starts that stay bounded."""
    return np.stack([1 - 1.2 * y[:, 0] ** 2 + y[:, 1], 0.3 * y[:, 0]], axis=1)


def odd(y):
    """A cubic map that commutes with (x, z) -> (-x, z)."""
    x, z = y.T
    return np.stack([0.9 * x - 0.2 * x * z - 0.1 * x**3, 0.7 * z + 0.3 * x**2], axis=1)


def starts(num=40, size=0.4):
    return np.random.default_rng(0).uniform(-size, size, (num, 2))


def first_components(rows):
    """Henon's first component alone, which takes two states to go on, for training and choosing."""
    full = trajectories(henon, starts(), rows)
    return [data.from_arrays(full.ts, full.ys[part, :, :1]) for part in (slice(8, 40), slice(8))]


def one_step_error(step_map, truth, history=1):
    scale = jnp.ones(truth.ys.shape[-1])
    return float(dynamics.one_step_error(step_map, truth.ys, scale=scale, history=history))


@pytest.mark.parametrize(("degree", "exact"), [(1, False), (2, True), (5, True)])
def test_polynomials_are_exact_from_the_degree_of_the_map_on(degree, exact):
    train, fresh = trajectories(henon, starts(), 12), trajectories(henon, starts(7, 0.3), 12)
    error = one_step_error(baselines.polynomial(train, degree), fresh)
    assert (error < 1e-13) if exact else (error > 1e-2)


def test_polynomials_with_a_symmetry_commute_with_it():
    train = trajectories(odd, starts() + np.array([0.1, 0.0]), 12)
    step_map = baselines.polynomial(train, 3, signs=(-1, 1))
    assert one_step_error(step_map, trajectories(odd, starts(7), 12)) < 1e-13
    mirror, y = jnp.array([-1.0, 1.0]), jnp.array([0.3, 0.7])
    np.testing.assert_array_equal(step_map.step(mirror * y), mirror * step_map.step(y))
    lower = baselines.polynomial(train, 2, signs=(-1, 1))
    np.testing.assert_array_equal(lower.step(mirror * y), mirror * lower.step(y))


def test_a_next_generation_reservoir_finds_a_map_with_delay():
    train, valid = first_components(14)
    quadratic = baselines.next_generation(train, valid, 2, ridges=(1e-14,))
    assert one_step_error(quadratic, valid, history=2) < 1e-9
    linear = baselines.next_generation(train, valid, 1)
    assert one_step_error(linear, valid, history=2) > 1e-2


@pytest.mark.slow
def test_an_echo_state_network_remembers():
    train, valid = first_components(40)  # the network is not shown the state before

    def error(*radii):
        step_map = baselines.echo_state(
            train, valid, 0, units=60, trial_units=30, radii=radii, input_scales=(0.3,),
            washout=10, ridges=(1e-12, 1e-10),
        )  # fmt: skip
        assert step_map.rule.recurrent.shape == (60, 60)
        return one_step_error(step_map, valid, history=11)

    assert error(0.4) < 1e-3 < 0.1 < error(1e-12)
    assert error(1e-12, 0.4) == error(0.4)  # chosen by validation


def test_single_precision_is_wholly_that():
    inner = reference.RungeKutta4(system=LORENZ, dt=0.01)
    single = baselines.Single(inner=inner, dt=0.01)
    state = single.init(jnp.ones((2, 3)), jnp.zeros(()))
    assert state[0].dtype == single.step(state)[0].dtype == jnp.float32
    assert single.observe(state).dtype == jnp.float64


def test_persistence_stays():
    ys = dynamics.rollout(baselines.Persistence(dt=0.1), jnp.ones((1, 3)), 4)
    np.testing.assert_array_equal(ys, jnp.ones((5, 3)))


@pytest.mark.slow
def test_the_benchmark_makes_a_table_of_seeds_and_sets(tmp_path, monkeypatch):
    make = lorenz_forecast.Problem.make
    monkeypatch.setattr(lorenz_forecast, "STEPS", 300)
    monkeypatch.setattr(lorenz_forecast, "VALID_STEPS", 10)
    monkeypatch.setattr(
        lorenz_forecast.Problem, "make", classmethod(lambda cls, seed, *_: make(seed, 4, 2, False))
    )
    monkeypatch.setattr(lorenz_forecast, "check_truth", lambda *_: None)
    config = lorenz_forecast.Config(out=tmp_path, rows=("linear", "rk4"))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with jax.numpy_dtype_promotion("standard"):
        with monkeypatch.context() as patched:
            patched.setattr(reference, "RungeKutta4", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lorenz_forecast.main(config)
        with monkeypatch.context() as patched:  # what was fitted is not fitted again
            patched.setattr(baselines, "polynomial", interrupted)
            metrics = lorenz_forecast.main(dataclasses.replace(config, resume=True))
    assert metrics["linear.seeds"] == 2 and metrics["rk4.seeds"] == 1
    assert metrics["rk4.vpt_mean"] == pytest.approx(3.0 * lorenz_forecast.LAMBDA1)
    assert metrics["rk4.censored"] == 1.0 and metrics["linear.parameters"] > 0
    assert metrics["linear.vpt_low"] < metrics["linear.vpt_mean"] < metrics["linear.vpt_high"]
    assert metrics["linear.box.vpt_mean"] < 1.0
    assert metrics["linear.vpt_mean_at_0.1"] <= metrics["linear.vpt_mean_at_0.5"]
    text = (tmp_path / "table.txt").read_text()
    assert text.count("rk4") == 2 and "4 starts on the attractor" in text
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {"valid_times.png"}


def test_every_row_has_a_name_of_its_own():
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    quick = {recipe.name for recipe in RECIPES if recipe.quick is not None}
    assert quick == {"mlp", "rnn", "mlp_trained", "gru_trained", "mlp32", "poly10"}
