"""Figures show the data they were given, on the scales and under the labels they promise."""

import functools
import subprocess
import sys
from itertools import pairwise

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from helpers import refusals
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from physml import dynamics, plots

TS = np.linspace(0.0, 10.0, 101)
WAVE = np.sin(TS)
PIXELS = np.linspace(0.0, 1.0, 3 * 4 * 5 * 3).reshape(3, 4, 5, 3)
VALID_CUT = {"loss": TS, "valid_loss": TS, "valid_step": TS[1:]}
PATH = np.stack([np.sin(TS), np.cos(TS), TS], axis=1)


heat_map = functools.partial(plots.heat_map, row_name="a", column_name="b", name="c")


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lyapunov_axis(ax):
    (axis,) = ax.child_axes
    return axis


def test_attractor_has_a_panel_for_each_and_hides_what_left_the_frame():
    escaped = PATH.copy()
    escaped[60:] *= 1e6
    forecasts = {"MLP": jnp.asarray(PATH[:80]), "GRU": escaped}
    fig = plots.attractor_3d(PATH, forecasts, names=("a", "b", "c"))
    truth, mlp, gru = fig.axes
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["truth", "MLP (grey: truth)", "GRU (grey: truth)"]
    for ax in fig.axes:
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel()) == ("a", "b", "c")
        assert ax.get_xlim() == truth.get_xlim() and ax.get_zlim() == truth.get_zlim()
    assert set(lines(truth)) == {"truth"} and set(lines(mlp)) == {"truth", "MLP"}
    np.testing.assert_array_equal(np.stack(lines(mlp)["MLP"].get_data_3d(), axis=1), PATH[:80])
    drawn = np.stack(lines(gru)["GRU"].get_data_3d(), axis=1)
    np.testing.assert_array_equal(drawn[:60], PATH[:60])
    assert np.all(np.isnan(drawn[60:]))


def test_forecast_series_marks_the_divergence():
    forecasts = {"MLP": WAVE + 0.1, "GRU": -WAVE, "RNN": WAVE}
    options = {"divergence": {"MLP": 10.0, "GRU": 2.5}, "unit": "m", "time_unit": "s"}
    fig = plots.forecast_series(TS, WAVE, forecasts, lambda1=0.8, **options)
    mlp, gru, rnn = fig.axes
    assert mlp.get_ylabel() == "x [m]" and rnn.get_xlabel() == "t [s]"
    np.testing.assert_array_equal(lines(gru)["GRU"].get_ydata(), -WAVE)
    np.testing.assert_array_equal(lines(gru)["truth"].get_ydata(), WAVE)
    words = "diverges after 2.0\nLyapunov times"
    assert legend(gru) == ["truth", "GRU", words]
    np.testing.assert_array_equal(lines(gru)[words].get_xdata(), [2.5, 2.5])
    assert legend(mlp) == ["truth", "MLP"] and legend(rnn) == ["truth", "RNN"]
    assert lyapunov_axis(mlp).get_xlabel() == "Lyapunov times"
    fig.draw_without_rendering()
    np.testing.assert_allclose(lyapunov_axis(mlp).get_xlim(), (0.0, 8.0))


def test_forecast_series_in_plain_time():
    (ax,) = plots.forecast_series(TS, WAVE, {"GRU": -WAVE}, divergence={"GRU": 2.5}).axes
    assert legend(ax)[-1] == "diverges at t = 2.5"
    assert not ax.child_axes and ax.get_xlabel() == "t"


def test_error_growth_draws_the_slope_from_the_smallest_error():
    errors = {"MLP": 1e-8 * np.exp(0.9 * TS), "GRU": np.concatenate([[0.0], 1e-4 * TS[1:]])}
    (ax,) = plots.error_growth(TS, errors, lambda1=0.9).axes
    assert ax.get_yscale() == "log" and "standard deviation" in ax.get_ylabel()
    curves = lines(ax)
    np.testing.assert_allclose(curves[r"$\propto \exp(\lambda_1 t)$"].get_ydata(), errors["MLP"])
    np.testing.assert_array_equal(curves["error 0.4"].get_ydata(), [0.4, 0.4])
    np.testing.assert_array_equal(curves["GRU"].get_ydata(), errors["GRU"])
    assert lyapunov_axis(ax).get_xlabel() == "Lyapunov times"


def test_error_growth_survives_a_blow_up_and_a_perfect_forecast():
    blown = np.exp(np.linspace(0.0, 700.0, TS.size))
    blown[-5:] = np.nan
    fig = plots.error_growth(TS, {"MLP": blown, "itself": np.zeros_like(TS)}, lambda1=0.9)
    assert fig.axes[0].get_ylim()[1] <= 10.0
    flat = plots.error_growth(TS, {"itself": np.zeros_like(TS)}, lambda1=0.9, threshold=None)
    assert list(lines(flat.axes[0])) == ["itself"]


def test_solution_error():
    off = PATH + np.array([1e-9, -2e-9, 3e-9])
    fig = plots.solution_error(TS, PATH, off, names="xyz", estimate=np.full_like(PATH, 5e-9))
    state, error = fig.axes
    assert legend(state) == ["truth", "x, PINN", "y, PINN", "z, PINN"]
    np.testing.assert_array_equal(lines(state)["z, PINN"].get_ydata(), off[:, 2])
    assert error.get_yscale() == "log" and error.get_ylabel() == "absolute error"
    np.testing.assert_allclose(lines(error)["y, error"].get_ydata(), 2e-9, rtol=1e-6)
    np.testing.assert_array_equal(lines(error)["x, estimated"].get_ydata(), 5e-9)


def test_compare_solutions():
    found, words = {"RK4": WAVE + 1e-6, "PINN": WAVE}, {"name": "v", "unit": "m/s"}
    series, error = plots.compare_solutions(TS, WAVE, found, time_unit="s", **words).axes
    assert legend(series) == ["exact", "RK4", "PINN"]
    assert (series.get_ylabel(), error.get_xlabel()) == ("v [m/s]", "t [s]")
    assert error.get_ylabel() == "error of v [m/s]" and error.get_yscale() == "log"
    np.testing.assert_allclose(lines(error)["RK4"].get_ydata(), 1e-6, rtol=1e-6)
    assert lines(error)["RK4"].get_color() == lines(series)["RK4"].get_color()


def test_convergence_against_steps_and_seconds():
    steps = np.arange(1, 5)
    fig = plots.convergence({"Adam": (steps, 0.1 * steps, 1.0 / steps)}, ylabel="error")
    left, right = fig.axes
    np.testing.assert_array_equal(left.lines[0].get_xdata(), steps)
    np.testing.assert_array_equal(right.lines[0].get_xdata(), 0.1 * steps)
    assert left.get_yscale() == left.get_xscale() == right.get_xscale() == "log"


def test_work_precision_has_a_line_for_each_method():
    points = {"ours": [(0.1, 1e-3), (0.2, 1e-9)], "theirs": [(3.0, 0.5)]}
    (ax,) = plots.work_precision(points, title="Lorenz").axes
    assert ax.get_xscale() == ax.get_yscale() == "log" and ax.get_title() == "Lorenz"
    assert legend(ax) == ["ours", "theirs"]
    np.testing.assert_array_equal(lines(ax)["ours"].get_ydata(), [1e-3, 1e-9])


def test_loss_curves_of_a_fit():
    fitted = {
        "loss": np.geomspace(1, 1e-3, 100),
        "step": np.arange(51, 151),
        "valid_loss": np.geomspace(2, 1e-2, 4),
        "valid_step": np.array([75, 100, 125, 150]),
    }
    (ax,) = plots.loss_curves({"MLP": fitted, "PINN": {"loss": np.ones(7)}}, xlabel="epoch").axes
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "epoch"
    assert legend(ax) == ["MLP, training", "MLP, validation", "PINN, training"]
    train, valid = lines(ax)["MLP, training"], lines(ax)["MLP, validation"]
    np.testing.assert_array_equal(train.get_data(), (fitted["step"], fitted["loss"]))
    np.testing.assert_array_equal(valid.get_data(), (fitted["valid_step"], fitted["valid_loss"]))
    np.testing.assert_array_equal(lines(ax)["PINN, training"].get_xdata(), np.arange(1, 8))
    assert train.get_color() == valid.get_color() and train.get_linestyle() != valid.get_linestyle()
    (ax,) = plots.loss_curves({"PINN": {"loss": np.ones(7)}}).axes
    assert legend(ax) == ["PINN"]  # nothing to tell the training from


def test_heat_map_shows_numbers_and_what_diverged():
    values = np.array([[1e-3, 2.5], [np.nan, 40.0]])
    words = {"row_name": "rate", "column_name": "decay", "name": "error"}
    ax, bar = plots.heat_map(values, [0.1, "sin"], [1e-4, 2], **words).axes
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("decay", "rate", "error")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.1", "sin"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.0001", "2"]
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "1.0e-03", (1, 0): "2.5", (0, 1): "diverged", (1, 1): "40"}
    (hatched,) = ax.patches
    assert hatched.get_xy() == (-0.5, 0.5)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().mask, ~np.isfinite(values))
    assert image.norm.vmin == 1e-3 and image.norm.vmax == 40.0


def test_heat_map_in_which_all_diverged():
    fig = heat_map(np.full((1, 2), np.nan), [1], [1, 2])
    fig.draw_without_rendering()
    assert [text.get_text() for text in fig.axes[0].texts] == ["diverged"] * 2


def test_heat_map_of_one_number():
    (label,) = heat_map(np.full((1, 1), 3.0), [1], [1]).axes[0].texts
    assert label.get_text() == "3"


def test_heat_map_of_any_numbers_on_a_linear_scale_with_a_frame():
    values = np.array([[0.0, -2.5], [98.61, 1e4]])
    ax, _ = heat_map(values, [1, 2], [3, 4], log=False, chosen=(1, 0)).axes
    assert [text.get_text() for text in ax.texts] == ["0", "-2.5", "98.6", "1.0e+04"]
    (frame,) = ax.patches
    assert frame.get_xy() == (-0.5, 0.5)
    norm = ax.images[0].norm
    assert norm(0.5 * (norm.vmin + norm.vmax)) == 0.5


def test_a_parameter_scan_shows_every_repeat_and_the_median():
    values = {"truth": [[1.0, 2, 9], [3, 4, 5]], "net": [[0.0, 0, 0], [1, 1, 2]]}
    fig = plots.parameter_scan(np.array([20.0, 30.0]), values, xlabel="rho", ylabel="exponent")
    (ax,) = fig.axes
    dots, line = ax.lines[:2]
    np.testing.assert_array_equal(dots.get_data(), ([20, 20, 20, 30, 30, 30], [1, 2, 9, 3, 4, 5]))
    np.testing.assert_array_equal(line.get_xydata(), [[20, 2], [30, 4]])
    assert [text.get_text() for text in ax.get_legend().texts] == ["truth", "net"]
    with pytest.raises(ValueError, match=r"truth must have shape \(1, repeats\), got \(2, 3\)"):
        plots.parameter_scan(np.array([20.0]), values, xlabel="", ylabel="")


def test_bands_are_the_median_and_the_middle_share():
    values = np.array([[1.0, 2.0, 3.0, 4.0, 50.0], [1.0, 2.0, 3.0, 4.0, np.nan]])
    values = np.vstack([values, np.full((1, 5), np.nan)])
    fig = plots.bands({"MLP": ([10, 20, 30], values)}, xlabel="step", ylabel="loss", share=1.0)
    (ax,) = fig.axes
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "step" and legend(ax) == ["MLP"]
    np.testing.assert_allclose(lines(ax)["MLP"].get_xydata(), [[10, 3.0], [20, 2.5]])
    (band,) = ax.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert corners == {(10, 1), (10, 50), (20, 1), (20, 4)}


def test_phase_portrait():
    (ax,) = plots.phase_portrait({"exact": PATH[:, :2]}, units=("m", "m/s")).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x [m]", "v [m/s]")
    np.testing.assert_array_equal(lines(ax)["exact"].get_xydata(), PATH[:, :2])
    (start,) = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(start.get_xydata(), PATH[:1, :2])
    (ax,) = plots.phase_portrait({"MLP": PATH[:, :2]}, truth=PATH[1:, :2]).axes
    np.testing.assert_array_equal(lines(ax)["truth"].get_xydata(), PATH[1:, :2])
    assert lines(ax)["truth"].get_linewidth() > 2 * lines(ax)["MLP"].get_linewidth()


def test_partial_sums():
    fig = plots.partial_sums(TS, np.sign(WAVE), {"1 term": WAVE, "0 terms": 0 * TS}, unit="N")
    (ax,) = fig.axes
    assert legend(ax) == ["force", "1 term", "0 terms"]
    assert ax.get_ylabel() == "F [N]"
    np.testing.assert_array_equal(lines(ax)["force"].get_ydata(), np.sign(WAVE))
    np.testing.assert_array_equal(lines(ax)["1 term"].get_ydata(), WAVE)


@refusals(
    (lambda: plots.attractor_3d(PATH, {"MLP": PATH[:, :2]}), r"MLP must .*\(101, 2\)"),
    (lambda: plots.attractor_3d(PATH[:, :2], {}), "truth must have"),
    (lambda: plots.forecast_series(TS, WAVE, {"MLP": WAVE[:-1]}), r"MLP must .*\(100,\)"),
    (lambda: plots.error_growth(TS, {"MLP": WAVE[:-1]}), r"MLP must have shape \(101,\)"),
    (lambda: plots.solution_error(TS, PATH, PATH[:-1], names="xyz"), "solution must have"),
    (lambda: plots.solution_error(TS, PATH, PATH, names="xy"), "truth must have"),
    (lambda: plots.compare_solutions(TS, WAVE, {"RK4": WAVE[:5]}), "RK4 must have"),
    (lambda: plots.convergence({"Adam": (np.ones(2), np.ones(3), np.ones(3))}), "of Adam must"),
    (lambda: plots.work_precision({"ours": [(1.0, 0.0)]}), "ours must have positive"),
    (lambda: plots.loss_curves({"MLP": {"loss": np.ones((3, 2))}}), "training curve of 'MLP'"),
    (lambda: plots.loss_curves({"MLP": {}}), "training curve of 'MLP' must have values"),
    (lambda: plots.loss_curves({"MLP": VALID_CUT}), "validation curve of 'MLP' must have shape"),
    (lambda: heat_map(np.ones((2, 3)), [1], [1, 2, 3]), r"shape \(1, 3\), got \(2, 3\)"),
    (lambda: heat_map(np.zeros((1, 1)), [1], [1]), "values must be positive .*, got 0"),
    (lambda: plots.image_grid(np.ones((3, 8, 8, 2))), r"images must .* got 3 of \(8, 8, 2\)"),
    (lambda: plots.image_grid(np.full((1, 8, 8, 1), 16.0)), "floats from 0 to 1 .*16.0"),
    (lambda: plots.image_grid(np.full((1, 8, 8, 1), np.nan)), "floats from 0 to 1"),
    (lambda: plots.image_grid(np.ones((2, 8, 8, 1)), ["a"]), "each of 2 images, got 1"),
    (lambda: plots.confusion_matrix(np.eye(2, dtype=int), "abc"), r"\(3, 3\), got \(2, 2\)"),
    (lambda: plots.confusion_matrix(-np.eye(2, dtype=int), "ab"), "must not be negative"),
    (lambda: plots.accuracy_curves({"CNN": (TS, WAVE, WAVE[1:])}), "of CNN must have"),
    (lambda: plots.reliability({"CNN": (TS, WAVE, WAVE[1:])}), "of CNN must have"),
    (lambda: plots.reliability({"CNN": (TS, WAVE, 0 * TS)}), "CNN must have answers"),
    (lambda: plots.filters(np.ones((3, 3, 2, 10))), r"got \(3, 3, 2, 10\)"),
    (lambda: plots.feature_maps(PIXELS[0], {"conv": np.ones((4, 0, 3))}), "conv must have"),
    (lambda: plots.bands({"a": (TS, WAVE)}, xlabel="", ylabel=""), r"a must .*\(101,\)"),
    (lambda: plots.phase_portrait({"exact": PATH}), r"exact must .*\(101, 3\)"),
    (lambda: plots.phase_portrait({}, truth=PATH), r"truth must .*\(101, 3\)"),
    (lambda: plots.partial_sums(TS, WAVE, {"1 term": WAVE[:3]}), "1 term must have"),
)
def test_shapes_that_do_not_fit(draw):
    draw()


def toy_climate(num, shift=0.0, diverged=()):
    """A climate of normal noise, its maxima on a tent."""
    rng = np.random.default_rng(0)
    top = rng.uniform(size=(num, 50))
    return dynamics.Climate(
        dt=0.1,
        num_steps=1000,
        diverged=np.isin(np.arange(num), diverged),
        counts=np.tile(np.arange(1, 23), (num, 2, 1)),
        joint=np.ones((num, 4), int),
        edges=np.tile(np.linspace(-1.0, 1.0, 21), (2, 1)),
        frequencies=np.linspace(0.0, 5.0, 51),
        spectra=np.tile(np.exp(-np.linspace(0.0, 60.0, 51)), (num, 2, 1)),
        maxima=top + shift,
        rates=np.zeros((num, 10, 2)),
        dimension=2,
    )


def test_fit_to_data_shows_what_was_seen():
    fit = {"x": WAVE, "y": -WAVE}
    fig = plots.fit_to_data(TS[::5], {"x": WAVE[::5] + 0.1}, TS, fit, {"x": WAVE, "y": WAVE})
    top, bottom = fig.axes
    np.testing.assert_array_equal(lines(top)["data"].get_ydata(), WAVE[::5] + 0.1)
    assert set(lines(bottom)) == {"truth", "fit"}
    assert (top.get_ylabel(), bottom.get_ylabel(), bottom.get_xlabel()) == ("x", "y", "t")
    with pytest.raises(ValueError, match="fit x must have shape"):
        plots.fit_to_data(TS, {}, TS, {"x": WAVE[1:]})


def test_likelihood_profiles_stand_beside_the_parabola():
    values = np.linspace(1.0, 3.0, 5)
    deviance = 4 * (values - 2.0) ** 2
    (ax,) = plots.likelihood_profiles({"k": (values, deviance)}, {"k": (2.0, 0.5)}, {"k": 2.2}).axes
    drawn = lines(ax)
    x, y = drawn["parabola"].get_data()
    np.testing.assert_allclose(np.interp(values, x, y), deviance, atol=1e-2)
    np.testing.assert_array_equal(drawn["profile"].get_ydata(), deviance)
    assert set(drawn["truth"].get_xdata()) == {2.2} and ax.get_xlabel() == "k"


def test_intervals_are_sorted_and_misses_told_apart():
    low, high = np.array([0.5, 2.0, 1.5]), np.array([1.5, 3.0, 2.5])
    (ax,) = plots.intervals({"k": (low, high)}, {"k": 1.8}, unit="1/s").axes
    hit, missed = (np.array(group.get_segments()) for group in ax.collections)
    np.testing.assert_array_equal(hit, [[[1, 1.5], [1, 2.5]]])
    np.testing.assert_array_equal(missed, [[[0, 0.5], [0, 1.5]], [[2, 2.0], [2, 3.0]]])
    assert ax.get_ylabel() == "k [1/s]" and "33.3 % cover" in ax.get_xlabel()


def test_recovered_term_and_its_error():
    fig = plots.recovered_term(WAVE, WAVE**3, {"net": WAVE**3 + 0.1}, xlabel="x", ylabel="g")
    top, bottom = fig.axes
    assert np.all(np.diff(lines(top)["truth"].get_xdata()) >= 0)
    np.testing.assert_allclose(lines(bottom)["net"].get_ydata(), 0.1)


def test_marginals_are_histograms_of_each_unknown():
    draws = np.random.default_rng(0).normal([0.0, 5.0, -2.0], size=(4000, 3))
    fig = plots.marginals(["a", "b", "c"], {"sampler": draws, "Laplace": 2 * draws})
    first, second, third, hidden = fig.axes
    assert [ax.get_xlabel() for ax in (first, second, third)] == ["a", "b", "c"]
    assert not hidden.get_visible() and len(second.patches) == 2
    peak = second.patches[0].get_xy()
    assert abs(peak[np.argmax(peak[:, 1]), 0] - 5.0) < 0.5


def test_predictive_bands_hold_their_share_of_the_draws():
    draws = WAVE + np.random.default_rng(0).normal(size=(2000, 101))
    fig = plots.predictive(TS[::10], {"x": WAVE[::10]}, TS, {"x": draws})
    (ax,) = fig.axes
    assert legend(ax) == ["95 %", "50 %", "median", "data"]
    np.testing.assert_allclose(lines(ax)["median"].get_ydata(), np.median(draws, axis=0))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert abs((band - np.sin(ax.collections[0].get_paths()[0].vertices[:, 0])).max() - 2.0) < 0.4


def test_belief_bands_are_two_standard_deviations():
    bands = {name: (WAVE, 0.1 + 0 * TS) for name in ("last layer", "ensemble", "Laplace")}
    fig = plots.belief_bands(TS[::5], WAVE[::5], TS, WAVE, bands)
    titles = [ax.get_title() for ax in fig.axes]
    assert titles[:3] == ["last layer", "ensemble", "Laplace"]
    heights = fig.axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(np.max(heights[:, 1] - np.sin(heights[:, 0])), 0.196)
    assert [ax.get_xlabel() for ax in fig.axes] == ["", "", "x", ""]
    assert [ax.get_visible() for ax in fig.axes] == [True] * 3 + [False]
    assert fig.axes[0].get_legend_handles_labels()[1] == ["mean", "95 %", "truth", "data"]


def test_climate_shows_densities_spectra_and_the_return_map():
    truth, lost = toy_climate(4), toy_climate(3, diverged=[1])
    forecasts = {"MLP": toy_climate(3, shift=0.1), "GRU": lost, "gone": lost[1:2]}
    fig = plots.climate(truth, forecasts, names=("u", "v"))
    assert len(fig.axes) == 6
    density, _, pairs = fig.axes[:3]
    named = lines(density)
    assert list(named) == ["truth", "MLP", "GRU (1 of 3 diverged)"]  # nothing is left of "gone"
    width = 0.1
    np.testing.assert_allclose(named["truth"].get_ydata(), np.arange(2, 22) / 253 / width)
    np.testing.assert_allclose(named["truth"].get_xdata(), np.linspace(-0.95, 0.95, 20))
    spectrum, _, apart = fig.axes[3:]
    shown = lines(spectrum)["truth"]
    assert spectrum.get_yscale() == apart.get_yscale() == "log"
    assert np.diff(np.log(shown.get_ydata())) == pytest.approx(-1.2)
    assert len(pairs.lines) == 3 and len(pairs.lines[1].get_xdata()) == 3 * 49
    assert len(apart.lines) == 2
    with pytest.raises(ValueError, match="names must have 2 entries"):
        plots.climate(truth, {})


def test_image_grid_shows_every_image_and_its_word():
    fig = plots.image_grid(jnp.asarray(PIXELS), ["cat", "dog", "frog"], columns=2, title="some")
    first, _, third, empty = fig.axes
    np.testing.assert_array_equal(third.images[0].get_array(), PIXELS[2])
    assert [ax.get_xlabel() for ax in fig.axes[:3]] == ["cat", "dog", "frog"]
    assert first.get_visible() and not empty.get_visible()
    in_bytes = plots.image_grid(np.uint8(255 * (PIXELS[:1, ..., :1] > 0.1)))
    (image,) = in_bytes.axes[0].images
    assert set(np.unique(image.get_array())) == {0.0, 1.0}
    assert image.get_clim() == (0, 1) and image.get_cmap().name == "gray_r"  # ink on paper


def test_confusion_matrix_has_counts_and_the_recall_of_each_class():
    fig = plots.confusion_matrix(np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]]), ["cat", "dog", "ox"])
    (ax,) = fig.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "3"}  # column, row
    (recall,) = ax.child_axes
    fig.draw_without_rendering()
    assert [label.get_text() for label in recall.get_yticklabels()] == ["80.0%", "75.0%", "-"]
    red, _, blue = np.moveaxis(ax.images[0].get_array()[..., :3], -1, 0)
    assert (blue > red).diagonal()[:2].all() and (red > blue)[0, 1] and (red > blue)[1, 0]
    assert blue[1, 0] < blue[0, 1]  # a quarter of the dogs is more than a fifth of the cats
    assert red[0, 2] == blue[0, 2] == 1


def test_accuracy_curves_of_training_and_validation():
    (ax,) = plots.accuracy_curves({"CNN": ([1, 2], [0.5, 0.9], [0.6, 0.7])}).axes
    assert legend(ax) == ["CNN, training", "CNN, validation"] and ax.get_xlabel() == "epoch"
    np.testing.assert_array_equal(lines(ax)["CNN, validation"].get_xydata(), [[1, 0.6], [2, 0.7]])


def test_reliability_leaves_out_empty_bins_and_gives_the_calibration_error():
    curve = [0.2, np.nan, 0.9], [0.4, np.nan, 0.8], [1, 0, 3]
    upper, lower = plots.reliability({"CNN": curve}).axes
    (line,) = (line for label, line in lines(upper).items() if label.startswith("CNN"))
    assert line.get_label() == "CNN, calibration error 0.12"  # 0.25 * 0.2 + 0.75 * 0.1
    np.testing.assert_allclose(line.get_xydata(), [[0.2, 0.4], [0.9, 0.8]])
    np.testing.assert_allclose(lower.lines[0].get_xydata(), [[0.2, 0.25], [0.9, 0.75]])


def test_filters_in_tiles_on_one_scale():
    kernel = np.arange(3 * 3 * 7.0).reshape(3, 3, 1, 7) - 40
    ax, bar = plots.filters(jnp.asarray(kernel)).axes
    (image,) = ax.images
    assert image.get_clim() == (-40, 40) and bar.get_ylabel() == "weight"
    tiles = image.get_array()  # four filters in a row, pixels six times as large, a gap of two
    assert tiles.shape == (18 + 2 + 18, 4 * 18 + 3 * 2)
    np.testing.assert_array_equal(tiles[:18:6, 20:38:6], kernel[..., 0, 1])
    np.testing.assert_array_equal(tiles[20::6, :18:6], kernel[..., 0, 4])
    assert tiles.mask[:, 18:20].all() and tiles.mask[20:, 58:].all()
    (ax,) = plots.filters(np.array([-1.0, 0.0, 0.5]).reshape(1, 1, 3, 1)).axes
    np.testing.assert_allclose(ax.images[0].get_array()[0, 0], [0, 0.5, 0.75])


def test_feature_maps_stand_beside_the_image():
    maps = np.arange(2 * 2 * 6.0).reshape(2, 2, 6)
    image, first, second = plots.feature_maps(
        PIXELS[0], {"first": maps, "second": jnp.ones((1, 1, 7))}, title="what it sees"
    ).axes
    np.testing.assert_array_equal(image.images[0].get_array(), PIXELS[0])
    assert first.get_title() == "first, 6 of 2 x 2" and second.get_title() == "second, 7 of 1 x 1"
    tiles = first.images[0].get_array()
    assert tiles.shape == (2 * 16 + 2, 3 * 16 + 2 * 2)
    np.testing.assert_array_equal(tiles[18::8, 18:34:8], maps[..., 4])


def test_no_pyplot_and_no_settings_changed():
    before = dict(matplotlib.rcParams)
    fig = plots.loss_curves({"MLP": {"loss": np.ones(3)}})
    assert isinstance(fig, Figure) and dict(matplotlib.rcParams) == before
    code = "import sys; from physml import plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_windows_show_samples_and_densities():
    ts, ys = np.linspace(0.0, 1.0, 5), np.random.default_rng(0).normal(size=(40, 5, 2))
    fig = plots.windows(ts, {"truth": ys, "made": 0.5 * ys}, names=("u", "v"), bins=10, shown=3)
    assert len(fig.axes) == 6
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["truth", "", "made", "", "", ""]
    curves = fig.axes[2].lines  # the first component of the second sample
    assert len(curves) == 3
    np.testing.assert_allclose(curves[1].get_ydata(), 0.5 * ys[1, :, 0])
    truth, made = fig.axes[4].lines
    width = np.ptp(ys[..., 0]) / 10
    np.testing.assert_allclose(truth.get_ydata().sum() * width, 1.0)
    np.testing.assert_allclose(made.get_ydata().sum() * width, 1.0)
    with pytest.raises(ValueError, match="made must"):
        plots.windows(ts, {"truth": ys, "made": ys[:, :4]}, names=("u", "v"))


def pictures_of(animation, path):
    """The pictures of an animation that is saved."""
    animation.save(path, writer="pillow", dpi=40)
    with Image.open(path) as saved:
        return [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(saved)]


@pytest.mark.slow
def test_parting_forecasts_move_and_their_errors_grow(tmp_path):
    off = PATH + np.exp(TS)[:, None] * 1e-6 * np.std(PATH, axis=0)
    options = {"names": "xyz", "tail": 2.0, "frames": 5, "lambda1": 1.0}
    animation = plots.parting_forecasts(TS, PATH, {"MLP": off}, **options)
    left, right = animation._fig.axes
    pictures = pictures_of(animation, tmp_path / "parting.gif")
    assert len(pictures) == 5 and all(np.any(a != b) for a, b in pairwise(pictures))
    # What is left is the last picture: the last two units of time, and the errors of all.
    np.testing.assert_allclose(lines(left)["truth"].get_xydata(), PATH[-21:, [0, 2]])
    np.testing.assert_allclose(lines(left)["MLP"].get_xydata(), off[-21:, [0, 2]])
    times, errors = right.lines[0].get_data()
    np.testing.assert_allclose(errors, 1e-6 * np.exp(times), rtol=1e-6)
    assert times.size == TS.size and right.get_yscale() == "log"
    assert lyapunov_axis(right).get_xlabel() == "Lyapunov times"
    (words,) = animation._fig.legends
    assert [text.get_text() for text in words.get_texts()] == ["truth", "MLP"]


def test_windows_march(tmp_path):
    edges, estimate = [0.0, 2.0, 3.0, 10.0], 1e-9 * np.ones((101, 2))
    states = PATH[:, :2]
    animation = plots.marching_windows(TS, states, edges, names="xv", estimate=estimate)
    upper, lower = animation._fig.axes
    pictures = pictures_of(animation, tmp_path / "march.gif")
    assert len(pictures) == 3 and all(np.any(a != b) for a, b in pairwise(pictures))
    np.testing.assert_array_equal(lines(upper)["x"].get_xydata(), PATH[:, [2, 0]])
    (window,) = upper.patches
    assert (window.get_x(), window.get_width()) == (3.0, 7.0)
    marks = [segment[0, 0] for segment in lower.collections[0].get_segments()]
    assert marks == edges and lower.get_yscale() == "log"
    animation._draw_frame(1)  # in the second window nothing is known of the third
    assert lines(upper)["v"].get_xdata().max() == 3.0 == lower.lines[0].get_xdata().max()


@refusals(
    (lambda: plots.parting_forecasts(TS, PATH, {"MLP": PATH[:-1]}), r"MLP must .*\(100, 3\)"),
    (lambda: plots.parting_forecasts(TS, PATH, {}, plane=(0, 3)), "plane must be two of the 3"),
    (lambda: plots.parting_forecasts(TS, PATH, {}, frames=0), "frames must be .*got 0"),
    (lambda: plots.parting_forecasts(TS, PATH, {}, tail=0.0), "tail must .*got 0"),
    (lambda: march([0.0, 1.0, 1.0]), r"edges must .* increase, got \[0. 1. 1.\]"),
    (lambda: march([0.0]), "edges must be two or more"),
    (lambda: march([0.0, 1.0], estimate=PATH[:-1]), "estimate must have"),
)
def test_moving_pictures_that_cannot_be(draw):
    draw()


def march(edges, estimate=PATH):
    return plots.marching_windows(TS, PATH, edges, names="xyz", estimate=estimate)


def test_curves_differ_in_colour_and_in_dashes():
    values = {f"method {i}": (TS, np.full((101, 2), 1.0 + i)) for i in range(24)}
    (ax,) = plots.bands(values, xlabel="step", ylabel="loss").axes
    styles = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert len(set(styles)) == 24
    assert all(a != b and c != d for (a, c), (b, d) in pairwise(styles[:12]))
