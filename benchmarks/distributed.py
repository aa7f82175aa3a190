"""Steps a second of one process with one and two threads, and of two processes with one thread each, side by side.

``python benchmarks/distributed.py [--rounds 3] [--seconds 4]``

Descent by `sim.descend`, bare and with `sim.SharpnessProbe` (top eigenpair every 10 steps, each layer's block every 50,
no midpoints): the perceptron 3072-200-200-10 on the 2,000 embedded images, and the CPU-sized VGG-11 of
`validate.cpu_forms` on its own, by their own step sizes: a refresh is to follow vectors that have moved. Two processes
are ranks of torchrun on this machine, joined by gloo; each takes half of the examples of every step. Ways take turns,
each in new processes, which warm up by some steps, agree on a number of steps and time them, from where the first ones
have led; of each way the median of the rounds is printed: time that passed, so the machine is to be quiet.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sim import SharpnessProbe, build, descend
from sim.distributed import from_first, is_first, processes, rank_count
from theory import command_line
from theory.command_line import InputError
from validate.cifar10 import load_embedded
from validate.cpu_forms import CPU_FORMS
from validate.network_run import IMAGE_SHAPE, network_inputs, training_images

WAYS = {"1 process × 1 thread": (1, 1), "1 process × 2 threads": (1, 2), "2 processes × 1 thread": (2, 1)}
NETWORKS = ("mlp", "vgg11")
PERIOD = 50


@dataclasses.dataclass(frozen=True)
class Options:
    """What is timed."""

    rounds: int = 3
    """Rounds, of which the median is printed."""
    seconds: float = 4.0
    """Seconds that each descent takes, about; monitored, whole periods of 50 steps."""
    part: Literal["all", "ranks"] = "all"
    """What this process does; those that descend are started by the one that does all."""
    file: Path | None = None
    """Where those put what they find."""

    def __post_init__(self) -> None:
        command_line.require_positive("--rounds", self.rounds)
        command_line.require_positive("--seconds", self.seconds)
        if self.file is None and self.part == "ranks":
            raise InputError("--part is ranks without --file: give the file too, or all")


def descend_here(seconds: float) -> dict[str, float]:
    """Steps a second of each network, bare and monitored, of the ranks that work together; first losses as a check."""
    found: dict[str, float] = {}
    for kind in NETWORKS:
        for monitored in (False, True):
            descent = Descent(kind, monitored)
            unit = PERIOD if monitored else 3
            first = descent.seconds(unit)  # warms up too, and brings the probe to where it goes on from
            steps = unit * from_first(max(1, math.ceil(seconds / first)))
            found[f"{kind}{' monitored' if monitored else ''}"] = steps / descent.seconds(steps)
        found[f"{kind} loss"] = descent.loss
    return found


class Descent:
    """Descent of one network, in pieces."""

    def __init__(self, kind: str, monitored: bool) -> None:
        config = CPU_FORMS[kind]
        self.lr = config.lr
        images = training_images(config, load_embedded())
        self.x = network_inputs(config.architecture, images)
        self.y = torch.from_numpy(images.labels.astype(np.int64))
        self.network = build(config.architecture, IMAGE_SHAPE, 10, seed=0)
        probe = SharpnessProbe(self.network, self.x, self.y, self.lr, midpoint=False)
        self.probes = [probe] if monitored else []
        self.loss = math.nan

    def seconds(self, steps: int) -> float:
        """Seconds of so many steps more."""
        begun = time.perf_counter()
        run = descend(self.network, self.x, self.y, lr=self.lr, steps=steps, probes=self.probes, progress=False)
        taken = time.perf_counter() - begun
        self.loss = float(run.losses[0].mean())
        return taken


def start(way: str, options: Options, folder: Path) -> dict[str, float]:
    """What the processes of one way find."""
    count, threads = WAYS[way]
    file = folder / "found.json"
    words = [__file__, "--part", "ranks", "--seconds", str(options.seconds), "--file", str(file)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *launcher, *words], check=True, env=environment)
    return json.loads(file.read_text())


def measure(options: Options) -> None:
    """The table, or one rank's part of it."""
    if options.part == "ranks":
        with processes():
            found = descend_here(options.seconds)
            if is_first():
                assert options.file is not None  # as the options had it checked
                options.file.write_text(json.dumps({**found, "ranks": rank_count()}))
        return
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for way, found in rounds.items():
                found.append(start(way, options, Path(folder)))
    losses = {(kind, round(one[f"{kind} loss"], 2)) for found in rounds.values() for one in found for kind in NETWORKS}
    assert len(losses) == len(NETWORKS), losses
    kinds = [kind + monitored for kind in NETWORKS for monitored in ("", " monitored")]
    print(f"steps a second; in brackets, against {next(iter(WAYS))} of the same round; {os.cpu_count()} cores")
    print(f"  {'':24}" + "".join(f"{kind:>20}" for kind in kinds))
    for way, found in rounds.items():
        line = f"  {way:24}"
        for kind in kinds:
            of_way = statistics.median(one[kind] for one in found)
            base = next(iter(rounds.values()))
            ratio = statistics.median(one[kind] / first[kind] for one, first in zip(found, base, strict=True))
            line += f"{of_way:12.2f} ({ratio:.2f})"
        print(line)


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/distributed.py", description=str(__doc__))
