"""Gaussian-process classification: the probabilities of classes, by Laplace's approximation."""

import time
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from physml._numerics.calls import checked, summary
from physml._numerics.checks import floating_array, require_count, require_finite, require_key
from physml._numerics.compiled import compiled
from physml._types import Numbers
from physml.bayes.gaussian_processes._gaussian_process import in_chunks, points_of, standardiser
from physml.bayes.gaussian_processes._kernels import (
    AnyKernel,
    gram,
    require_points,
    stacked,
    variances,
)
from physml.bayes.gaussian_processes._laplace import Mode, averaged_sigmoid, laplace
from physml.bayes.gaussian_processes._search import (
    Found,
    maximise,
    positive_parameters,
    threads_for,
    verdict,
)
from physml.data import Standardiser
from physml.results import RESULTS, conclude

_AT_ONCE = 1_000_000  # entries of the matrices that the search factorises side by side


class GaussianClassifier(eqx.Module):
    r"""The probabilities of classes by Gaussian processes, one for each class against the rest.

    The probability of a class is $\sigma(f(x))$ with $f$ a Gaussian process and $\sigma$ the
    logistic function. What the rows say of $f$ is not normal; Laplace's approximation takes the
    normal distribution round its mode. The probability is averaged over this distribution, so that
    it is near one half where there are no data. Those of more than two classes are divided by their
    sum.

    For classes that lie well apart the likelihood prefers a large variance of f, and then Laplace's
    approximation is too cautious: its probabilities are too near one half.

    Attributes:
        kernel: with its parameters; these have a leading axis for the processes: one of them for
            two classes, else one for each class.
        log_likelihood: the approximate log marginal likelihood of each process.
        x: the rows' inputs, standardised.
        slopes: the derivative of the log likelihood by f at the mode.
        roots: the square root of its second derivative, negated.
        factors: the Cholesky factor of I + W^(1/2) K W^(1/2), with W the squared roots.
        inputs: standardises inputs.

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
    section 3.4.
    """

    kernel: AnyKernel
    log_likelihood: Float[Array, " processes"]
    x: Float[Array, "rows inputs"]
    slopes: Float[Array, "processes rows"]
    roots: Float[Array, "processes rows"]
    factors: Float[Array, "processes rows rows"]
    inputs: Standardiser
    flat: bool = eqx.field(static=True)  # whether x came with one axis

    def __repr__(self) -> str:
        facts = {
            "kernel": type(self.kernel).__name__,
            "inputs": self.x.shape[1],
            "classes": max(2, len(self.slopes)),
            "log_likelihood": self.log_likelihood,
        }
        return summary("GaussianClassifier", facts)

    @checked
    def __call__(self, x: Numbers) -> Float[Array, "points classes"]:
        """The probability of every class at points, (points, inputs) or (points,)."""
        return _probabilities(self, self.inputs(points_of(x, self.inputs, self.flat)))


class GaussianClassifierFit(eqx.Module):
    """A fitted classifier and how it came about.

    Attributes:
        model: the result, a `GaussianClassifier`.
        log_likelihoods: the approximate log marginal likelihood from each start, (processes,
            starts); minus infinity where it could not be evaluated.
        result: how the search ended.
        steps: of each search, (processes, starts).
        seconds: without compiling.
        compile_seconds: of tracing and compiling.
    """

    model: GaussianClassifier
    log_likelihoods: Float[np.ndarray, "processes starts"]
    result: RESULTS
    steps: np.ndarray
    seconds: float
    compile_seconds: float


@checked
def fit_gaussian_classifier(
    kernel: AnyKernel,
    x: Numbers,
    labels: Int[Array | np.ndarray, " rows"],
    key: PRNGKeyArray,
    *,
    fixed: Sequence[str] = (),
    standardise: bool = True,
    search_rows: int | None = None,
    restarts: int = 4,
    max_steps: int = 200,
    throw: bool = True,
) -> GaussianClassifierFit:
    r"""Gaussian processes that give the probabilities of classes.

    The parameters of each process have the largest marginal likelihood in Laplace's approximation
    (Rasmussen and Williams, eq. 3.32),

    $$-\tfrac12 \hat f^\top K^{-1} \hat f + \log p(y \mid \hat f) - \tfrac12 \log |B|,
    \qquad B = I + W^{1/2} K W^{1/2},$$

    with the mode of f, and W the second derivative of minus the log likelihood there.

    Args:
        kernel: of this room or of tinygp, such as `1.0 * bayes.RBF()`. Every floating leaf is a
            positive parameter and is searched for. Its variance says how sure classes can be.
        x: inputs of the rows, (rows, inputs) or (rows,).
        labels: the class of each row, 0, 1, ...; each class has a row at least.
        key: for the random starts.
        fixed: names of parameters that stay as they are.
        standardise: whether inputs are brought to mean 0 and standard deviation 1. If not, the
            kernel's scales are in the units of the inputs.
        search_rows: rows, drawn by the key, on which the parameters are searched for; all unless
            given. The processes are always given all rows.
        restarts: random starts besides the kernel itself.
        max_steps: of each search, at most.
        throw: whether a failure raises.

    Returns:
        A `GaussianClassifierFit`. Its result is `successful`; `at_bound`, which warns, if the
        likelihood grows up to the end of what is searched, as it does for classes that nothing
        mixes; or a failure: `not_converged`, `not_positive_definite`.

    Raises:
        TypeError, ValueError: data of the wrong shape or that are not finite, a class without a
            row, a kernel that does not fit the inputs, a parameter that is not positive.
        RuntimeError: the search failed, and `throw` is set.

    Example:
        >>> x = jnp.linspace(-1.0, 1.0, 20)
        >>> labels = (x + 0.3 * jnp.sin(40.0 * x) > 0).astype(int)
        >>> fitted = bayes.fit_gaussian_classifier(1.0 * bayes.RBF(), x, labels, key)
        >>> fitted.model(jnp.array([0.9]))[0, 1] > 0.8
        Array(True, dtype=bool)

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
    sections 3.4 and 5.5.1.
    """
    require_count(0, restarts=restarts)
    require_count(max_steps=max_steps)
    require_key(key=key)
    rows = floating_array("x", x)
    if rows.ndim not in (1, 2) or 0 in rows.shape:
        raise ValueError(f"x must have shape (rows,) or (rows, columns), got shape {rows.shape}")
    require_finite("x", rows)
    signs = _signs(labels, len(rows), rows.dtype)
    columns = rows[:, None] if rows.ndim == 1 else rows
    inputs = standardiser(columns, standardise)
    points = inputs(columns)
    require_points(kernel, points)
    free, rest = positive_parameters("kernel", kernel, fixed, points.dtype)
    if not jax.tree.leaves(free):
        raise ValueError(f"fixed must leave something to fit, got {fixed!r}")
    searched = slice(None)
    if search_rows is not None:
        require_count(1, (len(rows), "the number of rows"), search_rows=search_rows)
        searched = jax.random.permutation(key, len(rows))[:search_rows]
    arguments = (free, rest, points[searched], signs[:, searched], key, restarts, max_steps)
    program, compile_seconds = compiled(_fit, *arguments)
    begin = time.perf_counter()
    with threads_for(len(points[searched])):
        found = jax.block_until_ready(program(*arguments))
    kernels = eqx.combine(found.parameters, stacked(rest, len(signs)))
    with threads_for(len(points)):
        modes = jax.block_until_ready(_conditioned(kernels, points, signs))
    model = GaussianClassifier(
        kernel=kernels,
        log_likelihood=modes.log_likelihood,
        x=points,
        slopes=modes.slope,
        roots=modes.root,
        factors=modes.factor,
        inputs=inputs,
        flat=rows.ndim == 1,
    )
    result, details = verdict(found)
    fitted = GaussianClassifierFit(
        model=model,
        log_likelihoods=np.asarray(found.values),
        result=result,
        steps=np.asarray(found.steps),
        seconds=time.perf_counter() - begin,
        compile_seconds=compile_seconds,
    )
    return conclude(fitted, result, "bayes.fit_gaussian_classifier", details, throw=throw)


def _signs(
    labels: Array | np.ndarray, rows: int, dtype: np.dtype
) -> Float[Array, "processes rows"]:
    """+1 where a row is of the class of a process, else -1; one process for two classes."""
    classes = np.asarray(labels)
    if len(classes) != rows:
        raise ValueError(f"labels must have {rows} rows, as x has, got {len(classes)}")
    least, most = classes.min(), classes.max()
    if least < 0 or most < 1:
        raise ValueError(f"labels must be 0, 1, ... of two classes or more, got {least} to {most}")
    counts = np.bincount(classes)
    if not counts.all():
        absent = int(np.argmin(counts))
        raise ValueError(f"labels must hold every class from 0 to {most}, got none of {absent}")
    asked = np.arange(1, 2) if len(counts) == 2 else np.arange(len(counts))
    return jnp.asarray(np.where(classes[None] == asked[:, None], 1.0, -1.0), dtype)


def _fit(
    start: PyTree,
    rest: AnyKernel,
    x: Array,
    signs: Float[Array, "processes rows"],
    key: PRNGKeyArray,
    restarts: int,
    max_steps: int,
) -> Found:
    """The parameters of every process with the largest likelihood."""

    def value(parameters: PyTree, y: Array) -> Array:
        return laplace(gram(eqx.combine(parameters, rest), x, x), y).log_likelihood

    at_once = max(1, _AT_ONCE // len(x) ** 2)
    return maximise(value, start, signs, key, restarts, max_steps, len(x), at_once)


@eqx.filter_jit
def _conditioned(kernels: AnyKernel, x: Array, signs: Array) -> Mode:
    return eqx.filter_vmap(lambda kernel, y: laplace(gram(kernel, x, x), y))(kernels, signs)


@eqx.filter_jit
def _probabilities(model: GaussianClassifier, points: Array) -> Float[Array, "points classes"]:
    def work(points: Array) -> Array:
        def one(kernel: AnyKernel, slope: Array, root: Array, factor: Array) -> Array:
            across = gram(kernel, points, model.x)
            known = solve_triangular(factor, root[:, None] * across.T, lower=True)
            variance = variances(kernel, points) - jnp.sum(known**2, axis=0)
            return averaged_sigmoid(across @ slope, jnp.sqrt(jnp.maximum(variance, 0.0)))

        each = eqx.filter_vmap(one)(model.kernel, model.slopes, model.roots, model.factors)
        if len(each) == 1:
            return jnp.stack([1.0 - each[0], each[0]], axis=1)
        return (each / jnp.sum(each, axis=0)[None]).T

    return in_chunks(work, points)
