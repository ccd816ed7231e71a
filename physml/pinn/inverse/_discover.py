"""An unknown term of an equation: found as a network, then written as a few monomials."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

from physml._numerics import checks
from physml._numerics.calls import checked
from physml._types import Numbers
from physml.nn import MLP
from physml.pinn.inverse import _task as task
from physml.pinn.inverse._experiments import Experiment, as_experiments
from physml.pinn.inverse._identified import Identified
from physml.pinn.inverse._identify import identify
from physml.pinn.inverse._layout import smoother
from physml.pinn.inverse._selection import SIGNIFICANT, Scaled, choose, exponents_up_to, sparse
from physml.results import RESULTS, conclude, is_failure
from physml.solution import in_vectors
from physml.systems import System, from_function
from physml.systems.states import Form

_SHOWN = 3  # rivals that the warning names


class Discovery(NamedTuple):
    """Unknown terms, as monomials and as networks.

    Attributes:
        names: the monomials whose sum is the term, such as `x^3` or `x v^2`.
        components: in which component's equation each of them stands.
        coefficients: their coefficients, fitted to the data within the equation.
        sd: the coefficients' standard deviations.
        found: the fit with the monomials; its `system` has the terms in place.
        network: the fit with the terms as networks.
        candidates: by monomial, the coefficients of the sparse regression on the network; for
            several components a dict for each, by the component's name.
        rivals: other sums of as many monomials that explain the data about as well, each written
            like `dx/dt: x v, dv/dt: x^2`; empty where the data single one out.
    """

    names: tuple[str, ...]
    components: tuple[int, ...]
    coefficients: Float[np.ndarray, " terms"]
    sd: Float[np.ndarray, " terms"]
    found: Identified
    network: Identified
    candidates: dict[str, Any]
    rivals: tuple[str, ...] = ()

    def __str__(self) -> str:
        terms = zip(self.names, self.coefficients, self.sd, self.components, strict=True)
        completed: Any = self.found.system
        lines: dict[int, list[str]] = {i: [] for i in completed.function.components}
        for name, value, sd, component in terms:
            lines[component].append(f"{value:+.4g} (± {sd:.1g}) {name}")
        if len(lines) == 1:
            return " ".join(*lines.values())
        variables = self.found.system.state_names
        return "\n".join(f"d{variables[i]}/dt: {' '.join(words)}" for i, words in lines.items())

    @checked
    def term(self, ys: ArrayLike) -> tuple[Float[Array, "n *terms"], Float[Array, "n *terms"]]:
        """The term at states of shape (n, dim): by the monomials, and by the network.

        Shape (n,) each, or (n, components) if several components lack a term.
        """
        return _term(self.found, jnp.asarray(ys)), _term(self.network, jnp.asarray(ys))


@checked
def discover(
    system: System,
    ts: Numbers | Sequence[Experiment],
    ys: Numbers | None = None,
    *,
    component: int | Sequence[int],
    inputs: Sequence[int] | None = None,
    degree: int = 3,
    threshold: float = 0.1,
    units: int = 40,
    size: float | None = None,
    key: PRNGKeyArray,
    observe: Sequence[int] | None = None,
    **options: Any,
) -> Discovery:
    r"""The term g that an equation lacks, $\dot y_i = f_i(t, y) + g_i(y)$, from observations.

    First g is a network with a frozen hidden layer, whose readout `identify` finds together with
    the solution. Then g is a sum of all monomials, found in the same way, with a prior about zero.
    With the covariance of their coefficients the fewest are chosen that the data need, and these
    are fitted again; one whose coefficient is not significantly different from zero is left out.
    Several components may lack terms, which are found and chosen together.

    Args:
        system: the known part of the right-hand side. States that are no vectors are those of its
            `structure`; their components are counted, named and observed as in `state_names`.
        ts, ys: the observations, or several `Experiment`s that see the same components, as for
            `identify`.
        component: i, whose equation lacks the term; or several.
        inputs: the components that g depends on, each of them observed; all observed components
            unless given.
        degree: the highest degree of the monomials; the constant is one of them.
        threshold: the share of g's root mean square below which a monomial is dropped.
        units: tanh units of the network.
        size: the standard deviation of the prior of the network's readout weights, and of each
            monomial's typical value while all of them are fitted, in the component's units per
            time; the term may be a few times larger. Unless given, it is ten times the root mean
            square of the observed component's slope.
        key: draws the network's hidden layer.
        observe: indices of the observed components; all unless given.
        options: of `identify`: `y0`, `noise`, `loss`, `num_windows`, ...

    Raises:
        TypeError, ValueError, RuntimeError: as `identify` does.
        RuntimeError: no monomial is significant.

    Warns:
        UserWarning: other sums of as many monomials explain the data about as well, `rivals`, or
            what `identify` warns of.

    Source of the regression: S. L. Brunton, J. L. Proctor, J. N. Kutz, "Discovering governing
    equations from data by sparse identification of nonlinear dynamical systems", PNAS 113 (2016).

    Example:
        >>> ts = np.linspace(0.0, 6.0, 100)
        >>> noise = 0.001 * np.random.default_rng(0).standard_normal((100, 1))
        >>> ys = 1 / (1 + 9 * np.exp(-ts))[:, None] + noise  # of y' = y - y^2
        >>> growth = systems.from_function(lambda t, y, args: y, 1, state_names=("y",))
        >>> found = pinn.discover(growth, ts, ys, component=0, degree=2, units=10, key=key)
        >>> print(found.names, found.coefficients.round(2))
        ('y^2',) [-1.]
    """
    if not isinstance(system, System):
        raise TypeError(f"system must be a System, got {type(system).__name__}")
    lacking = tuple(component) if isinstance(component, Sequence) else (component,)
    known_args, t0 = options.pop("args", None), options.get("t0")
    observe = tuple(range(system.dim)) if observe is None else tuple(observe)
    inputs = observe if inputs is None else tuple(inputs)
    checks.require_count(degree=degree, units=units)
    checks.require_inner_share(threshold=threshold)
    task.require_double("pinn.discover")
    experiments = as_experiments(ts, ys)
    seen = task.check_seen(system, experiments, lacking, inputs, observe)
    sizes = [_typical_slope(experiments, i, observe) if size is None else size for i in lacking]
    for value in sizes:
        checks.require_positive(size=value)
    keys = [key] if len(lacking) == 1 else jax.random.split(key, len(lacking))
    hidden = tuple(
        _Hidden(MLP.frozen(seen, units, 1, scale=0.5, rngs=nnx.Rngs(own))) for own in keys
    )
    options = {"observe": observe, **options}
    search = _Search(system, lacking, inputs, known_args, experiments, t0, options)
    with warnings.catch_warnings():  # the prior holds this fit off the data, as it should
        warnings.filterwarnings("ignore", f".*{re.escape(RESULTS[RESULTS.noise_contradicted])}")
        prior = dict(zip(search.weights, sizes, strict=True))
        smooth = search.fit(hidden, [np.zeros(units)] * len(lacking), prior=prior)
    exponents = exponents_up_to(degree, len(inputs))
    coefficients, columns, values = _regress(smooth, exponents, inputs, threshold)
    names = _Monomials(exponents).names([system.state_names[i] for i in inputs])
    candidates = [{names[j]: float(row[j]) for j in np.flatnonzero(row)} for row in coefficients]
    variables = [system.state_names[i] for i in lacking]
    several = dict(zip(variables, candidates, strict=True))
    every = _choices(search, exponents, coefficients, columns, sizes)
    every = np.where(np.abs(every) * columns < threshold * values[:, None], 0.0, every)
    equations, kept, found = _fit_significant(search.fit, exponents, every[0])
    rivals = {_in_words(x, names, variables): None for x in every != 0 if x.sum() <= kept.size}
    chosen = np.zeros(coefficients.shape, bool)
    chosen[equations, kept] = True
    rivals.pop(_in_words(chosen, names, variables), None)
    values, sd = _weights(found)
    discovery = Discovery(
        names=tuple(names[j] for j in kept),
        components=tuple(lacking[i] for i in equations),
        coefficients=values,
        sd=sd,
        found=found,
        network=smooth,
        candidates=several if len(lacking) > 1 else candidates[0],
        rivals=tuple(rivals),
    )
    result = RESULTS.unidentifiable if rivals else RESULTS.successful
    details = f"Other terms explain them about as well: {'; '.join([*rivals][:_SHOWN])}."
    return conclude(discovery, result, "pinn.discover", details, throw=True)


class _Search(NamedTuple):
    """What is known of an equation that lacks terms, and what was observed."""

    system: System
    lacking: tuple[int, ...]
    inputs: tuple[int, ...]
    known_args: PyTree
    experiments: Sequence[Experiment]
    t0: float | None
    options: dict[str, Any]  # of `identify`

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the terms' weights among the arguments."""
        single = len(self.lacking) == 1
        return ("weights",) if single else tuple(f"weights_{i}" for i in self.lacking)

    def fit(
        self, features: tuple[Callable, ...], first: Sequence[np.ndarray], **more: Any
    ) -> Identified:
        """The fit with terms of these features, from these weights."""
        system, names = self.system, self.weights
        start = min(x.start_time for x in self.experiments)
        start = start if self.t0 is None else min(start, self.t0)
        end = max(float(x.ts[-1]) for x in self.experiments)
        guess = {n: jnp.asarray(x, jnp.float64) for n, x in zip(names, first, strict=True)}
        structure = getattr(system, "structure", None)
        completed = from_function(
            _Completed(system, self.lacking, names, self.inputs, features, self.known_args),
            None if structure else system.dim,
            like=structure,
            state_names=system.state_names,
            autonomous=None if system.autonomous else False,
            args=guess,
            jumps=tuple(system.jump_times(start, end)),
        )
        free = tuple(name for name, x in guess.items() if x.size)
        return identify(completed, self.experiments, free=free, **{**more, **self.options})


def _typical_slope(
    experiments: Sequence[Experiment], component: int, observe: tuple[int, ...]
) -> float:
    """Ten times the root mean square of the component's slope, of smoothed data."""
    if component not in observe:
        raise ValueError(
            "size must be given where the component that lacks the term is not observed, got None"
        )
    slopes = []
    for experiment in experiments:
        values = np.asarray(experiment.ys)[:, observe.index(component)]
        own = ~np.isnan(values)
        times = np.unique(experiment.ts[own])
        if len(times) > 1:
            rows, weights = smoother(experiment.ts[own], times)
            smoothed = np.einsum("ak,ak->a", weights, values[own][rows])
            slopes.append(np.gradient(smoothed, times))
    return 10.0 * float(np.sqrt(np.mean(np.concatenate(slopes) ** 2))) if slopes else 0.0


def _term(fitted: Identified, ys: Float[Array, "n dim"]) -> Float[Array, "n *terms"]:
    """The terms of a completed equation, at states."""
    completed: Any = fitted.system
    terms = jax.vmap(completed.function.terms, (0, None))(ys, fitted.args)
    return terms[:, 0] if terms.shape[1] == 1 else terms


def _weights(fitted: Identified) -> tuple[Float[np.ndarray, " all"], Float[np.ndarray, " all"]]:
    """The weights of all terms, one equation after the other, and their standard deviations."""
    values = [np.asarray(fitted.values[name]) for name in fitted.parameters.names]
    return np.concatenate(values), np.concatenate([np.asarray(x) for x in fitted.sd.values()])


class _Regressed(NamedTuple):
    """Networks' terms, as sums of monomials, and the root mean squares of both."""

    coefficients: Float[np.ndarray, "equations terms"]
    monomials: Float[np.ndarray, " terms"]
    terms: Float[np.ndarray, " equations"]


def _regress(
    smooth: Identified,
    exponents: Int[np.ndarray, "terms inputs"],
    inputs: tuple[int, ...],
    threshold: float,
) -> _Regressed:
    """The monomials' coefficients that explain the networks' terms along their solutions."""
    states = np.concatenate([np.asarray(in_vectors(x.solution).ys) for x in smooth.experiments])
    columns = _Monomials(exponents).columns(states[:, list(inputs)])
    values = np.asarray(_term(smooth, jnp.asarray(states))).reshape(len(states), -1)
    coefficients = np.stack([sparse(columns, term, threshold) for term in values.T])
    rms = [np.sqrt(np.mean(x**2, axis=0)) for x in (columns, values)]
    return _Regressed(coefficients, rms[0], rms[1])


def _choices(
    search: _Search,
    exponents: Int[np.ndarray, "terms inputs"],
    first: Float[np.ndarray, "equations terms"],
    columns: Float[np.ndarray, " terms"],
    sizes: Sequence[float],
) -> Float[np.ndarray, "choices equations terms"]:
    """The monomials that the data need, once all of them are fitted, the best choice first.

    It is `first` alone, which explains the networks, where all of them cannot be fitted.
    """
    scaled = Scaled(_Monomials(exponents), tuple(columns.tolist()))
    prior = dict(zip(search.weights, sizes, strict=True))
    with warnings.catch_warnings():  # what this fit is worth is in its covariance
        warnings.simplefilter("ignore", UserWarning)
        features = (scaled,) * len(first)
        zero = [np.zeros(columns.size)] * len(first)  # which the prior is about
        full = search.fit(features, zero, prior=prior, throw=False)
    weights, unknowns = np.asarray(full.estimate), np.asarray(full.fitted.triangle)
    if is_failure(full.result) or not np.isfinite(unknowns).all():
        return first[None]
    dim = search.system.dim  # the rows of the weights follow those of the first start
    root = unknowns[dim : dim + weights.size, -weights.size :]
    covariance = np.asarray(full.covariance)[: weights.size, : weights.size]
    freedom = full.degrees_of_freedom
    if np.isfinite(freedom):  # which does not count what has a prior, as far as data determine it
        by_prior = np.diag(covariance) / np.repeat(sizes, first.shape[1]) ** 2
        root = root * np.sqrt(max(freedom - np.sum(1 - by_prior), 1.0) / freedom)
    return choose(weights, root).reshape(-1, *first.shape) / columns


def _in_words(
    chosen: Bool[np.ndarray, "equations terms"], names: Sequence[str], variables: Sequence[str]
) -> str:
    """Such as `dx/dt: x v + x^2, dv/dt: 1`."""
    kept = ([name for name, x in zip(names, row, strict=True) if x] for row in chosen)
    pairs = zip(variables, kept, strict=True)
    return ", ".join(f"d{v}/dt: {' + '.join(words) or '0'}" for v, words in pairs)


def _fit_significant(
    fit: Callable[[tuple[Callable, ...], Sequence[np.ndarray]], Identified],
    exponents: Int[np.ndarray, "terms inputs"],
    coefficients: Float[np.ndarray, "equations terms"],
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"], Identified]:
    """Which monomials of which equations stay once insignificant ones are dropped, and the fit."""
    equations, kept = np.nonzero(coefficients)
    while kept.size:
        own = [kept[equations == i] for i in range(len(coefficients))]
        features = tuple(_Monomials(exponents[places]) for places in own)
        first = [row[places] for row, places in zip(coefficients, own, strict=True)]
        found = fit(features, first)
        weights, sd = _weights(found)
        weakest = int(np.argmin(np.abs(weights) / sd))
        if abs(weights[weakest]) > SIGNIFICANT * sd[weakest]:
            return equations, kept, found
        equations, kept = np.delete(equations, weakest), np.delete(kept, weakest)
    raise RuntimeError("pinn.discover: no monomial is significantly different from zero")


class _Completed(eqx.Module):
    """The right-hand side with terms that are linear in their weights added to components."""

    system: System
    components: tuple[int, ...] = eqx.field(static=True)
    weights: tuple[str, ...] = eqx.field(static=True)  # their names among the arguments
    inputs: tuple[int, ...] = eqx.field(static=True)
    features: tuple[Callable, ...]  # of each component
    known_args: PyTree  # of the system

    def terms(self, y: Float[Array, " dim"], args: PyTree) -> Float[Array, " components"]:
        seen = y[np.asarray(self.inputs)]
        pairs = zip(self.features, self.weights, strict=True)
        return jnp.stack([features(seen) @ args[name] for features, name in pairs])

    def __call__(self, t: ArrayLike, y: PyTree, args: PyTree) -> PyTree:
        form = Form(getattr(self.system, "structure", None))
        y = y if form.structure is None else form.structure.ravel(y)
        known = self.system(t, y, self.known_args)
        return form.state(known.at[np.asarray(self.components)].add(self.terms(y, args)))


class _Hidden(eqx.Module):
    """The features of a network whose hidden layer is frozen."""

    network: MLP

    def __call__(self, y: Float[Array, " inputs"]) -> Float[Array, " units"]:
        return self.network.features(y)


class _Monomials(eqx.Module):
    """The products of powers that are given by rows of exponents."""

    exponents: tuple[tuple[int, ...], ...] = eqx.field(
        static=True, converter=lambda rows: tuple(tuple(int(n) for n in row) for row in rows)
    )

    def __call__(self, y: Float[Array, " inputs"]) -> Float[Array, " terms"]:
        rows = [[x**n for x, n in zip(y, row, strict=True)] for row in self.exponents]
        products = [jnp.prod(jnp.stack(row)) for row in rows]
        return jnp.stack(products) if products else jnp.zeros(0, y.dtype)

    def columns(self, ys: Float[np.ndarray, "n inputs"]) -> Float[np.ndarray, "n terms"]:
        """The monomials' values at many points, on the host."""
        return np.prod(ys[:, None] ** np.array(self.exponents), axis=2)

    def names(self, variables: Sequence[str]) -> list[str]:
        """Such as "x^3", "x v^2" or "1"."""
        rows = [zip(variables, row, strict=True) for row in self.exponents]
        return [" ".join(x if n == 1 else f"{x}^{n}" for x, n in row if n) or "1" for row in rows]
