"""The root finder and what rests on it, against LAPACK's dense eigenvalues of matrices written out here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import finite, models_with_states

from theory import InputError, Model, State, hessian, power_law_covariance
from theory.curvature import layer_sharpness, sharpness, smallest_eigenvalue, spectrum
from theory.secular_equation import largest_root

Arrow = tuple[float, list[float], list[float]]


def _dense(a: float, v: list[float], d: list[float]) -> np.ndarray:
    matrix = np.diag(np.array([a, *d], dtype=np.float64))
    matrix[0, 1:] = matrix[1:, 0] = v
    return matrix


@st.composite
def sizes(draw: st.DrawFn) -> float:
    """Zero, or a size of any order between 1e-18 and 1; one is drawn often, so that entries tie."""
    return draw(st.one_of(st.sampled_from([0.0, 1.0, 1.0 - 1e-15, 1e-9]), st.floats(-18, 0).map(lambda e: 10.0**e)))


@st.composite
def arrows(draw: st.DrawFn) -> Arrow:
    """Arrow matrices with corner and diagonal at least 0, of one common scale between 1e-140 and 1e140."""
    n, scale = draw(st.integers(1, 6)), 10.0 ** draw(st.integers(-140, 140))
    signs = st.sampled_from([-1.0, 1.0])
    v = [draw(sizes()) * draw(signs) * scale for _ in range(n)]
    return draw(sizes()) * scale, v, [draw(sizes()) * scale for _ in range(n)]


@st.composite
def roots_at_a_pole(draw: st.DrawFn) -> Arrow:
    """Zero or tiny arm at the rightmost pole and a corner that puts the other root onto it: the slowest case."""
    d = [1.0, *(draw(finite(0.0, 1 - 1e-6)) for _ in range(draw(st.integers(1, 4))))]
    arm = draw(st.sampled_from([0.0, 1e-16, 1e-12, 1e-8, 1e-4]))
    v = [arm, *(draw(finite(-0.3, 0.3)) * np.sqrt(1 - x) for x in d[1:])]
    # λ − a = Σ v²/(λ − d) at λ = 1
    return max(1 - sum(y * y / (1 - x) for x, y in zip(d[1:], v[1:], strict=True)), 0.0), v, d


@given(st.one_of(arrows(), roots_at_a_pole()))
@example((0.0, [0.0], [0.0]))
@example((0.0, [1e-300], [0.0]))
@example((1e150, [1e150, 1.0], [1e-150, 1e150]))
@example((2.0, [0.0, 0.0], [1.0, 1.0]))
@example((1.0, [0.0], [1.0]))
@example((0.0, [1e-12, 1.0], [1.0, 1.0 - 1e-12]))
@example((1e-200, [1e-200, 0.0], [1e-200, 1e-200]))
def test_largest_root_to_1e10_relative(arrow: Arrow) -> None:
    a, v, d = arrow
    scale = max(a, *np.abs(v), *d) or 1.0
    expected = np.linalg.eigvalsh(_dense(a, v, d) / scale)[-1] * scale
    root = largest_root(np.array(a), np.array(v), np.array(d))
    assert root == pytest.approx(expected, rel=1e-13, abs=0)


@given(arrows(), st.booleans())
def test_the_mirror_is_right_to_rounding_errors_of_the_norm(arrow: Arrow, corner_negative: bool) -> None:
    a, v, d = arrow
    scale = max(a, *np.abs(v), *d) or 1.0
    corner = -a if corner_negative else a
    expected = np.linalg.eigvalsh(_dense(corner, v, d) / scale)
    root = -largest_root(np.array(-corner), np.array(v), -np.array(d))
    assert root / scale == pytest.approx(expected[0], abs=1e-14 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("power", [-150, 0, 150])
def test_closed_form_of_two_by_two(power: int) -> None:
    x = 10.0**power
    # [[0, 3], [3, 8]] has eigenvalues 9 and −1
    assert largest_root(np.array(0.0), np.array([3 * x]), np.array([8 * x])) == pytest.approx(9 * x, rel=1e-15)
    assert largest_root(np.array(0.0), np.array([3 * x]), np.array([-8 * x])) == pytest.approx(x, rel=1e-14)


def test_a_batch_mixes_scales_and_nan_without_a_warning() -> None:
    a = np.array([1.0, 1e-200, np.nan, 0.0])
    v = np.array([[1.0, 0.0], [1e-200, 1e-200], [1.0, 1.0], [0.0, 0.0]])
    d = np.array([[2.0, 2.0], [0.0, 1e-200], [1.0, 1.0], [0.0, 0.0]])
    roots = largest_root(a, v, d)
    assert np.isnan(roots[2])
    for i in (0, 1, 3):
        assert roots[i] == largest_root(a[i], v[i], d[i])


@given(models_with_states())
@example((Model([1.0], [0.0], [1.0]), State(0.0, [1.0], [1.0])))  # c = 0: all poles at 0
@example((Model([1e6], [1e-3], [1e-6]), State(1e3, [1e-3], [1e-9])))  # αc² far above everything
@example((Model([2.0], [2.0], [3.0]), State(1.0, [1.0], [0.0])))  # every arm 0
def test_extreme_eigenvalues_of_models(case: tuple[Model, State]) -> None:
    model, state = case
    expected = np.linalg.eigvalsh(hessian(model, state))
    assert sharpness(model, state) == pytest.approx(expected[-1], rel=1e-12)
    assert smallest_eigenvalue(model, state) == pytest.approx(expected[0], abs=1e-13 * expected[-1])
    # T2: the largest is the largest in size.
    assert -smallest_eigenvalue(model, state) <= sharpness(model, state) * (1 + 1e-14)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("c", [0.0, 1e-4, 1.0, 30.0])
def test_a_thousand_features(exponent: float, c: float) -> None:
    rng = np.random.default_rng(0)
    model = Model([20.0], rng.normal(size=400), power_law_covariance(400, exponent))
    state = State(c, rng.normal(size=400), [0.9])
    if (exponent, c) == (1.0, 1.0):
        model = Model([20.0], rng.normal(size=1000), power_law_covariance(1000, exponent))
        state = State(c, rng.normal(size=1000), [0.9])
    assert sharpness(model, state) == pytest.approx(np.linalg.eigvalsh(hessian(model, state))[-1], rel=1e-12)


def _with_opposing_vector(alpha_o: np.ndarray, beta: np.ndarray, sigma: np.ndarray, c: float, b, b_o) -> np.ndarray:
    """The whole network's Hessian over (c, b, b_o) with dense second moments, from the setting's loss."""
    d1, d2 = b.size, b_o.size
    matrix = np.zeros((1 + d1 + d2,) * 2)
    matrix[0, 0] = b @ sigma @ b + b_o @ alpha_o @ b_o
    matrix[0, 1 : 1 + d1] = matrix[1 : 1 + d1, 0] = sigma @ (2 * c * b - beta)
    matrix[0, 1 + d1 :] = matrix[1 + d1 :, 0] = 2 * c * alpha_o @ b_o
    matrix[1 : 1 + d1, 1 : 1 + d1], matrix[1 + d1 :, 1 + d1 :] = c**2 * sigma, c**2 * alpha_o
    return matrix


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), finite(1e-3, 1e3), finite(-10, 10), st.booleans()
)
@example(0, 3, 2, 1.0, 1.0, True)  # α = 1
@example(0, 1, 1, 2.0, 1.0, False)
@example(0, 4, 4, 2.0, 0.0, True)
def test_spectrum_counts_the_idle_directions(
    seed: int, d1: int, d2: int, alpha: float, c: float, isotropic: bool
) -> None:
    rng = np.random.default_rng(seed)
    beta, b, b_o = rng.normal(size=d1), rng.normal(size=d1), rng.normal(size=d2)
    u = np.full(d2, 1 / np.sqrt(d2))
    moments = alpha * (np.eye(d2) if isotropic else np.outer(u, u))
    expected = np.linalg.eigvalsh(_with_opposing_vector(moments, beta, np.eye(d1), c, b, b_o))
    model, s = Model([alpha], beta, np.ones(d1)), np.linalg.norm(b_o) if isotropic else u @ b_o
    got = spectrum(model, State(c, b, [s]), idle=d2 - 1 if isotropic else 0)
    got = got if isotropic else np.sort(np.append(got, np.zeros(d2 - 1)))
    np.testing.assert_allclose(got, expected, atol=1e-12 * expected[-1], rtol=0)


@given(models_with_states())
@example((Model([0.0], [1.0], [1e-250]), State(0.0, [0.0], [0.0])))
def test_spectrum_of_any_model_and_batch(case: tuple[Model, State]) -> None:
    model, state = case
    expected = np.linalg.eigvalsh(hessian(model, state))
    batch = State(state.c[None], state.b[None], state.s[None])
    np.testing.assert_allclose(spectrum(model, batch)[0], expected, atol=1e-12 * expected[-1], rtol=0)
    idle = list(range(model.alpha.size))
    more = spectrum(model, state, idle=idle)
    assert more.size == expected.size + sum(idle)
    added = (idle * model.alpha).sum() * state.c**2
    assert more.sum() - expected.sum() == pytest.approx(added, abs=1e-12 * more.size * max(more[-1], 0))


@pytest.mark.parametrize("idle", [-1, [1, 2, 3]])
def test_spectrum_refuses_a_wrong_number_of_idle_directions(idle: int | list[int]) -> None:
    with pytest.raises(InputError, match="idle is"):
        spectrum(Model([1.0, 2.0], [1.0], [1.0]), State(1.0, [1.0], [1.0, 1.0]), idle=idle)


@given(models_with_states(), st.integers(-60, 60))
def test_sharpness_scales_with_the_loss(case: tuple[Model, State], power: int) -> None:
    model, state = case
    x = 10.0**power
    scaled = Model(model.alpha * x, model.beta, model.covariance * x)
    assert sharpness(scaled, state) == pytest.approx(float(sharpness(model, state)) * x, rel=1e-12)
    assume(sharpness(model, state) > 0)
    assert 0 <= layer_sharpness(scaled, state).first_share <= 1
