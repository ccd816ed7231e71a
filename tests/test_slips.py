"""A search over the public surface: whatever argument is spoiled, the call is refused.

The sentence is ours and names the argument. `slips.py` has a right call of each function. The room
of data has a search of its own, in `test_data_slips.py`.
"""

import collections
import inspect
import math
import os
import re
import threading
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slips import CALLS, CHOICES, KEY, OPEN, PASSED_ON, REAL, WITH_INFINITY, WITH_ZERO

import physml
from physml import bayes, classify, dynamics, fit, generative, pinn, reference, surrogate, systems
from physml._numerics.blas import single_threaded_blas

PACKAGE = os.path.dirname(physml.__file__) + os.sep

WRONG = {"object": object(), "complex": 1j, "bytes": b"x"}
NOTHING = type(None)
SLIPS = {
    "count": {
        "fraction": 2.5, "text": "3", "bool": True, "negative": -1, "zero": 0, "list": [3, 4],
        "nan": np.nan,
    },
    "number": {
        "text": "x", "bool": True, "nan": np.nan, "infinite": np.inf, "negative": -1.0, "zero": 0.0,
        "list": ["x"], "dict": {}, "numpy nan": np.float64(np.nan),
    },
    "sizes": {"fraction": 2.5, "text": "x", "bool": True, "negative": -1, "fractions": [2.5, 1.5]},
    "flag": {"number": 2, "text": "yes", "list": [], "fraction": 0.5},
    "text": {"number": 3, "list": ["x"], "unknown": "nonsense", "empty": ""},
    "key": {"seed": 0, "fraction": 1.5, "text": "0", "array": jnp.zeros(3), "list": [0, 1]},
    "array": {
        "text": "x", "texts": ["a", "b"], "ragged": [[1.0], [1.0, 2.0]], "empty": np.zeros(0),
        "empty list": [], "complex array": np.ones(3, complex), "dict": {}, "function": len,
        "objects": np.asarray([None, 1]), "nan": np.nan, "infinite": np.inf,
        "deep": np.ones((1,) * 7),
    },
    "function": {"number": 3, "text": "adam", "list": [], "array": np.ones(3)},
    "thing": {
        "number": 3, "text": "adam", "array": np.ones((3, 3)), "function": lambda *args: args[0],
        "dict": {}, "list": [object()],
    },
    "mapping": {"number": 3, "text": "adam", "array": np.ones((3, 3)), "list": [object()]},
    "several": {"number": 3, "bytes": b"x", "dict": {}, "list": [object()], "nested": [[[[]]]]},
    "dtype": {"integer": "int32", "unknown": "float33", "number": 3, "complex": complex},
}  # fmt: skip


def kind_of(hint):
    """What kind of slips an argument with this annotation has."""
    text = str(hint)
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = [x for x in typing.get_args(hint) if x is not type(None)] if union else [hint]
    if "Key[" in text and "PyTree" not in text and "Callable" not in text:
        return "key"
    if "SupportsDType" in text:
        return "dtype"
    if members == [str] or "Literal" in str(members[0]):
        return "text"
    if any("Callable" in str(member) for member in members):
        return "function"
    if "Mapping" in text:
        return "mapping"
    if "Sequence" in str(members[0]) or "tuple" in str(members[0]):
        return "several"
    if (
        complex in members
        or (float not in members and "jaxtyping" in str(members[0]))
        or members == [jax.Array]
    ):
        return "array"
    if members == [int]:
        return "count"
    if float in members:
        return "number"
    if bool in members:
        return "flag"
    return "sizes" if int in members else "thing"


def spoiled(value, slip):
    """An array of the right shape with NaN or infinity; one of seven axes as it is."""
    return slip if np.ndim(slip) else np.full(np.shape(getattr(value, "images", value)), slip)


def hint_of(call, name, value):
    """The annotation of an argument; that of `**options` for one of many names."""
    hints = typing.get_type_hints(call)
    if inspect.isclass(call):
        hints |= typing.get_type_hints(call.__init__)
    several = [
        other.name
        for other in inspect.signature(call).parameters.values()
        if other.kind == other.VAR_KEYWORD
    ]
    hint = hints.get(name, hints.get(*several) if several else None)
    unsaid = hint in (None, typing.Any, object)
    return type(value) if unsaid else hint


def allowed(label, name, call, kind, hint):
    """Whether what a slip puts in is no slip for this argument."""
    full = f"{name} of {call.__qualname__}"
    names = {name, full}
    if f"{label} {full}" in PASSED_ON:
        return True
    if label in ("nan", "infinite", "deep") and kind == "array":
        free = label == "deep" and any(mark in str(hint) for mark in "*.")
        return free or bool({*names, call.__module__.split(".")[1]} & PASSED_ON)
    if label in ("unknown", "empty") and kind == "text":
        return "Literal" not in str(hint) and name not in CHOICES
    sets = {"zero": WITH_ZERO, "negative": REAL, "infinite": WITH_INFINITY}
    return bool(names & sets.get(label, set()))


def calls():
    """Every call that has to be refused: (function, argument, name of the slip, slip)."""
    for call, kept in CALLS.items():
        for name in kept.keys() - {"self", *OPEN}:
            value = kept[name]
            hint = hint_of(call, name, value)
            kind = kind_of(hint)
            for label, slip in (SLIPS[kind] | WRONG).items():
                if allowed(label, name, call, kind, hint):
                    continue
                if kind == "array" and label in ("nan", "infinite", "deep"):
                    if value is None:
                        continue
                    slip = spoiled(value, slip)
                yield call, name, label, slip
            said = f"none {name} of {call.__qualname__}" in PASSED_ON
            if value is not None and NOTHING not in typing.get_args(hint) and not said:
                yield call, name, "none", None


def judge(call, name, slip):
    """How a call went: "refused", or what is wrong with it."""
    try:
        found = call(**CALLS[call] | {name: slip})
    except (TypeError, ValueError) as error:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        place = last.tb_frame.f_code.co_filename
        if not place.startswith(PACKAGE):
            return f"raw, from {place}: {error!r}"
        return "refused" if name in str(error) else f"unnamed: {error!r}"
    except Exception as error:
        return f"raw: {error!r}"
    return f"accepted: {found!r}"


# Equinox warns of an array that is handed to a constructor in the place of a number.
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("room", sorted({call.__module__.split(".")[1] for call in CALLS}))
def test_slips_are_refused_in_our_words(room):
    verdicts = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for call, name, label, slip in calls():
            if call.__module__.split(".")[1] == room:
                verdicts[call.__qualname__, name, label] = judge(call, name, slip)
    counts = collections.Counter(verdict.split(":")[0] for verdict in verdicts.values())
    wrong = {where: verdict for where, verdict in verdicts.items() if verdict != "refused"}
    assert not wrong, f"{dict(counts)}: {wrong}"
    assert len(verdicts) >= 30


def test_the_search_is_large():
    counts = collections.Counter(label for _, _, label, _ in calls())
    assert counts.total() >= 2000 and min(counts.values()) >= 3, counts


def total(args):
    leaves = [leaf for leaf in jax.tree.leaves(args) if leaf.dtype == jnp.float64]
    return sum(jnp.sum(leaf) for leaf in leaves)


def in_python(*args):
    return math.sin(total(args))


def in_numpy(*args):
    return np.sin(total(args))


def by_branches(*args):
    return args[0] if total(args) > 0 else 2 * args[0]


USERS = {  # where functions of users go in: the arguments that make the call reach them
    (bayes.fit_linear_equation, "coefficients"): {},
    (fit.gradient, "loss"): {},
    (fit.gradient, "augment"): {"data": jnp.ones((4, 2)), "batch_size": 2, "key": KEY},
    (fit.sweep, "loss"): {},
    (generative.fit_adversarial, "residual"): {},
    (fit.sweep, "build_model"): {},
    (fit.sweep, "optimizer"): {},
    (fit.loop, "step"): {},
    (fit.least_squares, "residual"): {},
    (fit.variable_projection, "residual"): {},
    (fit.cramer_rao, "predict"): {},
    (fit.readout, "features"): {"inputs": jnp.ones((3, 2))},
    (surrogate.fit, "residual"): {},
    (pinn.identify, "observe"): {},
    (reference.reaction_diffusion, "reaction"): {},
    (classify.logits, "model"): {},
}
MISTAKES = {
    "nothing": (lambda *args: None, ""),
    "text": (lambda *args: "x", ""),
    "thing": (lambda *args: object(), ""),
    "no arguments": (lambda: 0.0, "called as"),
    "Python": (in_python, "jnp.sin for math.sin"),
    "NumPy": (in_numpy, "jnp.sin for np.sin"),
    "branches": (by_branches, "jnp.where"),
}


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("call", "name"), USERS, ids=lambda x: getattr(x, "__qualname__", x))
def test_mistakes_in_functions_of_users_are_said(call, name, mistake):
    function, remedy = MISTAKES[mistake]
    spoiled = CALLS[call] | USERS[call, name] | {name: function}
    with pytest.raises((TypeError, ValueError), match=f"{name} must .*{remedy}") as caught:
        call(**spoiled)
    assert str(caught.traceback[-1].path).startswith(PACKAGE)
    if mistake in ("Python", "NumPy", "branches"):
        assert "test_slips.py" in str(caught.value)  # the user's own line


def changed(t, y, args):
    dy = jnp.zeros(2)
    dy[0] = y[1]
    return dy


def held_in_numpy(t, y, args):
    dy = np.zeros(2)
    dy[0] = y[1]
    return dy


def forever(t, y, args):
    while y[0] > 0:
        y = y - 1
    return y


RIGHT_HAND_SIDES = [
    (lambda t: -t, "f must be called as f(t, y, args), got a function with the parameters"),
    (lambda t, y, args: [math.sin(y[0]), y[1]], "jnp.sin for math.sin"),
    (lambda t, y, args: np.sin(y), "jnp.sin for np.sin"),
    (lambda t, y, args: np.array([y[1], -y[0]]), "jnp.array for np.array"),
    (lambda t, y, args: y if y[0] > 0 else -y, "jnp.where"),
    (lambda t, y, args: [max(y[0], 0.0), y[1]], "jnp.maximum"),
    (lambda t, y, args: [y[0] > 0 and y[1], y[1]], "jnp.logical_and"),
    (lambda t, y, args: [float(y[0]), y[1]], "y[0] for float(y[0])"),
    (lambda t, y, args: [y[0].item(), y[1]], ".item() cannot take them"),
    (lambda t, y, args: y[y > 0], "how many numbers a mask picks"),
    (forever, "jnp.where"),
    (changed, "y.at[0].set(value)"),
    (held_in_numpy, "jnp.stack([a, b])"),
    (lambda t, y, args: -args["k"] * y, "args must be given where f uses them, got None"),
    (lambda t, y, args: None, "is a `return` missing?"),
    (lambda t, y, args: [y[0]], "f must return dy/dt of shape (2,), got shape (1,)"),
    (lambda t, y, args: y[0], "f must return dy/dt of shape (2,), got shape ()"),
    (lambda t, y, args: y[:, None], "f must return dy/dt of shape (2,), got shape (2, 1)"),
    (lambda t, y, args: {"x": y[0]}, "f must return dy/dt of shape (2,), as an array"),
    (lambda t, y, args: [y, y[0]], "got a list of shapes [(2,), ()]"),
    (lambda t, y, args: jax.lax.complex(y, y), "the real and the imaginary part as two components"),
    (lambda t, y, args: [y[1], -y[2]], "the components y[0] to y[1], got y[2]"),
    (lambda t, y, args: [y[1], -y[-3]], "the components y[0] to y[1], got y[-3]"),
    (lambda t, y, args: [(lambda a, b, c: a)(*[v for v in y], y[2])] * 2, "got y[2]"),
]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(("f", "message"), RIGHT_HAND_SIDES)
@pytest.mark.parametrize("solve", [pinn.solve, reference.solve])
def test_slips_of_a_right_hand_side_are_said(solve, f, message):
    system = systems.from_function(f, 2)
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        solve(system, [1.0, 0.5], 1.0 if solve is pinn.solve else [0.0, 1.0])


def test_a_right_hand_side_may_return_what_holds_numbers():
    for f in (lambda t, y, args: (y[1], -y[0]), lambda t, y, args: [1, 2], lambda t, y, args: y):
        found, _, _ = systems.check_problem(systems.from_function(f, 2), [1.0, 0.5], None)
        assert found.dim == 2


@pytest.mark.usefixtures("as_a_user")
def test_things_that_are_taken_for_others_are_said():
    with pytest.raises(TypeError, match=r"step_map must be a .*StepMap such as reference\.FlowMap"):
        dynamics.rollout(systems.Lorenz(), jnp.ones((1, 3)), 5)
    with pytest.raises(TypeError, match=r"optimizer must .* such as optax\.adam\(1e-3\)"):
        fit.gradient(**CALLS[fit.gradient] | {"optimizer": "adam"})
    with pytest.raises(TypeError, match=r"train must be a data\.Traj.* such as data\.from_arrays"):
        surrogate.fit_readout(CALLS[surrogate.fit]["network"], jnp.ones((3, 3)))
    with pytest.raises(
        TypeError, match=r"system must be a .*System such as systems\.from_function"
    ):
        pinn.solve("lorenz", [1.0], 1.0)


def test_times_that_the_dtype_cannot_tell_apart_are_said():
    y0 = jnp.ones(3, jnp.float32)
    with pytest.raises(ValueError, match="1001 times from t0 to t1 must differ in float32"):
        pinn.solve(systems.Lorenz(), y0, 1.7e9 + 10.0, t0=1.7e9)
    with pytest.raises(ValueError, match="ts must differ in float32, the dtype of y0"):
        reference.solve(systems.Lorenz(), y0, 1.7e9 + np.arange(3.0))


def test_what_is_listed_in_place_of_an_array_becomes_one():
    error = dynamics.relative_l2([[1.0], [2.0]], [[1.0], [1.0]])
    np.testing.assert_allclose(error, [1 / np.sqrt(2)])


def test_two_threads_share_the_limit_of_blas():
    import threadpoolctl

    def threads():
        info = threadpoolctl.threadpool_info()
        return [library["num_threads"] for library in info if library["user_api"] == "blas"]

    def work(entered, may_leave):
        with single_threaded_blas():
            entered.set()
            may_leave.wait(10)

    with single_threaded_blas():
        pass  # loads what is limited
    before = threads()
    workers = []
    for _ in range(2):
        events = threading.Event(), threading.Event()
        worker = threading.Thread(target=work, args=events)
        worker.start()
        assert events[0].wait(10)
        workers.append((worker, events[1]))
    assert set(threads()) == {1}
    for (worker, may_leave), limits in zip(workers, ({1}, set(before)), strict=True):
        may_leave.set()  # the one that entered first leaves first
        worker.join()
        assert set(threads()) == limits
    assert threads() == before


def test_records_are_printed_in_a_few_lines():
    solution = reference.solve(systems.Lorenz(), jnp.ones(3), [0.0, 0.5])
    assert "3 components" in repr(solution) and "Successful." in repr(solution)
    assert "Successful." in str(solution.result)
    batch = jax.vmap(lambda y: reference.solve(systems.Lorenz(), y, jnp.asarray([0.0, 0.5])))
    for record in (solution, batch(jnp.ones((2, 3))), CALLS[surrogate.score_many]["stepper"]):
        assert len(repr(record).splitlines()) < 12
    assert repr(jax.tree.map(lambda _: None, solution))  # a tree of something else prints too
    jax.jit(lambda solution: (repr(solution), solution.ys)[1])(solution)
