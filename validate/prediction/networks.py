"""The networks whose oscillation is predicted, each over a range of step sizes that all cross 2/η after 50 steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sim import Architecture
from theory.command_line import InputError
from validate.cpu_forms import CPU_FORMS
from validate.edge_probe import EdgeMeasurements
from validate.network_run import NetworkConfig
from validate.roles import Setting

FRESH_SEEDS = (48, 49, 50, 51, 52)
"""Judged, with nothing changed after them, and the figure's; thresholds were fixed on seeds 100 to 102, the onset on 20
to 22, how growth and variance are measured on 30 to 34, intervals, the comparison with other seeds and what the first
tenth is on 30 to 37, when x is clear of drifts on 30 to 42, map (4) on 30 to 33."""

_STEPS = {0.03: 760, 0.04: 540, 0.052: 400, 0.068: 320, 0.088: 260}
"""Step size → steps of a perceptron on 2,000 images: to the crossing of 2/η, 150 steps more, and some to spare."""


@dataclass(frozen=True)
class PredictionSetting:
    """Base runs of one network at several step sizes.

    Attributes:
        network: a base run, but for its seed, step size and steps.
        steps: step size → number of steps.
    """

    network: NetworkConfig
    steps: Mapping[float, int]

    def settings(self, seeds: Sequence[int]) -> dict[float, Setting]:
        """Step size → the runs' setting, in rising order."""
        return {
            lr: Setting(replace(self.network, lr=lr, steps=steps), tuple(seeds), edge=_EDGE)
            for lr, steps in sorted(self.steps.items())
        }


_EDGE = EdgeMeasurements(every=5, directions=4, draws=1)


def _measured(network: NetworkConfig) -> NetworkConfig:
    return replace(network, midpoint=False, snapshot_every=30)


def _perceptron(activation: str) -> PredictionSetting:
    return PredictionSetting(_measured(NetworkConfig(Architecture(hidden=(50, 50), activation=activation))), _STEPS)


def _around(kind: str, *factors: float) -> PredictionSetting:
    """A CPU-sized form at multiples of its step size; it takes as many times fewer steps as its steps are longer."""
    form = CPU_FORMS[kind]
    return PredictionSetting(
        _measured(form), {round(form.lr * f, 5): max(round(form.steps / f), form.steps // 2 + 100) for f in factors}
    )


PREDICTION_NETWORKS: Mapping[str, PredictionSetting] = {
    "mlp_gelu": _perceptron("gelu"),
    "mlp": _perceptron("relu"),
    "vgg11": _around("vgg11", 0.6, 0.8, 1.0),
    "resnet18": _around("resnet18", 0.7, 1.0, 1.4),
    "vit": _around("vit", 0.7, 1.0, 1.4),
}


def prediction_network(name: str) -> PredictionSetting:
    """A network by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PREDICTION_NETWORKS:
        raise InputError(f"--network is {name}: give some of {', '.join(PREDICTION_NETWORKS)}, or all")
    return PREDICTION_NETWORKS[name]
