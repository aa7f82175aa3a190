"""Small runs for the figures of theory and simulation, and for those of one network."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import xarray as xr
from cases import planted

from paper_figs.runs import Runs
from sim import TwoLayerConfig, run_two_layer
from sim.sweeps import PhaseConfig, Study, TailConfig
from sim.sweeps.amplitude import AmplitudeConfig
from sim.sweeps.chebyshev import ChebyshevConfig
from validate.cifar10 import load_embedded

CPU = torch.device("cpu")
TWO_LAYER = TwoLayerConfig(steps=260, examples=2000, sample_seeds=(0, 1))
TINY_SWEEPS: tuple[Study, ...] = (
    PhaseConfig(betas=(0.5, 10.0), rows=6, lowest=0.4, highest=5.0, lrs=8, seeds=(0,), d1=5, steps=300),
    TailConfig(tail_indices=(2.2, 4.0, 12.0), fractions=(0.05, 0.2), seeds=(0, 1, 2), examples=3000, steps=400),
    AmplitudeConfig(
        spike_lrs=(0.045, 0.06), edge_lrs=(0.07, 0.09), seeds=(0, 1), examples=3000, spike_steps=250, edge_steps=1500
    ),
    ChebyshevConfig(examples=20, hidden=(30, 30), lr=0.2, steps=420, measure_every=20, seeds=(0, 1)),
)


def one_network() -> xr.Dataset:
    """A made-up run on the 2,000 images that crosses at step 200."""
    measured, blocks = np.arange(0, 420, 10), np.arange(0, 420, 50)
    losses = np.tile(2.3 - 0.004 * np.arange(420)[:, None], (1, 2000))
    losses[200:] += planted(0, n=2000, steps=220, size=20) - 2
    share = np.full((len(measured), 3), 1 / 3)
    data = xr.Dataset(attrs={"lr": 0.05, "diverged_at": -1})
    data = data.assign_coords(
        step=np.arange(420), measured=measured, block_measured=blocks, layer=[f"layer {i}" for i in (1, 2, 3)]
    )
    data["loss"], data["label"] = (("step", "example"), losses), ("example", load_embedded().labels)
    for place in ("iterate", "midpoint"):
        data[f"sharpness_{place}"] = "measured", np.minimum(measured / 5.0, 42.0)
        data[f"layer_share_{place}"] = ("measured", "layer"), share
    data["block_sharpness"] = ("block_measured", "layer"), np.full((len(blocks), 3), 5.0)
    return data


def tiny_sweep(study: Study) -> xr.Dataset:
    """A sweep's data without a run store."""
    return study.combine([unit.run(CPU) for unit in study.units()])


@cache
def tiny_runs() -> Runs:
    """Everything that F1, F5, F6, F8, F9 and F14 to F16 draw from."""
    two_layer = run_two_layer(TWO_LAYER, CPU, progress=False)
    return Runs(
        network=one_network(),
        two_layer=two_layer,
        two_layer_config={"lr": TWO_LAYER.lr, "steps": 260, "examples": 2000, "sample_seeds": [0, 1], "device": "cpu"},
        images=load_embedded(),
        sweeps={study.name: tiny_sweep(study) for study in TINY_SWEEPS},
    )
