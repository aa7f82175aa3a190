"""Exact sharpness against NumPy's dense `eigvalsh` at d = 1,000, both in one run.

``python benchmarks/exact_sharpness.py``, with one thread for NumPy (OMP_NUM_THREADS=1) and nothing else running. The
dense side is given the Hessian ready-made, the exact side starts from the weights. Times are the best of several.
"""

from __future__ import annotations

import timeit

import numpy as np

from theory import Model, command_line, gradient_descent, hessian, power_law_covariance, random_start
from theory.curvature import sharpness

D1, STATES, DENSE_STATES = 998, 200, 3  # 1 + D1 + 1 weights


def compare(name: str, exponent: float) -> str:
    model = Model(np.array([20.0]), np.full(D1, 3 / np.sqrt(D1)), power_law_covariance(D1, exponent))
    states = gradient_descent(model, random_start(D1, 3.0, seed=0), 0.04, STATES - 1).state
    chosen = np.linspace(0, STATES - 1, DENSE_STATES).astype(int)
    matrices = [hessian(model, states.at(int(i))) for i in chosen]
    exact, one = sharpness(model, states), states.at(0)
    dense = np.array([np.linalg.eigvalsh(matrix)[-1] for matrix in matrices])
    dense_time = min(timeit.repeat(lambda: np.linalg.eigvalsh(matrices[0]), number=1, repeat=7))
    single = min(timeit.repeat(lambda: sharpness(model, one), number=50, repeat=7)) / 50
    batch = min(timeit.repeat(lambda: sharpness(model, states), number=1, repeat=7)) / STATES
    difference = np.abs(exact[chosen] / dense - 1).max()
    cells = f"{dense_time * 1e3:9.2f} ms {single * 1e6:9.1f} us {batch * 1e6:9.1f} us"
    return f"{name:11}{cells} {dense_time / single:9.0f} {dense_time / batch:9.0f}    {difference:.1e}"


def measure() -> None:
    """Prints the table."""
    print("covariance  dense eigvalsh  one state a batch state   ratio 1   ratio n    relative difference")
    print(compare("identity", 0.0), compare("power law", 1.0), sep="\n")


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/exact_sharpness.py", description=str(__doc__))
