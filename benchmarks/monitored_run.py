"""A monitored run against bare gradient descent and against the usual way of monitoring, side by side.

``python benchmarks/monitored_run.py`` (some minutes; ``--full`` times every step of the usual way, ``--brief`` only the
bare run, the monitored one and that in a run folder). On one thread
(``OMP_NUM_THREADS=1``) processor time is taken, which other work on the machine disturbs less; else wall time.

The work is one period of 50 steps of a 3072-200-200-10 ReLU network on 5,000 images, full batch: the losses of all
examples at each step, top eigenpair and layer shares every 10 steps, top eigenpair of each layer's block once. The
first period begins where `WARM_UP` steps of descent have brought the network (the sharpness is printed beside 2/η),
each next one where the last has ended, for all ways alike.

- bare: forward, backward, update; no loss is kept.
- monitored: `sim.descend` with `sim.SharpnessProbe`, by its default criterion (also without its search in the leading
  inputs), by the residual, and by a residual as small as that of eigsh as it comes (in float64);
  with a run folder: losses and measurements go to Zarr, with one checkpoint.
- usual: gradients and Hessian products summed over the batches of a `DataLoader`, each product's graph built anew,
  SciPy's `eigsh` through NumPy from a random vector. As it comes, with a basis of 20 vectors, it ends far below the
  tolerance asked for; so it is run too with the basis for which it needs the fewest products to a residual of at most
  the monitored run's largest. Unless ``--full``, five of its steps, one whole solve and one solve of each block are
  timed and taken in the numbers of a period.

Times of bare and monitored are taken in turn, and ratios within a round; the median of the rounds is printed.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from perceptron_operations import step_operations
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sim import Checkpoints, Record, SharpnessProbe, descend, mlp
from sim.curvature import MeanLoss, MeanLossHessian
from sim.networks import layer_of_parameter
from theory import command_line
from validate.cifar10 import load_embedded, standardise

SIZES = (3072, 200, 200, 10)
EXAMPLES, LR, WARM_UP = 5000, 0.05, 300
PERIOD, EVERY, ROUNDS, BATCH = 50, 10, 3, 500
RESIDUAL, AS_IT_COMES = 1e-2, 20  # the residual rule's tolerance, and eigsh's; eigsh's basis
TIGHT = 2e-7  # about the residual of eigsh as it comes


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

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, on_disk: bool = False, **options: Any) -> None:
        self.network, self.x, self.y, self.on_disk = network, x, y, on_disk
        self.probe = SharpnessProbe(
            network, x, y, LR, every=EVERY, blocks_every=PERIOD, **{"midpoint": False, **options}
        )
        descend(copy.deepcopy(network), x, y, lr=LR, steps=1, probes=[self.probe], progress=False)

    def __call__(self) -> None:
        """Runs one period from where `network` is; leaves it there."""
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


@dataclass(frozen=True)
class Found:
    """What eigsh found: the top eigenvalue, its vector and the products spent."""

    value: float
    vector: np.ndarray
    products: int

    def residual(self, product: Callable[[np.ndarray], np.ndarray]) -> float:
        """Relative; takes a product, so it is to be asked for outside the clock."""
        return float(np.linalg.norm(product(self.vector) - self.value * self.vector)) / abs(self.value)


@dataclass(frozen=True)
class Usual:
    """What the usual way took.

    Attributes:
        seconds: of a period.
        value: the sharpness.
        residual: its relative residual.
        products: of a solve.
    """

    seconds: float
    value: float
    residual: float
    products: int


def usual(network: nn.Module, x: Tensor, y: Tensor, basis: int, full: bool) -> Usual:
    """The usual way with so many vectors in the eigensolver's basis."""
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

    def product(over: list[Tensor], flat: np.ndarray) -> np.ndarray:
        sizes = [p.numel() for p in over]
        vector = torch.from_numpy(flat.astype(np.float32).reshape(-1)).split(sizes)
        total = torch.zeros(sum(sizes))
        for inputs, labels in loader:
            loss = F.cross_entropy(network(inputs), labels, reduction="sum") / len(x)
            gradients = torch.autograd.grad(loss, over, create_graph=True)
            along = sum((g * v.view_as(g)).sum() for g, v in zip(gradients, vector, strict=True))
            total += torch.cat([h.reshape(-1) for h in torch.autograd.grad(along, over)])
        return total.numpy()

    def solve(over: list[Tensor]) -> Found:
        return eigsh_pair(lambda flat: product(over, flat), sum(p.numel() for p in over), basis)

    names = layer_of_parameter(network)
    blocks = [[p for p, name in zip(parameters, names, strict=True) if name == block] for block in dict.fromkeys(names)]
    solves, steps = (PERIOD // EVERY, PERIOD) if full else (1, 5)
    found = solve(parameters)
    residual = found.residual(lambda flat: product(parameters, flat))
    whole = statistics.median(seconds(lambda: solve(parameters)) for _ in range(solves))
    of_blocks = sum(seconds(lambda block=block: solve(block)) for block in blocks)
    of_step = statistics.median(seconds(step) for _ in range(steps))
    return Usual(PERIOD * of_step + PERIOD // EVERY * whole + of_blocks, found.value, residual, found.products)


def eigsh_pair(product: Callable[[np.ndarray], np.ndarray], size: int, basis: int) -> Found:
    """The top eigenpair."""
    count = itertools.count()

    def counted(vector: np.ndarray) -> np.ndarray:
        next(count)
        return product(vector)

    operator = LinearOperator((size, size), matvec=counted, dtype=np.float32)
    first = np.random.default_rng(0).normal(size=size)
    values, vectors = eigsh(operator, k=1, which="LA", tol=RESIDUAL, ncv=basis, v0=first)
    return Found(float(values[-1]), vectors[:, -1], next(count))


def cheapest_basis(network: nn.Module, x: Tensor, y: Tensor, residual: float) -> int:
    """Vectors in eigsh's basis with which it takes the fewest products to a residual of at most so much."""
    hessian = MeanLossHessian(MeanLoss(network, x, y))

    def product(flat: np.ndarray) -> np.ndarray:
        return hessian.matvec(torch.from_numpy(flat.astype(np.float32).reshape(-1))).numpy()

    found = {basis: eigsh_pair(product, hessian.size, basis) for basis in (3, 5, 7, 9, 11, 13, 16, AS_IT_COMES)}
    return min((one.products, basis) for basis, one in found.items() if one.residual(product) <= residual)[1]


def product_rate() -> float:
    """Floating-point operations a second of a product of square matrices, the best of several."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    return 2 * 2048**3 / min(seconds(lambda: a @ b) for _ in range(10))


def products_of_a_step(network: nn.Module, x: Tensor) -> float:
    """Seconds of the step's matrix products alone, in the shapes and layouts that it has them."""
    weights = [p.detach() for p in network.parameters() if p.ndim == 2]
    flows = [x, *(torch.randn(len(x), len(weight)) for weight in weights)]

    def work() -> None:
        for i, weight in enumerate(weights):
            flows[i] @ weight.T  # outputs
            flows[i + 1].T @ flows[i]  # weights' gradient
            if i:
                flows[i + 1] @ weight  # inputs' gradient, needless at the first layer

    work()
    return min(seconds(work) for _ in range(10))


def seconds(work: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    work()
    return clock() - begun


def measure(full: bool = False, brief: bool = False) -> None:
    """Prints the table and the ratios.

    Args:
        full: time every step of the usual way.
        brief: only the bare run, the monitored one and that in a run folder.
    """
    x, y = images()
    network = mlp(SIZES, "relu", seed=0)
    descend(network, x, y, lr=LR, steps=WARM_UP, progress=False)
    options: dict[str, dict[str, Any]] = {
        "monitored": {},
        "monitored, in a run folder": {"on_disk": True},
    }
    if not brief:
        options |= {
            "monitored, exact products alone": {"scouting": False},
            "monitored, midpoints too": {"midpoint": True},
            f"monitored, residual {RESIDUAL:g}": {"criterion": "residual", "tolerance": RESIDUAL},
            f"monitored, residual {TIGHT:g}": {"criterion": "residual", "tolerance": TIGHT, "precision": "float64"},
        }
    ways = {name: Monitored(network, x, y, **chosen) for name, chosen in options.items()}
    times: dict[str, list[float]] = {"bare": [], **{name: [] for name in ways}}
    rates, alone = [], []
    for _ in range(ROUNDS):
        rates.append(product_rate())
        alone.append(products_of_a_step(network, x))
        stepped = copy.deepcopy(network)
        times["bare"].append(seconds(lambda: bare(stepped, x, y, PERIOD)))  # noqa: B023
        for name, way in ways.items():
            times[name].append(seconds(way))
        before = copy.deepcopy(network)
        network.load_state_dict(stepped.state_dict())  # all ways hold it
    print(f"{torch.get_num_threads()} threads; 2/η = {2 / LR:g}; medians of {ROUNDS} periods")
    worst, products, scouted = {}, {}, {}
    for name, way in ways.items():
        data = way.probe.dataset().isel(measured=slice(1, None))
        worst[name] = max(float(data[f"residual_{place}"].max()) for place in way.probe._trackers)
        products[name] = sum(t.products for t in way.probe._trackers.values())
        scouted[name] = sum(t.scouted for t in way.probe._trackers.values())
    eigsh_ways = {}
    if not brief:
        basis = cheapest_basis(before, x, y, worst["monitored"])
        eigsh_ways = {
            f"eigsh as it comes, basis {AS_IT_COMES}": usual(copy.deepcopy(before), x, y, AS_IT_COMES, full),
            f"eigsh, basis {basis}": usual(copy.deepcopy(before), x, y, basis, full),
        }
    print("way                              s a period   × bare   largest residual   products   scouts' products")
    print("                        (monitored: of all periods; eigsh: of a solve)      × bare, period by period")
    for name, values in times.items():
        ratios = [v / b for v, b in zip(values, times["bare"], strict=True)]
        of_way = f"{worst[name]:19.1e}{products[name]:11}{scouted[name]:18}" if name in ways else ""
        each = "  " + ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name:32} {statistics.median(values):10.2f} {statistics.median(ratios):8.2f}{of_way}{each}")
    for name, taken in eigsh_ways.items():
        ratio = taken.seconds / statistics.median(times["bare"])
        print(f"{name:32} {taken.seconds:10.2f} {ratio:8.2f}{taken.residual:19.1e}{taken.products:11}")
    for name, taken in eigsh_ways.items():
        ratios = ", ".join(f"{taken.seconds / statistics.median(times[way]):.1f} (by {way})" for way in ways)
        print(f"{name}, sharpness {taken.value:.3f}: times as long as {ratios}")
    step = statistics.median(b / PERIOD for b in times["bare"])
    share, bound = (
        statistics.median(step_operations(SIZES, EXAMPLES) / t / r for t, r in zip(of, rates, strict=True))
        for of in ([b / PERIOD for b in times["bare"]], alone)
    )
    print(
        f"bare step: {share:.0%} of the rate of a square product ({statistics.median(rates) / 1e9:.0f} GFLOP/s), "
        f"{statistics.median(alone) / step:.0%} of the rate of its own products' shapes, which alone reach {bound:.0%}"
    )


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/monitored_run.py", description=str(__doc__))
