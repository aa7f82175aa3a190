"""Every statistic reads the steps that it says, all of them, and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from claim_evidence import made_up_evidence

from theory import InputError
from validate.claims import CLAIMS
from validate.claims.base import Evidence, NetworkEvidence, judge
from validate.windows import Windows

OF = {claim.name: claim for claim in CLAIMS}
Stretches = Callable[[Windows], list[slice]]


def _pair(w: Windows) -> list[slice]:
    """Chosen on the one, judged on the other."""
    return [w.select, w.evaluate]


READS: dict[str, tuple[str, str, Stretches, Stretches]] = {
    "C2": ("base", "loss", lambda w: [slice(0, w.edge.stop)], _pair),
    "C3": ("base", "loss", _pair, _pair),
    "C4a": ("base", "loss", _pair, _pair),
    "C4b": ("base", "loss", _pair, _pair),
    "C5a": ("edge", "group_cosine", lambda w: [w.evaluate], lambda w: [w.evaluate]),
    "C5b": ("edge", "group_gradient_norm", lambda w: [w.evaluate], lambda w: [w.evaluate]),
    "C5c": ("edge", "group_bounce_share", lambda w: [w.evaluate], lambda w: [w.evaluate]),
    "C5d": ("edge", "group_curvature", lambda w: [w.evaluate], lambda w: [w.evaluate]),
    "C6": ("edge", "gradient_along_bounce", lambda w: [w.edge], _pair),
    "C7a": ("base", "loss", lambda w: [w.edge], _pair),
    "C7b": ("base", "loss", lambda w: [w.edge], _pair),
    "C7c": ("base", "loss", lambda w: [w.edge], _pair),
    "C8": ("base", "loss", lambda w: [w.edge], _pair),
    "C9a": ("base", "layer_share_iterate", lambda w: [w.early, w.evaluate], lambda w: [w.early, w.evaluate]),
    "C9b": ("base", "layer_share_iterate", lambda w: [w.early, w.evaluate], lambda w: [w.early, w.evaluate]),
    "C14": ("edge", "bounce_a", lambda w: [w.edge], _pair),
    "C15a": ("base", "feature_norm", lambda w: [slice(0, 1)], lambda w: [slice(0, 1)]),
    "C15b": ("base", "feature_norm", lambda w: [w.evaluate], lambda w: [w.evaluate]),
    "C16": ("base", "colour_probability", lambda w: [w.edge], _pair),
}
"""Claim → role, variable, the steps that may matter, and stretches each of which has to."""


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return made_up_evidence()


def _spoilt(e: NetworkEvidence, role: str, name: str, kept: list[slice], *, inside: bool) -> NetworkEvidence:
    """Without values at the steps inside the stretches, or outside of them."""
    data = e.runs[role].copy(deep=True)
    dimension = data[name].dims[0]
    steps = np.arange(data.sizes[dimension]) if dimension == "step" else data[dimension].values
    within = np.any([(steps >= s.start) & (steps < s.stop) for s in kept], axis=0)
    data[name].values[within if inside else ~within] = np.nan
    return dataclasses.replace(e, runs={**e.runs, role: data})


def _measured(name: str, networks: list[NetworkEvidence]) -> np.ndarray:
    try:
        return np.array(OF[name].measure(Evidence(networks)))
    except (np.linalg.LinAlgError, InputError):  # refused, as a pair chosen on nothing is
        return np.full(len(networks), np.nan)


@pytest.mark.parametrize("name", READS)
def test_values_outside_its_windows_do_not_matter(name: str, evidence: Evidence) -> None:
    role, variable, may, _ = READS[name]
    spoilt = [
        _spoilt(e, role, variable, may(e.windows), inside=False) for e in evidence.networks if e.windows is not None
    ]
    expected = _measured(name, list(evidence.networks))
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(_measured(name, spoilt), expected)


@pytest.mark.parametrize("name", READS)
def test_values_in_each_of_its_windows_do(name: str, evidence: Evidence) -> None:
    role, variable, _, must = READS[name]
    expected = _measured(name, list(evidence.networks))
    for i in range(len(must(evidence.networks[0].windows))):  # type: ignore[arg-type]
        spoilt = [
            _spoilt(e, role, variable, must(e.windows)[i : i + 1], inside=True)
            for e in evidence.networks
            if e.windows is not None
        ]
        assert (_measured(name, spoilt) != expected).all(), i


def test_a_control_without_a_value_makes_no_claim_hold(evidence: Evidence) -> None:
    for name in ("C5a", "C7a", "C8"):
        nowhere = dataclasses.replace(OF[name], measure_control=lambda e: [float("nan")] * len(e.networks))
        verdict = judge(nowhere, evidence)
        assert not verdict.holds
        assert verdict.reason == "the control is not defined for every seed"
        assert judge(OF[name], evidence).holds
