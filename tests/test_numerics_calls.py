"""What the check of calls says: what was expected, where, an example of it, and what came."""

import ast
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from flax import nnx
from helpers import refusals
from jaxtyping import Array, Float

from physml import (
    classify,
    data,
    dynamics,
    fit,
    fourier,
    nn,
    noises,
    pinn,
    plots,
    reference,
    residuals,
    surrogate,
    systems,
)
from physml._numerics.calls import checked
from physml._numerics.calls._classes import EXAMPLES, described, public_name
from physml._types import FeatureNetwork, RecurrentNetwork

ROOMS = {
    "classify": classify, "data": data, "dynamics": dynamics, "fit": fit, "fourier": fourier,
    "nn": nn, "noises": noises, "pinn": pinn, "plots": plots, "reference": reference,
    "residuals": residuals, "surrogate": surrogate, "systems": systems,
}  # fmt: skip
HOMES = ROOMS | {"nnx": nnx, "numpy": np, "optax": optax, "optimistix": optimistix}
MADE_BY_CALLING = {  # their names say how they are made
    "fit.VariableProjection", "nn.Dense", "nn.Dropout", "nn.Filters", "nn.MLP", "nn.Pool",
    "systems.DrivenOscillator", "systems.SquareWave",
}  # fmt: skip


def classes_in(hint):
    """The classes in a hint that are ours or of a library we build on; no arrays, no numbers."""
    if hasattr(hint, "dim_str") or typing.get_origin(hint) in (typing.Literal, Callable):
        return
    for part in typing.get_args(hint):
        yield from classes_in(part)
    homes = ("physml", "flax", "optax", "optimistix", "numpy.random")
    checked_by_itself = getattr(hint, "__name__", "") == "Frame"
    if isinstance(hint, type) and hint.__module__.startswith(homes) and not checked_by_itself:
        yield hint


FUNCTIONS = [
    x
    for room in ROOMS.values()
    for x in vars(room).values()
    if inspect.isfunction(x) and "._numerics" not in x.__module__
]
WANTED = {
    kind
    for function in FUNCTIONS
    for name, hint in typing.get_type_hints(function).items()
    for kind in classes_in(hint)
    if name != "return"
}


def test_every_class_that_is_asked_for_says_how_it_is_made():
    silent = {public_name(kind) for kind in WANTED if "such as" not in described(kind)}
    assert silent <= MADE_BY_CALLING
    for name in silent:
        room, kind = name.split(".")
        assert getattr(ROOMS[room], kind) in WANTED  # it is public under this name


def made_by(example):
    """The class of what an example makes, whose arguments must fit what it calls."""
    expression = ast.parse(example, mode="eval").body
    is_attribute = isinstance(expression, ast.Attribute)
    call = expression.value if is_attribute else expression
    nodes = [node for argument in call.args for node in ast.walk(argument)]
    function = eval(ast.unparse(call.func), HOMES.copy())
    if "..." not in example and not any(isinstance(x, ast.Name) for x in nodes):
        return type(eval(example, HOMES.copy()))
    if "..." not in example:
        inspect.signature(function).bind(*call.args, **{x.arg: None for x in call.keywords})
    made = function if inspect.isclass(function) else typing.get_type_hints(function)["return"]
    return typing.get_type_hints(made)[expression.attr] if is_attribute else made


SHOWN = sorted((k for k in WANTED if "such as" in described(k)), key=public_name)


@pytest.mark.parametrize("kind", SHOWN, ids=public_name)
def test_examples_make_what_they_are_examples_of(kind):
    _, examples = described(kind).split(" such as ")
    for example in examples.split(" or "):
        if "`" in example:  # words
            continue
        made = made_by(example)
        if kind in (FeatureNetwork, RecurrentNetwork):
            assert {"readout", *kind.__annotations__} <= {*dir(made), "readout"}
        else:
            assert issubclass(typing.get_origin(made) or made, kind)


def test_no_example_is_left_over():
    used = {name for name, example in EXAMPLES.items() for x in WANTED if example in described(x)}
    assert used | {"nnx.Rngs"} == EXAMPLES.keys()  # only constructors ask for nnx.Rngs


@checked
def of_all_kinds(
    first: Float[Array, "*batch time dim"] | None = None,
    second: Float[Array, "*batch time dim"] | None = None,
    square: Float[Array, "dim dim"] | None = None,
    names: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    stages: Sequence[tuple[optax.GradientTransformation | nnx.Module, int]] = (),
    size: int | Sequence[int] = 1,
    triple: tuple[int, int, int] = (1, 1, 1),
    rule: Callable[[float, Array], Array] | None = None,
    every: int | float = 1,
):
    return first, second, square


A, ADAM = jnp.ones((4, 2)), optax.adam(1e-3)


@refusals(
    (dict(second=jnp.ones((5, 2)), first=A), r"got shape \(5, 2\): first has time = 4 and dim = 2"),
    (dict(first=A, square=jnp.ones((2, 3))), r"square must have shape \(2, 2\), got shape \(2, 3"),
    (dict(square=jnp.ones((2, 3))), r"square must have shape \(dim, dim\), got shape \(2, 3\)"),
    (dict(first=A[0]), r"first must have shape \(\*batch, time, dim\), got shape \(2,\)"),
    (dict(names=["a", 3]), r"names\[1\] must be text, got 3", TypeError),
    (dict(names=3), "names must be a sequence of strings, got 3", TypeError),
    (dict(ranges={"k": 3.0}), r"ranges\['k'\] must be a pair of numbers, got 3.0", TypeError),
    (dict(ranges={"k": (0.0, "x")}), r"ranges\['k'\]\[1\] must be a number, got 'x'", TypeError),
    (dict(ranges={"k": (0.0, np.nan)}), r"ranges\['k'\]\[1\] must be a number, got nan"),
    (dict(ranges={3: (0.0, 1.0)}), "a dictionary from strings to pairs of numbers", TypeError),
    (dict(stages=[("adam", 1)]), r"stages\[0\]\[0\] must be an optax.*got 'adam'", TypeError),
    (dict(stages=[(ADAM, 1.5)]), r"stages\[0\]\[1\] must be an integer, got 1.5", TypeError),
    (dict(stages=[ADAM]), r"stages\[0\] must be a pair \(an optax.*, an integer\)", TypeError),
    (dict(stages=ADAM), r"stages must be a sequence of pairs \(an optax", TypeError),
    (dict(size=[1, 2.5]), r"size\[1\] must be an integer, got 2.5", TypeError),
    (dict(size="x"), "size must be an integer or a sequence of integers, got 'x'", TypeError),
    (dict(size=np.nan), "size must be an integer or a sequence of integers, got nan", TypeError),
    (dict(triple=(1, 2)), r"triple must be a tuple of 3 integers, got \(1, 2\)", TypeError),
    (dict(rule=3), "rule must be a function of 2 arguments, got 3", TypeError),
    (dict(every=np.nan), "every must be a number, got nan"),
)
@pytest.mark.usefixtures("as_a_user")
def test_refusals_point_at_what_is_wrong(case):
    of_all_kinds(**case)
