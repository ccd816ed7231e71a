"""The solutions from a box of starts and parameters, as functions of all these."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Shaped

from physml._numerics.calls import checked
from physml._numerics.checks import is_concrete, require_increasing
from physml._numerics.devices import ROWS, mesh_of_rows, on_each, on_host, placed
from physml._numerics.quadrature import piece_at
from physml._numerics.units import max_of, rounding
from physml._types import Numbers
from physml.nn import FeatureNetwork
from physml.pinn.collocation import Polynomials, Tables
from physml.pinn.family._box import InputField
from physml.pinn.family._layers import Layer, linearised_error
from physml.results import RESULTS
from physml.systems.states import Structure

Parameters = Mapping[str, Numbers] | None
"""A value for each parameter's name; None for a bundle without parameters."""

_CHUNK = 500  # solutions at once: their hidden units fit a processor's cache


class Bundle(eqx.Module):
    r"""The solutions from a box of starts and parameters, as one network; made by `bundle`.

    Its k-th layer takes the state at the start of the k-th window and the parameters to the
    state at any time in that window (see `Layer`); the next layer takes the state at its end. So
    it is a residual network as deep as there are windows before t, and starts, parameters and
    time are its inputs.

    It is a pytree. Calls may be under `jax.jit` and `jax.vmap`, and be differentiated in the time,
    the start and the parameters. Outside the box, and outside [t0, t1], they raise a ValueError;
    where that cannot be seen, as the arguments are traced, the answer is NaN.

    Attributes:
        equation: what is solved.
        low, high: the corners of the box of inputs (y, p).
        edges: those of the windows.
        layers: a `Layer` with a leading axis of windows.
        result: `RESULTS.successful`; `RESULTS.suspect` where the residual is small but the sampled
            error is not; or, where the training stopped before `t1` and the bundle answers up to
            the last of `edges`, `RESULTS.window_failed` or `RESULTS.max_steps_reached`.
        structure: how a start is written, and how the answers are; None for vectors.
        stats: `num_windows`, `num_rejected`, `residuals` (of the windows, in units of the
            tolerance, at points that were not trained on), and over a sample of the box
            `error_median` and `error_max`: the largest error in time as `error_estimate` has it,
            relative to the largest |u| of the component over the box.
    """

    equation: InputField
    low: Float[Array, " inputs"]
    high: Float[Array, " inputs"]
    edges: Float[Array, " edges"]
    layers: Layer
    tables: Tables
    time_features: FeatureNetwork
    result: RESULTS
    stats: dict[str, PyTree]
    structure: Structure | None = eqx.field(static=True, default=None)

    @property
    def dim(self) -> int:
        """The number of state variables."""
        return self.equation.dim

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that the network takes."""
        return self.equation.names

    @checked
    def __call__(
        self, t: ArrayLike, y0: PyTree = None, parameters: Parameters = None
    ) -> PyTree[Shaped[Array, "..."]]:
        """u(t), of shape (dim,), for one time, start and set of parameters.

        Args:
            t: a time in [t0, t1].
            y0: the state at t0, shape (dim,) or written like those of the box; not needed where the
                box has only one. The answer is written like it.
            parameters: a number for each of `names`.

        Raises:
            TypeError, ValueError: as said above; or the shapes are wrong, or names are unknown or
                missing.
        """
        return self._answer(_evaluate, t, y0, parameters)

    @checked
    def derivative(
        self, t: ArrayLike, y0: PyTree = None, parameters: Parameters = None
    ) -> PyTree[Shaped[Array, "..."]]:
        """du/dt of the network: arguments and errors as for `bundle(t, y0, parameters)`."""
        return self._answer(_derivative, t, y0, parameters)

    @checked
    def residual(
        self, t: ArrayLike, y0: PyTree = None, parameters: Parameters = None
    ) -> PyTree[Shaped[Array, "..."]]:
        """du/dt - f(t, u): arguments and errors as for `bundle(t, y0, parameters)`."""
        return self._answer(_residual, t, y0, parameters)

    @checked
    def error_estimate(
        self, t: ArrayLike, y0: PyTree = None, parameters: Parameters = None
    ) -> PyTree[Shaped[Array, "..."]]:
        """The absolute error of u(t) per component: its residual along the linearised flow.

        To first order in the residual; it costs about as much as an integrator. Arguments and
        errors as for `bundle(t, y0, parameters)`.
        """
        return self._answer(_error, t, y0, parameters, sizes=True)

    @checked
    def solutions(
        self, ts: Numbers, y0s: PyTree = None, parameters: Parameters = None
    ) -> PyTree[Shaped[Array, "num time ..."]]:
        """Many solutions at the same times, much quicker than one by one.

        Solutions whose starts are divided among devices are computed, and stay, where those lie.

        Args:
            ts: increasing times in [t0, t1], shape (time,); not traced.
            y0s: starts, shape (num, dim), or one for all, (dim,); not needed where the box has
                only one. Starts that are no vectors have the axis of length num in front of each
                array, and so have the solutions, with the axis of times after it.
            parameters: for each of `names` one number, or one for each solution, shape (num,).

        Raises:
            TypeError, ValueError: as for a call.
        """
        if not (is_concrete(ts) and is_concrete(self.edges)):
            raise ValueError(
                "ts and the bundle must not be traced: the windows of the times are looked up"
            )
        times, edges = np.asarray(ts, self.low.dtype), np.asarray(self.edges)
        require_increasing("ts", times)
        if not (edges[0] <= times[0] and times[-1] <= edges[-1]):
            raise ValueError(
                f"ts must lie in [{edges[0]}, {edges[-1]}], got {times[0]} to {times[-1]}"
            )
        z = self._join(y0s, parameters, batched=True)
        inside = self._inside(z)
        # A row for the times of each window, filled up with the window's start.
        windows = piece_at(edges[:-1], times)
        places = np.arange(len(times)) - np.searchsorted(windows, windows)
        table = np.repeat(edges[:-1, None], places.max() + 1, axis=1)
        table[windows, places] = times
        rows = jnp.asarray(table), jnp.asarray(windows), jnp.asarray(places)
        mesh = mesh_of_rows(z)
        ys = _solutions(self, *rows, placed(z, mesh, ROWS), mesh)
        ys = jnp.where(inside[:, None, None], ys, jnp.nan)
        return ys if self.structure is None else self.structure.unravel(ys)

    def basis(self, s: Float[Array, ""]) -> Float[Array, " rank"]:
        """The functions of time of a window, at s in [-1, 1]."""
        at, start = self.time_features.features(jnp.stack([s, -jnp.ones_like(s)])[:, None])
        return (at - start) @ self.tables.readout

    def _answer(
        self,
        function: Callable,
        t: ArrayLike,
        y0: PyTree,
        parameters: Parameters,
        *,
        sizes: bool = False,
    ) -> PyTree[Shaped[Array, "..."]]:
        """A function of the time and the inputs; NaN outside the box and outside [t0, t1].

        With `sizes` its values are absolute ones, such as errors.
        """
        t = jnp.asarray(t, self.low.dtype)
        if t.ndim != 0:
            raise ValueError(f"t must be a scalar (vmap, or use solutions), got shape {t.shape}")
        if is_concrete(t) and is_concrete(self.edges):
            edges = np.asarray(self.edges)
            if not edges[0] <= np.asarray(t) <= edges[-1]:
                raise ValueError(f"t must lie in [{edges[0]}, {edges[-1]}], got {t}")
        z = self._join(y0, parameters, batched=False)
        inside = (t >= self.edges[0]) & (t <= self.edges[-1]) & self._inside(z)
        found = jnp.where(inside, function(self, t, z), jnp.nan)
        if self.structure is None:
            return found
        return self.structure.unravel_sizes(found) if sizes else self.structure.unravel(found)

    def _join(
        self, y0: PyTree, parameters: Parameters, batched: bool
    ) -> Float[Array, "*batch inputs"]:
        given, dtype, dim = dict(parameters or {}), self.low.dtype, self.dim
        if set(given) != set(self.names):
            raise ValueError(
                f"parameters must name each of {self.names}, got {tuple(sorted(given))}"
            )
        if y0 is None:
            if is_concrete(self.low) and np.any(self.low[:dim] != self.high[:dim]):
                raise ValueError("y0 must be given: the box holds more than one start")
            parts = [self.low[:dim]]
        else:
            starts = y0 if self.structure is None else self.structure.ravel_rows("y0", y0)
            parts = [jnp.asarray(starts, dtype)]
        parts += [jnp.asarray(given[name], dtype) for name in self.names]
        most = 1 if batched else 0
        sizes = {part.shape[0] for part in parts[1:] if part.ndim == 1}
        sizes |= {parts[0].shape[0]} if parts[0].ndim == 2 else set()
        wrong = any(part.ndim > most for part in parts[1:]) or len(sizes) > 1 or 0 in sizes
        if parts[0].shape[-1:] != (dim,) or parts[0].ndim > 1 + most or wrong:
            expected = f"({dim},)" + (f" or (num, {dim})" if batched else "")
            raise ValueError(
                f"y0 must have shape {expected} and a parameter (){' or (num,)' * batched}; got "
                f"{parts[0].shape} and {[part.shape for part in parts[1:]]}"
            )
        shape = ((sizes or {1}).pop(),) if batched else ()
        columns = [jnp.broadcast_to(part[..., None], (*shape, 1)) for part in parts[1:]]
        return jnp.concatenate([jnp.broadcast_to(parts[0], (*shape, dim)), *columns], axis=-1)

    def _inside(self, z: Float[Array, "*batch inputs"]) -> Bool[Array, "*batch"]:
        """Whether inputs are in the box, up to rounding.

        Raises:
            ValueError: they are not, and are known.
        """
        slack = 4 * float(jnp.finfo(z.dtype).eps) * jnp.maximum(jnp.abs(self.low), self.high)
        low, high = (jnp.broadcast_to(x, z.shape) for x in (self.low - slack, self.high + slack))
        good = (z >= low) & (z <= high)
        if is_concrete(good) and not np.all(on_host(good)):
            index = tuple(int(i) for i in np.argwhere(~on_host(good))[0])
            names, i = self.equation.system.state_names, index[-1]
            raise ValueError(
                f"{names[i]} must lie in the box, [{self.low[i]}, {self.high[i]}], got {z[index]}"
                + (f" for solution {index[0]}" if len(index) > 1 else "")
            )
        return jnp.all(good, axis=-1)


@eqx.filter_jit
def _evaluate(bundle: Bundle, t: Float[Array, ""], z: Float[Array, " inputs"]) -> Array:
    layers, dim = bundle.layers, bundle.dim
    index = piece_at(layers.start, t)

    def advance(z: Array, layer: Layer) -> tuple[Array, Array]:
        end = z[:dim] + layer.change(layer.hidden(z), bundle.tables.end)
        return jnp.concatenate([end, z[dim:]]), z

    with jax.default_matmul_precision("highest"):
        _, inputs = jax.lax.scan(advance, z, layers)
        layer = jax.tree.map(lambda x: x[index], layers)
        s = 2 * (t - layer.start) / layer.span - 1
        z = inputs[index]
        return z[:dim] + layer.change(layer.hidden(z), bundle.basis(s))


@eqx.filter_jit
def _derivative(bundle: Bundle, t: Array, z: Array) -> Array:
    return jax.jvp(lambda t: _evaluate(bundle, t, z), (t,), (jnp.ones_like(t),))[1]


@eqx.filter_jit
def _residual(bundle: Bundle, t: Array, z: Array) -> Array:
    u, slope = jax.jvp(lambda t: _evaluate(bundle, t, z), (t,), (jnp.ones_like(t),))
    return slope - bundle.equation(t, jnp.concatenate([u, z[bundle.dim :]]))


@eqx.filter_jit
def _solutions(
    bundle: Bundle,
    table: Float[Array, "windows places"],
    windows: Int[Array, " time"],
    places: Int[Array, " time"],
    z: Float[Array, "num inputs"],
    mesh: Mesh | None,
) -> Float[Array, "num time dim"]:
    layers, tables, dim = bundle.layers, bundle.tables, bundle.dim
    half = layers.span / 2
    s = (table - layers.start[:, None]) / half[:, None] - 1
    basis = jax.vmap(jax.vmap(bundle.basis))(s)

    def solve(z: Float[Array, "chunk inputs"], folded: tuple) -> Float[Array, "chunk time dim"]:
        def advance(z: Array, window: tuple[Layer, Array, Array]) -> tuple[Array, Array]:
            layer, at_times, at_end = window
            units = jnp.tanh(z @ layer.kernel + layer.bias[None])
            ys = z[:, None, :dim] + jnp.einsum("nu,upd->npd", units, at_times)
            end = z[:, :dim] + units @ at_end
            return jnp.concatenate([end, z[:, dim:]], axis=1), ys

        ys = jax.lax.scan(advance, z, folded)[1]
        return ys[windows, :, places].swapaxes(0, 1)

    def solve_all(z: Float[Array, "num inputs"], folded: tuple) -> Float[Array, "num time dim"]:
        num = z.shape[0]
        chunks = -(-num // _CHUNK)
        size = -(-num // chunks)
        rest = jnp.broadcast_to(z[:1], (chunks * size - num, z.shape[1]))
        parts = jnp.concatenate([z, rest]).reshape(chunks, size, -1)
        ys = jax.lax.map(lambda part: solve(part, folded), parts)
        return ys.reshape(chunks * size, len(windows), dim)[:num]

    with jax.default_matmul_precision("highest"):
        # The functions of time are folded into the readouts once, for all solutions.
        at_times = jnp.einsum("w,wpr,wurd->wupd", half, basis, layers.readout)
        at_end = jnp.einsum("w,r,wurd->wud", half, tables.end, layers.readout)
        return on_each(solve_all, z, (layers, at_times, at_end), mesh)


@eqx.filter_jit
def _error(bundle: Bundle, t: Array, z: Array) -> Array:
    errors, _ = _errors(bundle, z)
    layers = bundle.layers
    return jnp.abs(Polynomials.through(layers.start, layers.span, errors).evaluate(t))


def _errors(bundle: Bundle, z: Array) -> tuple[Float[Array, "windows nodes dim"], Array]:
    """The error at the start, the Gauss points and the end of each window; and the starts."""
    tables, dim = bundle.tables, bundle.dim

    def advance(carry: PyTree, layer: Layer) -> tuple:
        z, error = carry
        inside, last = linearised_error(bundle.equation, tables, layer, z, error)
        nodes = jnp.concatenate([error[None], inside, last[None]])
        end = z[:dim] + layer.change(layer.hidden(z), tables.end)
        return (jnp.concatenate([end, z[dim:]]), last), (nodes, z[:dim])

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(advance, (z, jnp.zeros_like(z[:dim])), bundle.layers)[1]


@eqx.filter_jit
def sampled_errors(bundle: Bundle, sample: Float[Array, "num inputs"]) -> Float[Array, " num"]:
    """The largest error of each solution, relative to the largest |u| of any.

    A component that is but rounding has no relative error.
    """
    errors, states = jax.lax.map(lambda z: _errors(bundle, z), sample)
    scale = max_of(jnp.abs(states), axis=(0, 1))
    held = jnp.broadcast_to(
        sample[:, None, bundle.dim :], (*states.shape[:2], sample.shape[1] - bundle.dim)
    )
    inputs = jnp.moveaxis(jnp.concatenate([states, held], axis=2), 2, 0)
    starts = jnp.broadcast_to(bundle.layers.start, inputs.shape[1:])
    noise = (bundle.edges[-1] - bundle.edges[0]) * rounding(bundle.equation, starts, inputs)
    size = jnp.where(scale > noise, scale, jnp.inf)
    largest = max_of(jnp.abs(errors), axis=(1, 2)) / size[None]
    return jnp.nan_to_num(max_of(largest, axis=1), nan=jnp.inf)
