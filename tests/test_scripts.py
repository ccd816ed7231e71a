"""Every script runs quickly as a user runs it, and keeps the contract of its folder."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from _cuts import TIMES

ROOT = Path(__file__).parents[1]
NEED_FILES = {"cifar10", "mnist"}  # see test_image_scripts.py
TOOLS = {"runs"}  # no experiment, see test_runs.py
PATHS = (ROOT / "scripts").glob("[!_]*.py")  # an underscore: what a script is made of
SCRIPTS = sorted(path for path in PATHS if path.stem not in NEED_FILES | TOOLS)

# What each script promises to measure; a new script says so here.
KEYS = {
    "architecture_study": """
        lorenz.shape.32_x_2.eps1 lorenz.shape.32_x_2.forecast_refit lorenz.activation.relu.eps1
        lorenz.schedule.cosine.forecast lorenz.regularisation.dropout_0.1.eps1
        lorenz.optimizer.adam.eps1 lorenz.gradient.sigmoid_16""",
    "autoencoder": """
        lift.rel_err_2 lift.rel_err_3 lift.rel_err_4 lift.pca_rel_err_3 lift.dimension
        dynamic.vpt_mean latent_equations.vpt_mean linear_layers.dimension
        digits.dense.rel_err digits.conv.rel_err digits.vae.rel_err digits.pca.rel_err""",
    "bayes": """
        oscillator.coverage lorenz.coverage last_layer.coverage laplace.coverage
        all_weights.coverage ensemble.coverage""",
    "digits_grid": "test_acc_mean best_test_acc grid_seconds models",
    "fourier": "gibbs superposition.max_err square.quadrature_max_err",
    "gan": """
        windows.divergence windows.divergence_floor windows.spectrum windows.residual_plain
        windows.residual_physics windows.plain.lambda1 digits.frechet_gan digits.frechet_vae
        digits.frechet_floor digits.conditional.obeyed solver.rel_l2
        solver.oscillator.adam.rel_l2 solver.lotka_volterra.gauss_newton.rel_l2""",
    "gaussian_process": "oscillator.coverage lorenz.vpt_mean likelihood_error digits.test_acc",
    "inverse": """
        lorenz.sigma_err lorenz.rho_err lorenz.beta_err lorenz.rms_over_crb lorenz.coverage
        oscillator.zeta_err duffing.cubic_err""",
    "lorenz": """
        mlp_trained.vpt_mean mlp_frozen.vpt_mean mlp_frozen.vpt_p5 mlp_frozen.eps1
        gru_trained.vpt_mean rnn_frozen.vpt_mean pinn.rel_l2_t20 pinn.seconds""",
    "other_systems": """
        rossler.eps1 rossler.vpt_mean rossler.lambda1 rossler.lambda1_truth lorenz_rho.vpt_mean
        rho_28.5.lambda1_truth rho_28.5.lambda1_surrogate
        duffing.max_err driven.max_err driven32.max_err file.max_err""",
    "pendulum": """
        pinn.max_err pinn.estimated_max_err gravity.found friction.sd step_map.eps1
        step_map.max_err""",
    "pde": """
        heat.rel_l2 poisson.rel_l2 wave.rel_l2 burgers.rel_l2 allen_cahn.rel_l2
        allen_cahn.residual allen_cahn.seconds allen_cahn.compile_seconds""",
    "oscillator": """
        rk4.max_err diffrax.max_err mlp.max_err gru.max_err duffing_mlp.max_err
        pinn.max_err pinn_adam.rel_l2 pulse.max_err""",
    "pinn_lorenz": """
        rel_l2_t20 rel_l2_t30 rel_l2_t35 attractor_median_rel_l2_t20 seconds_t20
        diffrax_ratio_t20 error_estimate_ratio_p95""",
    "pinn_training": """
        adam_lbfgs.rel_l2 adam_lbfgs.seconds
        gauss_newton.rel_l2 gauss_newton.estimated_max_err
        gauss_newton.seconds gauss_newton.compile_seconds""",
}
RECORDED = set(
    "seed dtype device date command versions.jax versions.physml wall_s compile_seconds".split()
)


def quick_run(script, out):
    """Run it as a user does, check its folder, and return its metrics."""
    command = [sys.executable, str(script), "--quick", "--seed", "3", "--out", str(out)]
    # Elsewhere than in the repository: what a script needs it must import or carry.
    done = subprocess.run(command, cwd=out.parent, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    promised = set(KEYS[script.stem].split())
    assert promised | RECORDED <= metrics.keys()
    assert not [key for key, value in metrics.items() if isinstance(value, dict | list)]
    assert metrics["seed"] == 3
    for key in promised:
        assert math.isfinite(float(metrics[key])), (key, metrics[key])
    assert json.loads((out / "config.json").read_text())["quick"] is True
    tables = (out / "table.txt").read_text().strip().split("\n\n")
    assert all(tables) and all(table in done.stdout for table in tables)
    figures = list((out / "figures").glob("*.png"))
    assert figures and all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    return metrics


def test_no_script_is_long():
    lengths = {
        path.name: len(path.read_text().splitlines()) for path in (ROOT / "scripts").glob("*.py")
    }
    assert not {name: lines for name, lines in lengths.items() if lines > 150}


def test_the_main_job(tmp_path):
    quick_run(ROOT / "scripts" / "lorenz.py", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Of what a run can depend on (fits, sweeps, solutions by networks, draws) each kind is run twice.
# Two runs of lorenz.py, one of them interrupted, are compared in test_faults.py.
TWICE = {"digits_grid", "fourier", "inverse", "oscillator", "pinn_lorenz", "pinn_training"}


@pytest.mark.slow  # half a minute's compiling and more
@pytest.mark.usefixtures("started_quickly")
@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.stem != "lorenz"], ids=lambda path: path.stem
)
def test_script(script, tmp_path):
    names = ["first", "second"] if script.stem in TWICE else ["first"]
    first, *others = (quick_run(script, tmp_path / name) for name in names)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    for other in others:
        different = {key for key in first if first[key] != other[key] and not key.endswith(TIMES)}
        assert not different
