"""Searches for the top eigenvector from random vectors: how many end too low, with and without verification.

``OMP_NUM_THREADS=1 python benchmarks/cold_starts.py`` (some minutes). Small perceptrons are compared with their dense
Hessians; the CPU forms of the networks, at their initial weights and after some steps of descent, with the largest of
two searches to a residual of 1e-3 that are verified.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from sim import build, descend, mlp
from sim.curvature import Eigenpairs, MeanLoss, MeanLossHessian, top_eigenpairs
from theory import command_line
from validate.cifar10 import first_of_each_class, load_embedded
from validate.cpu_forms import CPU_FORMS
from validate.network_run import IMAGE_SHAPE, network_tensors

SMALL, SMALL_SEARCHES = 40, 15
SEEDS, SEARCHES, STEPS = 4, 6, 60
Kind = Literal["mlp", "vgg11", "resnet18", "vit"]
TOLERANCE = 1e-3
LOW = (2e-3, 5e-3, 2e-2, 1e-1)


def search(hessian: MeanLossHessian, seed: int, *, verify: bool | None) -> Eigenpairs:
    """A cold search, by the criterion of probes."""
    return top_eigenpairs(hessian, generator=_generator(seed), criterion="value", tolerance=TOLERANCE, verify=verify)


def small(case: int) -> tuple[MeanLossHessian, float]:
    """A perceptron of 30 to 1,800 weights on 60 examples, and its largest eigenvalue."""
    generator = _generator(case)
    d, h = (int(torch.randint(least, 40, (1,), generator=generator)) for least in (3, 4))
    x = torch.randn(60, d, generator=generator)
    network = mlp([d, h, 3], ("relu", "tanh", "gelu")[case % 3], seed=case)  # type: ignore[arg-type]
    if case % 2:
        objective = MeanLoss(network, x, torch.randn(60, 2, generator=generator), loss=_huber)
    else:
        objective = MeanLoss(network, x, torch.randint(0, 3, (60,), generator=generator))
    hessian = MeanLossHessian(objective)
    dense = torch.stack([hessian.matvec(row) for row in torch.eye(hessian.size)]).double()
    return hessian, float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])


def of_form(kind: Kind, steps: int) -> Iterator[tuple[MeanLossHessian, float]]:
    """A network's CPU form on 50 images a class, seed after seed, after so many steps of descent."""
    config, device = CPU_FORMS[kind], torch.device("cpu")
    images = first_of_each_class(load_embedded(), 50)
    for seed in range(SEEDS):
        network = build(config.architecture, IMAGE_SHAPE, 10, seed)
        inputs, labels = network_tensors(config.architecture, images, device)
        if steps:
            descend(network, inputs, labels, lr=config.lr, steps=steps, progress=False)
        hessian = MeanLossHessian(MeanLoss(network, inputs, labels))
        closely = [
            top_eigenpairs(hessian, generator=_generator(100 + i), criterion="residual", tolerance=1e-3, verify=True)
            for i in range(2)
        ]
        yield hessian, max(float(pairs.values[0]) for pairs in closely)


def measure(kinds: Annotated[tuple[Kind, ...], tyro.conf.Positional] = get_args(Kind)) -> None:
    """Prints, for small perceptrons and some networks, how many searches end too low."""
    shares = "  ".join(f"{low:.1%}" for low in LOW)
    print(f"share of searches that end lower than the largest eigenvalue by {shares}, and products, without")
    print("verification and with it")
    cases = {"small perceptrons": (map(small, range(SMALL)), SMALL_SEARCHES)}
    for kind, steps in itertools.product(kinds, (0, STEPS)):
        cases[f"{kind}, step {steps}"] = of_form(kind, steps), SEARCHES
    for name, (hessians, searches) in cases.items():
        errors: dict[bool | None, list[float]] = {False: [], None: []}
        products: dict[bool | None, list[int]] = {False: [], None: []}
        for hessian, largest in hessians:
            for seed, verify in itertools.product(range(searches), errors):
                pairs = search(hessian, seed, verify=verify)
                errors[verify].append(1 - float(pairs.values[0]) / largest)
                products[verify].append(pairs.products)
        cells = [
            "  ".join(f"{np.mean(np.array(errors[v]) > low):6.3f}" for low in LOW) + f"  {np.mean(products[v]):5.1f}"
            for v in errors
        ]
        print(f"{name:<20} {len(errors[None]):4d}   {'     '.join(cells)}", flush=True)


def _huber(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(outputs[:, :2], targets, reduction="none").sum(1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/cold_starts.py", description=str(__doc__))
