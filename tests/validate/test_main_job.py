"""The main job from end to end, on a network too small and a run too short for its claims to hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim import Architecture
from theory import InputError
from validate.main_job import MainJobConfig, main_job
from validate.network_run import NetworkConfig
from validate.presets import PRESETS, QUICK_CLAIMS, Preset
from validate.roles import Setting

NETWORK = NetworkConfig(architecture=Architecture(hidden=(8,)), images_per_class=20, steps=30, blocks_every=10)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Preset({"mlp": Setting(NETWORK, seeds=(0,))}, QUICK_CLAIMS)
    monkeypatch.setitem(PRESETS, "tiny", preset)  # type: ignore[arg-type]


def _config(folder: Path, **changes: object) -> MainJobConfig:
    return MainJobConfig(preset="tiny", device="cpu", runs=folder / "runs", report=folder / "report", **changes)


@pytest.mark.usefixtures("tiny")
def test_the_main_job_reports_what_holds_and_what_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main_job(_config(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "2/η" in printed
    assert "FAILS: the statistic is not defined for every seed" in printed
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    holds = {c["claim"]: c["holds"] for c in report["claims"]}
    assert all(value == (name[0] == "T") for name, value in holds.items())
    assert not report["every_judged_claim_holds"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for outside in ("http://", "https://", "<script", 'src="/', "$"):
        assert outside not in page
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "mlp-lr0.005-seed0-hidden8-images20-steps30-measure20-blocks0",
        NETWORK.name,
        "two-layer-default",
        "two-layer-edge",
    ]
    drawn = [(path.stem, path) for path in (tmp_path / "report" / "figures").glob("*.png")]
    monkeypatch.setattr("validate.main_job.draw_figures", lambda *_: drawn)  # they take a process of their own
    _runs_again_without_training(tmp_path)


def _runs_again_without_training(folder: Path) -> None:
    before = (folder / "report" / "report.json").read_bytes()
    config = folder / "runs" / NETWORK.name / "config.json"
    stamp = config.stat().st_mtime_ns
    assert main_job(_config(folder)) == 1
    assert config.stat().st_mtime_ns == stamp
    assert (folder / "report" / "report.json").read_bytes() == before
    config.write_text(config.read_text().replace('"steps": 30', '"steps": 31'))
    with pytest.raises(InputError, match="another configuration"):
        main_job(_config(folder))
