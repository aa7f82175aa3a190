"""Laws of sizes against their distribution functions and second moments; tail estimates against known tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim import heavy_tails
from sim.heavy_tails import SizeLaw, hill_estimator, kurtosis
from theory import InputError

N = 200_000


def _draw(law: SizeLaw, seed: int = 0, count: int = N) -> np.ndarray:
    """Sizes before scaling."""
    return law.draw(count, torch.Generator().manual_seed(seed)).numpy() * math.sqrt(law.second_moment)


@pytest.mark.parametrize(
    ("law", "cdf"),
    [
        (SizeLaw("pareto", 2.5), stats.pareto(2.5).cdf),
        (SizeLaw("student-t", 4.0), lambda x: 2 * stats.t(4.0).cdf(x) - 1),
        (SizeLaw("log-normal", 0.7), stats.lognorm(0.7).cdf),
        (SizeLaw("stable", 1.0, cutoff=1e6), lambda x: 2 * stats.cauchy.cdf(x) - 1),
        (SizeLaw("stable", 1.999999, cutoff=1e6), lambda x: 2 * stats.norm(0, math.sqrt(2)).cdf(x) - 1),
    ],
)
def test_sizes_follow_their_law(law: SizeLaw, cdf: object) -> None:
    assert stats.kstest(_draw(law), cdf).pvalue > 1e-3


@pytest.mark.parametrize("a", [0.5, 0.9, 1.0, 1.4, 1.8, 1.95])
def test_a_stable_second_moment_far_out_is_the_integrals_and_grows_as_its_tail(
    a: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both serve they agree; far out E min(|X|, T)² gains 2a/(2 − a) C T^(2−a), of a tail C x^(−a)."""

    def moment(cutoff: float) -> float:
        return heavy_tails._stable_second_moment(a, cutoff)  # a law's is computed once a process

    near = [moment(t) for t in (100.0, 300.0, 1000.0)]
    monkeypatch.setattr(heavy_tails, "_FAR", math.inf)
    assert [moment(t) for t in (100.0, 300.0, 1000.0)] == pytest.approx(near, rel=1e-6)
    monkeypatch.undo()
    tail = 2 / math.pi * math.gamma(a) * math.sin(math.pi * a / 2)  # of |X|, for exp(−|ω|^a)
    # ∫ 2x P(|X| > x) dx from T to 2T
    gain = 2 * tail / (2 - a) * ((2e8) ** (2 - a) - (1e8) ** (2 - a))
    assert moment(2e8) - moment(1e8) == pytest.approx(gain, rel=1e-4 if a > 0.6 else 1e-3)


@pytest.mark.parametrize("a", [0.6, 1.5])
def test_stable_sizes_have_their_characteristic_function(a: float) -> None:
    # E cos ωX = exp(−|ω|^a): holds for the law, and is not what the draw is made from.
    x = _draw(SizeLaw("stable", a, cutoff=1e12))
    for omega in (0.3, 1.0, 3.0):
        sample = np.cos(omega * x)
        assert abs(sample.mean() - math.exp(-(omega**a))) < 5 * sample.std() / math.sqrt(N)


@pytest.mark.parametrize(
    "law",
    [
        SizeLaw(),
        SizeLaw("pareto", 5.0),
        SizeLaw("pareto", 1.2, cutoff=50.0),
        SizeLaw("pareto", 2.0, cutoff=50.0),
        SizeLaw("pareto", 3.0, cutoff=0.5),
        SizeLaw("student-t", 6.0),
        SizeLaw("student-t", 1.5, cutoff=30.0),
        SizeLaw("log-normal", 0.5),
        SizeLaw("log-normal", 2.0, cutoff=20.0),
        SizeLaw("stable", 0.5, cutoff=30.0),
        SizeLaw("stable", 1.5, cutoff=30.0),
    ],
)
def test_sizes_have_second_moment_one(law: SizeLaw) -> None:
    squares = law.draw(N, torch.Generator().manual_seed(1)).numpy() ** 2
    assert abs(squares.mean() - 1) <= 5 * squares.std() / math.sqrt(N) + 1e-12
    if law.cutoff is not None:
        assert squares.max() == pytest.approx(law.cutoff**2 / law.second_moment)


@given(cutoff=st.floats(1e-3, 1e6))
def test_second_moments_have_their_closed_forms(cutoff: float) -> None:
    # E min(|Cauchy|, T)² = T² − (2/π)((T² + 1) arctan T − T); with arctan T = π/2 − arctan 1/T for large T
    t = cutoff
    cauchy = 2 / math.pi * ((t * t + 1) * math.atan(1 / t) + t) - 1
    if t < 1:
        cauchy = t * t - 2 / math.pi * ((t * t + 1) * math.atan(t) - t)
    # The Student-t law of one degree of freedom is the stable one of index 1: two routes to one number.
    for law in (SizeLaw("stable", 1.0, cutoff=t), SizeLaw("student-t", 1.0, cutoff=t)):
        assert law.second_moment == pytest.approx(cauchy, rel=1e-6)


def test_second_moments_reach_their_limits_as_the_cutoff_goes() -> None:
    for family, tail in (("pareto", 5.0), ("student-t", 5.0), ("log-normal", 0.5)):
        free, cut = SizeLaw(family, tail), SizeLaw(family, tail, cutoff=1e5)  # type: ignore[arg-type]
        assert cut.second_moment == pytest.approx(free.second_moment, rel=1e-9)
    # The stable law of index 2 is Gaussian of variance 2.
    assert SizeLaw("stable", 2 - 1e-9, cutoff=50.0).second_moment == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(("a", "cutoff"), [(2.5, 1e-8), (1.0, 1e-12)])
def test_far_below_its_scale_a_law_is_its_cutoff(a: float, cutoff: float) -> None:
    """P(|X| > x) is 1 there."""
    assert SizeLaw("student-t", a, cutoff).second_moment == pytest.approx(cutoff**2, rel=1e-6)


def test_a_cutoff_keeps_the_moment_of_a_wide_log_normal_law_finite() -> None:
    """E X² itself overflows; half of the sizes are at the cutoff, the others mostly far below."""
    assert SizeLaw("log-normal", 40.0, cutoff=1.0).second_moment == pytest.approx(0.5, rel=0.02)


def test_the_same_seed_gives_the_same_sizes_and_another_others() -> None:
    law = SizeLaw("stable", 1.3, cutoff=100.0)
    assert (_draw(law, 3, 50) == _draw(law, 3, 50)).all()
    assert (_draw(law, 3, 50) != _draw(law, 4, 50)).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pareto",), "need a tail"),
        (("pareto", 2.0), "infinite second moment"),
        (("student-t", 1.0), "infinite second moment"),
        (("stable", 1.5), "infinite second moment"),
        (("stable", 2.0, 9.0), "tail of a stable law is 2.0"),
        (("log-normal", -1.0), "tail is -1.0"),
        (("pareto", math.nan), "tail is nan"),
        (("pareto", 1.5, 0.0), "cutoff is 0.0"),
        (("two-point", 3.0), "two-point sizes have no tail"),
        (("log-normal", 20.0), "have a second moment of inf in double precision"),
        (("student-t", 2.5, 1e-200), "have a second moment of 0 in double precision"),
    ],
)
def test_laws_without_a_second_moment_or_sense_are_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        SizeLaw(*arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tail", [0.8, 2.0, 4.0])
def test_hills_estimate_is_within_its_standard_error_of_a_pareto_tail(tail: float) -> None:
    # Exactly a power law: no bias, so 200 estimates spread as the standard error says.
    law = SizeLaw("pareto", tail, cutoff=1e12)
    estimates = [hill_estimator(_draw(law, seed, 2000), top=200) for seed in range(200)]
    scores = np.array([(e.index - tail) / e.standard_error for e in estimates])
    assert abs(scores.mean()) < 5 / math.sqrt(200)
    assert 0.8 < scores.std() < 1.2


def test_hills_estimate_finds_the_tail_of_a_stable_and_a_student_law_far_out() -> None:
    for law in (SizeLaw("stable", 1.4, cutoff=1e9), SizeLaw("student-t", 3.0)):
        estimate = hill_estimator(-_draw(law), top=500)
        assert law.tail is not None
        assert abs(estimate.index - law.tail) < 5 * estimate.standard_error
    # Control: a Gaussian has no power-law tail, and its estimate is far above these.
    gauss = np.random.default_rng(0).normal(size=N)
    assert hill_estimator(gauss, top=500).index > 6


@given(st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=50).filter(lambda x: np.ptp(x) > 1e-3 * np.abs(x).max()))
def test_kurtosis_is_scipys_at_any_scale(values: list[float]) -> None:
    scaled = np.array(values) / np.abs(values).max()
    assert kurtosis(values) == pytest.approx(stats.kurtosis(scaled, fisher=False), rel=1e-6)


def test_estimates_refuse_what_has_no_tail() -> None:
    with pytest.raises(InputError, match="top is 3 of 3"):
        hill_estimator([1.0, 2.0, 3.0], top=3)
    with pytest.raises(InputError, match=r"all 1\.0"):
        hill_estimator([1.0, 1.0, 1.0], top=2)
    with pytest.raises(InputError, match=r"from 0\.0"):
        hill_estimator([1.0, 0.0], top=1)
    with pytest.raises(InputError, match="equal values"):
        kurtosis([1.0, 1.0])
