"""The one type of solution, which the reference and the networks return."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from physml._numerics.calls import checked, numbers_in, summary
from physml._numerics.checks import is_concrete, require_installed, require_positive
from physml._types import Numbers
from physml.results import RESULTS


class Dense(eqx.Module):
    """A function of continuous time, `u(t)` for t in [t0, t1], and its derivative."""

    @abc.abstractmethod
    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t) for a scalar t."""

    @abc.abstractmethod
    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt at a scalar t."""


class Differentiated(Dense):
    """A function of continuous time whose derivative JAX takes, in forward mode."""

    def derivative(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """du/dt at a scalar t."""
        return jax.jvp(self.evaluate, (t,), (jnp.ones_like(t),))[1]


class Solution(eqx.Module):
    """The solution of an initial value problem, on a grid and in between.

    `solution(t)` is u(t) for a scalar t or for times of shape (k,). It is a pytree: it passes
    through `jax.jit`, and a `jax.vmap` of a solver returns a batch of solutions.

    Attributes:
        ts: the times that were asked for.
        ys: the solution at `ts`; NaN at times that were not reached (`result` says why).
        t0: where the solution starts.
        t1: the last time it reaches, `ts[-1]` when it succeeded.
        dense: the solution in continuous time.
        result: how the solve ended, one of `RESULTS`.
        stats: what the solver counted (steps, right-hand sides, iterations).
        error: a function of a scalar t, the absolute error estimated per component.
    """

    ts: Float[Array, " n"]
    ys: Float[Array, "n dim"]
    t0: Float[Array, ""]
    t1: Float[Array, ""]
    dense: Dense
    result: RESULTS
    stats: dict[str, PyTree]
    error: Callable[[Float[Array, ""]], Float[Array, " dim"]] | None = None

    @checked
    def __call__(self, t: Numbers) -> Float[Array, "*time dim"]:
        """u(t), of shape (dim,) for a scalar t and (k, dim) for times of shape (k,).

        Raises:
            ValueError: t is outside [t0, t1] (a runtime error where t is traced), or has more
                than one axis.
        """
        return self._map(self.dense.evaluate, t)

    @checked
    def derivative(self, t: Numbers) -> Float[Array, "*time dim"]:
        """du/dt at t: shapes and errors as for `solution(t)`."""
        return self._map(self.dense.derivative, t)

    @checked
    def error_estimate(self, t: Numbers) -> Float[Array, "*time dim"]:
        """The absolute error of u(t) per component, as estimated: shapes as for `solution(t)`.

        Raises:
            ValueError: the solution carries no estimate, or t is outside [t0, t1].
        """
        return self._map(self._require_error(), t)

    @checked
    def valid_until(self, rtol: float) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """The time until which the estimated relative error stays within `rtol`.

        The error of component i is taken relative to max |u_i| over [t0, t1], so that a zero
        crossing is no alarm and components of different units count alike. The bound is
        checked on `ts` and on 1000 even points; the time returned is the last at which it holds.

        Returns:
            The time, and whether it is censored: the bound still held at the end, t1.

        Raises:
            ValueError: the solution carries no estimate, or `rtol` is not positive.
        """
        require_positive(rtol=rtol)
        error = self._require_error()
        return _valid_until(
            self.dense.evaluate, error, self.ts, self.t0, self.t1, jnp.asarray(rtol, self.ts.dtype)
        )

    @checked
    def to_dataframe(self, t: Numbers | None = None, *, names: Sequence[str] | None = None) -> Any:
        """The solution as a data frame of pandas: a row for each time, a column for each component.

        The index, named "t", holds the times. A solution that carries an estimate of its error has
        a column NAME_error for each component too.

        Args:
            t: the times, of shape (k,); those of `ts` that were reached unless given.
            names: the components' names, such as `system.state_names`; y0, y1, ... by default.

        Raises:
            ValueError: t is outside [t0, t1], there is not one name for each component, or two
                columns would have one name; or this is a batch of solutions.
            ImportError: pandas is not installed (`pip install "physml[frames]"`).
        """
        times, columns = self._columns(t, names)
        pandas = require_installed("pandas", "frames")
        return pandas.DataFrame(columns, index=pandas.Index(times, name="t"))

    @checked
    def to_xarray(self, t: Numbers | None = None, *, names: Sequence[str] | None = None) -> Any:
        """The solution as a data set of xarray: a variable for each component, the axis "time".

        Arguments, variables and errors as for `to_dataframe`; the result is an attribute.
        """
        times, columns = self._columns(t, names)
        return require_installed("xarray", "frames").Dataset(
            {name: ("time", values) for name, values in columns.items()},
            coords={"time": times},
            attrs={"result": RESULTS[self.result]},
        )

    def _columns(
        self, t: Numbers | None, names: Sequence[str] | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Times (k,), and by name the components and their errors at these times, (k,) each."""
        if self.ys.ndim != 2:
            raise ValueError(f"solution must be a single one, got a batch {self.ys.shape[:-2]}")
        dim = self.ys.shape[1]
        names = [f"y{i}" for i in range(dim)] if names is None else list(names)
        found = [*names, *(f"{name}_error" for name in names if self.error is not None)]
        if len(names) != dim or len({*found, "t", "time"}) != len(found) + 2:
            raise ValueError(
                f"names must be {dim} different ones, and none of them t or time, got {names}"
            )
        times = np.atleast_1d(self.ts[self.ts <= self.t1] if t is None else np.asarray(t))
        values = [self(times)] if self.error is None else [self(times), self.error_estimate(times)]
        arrays = np.concatenate([np.asarray(value).T for value in values])
        return times, dict(zip(found, arrays, strict=True))

    def __repr__(self) -> str:
        if not isinstance(self.ys, jax.Array):  # a tree of something else
            return super().__repr__()
        batch, dim = self.ys.shape[:-2], self.ys.shape[-1]
        facts = {
            "ts": f"{self.ts.shape[-1]} times", "t0": self.t0, "t1": self.t1,
            "error": "none" if self.error is None else "see error_estimate(t), valid_until(rtol)",
            **numbers_in(self.stats), "result": RESULTS[self.result],
        }  # fmt: skip
        of = f", a batch of {batch}" if batch else ""
        return summary(f"Solution with {dim} components{of}", facts)

    def _require_error(self) -> Callable[[Float[Array, ""]], Float[Array, " dim"]]:
        if self.error is None:
            raise ValueError(
                "solution must carry an error estimate, got none: reference.solve(..., "
                "certify=True), pinn.solve and pinn.train give one"
            )
        return self.error

    def _map(self, function: Callable, t: Numbers) -> Array:
        at = jnp.asarray(t, self.ts.dtype)
        if at.ndim > 1:
            raise ValueError(f"t must be a scalar or have shape (k,), got shape {at.shape}")
        if all(map(is_concrete, (at, self.t0, self.t1))):
            low, high, times = (np.asarray(x) for x in (self.t0, self.t1, at))
            if not np.all((times >= low) & (times <= high)):
                raise ValueError(
                    f"t must lie in [{low}, {high}], where the solution is known, got {at}"
                )
        else:
            outside = jnp.any(~((at >= self.t0) & (at <= self.t1)))
            at = eqx.error_if(at, outside, "t must lie in [t0, t1], got a time outside")
        return _evaluate(function, at)


@eqx.filter_jit
def _evaluate(function: Callable, t: Array) -> Array:
    return function(t) if t.ndim == 0 else jax.vmap(function)(t)


@eqx.filter_jit
def _valid_until(
    dense: Callable, error: Callable, ts: Array, t0: Array, t1: Array, rtol: Array
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    even = t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, 1000, dtype=ts.dtype)
    times = jnp.sort(jnp.clip(jnp.concatenate([even, ts]), t0, t1))
    scale = jnp.max(jnp.abs(jax.vmap(dense)(times)), axis=0)
    errors = jax.vmap(error)(times)
    good = jnp.all(errors <= rtol * jnp.broadcast_to(scale, errors.shape), axis=1)
    num_good = jnp.sum(jnp.cumprod(good))
    return times[jnp.maximum(num_good - 1, 0)], num_good == times.shape[0]
