"""The order of the data: a permutation each epoch, every permutation equally often."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml._numerics.shuffle import shuffle_words, shuffled


def orders(length, epochs, seed=0):
    words = shuffle_words(jax.random.key(seed))
    places = jnp.arange(length)
    return np.asarray(jax.vmap(lambda e: shuffled(places, length, e, words))(jnp.arange(epochs)))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 4999])
def test_is_a_permutation(length):
    found = orders(length, 7)
    np.testing.assert_array_equal(np.sort(found), np.tile(np.arange(length), (7, 1)))
    assert length < 5 or len(np.unique(found, axis=0)) == 7


def test_a_part_of_the_order_is_the_same_order():
    words = shuffle_words(jax.random.key(0))
    part = shuffled(jnp.asarray([5, 90, 17]), 100, jnp.asarray(0), words)
    np.testing.assert_array_equal(part, orders(100, 1)[0, [5, 90, 17]])


def test_keys_have_orders_of_their_own():
    assert not np.array_equal(orders(50, 3, seed=0), orders(50, 3, seed=1))


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_all_orders_are_equally_frequent(length):
    epochs = 24_000
    counts = collections.Counter(map(tuple, orders(length, epochs)))
    cells = math.factorial(length)
    assert len(counts) == cells
    expected = epochs / cells
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = cells - 1
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("length", [30, 1000])
def test_places_and_neighbours_are_independent(length):
    epochs = 2000
    found = orders(length, epochs)
    counts = np.zeros((length, length))
    np.add.at(counts, (np.broadcast_to(np.arange(length), found.shape), found), 1)
    expected = epochs / length
    chi_square = np.sum((counts - expected) ** 2) / expected
    freedom = (length - 1) ** 2
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)
    steps = np.bincount(((found[:, 1:] - found[:, :-1]) % length).ravel(), minlength=length)[1:]
    expected = steps.sum() / (length - 1)
    chi_square = np.sum((steps - expected) ** 2) / expected
    assert abs(chi_square - length) < 5 * math.sqrt(2 * length)
