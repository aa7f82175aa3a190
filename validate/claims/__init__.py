"""The claims, one module each: statistic, threshold, control."""

from validate.claims import (
    c01_edge_of_stability,
    c03_period_two,
    c04_opposite_phase,
    c08_half_go_up,
    c09_layerwise_shift,
    statements,
)
from validate.claims.base import Bound, Claim, Evidence, NetworkEvidence, Verdict, judge

CLAIMS: tuple[Claim, ...] = (
    *statements.CLAIMS,
    *c01_edge_of_stability.CLAIMS,
    *c03_period_two.CLAIMS,
    *c04_opposite_phase.CLAIMS,
    *c08_half_go_up.CLAIMS,
    *c09_layerwise_shift.CLAIMS,
)

__all__ = ["CLAIMS", "Bound", "Claim", "Evidence", "NetworkEvidence", "Verdict", "judge"]
