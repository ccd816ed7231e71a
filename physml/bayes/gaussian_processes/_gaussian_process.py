"""Gaussian processes: random functions conditioned on noisy values, with several outputs."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from physml._numerics.calls import checked, summary
from physml._numerics.checks import (
    floating_array,
    require_count,
    require_finite,
    require_key,
    require_not_negative,
)
from physml._types import Numbers
from physml.bayes.gaussian_processes._kernels import AnyKernel, as_arrays, stacked
from physml.bayes.gaussian_processes._solvers import Exact
from physml.data import Standardiser

_CHUNK = 2048  # points at which a prediction is made at a time


@runtime_checkable
class Posterior(Protocol):
    """A process given its values, in standardised units, as a solver makes it."""

    def mean(self, points: Array) -> Float[Array, "points outputs"]: ...
    def variance(self, points: Array) -> Float[Array, " points"]: ...
    def covariance(self, points: Array) -> Float[Array, "points points"]: ...


@runtime_checkable
class Solver(Protocol):
    """How the linear algebra is done; `Exact`, `Quasiseparable` and `Inducing` are the ways."""

    def prepare(self, kernel: AnyKernel, x: Array) -> "Solver":
        """The solver for these inputs.

        Raises:
            TypeError, ValueError: the solver cannot do this kernel or these inputs.
        """
        ...

    def log_likelihood(self, kernel: AnyKernel, noise: Array, x: Array, y: Array) -> Array: ...
    def condition(self, kernel: AnyKernel, noise: Array, x: Array, y: Array) -> Posterior: ...


class GaussianProcess(eqx.Module):
    """A random function given noisy values of it: its mean, variance, derivative and samples.

    Inputs and values are standardised inside, so that the kernel's scales are in standard
    deviations of the inputs, its variances in variances of the values, and what is predicted has
    the units of the data. `x` is (points, inputs), or (points,) if the rows' inputs had one axis;
    predictions have an axis for the outputs if the rows' values had one.

    Attributes:
        kernel: with its parameters; these have a leading axis for the outputs, or of length one
            where the outputs share them.
        noise: the standard deviation of the values' noise, in their units, (outputs,) or
            (outputs, rows).
        log_likelihood: the log marginal likelihood of the data in their units, of each output or
            of all that share their parameters.
        posterior: the process given the values, in standardised units.
        inputs, outputs: standardise inputs and values.
    """

    kernel: AnyKernel
    noise: Float[Array, "outputs *rows"]
    log_likelihood: Float[Array, " groups"]
    posterior: PyTree
    inputs: Standardiser
    outputs: Standardiser
    flat: tuple[bool, bool] = eqx.field(static=True)  # whether x, and y, came with one axis

    def __repr__(self) -> str:
        facts = {
            "kernel": type(self.kernel).__name__,
            "inputs": self.inputs.mean.shape[-1],
            "outputs": self.outputs.mean.shape[-1],
            "log_likelihood": self.log_likelihood,
        }
        return summary("GaussianProcess", facts)

    @classmethod
    @checked
    def condition(
        cls,
        kernel: AnyKernel,
        x: Numbers,
        y: Numbers,
        *,
        noise: Numbers,
        solver: Solver | None = None,
        standardise: bool = True,
    ) -> "GaussianProcess":
        """A process with a kernel as it is, given values at rows.

        The arguments are those of `fit_gaussian_process`, which also finds the parameters.
        """
        task = Task.of(kernel, x, y, noise, solver, standardise)
        kernels = stacked(as_arrays(kernel, task.x.dtype), len(task.ys))
        return task.conditioned(kernels, jnp.asarray(task.noise))

    @checked
    def __call__(self, x: Numbers) -> Float[Array, "points *outputs"]:
        """The mean at points, in the units of y."""
        return self._shaped(self.outputs.inverse(_mean(self, self._points(x))))

    @checked
    def variance(self, x: Numbers) -> Float[Array, "points *outputs"]:
        """The variance of the function at points, without the noise, in the units of y squared."""
        return self._shaped(_variance(self, self._points(x)) * self.outputs.std[None] ** 2)

    @checked
    def derivative(self, x: Numbers) -> Float[Array, "points *outputs_inputs"]:
        """The derivative of the mean by every input, (points, outputs, inputs)."""
        slopes = _derivative(self, self._points(x)) * self.outputs.std[None, :, None]
        slopes = slopes / self.inputs.std[None, None]
        return self._shaped(slopes[..., 0] if self.flat[0] else slopes)

    @checked
    def samples(
        self, x: Numbers, key: PRNGKeyArray, num: int = 1
    ) -> Float[Array, "num points *outputs"]:
        """Functions drawn from the process, without noise; their values at the points."""
        require_count(num=num)
        require_key(key=key)
        drawn = _samples(self, self._points(x), key, num)
        values = self.outputs.inverse(drawn)
        return values[..., 0] if self.flat[1] else values

    def covariance_roots(
        self, x: Float[Array, "points inputs"]
    ) -> Float[Array, "outputs points points"]:
        """For every output a root R of the covariance R R^T of the function at the points."""
        roots = _roots(self, self.inputs(x))
        roots = jnp.repeat(roots, self.outputs.std.shape[0] // len(roots), axis=0)
        return roots * self.outputs.std[:, None, None]

    def _points(self, x: Numbers) -> Float[Array, "points inputs"]:
        return self.inputs(points_of(x, self.inputs, self.flat[0]))

    def _shaped(self, values: Array) -> Array:
        return values[:, 0] if self.flat[1] else values


class Task(eqx.Module):
    """Standardised rows, and the solver for them; `ys` is (groups, rows, outputs of a group)."""

    solver: Solver
    x: Float[Array, "rows inputs"]
    ys: Float[Array, "groups rows outputs"]
    noise: Float[Array, "groups rows"] | None  # standard deviations
    inputs: Standardiser
    outputs: Standardiser
    flat: tuple[bool, bool] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        kernel: AnyKernel,
        x: Numbers,
        y: Numbers,
        noise: Numbers | None,
        solver: Solver | None,
        standardise: bool,
        shared: bool = False,
    ) -> "Task":
        x, y = floating_array("x", x), floating_array("y", y)
        y = floating_array("y", y, x.dtype)
        for name, value in (("x", x), ("y", y)):
            if value.ndim not in (1, 2) or 0 in value.shape:
                raise ValueError(
                    f"{name} must have shape (rows,) or (rows, columns), got shape {value.shape}"
                )
            require_finite(name, value)
        if len(y) != len(x):
            raise ValueError(f"y must have {len(x)} rows, as x has, got {len(y)}")
        flat = (x.ndim == 1, y.ndim == 1)
        x, y = (v[:, None] if v.ndim == 1 else v for v in (x, y))
        inputs, outputs = (standardiser(v, standardise) for v in (x, y))
        x, y = inputs(x), outputs(y)
        ys = y[None] if shared else y.T[..., None]
        if noise is not None:
            noise = floating_array("noise", noise, x.dtype)
            require_not_negative(noise=noise)
            if noise.shape not in ((), (len(x),)):
                raise ValueError(
                    f"noise must be a number or have shape ({len(x)},), got shape {noise.shape}"
                )
            if shared and standardise and y.shape[1] > 1:
                raise ValueError("noise must be None where standardised outputs share parameters")
            sds = jnp.broadcast_to(outputs.std[: len(ys), None], (len(ys), len(x)))
            noise = jnp.broadcast_to(noise, sds.shape) / sds
        solver = Exact() if solver is None else solver
        return cls(solver.prepare(kernel, x), x, ys, noise, inputs, outputs, flat)

    def rows(self, index: Int[Array, " rows"]) -> "Task":
        """The same with some of the rows."""
        noise = None if self.noise is None else self.noise[:, index]
        kept = (self.x[index], self.ys[:, index], noise)
        where = lambda task: (task.x, task.ys, task.noise)  # noqa: E731
        return eqx.tree_at(where, self, kept, is_leaf=lambda leaf: leaf is None)

    @property
    def log_units(self) -> Float[Array, " groups"]:
        """What the unit of the values adds to the log likelihood of standardised ones, negative."""
        logs = jnp.log(self.outputs.std).reshape(len(self.ys), -1)
        return self.ys.shape[1] * jnp.sum(logs, axis=1)

    def conditioned(
        self, kernels: AnyKernel, noises: Float[Array, "groups *rows"]
    ) -> "GaussianProcess":
        """The process with these kernels and standard deviations, which have an axis of groups."""
        posterior, values = _conditioned(self, kernels, noises)
        each = jnp.repeat(noises, self.outputs.std.shape[0] // len(noises), axis=0)
        return GaussianProcess(
            kernel=kernels,
            noise=each * self.outputs.std.reshape(-1, *(1,) * (each.ndim - 1)),
            log_likelihood=values - self.log_units,
            posterior=posterior,
            inputs=self.inputs,
            outputs=self.outputs,
            flat=self.flat,
        )


def points_of(x: Numbers, inputs: Standardiser, flat: bool) -> Float[Array, "points inputs"]:
    """Points at which a prediction is asked for, with an axis for the inputs.

    Raises:
        ValueError: they have not the shape that the rows had, or are not finite.
    """
    points, num = floating_array("x", x, inputs.mean.dtype), inputs.mean.shape[0]
    wanted = "(points,)" if flat else f"(points, {num})"
    columns = points[:, None] if flat and points.ndim == 1 else points
    fits = columns.ndim == 2 and columns.shape[1] == num and columns.shape[0] > 0
    if not fits or points.ndim != 2 - flat:
        raise ValueError(f"x must have shape {wanted}, got shape {points.shape}")
    require_finite("x", points)
    return columns


def standardiser(rows: Array, standardise: bool) -> Standardiser:
    """What brings rows to mean 0 and standard deviation 1, or leaves them as they are."""
    if standardise:
        return Standardiser.fit(rows)
    columns = rows.shape[1]
    return Standardiser(jnp.zeros(columns, rows.dtype), jnp.ones(columns, rows.dtype))


@eqx.filter_jit
def _conditioned(task: Task, kernels: AnyKernel, noises: Array) -> tuple[Posterior, Array]:
    def one(kernel: AnyKernel, noise: Array, y: Array) -> tuple[Posterior, Array]:
        variance = jnp.broadcast_to(noise**2, task.x.shape[:1])
        arguments = (kernel, variance, task.x, y)
        return task.solver.condition(*arguments), task.solver.log_likelihood(*arguments)

    return eqx.filter_vmap(one)(kernels, noises, task.ys)


def _of_groups(process: GaussianProcess, ask: Callable[[Posterior], Array]) -> Array:
    """What each group's posterior says, along a new first axis."""
    return eqx.filter_vmap(ask)(process.posterior)


def in_chunks(work: Callable[[Array], Array], points: Array) -> Array:
    """`work` on a chunk of the points at a time, which bounds the memory."""
    if len(points) <= _CHUNK:
        return work(points)
    missing = -len(points) % _CHUNK
    padded = jnp.concatenate([points, jnp.repeat(points[-1:], missing, axis=0)])
    found = jax.lax.map(work, padded.reshape(-1, _CHUNK, points.shape[1]))
    return found.reshape(-1, *found.shape[2:])[: len(points)]


@eqx.filter_jit
def _mean(process: GaussianProcess, points: Array) -> Float[Array, "points outputs"]:
    def work(points: Array) -> Array:
        found = _of_groups(process, lambda posterior: posterior.mean(points))
        return jnp.moveaxis(found, 0, 1).reshape(len(points), -1)

    return in_chunks(work, points)


@eqx.filter_jit
def _variance(process: GaussianProcess, points: Array) -> Float[Array, "points outputs"]:
    def work(points: Array) -> Array:
        found = _of_groups(process, lambda posterior: posterior.variance(points))
        return jnp.repeat(found.T, process.outputs.std.shape[0] // len(found), axis=1)

    return in_chunks(work, points)


@eqx.filter_jit
def _derivative(process: GaussianProcess, points: Array) -> Float[Array, "points outputs inputs"]:
    def work(points: Array) -> Array:
        # One direction of all points at a time, since no point's mean depends on another point.
        directions = jnp.eye(points.shape[1], dtype=points.dtype)
        slopes = jax.vmap(
            lambda v: jax.jvp(
                lambda points: _mean(process, points),
                (points,),
                (jnp.broadcast_to(v, points.shape),),
            )[1]
        )(directions)
        return jnp.moveaxis(slopes, 0, -1)

    return in_chunks(work, points)


@eqx.filter_jit
def _samples(
    process: GaussianProcess, points: Array, key: PRNGKeyArray, num: int
) -> Float[Array, "num points outputs"]:
    mean, outputs = _mean(process, points), process.outputs.std.shape[0]
    roots = _roots(process, points)
    roots = jnp.repeat(roots, outputs // len(roots), axis=0)
    normal = jax.random.normal(key, (num, outputs, len(points)), mean.dtype)
    return mean[None] + jnp.einsum("opq,noq->npo", roots, normal)


def _roots(process: GaussianProcess, points: Array) -> Float[Array, "groups points points"]:
    covariance = _of_groups(process, lambda posterior: posterior.covariance(points))
    values, vectors = jnp.linalg.eigh(covariance)  # rounding makes some eigenvalues negative
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None]
