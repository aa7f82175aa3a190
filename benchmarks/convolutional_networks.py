"""Step and Hessian product of convolutional networks and the vision transformer against the matrix-product rate.

``python benchmarks/convolutional_networks.py [names] [--threads 1 2] [--rounds 3] [--no-compile] [--profile]``

The networks are the CPU-sized ones of `validate.cpu_forms` on their embedded images, and wider ones (``vgg11 wide``,
``resnet18 wide``: width 0.5, 100 images). Each number of threads has a process of its own.

- step: forward, backward and update by all images, as `sim.descend` takes it.
- product: one Hessian-vector product on the gradient's graph, built once and reused, as a search for the sharpness
  makes them; compiled, the gradient and the product are one function, since a graph cannot be handed out of it, and
  stand beside the eager product whose graph is built anew.
- layouts: images and weights contiguous, or channels last (`Arithmetic.channels_last`).
- fused norm: PyTorch's batch and layer norm in place of the written-out ones, for steps alone: their third derivatives
  are wrong.
- bfloat16: automatic mixed precision, as `Arithmetic.precision` has it, for steps alone.

Floating-point operations are those of `torch.utils.flop_counter` (convolutions and matrix products of the pass timed);
the rate is a 2048 × 2048 product's, in float32 and of as many threads, measured in the same rounds. Ways take turns; of
each the best round counts: processor's time with one thread, so that a shared machine tells little; else time that
passed. ``--profile`` adds where a step's time goes.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sim import Architecture, Arithmetic, build
from sim.curvature import HessianOperator, MeanLoss
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from sim.networks.normalisation import BatchNorm2d, LayerNorm
from theory import command_line
from theory.command_line import InputError
from validate.cifar10 import load_embedded
from validate.cpu_forms import CPU_FORMS
from validate.network_run import IMAGE_SHAPE, NetworkConfig, network_inputs, training_images

FORMS: dict[str, NetworkConfig] = {name: CPU_FORMS[name] for name in ("vgg11", "vgg11_bn", "resnet18", "vit")} | {
    "vgg11 wide": NetworkConfig(Architecture("vgg11", width=0.5), images_per_class=10),
    "resnet18 wide": NetworkConfig(
        Architecture("resnet18", width=0.5, activation="gelu", stride=2), images_per_class=10
    ),
}
LR = 1e-9  # so small that the weights stay where they are
OPERATIONS = {
    "convolution, forward": ("aten::mkldnn_convolution", "aten::thnn_conv2d", "aten::_slow_conv2d_forward"),
    "convolution, backward": ("aten::convolution_backward", "aten::_slow_conv2d_backward"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "sums and means": ("aten::sum", "aten::mean"),
    "pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "copies": ("aten::copy_", "aten::fill_", "aten::clone", "aten::cat"),
}
"""Kinds of a step's operations by PyTorch's names; the rest is elementwise."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is timed."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(FORMS)
    """Networks."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    rounds: int = 3
    """Rounds, of which the best counts."""
    compile: bool = True
    """Compile too; takes a minute a network."""
    profile: bool = False
    """Say where a step's time goes."""

    def __post_init__(self) -> None:
        command_line.require_positive("--rounds", self.rounds)
        for count in self.threads:
            command_line.require_positive("--threads", count)
        for name in self.names:
            if name not in FORMS:
                raise InputError(f"there is no network {name}: give some of {', '.join(FORMS)}")


class Case:
    """A network in one layout, its images, and what is timed on them."""

    def __init__(self, config: NetworkConfig, *, channels_last: bool = False, fused: bool = False) -> None:
        images = training_images(config, load_embedded())
        network = build(config.architecture, IMAGE_SHAPE, 10, seed=0)
        if fused:
            _fuse(network)
        x = Arithmetic(channels_last=channels_last).arrange(network, network_inputs(config.architecture, images))
        self.objective = MeanLoss(network, x, torch.from_numpy(images.labels.astype("int64")))
        self.whole = slice(0, len(x))
        self.leaves, self.moving = (leaves_at(list(network.parameters())) for _ in range(2))
        generator = torch.Generator().manual_seed(1)
        self.vector = torch.randn(sum(p.numel() for p in self.leaves), generator=generator)
        self._operator: HessianOperator | None = None

    def loss(self, leaves: Sequence[Tensor]) -> Tensor:
        """Mean loss of all images."""
        return self.objective.of_chunk(leaves, self.whole)

    def step(self, precision: str = "float32") -> None:
        """One step of descent, on copies of the weights."""
        with Arithmetic(precision).active(torch.device("cpu")):  # type: ignore[arg-type]
            gradients = torch.autograd.grad(self.loss(self.moving), self.moving)
        with torch.no_grad():
            torch._foreach_add_(self.moving, gradients, alpha=-LR)

    def product(self) -> Tensor:
        """A Hessian product on the graph that the first call builds."""
        if self._operator is None:
            self._operator = HessianOperator(self.loss(self.leaves), self.leaves)
        return self._operator.matvec(self.vector)

    def product_anew(self) -> Tensor:
        """A Hessian product and the graph it needs."""
        return HessianOperator(self.loss(self.leaves), self.leaves).matvec(self.vector)

    def compiled_step(self) -> Callable[[], object]:
        """The step as one compiled function."""
        gradient = torch.compile(torch.func.grad(lambda leaves: self.loss(leaves)))
        point = [leaf.detach() for leaf in self.leaves]

        def step() -> None:
            torch._foreach_add_(point, gradient(point), alpha=-LR)

        return step

    def compiled_product(self) -> Callable[[], Tensor]:
        """Gradient and Hessian product as one compiled function."""
        point = [leaf.detach() for leaf in self.leaves]
        direction = unflatten(self.vector, point)

        def product(at: list[Tensor], along: list[Tensor]) -> list[Tensor]:
            pullback = torch.func.vjp(torch.func.grad(lambda leaves: self.loss(leaves)), at)[1]
            return list(pullback(along)[0])

        compiled = torch.compile(product)
        return lambda: flatten(compiled(point, direction))


def _fuse(network: nn.Module) -> None:
    """Gives the norms PyTorch's fused pass."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.__class__ = nn.BatchNorm2d
        elif isinstance(module, LayerNorm):
            module.__class__ = nn.LayerNorm


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def clock() -> float:
    """Seconds: the processor's with one thread, else those that pass."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """Seconds a call, of as many calls as take a while."""
    begun, calls = clock(), 0
    while clock() - begun < least:
        work()
        calls += 1
    return (clock() - begun) / calls


def compare(name: str, options: Options) -> None:
    """Prints a network's table."""
    config = FORMS[name]
    plain, last = Case(config), Case(config, channels_last=True)
    normalised = any(isinstance(m, (BatchNorm2d, LayerNorm)) for m in plain.objective.network.modules())
    of_step, of_product = operations(plain.step), operations(plain.product_anew)
    plain.product()
    of_reused = operations(plain.product)
    assert torch.allclose(plain.product(), last.product(), rtol=1e-2, atol=1e-3)
    ways: dict[str, tuple[float, Callable[[], object]]] = {
        "step, contiguous": (of_step, plain.step),
        "step, channels last": (of_step, last.step),
    }
    if normalised:
        for words, arranged in (("contiguous", False), ("channels last", True)):
            ways[f"step, {words}, fused norm"] = of_step, Case(config, channels_last=arranged, fused=True).step
    ways["step, bfloat16, contiguous"] = of_step, lambda: plain.step("bfloat16")
    ways["step, bfloat16, channels last"] = of_step, lambda: last.step("bfloat16")
    ways |= {
        "product, contiguous": (of_reused, plain.product),
        "product, channels last": (of_reused, last.product),
        "product with its graph, contiguous": (of_product, plain.product_anew),
        "product with its graph, channels last": (of_product, last.product_anew),
    }
    if options.compile:
        for words, case in (("contiguous", plain), ("channels last", last)):
            for work, flops, make in (
                ("step", of_step, case.compiled_step),
                ("product with its graph", of_product, case.compiled_product),
            ):
                begun = time.perf_counter()
                compiled = make()
                value = compiled()
                taken = time.perf_counter() - begun
                if isinstance(value, Tensor):
                    assert torch.allclose(value, plain.product(), rtol=1e-2, atol=1e-3)
                ways[f"{work}, {words}, compiled ({taken:.0f} s)"] = flops, compiled
    matrix = torch.randn(2048, 2048)
    times: dict[str, list[float]] = {way: [] for way in ways}
    rates = []
    for _, work in ways.values():
        work()  # warms up
    for _ in range(options.rounds):
        rates.append(2 * 2048**3 / seconds(lambda: matrix @ matrix))
        for way, (_, work) in ways.items():
            times[way].append(seconds(work))
    rate, base = max(rates), min(times["step, contiguous"])
    print(
        f"\n{name}: {len(plain.objective)} images, {plain.vector.numel():,} parameters; step {of_step / 1e9:.2f}, "
        f"product {of_reused / 1e9:.2f}, with its graph {of_product / 1e9:.2f} GFLOP; "
        f"matrix product {rate / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    print(f"  {'way':52}{'ms':>8}{'÷ step':>8}{'of the rate':>13}")
    for way, (flops, _) in ways.items():
        best = min(times[way])
        print(f"  {way:52}{best * 1e3:8.1f}{best / base:8.2f}{flops / best / rate:13.0%}")
    if options.profile:
        for words, case in (("contiguous", plain), ("channels last", last)):
            where(words, case, of_step / min(times[f"step, {words}"]) / rate)


def where(words: str, case: Case, share: float) -> None:
    """Prints the shares of a step's time by kind of operation, and the rate of its convolutions and products.

    Args:
        words: the layout.
        case: the network in it.
        share: share of the matrix-product rate that the step reaches.
    """
    with profile(activities=[ProfilerActivity.CPU]) as traced:
        for _ in range(3):
            case.step()
    kind_of = {operation: kind for kind, names in OPERATIONS.items() for operation in names}
    shares: dict[str, float] = {}
    for event in traced.key_averages():
        kind = kind_of.get(event.key, "elementwise and the rest")
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    dense = sum(shares.get(kind, 0.0) for kind in ("convolution, forward", "convolution, backward", "matrix products"))
    parts = ", ".join(f"{kind} {part / total:.0%}" for kind, part in sorted(shares.items(), key=lambda i: -i[1]))
    print(
        f"  profile of the step, {words}: {parts}; "
        f"its convolutions and products run at {share * total / dense:.0%} of the rate"
    )


def measure(options: Options) -> None:
    """One process for each number of threads."""
    if len(options.threads) > 1:
        flags = [*([] if options.compile else ["--no-compile"]), *(["--profile"] if options.profile else [])]
        for count in options.threads:
            words = [*options.names, "--threads", str(count), "--rounds", str(options.rounds), *flags]
            subprocess.run([sys.executable, __file__, *words], check=True)
        return
    torch.set_num_threads(options.threads[0])
    cores = len(os.sched_getaffinity(0))
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads of {cores} cores; GPU not measured")
    for name in options.names:
        compare(name, options)


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/convolutional_networks.py", description=str(__doc__))
