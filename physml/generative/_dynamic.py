"""A code whose latent numbers are stepped: a step map of what was coded."""

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float

from physml._numerics.calls import checked, require_fields, summary
from physml.data import Trajectories
from physml.generative._codec import Codec
from physml.step_maps import MapState, StepMap


class LatentStepper(StepMap):
    """A dynamic autoencoder: encode once, step the latent numbers, decode what is observed.

    A surrogate that is fitted to `encode_trajectories(codec, train)` can be its latent step map, or
    the flow of what `discover_equations` finds.

    Attributes:
        codec: of the observed states, as rows of numbers.
        latent: the step map of the latent numbers: a surrogate, or the flow of latent equations.
    """

    codec: Codec
    latent: StepMap

    def __init__(self, codec: Codec, latent: StepMap):
        self.codec, self.latent = codec, latent
        require_fields(self)

    def __repr__(self) -> str:
        facts = {"codec": type(self.codec.network).__name__, "latent": type(self.latent).__name__}
        return summary("LatentStepper", facts | {"dt": f"{self.dt:.6g}"})

    @property
    def dt(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The time step, that of the latent step map."""
        return self.latent.dt

    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> MapState:
        return self.latent.init(self.codec.encode(history), t0)

    def step(self, state: MapState) -> MapState:
        return self.latent.step(state)

    def observe(self, state: MapState) -> Float[Array, " dim"]:
        return self.codec.decode(self.latent.observe(state))


@checked
def encode_trajectories(codec: Codec, trajectories: Trajectories) -> Trajectories:
    """The same trajectories in latent numbers, for a surrogate to learn from.

    Raises:
        ValueError: the states are no rows of the codec's data.
    """
    latents = _encoded(codec, codec.check(trajectories.ys))
    names = tuple(f"latent{i}" for i in range(latents.shape[-1]))
    return Trajectories(trajectories.ts, latents, trajectories.t0s, names, trajectories.system)


@eqx.filter_jit
def _encoded(codec: Codec, ys: Array) -> Array:
    return jax.vmap(codec.encode)(ys)
