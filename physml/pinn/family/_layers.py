"""One layer of a bundle: a window's network of the time and of where its solutions start."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.units import in_units, max_of, rounding
from physml.pinn.collocation import (
    Tables,
    Tolerance,
    VectorField,
    defect,
    iterate,
    linearise,
    nodes_in,
)


class Layer(eqx.Module):
    r"""The network of a window: where a solution is, given where it entered the window.

    With the inputs $z = (y, p)$, the state at the window's start and the parameters, and the
    time $s \in [-1, 1]$ in the window,

    $$u(s, z) = y + \frac{span}{2} \sum_{kr} C_{kr}\, b_r(s) \tanh(w_k \cdot z + c_k),$$

    $b_r(-1) = 0$, so that u starts from y whatever the readout C. The basis b of functions of
    time is that of `Tables`, the units' weights are frozen.
    """

    start: Float[Array, "*windows"]
    span: Float[Array, "*windows"]
    kernel: Float[Array, "*windows inputs units"]
    bias: Float[Array, "*windows units"]
    readout: Float[Array, "*windows units rank dim"]

    def hidden(self, z: Float[Array, " inputs"]) -> Float[Array, " units"]:
        """The hidden units' values."""
        return jnp.tanh(z @ self.kernel + self.bias)

    def change(self, hidden: Float[Array, " units"], basis: Float[Array, " rank"]) -> Array:
        """u - y, of shape (dim,), where the functions of time have the values `basis`."""
        return self.span / 2 * (hidden @ jnp.einsum("kri,r->ki", self.readout, basis))


class RandomUnits(NamedTuple):
    """A hidden layer, and its units as an orthonormal basis over the points of a cloud."""

    kernel: np.ndarray  # (inputs, units)
    bias: np.ndarray
    basis: np.ndarray  # (points, rank): orthonormal columns, and zeros
    fresh_basis: np.ndarray  # at other points
    readout: np.ndarray  # (units, rank): the map from coefficients to the units' own


def random_units(
    draws: np.random.Generator,
    units: int,
    slope: float,
    cloud: Float[np.ndarray, "points inputs"],
    fresh: Float[np.ndarray, "others inputs"],
    resolution: float,
) -> RandomUnits:
    """Random tanh units for inputs like those of a cloud, each zero at a random point of it.

    `slope` is the standard deviation of a unit's slope over one standard deviation of an input.
    The first unit is constant. Inputs that do not vary get no weight. Directions of the units'
    span whose relative size is below `resolution` are left out.
    """
    spread = cloud.std(axis=0)
    varies = spread > 1e-12 * np.abs(cloud).max(axis=0)
    slopes = slope * draws.standard_normal((cloud.shape[1], units))
    kernel = np.where(varies[:, None], slopes / np.where(varies, spread, 1.0)[:, None], 0.0)
    centres = cloud[draws.integers(len(cloud), size=units)]
    bias = -np.einsum("iu,ui->u", kernel, centres)
    kernel[:, 0], bias[0] = 0.0, 1.0
    left, singular, right = np.linalg.svd(np.tanh(cloud @ kernel + bias), full_matrices=False)
    good = singular > resolution * singular[0]
    readout = right.T * np.where(good, 1 / np.where(good, singular, 1.0), 0.0)
    root = np.sqrt(len(cloud))  # for values of the order of one, however many points there are
    return RandomUnits(
        kernel,
        bias,
        root * left * good,
        root * np.tanh(fresh @ kernel + bias) @ readout,
        root * readout,
    )


class Cloud(NamedTuple):
    """Points of the box of inputs, and the hidden units' orthonormal basis at them."""

    inputs: Float[Array, "points inputs"]
    basis: Float[Array, "points rank"]


class Fitted(NamedTuple):
    """The readout of a window, and how well it fulfils the equation."""

    coefficients: Float[Array, "rank times dim"]  # in the orthonormal bases
    error: Float[Array, ""]  # the residual in units of the tolerance; infinite if not solved
    size: Float[Array, " dim"]  # of the solutions in the window
    ends: Float[Array, "points dim"]  # of the cloud's solutions, at the end of the window
    fresh_ends: Float[Array, "others dim"]


@eqx.filter_jit
def fit_layer(
    field: VectorField,
    tables: Tables,
    tolerance: Tolerance,
    start: Float[Array, ""],
    span: Float[Array, ""],
    cloud: Cloud,
    fresh: Cloud,
    met: Float[Array, " dim"],
) -> Fitted:
    r"""Find the readout that makes the residual $r = u' - f(t, u; p)$ vanish over a cloud.

    Fixed-point iterations treat all points of the cloud at once. A step solves the linear
    least-squares problem of the readout with f held: it projects r on the products of the hidden
    units and the derivatives of the functions of time. The matrix of that problem is a product of
    two orthonormal ones, so that a step is two matrix products.

    The residual is judged at fresh points of the box, at times between the collocation points. The
    span times the residual is the change of u that it stands for; that is taken relative to the
    tolerance of each component, or to what rounding leaves of the right-hand side where that is
    more.

    Args:
        field: f(t, z) of times and of inputs z = (u, p), both with a trailing batch.
        tables: the functions of time.
        tolerance: of the residual.
        start, span: the window.
        cloud: where the residual is brought down.
        fresh: where it is judged.
        met: the size that each component has had before.
    """
    half = span / 2
    num_points, dim = cloud.inputs.shape[0], field(start, cloud.inputs[0]).shape[0]

    def evaluate(coefficients, points, slopes, values, s):
        readout = jnp.einsum("mk,krd->mrd", points.basis, coefficients)
        z = points.inputs
        u = z.T[:dim, None] + half * jnp.einsum("pr,mrd->dpm", values, readout)
        parameters = jnp.broadcast_to(z.T[dim:, None], (z.shape[1] - dim, *u.shape[1:]))
        times = jnp.broadcast_to((start + half * (s + 1))[:, None], u.shape[1:])
        inputs = times, jnp.concatenate([u, parameters])
        return u, jnp.einsum("pr,mrd->dpm", slopes, readout) - field(*inputs), readout, inputs

    def step(coefficients):
        u, residual, *_ = evaluate(coefficients, cloud, tables.slopes, tables.values, tables.points)
        projected = jnp.einsum("p,pr,dpm->mrd", tables.weights, tables.slopes, residual)
        step = jnp.einsum("mk,mrd->krd", cloud.basis, projected) / num_points
        moved = half * jnp.einsum("r,krd->kd", tables.end, step)
        # A component that is still zero takes any size in a step.
        size = in_units(jnp.linalg.norm(moved, axis=0), tolerance.of(u, met), 1 / tolerance.rtol)
        return coefficients - step, max_of(size)

    dtype = cloud.inputs.dtype
    enough = jnp.maximum(0.01, 16 * jnp.finfo(dtype).eps / tolerance.rtol)
    zero = jnp.zeros((cloud.basis.shape[1], tables.rank, dim), dtype)
    coefficients, size, _ = iterate(
        step, zero, enough=enough, limit=1e3 / tolerance.rtol, spared=dim
    )
    u, residual, fresh_readout, inputs = evaluate(
        coefficients, fresh, tables.check_slopes, tables.check_values, tables.check_points
    )
    allowed = jnp.maximum(tolerance.of(u, met), span * rounding(field, *inputs))
    error = max_of(in_units(span * max_of(jnp.abs(residual), axis=(1, 2)), allowed, jnp.inf))
    solved = (size <= enough) & jnp.isfinite(error)
    readout = jnp.einsum("mk,krd->mrd", cloud.basis, coefficients)
    return Fitted(
        coefficients,
        jnp.where(solved, error, jnp.inf),
        max_of(jnp.abs(u), axis=(1, 2)),
        cloud.inputs[:, :dim] + half * jnp.einsum("r,mrd->md", tables.end, readout),
        fresh.inputs[:, :dim] + half * jnp.einsum("r,mrd->md", tables.end, fresh_readout),
    )


def linearised_error(
    field: VectorField,
    tables: Tables,
    layer: Layer,
    z: Float[Array, " inputs"],
    error: Float[Array, " dim"],
) -> tuple[Float[Array, "points dim"], Float[Array, " dim"]]:
    """What has to be added to a solution at a window's Gauss points and end, to first order.

    `error` is what has to be added at the window's start: see `pinn.collocation`.
    """
    dim = error.shape[0]
    hidden, parameters = layer.hidden(z), z[dim:]
    basis = jnp.concatenate([jnp.zeros_like(tables.end)[None], tables.values, tables.end[None]])
    values = z[:dim, None] + jax.vmap(lambda row: layer.change(hidden, row), out_axes=1)(basis)

    def rates(t, u):
        held = jnp.broadcast_to(parameters[:, None], (parameters.shape[0], u.shape[1]))
        return field(t, jnp.concatenate([u, held]))

    nodes = nodes_in(layer.start, layer.span, tables.points.shape[0])
    known = error[:, None] + defect(rates, nodes, values)
    change = linearise(rates, nodes, values).solve(known)
    return change[:, :-1].T, change[:, -1]
