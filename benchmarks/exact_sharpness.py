"""Exact sharpness against dense eigensolvers at d = 1,000, all in one run.

``python benchmarks/exact_sharpness.py``, with one thread for NumPy (OMP_NUM_THREADS=1) and nothing else running. The
dense side is given the Hessian ready-made, the exact side starts from the weights. Times are the best of several.

Dense: NumPy's `eigvalsh` computes all eigenvalues, where one is wanted; SciPy's `eigh` with `subset_by_index` lets
LAPACK look for the largest alone, after the same reduction to tridiagonal form; `eigsh` goes by products with the
matrix, from a fixed random vector, to machine precision.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from theory import Model, command_line, gradient_descent, hessian, power_law_covariance, random_start
from theory.curvature import sharpness

D1, STATES, DENSE_STATES = 998, 200, 3  # 1 + D1 + 1 weights
SIZE = D1 + 2
FIRST = np.random.default_rng(0).normal(size=SIZE)
DENSE: dict[str, Callable[[np.ndarray], float]] = {
    "eigvalsh, all": lambda matrix: np.linalg.eigvalsh(matrix)[-1],
    "eigh, largest": lambda matrix: eigh(matrix, eigvals_only=True, subset_by_index=[SIZE - 1, SIZE - 1])[0],
    "eigsh, largest": lambda matrix: eigsh(matrix, k=1, which="LA", v0=FIRST, return_eigenvectors=False)[0],
}


def best(work: Callable[[], object], number: int = 1) -> float:
    return min(timeit.repeat(work, number=number, repeat=7)) / number


def compare(name: str, exponent: float) -> None:
    model = Model(np.array([20.0]), np.full(D1, 3 / np.sqrt(D1)), power_law_covariance(D1, exponent))
    states = gradient_descent(model, random_start(D1, 3.0, seed=0), 0.04, STATES - 1).state
    chosen = np.linspace(0, STATES - 1, DENSE_STATES).astype(int)
    matrices = [hessian(model, states.at(int(i))) for i in chosen]
    exact, one = sharpness(model, states), states.at(0)
    single = best(lambda: sharpness(model, one), number=50)
    batch = best(lambda: sharpness(model, states)) / STATES
    print(f"{name}: exact, one state {single * 1e6:.1f} us, a state of {STATES} {batch * 1e6:.1f} us")
    for way, solve in DENSE.items():
        seconds = best(lambda: solve(matrices[0]))  # noqa: B023
        difference = np.abs(exact[chosen] / [solve(matrix) for matrix in matrices] - 1).max()
        print(f"  {way:15}{seconds * 1e3:9.2f} ms{seconds / single:12,.0f}{seconds / batch:12,.0f}{difference:14.1e}")


def measure() -> None:
    """Prints the table."""
    print("  dense             one matrix   by one exact   by a state of many   relative difference")
    compare("identity", 0.0)
    compare("power law", 1.0)


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/exact_sharpness.py", description=str(__doc__))
