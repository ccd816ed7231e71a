"""A term of an equation that is unknown in form, found from noisy observations."""

import jax
import numpy as np

from physml import pinn, plots, reference, systems
from physml.experiment import Run


def find_missing_term(run: Run, key: jax.Array) -> None:
    """The cubic term of a chaotic Duffing oscillator, unknown in form, from noise 0.02."""
    true, ts = systems.Duffing(), np.linspace(0.0, 20.0, 401)
    clean = reference.solve(true, [1.0, 0.0], ts).ys
    noise_key, network_key = jax.random.split(key)
    ys = clean + 0.02 * jax.random.normal(noise_key, clean.shape)
    known, options = systems.Duffing(beta=0.0), {"component": 1, "key": network_key}
    found = run.part("duffing", pinn.discover, known, ts, ys, **options)
    print(f"Duffing lacks the term {found}")
    terms = dict(zip(found.names, zip(found.coefficients, found.sd, strict=True), strict=True))
    cubic, sd = terms.get("x^3", (0.0, None))
    figures = {"cubic": cubic, "cubic_sd": sd, "cubic_err": abs(cubic + 1.0)}
    run.metrics(figures | {"num_terms": len(terms)}, prefix="duffing")
    rows = [[name, found.candidates.get(name), *pair] for name, pair in terms.items()]
    title = "The term that Duffing's equation lacks, true value -1 x^3; noise 0.02"
    run.table(rows, ["monomial", "of the network", "refitted", "sd"], title=title)
    by_monomials, by_network = found.term(clean)
    x, terms = clean[:, 0], {"network": by_network, "monomials": by_monomials}
    figure = plots.recovered_term(x, -(x**3), terms, xlabel="x", ylabel="term of dv/dt")
    run.figure("duffing_term", figure)
