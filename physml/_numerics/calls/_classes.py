"""What messages say of a class: the name that users import it by, and how to make one."""

import sys

EXAMPLES = {  # by the name that users write: this module stands below all rooms
    "classify.Evaluation": "classify.evaluate(probabilities, images)",
    "data.Images": "data.Images.from_arrays(images, labels)",
    "data.Trajectories": "data.from_arrays(ts, ys)",
    "dynamics.Climate": "dynamics.measure_climate(step_map, history, num_steps, bounds=bounds)",
    "fit.FitState": "the `state` of an earlier fit",
    "fit.GameState": "the `state` of an earlier game",
    "nnx.Module": "nn.MLP(3, (32, 32), 3, rngs=nnx.Rngs(0))",
    "nnx.Rngs": "nnx.Rngs(0)",
    "network with `features` and a `readout`": "nn.MLP(3, (32, 32), 3, rngs=nnx.Rngs(0))",
    "network with `advance` and a `readout`": "nn.RNN('gru', 3, 32, 3, rngs=nnx.Rngs(0))",
    "numpy.random.Generator": "numpy.random.default_rng(0)",
    "noises.Noise": "noises.NormalNoise()",
    "optax.GradientTransformation": "optax.adam(1e-3)",
    "optimistix.AbstractGaussNewton": "optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)",
    "pinn.Adversarial": "pinn.Adversarial(critic, optax.adam(1e-3), optax.adam(1e-3))",
    "pinn.Event": "pinn.Event(lambda t, y, args: y[0])",
    "pinn.Experiment": "pinn.Experiment(ts, ys)",
    "pinn.Identified": "pinn.identify(system, ts, ys, free=free)",
    "pinn.Points": "pinn.Even(200)",
    "pinn.Scales": "pinn.Scales(1.0, 1.0)",
    "pinn.Weights": "pinn.Fixed(condition=10.0)",
    "solution.Solution": "pinn.solve(system, y0, t1)",
    "step_maps.StepMap": "reference.FlowMap(system, dt) or surrogate.fit(...).step_map",
    "surrogate.Stepper": "surrogate.Stepper.create(network, train)",
    "systems.DelayedSystem": "systems.delayed(f, delays)",
    "systems.Forcing": "systems.SquareWave()",
    "systems.FourierSeries": "fourier.coefficients(force, n)",
    "systems.ImplicitSystem": "systems.implicit(equations, dim)",
    "systems.System": "systems.from_function(f, dim)",
}
_DESCRIBED = {  # what is asked of a network, because no user imports these classes
    "FeatureNetwork": "network with `features` and a `readout`",
    "RecurrentNetwork": "network with `advance` and a `readout`",
}


def described(kind: type) -> str:
    """A class as after "must be", with an example where calling the class is not how it is made."""
    name = _DESCRIBED.get(kind.__name__) or public_name(kind)
    example = EXAMPLES.get(name)
    words = f"an {name}" if name[0] in "AEIOUaeiou" or name[:2] == "nn" else f"a {name}"
    return f"{words} such as {example}" if example else words


def public_name(kind: type) -> str:
    """The name of a class after the shortest of its packages that exports it, as in pinn.Points."""
    parts = kind.__module__.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), kind.__name__, None) is kind:
            home = package.removeprefix("physml.").removeprefix("flax.")
            return kind.__name__ if home == "builtins" else f"{home}.{kind.__name__}"
    return kind.__name__
