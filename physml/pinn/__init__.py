"""Physics-informed machine learning for ordinary differential equations, in JAX and Flax."""
