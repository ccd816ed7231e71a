"""The profile likelihood of one parameter."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.blas import single_threaded_blas
from physml._numerics.calls import checked
from physml._numerics.checks import (
    is_concrete,
    require_count,
    require_inner_share,
    require_positive,
)
from physml._numerics.compiled import watched
from physml.pinn.inverse._identified import Identified
from physml.pinn.inverse._levenberg_marquardt import fit_windows

_EXACT = 1e8  # the weight of a row that has to hold, in standard deviations


class Profile(NamedTuple):
    r"""The profile likelihood of one parameter.

    $D(v) = -2 \log (\max_{\text{others}} L(v, \cdot) / \max L)$: zero at the best value, and
    parabolic where the problem is as good as linear.
    """

    name: str
    values: Float[np.ndarray, " num"]
    deviance: Float[np.ndarray, " num"]

    @checked
    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where D crosses the quantile of chi squared, interpolated; infinite if it does not."""
        import scipy.stats  # half a second: only where it is needed

        require_inner_share(level=level)
        bound = scipy.stats.chi2.ppf(level, 1)
        inside = np.flatnonzero(self.deviance <= bound)
        if not inside.size:
            raise ValueError("values must be closer together: none of the profile is within level")
        ends = []
        for i, step in ((inside[0], -1), (inside[-1], 1)):
            j = i + step
            if not 0 <= j < len(self.values):
                ends.append(step * np.inf)
                continue
            share = (bound - self.deviance[i]) / (self.deviance[j] - self.deviance[i])
            ends.append(float(self.values[i] + share * (self.values[j] - self.values[i])))
        return ends[0], ends[1]


@checked
def profile(found: Identified, name: str, num: int = 15, span: float = 3.0) -> Profile:
    """The likelihood of one parameter with all other unknowns fitted anew at each of its values.

    Args:
        found: what `identify` returned.
        name: a free parameter that is a single number.
        num: the number of values.
        span: standard deviations to either side.

    Raises:
        ValueError: there is no such parameter, or the identification was traced.
        RuntimeError: a fit did not converge.
    """
    require_count(3, num=num)
    require_positive(span=span)
    shapes = zip(found.parameters.names, found.parameters.shapes, strict=True)
    single = [n for n, shape in shapes if shape == ()]
    if name not in single:
        raise ValueError(f"name must be one of {single}, single free parameters, got {name!r}")
    if not is_concrete(found.cost) or found.cost.ndim:
        raise ValueError("found must be one identification, neither traced nor a batch")
    index = found.parameters.places()[name].start
    offsets = jnp.asarray(np.linspace(-span, span, num))
    with single_threaded_blas():
        fits = jax.block_until_ready(_fit_at(found, jnp.asarray(index), offsets))
    values, costs, converged = fits
    if not bool(converged.all()):
        raise RuntimeError(f"profile of {name}: {int((~converged).sum())} of {num} fits failed")
    deviance = np.asarray(costs) - float(found.cost)
    if np.isfinite(found.degrees_of_freedom) and found.problem.loss == "squares":
        # The noise is fitted as well, so D is n times the log of the ratio of the costs.
        deviance = found.problem.data.count * np.log1p(deviance / float(found.cost))
    return Profile(name, np.asarray(values), np.maximum(deviance, 0.0))


@watched
@eqx.filter_jit
def _fit_at(
    found: Identified, index: Int[Array, ""], offsets: Float[Array, " num"]
) -> tuple[Float[Array, " num"], Float[Array, " num"], Bool[Array, " num"]]:
    """The parameter's values, the costs with it held there, and whether the fits converged."""
    point, problem = found.fitted.point, found.problem
    mean, weight = problem.prior
    sd = jnp.sqrt(found.covariance[index, index]) / found.parameters.slope(point.p)[index]

    def at(offset):
        p = point.p.at[index].add(offset * sd)
        prior = mean.at[index].set(p[index]), weight.at[index].set(_EXACT / sd)
        fixed = dataclasses.replace(problem, prior=prior, held=found.fitted.scale)
        fitted = fit_windows(fixed, p, point.s, 300)
        return found.parameters.constrain(p)[index], fitted.cost, fitted.converged

    return jax.lax.map(at, offsets)
