"""Autoencoders against principal components, closed forms of the evidence, and known equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats
from flax import nnx
from helpers import Map, linear, refusals

from physml import data, dynamics, generative, nn, reference, systems
from physml.generative._projection import FlatUnits

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(200, 3)) * [3.0, 1.0, 0.3] @ RNG.normal(size=(3, 6)) + 2.0


def surface(num=600, size=12):
    """Points on a curved surface of two dimensions that spans five directions."""
    rng = np.random.default_rng(1)
    u, v = rng.uniform(-1, 1, (2, num))
    curved = np.stack([u, v, u**2, u * v, v**3], axis=1)
    return curved @ rng.normal(size=(5, size))


def test_lift_is_a_sum_of_legendre_polynomials():
    states = RNG.normal(size=(4, 3)) * 20
    s, u = np.linspace(-1, 1, 50), states / 40
    expected = sum(
        power * np.polynomial.legendre.Legendre.basis(i)(s)
        for i, power in enumerate(np.concatenate([u, u**3], axis=1).T[:, :, None])
    )
    found = generative.legendre_lift(states, 50)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_principal_components_have_the_least_error():
    sizes = np.linalg.svd(MIXED - MIXED.mean(axis=0), compute_uv=False)
    for latent in (1, 2):
        codec = generative.principal_components(MIXED, latent)
        expected = np.linalg.norm(sizes[latent:]) / np.linalg.norm(sizes)
        np.testing.assert_allclose(codec.relative_error(MIXED), expected, rtol=1e-12)
        spread = generative.latent_spectrum(codec, MIXED) * codec.scale
        np.testing.assert_allclose(spread, sizes[:latent] / 200**0.5, rtol=1e-12)
    exact = generative.principal_components(MIXED, 3)
    assert exact.relative_error(MIXED) < 1e-14


def test_a_linear_autoencoder_finds_the_principal_subspace():
    network = nn.Autoencoder.dense(6, (), 2, rngs=nnx.Rngs(0))
    fitted = generative.fit_autoencoder(
        network, MIXED, optimizer=optax.lbfgs(), steps=100, batch_size=None, key=KEY
    )
    ours = fitted.before_refit.network.decoder.readout.kernel[...].T
    best = generative.principal_components(MIXED, 2).network.decoder.readout.kernel[...].T
    assert scipy.linalg.subspace_angles(ours, best).max() < 1e-4


def test_the_last_layer_is_that_of_least_squares():
    network = nn.Autoencoder.dense(6, (8,), 2, rngs=nnx.Rngs(0))
    fitted = generative.fit_autoencoder(
        network, MIXED, optimizer=optax.adam(1e-2), steps=20, key=KEY
    )
    after, before = fitted.codec, fitted.before_refit
    assert after.relative_error(MIXED) < before.relative_error(MIXED)
    features = np.asarray(after.network.features(after.normalised(MIXED)))
    design = np.concatenate([features, np.ones((200, 1))], axis=1)
    rows = np.asarray(after.normalised(MIXED))
    lost = design @ np.linalg.lstsq(design, rows, rcond=None)[0] - rows
    expected = np.linalg.norm(lost) / np.linalg.norm(rows)
    np.testing.assert_allclose(after.relative_error(MIXED), expected, rtol=1e-9)


@pytest.mark.slow
def test_a_projection_codes_a_surface_to_many_digits():
    rows = surface()
    errors = [1.0]
    for latent in (1, 2, 3):
        fitted = generative.fit_projection(rows[:500], latent, key=KEY, units=100, restarts=1)
        errors.append(float(fitted.codec.relative_error(rows[500:])))
    assert errors[2] < 1e-8 < 1e-2 < errors[1]
    assert errors[3] < 10 * errors[2]  # one number more does not make the decoder worse
    assert generative.principal_components(rows, 2).relative_error(rows) > 1e-2
    found = generative.latent_dimension(errors)
    assert found.dimension == 2 and found.drop > 1e6


def test_flat_units_see_how_curved_data_are():
    """The Hessians of a quadratic map, in closed form: no other function has constant ones."""
    rng = np.random.default_rng(3)
    latents, turn = rng.normal(size=(300, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b, c = (latents @ turn).T
    targets = np.stack([a**2, 0.1 * a * b + c, 0.02 * b**2 - c, a + b], axis=1)
    flat = FlatUnits.drawn(KEY, 3, jnp.float64)
    sizes, axes = flat.curvature(latents, targets)
    # The sum of the squared Hessians is diagonal: 4 + 0.01, 0.01 + 0.0016 and nothing.
    np.testing.assert_allclose(sizes, [1, (0.0116 / 4.01) ** 0.5, 0], atol=1e-3)
    np.testing.assert_allclose(np.abs(turn.T @ axes), np.eye(3), atol=1e-2)
    sizes, _ = flat.curvature(latents, np.zeros((300, 4)))
    np.testing.assert_array_equal(sizes, 1)


@pytest.mark.parametrize("unit", [1e-200, 1e12])
def test_units_change_nothing(unit):
    def errors(rows):
        network = nn.Autoencoder.dense(6, (8,), 2, rngs=nnx.Rngs(0))
        fitted = generative.fit_autoencoder(
            network, rows, optimizer=optax.adam(1e-2), steps=10, key=KEY
        )
        linear = generative.principal_components(rows, 2)
        score = generative.AnomalyScore.fit(linear, rows)
        relative = [codec.relative_error(rows) for codec in (fitted.codec, linear)]
        return [*relative, score.quantile(0.9) / linear.scale]

    np.testing.assert_allclose(errors(unit * MIXED), errors(MIXED), rtol=1e-6)


def probabilistic_components(rows, latent):
    """The best linear variational autoencoder and the likelihood of its model, in closed form.

    Tipping and Bishop, J. R. Stat. Soc. B 61 (1999), equations 7 to 9; for the encoder Lucas and
    others, arXiv 1911.02469, equation 6.
    """
    size = rows.shape[1]
    network = nn.Autoencoder.dense(size, (), latent, rngs=nnx.Rngs(0))
    codec = generative.Codec.create(nn.Variational(network, rngs=nnx.Rngs(0)), rows)
    x = np.asarray(codec.normalised(rows))
    covariance = x.T @ x / len(x)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[latent:].mean()
    loadings = vectors[:, :latent] * np.sqrt(values[:latent] - noise)
    network = codec.network
    network.network.encoder.readout.kernel[...] = jnp.asarray(loadings / values[:latent])
    network.network.decoder.readout.kernel[...] = jnp.asarray(loadings.T)
    network.log_variance.kernel[...] = jnp.zeros((size, latent))
    network.log_variance.bias[...] = jnp.asarray(np.log(noise / values[:latent]))
    network.log_noise[...] = jnp.log(jnp.asarray(noise))
    model = scipy.stats.multivariate_normal(
        np.asarray(rows).mean(axis=0),
        float(codec.scale) ** 2 * (loadings @ loadings.T + noise * np.eye(size)),
    )
    return codec, model.logpdf(np.asarray(rows))


def test_the_evidence_bound_of_a_linear_decoder_is_the_likelihood():
    rows = MIXED + 0.3 * RNG.normal(size=MIXED.shape)
    codec, likelihood = probabilistic_components(rows, 2)
    bounds = generative.evidence_bound(codec, rows, KEY, samples=2000)
    np.testing.assert_allclose(bounds, likelihood, atol=0.3)
    assert abs(bounds.mean() - likelihood.mean()) < 0.01
    codec.network.log_variance.bias[...] += 1.0  # a worse encoder has a lower bound
    worse = generative.evidence_bound(codec, rows, KEY, samples=2000)
    # The divergence of two normal distributions whose variances differ by the factor e.
    np.testing.assert_allclose(
        likelihood.mean() - worse.mean(), 2 * 0.5 * (np.e - 1 - 1), atol=0.02
    )


def test_training_raises_the_evidence_bound_to_the_likelihood():
    rows = MIXED + 0.3 * RNG.normal(size=MIXED.shape)
    network = nn.Variational(nn.Autoencoder.dense(6, (), 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    rate = optax.cosine_decay_schedule(2e-2, 2000)
    fitted = generative.fit_autoencoder(
        network, rows, optimizer=optax.adam(rate), steps=2000, batch_size=None, key=KEY
    )
    _, likelihood = probabilistic_components(rows, 2)
    bounds = generative.evidence_bound(fitted.codec, rows, KEY, samples=500)
    assert -0.05 < bounds.mean() - likelihood.mean() < 0.02


def test_samples_of_a_linear_decoder_have_its_covariance():
    codec, _ = probabilistic_components(MIXED, 2)
    found = np.cov(generative.sample(codec, 100_000, KEY).T)
    linear = generative.principal_components(MIXED, 2)
    np.testing.assert_allclose(found, np.cov(linear(MIXED).T), rtol=0.05, atol=0.2)


def test_a_path_between_rows_starts_and_ends_at_them():
    codec = generative.principal_components(MIXED, 3)
    path = generative.interpolate(codec, MIXED[0], MIXED[1], 5)
    expected = MIXED[0] + np.linspace(0, 1, 5)[:, None] * (MIXED[1] - MIXED[0])
    np.testing.assert_allclose(path, expected, atol=1e-12)


def test_what_is_off_the_surface_is_strange():
    codec = generative.principal_components(MIXED, 2)
    score = generative.AnomalyScore.fit(codec, MIXED)
    off = np.linalg.svd(MIXED - MIXED.mean(axis=0))[2][-1]
    strange = MIXED + 0.5 * off
    np.testing.assert_allclose(score(strange), np.sqrt(score(MIXED) ** 2 + 0.25 / 6), rtol=1e-9)
    assert int(np.sum(score(MIXED) > score.quantile(0.9))) == 20
    assert score.rank(MIXED).mean() == pytest.approx(0.4975)
    assert (score.rank(MIXED + 5 * off) == 1).all()


def test_latent_numbers_are_stepped_for_what_was_coded():
    turn = jnp.asarray([[0.9, -0.3], [0.3, 0.9]])
    states = [jnp.asarray([1.0, 0.5])]
    for _ in range(30):
        states.append(turn @ states[-1])
    seen = np.asarray(states) @ RNG.normal(size=(2, 7)) + 1.0
    trajectories = data.from_arrays(0.1 * np.arange(31), seen[None])
    codec = generative.principal_components(seen, 2)
    latent = generative.encode_trajectories(codec, trajectories)
    z = latent.ys[0]
    design = jnp.concatenate([z[:-1], jnp.ones((30, 1))], axis=1)
    fitted = jnp.linalg.lstsq(design, z[1:])[0]
    step = Map(lambda y, a, b: linear(y, a) + b, (fitted[:2].T, fitted[2]), 0.1)
    step_map = generative.LatentStepper(codec, step)
    assert step_map.dt == latent.dt == 0.1
    np.testing.assert_allclose(
        dynamics.rollout(step_map, jnp.asarray(seen[:1]), 30), seen, atol=1e-10
    )


@pytest.mark.slow
def test_equations_of_lorenz_are_found_in_a_lift():
    lorenz = systems.Lorenz()
    states = reference.trajectories(lorenz, KEY, 40, 0.01 * np.arange(501))
    lifted = data.from_arrays(states.ts, generative.legendre_lift(states.ys))
    rows = lifted.ys.reshape(-1, 128)[::3]
    codec = generative.fit_projection(rows, 3, key=KEY).codec
    assert codec.relative_error(rows) < 1e-6
    found = generative.discover_equations(codec, lifted, key=KEY)
    assert found.terms == 7 and found.residual < 1e-4
    # The latent numbers are an affine image of the state.
    z = np.asarray(found.codec.encode(lifted.ys)).reshape(-1, 3)
    design = np.concatenate([np.asarray(states.ys).reshape(-1, 3), np.ones((len(z), 1))], axis=1)
    left = design @ np.linalg.lstsq(design, z, rcond=None)[0] - z
    assert np.abs(left).max() < 1e-3
    # What no affine change of coordinates changes.
    divergence = found.system.divergence(0.0, jnp.zeros(3))
    np.testing.assert_allclose(divergence, -41 / 3, rtol=1e-3)


def of_images():
    return nn.Autoencoder.convolutional((8, 8, 1), (4,), 2, rngs=nnx.Rngs(0))


def components(train):
    return generative.principal_components(train, 2)


@refusals(
    (lambda codec: generative.Codec.create(of_images(), MIXED), "network must take rows of shape"),
    (lambda codec: generative.Codec.create(codec.network, MIXED[:, :5]), "network must take rows"),
    (lambda codec: components(jnp.ones((5, 3))), "train must have rows that"),
    (lambda codec: generative.principal_components(MIXED, 7), "latent must be at most 6"),
    (lambda codec: components(np.where(MIXED > 8, np.nan, MIXED)), "train must be fin"),
    (lambda codec: codec.encode(MIXED[:, :5]), "x must have rows of shape"),
    (lambda codec: generative.fit_projection(MIXED, 4, key=KEY), "at most 3, the directions of"),
    (lambda codec: generative.latent_dimension([1.0, 0.0]), "values must be positive"),
    (lambda codec: generative.sample(codec, 3, KEY), "must be an nn.Variational", TypeError),
    (lambda codec: generative.evidence_bound(codec, MIXED, KEY), "must be an nn.V", TypeError),
)
def test_bad_input_is_refused(case):
    case(components(MIXED))
