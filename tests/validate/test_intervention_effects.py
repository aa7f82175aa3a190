"""Effects: exact on made-up runs, no more than chance where there are none, told alike in all outputs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sim import Architecture
from theory import InputError
from validate import evidence, plan, presets
from validate.cifar10 import Images
from validate.claims import Evidence, NetworkEvidence
from validate.intervention_effects import Effect, network_effects, tell_apart
from validate.intervention_table import CHANCE, as_json, page
from validate.interventions_job import InterventionsConfig, _data, _with_choices, interventions_job
from validate.network_run import NetworkConfig
from validate.presets import PRESETS, Preset
from validate.report_words import interval_words
from validate.roles import Setting
from validate.treated_runs import SeedRuns
from validate.treatments import CHOICES, TREATMENTS, roles_of
from validate.windows import Windows, find_windows

CPU = torch.device("cpu")
NONE_HELD = Images(np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.uint8))
N, STEPS, LR, CROSSING, EVERY = 100, 420, 0.05, 200, 30
SETTING = Setting(NetworkConfig(lr=LR, steps=STEPS, snapshot_every=EVERY), seeds=(0, 1, 2))
LATE = 180
"""The last snapshot before the crossing."""
LATER = 240


def made_up(
    seed: int,
    *,
    sharpness: float = 1.0,
    later: float = 1.0,
    fall: float = 0.005,
    spikes: int = 0,
    start: int = 0,
    treated: bool = False,
) -> xr.Dataset:
    """Losses fall at one rate; twice five examples bounce; the sharpness is proportional to the step.

    From `LATER` on it is `later` times as large.
    """
    rng, steps = np.random.default_rng(seed), np.arange(start, STEPS)
    losses = np.maximum(2.3 - fall * steps, 0.05)[:, None] + 1e-6 * rng.normal(size=(len(steps), N))
    for step in range(1, 1 + 2 * spikes, 2):  # at the end, so that no comparison at equal loss meets them
        losses[-step] *= 1.3
    if treated:
        losses[:, :10] = 50.0  # must not count
    else:
        losses[50] *= 1.5  # a spike before late treatments begin
        losses[:, :5] += 0.5 * (-1.0) ** steps[:, None]
        losses[:, 5:10] -= 0.5 * (-1.0) ** steps[:, None]
    measured = np.arange(0, len(steps), 10)
    data = xr.Dataset(coords={"measured": measured}, attrs={"lr": LR, "diverged_at": -1})
    data["loss"] = ("step", "example"), losses
    data["label"] = "example", np.arange(N) % 10
    factor = sharpness * np.where(measured + start < LATER, 1.0, later)
    data["sharpness_iterate"] = "measured", factor * (measured + start) * (2 / LR / CROSSING)
    return data


def evidence_of(changes: Mapping[str, dict[str, float]], seeds: tuple[int, ...] = (0, 1, 2)) -> Evidence:
    """Base runs, and runs of the roles with what their treatment changes."""
    networks = []
    for seed in seeds:
        base = made_up(seed)
        runs = {role: made_up(seed, treated=True, **change) for role, change in changes.items()}  # type: ignore[arg-type]
        networks.append(NetworkEvidence(seed, {"base": base, **runs}, find_windows(base)))
    return Evidence(networks)


def effects_of(changes: Mapping[str, dict[str, float]], *names: str) -> dict[str, Effect]:
    found = network_effects(SETTING, evidence_of(changes), names, NONE_HELD, CPU)
    return {effect.measure: effect for effect in found.effects}


def test_crossings_are_compared_between_measurements() -> None:
    given_ = evidence_of({f"without_{choice}": {"sharpness": 0.9} for choice in CHOICES})
    for of_seed in given_.networks:  # at 2/η at step 194, of which the windows know the first that is measured, 200
        of_seed.run["sharpness_iterate"].values[:] *= 1.03
    found = network_effects(SETTING, given_, ("remove",), NONE_HELD, CPU)
    (crossing,) = (effect for effect in found.effects if effect.measure == "crossing")
    assert crossing.values["opposing"] == pytest.approx([1.03 / 0.9] * 3, rel=1e-9)


@given(st.floats(0.55, 1.5), st.floats(0.55, 1.5), st.floats(0.004, 0.01), st.integers(0, 4))
def test_an_effect_that_was_put_in_is_found(own: float, other: float, fall: float, spikes: int) -> None:
    """λ = s·λ_base(step), loss falling at another rate: at equal loss the ratio is s · rate_base / rate."""
    of = effects_of(
        {
            "without_opposing": {"sharpness": own, "fall": fall, "spikes": spikes},
            "without_random": {"sharpness": other},
            "without_hardest": {"sharpness": own, "fall": fall, "spikes": spikes},
        },
        "remove",
    )
    assert of["sharpness"].values["opposing"] == pytest.approx([own * 0.005 / fall] * 3, rel=0.03)
    assert of["sharpness"].values["random"] == pytest.approx([other] * 3, rel=0.02)
    # Ten steps between measurements, of 200.
    assert of["crossing"].values["opposing"] == pytest.approx([1 / own] * 3, abs=0.051)
    assert of["spikes"].values["opposing"] == (spikes - 1,) * 3
    assert of["spikes"].values["random"] == (-1, -1, -1)
    assert all(effect.tells_apart("hardest") in (False, None) for effect in of.values())
    assert np.isnan(of["accuracy"].values["opposing"]).all()
    assert of["accuracy"].tells_apart("random") is None
    assert "same_weights" not in of


def test_a_run_that_never_crosses_counts_with_its_length_and_is_told() -> None:
    changes = {f"without_{choice}": {"sharpness": 0.3 if choice == "opposing" else 1.0} for choice in CHOICES}
    found = network_effects(SETTING, evidence_of(changes), ["remove"], NONE_HELD, CPU)
    (crossing,) = (effect for effect in found.effects if effect.measure == "crossing")
    assert crossing.values["opposing"] == (STEPS / CROSSING,) * 3
    assert [found.never("remove", choice) for choice in CHOICES] == [3, 0, 0]
    assert "2.1 (3 of 3 never)" in page([found])


def test_the_untreated_loss_is_compared_where_the_loss_trained_on_is() -> None:
    """The base run has λ = 40 where it crosses; a run that was not measured has no value."""
    changes = {f"without_{choice}": {"sharpness": 0.6} for choice in CHOICES}
    seen = evidence_of(changes)

    def measured(seeds: Sequence[SeedRuns]) -> list[SeedRuns]:
        first, *others = seeds
        treated = {key: dataclasses.replace(of, whole_sharpness=30.0) for key, of in first.treated.items()}
        return [dataclasses.replace(first, treated=treated), *others]

    found = network_effects(SETTING, seen, ["remove"], NONE_HELD, CPU, measured)
    (whole,) = (effect for effect in found.effects if effect.measure == "whole_loss")
    assert whole.values["opposing"] == pytest.approx((0.75, np.nan, np.nan), rel=0.01, nan_ok=True)


def test_late_treatments_are_counted_in_the_base_runs_steps() -> None:
    changes = {
        f"removed_late_{choice}": {"sharpness": s, "later": 0.9, "start": LATE, "spikes": 1}
        for choice, s in zip(CHOICES, (0.6, 0.8, 1.0), strict=True)
    }
    of = effects_of(changes, "remove_late")
    for choice, s in zip(CHOICES, (0.6, 0.8, 1.0), strict=True):
        assert of["same_weights"].values[choice] == pytest.approx([s] * 3)
        assert of["sharpness"].values[choice] == pytest.approx([0.9 * s] * 3, rel=0.01)
        crossing = 1 / s if CROSSING / s < LATER else 1 / (0.9 * s)
        assert of["crossing"].values[choice] == pytest.approx([crossing] * 3, abs=0.051)
        assert of["spikes"].values[choice] == (1, 1, 1)


def test_where_nothing_has_an_effect_one_difference_in_ten_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(2000):
        values = {choice: tuple(rng.normal(size=3)) for choice in CHOICES}
        apart += bool(Effect("remove", "sharpness", values).tells_apart("random"))
    assert apart / 2000 == pytest.approx(CHANCE, abs=0.02)


def test_differences_are_paired_over_seeds() -> None:
    """Seeds differ by far more than the treatment does in each of them."""
    values = {"opposing": (0.1, 1.1, 2.11), "random": (0.2, 1.21, 2.2), "hardest": (0.1, float("nan"), 2.0)}
    effect = Effect("remove", "sharpness", values)
    assert effect.differences("random") == pytest.approx([-0.1, -0.11, -0.09])
    assert effect.tells_apart("random") is True
    assert effect.tells_apart("hardest") is None
    same = Effect("remove", "spikes", {"opposing": (2, 5, 9), "random": (1, 4, 8), "hardest": (2, 5, 9)})
    assert (same.tells_apart("random"), same.tells_apart("hardest")) == (None, None)
    points = (3.4 - 2.0, 14.4 - 13.0, 1.4)  # 1.4 each, up to the last digit
    digits = Effect("remove", "accuracy", {"opposing": points, "random": (0.0,) * 3, "hardest": (0.1, 0.2, 0.3)})
    assert len(set(digits.differences("random"))) > 1
    assert (digits.tells_apart("random"), digits.tells_apart("hardest")) == (None, True)
    alone = Effect("remove", "sharpness", {choice: (float(i),) for i, choice in enumerate(CHOICES)})
    assert (alone.differences("random"), alone.tells_apart("random")) == ((-1.0,), None)


def test_a_seed_without_a_crossing_is_left_out_and_named() -> None:
    seen = evidence_of({f"without_{choice}": {} for choice in CHOICES}, seeds=(0, 1))
    quiet = NetworkEvidence(7, {"base": made_up(7, sharpness=0.1)}, None)
    found = network_effects(SETTING, Evidence([*seen.networks, quiet]), ["remove"], NONE_HELD, CPU)
    assert ([seed.seed for seed in found.seeds], found.skipped) == ([0, 1], (7,))
    assert "Seeds 7: the base run does not cross" in page([found])
    alone = network_effects(SETTING, Evidence([quiet]), ["remove"], NONE_HELD, CPU)
    assert (alone.effects, tell_apart(alone, "random")) == ([], ([], 0))
    assert "| treatment" not in page([alone])
    assert as_json([alone])[0]["seeds_without_windows"] == [7]


def test_every_step_size_is_told_where_seeds_have_their_own() -> None:
    seen = evidence_of({f"without_{choice}": {} for choice in CHOICES})
    own = dataclasses.replace(SETTING, step_sizes={1: 0.5 * LR})
    found = network_effects(own, seen, ["remove"], NONE_HELD, CPU)
    assert f"η = {LR:g}, {0.5 * LR:g}, {STEPS} steps" in page([found])
    assert as_json([found])[0]["lr"] == [LR, 0.5 * LR, LR]


NETWORK = NetworkConfig(
    architecture=Architecture(hidden=(8,)), images_per_class=5, steps=60, blocks_every=0, snapshot_every=10
)
WINDOWS = Windows(30, slice(5, 20), slice(30, 42), slice(42, 54), slice(30, 54), slice(0, 10))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Preset({"mlp": dataclasses.replace(SETTING, network=NETWORK, seeds=(0, 1, 2, 3))})
    monkeypatch.setitem(presets.PRESETS, "tiny", preset)  # type: ignore[arg-type]
    for module in (evidence, plan):
        monkeypatch.setattr(module, "find_windows", lambda run: WINDOWS)


def test_the_command_takes_each_seeds_own_step_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = dataclasses.replace(NETWORK, steps=200)
    setting = dataclasses.replace(SETTING, network=network, crossing=50)
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset({"mlp": setting}))  # type: ignore[arg-type]
    of = InterventionsConfig(preset="tiny", kinds=("remove",), device="cpu", runs=tmp_path, plan=True, seeds=(5,))
    assert interventions_job(of) == 0
    assert "seed 5: its step size is chosen once its run near gradient flow is made" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_the_command_takes_the_users_images_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = InterventionsConfig(preset="tiny", kinds=("remove",), device="cpu", runs=tmp_path, plan=True, seeds=(5,))
    chosen = dataclasses.replace(of, images_per_class=4, steps=230, crossing=60)
    assert interventions_job(chosen) == 0
    assert "seed 5: its step size is chosen once" in capsys.readouterr().out
    small = _with_choices(Setting(NETWORK, (5,)), (5,), chosen)
    assert (small.network.images_per_class, small.network.steps, small.crossing) == (4, 230, 60)
    with pytest.raises(
        InputError, match="--images-per-class is 151, and of 200 embedded ones --held-out 50 leaves 150"
    ):
        interventions_job(dataclasses.replace(of, images_per_class=151))
    with pytest.raises(InputError, match="--steps is 0"):
        interventions_job(dataclasses.replace(of, steps=0))


@pytest.mark.usefixtures("tiny")
def test_the_command_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("clip", "remove_late")
    of = InterventionsConfig(
        preset="tiny", kinds=kinds, device="cpu", runs=tmp_path / "runs", report=tmp_path / "report", seeds=(5,)
    )
    assert interventions_job(dataclasses.replace(of, plan=True)) == 0
    assert "without the opposing tenth from shortly before" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())

    assert interventions_job(of) == 0
    printed = capsys.readouterr().out
    told = (tmp_path / "report" / "interventions.md").read_text()
    (network,) = json.loads((tmp_path / "report" / "interventions.json").read_text())
    assert network["seeds"] == [5]
    assert (network["examples"], network["held_out"]) == (50, 1950)
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len([name for name in names if not name.startswith("whole-loss-")]) == len(roles_of(kinds))
    assert [effect["treatment"] for effect in network["effects"]] == ["clip"] * 6 + ["remove_late"] * 7
    for effect in network["effects"]:
        low, high = effect["interval_90"]["opposing"]
        words = "undefined" if low is None else interval_words((low, high))
        row = f"| {effect['treatment']} | {effect['what']} | {words}"
        assert row in told
        assert row in printed
        pairs = zip(effect["values"]["opposing"], effect["values"]["random"], strict=True)
        assert effect["opposing_less"]["random"]["values"] == [
            None if None in pair else pytest.approx(pair[0] - pair[1], nan_ok=True) for pair in pairs
        ]
    late = {e["measure"]: e["values"] for e in network["effects"] if e["treatment"] == "remove_late"}
    assert any(late["whole_loss"][choice] != [None] for choice in CHOICES)
    for choice in CHOICES:
        assert (late["whole_loss"][choice] == [None]) == (late["sharpness"][choice] == [None])
    accuracy = next(e for e in network["effects"] if e["measure"] == "accuracy")
    assert all(abs(v) < 30 for values in accuracy["values"].values() for v in values)
    assert "Opposing less random: no difference has an interval." in told  # one seed
    assert "http" not in told

    before = [path.read_bytes() for path in sorted((tmp_path / "report").iterdir())]
    assert interventions_job(of) == 0
    assert "min left" not in capsys.readouterr().out
    assert [path.read_bytes() for path in sorted((tmp_path / "report").iterdir())] == before


@pytest.mark.parametrize("least", [0, 50, 190])
def test_images_are_held_out_of_every_network(least: int) -> None:
    settings = PRESETS["standard"].settings
    images, fewer, held = _data(None, settings, least)
    assert len(images.labels) == 2000
    for kind, setting in fewer.items():
        taken = min(settings[kind].network.images_per_class, 200 - least)
        assert setting.network.images_per_class == taken
        assert np.bincount(held[kind].labels, minlength=10).tolist() == [200 - taken] * 10
    if least == 0:  # the runs of the claims
        assert {kind: of.network for kind, of in fewer.items()} == {kind: of.network for kind, of in settings.items()}


def test_every_treatment_is_described_with_its_examples() -> None:
    for treatment in TREATMENTS.values():
        assert treatment.words.format("X") != treatment.words
