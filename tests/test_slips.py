"""A search over the public surface: whatever argument is spoiled, the call is refused.

The sentence is ours and names the argument. `slips.py` has a right call of each function. The room
of data has a search of its own, in `test_data_slips.py`.
"""

import inspect
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slips import CALLS, CHOICES, OPEN, PASSED_ON, REAL, WITH_INFINITY, WITH_ZERO

ROOMS = {
    "data",
    "experiment",
    "results",
    "solution",
    "step_maps",
}  # searched elsewhere, or no calls


def branches(*args):
    return args[-2] if jnp.sum(args[-1] if args[-1] is not None else args[0]) > 0 else args[0]


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
        "objects": np.asarray([None, 1]), "nan": np.nan, "infinite": np.inf, "deep": np.ones((1,) * 7),
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
    assert len(verdicts) >= 40


def test_the_search_is_large():
    counts = collections.Counter(label for _, _, label, _ in calls())
    assert counts.total() >= 2000 and min(counts.values()) >= 3, counts
