"""What every sweep shares: finished units are read, and a sweep that was stopped or killed ends with the same bits."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import killable_sweep
import pytest
import torch
import xarray as xr
from forked import forking_from, run_to_end
from killable_sweep import SMALL
from ranks import on_ranks

from sim.__main__ import SWEEPS
from sim.runs import list_runs, read_run
from sim.sweeps import STUDIES, PhaseConfig, Study, make_sweep
from sim.sweeps.phase import PhaseUnit
from theory import InputError
from theory.command_line import main

CPU = torch.device("cpu")
PHASE = SMALL["phase"]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forking_from("killable_sweep")


def test_every_study_has_a_small_sweep_here_and_a_name_of_its_own() -> None:
    assert [study.name for study in STUDIES] == list(SMALL)
    assert [type(small) for small in SMALL.values()] == list(STUDIES)


@pytest.mark.parametrize("name", SMALL)
def test_a_sweep_is_stored_as_one_data_set_and_its_units_give_the_same_bits_again(name: str, tmp_path: Path) -> None:
    study = SMALL[name]
    data = make_sweep(study, tmp_path, CPU, progress=False)
    stored = read_run(tmp_path, name, thorough=True)
    assert stored.data.load().identical(data)
    assert list_runs(tmp_path) == [name]
    assert len(list_runs(tmp_path / f"{name}-units")) == len(study.units())
    again = study.combine([unit.run(CPU) for unit in study.units()])
    xr.testing.assert_equal(again, data)
    assert study.table(data) == study.table(again)
    assert {v.dtype.kind for v in data.data_vars.values()} <= {"f", "i"}


def test_a_sweep_that_is_stopped_makes_only_the_units_left_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_sweep(PHASE, tmp_path / "whole", CPU, progress=False)
    run, made = PhaseUnit.run, []

    def stops_at_the_second(unit: PhaseUnit, device: torch.device) -> xr.Dataset:
        if len(made) == 1 and not (tmp_path / "resumed").exists():
            (tmp_path / "resumed").touch()
            raise KeyboardInterrupt
        made.append(unit.beta)
        return run(unit, device)

    monkeypatch.setattr(PhaseUnit, "run", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_sweep(PHASE, tmp_path / "stopped", CPU, progress=False)
    assert list_runs(tmp_path / "stopped") == []
    again = make_sweep(PHASE, tmp_path / "stopped", CPU, progress=False)
    assert made == [2.0, 3.0, 4.0]
    assert again.identical(whole)
    assert PHASE.table(again) == PHASE.table(whole)


def test_a_wider_sweep_makes_only_the_new_units_and_force_makes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, made = PhaseUnit.run, []

    def counted(unit: PhaseUnit, device: torch.device) -> xr.Dataset:
        made.append(unit.beta)
        return run(unit, device)

    monkeypatch.setattr(PhaseUnit, "run", counted)
    small = {"lrs": 2, "seeds": (0,), "d1": 2, "steps": 20}
    make_sweep(PhaseConfig(betas=(2.0, 3.0), **small), tmp_path, CPU, progress=False)
    wider = PhaseConfig(betas=(2.0, 3.0, 4.0), **small)
    with pytest.raises(InputError, match=r"phase was made with another configuration .*give --force to replace it"):
        make_sweep(wider, tmp_path, CPU, progress=False)
    assert made == [2.0, 3.0]
    assert make_sweep(wider, tmp_path, CPU, name="wider", progress=False).sizes["beta"] == 3
    assert made == [2.0, 3.0, 4.0]
    # Another number of steps is another unit, even where all else is the same.
    make_sweep(PhaseConfig(betas=(2.0,), **{**small, "steps": 21}), tmp_path, CPU, name="longer", progress=False)
    assert made == [2.0, 3.0, 4.0, 2.0]
    make_sweep(wider, tmp_path, CPU, name="wider", force=True, progress=False)
    assert made == [2.0, 3.0, 4.0, 2.0, 2.0, 3.0, 4.0]


def test_what_a_sweep_held_before_is_not_read_as_what_it_holds_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_sweep(PHASE, tmp_path, CPU, progress=False)
    units = list_runs(tmp_path / "phase-units")
    monkeypatch.setattr(PhaseUnit, "revision", 2)
    monkeypatch.setattr(PhaseUnit, "run", lambda unit, device, run=PhaseUnit.run: -run(unit, device))
    with pytest.raises(InputError, match=r"phase was made .*\(revision: None there, 2 wanted\): give --force"):
        make_sweep(PHASE, tmp_path, CPU, progress=False)
    assert make_sweep(PHASE, tmp_path, CPU, progress=False, force=True).identical(-before)
    assert set(units) < set(list_runs(tmp_path / "phase-units"))
    # Nor are the units, where a new sweep would take them up.
    assert make_sweep(PHASE, tmp_path, CPU, name="again", progress=False).identical(-before)


def _finished(root: Path, name: str) -> dict[str, str]:
    """What each finished unit says of its making, with the time at which it began."""
    folder = root / f"{name}-units"
    return {unit: (folder / unit / "environment.json").read_text() for unit in list_runs(folder)}


def _manifests(root: Path, name: str) -> dict[str, Any]:
    """Checksums of the whole and of every unit."""
    folders = [root / name, *sorted(p for p in (root / f"{name}-units").iterdir())]
    return {folder.name: json.loads((folder / "manifest.json").read_text()) for folder in folders}


def _kill_again_and_again(
    processes: ForkServerContext, folder: Path, name: str, least: int, draw: random.Random
) -> None:
    """Kills and resumes sweeps at random file operations, and compares each with the uninterrupted one at its end."""
    reference, total = folder / "reference", processes.Value("i", 0)
    assert run_to_end(processes, killable_sweep.count_events, reference, name, total) == 0
    kills = sweeps = 0
    while kills < least:
        root, before = folder / f"killed-{sweeps}", dict[str, str]()
        while True:
            status = run_to_end(processes, killable_sweep.make_until, root, name, draw.randint(1, total.value))
            assert status in (0, -signal.SIGKILL)
            after = _finished(root, name) if (root / f"{name}-units").exists() else {}
            # A unit that was finished is never made again: at most the one in flight is lost.
            assert {unit: after.get(unit) for unit in before} == before
            if status == 0:
                break
            kills, before = kills + 1, after
        assert run_to_end(processes, killable_sweep.make, root, name) == 0
        assert _manifests(root, name) == _manifests(reference, name)
        assert (folder / f"{root.name}.txt").read_bytes() == (folder / "reference.txt").read_bytes()
        assert sorted(p.name for p in root.iterdir()) == [name, f"{name}-units"]
        sweeps += 1


def test_a_sweep_killed_at_any_file_operation_ends_in_the_bits_of_the_uninterrupted(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    _kill_again_and_again(processes, tmp_path, "sample_size", 2, random.Random(0))


def test_two_ranks_share_the_units_and_give_the_bits_of_one(tmp_path: Path) -> None:
    killable_sweep.make(tmp_path / "one", "sample_size")
    outcomes = on_ranks(killable_sweep.make, tmp_path / "two", "sample_size")
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert _manifests(tmp_path / "two", "sample_size") == _manifests(tmp_path / "one", "sample_size")
    assert (tmp_path / "two.txt").read_bytes() == (tmp_path / "one.txt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_sweep_killed_fifty_times_ends_in_the_bits_of_the_uninterrupted(
    name: str, processes: ForkServerContext, tmp_path: Path
) -> None:
    """`pytest tests/sim/test_sweeps.py -m slow`: another draw each time; some minutes."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    _kill_again_and_again(processes, tmp_path, name, 50, random.Random(seed))


@pytest.mark.slow
def test_the_command_killed_from_outside_at_random_times_prints_the_same_table(tmp_path: Path) -> None:
    def command(runs: str) -> list[str]:
        sizes = ["--betas", "2", "3", "4", "5", "6", "--lrs", "10", "--steps", "2000", "--device", "cpu"]
        return [
            sys.executable,
            "-m",
            "sim",
            "sweep",
            "phase",
            *sizes,
            "--device",
            "cpu",
            "--runs",
            str(tmp_path / runs),
        ]

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    begun = time.monotonic()
    whole = subprocess.run(command("whole"), capture_output=True, text=True, env=environment, check=True)
    seconds, draw, kills = time.monotonic() - begun, random.Random(0), 0
    while not (tmp_path / "killed" / "phase").exists():
        with subprocess.Popen(
            command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                process.wait(draw.uniform(0.2, 0.8) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
    again = subprocess.run(command("killed"), capture_output=True, text=True, env=environment, check=True)
    assert kills
    assert again.stdout == whole.stdout
    assert _manifests(tmp_path / "killed", "phase") == _manifests(tmp_path / "whole", "phase")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("phase", "--betas", "-1"), ("--betas is -1.0", "above 0")),
        (("tail", "--tail-indices", "2"), ("--tail-indices is 2.0", "above 2")),
        (("sample_size", "--examples", "10", "20"), ("--examples is (10, 20)", "three numbers")),
        (("shape", "--depths", "1"), ("--depths is 1", "2 or more")),
        (("optimisers", "--rules", "sgd"), ("--rules", "sgd")),
        (("phase", "--device", "cuda:99"), ("--device is cuda:99", "cpu")),
        (("tails",), ("tails",)),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(
            {"sweep": SWEEPS},
            prog="python -m sim",
            description="",
            args=["sweep", *words, "--runs", str(tmp_path / "r")],
        )
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    for name in names:
        assert name in line
    assert not (tmp_path / "r").exists()


def test_the_command_makes_the_sweep_and_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "phase",
        "--betas",
        "2",
        "--lrs",
        "2",
        "--seeds",
        "0",
        "--steps",
        "20",
        "--name",
        "mine",
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit) as stop:
        main({"sweep": SWEEPS}, prog="it", description="", args=["sweep", *words, "--runs", str(tmp_path)])
    assert stop.value.code == 0
    assert "α‖β‖" in capsys.readouterr().out
    run = read_run(tmp_path, "mine")
    assert (run.config["betas"], run.config["steps"], run.data.sizes["lr"]) == ([2.0], 20, 2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "study",
    [
        dataclasses.replace(SMALL["tail"], lr=0.15),
        dataclasses.replace(SMALL["sample_size"], lr=0.5, lr_edge=0.6),
        dataclasses.replace(SMALL["shape"], edge=6.0, spreads=(0.0, 2.0)),
        dataclasses.replace(SMALL["optimisers"], lr=0.5),
        dataclasses.replace(SMALL["phase"], highest=40.0),
    ],
    ids=lambda study: study.name,
)
def test_runs_that_diverge_leave_gaps_and_no_error(study: Study) -> None:
    data = study.combine([unit.run(CPU) for unit in study.units()])
    assert study.table(data)
