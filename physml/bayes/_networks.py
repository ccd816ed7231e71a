"""Networks that say how far to trust them: the last layer, all weights, ensembles."""

import os
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml import fit
from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_finite, require_key
from physml._numerics.units import max_of, min_of
from physml._types import FeatureNetwork
from physml.bayes._diagnostics import effective_sample_size, split_rhat
from physml.bayes._flat import Flat, LastLayerRows, LinearisedRows
from physml.bayes._sampler import LEAST_DRAWS, Mode, run_nuts
from physml.results import raise_if_interrupted

_STEPS, _SETTLED = 2000, 1e-12  # of MacKay's iteration, and the relative change that ends it


class Prediction(NamedTuple):
    """What is predicted, and standard deviations, all (rows, outputs).

    Attributes:
        mean: of the outputs.
        sd: of the mean, because the weights are not known exactly.
        noise: of an observation about the mean, because of its noise.
    """

    mean: Float[Array, "rows outputs"]
    sd: Float[Array, "rows outputs"]
    noise: Float[Array, "rows outputs"]

    @property
    def total(self) -> Float[Array, "rows outputs"]:
        """The standard deviation of an observation about the mean, for both reasons."""
        return jnp.hypot(self.sd, self.noise)


class LinearBelief(eqx.Module):
    r"""The posterior of the weights of a linear model, $T = \Phi W + \text{noise}$.

    Attributes:
        weights: their means.
        prior_precision: α of each output, one over the variance of the weights' prior.
        noise_precision: β of each output, one over the variance of the noise.
        num_determined: γ of each output, how many weights the data determine.
        log_evidence: of each output, the log of the probability of its data.
        variances: of each output, the weights' variances in the directions of `basis`; in all
            other directions they are those of the prior.
        basis: orthonormal directions of the weights, by columns.
    """

    weights: Float[Array, "features outputs"]
    prior_precision: Float[Array, " outputs"]
    noise_precision: Float[Array, " outputs"]
    num_determined: Float[Array, " outputs"]
    log_evidence: Float[Array, " outputs"]
    variances: Float[Array, "directions outputs"]
    basis: Float[Array, "features directions"]

    @checked
    def predict(self, features: Float[Array, "rows features"]) -> Prediction:
        """What rows of features predict."""
        along = features @ self.basis
        rest = jnp.sum(features**2, axis=1) - jnp.sum(along**2, axis=1)
        variance = along**2 @ self.variances
        variance += jnp.maximum(rest, 0.0)[:, None] / self.prior_precision[None]
        noise = jnp.broadcast_to(1 / jnp.sqrt(self.noise_precision)[None], variance.shape)
        return Prediction(features @ self.weights, jnp.sqrt(variance), noise)


@checked
def linear(
    features: Float[Array, "rows features"], targets: Float[Array, "rows outputs"]
) -> LinearBelief:
    r"""Bayesian linear regression, with the precisions of prior and noise that are likeliest.

    The weights of an output have a normal prior of precision α, its data normal noise of precision
    β. The evidence, the probability of the data, is largest where $\alpha = \gamma / |m|^2$ and
    $\beta = (n - \gamma) / |T - \Phi m|^2$, with m the posterior mean and
    $\gamma = \sum_i \beta s_i^2 / (\beta s_i^2 + \alpha)$ over the singular values of Φ. These
    equations are iterated.

    Args:
        features: Φ, in any units.
        targets: T; each column gets precisions of its own.

    Raises:
        TypeError, ValueError: arguments of the wrong kind or shape, or not finite.

    Source: D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992).
    """
    require_finite("features", features)
    require_finite("targets", targets)
    return _linear(features, targets.astype(features.dtype))


@jax.jit
def _linear(features: Array, targets: Array) -> LinearBelief:
    n, count = features.shape
    left, singular, right = jnp.linalg.svd(features, full_matrices=False)
    along = left.T @ targets
    outside = jnp.sum((targets - left @ along) ** 2, axis=0)

    def one(along: Array, outside: Array, size: Array) -> tuple[Array, ...]:
        def moments(alpha, beta):
            precision = beta * singular**2 + alpha
            m = beta * singular * along / precision
            gamma = jnp.sum(beta * singular**2 / precision)
            error = outside + jnp.sum((along - singular * m) ** 2)
            return m, gamma, error, precision

        def step(carry):
            alpha, beta, _, steps = carry
            m, gamma, error, _ = moments(alpha, beta)
            least = jnp.finfo(size.dtype).eps ** 2 * size  # the data may have no noise, or no sense
            new = gamma / jnp.maximum(jnp.sum(m**2), least / max_of(singular) ** 2)
            noise = jnp.maximum(n - gamma, 1e-6 * n) / jnp.maximum(error, least)
            change = jnp.maximum(jnp.abs(new / alpha - 1), jnp.abs(noise / beta - 1))
            return new, noise, change, steps + 1

        first = jnp.mean(singular**2) / size, n / size, jnp.asarray(jnp.inf, size.dtype), 0
        alpha, beta, *_ = jax.lax.while_loop(
            lambda carry: (carry[2] > _SETTLED) & (carry[3] < _STEPS), step, first
        )
        m, gamma, error, precision = moments(alpha, beta)
        log_evidence = 0.5 * (
            min(n, count) * jnp.log(alpha)
            + n * jnp.log(beta / (2 * jnp.pi))
            - beta * error
            - alpha * jnp.sum(m**2)
            - jnp.sum(jnp.log(precision))
        )
        return m, alpha, beta, gamma, log_evidence, 1 / precision

    sizes = jnp.sum(targets**2, axis=0)
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    found = jax.vmap(one, in_axes=(1, 0, 0))(along, outside, sizes)
    m, alpha, beta, gamma, log_evidence, variances = found
    return LinearBelief(right.T @ m.T, alpha, beta, gamma, log_evidence, variances.T, right.T)


class NetworkBelief(eqx.Module):
    """A network whose weights have a normal posterior, about those that it has.

    Attributes:
        belief: the posterior of a linear model: the last layer, or the network linearised.
    """

    belief: LinearBelief
    _rows: LastLayerRows | LinearisedRows  # inputs to features, and what they are added to
    _outputs: int = eqx.field(static=True)

    @property
    def log_evidence(self) -> Float[Array, ""]:
        """The log of the probability of all data."""
        return jnp.sum(self.belief.log_evidence)

    @checked
    def predict(self, inputs: Float[Array, "rows inputs"]) -> Prediction:
        """What the network predicts for rows of inputs."""
        features, offsets = self._rows(inputs)
        found = self.belief.predict(features)
        found = Prediction(*(x.reshape(-1, self._outputs) for x in found))
        return found._replace(mean=found.mean + offsets)


@checked
def last_layer(
    network: FeatureNetwork,
    inputs: Float[Array, "rows inputs"],
    targets: Float[Array, "rows outputs"],
) -> NetworkBelief:
    """A network whose last layer is known with its uncertainty, by `linear` on its features.

    The last layer that the network has does not matter. For a surrogate the rows are
    `stepper.pairs(train)`, and what is predicted are its scaled increments.

    Args:
        network: one with `features` and a `readout`, such as `nn.MLP`.
        inputs: of the network.
        targets: what it should give, in the dtype of the inputs.

    Raises:
        TypeError, ValueError: as `linear`.

    Example:
        >>> x = jnp.linspace(-1.0, 1.0, 20)[:, None]
        >>> network = nn.MLP.frozen(x, 8, 1, scale=1.0, rngs=nnx.Rngs(0))
        >>> belief = bayes.last_layer(network, x, jnp.sin(3 * x) + 0.1 * jnp.cos(99 * x))
        >>> mean, sd, noise = belief.predict(jnp.array([[0.0], [5.0]]))
        >>> bool(sd[1, 0] > 10 * sd[0, 0])
        True
    """
    rows = LastLayerRows(*nnx.split(network), targets.shape[1])
    return NetworkBelief(linear(rows(inputs)[0], targets), rows, targets.shape[1])


@checked
def laplace_network(
    model: PyTree, inputs: Float[Array, "rows inputs"], targets: Float[Array, "rows outputs"]
) -> NetworkBelief:
    r"""The posterior of all weights of a small fitted network, linearised at its weights.

    With the Jacobian J of the outputs in the weights w, the model $f(x) + J(x) (w' - w)$ is linear
    in w', so that `linear` applies: the curvature is Gauss and Newton's, by an SVD of J and not of
    its square, and the precisions are the likeliest.

    Args:
        model: an `nnx.Module`, fitted, called with rows of inputs.
        inputs, targets: the data.

    Raises:
        TypeError, ValueError: as `linear`; outputs of another shape than the targets.

    Source: A. Immer, M. Korzepa, M. Bauer, "Improving predictions of Bayesian neural nets via
    local linearization", AISTATS (2021), arXiv 2008.08400.
    """
    network = Flat.of(model, inputs, targets)
    jacobian = network.jacobian(inputs)
    goal = (targets - network(network.weights, inputs)).reshape(-1) + jacobian @ network.weights
    return NetworkBelief(linear(jacobian, goal[:, None]), LinearisedRows(network), targets.shape[1])


class SampledNetwork(eqx.Module):
    """Draws of a network's weights.

    Attributes:
        weights: as vectors.
        rhat, ess: of the outputs at the inputs, the worst: weights can be exchanged, outputs not.
        num_divergent: draws on the way to which the integrator lost the energy.
        noise: the standard deviation of the noise.
    """

    weights: Float[Array, "chains draws weights"]
    rhat: Float[Array, ""]
    ess: Float[Array, ""]
    num_divergent: Array
    noise: Float[Array, ""]
    _network: Flat

    @checked
    def predict(self, inputs: Float[Array, "rows inputs"]) -> Prediction:
        """What the networks predict for rows of inputs."""
        flat = self.weights.reshape(-1, self.weights.shape[-1])
        outputs = jax.lax.map(lambda w: self._network(w, inputs), flat, batch_size=100)
        mean = jnp.mean(outputs, axis=0)
        return Prediction(mean, jnp.std(outputs, axis=0), jnp.full_like(mean, self.noise))


@checked
def sample_network(
    model: PyTree,
    inputs: Float[Array, "rows inputs"],
    targets: Float[Array, "rows outputs"],
    *,
    key: PRNGKeyArray,
    num_chains: int = 2,
    num_draws: int = 500,
    num_warmup: int = 300,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fit.Callback = False,
) -> SampledNetwork:
    """Weights of a small network by the No-U-Turn sampler, about those that it has.

    The precisions of prior and noise are those of `laplace_network`, and the sampler works in
    coordinates in which the posterior of `laplace_network` is standard normal.

    Args:
        model, inputs, targets: as for `laplace_network`; a few hundred weights at most.
        key: draws everything.
        num_chains, num_draws, num_warmup, checkpoint, progress: as for `posterior`.

    Raises:
        TypeError, ValueError: as `laplace_network`.
        KeyboardInterrupt: Ctrl-C was pressed; the draws until then are kept in `checkpoint`.

    Source: R. M. Neal, Bayesian Learning for Neural Networks (1996).
    """
    require_key(key=key)
    require_count(num_chains=num_chains, num_warmup=num_warmup)
    require_count(LEAST_DRAWS, num_draws=num_draws)
    belief = laplace_network(model, inputs, targets).belief
    network = Flat.of(model, inputs, targets)
    density = _WeightDensity(network, belief, inputs, targets)
    chains, result = run_nuts(
        density, density.mode(), key,
        num_chains=num_chains, num_warmup=num_warmup, num_draws=num_draws, forward=False,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    raise_if_interrupted(result)
    rhat, ess = _diagnosed(network, inputs, chains.q)
    noise = 1 / jnp.sqrt(belief.noise_precision[0])
    return SampledNetwork(chains.q, rhat, ess, jnp.sum(chains.diverged), noise, network)


@eqx.filter_jit
def _diagnosed(network: Flat, inputs: Array, weights: Array) -> tuple[Array, Array]:
    """The worst R-hat, and the least effective sample size, of the outputs at the inputs."""
    outputs = jax.vmap(jax.vmap(lambda w: network(w, inputs)))(weights)
    return max_of(split_rhat(outputs)), min_of(effective_sample_size(outputs))


class _WeightDensity(eqx.Module):
    """The log density of a network's weights, with the precisions of its linearised belief."""

    network: Flat
    belief: LinearBelief
    inputs: Array
    targets: Array

    def __call__(self, w: Float[Array, " weights"]) -> Float[Array, ""]:
        error = jnp.sum((self.network(w, self.inputs) - self.targets) ** 2)
        alpha, beta = self.belief.prior_precision[0], self.belief.noise_precision[0]
        return -0.5 * (beta * error + alpha * jnp.sum(w**2))

    @eqx.filter_jit
    def mode(self) -> Mode:
        """The network's own weights, and the linearised belief about them."""
        basis, alpha = self.belief.basis, self.belief.prior_precision[0]
        own = jnp.sqrt(self.belief.variances[:, 0]) - 1 / jnp.sqrt(alpha)
        rest = jnp.eye(len(basis), dtype=basis.dtype) / jnp.sqrt(alpha)
        nothing = jnp.zeros(())
        half = (basis * own[None]) @ basis.T + rest
        return Mode(self.network.weights, half, nothing, nothing, nothing == 0, nothing == 0)


@checked
def ensemble(models: PyTree, inputs: Float[Array, "rows inputs"]) -> Prediction:
    """What several networks predict: the mean, and how much they differ.

    Args:
        models: networks of one shape along a leading axis of their arrays, such as those of
            `fit.sweep(...).models`, fitted from different starts.
        inputs: of the networks.

    Returns:
        A `Prediction` without noise, of which an ensemble knows nothing.

    Source: B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive
    uncertainty estimation using deep ensembles", NeurIPS (2017), arXiv 1612.01474.
    """
    outputs = jax.vmap(lambda model: model(inputs))(models)
    mean = jnp.mean(outputs, axis=0)
    return Prediction(mean, jnp.std(outputs, axis=0, ddof=1), jnp.zeros_like(mean))
