"""C10, cause: without the opposing examples the network is flatter at the same loss, and reaches 2/η later.

Four runs from one start: with all examples, and without a tenth of them: those that carry most of the loss changes at
the base run's edge, as many at random with the same labels, and as many of the highest loss before the edge. Removed
examples have weight 0 in the loss that is minimised and whose sharpness is measured. "The same loss" is the mean over
the examples that all four runs keep, at the value that the base run has when it crosses 2/η. There the base run's
iterates may swing already, so that its sharpness is taken at midpoints of steps (`validate.equal_loss`); it was at
iterates, between measurements, until 28 November 2026, and the treated runs' was until the 29th. Crossings are those
of iterates, between measurements: by midpoints, tried on the evening of 29 November, a run that swings at its edge just
below 2/η counts as one that never gets there.

Pilot (seeds 100–102, MLP): sharpness 0.61, 0.59, 0.64 (random 0.80, 0.83, 0.90; hardest 0.94, 0.94, 0.99);
crossing 1.3, 2.1, 1.9 (random 1.13, 1.04, 1.12; hardest 0.87, 0.87, 0.88). Random examples of the same labels thin out
the classes that oppose each other: that alone does a part of what the opposing examples do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.equal_loss import least_loss, sharpness_ratio
from validate.windows import Windows, reached_edge

OPPOSING, RANDOM, HARDEST = "without_opposing", "without_random", "without_hardest"
LATER = 1.2
CONTROLS = {RANDOM: "as many at random, with the same labels", HARDEST: "as many of the highest loss before the edge"}


def kept_by_all(evidence: NetworkEvidence) -> npt.NDArray[np.bool_]:
    """(n,) examples with a full weight in each of the runs compared."""
    kept = np.ones(evidence.run.sizes["example"], dtype=bool)
    for role in (OPPOSING, *CONTROLS):
        kept &= evidence.runs[role]["example_weight"].values > 0
    return kept


def flatness(evidence: NetworkEvidence, windows: Windows, role: str) -> float:
    """Sharpness of a run over that of the base run, when both have the loss at which the base run crosses."""
    kept = kept_by_all(evidence)
    loss = least_loss(evidence.run, kept, windows.crossing + 1)
    return sharpness_ratio(evidence.runs[role], evidence.run, loss, kept)


def crossing_ratio(evidence: NetworkEvidence, role: str) -> float:
    """Step at which a run gets to 2/η over the base run's; a run that never does counts with its length.

    NaN where the base run never does, and where a run that never does is too short to say that it is later by as much
    as is claimed.
    """
    run: xr.Dataset = evidence.runs[role]
    own, of_base = reached_edge(run), reached_edge(evidence.run)
    if of_base is None:
        return float("nan")
    ratio = (run.sizes["step"] if own is None else own) / of_base
    return float("nan") if own is None and ratio < LATER else ratio


CLAIMS = tuple(
    claim
    for letters, (role, control) in zip(("ab", "cd"), CONTROLS.items(), strict=True)
    for claim in (
        Claim(
            name=f"C10{letters[0]}",
            statement="Cause: without the opposing tenth of the examples, the network is flatter at equal loss.",
            statistic="sharpness over the base run's, at the loss at which that crosses 2/η, on examples kept by all",
            bound=Bound(high=0.7),
            control=control,
            measure=each_seed(lambda e, w: flatness(e, w, OPPOSING)),
            measure_control=each_seed(lambda e, w, role=role: flatness(e, w, role)),  # type: ignore[misc]
            figure="F13",
            needs=("base", OPPOSING, RANDOM, HARDEST),
        ),
        Claim(
            name=f"C10{letters[1]}",
            statement="Cause: without the opposing tenth of the examples, the network reaches 2/η later.",
            statistic="step at which iterates get to 2/η over the base run's; never counts as the run's length",
            bound=Bound(low=LATER),
            control=control,
            measure=each_seed(lambda e, _: crossing_ratio(e, OPPOSING)),
            measure_control=each_seed(lambda e, _, role=role: crossing_ratio(e, role)),  # type: ignore[misc]
            figure="F13",
            needs=("base", OPPOSING, RANDOM, HARDEST),
        ),
    )
)
