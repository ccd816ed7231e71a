"""What users' functions read from outside is read at every call, and not at the first alone."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Counted

import physml
from physml import fit, pinn, reference, systems
from physml._numerics import compiled
from physml._numerics.calls import as_traced, retraced, trace

K = 1.0  # what the functions below read
TABLE = np.array([1.0, 2.0])


def number(t, y):
    return -K * y


def entry(t, y):
    return -TABLE[1] * y


@jax.jit
def inner(y):
    return jnp.asarray(TABLE) * y


def nested(t, y):
    return jax.lax.cond(t > 0, lambda y: inner(y), lambda y: -y, y)


def marked(function):
    return retraced(function, 0.0, jnp.ones(2))


@pytest.fixture
def outside(monkeypatch):
    """Sets the numbers from outside."""

    def change(**values):
        for name, value in values.items():
            monkeypatch.setitem(globals(), name, value)

    return change


@pytest.mark.parametrize("function, name, other", [
    (number, "K", 1.0 + 2**-50), (number, "K", jnp.array(1.0)),
    (entry, "TABLE", np.array([1.0, 3.0])), (nested, "TABLE", np.array([1.0, 3.0])),
])  # fmt: skip
def test_a_function_differs_from_itself_where_it_reads_another_number(
    outside, function, name, other
):
    before = marked(function)
    assert marked(function) == before and hash(marked(function)) == hash(before)
    outside(**{name: other})
    jax.clear_caches()  # what a user compiles himself is seen as it was when JAX traced it
    after = marked(function)
    assert after != before
    np.testing.assert_array_equal(after(0.0, jnp.ones(2)), function(0.0, jnp.ones(2)))


def test_a_function_that_is_defined_again_is_the_same_if_it_does_the_same():
    def make(k):
        return lambda t, y: -k * y

    assert marked(make(1.0)) == marked(make(1.0))
    assert marked(make(1.0)) != marked(make(2.0))
    assert marked(make(np.ones(2))) == marked(make(np.ones(2)))
    assert marked(make(np.ones(2))) != marked(make(np.array([1.0, 2.0])))
    assert marked(lambda t, y: -1.0 * y) != marked(make(1.0))  # other code


def calling_numpy(k):
    def rate(t, y):
        like = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return jax.pure_callback(lambda y: -k * y, like, y, vmap_method="sequential")

    return rate


def with_derivative(k):
    rate = jax.custom_jvp(lambda t, y: -y)
    rate.defjvp(lambda at, along: (-at[1], -k * along[1]))
    return lambda t, y: rate(t, y)


def with_gradient(k):
    rate = jax.custom_vjp(lambda t, y: -y)
    rate.defvjp(lambda t, y: (-y, None), lambda _, along: (0.0, -k * along))
    return lambda t, y: rate(t, y)


@pytest.mark.parametrize("make", [calling_numpy, with_derivative, with_gradient])
def test_functions_whose_text_hides_a_number_are_not_taken_for_each_other(make):
    assert marked(make(1.0)) != marked(make(2.0))


def test_derivatives_of_ones_own_are_read_as_well():
    assert marked(with_derivative(1.0)) == marked(with_derivative(1.0))
    number = jnp.array(1)  # JAX's own too, with an integer beside it
    assert trace(lambda n, y: jax.nn.relu(y)[n], number, jnp.ones(2))[0].digest is not None
    wrong = jax.custom_jvp(lambda t, y: -y)
    wrong.defjvp(lambda at, along: 1 / 0)
    assert trace(wrong, 0.0, jnp.ones(2))[0].digest is None


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_a_function_that_calls_numpy_is_solved_with_its_own_number(k):
    y = reference.solve(calling_numpy(k), jnp.ones(1), ts=jnp.array([0.0, 1.0])).ys[-1, 0]
    np.testing.assert_allclose(y, np.exp(-k), rtol=1e-12)


def test_arrays_that_a_pytree_holds_are_not_part_of_what_it_does():
    def form(k):
        return jax.tree_util.Partial(lambda k, y: -k * y, k)

    one, two = (trace(form(jnp.array(k)), jnp.ones(2))[0] for k in (1.0, 2.0))
    assert one.digest == two.digest and len(one.arguments) == 1
    assert as_traced(number, one) == as_traced(number, two)


def test_a_function_that_holds_a_traced_number_stays_itself():
    def at(k):
        function = lambda t, y: -k * y  # noqa: E731
        assert marked(function) is function
        return pinn.solve(function, jnp.ones(1), 1.0).ys[-1, 0]

    for k in (1.0, 2.0):
        np.testing.assert_allclose(jax.jit(at)(k), np.exp(-k), rtol=1e-12)


@pytest.mark.usefixtures("programs_stay")
def test_a_solution_of_a_function_that_is_defined_again_compiles_nothing():
    def solution(k):
        return pinn.solve(lambda t, y: -k * y, jnp.ones(1), 1.0)

    first, programs = solution(1.5), len(compiled._MADE)
    assert np.array_equal(solution(1.5).ys, first.ys) and len(compiled._MADE) == programs


class Damping(eqx.Module):
    """A callable pytree that reads a number from outside as well."""

    rate: jax.Array

    def __call__(self, t, y):
        return -K * self.rate * y


def test_a_module_reads_it_too_and_keeps_its_arrays(outside):
    module = Damping(jnp.array(0.5))
    for k in (1.0, 2.0):
        outside(K=k)
        y = reference.solve(module, jnp.ones(1), ts=jnp.array([0.0, 1.0])).ys[-1, 0]
        np.testing.assert_allclose(y, np.exp(-0.5 * k), rtol=1e-12)
    programs = len(compiled._MADE)
    y = reference.solve(Damping(jnp.array(1.0)), jnp.ones(1), ts=jnp.array([0.0, 1.0])).ys[-1, 0]
    np.testing.assert_allclose(y, np.exp(-2.0), rtol=1e-12)
    assert len(compiled._MADE) == programs
    before = as_traced(module, trace(module, 0.0, jnp.ones(1))[0])  # where it stands alone
    outside(K=3.0)
    after = as_traced(module, trace(module, 0.0, jnp.ones(1))[0])
    assert jax.tree.structure(before) != jax.tree.structure(after)


def test_a_module_is_saved_as_it_was_given(tmp_path):
    system = systems.from_function(Damping(jnp.array(0.5)), 1)
    marked = as_traced(system, trace(system, 0.0, jnp.ones(1))[0])
    assert not isinstance(marked.function, Damping)
    assert physml.save(tmp_path / "saved", marked) == ("Damping",)
    back = physml.load(tmp_path / "saved", functions={"Damping": Damping})
    assert isinstance(back.function, Damping) and back.function.rate == 0.5


class OwnRate(systems.Lorenz):
    """A record of this library's kind, whose attributes a solver reads."""

    def vector_field(self, t, y, args):
        return -y


def test_a_system_of_a_users_class_stays_one():
    system = OwnRate()
    assert isinstance(as_traced(system, trace(system, 0.0, jnp.ones(3))[0]), OwnRate)


def decay(t, y):
    return -y


def root(t, y, args):
    return y[0] - 0.5 * K


def restart(t, y, args):
    return 3.0 * K * y


def half(t, y, args):
    return y[0] - 0.5


def earlier(t, y, past, args):
    return -past[0]


def lag(t, y, args):
    return 0.5 * K


def history(t):
    return K * jnp.ones(1) + t


def turn(t, y):
    return jnp.stack([y[1], -y[0]])


def ends(a, b):
    return jnp.stack([a[0], b[0] - K])


def mixed(t, y, args):
    return jnp.stack([-K * y[0] + y[1], y[0] - 2 * y[1]])


def slower(u, x, t):
    return u.t(x, t) - u.xx(x, t)


def zero(u, x, t):
    return u(x, t)


def begin(u, x, t):
    return u(x, t) - K * jnp.sin(jnp.pi * x)


def rate(t, y, args):
    return -args["k"] * K * y


def loss(model, batch, key):
    return K * jnp.sum((model - 1.0) ** 2) + jnp.sum((model - 3.0) ** 2), {}


def residual(model, batch, key):
    return model - K * batch


def features(x):
    return K * x


def pde(equation, start):
    conditions = {("x", 0.0): zero, ("x", 1.0): zero, ("t", 0.0): start}
    return pinn.pde(equation, {"x": (0.0, 1.0), "t": (0.0, 0.1)}, conditions)(0.5, 0.1)


def events(*event):
    return pinn.solve_events(decay, jnp.ones(1), 2.0, pinn.Event(*event)).solution(2.0)


def roots():
    return pinn.find_roots(pinn.solve(decay, jnp.ones(1), 2.0), root).times[:1]


def delays(function, delay, past):
    return pinn.solve_delays(systems.delayed(function, delay), past, t1=1.1)(1.1)


def boundary(system, conditions):
    return pinn.solve_boundary(system, conditions, 0.0, 1.0, guess=jnp.ones(2))(0.5)


def constrained():
    system = systems.with_mass(mixed, [[1.0, 0.0], [0.0, 0.0]])
    return pinn.solve_constrained(system, [1.0, 0.5], 1.0)(1.0)


def identified(**options):
    ts = np.linspace(0.0, 1.0, 20)
    found = pinn.identify(
        systems.from_function(rate, 1), ts, np.exp(-ts)[:, None], free=("k",), args={"k": 0.7},
        **{"y0": [1.0]} | options,
    )  # fmt: skip
    return found.estimate


FIXED = systems.from_function(number, 1)
TS = np.linspace(0.0, 1.0, 3)

FEW = {
    "solve": lambda: pinn.solve(number, jnp.ones(1), 1.0)(1.0),
    "reference": lambda: reference.solve(number, jnp.ones(1), TS).ys[-1],
    "trajectories": lambda: reference.trajectories_from(FIXED, jnp.ones((1, 1)), TS).ys[0, -1],
    "loss": lambda: fit.gradient(loss, jnp.zeros(1), optimizer=optax.adam(0.1), steps=100).model,
    "residual": lambda: fit.least_squares(residual, jnp.zeros(2), jnp.ones(2)).model,
    "features": lambda: fit.readout(features, np.ones((2, 1)), inputs=np.ones((2, 1))).weights,
}

MORE = {
    "roots": roots,
    "events": lambda: events(root, restart),
    "restart": lambda: events(half, restart),
    "lag": lambda: delays(earlier, lag, history),
    "history": lambda: delays(earlier, 1.0, history),
    "ends": lambda: boundary(turn, ends),
    "constrained": constrained,
    "start": lambda: pde(slower, begin),
    "observe": lambda: identified(observe=lambda y: K * y),
    "y0": lambda: identified(y0=lambda p: K * jnp.ones(1) + 0.0 * p["k"]),
}


@pytest.mark.filterwarnings("ignore:pinn.identify")  # data of another equation
@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_an_answer_follows_the_number(outside, name):
    ask = (FEW | MORE)[name]
    first = np.asarray(ask())
    outside(K=1.25)
    second = np.asarray(ask())
    assert not np.array_equal(second, first)
    compiled.forget()
    np.testing.assert_array_equal(second, ask())


@pytest.mark.parametrize("product", ["solve", "reference"])
@pytest.mark.usefixtures("programs_stay")
def test_another_float_in_args_compiles_nothing(product):
    counted = Counted(lambda t, y, args: -args["k"] * y ** args["power"])

    def answer(k):
        if product == "solve":
            return pinn.solve(counted, jnp.ones(1), 1.0, args={"k": k, "power": 1})(1.0)
        return reference.solve(counted, jnp.ones(1), TS, args={"k": k, "power": 1}).ys[-1]

    np.testing.assert_allclose(answer(1.0), np.exp(-1.0), rtol=1e-8)
    before = counted.traces
    np.testing.assert_allclose(answer(1.5), np.exp(-1.5), rtol=1e-8)
    assert counted.traces <= before + 2  # to see what it does


def test_functions_that_take_no_arrays_get_the_floats_themselves():
    def steep(t, y, rate):
        return -math.sqrt(rate) * y if rate > 1 else -y

    def low(t, y, rate):
        return y[0] - math.exp(-rate)

    for rate, exponent in ((0.5, 1.0), (4.0, 2.0)):
        solution = reference.solve(steep, jnp.ones(1), TS, args=rate)
        np.testing.assert_allclose(solution.ys[-1], np.exp(-exponent), rtol=1e-8)
    found = pinn.solve_events(decay_at, jnp.ones(1), 2.0, pinn.Event(low), args=0.5)
    np.testing.assert_allclose(found.times, [1.0], rtol=1e-12)


def decay_at(t, y, rate):
    return -rate * y
