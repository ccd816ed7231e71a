"""scikit-learn's rows: next-step maps, and a Gaussian process."""

import time

import numpy as np
from _row import once, serve
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.kernel_ridge import KernelRidge
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler


def stepper(make, rows, said):
    """A model of standardised increments from standardised states, and its forecasts."""

    def task(data, limit):
        train = data["train"]
        inputs, targets = train[:, :-1].reshape(-1, 3), np.diff(train, axis=1).reshape(-1, 3)
        chosen = np.random.default_rng(0).permutation(len(inputs))[:rows]
        before, after = StandardScaler().fit(inputs), StandardScaler().fit(targets)
        x, y = before.transform(inputs[chosen]), after.transform(targets[chosen])
        model, times = once(lambda: make(limit).fit(x, y))
        states = [data["history"][:, -1]]
        for _ in range(int(data["steps"])):
            step = after.inverse_transform(model.predict(before.transform(states[-1])))
            states.append(np.clip(states[-1] + step, -1e3, 1e3))
        return np.stack(states, axis=1), times | {"setting": said}

    return task


class Perceptron:
    """A network that learns epoch by epoch until the time is up."""

    def __init__(self, limit):
        sizes = {"hidden_layer_sizes": (100, 100), "activation": "tanh"}
        self.net, self.limit = MLPRegressor(**sizes, random_state=0), limit

    def fit(self, x, y):
        end = time.perf_counter() + self.limit
        while time.perf_counter() < end:
            self.net.partial_fit(x, y)
        return self.net


def ridge(limit):
    return KernelRidge(alpha=1e-10, kernel="rbf", gamma=0.1)


def process(data, limit):
    kernel = 1.0 * kernels.RBF() + kernels.WhiteKernel()
    model, times = once(
        lambda: GaussianProcessRegressor(kernel, normalize_y=True).fit(data["x"], data["y"])
    )
    mean, sd = model.predict(data["at"], return_std=True)
    white = model.kernel_.k2.noise_level * model._y_train_std**2  # of the data, not of the function
    answer = np.stack([mean, np.maximum(sd**2 - white, 1e-12)])
    said = "GaussianProcessRegressor, RBF and WhiteKernel, L-BFGS from one start"
    return answer, times | {"setting": said}


TASKS = {
    "mlp": stepper(
        Perceptron,
        80_000,
        "MLPRegressor, 100 and 100 tanh units, epochs of Adam up to the limit, increments",
    ),
    "kernel_ridge": stepper(
        ridge, 4000, "KernelRidge, RBF, 4000 rows, alpha 1e-10, gamma 0.1, increments"
    ),
    "process": process,
}

if __name__ == "__main__":
    serve(TASKS, "scikit-learn")
