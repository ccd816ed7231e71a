"""A random order of many rows, of which any part can be computed alone."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

_ROUNDS = 8  # fewer leave the 24 orders of four rows visibly unequal


def shuffle_words(key: PRNGKeyArray) -> UInt32[Array, " rounds"]:
    """What `shuffled` needs of a key."""
    return jax.random.bits(key, (_ROUNDS,), jnp.uint32)


def shuffled(
    position: Int[Array, " batch"],
    length: int,
    epoch: Int[Array, ""],
    words: UInt32[Array, " rounds"],
) -> Int[Array, " batch"]:
    """The entries at some positions of an epoch's random order of `range(length)`.

    A Feistel network permutes the pairs (left, right) of numbers below a side s, s^2 >= length.
    Where it leads past `length` it is applied again, which leaves a permutation of `range(length)`.
    A batch costs microseconds; sorting 80,000 random numbers in each epoch would cost as much as
    training a small network.

    Args:
        position: places in the order, each from 0 to length - 1.
        length: number of rows, below 2^31.
        epoch: each has an order of its own.
        words: from `shuffle_words`.

    References:
        Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002; Mitchell, Stokes,
        Frank and Holmes, Bandwidth-optimal random shuffling for GPUs, ACM TOPC 9 (2022).
    """
    # An even side: with an odd one only half of all permutations can be reached.
    side = jnp.uint32(2 * (math.isqrt(length - 1) // 2 + 1))
    words = _mixed(words ^ epoch.astype(jnp.uint32))

    def permuted(x: UInt32[Array, " batch"]) -> UInt32[Array, " batch"]:
        left, right = x // side, x % side
        for word in words:
            left, right = right, (left + _mixed(right ^ word) % side) % side
        return left * side + right

    row = jax.lax.while_loop(
        lambda x: jnp.any(x >= length),
        lambda x: jnp.where(x >= length, permuted(x), x),
        permuted(position.astype(jnp.uint32)),
    )
    return row.astype(position.dtype)


def _mixed(x: UInt32[Array, " n"]) -> UInt32[Array, " n"]:
    """The finalizer of MurmurHash3: every bit of the answer depends on every bit of x."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
