"""Several experiments with gaps, noises, inputs and ties, against likelihoods by SciPy."""

import os
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from helpers import refusals

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from _pelt_mode import identified_at_mode, mode_by_scipy

import physml
from physml import bayes, noises, pinn, reference
from physml.pinn.inverse._selection import SIGNIFICANT, choose
from physml.results import RESULTS
from physml.systems import LotkaVolterra, Table, from_function

K, STARTS = 0.7, np.array([2.0, 30.0, 400.0])
OPTIONS = {"num_windows": 3, "units": 10, "num_points": 8}
NAN = np.nan


def rate(t, y, args):
    return -args["k"] * y


def driven(t, y, args):
    return args["feed"](t) - args["k"] * y


def two_rates(t, y, args):
    return -(args["k"] + args["m"]) * y


def alone(t, y, args):
    """Prey without predators, and predators without prey."""
    return jnp.stack([1.1 * y[0], -0.4 * y[1]])


DECAY = from_function(rate, 1, args={"k": 1.0})


def times():
    """Three times of every second are two observations of one moment."""
    return np.sort(np.concatenate([np.linspace(0.0, 3.0, 30), [0.5, 1.5, 2.5, 2.5]]))


def clean(k=K, starts=STARTS):
    return [start * np.exp(-k * times())[:, None] for start in starts]


def noisy(seed=0):
    """Normal noise, relative noise and counts, with gaps."""
    rng = np.random.default_rng(seed)
    first, second, third = clean()
    ys = [
        first + 0.05 * rng.standard_normal(first.shape),
        second * np.exp(0.1 * rng.standard_normal(second.shape)),
        rng.poisson(third).astype(float),
    ]
    for y in ys:
        y[rng.uniform(size=y.shape) < 0.3] = NAN
    return ys


KINDS = (noises.NormalNoise(), noises.LogNormalNoise(), noises.PoissonNoise())


@pytest.fixture(scope="module")
def mixed():
    pairs = zip(noisy(), KINDS, strict=True)
    experiments = [pinn.Experiment(times(), y, noise=kind) for y, kind in pairs]
    return pinn.identify(DECAY, experiments, free=("k",), **OPTIONS)


@pytest.mark.slow
def test_three_kinds_of_noise_give_the_likeliest_rate_and_starts(mixed):
    """SciPy's maximum of the likelihood for the same scales, and its Fisher information."""
    assert mixed.result == RESULTS.successful
    normal, relative = (float(mixed.experiments[i].noise[0]) for i in (0, 1))
    laws = (
        lambda y, v: scipy.stats.norm.logpdf(y, v, normal),
        lambda y, v: scipy.stats.lognorm.logpdf(y, relative, scale=v),
        lambda y, v: scipy.stats.poisson.logpmf(y, v),
    )

    def cost(unknowns):
        values = clean(unknowns[0], np.exp(unknowns[1:]))
        pairs = zip(laws, noisy(), values, strict=True)
        return -sum(np.sum(law(y, v)[~np.isnan(y)]) for law, y, v in pairs)

    first = np.concatenate([[K], np.log(STARTS)])
    best = scipy.optimize.minimize(cost, first, method="Nelder-Mead", tol=1e-12).x
    found = np.array([mixed.values["k"], *(float(x.y0[0]) for x in mixed.experiments)])
    np.testing.assert_allclose(found, [best[0], *np.exp(best[1:])], rtol=1e-5)
    information = np.zeros((4, 4))
    for i, (y, v) in enumerate(zip(noisy(), clean(found[0], found[1:]), strict=True)):
        v, t = v[~np.isnan(y)], times()[~np.isnan(y[:, 0])]
        slope = (np.full(v.size, 1 / normal), 1 / (relative * v), 1 / np.sqrt(v))[i]
        rows = np.zeros((v.size, 4))
        rows[:, 0], rows[:, 1 + i] = -t * v * slope, v / found[1 + i] * slope
        information += rows.T @ rows
    covariance = np.linalg.inv(information)
    np.testing.assert_allclose(mixed.covariance, covariance, rtol=1e-4)
    sd = [float(x.y0_sd[0]) for x in mixed.experiments]
    np.testing.assert_allclose(sd, np.sqrt(np.diag(covariance))[1:], rtol=1e-4)


def test_scales_are_those_of_the_residuals(mixed):
    """Each kind's own mean square, for as many unknowns as there are to all numbers."""
    ys = noisy()
    count = sum(np.sum(~np.isnan(y)) for y in ys)
    share = (count - 4) / count
    for i, of in ((0, lambda y, v: y - v), (1, lambda y, v: np.log(y / v))):
        r = of(ys[i], ys[i] + np.asarray(mixed.experiments[i].residuals))
        expected = np.sqrt(np.nanmean(r**2) / share)
        np.testing.assert_allclose(mixed.experiments[i].noise, expected, rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(r), np.isnan(ys[i]))
    assert mixed.degrees_of_freedom == count - 4


def test_what_belongs_to_one_experiment_is_asked_of_it(mixed, tmp_path):
    for name in ("y0", "noise", "residuals", "solution"):
        with pytest.raises(AttributeError, match=f"ask for experiments\\[0\\].{name}"):
            getattr(mixed, name)
    assert "noise of experiments[1]" in repr(mixed) and "y0 " in repr(mixed.experiments[2])
    physml.save(tmp_path, mixed)
    again = physml.load(tmp_path, functions={"rate": rate})
    assert again.intervals() == mixed.intervals()
    for x, y in zip(again.experiments, mixed.experiments, strict=True):
        np.testing.assert_array_equal(x.solution(1.0), y.solution(1.0))
    with pytest.raises(ValueError, match="found must be of one experiment, got 3"):
        bayes.posterior(mixed, key=jax.random.key(0))


@pytest.mark.slow
def test_gaps_are_as_if_the_rows_had_not_been_and_may_be_traced(mixed):
    """One experiment with gaps, without those rows, and under vmap with `seen`."""
    ts, y = times(), noisy()[0]
    seen = ~np.isnan(y)
    options = {"free": ("k",), "t0": 0.0, **OPTIONS}
    gaps = pinn.identify(DECAY, ts, y, **options)
    rows = pinn.identify(DECAY, ts[seen[:, 0]], y[seen[:, 0]], **options)
    np.testing.assert_allclose(gaps.estimate, rows.estimate, rtol=1e-8)
    np.testing.assert_allclose(gaps.covariance, rows.covariance, rtol=1e-6)

    def traced(y):
        experiment = pinn.Experiment(ts, y, seen=seen, t0=0.0)
        return pinn.identify(DECAY, [experiment], free=("k",), **OPTIONS)

    both = jax.jit(jax.vmap(traced))(jnp.stack([jnp.asarray(y)] * 2))
    np.testing.assert_allclose(both.estimate, np.tile(gaps.estimate, (2, 1)), rtol=1e-8)


@pytest.mark.slow
def test_starts_that_depend_on_parameters_ties_and_inputs_of_their_own():
    """y' = feed - k y from y(0) = m / k with m = 2 k: all of it is in the one free number k."""
    kink, ts = 1.0, np.linspace(0.0, 4.0, 41)

    def exact(k, height):
        """The feed rises to its height until t = 1 and stays there."""
        slope = height / kink
        rising = 2 * np.exp(-k * ts) + slope * (ts / k - (1 - np.exp(-k * ts)) / k**2)
        at = np.interp(kink, ts, rising)
        later = height / k + (at - height / k) * np.exp(-k * (ts - kink))
        return np.where(ts <= kink, rising, later)[:, None]

    guess = {"k": 1.0, "m": 0.0, "feed": Table([0.0, 1.0], [0.0, 0.0])}
    system = from_function(driven, 1, args=guess, autonomous=False)
    feeds = Table([0.0, kink, 9.0], [0.0, 3.0, 3.0]), Table([0.0, kink], [0.0, -1.0])
    noise = 0.01 * np.random.default_rng(2).standard_normal((2, 41, 1))
    ys = [exact(K, h) + e for h, e in zip((3.0, -1.0), noise, strict=True)]
    experiments = [
        pinn.Experiment(ts, y, fixed={"feed": feed}) for y, feed in zip(ys, feeds, strict=True)
    ]
    found = pinn.identify(
        system,
        experiments,
        free=("k",),
        noise=0.01,
        y0=lambda p: (p["m"] / p["k"])[None],
        ties={"m": lambda p: 2 * p["k"]},
        num_windows=6,
    )
    best = scipy.optimize.least_squares(
        lambda k: np.ravel(
            [(exact(k, h) - y) / 0.01 for h, y in zip((3.0, -1.0), ys, strict=True)]
        ),
        1.0,
        xtol=1e-14,
    )
    assert found.result == RESULTS.successful
    np.testing.assert_allclose(found.values["k"], best.x[0], rtol=1e-6)
    np.testing.assert_allclose(found.sd["k"], 1 / np.linalg.norm(best.jac), rtol=1e-4)
    np.testing.assert_allclose([x.y0[0] for x in found.experiments], 2.0, rtol=1e-7)
    assert found.args["m"] == 2 * found.values["k"] and kink in found.problem.layout.starts


@pytest.mark.slow
def test_units_of_experiments_do_not_matter():
    """Each experiment in a unit of its own by `observe`, the time in another: the same answer."""
    ts, ys = times(), noisy()[:2]
    every = []
    for units, second in (((1.0, 1.0), 1.0), ((1e-7, 1e9), 1e5)):
        experiments = [
            pinn.Experiment(second * ts, unit * y, observe=lambda y, u=unit: u * y, y0=[y0],
                            noise=kind)
            for unit, y, y0, kind in zip(units, ys, (3.0, 20.0), KINDS[:2], strict=True)
        ]  # fmt: skip
        guess = from_function(rate, 1, args={"k": 1.0 / second})
        every.append(pinn.identify(guess, experiments, free=("k",), **OPTIONS))
    plain, other = every
    np.testing.assert_allclose(1e5 * other.values["k"], plain.values["k"], rtol=1e-8)
    np.testing.assert_allclose(1e5 * other.sd["k"], plain.sd["k"], rtol=1e-6)
    for unit, x, y in zip((1e-7, 1.0), other.experiments, plain.experiments, strict=True):
        np.testing.assert_allclose(x.y0, y.y0, rtol=1e-8)
        np.testing.assert_allclose(x.noise / unit, y.noise, rtol=1e-6)


@pytest.mark.slow
def test_students_noise_is_not_drawn_to_outliers():
    y = clean()[0] + 0.01 * np.random.default_rng(5).standard_normal((34, 1))
    y[4::9] += 1.0
    found = pinn.identify(DECAY, times(), y, free=("k",), noise=noises.StudentNoise(), **OPTIONS)
    scale, law = float(found.noise[0]), scipy.stats.t

    def cost(unknowns):
        return -np.sum(law.logpdf(y, 4, clean(unknowns[0], [unknowns[1]])[0], scale))

    best = scipy.optimize.minimize(cost, [K, 2.0], method="Nelder-Mead", tol=1e-12).x
    np.testing.assert_allclose([found.values["k"], found.y0[0]], best, rtol=1e-5)
    assert abs(found.values["k"] - K) < 4 * found.sd["k"] < 0.1


@pytest.mark.slow
def test_terms_of_two_equations_are_found_together():
    """What predators do to prey, and prey to predators, from 100 points in two experiments."""
    truth = LotkaVolterra(alpha=1.1, beta=0.4, delta=0.1, gamma=0.4)
    ts, rng, experiments = np.linspace(0.0, 12.0, 50), np.random.default_rng(0), []
    for y0 in ([10.0, 5.0], [5.0, 2.0]):
        ys = np.array(reference.solve(truth, y0, ts).ys) + 0.01 * rng.standard_normal((50, 2))
        ys[rng.uniform(size=ys.shape) < 0.1] = NAN
        experiments.append(pinn.Experiment(ts, ys))
    known = from_function(alone, 2, state_names=("x", "y"))
    options = dict(component=(0, 1), degree=2, units=12, key=jax.random.key(0), num_windows=8)
    found = pinn.discover(known, experiments, **options)
    assert found.names == ("x y", "x y") and found.components == (0, 1)
    np.testing.assert_allclose(found.coefficients, [-0.4, 0.1], rtol=0.01)
    assert np.all(np.abs(found.coefficients - [-0.4, 0.1]) < 4 * found.sd)
    states = jnp.array([[10.0, 5.0], [8.0, 3.0]])
    # The network, from which the monomials are read, is as good as that near the data alone.
    for terms, rtol in zip(found.term(states), (0.01, 0.2), strict=True):
        product = states[:, 0] * states[:, 1]
        np.testing.assert_allclose(terms, np.stack([-0.4 * product, 0.1 * product], 1), rtol=rtol)
    assert str(found).startswith("dx/dt: -0.") and "\ndy/dt: +0." in str(found)


@pytest.mark.slow
def test_terms_that_explain_the_data_as_well_are_said():
    """30 points of half a cycle: in the predators' equation x y and y are nearly the same."""
    truth = LotkaVolterra(alpha=1.1, beta=0.4, delta=0.1, gamma=0.4)
    ts, noise = np.linspace(0.0, 3.0, 30), np.random.default_rng(2).standard_normal((30, 2))
    ys = np.array(reference.solve(truth, [5.0, 2.0], ts).ys) + 0.1 * noise
    known = from_function(alone, 2, state_names=("x", "y"))
    options = dict(component=(0, 1), degree=2, units=12, key=jax.random.key(2))
    with pytest.warns(UserWarning, match="Other terms explain them about as well: dx/dt: x y, dy/"):
        found = pinn.discover(known, ts, ys, **options)
    assert found.names == ("x y", "x y") and found.components == (0, 1)
    assert found.rivals == ("dx/dt: x y, dy/dt: y",)
    assert np.all(np.abs(found.coefficients - [-0.4, 0.1]) < 4 * found.sd)


def test_coefficients_are_chosen_together_where_they_are_correlated():
    """Dropping the least significant one, again and again, loses the product of short orbits."""
    t = np.linspace(0.0, 1.0, 40)
    x, y = 5 + 3 * t - t**2, 2 - t + 0.5 * t**2 + 0.2 * t**3
    columns = np.stack([np.ones(40), x, y, x**2, x * y, y**2], axis=1)
    columns /= np.sqrt(np.mean(columns**2, axis=0))
    lost = 0
    for seed in range(20):
        data = columns[:, 4] + 1e-3 * np.random.default_rng(seed).standard_normal(40)
        chosen = choose(np.linalg.lstsq(columns, data)[0], 1e3 * np.linalg.qr(columns)[1])
        sets = [np.flatnonzero(row).tolist() for row in chosen]
        assert [4] in sets and all(len(kept) == 1 for kept in sets)
        np.testing.assert_allclose(chosen[sets.index([4])][4], 1.0, atol=1e-3)
        kept = np.arange(6)
        while True:
            fit, covariance = np.linalg.lstsq(columns[:, kept], data)[0], columns[:, kept]
            sd = 1e-3 * np.sqrt(np.diag(np.linalg.inv(covariance.T @ covariance)))
            if np.min(np.abs(fit) / sd) > SIGNIFICANT:
                break
            kept = np.delete(kept, np.argmin(np.abs(fit) / sd))
        lost += 4 not in kept
    assert lost > 0


@pytest.mark.slow
def test_counts_that_scatter_too_much_are_said():
    rng, mean = np.random.default_rng(0), clean()[2]
    ys = rng.poisson(mean * rng.gamma(100.0, 0.01, mean.shape))
    with pytest.warns(UserWarning, match="Counts scatter more than Poisson's"):
        found = pinn.identify(DECAY, times(), ys, free=("k",), noise=KINDS[2], **OPTIONS)
    assert found.result == RESULTS.noise_contradicted


def test_a_data_frame_has_an_experiment_for_each_label():
    pandas = pytest.importorskip("pandas")
    cells = {"run": ["b", "a", "b"], "t": [1.0, 0.0, 0.0], "x": [np.nan, 5.0, 7.0], "n": [3, 4, 1]}
    frame = pandas.DataFrame(cells)
    frame.loc[3] = ["a", 2.0, 1.0, None]
    first, second = pinn.experiments_from_dataframe(
        frame, time="t", columns=["n", "x"], experiment="run", noise=0.1
    )
    np.testing.assert_array_equal(first.ts, [0.0, 1.0])
    np.testing.assert_array_equal(first.ys, [[1.0, 7.0], [3.0, NAN]])
    np.testing.assert_array_equal(second.ys, [[4.0, 5.0], [NAN, 1.0]])
    assert first.noise == 0.1
    with pytest.raises(ValueError, match="frame must have each of the columns"):
        pinn.experiments_from_dataframe(frame, time="when", columns=["x"])


LINE = np.linspace(0.0, 1.0, 12)
ONE = pinn.Experiment(LINE, np.exp(-LINE)[:, None])


@refusals(
    ({"ts": []}, "ys must be the observations", TypeError),
    ({"ts": [ONE, 3]}, "ts", TypeError),
    ({"ys": np.ones((12, 1))}, "ys must be None where ts are experiments"),
    ({"ts": LINE}, "ys must be the observations at ts", TypeError),
    ({"ties": {"m": lambda p: 1.0}}, "ties must name parameters"),
    ({"loss": "huber", "noise": noises.PoissonNoise()}, "ys must be counts"),
    ({"loss": "huber", "noise": noises.StudentNoise()}, 'loss must be "squares" unless'),
    ({"noise": (noises.NormalNoise(),) * 2}, "noise must be one, or one for each of 1 columns"),
    (
        {"noise": noises.LogNormalNoise(np.array([0.1, 0.2]))},
        "noise must be a number, 1, or an array",
    ),
    ({"y0": lambda p: jnp.ones(2)}, r"y0 must return a state of shape \(1,\)"),
    ({"y0": lambda p: p["m"]}, "m", KeyError),
)
@pytest.mark.usefixtures("as_a_user")
def test_bad_experiments(change):
    pinn.identify(**({"system": DECAY, "ts": [ONE, ONE], "free": ("k",)} | change))


@refusals(
    ({"ts": [0.0, 2.0, 1.0]}, "ts must not decrease, got"),
    ({"ys": [[NAN]] * 3}, "ys must hold observations, got only NaN"),
    ({"ys": [[1.0], [np.inf], [NAN]]}, "ys must be finite, got inf"),
    ({"seen": np.ones((3, 1))}, "seen", TypeError),
    ({"seen": np.ones((2, 1), bool)}, "seen must be booleans of the shape of ys"),
    ({"t0": 0.5}, "horizon that starts at t0 = 0.5"),
    ({"noise": "poisson"}, "noise", TypeError),
)
def test_a_bad_experiment(change):
    pinn.Experiment(**({"ts": [0.0, 1.0, 2.0], "ys": np.ones((3, 1))} | change))


def test_a_table_is_linear_or_constant_between_its_rows():
    ts, values = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, -2.0])
    at = np.linspace(-1.0, 4.0, 51)
    line, steps = Table(ts, values), Table(ts, values, "constant")
    np.testing.assert_allclose(line(at), np.interp(at, ts, values), atol=1e-15)
    np.testing.assert_array_equal(
        steps(at), values[np.clip(np.searchsorted(ts, at, "right") - 1, 0, 2)]
    )
    columns = Table(ts, np.stack([values, 2 * values], axis=1))
    np.testing.assert_allclose(columns(at)[:, 1], 2 * line(at), atol=1e-15)
    np.testing.assert_allclose(columns(0.5), [1.0, 2.0])
    np.testing.assert_allclose(line.padded(7)(at), line(at), atol=1e-15)
    np.testing.assert_array_equal(line.padded(7).jump_times(0.5, 9.0), [1.0, 3.0])


@pytest.mark.slow
def test_pelts_end_at_the_mode_of_their_published_posterior():
    """Lynxes and hares with lognormal noise and the published priors, against SciPy."""
    root = Path(os.environ.get("PHYSML_DATA") or Path.home() / ".cache" / "physml")
    path = root / "lynx_hare" / "lynx_hare.csv"
    if not path.is_file():
        pytest.skip("PHYSML_DATA names no folder with lynx_hare/lynx_hare.csv")
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    data = rows[:, 0] - rows[0, 0], rows[:, 1:]
    mode, scales = mode_by_scipy(*data)
    with pytest.warns(UserWarning, match="Each resembles the one before it"):
        found = identified_at_mode(*data, scales)
    np.testing.assert_allclose(found.estimate, mode, rtol=1e-3)  # their Monte Carlo error


@pytest.mark.parametrize("call", [pinn.identify, pinn.Experiment])
@pytest.mark.parametrize(
    "ts, words",
    [
        (np.datetime64("2020-01-01") + np.arange(3), "ts must hold real numbers, got dtype datet"),
        (np.arange(3) * np.timedelta64(1, "h"), "ts must hold real numbers, got dtype timedelta64"),
        ([0.0, None, 2.0], r"ts must hold real numbers, got \[0.0, None, 2.0\]"),
        (np.ma.array([0.0, 1.0, 2.0], mask=[0, 1, 0]), "ts must have no masked values"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_times_are_numbers(call, ts, words):
    options = {"free": ("k",)} if call is pinn.identify else {}
    given = (DECAY,) if call is pinn.identify else ()
    with pytest.raises((TypeError, ValueError), match=words):
        call(*given, ts, np.ones((3, 1)), **options)


@pytest.mark.usefixtures("as_a_user")
def test_what_is_no_experiment_among_experiments_is_named():
    every: Any = [pinn.Experiment([0.0, 1.0], np.ones((2, 1))), 3.0]
    with pytest.raises(TypeError, match=r"ts\[1\] must be a pinn.Experiment"):
        pinn.identify(DECAY, every, free=("k",))


NAMED = {"time": "t", "columns": ["x"]}


@refusals(
    ({"x": ["1.0", "<0.1"]}, "row 1, column 'x' must be a number or missing, got '<0.1'"),
    ({"x": ["1,0", "2,0"]}, "row 0, column 'x' must be a number or missing, got '1,0'"),
    ({"x": [True, 1.0]}, "row 0, column 'x' must be a number or missing, got True"),
    ({"t": ["2020-01-01", "2020-01-02"]}, "column 't' must be a number .* times from a start"),
    ({"t": [0.0, None]}, "t must be finite"),
    ({"experiment": "run", "run": ["a", NAN]}, "row 1, column 'run' must say to which experiment"),
    ({"experiment": "run", "run": [None, "a"]}, "row 0, column 'run' must say to which experiment"),
    ({"columns": ["x", "x"]}, "must name different columns, got"),
    ({"columns": "x"}, "columns must be a list or tuple of names", TypeError),
    ({"t": [], "x": []}, "frame must have rows, got none"),
)
def test_cells_of_a_data_frame_that_are_lost_are_refused(change):
    cells = {"t": [0.0, 1.0], "x": [1.0, 2.0], **change}
    options = NAMED | {key: cells.pop(key) for key in ("columns", "experiment") if key in cells}
    table = np.array([*cells.values()], object).T
    frame = types.SimpleNamespace(columns=[*cells], to_numpy=lambda: table)
    pinn.experiments_from_dataframe(frame, **options)


def test_numbers_of_a_data_frame_may_be_text_and_numpys():
    cells = np.array(
        [["0", " 1.5 "], [np.float64(1.0), ""], [2, NAN], [np.int32(3), "1e3"]], object
    )
    frame = types.SimpleNamespace(columns=["t", "x"], to_numpy=lambda: cells)
    (only,) = pinn.experiments_from_dataframe(frame, **NAMED)
    np.testing.assert_array_equal(only.ts, [0.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(only.ys[:, 0], [1.5, NAN, NAN, 1000.0])


@pytest.mark.parametrize("guess", [1, np.float32(1.0), np.array(1)])
def test_a_guess_may_be_a_whole_number(guess):
    ys, model = clean()[0], from_function(rate, 1, args={"k": guess})
    with jax.numpy_dtype_promotion("standard"):  # float32 times float64, as users have it
        found = pinn.identify(model, times(), ys, free=("k",), noise=0.01, **OPTIONS)
    np.testing.assert_allclose(found.values["k"], K, rtol=1e-6)
