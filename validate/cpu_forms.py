"""CPU-sized forms of the networks, which reach the edge of stability in a few hundred steps of gradient descent.

Chosen by short runs of full-batch gradient descent on the first images of each class, one seed each; other seeds cross
earlier or later. CPU seconds a step are those of one thread on a machine that was shared: upper bounds.

| form | parameters | CPU s a step | ηλ/2 at step | crosses 1 | seen after it |
|---|---|---|---|---|---|
| vgg11, 20 images a class, seed 0 | 145,210 | 0.09 | 0.06 at 64, 0.86 at 128 | about 132 | 1.5 to 2.4 up to 256 |
| vgg11_bn, 30, seed 0 | 145,554 | 0.24 | 0.17 at 0, 0.76 at 15 | about 45 | 0.8 to 1.2 up to 105 |
| resnet18, 20, seed 10 | 176,402 | 0.2 | 0.53 at 30, 0.94 at 90 | about 110 | 1.1 to 1.2 up to 320 |
| vit, 20, seed 0 | 21,098 | 0.13 | 0.18 at 32, 0.59 at 64 | about 74 | 0.9 to 2.2 up to 256 |

How far from quadratic these losses are: ResNet-18's curvature along its top eigenvector (η = 0.01, 60 images, step 30)
is the eigenvalue within 0.01 of it, seven tenths of it within 0.03, and a seventh within 0.1. So its loss does not
begin to rise where ηλ crosses 2 but some tens of steps later (η = 0.01: crossing at 22, first rise between 50 and 60).
With ReLU and batch norm the loss rises in single steps at half the threshold (vgg11_bn, η = 0.005, 10 images a class:
2 of 80 steps with ReLU, none with GELU); kinks, whose curvature the Hessian lacks, may be why. ResNet-18 takes GELU.
Its seed 11 peaks at 1.14 at step 30 and crosses at about 120, its seed 12 at 220.
VGG-11 with batch norm crosses early or not at all: with GELU, η = 0.005, 10 images a class its sharpness is about 100
at step 10 and near 200 from step 60 on, as the loss falls; on another seed, 20 images, η = 0.011, 70 at step 30.

Not measured: other seeds, the other optimisers, two idle cores.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim import Architecture
from validate.network_run import NetworkConfig

CPU_FORMS: Mapping[str, NetworkConfig] = {
    "mlp": NetworkConfig(),
    "vgg11": NetworkConfig(Architecture("vgg11", width=0.125), images_per_class=20, lr=0.03, steps=320),
    "vgg11_bn": NetworkConfig(Architecture("vgg11_bn", width=0.125), images_per_class=30, lr=0.02, steps=240),
    "resnet18": NetworkConfig(
        Architecture("resnet18", width=0.125, activation="gelu", stride=2), images_per_class=20, lr=0.006, steps=400
    ),
    "vit": NetworkConfig(
        Architecture("vit", width=0.0833, depth=2, activation="gelu"), images_per_class=20, lr=0.03, steps=280
    ),
}
"""Kind of network → a run of gradient descent; `dataclasses.replace` gives it its seed and what is measured."""
