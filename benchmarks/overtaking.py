"""How often a run's sharpness is not the largest eigenvalue, for one has overtaken the tracked one unseen.

``python benchmarks/overtaking.py [mlp] [tanh] [vgg11] [resnet18] [vit] [--seeds N]`` trains the CPU forms (all, with
one seed, unless named otherwise; some minutes each) with the probe that their runs have, and beside it, every 10 steps
at the iterate and at the midpoint, searches the two largest eigenvalues to a residual of 1e-3, verified from a random
vector every time. A value that lies further below than the estimate of its error allows was missed. Refreshes from
step `SINCE` on count, without those that verify, every 25th, which cannot miss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from sim import SharpnessProbe, descend
from sim.curvature import MeanLoss, MeanLossHessian, top_eigenpairs
from sim.networks import build
from theory import command_line
from validate.cifar10 import CLASSES, load_embedded
from validate.cpu_forms import CPU_FORMS
from validate.network_run import IMAGE_SHAPE, NetworkConfig, network_tensors, training_images

Kind = Literal["mlp", "tanh", "vgg11", "resnet18", "vit"]
SINCE, EVERY = 50, 10
ALLOWED = 3e-3  # three times the probe's tolerance
FORMS = {
    **{kind: CPU_FORMS[kind] for kind in ("mlp", "vgg11", "resnet18", "vit")},
    "tanh": dataclasses.replace(
        CPU_FORMS["mlp"], architecture=dataclasses.replace(CPU_FORMS["mlp"].architecture, activation="tanh")
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is watched."""

    networks: Annotated[tuple[Kind, ...], tyro.conf.Positional] = get_args(Kind)
    """Networks."""
    seeds: int = 1
    """Number of seeds, from 0 on."""

    def __post_init__(self) -> None:
        command_line.require_positive("--seeds", self.seeds)


class Witness:
    """The two largest eigenvalues at the iterate and at the midpoint, verified at every look."""

    def __init__(self, network: nn.Module, inputs: Tensor, labels: Tensor, lr: float) -> None:
        self._objective, self._lr = MeanLoss(network, inputs, labels), lr
        self._generator = torch.Generator().manual_seed(1)
        self._last: dict[str, Tensor | None] = {"iterate": None, "midpoint": None}
        self.steps: list[int] = []
        self.values: dict[str, list[list[float]]] = {"iterate": [], "midpoint": []}

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Looks where the step is due."""
        if step % EVERY or step < SINCE:
            return
        self.steps.append(step)
        for place, shift in (("iterate", 0.0), ("midpoint", self._lr / 2)):
            point = [p.detach() - shift * g for p, g in zip(parameters, gradients, strict=True)]
            pairs = top_eigenpairs(
                MeanLossHessian(self._objective, point),
                generator=self._generator,
                k=2,
                start=self._last[place],
                tolerance=1e-3,
                verify=True,
            )
            self._last[place] = pairs.vectors
            self.values[place].append(pairs.values.tolist())


def watch(name: str, config: NetworkConfig) -> None:
    """Trains one network and prints what its probe missed."""
    images = training_images(config, load_embedded())
    inputs, labels = network_tensors(config.architecture, images, torch.device("cpu"))
    network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed)
    probe = SharpnessProbe(network, inputs, labels, config.lr, every=EVERY, seed=config.seed)
    witness = Witness(network, inputs, labels, config.lr)
    descend(network, inputs, labels, lr=config.lr, steps=config.steps, probes=[probe, witness])
    found = probe.dataset().sel(measured=witness.steps)
    for place, values in witness.values.items():
        first, second = np.array(values).T
        below = np.maximum(1 - found[f"sharpness_{place}"].values / first, 0)
        counted = ~found[f"verified_{place}"].values
        missed = below[counted] > ALLOWED
        print(
            f"  {name:10}{config.seed:5}  {place:10}{counted.sum():9}{missed.sum():8}{below[counted].max():12.1e}"
            f"{np.median(below[counted]):10.1e}{np.median(second / first):16.3f}  "
            f"{', '.join(str(s) for s in np.array(witness.steps)[counted][missed])}",
            flush=True,
        )


def watch_all(options: Options) -> None:
    """Watches the networks named, or all."""
    print("  network    seed  place     refreshes  missed  most below    median  second / first  missed at step")
    for name in options.networks:
        for seed in range(options.seeds):
            watch(name, dataclasses.replace(FORMS[name], seed=seed))


if __name__ == "__main__":
    command_line.main(watch_all, prog="python benchmarks/overtaking.py", description=str(__doc__))
