"""Runs made side by side: the bits of runs made one by one, and an end of all processes, whatever ends the first."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sim import Architecture
from sim.runs import list_runs, read_run
from theory import InputError
from validate.cifar10 import load_embedded
from validate.evidence import Store
from validate.network_run import NetworkConfig
from validate.plan import make_plan
from validate.roles import Setting
from validate.side_by_side import _units, jobs_for, make_ahead, make_each_ahead, make_step_sizes_ahead, require_jobs

CPU = torch.device("cpu")
NETWORK = NetworkConfig(
    Architecture(hidden=(16,)),
    images_per_class=5,
    lr=0.3,
    steps=265,
    measure_every=5,
    blocks_every=0,
    midpoint=False,
    snapshot_every=20,
    step_lengths=True,
)
"""Crosses 2/η at step 110, so that runs can be derived from it."""
SETTING = Setting(NETWORK, seeds=(0,))
ROLES = ("base", "gentle", "without_random")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def checksums(folder: Path) -> dict[str, object]:
    return {name: json.loads((folder / name / "manifest.json").read_text()) for name in list_runs(folder)}


@pytest.mark.usefixtures("threads")
def test_two_jobs_end_in_the_bits_of_runs_made_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    alone = Store(tmp_path / "alone", load_embedded(), CPU)
    evidence, _ = alone.train("mlp", SETTING, make_plan(SETTING, ROLES, alone.runs))
    assert evidence.networks[0].windows is not None, "nothing is derived where the base run does not cross"

    torch.set_num_threads(2)
    both = Store(tmp_path / "both", load_embedded(), CPU)
    there = list_runs(alone.runs)[-1]
    shutil.copytree(alone.runs / there, both.runs / there)
    plan = make_plan(SETTING, ROLES, both.runs)
    assert [run.exists for run in plan].count(True) == 1
    reading, plans = make_ahead(both, 2, {"mlp": SETTING}, {"mlp": plan}, {"mlp": 0.5})
    assert checksums(both.runs) == checksums(alone.runs)
    environments = {name: read_run(both.runs, name).environment for name in list_runs(both.runs)}
    assert environments[there] == read_run(alone.runs, there).environment, "what was there is made again"
    assert {of["threads"] for of in environments.values()} == {1}
    told = capsys.readouterr().out
    assert "2 runs at once, 1 threads each" in told
    assert "0 to make or in the making" in told
    reading.train("mlp", SETTING, plans["mlp"])
    assert {name: read_run(both.runs, name).environment for name in list_runs(both.runs)} == environments
    assert "min left" not in capsys.readouterr().out

    # Forced, all are to be made again, derived ones after the new base run; and the command then reads them.
    forced = replace(both, force=True)
    first, *others = _units(forced, SETTING, make_plan(SETTING, ROLES, both.runs), 1.0)
    assert [first.config, *(unit.config for unit in others)] == [
        run.config for run in plan if run.role != "without_random"
    ]
    assert [run.role for run, _ in first.waiting] == ["without_random"]
    assert not list(_units(both, SETTING, make_plan(SETTING, ROLES, both.runs), 1.0))
    assert not make_each_ahead(forced, 2, []).force

    # A run of another configuration, or a damaged one, which the refusal says --force replaces, is not opened then.
    kept = both.runs / NETWORK.name / "config.json"
    kept.write_text(kept.read_text().replace('"steps": 265', '"steps": 264'))
    with pytest.raises(InputError, match="give --force to replace it"):
        make_plan(SETTING, ROLES, both.runs)
    planned = make_plan(SETTING, ROLES, both.runs, force=True)
    assert [(run.role, run.exists) for run in planned] == [(role, False) for role in ROLES]


def test_one_job_makes_nothing_ahead(tmp_path: Path) -> None:
    store = Store(tmp_path, load_embedded(), CPU, force=True)
    plan = make_plan(SETTING, ROLES, tmp_path)
    assert make_ahead(store, 1, {0: SETTING}, {0: plan}) == (store, {0: plan})
    assert make_each_ahead(store, 1, [NETWORK]) == store
    assert make_step_sizes_ahead(store, 1, [replace(SETTING, crossing=20)]) == store
    assert list_runs(tmp_path) == []


def test_step_sizes_are_chosen_side_by_side_and_read(tmp_path: Path) -> None:
    store = Store(tmp_path, load_embedded(), CPU, force=True)
    setting = replace(SETTING, seeds=(0, 1), crossing=4)
    reading = make_step_sizes_ahead(store, 2, [SETTING, setting])
    made = checksums(tmp_path)
    assert len(made) == 2
    assert set(reading.with_step_sizes(setting).step_sizes) == {0, 1}
    assert checksums(tmp_path) == made


def test_a_killed_process_is_one_line_and_what_is_finished_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, load_embedded(), CPU)

    def kill_one() -> None:
        while not list_runs(tmp_path):
            time.sleep(0.1)
        multiprocessing.active_children()[0].kill()

    thread = threading.Thread(target=kill_one)
    thread.start()
    long = [replace(NETWORK, seed=seed, steps=100_000) for seed in (1, 2)]
    with pytest.raises(InputError, match="--jobs is 2: a process that made a run was killed"):
        make_each_ahead(store, 2, [replace(NETWORK, steps=5), *long])
    thread.join()
    assert multiprocessing.active_children() == []
    assert list_runs(tmp_path) == [replace(NETWORK, steps=5).name]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_all_processes_end_with_the_first(tmp_path: Path, end: signal.Signals) -> None:
    options = ["--claims", "C3", "--images-per-class", "5", "--steps", "100000", "--seeds", "0", "1", "--jobs", "2"]
    folders = ["--runs", str(tmp_path / "runs"), "--report", str(tmp_path / "report")]
    with subprocess.Popen(
        [sys.executable, "-m", "validate", "claims", *options, *folders],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        begun = time.monotonic()
        while len(list((tmp_path / "runs").glob(".*.partial"))) < 2:  # both processes are at work
            assert command.poll() is None
            assert time.monotonic() - begun < 120
            time.sleep(0.2)
        if end is signal.SIGINT:
            os.killpg(command.pid, end)  # as a terminal does
        else:
            command.kill()
        told = command.communicate(timeout=60)[1]  # at the end of the last process that holds the pipe
    if end is signal.SIGINT:
        assert command.returncode == 130
        assert "Traceback" not in told
        assert told.splitlines()[-1].startswith("python -m validate: interrupted")
    else:
        assert command.returncode == -end


@pytest.mark.parametrize(("jobs", "ranks", "words"), [(0, 1, "above 0"), (-2, 1, "above 0"), (2, 2, "under torchrun")])
def test_a_number_of_jobs_that_cannot_be_is_refused(
    jobs: int, ranks: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validate.side_by_side.rank_count", lambda: ranks)
    with pytest.raises(InputError, match=f"--jobs is {jobs}.*{words}"):
        require_jobs(jobs)
    assert require_jobs(1) == 1


@pytest.mark.usefixtures("threads")
def test_the_main_job_makes_a_run_for_each_seed_at_once_as_far_as_threads_go(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    assert [jobs_for(CPU, seeds) for seeds in (1, 2, 3)] == [1, 2, 2]
    assert jobs_for(torch.device("cuda"), 3) == 1
    monkeypatch.setattr("validate.side_by_side.rank_count", lambda: 2)
    assert jobs_for(CPU, 3) == 1
