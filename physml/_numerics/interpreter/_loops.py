"""Equations of a jaxpr, its loops and its branches, of values that stand for its arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

Interpret = Callable[[Any, Sequence[Any]], list[Any]]
"""The outputs of a jaxpr, of values that stand for its inputs."""

LOOPS = ("scan", "while", "cond")


def called_by(equation: JaxprEqn) -> Any:
    """The jaxpr of the function that an equation calls once; None where it calls none."""
    if equation.primitive.name in LOOPS:
        return None
    keys = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    return next((equation.params[key] for key in keys if key in equation.params), None)


def bind(equation: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of an equation's own operation."""
    out = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
    return list(out) if equation.primitive.multiple_results else [out]


def run_loop(
    equation: JaxprEqn, inputs: list[Any], interpret: Interpret, settle: Callable[[Any], Any]
) -> list[Any]:
    """The outputs of one of `LOOPS`.

    Args:
        equation: the loop.
        inputs: of it.
        interpret: of a body.
        settle: gives a value the one form that it has in every turn and in every branch.
    """
    inputs = [settle(x) for x in inputs]

    def settled(jaxpr: Any, values: Sequence[Any]) -> list[Any]:
        return [settle(x) for x in interpret(jaxpr, values)]

    return {"scan": _scan, "while": _while, "cond": _cond}[equation.primitive.name](
        equation, inputs, settled
    )


def scan_counts(equation: JaxprEqn) -> tuple[int, int]:
    """How many of a scan's inputs are the same in all turns, and how many are carried."""
    body = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])

    def stacked(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        # What is sliced or stacked has an axis more outside; JAX's versions name them differently.
        pairs = zip(outside, inside, strict=True)
        return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in pairs)

    carried = len(body.outvars) - stacked(equation.outvars, body.outvars)
    return len(body.invars) - stacked(equation.invars, body.invars) - carried, carried


def _scan(equation: JaxprEqn, inputs: list[Any], interpret: Interpret) -> list[Any]:
    params = equation.params
    num_constants, num_carried = scan_counts(equation)
    constants, rest = inputs[:num_constants], inputs[num_constants:]

    def step(carried: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        out = interpret(params["jaxpr"], [*constants, *carried, *slices])
        return out[:num_carried], out[num_carried:]

    carried, rows = jax.lax.scan(
        step,
        rest[:num_carried],
        rest[num_carried:],
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*carried, *rows]


def _while(equation: JaxprEqn, inputs: list[Any], interpret: Interpret) -> list[Any]:
    params = equation.params
    of_test, of_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    tests, bodies, start = inputs[:of_test], inputs[of_test:of_body], inputs[of_body:]

    def test(values: list[Any]) -> jax.Array:
        return interpret(params["cond_jaxpr"], [*tests, *values])[0]

    def turn(values: list[Any]) -> list[Any]:
        after = interpret(params["body_jaxpr"], [*bodies, *values])
        goes_on = test(values)
        if goes_on.ndim == 0:
            return after

        # Under vmap the test is an array: the loop goes on while any member does, and the members
        # that are done keep their values.
        def kept(new: jax.Array, old: jax.Array) -> jax.Array:
            members = jnp.reshape(goes_on, goes_on.shape + (1,) * (new.ndim - goes_on.ndim))
            return jnp.where(members, new, old)

        return jax.tree.map(kept, after, values)

    return jax.lax.while_loop(lambda values: jnp.any(test(values)), turn, start)


def _cond(equation: JaxprEqn, inputs: list[Any], interpret: Interpret) -> list[Any]:
    branches = [
        lambda *values, branch=branch: interpret(branch, values)
        for branch in equation.params["branches"]
    ]
    return jax.lax.switch(inputs[0], branches, *inputs[1:])
