"""A monitored run against bare gradient descent and against the usual way of monitoring, side by side.

``python benchmarks/monitored_run.py`` (a few minutes; ``--full`` times every step of the usual way).

The work is one period of 50 steps of a 3072-200-200-10 ReLU network on 5,000 images, full batch: the losses of all
examples at each step, top eigenpair and layer shares every 10 steps, top eigenpair of each layer's block once. It
begins where `WARM_UP` steps of descent have brought the network (the sharpness is printed beside 2/η).

- bare: forward, backward, update; no loss is kept.
- monitored: `sim.descend` with `sim.SharpnessProbe`; with a run folder: losses and measurements go to Zarr, and one
  checkpoint is taken.
- usual: gradients and Hessian products summed over the batches of a `DataLoader`, each product's graph built anew,
  SciPy's `eigsh` through NumPy from a random vector, to the same relative residual. Unless ``--full``, five of its
  steps, one whole solve and one solve of each block are timed and taken in the numbers of a period.

Times of bare and monitored are taken in turn, and ratios within a round; the median of the rounds is printed.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sim import Checkpoints, Record, SharpnessProbe, descend, mlp
from sim.networks import layer_of_parameter
from validate.cifar10 import load_embedded, standardise

SIZES = (3072, 200, 200, 10)
EXAMPLES, LR, WARM_UP = 5000, 0.05, 300
PERIOD, EVERY, TOLERANCE, ROUNDS, BATCH = 50, 10, 1e-2, 3, 500


def images() -> tuple[Tensor, Tensor]:
    """5,000 images: the 2,000 embedded ones, mirrored, and half of them moved by a pixel."""
    embedded = load_embedded()
    x, y = torch.from_numpy(standardise(embedded)), torch.from_numpy(embedded.labels.astype(np.int64))
    more = torch.cat([x, x.flip(-1), x.roll(1, -1)[::2]])
    return more.flatten(1), torch.cat([y, y, y[::2]])


def bare(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    parameters = list(network.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad(F.cross_entropy(network(x), y), parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-LR)


class Monitored:
    """The probe goes on from the eigenvectors of the period before, as in a long run."""

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, *, midpoint: bool, on_disk: bool) -> None:
        self.network, self.x, self.y, self.on_disk = network, x, y, on_disk
        self.probe = SharpnessProbe(
            network, x, y, LR, every=EVERY, blocks_every=PERIOD, midpoint=midpoint, tolerance=TOLERANCE
        )
        descend(copy.deepcopy(network), x, y, lr=LR, steps=1, probes=[self.probe], progress=False)

    def __call__(self) -> None:
        """Runs one period."""
        network = copy.deepcopy(self.network)
        with tempfile.TemporaryDirectory() as folder:
            record, checkpoints = None, None
            if self.on_disk:
                record = Record(Path(folder) / "trajectory.zarr")
                checkpoints = Checkpoints(Path("run"), Path(folder) / "checkpoints", {})
            result = descend(
                network, self.x, self.y, lr=LR, steps=PERIOD, probes=[self.probe], record=record, progress=False
            )
            result.record.dataset()
            if checkpoints is not None:
                state = {"network": network.state_dict(), "probe": self.probe.state_dict()}
                checkpoints.save(PERIOD, {**state, "record": result.record.state_dict()})


def usual(network: nn.Module, x: Tensor, y: Tensor, full: bool) -> tuple[float, float, float]:
    """Seconds of a period, the sharpness and its relative residual."""
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH)
    parameters = list(network.parameters())

    def step() -> None:
        sums = [torch.zeros_like(p) for p in parameters]
        for inputs, labels in loader:
            each = F.cross_entropy(network(inputs), labels, reduction="none")
            each.detach().cpu().numpy()
            parts = torch.autograd.grad(each.sum() / len(x), parameters)
            torch._foreach_add_(sums, parts)
        with torch.no_grad():
            torch._foreach_add_(parameters, sums, alpha=-LR)

    def solve(over: list[Tensor]) -> tuple[float, float]:
        sizes = [p.numel() for p in over]

        def product(flat: np.ndarray) -> np.ndarray:
            vector = torch.from_numpy(flat.astype(np.float32).reshape(-1)).split(sizes)
            total = torch.zeros(sum(sizes))
            for inputs, labels in loader:
                loss = F.cross_entropy(network(inputs), labels, reduction="sum") / len(x)
                gradients = torch.autograd.grad(loss, over, create_graph=True)
                along = sum((g * v.view_as(g)).sum() for g, v in zip(gradients, vector, strict=True))
                total += torch.cat([h.reshape(-1) for h in torch.autograd.grad(along, over)])
            return total.numpy()

        n = sum(sizes)
        operator = LinearOperator((n, n), matvec=product, dtype=np.float32)
        values, vectors = eigsh(operator, k=1, which="LA", tol=TOLERANCE)
        value, top = float(values[-1]), vectors[:, -1]
        return value, float(np.linalg.norm(product(top) - value * top)) / abs(value)

    names = layer_of_parameter(network)
    blocks = [[p for p, name in zip(parameters, names, strict=True) if name == block] for block in dict.fromkeys(names)]
    solves, steps = (PERIOD // EVERY, PERIOD) if full else (1, 5)
    value, residual = solve(parameters)
    whole = statistics.median(seconds(lambda: solve(parameters)) for _ in range(solves))
    of_blocks = sum(seconds(lambda block=block: solve(block)) for block in blocks)
    of_step = statistics.median(seconds(step) for _ in range(steps))
    return PERIOD * of_step + PERIOD // EVERY * whole + of_blocks, value, residual


def product_rate() -> float:
    """Floating-point operations a second of a product of square matrices, the best of several."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    return 2 * 2048**3 / min(seconds(lambda: a @ b) for _ in range(10))


def step_operations() -> int:
    """Of a step's products: outputs, weights' gradients, and inputs' gradients except the first layer's."""
    layers = [2 * EXAMPLES * a * b for a, b in itertools.pairwise(SIZES)]
    return 3 * sum(layers) - layers[0]


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main(full: bool) -> None:
    x, y = images()
    network = mlp(SIZES, "relu", seed=0)
    descend(network, x, y, lr=LR, steps=WARM_UP, progress=False)
    ways = {
        "monitored": Monitored(network, x, y, midpoint=False, on_disk=False),
        "monitored, in a run folder": Monitored(network, x, y, midpoint=False, on_disk=True),
        "monitored, midpoints too": Monitored(network, x, y, midpoint=True, on_disk=False),
    }
    times: dict[str, list[float]] = {"bare": [], **{name: [] for name in ways}}
    rates = []
    for _ in range(ROUNDS):
        rates.append(product_rate())
        times["bare"].append(seconds(lambda: bare(copy.deepcopy(network), x, y, PERIOD)))
        for name, way in ways.items():
            times[name].append(seconds(way))
    usual_time, value, residual = usual(copy.deepcopy(network), x, y, full)
    data = ways["monitored"].probe.dataset()
    found, worst = float(data["sharpness_iterate"][1]), float(data["residual_iterate"].max())
    print(f"{torch.get_num_threads()} threads; sharpness {found:.3f} (usual way: {value:.3f}), 2/η = {2 / LR:g}")
    print(f"largest relative residual {worst:.1e} (usual way: {residual:.1e})")
    print(f"{'way':28} s a period   × bare   usual ÷ it")
    for name, values in times.items():
        ratio = statistics.median(v / b for v, b in zip(values, times["bare"], strict=True))
        print(
            f"{name:28} {statistics.median(values):10.2f} {ratio:8.2f} {usual_time / statistics.median(values):12.1f}"
        )
    print(f"{'usual':28} {usual_time:10.2f} {usual_time / statistics.median(times['bare']):8.2f}")
    shares = [PERIOD * step_operations() / b / r for b, r in zip(times["bare"], rates, strict=True)]
    print(
        f"bare step: {statistics.median(shares):.0%} of the matrix-product rate "
        f"({statistics.median(rates) / 1e9:.0f} GFLOP/s)"
    )


if __name__ == "__main__":
    main("--full" in sys.argv[1:])
