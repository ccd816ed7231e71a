"""Recurrent networks whose memory is an explicit argument."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import (
    require_count,
    require_finite,
    require_not_negative,
    require_one_of,
)
from physml.nn._activations import Activation, find_activation
from physml.nn._frozen import Centres, Frozen, check_rows, frozen_inputs
from physml.nn._weights import find_dtype

Cell = Literal["simple", "gru", "lstm"]
"""The kinds of recurrent layers."""

Carry = tuple[PyTree, ...]
"""One entry a layer: h of shape (*batch, units), for the LSTM the pair (c, h)."""

_CELLS: dict[str, Callable[..., Any]] = {
    "simple": nnx.SimpleCell,
    "gru": nnx.GRUCell,
    "lstm": nnx.OptimizedLSTMCell,
}

_KEEPING = 1
"""Which gate keeps the memory: z of the GRU's (r, z, n), f of the LSTM's (i, f, g, o)."""


class RNN(nnx.Module):
    """A recurrent network: carry in, carry out, and a linear readout of the last layer's h.

    The cells are Flax's own. With sigma the logistic function and juxtaposition a matrix product,

    - simple: h' = tanh(W x + b + U h) (Elman, Cognitive Science 14, 1990);
    - gru: r = sigma(W_r x + b_r + U_r h), z = sigma(W_z x + b_z + U_z h),
      h' = (1 - z) tanh(W_n x + b_n + r * U_n h) + z h (Cho et al., arXiv 1406.1078);
    - lstm: i, f, o = sigma(W x + U h + b), g = tanh(W_g x + U_g h + b_g), c' = f c + i g,
      h' = o tanh(c') (Hochreiter, Schmidhuber, Neural Computation 9, 1997).

    `advance` makes one step to (carry, features), `readout` maps features to outputs, and calling
    the network does both; `scan` advances along a sequence.

    >>> network = nn.RNN("gru", 3, 64, 3, rngs=nnx.Rngs(0))
    >>> carry, features = network.scan(network.initial_carry(), jnp.zeros((10, 3)))
    >>> carry, out = network(carry, jnp.zeros(3))
    >>> features.shape, out.shape
    ((10, 64), (3,))
    """

    @checked
    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden: int | Sequence[int],
        out_features: int,
        *,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 -- a pure function
        recurrent_init: nnx.Initializer = nnx.initializers.orthogonal(),  # noqa: B008 -- a pure function
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        readout_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 -- a pure function
        keep_bias: float = 0.0,
        activation: str | Activation = "tanh",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            cell: "simple", "gru" or "lstm".
            in_features: the number of inputs.
            hidden: the units of the layer, or of each of several stacked layers, first to last.
            out_features: the number of outputs.
            kernel_init: draws the input matrices W, those of all gates as one (inputs, gates units)
                matrix, by default with variance 1 / (number of inputs).
            recurrent_init: draws the recurrent matrices U likewise, by default with orthonormal
                rows; `nnx.initializers.orthogonal(0.1)` makes a memory that fades.
            bias_init: draws the biases b, by default zero.
            readout_init: draws the readout's matrix.
            keep_bias: added to the bias of the gate that keeps the memory, the GRU's z or the
                LSTM's f: where nothing else drives the gate, a share sigma(keep_bias) of the memory
                is kept a step. Positive for long memories (Jozefowicz et al., ICML 2015; Tallec,
                Ollivier, arXiv 1804.11188), negative for short ones.
            activation: what stands in place of tanh above, a name in `ACTIVATIONS` or a function.
            dtype: the weights' dtype; JAX's default float unless given.
            rngs: the random numbers, `nnx.Rngs(seed)` or `nnx.Rngs(key)`.

        Raises:
            ValueError: an unknown cell, no layer, a size below one, a dtype that cannot be had, or
                a `keep_bias` for the simple cell, which has no gate.
        """
        require_one_of(get_args(Cell), cell=cell)
        require_finite("keep_bias", keep_bias)
        if keep_bias and cell == "simple":
            raise ValueError(f"keep_bias must be 0 for a {cell!r} cell, got {keep_bias}")
        sizes = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        if not sizes:
            raise ValueError("hidden must have at least one layer, got none")
        require_count(in_features=in_features, out_features=out_features)
        require_count(**{f"hidden[{index}]": units for index, units in enumerate(sizes)})
        self.kind = cell
        self.dtype = find_dtype(dtype)
        # dtype=None lets the inputs take part in promotion, so that a float64 sequence is never
        # quietly rounded to float32 weights.
        self.cells = nnx.List(
            _CELLS[cell](
                m,
                n,
                kernel_init=kernel_init,
                recurrent_kernel_init=recurrent_init,
                bias_init=bias_init,
                activation_fn=find_activation(activation),
                dtype=None,
                param_dtype=self.dtype,
                rngs=rngs,
            )
            for m, n in zip((in_features, *sizes[:-1]), sizes, strict=True)
        )
        if keep_bias:
            for layer in self.cells:
                bias, units = _biased(layer).bias, layer.hidden_features
                gate = slice(_KEEPING * units, (_KEEPING + 1) * units)
                bias[...] = bias[...].at[gate].add(keep_bias)
        self.readout = nnx.Linear(
            sizes[-1], out_features, kernel_init=readout_init, param_dtype=self.dtype, rngs=rngs
        )

    @classmethod
    @checked
    def frozen(
        cls,
        cell: Cell,
        data: Float[Array, "rows dim"],
        units: int,
        out_features: int,
        *,
        scale: float = 0.25,
        centres: Centres = "data",
        spectral_radius: float = 0.5,
        activation: str | Activation = "tanh",
        readout_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        rngs: nnx.Rngs,
    ) -> "RNN":
        """A frozen random recurrent layer, made for `data`, and a readout to be fitted.

        With the simple cell this is an echo state network (Jaeger, GMD report 148, 2001), with the
        others a frozen gated one. Input weights and biases of every gate are those of
        `MLP.frozen`: W x + b = w . (x - c), w_ij normal of standard deviation `scale` / sd_i and c
        a row of the data or their mean. Every recurrent matrix U is a random orthogonal matrix
        times `spectral_radius`: all its eigenvalues have that modulus and so has its norm, so below
        one the simple cell is a contraction in h and forgets its first carry.

        Args:
            cell: "simple", "gru" or "lstm".
            data, units, out_features, scale, centres, readout_init, rngs: as for `MLP.frozen`.
            spectral_radius: the strength of the memory; zero for none.
            activation: as in the constructor.

        Raises:
            ValueError: as the constructor; or the data are no matrix with rows, not finite or
                constant in a component, the scale is not positive or the spectral radius negative.
        """
        require_not_negative(spectral_radius=spectral_radius)
        data = check_rows(data)
        model = cls(
            cell,
            data.shape[1],
            units,
            out_features,
            kernel_init=nnx.initializers.zeros_init(),  # replaced below, as is the recurrent one
            recurrent_init=nnx.initializers.zeros_init(),
            activation=activation,
            readout_init=readout_init,
            dtype=data.dtype,
            rngs=rngs,
        )
        (layer,) = model.cells
        gates = layer.dense_i.out_features // units
        weights, biases = frozen_inputs(data, gates * units, scale, centres, rngs)
        recurrent = jnp.concatenate(
            [
                nnx.initializers.orthogonal(spectral_radius)(
                    rngs.params(), (units, units), data.dtype
                )
                for _ in range(gates)
            ],
            axis=1,
        )
        layer.dense_i.kernel, layer.dense_h.kernel = Frozen(weights), Frozen(recurrent)
        _biased(layer).bias = Frozen(biases)
        return model

    @checked
    def initial_carry(
        self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike | None = None
    ) -> Carry:
        """The empty memory: zeros (*batch_shape, units) in the weights' dtype, or in `dtype`."""
        zeros = (
            jnp.zeros((*batch_shape, cell.hidden_features), dtype or self.dtype)
            for cell in self.cells
        )
        return tuple((h, h) if self.kind == "lstm" else h for h in zeros)

    @checked
    def advance(
        self, carry: Carry, x: Float[Array, "*batch inputs"]
    ) -> tuple[Carry, Float[Array, "*batch features"]]:
        """One step: the next carry, and the last layer's h, which is the readout's input."""
        following = []
        for cell, memory in zip(self.cells, carry, strict=True):
            memory, x = cell(memory, x)
            following.append(memory)
        return tuple(following), x

    @checked
    def scan(
        self, carry: Carry, xs: Float[Array, "*batch time inputs"]
    ) -> tuple[Carry, Float[Array, "*batch time features"]]:
        """Advance along a sequence: the last carry, and the features of every step."""
        carry, features = jax.lax.scan(self.advance, carry, jnp.moveaxis(xs, -2, 0))
        return carry, jnp.moveaxis(features, 0, -2)

    @checked
    def __call__(
        self, carry: Carry, x: Float[Array, "*batch inputs"]
    ) -> tuple[Carry, Float[Array, "*batch outputs"]]:
        """One step: the next carry and the readout of its features."""
        carry, features = self.advance(carry, x)
        return carry, self.readout(features)


def _biased(cell: Any) -> Any:
    """A cell sums two affine maps; this returns the one to which Flax gives the bias."""
    return cell.dense_i if cell.dense_i.use_bias else cell.dense_h
