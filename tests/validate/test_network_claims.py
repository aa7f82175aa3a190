"""C2, C5, C6, C7, C14, C15, C16 hold on evidence made for them and fail where what they claim is taken away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from claim_evidence import CROSSING, N, base_run, made_up_evidence
from hypothesis import given
from hypothesis import strategies as st

from validate.claims import (
    c02_onset,
    c05_opposing_gradients,
    c06_growth_factor,
    c07_heavy_tail,
    c14_oscillation_variance,
    c15_outsized_features,
    c16_signal_is_feature,
)
from validate.claims.base import Claim, Evidence, judge
from validate.claims.bounce import alternating_displacement, stretches
from validate.claims.c02_onset import amplitude, onset_step, visible
from validate.claims.c07_heavy_tail import gaussian_like, median_hill_index, median_kurtosis, top_energy

MODULES = (
    c02_onset,
    c05_opposing_gradients,
    c06_growth_factor,
    c07_heavy_tail,
    c14_oscillation_variance,
    c15_outsized_features,
    c16_signal_is_feature,
)
CLAIMS: tuple[Claim, ...] = tuple(claim for module in MODULES for claim in module.CLAIMS)
OF = {claim.name: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return made_up_evidence()


def _changed(evidence: Evidence, role: str, change: Callable[[xr.Dataset], xr.Dataset]) -> Evidence:
    networks = [
        dataclasses.replace(e, runs={**e.runs, role: change(e.runs[role].copy(deep=True))}) for e in evidence.networks
    ]
    return dataclasses.replace(evidence, networks=networks)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_each_claim_holds_on_evidence_made_for_it(claim: Claim, evidence: Evidence) -> None:
    verdict = judge(claim, evidence)
    assert verdict.holds, (verdict.reason, verdict.values, verdict.control_values)


def test_a_run_without_a_swing_has_no_onset(evidence: Evidence) -> None:
    """Half of its own remainders it would reach in its first steps, whatever the data."""
    (claim,) = c02_onset.CLAIMS
    assert claim.measure_control(evidence) == pytest.approx([150.0] * 3)
    swinging = _changed(evidence, "gentle", lambda data: data.assign(loss=evidence.networks[0].run["loss"]))
    assert max(claim.measure_control(swinging)) < 30


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_a_control_that_does_not_fail_is_a_defect(claim: Claim, evidence: Evidence) -> None:
    verdict = judge(dataclasses.replace(claim, measure_control=claim.measure), evidence)
    assert not verdict.holds
    assert verdict.reason == "the control does not fail"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_a_run_that_never_crosses_is_undefined_not_a_success(claim: Claim, evidence: Evidence) -> None:
    without = [dataclasses.replace(e, windows=None) for e in evidence.networks]
    verdict = judge(claim, dataclasses.replace(evidence, networks=without))
    assert not verdict.holds
    assert "not defined" in verdict.reason


def _late(data: xr.Dataset) -> xr.Dataset:
    """The oscillation becomes visible 60 steps after the crossing."""
    losses = data["loss"].values
    losses[CROSSING : CROSSING + 60] = losses[CROSSING - 60 : CROSSING]
    return data


def _gaussian(data: xr.Dataset) -> xr.Dataset:
    changes = gaussian_like(np.diff(data["loss"].values, axis=0), np.random.default_rng(0))
    data["loss"].values[1:] = data["loss"].values[0] + changes.cumsum(0)
    return data


def _heavy(data: xr.Dataset) -> xr.Dataset:
    data["loss"].values[:] = base_run(0)["loss"].values
    return data


def _scaled(name: str, factor: float) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(data: xr.Dataset) -> xr.Dataset:
        data[name].values[:] *= factor
        return data

    return change


def _same_labels_along_the_bounce(data: xr.Dataset) -> xr.Dataset:
    data["random_bounce_share"].loc[{"kind": "same labels"}] = 0.75
    return data


def _features_of_a_class(data: xr.Dataset) -> xr.Dataset:
    data["label"].values[:] = np.arange(N) // 40 % 10
    return data.assign(feature_norm=data["feature_norm"] * 0 + np.where(data["label"] == 0, 1.5, 1.0))


def _floor_early(data: xr.Dataset) -> xr.Dataset:
    measured = data["measured"].values
    data["sharpness_midpoint"] = "measured", np.minimum(measured * (40 / (CROSSING - 60)), 40.5)
    return data


def _without_probes(data: xr.Dataset) -> xr.Dataset:
    return data.drop_vars(["feature_norm", "colour_probability"])


@pytest.mark.parametrize(
    ("name", "role", "change"),
    [
        ("C2", "base", _late),
        ("C5a", "edge", _scaled("group_cosine", -1)),
        ("C5b", "edge", _scaled("group_gradient_norm", 0.4)),
        ("C5c", "edge", _scaled("group_bounce_share", 0.5)),
        ("C5d", "edge", _scaled("group_curvature", 0.5)),
        # Whole classes along the bounce, or with large features: their random groups do what the pair does.
        ("C5c", "edge", _same_labels_along_the_bounce),
        ("C15a", "base", _features_of_a_class),
        ("C15b", "base", _features_of_a_class),
        # The floor gets to 2/η 60 steps before the bounce lifts the iterates over it.
        ("C2", "base", _floor_early),
        # ηλ/2 off by a quarter.
        ("C6", "edge", _scaled("bounce_curvature", 0.75)),
        ("C7a", "base", _gaussian),
        ("C7b", "base", _gaussian),
        ("C7c", "base", _gaussian),
        # A tail that is as heavy far from the edge.
        *((name, "gentle", _heavy) for name in ("C7a", "C7b", "C7c")),
        # The constant 1, and 4, in place of 2.
        ("C14", "edge", _scaled("bounce_a", 0.5)),
        ("C14", "edge", _scaled("bounce_a", 2.0)),
        ("C15a", "base", lambda data: data.assign(feature_norm=data["feature_norm"] * 0 + 1)),
        (
            "C15b",
            "base",
            lambda data: data.assign(feature_norm=data["feature_norm"].isel(example=slice(None, None, -1))),
        ),
        ("C15a", "base", _without_probes),
        ("C15b", "base", _without_probes),
        ("C16", "base", lambda data: data.assign(colour_probability=data["colour_probability"] * 0 + 0.1)),
        ("C16", "base", _without_probes),
    ],
)
def test_each_claim_fails_without_what_it_claims(
    evidence: Evidence, name: str, role: str, change: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    assert not judge(OF[name], _changed(evidence, role, change)).holds


def test_the_two_groups_count_alike(evidence: Evidence) -> None:
    """√(16 · 25) over random groups' 5, and (240 + 320)/2 over 40."""
    assert judge(OF["C5b"], evidence).values == pytest.approx((4.0,) * 3)
    assert judge(OF["C5d"], evidence).values == pytest.approx((7.0,) * 3)


def test_gradients_are_judged_on_steps_that_the_groups_were_not_chosen_on(evidence: Evidence) -> None:
    windows = evidence.networks[0].windows
    assert windows is not None

    def turning(data: xr.Dataset) -> xr.Dataset:
        data["group_cosine"].values[:] = np.where(data["edge_measured"] < windows.evaluate.start, -0.9, 0.9)
        return data

    assert judge(OF["C5a"], _changed(evidence, "edge", turning)).values == pytest.approx((0.9,) * 3)


def test_the_top_eigenvector_is_no_part_of_the_bulk_in_the_growth_factor(evidence: Evidence) -> None:
    """The other three have the median 20, at which 1 − ηλ is 0; x grows by −1."""
    assert judge(OF["C6"], evidence).control_values == pytest.approx((-1.0,) * 3)


def test_the_bulk_is_its_median_direction(evidence: Evidence) -> None:
    """One of the three bulk eigenvectors swings as the bounce does, as where two eigenvalues are close."""

    def swinging(data: xr.Dataset) -> xr.Dataset:
        data["gradient_projection"].values[:, 1] = data["gradient_projection"].values[:, 0]
        return data

    assert max(judge(OF["C14"], _changed(evidence, "edge", swinging)).control_values) < 0.01


def test_where_no_oscillation_stands_its_claims_are_undefined(evidence: Evidence) -> None:
    def quiet(data: xr.Dataset) -> xr.Dataset:
        data["gradient_along_bounce"].values[:] = 0.3 * 0.99 ** np.arange(data.sizes["edge_step"])
        return data

    for name in ("C5c", "C5d", "C14"):
        verdict = judge(OF[name], _changed(evidence, "edge", quiet))
        assert not verdict.holds
        assert "not defined" in verdict.reason


@given(st.floats(-1.15, -0.85), st.floats(1e-3, 1.0), st.floats(-1, 1), st.floats(-0.1, 0.1))
def test_stretches_measure_growth_and_square(growth: float, start: float, steady: float, drift: float) -> None:
    """x_t = x_0 gᵗ in closed form, on top of a steady slope with a drift."""
    lr, steps = 0.05, np.arange(20)
    x = start * growth**steps
    # x_{t+1} − x_t = −η g_t
    slope = (1 - growth) * x / lr + steady + drift * steps
    seen = alternating_displacement(slope, lr)
    # The filter's gain on gᵗ is −(g − 1)²/4g, and the slope's is (1 − g)/2: both 1 at g = −1.
    np.testing.assert_allclose(
        seen, x[1:-1] * (1 - growth) / 2 * -((growth - 1) ** 2) / (4 * growth), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(seen[1:], growth * seen[:-1], rtol=1e-6, atol=1e-9)


def test_stretches_leave_out_what_lies_before_the_crossing_or_is_too_short(evidence: Evidence) -> None:
    e = evidence.networks[0]
    assert e.windows is not None
    edge = e.runs["edge"]
    found = stretches(edge, e.windows)
    assert len(found.first) == 30
    assert edge["edge_step"].values[found.first].min() == CROSSING
    assert found.standing.all()
    short = stretches(edge.isel(edge_step=slice(0, -2)), e.windows)
    assert len(short.first) == 29


def test_the_onset_is_where_the_amplitude_reaches_half() -> None:
    t = np.arange(200)
    gap = 0.02 * t + (-1.0) ** t * np.where(t >= 120, 1.0, 1.05 ** np.minimum(t - 120.0, 0))
    # 1.05^−14 is 0.505: the amplitude is half of the edge's 14 steps before it saturates.
    sizes = amplitude(gap)
    assert visible(sizes, slice(120, 199)) == pytest.approx(0.5, rel=1e-3)
    step = onset_step(sizes, visible(sizes, slice(120, 199)))
    # Of six steps centred on t, from t − 3 to t + 2, the median is below that of t by half a step's growth: 107.
    assert step == 107
    assert onset_step(0.1 * sizes, visible(sizes, slice(120, 199))) is None  # a tenth of it is never half of it


def test_a_gaussian_has_no_heavy_tail_and_a_heavy_tail_is_measured() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    normal, heavy = rng.normal(size=(5, n)), rng.standard_t(3, size=(5, n))
    assert median_kurtosis(normal) == pytest.approx(3, abs=0.15)
    assert median_hill_index(normal) > 4.5
    assert median_hill_index(heavy) == pytest.approx(3, abs=0.5)
    # What moves all examples alike is no tail.
    assert median_hill_index(heavy + np.array([[0.0], [5], [-9], [20], [1]])) == pytest.approx(median_hill_index(heavy))
    # A rank-one window: shares of χ²₁, whose top 5 % carry 2(zφ(z) + P(Z > z)) = 0.279 at z = 1.96.
    one = np.outer([1.0, -1.0, 1.0], rng.normal(size=n))
    assert top_energy(one) == pytest.approx(0.279, abs=0.01)


def test_the_surrogate_keeps_mean_and_covariance_over_steps() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(4, 4))
    changes = mixing @ rng.standard_t(4, size=(4, 50_000)) + np.arange(4)[:, None]
    drawn = gaussian_like(changes, rng)
    np.testing.assert_allclose(drawn.mean(1), changes.mean(1), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn), np.cov(changes), rtol=0.1, atol=0.1)
    assert median_kurtosis(drawn) == pytest.approx(3, abs=0.15)
    assert median_kurtosis(changes) > 3.5
