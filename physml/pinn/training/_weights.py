"""How the terms of a loss are weighed against each other while a network trains."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from physml._numerics.calls import require_fields
from physml._numerics.checks import (
    require_not_negative,
    require_positive,
    require_probability,
)

Terms = Callable[[PyTree[Array]], Float[Array, " terms"]]
"""The mean squares of a network's residual, one for each term, as a function of its parameters."""

WeightsState = dict[str, Array]
"""What a rule carries from step to step; its entry "weights" holds the weights of the terms."""


class Weights(eqx.Module):
    """A rule for the weights of the terms of a loss; a subclass is a rule of your own.

    The terms are the mean squares of the equation's residual, one for each component of the state.
    With a soft initial condition the squares of its residual follow, one for each component. A
    rule defines `start` and `move`, which are traced, as are the numbers in its fields. A rule
    with `random = True` gets a key.

    Example:
        The initial condition counts a hundred times at first, and less with every step:

        >>> class Falling(pinn.Weights):
        ...     pace: float = 0.01
        ...
        ...     def start(self, is_condition, dtype):
        ...         return {"weights": jnp.where(is_condition, 100.0, 1.0).astype(dtype)}
        ...
        ...     def move(self, state, step, terms, params, key):
        ...         return {"weights": 1 + (1 - self.pace) * (state["weights"] - 1)}
        >>> rule = Falling()
        >>> first = rule.start(jnp.array([False, True]), jnp.float64)
        >>> rule.move(first, 1, None, None, None)["weights"].round(2).tolist()
        [1.0, 99.01]
    """

    random: ClassVar[bool] = False  # whether `move` needs a key

    @abc.abstractmethod
    def start(self, is_condition: Bool[Array, " terms"], dtype: DTypeLike) -> WeightsState:
        """The state before the first step.

        Args:
            is_condition: which terms are those of the initial condition.
            dtype: of the weights.
        """

    @abc.abstractmethod
    def move(
        self,
        state: WeightsState,
        step: Int[Array, ""],
        terms: Terms,
        params: PyTree[Array],
        key: PRNGKeyArray | None,
    ) -> WeightsState:
        """The state for a step.

        Args:
            state: the state of the step before, or of `start`.
            step: the number of the step, from 0.
            terms: the terms as a function of the network's parameters.
            params: the network's parameters.
            key: a key of this step, for rules that draw random numbers.
        """


class Fixed(Weights):
    """The same weights in every step.

    Attributes:
        equation: of the equation's terms.
        condition: of the initial condition's terms.
    """

    equation: float | Float[Array, ""] = 1.0
    condition: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        require_fields(self)
        require_not_negative(equation=self.equation, condition=self.condition)

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

    every: int | Int[Array, ""] = 100
    memory: float | Float[Array, ""] = 0.9

    def __check_init__(self):
        require_fields(self)
        require_positive(every=self.every)
        require_probability(memory=self.memory)

    def start(self, is_condition, dtype):
        return {"weights": jnp.ones(is_condition.shape, dtype)}

    def move(self, state, step, terms, params, key):
        def update() -> WeightsState:
            gradients = jax.tree.leaves(jax.jacrev(terms)(params))
            squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in gradients]
            norms = jnp.sqrt(sum(squares[1:], squares[0]))
            # A term without a gradient needs no weight, so norms are bounded from below.
            norms = jnp.maximum(norms, 1e-6 * jnp.mean(norms))
            wanted = jnp.where(norms > 0, jnp.mean(norms) / jnp.where(norms > 0, norms, 1.0), 1.0)
            old = state["weights"]
            return {"weights": (self.memory * old + (1 - self.memory) * wanted).astype(old.dtype)}

        return jax.lax.cond(step % self.every == 0, update, lambda: state)


class RandomLookback(Weights):
    r"""More weight on terms that have fallen least: relative balancing with random lookback.

    With n terms, $\hat w_i(s) = n\, \mathrm{softmax}_i(L_i / (T L_i^{(s)}))$ compares the present
    step with step s, which is the step before or the first one, and

    $$w_i \leftarrow \alpha (\beta w_i + (1 - \beta) \hat w_i(0)) + (1 - \alpha) \hat w_i(k - 1),$$

    where $\beta$ is 1 with probability `lookback` and else 0. It takes no gradients.

    Attributes:
        temperature: $T$.
        memory: $\alpha$.
        lookback: the probability that a step remembers the weights, and not the first step.

    Source: R. Bischof, M. A. Kraus, "Multi-objective loss balancing for physics-informed deep
    learning" (2021), arXiv 2110.09813, eqs. 9-12.
    """

    temperature: float | Float[Array, ""] = 1.0
    memory: float | Float[Array, ""] = 0.99
    lookback: float | Float[Array, ""] = 0.99
    random: ClassVar[bool] = True

    def __check_init__(self):
        require_fields(self)
        require_positive(temperature=self.temperature)
        require_probability(memory=self.memory, lookback=self.lookback)

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
