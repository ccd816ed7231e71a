"""Digits by Gaussian processes, as a baseline for networks."""

from functools import partial

import jax
import numpy as np

from physml import bayes, data
from physml.experiment import TIMES, Run


def classify_digits(run: Run, key: jax.Array, quick: bool) -> None:
    """Digits by regression on their classes: the class with the largest mean is taken."""
    train, test = data.digits().split((0.8, 0.2), key)
    x, new = (np.asarray(part.images, float).reshape(len(part), -1) for part in (train, test))
    kept = slice(400 if quick else None)
    classes = np.eye(10)[np.asarray(train.labels)] - 0.1  # of mean zero
    options = {"shared": True, "search_rows": 300, "restarts": 0, "standardise": False}
    with run.row("digits") as row:
        fit = partial(bayes.fit_gaussian_process, 0.1 * bayes.RBF(2.0), **options)
        model = row.part(fit, x[kept], classes[kept], key).model
        row["test_acc"] = np.mean(np.argmax(model(new), axis=1) == np.asarray(test.labels))
    columns = {"name": "images", "test_acc": "test accuracy"} | TIMES
    run.table(run.take_rows(), columns, title="Regression on the classes of 8 x 8 digits")
