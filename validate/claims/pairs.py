"""The opposing pair of each seed that several claims share."""

from __future__ import annotations

from validate.claims.base import NetworkEvidence
from validate.opposing_groups import OpposingPair, singular_pairs
from validate.windows import Windows


def leading_pair(evidence: NetworkEvidence, windows: Windows) -> OpposingPair:
    """The strongest pair of the base run's selection window, by singular vectors."""
    return singular_pairs(evidence.run["loss"][windows.select], count=1)[0]
