"""The solver for long time series: quasiseparable matrices, by tinygp, in time linear in N."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml.bayes.gaussian_processes._kernels import AnyKernel, Constant, Matern, Product, Sum

if TYPE_CHECKING:
    import tinygp.kernels.quasisep
    import tinygp.solvers.quasisep.core

_UNSEEN = 1e12  # the noise of a point that was not observed, in variances of the process


class Quasiseparable(eqx.Module):
    """The solver for a long time series with one input: a million rows take some seconds.

    The kernel is a `Matern` of order 1/2, 3/2 or 5/2, a sum or product of such kernels, also with
    numbers, or one of `tinygp.kernels.quasisep`. The rows may come in any order.

    Source: tinygp's solver; D. Foreman-Mackey et al., Astron. J. 154 (2017) 220, for the idea.
    """

    def prepare(self, kernel: AnyKernel, x: Float[Array, "rows inputs"]) -> "Quasiseparable":
        quasiseparable(kernel)
        if x.shape[1] != 1:
            raise ValueError(
                f"x must have one input for bayes.Quasiseparable(), got {x.shape[1]} inputs"
            )
        return self

    def log_likelihood(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows 1"],
        y: Float[Array, "rows outputs"],
    ) -> Float[Array, ""]:
        """The log marginal likelihood of all outputs together; the noise is a variance."""
        order = jnp.argsort(x[:, 0])
        process = _process(quasiseparable(kernel), x[order, 0], noise[order])
        return jnp.sum(jax.vmap(process.log_probability, in_axes=1)(y[order]))

    def condition(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows 1"],
        y: Float[Array, "rows outputs"],
    ) -> "QuasiseparablePosterior":
        """What is known of the function once y has been seen."""
        order = jnp.argsort(x[:, 0])
        times, noise = x[order, 0], noise[order]
        factor = _process(quasiseparable(kernel), times, noise).solver.factor
        weights = factor.transpose().solve(factor.solve(y[order]))
        return QuasiseparablePosterior(kernel, times, noise, weights)


class QuasiseparablePosterior(eqx.Module):
    """A Gaussian process of time given its noisy values at increasing times.

    Attributes:
        kernel: of the process before.
        times: of the values.
        noise: the variance of each.
        weights: the inverse of the values' covariance times the values.
    """

    kernel: AnyKernel
    times: Float[Array, " rows"]
    noise: Float[Array, " rows"]
    weights: Float[Array, "rows outputs"]

    def mean(self, points: Float[Array, "points 1"]) -> Float[Array, "points outputs"]:
        return quasiseparable(self.kernel).matmul(points[:, 0], self.times, self.weights)

    def variance(self, points: Float[Array, "points 1"]) -> Float[Array, " points"]:
        # The points join the rows as values with so much noise that they say nothing: then one
        # pass along all times gives the variance at each of them.
        kernel = quasiseparable(self.kernel)
        times = jnp.concatenate([self.times, points[:, 0]])
        unseen = _UNSEEN * kernel(points[:, 0])
        order = jnp.argsort(times)
        noise = jnp.concatenate([self.noise, unseen])[order]
        prior = _without_blocks(kernel.to_symm_qsm(times[order]))
        seen = (prior + _diagonal(noise)).cholesky().inv() @ prior
        sorted_variance = (prior - seen.gram()).diag.d
        found = jnp.zeros_like(times).at[order].set(sorted_variance)[len(self.times) :]
        return jnp.maximum(found, 0.0)

    def covariance(self, points: Float[Array, "points 1"]) -> Float[Array, "points points"]:
        kernel, at = quasiseparable(self.kernel), points[:, 0]
        factor = _process(kernel, self.times, self.noise).solver.factor
        known = factor.solve(kernel(self.times, at))
        return kernel(at, at) - known.T @ known


def quasiseparable(kernel: AnyKernel) -> "tinygp.kernels.quasisep.Quasisep":
    """The kernel as one of `tinygp.kernels.quasisep`.

    Raises:
        TypeError: it is none of those that have this structure.
    """
    from tinygp.kernels import quasisep

    if isinstance(kernel, quasisep.Quasisep):
        return kernel
    if isinstance(kernel, Matern) and kernel.order in (0.5, 1.5, 2.5):
        kinds = {0.5: quasisep.Exp, 1.5: quasisep.Matern32, 2.5: quasisep.Matern52}
        return kinds[kernel.order](scale=jnp.reshape(jnp.asarray(kernel.scale), ()))
    if isinstance(kernel, Product):
        for number, other in ((kernel.first, kernel.second), (kernel.second, kernel.first)):
            if isinstance(number, Constant):
                return quasisep.Scale(quasiseparable(other), jnp.asarray(number.variance))
        return quasisep.Product(*map(quasiseparable, (kernel.first, kernel.second)))
    if isinstance(kernel, Sum):
        return quasisep.Sum(*map(quasiseparable, (kernel.first, kernel.second)))
    raise TypeError(
        "kernel must be a Matern of order 0.5, 1.5 or 2.5, a sum or product of such, or one of "
        f"tinygp.kernels.quasisep for bayes.Quasiseparable(), got {type(kernel).__name__}"
    )


def _process(kernel: "tinygp.kernels.quasisep.Quasisep", times: Array, noise: Array) -> Any:
    from tinygp import GaussianProcess

    return GaussianProcess(kernel, times, diag=noise, assume_sorted=True)


def _diagonal(values: Array) -> "tinygp.solvers.quasisep.core.DiagQSM":
    from tinygp.noise import Diagonal

    return Diagonal(values).to_qsm()


def _without_blocks(
    matrix: "tinygp.solvers.quasisep.core.SymmQSM",
) -> "tinygp.solvers.quasisep.core.SymmQSM":
    """The same matrix with its transitions as arrays: tinygp 0.3.1 does not invert blocks."""
    transitions = matrix.lower.a
    if isinstance(transitions, jax.Array):
        return matrix
    dense = jax.vmap(lambda block: block.to_dense())(transitions)
    return eqx.tree_at(lambda m: m.lower.a, matrix, dense, is_leaf=lambda x: x is transitions)
