"""Fitting Gaussian processes: the parameters with the largest marginal likelihood."""

import time
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_key
from physml._numerics.compiled import compiled
from physml._types import Numbers
from physml.bayes.gaussian_processes._gaussian_process import GaussianProcess, Solver, Task
from physml.bayes.gaussian_processes._kernels import AnyKernel, stacked
from physml.bayes.gaussian_processes._search import (
    Found,
    maximise,
    positive_parameters,
    threads_for,
    verdict,
)
from physml.results import RESULTS, conclude

_FIRST_NOISE = 0.1  # where the search for the noise starts, in standard deviations of the values
_AT_ONCE = 1_000_000  # entries of the matrices that the search factorises side by side


class GaussianProcessFit(eqx.Module):
    """A fitted Gaussian process and how it came about.

    Attributes:
        model: the result, a `GaussianProcess`.
        log_likelihoods: the log marginal likelihood reached from each start, (groups, starts);
            minus infinity where the kernel's matrix was not positive definite.
        result: how the search ended.
        steps: of each search, (groups, starts).
        seconds: without compiling.
        compile_seconds: of tracing and compiling.
    """

    model: GaussianProcess
    log_likelihoods: Float[np.ndarray, "groups starts"]
    result: RESULTS
    steps: np.ndarray
    seconds: float
    compile_seconds: float


@checked
def fit_gaussian_process(
    kernel: AnyKernel,
    x: Numbers,
    y: Numbers,
    key: PRNGKeyArray,
    *,
    noise: Numbers | None = None,
    solver: Solver | None = None,
    shared: bool = False,
    fixed: Sequence[str] = (),
    standardise: bool = True,
    search_rows: int | None = None,
    restarts: int = 4,
    max_steps: int = 200,
    throw: bool = True,
) -> GaussianProcessFit:
    r"""A Gaussian process whose parameters have the largest marginal likelihood.

    The process has mean zero before it sees the standardised values, and y is the function plus
    independent normal noise. BFGS maximises the log marginal likelihood over the logarithms of the
    parameters, from the kernel as it is and from random starts up to a factor of ten away.

    Args:
        kernel: of this room or of tinygp, such as `bayes.RBF()` or `2.0 * bayes.Matern(1.5)`.
            Every floating leaf is a positive parameter and is searched for.
        x: inputs of the rows, (rows, inputs) or (rows,).
        y: values of the rows, (rows, outputs) or (rows,). Each output has parameters of its own.
        key: for the random starts.
        noise: the standard deviation of the values' noise in their units, a number or one for each
            row; None to find it too, one for each output.
        solver: `bayes.Exact()`, the default, for up to a few thousand rows; `Quasiseparable()` for
            a long time series; `Inducing(num)` for many rows with several inputs.
        shared: whether all outputs have the same parameters, which is as quick as one output.
        fixed: names of parameters that stay as they are, such as `("period",)`.
        standardise: whether inputs and values are brought to mean 0 and standard deviation 1. If
            not, the kernel's parameters are in the units of the data.
        search_rows: rows, drawn by the key, on which the parameters are searched for; all unless
            given. The process is always given all rows.
        restarts: random starts besides the kernel itself.
        max_steps: of each search, at most.
        throw: whether a failure raises.

    Returns:
        A `GaussianProcessFit`. Its result is `successful`; `at_bound`, which warns, if the
        likelihood grows up to the end of what is searched; or a failure: `not_converged`,
        `not_positive_definite`.

    Raises:
        TypeError, ValueError: data of the wrong shape or that are not finite, a kernel that does
            not fit the inputs, a parameter that is not positive, negative noise.
        RuntimeError: the search failed, and `throw` is set.

    Example:
        >>> x = jnp.linspace(0.0, 6.0, 20)
        >>> fitted = bayes.fit_gaussian_process(bayes.RBF(), x, jnp.sin(x), key, noise=1e-3)
        >>> bool(abs(fitted.model(jnp.array([1.23]))[0] - jnp.sin(1.23)) < 1e-3)
        True

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
    chapters 2 and 5.
    """
    require_count(0, restarts=restarts)
    require_count(max_steps=max_steps)
    require_key(key=key)
    task = Task.of(kernel, x, y, noise, solver, standardise, shared)
    free, rest = positive_parameters("kernel", kernel, fixed, task.x.dtype)
    parameters = {"kernel": free}
    if task.noise is None:
        parameters["noise"] = jnp.asarray(_FIRST_NOISE, task.x.dtype)
    if not jax.tree.leaves(parameters):
        raise ValueError(f"fixed must leave something to fit, got {fixed!r} and a noise")
    searched = task
    if search_rows is not None:
        require_count(1, (len(task.x), "the number of rows"), search_rows=search_rows)
        searched = task.rows(jax.random.permutation(key, len(task.x))[:search_rows])
    arguments = (task.solver, parameters, rest, searched.x, (searched.ys, searched.noise), key)
    arguments = (*arguments, restarts, max_steps)
    program, compile_seconds = compiled(_fit, *arguments)
    begin = time.perf_counter()
    with threads_for(len(searched.x)):
        found = jax.block_until_ready(program(*arguments))
    kernels = eqx.combine(found.parameters["kernel"], stacked(rest, len(task.ys)))
    noises = found.parameters["noise"] if task.noise is None else task.noise
    with threads_for(len(task.x)):
        model = jax.block_until_ready(task.conditioned(kernels, noises))
    result, details = verdict(found)
    fitted = GaussianProcessFit(
        model=model,
        log_likelihoods=np.asarray(found.values) - np.asarray(searched.log_units)[:, None],
        result=result,
        steps=np.asarray(found.steps),
        seconds=time.perf_counter() - begin,
        compile_seconds=compile_seconds,
    )
    return conclude(fitted, result, "bayes.fit_gaussian_process", details, throw=throw)


def _fit(
    solver: Solver,
    start: PyTree,
    rest: AnyKernel,
    x: Array,
    tasks: tuple[Array, Array | None],
    key: PRNGKeyArray,
    restarts: int,
    max_steps: int,
) -> Found:
    """The parameters of every group of outputs with the largest likelihood."""

    def value(parameters: PyTree, task: tuple[Array, Array | None]) -> Array:
        y, noise = task
        kernel = eqx.combine(parameters["kernel"], rest)
        sd = parameters["noise"] if noise is None else noise
        return solver.log_likelihood(kernel, jnp.broadcast_to(sd**2, x.shape[:1]), x, y)

    numbers, at_once = tasks[0][0].size, max(1, _AT_ONCE // len(x) ** 2)
    found = maximise(value, start, tasks, key, restarts, max_steps, numbers, at_once)
    # Values without noise are no doubt: their noise ends at its bound, a tenth of a millionth.
    return found._replace(at_bound=found.at_bound["kernel"])
