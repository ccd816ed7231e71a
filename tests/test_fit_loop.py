"""The loop: batches, chunks, ends, and what the host sees of it."""

import os
import signal
import subprocess
import sys
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_leaves

from physml import fit
from physml.results import RESULTS


class Walk(eqx.Module):
    """x <- 0.9 x + noise; the loss is x itself, or NaN at one step."""

    bad_step: int = -1

    def __call__(self, state, batch, key):
        x, i = state
        noise = jnp.zeros(()) if key is None else jax.random.normal(key)
        loss = jnp.where(i == self.bad_step, jnp.nan, x)
        return (0.9 * x + noise, i + 1), {"loss": loss, "noise": noise}


START = (jnp.asarray(1.0), jnp.asarray(0))
KEY = jax.random.key(0)


def seen(state, batch, key):
    """A step that only records its batch."""
    return state + 1, {"batch": batch}


def test_is_the_python_loop():
    out = fit.loop(Walk(), START, num_steps=25, key=KEY)
    step_key = jax.random.split(KEY)[0]
    x, losses = 1.0, []
    for i in range(25):
        losses.append(x)
        x = 0.9 * x + float(jax.random.normal(jax.random.fold_in(step_key, i)))
    np.testing.assert_allclose(out.history["loss"], losses, rtol=1e-14)
    np.testing.assert_allclose(out.state[0], x, rtol=1e-14)
    np.testing.assert_array_equal(out.history["step"], np.arange(25))
    assert out.step == 25 and out.nonfinite_step is None
    assert bool(out.result == RESULTS.successful)


@pytest.mark.parametrize("chunk", [1, 7, 25, 1000, None])
def test_chunks_do_not_change_the_numbers(chunk):
    expected = fit.loop(Walk(), START, num_steps=25, key=KEY, chunk=10)
    out = fit.loop(Walk(), START, num_steps=25, key=KEY, chunk=chunk)
    assert_same_leaves((out.state, out.history), (expected.state, expected.history))


def test_continues_bit_for_bit():
    data, options = jnp.arange(10.0), dict(key=jax.random.key(3), batch_size=3)
    whole = fit.loop(seen, jnp.zeros(()), data, num_steps=20, **options)
    head = fit.loop(seen, jnp.zeros(()), data, num_steps=11, **options)
    tail = fit.loop(seen, head.state, data, num_steps=20, start=head.step, **options)
    joined = np.concatenate([head.history["batch"], tail.history["batch"]])
    np.testing.assert_array_equal(joined, whole.history["batch"])
    np.testing.assert_array_equal(tail.history["step"], np.arange(11, 20))
    assert tail.state == 20


def test_an_epoch_visits_each_row_once():
    def show(state, batch, key):
        return state, batch

    data = {"a": jnp.arange(12), "b": jnp.arange(12.0)[:, None] * 10}
    out = fit.loop(show, jnp.zeros(()), data, num_steps=9, key=KEY, batch_size=4, chunk=5)
    a = out.history["a"].reshape(3, 12)
    np.testing.assert_array_equal(np.sort(a, axis=1), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(epoch) for epoch in a}) == 3, "every epoch has an order of its own"
    np.testing.assert_array_equal(out.history["b"].reshape(3, 12), 10.0 * a)


def test_the_remainder_sits_out():
    out = fit.loop(seen, jnp.zeros(()), jnp.arange(10), num_steps=60, key=KEY, batch_size=4)
    epochs = out.history["batch"].reshape(30, 8)
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    counts = np.bincount(epochs.ravel(), minlength=10)
    assert counts.min() > 15, "another remainder in each epoch"


def scaled_anew(data, key):
    return data * (1 + jax.random.uniform(key, dtype=data.dtype))


@pytest.mark.parametrize("chunk", [None, 3])
def test_augments_all_of_the_data_once_an_epoch(chunk):
    rows = jnp.arange(1.0, 8.0)

    def step(state, batch, key):
        return state + batch.sum(), {"batch": batch}

    def run(num_steps, start=0, state=0.0):
        options = dict(num_steps=num_steps, start=start, batch_size=2, chunk=chunk)
        return fit.loop(step, state, rows, key=jax.random.key(3), augment=scaled_anew, **options)

    whole = run(9)  # three epochs of three steps
    plain = fit.loop(step, 0.0, rows, key=jax.random.key(3), num_steps=9, batch_size=2)
    factors = whole.history["batch"] / plain.history["batch"]  # the order is the same
    np.testing.assert_allclose(factors, np.repeat(factors[::3, :1], 3, axis=0) * np.ones(2))
    assert len(np.unique(factors[::3, 0])) == 3
    part = run(4)  # from within an epoch
    rest = run(9, start=4, state=part.state)
    np.testing.assert_array_equal(rest.history["batch"], whole.history["batch"][4:])
    np.testing.assert_array_equal(rest.state, whole.state)


def test_goes_back_into_the_epoch_before():
    def step(state, batch, key):
        count, total = state
        loss = jnp.where(count == 3, jnp.nan, 0.0)  # the first step of the second epoch
        return (count + 1, total + batch.sum()), {"loss": loss}

    options = dict(batch_size=2, key=jax.random.key(3), augment=scaled_anew)
    start, rows = (jnp.zeros(()), jnp.zeros(())), jnp.arange(1.0, 8.0)
    failed = fit.loop(step, start, rows, num_steps=9, **options)
    assert failed.result == RESULTS.nonfinite and failed.step == 2
    expected = fit.loop(step, start, rows, num_steps=2, **options)
    np.testing.assert_array_equal(failed.state, expected.state)


def test_without_batches_each_step_gets_the_data_as_they_are():
    out = fit.loop(seen, jnp.zeros(()), jnp.arange(4), num_steps=2)
    np.testing.assert_array_equal(out.history["batch"], [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("bad_step", [1, 8, 9, 17])
def test_nonfinite_loss_returns_the_last_good_state(chunk, bad_step):
    good = fit.loop(Walk(), START, num_steps=20, key=KEY).history["loss"]
    out = fit.loop(Walk(bad_step=bad_step), START, num_steps=20, key=KEY, chunk=chunk)
    assert bool(out.result == RESULTS.nonfinite) and out.nonfinite_step == bad_step
    assert out.step == bad_step - 1 == out.state[1]
    assert out.state[0] == good[bad_step - 1], "the state at which step bad_step - 1 found its loss"
    np.testing.assert_array_equal(out.history["loss"], good[: bad_step - 1])


def test_nonfinite_first_loss_returns_the_start():
    out = fit.loop(Walk(bad_step=0), START, num_steps=20)
    assert out.nonfinite_step == 0 and out.step == 0 and out.state[0] == 1.0
    assert out.history["loss"].shape == (0,)


def test_many_models_stop_only_when_all_are_lost():
    def step(state, batch, key):
        return state + 1, {"loss": jnp.where(state < jnp.asarray([3, 6]), 1.0, jnp.nan)}

    out = fit.loop(step, jnp.zeros(2, int), num_steps=10)
    assert out.nonfinite_step == 6


def test_review_is_on_time_and_may_change_the_state():
    steps = []

    def review(state):
        steps.append(int(state[1]))
        return (state[0] * 0, state[1]), {"seen": float(state[0])}, None

    out = fit.loop(Walk(), START, num_steps=10, chunk=3, review=review, review_every=4)
    assert steps == [4, 8, 10]
    np.testing.assert_allclose(out.history["seen"], [0.9**4, 0, 0])
    assert out.state[0] == 0


def test_review_verdict_stops():
    def review(state):
        return state, {}, RESULTS.early_stopped if state[1] >= 8 else None

    out = fit.loop(Walk(), START, num_steps=100, review=review, review_every=4)
    assert out.step == 8 and bool(out.result == RESULTS.early_stopped)
    assert len(out.history["loss"]) == 8


def test_review_that_finds_the_state_bad_goes_back():
    def review(state):
        return state, {"count": 1}, RESULTS.nonfinite if state[1] == 8 else None

    out = fit.loop(Walk(), START, num_steps=100, review=review, review_every=4)
    assert bool(out.result == RESULTS.nonfinite)
    assert out.nonfinite_step == 8 and out.step == 7 == out.state[1]
    assert len(out.history["count"]) == 1


def test_callback_sees_each_chunk_and_may_stop():
    reports = []

    def callback(report):
        reports.append(report)
        return report.step >= 12

    out = fit.loop(Walk(), START, num_steps=100, chunk=5, callback=callback)
    assert [report.step for report in reports] == [5, 10, 15]
    assert all(report.num_steps == 100 for report in reports)
    assert [len(report.metrics["loss"]) for report in reports] == [5, 5, 5]
    assert reports[-1].state[0] == out.state[0]
    assert bool(out.result == RESULTS.early_stopped) and out.step == 15
    rows = np.concatenate([report.metrics["loss"] for report in reports])
    np.testing.assert_array_equal(rows, out.history["loss"])


def interrupt(report):
    if report.step == 10:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_returns_what_there_is():
    before, options = signal.getsignal(signal.SIGINT), dict(num_steps=100, key=KEY, chunk=5)
    out = fit.loop(Walk(), START, callback=interrupt, **options)
    assert bool(out.result == RESULTS.interrupted)
    assert out.step == 10 == out.state[1]
    assert signal.getsignal(signal.SIGINT) is before
    whole = fit.loop(Walk(), START, **options)
    rest = fit.loop(Walk(), out.state, start=out.step, **options)
    assert rest.state[0] == whole.state[0]


@pytest.mark.parametrize("bad_step", [-1, 8])
def test_ctrl_c_in_the_last_chunk_is_not_lost(bad_step):
    def press(state):
        signal.raise_signal(signal.SIGINT)
        return state, {}, RESULTS.nonfinite if bad_step == 8 else RESULTS.early_stopped

    out = fit.loop(Walk(), START, num_steps=8, review=press)
    assert bool(out.result == RESULTS.interrupted)
    assert out.step == (8 if bad_step < 0 else 7)
    assert out.nonfinite_step == (None if bad_step < 0 else 8)


@pytest.fixture
def at_a_terminal():
    """Ctrl-C interrupts, as it does not in what a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_ctrl_c_acts_at_once(at_a_terminal):
    before = signal.getsignal(signal.SIGINT)

    def twice(report):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)  # two that come before Python has looked are one

    with pytest.raises(KeyboardInterrupt):
        fit.loop(Walk(), START, num_steps=100, chunk=5, callback=twice)
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_is_restored_after_an_exception():
    before = signal.getsignal(signal.SIGINT)

    def fail(report):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        fit.loop(Walk(), START, num_steps=10, callback=fail)
    assert signal.getsignal(signal.SIGINT) is before


def test_runs_in_another_thread():
    outs = []
    thread = threading.Thread(target=lambda: outs.append(fit.loop(Walk(), START, num_steps=10)))
    thread.start()
    thread.join()
    assert outs[0].step == 10


@pytest.mark.parametrize("where", ["terminal", "notebook", "file"])
def test_progress_bar_shows_the_loss_to_whom_it_may_reach(where, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: where == "terminal")
    if where == "notebook":
        monkeypatch.setitem(sys.modules, "ipykernel", object())
    else:
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    fit.loop(Walk(), START, num_steps=10, progress=True, chunk=10)
    shown = capsys.readouterr().err
    if where == "file":
        assert not shown
    else:
        assert "10/10 [00:0" in shown and "step/s" in shown and f"loss={0.9**9:.3g}" in shown


def test_progress_may_be_a_callback():
    reports = []
    fit.loop(Walk(), START, num_steps=10, progress=reports.append, chunk=5)
    assert [report.step for report in reports] == [5, 10]


@pytest.mark.usefixtures("programs_stay")
def test_compiles_once():
    shapes = []

    def step(state, batch, key):
        shapes.append(batch.shape)
        return state + jnp.sum(batch), {"loss": state}

    options = dict(data=jnp.ones(6), chunk=10, batch_size=2)
    first = fit.loop(step, jnp.zeros(()), num_steps=25, key=KEY, **options)
    assert shapes == [(2,)] * 2, "one to see what it does, and one for all chunks"
    again = fit.loop(step, jnp.ones(()), num_steps=40, key=jax.random.key(1), **options)
    assert shapes == [(2,)] * 3, "none to compile a second loop with the same shapes"
    assert first.state == 50 and again.state == 81
    assert again.compile_seconds < first.compile_seconds


def test_static_numbers_are_told_apart_by_type():
    class Add(eqx.Module):
        amount: float

        def __call__(self, state, batch, key):
            return state, {"sum": jnp.asarray(self.amount)}

    for amount, kind in [(1, "i"), (1.0, "f"), (True, "b")]:
        assert fit.loop(Add(amount), START, num_steps=1).history["sum"].dtype.kind == kind


def test_state_is_not_donated_and_may_be_weakly_typed():
    def step(state, batch, key):
        return state * jnp.ones((), jnp.float32), {"loss": state}

    start = jnp.asarray(2.0, jnp.float32) * 1.0
    out = fit.loop(step, start, num_steps=3)
    assert out.state.dtype == jnp.float32 and start == 2


def test_no_steps():
    out = fit.loop(Walk(), START, num_steps=0)
    assert out.step == 0 and out.state[0] == 1 and out.compile_seconds == 0
    assert bool(out.result == RESULTS.successful)


GOOD = dict(data=jnp.arange(4), num_steps=5, batch_size=2, key=KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(start=6), "start must be from 0 to num_steps = 5, got 6"),
        (dict(num_steps=-1), "num_steps = -1"),
        (dict(chunk=0), "chunk must be at least 1, got 0"),
        (dict(batch_size=0), "batch_size must be at least 1, got 0"),
        (dict(review_every=0), "review_every must be at least 1, got 0"),
        (dict(key=None), "key must be given"),
        (dict(batch_size=9), "batch_size must be at most 4, the rows of data, got 9"),
        (dict(batch_size=None, augment=scaled_anew), "augment must come with a batch_size"),
        (
            dict(augment=lambda x, _: x[:, None]),
            r"which are \['int64\(4,\)'\], got \['int64\(4, 1\)'\]",
        ),
        (dict(data=(jnp.zeros(3), jnp.zeros((4, 2)))), r"one leading length, got \[3, 4\]"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        fit.loop(seen, jnp.zeros(()), **(GOOD | change))


def test_import_brings_neither_orbax_nor_tqdm():
    code = "import sys, physml.fit; print({name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tqdm" not in done.stdout and "orbax" not in done.stdout, done.stdout


def in_file(path, array):
    """An array that stays in a file."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("room", [1, 1000, 1 << 26])
def test_data_in_files_give_the_batches_of_data_in_memory(tmp_path, monkeypatch, room):
    monkeypatch.setattr("physml.fit._chunks._CHUNK_BYTES", room)
    rows, labels = np.arange(46.0).reshape(23, 2), jnp.arange(23)
    data = {"rows": in_file(tmp_path / "rows.npy", rows), "labels": labels}
    options = {"num_steps": 17, "key": KEY, "batch_size": 5}
    expected = fit.loop(seen_both, 0, {"rows": rows, "labels": labels}, **options)
    found = fit.loop(seen_both, 0, data, **options)
    assert_same_leaves(found.history, expected.history)
    part = fit.loop(seen_both, 0, data, checkpoint=tmp_path / "kept", **options | {"num_steps": 8})
    assert part.step == 8
    whole = fit.loop(seen_both, 0, data, checkpoint=tmp_path / "kept", **options)
    assert_same_leaves(whole.history, expected.history)


def seen_both(state, batch, key):
    return state + 1, batch


def test_data_in_files_come_in_batches_and_as_they_are(tmp_path):
    data = in_file(tmp_path / "rows.npy", np.arange(6.0))
    with pytest.raises(ValueError, match="batch_size must be given for data in mapped files"):
        fit.loop(seen, 0, data, num_steps=2, key=KEY)
    with pytest.raises(ValueError, match="augment must be None for data in mapped files"):
        fit.loop(seen, 0, data, num_steps=2, key=KEY, batch_size=2, augment=lambda x, key: x)
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64"):
        fit.loop(seen, 0, data, num_steps=2, key=KEY, batch_size=2)
