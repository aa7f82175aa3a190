"""What a figure draws from: finished runs, already read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from validate.cifar10 import Images


@dataclass(frozen=True)
class Runs:
    """Finished runs, as a notebook or the command line hands them on. A figure uses those that its entry names.

    Attributes:
        network: a network's run, of role ``base``.
        two_layer: the two-layer network's run, and `two_layer_config` its configuration.
        two_layer_config: plain values.
        images: the images the network was trained on.
        networks: runs of networks by role (``base``, ``gentle``, ``adam``, …), one data set a seed.
        sweeps: sweeps by name (``phase``, ``tail``, …).
        predictions: by network of `validate.prediction`, base runs over step sizes and seeds, each before its study.
        valleys: by the same network, orbits in the valleys of some of those runs (`validate.prediction.valley`).
    """

    network: xr.Dataset | None = None
    two_layer: xr.Dataset | None = None
    two_layer_config: dict[str, Any] | None = None
    images: Images | None = None
    networks: Mapping[str, tuple[xr.Dataset, ...]] = field(default_factory=dict)
    sweeps: Mapping[str, xr.Dataset] = field(default_factory=dict)
    predictions: Mapping[str, tuple[xr.Dataset, ...]] = field(default_factory=dict)
    valleys: Mapping[str, tuple[xr.Dataset, ...]] = field(default_factory=dict)

    def get(self, need: str) -> Any:
        """What a need stands for, None where it is not there.

        Args:
            need: ``network``, ``two_layer`` or ``images``; ``networks.ROLE``; ``sweeps.NAME``; ``predictions.NETWORK``;
                ``valleys.NETWORK``.

        >>> Runs(sweeps={"phase": xr.Dataset()}).get("sweeps.tail") is None
        True
        """
        kind, _, name = need.partition(".")
        if kind in ("networks", "sweeps", "predictions", "valleys"):
            found: Any = getattr(self, kind).get(name)
            return None if isinstance(found, tuple) and not found else found
        if need == "two_layer" and self.two_layer_config is None:
            return None
        if need in ("network", "two_layer", "images"):
            return getattr(self, need)
        raise KeyError(
            f"{need}: a need is network, two_layer, images, networks.ROLE, sweeps.NAME, predictions.NETWORK or "
            "valleys.NETWORK"
        )

    def require(self, figure: str, needs: Sequence[str]) -> None:
        """Refuses runs that lack something a figure draws from.

        Raises:
            ValueError: something is not there; the message names it.

        >>> Runs().require("F8", ["two_layer"])
        Traceback (most recent call last):
        ...
        ValueError: F8 draws from two_layer; not given: two_layer
        """
        missing = [need for need in needs if self.get(need) is None]
        if missing:
            raise ValueError(f"{figure} draws from {', '.join(needs)}; not given: {', '.join(missing)}")
