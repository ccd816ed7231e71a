"""One layer of a bundle: a window's network of the time and of where its solutions start."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.quadrature import gauss
from physml.pinn.collocation import Tables, jacobian_at, propagate

_MOST_PICARD = 60

Field = Callable[[Array, Float[Array, "inputs *batch"]], Float[Array, "dim *batch"]]


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


class Hidden(NamedTuple):
    """A hidden layer, and its units as an orthonormal basis over the points of a cloud."""

    kernel: np.ndarray  # (inputs, units)
    bias: np.ndarray
    basis: np.ndarray  # (points, rank): orthonormal columns, and zeros
    fresh_basis: np.ndarray  # at other points
    readout: np.ndarray  # (units, rank): the map from coefficients to the units' own


def hidden_layer(
    draws: np.random.Generator,
    units: int,
    slope: float,
    cloud: Float[np.ndarray, "points inputs"],
    fresh: Float[np.ndarray, "others inputs"],
    resolution: float,
) -> Hidden:
    """Random tanh units for inputs like those of a cloud, each zero at a random point of it.

    `slope` is the standard deviation of a unit's slope over one standard deviation of an input.
    The first unit is constant. Inputs that do not vary are not seen. Directions of the units'
    span of a relative size below `resolution` are left out.
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
    return Hidden(
        kernel,
        bias,
        root * left * good,
        root * np.tanh(fresh @ kernel + bias) @ readout,
        root * readout,
    )


class Fitted(NamedTuple):
    """The readout of a window, and how well it fulfils the equation."""

    coefficients: Float[Array, "rank times dim"]  # in the orthonormal bases
    error: Float[Array, ""]  # the residual in units of the tolerance; infinite if not solved
    ends: Float[Array, "points dim"]  # of the cloud's solutions, at the end of the window
    fresh_ends: Float[Array, "others dim"]


@eqx.filter_jit
def fit_layer(
    field: Field,
    tables: Tables,
    start: Float[Array, ""],
    span: Float[Array, ""],
    cloud: Float[Array, "points inputs"],
    basis: Float[Array, "points rank"],
    fresh: Float[Array, "others inputs"],
    fresh_basis: Float[Array, "others rank"],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
) -> Fitted:
    r"""Find the readout that makes the residual $r = u' - f(t, u; p)$ vanish over a cloud.

    By Picard's iteration for all points of the cloud at once: the readout's step is the
    projection of r on the products of the hidden units and the derivatives of the functions of
    time, which is the linear least-squares problem of the readout with f held. Its matrix is a
    product of two orthonormal ones, so that a step is two matrix products.

    The residual is judged at points of the box and of the time in between those it was brought
    down at: times the span, which makes it the change of u that it stands for, and relative to
    `atol + rtol max |u|` of each component.
    """
    half = span / 2
    num_points, dim = cloud.shape[0], field(start, cloud[0]).shape[0]

    def evaluate(coefficients, z, hidden, slopes, values, points):
        readout = jnp.einsum("mk,krd->mrd", hidden, coefficients)
        change = half * jnp.einsum("pr,mrd->dpm", values, readout)
        u = z.T[:dim, None] + change
        parameters = jnp.broadcast_to(z.T[dim:, None], (z.shape[1] - dim, *u.shape[1:]))
        times = jnp.broadcast_to((start + half * (points + 1))[:, None], u.shape[1:])
        rates = field(times, jnp.concatenate([u, parameters]))
        return u, jnp.einsum("pr,mrd->dpm", slopes, readout) - rates, readout

    def picard(carry):
        coefficients, _, count = carry
        u, residual, _ = evaluate(
            coefficients, cloud, basis, tables.slopes, tables.values, tables.points
        )
        projected = jnp.einsum("p,pr,dpm->mrd", tables.weights, tables.slopes, residual)
        step = jnp.einsum("mk,mrd->krd", basis, projected) / num_points
        moved = half * jnp.einsum("r,krd->kd", tables.end, step)
        scale = atol + rtol * jnp.max(jnp.abs(u), axis=(1, 2))
        size = jnp.max(jnp.linalg.norm(moved, axis=0) / scale)
        return coefficients - step, size, count + 1

    most = jnp.asarray(jnp.finfo(cloud.dtype).max, cloud.dtype)
    zero = jnp.zeros((basis.shape[1], tables.rank, dim), cloud.dtype)
    enough = jnp.maximum(0.01, 16 * jnp.finfo(cloud.dtype).eps / rtol)
    coefficients, size, _ = jax.lax.while_loop(
        lambda c: (c[1] > enough) & (c[2] < _MOST_PICARD) & ((c[1] < 1e3 / rtol) | (c[2] == 0)),
        picard,
        (zero, most, jnp.asarray(0)),
    )
    slopes, values = tables.check_slopes, tables.check_values
    u, residual, fresh_readout = evaluate(
        coefficients, fresh, fresh_basis, slopes, values, tables.check_points
    )
    scale = atol + rtol * jnp.max(jnp.abs(u), axis=(1, 2))
    error = jnp.max(jnp.max(jnp.abs(residual), axis=(1, 2)) * span / scale)
    solved = (size <= enough) & jnp.isfinite(error)
    readout = jnp.einsum("mk,krd->mrd", basis, coefficients)
    return Fitted(
        coefficients,
        jnp.where(solved, error, jnp.inf),
        cloud[:, :dim] + half * jnp.einsum("r,mrd->md", tables.end, readout),
        fresh[:, :dim] + half * jnp.einsum("r,mrd->md", tables.end, fresh_readout),
    )


def linearised_error(
    field: Field,
    tables: Tables,
    layer: Layer,
    z: Float[Array, " inputs"],
    error: Float[Array, " dim"],
) -> tuple[Float[Array, "points dim"], Float[Array, " dim"]]:
    r"""What has to be added to a solution at a window's Gauss points and end, to first order.

    With the defect d of the solution's values, $d_i = y + \tfrac h2 \sum_j W_{ij} f(t_j, u_j) -
    u_i$, it is the c of $c_i = c_0 + d_i + \tfrac h2 \sum_j W_{ij} f_y(t_j, u_j)\, c_j$, as in
    `pinn.error`; `error` is $c_0$.
    """
    dim, num_points = error.shape[0], tables.points.shape[0]
    half, parameters = layer.span / 2, z[dim:]
    integrals = jnp.asarray(gauss(num_points).integrals.astype(float), z.dtype)
    times = layer.start + half * (tables.points + 1)
    edges = jnp.concatenate([tables.values, tables.end[None]])
    hidden = layer.hidden(z)
    u = z[None, :dim] + jax.vmap(lambda basis: layer.change(hidden, basis))(edges)

    def rates(t, u):
        held = jnp.broadcast_to(parameters[:, None], (parameters.shape[0], u.shape[1]))
        return field(t, jnp.concatenate([u, held]))

    inner = u[:-1].T
    defect = z[:dim, None] + half * (rates(times, inner) @ integrals.T) - u.T
    jacobian = jacobian_at(rates, times, inner)
    change = propagate(jacobian, half, integrals, error[:, None] + defect)
    return change[:, :-1].T, change[:, -1]
