"""Many perceptrons at once, in three ways: one after the other, by torch.func, and stacked by batched matrix products.

``OMP_NUM_THREADS=1 python benchmarks/batched_networks.py``. All ways take the same full-batch steps in float32;
each is timed in the same run, the best of several, and the rows give times as multiples of the stacked engine's own.
`loop` is a bare loop with `torch.optim.SGD` over `nn.Sequential`s, without any records; `descend` is `sim.descend`, run
by run; `stacked` is `sim.batched_networks.descend_networks` at the stack size its rule chooses, then at others.
Operations are those that a run-step takes: the rule of the stack size counts the first layer's inputs' gradient too.
"""

from __future__ import annotations

import itertools
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from perceptron_operations import step_operations
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from sim import descend, mlp, update_rules
from sim.batched_networks import LARGEST_WORK, descend_networks
from theory import command_line

LR = 0.01


@dataclass(frozen=True)
class Case:
    """Networks, examples, and how many runs and steps are timed."""

    sizes: tuple[int, ...]
    examples: int
    runs: int
    steps: int


CASES = [
    Case((2, 8, 2), 32, 64, 40),
    Case((10, 20, 3), 100, 64, 40),
    Case((10, 50, 50, 10), 500, 32, 20),
    Case((64, 100, 100, 10), 500, 16, 20),
    Case((784, 100, 10), 500, 8, 20),
    Case((3072, 200, 200, 10), 500, 4, 15),
    Case((3072, 200, 200, 10), 2000, 2, 10),
]


def loop(networks: list[nn.Sequential], x: Tensor, y: Tensor, steps: int) -> None:
    for network in networks:
        optimizer = torch.optim.SGD(network.parameters(), LR)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


def by_descend(networks: list[nn.Sequential], x: Tensor, y: Tensor, steps: int) -> None:
    for network in networks:
        descend(network, x, y, lr=LR, steps=steps, progress=False)


def by_func(networks: list[nn.Sequential], x: Tensor, y: Tensor, steps: int) -> None:
    stacked, _ = stack_module_state(networks)
    parameters = {name: p.detach() for name, p in stacked.items()}
    gradient = vmap(grad(lambda own: F.cross_entropy(functional_call(networks[0], own, (x,)), y)))
    for _ in range(steps):
        for name, g in gradient(parameters).items():
            parameters[name].add_(g, alpha=-LR)


def stacked(together: int | None) -> Callable[[list[nn.Sequential], Tensor, Tensor, int], object]:
    rule = update_rules.GradientDescent(LR)
    return lambda networks, x, y, steps: descend_networks(networks, x, y, rule, steps, runs_together=together)


def best(work: Callable[[], object], repeat: int) -> float:
    work()
    # Of one thread the processor's time, which other processes on the machine disturb least.
    timer = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return min(timeit.repeat(work, number=1, repeat=repeat, timer=timer))


def row(case: Case, repeat: int) -> str:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case.examples, case.sizes[0], generator=generator)
    y = torch.randint(0, case.sizes[-1], (case.examples,), generator=generator)

    def seconds(way: Callable[[list[nn.Sequential], Tensor, Tensor, int], object]) -> float:
        networks = [mlp(case.sizes, "relu", seed) for seed in range(case.runs)]
        return best(lambda: way(networks, x, y, case.steps), repeat)

    counted = 6 * case.examples * sum(a * b for a, b in itertools.pairwise(case.sizes))
    chosen = min(case.runs, max(1, LARGEST_WORK // counted))
    work = step_operations(case.sizes, case.examples)
    ours = seconds(stacked(None))
    others = [seconds(way) / ours for way in (loop, by_descend, by_func)]
    sizes = [together for together in (1, 4, 16, 64) if together <= case.runs and together != chosen]
    at = "  ".join(f"{together}: {seconds(stacked(together)) / ours:.2f}" for together in sizes)
    name = "-".join(map(str, case.sizes))
    per_step = ours / case.steps / case.runs
    return (
        f"{name:18}{case.examples:6}{case.runs:5}{work:9.1e}{per_step * 1e6:12,.0f}{work / per_step / 1e9:8.1f}"
        f"{chosen:7}{others[0]:9.2f}{others[1]:9.2f}{others[2]:7.2f}   {at}"
    )


def measure(repeat: int = 3) -> None:
    """Prints the table.

    Args:
        repeat: timings of which the best counts.
    """
    command_line.require_positive("--repeat", repeat)
    print(f"CPU, {torch.get_num_threads()} threads, float32, full batch; GPU: not measured")
    print(f"stacks of at most {LARGEST_WORK:.1e} operations a step, at least one run\n")
    print("                                    opera-  stacked, µs       stack     times of the stacked engine's")
    print("network             images runs     tions    a run-step GFLOP/s  of     loop  descend   func   stacks of")
    for case in CASES:
        print(row(case, repeat), flush=True)


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/batched_networks.py", description=str(__doc__))
