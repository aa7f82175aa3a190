"""Products that a look at the sharpness takes, before the edge of stability and at it, on the networks of `standard`.

``python benchmarks/tracked_networks.py [vgg11] [resnet18] [vit]`` trains each of these or those named by gradient
descent on the embedded images, at the step size that gradient flow chooses for the seed, and looks as often as preset
`standard` does: at the iterate, and at the midpoint of the step as the probe does, which takes the iterate's
eigenvectors for its start where the iterate is near, and always from the midpoint before. Values are compared with ones
of a residual of 1e-3. Some three minutes a network; counts, not times. The perceptron: benchmarks/curvature.py refresh.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

import torch
import tyro

from sim import SharpnessProbe, build
from sim.curvature import EigenpairTracker, MeanLoss, MeanLossHessian
from sim.curvature.mean_loss import unflatten
from theory import command_line
from validate.cifar10 import CLASSES, load_embedded
from validate.near_flow import NearFlowConfig, near_flow
from validate.network_run import IMAGE_SHAPE, network_tensors, training_images
from validate.presets import PRESETS

Kind = Literal["vgg11", "resnet18", "vit"]
SEED = 100  # no claim is judged on it
CPU = torch.device("cpu")


@dataclass
class Looks:
    """Products of each look, and how far its values are off."""

    iterate: list[int] = field(default_factory=list)
    midpoint: list[int] = field(default_factory=list)
    from_midpoint: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def looks(kind: Kind) -> dict[str, Looks]:
    """Those before the iterate's sharpness first gets to 2/η, and those from there on."""
    setting = PRESETS["standard"].setting(kind)
    network, images = replace(setting.network, seed=SEED), load_embedded()
    lr = near_flow(NearFlowConfig.of(network, setting.crossing), images, CPU, progress=False).attrs["lr"]
    inputs, labels = network_tensors(network.architecture, training_images(network, images), CPU)
    objective = MeanLoss(build(network.architecture, IMAGE_SHAPE, len(CLASSES), SEED), inputs, labels)
    parameters = [p.detach().clone() for p in objective.network.parameters()]
    probe = SharpnessProbe(objective.network, inputs, labels, lr, every=network.measure_every, blocks_every=0)
    own = EigenpairTracker(torch.Generator().manual_seed(SEED))
    exact = [EigenpairTracker(torch.Generator().manual_seed(1), 2, 1e-3, 5, criterion="residual") for _ in range(2)]
    found, crossed, spent = {"before": Looks(), "at the edge": Looks()}, False, [0, 0]
    for step in range(network.steps):
        parts = unflatten(objective.gradient(parameters), parameters)
        if step % network.measure_every == 0:
            probe(step, parameters, parts)
            midpoint = [p - lr / 2 * g for p, g in zip(parameters, parts, strict=True)]
            here = [MeanLossHessian(objective, point) for point in (parameters, midpoint)]
            names = ("iterate", "midpoint")
            values = [float(probe.dataset()[f"sharpness_{place}"][-1]) for place in names]
            crossed = crossed or values[0] >= 2 / lr
            own_products = own.refresh(here[1]).products
            true = [float(tracker.refresh(of).values[0]) for tracker, of in zip(exact, here, strict=True)]
            before, spent = spent, [probe._trackers[place].products for place in names]
            if step:  # the first starts from random vectors
                of = found["at the edge" if crossed else "before"]
                of.iterate.append(spent[0] - before[0])
                of.midpoint.append(spent[1] - before[1])
                of.from_midpoint.append(own_products)
                of.errors += [abs(value / exactly - 1) for value, exactly in zip(values, true, strict=True)]
        parameters = [p - lr * g for p, g in zip(parameters, parts, strict=True)]
    return found


def measure(kinds: Annotated[tuple[Kind, ...], tyro.conf.Positional] = get_args(Kind)) -> None:
    """Prints the products of each network's looks."""
    print("products a look, mean (most); the first look, from random vectors, is left out")
    print("  network   looks             iterate    midpoint   the same, from the last   value error: max   median")
    for kind in kinds:
        for when, of in looks(kind).items():
            if of.iterate:
                counts = (of.iterate, of.midpoint, of.from_midpoint)
                cells = "".join(f"{statistics.mean(one):9.1f} ({max(one)})" for one in counts)
                print(
                    f"  {kind:10}{len(of.iterate):3} {when:12}{cells}{max(of.errors):22.1e}"
                    f"{statistics.median(of.errors):9.1e}"
                )


if __name__ == "__main__":
    command_line.main(measure, prog="python benchmarks/tracked_networks.py", description=str(__doc__))
