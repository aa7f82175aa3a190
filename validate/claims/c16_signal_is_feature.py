"""C16: the signal is the feature: a plain colour alone gets the classes of the groups that share it.

Images of the sky's colours hold nothing but the background that planes and ships share. Pilot (seeds 100–102, MLP):
planes and ships together get 0.95, 0.96, 0.97 of the probability at the edge, and 0.05 on other colours.
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.windows import Windows

SKY = ("sky", "blue", "sky over blue", "white over sky")
OTHER = ("grey", "black", "red", "orange", "yellow", "grass", "brown", "grass over brown")
SKY_CLASSES = ("plane", "ship")


def sky_probability(evidence: NetworkEvidence, windows: Windows, colours: tuple[str, ...]) -> float:
    """Probability of the sky's classes together, mean over colours and over the probed steps at the edge."""
    run = evidence.run
    if "colour_probability" not in run:
        return float("nan")
    probed = run["probed"].values
    kept = (probed >= windows.edge.start) & (probed < windows.edge.stop)
    if not kept.any():
        return float("nan")
    chosen = run["colour_probability"].isel(probed=kept).sel({"colour": list(colours), "class": list(SKY_CLASSES)})
    return float(np.asarray(chosen.sum("class").mean()))


CLAIMS = (
    Claim(
        name="C16",
        statement="The signal is the feature: plain images of the sky's colours are planes and ships.",
        statistic="probability of plane and ship on four images of sky colours, mean over 150 steps from the crossing",
        bound=Bound(low=0.7),
        control="eight images of other colours",
        measure=each_seed(lambda e, w: sky_probability(e, w, SKY)),
        measure_control=each_seed(lambda e, w: sky_probability(e, w, OTHER)),
        figure="F4",
        needs=("base",),
    ),
)
