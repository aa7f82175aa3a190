"""The claims, one module each: statistic, threshold, control."""

from validate.claims import (
    c01_edge_of_stability,
    c02_onset,
    c03_period_two,
    c04_opposite_phase,
    c05_opposing_gradients,
    c06_growth_factor,
    c07_heavy_tail,
    c08_half_go_up,
    c09_layerwise_shift,
    c10_cause,
    c11_adam,
    c12_split_sgd,
    c13_normalisation,
    c14_oscillation_variance,
    c15_outsized_features,
    c16_signal_is_feature,
    statements,
)
from validate.claims.base import Bound, Claim, Evidence, NetworkEvidence, Verdict, judge

CLAIMS: tuple[Claim, ...] = (
    *statements.CLAIMS,
    *c01_edge_of_stability.CLAIMS,
    *c02_onset.CLAIMS,
    *c03_period_two.CLAIMS,
    *c04_opposite_phase.CLAIMS,
    *c05_opposing_gradients.CLAIMS,
    *c06_growth_factor.CLAIMS,
    *c07_heavy_tail.CLAIMS,
    *c08_half_go_up.CLAIMS,
    *c09_layerwise_shift.CLAIMS,
    *c10_cause.CLAIMS,
    *c11_adam.CLAIMS,
    *c12_split_sgd.CLAIMS,
    *c13_normalisation.CLAIMS,
    *c14_oscillation_variance.CLAIMS,
    *c15_outsized_features.CLAIMS,
    *c16_signal_is_feature.CLAIMS,
)

__all__ = ["CLAIMS", "Bound", "Claim", "Evidence", "NetworkEvidence", "Verdict", "judge"]
