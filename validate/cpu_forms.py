"""CPU-sized forms of the networks, which reach the edge of stability in a few hundred steps of gradient descent.

Outliers are rare: among 200 images there are none to speak of, and a network crosses 2/η as whole classes swing. So
all but vgg11_bn take 100 images a class or more, and pay for them with fewer places: first convolutions of stride 2
and 4, patches of 8. Chosen by short runs of full-batch gradient descent on pilot seeds (docs/claims.md tells what was
tried). Kurtosis is that of the changes of loss (C7a), in the 150 steps from the crossing.

| form | parameters | seeds: crossing of 2/η at step | mean loss there | kurtosis |
|---|---|---|---|---|
| vgg11 | 145,210 | 100: 140; 101: 120; 10, 11, 12: 220, 160, 320 | 2.0 | 6, 4 |
| resnet18 | 176,402 | aimed at 150; 100, 101, 102, 103: 160 | 1.8–2.0 | 16, 8, 5, 6 |
| vit | 24,170 | 100: 120; 101: 180; 10, 11, 12: 130, 80, 180 | 1.9 | 7, – |

ResNet-18's seeds differ fourfold in sharpness: at η = 0.002, seeds 101, 102, 11 and 12 cross at 160, 60, 180 and 260,
and seed 10 is at 0.47 of 2/η after 360 steps. So each of its seeds takes a step size of its own, the one at which
gradient flow gets to 2/η at step 150 (`Setting.crossing`, `validate.near_flow`); the one here is for who asks for none.

Preset `long` judges these forms. Preset `standard` takes, of all but the perceptron, half of the images, 330 steps
(VGG-11 370) and a step size for each seed: fewer images keep what fewer channels or an earlier crossing lose. On pilot
seed 100 VGG-11 crosses at step 150 with a mean loss of 1.95 and a kurtosis of 5.8 then, ResNet-18 at 150 with 1.8 and
5.2; with all images and half of the channels, crossing at 120, they do so at 2.1 and 2.1, VGG-11 with 4.8 and a spike
at once.

Activations are smooth (GELU), for ReLU's kinks are not in autograd's Hessian: VGG-11 of this form with ReLU hovers at
0.85 of 2/η while its losses bounce. VGG-11's convolutions start from He's weights over the incoming connections
(`sim.networks.convolution`): over the outgoing ones GELU's signal dies on one seed in three. ResNet-18's loss is far
from quadratic: its curvature along the top eigenvector (η = 0.01, 60 images, step 30) is the eigenvalue within 0.01 of
it, seven tenths of it within 0.03, a seventh within 0.1, so it begins to rise some tens of steps after the crossing.
vgg11_bn, with its 30 images a class, crosses early or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim import Architecture
from validate.network_run import NetworkConfig

CPU_FORMS: Mapping[str, NetworkConfig] = {
    "mlp": NetworkConfig(),
    "vgg11": NetworkConfig(
        Architecture("vgg11", width=0.125, activation="gelu", stride=2), images_per_class=100, lr=0.012, steps=500
    ),
    "vgg11_bn": NetworkConfig(Architecture("vgg11_bn", width=0.125), images_per_class=30, lr=0.02, steps=240),
    "resnet18": NetworkConfig(
        Architecture("resnet18", width=0.125, activation="gelu", stride=4), images_per_class=100, lr=0.002, steps=360
    ),
    "vit": NetworkConfig(
        Architecture("vit", width=0.0833, depth=2, activation="gelu", patch=8),
        images_per_class=100,
        lr=0.02,
        steps=360,
    ),
}
"""Kind of network → a run of gradient descent; `dataclasses.replace` gives it its seed and what is measured."""
