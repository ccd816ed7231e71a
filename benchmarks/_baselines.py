"""What surrogates are compared with: simple next-step maps, each a `StepMap`.

A baseline chooses its ridge or its recipe on validation trajectories, and predicts increments from
standardised states, so that none is worse because of how it is set up.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml import dynamics, fit
from physml.data import Standardiser, Trajectories
from physml.step_maps import StepMap

RIDGES = tuple(10.0**k for k in range(-14, -3))  # relative to the largest singular value squared


class _Memoryless(StepMap):
    """A step map whose state is the observation."""

    def init(self, history, t0):
        return history[-1]

    def observe(self, state):
        return state


class Persistence(_Memoryless):
    """The forecast that nothing changes."""

    dt: float = eqx.field(static=True)

    def step(self, state):
        return state


class Single(StepMap):
    """Another map evaluated in float32; observations go in and come out in float64."""

    inner: StepMap
    dt: float = eqx.field(static=True)

    def init(self, history, t0):
        return self.inner.init(history.astype(jnp.float32), jnp.asarray(t0, jnp.float32))

    def step(self, state):
        return self.inner.step(state)

    def observe(self, state):
        return self.inner.observe(state).astype(jnp.float64)


class Polynomial(_Memoryless):
    """y + P(y) with a polynomial P in products of Chebyshev polynomials."""

    weights: Float[Array, "terms dim"]
    centre: Float[Array, " dim"]
    reach: Float[Array, " dim"]
    powers: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def step(self, state):
        return state + self.features(state) @ self.weights

    def features(self, y: Float[Array, " dim"]) -> Float[Array, " terms"]:
        """T_a(x_1) T_b(x_2) ... with x in [-1, 1] over the training data."""
        powers = np.asarray(self.powers)
        x = (y - self.centre) / self.reach
        ladder = [jnp.ones_like(x), x]
        for _ in range(2, powers.max() + 1):
            ladder.append(2.0 * x * ladder[-1] - ladder[-2])
        values = jnp.stack(ladder)
        factors = [values[powers[:, i], i] for i in range(len(x))]
        return jnp.prod(jnp.stack(factors), axis=0)


def polynomial(
    train: Trajectories, degree: int, *, signs: Sequence[float] | None = None
) -> Polynomial:
    """Fit all polynomials up to a total degree by least squares (QR, SVD, one refinement).

    Args:
        train: the trajectories.
        degree: the total degree, at least 1.
        signs: a symmetry that turns the sign of some components, +1 or -1 for each; the odd
            components of the increment are then fitted by odd polynomials, the even ones by even.
    """
    inputs, targets, _ = train.pairs()
    dim = inputs.shape[1]
    parity = np.ones(dim) if signs is None else np.asarray(signs)
    low, high = inputs.min(axis=0), inputs.max(axis=0)
    centre = jnp.where(jnp.asarray(parity) < 0, 0.0, (low + high) / 2)
    reach = jnp.maximum(high - centre, centre - low)
    powers = [p for p in itertools.product(range(degree + 1), repeat=dim) if sum(p) <= degree]

    def with_terms(terms: Iterable[int], weights: Array) -> Polynomial:
        kept = tuple(powers[i] for i in terms)
        return Polynomial(weights=weights, centre=centre, reach=reach, powers=kept, dt=train.dt)

    weights = np.zeros((len(powers), dim))
    term_parity = np.prod(parity ** np.asarray(powers), axis=1)  # T_n is odd or even as n is
    for sign in np.unique(parity):
        kept, components = np.flatnonzero(term_parity == sign), np.flatnonzero(parity == sign)
        part = with_terms(kept, jnp.zeros((len(kept), dim)))
        # One refinement is worth three Lyapunov times at degree 11.
        fitted = fit.readout(
            eqx.filter_vmap(part.features), (targets - inputs)[:, components], inputs=inputs,
            rcond=1e-15, refinements=1,
        )  # fmt: skip
        weights[np.ix_(kept, components)] = fitted.weights
    return with_terms(range(len(powers)), jnp.asarray(weights))


class Reservoir(StepMap):
    """y' = y + C f with the features f of a fixed rule: (memory, y) -> (new memory, f)."""

    weights: Float[Array, "features dim"]
    rule: Any
    dt: float = eqx.field(static=True)

    def init(self, history, t0):
        memory, _ = _features_along(self.rule, history[0], history[:-1])
        return history[-1], memory

    def step(self, state):
        y, memory = state
        memory, features = self.rule(memory, y)
        return y + features @ self.weights, memory

    def observe(self, state):
        return state[0]


def _features_along(rule: Any, first: Array, ys: Float[Array, "time dim"]) -> tuple[Array, Array]:
    """The memory after a series of observations, and the features of each of them."""
    return jax.lax.scan(lambda memory, y: rule(memory, y), rule.start(first), ys)


@eqx.filter_jit
def _features_of(rule: Any, ys: Float[Array, "num time dim"]) -> Array:
    return jax.vmap(lambda ys: _features_along(rule, ys[0], ys[:-1])[1])(ys)


class Products(eqx.Module):
    """All products of up to `order` standardised components of the last two states."""

    inputs: Standardiser
    factors: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def start(self, y: Array) -> Array:
        return y

    def __call__(self, before: Array, y: Array) -> tuple[Array, Array]:
        # Component 0 is the number one, which pads the shorter products.
        x = jnp.concatenate([jnp.ones(1, y.dtype), self.inputs(y), self.inputs(before)])
        return y, jnp.prod(x[np.asarray(self.factors)], axis=1)


def next_generation(
    train: Trajectories, valid: Trajectories, order: int, ridges: Sequence[float] = RIDGES
) -> Reservoir:
    """Fit a next-generation reservoir, y' = y + C (products of the last two states).

    Source: D. J. Gauthier, E. Bollt, A. Griffith, W. A. S. Barbosa, Nat. Commun. 12 (2021) 5564.
    """
    components = range(2 * train.ys.shape[2] + 1)
    factors = tuple(itertools.combinations_with_replacement(components, order))
    rule = Products(Standardiser.fit(train.ys[:, :-1]), factors)
    return _best_ridge(rule, train, valid, ridges, washout=1, block=len(train))[1]


class Echo(eqx.Module):
    """The memory r' = tanh(W r + V u + b) of standardised states u, and the features (1, u, r')."""

    inputs: Standardiser
    recurrent: Float[Array, "units units"]
    incoming: Float[Array, "dim units"]
    bias: Float[Array, " units"]

    def start(self, y: Array) -> Array:
        return jnp.zeros_like(self.bias)

    def __call__(self, memory: Array, y: Array) -> tuple[Array, Array]:
        u = self.inputs(y)
        memory = jnp.tanh(memory @ self.recurrent + u @ self.incoming + self.bias)
        return memory, jnp.concatenate([jnp.ones(1, y.dtype), u, memory])


def echo_state(
    train: Trajectories,
    valid: Trajectories,
    seed: int,
    *,
    units: int = 1000,
    trial_units: int = 200,
    radii: Sequence[float] = (0.1, 0.4, 0.9),
    input_scales: Sequence[float] = (0.1, 0.3, 1.0),
    washout: int = 100,
    ridges: Sequence[float] = RIDGES,
) -> Reservoir:
    """Fit an echo state network; its settings are those whose validation forecasts last longest.

    Source: H. Jaeger, The echo state approach, GMD report 148 (2001).

    Args:
        train, valid: the trajectories, longer than `washout`.
        seed: seed of the network's fixed weights.
        units: how many units; each is connected to 10 % of the others.
        trial_units: units of the smaller networks by which radius and scale are chosen.
        radii: spectral radii of the recurrent weights to try.
        input_scales: factors to try on the input weights and biases, uniform in [-1, 1].
        washout: steps left out at the start of each trajectory, while the memory fills.
        ridges: the ridges to try.
    """

    def fitted(units: int, radius: float, input_scale: float) -> tuple[float, Reservoir]:
        random, dim = np.random.default_rng(seed), train.ys.shape[2]
        recurrent = random.normal(size=(units, units)) * (random.random((units, units)) < 0.1)
        recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
        incoming = input_scale * random.uniform(-1, 1, (dim, units))
        bias = input_scale * random.uniform(-1, 1, units)
        scaled = Standardiser.fit(train.ys[:, :-1])
        rule = Echo(scaled, *map(jnp.asarray, (recurrent, incoming, bias)))
        # The features of ten trajectories are 60 MB.
        return _best_ridge(rule, train, valid, ridges, washout=washout, block=10)

    grid = itertools.product(radii, input_scales)
    best = max(grid, key=lambda setting: fitted(trial_units, *setting)[0])
    return fitted(units, *best)[1]


def _best_ridge(
    rule: Any, train: Trajectories, valid: Trajectories, ridges: Sequence[float], *, washout: int,
    block: int,
) -> tuple[float, Reservoir]:  # fmt: skip
    """Try all ridges; return the mean valid time of the best one in validation, and its model.

    W = V s / (s^2 + ridge s_1^2) U' T from the SVD of the features, reduced by QR in blocks of
    trajectories.
    """
    dim = train.ys.shape[2]
    triangle: np.ndarray | None = None
    for first in range(0, len(train), block):
        ys = train.ys[first : first + block]
        columns = (_features_of(rule, ys), ys[:, 1:] - ys[:, :-1])
        rows = np.concatenate([np.asarray(x)[:, washout:] for x in columns], axis=2)
        rows = rows.reshape(-1, rows.shape[2])
        rows = rows if triangle is None else np.concatenate([triangle, rows])
        triangle = np.asarray(np.linalg.qr(rows, mode="r"))
    assert triangle is not None  # there is a trajectory
    size = triangle.shape[1] - dim
    u, s, vt = np.linalg.svd(triangle[:size, :size])
    projected = u.T @ triangle[:size, size:]
    scale = valid.ys.reshape(-1, dim).std(axis=0)
    tried = []
    for ridge in ridges:
        weights = vt.T @ ((s / (s**2 + ridge * s[0] ** 2))[:, None] * projected)
        fitted = Reservoir(weights=jnp.asarray(weights), rule=rule, dt=train.dt)
        truth = valid.ys[:, washout:]
        predicted = dynamics.rollout(fitted, valid.ys[:, : washout + 1], truth.shape[1] - 1)
        found = dynamics.valid_prediction_time(predicted, truth, fitted.dt, scale=scale)
        tried.append((float(found.times.mean()), ridge, fitted))
    time, _, best = max(tried, key=lambda trial: trial[:2])
    return time, best
