"""Adversarial networks against distributions that are known, and their scores against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.spatial
from flax import nnx
from helpers import refusals

from physml import fit, generative, nn

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ADAM = optax.adam(3e-3, b1=0.0, b2=0.9)
OPTIMIZERS = (ADAM, ADAM)


def plane(rows):
    """Rows of a normal distribution whose two numbers go together."""
    return np.random.default_rng(0).normal(size=(rows, 2)) @ [[1.0, 0.5], [0.0, 0.3]] + [3.0, -1.0]


PLANE = plane(512)
OBJECTIVES = [
    generative.Wasserstein(1.0), generative.NonSaturating(0.3), generative.Relativistic(0.3),
]  # fmt: skip


def players(size=2, latent=2, classes=0, units=16):
    made = nn.MLP(latent + classes, (units,), size, rngs=nnx.Rngs(0))
    return made, nn.MLP(size, (units,), classes or 1, rngs=nnx.Rngs(1))


def line(rows):
    """A critic of slope (3, 4) everywhere."""
    return rows @ jnp.array([3.0, 4.0])


@pytest.mark.parametrize(
    ("objective", "penalty"), list(zip(OBJECTIVES, (16.0, 3.75, 7.5), strict=True))
)
def test_penalties_are_those_of_the_critic_s_slope(objective, penalty):
    real, made = jnp.asarray(PLANE[:5]), jnp.asarray(PLANE[5:10])
    np.testing.assert_allclose(objective.penalise(line, real, made, KEY), penalty, rtol=1e-12)
    flat = objective.penalise(lambda rows: 0.0 * line(rows), real, made, KEY)
    slope = jax.grad(lambda a: objective.penalise(lambda x: a * line(x), real, made, KEY))(0.0)
    assert np.isfinite(flat) and np.isfinite(slope)


def test_losses_where_the_critic_knows_nothing():
    zero, two = jnp.zeros(4), jnp.full(4, 2.0)
    log2, one_way = np.log(2), np.log1p(np.exp(2.0))
    wasserstein, plain, relativistic = OBJECTIVES
    assert (wasserstein.critic(two, zero), wasserstein.generator(two, zero)) == (-2.0, 0.0)
    np.testing.assert_allclose(plain.critic(zero, zero), 2 * log2)
    np.testing.assert_allclose(plain.critic(zero, two), log2 + one_way)
    np.testing.assert_allclose(plain.generator(two, -two), one_way)
    np.testing.assert_allclose(relativistic.critic(two, two), log2)
    np.testing.assert_allclose(relativistic.critic(zero, two), one_way)
    np.testing.assert_allclose(relativistic.generator(two, zero), one_way)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "turns", "steps"),
    [
        (generative.Wasserstein(1.0), 4, 6000),
        (generative.NonSaturating(3.0), 1, 8000),
        (generative.Relativistic(3.0), 1, 8000),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, generative.Objective) else "",
)
def test_a_generator_finds_the_distribution(objective, turns, steps):
    # Sizes at which the worst of twelve keys keeps every bound by a factor of two: how such a
    # game goes on depends on rounding, so that another machine or version plays another one.
    rows = plane(2048)
    rates = (
        fit.scheduled(optax.adam, learning_rate=fit.Cosine(3e-3, moves), b1=0.0, b2=0.9)
        for moves in (steps, turns * steps)
    )
    fitted = generative.fit_adversarial(
        *players(units=64), rows, latent=2, optimizers=tuple(rates), steps=steps,
        objective=objective, key=KEY, memory=0.999, turns=turns, batch_size=256,
    )  # fmt: skip
    made = np.asarray(fitted.generator.sample(4000, jax.random.key(1)))
    np.testing.assert_allclose(made.mean(axis=0), rows.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(made.T), np.cov(rows.T), atol=0.25)
    before = generative.Generator(
        players(units=64)[0], *(getattr(fitted.generator, x) for x in UNIT)
    )
    untrained = generative.frechet_distance(before.sample(4000, KEY), rows)
    assert generative.frechet_distance(made, rows) < 0.05 * untrained


UNIT = ("mean", "scale", "latent", "classes")


def test_the_class_that_is_asked_for_is_made():
    labels = np.arange(512) % 3
    rows = 0.3 * PLANE + 5.0 * np.stack([labels == 1, labels == 2], axis=1)
    options = {"latent": 2, "optimizers": OPTIMIZERS, "key": KEY, "memory": 0.9}
    fitted = generative.fit_adversarial(
        *players(classes=3), rows, labels, steps=1500,
        objective=generative.Relativistic(0.3), **options,
    )  # fmt: skip
    for label in range(3):
        made = fitted.generator.sample(200, KEY, np.full(200, label))
        np.testing.assert_allclose(made.mean(axis=0), rows[labels == label].mean(axis=0), atol=1.0)


def test_a_generator_keeps_within_bounds():
    # Half of the numbers lie on a bound, as pixels that are black do.
    rows = np.clip(PLANE, 0.0, 3.0)
    options = {"latent": 2, "optimizers": OPTIMIZERS, "key": KEY, "memory": None, "steps": 300}
    options |= {"objective": generative.Relativistic(0.3), "bounds": (0.0, 3.0)}
    made = generative.fit_adversarial(*players(), rows, **options).generator
    found = made.sample(1000, KEY)
    assert 0.0 <= found.min() and found.max() <= 3.0
    np.testing.assert_allclose(found.mean(axis=0), rows.mean(axis=0), atol=0.3)
    # The outputs of the network, through the logistic function and nothing else.
    outputs = made.network(jnp.ones((1, 2)))
    np.testing.assert_allclose(made(jnp.ones((1, 2))), 3 / (1 + np.exp(-outputs)), rtol=1e-12)
    assert "from 0 to 3" in repr(made)


@pytest.mark.slow
def test_a_generator_that_pays_a_residual_obeys_the_equation():
    rows = np.stack([PLANE[:, 0], 2 * PLANE[:, 0] + 0.1 * PLANE[:, 1]], axis=1)

    def off(rows):
        return rows[:, 1] - 2 * rows[:, 0] + 0.1

    options = {"latent": 2, "optimizers": OPTIMIZERS, "key": KEY, "memory": None, "steps": 300}
    plain, physics = (
        generative.fit_adversarial(*players(), rows, residual=off, residual_weight=w, **options)
        for w in (0.0, 100.0)
    )
    sizes = [jnp.mean(off(x.generator.sample(500, KEY)) ** 2) for x in (plain, physics)]
    assert sizes[1] < 0.04 * sizes[0]
    history = physics.training.history["residual"]
    assert history[-1] < 0.1 * history[0]


@pytest.mark.slow
def test_the_unit_of_the_data_changes_nothing_and_the_networks_decide_the_precision():
    single = nn.MLP(2, (4,), 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    critic = nn.MLP(2, (4,), 1, dtype=jnp.float32, rngs=nnx.Rngs(1))
    options = {"latent": 2, "optimizers": OPTIMIZERS, "key": KEY, "steps": 5, "batch_size": 32}
    fits = [
        generative.fit_adversarial(single, critic, unit * PLANE, **options)
        for unit in (1.0, 2.0**40)
    ]
    assert fits[0].training.state.params["readout"]["kernel"][...].dtype == jnp.float32
    one, two = (fitted.generator.sample(20, KEY) for fitted in fits)
    assert one.dtype == jnp.float64
    np.testing.assert_array_equal(one * 2.0**40, two)
    assert "Generator" in repr(fits[0].generator)


def test_training_goes_on_where_it_was():
    options = {"latent": 2, "optimizers": OPTIMIZERS, "key": KEY}
    whole = generative.fit_adversarial(*players(), PLANE, steps=10, **options)
    half = generative.fit_adversarial(*players(), PLANE, steps=4, **options)
    state = half.training.state
    rest = generative.fit_adversarial(*players(), PLANE, steps=10, state=state, **options)
    np.testing.assert_array_equal(*(x.generator.sample(9, KEY) for x in (whole, rest)))


def test_frechet_distance_is_that_of_the_matrix_root():
    one, two = RNG.normal(size=(50, 4)) @ RNG.normal(size=(4, 4)), RNG.normal(size=(70, 4)) + 1.0
    a, b = np.cov(one.T), np.cov(two.T)
    shift = np.sum((one.mean(axis=0) - two.mean(axis=0)) ** 2)
    expected = shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(generative.frechet_distance(one, two), expected, rtol=1e-10)
    assert abs(generative.frechet_distance(one, one[::-1])) < 1e-12


def test_nearest_rows_are_those_of_a_tree():
    train = PLANE + 1e6  # far from zero, where squares cancel
    distance, index = scipy.spatial.KDTree(train[:400]).query(train[400:])
    found = generative.nearest(train[400:], train[:400])
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12)


def test_coverage_finds_a_generator_that_has_collapsed():
    real = RNG.normal(size=(300, 2)) + 20.0 * np.eye(2)[np.arange(300) % 2]
    same = generative.coverage(real, real)
    assert same == (1.0, 1.0)
    other = RNG.normal(size=(300, 2)) + 20.0 * np.eye(2)[np.arange(300) % 2]
    good = generative.coverage(real, other)
    assert good.precision > 0.9 and good.recall > 0.9
    collapsed = generative.coverage(real, other[::2])  # one of two kinds alone
    assert collapsed.precision > 0.9 and collapsed.recall < 0.55
    noise = generative.coverage(real, other + RNG.uniform(-50, 50, size=other.shape))
    assert noise.precision < 0.2


@refusals(
    ({"latent": 0}, "latent must be at least 1, got 0"),
    ({"latent": 3}, "network must take shape"),
    ({"batch_size": 513}, "batch_size must be at most 512"),
    ({"turns": 5}, "batch_size must be at most 102"),
    ({"residual_weight": -1.0}, "residual_weight must .*not.*negative"),
    ({"bounds": (1.0, 0.0)}, "bounds must be two finite numbers, the lower one first"),
    ({"bounds": (0.0, 3.0)}, "bounds must hold the data, -.* got .0.0, 3.0."),
    ({"train": np.ones((9, 2))}, "train must have rows that differ"),
    ({"train": PLANE[:1]}, "train must have 2 rows or more"),
    ({"labels": np.arange(512) - 1}, "labels must be from 0 to"),
    ({"labels": np.zeros(3, int)}, "labels must be one for each of 512 rows"),
    ({"labels": np.arange(512) % 2}, "network must take shape"),
    ({"network": players(size=3)[0]}, "network must give 2 numbers"),
    ({"critic": nn.MLP(2, (), 3, rngs=nnx.Rngs(0))}, "critic must give 1 numbers"),
)
def test_what_does_not_fit_is_refused(case):
    network, critic = players()
    options = {"network": network, "critic": critic, "train": PLANE, "latent": 2}
    options |= {"optimizers": OPTIMIZERS, "key": KEY, "steps": 1}
    generative.fit_adversarial(**options | case)


@refusals(
    ((2, None), "labels must be given for 2 classes, got None"),
    ((0, np.zeros(4, int)), "labels must be given for 0 classes"),
    ((2, np.full(4, 2)), "labels must be from 0 to 1, got 2 to 2"),
    ((2, np.zeros(3, int)), "labels must have shape"),
)
def test_labels_that_do_not_fit_are_refused(case):
    classes, labels = case
    network, _ = players(classes=classes)
    unit = (jnp.zeros(2), jnp.ones(()))
    generative.Generator(network, *unit, 2, classes).sample(4, KEY, labels)
