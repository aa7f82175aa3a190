"""The predictions' command from end to end, on a tiny network whose windows are put where its few steps allow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sim import Architecture
from theory import InputError
from validate import edge_study, evidence, plan
from validate.network_run import NetworkConfig
from validate.prediction import job
from validate.prediction.job import PredictConfig, predict_job
from validate.prediction.networks import PREDICTION_NETWORKS, PredictionSetting
from validate.prediction.quantities import QUANTITIES, VALLEY_QUANTITIES, Point
from validate.prediction.scores import PredictedRun
from validate.prediction.tables import run_table
from validate.windows import Windows

NETWORK = NetworkConfig(
    architecture=Architecture(hidden=(8,)), images_per_class=5, blocks_every=10, snapshot_every=10, midpoint=False
)
WINDOWS = Windows(30, slice(5, 20), slice(30, 42), slice(42, 54), slice(30, 54), slice(0, 10))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PREDICTION_NETWORKS, "tiny", PredictionSetting(NETWORK, {0.05: 56, 0.1: 56}))  # type: ignore[arg-type]
    for module in (evidence, plan, edge_study, job):
        monkeypatch.setattr(module, "find_windows", lambda run: WINDOWS)


def config(folder: Path, **changes: object) -> PredictConfig:
    base = PredictConfig(network=("tiny",), seeds=(0, 1), device="cpu", runs=folder / "runs", report=folder / "report")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny")
def test_runs_are_made_once_and_scored_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_job(config(tmp_path, plan=True)) == 0
    assert "step size 0.1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())

    assert predict_job(config(tmp_path)) == 1
    assert "not predicted" in capsys.readouterr().out
    path = tmp_path / "report" / "predictions.json"
    (part,) = json.loads(path.read_text())
    assert [s["quantity"] for s in part["scores"]] == [q.name for q in QUANTITIES]
    assert [(run["lr"], run["seed"]) for run in part["runs"]] == [(0.05, 0), (0.05, 1), (0.1, 0), (0.1, 1)]
    assert all(set(run["points"]) == {q.name for q in QUANTITIES} for run in part["runs"])
    assert {event["runs"] for event in part["layers"]} == {4}
    names = {p.name for p in (tmp_path / "runs").iterdir()}
    assert len(names) == 8

    before = path.read_bytes()
    assert predict_job(config(tmp_path)) == 1
    assert "run 1 of" not in capsys.readouterr().out
    assert path.read_bytes() == before

    # With the valley: what it predicts comes to the rest, which stays as it was.
    assert predict_job(config(tmp_path, valley=True, report=tmp_path / "valley")) == 1
    (deeper,) = json.loads((tmp_path / "valley" / "predictions.json").read_text())
    assert [s["quantity"] for s in deeper["scores"]] == [q.name for q in (*QUANTITIES, *VALLEY_QUANTITIES)]
    assert deeper["scores"][: len(QUANTITIES)] == part["scores"]

    # Reading the finished runs, with their stored configurations, gives the same under the architecture's name.
    assert predict_job(config(tmp_path, read="mlp-lr", valley=True, report=tmp_path / "again")) == 1
    (again,) = json.loads((tmp_path / "again" / "predictions.json").read_text())
    assert {**again, "network": "tiny"} == deeper
    assert {p.name for p in (tmp_path / "runs").iterdir()} == names


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"network": ("lenet",)}, ("--network is lenet", "mlp_gelu")),
        ({"seeds": (1, 1)}, ("--seeds has 1 twice", "different")),
        ({"seeds": ()}, ("--seeds is empty", "at least one")),
        ({"read": "mlp-lr7"}, ("--read is 'mlp-lr7'", "no base run")),
        ({"device": "cuda:99"}, ("--device is cuda:99", "cpu")),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    changes: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        predict_job(config(tmp_path, **{"network": ("mlp_gelu",), **changes}))
    line = str(refused.value)
    assert "\n" not in line
    assert all(name in line for name in names)
    assert not list(tmp_path.iterdir())


def test_every_network_runs_over_several_step_sizes_under_names_of_its_own() -> None:
    assert {"mlp_gelu", "mlp", "vgg11", "resnet18", "vit"} <= set(PREDICTION_NETWORKS)
    names = [
        of_size.base(seed).name
        for setting in PREDICTION_NETWORKS.values()
        for of_size in setting.settings((0, 1)).values()
        for seed in (0, 1)
    ]
    assert len(set(names)) == len(names)
    for setting in PREDICTION_NETWORKS.values():
        sizes = sorted(setting.steps)
        assert len(sizes) >= 3
        # Longer steps take fewer of them, and all leave room for the 150 steps at the edge.
        assert [setting.steps[lr] for lr in sizes] == sorted(setting.steps.values(), reverse=True)
        assert min(setting.steps.values()) >= 50 + 150


def test_a_run_without_a_quantity_keeps_its_columns() -> None:
    runs = [
        PredictedRun("tiny", 0.1, 3, "a", {"wait": [Point(2.0, 4.0)], "spike of the line": [Point(0.5, 0.25)]}),
        PredictedRun("tiny", 0.1, 4, "b", {"spike of the line": [Point(7.0, 8.0)]}),
    ]
    head, first, second = run_table(runs).splitlines()
    assert head.replace(", told/seen", "").split() == ["step", "size", "seed", "wait", "spike,", "line"]
    assert first.split() == ["0.1", "3", "2/4", "0.5/0.25"]
    assert second.split() == ["0.1", "4", "–", "7/8"]
    assert len(head) == len(first) == len(second)
