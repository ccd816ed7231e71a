"""Lyapunov spectra of step maps, and the dimension that follows from one."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_finite, require_multiple
from physml._numerics.compiled import watched
from physml.dynamics._batch import flatten
from physml.step_maps import MapState, StepMap


class LyapunovSpectrum(eqx.Module):
    """The Lyapunov exponents of a step map, and the rates that show whether they have converged.

    Attributes:
        exponents: per unit time, largest first.
        rates: the growth rates between reorthonormalisations, in the order of `exponents`, which
            are their means over the axis `stretches`.
        dimension: the number of state coordinates that were differentiated. With fewer exponents
            than this the spectrum is its leading part.
    """

    exponents: Float[Array, "*batch num"]
    rates: Float[Array, "*batch stretches num"]
    dimension: int = eqx.field(static=True)

    @classmethod
    def of(cls, rates: Float[Array, "*batch stretches num"], dimension: int) -> "LyapunovSpectrum":
        """The spectrum of growth rates in any order."""
        exponents, rates = _ordered(rates)
        return cls(exponents, rates, dimension)

    @checked
    def standard_error(self, blocks: int = 20) -> Float[Array, "*batch num"]:
        """The exponents' statistical error, by batch means.

        The rates are cut into `blocks` consecutive blocks of equal length; the standard deviation
        of the blocks' means over sqrt(blocks) is the error of the whole mean, if a block is long
        compared with the correlation time. It does not show the bias of too short a transient.

        Raises:
            ValueError: there are fewer than two blocks, or fewer rates than blocks.
        """
        return self._block_means(blocks).std(axis=-2, ddof=1) / blocks**0.5

    @checked
    def bootstrap(
        self, key: PRNGKeyArray, *, blocks: int = 20, samples: int = 2000
    ) -> Float[Array, "samples num"]:
        """Random samples of the exponents by a block bootstrap over time and trajectories.

        The rates of every trajectory are cut into `blocks` consecutive blocks. A sample is the
        mean of as many blocks as there are, drawn with replacement from those of all trajectories,
        which are assumed to lie on one attractor. Percentiles of the samples are an interval for
        the exponents' mean over all trajectories; percentiles of a function of the samples, such
        as `kaplan_yorke_dimension`, are an interval for that function.

        Args:
            key: a random key for the draws.
            blocks: of each trajectory; a block must be long compared with the correlation time.
            samples: the number of samples.

        Raises:
            ValueError: there are fewer than two blocks, or fewer rates than blocks.

        References:
            Kuensch, The jackknife and the bootstrap for general stationary observations, Annals
            of Statistics 17 (1989).
        """
        require_count(samples=samples)
        means = self._block_means(blocks).reshape(-1, self.rates.shape[-1])
        drawn = jax.random.randint(key, (samples, len(means)), 0, len(means))
        return means[drawn].mean(axis=1)

    def _block_means(self, blocks: int) -> Array:
        *batch, stretches, num = self.rates.shape
        require_count(2, (stretches, "the number of rates"), blocks=blocks)
        length = stretches // blocks
        kept = self.rates[..., : blocks * length, :].reshape(*batch, blocks, length, num)
        return kept.mean(axis=-2)


@jax.jit  # one program in place of a dozen small ones
def _ordered(rates: Array) -> tuple[Array, Array]:
    """The mean rates, largest first, and the rates in their order."""
    exponents = rates.mean(axis=-2)
    order = jnp.argsort(-exponents, axis=-1)
    return (
        jnp.take_along_axis(exponents, order, axis=-1),
        jnp.take_along_axis(rates, order[..., None, :], axis=-1),
    )


@checked
def lyapunov_spectrum(
    step_map: StepMap,
    history: Float[Array, "*batch time dim"],
    num_steps: int,
    *,
    num: int | None = None,
    transient: int | None = None,
    every: int = 1,
    t0: ArrayLike = 0.0,
) -> LyapunovSpectrum:
    """The Lyapunov exponents of a step map, by QR of its Jacobian along a trajectory.

    With J the Jacobian of `every` steps and Q_0 orthonormal, J Q_k = Q_{k+1} R_{k+1}, and
    lambda_i = mean_k log |R_k,ii| / (every dt) (Benettin et al., Meccanica 15, 1980; Eckmann,
    Ruelle, Rev. Mod. Phys. 57, 1985). Forward derivatives give J Q; J is never formed.

    The coordinates are the floating leaves of the state that a step changes: a recurrent map's
    hidden carry counts; an integer step count, or a start time that no step changes, does not.
    The result holds their number. The exponents of all coordinates add up to the mean of
    log |det J| / (every dt); coordinates that the others determine have exponent -inf.

    Args:
        step_map: the map.
        history: observations that start the trajectory, one row for a map without memory.
        num_steps: the steps averaged over, a multiple of `every`.
        num: how many exponents; all unless given.
        transient: the first steps, not counted, in which the state reaches the attractor and Q its
            directions, rounded up to a multiple of `every`; a tenth of `num_steps` unless given.
        every: the steps between reorthonormalisations. More are cheaper, but directions whose
            growth in between differs by more than 1 / (machine epsilon) become indistinguishable.
        t0: the time of each history's last row, a scalar or one for each history.

    Returns:
        The spectrum; NaN where the trajectory diverges.

    Raises:
        ValueError: as `rollout`, or a count is not positive or does not fit.
    """
    transient = num_steps // 10 if transient is None else transient
    require_count(num_steps=num_steps, every=every)
    require_count(0, transient=transient)
    require_multiple("every", every, num_steps=num_steps)
    histories, t0s, batch = flatten(history, t0)
    dimension = dimension_of(step_map, histories[0], t0s[0])
    num = dimension if num is None else num
    require_count(1, (dimension, "the dimension of the state"), num=num)
    rates = _rates(step_map, histories, t0s, num, -(-transient // every), num_steps // every, every)
    return LyapunovSpectrum.of(rates.reshape(*batch, *rates.shape[1:]), dimension)


@watched
@eqx.filter_jit
def _rates(
    step_map: StepMap,
    histories: Array,
    t0s: Array,
    num: int,
    transient: int,
    stretches: int,
    every: int,
) -> Array:
    # One loop for both: a second one would be compiled again.
    start = tangents(step_map, histories, t0s, num)
    return advance(step_map, start, transient + stretches, every)[2][:, transient:]


def dimension_of(step_map: StepMap, history: Array, t0: Array) -> int:
    """The number of coordinates that a step changes."""
    start = jax.eval_shape(step_map.init, history, t0)
    leaves = zip(jax.tree.leaves(start), _moving(step_map, start), strict=True)
    return sum(leaf.size for leaf, moves in leaves if moves)


def _moving(step_map: StepMap, state: MapState) -> list[bool]:
    """For each leaf of a state, whether it is a coordinate: floating, and changed by a step.

    A leaf that a step does not change comes out of the trace as the same object that went in. A
    `jax.jit` inside the step hides this: then the leaf counts, with exponent zero.
    """
    changed = []

    def step(state):
        following = step_map.step(state)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(following), strict=True)
        changed.extend(new is not old for old, new in pairs)
        return following

    jax.eval_shape(step, state)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)]
    return [a and b for a, b in zip(floating, changed, strict=True)]


class Tangents(eqx.Module):
    """A state, and orthonormal directions in its tangent space."""

    state: MapState
    q: Float[Array, "*batch coordinates num"]


@watched
@eqx.filter_jit
def tangents(step_map: StepMap, histories: Array, t0s: Array, num: int) -> Tangents:
    """States at the ends of histories (batch, time, dim), each with `num` directions."""

    def start(history, t0):
        state = step_map.init(history, t0)
        leaves = zip(jax.tree.leaves(state), _moving(step_map, state), strict=True)
        y, _ = ravel_pytree([leaf for leaf, moves in leaves if moves])
        # Directions that no symmetry of the map distinguishes, without a random number.
        grid = jnp.outer(jnp.arange(1, y.size + 1), jnp.arange(1, num + 1))
        return Tangents(state, jnp.linalg.qr(jnp.cos(grid.astype(y.dtype)))[0])

    return jax.vmap(start)(histories, t0s)


@watched
@eqx.filter_jit
def advance(
    step_map: StepMap, start: Tangents, stretches: int, every: int
) -> tuple[Tangents, Float[Array, "batch steps dim"], Float[Array, "batch stretches num"]]:
    """The end of `stretches` times `every` steps, the observations and the growth rates.

    The step itself is computed once for all directions.
    """

    def push(carry: Tangents, _):
        leaves, structure = jax.tree.flatten(carry.state)
        moving = _moving(step_map, carry.state)
        y, unravel = ravel_pytree([x for x, moves in zip(leaves, moving, strict=True) if moves])

        def step(y):
            coordinates = iter(unravel(y))
            joined = [
                next(coordinates) if moves else x for x, moves in zip(leaves, moving, strict=True)
            ]
            state = step_map.step(jax.tree.unflatten(structure, joined))
            changed = zip(jax.tree.leaves(state), moving, strict=True)
            return ravel_pytree([x for x, moves in changed if moves])[0], state

        def along(v):
            _, pushed, state = jax.jvp(step, (y,), (v,), has_aux=True)
            return pushed, state

        q, state = jax.vmap(along, in_axes=1, out_axes=(1, None))(carry.q)
        return Tangents(state, q), step_map.observe(state)

    def stretch(carry: Tangents, _):
        carry, ys = jax.lax.scan(push, carry, length=every)
        q, r = jnp.linalg.qr(carry.q)
        rates = jnp.log(jnp.abs(jnp.diagonal(r))) / (every * step_map.dt)
        return Tangents(carry.state, q), (ys, rates)

    def along(start: Tangents):
        end, (ys, rates) = jax.lax.scan(stretch, start, length=stretches)
        return end, ys.reshape(-1, ys.shape[-1]), rates

    return jax.vmap(along)(start)


@checked
def kaplan_yorke_dimension(exponents: Float[Array, "*batch num"]) -> Float[Array, "*batch"]:
    """The Kaplan-Yorke (Lyapunov) dimension of an attractor.

    D = j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|, with j the largest number whose sum is not
    negative (Kaplan, Yorke, Lecture Notes in Mathematics 730, 1979). It is 0 when all exponents are
    negative, and their number when their whole sum is not (a lower bound if more were left out).

    Args:
        exponents: Lyapunov exponents in any order.
    """
    require_finite("exponents", exponents)
    ordered = -jnp.sort(-exponents, axis=-1)
    sums = jnp.cumsum(ordered, axis=-1)
    j = (sums >= 0).sum(axis=-1)
    num = exponents.shape[-1]
    before = jnp.take_along_axis(sums, jnp.maximum(j - 1, 0)[..., None], axis=-1)[..., 0]
    after = jnp.take_along_axis(ordered, jnp.minimum(j, num - 1)[..., None], axis=-1)[..., 0]
    share = jnp.where((j == 0) | (j == num), 0.0, before / jnp.abs(after))
    return j.astype(exponents.dtype) + share
