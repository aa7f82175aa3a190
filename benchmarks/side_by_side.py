"""Runs made side by side (``--jobs``) against the same runs one after the other with all threads, in one run.

``python benchmarks/side_by_side.py [mlp vgg11 resnet18 vit] [--jobs 2] [--runs 4] [--steps 100]``: so many base runs of
the `standard` preset's CPU form, seed after seed, cut to so many steps; processes and their imports included. The two
ways take turns, twice; the better time of each is taken. Prints seconds and the ratio.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import tyro

from theory import command_line
from validate.cifar10 import load_embedded
from validate.evidence import Store
from validate.network_run import NetworkConfig
from validate.presets import preset_named
from validate.side_by_side import make_each_ahead

Kind = Literal["mlp", "vgg11", "resnet18", "vit"]


@dataclass(frozen=True)
class Options:
    """Times runs side by side against one after the other."""

    networks: Annotated[tuple[Kind, ...], tyro.conf.Positional] = get_args(Kind)
    """Kinds of network."""
    jobs: int = 2
    """Processes."""
    runs: int = 4
    """Runs, a seed each."""
    steps: int = 100
    """Steps of a run."""

    def __post_init__(self) -> None:
        for name in ("jobs", "runs", "steps"):
            command_line.require_positive(f"--{name}", getattr(self, name))


def one_by_one(store: Store, configs: list[NetworkConfig]) -> None:
    """The usual way."""
    for config in configs:
        store.obtain(config, None)


def seconds(make: Callable[[Store], object]) -> float:
    """Time that it takes in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), load_embedded(), torch.device("cpu"))
        begun = time.perf_counter()
        make(store)
        return time.perf_counter() - begun


def compare(options: Options) -> None:
    """Prints a line for each network."""
    print(f"{options.runs} runs of {options.steps} steps, {torch.get_num_threads()} threads")
    for name in options.networks:
        base = replace(preset_named("standard").setting(name).network, steps=options.steps)
        configs = [replace(base, seed=seed) for seed in range(options.runs)]
        alone, beside = [], []
        for _ in range(2):
            alone.append(seconds(lambda store, c=configs: one_by_one(store, c)))  # type: ignore[misc]
            beside.append(seconds(lambda store, c=configs: make_each_ahead(store, options.jobs, c)))  # type: ignore[misc]
        ratio = min(alone) / min(beside)
        print(
            f"{name}: one after the other {min(alone):.1f} s, {options.jobs} at once {min(beside):.1f} s: "
            f"{ratio:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    command_line.main(compare, prog="python benchmarks/side_by_side.py", description=str(__doc__))
