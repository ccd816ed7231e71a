"""A sweep's members are single fits: against fit.gradient, closed forms, divergence, resuming."""

import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import Counted, assert_same_leaves

from physml import fit, saving
from physml._numerics.devices import Spread, of_each
from physml.results import RESULTS

KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * np.random.default_rng(1).normal(size=40)
VALID = (X[:10], Y[:10])


class Net(nnx.Module):
    def __init__(self, key):
        rngs = nnx.Rngs(key)
        self.inner = nnx.Linear(3, 8, rngs=rngs, param_dtype=jnp.float64)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.readout = nnx.Linear(8, 1, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.readout(self.dropout(jnp.tanh(self.inner(x))))[..., 0]


def residual(model, batch, key):
    x, y = batch
    return model(x) - y


LOSS = fit.mean_square(residual)


def net(setting):
    return Net(setting["key"])


def momentum(setting):
    return optax.sgd(setting["rate"], momentum=0.9)


def settings_of(*rates):
    return {"rate": jnp.asarray(rates), "key": jax.random.split(jax.random.key(7), len(rates))}


def member(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def params_of(model):
    return nnx.state(model, nnx.Param)


def jittered(data, key):
    x, y = data
    return x + 0.1 * jax.random.normal(key, x.shape), y


@pytest.mark.filterwarnings("ignore:fit.gradient")
@pytest.mark.parametrize(
    "devices", [None, pytest.param(jax.devices(), marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_each_member_is_the_single_fit_and_one_that_diverges_stops_alone(devices):
    settings = settings_of(1e-2, 1e9, 1e-1)
    options = dict(steps=30, batch_size=12, key=KEY, valid=VALID, valid_every=8, augment=jittered)
    several = dict(settings=settings, optimizer=momentum, devices=devices)
    swept = fit.sweep(LOSS, net, (X, Y), **several, **options)
    assert len(swept) == 3 and swept.step == 30 and bool(swept.result == RESULTS.successful)
    np.testing.assert_array_equal(swept.diverged, [False, True, False])
    assert swept.history["loss"].shape == (30, 3) and swept.history["valid_loss"].shape == (4, 3)
    for i in range(3):
        setting = member(settings, i)
        single = fit.gradient(LOSS, net(setting), (X, Y), optimizer=momentum(setting), **options)
        one = swept[i]
        assert bool(one.result == single.result) and one.step == single.step
        assert one.nonfinite_step == single.nonfinite_step
        for name in ("step", "loss"):
            np.testing.assert_allclose(one.history[name], single.history[name], rtol=1e-9)
        assert_same_leaves(params_of(one.model), params_of(single.model), rtol=1e-9, atol=1e-12)
    assert_same_leaves(one.history, single.history, rtol=1e-9)
    assert np.isnan(swept.history["loss"][swept.nonfinite_step[1] :, 1]).all()


class Ridge(eqx.Module):
    """A network and what the loss needs of the setting."""

    network: nnx.Linear
    strength: jax.Array


def build_ridge(setting):
    options = dict(kernel_init=nnx.initializers.zeros_init(), param_dtype=jnp.float64)
    return Ridge(nnx.Linear(3, 1, use_bias=False, rngs=nnx.Rngs(0), **options), setting)


def ridge(model, batch, key):
    x, y = batch
    error = model.network(x)[:, 0] - y
    return jnp.mean(error**2) + model.strength * jnp.sum(model.network.kernel[...] ** 2), {}


@pytest.mark.parametrize("optimizer", [optax.lbfgs(), optax.sgd(0.2)])
def test_ridge_regression(optimizer):
    strengths = jnp.asarray([0.0, 0.03, 0.3, 3.0])
    # Steepest descent is stable below 2 / (largest curvature), about 0.25 for the last one.
    options = dict(settings=strengths, optimizer=lambda _: optimizer, steps=150)
    swept = fit.sweep(ridge, build_ridge, (X, Y), **options)
    gram, moments = X.T @ X / 40, X.T @ Y / 40
    exact = [np.linalg.solve(gram + s * np.eye(3), moments) for s in np.asarray(strengths)]
    np.testing.assert_allclose(swept.models.network.kernel[..., 0], exact, atol=1e-9)
    np.testing.assert_array_equal(swept.models.strength, strengths)


def quadratic(model, batch, key):
    return jnp.sum((model - batch) ** 2), {}


def descents(*rates, **options):
    """From 0 towards the minimum of (x - 1)^2, at several rates."""
    rates = np.asarray(rates)
    return fit.sweep(
        quadratic, lambda rate: jnp.zeros(()), np.ones(()), settings=rates,
        optimizer=lambda rate: optax.sgd(rate), **options,
    )  # fmt: skip


def test_a_diverged_member_keeps_its_last_finite_state():
    # x <- 1 + (1 - 2 rate) (x - 1): the distance from 1 grows by |1 - 2 rate| a step.
    swept = descents(0.25, 1e80, steps=20)
    np.testing.assert_allclose(swept.models[0], 1 - 0.5**20)
    # Distances 1, 2e80, 4e160: the square of the third is beyond float64.
    assert swept.nonfinite_step[1] == 2
    np.testing.assert_allclose(swept.models[1], 2e80)
    assert not np.isfinite(swept.history["loss"][2:, 1]).any()
    assert swept[1].step == 1 and bool(swept[1].result == RESULTS.nonfinite)


def test_all_diverged():
    with pytest.warns(UserWarning, match=r"fit\.sweep: .* Models that diverged: 3 of 3"):
        swept = descents(1e80, 1e60, 1e200, steps=50)
    assert bool(swept.result == RESULTS.nonfinite) and swept.diverged.all()
    np.testing.assert_array_equal(swept.nonfinite_step, [2, 3, 1])
    np.testing.assert_allclose(swept.models, [2e80, -4e120, 0.0])


@pytest.mark.parametrize("rate", [0.25, 1e80])
def test_ctrl_c_is_not_lost(rate):
    with pytest.warns(UserWarning, match=r"fit\.sweep: Ctrl-C"):
        press = lambda report: signal.raise_signal(signal.SIGINT)  # noqa: E731
        swept = descents(rate, steps=4, chunk=4, callback=press)
    assert bool(swept.result == RESULTS.interrupted) and swept.step == 4
    assert swept.diverged == (rate > 1)


def test_parameters_spoiled_by_the_last_step():
    def root(model, batch, key):  # finite, with a gradient that is not where the argument is 0
        return jnp.sum(jnp.sqrt(model - batch)), {}

    options = dict(settings=np.array([1.0, 0.0]), optimizer=lambda _: optax.sgd(0.1), steps=1)
    swept = fit.sweep(root, lambda start: start, np.zeros(()), **options)
    np.testing.assert_array_equal(swept.nonfinite_step, [-1, 1])
    np.testing.assert_allclose(swept.models, [0.95, 0.0])


def always_finite(model, batch, key):
    """As the share of errors is, better for what has diverged."""
    return jnp.where(jnp.abs(model) < 10, 1.0, 0.5), {}


@pytest.mark.filterwarnings("ignore:fit.gradient")
@pytest.mark.parametrize("devices", [None, jax.devices()])
def test_what_has_diverged_is_not_taken_for_the_best(devices):
    options = dict(steps=6, valid=np.ones(()), valid_loss=always_finite, valid_every=2)
    rates = (0.25, 1e160)
    swept = descents(*rates, devices=devices, **options)
    for i, rate in enumerate(rates):
        options["optimizer"] = optax.sgd(rate)
        single = fit.gradient(quadratic, jnp.zeros(()), np.ones(()), **options)
        np.testing.assert_allclose(swept.models[i], single.model)
        assert swept[i].nonfinite_step == single.nonfinite_step
    assert np.isnan(swept.history["valid_loss"][:, 1]).all()


def test_interrupted_goes_on_where_it_was(tmp_path):
    settings = settings_of(1e-2, 1e9, 1e-1)
    options = dict(settings=settings, optimizer=momentum, steps=30, batch_size=12, key=KEY)
    options |= dict(valid=VALID, valid_every=8, chunk=5)
    whole = fit.sweep(LOSS, net, (X, Y), **options)
    options["checkpoint"] = tmp_path / "sweep"
    head = fit.sweep(LOSS, net, (X, Y), callback=lambda report: report.step >= 12, **options)
    assert bool(head.result == RESULTS.early_stopped) and head.step == 15
    seen = []
    tail = fit.sweep(LOSS, net, (X, Y), callback=lambda r: seen.append(r.step), **options)
    assert seen[0] == 16 and tail.step == 30
    again = fit.sweep(LOSS, net, (X, Y), callback=lambda r: pytest.fail("done"), **options)
    for one in (tail, again):
        assert bool(one.result == RESULTS.successful)
        np.testing.assert_array_equal(one.nonfinite_step, whole.nonfinite_step)
        assert_same_leaves(one.history, whole.history)
        assert_same_leaves(params_of(one.models), params_of(whole.models))

    for changed, words in [
        (dict(settings=settings_of(1e-2, 1e9, 2e-1)), "with these settings"),
        (dict(key=jax.random.key(4)), "and this key"),
        (dict(steps=40), r"float64\[30, 3\] at \.loss"),
        (dict(data=(X, Y + 1)), r"this very fit, .*\.numbers"),
        (dict(valid=(X, Y + 1)), r"this very fit, .*\.numbers"),
        (dict(loss=fit.mean_square(lambda *args: 2 * residual(*args))), "computes something else"),
        (dict(optimizer=lambda s: optax.sgd(s["rate"], momentum=0.5)), "computes something else"),
        (dict(build_model=lambda s: Net(jax.random.fold_in(s["key"], 1))), "another state"),
    ]:
        with pytest.raises(ValueError, match=words):
            fit.sweep(**dict(loss=LOSS, build_model=net, data=(X, Y)) | options | changed)


@pytest.mark.slow
def test_models_are_shared_out_among_devices():
    seen = []

    def listen(report):
        assert report.metrics["losses"].shape[1] == 3
        shards = report.state.members.params["readout"]["kernel"][...].addressable_shards
        seen.append({shard.device: shard.data.shape[0] for shard in shards})

    devices = jax.devices()
    assert len(devices) == 2
    settings = settings_of(1e-3, 1e-2, 1e-1)
    options = dict(settings=settings, optimizer=momentum, steps=4, batch_size=12, key=KEY)
    options["key"] = jax.device_put(KEY, devices[1])
    for name in ("progress", "callback"):
        swept = fit.sweep(LOSS, net, (X, Y), devices=devices, **{name: listen}, **options)
    assert seen[-1] == dict.fromkeys(devices, 2)
    assert {leaf.device for leaf in jax.tree.leaves(params_of(swept.models))} == {devices[0]}


def test_devices_need_nothing_of_each_other():
    # A convolution vmapped over its filters is one with groups, which XLA would not cut by itself.
    def step(model, x):
        def value(filters):
            y = x
            for kernel in filters:
                y = jax.lax.conv_general_dilated(
                    y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            return jnp.sum(y**2)

        return jax.grad(value)(model)

    spread = Spread(4, jax.devices())
    filters = spread.divided([np.ones((4, 3, 3, 1, 5)), np.ones((4, 3, 3, 5, 7))])
    program = jax.jit(lambda models, x: of_each(step, models, x, spread.mesh))
    text = program.lower(filters, np.ones((2, 4, 4, 1))).compile().as_text()
    assert "convolution" in text and "all-" not in text and "collective" not in text


@pytest.mark.parametrize("first, then", [(jax.devices(), None), (None, jax.devices()[::-1])])
@pytest.mark.slow
def test_a_sweep_goes_on_with_other_devices(tmp_path, first, then):
    options = dict(settings=settings_of(1e-3, 1e-2, 1e-1), optimizer=momentum, steps=10, chunk=5)
    options |= dict(valid=VALID, valid_every=4)
    whole = fit.sweep(LOSS, net, (X, Y), **options)
    path = tmp_path / "sweep"
    once = {"checkpoint": path, "devices": first, "callback": lambda report: True}
    assert fit.sweep(LOSS, net, (X, Y), **once, **options).step < 10
    tail = fit.sweep(LOSS, net, (X, Y), checkpoint=path, devices=then, **options)
    assert_same_leaves(tail.history, whole.history, rtol=1e-12)
    assert_same_leaves(params_of(tail.models), params_of(whole.models), rtol=1e-12)


def test_a_killed_process_loses_little(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.Keeper, "due", True)
    options = dict(settings=settings_of(1e-2, 1e-1), optimizer=momentum, steps=20, chunk=5)
    whole = fit.sweep(LOSS, net, (X, Y), **options)

    def kill(report):
        if report.step == 15:
            raise SystemExit

    options["checkpoint"] = tmp_path / "sweep"
    with pytest.raises(SystemExit):
        fit.sweep(LOSS, net, (X, Y), callback=kill, **options)
    seen = []
    tail = fit.sweep(LOSS, net, (X, Y), callback=lambda r: seen.append(r.step), **options)
    assert seen[0] == 20
    np.testing.assert_array_equal(tail.history["loss"], whole.history["loss"])


@pytest.mark.usefixtures("programs_stay")
def test_a_second_sweep_compiles_nothing():
    counted = Counted(residual)
    for sweeps in (0, 1):
        settings = settings_of(1e-2, 1e-1 + sweeps)
        fit.sweep(fit.mean_square(counted), net, (X, Y), **(GOOD | {"settings": settings}))
        assert counted.traces == 2 + sweeps  # one to see what it does, and one to compile it


GOOD = dict(settings=settings_of(0.1, 0.2), optimizer=momentum, steps=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(settings={"rate": np.ones(3), "key": np.ones(2)}), r"got \[2, 3\]"),
        (dict(settings={"rate": np.ones(())}), r"got \[0\]"),
        (dict(settings={}), r"got \[\]"),
        (dict(settings=np.ones((0, 2))), r"got \[0\]"),
        (dict(valid_loss=LOSS), "valid must be given"),
        (dict(steps=-1), "steps must be at least 0, got -1"),
        (dict(valid=VALID, valid_every=0), "valid_every must be at least 1, got 0"),
        (dict(batch_size=7), "key must be given"),
        (dict(devices=[]), "devices must name one or more"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        fit.sweep(LOSS, net, (X, Y), **(GOOD | options))


def test_no_such_member():
    swept = fit.sweep(LOSS, net, (X, Y), **GOOD)
    with pytest.raises(IndexError, match="index must be one of 2 models, got 2"):
        swept[2]
    assert len(list(swept)) == 2
