"""Evaluate a JAX function in double-double by interpreting its jaxpr."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, ArrayLike, DTypeLike, PyTree

from physml._numerics import double_double as dd
from physml._numerics.double_double import DoubleDouble, add, div, exact, fast_two_sum, mul, neg
from physml._numerics.interpreter._fourier import Complex, transform
from physml._numerics.interpreter._loops import LOOPS, bind, called_by, run_loop
from physml._numerics.interpreter._pairs import by_pairs, has_complex

Axes = tuple[int, ...]
Rule = Callable[..., DoubleDouble]


def in_double_double(function: Callable[..., Array]) -> Callable[..., DoubleDouble]:
    """A function of double-doubles that computes what a function of float arrays does.

    It evaluates the function's operations one by one. Those that round (sums, products, quotients,
    powers, dot products, elementary functions, Fourier transforms) have rules in double-double,
    and loops and branches are run in it. All others (a reshape, a maximum, a special function) are
    evaluated at the leading parts, and their derivative adds the effect of the trailing parts. So
    an operation that does not round loses nothing, and one without a rule loses no more than a
    float's rounding. Complex numbers are computed by their parts, see `by_pairs`.
    """

    def evaluate(*args: DoubleDouble) -> DoubleDouble:
        floats = [x.hi for x in args]
        closed = jax.make_jaxpr(function)(*floats)
        if has_complex(closed):
            closed = jax.make_jaxpr(by_pairs(function))(*floats)
        (result,) = _interpret(closed.jaxpr, [_lift(x) for x in closed.consts], args)
        return result

    return evaluate


def _lift(x: PyTree) -> PyTree:
    """A float as a double-double, anything else as it is."""
    if isinstance(x, DoubleDouble | Complex) or not jnp.issubdtype(
        jnp.result_type(x), jnp.floating
    ):
        return x
    return exact(jnp.asarray(x))


def _interpret(jaxpr: Jaxpr, consts: Sequence, args: Sequence) -> list[PyTree]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for equation in jaxpr.eqns:
        inputs = [_lift(x.val) if isinstance(x, Literal) else values[x] for x in equation.invars]
        inner, rule = called_by(equation), _RULES.get(equation.primitive.name)
        if inner is not None:
            outputs = _called(inner, inputs)
        elif equation.primitive.name in LOOPS:
            outputs = run_loop(equation, inputs, _called, _lift)
        elif rule is not None and _suits(equation, inputs[0]):
            outputs = [_or_plain(equation, inputs, rule(*inputs, **equation.params))]
        else:
            outputs = _to_first_order(equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [_lift(x.val) if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]


def _suits(equation: JaxprEqn, x: PyTree) -> bool:
    """Whether an operation's rule is one of numbers such as its first."""
    of_complex = isinstance(x, Complex) and equation.primitive.name in _OF_COMPLEX
    return of_complex or isinstance(x, DoubleDouble)


def _called(inner: Any, inputs: Sequence) -> list[PyTree]:
    """The outputs of a function that is called, of a jaxpr with or without constants."""
    consts = [_lift(x) for x in getattr(inner, "consts", ())]
    return _interpret(getattr(inner, "jaxpr", inner), consts, inputs)


def _or_plain(equation: JaxprEqn, inputs: list[PyTree], result: PyTree) -> PyTree:
    """What a rule gives, and where that is not finite, what floats give.

    Double-doubles know no infinity: the error of inf + 1 comes out as NaN. Without this function
    1 / (1 + exp(1000)) would be NaN instead of zero.
    """
    has_plain = isinstance(result, DoubleDouble) and not any(isinstance(x, Complex) for x in inputs)
    if not has_plain or equation.primitive.name in _NONE_AT_INFINITY:
        return result
    leading = [x.hi if isinstance(x, DoubleDouble) else x for x in inputs]
    (plain,) = bind(equation, leading)
    return dd.where(jnp.isfinite(result.hi), result, exact(plain))


def _to_first_order(equation: JaxprEqn, inputs: list[PyTree]) -> list[PyTree]:
    """The operation at the leading parts, plus its derivative times the trailing ones."""
    inputs = [jax.lax.complex(x.re.hi, x.im.hi) if isinstance(x, Complex) else x for x in inputs]
    is_float = [isinstance(x, DoubleDouble) for x in inputs]

    def apply(floats: list[Array]) -> list[Array]:
        rest = iter(floats)
        arguments = [next(rest) if f else x for x, f in zip(inputs, is_float, strict=True)]
        return bind(equation, arguments)

    pairs = [x for x in inputs if isinstance(x, DoubleDouble)]
    leading, trailing = [x.hi for x in pairs], [x.lo for x in pairs]
    values, changes = jax.jvp(apply, (leading,), (trailing,))
    values = jax.lax.optimization_barrier(values)  # a constant is hidden, as in `exact`
    return [
        fast_two_sum(value, change) if jnp.issubdtype(value.dtype, jnp.floating) else value
        for value, change in zip(values, changes, strict=True)
    ]


def _sum(x: DoubleDouble, axes: Axes) -> DoubleDouble:
    """The sum over some axes, one after the other."""
    for axis in sorted(axes, reverse=True):
        terms = jax.tree.map(lambda part, axis=axis: jnp.moveaxis(part, axis, 0), x)
        ones = jnp.ones((terms.hi.shape[0], *(1,) * (terms.hi.ndim - 1)), terms.hi.dtype)
        x = dd.dot(terms, exact(ones))
    return x


def _dot(a: DoubleDouble, b: DoubleDouble, dimension_numbers: tuple) -> DoubleDouble:
    """The sums of products of `lax.dot_general`."""
    (contract_a, contract_b), (batch_a, batch_b) = dimension_numbers
    own = a.hi.ndim - len(contract_a) - len(batch_a)
    others = b.hi.ndim - len(contract_b) - len(batch_b)

    def arranged(x: Array, contract: Axes, batch: Axes, before: int, after: int) -> Array:
        free = [i for i in range(x.ndim) if i not in (*batch, *contract)]
        x = jnp.transpose(x, (*contract, *batch, *free))
        sizes = x.shape[len(contract) :]
        num = len(batch)
        shape = (*sizes[:num], *(1,) * before, *sizes[num:], *(1,) * after)
        return x.reshape(math.prod(x.shape[: len(contract)]), *shape)

    left = jax.tree.map(lambda x: arranged(x, contract_a, batch_a, 0, others), a)
    right = jax.tree.map(lambda x: arranged(x, contract_b, batch_b, own, 0), b)
    return dd.dot(left, right)


def _together(operation: Rule) -> Rule:
    """An operation on two double-doubles, which are first broadcast to one shape."""

    def apply(a: DoubleDouble, b: DoubleDouble, **_: object) -> DoubleDouble:
        shape = jnp.broadcast_shapes(a.hi.shape, b.hi.shape)
        a, b = jax.tree.map(lambda x: jnp.broadcast_to(x, shape), (a, b))
        return operation(a, b)

    return apply


_multiply = _together(mul)


def _converted(x: DoubleDouble, new_dtype: DTypeLike) -> PyTree:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        return x.hi.astype(new_dtype)
    hi = x.hi.astype(new_dtype)
    return DoubleDouble(hi, ((x.hi - hi.astype(x.hi.dtype)) + x.lo).astype(new_dtype))


def _power(x: DoubleDouble, n: int) -> DoubleDouble:
    """x^n by squaring."""
    one = exact(jnp.ones_like(x.hi))
    result, base, left = one, x, abs(n)
    while left:
        result = mul(result, base) if left % 2 else result
        base, left = mul(base, base) if left > 1 else base, left // 2
    return result if n >= 0 else div(one, result)


def _general_power(x: DoubleDouble, y: DoubleDouble | ArrayLike) -> DoubleDouble:
    exponent = y if isinstance(y, DoubleDouble) else exact(jnp.asarray(y, x.hi.dtype))
    shape = jnp.broadcast_shapes(x.hi.shape, exponent.hi.shape)
    x, exponent = jax.tree.map(lambda part: jnp.broadcast_to(part, shape), (x, exponent))
    plain = jnp.power(x.hi, exponent.hi)  # has the sign; the result if x = 0 or it overflows
    size = dd.where(x.hi < 0, neg(x), x)
    regular = (size.hi > 0) & jnp.isfinite(plain)
    result = dd.exp(mul(exponent, dd.log(dd.where(regular, size, exact(jnp.ones_like(x.hi))))))
    result = dd.where(plain < 0, neg(result), result)
    return dd.where(regular, result, exact(plain))


def _plus_one(x: DoubleDouble, sign: float = 1.0) -> DoubleDouble:
    return add(x, exact(jnp.full_like(x.hi, sign)))


def _hyperbolic(x: DoubleDouble) -> tuple[DoubleDouble, DoubleDouble]:
    """sinh and cosh."""
    up, down = dd.exp(x), dd.exp(neg(x))
    twice = add(up, neg(down)), add(up, down)
    return tuple(jax.tree.map(lambda part: 0.5 * part, pair) for pair in twice)  # pyright: ignore


def _tanh(x: DoubleDouble) -> DoubleDouble:
    """From exp(-2 |x|), which does not overflow."""
    sign = jnp.where(x.hi < 0, -1.0, 1.0).astype(x.hi.dtype)
    small = dd.exp(DoubleDouble(-2 * sign * x.hi, -2 * sign * x.lo))
    ratio = div(_plus_one(neg(small)), _plus_one(small))
    return DoubleDouble(sign * ratio.hi, sign * ratio.lo)


def _reciprocal(x: DoubleDouble) -> DoubleDouble:
    return div(exact(jnp.ones_like(x.hi)), x)


def _scatter_add(
    x: DoubleDouble, indices: Array, updates: DoubleDouble, *, dimension_numbers: Any, **params: Any
) -> DoubleDouble:
    """x with updates added in places, of which several may be the same.

    The updates are cut into slices so short that the sums of each are exact.
    """
    options = {k: params[k] for k in ("indices_are_sorted", "unique_indices", "mode")}
    flat = jax.tree.map(lambda part: part.reshape(1, -1), updates)
    for part in dd.exactly_summable(flat, max(updates.hi.size, 1)):
        zero, part = jnp.zeros_like(x.hi), part.reshape(updates.hi.shape)
        total = jax.lax.scatter_add(zero, indices, part, dimension_numbers, **options)
        x = add(x, exact(total))
    return x


_NONE_AT_INFINITY = ("sin", "cos", "tan")  # which have no limit there
_OF_COMPLEX = ("real", "imag", "fft")  # rules for complex numbers; the others take real ones
_RULES: dict[str, Callable[..., DoubleDouble | Complex]] = {
    "complex": lambda re, im, **_: Complex(re, im),
    "real": lambda x, **_: x.re,
    "imag": lambda x, **_: x.im,
    "fft": lambda x, fft_type, fft_lengths, **_: transform(x, fft_type, fft_lengths),
    "scatter-add": _scatter_add,
    "add": _together(add),
    "add_any": _together(add),
    "sub": _together(lambda a, b: add(a, neg(b))),
    "mul": _multiply,
    "div": _together(div),
    "square": lambda x, **_: mul(x, x),
    "integer_pow": lambda x, y, **_: _power(x, y),
    "pow": lambda x, y, **_: _general_power(x, y),
    "sqrt": lambda x, **_: dd.sqrt(x),
    "rsqrt": lambda x, **_: _reciprocal(dd.sqrt(x)),
    "exp": lambda x, **_: dd.exp(x),
    "expm1": lambda x, **_: _plus_one(dd.exp(x), -1.0),
    "log": lambda x, **_: dd.log(x),
    "log1p": lambda x, **_: dd.log(_plus_one(x)),
    "logistic": lambda x, **_: _reciprocal(_plus_one(dd.exp(neg(x)))),
    "sin": lambda x, **_: dd.sin_cos(x)[0],
    "cos": lambda x, **_: dd.sin_cos(x)[1],
    "tan": lambda x, **_: div(*dd.sin_cos(x)),
    "atan": lambda x, **_: dd.atan2(x, exact(jnp.ones_like(x.hi))),
    "atan2": _together(dd.atan2),
    "sinh": lambda x, **_: _hyperbolic(x)[0],
    "cosh": lambda x, **_: _hyperbolic(x)[1],
    "tanh": lambda x, **_: _tanh(x),
    "reduce_sum": lambda x, axes, **_: _sum(x, tuple(map(int, axes))),
    "dot_general": lambda a, b, dimension_numbers, **_: _dot(a, b, dimension_numbers),
    "convert_element_type": lambda x, new_dtype, **_: _converted(x, new_dtype),
}
