"""A network as a next-step map: normalisation, exact phase, built-in symmetry, memory."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Real

from physml._numerics.calls import checked, summary
from physml._numerics.checks import floating_array, require_finite, require_positive
from physml.data import Standardiser, Trajectories
from physml.nn import FeatureNetwork, RecurrentNetwork
from physml.reference import runge_kutta
from physml.step_maps import StepMap
from physml.surrogate._rows import cast, inputs_of, standardised_inputs, unknown_increments
from physml.systems import System

Matrix = Sequence[Sequence[float]] | Float[Array | np.ndarray, "dim dim"]

Network = FeatureNetwork | RecurrentNetwork
"""What can be stepped: `nn.MLP` and `nn.RNN`, and modules with the same methods."""

Carries = tuple[PyTree, ...]
"""A network's memories: one of y, another of its mirror image; () without memory."""


class StepperState(eqx.Module):
    """The state of a `Stepper`.

    The memories hold the steps before y; `t0` is the time of step zero. `rest` is what rounding
    has taken from y so far, stored as bits because it is no coordinate and has no derivative.
    """

    y: Float[Array, " dim"]
    rest: Int[Array, " dim"]
    carry: Carries
    count: Int[Array, ""]
    t0: Float[Array, ""]


class Stepper(StepMap):
    r"""A network as a step map: $y_{k+1} = y_k + s \odot N(\tilde y_k)$.

    $\tilde y$ is y standardised over the training data, with $\cos, \sin$ of $2\pi t_k/T$ appended
    where the system is driven with period T, and s is the standard deviation of the increments.
    A recurrent N also takes its memory of the steps before. The phase is computed from the integer
    step count, so no error accumulates in it.

    A symmetry S of the flow (S S = 1, f(S y) = S f(y)) is built in by the average over the group,

    $$\Delta(y) = \tfrac12 \left(s \odot N(\tilde y) + S\, (s \odot N(\widetilde{S y}))\right),$$

    so that Delta(S y) = S Delta(y) holds for every N. A step then needs two evaluations of N, and
    the features fit as well as two to three times as many without the symmetry.

    With a known vector field g the step is a hybrid: one step of the classical Runge-Kutta method
    for g is added. The network learns the rest: the unknown part of the equation, or the error of
    the method.

    Increments are much smaller than y. The rounding error of each addition is kept and added to the
    next increment (compensated summation: Kahan, Comm. ACM 8, 1965; Hairer, Lubich and Wanner,
    Geometric Numerical Integration, section VIII.5), so that a forecast is as exact as its
    increments. In float32 that is worth half a Lyapunov time of the Lorenz system.

    Attributes:
        network: an `nn.FeatureNetwork` (such as `nn.MLP`) or `nn.RecurrentNetwork` (`nn.RNN`).
        inputs: standardises states.
        scale: the standard deviation of the increments, per component.
        dt: the time step.
        symmetry: the matrix S, or None.
        known: the vector field g, or None.
        period: the period of the drive, in the units of dt, or None.
    """

    network: Network
    inputs: Standardiser
    scale: Float[Array, " dim"]
    symmetry: Float[Array, "dim dim"] | None
    known: System | None
    dt: float = eqx.field(static=True)
    period: float | None = eqx.field(static=True)

    def __repr__(self) -> str:
        facts = {
            "network": type(self.network).__name__,
            "dt": f"{self.dt:.6g}",
            "scale": self.scale,
            "symmetry": "none" if self.symmetry is None else "built in",
            "known": "none" if self.known is None else type(self.known).__name__,
            "period": "none" if self.period is None else f"{self.period:.6g}",
        }
        return summary("Stepper", facts)

    @classmethod
    @checked
    def create(
        cls,
        network: Network,
        train: Trajectories,
        *,
        symmetry: Matrix | None = None,
        known: System | None = None,
        period: float | None = None,
    ) -> "Stepper":
        """A step map of a network as it is, with the normalisation of the training data.

        Raises:
            TypeError: the network has no readout, or neither `features` nor `advance`.
            ValueError: the network takes or gives the wrong number of values, the data are not
                finite, S is no matrix of the data's dimension with S S = 1, or the period is not
                positive.
        """
        require_finite("train.ys", train.ys)
        dim, dtype = train.ys.shape[-1], train.ys.dtype
        if period is not None:
            require_positive(period=period)
            period = float(period)
        if symmetry is not None:
            symmetry = floating_array("symmetry", symmetry, dtype)
            if symmetry.shape != (dim, dim):
                raise ValueError(f"symmetry must have shape ({dim}, {dim}), got {symmetry.shape}")
            if not np.allclose(symmetry @ symmetry, np.eye(dim), atol=1e-5):
                raise ValueError(f"symmetry must be its own inverse, got {symmetry.tolist()}")
        if not isinstance(network, Network):
            raise TypeError(
                "network must have a readout and either features(x) or advance(carry, x), "
                f"as nn.MLP and nn.RNN do, got {type(network).__name__}"
            )
        outputs = network.readout.out_features
        if outputs != dim:
            raise ValueError(f"network must give {dim} outputs, got {outputs}")
        stepper = cls(
            network=cast(network, dtype),
            inputs=Standardiser.fit(train.ys[:, :-1]),
            scale=Standardiser.fit(unknown_increments(train, known)).std,
            symmetry=symmetry,
            known=known,
            dt=train.dt,
            period=period,
        )
        size = dim if period is None else dim + 2
        try:
            jax.eval_shape(stepper.increments, train.ys[0, :1], train.t0s[0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"network must take {size} inputs: {error}") from error
        return stepper

    @property
    def recurrent(self) -> bool:
        """Whether the network has a memory."""
        return isinstance(self.network, RecurrentNetwork)

    @checked
    def init(self, history: Float[Array, "time dim"], t0: Real[ArrayLike, ""]) -> StepperState:
        """The state at the end of a history; a recurrent network's memory is warmed up on it.

        Args:
            history: consecutive observations `dt` apart, oldest first. One row starts a recurrent
                network with an empty memory.
            t0: the time of the last row.
        """
        t0 = jnp.asarray(t0, history.dtype)
        before = history.shape[0] - 1
        carry, _ = self.features_along(history[:-1], t0, first=-before)
        y = history[-1]
        return StepperState(y, _bits(jnp.zeros_like(y)), carry, jnp.zeros((), jnp.int32), t0)

    @checked
    def step(self, state: StepperState) -> StepperState:
        y, t0, count = state.y, state.t0, state.count
        carry, features = self.features(state.carry, y, t0, count)
        increment = self._increment(features, y, t0 + count.astype(t0.dtype) * self.dt)
        increment = increment + jax.lax.bitcast_convert_type(state.rest, y.dtype)
        following = y + increment
        # The sum's rounding error, exactly (Knuth's two-sum).
        added = following - y
        rest = (y - (following - added)) + (increment - added)
        return StepperState(following, _bits(rest), carry, count + 1, t0)

    @checked
    def observe(self, state: StepperState) -> Float[Array, " dim"]:
        return state.y

    def increments(
        self, ys: Float[Array, "time dim"], t0: Float[Array, ""]
    ) -> Float[Array, "time dim"]:
        """The increment predicted after every row, each from the true rows up to it.

        Args:
            ys: consecutive observations `dt` apart.
            t0: the time of the first row. A recurrent network starts there with an empty memory.
        """
        _, features = self.features_along(ys, t0)
        times = t0 + self.dt * jnp.arange(ys.shape[0], dtype=ys.dtype)
        return jax.vmap(self._increment)(features, ys, times)

    @checked
    def pairs(
        self, trajectories: Trajectories
    ) -> tuple[Float[Array, "rows inputs"], Float[Array, "rows dim"]]:
        """The network's inputs and the outputs it should give, which are scaled increments.

        These are rows to train a network without memory on, one for each step.
        """
        inputs = standardised_inputs(self.inputs, trajectories, self.period)
        increments = unknown_increments(trajectories, self.known) / self.scale[None, None]
        return inputs, increments.reshape(len(inputs), -1)

    def features_along(
        self, ys: Float[Array, "time dim"], t0: Float[Array, ""], first: int = 0
    ) -> tuple[Carries, tuple[Float[Array, "time features"], ...]]:
        """The carry after a stretch of true rows, and the readout's inputs at every row.

        Args:
            ys: consecutive observations `dt` apart.
            t0: the time of step zero.
            first: the step count of the first row.
        """
        counts = first + jnp.arange(ys.shape[0], dtype=jnp.int32)
        if not isinstance(self.network, RecurrentNetwork):
            each = jax.vmap(lambda y, k: self.features((), y, t0, k)[1])
            return (), each(ys, counts)
        start = (self.network.initial_carry(dtype=ys.dtype),) * (1 if self.symmetry is None else 2)
        return jax.lax.scan(
            lambda carry, row: self.features(carry, row[0], t0, row[1]), start, (ys, counts)
        )

    @checked
    def features(
        self, carry: Carries, y: Float[Array, " dim"], t0: Float[Array, ""], count: Int[Array, ""]
    ) -> tuple[Carries, tuple[Float[Array, " features"], ...]]:
        """The next carry, and the readout's inputs at y and, with a symmetry, at S y."""
        network = self.network
        images = (y,) if self.symmetry is None else (y, self.symmetry @ y)
        xs = [inputs_of(self.inputs, image, t0, count, self.dt, self.period) for image in images]
        if not isinstance(network, RecurrentNetwork):
            return (), tuple(network.features(x) for x in xs)
        advanced = [network.advance(memory, x) for memory, x in zip(carry, xs, strict=True)]
        return tuple(memory for memory, _ in advanced), tuple(phi for _, phi in advanced)

    def _increment(self, features: tuple[Array, ...], y: Array, t: Array) -> Array:
        readout = self.network.readout
        if self.symmetry is None:
            (phi,) = features
            learned = self.scale * readout(phi)
        else:
            # The group's average. The features are combined before the readout: large weights for
            # the odd features would otherwise multiply the even ones too, which then cancel.
            here, mirrored = features
            even = self.scale * readout(0.5 * (here + mirrored))
            odd = self.scale * (0.5 * (here - mirrored) @ readout.kernel[...])
            learned = 0.5 * (even + self.symmetry @ even + odd - self.symmetry @ odd)
        return learned if self.known is None else learned + runge_kutta(self.known, t, y, self.dt)


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.int64 if x.dtype == jnp.float64 else jnp.int32)
