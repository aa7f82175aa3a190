"""The second-moment engine against autograd on the raw examples, and what the number of examples costs.

``python benchmarks/second_moments.py [part …] [--largest 1e6]``, with nothing else running; the parts are throughput,
depth, examples, sources, drift and gpu (all when not given). Both sides of a ratio are timed in the same run, each the
best of several, with the same threads and in float64. With one thread the clock is the process's CPU time, which other
processes on the machine do not run up; they still take its cache.

Autograd is given the examples ready-made, and timed on a few steps and scaled: its steps all cost the same. It makes
one run, or `TOGETHER` at once, one matrix product a pass: the fair comparison, as the engine makes its runs at once.
Where each run has a sample of its own, the samples' moments cost the engine more than its steps: of `SAMPLES` different
samples they are made, timed and scaled to a sample a run, and each is given to as many runs, in memory of its own.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import tyro

from sim.batched_descent import descend_batch, stack_states
from sim.batched_flow import flow_batch
from sim.device import describe_device
from sim.opposing_data import CHUNK, Examples, draw_examples
from sim.second_moments import Moments, SecondMoments, population_batch, sample_moments, stack
from sim.update_rules import Adam, GradientDescent, Rule
from theory import command_line
from theory.command_line import InputError
from theory.configuration import DescentConfig

CPU = torch.device("cpu")
RUNS, STEPS, FEATURES, EXAMPLES = 1024, 2000, 64, 100_000
AUTOGRAD_STEPS, TOGETHER, SAMPLES, FRACTION = 10, 64, 64, 0.05
COUNTS = (10**4, 10**5, 10**6, 10**7, 10**8)  # of examples
GPU_RUNS, GPU_STEPS = 10_000, 10_000
CONFIG = DescentConfig(alpha=20.0, d1=FEATURES - 1, lr=0.02)
LRS = torch.linspace(0.005, 0.03, RUNS, dtype=torch.float64)

CLOCK = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


Part = Literal["throughput", "depth", "examples", "sources", "drift", "gpu"]


@dataclass(frozen=True)
class Options:
    """What is measured."""

    parts: Annotated[tuple[Part, ...], tyro.conf.Positional] = get_args(Part)
    """Parts."""
    largest: float = 1e6
    """Examples of the largest sample that is really drawn; 1e8 takes minutes."""

    def __post_init__(self) -> None:
        if not COUNTS[0] <= self.largest:
            raise InputError(f"--largest is {self.largest:g}: give at least {COUNTS[0]:,}")


@functools.cache
def starts() -> torch.Tensor:
    """(RUNS, 1, 1 + FEATURES) weights to start from; takes seconds."""
    return stack_states([DescentConfig(d1=FEATURES - 1, start_seed=seed).initial_state for seed in range(RUNS)])


def best(work: Callable[[], object], repeat: int = 3, clock: Callable[[], float] = CLOCK) -> float:
    return min(timeit.repeat(work, number=1, repeat=repeat, timer=clock))


def examples(count: int) -> Iterator[Examples]:
    return draw_examples(CONFIG.model, count, FRACTION, 0, CPU)


def autograd_runs(z: torch.Tensor, y: torch.Tensor, runs: int, steps: int, lr: float) -> torch.Tensor:
    """(runs, 1 + FEATURES) weights of so many runs at once; the sum of their losses gives each its own gradient."""
    theta = starts()[:runs, 0].clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        ((theta[:, 0] * (z @ theta[:, 1:].T) - y[:, None]) ** 2).mean(0).div(2).sum().backward()
        optimizer.step()
    return theta.detach()


def autograd_step(z: torch.Tensor, y: torch.Tensor, runs: int) -> float:
    """Seconds of a run's step, of so many runs at once."""
    return best(lambda: autograd_runs(z, y, runs, AUTOGRAD_STEPS, 0.02)) / AUTOGRAD_STEPS / runs


def own_samples(count: int, size: int) -> tuple[Moments, float]:
    """Moments (RUNS,) of so many different samples, each for as many runs, and seconds of summing one sample's."""
    made, spent = [], 0.0
    for seed in range(count):
        chunks = list(draw_examples(CONFIG.model, size, FRACTION, seed, CPU))
        begin = CLOCK()
        made.append(sample_moments(chunks)["all"])
        spent += CLOCK() - begin
    of = stack(made)
    repeated = [t.repeat(RUNS // count, *[1] * (t.ndim - 1)) for t in (of.gram, of.cross, of.square)]
    return Moments(*repeated), spent / count


def engine(moments: SecondMoments, rule: Rule, record_every: int) -> float:
    return best(lambda: descend_batch(moments, starts(), rule, STEPS, record_every=record_every), repeat=2)


def throughput() -> None:
    chunks = list(examples(EXAMPLES))
    z, y = torch.cat([c.features for c in chunks]), torch.cat([c.target for c in chunks])
    moments = sample_moments(chunks)["all"]
    single, together = (autograd_step(z, y, runs) * STEPS * RUNS for runs in (1, TOGETHER))
    print(f"autograd on {EXAMPLES:,} examples, a step and run: {single / STEPS / RUNS * 1e3:.2f} ms in one run,")
    print(f"{together / STEPS / RUNS * 1e3:.2f} ms with {TOGETHER} at once; {STEPS} steps of {RUNS} runs would take")
    print(f"{single:,.0f} and {together:,.0f} s (scaled from {AUTOGRAD_STEPS} steps)")
    agreement(z, y, moments)
    rows = engine_rows(moments)
    print(f"\n{RUNS} runs × {STEPS} steps × {FEATURES} features  seconds  times autograd's throughput:", end="")
    print(f" one run, {TOGETHER} at once")
    for name, seconds, said in rows:
        print(f"{name:38}{seconds:9.2f}{single / seconds:35,.0f}{together / seconds:10,.0f}{said}")


def engine_rows(moments: Moments) -> list[tuple[str, float, str]]:
    """Of each way: its name, its seconds, and what else is to be said."""
    a, b = torch.randn(2, 1024, 1024, dtype=torch.float64)
    product = 2 * 1024**3 / best(lambda: a @ b)
    triad = elementwise_rate(RUNS * FEATURES)
    print(f"machine: matrix product {product / 1e9:.0f} GFLOP/s, elementwise at this size {triad / 1e9:.0f} GB/s")
    population, rule = population_batch([CONFIG.model] * RUNS, CPU), GradientDescent(LRS)
    plain, shared = engine(population, rule, STEPS), engine(moments, rule, STEPS)
    own, summing = own_samples(SAMPLES, EXAMPLES)
    of_own = engine(own, rule, STEPS)
    # Arrays of RUNS × FEATURES read or written in a step of _effective, residual, both gradients, step, check.
    elementwise = 18 * 8 * RUNS * FEATURES * STEPS / plain / triad
    multiplied = 2 * RUNS * FEATURES**2 * STEPS / shared / product
    return [
        ("population, O(d)", plain, f"    {elementwise:.0%} of the elementwise rate"),
        ("population, recorded every 10 steps", engine(population, rule, 10), ""),
        ("population, Adam", engine(population, Adam(LRS), STEPS), ""),
        ("one sample in its eigenbasis, O(d)", engine(moments.diagonal, rule, STEPS), ""),
        ("one sample for all runs, O(d²)", shared, f"    {multiplied:.0%} of the matrix-product rate"),
        ("one sample a run, O(d²), steps alone", of_own, ""),
        (
            "one sample a run, its moments too",
            of_own + RUNS * summing,
            f"    {summing * 1e3:.0f} ms a sample's moments",
        ),
    ]


def agreement(z: torch.Tensor, y: torch.Tensor, moments: Moments) -> None:
    """Prints how far the engine's weights are from autograd's, of runs made at once."""
    rule = GradientDescent(0.02)
    ours = descend_batch(moments, starts()[:TOGETHER], rule, AUTOGRAD_STEPS, keep_weights=True)["weights"]
    theirs = autograd_runs(z, y, TOGETHER, AUTOGRAD_STEPS, 0.02)
    apart = (torch.from_numpy(ours.values[-1, :, 0]) - theirs).norm(dim=1) / theirs.norm(dim=1)
    print(
        f"engine against autograd, {TOGETHER} runs after {AUTOGRAD_STEPS} steps: weights' largest relative distance "
        f"{float(apart.max()):.1e}\n"
    )


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
        begin = CLOCK()
        data = descend_batch(moments, layers, rule, steps, record_every=10)
        measured = CLOCK() - begin
        weights = sum(m * n for n, m in pairwise(widths))
        # Weights are read for the rows, the columns and the check, the gradient written, then θ ← θ − η g.
        moved = 8 * 7 * weights * runs * steps
        share = moved / bare / elementwise_rate(weights * runs)
        print(
            f"{'-'.join(map(str, widths)):28}{bare / runs / steps * 1e6:14.2f}{share:22.0%}{measured / bare:22.1f} ×"
            f"   residual ≤ {float(data['sharpness_residual'].max()):.0e}"
        )
    begun = starts()[:64]
    begin = CLOCK()
    few = flow_batch(population_batch([CONFIG.model] * 64, CPU), begun, np.linspace(0, 10, 11))
    seconds = CLOCK() - begin
    steepest = float((few["flow_step"] * few["sharpness"]).max())
    print(
        f"flow of 64 two-layer runs to time 10 at rtol 10⁻⁹: {seconds:.2f} s, {int(few['steps_taken'].max())} steps at "
        f"most, {int(few['steps_rejected'].max())} rejected, step × sharpness ≤ {steepest:.2f}"
    )


def cost_of_examples(largest: float) -> None:
    print("\nexamples     generating   with moments   ratio   peak memory   (CPU seconds, in a process of its own)")
    built = {}
    for n in [n for n in COUNTS if n <= largest]:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            (gram, cross, square), generating, both, peak = pool.apply(build, (n,))
        built[n] = Moments(*(torch.from_numpy(np.asarray(x)) for x in (gram, cross, square)))
        print(f"{n:<13,}{generating:9.3f} s{both:13.3f} s{both / generating:9.2f}{peak:10.0f} MiB", flush=True)
    steps = {}
    rule = GradientDescent(0.02)
    for _ in range(9):  # alternating, so that a busy machine slows all
        for n, moments in built.items():
            begin = time.process_time()
            descend_batch(moments, starts(), rule, 200, record_every=200)
            steps[n] = min(steps.get(n, float("inf")), time.process_time() - begin)
    mean = sum(steps.values()) / len(steps)
    for n, seconds in steps.items():
        print(f"{n:<13,} a step of {RUNS} runs {seconds / 200 * 1e6:7.0f} us, {seconds / mean - 1:+.1%} off the mean")
    for n in COUNTS:
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
    flat = starts()[:64]
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
    begun = starts().repeat(-(-runs // RUNS), 1, 1)[:runs].to(device)
    rule = GradientDescent(torch.linspace(0.005, 0.03, runs, dtype=torch.float64, device=device))
    descend_batch(moments, begun, rule, 10)  # loads what the first call loads
    # The data set is on the CPU, so the clock stops after the last step.
    seconds = best(lambda: descend_batch(moments, begun, rule, steps, record_every=steps // 10), 1, time.perf_counter)
    print(f"\n{runs:,} runs × {steps:,} steps on {describe_device(device)}: {seconds:.1f} s")


def measure(options: Options) -> None:
    """Prints the parts named, or all."""
    ways: dict[Part, Callable[[], None]] = {
        "throughput": throughput,
        "depth": depth,
        "examples": lambda: cost_of_examples(options.largest),
        "sources": sources,
        "drift": drift,
        "gpu": gpu,
    }
    clock = "CPU time" if CLOCK is time.process_time else "wall time"
    print(f"CPU, {torch.get_num_threads()} threads, float64, {clock}\n")
    for part in options.parts:
        ways[part]()


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/second_moments.py", description=str(__doc__))
