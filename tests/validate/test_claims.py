"""Every claim holds on evidence made to hold it, and fails where what it claims is taken away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from cases import planted

from sim import run_two_layer
from validate.claims import CLAIMS, Evidence, NetworkEvidence, judge
from validate.presets import QUICK_CLAIMS, TWO_LAYER_RUNS
from validate.windows import find_windows

STEPS, CROSSING, LR = 420, 200, 0.05
QUICK = [claim for claim in CLAIMS if claim.name in QUICK_CLAIMS]
"""Those that the made-up evidence below is meant for."""
OF_NETWORKS = [claim for claim in QUICK if claim.needs]


def _network(seed: int, *, edge: bool) -> xr.Dataset:
    """A run as the claims expect it: from the crossing on, a planted pair swings and half of the examples go up."""
    rng = np.random.default_rng(seed)
    measured = np.arange(0, STEPS, 10)
    n = 1000
    losses = 2.3 - 0.004 * np.arange(STEPS)[:, None] + 1e-4 * rng.normal(size=(STEPS, n)).cumsum(0)
    if edge:
        swing = planted(seed, n=n, steps=STEPS - CROSSING, size=20, noise=0.3) - 2
        losses[CROSSING:] += swing
    sharpness = np.minimum(measured * (40 / CROSSING), 40.5) if edge else 2 + measured * 0.02
    lr = LR if edge else LR / 10
    drift = np.clip((measured - 100) / 300, 0, 1) * (0.3 if edge else -0.1)
    share = np.stack([0.5 + drift, 0.2 + 0 * drift, 0.3 - drift], 1)
    data = xr.Dataset(coords={"measured": measured, "step": np.arange(STEPS)}, attrs={"lr": lr, "diverged_at": -1})
    data["loss"] = ("step", "example"), losses
    data["label"] = "example", rng.integers(0, 10, n).astype(np.uint8)
    data["sharpness_iterate"] = data["sharpness_midpoint"] = "measured", sharpness
    data["layer_share_iterate"] = ("measured", "layer"), share
    return data


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    networks = []
    for seed in range(3):
        run = _network(seed, edge=True)
        runs = {"base": run, "gentle": _network(seed, edge=False)}
        networks.append(NetworkEvidence(seed, runs, find_windows(run)))
    two_layer = {
        name: (config, run_two_layer(config, torch.device("cpu"), progress=False))
        for name, config in TWO_LAYER_RUNS.items()
    }
    return Evidence(networks, two_layer)


@pytest.mark.parametrize("claim", QUICK, ids=lambda c: c.name)
def test_each_claim_holds_on_evidence_made_for_it(claim, evidence: Evidence) -> None:
    verdict = judge(claim, evidence)
    assert verdict.holds, (verdict.reason, verdict.values, verdict.control_values)


@pytest.mark.parametrize("claim", [c for c in OF_NETWORKS if c.name != "C1a"], ids=lambda c: c.name)
def test_each_claim_fails_on_a_run_without_the_edge(claim, evidence: Evidence) -> None:
    """The control in the run's place, with the windows kept."""
    swapped = [dataclasses.replace(e, runs={**e.runs, "base": e.control}) for e in evidence.networks]
    verdict = judge(claim, dataclasses.replace(evidence, networks=swapped))
    assert not verdict.holds
    assert verdict.reason


def test_sharpening_fails_when_the_sharpness_wanders(evidence: Evidence) -> None:
    claim = next(c for c in CLAIMS if c.name == "C1a")
    runs = []
    for e in evidence.networks:
        run = e.run.copy(deep=True)
        run["sharpness_iterate"].values[:] = np.random.default_rng(e.seed).permutation(run["sharpness_iterate"].values)
        runs.append(dataclasses.replace(e, runs={**e.runs, "base": run}))
    assert not judge(claim, dataclasses.replace(evidence, networks=runs)).holds


def test_sharpening_that_goes_on_at_the_edge_is_not_what_ends_there(evidence: Evidence) -> None:
    claim = next(c for c in CLAIMS if c.name == "C1a")
    runs = []
    for e in evidence.networks:
        run = e.run.copy(deep=True)
        run["sharpness_midpoint"].values[:] = run["measured"].values
        runs.append(dataclasses.replace(e, runs={**e.runs, "base": run}))
    assert judge(claim, dataclasses.replace(evidence, networks=runs)).reason == "the control does not fail"


@pytest.mark.parametrize("claim", OF_NETWORKS, ids=lambda c: c.name)
def test_a_run_that_never_crosses_is_undefined_not_a_success(claim, evidence: Evidence) -> None:
    without = [dataclasses.replace(e, windows=None) for e in evidence.networks]
    verdict = judge(claim, dataclasses.replace(evidence, networks=without))
    assert not verdict.holds
    assert "not defined" in verdict.reason


@pytest.mark.parametrize("claim", QUICK, ids=lambda c: c.name)
def test_a_control_that_does_not_fail_is_a_defect(claim, evidence: Evidence) -> None:
    same = dataclasses.replace(claim, measure_control=claim.measure)
    verdict = judge(same, evidence)
    assert not verdict.holds
    assert verdict.reason == "the control does not fail"


@pytest.mark.parametrize(
    ("name", "variable", "factor"),
    [("T1", "c", 1.001), ("T6", "flow_sharpness", 1.001), ("T7", "s", 1.001), ("T8", "sharpness", 1.2)],
)
def test_each_statement_fails_on_a_wrong_simulation(
    evidence: Evidence, name: str, variable: str, factor: float
) -> None:
    config, data = evidence.two_layer["default"]
    wrong = data.copy(deep=True)
    wrong[variable].values[-800:] *= factor
    if name in ("T1", "T7"):
        wrong[variable].values[20] *= factor
    changed = {**evidence.two_layer, "default": (config, wrong)}
    claim = next(c for c in CLAIMS if c.name == name)
    assert not judge(claim, dataclasses.replace(evidence, two_layer=changed)).holds


def test_the_onset_fails_on_a_run_that_oscillates_late(evidence: Evidence) -> None:
    config, data = evidence.two_layer["default"]
    late = data.copy(deep=True)
    late["s"].values[200:] = data["s"].values[:-200]
    late["s"].values[20:200] = data["s"].values[20]
    claim = next(c for c in CLAIMS if c.name == "T11")
    assert not judge(
        claim, dataclasses.replace(evidence, two_layer={**evidence.two_layer, "default": (config, late)})
    ).holds


def test_the_amplitude_fails_off_the_edge(evidence: Evidence) -> None:
    config, data = evidence.two_layer["edge"]
    wrong = data.copy(deep=True)
    wrong["s"].values[:] *= 1.02
    claim = next(c for c in CLAIMS if c.name == "T9")
    changed = {**evidence.two_layer, "edge": (config, wrong)}
    assert not judge(claim, dataclasses.replace(evidence, two_layer=changed)).holds


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_a_claim_without_its_runs_is_not_judged_and_never_holds(claim, evidence: Evidence) -> None:
    """Each role, or simulation, taken away from the last seed alone."""
    for role in claim.needs:
        last = evidence.networks[-1]
        some = [dataclasses.replace(e, runs=dict.fromkeys(claim.needs, e.run)) for e in evidence.networks]
        some[-1] = dataclasses.replace(last, runs={k: last.run for k in claim.needs if k != role})
        kind = claim.networks[0] if claim.networks else "mlp"
        verdict = judge(claim, dataclasses.replace(evidence, networks=some, kind=kind))
        assert not verdict.judged
        assert not verdict.holds
        assert not verdict.failed
        assert verdict.reason == f"needs {role}"
    for name in claim.simulations:
        fewer = {k: v for k, v in evidence.two_layer.items() if k != name}
        verdict = judge(claim, dataclasses.replace(evidence, two_layer=fewer))
        assert (verdict.judged, verdict.holds, verdict.reason) == (False, False, f"needs two-layer {name}")


@pytest.mark.parametrize("claim", [c for c in CLAIMS if len(c.needs) > 1], ids=lambda c: c.name)
def test_a_seed_that_cannot_have_a_run_leaves_the_statistic_undefined(claim, evidence: Evidence) -> None:
    kind = claim.networks[0] if claim.networks else "mlp"
    for role in claim.needs[1:]:
        some = [dataclasses.replace(e, runs=dict.fromkeys(claim.needs, e.run)) for e in evidence.networks]
        runs = {name: run for name, run in some[-1].runs.items() if name != role}
        some[-1] = dataclasses.replace(some[-1], runs=runs, windows=None, impossible=frozenset([role]))
        verdict = judge(claim, dataclasses.replace(evidence, networks=some, kind=kind))
        assert verdict.failed
        assert verdict.reason.startswith("the statistic is not defined for every seed")
        assert len(verdict.values) == len(some)


def test_a_claim_is_judged_only_on_the_networks_it_is_claimed_for(evidence: Evidence) -> None:
    of_vgg = dataclasses.replace(next(c for c in CLAIMS if c.name == "C9b"), networks=("vgg11",))
    verdict = judge(of_vgg, evidence)
    assert (verdict.judged, verdict.holds, verdict.reason) == (False, False, "not claimed for mlp")
    assert judge(of_vgg, dataclasses.replace(evidence, kind="vgg11")).holds


def test_no_evidence_is_no_success() -> None:
    verdicts = [judge(claim, Evidence()) for claim in CLAIMS]
    assert not any(v.holds or v.judged for v in verdicts)


def test_names_are_unique_and_every_claim_says_all_it_must() -> None:
    names = [c.name for c in CLAIMS]
    assert len(set(names)) == len(names)
    for claim in CLAIMS:
        assert claim.statement
        assert claim.statistic
        assert claim.control
        assert claim.bound.low is not None or claim.bound.high is not None


@pytest.mark.parametrize("claim", OF_NETWORKS, ids=lambda c: c.name)
def test_one_seed_has_no_interval_and_is_not_judged(claim, evidence: Evidence) -> None:
    """Statements on the two-layer network, which has no chance in it, are judged on one run."""
    alone = judge(claim, dataclasses.replace(evidence, networks=evidence.networks[:1]))
    assert (alone.judged, alone.holds, alone.reason) == (False, False, "one seed has no interval")
    assert judge(claim, dataclasses.replace(evidence, networks=evidence.networks[:2])).judged
