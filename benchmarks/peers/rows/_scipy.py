"""SciPy's rows: DOP853, LSODA, and least squares through them."""

import numpy as np
import scipy.integrate
import scipy.optimize
from _row import best_of, lorenz, once, oscillator, serve


def integrate(rates):
    def task(data, limit):
        ts, y0 = data["ts"], data["y0"]

        def solve():
            span = (ts[0], ts[-1])
            return scipy.integrate.solve_ivp(
                rates, span, y0, "DOP853", ts, rtol=1e-13, atol=1e-13
            ).y.T

        answer, times = best_of(solve)
        return answer, times | {"compile_seconds": 0.0, "setting": "DOP853, rtol = atol = 1e-13"}

    return task


def odeint(data, limit):
    ts, starts = data["ts"], data["starts"]

    def rates(y, t):
        return lorenz(t, y)

    answer, times = once(
        lambda: [scipy.integrate.odeint(rates, y, ts, rtol=1e-10, atol=1e-10) for y in starts]
    )
    return answer, times | {"setting": "odeint in a loop, rtol = atol = 1e-10"}


def solve_ivp(data, limit):
    ts, starts = data["ts"], data["starts"]
    options = {"method": "DOP853", "t_eval": ts, "rtol": 1e-10, "atol": 1e-10}
    answer, times = once(
        lambda: [scipy.integrate.solve_ivp(lorenz, ts[[0, -1]], y, **options).y.T for y in starts]
    )
    return answer, times | {"setting": "solve_ivp with DOP853 in a loop, rtol = atol = 1e-10"}


def inverse(data, limit):
    ts, ys, guess = data["ts"], data["ys"], data["guess"]

    def residual(unknowns):
        sigma, rho, beta = unknowns[:3]

        def rates(t, y):
            return [sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]]

        found = scipy.integrate.solve_ivp(
            rates, ts[[0, -1]], unknowns[3:], "DOP853", ts, rtol=1e-9, atol=1e-9
        )
        if not found.success:
            return np.full(ys.size, 1e6)
        return (found.y.T - ys).ravel()

    found, times = once(
        lambda: scipy.optimize.least_squares(residual, guess, x_scale=np.abs(guess), method="trf")
    )
    said = "least_squares through solve_ivp (DOP853), one shot over the whole time"
    return found.x[:3], times | {"setting": said}


def pelts(data, limit):
    ts, ys, guess = data["ts"], data["ys"], data["guess"]

    def residual(logs):
        alpha, beta, gamma, delta = np.exp(logs[:4])

        def rates(t, z):
            return [(alpha - beta * z[1]) * z[0], (delta * z[0] - gamma) * z[1]]

        found = scipy.integrate.solve_ivp(
            rates, ts[[0, -1]], np.exp(logs[4:]), "DOP853", ts, rtol=1e-9, atol=1e-9
        )
        if not found.success:
            return np.full(ys.size, 1e3)
        return (np.log(np.maximum(found.y.T, 1e-9)) - np.log(ys)).ravel()

    start = np.log([*guess, *ys[0]])
    found, times = once(lambda: scipy.optimize.least_squares(residual, start))
    said = "least_squares of the logarithms through solve_ivp (DOP853), no prior"
    return np.exp(found.x[:4]), times | {"setting": said}


TASKS = {
    "oscillator": integrate(oscillator), "lorenz": integrate(lorenz), "odeint": odeint,
    "solve_ivp": solve_ivp, "inverse": inverse, "pelts": pelts,
}  # fmt: skip

if __name__ == "__main__":
    serve(TASKS, "scipy")
