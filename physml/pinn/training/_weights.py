"""How the terms of a loss are weighed against each other while a network trains."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

Terms = Callable[[Any], Float[Array, " terms"]]
"""The mean squares of a network's residual, one for each term, of its trained weights."""


class Weights(eqx.Module):
    """A rule for the weights of the terms of a loss.

    The terms are the mean squares of the equation's residual, one for each component of the
    state, and with a soft initial condition those of what is missing of it, one for each too.
    """

    random: ClassVar[bool] = False  # whether a key is needed

    @abc.abstractmethod
    def start(self, is_condition: Bool[Array, " terms"], dtype: DTypeLike) -> Any:
        """What is carried from step to step; its entry "weights" are the weights."""

    @abc.abstractmethod
    def move(
        self,
        state: Any,
        step: Int[Array, ""],
        terms: Terms,
        params: Any,
        key: PRNGKeyArray | None,
    ) -> Any:
        """The state for a step.

        Args:
            state: that of the step before.
            step: its number, from 0.
            terms: the terms as a function of the trained weights.
            params: the trained weights.
            key: for rules that draw random numbers.
        """


class Fixed(Weights):
    """The same weights in every step.

    Attributes:
        equation: of the equation's terms.
        condition: of the initial condition's terms.
    """

    equation: float | Array = 1.0
    condition: float | Array = 1.0

    def start(self, is_condition, dtype):
        weights = jnp.where(is_condition, self.condition, self.equation)
        return {"weights": weights.astype(dtype)}

    def move(self, state, step, terms, params, key):
        return state


class GradientNorm(Weights):
    r"""Weights under which the gradients of all terms are of one length.

    $$\hat w_i = \frac{1}{n}\frac{\sum_j \|\nabla L_j\|}{\|\nabla L_i\|}, \qquad
    w_i \leftarrow \alpha w_i + (1 - \alpha) \hat w_i.$$

    Attributes:
        every: steps between updates, each of which takes a gradient for every term.
        memory: $\alpha$.

    Source: S. Wang, Y. Teng, P. Perdikaris, "Understanding and mitigating gradient flow
    pathologies in physics-informed neural networks", SIAM J. Sci. Comput. 43 (2021) A3055.
    """

    every: int | Array = 100
    memory: float | Array = 0.9

    def start(self, is_condition, dtype):
        return {"weights": jnp.ones(is_condition.shape, dtype)}

    def move(self, state, step, terms, params, key):
        def update() -> Any:
            gradients = jax.tree.leaves(jax.jacrev(terms)(params))
            squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in gradients]
            norms = jnp.sqrt(sum(squares[1:], squares[0]))
            # A term that has no gradient needs no weight: none is above 1e6 times the mean's.
            norms = jnp.maximum(norms, 1e-6 * jnp.mean(norms))
            wanted = jnp.where(norms > 0, jnp.mean(norms) / jnp.where(norms > 0, norms, 1.0), 1.0)
            old = state["weights"]
            return {"weights": (self.memory * old + (1 - self.memory) * wanted).astype(old.dtype)}

        return jax.lax.cond(step % self.every == 0, update, lambda: state)


class RandomLookback(Weights):
    r"""More weight on terms that have fallen least: relative balancing with random lookback.

    With n terms, $\hat w_i(s) = n\, \mathrm{softmax}_i(L_i / (T L_i^{(s)}))$ compares with step s,
    the step before or the first one, and

    $$w_i \leftarrow \alpha (\beta w_i + (1 - \beta) \hat w_i(0)) + (1 - \alpha) \hat w_i(k - 1),$$

    where $\beta$ is 1 with probability `lookback` and else 0. It takes no gradients.

    Attributes:
        temperature: T.
        memory: $\alpha$.
        lookback: the probability that the weights' own past is what is remembered.

    Source: R. Bischof, M. A. Kraus, "Multi-objective loss balancing for physics-informed deep
    learning" (2021), arXiv 2110.09813, eqs. 9-12.
    """

    temperature: float | Array = 1.0
    memory: float | Array = 0.99
    lookback: float | Array = 0.99
    random: ClassVar[bool] = True

    def start(self, is_condition, dtype):
        ones = jnp.ones(is_condition.shape, dtype)
        return {"weights": ones, "first": ones, "last": ones}

    def move(self, state, step, terms, params, key):
        assert key is not None
        now = terms(params)
        first, last = (jnp.where(step == 0, now, state[name]) for name in ("first", "last"))

        def wanted(past: Array) -> Array:
            ratio = now / jnp.where(past > 0, past, 1.0)
            return now.size * jax.nn.softmax(ratio / self.temperature)

        keeps = jax.random.bernoulli(key, self.lookback)
        old = jnp.where(keeps, state["weights"], wanted(first))
        weights = self.memory * old + (1 - self.memory) * wanted(last)
        return {"weights": weights.astype(now.dtype), "first": first, "last": now}
