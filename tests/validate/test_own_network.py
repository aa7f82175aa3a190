"""The script of docs/own_network.md does what the page says."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own_network.md"


def _script() -> str:
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(script)


def _run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_it_finds_the_two_groups_and_given_again_says_the_same(tmp_path: Path) -> None:
    first = _run(tmp_path, _script())
    assert first.returncode == 0, first.stderr
    positive, negative = (set(map(int, m.split(","))) for m in re.findall(r"\[([\d, ]+)\]", first.stdout)[:2])
    found = sorted((positive, negative), key=min)
    assert len(found[0] & set(range(20))) >= 18
    assert len(found[1] & set(range(20, 40))) >= 18
    gap = [float(number) for number in re.findall(r"-?\d+\.\d+", first.stdout.partition("window: ")[2])[:6]]
    assert all(a * b < 0 for a, b in itertools.pairwise(gap))
    again = _run(tmp_path, _script())
    assert again.stdout == first.stdout
    assert "goes on from step 400" in again.stderr
    other = _run(tmp_path, _script().replace("lr, folder = Mine(), 0.6", "lr, folder = Mine(), 0.2"))
    assert "the checkpoint is of another run (step size: 0.6 there, 0.2 now)" in other.stderr
