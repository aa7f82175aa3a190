"""C11: Adam avoids the bounce.

Adam and gradient descent get to a loss at different steps; they are compared at equal loss (`validate.equal_loss`),
over the stretch of losses that descent goes through at its edge. A smaller step avoids the bounce too: what is claimed
is what Adam does at the step size that its role has. The control is a rule that is as fast, and does not avoid it:
momentum with the step size at which its threshold 2(1 + μ)/η (T13) is that of gradient descent. Ratios are taken as
log₁₀: they differ by orders of magnitude between rules.

Pilot (seeds 100–102, MLP): amplitude −3.7, −3.9, −3.8 (momentum −0.3, −0.5, −1.1); steps along the top eigenvector
−3.0, −2.9, −3.3 (momentum 0.2, 0.5, 0.5).
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.equal_loss import edge_losses, gap_amplitude, steps_between
from validate.windows import Windows


def amplitude_ratio(evidence: NetworkEvidence, windows: Windows, role: str) -> float:
    """log₁₀ of the bounce of a run's own opposing groups over that of gradient descent's at its edge, at equal loss."""
    run = evidence.runs[role]
    steps = steps_between(run, edge_losses(evidence.run, windows))
    if steps is None:
        return float("nan")
    return float(np.log10(gap_amplitude(run, steps) / gap_amplitude(evidence.run, windows.edge)))


def step_ratio(evidence: NetworkEvidence, windows: Windows, role: str) -> float:
    """log₁₀ of the median step along the top eigenvector over that of gradient descent at its edge, at equal loss."""
    run = evidence.runs[role]
    steps = steps_between(run, edge_losses(evidence.run, windows))
    if steps is None:
        return float("nan")
    # A fast rule crosses the losses between two measurements: the last one before counts too.
    at = run["step_measured"].values
    at = at[at < steps.stop]
    inside = run["step_along_top"].values[: len(at)][at >= min(steps.start, at[-1])]
    base = evidence.run.sel(step_measured=slice(windows.edge.start, windows.edge.stop - 1))["step_along_top"]
    return float(np.log10(np.median(inside) / np.median(base.values)))


CLAIMS = (
    Claim(
        name="C11a",
        statement="Adam avoids the bounce: at equal loss its groups hardly trade places.",
        statistic="log₁₀ of the amplitude of the bounce of its leading pair over gradient descent's, at equal loss",
        bound=Bound(high=-2.0),
        control="momentum with the threshold of gradient descent",
        measure=each_seed(lambda e, w: amplitude_ratio(e, w, "adam")),
        measure_control=each_seed(lambda e, w: amplitude_ratio(e, w, "momentum")),
        figure="F10",
        needs=("base", "adam", "momentum"),
    ),
    Claim(
        name="C11b",
        statement="Adam takes smaller steps along the top eigenvector.",
        statistic="log₁₀ of the median step along the top eigenvector over gradient descent's, at equal loss",
        bound=Bound(high=-1.0),
        control="momentum with the threshold of gradient descent",
        measure=each_seed(lambda e, w: step_ratio(e, w, "adam")),
        measure_control=each_seed(lambda e, w: step_ratio(e, w, "momentum")),
        figure="F10",
        needs=("base", "adam", "momentum"),
    ),
)
