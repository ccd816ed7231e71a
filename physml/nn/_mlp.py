"""The multilayer perceptron, wholly trained or with a frozen hidden layer."""

import functools
from collections.abc import Sequence
from itertools import pairwise

from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_share
from physml.nn._activations import Activation, find_activation
from physml.nn._frozen import Centres, Frozen, check_rows, frozen_inputs
from physml.nn._weights import find_dtype


class MLP(nnx.Module):
    """A multilayer perceptron: affine maps with an activation between them.

    h_0 = x, h_k = activation(h_{k-1} W_k + b_k), output = h_K W + b. `features` gives h_K and
    `readout` is the last affine map, so that the output is `readout(features(x))` and a linear
    least-squares fit of the last layer needs nothing else. With no hidden layers it is a plain
    affine map, the linear baseline.

    >>> network = nn.MLP(3, (64, 64), 3, activation="tanh", rngs=nnx.Rngs(0))
    >>> network(jnp.ones((5, 3))).shape
    (5, 3)
    """

    @checked
    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        activation: str | Activation = "tanh",
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 -- a pure function
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        readout_init: nnx.Initializer | None = None,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            in_features: the number of inputs.
            hidden: the units of each hidden layer, first to last; empty for an affine map.
            out_features: the number of outputs.
            activation: a name in `ACTIVATIONS` or a function of an array, elementwise.
            kernel_init: draws the matrices, by default with variance 1 / (number of inputs).
            bias_init: draws the biases, by default zero.
            readout_init: draws the last matrix; `kernel_init` unless given. With
                `nnx.initializers.zeros_init()` the untrained network is zero.
            dropout: the share of each hidden layer's outputs that is set to zero in training, the
                rest scaled up; `model.eval()` switches it off.
            dtype: the weights' dtype; JAX's default float unless given. The computation runs in
                the dtype that weights and inputs promote to.
            rngs: the random numbers, `nnx.Rngs(seed)` or `nnx.Rngs(key)`.

        Raises:
            ValueError: a size below one, an unknown activation, a dropout outside [0, 1), or a
                dtype that cannot be had.
        """
        sizes = (in_features, *hidden)
        require_count(in_features=in_features, out_features=out_features)
        require_count(**{f"hidden[{index}]": units for index, units in enumerate(hidden)})
        dtype = find_dtype(dtype)
        require_share(dropout=dropout)
        self.activation = find_activation(activation)
        linear = functools.partial(nnx.Linear, bias_init=bias_init, param_dtype=dtype, rngs=rngs)
        self.hidden = nnx.List(linear(m, n, kernel_init=kernel_init) for m, n in pairwise(sizes))
        self.readout = linear(sizes[-1], out_features, kernel_init=readout_init or kernel_init)
        # Drawn last, so that the weights are the same without dropout.
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    @classmethod
    @checked
    def frozen(
        cls,
        data: Float[Array, "rows dim"],
        units: int,
        out_features: int,
        *,
        scale: float | Float[Array, " dim"] = 0.25,
        centres: Centres = "data",
        activation: str | Activation = "tanh",
        readout_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        rngs: nnx.Rngs,
    ) -> "MLP":
        """One hidden layer of frozen random features, made for `data`, and a readout to be fitted.

        Feature j is activation(w_j . (x - c_j)), with w_ij normal of standard deviation
        `scale_i` / sd_i, sd_i that of the data's component i, and c_j a random row of the data, or
        the data's mean. The hidden weights are `Frozen`, so only the readout is an `nnx.Param`.
        Such networks are known as random-feature networks or extreme learning machines (Huang, Zhu,
        Siew, Neurocomputing 70, 2006). Small scales make smooth features, which fit smooth maps far
        better but are ill-conditioned, so fit the readout by QR or SVD.

        Args:
            data: the network's inputs, standardised or not; the weights take its dtype.
            units: the number of features.
            out_features: the number of outputs.
            scale: the slope of a feature over one standard deviation of the data, one for all
                components or one for each.
            centres: "data" or "mean". Use the mean with `nn.fourier`: 600 such features of scale
                0.2 to 0.3 represent a smooth map to the rounding of float64.
            activation: a name in `ACTIVATIONS` or a function of an array, elementwise.
            readout_init: draws the readout's matrix, by default zero.
            rngs: the random numbers.

        Raises:
            ValueError: as the constructor; or the data are no matrix with rows, not finite or
                constant in a component, the scale is not positive or has another shape, or the
                centres are unknown.
        """
        data = check_rows(data)
        model = cls(
            data.shape[1],
            (units,),
            out_features,
            activation=activation,
            kernel_init=nnx.initializers.zeros_init(),  # replaced below
            readout_init=readout_init,
            dtype=data.dtype,
            rngs=rngs,
        )
        weights, biases = frozen_inputs(data, units, scale, centres, rngs)
        (layer,) = model.hidden
        # Linear's annotations know of Param only; it reads any Variable.
        layer.kernel = Frozen(weights)  # pyright: ignore[reportAttributeAccessIssue]
        layer.bias = Frozen(biases)  # pyright: ignore[reportAttributeAccessIssue]
        return model

    @checked
    def features(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        """The last hidden layer's output: the readout's input."""
        for layer in self.hidden:
            x = self.activation(layer(x))
            x = x if self.dropout is None else self.dropout(x)
        return x

    @checked
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return self.readout(self.features(x))
