"""Losses of 50,000 examples at 5,000 steps in the run store: bytes, rates, and the memory that reading a part takes.

``python benchmarks/loss_store.py [--examples 50000] [--steps 5000] [--formats float32 float16] [--one-piece]``

The losses are real in their course: those of 2,000 embedded images along full-batch descent of a 3072-20-10 network for
as many steps. 50,000 examples are made of them by repetition, each copy of an image times a factor of its own (log-
normal, σ = 0.1), so that no two have the same digits. They are stored as a run stores them: `sim.obtain_resumable_run`,
appended step by step, no training in between; and read back through `sim.read_run`.

Writing and each reading have a process of their own, whose peak resident memory is said above what it has after the
imports. Files are likely to be in the system's cache when they are read. ``raw`` is examples × steps × bytes a number.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import sim.record
from sim import RunInProgress, descend, mlp, obtain_resumable_run, read_run
from theory import command_line
from theory.command_line import InputError
from validate.cifar10 import load_embedded, standardise

MIB = 2**20
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """How much is stored."""

    examples: int = 50_000
    """Examples."""
    steps: int = 5_000
    """Steps."""
    formats: tuple[Literal["float64", "float32", "float16"], ...] = ("float32", "float16")
    """Number formats."""
    one_piece: bool = False
    """Store chunks in one piece, without the shards that `sim.record` makes of wide rows."""
    folder: Path | None = None
    """Where; a temporary folder when not given."""
    part: Literal["all", "write", "row", "column"] = "all"
    """What this process does; all others are started by the one that does all, and given their folder."""

    def __post_init__(self) -> None:
        command_line.require_positive("--examples", self.examples)
        command_line.require_positive("--steps", self.steps)
        if self.folder is not None and not self.folder.is_dir():
            raise InputError(f"--folder is {self.folder}, which is no folder: make it, or give another")
        if self.folder is None and self.part != "all":
            raise InputError(f"--part is {self.part} without --folder: give the folder too, or all")


@dataclass(frozen=True)
class Stored:
    """The configuration of the stored run."""

    examples: int
    steps: int
    dtype: str


def trajectories(steps: int, folder: Path) -> np.ndarray:
    """(steps, 2000) losses of real images along descent; kept in the folder for the next format."""
    file = folder / "trajectories.npy"
    if not file.exists():
        images = load_embedded()
        x, y = torch.from_numpy(standardise(images)).flatten(1), torch.from_numpy(images.labels.astype(np.int64))
        np.save(file, descend(mlp([3072, 20, 10], "relu", seed=0), x, y, lr=0.05, steps=steps, progress=False).losses)
    return np.load(file)


def peak() -> int:
    """Peak resident memory of this process, in bytes; `getrusage` would count its parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def write(options: Options, dtype: str, folder: Path) -> dict[str, float]:
    """Stores the losses as a run."""
    base = trajectories(options.steps, folder)
    copies = -(-options.examples // base.shape[1])
    factors = np.exp(0.1 * np.random.default_rng(0).normal(size=(copies, base.shape[1]))).astype(np.float32)
    spent = {"wall": 0.0, "processor": 0.0}

    def compute(run: RunInProgress) -> object:
        run.record.declare("loss", ("step", "example"), (options.examples,), dtype)
        for losses in base:
            row = torch.from_numpy((losses * factors).reshape(-1)[: options.examples])
            wall, processor = time.perf_counter(), time.process_time()
            run.record.append("loss", row)
            spent["wall"] += time.perf_counter() - wall
            spent["processor"] += time.process_time() - processor
        return run.record.dataset()

    if options.one_piece:
        sim.record.WIDE_ROW = options.examples + 1
    before, begun = peak(), time.perf_counter()
    config = Stored(options.examples, options.steps, dtype)
    obtain_resumable_run(folder, dtype, config, compute, device=CPU)  # type: ignore[arg-type]
    files = [path for path in (folder / dtype).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {
        **spent,
        "total": time.perf_counter() - begun,
        "memory": peak() - before,
        "bytes": size,
        "files": len(files),
    }


def read(options: Options, dtype: str, folder: Path, what: str) -> dict[str, float]:
    """Opens the run, and reads one step's row or one example's column of it."""
    before, wall, processor = peak(), time.perf_counter(), time.process_time()
    loss = read_run(folder, dtype).data["loss"]
    opened = time.perf_counter() - wall, time.process_time() - processor
    wall, processor = time.perf_counter(), time.process_time()
    step, example = options.steps // 2, options.examples // 3
    found = (loss.isel(step=step) if what == "row" else loss.isel(example=example)).values
    taken = time.perf_counter() - wall, time.process_time() - processor
    base = np.load(folder / "trajectories.npy", mmap_mode="r")
    copies = -(-options.examples // base.shape[1])
    factors = np.exp(0.1 * np.random.default_rng(0).normal(size=(copies, base.shape[1]))).astype(np.float32)
    expected = base[step] * factors if what == "row" else base[:, example % base.shape[1]] * factors.flat[example]
    np.testing.assert_allclose(found, expected.reshape(-1)[: len(found)], rtol=1e-6 if dtype == "float32" else 1e-3)
    names = ("open", "open processor", "wall", "processor")
    return {**dict(zip(names, (*opened, *taken), strict=True)), "memory": peak() - before}


def apart(options: Options, dtype: str, folder: Path, part: str) -> dict[str, float]:
    """What a part gives in a process of its own."""
    words = ["--examples", options.examples, "--steps", options.steps, "--formats", dtype, "--folder", folder]
    layout = ["--one-piece"] if options.one_piece else []
    command = [sys.executable, __file__, *map(str, words), *layout, "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(options: Options, folder: Path) -> None:
    """Prints the table."""
    trajectories(options.steps, folder)
    print(f"{options.examples:,} examples × {options.steps:,} steps; times: those that passed (processor's)")
    for dtype in options.formats:
        raw = options.examples * options.steps * np.dtype(dtype).itemsize
        written = apart(options, dtype, folder, "write")
        row, column = (apart(options, dtype, folder, part) for part in ("row", "column"))
        wall, processor = raw / 1e6 / written["wall"], raw / 1e6 / written["processor"]
        print(
            f"{dtype}: {written['bytes'] / 1e6:,.0f} MB in {written['files']:.0f} files, "
            f"{written['bytes'] / raw:.2f} of raw; appended in {written['wall']:.1f} ({written['processor']:.1f}) s, "
            f"{wall:.0f} ({processor:.0f}) MB/s of raw; the whole run in {written['total']:.1f} s; "
            f"peak {written['memory'] / MIB:.0f} MiB",
            flush=True,
        )
        print(f"  opened in {row['open'] * 1e3:.0f} ({row['open processor'] * 1e3:.0f}) ms")
        for words, of_part in (("one step's row", row), ("one example's trajectory", column)):
            print(
                f"  {words}: {of_part['wall'] * 1e3:.0f} ({of_part['processor'] * 1e3:.0f}) ms, opening and reading "
                f"take {of_part['memory'] / MIB:.0f} MiB"
            )


def measure(options: Options) -> None:
    """The table, or one part of it."""
    if options.part == "all":
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report(options, Path(folder))
        return
    assert options.folder is not None  # as the options had it checked
    dtype = options.formats[0]
    made = (
        write(options, dtype, options.folder)
        if options.part == "write"
        else read(options, dtype, options.folder, options.part)
    )
    print(json.dumps(made))


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/loss_store.py", description=str(__doc__))
