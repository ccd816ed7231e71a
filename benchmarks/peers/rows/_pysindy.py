"""pysindy's row: the right-hand side found from the data, and integrated."""

import numpy as np
import pysindy
from _row import once, serve
from scipy.integrate import solve_ivp


def forecast(data, limit):
    dt, train = float(data["dt"]), list(data["train"])

    def fit():
        model = pysindy.SINDy(
            optimizer=pysindy.STLSQ(threshold=0.1, alpha=0.0),
            feature_library=pysindy.PolynomialLibrary(degree=2),
            differentiation_method=pysindy.FiniteDifference(order=8),
        )
        return model.fit(train, t=dt)

    model, times = once(fit)
    weights = model.coefficients()
    powers = model.feature_library.powers_

    def rates(t, y):
        return weights @ np.prod(y**powers, axis=1)

    ts = dt * np.arange(int(data["steps"]) + 1)
    answer = [
        solve_ivp(rates, ts[[0, -1]], y, "DOP853", ts, rtol=1e-10, atol=1e-10).y.T
        for y in data["history"][:, -1]
    ]
    said = "SINDy with polynomials of degree 2 (the equation's own), differences of order 8, STLSQ"
    return np.stack(answer), times | {"setting": said}


if __name__ == "__main__":
    serve({"forecast": forecast}, "pysindy")
