"""Runs killed with −9 and resumed equal the uninterrupted run, bit for bit and file for file."""

from __future__ import annotations

import json
import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import killable_run
import numpy as np
import pytest
import xarray as xr
from forked import forking_from, run_to_end
from killable_run import CASES, Case

SIGKILLED = -9


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forking_from("killable_run")


def _manifest(root: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((root / "run" / "manifest.json").read_text())
    return manifest


def _kill_again_and_again(
    processes: ForkServerContext, folder: Path, case: Case, least: int, draw: random.Random
) -> dict[str, int]:
    """Kills and resumes runs, and compares each with the uninterrupted one when it is finished, until enough kills."""
    reference, total = folder / "reference", processes.Value("i", 0)
    assert run_to_end(processes, killable_run.count_events, reference, "run", case, total) == 0
    seen = {"kills": 0, "resumed": 0, "runs": 0}
    while seen["kills"] < least:
        root = folder / f"killed-{seen['runs']}"
        while True:
            # The end of a run has few operations for its importance: aim there every third time.
            first, last = draw.choice(
                [(1, total.value // 2), (150, total.value // 2), (total.value - 150, total.value)]
            )
            status = run_to_end(processes, killable_run.make_until, root, "run", case, draw.randint(first, last))
            assert status in (0, SIGKILLED)
            if status == 0:
                break
            seen["kills"] += 1
        seen["runs"] += 1
        seen["resumed"] += _compare_when_finished(processes, root, reference, case)
    return seen


def _compare_when_finished(processes: ForkServerContext, root: Path, reference: Path, case: Case) -> int:
    """Compares the two runs, file by file through their checksums; the number of times one went on."""
    assert run_to_end(processes, killable_run.make, root, "run", case) == 0  # finished: tidies up, and makes nothing
    assert _manifest(root) == _manifest(reference)
    assert [p.name for p in root.iterdir()] == ["run"]
    assert sorted(p.name for p in (root / "run").iterdir()) == sorted(p.name for p in (reference / "run").iterdir())
    return len(json.loads((root / "run" / "environment.json").read_text())["resumed_at"])


@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_at_any_file_operation_ends_in_the_bits_of_the_uninterrupted(
    name: str, processes: ForkServerContext, tmp_path: Path
) -> None:
    seen = _kill_again_and_again(processes, tmp_path, CASES[name], 5, random.Random(name))
    assert seen["resumed"]
    data = xr.open_zarr(tmp_path / "reference" / "run" / "trajectory.zarr", consolidated=False)
    assert (0 < data.attrs["diverged_at"] < killable_run.STEPS) == CASES[name].diverges
    assert len(np.unique(data["loss"].values, axis=0)) == data.sizes["step"]  # the case is not at rest


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_a_hundred_times_ends_in_the_bits_of_the_uninterrupted(
    name: str, processes: ForkServerContext, tmp_path: Path
) -> None:
    """`pytest tests/sim/test_kill.py -m slow`: another draw each time; about four minutes."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    _kill_again_and_again(processes, tmp_path, CASES[name], 100, random.Random(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_from_outside_at_random_times_ends_in_the_bits_of_the_uninterrupted(
    name: str, processes: ForkServerContext, tmp_path: Path
) -> None:
    reference, root, draw = tmp_path / "reference", tmp_path / "killed", random.Random(name)
    for folder in (reference, tmp_path / "timed"):  # the first takes longer
        begun = time.monotonic()
        assert run_to_end(processes, killable_run.make, folder, "run", CASES[name]) == 0
    seconds, kills = time.monotonic() - begun, 0
    while not (root / "run").exists():
        process = processes.Process(target=killable_run.make, args=(root, "run", CASES[name]))
        process.start()
        # The first kill comes early, so that there is one.
        process.join(draw.uniform(0, seconds if kills else seconds / 4))
        process.kill()
        process.join()
        assert process.exitcode in (0, SIGKILLED)
        kills += process.exitcode == SIGKILLED
    assert kills
    _compare_when_finished(processes, root, reference, CASES[name])
