"""What a figure draws from: finished runs, already read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from validate.cifar10 import Images


@dataclass(frozen=True)
class Runs:
    """Finished runs, as a notebook or the command line hands them on. A figure uses those its registry entry names.

    Attributes:
        network: a network's run.
        two_layer: the two-layer network's run, and `two_layer_config` its configuration.
        two_layer_config: plain values.
        images: the images the network was trained on.
    """

    network: xr.Dataset | None = None
    two_layer: xr.Dataset | None = None
    two_layer_config: dict[str, Any] | None = None
    images: Images | None = None
