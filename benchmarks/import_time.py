"""What `import physml` costs on top of jax, flax.nnx, optax and diffrax, in fresh interpreters.

    python benchmarks/import_time.py [REPEATS]

Every repeat starts a new interpreter, imports the four packages, then physml and its rooms that
compute (all but plots and experiment, which draw and write), and times both imports.
"""

import json
import statistics
import subprocess
import sys

CODE = """
import json, time
start = time.perf_counter()
import jax, flax.nnx, optax, diffrax
between = time.perf_counter()
import physml
from physml import data, dynamics, fit, nn, pinn, reference, residuals, solution, surrogate, systems
end = time.perf_counter()
print(json.dumps([between - start, end - between]))
"""


def main(repeats: int) -> None:
    """Print the median times of the imports."""
    runs = []
    for _ in range(repeats + 1):
        output = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True)
        runs.append(json.loads(output.stdout))
    base, extra = zip(*runs[1:], strict=True)  # the first run fills the file cache
    print(f"jax, flax.nnx, optax, diffrax: {statistics.median(base):.2f} s")
    print(f"physml on top, median: {statistics.median(extra):.3f} s, worst: {max(extra):.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
