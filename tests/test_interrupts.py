"""Ctrl-C: one rule, whatever is under way when it comes."""

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import Counted

from physml import data, fit, generative, nn, pinn, surrogate, systems
from physml._numerics.interrupt import ctrl_c, in_script, script
from physml.pinn.family import _march as family
from physml.pinn.space_time._march import March
from physml.results import RESULTS

KEY = jax.random.key(0)
ADAM = optax.adam(1e-2)
INTERRUPTED = pytest.warns(UserWarning, match="Ctrl-C")


def press(*_):
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def at_a_terminal():
    """Ctrl-C interrupts, as it does not in what a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_blocks_inside_each_other_share_the_flag():
    with ctrl_c() as outer:
        with ctrl_c() as inner:
            press()
            assert inner() and outer()
        with ctrl_c() as later:
            assert later()
        with pytest.raises(KeyboardInterrupt):
            press()
    with ctrl_c() as anew:
        assert not anew()


def test_a_script_is_ended_at_once_or_by_what_looks_at_the_flag():
    with script() as pressed:
        assert in_script()
        with ctrl_c() as flag:
            press()
            assert flag() and pressed()
    assert not in_script()
    with pytest.raises(KeyboardInterrupt), script():
        press()


def test_what_runs_in_threads_ends_too():
    def work():
        with ctrl_c() as flag:
            started.set()
            done.wait(60)
            seen.append(flag())

    seen, started, done = [], threading.Event(), threading.Event()
    with ctrl_c():
        thread = threading.Thread(target=work)
        thread.start()
        started.wait(60)
        press()
        done.set()
        thread.join()
    assert seen == [True]


def quadratic(model, batch, key):
    return jnp.sum(model**2), {}


def test_while_a_fit_is_compiled():
    def loss(model, batch, key):
        if counted.traces == 2:  # the first sees what it does
            press()
        return quadratic(model, batch, key)

    counted = Counted(loss)
    with INTERRUPTED:
        fitted = fit.gradient(counted, jnp.ones(2), optimizer=ADAM, steps=10)
    assert fitted.result == RESULTS.interrupted and fitted.step == 0
    np.testing.assert_array_equal(fitted.model, jnp.ones(2))


def test_between_two_stages():
    def init(params):
        press()  # a later stage asks for its first state
        return ADAM.init(params)

    system = systems.from_function(lambda t, y, args: -y, 1)
    network = nn.MLP(1, (4,), 1, dtype=jnp.float64, rngs=nnx.Rngs(0))
    later = optax.GradientTransformation(init, ADAM.update)
    with INTERRUPTED:
        training = pinn.train(network, system, [1.0], 1.0, stages=((ADAM, 3), (later, 3)))
    assert training.solution.result == RESULTS.interrupted
    assert [stage.result for stage in training.fits] == [RESULTS.interrupted]
    assert training.losses.size == training.fits[0].step


def test_a_readout_is_not_refitted_after_it():
    rows = np.random.default_rng(0).normal(size=(3, 9, 2))
    options = dict(optimizer=ADAM, steps=50, batch_size=8, key=KEY, progress=press)
    network = nn.MLP(2, (4,), 2, dtype=jnp.float64, rngs=nnx.Rngs(0))
    with INTERRUPTED:
        fitted = surrogate.fit(network, data.from_arrays(0.1 * np.arange(9), rows), **options)
    assert fitted.result == RESULTS.interrupted and fitted.step_map is fitted.before_refit
    code = nn.Autoencoder.dense(2, (4,), 1, dtype=jnp.float64, rngs=nnx.Rngs(0))
    with INTERRUPTED:
        fitted = generative.fit_autoencoder(code, jnp.asarray(rows.reshape(-1, 2)), **options)
    assert fitted.result == RESULTS.interrupted and fitted.codec is fitted.before_refit


@pytest.mark.slow
def test_a_partial_equation_is_solved_until_then(monkeypatch):
    def keep(march, *args):
        monkeypatch.undo()  # once
        press()
        march._keep(*args)

    monkeypatch.setattr(March, "_keep", keep)
    ends = {("x", 0.0): lambda u, *at: u(*at), ("x", 1.0): lambda u, *at: u(*at)}
    start = {("t", 0.0): lambda u, x, t: u(x, t) - jnp.sin(jnp.pi * x)}
    domain = {"x": (0.0, 1.0), "t": (0.0, 1.0)}
    with INTERRUPTED:
        found = pinn.pde(lambda u, x, t: u.t(x, t) - u.xx(x, t), domain, ends | start, rtol=1e-3)
    t1 = float(found.domain[1, 1])
    assert found.result == RESULTS.interrupted and 0 < t1 < 1 and found.stats["num_windows"] == 1
    truth = np.exp(-(np.pi**2) * t1)
    np.testing.assert_allclose(float(found(0.5, t1)), truth, rtol=1e-2)


def test_a_bundle_is_trained_until_then(monkeypatch):
    widest = family._widest

    def pressed(*args):
        press()
        return widest(*args)

    monkeypatch.setattr(family, "_widest", pressed)
    system = systems.from_function(lambda t, y, args: -y, dim=1)
    options = {"key": KEY, "units": 30, "num_checks": 20}
    with INTERRUPTED:
        trained = pinn.bundle(system, [[1.0], [2.0]], 50.0, **options)
    assert trained.result == RESULTS.interrupted and len(trained.edges) == 2
    t1 = float(trained.edges[-1])
    assert 0 < t1 < 50
    np.testing.assert_allclose(trained(t1, jnp.asarray([1.5])), 1.5 * np.exp(-t1), rtol=1e-4)
