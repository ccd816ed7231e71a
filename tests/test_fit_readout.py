"""The linear readout against numpy, and on systems that normal equations cannot solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from physml import fit

RNG = np.random.default_rng(0)
A = RNG.normal(size=(50, 6))
B = RNG.normal(size=(50, 2))


@pytest.mark.parametrize("block_size", [None, 1, 7, 16, 50, 1000])
def test_is_least_squares(block_size):
    out = fit.readout(A, B, block_size=block_size)
    weights, residuals, rank, singular_values = np.linalg.lstsq(A, B)
    np.testing.assert_allclose(out.weights, weights, rtol=1e-11)
    np.testing.assert_allclose(out.residual_norm, np.sqrt(residuals), rtol=1e-13)
    np.testing.assert_allclose(out.singular_values, singular_values, rtol=1e-13)
    assert int(out.rank) == rank == 6


# Fewer rows than features, one block and several, a last block that is not full.
@pytest.mark.parametrize(
    ("rows", "block", "features"),
    [(1, 1, 1), (3, 40, 5), (3, 2, 5), (30, 1, 4), (30, 30, 5), (29, 7, 2)],
)
def test_any_shape(rows, block, features):
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, features)), rng.normal(size=(rows, 1))
    out = fit.readout(a, b, block_size=block)
    weights, *_, singular_values = np.linalg.lstsq(a, b)
    # Least norm where there are fewer rows than features.
    scale = np.linalg.norm(weights) * singular_values[0] / singular_values[-1]
    np.testing.assert_allclose(out.weights, weights, atol=1e-12 * scale)
    assert out.rank == min(rows, features)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dtype_follows_the_data(dtype):
    out = fit.readout(A.astype(dtype), B.astype(dtype), block_size=9)
    assert out.weights.dtype == out.residual_norm.dtype == out.singular_values.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(out.weights, np.linalg.lstsq(A, B)[0], atol=tolerance)


@pytest.mark.parametrize("block_size", [None, 20])
def test_keeps_digits_that_normal_equations_lose(block_size):
    t = np.linspace(0.0, 1.0, 200)
    vandermonde = np.vander(t, 13)  # condition number 7e8
    weights = np.ones((13, 1))
    targets = vandermonde @ weights
    out = fit.readout(vandermonde, targets, block_size=block_size)
    normal = np.linalg.solve(vandermonde.T @ vandermonde, vandermonde.T @ targets)
    error = np.max(np.abs(out.weights - weights))
    assert error < 1e-6 < 1e-2 < np.max(np.abs(normal - weights))
    assert np.linalg.norm(out.residual_norm) < 1e-13 * np.linalg.norm(targets)


def test_rcond_cuts_singular_values():
    u, _ = np.linalg.qr(RNG.normal(size=(40, 4)))
    v, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    s = np.array([1.0, 1e-2, 1e-5, 1e-9])
    a, b = (u * s) @ v.T, RNG.normal(size=(40, 2))
    for rcond, rank in [(1e-12, 4), (1e-7, 3), (1e-3, 2), (0.5, 1)]:
        out = fit.readout(a, b, rcond=rcond, block_size=11)
        expected = (v[:, :rank] / s[:rank]) @ u[:, :rank].T @ b
        assert out.rank == rank
        np.testing.assert_allclose(out.weights, expected, rtol=1e-5)  # conditioned 1e9
        norm = np.linalg.norm(b - u[:, :rank] @ u[:, :rank].T @ b, axis=0)
        np.testing.assert_allclose(out.residual_norm, norm, rtol=1e-7)
        np.testing.assert_allclose(out.singular_values[:3], s[:3], rtol=1e-9)


def test_default_rcond_cuts_what_is_rounding():
    a = np.c_[A, A[:, 0] + A[:, 1]]  # a column too many
    out = fit.readout(a, B)
    assert out.rank == 6
    np.testing.assert_allclose(out.weights, np.linalg.pinv(a, rcond=1e-12) @ B, atol=1e-12)


def test_refinement_takes_the_residual_to_rounding():
    # Smooth features, which span the targets to rounding and have singular values down to it.
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.0, 1.0, (4000, 2))
    features = np.sin(x @ rng.normal(size=(2, 200)) + rng.uniform(-3, 3, 200))
    targets = np.c_[np.exp(x[:, 0]) * x[:, 1], np.sin(x.sum(axis=1))]

    def error(refinements):
        out = fit.readout(features, targets, rcond=1e-16, refinements=refinements)
        return np.sqrt(np.mean((features @ np.asarray(out.weights) - targets) ** 2))

    assert error(1) < 0.5 * error(0)
    assert error(2) < 2 * error(1)


def test_refinement_leaves_a_well_conditioned_fit_alone():
    weights = np.linalg.lstsq(A, B)[0]
    out = fit.readout(A, B, refinements=2, block_size=7)
    np.testing.assert_allclose(out.weights, weights, rtol=1e-12)
    np.testing.assert_allclose(out.residual_norm, np.linalg.norm(A @ weights - B, axis=0))
    assert out.rank == 6


def test_equilibrated_columns_lose_no_small_one():
    sizes = np.array([1e8, 1.0, 1e-9, 1e3, 1e-3, 1.0])
    weights = np.linalg.lstsq(A, B)[0] / sizes[:, None]
    plain = fit.readout(A * sizes, B, rcond=1e-12)
    scaled = fit.readout(A * sizes, B, rcond=1e-12, equilibrate=True, block_size=7)
    assert plain.rank == 5
    assert scaled.rank == 6
    np.testing.assert_allclose(scaled.weights, weights, rtol=1e-10)
    of_norm_one = np.linalg.svd(A / np.linalg.norm(A, axis=0), compute_uv=False)
    np.testing.assert_allclose(scaled.singular_values, of_norm_one, rtol=1e-12)
    empty = np.c_[A, np.zeros(50)]
    assert fit.readout(empty, B, equilibrate=True).rank == 6


def test_many_blocks_lose_no_more_than_one():
    """Merged in pairs, not one after another, triangles of many blocks are as good as one QR."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1.0, 1.0, (20_000, 1)).astype(np.float32)
    features = np.sin(x * np.linspace(0.1, 2.0, 8, dtype=np.float32))
    targets = np.tanh(x)
    exact = np.linalg.svd(features.astype(np.float64), compute_uv=False)

    def error(block_size):
        out = fit.readout(features, targets, block_size=block_size)
        return np.abs(np.asarray(out.singular_values, np.float64) - exact).max() / exact[0]

    assert error(16) < 3 * error(20_000) + 2e-7


def test_no_signal():
    out = fit.readout(np.zeros((5, 2)), np.ones((5, 1)))
    assert out.rank == 0 and out.weights.shape == (2, 1) and not out.weights.any()
    np.testing.assert_allclose(out.residual_norm, np.sqrt(5))


class Features(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(3, 5, rngs=nnx.Rngs(0), param_dtype=jnp.float64)

    def features(self, x):
        return jnp.tanh(self.linear(x))

    def __call__(self, x):
        return self.features(x)


@pytest.mark.parametrize("kind", ["function", "method", "module"])
def test_features_as_a_function_of_blocks(kind):
    net = Features()
    function = {"function": lambda x: jnp.tanh(x), "method": net.features, "module": net}[kind]
    x = RNG.normal(size=(50, 3))
    out = fit.readout(function, B, inputs=x, block_size=8)
    np.testing.assert_allclose(out.weights, np.linalg.lstsq(function(x), B)[0], rtol=1e-9)


def test_inputs_may_be_a_pytree():
    inputs = {"x": A[:, :2], "t": A[:, 2]}
    out = fit.readout(lambda b: jnp.c_[b["x"], b["t"]], B, inputs=inputs, block_size=8)
    np.testing.assert_allclose(out.weights, np.linalg.lstsq(A[:, :3], B)[0], rtol=1e-11)


def test_module_that_has_changed_since():
    net = Features()
    x = RNG.normal(size=(50, 3))
    before = fit.readout(net.features, B, inputs=x)
    net.linear.kernel[...] = net.linear.kernel[...] * 2.0
    after = fit.readout(net.features, B, inputs=x)
    np.testing.assert_allclose(after.weights, np.linalg.lstsq(net.features(x), B)[0], rtol=1e-8)
    assert not np.allclose(before.weights, after.weights)


def test_never_holds_more_than_a_block_of_features():
    rows = []

    def function(x):
        rows.append(len(x))
        return jnp.c_[x, x**2]

    fit.readout(function, B, inputs=A, block_size=4)
    assert max(rows) == 4


@pytest.mark.parametrize(
    ("features", "targets", "options", "message"),
    [
        (A, B[:-1], {}, r"one number of rows, got \[49, 50\]"),
        (A[:0], B[:0], {}, "not empty"),
        (A, B, dict(rcond=1.0), "less than 1, got 1.0"),
        (A, B, dict(rcond=-0.1), "rcond must be at least 0.*got -0.1"),
        (A, B, dict(refinements=-1), "refinements must be at least 0, got -1"),
        (A, B, dict(block_size=0), "block_size must be at least 1, got 0"),
        (A, B, dict(inputs=A), "inputs must be given"),
        (jnp.tanh, B, {}, "inputs must be given"),
        (jnp.sum, B, dict(inputs=A), "0 axes"),
        (A.astype(np.float32), B, {}, "float32"),
        (A.astype(int), B.astype(int), {}, "int64|i64"),
    ],
)
def test_bad_arguments(features, targets, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit.readout(features, targets, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    a, b = A.copy(), B.copy()
    a[3, 2] = b[4, 1] = value
    with pytest.raises(ValueError, match="features must be finite"):
        fit.readout(a, B)
    with pytest.raises(ValueError, match=r"targets must be finite, got .* at index \(4, 1\)"):
        fit.readout(A, b)


def test_float64_while_x64_is_off():
    a, b = A.astype(np.float32), B.astype(np.float32)
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"targets must be float32 .* got float64"):
            fit.readout(a, B)
        with pytest.raises(ValueError, match=r"features must be float32 .* got float64"):
            fit.readout(A, b)
        assert fit.readout(a, b).weights.dtype == np.float32
