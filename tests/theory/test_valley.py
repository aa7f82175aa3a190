"""The valley of two variables: descent on (c, s) is the edge's map, its Hessian that of differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import InputError, Model, State
from theory.edge import edge_units
from theory.model import loss
from theory.valley import valley_descent, valley_hessian

SIZE = st.floats(0.1, 3.0)


@given(SIZE, SIZE, SIZE, st.floats(0.3, 1.7), st.floats(-0.5, 0.5), st.floats(0.02, 0.3))
def test_descent_is_the_map_of_the_edge_in_its_own_units(
    alpha: float, beta: float, b: float, q: float, s: float, lr: float
) -> None:
    """The map: q' = q (1 − w/4) + g/4 − m (q − 1), w' = (2q² − 1)² w: without any gradient."""
    model, threshold = Model([alpha], [beta], [1.0]), np.sqrt(2 / (lr * alpha))
    path = valley_descent(model, State(q * threshold, [b], [s]), lr, steps=6)
    w, m = 4 * lr * alpha * s**2, lr * b * b
    g = 4 * lr * b * (beta - threshold * b) / threshold
    for t in range(7):
        assert path.c[t] / threshold == pytest.approx(q, rel=1e-9, abs=1e-9 * (1 + abs(g)))
        assert 4 * lr * alpha * path.s[t, 0] ** 2 == pytest.approx(w, rel=1e-7, abs=1e-12)
        q, w = q * (1 - w / 4) + g / 4 - m * (q - 1), (2 * q * q - 1) ** 2 * w
        if max(abs(q), w) > 10:
            break


def test_the_other_weights_stay() -> None:
    model = Model([4.0], [2.0, 1.0], [1.0, 0.5])
    path = valley_descent(model, State(0.5, [1.0, 0.3], [0.9]), lr=0.1, steps=20)
    assert (path.b == path.b[0]).all()
    assert (np.diff(path.c) != 0).all()
    assert float(edge_units(model, path, 0.1).damping[0]) == pytest.approx(0.1 * (1 + 0.5 * 0.09))


@given(SIZE, SIZE, SIZE, st.floats(0.2, 2.0), st.floats(-1.0, 1.0))
def test_the_hessian_is_that_of_differences_of_the_loss(
    alpha: float, beta: float, b: float, c: float, s: float
) -> None:
    model, step = Model([alpha], [beta], [1.0]), 1e-3

    def at(dc: float, ds: float) -> float:
        return float(loss(model, State(c + dc * step, [b], [s + ds * step])))

    mixed = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    differences = np.array([[at(1, 0) - 2 * at(0, 0) + at(-1, 0), mixed], [mixed, at(0, 1) - 2 * at(0, 0) + at(0, -1)]])
    found = valley_hessian(model, State(c, [b], [s]))
    # Errors of differences: step² times fourth derivatives, and rounding over step².
    np.testing.assert_allclose(differences / step**2, found, atol=1e-6 * (10 + alpha + beta**2), rtol=1e-5)


def test_bad_input_is_refused() -> None:
    model = Model([4.0], [2.0], [1.0])
    with pytest.raises(InputError, match=r"lr is -0\.1"):
        valley_descent(model, State(0.5, [1.0], [0.9]), lr=-0.1, steps=3)
    with pytest.raises(InputError, match="give one state"):
        valley_descent(model, State([0.5, 0.6], [[1.0], [1.0]], [[0.9], [0.9]]), lr=0.1, steps=3)
