"""Peak memory of a Hessian product as the data grow and the bound stays.

``python benchmarks/product_memory.py [--bound 64]``

A process for each number of examples builds `MeanLossHessian` within the bound and makes one product. Its peak resident
memory is said above what it has with data, weights and vector in place and one gradient made in chunks of 100. In one
piece: the same where the bound is so large that one graph of all examples is kept, up to `LARGEST_WHOLE` examples.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from sim import Architecture, build
from sim.curvature import MeanLoss, MeanLossHessian

MIB = 2**20
LARGEST_WHOLE = 8_000
CASES: dict[str, tuple[Architecture, tuple[int, ...]]] = {
    "mlp 3072-200-200-10": (Architecture("mlp"), (2_000, 8_000, 32_000)),
    "vgg11, width 0.125": (Architecture("vgg11", width=0.125), (500, 1_000, 2_000)),
}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    bound: int = 64
    """Bound on the memory of graphs and temporaries, in MiB."""


def peak_here(architecture: Architecture, n: int, bound: int, queue: Any) -> None:
    """In a process of its own: examples a chunk, graphs kept and built anew, and the peak."""
    network = build(architecture, (3, 32, 32), 10, seed=0)
    shape = (n, 3072) if architecture.kind == "mlp" else (n, 3, 32, 32)
    objective = MeanLoss(network, torch.randn(shape), torch.arange(n) % 10)
    parameters = list(network.parameters())
    vector = torch.randn(sum(p.numel() for p in parameters))
    MeanLoss(network, objective.inputs[:200], objective.targets[:200]).gradient(parameters, chunk=100)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = high_water()
    operator = MeanLossHessian(objective, memory=bound)
    operator.matvec(vector)
    queue.put((operator.chunk, operator.kept, operator.rebuilt, high_water() - before))


def high_water() -> int:
    """Peak resident memory since the mark was reset, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(options: Options) -> None:
    """Prints the table."""
    print(
        f"bound {options.bound} MiB        examples   data MiB   chunk   kept   rebuilt   peak MiB   in one piece MiB"
    )
    context = multiprocessing.get_context("spawn")
    for name, (architecture, sizes) in CASES.items():
        for n in sizes:
            found = []
            for bound in (options.bound * MIB, 1 << 40)[: 2 if n <= LARGEST_WHOLE else 1]:
                queue = context.Queue()
                process = context.Process(target=peak_here, args=(architecture, n, bound, queue))
                process.start()
                found.append(queue.get())
                process.join()
            chunk, kept, rebuilt, peak = found[0]
            whole = f"{found[1][3] / MIB:.0f}" if len(found) > 1 else "not measured"
            data = n * 3072 * 4 / MIB
            print(
                f"{name:22}{n:10,}{data:11.0f}{chunk:8,}{kept:7}{rebuilt:10}{peak / MIB:11.0f}{whole:>19}",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options))
