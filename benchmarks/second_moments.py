"""The second-moment engine against autograd on the raw examples, and what the number of examples costs.

``python benchmarks/second_moments.py [largest] [part …]``, with nothing else running; `largest` is the number of
examples of the largest sample that is really drawn (10⁶ when not given; 10⁸ takes minutes), the parts are throughput,
depth, examples, sources, drift and gpu (all when not given). Both sides of a ratio are timed in the same run, each the
best of several, with the same threads and in float64. The autograd side is timed on a few steps and scaled: its steps
all cost the same.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sim.batched_descent import descend_batch, stack_states
from sim.batched_flow import flow_batch
from sim.device import describe_device
from sim.opposing_data import CHUNK, Examples, draw_examples
from sim.second_moments import Moments, SecondMoments, population_batch, sample_moments
from sim.update_rules import Adam, GradientDescent, Rule
from theory.configuration import DescentConfig

CPU = torch.device("cpu")
RUNS, STEPS, FEATURES, EXAMPLES = 1024, 2000, 64, 100_000
AUTOGRAD_STEPS, FRACTION = 10, 0.05
GPU_RUNS, GPU_STEPS = 10_000, 10_000
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
    triad = elementwise_rate(RUNS * FEATURES)
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
            line += f"    {18 * 8 * RUNS * FEATURES * STEPS / seconds / triad:.0%} of the elementwise rate"
        if name == "one sample for all runs, O(d²)":
            line += f"    {2 * RUNS * FEATURES**2 * STEPS / seconds / product:.0%} of the matrix-product rate"
        print(line)


def elementwise_rate(numbers: int) -> float:
    """Bytes a second of x += y z on arrays of so many float64 numbers, which is what steps are made of."""
    x, y, z = torch.randn(3, numbers, dtype=torch.float64)
    repeats = max(1, 10**7 // numbers)
    return repeats * 4 * x.nbytes / best(lambda: [x.addcmul_(y, z) for _ in range(repeats)])


def depth() -> None:
    runs, steps = 256, 200
    print(
        f"\n{runs} deep networks, {steps} steps    µs a step and run   of the elementwise rate   with sharpness each 10"
    )
    moments = population_batch([CONFIG.model] * runs, CPU)
    generator = torch.Generator().manual_seed(0)
    for widths in ((FEATURES, 1, 1), (FEATURES, 8, 1), (FEATURES, 16, 16, 1), (FEATURES, 64, 64, 1)):
        layers = [
            torch.randn(runs, m, n, generator=generator, dtype=torch.float64) / max(m, n) ** 0.5
            for n, m in pairwise(widths)
        ]
        rule = GradientDescent(0.01)
        bare = best(lambda: descend_batch(moments, layers, rule, steps, record_every=steps, sharpness=False))  # noqa: B023
        begin = time.perf_counter()
        data = descend_batch(moments, layers, rule, steps, record_every=10)
        measured = time.perf_counter() - begin
        weights = sum(m * n for n, m in pairwise(widths))
        # Weights are read for the rows, the columns and the check, the gradient written, then θ ← θ − η g.
        moved = 8 * 7 * weights * runs * steps
        share = moved / bare / elementwise_rate(weights * runs)
        print(
            f"{'-'.join(map(str, widths)):28}{bare / runs / steps * 1e6:14.2f}{share:22.0%}{measured / bare:22.1f} ×"
            f"   residual ≤ {float(data['sharpness_residual'].max()):.0e}"
        )
    begin = time.perf_counter()
    few = flow_batch(population_batch([CONFIG.model] * 64, CPU), STARTS[:64], np.linspace(0, 10, 11))
    seconds = time.perf_counter() - begin
    steepest = float((few["flow_step"] * few["sharpness"]).max())
    print(
        f"flow of 64 two-layer runs to time 10 at rtol 10⁻⁹: {seconds:.2f} s, {int(few['steps_taken'].max())} steps at "
        f"most, {int(few['steps_rejected'].max())} rejected, step × sharpness ≤ {steepest:.2f}"
    )


def cost_of_examples(largest: int) -> None:
    counts = [10**4, 10**5, 10**6, 10**7, 10**8]
    print("\nexamples     generating   with moments   ratio   peak memory   (CPU seconds, in a process of its own)")
    built = {}
    for n in [n for n in counts if n <= largest]:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            (gram, cross, square), generating, both, peak = pool.apply(build, (n,))
        built[n] = Moments(*(torch.from_numpy(np.asarray(x)) for x in (gram, cross, square)))
        print(f"{n:<13,}{generating:9.3f} s{both:13.3f} s{both / generating:9.2f}{peak:10.0f} MiB", flush=True)
    steps = {}
    rule = GradientDescent(0.02)
    for _ in range(9):  # alternating, so that a busy machine slows all
        for n, moments in built.items():
            begin = time.process_time()
            descend_batch(moments, STARTS, rule, 200, record_every=200)
            steps[n] = min(steps.get(n, float("inf")), time.process_time() - begin)
    mean = sum(steps.values()) / len(steps)
    for n, seconds in steps.items():
        print(f"{n:<13,} a step of {RUNS} runs {seconds / 200 * 1e6:7.0f} us, {seconds / mean - 1:+.1%} off the mean")
    for n in counts:
        if n > largest:
            print(f"{n:<13,} not drawn: a step sees the moments alone, whose shape is that of the others")


def build(count: int) -> tuple[list[np.ndarray], float, float, float]:
    """Moments, CPU seconds of drawing the examples and of all, and the process's peak resident memory in MiB.

    The clock stops in one pass, between drawing a chunk and adding it: both sides see the same machine. Arrays, as a
    process that is gone shares no tensors.
    """
    drawing = 0.0

    def timed() -> Iterator[Examples]:
        nonlocal drawing
        chunks = examples(count)
        while True:
            begin = time.process_time()
            chunk = next(chunks, None)
            drawing += time.process_time() - begin
            if chunk is None:
                return
            yield chunk

    begin = time.process_time()
    moments = sample_moments(timed())["all"]
    both = time.process_time() - begin
    # Not getrusage: its peak is inherited from the process that started this one. Linux only.
    lines = Path("/proc/self/status").read_text().splitlines()
    arrays = [x.numpy() for x in (moments.gram, moments.cross, moments.square)]
    return arrays, drawing, both, float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def sources() -> None:
    def seconds(source: Literal["sequence", "counters"]) -> float:
        begin = time.process_time()
        for _chunk in draw_examples(CONFIG.model, 2 * CHUNK, FRACTION, 0, CPU, source=source):
            pass
        return (time.process_time() - begin) / 2 / CHUNK

    taken = [[seconds("sequence"), seconds("counters")] for _ in range(5)]
    sequence, counters = np.min(taken, axis=0)
    print(
        f"\ndrawing an example of {FEATURES} features: torch's sequence {sequence * 1e9:.0f} ns of CPU time, ", end=""
    )
    print(f"counters {counters * 1e9:.0f} ns, {counters / sequence:.2f} times as much")


def drift() -> None:
    print(f"\nfloat32 against float64, 64 runs, {STEPS} steps: largest relative difference of loss, and of sharpness")
    moments = population_batch([CONFIG.model] * 64, CPU)
    flat = STARTS[:64]
    # Depth 3 as the two-layer network is at the start: c₂ = 1 above.
    deep = [flat[..., 1:], flat[..., :1], torch.ones_like(flat[..., :1])]
    for name, start, lr in (
        ("below the edge, η = 0.01", flat, 0.01),
        ("at the edge, η = 0.04", flat, 0.04),
        ("depth 3, below, η = 0.005", deep, 0.005),
        ("depth 3, at it, η = 0.025", deep, 0.025),
    ):
        both = [
            descend_batch(
                moments,
                start.to(dtype) if isinstance(start, torch.Tensor) else [layer.to(dtype) for layer in start],
                GradientDescent(lr),
                STEPS,
                record_every=10,
            )
            for dtype in (torch.float32, torch.float64)
        ]
        worst = [float(abs(both[0][v] / both[1][v] - 1).max()) for v in ("loss", "sharpness")]
        last = [float(abs(both[0][v][-1] / both[1][v][-1] - 1).max()) for v in ("loss", "sharpness")]
        print(f"{name:26} any step {worst[0]:.1e} {worst[1]:.1e}   last step {last[0]:.1e} {last[1]:.1e}")


def gpu(runs: int = GPU_RUNS, steps: int = GPU_STEPS) -> None:
    if not torch.cuda.is_available():
        print(f"\n{runs:,} runs × {steps:,} steps on a GPU: not measured")
        return
    on_gpu(torch.device("cuda"), runs, steps)


def on_gpu(device: torch.device, runs: int, steps: int) -> None:
    moments = population_batch([CONFIG.model] * runs, device)
    starts = STARTS.repeat(-(-runs // RUNS), 1, 1)[:runs].to(device)
    rule = GradientDescent(torch.linspace(0.005, 0.03, runs, dtype=torch.float64, device=device))
    descend_batch(moments, starts, rule, 10)  # loads what the first call loads
    # The data set is on the CPU, so the clock stops after the last step.
    seconds = best(lambda: descend_batch(moments, starts, rule, steps, record_every=steps // 10), repeat=1)
    print(f"\n{runs:,} runs × {steps:,} steps on {describe_device(device)}: {seconds:.1f} s")


if __name__ == "__main__":
    words = sys.argv[1:]
    largest = int(float(words.pop(0))) if words and words[0][0].isdigit() else 10**6
    parts = {
        "throughput": throughput,
        "depth": depth,
        "examples": lambda: cost_of_examples(largest),
        "sources": sources,
        "drift": drift,
        "gpu": gpu,
    }
    print(f"CPU, {torch.get_num_threads()} threads, float64\n")
    for name in words or parts:
        parts[name]()
