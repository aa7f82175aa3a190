"""C3: the groups trade places every step."""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.pairs import leading_pair
from validate.opposing_groups import group_gap
from validate.windows import Windows


def _sign_changes(evidence: NetworkEvidence, windows: Windows, window: slice) -> float:
    gap = group_gap(evidence.run["loss"].values[window], leading_pair(evidence, windows))
    return float(np.mean(np.sign(gap[1:]) != np.sign(gap[:-1])))


CLAIMS = (
    Claim(
        name="C3",
        statement="Period two: at the edge the two groups trade places every step.",
        statistic="share of steps at which the group gap changes sign, on steps the groups were not chosen on",
        bound=Bound(low=0.85),
        control="before the crossing",
        measure=each_seed(lambda e, w: _sign_changes(e, w, w.evaluate)),
        measure_control=each_seed(lambda e, w: _sign_changes(e, w, w.before)),
        figure="F1",
    ),
)
