"""reservoirpy's rows: an echo state network and a next-generation reservoir.

Their settings are those whose forecasts of the last ten training series are valid for longest.
Each series is forecast from its warm-up on, all at once, by the weights that reservoirpy has made.
"""

import itertools

import numpy as np
from _row import once, serve
from reservoirpy.mat_gen import uniform
from reservoirpy.nodes import NVAR, Reservoir, Ridge

WARMUP, VALID = 100, 10
RIDGES = tuple(10.0**k for k in range(-10, 3, 2))


def standardised(data):
    """The training series and the histories, standardised, and how to undo it."""
    train, history = data["train"], data["history"]
    mean, sd = train.reshape(-1, 3).mean(axis=0), train.reshape(-1, 3).std(axis=0)
    return (train - mean) / sd, (history - mean) / sd, lambda x: mean + sd * x


def chosen(trials, train, warmup):
    """The forecast whose trial is valid for longest: trials are (features of series, forecast)."""
    best, longest = None, -1.0
    for features, forecast in trials:
        rows = features.reshape(-1, features.shape[2])
        targets = np.diff(train[:-VALID], axis=1)[:, warmup:].reshape(-1, 3)
        for ridge in RIDGES:
            readout = Ridge(ridge=ridge).fit(rows, targets)
            weights, offset = dense(readout.Wout), np.ravel(dense(readout.bias))
            truth = train[-VALID:, warmup:]
            found = forecast(train[-VALID:, : warmup + 1], weights, offset, truth.shape[1] - 1)
            off = np.sqrt(np.mean((found - truth) ** 2, axis=2)) > 0.4
            held = np.where(off.any(axis=1), off.argmax(axis=1), off.shape[1]).mean()
            if held > longest:
                best, longest = (forecast, weights, offset, ridge), held
    return best


def echo_state(data, limit):
    train, history, undo = standardised(data)

    def trial(radius, scale):
        nodes = Reservoir(
            500, sr=radius, input_scaling=scale, input_connectivity=1.0, rc_connectivity=0.1,
            bias=uniform(low=-scale, high=scale), seed=0,
        )  # fmt: skip
        nodes.initialize(train[0])
        features = []
        for series in train[:-VALID]:
            nodes.reset()
            features.append(np.concatenate([series[:-1], nodes.run(series[:-1])], axis=1)[WARMUP:])
        inner, outer, bias = dense(nodes.W), dense(nodes.Win), np.ravel(dense(nodes.bias))

        def forecast(starts, weights, offset, steps):
            state, y, ys = np.zeros((len(starts), 500)), starts[:, 0], []
            for k in range(starts.shape[1] - 1 + steps):
                y = starts[:, k] if k < starts.shape[1] else y
                state = np.tanh(state @ inner.T + y @ outer.T + bias)
                step = np.concatenate([y, state], axis=1) @ weights + offset
                y = np.clip(y + step, -1e3, 1e3)
                ys.append(y)
            return np.stack([starts[:, -1], *ys[starts.shape[1] - 1 :]], axis=1)

        return np.stack(features), forecast

    def fit():
        grid = itertools.product((0.1, 0.4), (0.1, 0.3))
        return chosen((trial(*setting) for setting in grid), train, WARMUP)

    (forecast, weights, offset, ridge), times = once(fit)
    answer = forecast(history, weights, offset, int(data["steps"]))
    said = "echo state network, 500 units; radius, input scale and ridge by validation; increments"
    return undo(answer), times | {"setting": said, "ridge": ridge}


def next_generation(data, limit):
    train, history, undo = standardised(data)
    nodes = NVAR(delay=2, order=2, strides=1)
    first, second = np.array(list(itertools.combinations_with_replacement(range(6), 2))).T

    def products(now, before):
        linear = np.concatenate([now, before], axis=1)
        return np.concatenate([linear, linear[:, first] * linear[:, second]], axis=1)

    def forecast(starts, weights, offset, steps):
        before, now = starts[:, -2], starts[:, -1]
        ys = [now]
        for _ in range(steps):
            step = products(now, before) @ weights + offset
            before, now = now, np.clip(now + step, -1e3, 1e3)
            ys.append(now)
        return np.stack(ys, axis=1)

    def fit():
        nodes.initialize(train[0])
        features = []
        for series in train[:-VALID]:
            nodes.reset()
            features.append(nodes.run(series[:-1])[2:])
        assert np.allclose(features[-1], products(series[2:-1], series[1:-2]))
        return chosen([(np.stack(features), forecast)], train, 2)

    (_, weights, offset, ridge), times = once(fit)
    answer = forecast(history, weights, offset, int(data["steps"]))
    said = "next-generation reservoir, two states, order 2; ridge by validation; increments"
    return undo(answer), times | {"setting": said, "ridge": ridge}


def dense(weights):
    """An array of what may be a sparse matrix."""
    return np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights)


if __name__ == "__main__":
    serve({"echo_state": echo_state, "next_generation": next_generation}, "reservoirpy")
