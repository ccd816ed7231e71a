"""What the two networks of an adversarial game want: rules for their losses."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from physml._numerics.calls import require_fields
from physml._numerics.checks import require_not_negative

Scores = Float[Array, " rows"]
Critic = Callable[[Array], Scores]
"""The critic's score of each row: large where it takes the row for real."""


class Objective(eqx.Module):
    """A rule for an adversarial game; a subclass is a rule of your own.

    The critic learns to give real rows larger scores than generated ones, and the generator to make
    rows of large scores. A rule defines the losses of both, and a penalty of the critic's slope,
    without which the game seldom ends well.
    """

    @abc.abstractmethod
    def critic(self, real: Scores, made: Scores) -> Scalar:
        """The critic's loss, without the penalty, of the scores of real and of generated rows."""

    @abc.abstractmethod
    def generator(self, real: Scores, made: Scores) -> Scalar:
        """The generator's loss."""

    @abc.abstractmethod
    def penalise(self, critic: Critic, real: Array, made: Array, key: PRNGKeyArray) -> Scalar:
        """What the critic's slope at rows adds to its loss."""


class Wasserstein(Objective):
    r"""The critic's scores have a slope of one, so that they measure how far rows must be moved.

    With D the critic's score and G the generator, the losses are

    $$\mathrm E\, D(G(z)) - \mathrm E\, D(x)
      + \lambda\, \mathrm E (\|\nabla D(\hat x)\| - 1)^2, \qquad -\mathrm E\, D(G(z)),$$

    $\hat x$ at random on the straight line from a real row to a generated one.

    Attributes:
        penalty: $\lambda$.

    Sources: M. Arjovsky, S. Chintala, L. Bottou, arXiv 1701.07875; I. Gulrajani, F. Ahmed,
    M. Arjovsky, V. Dumoulin, A. Courville, arXiv 1704.00028.
    """

    penalty: float | Float[Array, ""] = 10.0

    def __check_init__(self):
        require_fields(self)
        require_not_negative(penalty=self.penalty)

    def critic(self, real, made):
        return jnp.mean(made) - jnp.mean(real)

    def generator(self, real, made):
        return -jnp.mean(made)

    def penalise(self, critic, real, made, key):
        share = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)), real.dtype)
        squares = _squared_slopes(critic, made + share * (real - made))
        # The root has no slope at zero: the critic may be constant there.
        slopes = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
        slopes = jnp.where(squares > 0, slopes, 0.0)
        return self.penalty * jnp.mean((slopes - 1) ** 2)


class NonSaturating(Objective):
    r"""The plain game: the critic's score is the logarithm of the odds that a row is real.

    With $\mathrm{sp}(s) = \log(1 + e^s)$ the losses are

    $$\mathrm E\, \mathrm{sp}(D(G(z))) + \mathrm E\, \mathrm{sp}(-D(x))
      + \tfrac{\gamma}{2} \mathrm E \|\nabla D(x)\|^2, \qquad \mathrm E\, \mathrm{sp}(-D(G(z))).$$

    Attributes:
        penalty: $\gamma$; with zero it is the game of 2014.

    Sources: I. Goodfellow et al., arXiv 1406.2661; L. Mescheder, A. Geiger, S. Nowozin, "Which
    training methods for GANs do actually converge?", arXiv 1801.04406, for the penalty.
    """

    penalty: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        require_fields(self)
        require_not_negative(penalty=self.penalty)

    def critic(self, real, made):
        return jnp.mean(jax.nn.softplus(made)) + jnp.mean(jax.nn.softplus(-real))

    def generator(self, real, made):
        return jnp.mean(jax.nn.softplus(-made))

    def penalise(self, critic, real, made, key):
        return 0.5 * self.penalty * jnp.mean(_squared_slopes(critic, real))


class Relativistic(Objective):
    r"""The critic says which of two rows is real: no score can be good for all rows alone.

    The losses are

    $$\mathrm E\, \mathrm{sp}(D(G(z)) - D(x)) + \tfrac{\gamma}{2} \mathrm E (\|\nabla D(x)\|^2
      + \|\nabla D(G(z))\|^2), \qquad \mathrm E\, \mathrm{sp}(D(x) - D(G(z))).$$

    A generator that leaves some data out is never at rest in this game.

    Attributes:
        penalty: $\gamma$.

    Source: N. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin, "The GAN is dead; long live the GAN!",
    arXiv 2501.05441.
    """

    penalty: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        require_fields(self)
        require_not_negative(penalty=self.penalty)

    def critic(self, real, made):
        return jnp.mean(jax.nn.softplus(made - real))

    def generator(self, real, made):
        return jnp.mean(jax.nn.softplus(real - made))

    def penalise(self, critic, real, made, key):
        squares = _squared_slopes(critic, real) + _squared_slopes(critic, made)
        return 0.5 * self.penalty * jnp.mean(squares)


def _squared_slopes(critic: Critic, rows: Array) -> Scores:
    """The squared gradient of each row's score in the row."""
    # The scores of rows do not depend on each other, so that the gradient of their sum has all.
    gradient = jax.grad(lambda x: jnp.sum(critic(x)))(rows)
    return jnp.sum(gradient.reshape(len(rows), -1) ** 2, axis=1)
