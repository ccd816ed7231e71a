"""What a march over windows has found, as functions of continuous time."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from physml._numerics.quadrature import legendre_polynomials, legendre_transform, piece_at
from physml._numerics.units import in_units, max_of
from physml.nn import FeatureNetwork
from physml.solution import Differentiated


class Pieces(Differentiated):
    """A function of time that is given by a function of its own in each window.

    Buffers may be longer than the number of windows; the starts of unused ones are infinite.
    """

    starts: eqx.AbstractVar[Float[Array, " windows"]]
    spans: eqx.AbstractVar[Float[Array, " windows"]]

    @abc.abstractmethod
    def in_window(self, index: Int[Array, ""], s: Float[Array, ""]) -> Float[Array, " dim"]:
        """The function of one window, at s in [-1, 1]."""

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t), by the function of the window that t lies in."""
        return self.piece(t)[1]

    def piece(self, t: Float[Array, ""]) -> tuple[Int[Array, ""], Float[Array, " dim"]]:
        """The window that t lies in, and u(t)."""
        index = piece_at(self.starts, t)
        half = self.spans[index] / 2
        s = (t - self.starts[index] - half) / half  # at most one rounding, and that of a division
        with jax.default_matmul_precision("highest"):
            return index, self.in_window(index, s)


class WindowNetworks(Pieces):
    """The networks of all windows: one hidden layer, a readout each."""

    starts: Float[Array, " windows"]
    spans: Float[Array, " windows"]
    hidden: FeatureNetwork  # its readout is not used
    ys: Float[Array, "windows dim"]  # at the starts
    slopes: Float[Array, "windows dim"]
    readouts: Float[Array, "windows units dim"]

    def in_window(self, index: Int[Array, ""], s: Float[Array, ""]) -> Float[Array, " dim"]:
        features = self._features(s) - self._features(-jnp.ones_like(s))
        change = (s + 1) * self.slopes[index] + features @ self.readouts[index]
        return self.ys[index] + self.spans[index] / 2 * change

    def network(self, index: int) -> nnx.Module:
        r"""The network N of one window, with its readout in place.

        $u(t) = y + \frac{span}{2} ((s + 1) slope + N(s))$, N(-1) = 0, with s in [-1, 1].

        Raises:
            IndexError: there is no such window.
        """
        num_windows = int(jnp.sum(jnp.isfinite(self.starts)))
        if not 0 <= index < num_windows:
            raise IndexError(f"index must be in [0, {num_windows}), got {index}")
        network: Any = nnx.clone(self.hidden)
        kernel = self.readouts[index]
        network.readout = nnx.Linear(*kernel.shape, param_dtype=kernel.dtype, rngs=nnx.Rngs(0))
        network.readout.kernel = nnx.Param(kernel)
        start = self._features(-jnp.ones((), kernel.dtype))
        network.readout.bias = nnx.Param(-start @ kernel)
        return network

    def _features(self, s: Float[Array, ""]) -> Float[Array, " units"]:
        return self.hidden.features(s[None]).astype(s.dtype)


class Polynomials(Pieces):
    """A polynomial in each window."""

    starts: Float[Array, " windows"]
    spans: Float[Array, " windows"]
    coefficients: Float[Array, "windows terms dim"]  # of Legendre polynomials in s

    @classmethod
    def through(
        cls,
        starts: Float[Array, " windows"],
        spans: Float[Array, " windows"],
        values: Float[Array, "windows nodes dim"],
    ) -> "Polynomials":
        """The polynomials with given values at each window's start, Gauss points and end."""
        transform = legendre_transform(values.shape[1] - 2, values.dtype).hi
        return cls(starts, spans, jnp.einsum("np,wpd->wnd", transform, values))

    def truncation(self) -> Float[Array, "windows dim"]:
        """The next term of each series, guessed from the decay of the last ones.

        The terms are taken in pairs, because every other term of an even or odd function is zero.
        """
        last, before = (
            max_of(jnp.abs(self.coefficients[:, pair]), axis=1)
            for pair in (slice(-2, None), slice(-4, -2))
        )
        return last * jnp.minimum(in_units(last, before, 1.0), 1.0)

    def in_window(self, index: Int[Array, ""], s: Float[Array, ""]) -> Float[Array, " dim"]:
        coefficients = self.coefficients[index]
        terms = legendre_polynomials(s, coefficients.shape[0])
        return coefficients[0] + terms[1:] @ coefficients[1:]  # the largest comes last


class CorrectedNetworks(Differentiated):
    """The networks of all windows less their estimated error.

    The networks cannot hold the correction: large readouts take small differences of tanh
    features, whose rounding exceeds it. So the values are those of polynomials through the Gauss
    points, and `networks` is the function of time before the correction.
    """

    polynomials: Polynomials
    networks: WindowNetworks

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        return self.polynomials.evaluate(t)

    def network(self, index: int) -> nnx.Module:
        """The network of one window: see `WindowNetworks.network`."""
        return self.networks.network(index)
