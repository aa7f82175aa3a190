"""Scores with their anchors: a run without one says why, means and differences are over the seeds that have both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cases import planted

from sim import Architecture
from theory import InputError
from validate import presets
from validate.anchored_scores import ScoredRun, as_json, difference, page, score_run
from validate.network_run import NetworkConfig
from validate.opposing_score import OpposingScore
from validate.presets import PRESETS, Preset
from validate.roles import Setting
from validate.score_job import ScoreConfig, _step_sizes, _with_choices, score_job
from validate.scores_at_equal_loss import EqualLoss


def scored(data: str, seed: int, score: float | None, lr: float = 0.05) -> ScoredRun:
    of = None if score is None else OpposingScore(score, (score - 0.05, score + 0.05), 0.9, 0.55, 2.3)
    return ScoredRun("mlp", data, lr, seed, 420, None if score is None else 200, 1.1, 0.4, 0.7, of, 0.01)


def run(crossing: int | None, steps: int = 400) -> xr.Dataset:
    measured = np.arange(0, steps, 10)
    data = xr.Dataset({"loss": (("step", "example"), planted(0, n=100, steps=steps, size=5))}, attrs={"lr": 0.05})
    data = data.assign_coords(measured=measured)
    data["sharpness_iterate"] = "measured", np.where(measured < (steps if crossing is None else crossing), 34.0, 44.0)
    return data


@pytest.mark.parametrize(
    ("crossing", "words"),
    [
        (None, "no crossing of 2/η in 400 steps"),
        (300, "crosses at step 300: its windows need 150 more steps"),
        (200, ""),
    ],
)
def test_a_run_without_a_score_says_why(crossing: int | None, words: str) -> None:
    found = score_run("mlp", "gaussian", 3, run(crossing))
    assert found.reason.startswith(words)
    assert (found.score is None) == bool(words)
    assert found.highest == pytest.approx(0.85 if crossing is None else 1.1)
    row = next(line for line in page([found]).splitlines() if line.startswith("| mlp | gaussian | 0.05 | 3 |"))
    assert (words or f"{found.score.score:.2f} (") in row  # type: ignore[union-attr]
    assert row.count("|") == page([found]).count("| largest ηλ/2 |") * 13
    if not words:
        # The planted pair is found, and its control is not; the loss is that of the 150 steps scored.
        assert found.score is not None
        assert found.score.score > 0.25
        assert found.surrogate < 0.1
        assert found.edge_loss == pytest.approx(np.median(run(crossing)["loss"].values[200:350].mean(1)))
        assert f"| {found.surrogate:.2f} | {found.edge_loss:.2f} | 200 | 1.10 |" in row
    else:
        assert np.isnan([found.surrogate, found.edge_loss]).all()


def test_means_and_differences_are_over_seeds_that_have_a_score() -> None:
    runs = [scored("real", seed, 0.2 + 0.1 * seed) for seed in range(3)]
    runs += [scored("gaussian", seed, 0.1 if seed else None) for seed in range(3)]
    runs += [scored("gaussian", seed, 0.05, lr=0.08) for seed in range(3)]
    runs += [scored("real", seed, 0.15 + 0.1 * seed, lr=0.08) for seed in range(3)]
    pairs = [EqualLoss("mlp", "gaussian", 0.05, seed, 0.4, 0.5 + 0.1 * seed, 0.3) for seed in (1, 2)]
    assert difference(runs, "mlp", 0.05, "gaussian") == pytest.approx([0.2, 0.3])
    assert difference(runs, "mlp", 0.05, "shuffled") == ()
    assert difference(runs, "mlp", 0.05, "real") == ()
    # An anchor is compared at its own step size, real images with those at the first.
    assert difference(runs, "mlp", 0.08, "gaussian") == pytest.approx([0.1, 0.2, 0.3])
    assert difference(runs, "mlp", 0.08, "real") == pytest.approx([0.05] * 3)
    assert difference(runs[3:6], "mlp", 0.05, "gaussian") == ()
    words = page(runs, pairs)
    assert "| mlp | real | 0.05 | 3 of 3 | 0.3 [0.131, 0.469] | – | – |" in words
    assert (
        "| mlp | gaussian | 0.05 | 2 of 3 | 0.1 | 0.25 [-0.0657, 0.566], seeds: 2 | 0.35 [0.0343, 0.666], seeds: 2 |"
    ) in words
    of = {(r["lr"], r["images"]): r for r in as_json(runs, pairs)["reference_less"]}
    assert of[0.05, "gaussian"]["values"] == pytest.approx([0.2, 0.3])
    assert of[0.05, "gaussian"]["at_equal_loss"] == pytest.approx([0.3, 0.4])
    assert of[0.08, "real"]["reference_lr"] == 0.05
    assert (0.05, "real") not in of


def test_the_command_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkConfig(architecture=Architecture(hidden=(6,)), images_per_class=3, steps=20, snapshot_every=5)
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset({"mlp": Setting(network, seeds=(0, 1, 2, 3))}))  # type: ignore[arg-type]
    config = ScoreConfig(
        preset="tiny", steps=12, lr=(0.05,), device="cpu", runs=tmp_path / "runs", report=tmp_path / "report"
    )
    assert score_job(config) == 0
    found = json.loads((tmp_path / "report" / "score.json").read_text())
    assert {(r["images"], r["lr"], r["seed"]) for r in found["runs"]} == {
        (data, lr, seed) for data in ("real", "gaussian", "shuffled") for lr in (0.05,) for seed in (0, 1, 2)
    }
    assert {r["reason"] for r in found["runs"]} == {"no crossing of 2/η in 12 steps"}
    assert len(list((tmp_path / "runs").iterdir())) == 9
    assert len({r["final_loss"] for r in found["runs"]}) == 9
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    for seed in range(3):  # the base run itself, and each seed draws its own anchors
        assert replace(network, seed=seed, steps=12).name in names
        assert sum(f"-seed{seed}-" in n and n.endswith((f"gaussian{seed}", f"shuffled{seed}")) for n in names) == 2
    before = (tmp_path / "report" / "score.md").read_bytes()
    assert score_job(config) == 0
    assert (tmp_path / "report" / "score.md").read_bytes() == before
    assert _step_sizes(PRESETS["standard"].settings["mlp"], ScoreConfig()) == (0.05, 0.08)
    # A setting that chooses each seed's step size bounds nothing here.
    short = _with_choices(PRESETS["standard"].settings["vgg11"], ScoreConfig(steps=100))
    assert (short.network.steps, short.base(10).lr) == (100, short.network.lr)
    fewer = _with_choices(PRESETS["standard"].settings["vgg11"], ScoreConfig(images_per_class=20))
    assert fewer.network == replace(PRESETS["standard"].settings["vgg11"].network, images_per_class=20)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"images": ("noise",)}, ("--images is noise", "gaussian")),
        ({"lr": (0.05, -1.0)}, ("--lr is -1.0", "above 0")),
        ({"steps": 0}, ("--steps is 0", "above 0")),
        ({"images_per_class": 201}, ("201 images a class", "--data")),
        ({"seeds": (1, 1)}, ("--seeds has 1 twice", "different")),
        ({"network": ("lenet",)}, ("--network is lenet", "vgg11")),
        ({"preset": "paper"}, ("5000 images a class", "--data")),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    changes: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        score_job(ScoreConfig(runs=tmp_path / "runs", report=tmp_path / "report", **changes))  # type: ignore[arg-type]
    assert all(name in str(refused.value) for name in names)
    assert not list(tmp_path.iterdir())
