"""Programs compiled ahead of their use answer as the functions that they are made of."""

import ctypes
import mmap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.compiled import compiled, compiling, constant, lower, once
from physml.experiment import Run


def scaled(tree, factor):
    return {name: factor * jnp.sin(x) for name, x in tree.items()}


def total(tree, power):
    return sum(jnp.sum(x**power) for x in tree.values())


@pytest.mark.parametrize("quickly", [False, True])
def test_a_program_is_lowered_for_what_another_will_answer(quickly):
    tree = {"a": np.linspace(0.0, 1.0, 5), "b": jnp.ones((2, 3))}
    first = lower(scaled, tree, jnp.asarray(2.0))
    second = lower(total, first.out_info, 3)
    begin, finish = (compiling(program, quickly=quickly) for program in (first, second))
    answer = finish(begin(tree, jnp.asarray(2.0)), 3)
    np.testing.assert_allclose(answer, sum(np.sum((2 * np.sin(x)) ** 3) for x in tree.values()))


@pytest.mark.usefixtures("programs_stay")
def test_a_program_that_was_compiled_is_found_again():
    x, other = np.arange(4.0), np.arange(4.0) + 1
    program, _ = compiled(total, {"x": x}, 2)
    with Run.timed() as timing:
        again, _ = compiled(total, {"x": other}, 2)
    assert timing.compile_seconds == 0
    assert float(program({"x": x}, 2)) == 14.0 and float(again({"x": other}, 2)) == 30.0


def test_what_is_made_for_arguments_is_made_once_for_all_that_are_like_them():
    made = []

    def make(tree, power):
        made.append(power)
        return compiling(lower(total, tree, power))

    x = {"x": jnp.arange(4.0)}
    squares = once(make, x, 2)
    assert once(make, {"x": x["x"] + 1}, 2) is squares and made == [2]
    assert float(squares(x, 2)) == 14.0
    assert float(once(make, x, 3)(x, 3)) == 36.0  # another value of what is static
    once(make, {"x": jnp.arange(5.0)}, 2)  # another shape
    with jax.default_matmul_precision("highest"):  # another program
        once(make, x, 2)
    assert made == [2, 3, 2, 2]


@pytest.mark.skipif(not Path("/proc/sys/vm/max_map_count").exists(), reason="Linux alone has it")
def test_programs_are_let_go_before_they_take_the_last_maps_of_memory():
    made = []

    def make(x):
        made.append(x)
        return compiling(lower(total, {"x": x}, 5))

    traced = []
    other = jax.jit(lambda x: traced.append(x) or 2 * x)  # of the user
    x = jnp.arange(3.0)
    first = once(make, x)
    assert once(make, x) is first and other(1.0) == other(2.0) / 2 and len(traced) == 1
    pages = int(Path("/proc/sys/vm/max_map_count").read_text()) // 2
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        for page in range(0, pages, 2):  # neighbours with other rights are maps of their own
            at = ctypes.c_void_p(start + page * mmap.PAGESIZE)
            assert not ctypes.CDLL(None).mprotect(at, mmap.PAGESIZE, mmap.PROT_READ)
        once(make, jnp.arange(4.0))
    assert len(made) == 2 and once(make, x) is not first and len(made) == 3
    assert float(first({"x": x}, 5)) == 33.0  # who holds a program keeps it
    assert other(1.0) == 2.0 and len(traced) == 2


def test_constants_keep_their_type_and_are_known_while_tracing():
    assert constant(2).weak_type and not constant(2, jnp.float32).weak_type
    assert constant(np.arange(2), jnp.float32).dtype == jnp.float32

    @jax.jit
    def traced(x):
        known = constant(np.array([1, 2]), x.dtype)
        assert not isinstance(known, jax.core.Tracer)
        return x * known

    np.testing.assert_array_equal(traced(jnp.ones(2)), [1.0, 2.0])
