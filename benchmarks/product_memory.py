"""Peak memory of a Hessian product as the data grow and the bound stays.

``python benchmarks/product_memory.py [--bound 64]``

A process for each number of examples builds `MeanLossHessian` within the bound and makes two products. Its peak
resident memory (Linux's /proc) is said above what it has with data, weights and vectors in place and one gradient made
in chunks of 100. In one piece: the same where the bound is so large that one graph of all examples is kept, up to
`LARGEST_WHOLE` examples.

Live: every tensor of 64 KiB or more goes back to the system when it is freed, so the peak is that of what is in use.
As it comes: glibc's malloc keeps freed tensors of up to 32 MiB for later ones, and what it keeps in gaps counts too.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from sim import Architecture, build
from sim.curvature import MeanLoss, MeanLossHessian
from theory import command_line
from theory.command_line import InputError

MIB = 2**20
Peak = tuple[int, int, int, int]
LARGEST_WHOLE = 8_000
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}  # glibc reads them at a process's start
CASES: dict[str, tuple[Architecture, tuple[int, ...]]] = {
    "mlp 3072-200-200-10": (Architecture("mlp"), (2_000, 8_000, 32_000, 128_000)),
    "vgg11, width 0.125": (Architecture("vgg11", width=0.125), (500, 1_000, 2_000)),
}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    bound: int = 64
    """Bound on the memory of graphs and temporaries, in MiB."""

    def __post_init__(self) -> None:
        command_line.require_positive("--bound", self.bound)


def peak_here(architecture: Architecture, n: int, bound: int) -> Peak:
    """In a process of its own: examples a chunk, graphs kept and built anew, and the peak."""
    network = build(architecture, (3, 32, 32), 10, seed=0)
    shape = (n, 3072) if architecture.kind == "mlp" else (n, 3, 32, 32)
    objective = MeanLoss(network, torch.randn(shape), torch.arange(n) % 10)
    parameters = list(network.parameters())
    vectors = torch.randn(2, sum(p.numel() for p in parameters))
    MeanLoss(network, objective.inputs[:200], objective.targets[:200]).gradient(parameters, chunk=100)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = high_water()
    operator = MeanLossHessian(objective, memory=bound)
    operator.matmat(vectors)
    return operator.chunk, operator.kept, operator.rebuilt, high_water() - before


def high_water() -> int:
    """Peak resident memory since the mark was reset, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def send(work: Callable[..., Peak], arguments: tuple[object, ...], sender: Connection) -> None:
    """Sends what the work gives, or why it refuses."""
    try:
        sender.send(work(*arguments))
    except InputError as error:
        sender.send(error)


def apart(work: Callable[..., Peak], *arguments: object) -> Peak:
    """What the work gives in a process of its own.

    Raises:
        InputError: it refuses, or its process ends without an answer.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(work, arguments, sender))
    process.start()
    sender.close()  # so that the pipe ends with the process, which alone holds this end now
    try:
        found: Peak | InputError = receiver.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"the process of {arguments} ended with status {process.exitcode}: see above, or give it more memory"
        ) from None
    process.join()
    if isinstance(found, InputError):
        raise found
    return found


def peak(architecture: Architecture, n: int, bound: int, *, returned: bool) -> Peak:
    """`peak_here` in a process whose malloc gives back what is freed, or keeps it as it comes."""
    before = {name: os.environ.pop(name, None) for name in RETURNED}
    os.environ.update(RETURNED if returned else {})
    try:
        return apart(peak_here, architecture, n, bound)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def measure(options: Options) -> None:
    """Prints the table."""
    print(f"bound {options.bound} MiB                                          peak MiB:")
    print(
        "                        examples   data MiB   chunk   kept   rebuilt   live   as it comes   live in one piece"
    )
    for name, (architecture, sizes) in CASES.items():
        for n in sizes:
            chunk, kept, rebuilt, live = peak(architecture, n, options.bound * MIB, returned=True)
            as_it_comes = peak(architecture, n, options.bound * MIB, returned=False)[3]
            whole = "not measured"
            if n <= LARGEST_WHOLE:
                whole = f"{peak(architecture, n, 1 << 40, returned=True)[3] / MIB:.0f}"
            print(
                f"{name:21}{n:10,}{n * 3072 * 4 / MIB:11.0f}{chunk:8,}{kept:7}{rebuilt:10}{live / MIB:7.0f}"
                f"{as_it_comes / MIB:14.0f}{whole:>20}",
                flush=True,
            )


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/product_memory.py", description=str(__doc__))
