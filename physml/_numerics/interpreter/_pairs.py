"""Complex numbers as pairs of real ones, in whatever a user's function computes with them.

The solvers know real numbers alone: their double-doubles, networks and matrices. A function of real
arrays that computes with complex ones in between is evaluated operation by operation, each
complex one by its real and imaginary part. So its derivatives are those in both parts, whether it
is holomorphic or not, and double-double arithmetic sees real operations.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import Array

from physml._numerics.interpreter._loops import LOOPS, bind, called_by, run_loop


class Pair(NamedTuple):
    """A complex array. A part that is None is zero; one of the two is an array."""

    re: Any
    im: Any

    def parts(self) -> tuple[Any, Any]:
        """Both parts as arrays."""
        one: Any = self.im if self.re is None else self.re
        zero = jnp.zeros_like(one)
        return zero if self.re is None else self.re, zero if self.im is None else self.im

    def joined(self) -> Array:
        """The complex array."""
        return jax.lax.complex(*self.parts())


def by_pairs(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of real arrays with a real result, which computes no complex number inside.

    Operations without a rule here (a Fourier transform, linear algebra) remain complex, between
    numbers that are joined before them and taken apart after them.
    """

    def evaluate(*args: Any) -> Array:
        closed = jax.make_jaxpr(function)(*args)
        (result,) = _interpret(closed.jaxpr, closed.consts, args)
        return result

    return evaluate


def _apart(value: Any) -> Any:
    """A complex array as a pair, anything else as it is."""
    if isinstance(value, Pair) or not jnp.iscomplexobj(value):
        return value
    return Pair(jnp.real(value), jnp.imag(value))


def _constant(literal: Literal) -> Any:
    """A number in a function's text, of which a part is often zero."""
    dtype = literal.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]
    if not jnp.issubdtype(dtype, np.complexfloating):
        return literal.val
    re, im = (
        jnp.asarray(x, _real_dtype(dtype)) for x in (np.real(literal.val), np.imag(literal.val))
    )
    zero_re, zero_im = not np.any(np.real(literal.val)), not np.any(np.imag(literal.val))
    return Pair(None if zero_re and not zero_im else re, None if zero_im else im)


def _interpret(jaxpr: Jaxpr, consts: Sequence, args: Sequence) -> list[Any]:
    inputs_of = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(inputs_of, map(_apart, [*consts, *args]), strict=True))

    def read(x: Any) -> Any:
        return _constant(x) if isinstance(x, Literal) else values[x]

    for equation in jaxpr.eqns:
        outputs = _of_equation(equation, [read(x) for x in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _called(inner: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a function that is called, of a jaxpr with or without constants."""
    return _interpret(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)


def _settled(value: Any) -> Any:
    """A pair with both parts: a loop's values keep one form, and a part that is zero may change."""
    return Pair(*value.parts()) if isinstance(value, Pair) else value


def _of_equation(equation: JaxprEqn, inputs: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    is_complex = any(isinstance(x, Pair) for x in inputs)
    inner = called_by(equation)
    inside = is_complex or any(has_complex(x) for x in _inner(equation))
    if inner is not None and inside:
        return _called(inner, inputs)
    if name in LOOPS and inside:
        return run_loop(equation, inputs, _called, _settled)
    if is_complex and name in _RULES:
        return [_RULES[name](*inputs, **params)]
    if is_complex and name in _SHARED:
        return _by_parts(equation, inputs)
    if name == "complex":
        return [Pair(*map(jnp.asarray, inputs))]
    if name == "convert_element_type" and jnp.issubdtype(params["new_dtype"], np.complexfloating):
        return [Pair(jnp.asarray(inputs[0], _real_dtype(params["new_dtype"])), None)]
    inputs = [x.joined() if isinstance(x, Pair) else x for x in inputs]
    return [_apart(x) for x in bind(equation, inputs)]


def has_complex(inner: Any) -> bool:
    """Whether a jaxpr, with or without constants, computes a complex number somewhere."""
    jaxpr = getattr(inner, "jaxpr", inner)
    return any(
        any(jnp.issubdtype(x.aval.dtype, np.complexfloating) for x in e.outvars)
        or any(has_complex(x) for x in _inner(e))
        for e in jaxpr.eqns
    )


def _inner(equation: JaxprEqn) -> list[Any]:
    """The jaxprs that an equation calls, once or in turns or as branches."""
    inner, params = called_by(equation), equation.params
    keys = {"scan": ("jaxpr",), "while": ("cond_jaxpr", "body_jaxpr")}
    name = equation.primitive.name
    loops = params["branches"] if name == "cond" else [params[key] for key in keys.get(name, ())]
    return [*loops, *([] if inner is None else [inner])]


def _by_parts(equation: JaxprEqn, inputs: list[Any]) -> list[Pair]:
    """A linear operation that does not multiply, such as a reshape, on both parts."""
    own = [x for x in inputs if isinstance(x, Pair)]

    def part(which: int) -> list[Any]:
        if all(x[which] is None for x in own):
            return [None] * len(equation.outvars)
        parts = [x.parts()[which] if isinstance(x, Pair) else x for x in inputs]
        return bind(equation, parts)

    return [Pair(*parts) for parts in zip(part(0), part(1), strict=True)]


def _real_dtype(dtype: Any) -> np.dtype:
    return np.zeros(0, dtype).real.dtype


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _negative(a: Any) -> Any:
    return None if a is None else -a


def _product(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a * b


def _add(a: Pair, b: Pair, **_: object) -> Pair:
    re, im = _sum(a.re, b.re), _sum(a.im, b.im)
    shape = jnp.broadcast_shapes(jnp.shape(a.parts()[0]), jnp.shape(b.parts()[0]))
    re, im = (None if x is None else jnp.broadcast_to(x, shape) for x in (re, im))
    return Pair(re, im)


def _neg(a: Pair, **_: object) -> Pair:
    return Pair(_negative(a.re), _negative(a.im))


def _mul(a: Pair, b: Pair, multiply: Callable = _product, **_: object) -> Pair:
    re = _sum(multiply(a.re, b.re), _negative(multiply(a.im, b.im)))
    im = _sum(multiply(a.re, b.im), multiply(a.im, b.re))
    return Pair(re, im)


def _scale(a: Pair) -> Any:
    """The larger part's absolute value, so that squares neither overflow nor vanish."""
    re, im = a.parts()
    size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(re), jnp.abs(im)))
    return jnp.where((size > 0) & jnp.isfinite(size), size, 1.0)


def _div(a: Pair, b: Pair, **_: object) -> Pair:
    if b.im is None:
        return Pair(*(None if x is None else x / b.re for x in a))
    size = _scale(b)
    below = Pair(*(None if x is None else x / size for x in b))
    square = _sum(_product(below.re, below.re), _product(below.im, below.im)) * size
    above = _mul(a, Pair(below.re, _negative(below.im)))
    return Pair(*(None if x is None else x / square for x in above))


def _abs(a: Pair, **_: object) -> Any:
    if a.im is None or a.re is None:
        one: Any = a.re if a.im is None else a.im
        return jnp.abs(one)
    size = _scale(a)
    square = (a.re / size) ** 2 + (a.im / size) ** 2
    there = square != 0  # at zero the derivative counts as zero, as JAX's does; NaN remains
    return jnp.where(there, size * jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)


def _exp(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    size = None if a.re is None else jnp.exp(re)
    cos, sin = jnp.cos(im), jnp.sin(im)
    return Pair(cos, sin) if size is None else Pair(size * cos, size * sin)


def _log(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.log(_abs(a)), jnp.arctan2(im, re))


def _sin(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.sin(re) * jnp.cosh(im), jnp.cos(re) * jnp.sinh(im))


def _cos(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.cos(re) * jnp.cosh(im), -jnp.sin(re) * jnp.sinh(im))


def _sinh(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.sinh(re) * jnp.cos(im), jnp.cosh(re) * jnp.sin(im))


def _cosh(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.cosh(re) * jnp.cos(im), jnp.sinh(re) * jnp.sin(im))


def _sqrt(a: Pair, **_: object) -> Pair:
    """The principal root, without cancellation: the larger part first, the other from it."""
    re, im = a.parts()
    square = (_abs(a) + jnp.abs(re)) / 2
    there = square != 0  # at zero the derivative counts as zero; NaN remains
    large = jnp.sqrt(jnp.where(there, square, 1.0))
    small = jnp.where(there, jnp.abs(im) / (2 * large), 0.0)
    large = jnp.where(there, large, 0.0)
    sign = jnp.where(jnp.signbit(im), -1.0, 1.0).astype(im.dtype)
    right = re >= 0
    return Pair(jnp.where(right, large, small), sign * jnp.where(right, small, large))


def _one(a: Pair) -> Pair:
    return Pair(jnp.ones_like(a.parts()[0]), None)


def _rsqrt(a: Pair, **_: object) -> Pair:
    return _div(_one(a), _sqrt(a))


def _tanh(a: Pair, **_: object) -> Pair:
    """From tanh and tan of the parts, which do not overflow."""
    re, im = (jnp.tanh(a.parts()[0]), jnp.tan(a.parts()[1]))
    return _div(Pair(re, im), Pair(jnp.ones_like(re), re * im))


def _tan(a: Pair, **_: object) -> Pair:
    re, im = (jnp.tan(a.parts()[0]), jnp.tanh(a.parts()[1]))
    return _div(Pair(re, im), Pair(jnp.ones_like(re), -re * im))


def _log1p(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.log1p(re * (2 + re) + im**2) / 2, jnp.arctan2(im, 1 + re))


def _expm1(a: Pair, **_: object) -> Pair:
    re, im = a.parts()
    return Pair(jnp.expm1(re) * jnp.cos(im) - 2 * jnp.sin(im / 2) ** 2, jnp.exp(re) * jnp.sin(im))


def _logistic(a: Pair, **_: object) -> Pair:
    return _div(_one(a), _add(_one(a), _exp(_neg(a))))


def _pow(a: Pair, b: Any, **_: object) -> Pair:
    exponent = b if isinstance(b, Pair) else Pair(jnp.asarray(b, a.parts()[0].dtype), None)
    re, im = a.parts()
    there = (re != 0) | (im != 0)
    inside = Pair(jnp.where(there, re, 1.0), jnp.where(there, im, 0.0))
    power = _exp(_mul(exponent, _log(inside))).parts()
    real, imaginary = exponent.parts()
    at_zero = jnp.where(real > 0, 0.0, jnp.nan)
    at_zero = jnp.where((real == 0) & (imaginary == 0), 1.0, at_zero).astype(re.dtype)
    return Pair(jnp.where(there, power[0], at_zero), jnp.where(there, power[1], 0.0))


def _sign(a: Pair, **_: object) -> Pair:
    size = _abs(a)
    there = size != 0
    size = jnp.where(there, size, 1.0)
    return Pair(*(jnp.where(there, x / size, 0.0) for x in a.parts()))


def _eq(a: Pair, b: Pair, **_: object) -> Array:
    return (a.parts()[0] == b.parts()[0]) & (a.parts()[1] == b.parts()[1])


def _scatter(function: Callable, a: Pair, indices: Array, b: Pair, **params: Any) -> Pair:
    keys = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    options = {key: params[key] for key in keys}
    parts = zip(a.parts(), b.parts(), strict=True)
    return Pair(*(function(x, indices, y, **options) for x, y in parts))


def _integer_pow(a: Pair, y: int, **_: object) -> Pair:
    one = _one(a)
    result, base, left = one, a, abs(y)
    while left:
        result = _mul(result, base) if left % 2 else result
        base, left = _mul(base, base) if left > 1 else base, left // 2
    return result if y >= 0 else _div(one, result)


def _dot_general(a: Any, b: Any, preferred_element_type: Any = None, **params: Any) -> Pair:
    real = None if preferred_element_type is None else _real_dtype(preferred_element_type)
    a, b = (x if isinstance(x, Pair) else Pair(x, None) for x in (a, b))

    def multiply(x: Any, y: Any) -> Any:
        if x is None or y is None:
            return None
        return jax.lax.dot_general_p.bind(x, y, preferred_element_type=real, **params)

    return _mul(a, b, multiply)


def _convert(a: Pair, new_dtype: Any, **_: object) -> Any:
    if not jnp.issubdtype(new_dtype, np.complexfloating):
        return a.parts()[0].astype(new_dtype)
    dtype = _real_dtype(new_dtype)
    return Pair(*(None if x is None else x.astype(dtype) for x in a))


_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "add_any": _add,
    "sub": lambda a, b, **_: _add(a, _neg(b)),
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "square": lambda a, **_: _mul(a, a),
    "integer_pow": _integer_pow,
    "real": lambda a, **_: a.parts()[0],
    "imag": lambda a, **_: a.parts()[1],
    "conj": lambda a, **_: Pair(a.re, _negative(a.im)),
    "abs": _abs,
    "exp": _exp,
    "log": _log,
    "sin": _sin,
    "cos": _cos,
    "sinh": _sinh,
    "cosh": _cosh,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "pow": _pow,
    "tan": _tan,
    "tanh": _tanh,
    "log1p": _log1p,
    "expm1": _expm1,
    "logistic": _logistic,
    "sign": _sign,
    "eq": _eq,
    "ne": lambda a, b, **_: ~_eq(a, b),
    "scatter": functools.partial(_scatter, jax.lax.scatter),
    "scatter-add": functools.partial(_scatter, jax.lax.scatter_add),
    "dot_general": _dot_general,
    "convert_element_type": _convert,
}

_SHARED = (
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "rev", "pad"),
    *("split", "slice", "dynamic_slice", "dynamic_update_slice", "gather"),
    *("concatenate", "select_n", "reduce_sum", "cumsum"),
)
