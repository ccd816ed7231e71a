"""The flow of a quadratic system by Taylor series in double-double, in steps that it chooses."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Real

from physml._numerics import checks
from physml._numerics import double_double as dd
from physml._numerics.calls import as_traced, checked, trace
from physml._numerics.units import max_of, min_of
from physml.step_maps import StepMap
from physml.systems import System

FOLLOWED, STUCK, NOT_QUADRATIC = 0, 1, 2  # what has become of a trajectory
MAX_SUBSTEPS = 10_000
_ORDER = 32  # the highest; a short step needs fewer terms
_ACCURACY = 2.0**-104  # size of the last coefficients, relative to the largest of a component
_FINEST = 2.0**40  # steps are multiples of dt / 2^40, so that they add up to dt exactly
_PROBES = 8  # states at which a system is compared with its expansion


class Followed(NamedTuple):
    """A batch of states on the way from one time of the grid to the next."""

    y: dd.DoubleDouble  # (dim, batch)
    share: Float[Array, ""]  # the next step, in units of dt
    state: Int[Array, " batch"]
    position: Float[Array, ""]  # how much of dt is done
    count: Int[Array, ""]  # of series


class TaylorFlow(StepMap):
    r"""The flow of a quadratic system as a step map that rounds its state once in each step.

    $y_{k+1} = \mathrm{round}(\Phi(y_k))$ with $\Phi$ as `extended_trajectories` computes it: the
    best possible map with a state of that dtype. A state becomes NaN if the flow from it cannot be
    computed. `create` makes the map.
    """

    system: System
    args: PyTree
    quadratic: "_Quadratic"
    dt: float = eqx.field(static=True)
    order: int = eqx.field(static=True)
    longest: float = eqx.field(static=True)  # the longest step, in units of dt
    fixed: bool = eqx.field(static=True)  # whether order and steps are given, not chosen

    @classmethod
    @checked
    def create(
        cls,
        system: System,
        dt: float,
        *,
        order: int | None = None,
        substeps: int | None = None,
        args: PyTree = None,
    ) -> "TaylorFlow":
        """The flow over `dt`.

        Args:
            system: the right-hand side, autonomous and quadratic.
            dt: the time step.
            order: the order of every series, whatever its error; 32 if only `substeps` is given.
                If neither is given, the lengths of series and steps are chosen by the size of the
                series' coefficients.
            substeps: the number of equal steps in `dt`, whatever their error; 1 if only `order`
                is given.
            args: passed on to the right-hand side.

        Raises:
            ValueError: as `extended_trajectories`; or `dt` is not positive.
        """
        checks.require_positive(dt=dt)
        fixed = order is not None or substeps is not None
        order = _ORDER if order is None else order
        substeps = 1 if substeps is None else substeps
        checks.require_count(order=order, substeps=substeps)
        t, y = jnp.zeros(()), jnp.zeros(system.dim)
        traced, _ = trace(Partial(system, args=args), t, y)
        system = as_traced(system, traced)
        quadratic = _Quadratic.of(system, args)
        return cls(
            system=system,
            args=args,
            quadratic=quadratic,
            dt=float(dt),
            order=order,
            longest=1 / substeps,
            fixed=fixed,
        )

    @checked
    def init(
        self, history: Float[Array, "time dim"], t0: Real[ArrayLike, ""]
    ) -> Float[Array, " dim"]:
        return history[-1]

    def step(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        start = self.begin(dd.exact(state.astype(jnp.float64)[:, None]))
        followed = self.advance(start, jnp.asarray(MAX_SUBSTEPS))
        y = jnp.where(followed.state == FOLLOWED, followed.y.hi[:, 0], jnp.nan)
        return y.astype(state.dtype)

    def observe(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return state

    def begin(self, y: dd.DoubleDouble) -> Followed:
        """States (dim, batch) at a time of the grid."""
        batch = jnp.full(y.hi.shape[1], FOLLOWED)
        zero = jnp.zeros((), jnp.float64)
        return Followed(y, zero + self.longest, batch, zero, jnp.asarray(0))

    def advance(self, start: Followed, max_substeps: Int[Array, ""]) -> Followed:
        """The states one `dt` later. One that cannot be followed does not stop the others."""

        def unfinished(now: Followed) -> Bool[Array, ""]:
            return (now.position < 1) & jnp.any(now.state == FOLLOWED)

        start = start._replace(position=jnp.zeros_like(start.position), count=jnp.asarray(0))
        step = self._fixed_step if self.fixed else self._step
        return jax.lax.while_loop(unfinished, lambda now: step(now, max_substeps), start)

    def _factors(self, h: dd.DoubleDouble) -> dd.DoubleDouble:
        """h / 1, h / 2, ..., h / order."""
        counts = jnp.arange(1, self.order + 1).astype(jnp.float64)
        h = jax.tree.map(lambda x: jnp.broadcast_to(x, counts.shape), h)
        return dd.div(h, dd.exact(counts))

    def _fixed_step(self, now: Followed, _: Int[Array, ""]) -> Followed:
        """One of several equal steps, with a series of full order."""
        substeps = round(1 / self.longest)
        h = dd.div(dd.exact(jnp.float64(self.dt)), dd.exact(jnp.float64(substeps)))
        series = self.quadratic.series(now.y, self._factors(h), now.state, 0.0)
        count = now.count + 1
        position = jnp.where(count < substeps, now.position, 1.0)
        return now._replace(y=series.total, count=count, position=position)

    def _step(self, now: Followed, max_substeps: Int[Array, ""]) -> Followed:
        """Sum one series; if its last coefficients are small enough, the sum is the new state."""
        share = jnp.floor(jnp.minimum(now.share, self.longest) * _FINEST) / _FINEST
        share = jnp.minimum(share, 1 - now.position)
        right = self.quadratic.agrees(self.system, self.args, now.y.hi)
        state = jnp.where((now.state == FOLLOWED) & ~right, NOT_QUADRATIC, now.state)
        h = dd.two_prod(jnp.asarray(self.dt, jnp.float64), share)
        series = self.quadratic.series(now.y, self._factors(h), state, _ACCURACY)
        # Coefficients fall as (h / radius)^k, so the last ones tell for which step `order` terms
        # are enough. A step of length zero tells nothing.
        rest = jnp.where(jnp.isfinite(series.rest) & (share > 0), series.rest, jnp.inf)
        wanted = 0.9 * share * rest ** (-1 / series.count) * _ACCURACY ** (1 / self.order)
        wanted = jnp.clip(wanted, share / 8, 1.0)
        alive = state == FOLLOWED
        good = jnp.all((rest <= _ACCURACY) | ~alive)
        shortest = min_of(jnp.where(alive, wanted, 1.0))
        count = now.count + 1
        position = now.position + jnp.where(good, share, 0.0)
        stuck = ((shortest * _FINEST < 1) | (count >= max_substeps)) & (position < 1)
        state = jnp.where(alive & stuck & (wanted <= 2 * shortest), STUCK, state)
        y = dd.where(good, series.total, now.y)
        share = min_of(jnp.where(state == FOLLOWED, wanted, 1.0))
        return Followed(y, share, state, position, jnp.where(stuck, 0, count))


class _Series(NamedTuple):
    """A Taylor series: its sum, and what is known of its end."""

    total: dd.DoubleDouble  # (dim, batch)
    count: Int[Array, ""]  # coefficients after the first
    rest: Float[Array, " batch"]  # the larger of the last two, relative to the largest


class _Quadratic(eqx.Module):
    r"""$f(y) = A m(y)$ with the monomials m = (1, y, the products of two components that occur).

    Each row of A keeps only its entries that are not zero, with their columns, and is padded with
    zeros to the length of the longest row.
    """

    entries: Float[Array, "dim longest"]
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    left: tuple[int, ...] = eqx.field(static=True)
    right: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, system: System, args: PyTree) -> "_Quadratic":
        """Expand a system at zero; raise ValueError unless the second order gives all of it."""
        if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError("jax_enable_x64 must be on for double-double arithmetic, got it off")
        name, dim = type(system).__name__, system.dim
        if not system.autonomous:
            raise ValueError(
                f"system must be autonomous and quadratic, got {name}, which is driven"
            )

        @jax.jit
        def expand(probes, times):
            def f(y):
                return system(0.0, y, args)

            zero = jnp.zeros(dim)
            hessian = jax.jacfwd(jax.jacfwd(f))(zero)
            values = jax.vmap(lambda t, y: system(t, y, args))(times, probes)
            return f(zero), jax.jacfwd(f)(zero), hessian, values

        random = np.random.default_rng(0)
        low, high = np.asarray(system.box)
        probes = low + (high - low) * random.random((_PROBES, dim))
        constant, linear, hessian, values = map(np.asarray, expand(probes, random.random(_PROBES)))
        if not all(np.isfinite(x).all() for x in (constant, linear, hessian)):
            raise ValueError(
                f"system must be quadratic, got {name}, which has no expansion at zero"
            )
        i, j = np.triu_indices(dim)
        pairs = hessian[:, i, j] * np.where(i == j, 0.5, 1.0)
        used = np.any(pairs != 0, axis=0)
        i, j = i[used], j[used]
        matrix = np.concatenate([constant[:, None], linear, pairs[:, used]], axis=1)
        monomials = np.concatenate([np.ones((_PROBES, 1)), probes, probes[:, i] * probes[:, j]], 1)
        expanded, sizes = monomials @ matrix.T, np.abs(monomials) @ np.abs(matrix).T
        if not np.all(np.abs(values - expanded) <= 1e-12 * sizes):
            raise ValueError(
                f"system must be autonomous and quadratic, got {name}, which differs from its "
                f"expansion to second order at zero by {np.abs(values - expanded).max():.3g}"
            )
        longest = max(1, int(np.count_nonzero(matrix, axis=1).max()))
        # Entries that are not zero come first, in their order.
        order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :longest]
        return cls(
            jnp.asarray(np.take_along_axis(matrix, order, axis=1)),
            tuple(tuple(int(c) for c in row) for row in order),
            tuple(i.tolist()),
            tuple(j.tolist()),
        )

    def agrees(
        self, system: System, args: PyTree, y: Float[Array, "dim batch"]
    ) -> Bool[Array, " batch"]:
        """Whether the right-hand side equals its expansion, within the rounding of float64."""
        left, right = np.asarray(self.left, int), np.asarray(self.right, int)
        monomials = jnp.concatenate([jnp.ones_like(y[:1]), y, y[left] * y[right]])
        terms = self.entries[..., None] * monomials[np.asarray(self.columns)]
        apart = jnp.abs(system(jnp.zeros(()), y, args) - terms.sum(axis=1))
        # States that are not finite pass here: their series is refused.
        return jnp.all(~(apart > 1e-12 * jnp.abs(terms).sum(axis=1)), axis=0)

    def series(
        self,
        y: dd.DoubleDouble,
        factors: dd.DoubleDouble,
        state: Int[Array, " batch"],
        accuracy: float,
    ) -> _Series:
        """The series from y, (dim, batch); factors are h / 1, h / 2, ..., h / order.

        It ends where, in all trajectories that are followed, two coefficients in a row are at most
        `accuracy` times the largest coefficient of their component. A component whose coefficients
        are zero up to half the order does not count: its first other coefficient is its largest,
        however small it is.
        """
        order, batch = factors.hi.shape[0], y.hi.shape[1:]
        left, right = np.asarray(self.left, int), np.asarray(self.right, int)
        columns = np.asarray(self.columns)
        room = jnp.zeros((order, 3, len(left), *batch))

        def following(carry: tuple) -> tuple:
            k, coefficient, total, lefts, rights, scale, known, _ = carry
            # Not lefts.at[k].set: its check of k would copy all of the array.
            put = jax.lax.dynamic_update_index_in_dim
            lefts = put(lefts, _parts(coefficient, left), k, 0)
            rights = put(rights, _parts(coefficient, right), k, 0)
            products = _cauchy(lefts, rights, k)
            one = dd.exact(jnp.broadcast_to((k == 0).astype(jnp.float64), (1, *batch)))
            monomials = jax.tree.map(lambda *x: jnp.concatenate(x), one, coefficient, products)
            rate = dd.exact(jnp.zeros_like(coefficient.hi))
            for entry, column in zip(self.entries.T, columns.T, strict=True):
                chosen = jax.tree.map(lambda x, c=column: x[c], monomials)
                rate = dd.add(rate, dd.mul(dd.exact(entry[:, None]), chosen))
            last = jnp.abs(coefficient.hi)
            factor = jax.tree.map(lambda x: x[k][None, None], factors)
            coefficient = dd.mul(factor, rate)
            largest = jnp.maximum(last, jnp.abs(coefficient.hi))
            scale = jnp.maximum(scale, largest)
            known = jnp.where(k < order // 2, scale > 0, known)
            rest = max_of(jnp.where(known, largest / scale, 0.0), axis=0)
            total = dd.add(total, coefficient)
            return k + 1, coefficient, total, lefts, rights, scale, known, rest

        def unfinished(carry: tuple) -> Bool[Array, ""]:
            k, rest = carry[0], carry[-1]
            return (k < order) & jnp.any(~(rest <= accuracy) & (state == FOLLOWED))

        none = jnp.zeros_like(y.hi)
        start = jnp.asarray(0), y, y, room, room, none, none > 0, jnp.full(batch, jnp.inf)
        count, _, total, *_, rest = jax.lax.while_loop(unfinished, following, start)
        return _Series(total, count, rest)


def _parts(x: dd.DoubleDouble, index: np.ndarray) -> Float[Array, "3 products *batch"]:
    """Components of x as factors of products: head and tail of hi, then lo."""
    return jnp.stack([*dd.split(x.hi[index]), x.lo[index]])


def _cauchy(lefts: Array, rights: Array, k: Array) -> dd.DoubleDouble:
    """sum_j lefts[j] rights[k - j]: a compensated sum of products that are exact."""

    def term(j, carry):
        total, rest = carry
        ah, al, a_lo = jax.lax.dynamic_index_in_dim(lefts, j, keepdims=False)
        bh, bl, b_lo = jax.lax.dynamic_index_in_dim(rights, k - j, keepdims=False)
        p, e = dd.product_of_split((ah, al), (bh, bl))
        total, missed = dd.two_sum(total, p)
        return total, rest + (missed + (e + ((ah + al) * b_lo + a_lo * (bh + bl))))

    zero = jnp.zeros(lefts.shape[2:])
    return dd.two_sum(*jax.lax.fori_loop(0, k + 1, term, (zero, zero)))
