"""How the observations of all experiments differ from the solutions' values: kinds and scales."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml.noises import LogNormalNoise, Noise, NormalNoise, PoissonNoise, Whitened
from physml.pinn.inverse._experiments import Experiment
from physml.pinn.inverse._noise_arguments import AnyNoise, is_record, noise_parts

_FEWEST_COUNTS = 5.0  # counts below are so unlike normal numbers that they are not tested
_HALF_A_COUNT = 0.5


class Group(eqx.Module):
    """Observations whose scales are known, or found, together."""

    noise: Noise
    mask: Bool[np.ndarray | Array, "n obs"]
    rows: Int[np.ndarray | Array, " rows"]  # which have one of them
    by_value: Callable | None  # the scale as a function of the values of these rows
    scale: Float[Array, "rows obs"] | None  # where it is known otherwise
    counts: tuple[int, ...] = eqx.field(static=True)  # of observations, by columns
    num_columns: int = eqx.field(static=True)  # that `by_value` is a function of

    @property
    def is_estimated(self) -> bool:
        """Whether the scale is found from the residuals."""
        return self.noise.has_scale and self.scale is None and self.by_value is None


class Likelihood(eqx.Module):
    """What lies between values and observations, those of all experiments one after the other."""

    kinds: tuple[Noise, ...]
    kind: Int[np.ndarray | Array, "n obs"]  # which of them an observation has
    groups: tuple[Group, ...]
    by_rows: tuple[bool, ...] = eqx.field(static=True)
    """Whether the scale is another one for each observation, by experiments."""

    @property
    def is_known(self) -> bool:
        """Whether no scale is estimated."""
        return not any(group.is_estimated for group in self.groups)

    @property
    def is_normal(self) -> bool:
        """Whether all noise is normal."""
        return all(isinstance(noise, NormalNoise) for noise in self.kinds)

    def whiten(self, kind: Array, values: Array, ys: Array, scale: Array) -> Whitened:
        """Values and observations as least squares take them; all arrays of one shape."""
        found = self.kinds[0].whiten(values, ys, scale)
        for number, noise in enumerate(self.kinds[1:], start=1):
            other = noise.whiten(values, ys, scale)
            found = jax.tree.map(lambda a, b, n=number: jnp.where(kind == n, a, b), other, found)
        return Whitened(*found)

    def scales(
        self,
        values: Float[Array, "n obs"],
        ys: Float[Array, "n obs"],
        estimate: Callable[[Group, Array, Array], Array],
    ) -> Float[Array, "n obs"]:
        """The scale of each observation: as given, or by `estimate(group, values, ys)`, (obs,)."""
        out = jnp.ones_like(values)
        for group in self.groups:
            if not group.noise.has_scale:
                continue
            own, columns = values[group.rows], group.num_columns
            if group.by_value is not None:
                scale = jnp.ones_like(own).at[:, :columns].set(group.by_value(own[:, :columns]))
            elif group.scale is not None:
                scale = group.scale
            else:
                seen = jnp.where(group.mask, ys, jnp.nan)[group.rows]
                scale = estimate(group, own, seen)
            scale = scale if scale.ndim == 2 else scale[None]
            every = out.at[group.rows].set(jnp.broadcast_to(scale, own.shape))
            out = jnp.where(group.mask, every, out)
        return out

    def relative(self) -> Bool[Array, "n obs"]:
        """Which scales have no unit, or are none."""
        without = [noise.is_relative or not noise.has_scale for noise in self.kinds]
        return jnp.asarray(without)[self.kind]

    def are_counts(self) -> Bool[Array, "n obs"]:
        """Which observations are counts, which have no scale."""
        return self._have(PoissonNoise)

    def testable(self, values: Float[Array, "n obs"]) -> Bool[Array, "n obs"]:
        """Which residuals are as good as normal: not those of small counts."""
        return ~self.are_counts() | (values >= _FEWEST_COUNTS)

    def least(self, ys: Float[Array, "n obs"], seen: Array) -> Float[Array, "n obs"]:
        """The least value that a first guess may have, the same in a column of an experiment."""
        out = jnp.where(self._have(LogNormalNoise) & seen, ys, -jnp.inf)
        return jnp.where(self.are_counts(), jnp.maximum(ys, _HALF_A_COUNT), out)

    def _have(self, kind: type[Noise]) -> Bool[Array, "n obs"]:
        return jnp.asarray([isinstance(noise, kind) for noise in self.kinds])[self.kind]


def likelihood_of(
    experiments: Sequence[Experiment],
    shared: AnyNoise,
    observers: Sequence[int],
    ys: Float[Array, "n obs"],
    seen: Bool[np.ndarray, "n obs"],
) -> Likelihood:
    """The noise of all observations, checked.

    An experiment whose noise is its own is a group for itself. The others have the noise that is
    shared: its scales are found from all of them that are seen by the same `observe`.

    Args:
        observers: which `observe` an experiment has.
        ys, seen: those of all experiments, one after the other.
    """
    ends = np.cumsum([0, *(len(x.ts) for x in experiments)])
    blocks = [np.arange(*ends[i : i + 2]) for i in range(len(experiments))]
    own = [i for i, experiment in enumerate(experiments) if experiment.noise is not None]
    named = [(f"experiments[{i}]: noise", experiments[i].noise, [i]) for i in own]
    rest = [i for i in range(len(experiments)) if i not in own]
    # Given standard deviations and functions have the shape of one experiment's observations.
    apart = not is_record(shared) and shared is not None
    for key in rest if apart else sorted({observers[i] for i in rest}):
        together = [key] if apart else [i for i in rest if observers[i] == key]
        named.append(("noise", shared, together))
    kinds, groups, kind = [], [], np.zeros(ys.shape, int)
    by_rows = [False] * len(experiments)
    for name, noise, members in named:
        rows = np.concatenate([blocks[i] for i in members])
        columns = experiments[members[0]].ys.shape[1]
        data = ys[rows, :columns], seen[rows, :columns]
        for record, scale, where in noise_parts(name, noise, *data):
            mask = np.zeros(ys.shape, bool)
            mask[np.ix_(rows, np.asarray(where))] = seen[np.ix_(rows, np.asarray(where))]
            if not mask.any():
                continue
            found = [n for n, other in enumerate(kinds) if _alike(other, record)]
            kinds += [] if found else [dataclasses.replace(record, scale=None)]
            kind[np.ix_(rows, np.asarray(where))] = found[0] if found else len(kinds) - 1
            by_value = scale if callable(scale) else None
            own: Any = noise.scale if isinstance(noise, Noise) else noise
            for i in members:
                by_rows[i] |= callable(noise) or (not is_record(own) and np.ndim(own) == 2)
            if scale is not None and by_value is None:
                scale = jnp.ones((len(rows), ys.shape[1])).at[:, np.asarray(where)].set(scale)
            groups.append(
                Group(
                    noise=dataclasses.replace(record, scale=None),
                    mask=mask,
                    rows=rows,
                    by_value=by_value,
                    scale=None if callable(scale) else scale,
                    counts=tuple(map(int, mask.sum(axis=0))),
                    num_columns=columns,
                )
            )
    return Likelihood(tuple(kinds), kind, tuple(groups), tuple(by_rows))


def _alike(a: Noise, b: Noise) -> bool:
    """Whether two noises differ at most in their scale."""
    mine, others = (jax.tree.leaves(dataclasses.replace(x, scale=None)) for x in (a, b))
    return type(a) is type(b) and all(x is y for x, y in zip(mine, others, strict=True))
