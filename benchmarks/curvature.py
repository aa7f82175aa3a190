"""Curvature of a 3072-200-200-10 ReLU network: cost of products, products a refresh, SciPy.

``python benchmarks/curvature.py [cost] [refresh] [leading]`` prints all tables or those named, in some minutes. Times
are the best of several, ratios of times measured side by side; OMP_NUM_THREADS sets the threads. ``cost`` takes random
data, the others the embedded images; ``leading`` takes more networks, and several numbers of leading directions of the
inputs. Peak memory: benchmarks/product_memory.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sim import mlp
from sim.curvature import (
    DifferenceHessian,
    Eigenpairs,
    EigenpairTracker,
    HessianOperator,
    MeanLoss,
    MeanLossGaussNewton,
    MeanLossHessian,
    layer_blocks,
    layer_shares,
    sharpness_gradient,
    top_eigenpairs,
)
from sim.curvature.leading_inputs import RANK, LeadingInputs
from sim.curvature.mean_loss import unflatten
from sim.curvature.scouting import Lookout, scouted
from sim.networks import layer_of_parameter
from theory import command_line
from validate.cifar10 import load_embedded, standardise

Table = Literal["cost", "refresh", "leading"]
SIZES = (3072, 200, 200, 10)
EXAMPLES = 2000
LR, STEPS = 0.05, 420
EDGE = 250  # from this step on, the run is at the edge of stability, 2/η
RESIDUAL = 1e-2  # of the rule before, and of the comparison with SciPy


def random_objective(n: int) -> MeanLoss:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, SIZES[0], generator=generator)
    return MeanLoss(mlp(SIZES, "relu", seed=0), x, torch.randint(0, SIZES[-1], (n,), generator=generator))


def best(*functions: Callable[[], object], repeats: int = 7) -> list[float]:
    """Best time of each, in seconds; the functions take turns, so that a busy machine is busy for all."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, record in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            record.append(time.perf_counter() - begin)
    return [min(record[1:]) for record in times]  # the first warms up


def cost() -> None:
    objective = random_objective(EXAMPLES)
    parameters = list(objective.network.parameters())
    kept, newton = MeanLossHessian(objective), MeanLossGaussNewton(objective)
    chunk = EXAMPLES // 4
    rebuilt = MeanLossHessian(objective, chunk=chunk, memory=int(4.5 * kept._bytes(slice(0, chunk))))
    assert (kept.kept, rebuilt.rebuilt) == (1, 4)
    difference = DifferenceHessian(objective)
    rows = torch.randn(4, kept.size, generator=torch.Generator().manual_seed(1))
    vector = rows[0]
    blocks = layer_blocks(kept, layer_of_parameter(objective.network))

    def all_blocks() -> None:
        kept.shared_products([(block, vector[None, : block.size]) for block in blocks.values()])

    names = [name for name, _ in objective.network.named_parameters()]
    tangents = tuple(
        v.view_as(p) for v, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)
    )

    def loss(*point: Tensor) -> Tensor:
        output = torch.func.functional_call(
            objective.network, dict(zip(names, point, strict=True)), (objective.inputs,)
        )
        return F.cross_entropy(output, objective.targets)

    forward_over_reverse = torch.func.grad(loss, argnums=tuple(range(len(parameters))))
    point = tuple(p.detach() for p in parameters)
    rows_of_table: dict[str, Callable[[], object]] = {
        "gradient": lambda: objective.gradient(parameters),
        "Hessian product, graph reused": lambda: kept.matvec(vector),
        "the same, graph rebuilt in 4 chunks": lambda: rebuilt.matvec(vector),
        "the same, 4 vectors in a pass, each": lambda: rebuilt.matmat(rows),
        "forward over reverse (torch.func)": lambda: torch.func.jvp(forward_over_reverse, point, tangents),
        "difference of gradients": lambda: difference.matvec(vector),
        "Gauss-Newton product, graph reused": lambda: newton.matvec(vector),
        "all layers' blocks, one product each": all_blocks,
        "gradient of the sharpness, exact": lambda: sharpness_gradient(objective, vector),
        "gradient of the sharpness, difference": lambda: sharpness_gradient(objective, vector, method="difference"),
    }
    times = best(*rows_of_table.values())
    print(f"\ncost, {EXAMPLES} examples of random data, in gradients of {times[0] * 1e3:.0f} ms")
    for name, seconds in zip(rows_of_table, times, strict=True):
        print(f"  {name:40}{seconds / times[0] / (4 if 'each' in name and '4' in name else 1):6.2f}")


@dataclass(frozen=True)
class Refreshed:
    """What is refreshed, and how each refresh went from step `EDGE` on."""

    place: str
    every: int
    tracker: EigenpairTracker
    scouted: bool
    found: list[tuple[Eigenpairs, float, float]] = field(default_factory=list)  # errors of value and largest share


def embedded_objective(activation: str, seed: int) -> MeanLoss:
    images = load_embedded()
    x, y = torch.from_numpy(standardise(images)).flatten(1), torch.from_numpy(images.labels.astype(np.int64))
    return MeanLoss(mlp(SIZES, activation, seed=seed), x, y)


def refresh() -> None:
    objective = embedded_objective("relu", 0)
    x = objective.inputs
    parameters = [p.detach().clone() for p in objective.network.parameters()]
    # At the edge iterates have period two: an odd number of steps apart they lie on opposite sides of the valley.
    all_ = [
        Refreshed(place, every, EigenpairTracker(torch.Generator().manual_seed(0), **options), scouted)
        for place in ("iterate", "midpoint")
        for every, scouted, options in (
            (10, False, {}),
            (4, False, {}),
            (10, False, {"criterion": "residual", "tolerance": RESIDUAL}),
            (10, True, {}),
            (4, True, {}),
        )
    ]
    converged, restricted_spent = Converged(objective), [0] * len(all_)
    inputs, lookout = LeadingInputs.of(x), Lookout(torch.Generator().manual_seed(3))
    for step in range(STEPS + 1):
        parts = unflatten(objective.gradient(parameters), parameters)
        for place, shift in (("iterate", 0.0), ("midpoint", LR / 2)):
            due = [one for one in all_ if one.place == place and step % one.every == 0]
            if due:
                point = [p - shift * g for p, g in zip(parameters, parts, strict=True)]
                operator = MeanLossHessian(objective, point)
                split = inputs.split(objective, point)
                whole, scout = scouted(MeanLossHessian(split.objective, split.parameters), split, lookout)
                before = [one.tracker.scouted for one in all_]
                pairs = [
                    one.tracker.refresh(whole, scout) if one.scouted else one.tracker.refresh(operator) for one in due
                ]
                if step >= EDGE:
                    spent = [one.tracker.scouted - start for one, start in zip(all_, before, strict=True)]
                    restricted_spent = [a + b for a, b in zip(restricted_spent, spent, strict=True)]
            if due and step >= EDGE:
                value, shares = converged.at(place, step, operator, point)
                for one, found in zip(due, pairs, strict=True):
                    moved = np.abs(converged.shares(found.vectors[0]) - shares).max()
                    one.found.append((found, abs(float(found.values[0]) / value - 1), float(moved)))
        parameters = [p - LR * g for p, g in zip(parameters, parts, strict=True)]
    print(
        f"\nproducts a refresh at the edge (descent on {len(x)} images, steps {EDGE} to {STEPS}), without and with the"
    )
    print("refreshes that verify, every 25th; errors are against pairs of residual 1e-3; products restricted to the")
    print(f"leading inputs search where the last column is not 0; {lookout.products} exact ones looked beyond them")
    print(
        "  place     every  criterion           mean  max   all, mean    value error: max   median   estimate, median"
        "   residual, median   share moved by: max   median   and restricted products, mean"
    )
    for one, restricted in zip(all_, restricted_spent, strict=True):
        plain = [pairs.products for pairs, _, _ in one.found if not pairs.verified]
        every_one = [pairs.products for pairs, _, _ in one.found]
        errors, moved = [f[1] for f in one.found], [f[2] for f in one.found]
        estimates = [float(pairs.errors[0]) for pairs, _, _ in one.found]
        residuals = [float(pairs.residuals[0]) for pairs, _, _ in one.found]
        assert all(pairs.converged for pairs, _, _ in one.found)
        print(
            f"  {one.place:10}{one.every:5}  {one.tracker.criterion:8} {one.tracker.tolerance:<7g}"
            f"{statistics.mean(plain):8.2f}{max(plain):5}{statistics.mean(every_one):12.2f}"
            f"{max(errors):19.1e}{statistics.median(errors):9.1e}{statistics.median(estimates):19.1e}"
            f"{statistics.median(residuals):19.1e}{max(moved):22.4f}{statistics.median(moved):9.4f}"
            f"{restricted / len(one.found):27.2f}"
        )
    converged.report()
    last = next(one for one in all_ if one.place == "midpoint").tracker.recycled
    against_scipy(objective, parameters, None if last is None else last.vectors[:2])


def leading() -> None:
    print(f"\nrestricted to the leading inputs, {EXAMPLES} images, iterates, every 10 steps from {EDGE} to {STEPS},")
    print("without refreshes that verify; means, but for the largest error of a value, against one of residual 1e-3")
    print(
        "  network  seed  directions  exact products  restricted ones  value error, max  outside: of the top vector's"
        " square, of the sharpness"
    )
    for activation, seed in (("relu", 0), ("relu", 1), ("gelu", 2), ("tanh", 3)):
        objective = embedded_objective(activation, seed)
        for rank, rows in restricted_refreshes(objective, (None, 32, 64, RANK, 2 * RANK, 4 * RANK)).items():
            exact, inside, error, outside, rest = np.array(rows).T
            print(
                f"  {activation:7}{seed:6}{rank or 'all':>12}{exact.mean():16.2f}{inside.mean():17.2f}"
                f"{error.max():18.1e}{outside.mean():30.1e}{rest.mean():23.1e}"
            )


def restricted_refreshes(objective: MeanLoss, ranks: Sequence[int | None]) -> dict[int | None, list[tuple[float, ...]]]:
    """Of every refresh: exact products, restricted ones, error, and the shares of vector and sharpness outside."""
    x, parameters = objective.inputs, [p.detach().clone() for p in objective.network.parameters()]
    inputs = {rank: LeadingInputs.of(x, rank) for rank in ranks if rank}
    trackers = {rank: EigenpairTracker(torch.Generator().manual_seed(0)) for rank in ranks}
    lookouts = {rank: Lookout(torch.Generator().manual_seed(3)) for rank in inputs}
    truth = EigenpairTracker(torch.Generator().manual_seed(1), 2, 1e-3, 5, criterion="residual")
    found: dict[int | None, list[tuple[float, ...]]] = {rank: [] for rank in ranks}
    for step in range(STEPS + 1):
        if step % 10 == 0 and step >= EDGE - 10:
            operator = MeanLossHessian(objective, parameters)
            true = truth.refresh(operator)
            first = true.vectors[0][: parameters[0].numel()].view(parameters[0].shape)
            for rank, tracker in trackers.items():
                hessian, scout, before, outside, rest = operator, None, tracker.scouted, 0.0, 0.0
                if rank:
                    split = inputs[rank].split(objective, parameters)
                    joint = MeanLossHessian(split.objective, split.parameters, deferred=[1])
                    hessian, scout = scouted(joint, split, lookouts[rank])
                    outside = float(first.square().sum() - (first @ split.directions.T).square().sum())
                    rest = lookouts[rank].value / float(true.values[0])
                pairs = tracker.refresh(hessian, scout)
                error = abs(float(pairs.values[0] / true.values[0]) - 1)
                if step >= EDGE and not pairs.verified:
                    found[rank].append((pairs.products, tracker.scouted - before, error, outside, rest))
        parts = unflatten(objective.gradient(parameters), parameters)
        parameters = [p - LR * g for p, g in zip(parameters, parts, strict=True)]
    return found


class Converged:
    """Pairs of residual 1e-3, of which every 50th step's is compared with one of 1e-6, by products in float64."""

    def __init__(self, objective: MeanLoss) -> None:
        self._exact = objective.in_float64()
        self._sizes = [p.numel() for p in objective.network.parameters()]
        self._layers = layer_of_parameter(objective.network)
        self._trackers = {
            place: EigenpairTracker(torch.Generator().manual_seed(1), 2, 1e-3, 5, criterion="residual")
            for place in ("iterate", "midpoint")
        }
        self._checked: list[tuple[float, float, int]] = []

    def at(self, place: str, step: int, operator: MeanLossHessian, point: list[Tensor]) -> tuple[float, np.ndarray]:
        """The eigenvalue and the layers' shares."""
        pairs = self._trackers[place].refresh(operator)
        assert pairs.converged
        value = float(pairs.values[0])
        if step % 50 == 0:
            exact = top_eigenpairs(
                MeanLossHessian(self._exact, [p.double() for p in point]),
                generator=torch.Generator().manual_seed(2),
                start=pairs.vectors,
                tolerance=1e-6,
            )
            assert exact.converged
            self._checked.append((abs(value / float(exact.values[0]) - 1), float(exact.residuals[0]), exact.products))
        return value, self.shares(pairs.vectors[0])

    def shares(self, vector: Tensor) -> np.ndarray:
        """(layers,) of a vector."""
        return layer_shares(vector, self._sizes, self._layers)

    def report(self) -> None:
        """Prints how far these pairs are from those of float64."""
        off, residuals, spent = zip(*self._checked, strict=True)
        print(
            f"  those pairs against {len(off)} of residual at most {max(residuals):.1e} in float64, from them "
            f"(products, mean: {statistics.mean(spent):.1f}): value off by at most {max(off):.1e}"
        )


def against_scipy(objective: MeanLoss, parameters: list[Tensor], start: Tensor | None) -> None:
    """At the midpoint ten steps after the last refresh, whose vectors are `start`: where the next one would be."""
    for _ in range(10):
        parts = unflatten(objective.gradient(parameters), parameters)
        midpoint = [p - LR / 2 * g for p, g in zip(parameters, parts, strict=True)]
        parameters = [p - LR * g for p, g in zip(parameters, parts, strict=True)]
    operator = MeanLossHessian(objective, midpoint)
    point = [p.clone().requires_grad_() for p in midpoint]
    loader = DataLoader(TensorDataset(objective.inputs, objective.targets), batch_size=500)
    count = {"products": 0}

    def as_row(vector: np.ndarray) -> Tensor:
        count["products"] += 1
        return torch.from_numpy(np.asarray(vector, dtype=np.float32)).reshape(-1)

    def reused(vector: np.ndarray) -> np.ndarray:
        return operator.matvec(as_row(vector)).numpy()

    def batches(vector: np.ndarray) -> np.ndarray:
        row = as_row(vector)
        total = torch.zeros_like(row)
        for x, y in loader:
            loss = MeanLoss(objective.network, x, y).of_chunk(point, slice(0, len(x)))
            total += HessianOperator(loss, point).matvec(row) * (len(x) / len(objective))
        return total.numpy()

    def scipy(matvec: Callable[[np.ndarray], np.ndarray]) -> tuple[float, Tensor, int]:
        count["products"] = 0
        linear = LinearOperator((operator.size, operator.size), matvec=matvec, dtype=np.float32)
        first = np.random.default_rng(0).normal(size=operator.size)
        values, vectors = eigsh(linear, k=1, which="LA", tol=RESIDUAL, v0=first)
        return float(values[0]), torch.from_numpy(vectors[:, 0]), count["products"]

    def ours(warm: bool) -> tuple[float, Tensor, int]:
        pairs = top_eigenpairs(
            operator, generator=torch.Generator().manual_seed(2), tolerance=RESIDUAL, start=start if warm else None
        )
        return float(pairs.values[0]), pairs.vectors[0], pairs.products

    ways: dict[str, Callable[[], tuple[float, Tensor, int]]] = {
        "ours, warm": lambda: ours(True),
        "ours, cold": lambda: ours(False),
        "SciPy eigsh, cold, graph reused": lambda: scipy(reused),
        "SciPy eigsh, cold, DataLoader of 500": lambda: scipy(batches),
    }
    results = [way() for way in ways.values()]
    times = best(*ways.values(), repeats=2)
    print(
        "\none top eigenpair asked for to a residual of 0.01, at the next midpoint; graphs are built beforehand but for"
    )
    print("the DataLoader's. eigsh takes a basis of 20 before it looks, and so ends below the residual asked for.")
    print("  way                                         products     eigenvalue  residual   time against warm")
    for name, (value, vector, products), seconds in zip(ways, results, times, strict=True):
        # Here, outside the clock: it takes a product.
        residual = float((operator.matvec(vector) - value * vector).norm() / abs(value))
        print(f"  {name:44}{products:8}{value:15.4f}{residual:10.1e}{seconds / times[0]:12.1f}")


def measure(tables: Annotated[tuple[Table, ...], tyro.conf.Positional] = get_args(Table)) -> None:
    """Prints the tables named, or all."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; GPU not measured")
    ways: dict[Table, Callable[[], None]] = {"cost": cost, "refresh": refresh, "leading": leading}
    for name in tables:
        ways[name]()


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/curvature.py", description=str(__doc__))
