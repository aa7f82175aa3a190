"""C6: along the top eigenvector the displacement grows by 1 − ηλ a step.

Measured over the stretches of the edge study in which one direction is unstable, with λ at midpoints. The control puts
the eigenvalues of bulk eigenvectors in λ's place: the factor is that of the top eigenvalue and of no other.

With ReLU the measured factor is more negative than 1 − ηλ: autograd's Hessian leaves out the kinks that a whole step
crosses. PILOT6
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.one_direction import stretches
from validate.windows import Windows


def _excess(evidence: NetworkEvidence, windows: Windows) -> float:
    found = stretches(evidence.runs["edge"])
    lr = evidence.runs["edge"].attrs["lr"]
    return float(np.median(found.growth - (1 - lr * found.sharpness))) if found.growth.size else float("nan")


def _bulk_excess(evidence: NetworkEvidence, windows: Windows) -> float:
    edge = evidence.runs["edge"]
    found = stretches(edge)
    bulk = float(np.median(edge["eigenvalue"].values[1:]))
    return float(np.median(found.growth - (1 - edge.attrs["lr"] * bulk))) if found.growth.size else float("nan")


CLAIMS = (
    Claim(
        name="C6",
        statement="Growth factor: along the top eigenvector x_{t+1} = (1 − ηλ) x_t.",
        statistic="slope of x_{t+1} on x_t less 1 − ηλ, median where one direction is unstable",
        bound=Bound(low=-0.25, high=0.25),
        control="eigenvalues of bulk eigenvectors in place of λ (their median)",
        measure=each_seed(_excess),
        measure_control=each_seed(_bulk_excess),
        figure="F7",
        needs=("base", "edge"),
    ),
)
