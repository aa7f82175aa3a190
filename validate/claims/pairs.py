"""The opposing pair of each seed that several claims share."""

from __future__ import annotations

import xarray as xr

from validate.claims.base import NetworkEvidence
from validate.opposing_groups import OpposingPair, singular_pairs
from validate.windows import Windows


def leading_pair(evidence: NetworkEvidence, windows: Windows) -> OpposingPair:
    """The strongest pair of the base run's selection window, by singular vectors."""
    return pair_of_run(evidence.run, windows)


def pair_of_run(run: xr.Dataset, windows: Windows) -> OpposingPair:
    """The strongest pair of a run's selection window."""
    return singular_pairs(run["loss"].values[windows.select], count=1)[0]
