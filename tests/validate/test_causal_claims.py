"""Claims C10 to C13 hold on evidence made for them, and fail where what they claim is taken away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from validate.claims import CLAIMS, Claim, Evidence, NetworkEvidence, judge
from validate.claims.c11_adam import step_ratio
from validate.claims.c12_split_sgd import nearness_to_adam
from validate.claims.c13_normalisation import by_epoch, imbalance, steps_an_epoch
from validate.equal_loss import edge_losses, steps_between
from validate.windows import Windows

N, STEPS, LR, CROSSING = 100, 420, 0.05, 200
WINDOWS = Windows(200, slice(70, 170), slice(200, 275), slice(275, 350), slice(200, 350), slice(0, 100))
NAMED = {claim.name: claim for claim in CLAIMS}
CAUSAL = [claim for claim in CLAIMS if claim.name.rstrip("abcd") in ("C10", "C11", "C12", "C13")]


def network(
    seed: int, *, bounce: float, speed: float = 0.005, crossing: int = CROSSING, top: float = 1.0
) -> xr.Dataset:
    """Losses fall at `speed`; twice twenty examples bounce; the sharpness is proportional to the steps taken."""
    rng = np.random.default_rng(seed)
    losses = np.maximum(2.3 - speed * np.arange(STEPS), 0.01)[:, None] + 1e-5 * rng.normal(size=(STEPS, N))
    swing = bounce * (-1.0) ** np.arange(STEPS)[:, None] * rng.uniform(0.9, 1, 20)
    losses[:, :20] += swing
    losses[:, 20:40] -= swing
    measured = np.arange(0, STEPS, 10)
    data = xr.Dataset(coords={"measured": measured, "step_measured": measured}, attrs={"lr": LR, "diverged_at": -1})
    data["loss"] = ("step", "example"), losses
    data["sharpness_iterate"] = "measured", measured * (2 / LR / crossing)
    data["step_along_top"] = "step_measured", top * rng.uniform(0.9, 1.1, len(measured))
    data["example_weight"] = "example", np.ones(N, np.float32)
    return data


def without(data: xr.Dataset, examples: slice) -> xr.Dataset:
    data["example_weight"].values[examples] = 0
    data["loss"].values[:, examples] = 5.0  # must not count in the loss at which runs are compared
    return data


def minibatches(seed: int, *, bounce: float, noise: float = 0.5) -> xr.Dataset:
    """20 epochs of 10 minibatches: in each, losses of the two groups lie by ± a number of that minibatch apart."""
    rng = np.random.default_rng(seed)
    n, batches, epochs = 400, 10, 20
    losses = np.full((epochs * batches, n), np.nan, np.float32)
    for epoch in range(epochs):
        order = rng.permutation(n).reshape(batches, -1)
        for batch, members in enumerate(order):
            step = epoch * batches + batch
            level = 2.3 - 0.08 * epoch + noise * rng.normal(size=len(members))
            side = np.where(members < 20, 1.0, np.where(members < 40, -1.0, 0.0))
            losses[step, members] = level + bounce * (-1.0) ** epoch * side * (1 + 0.3 * rng.normal())
    return xr.Dataset({"loss": (("step", "example"), losses)}, attrs={"lr": LR, "diverged_at": -1})


def of_seed(seed: int) -> NetworkEvidence:
    runs = {
        "base": network(seed, bounce=1.0),
        "adam": network(seed + 10, bounce=1e-3, speed=0.01, top=1e-3),
        "momentum": network(seed + 20, bounce=0.6, speed=0.012),
        "momentum_dampened": network(seed + 30, bounce=1e-3, speed=0.005),
        "split_sgd": network(seed + 40, bounce=2e-3, speed=0.009),
        "without_opposing": without(network(seed, bounce=0, crossing=360), slice(0, 10)),
        "without_random": without(network(seed, bounce=1.0, crossing=205), slice(50, 60)),
        "without_hardest": without(network(seed, bounce=1.0, crossing=195), slice(60, 70)),
        "batch_norm": minibatches(seed, bounce=0.1),
        "no_batch_norm": minibatches(seed, bounce=1.0),
    }
    return NetworkEvidence(seed, runs, WINDOWS)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence([of_seed(seed) for seed in range(3)], kind="vgg11")


@pytest.mark.parametrize("claim", CAUSAL, ids=lambda c: c.name)
def test_each_claim_holds_on_evidence_made_for_it(claim: Claim, evidence: Evidence) -> None:
    verdict = judge(claim, evidence)
    assert verdict.holds, (verdict.reason, verdict.values, verdict.control_values)


@pytest.mark.parametrize(
    ("name", "role", "instead"),
    [
        ("C10a", "without_opposing", "without_random"),
        ("C10b", "without_opposing", "without_random"),
        ("C10c", "without_opposing", "without_hardest"),
        ("C10d", "without_opposing", "without_hardest"),
        ("C11a", "adam", "momentum"),
        ("C11b", "adam", "momentum"),
        ("C12a", "split_sgd", "momentum"),
        ("C12b", "split_sgd", "base"),
        ("C13", "batch_norm", "no_batch_norm"),
    ],
)
def test_each_claim_fails_with_its_control_in_the_runs_place(
    name: str, role: str, instead: str, evidence: Evidence
) -> None:
    swapped = [dataclasses.replace(e, runs={**e.runs, role: e.runs[instead]}) for e in evidence.networks]
    verdict = judge(NAMED[name], dataclasses.replace(evidence, networks=swapped))
    assert verdict.judged
    assert verdict.failed
    assert "leaves" in verdict.reason


@pytest.mark.parametrize("claim", CAUSAL, ids=lambda c: c.name)
def test_a_control_that_does_not_fail_is_a_defect(claim: Claim, evidence: Evidence) -> None:
    assert (
        judge(dataclasses.replace(claim, measure_control=claim.measure), evidence).reason == "the control does not fail"
    )


def _with(e: NetworkEvidence, **runs: xr.Dataset) -> NetworkEvidence:
    return dataclasses.replace(e, runs={**e.runs, **runs})


def test_a_run_that_crosses_early_and_stays_is_not_one_that_never_does(evidence: Evidence) -> None:
    """Counted with its length it would be delayed the most."""
    early = [
        _with(e, without_opposing=without(network(e.seed, bounce=1.0, crossing=40), slice(0, 10)))
        for e in evidence.networks
    ]
    verdict = judge(NAMED["C10b"], dataclasses.replace(evidence, networks=early))
    assert verdict.values == pytest.approx((40 / CROSSING,) * 3)
    assert not verdict.holds
    never = [
        _with(e, without_opposing=without(network(e.seed, bounce=0, crossing=5000), slice(0, 10)))
        for e in evidence.networks
    ]
    counted = judge(NAMED["C10b"], dataclasses.replace(evidence, networks=never))
    assert counted.values == pytest.approx((STEPS / CROSSING,) * 3)
    # A control that never gets there in a run of less than 1.2 times that length has not been seen to be no later.
    too_short = [
        _with(
            e,
            without_random=without(network(e.seed, bounce=0, crossing=5000), slice(50, 60)).isel(
                step=slice(0, int(1.1 * CROSSING)), measured=slice(0, int(0.11 * CROSSING))
            ),
        )
        for e in evidence.networks
    ]
    assert "control is not defined" in judge(NAMED["C10b"], dataclasses.replace(evidence, networks=too_short)).reason


def test_equal_loss_is_that_of_the_crossing_and_nothing_later_counts(evidence: Evidence) -> None:
    later = []
    for e in evidence.networks:
        base = e.run.copy(deep=True)
        base["loss"].values[CROSSING + 10 :] = 0.0
        later.append(_with(e, base=base))
    for name in ("C10a", "C10c"):
        expected = judge(NAMED[name], evidence).values
        assert judge(NAMED[name], dataclasses.replace(evidence, networks=later)).values == expected


def test_of_a_rule_that_passes_between_two_measurements_the_one_before_counts(evidence: Evidence) -> None:
    e = evidence.networks[0]
    assert e.windows is not None
    fast = network(3, bounce=0, speed=0.15, top=1e-3)
    steps = steps_between(fast, edge_losses(e.run, e.windows))
    assert steps is not None
    measured = fast["step_measured"].values
    inside = (measured >= steps.start) & (measured < steps.stop)
    base = e.run["step_along_top"].sel(step_measured=slice(e.windows.edge.start, e.windows.edge.stop - 1))
    for sparse in (fast, fast.isel(step_measured=~inside)):
        at, along = sparse["step_measured"].values, sparse["step_along_top"].values
        within = (at >= steps.start) & (at < steps.stop)
        expected = np.median(along[within]) if within.any() else along[at < steps.start][-1]
        ratio = step_ratio(_with(e, adam=sparse), e.windows, "adam")
        assert ratio == pytest.approx(np.log10(expected / np.median(base.values)))


@pytest.mark.parametrize("role", ["base", "adam"])
def test_one_outlying_probe_leaves_the_ratio_of_steps_alone(role: str, evidence: Evidence) -> None:
    e = evidence.networks[0]
    run = e.runs[role].copy(deep=True)
    steps = WINDOWS.edge if role == "base" else steps_between(run, edge_losses(e.run, WINDOWS))
    assert steps is not None
    measured, along = run["step_measured"].values, run["step_along_top"].values
    inside = np.flatnonzero((measured >= steps.start) & (measured < steps.stop))
    assert len(inside) > 2
    along[inside[along[inside].argmax()]] = 1e6
    assert step_ratio(_with(e, **{role: run}), WINDOWS, "adam") == step_ratio(e, WINDOWS, "adam")


def test_nearness_looks_as_far_as_the_loss_of_the_steps_judged(evidence: Evidence) -> None:
    """A base run whose loss is lower in the selection window than in the next would be compared for longer."""
    e = evidence.networks[0]
    assert e.windows is not None
    base = e.run.copy(deep=True)
    base["loss"].values[WINDOWS.evaluate] = base["loss"].values[WINDOWS.evaluate.stop - 1]
    moved = base.copy(deep=True)
    moved["loss"].values[WINDOWS.select] = 0.02
    levels = []
    for data in (base, moved):
        final = np.median(data["loss"].values[WINDOWS.evaluate].mean(1))
        levels.append(int(np.flatnonzero(e.runs["adam"]["loss"].values.mean(1) <= final)[0]) + 1)
        own, other = (
            np.abs(np.log(e.runs[role]["loss"].values.mean(1)) - np.log(e.runs["adam"]["loss"].values.mean(1)))
            if role != "base"
            else np.abs(np.log(data["loss"].values.mean(1)) - np.log(e.runs["adam"]["loss"].values.mean(1)))
            for role in ("split_sgd", "base")
        )
        expected = own[: levels[-1]].mean() / other[: levels[-1]].mean()
        assert nearness_to_adam(_with(e, base=data), WINDOWS, "split_sgd") == pytest.approx(expected)
    assert levels[0] == levels[1]


def test_adam_that_never_gets_to_the_loss_is_undefined(evidence: Evidence) -> None:
    slow = [
        dataclasses.replace(e, runs={**e.runs, "adam": network(1, bounce=0, speed=1e-4)}) for e in evidence.networks
    ]
    for name in ("C11a", "C11b", "C12b"):
        verdict = judge(NAMED[name], dataclasses.replace(evidence, networks=slow))
        assert verdict.reason.startswith("the statistic is not defined for every seed")


def test_nearness_is_nought_for_adam_and_one_for_descent(evidence: Evidence) -> None:
    e = evidence.networks[0]
    assert nearness_to_adam(e, WINDOWS, "adam") == 0
    assert nearness_to_adam(e, WINDOWS, "base") == 1


@pytest.mark.parametrize(("n", "size"), [(12, 4), (10, 4), (7, 7), (9, 2)])
def test_an_epoch_is_put_together_from_its_minibatches(n: int, size: int) -> None:
    """The last minibatch may be smaller: known losses come back, each with its minibatch."""
    rng = np.random.default_rng(n)
    each = -(-n // size)
    wanted, batches = rng.uniform(1, 2, (3, n)), np.zeros((3, n), np.int64)
    losses = np.full((3 * each, n), np.nan)
    for epoch in range(3):
        for batch, members in enumerate(np.array_split(rng.permutation(n), range(size, n, size))):
            losses[epoch * each + batch, members] = wanted[epoch, members]
            batches[epoch, members] = batch
    run = xr.Dataset({"loss": (("step", "example"), losses)})
    assert steps_an_epoch(run) == each
    table, found = by_epoch(run)
    assert np.array_equal(table, wanted)
    assert np.array_equal(found, batches)


def test_without_opposing_groups_the_imbalance_is_that_of_random_groups() -> None:
    """Over few epochs: an epoch that groups were chosen on and judged on too would lift it far above 1."""
    values = []
    for seed in range(8):
        table, batch = by_epoch(minibatches(seed, bounce=0.0))
        values.append(imbalance(table[:6], batch[:6], seed)[0])
    assert np.median(values) == pytest.approx(1, abs=0.35)


def test_examples_that_are_hard_all_along_are_no_imbalance() -> None:
    table, batch = by_epoch(minibatches(0, bounce=1.0))
    own_level = 10 * np.random.default_rng(0).normal(size=table.shape[1])
    assert imbalance(table + own_level, batch, 0)[0] == pytest.approx(imbalance(table, batch, 0)[0], rel=1e-9)
