"""A stage of training in which a second network judges the residual: an adversarial solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from physml import fit
from physml._numerics.calls import require_fields
from physml._numerics.checks import require_count, require_not_negative, require_positive
from physml._numerics.parts import Parts, take_apart
from physml.pinn.training._network import TrainedNetwork, TrainingResidual

Batch = tuple[Float[Array, " times"], Float[Array, "times terms"]]


class Adversarial(eqx.Module):
    r"""A method for a stage of `pinn.train`: a critic takes the place of the mean square.

    The critic C learns to tell the residuals $r_i$ at the stage's times from zeros, and the network
    learns to deceive it: how a residual is punished is learned, not chosen. Both see the residual
    in units of its present root mean square $\sigma$, one for each component, and with noise, as
    else the zeros would be known at once:

    $$\mathrm{real} = \eta\, \varepsilon_i, \qquad \mathrm{made} = r_i / \sigma + \eta\,
    \varepsilon'_i.$$

    With $\mathrm{sp}(s) = \log(1 + e^s)$, the critic's loss is the mean of
    $\mathrm{sp}(-C(\mathrm{real})) + \mathrm{sp}(C(\mathrm{made})) + \tfrac{\gamma}{2}
    |\nabla C(\mathrm{real})|^2$, the network's that of $\mathrm{sp}(-C(\mathrm{made}))$.

    Attributes:
        critic: turns (times, dim) into (times, 1), in the dtype of the state.
        optimizer: of the network.
        critic_optimizer: of the critic.
        noise: $\eta$.
        penalty: $\gamma$.
        turns: steps of the critic before each step of the network.

    Source: B. Bullwinkel, D. Randle, P. Protopapas, D. Sondak, "DEQGAN: learning the loss function
    for PINNs with generative adversarial networks", arXiv 2209.07081. There the noise has a size of
    its own and falls with the residual; here the unit of the residual falls.
    """

    critic: nnx.Module
    optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    noise: float | Float[Array, ""] = 1.0
    penalty: float | Float[Array, ""] = 0.1
    turns: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        require_fields(self)
        require_positive(noise=self.noise)
        require_not_negative(penalty=self.penalty)
        require_count(turns=self.turns)

    def init(self, params: PyTree) -> PyTree:
        """The state of the network's optimizer."""
        return self.optimizer.init(params)

    def check(self, dim: int, dtype: jnp.dtype) -> None:
        """Raise ValueError unless the critic takes residuals of `dim` components."""
        critic = self.critic
        try:
            found = jax.eval_shape(lambda x: critic(x), jnp.zeros((1, dim), dtype))  # pyright: ignore[reportCallIssue]
        except (TypeError, ValueError) as error:
            raise ValueError(f"critic must take residuals of shape (1, {dim}): {error}") from error
        if (found.shape, found.dtype) != ((1, 1), dtype):
            raise ValueError(
                f"critic must turn (times, {dim}) into (times, 1) in {dtype}, got shape "
                f"{found.shape} and dtype {found.dtype} for one time"
            )


class _Losses(eqx.Module):
    """What the network and its critic want."""

    problem: TrainingResidual
    noise: Array
    penalty: Array

    def of_network(
        self, model: PyTree, critic: PyTree, batch: Batch, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        assert key is not None
        made = self._made(model, batch, key)
        return jnp.mean(jax.nn.softplus(-critic(made))), {}

    def of_critic(
        self, critic: PyTree, model: PyTree, batch: Batch, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        assert key is not None
        own, other = jax.random.split(key)
        made = self._made(model, batch, own)
        real = self.noise * jax.random.normal(other, made.shape, made.dtype)

        def score(rows: Array) -> Array:
            return critic(rows)

        slopes = jax.grad(lambda rows: jnp.sum(score(rows)))(real)
        lost = jnp.mean(jax.nn.softplus(-score(real)) + jax.nn.softplus(score(made)))
        return lost + 0.5 * self.penalty * jnp.mean(jnp.sum(slopes**2, axis=1)), {}

    def _made(self, model: TrainedNetwork, batch: Batch, key: PRNGKeyArray) -> Array:
        found = self.problem(model, batch)["equation"]
        unit = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(found**2, axis=0)))
        found = found / jnp.where(unit > 0, unit, 1.0)[None]
        return found + self.noise * jax.random.normal(key, found.shape, found.dtype)


def game_of(
    method: Adversarial, problem: TrainingResidual, parts: Parts, params: PyTree, rest: PyTree
) -> tuple[fit.GameStep, fit.GameState]:
    """The step of a network and its critic, and the state of no steps."""
    judge, judge_params, judge_rest = take_apart(method.critic, nnx.Param)
    dtype = jax.tree.leaves(params)[0].dtype
    losses = _Losses(problem, jnp.asarray(method.noise, dtype), jnp.asarray(method.penalty, dtype))
    step = fit.GameStep.of(
        (losses.of_network, losses.of_critic),
        (parts, judge),
        (method.optimizer, method.critic_optimizer),
        turns=method.turns,
    )
    return step, step.begin((params, judge_params), (rest, judge_rest), None)
