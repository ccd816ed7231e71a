"""How a solve or a fit ends: what raises, what warns, what is silent."""

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx
import pytest

from physml.results import RESULTS, conclude, is_failure, raise_if_interrupted

GOOD = [RESULTS.successful, RESULTS.early_stopped]
DOUBT = [
    *(RESULTS.interrupted, RESULTS.suspect, RESULTS.misfit, RESULTS.unidentifiable),
    *(RESULTS.noise_unknown, RESULTS.noise_contradicted, RESULTS.at_bound),
]
FAILED = [
    *(RESULTS.nonfinite, RESULTS.max_steps_reached, RESULTS.diverged, RESULTS.window_failed),
    *(RESULTS.unresolved, RESULTS.not_converged, RESULTS.not_positive_definite),
    RESULTS.promote(optx.RESULTS.nonlinear_divergence),
]


def solve(result, throw, details=""):
    """A solver that ends as it is told."""
    return conclude("answer", result, "room.solve", details, throw=throw)


@pytest.mark.parametrize("result", GOOD + DOUBT + FAILED)
def test_what_is_a_failure(result):
    assert bool(is_failure(result)) == any(result is failure for failure in FAILED)


@pytest.mark.parametrize("throw", [True, False])
@pytest.mark.parametrize("result", GOOD)
def test_success_and_early_stop_are_silent(result, throw):
    assert solve(result, throw) == "answer"  # a warning would be an error


@pytest.mark.parametrize("throw", [True, False])
@pytest.mark.parametrize("result", DOUBT)
def test_doubt_and_interrupt_warn(result, throw):
    with pytest.warns(UserWarning) as caught:
        assert solve(result, throw, "At 3.") == "answer"
    (warning,) = caught
    assert str(warning.message) == f"room.solve: {RESULTS[result]} At 3."


@pytest.mark.parametrize("result", FAILED)
def test_failure_raises_or_warns(result):
    with pytest.raises(RuntimeError) as raised:
        solve(result, True)
    with pytest.warns(UserWarning) as caught:
        assert solve(result, False) == "answer"
    assert str(raised.value) == str(caught[0].message) == f"room.solve: {RESULTS[result]}"


def of(failed):
    return RESULTS.where(failed, RESULTS.diverged, RESULTS.suspect)


@pytest.mark.parametrize("transform", [lambda f: f, jax.vmap])
def test_traced_failure_raises_when_the_program_runs(transform):
    def end(throw):
        return jax.jit(transform(lambda x: conclude(2 * x, of(x > 1), "room.solve", throw=throw)))

    good, bad = jnp.asarray([0.0, 1.0]), jnp.asarray([0.0, 2.0])
    if transform is not jax.vmap:
        good, bad = good[1], bad[1]
    assert jnp.array_equal(end(True)(good), 2 * good), "doubt is silent"
    assert jnp.array_equal(end(False)(bad), 2 * bad)
    with pytest.raises(RuntimeError, match="could not be continued"):
        end(True)(bad).block_until_ready()


def test_is_failure_of_a_batch():
    failed = jnp.asarray([True, False])
    assert jnp.array_equal(jax.vmap(lambda x: is_failure(of(x)))(failed), failed)


def test_takes_in_the_results_of_diffrax():
    assert RESULTS.promote(diffrax.RESULTS.successful) == RESULTS.successful
    assert RESULTS.promote(diffrax.RESULTS.max_steps_reached) == RESULTS.max_steps_reached
    assert "stiff" in RESULTS[RESULTS.diverged]


def test_a_script_does_not_go_on_with_what_was_interrupted():
    with pytest.raises(KeyboardInterrupt):
        raise_if_interrupted(RESULTS.interrupted)
    for result in (*GOOD, RESULTS.nonfinite):
        raise_if_interrupted(result)
