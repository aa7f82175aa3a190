"""The second-moment engine against autograd on the raw examples, and what the number of examples costs.

``python benchmarks/second_moments.py [largest]``, with nothing else running; `largest` is the number of examples of the
largest sample that is really drawn (10⁶ when not given; 10⁸ takes minutes). Both sides of a ratio are timed in the same
run, each the best of several, with the same threads and in float64. The autograd side is timed on a few steps and
scaled: its steps all cost the same.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from sim.batched_descent import descend_batch, stack_states
from sim.opposing_data import Examples, draw_examples
from sim.second_moments import Moments, SecondMoments, population_batch, sample_moments
from sim.update_rules import Adam, GradientDescent, Rule
from theory.configuration import DescentConfig

CPU = torch.device("cpu")
RUNS, STEPS, FEATURES, EXAMPLES = 1024, 2000, 64, 100_000
AUTOGRAD_STEPS, FRACTION = 10, 0.05
CONFIG = DescentConfig(alpha=20.0, d1=FEATURES - 1, lr=0.02)
STARTS = stack_states([DescentConfig(d1=FEATURES - 1, start_seed=seed).initial_state for seed in range(RUNS)])
LRS = torch.linspace(0.005, 0.03, RUNS, dtype=torch.float64)


def best(work: Callable[[], object], repeat: int = 3) -> float:
    return min(timeit.repeat(work, number=1, repeat=repeat))


def examples(count: int) -> Iterator[Examples]:
    return draw_examples(CONFIG.model, count, FRACTION, 0, CPU)


def autograd_run(z: torch.Tensor, y: torch.Tensor, steps: int, lr: float) -> torch.Tensor:
    theta = STARTS[0, 0].clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        ((theta[0] * (z @ theta[1:]) - y) ** 2).mean().div(2).backward()
        optimizer.step()
    return theta.detach()


def engine(moments: SecondMoments, rule: Rule, record_every: int) -> float:
    return best(lambda: descend_batch(moments, STARTS, rule, STEPS, record_every=record_every), repeat=2)


def throughput() -> None:
    chunks = list(examples(EXAMPLES))
    z, y = torch.cat([c.features for c in chunks]), torch.cat([c.target for c in chunks])
    moments = sample_moments(chunks)["all"]
    single = best(lambda: autograd_run(z, y, AUTOGRAD_STEPS, 0.02)) / AUTOGRAD_STEPS
    print(f"autograd, one run on {EXAMPLES:,} examples: {single * 1e3:.2f} ms a step; {STEPS} steps of {RUNS} runs")
    print(f"would take {single * STEPS * RUNS:,.0f} s (scaled from {AUTOGRAD_STEPS} steps)")

    ours = descend_batch(moments, STARTS[:1], GradientDescent(0.02), 100, record_every=100, keep_weights=True)
    theirs = autograd_run(z, y, 100, 0.02)
    apart = (torch.from_numpy(ours["weights"].values[-1, 0, 0]) - theirs).norm() / theirs.norm()
    print(f"engine against autograd after 100 steps, relative distance of the weights: {float(apart):.1e}\n")

    a, b = torch.randn(2, 1024, 1024, dtype=torch.float64)
    product = 2 * 1024**3 / best(lambda: a @ b)
    buffers = torch.randn(3, RUNS, FEATURES, dtype=torch.float64)
    triad = (
        200 * 3 * buffers[0].nbytes / best(lambda: [buffers[0].addcmul_(buffers[1], buffers[2]) for _ in range(200)])
    )
    print(f"machine: matrix product {product / 1e9:.0f} GFLOP/s, elementwise at this size {triad / 1e9:.0f} GB/s")

    population = population_batch([CONFIG.model] * RUNS, CPU)
    own = Moments(*(t.expand(RUNS, *t.shape).contiguous() for t in (moments.gram, moments.cross, moments.square)))
    rule = GradientDescent(LRS)
    rows = [
        ("population, O(d)", population, rule, STEPS),
        ("population, recorded every 10 steps", population, rule, 10),
        ("population, Adam", population, Adam(LRS), STEPS),
        ("one sample in its eigenbasis, O(d)", moments.diagonal, rule, STEPS),
        ("one sample for all runs, O(d²)", moments, rule, STEPS),
        ("one sample a run, O(d²)", own, rule, STEPS),
    ]
    print(f"\n{RUNS} runs × {STEPS} steps × {FEATURES} features  seconds  times autograd's throughput")
    for name, of, by, every in rows:
        seconds = engine(of, by, every)
        line = f"{name:38}{seconds:9.2f}{single * STEPS * RUNS / seconds:18,.0f}"
        if name == "population, O(d)":
            # Arrays of RUNS × FEATURES read or written in a step of _effective, residual, both gradients, step, check.
            line += f"    {18 * buffers[0].nbytes * STEPS / seconds / triad:.0%} of the elementwise rate"
        if name == "one sample for all runs, O(d²)":
            line += f"    {2 * RUNS * FEATURES**2 * STEPS / seconds / product:.0%} of the matrix-product rate"
        print(line)


def cost_of_examples(largest: int) -> None:
    print(f"\nexamples      generating  with moments   ratio   a step of {RUNS} runs")
    counts = [10**4, 10**5, 10**6, 10**7, 10**8]
    built = {}
    for n in [n for n in counts if n <= largest]:
        # Alternating, so that a busy machine slows both.
        generating, with_moments = float("inf"), float("inf")
        for _ in range(3 if n <= 10**6 else 1):
            begin = time.perf_counter()
            for _chunk in examples(n):
                pass
            between = time.perf_counter()
            built[n] = sample_moments(examples(n))["all"]
            generating = min(generating, between - begin)
            with_moments = min(with_moments, time.perf_counter() - between)
        print(f"{n:<13,}{generating:9.3f} s{with_moments:12.3f} s{with_moments / generating:9.2f}", flush=True)
    steps = {}
    rule = GradientDescent(0.02)
    for _ in range(5):
        for n, moments in built.items():
            begin = time.perf_counter()
            descend_batch(moments, STARTS, rule, 200, record_every=200)
            steps[n] = min(steps.get(n, float("inf")), time.perf_counter() - begin)
    mean = sum(steps.values()) / len(steps)
    for n, seconds in steps.items():
        print(f"{n:<13,} a step {seconds / 200 * 1e6:7.0f} us, {seconds / mean - 1:+.1%} off the mean of all")
    for n in counts:
        if n > largest:
            print(f"{n:<13,} not drawn: a step sees the moments alone, whose shape is that of the others")


def peak_memory(count: int) -> float:
    """Peak resident memory in MiB of a process that builds the moments of so many examples."""
    sample_moments(examples(count))
    # Not getrusage: its peak is inherited from the process that started this one. Linux only.
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def drift() -> None:
    print("\nfloat32 against float64, 64 runs: largest relative difference of the loss, and of the sharpness")
    moments = population_batch([CONFIG.model] * 64, CPU)
    for name, lr in (("below the edge, η = 0.01", 0.01), ("at the edge, η = 0.04", 0.04)):
        both = [
            descend_batch(moments, STARTS[:64].to(dtype), GradientDescent(lr), STEPS, record_every=10)
            for dtype in (torch.float32, torch.float64)
        ]
        worst = [float(abs(both[0][v] / both[1][v] - 1).max()) for v in ("loss", "sharpness")]
        last = [float(abs(both[0][v][-1] / both[1][v][-1] - 1).max()) for v in ("loss", "sharpness")]
        print(f"{name:26} any step {worst[0]:.1e} {worst[1]:.1e}   last step {last[0]:.1e} {last[1]:.1e}")


if __name__ == "__main__":
    largest = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**6
    print(f"CPU, {torch.get_num_threads()} threads, float64; GPU: not measured\n")
    throughput()
    cost_of_examples(largest)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = [(n, pool.apply(peak_memory, (n,))) for n in (10**5, 10**6, 3 * 10**6)]
    print("\npeak memory of building moments: " + ", ".join(f"{n:,} examples {mib:.0f} MiB" for n, mib in peaks))
    drift()
