"""Trajectories more accurate than float64: Taylor series of quadratic systems in double-double."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml._numerics import checks
from physml._numerics import double_double as dd
from physml._numerics.calls import checked
from physml._numerics.chunks import few_shapes, for_each_chunk, num_cores
from physml._types import Numbers
from physml.data import Trajectories
from physml.reference._batch import check_starts, first_disagreement
from physml.step_maps import StepMap
from physml.systems import System

_CHUNK = 256  # trajectories whose series fit in a core's cache
_PROBES = 8  # states at which a system is compared with its expansion


@checked
def extended_trajectories(
    system: System,
    y0s: Numbers,
    ts: Numbers,
    *,
    order: int = 24,
    substeps: int = 1,
    args: PyTree = None,
    chunk: int = _CHUNK,
) -> Trajectories:
    r"""Trajectories of a quadratic system by Taylor series in double-double, rounded to float64.

    For $\dot y = c + L y + B(y, y)$ the coefficients of $y(t + s h) = \sum_k Y_k s^k$ follow from
    one another,

    $$Y_{k+1} = \frac{h}{k+1} \Big(c\,\delta_{k0} + L Y_k + \sum_{j=0}^k B(Y_j, Y_{k-j})\Big).$$

    Automatic differentiation of the system at zero gives c, L and B, and only entries of B that
    are not zero cost time. In each step rounding is about 1e-30 of the state, and truncation
    (h / radius of convergence)^(order + 1); `extended_horizon` measures what both add up to. Row k
    is the state at `ts[0]` + k dt with dt the float64 `Trajectories.dt`: all steps are equal to
    the last bit, while those of a grid of rounded times are not. A trajectory that escapes in
    finite time continues with inf and NaN without an error.

    Args:
        system: the right-hand side; Lorenz, Rossler, Lorenz96, LotkaVolterra, any linear system
            and a function of the user's are quadratic if they are autonomous.
        y0s: starts, shape (num, dim), float64; they are taken as exact.
        ts: uniform increasing times; `y0s` are the states at `ts[0]`.
        order: of the series.
        substeps: equal steps of the series in a step of the grid.
        args: passed on to the right-hand side.
        chunk: trajectories computed as one state; chunks go to a pool of threads.

    Raises:
        TypeError: the starts are not float64.
        ValueError: the system is driven or is not quadratic, shapes do not fit, the times are not
            uniform, or a count is not positive.

    Source: K. R. Jackson, N. S. Nedialkov, Some recent advances in validated methods for IVPs for
    ODEs, Appl. Numer. Math. 42 (2002) 269, section 2, for the recurrence.
    """
    y0s, times = check_starts(y0s, ts)
    if y0s.dtype != jnp.float64:
        raise TypeError(f"y0s must be float64, got {y0s.dtype}")
    checks.require_finite("y0s", y0s)
    checks.require_count(chunk=chunk)
    num, steps = len(y0s), len(times) - 1
    flow = TaylorFlow.create(
        system, float(times[-1] - times[0]) / steps, order=order, substeps=substeps, args=args
    )
    if y0s.shape[1] != system.dim:
        raise ValueError(f"y0s must have {system.dim} components, got {y0s.shape}")
    starts, out = np.asarray(y0s), np.empty((num, steps + 1, system.dim))
    out[:, 0] = starts

    def work(index: np.ndarray, rows: slice) -> None:
        ys = np.asarray(_march(flow, jnp.asarray(starts[index].T), steps))
        out[rows, 1:] = ys[:, :, : rows.stop - rows.start].transpose(2, 0, 1)

    workers = num_cores()
    for_each_chunk(work, num, few_shapes(num, chunk, workers), workers)
    return Trajectories(
        jnp.asarray(times), jnp.asarray(out), jnp.zeros(num), system.state_names,
        type(system).__name__,
    )  # fmt: skip


@checked
def extended_horizon(
    system: System,
    trajectories: Trajectories,
    *,
    scale: Numbers,
    threshold: float = 0.4,
    order: int = 30,
    substeps: int = 2,
    args: PyTree = None,
) -> Float[Array, " num"]:
    """How long trajectories agree with those of a higher order and shorter steps.

    Rounding and truncation both differ, so where the two agree they are the truth. The method and
    the arithmetic are the same; the tests compare them with independent ones.

    Args:
        system: what `extended_trajectories` was given.
        trajectories: what it gave.
        scale, threshold: as for `agreement_horizon`.
        order, substeps, args: as for `extended_trajectories`, better than those of `trajectories`.

    Returns:
        A time for each trajectory, relative to its first row; the last time where they agree to
        the end.

    Raises:
        TypeError, ValueError: as `extended_trajectories` and `agreement_horizon`.
    """
    scale = checks.check_scale(scale, trajectories.ys.shape[2], trajectories.ys.dtype)
    checks.require_positive(threshold=threshold)
    other = extended_trajectories(
        system, trajectories.ys[:, 0], trajectories.ts, order=order, substeps=substeps, args=args
    )
    return first_disagreement(trajectories, other.ys, scale, threshold)


class TaylorFlow(StepMap):
    r"""The flow of a quadratic system as a step map that rounds its state once in each step.

    $y_{k+1} = \mathrm{round}(\Phi(y_k))$ with $\Phi$ as `extended_trajectories` computes it: the
    best possible map with a state of that dtype. `create` makes it.
    """

    quadratic: "_Quadratic"
    dt: float = eqx.field(static=True)
    order: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)

    @classmethod
    def create(
        cls, system: System, dt: float, *, order: int = 24, substeps: int = 1, args: PyTree = None
    ) -> "TaylorFlow":
        """The flow over `dt`; the arguments are those of `extended_trajectories`.

        Raises:
            ValueError: as `extended_trajectories`; or `dt` is not positive.
        """
        checks.require_positive(dt=dt)
        checks.require_count(order=order, substeps=substeps)
        quadratic = _Quadratic.of(system, args)
        return cls(quadratic=quadratic, dt=dt, order=order, substeps=substeps)

    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> Float[Array, " dim"]:
        return history[-1]

    def step(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        y = self.advance(dd.exact(state.astype(jnp.float64)[:, None]))
        return y.hi[:, 0].astype(state.dtype)

    def observe(self, state: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return state

    def advance(self, y: dd.DoubleDouble) -> dd.DoubleDouble:
        """The state (dim, batch) one `dt` later, in double-double."""
        h = dd.div(dd.exact(jnp.float64(self.dt)), dd.exact(jnp.float64(self.substeps)))
        counts = jnp.arange(1, self.order + 1).astype(jnp.float64)
        h = jax.tree.map(lambda x: jnp.broadcast_to(x, counts.shape), h)
        factors = dd.div(h, dd.exact(counts))
        return jax.lax.fori_loop(
            0, self.substeps, lambda _, y: self.quadratic.taylor_step(y, factors), y
        )


@eqx.filter_jit
def _march(
    flow: TaylorFlow, y0: Float[Array, "dim chunk"], steps: int
) -> Float[Array, "steps dim chunk"]:
    def step(y, _):
        y = flow.advance(y)
        return y, y.hi

    return jax.lax.scan(step, dd.exact(y0), length=steps)[1]


class _Quadratic(eqx.Module):
    r"""$f(y) = A m(y)$ with the monomials m = (1, y, the products of two components that occur).

    Of the rows of A only the entries that are not zero, and their columns, are kept, padded with
    zeros to the longest row.
    """

    entries: Float[Array, "dim longest"]
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    left: tuple[int, ...] = eqx.field(static=True)
    right: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, system: System, args: PyTree) -> "_Quadratic":
        """The expansion of a system at zero, which must be complete at second order."""
        checks.require_instance(System, system=system)
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

    def taylor_step(self, y: dd.DoubleDouble, factors: dd.DoubleDouble) -> dd.DoubleDouble:
        """The sum of the series from y, (dim, batch); factors are h / 1, h / 2, ..., h / order."""
        order, batch = factors.hi.shape[0], y.hi.shape[1:]
        left, right = np.asarray(self.left, int), np.asarray(self.right, int)
        columns = np.asarray(self.columns)
        room = jnp.zeros((order, 3, len(left), *batch))

        def following(k, carry):
            coefficient, total, lefts, rights = carry
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
            factor = jax.tree.map(lambda x: x[k][None, None], factors)
            coefficient = dd.mul(factor, rate)
            return coefficient, dd.add(total, coefficient), lefts, rights

        return jax.lax.fori_loop(0, order, following, (y, y, room, room))[1]


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
