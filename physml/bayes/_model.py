"""The posterior density of an equation's unknowns, as a function of one vector without bounds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from physml._numerics.checks import is_concrete
from physml.noises import Noise
from physml.pinn import FittedExperiment, Identified
from physml.systems import System

if TYPE_CHECKING:
    import numpyro.distributions.transforms

START, NOISE = "y0", "noise"  # the names of the unknowns that are no parameters
_LEAST = 1e-12  # the least eigenvalue of a correlation
_FAR, _FURTHEST = 30.0, 1e300  # where a prior has to exist: within bounds, and without


class EquationModel(eqx.Module):
    r"""Unknowns, priors, an equation and noisy observations of its solution.

    The unknowns are the free parameters, the start unless it is known, and the scales of the noise
    unless they are known. One vector q without bounds holds them: parameters transformed as
    `pinn.identify` does, start and scales by the logarithm or whatever takes all numbers to the
    support of their prior. The solution is computed by the classical Runge-Kutta method of order
    four with a fixed number of steps between observations, which JAX differentiates.
    """

    field: Any  # the free parameters of the system: field(t, y, p), with bounds
    edges: Float[np.ndarray | Array, " edges"]  # the steps' ends, from t0 on
    rows: np.ndarray  # of the edges that are times of observations
    ys: Float[Array, "n obs"]  # NaN where nothing was seen
    observe: Callable[[Array], Array]  # (dim,) to (obs,)
    noise: Noise
    priors: Mapping[str, Any]  # by name, with `log_prob` and `support`
    normal_prior: tuple[Array, Array]  # mean and 1 / sd of p, of `pinn.identify`
    known_start: Float[Array, " dim"] | None
    dim: int = eqx.field(static=True)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of entries of each unknown, in the order of q."""
        sizes = {name: place.stop - place.start for name, place in self.field.places().items()}
        if self.known_start is None:
            sizes[START] = self.dim
        if self.noise.scale_is_unknown:
            sizes[NOISE] = self.ys.shape[1]
        return sizes

    def places(self) -> dict[str, slice]:
        """Where each unknown stands in q."""
        ends = np.cumsum([0, *self.sizes.values()])
        return {n: slice(*map(int, ends[i : i + 2])) for i, n in enumerate(self.sizes)}

    def constrain(self, q: Float[Array, " q"]) -> dict[str, Array]:
        """The unknowns by name, within their bounds."""
        places, p = self.places(), self.field.constrain(q[: self._num_parameters])
        values = self.field.split(p)
        for name in (START, NOISE):
            if name in places:
                values[name] = self._transform(name)(q[places[name]])
        return values

    def unconstrain(self, values: Mapping[str, Array]) -> Float[Array, " q"]:
        """The inverse of `constrain`."""
        p = jnp.concatenate([jnp.ravel(values[name]) for name in self.field.names])
        rest = [self._transform(x).inv(values[x]) for x in (START, NOISE) if x in self.sizes]
        return jnp.concatenate([self.field.unconstrain(p), *rest])

    def log_density(self, q: Float[Array, " q"]) -> Float[Array, ""]:
        """The log of the prior's and the likelihood's product, with the transforms' Jacobian."""
        found = self.log_prior(q) + jnp.sum(self.log_likelihood(q))
        return jnp.where(jnp.isnan(found), -jnp.inf, found)

    def log_prior(self, q: Float[Array, " q"]) -> Float[Array, ""]:
        """The log of the prior density of q: flat in an unknown without a prior of its own.

        The flat prior of a scale is that of its logarithm.
        """
        values, p = self.constrain(q), q[: self._num_parameters]
        mean, weight = self.normal_prior
        total = jnp.sum(jnp.log(self.field.slope(p))) - 0.5 * jnp.sum((weight * (p - mean)) ** 2)
        for name, place in self.places().items():
            part, value = q[place], values[name]
            if name in self.priors:
                total += jnp.sum(self.priors[name].log_prob(value))
            if name == START or (name == NOISE and name in self.priors):
                slopes = self._transform(name).log_abs_det_jacobian(part, value)
                total += jnp.sum(slopes)
        return total

    def log_likelihood(self, q: Float[Array, " q"]) -> Float[Array, "n obs"]:
        """The log of the density of each observation; zero where nothing was seen."""
        values, scale = self.predict(q)
        seen = ~jnp.isnan(self.ys)
        found = self.noise.log_density(values, jnp.where(seen, self.ys, 1.0), scale)
        return jnp.where(seen, jnp.where(jnp.isnan(found), -jnp.inf, found), 0.0)

    def predict(self, q: Float[Array, " q"]) -> tuple[Float[Array, "n obs"], Array]:
        """What is observed, without noise, and the scale of the noise of each observation."""
        states = self.states(q)
        scale = self.constrain(q).get(NOISE) if self.noise.scale_is_unknown else self.noise.scale
        seen = jax.vmap(self.observe)(states)
        return seen, jnp.broadcast_to(jnp.asarray(1.0 if scale is None else scale), seen.shape)

    def states(self, q: Float[Array, " q"]) -> Float[Array, "n dim"]:
        """The solution at the observations."""
        values, p = self.constrain(q), q[: self._num_parameters]
        start = self.known_start if self.known_start is not None else values[START]
        edges = jnp.asarray(self.edges)

        def advance(y, ends):
            start, end = ends
            y = _step(lambda t, y: self.field(t, y, p), start, end, y)
            return y, y

        _, ys = jax.lax.scan(advance, start, (edges[:-1], edges[1:]))
        return jnp.concatenate([start[None], ys])[self.rows]

    @property
    def is_proper(self) -> bool:
        """Whether every unknown has a prior, without which the evidence has no meaning."""
        return set(self.sizes) <= set(self.priors)

    @property
    def _num_parameters(self) -> int:
        return sum(size for name, size in self.sizes.items() if name not in (START, NOISE))

    def _transform(self, name: str) -> "numpyro.distributions.transforms.Transform":
        from numpyro.distributions import biject_to, constraints

        free = constraints.positive if name == NOISE else constraints.real
        return biject_to(getattr(self.priors.get(name), "support", free))


def _step(
    f: Callable[[Array, Array], Array], a: Array, b: Array, y: Float[Array, " dim"]
) -> Float[Array, " dim"]:
    """One step from a to b. What the right-hand side is at b belongs to the next step."""
    h, last = b - a, jnp.maximum(a, jnp.nextafter(b, a))
    k1 = f(a, y)
    k2 = f(a + 0.5 * h, y + 0.5 * h * k1)
    k3 = f(a + 0.5 * h, y + 0.5 * h * k2)
    k4 = f(last, y + h * k3)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def equation_model(
    found: Identified, noise: Noise, priors: Mapping[str, Any], substeps: int
) -> EquationModel:
    """The model of what was identified.

    Raises:
        ValueError: a prior of no unknown, or one that excludes values within the bounds; a jumping
            equation whose times are traced; observations that the noise cannot have given.
    """
    problem, solution = found.problem, _only(found).solution
    data, starts = problem.data, problem.starts
    ys = jnp.where(data.seen, data.ys, jnp.nan)
    noise.check(ys)
    edges, rows = _edges(found.system, solution.ts, solution.t0, substeps)
    known = starts.guess[0] if starts.held[0] else None
    model = EquationModel(
        field=problem.field, edges=edges, rows=rows, ys=ys, observe=data.observers[0],
        noise=noise, priors=dict(priors), normal_prior=problem.prior, known_start=known,
        dim=solution.ys.shape[-1],
    )  # fmt: skip
    names = set(model.field.names)
    if names & {START, NOISE}:
        raise ValueError(f"found must have no free parameter named y0 or noise, got {names}")
    if set(priors) - set(model.sizes):
        raise ValueError(f"priors must name unknowns {tuple(model.sizes)}, got {sorted(priors)}")
    for name, prior in priors.items():
        _check_prior(model, name, prior)
    return model


def _only(found: Identified) -> FittedExperiment:
    """The experiment of what was identified from one, with a start of its own."""
    first, *others = found.experiments
    if others:
        raise ValueError(f"found must be of one experiment, got {len(found.experiments)}")
    if found.problem.starts.functions[0] is not None:
        raise ValueError("found must have a start that is free or known, got one that depends on p")
    return first


def noise_of(found: Identified) -> Noise:
    """The noise with which one experiment was identified; its scale is unknown as it was there."""
    own, likelihood = _only(found), found.problem.data.likelihood
    kind, *others = likelihood.kinds
    if others or len({x.is_estimated for x in likelihood.groups}) > 1:
        raise ValueError("noise must be given where the columns were identified with several")
    known = likelihood.is_known and kind.has_scale
    return dataclasses.replace(kind, scale=own.noise if known else None)


def _check_prior(model: EquationModel, name: str, prior: object) -> None:
    if not callable(getattr(prior, "log_prob", None)):
        raise TypeError(
            f"priors must hold distributions of numpyro or others with log_prob, "
            f"got {type(prior).__name__} for {name}"
        )
    support = getattr(prior, "support", None)
    if support is None or name in (START, NOISE) or not is_concrete(model.field.low):
        return
    place = model.field.places()[name]
    far = np.where(np.asarray(model.field.bounded), _FAR, _FURTHEST)
    for ends in (-far, far):
        value = model.field.constrain(jnp.asarray(ends))[place]
        if not np.all(np.asarray(support(value))):
            raise ValueError(
                f"priors must allow all values within the bounds, got for {name} one that allows "
                "fewer: give pinn.identify the bounds of the prior"
            )


def _edges(
    system: System, ts: Array | np.ndarray, t0: ArrayLike, substeps: int
) -> tuple[np.ndarray | Array, np.ndarray]:
    """The ends of the steps, and which of them are times of observations."""
    if is_concrete(ts):
        ts, start = np.asarray(ts), float(np.asarray(t0))
        jumps = np.zeros(0) if system.autonomous else system.jump_times(start, float(ts[-1]))
        ends = np.unique(np.concatenate([[start], ts, jumps]))
        rows = np.searchsorted(ends, ts)
    elif not system.autonomous:
        raise ValueError("found must not be traced where the equation depends on time")
    else:
        ends, rows = jnp.concatenate([jnp.atleast_1d(t0), ts]), np.arange(1, ts.shape[0] + 1)
    xp = np if isinstance(ends, np.ndarray) else jnp
    shares = np.arange(substeps) / substeps
    inner = ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * shares[None]
    return xp.concatenate([inner.ravel(), ends[-1:]]), rows * substeps


def at_times(model: EquationModel, times: Float[np.ndarray, " n"]) -> EquationModel:
    """The model with other times of observation, its steps not longer than before."""
    system, edges = model.field.system, np.asarray(model.edges)
    longest = np.max(np.diff(np.concatenate([edges[:1], times])))
    substeps = max(int(np.ceil(longest / np.max(np.diff(edges)))), 1)
    edges, rows = _edges(system, times, edges[0], substeps)
    return dataclasses.replace(model, edges=edges, rows=rows)


@eqx.filter_jit
def first_point(model: EquationModel, found: Identified) -> tuple[Array, Array]:
    """What was identified, as q, and a square root of its covariance there.

    They are the units of all that follows, which therefore does not depend on those of the data.
    """
    values, count = dict(found.values), found.estimate.shape[0]
    covariance = found.covariance if START in model.sizes else found.covariance[:count, :count]
    if START in model.sizes:
        values[START] = _inside(model, START, found.y0)
    if NOISE in model.sizes:
        spread = jnp.nanstd(model.ys, axis=0)
        scale = model.noise.guess(jax.vmap(model.observe)(found.solution.ys), model.ys)
        values[NOISE] = jnp.maximum(scale, 1e-12 * jnp.where(spread > 0, spread, 1.0))
        sd = values[NOISE] / np.sqrt(2.0 * len(model.ys))
        covariance = jax.scipy.linalg.block_diag(covariance, jnp.diag(sd**2))
    q = model.unconstrain(values)
    slopes = jax.jvp(model.constrain, (q,), (jnp.ones_like(q),))[1]
    sd = jnp.sqrt(jnp.diagonal(covariance))
    size = sd / jnp.abs(jnp.concatenate([jnp.ravel(slopes[name]) for name in model.sizes]))
    fallback = jnp.where(q == 0, 1.0, jnp.abs(q))
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, fallback)
    correlation = covariance / (sd[:, None] * sd[None])
    correlation = jnp.where(jnp.isfinite(correlation), correlation, jnp.eye(q.size))
    shares, vectors = jnp.linalg.eigh(correlation)
    return q, size[:, None] * vectors * jnp.sqrt(jnp.maximum(shares, _LEAST))[None]


def _inside(model: EquationModel, name: str, value: Array) -> Array:
    """A value that the unknown's prior allows: itself, or the median of what is allowed."""
    transform = model._transform(name)
    allowed = model.priors[name].support(value) if name in model.priors else True
    return jnp.where(allowed, value, transform(jnp.zeros_like(value)))
