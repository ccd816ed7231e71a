"""reservoirpy's rows: an echo state network and a next-generation reservoir."""

import numpy as np
from _row import once, serve
from reservoirpy.nodes import NVAR, Reservoir, Ridge

WARMUP = 100


def standardised(data):
    """The training series and the histories, standardised, and how to undo it."""
    train, history = data["train"], data["history"]
    mean, sd = train.reshape(-1, 3).mean(axis=0), train.reshape(-1, 3).std(axis=0)
    return (train - mean) / sd, (history - mean) / sd, lambda x: mean + sd * x


def echo_state(data, limit):
    train, history, undo = standardised(data)
    nodes = Reservoir(
        500, sr=0.4, lr=1.0, input_scaling=0.1, rc_connectivity=0.1, input_connectivity=1.0, seed=0
    )

    def fit():
        features, targets = [], []
        nodes.initialize(train[0])
        for series in train:
            nodes.reset()
            states = nodes.run(series[:-1])
            features.append(np.concatenate([series[:-1], states], axis=1)[WARMUP:])
            targets.append((series[1:] - series[:-1])[WARMUP:])
        return Ridge(ridge=1e-9).fit(np.concatenate(features), np.concatenate(targets))

    readout, times = once(fit)
    # All starts at once: reservoirpy runs one series at a time.
    inner, outer, bias = (dense(each) for each in (nodes.W, nodes.Win, nodes.bias))
    weights, offset = dense(readout.Wout), np.ravel(dense(readout.bias))
    state, answer = np.zeros((len(history), nodes.units)), []
    for k in range(history.shape[1] + int(data["steps"])):
        u = history[:, k] if k < history.shape[1] else answer[-1]
        state = np.tanh(state @ inner.T + u @ outer.T + np.ravel(bias))
        step = np.concatenate([u, state], axis=1) @ weights + offset
        answer.append(np.clip(u + step, -1e3, 1e3))
    first = history.shape[1] - 1
    forecast = np.stack([history[:, -1], *answer[first : first + int(data["steps"])]], axis=1)
    said = "echo state network, 500 units, spectral radius 0.4, ridge 1e-9, increments"
    return undo(forecast), times | {"setting": said}


def next_generation(data, limit):
    train, history, undo = standardised(data)
    nodes = NVAR(delay=2, order=2, strides=1)

    def fit():
        features, targets = [], []
        for series in train:
            nodes.reset()
            features.append(nodes.run(series[:-1])[2:])
            targets.append((series[1:] - series[:-1])[2:])
        return Ridge(ridge=1e-9).fit(np.concatenate(features), np.concatenate(targets))

    readout, times = once(fit)
    weights, offset = dense(readout.Wout), np.ravel(dense(readout.bias))
    answer = []
    for start in history:  # a node keeps one series' past
        nodes.reset()
        nodes.run(start[:-1])
        states = [start[-1]]
        for _ in range(int(data["steps"])):
            step = nodes.step(states[-1]) @ weights + offset
            states.append(np.clip(states[-1] + np.ravel(step), -1e3, 1e3))
        answer.append(states)
    said = "next-generation reservoir, two states, order 2, ridge 1e-9, increments"
    return undo(np.asarray(answer)), times | {"setting": said}


def dense(weights):
    """An array of what may be a sparse matrix."""
    return np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights)


if __name__ == "__main__":
    serve({"echo_state": echo_state, "next_generation": next_generation}, "reservoirpy")
