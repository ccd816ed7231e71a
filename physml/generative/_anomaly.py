"""What does not belong to the data: rows that a code gives back badly."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_probability
from physml.generative._codec import Codec, Rows, checked_rows


class AnomalyScore(eqx.Module):
    """How unlike its training data a row is: the error with which a code gives it back.

    >>> normal = jax.random.normal(key, (50, 2)) * jnp.array([[1.0, 0.01]])
    >>> codec = generative.principal_components(normal, 1)
    >>> score = generative.AnomalyScore.fit(codec, normal)
    >>> (score(jnp.array([[0.0, 1.0]])) > score.quantile(0.99)).tolist()
    [True]

    Attributes:
        codec: trained on what is normal.
        errors: those of normal rows, increasing.
    """

    codec: Codec
    errors: Float[Array, " normal"]

    @classmethod
    @checked
    def fit(cls, codec: Codec, normal: Rows) -> "AnomalyScore":
        """The score of a code, with the errors of normal rows to compare with.

        Args:
            codec: the code.
            normal: rows that are normal; best such that the code was not trained on.

        Raises:
            ValueError: as `Codec.errors`.
        """
        return cls(codec, jnp.sort(codec.errors(checked_rows("normal", normal, 1))))

    def __call__(self, x: Rows) -> Float[Array, " rows"]:
        """The root-mean-square error of each row, in the data's unit.

        Raises:
            ValueError: as `Codec.errors`.
        """
        return self.codec.errors(x)

    @checked
    def quantile(self, share: float) -> Float[Array, ""]:
        """The error that this share of the normal rows does not pass.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        require_probability(share=share)
        return jnp.quantile(self.errors, share)

    @checked
    def rank(self, x: Rows) -> Float[np.ndarray, " rows"]:
        """The share of normal rows whose error is smaller than that of each row: 1 is strange.

        Raises:
            ValueError: as `Codec.errors`.
        """
        return np.searchsorted(np.asarray(self.errors), np.asarray(self(x))) / len(self.errors)
