"""Simulations of opposing features, probes of networks in training, and the store of finished runs."""

from sim.device import choose_device
from sim.networks import mlp
from sim.probes import SharpnessProbe
from sim.runs import Run, list_runs, obtain_run, read_run
from sim.training import Descent, descend
from sim.two_layer import TwoLayerConfig, run_two_layer

__all__ = [
    "Descent",
    "Run",
    "SharpnessProbe",
    "TwoLayerConfig",
    "choose_device",
    "descend",
    "list_runs",
    "mlp",
    "obtain_run",
    "read_run",
    "run_two_layer",
]
