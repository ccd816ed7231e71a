"""The mode of a density, its curvature there, and draws from it by the No-U-Turn sampler."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from physml import fit
from physml._numerics.checks import is_concrete
from physml._numerics.units import max_of, min_of
from physml.results import RESULTS, raise_if_interrupted

LogDensity = Callable[[Float[Array, " q"]], Float[Array, ""]]

LEAST_DRAWS = 4  # of a chain: with fewer, its halves cannot be compared
_SHARES = (1.0, 0.5, 0.2, 0.05, 0.01, 1e-3, 0.0)  # of a Newton step, tried together
_DECREMENT = 1e-10  # of the log density, below which the mode is found
_FLAT = 1e-8  # the least curvature, as a share of the largest, of a direction that has a mode


class Mode(NamedTuple):
    r"""The normal distribution that touches a density at its mode.

    Attributes:
        q: the mode.
        half: a matrix whose product with its transpose is the covariance there.
        log_density: at the mode.
        log_evidence: the log of the density's integral by Laplace's method,
            $\log p(q) + \tfrac d2 \log 2\pi + \log |\det \text{half}|$.
        converged: whether the iteration ended at a mode.
        curved: whether the density falls in every direction.
    """

    q: Float[Array, " q"]
    half: Float[Array, "q q"]
    log_density: Float[Array, ""]
    log_evidence: Float[Array, ""]
    converged: Bool[Array, ""]
    curved: Bool[Array, ""]


def find_mode(
    log_density: LogDensity, q: Float[Array, " q"], units: Float[Array, "q q"], max_steps: int
) -> Mode:
    """Newton's iteration for the mode, in the coordinates x of q + units x.

    A step is shortened where the density would not grow.
    """

    def scaled(x: Array) -> Array:
        return log_density(q + units @ x)

    def slope(x: Array) -> tuple[Array, Array]:
        g = jax.jacfwd(scaled)(x)
        return g, g

    def directions(x: Array) -> tuple[Array, Array, Array]:
        curvature, g = jax.jacfwd(slope, has_aux=True)(x)
        falls, vectors = jnp.linalg.eigh(-(curvature + curvature.T) / 2)
        least = _FLAT * max_of(jnp.abs(falls))
        return g, falls, vectors * jax.lax.rsqrt(jnp.maximum(jnp.abs(falls), least))[None]

    def step(carry):
        x, _, half, g, *_, count = carry
        newton = half @ (half.T @ g)  # zero in the first step, which finds the derivatives
        tries = x[None] + jnp.asarray(_SHARES, x.dtype)[:, None] * newton[None]
        values = jax.vmap(scaled)(tries)
        best = jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))
        g, falls, half = directions(tries[best])
        decrement = jnp.sum((half.T @ g) ** 2)
        return tries[best], values[best], half, g, falls, decrement, count + 1

    def goes_on(carry):
        _, value, *_, decrement, count = carry
        return (count == 0) | ((decrement > _DECREMENT) & (count < max_steps) & jnp.isfinite(value))

    nothing, many = jnp.zeros_like(q), jnp.zeros_like(units)
    never = jnp.asarray(-jnp.inf, q.dtype)
    first = (nothing, never, many, nothing, nothing, -never, 0)
    x, value, half, _, falls, decrement, _ = jax.lax.while_loop(goes_on, step, first)
    half = units @ half
    log_volume = jnp.sum(jnp.log(jnp.abs(jnp.linalg.svd(half, compute_uv=False))))
    log_evidence = value + 0.5 * q.size * jnp.log(2 * jnp.pi) + log_volume
    converged = (decrement <= 1e3 * _DECREMENT) & jnp.isfinite(value)
    curved = min_of(falls) > _FLAT * max_of(jnp.abs(falls))
    return Mode(q + units @ x, half, value, log_evidence, converged, curved)


class Chains(NamedTuple):
    """What chains of the sampler went through after their warm-up.

    Attributes:
        q: the draws.
        log_density: at the draws.
        diverged: whether the integrator lost the energy on the way to a draw.
        num_steps: its steps on the way.
    """

    q: Float[Array, "chains draws q"]
    log_density: Float[Array, "chains draws"]
    diverged: Bool[Array, "chains draws"]
    num_steps: Int[Array, "chains draws"]


class NutsStep(eqx.Module):
    """A step of `fit.loop`: each chain of the No-U-Turn sampler makes its next draw.

    Attributes:
        log_density: of q.
        mode: its mode, which gives the sampler's coordinates z, q = mode + half z.
        num_warmup: draws in which a chain finds its step, and what sizes z has.
        forward: whether derivatives are taken forwards.
    """

    log_density: LogDensity
    mode: Mode
    num_warmup: int = eqx.field(static=True)
    forward: bool = eqx.field(static=True)

    @eqx.filter_jit
    def begin(self, key: PRNGKeyArray, num_chains: int) -> PyTree[Array]:
        """The state of no draws: numpyro's, with an axis of chains."""
        start_key, chain_key = jax.random.split(key)
        shape = (num_chains, self.mode.q.size)
        starts = jax.random.normal(start_key, shape, self.mode.q.dtype)
        starts = jax.vmap(lambda z: _with_finite_density(self._potential(), z))(starts)
        with _as_numpyro_is_written():
            keys = jax.random.split(chain_key, num_chains)
            return jax.vmap(lambda *given: self._kernel(*given)[1])(keys, starts)

    def __call__(
        self, state: PyTree[Array], batch: None, key: PRNGKeyArray | None
    ) -> tuple[PyTree[Array], dict[str, Array]]:
        def advance(state: Any) -> Any:
            # Making a first state tells the kernel about the warm-up. XLA drops the state.
            kernel, _ = self._kernel(state.rng_key, state.z)
            return kernel.sample(state, (), {})

        with _as_numpyro_is_written():
            state = jax.vmap(advance)(state)
        found = {"z": state.z, "log_density": -state.potential_energy}
        return state, found | {"diverged": state.diverging, "num_steps": state.num_steps}

    def _kernel(self, key: PRNGKeyArray, z: Array) -> tuple[Any, Any]:
        """The sampler of one chain, and the chain's first state."""
        from numpyro.infer import NUTS

        kernel = NUTS(potential_fn=self._potential())
        return kernel, kernel.init(key, self.num_warmup, z, (), {})

    def _potential(self) -> LogDensity:
        def backwards(z: Array) -> Array:
            return -self.log_density(self.mode.q + self.mode.half @ z)

        return _by_forward_mode(backwards) if self.forward else backwards


def run_nuts(
    log_density: LogDensity,
    mode: Mode,
    key: PRNGKeyArray,
    *,
    num_chains: int,
    num_warmup: int,
    num_draws: int,
    forward: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | fit.Callback = False,
) -> tuple[Chains, RESULTS]:
    """Chains of the No-U-Turn sampler in the coordinates z of q = mode + half z.

    There the density is as good as a standard normal one, so that the warm-up has little to find:
    the step, and what sizes z has away from the mode. The chains start from draws of the normal
    distribution of the mode. They go on side by side in one program, which takes half the CPU time
    of a program for each of four chains. Unless it is traced, `fit.loop` runs it, so that the
    chains can be interrupted, and another process can go on with them.

    Args:
        log_density: of q, a pytree.
        mode: of this density.
        key: draws everything.
        num_chains, num_warmup, num_draws: chains, and for each its warm-up and draws after it.
        forward: whether derivatives are taken forwards, which is the faster for up to about 20
            unknowns of an equation.
        checkpoint, progress: as for `fit.loop`.

    Returns:
        The chains, and `successful`; or `interrupted`, with the draws made until then.

    Raises:
        KeyboardInterrupt: Ctrl-C came before there are draws to speak of.

    Source: M. D. Hoffman, A. Gelman, "The No-U-Turn sampler", J. Mach. Learn. Res. 15 (2014), in
    numpyro's implementation.
    """
    step = NutsStep(log_density, mode, num_warmup, forward)
    state, total = step.begin(key, num_chains), num_warmup + num_draws
    if is_concrete(mode.q):
        outcome = fit.loop(
            step, state, num_steps=total, key=key, checkpoint=checkpoint, progress=progress
        )
        rows, result = outcome.history, outcome.result
        if outcome.step < num_warmup + LEAST_DRAWS:
            raise_if_interrupted(result)
    else:
        _, rows = jax.lax.scan(lambda state, _: step(state, None, None), state, length=total)
        result = RESULTS.successful
    kept = ("z", "log_density", "diverged", "num_steps")
    z, *others = (jnp.swapaxes(jnp.asarray(rows[name][num_warmup:]), 0, 1) for name in kept)
    return Chains(mode.q[None, None] + z @ mode.half.T, *others), result


def draw_normal(mode: Mode, key: PRNGKeyArray, num_chains: int, num_draws: int) -> Chains:
    """Independent draws of the normal distribution that touches the density at its mode."""
    shape = (num_chains, num_draws)
    z = jax.random.normal(key, (*shape, mode.q.size), mode.q.dtype)
    log_density = mode.log_density - 0.5 * jnp.sum(z**2, axis=-1)
    still = jnp.zeros(shape, bool), jnp.zeros(shape, int)
    return Chains(mode.q[None, None] + z @ mode.half.T, log_density, *still)


@contextlib.contextmanager
def _as_numpyro_is_written() -> Iterator[None]:
    """JAX's own rules for shapes and dtypes, which numpyro counts on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _with_finite_density(potential: LogDensity, z: Float[Array, " q"]) -> Float[Array, " q"]:
    """The point, or one nearer the mode where the density is zero there."""
    tries = jnp.asarray([1.0, 0.5, 0.2, 0.0], z.dtype)[:, None] * z[None]
    return tries[jnp.argmax(jnp.isfinite(jax.vmap(potential)(tries)))]


def _by_forward_mode(function: LogDensity) -> LogDensity:
    """The function, whose reverse derivative is computed by as many forward ones as needed."""

    @jax.custom_jvp
    def differentiable(z):
        return function(z)

    @differentiable.defjvp
    def _(primals, tangents):
        (z,), (change,) = primals, tangents
        directions = jnp.eye(z.size, dtype=z.dtype)
        value, slope = jax.vmap(lambda d: jax.jvp(function, (z,), (d,)), out_axes=(None, 0))(
            directions
        )
        return value, slope @ change

    return differentiable
