"""C15: the opposing examples have outsized features, from the start on.

The norm of the penultimate features is compared with the median over all examples. At the start the network is random,
so the excess there is the images': large means large in the input. Pilots: docs/edge_study.md. Classes differ in it, so
that the control has the pair's labels; until the evening of 29 November 2026 it had any.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.pairs import leading_pair
from validate.opposing_groups import random_pair_of_same_labels
from validate.windows import Windows

DRAWS = 500


def excess_norm(norms: npt.ArrayLike, members: npt.NDArray[np.int64]) -> float:
    """Mean norm of some examples over the median of all; norms (n,)."""
    values = np.asarray(norms, dtype=np.float64)
    return float(values[members].mean() / np.median(values))


def _norms(evidence: NetworkEvidence, windows: Windows, *, start: bool) -> npt.NDArray[np.float64] | None:
    """(n,) norms at the first probed step, or their means over the probed steps not used to choose; None where none."""
    if "feature_norm" not in evidence.run:
        return None
    probed = evidence.run["probed"].values
    kept = probed == 0 if start else (probed >= windows.evaluate.start) & (probed < windows.evaluate.stop)
    return evidence.run["feature_norm"].values[kept].mean(0, dtype=np.float64) if kept.any() else None


def _excess(evidence: NetworkEvidence, windows: Windows, *, start: bool) -> float:
    norms, pair = _norms(evidence, windows, start=start), leading_pair(evidence, windows)
    return float("nan") if norms is None else excess_norm(norms, np.concatenate([pair.positive, pair.negative]))


def _random_excess(evidence: NetworkEvidence, windows: Windows, *, start: bool) -> float:
    norms, pair = _norms(evidence, windows, start=start), leading_pair(evidence, windows)
    if norms is None:
        return float("nan")
    rng, labels = np.random.default_rng(evidence.seed), evidence.run["label"].values
    drawn = [random_pair_of_same_labels(pair, labels, rng) for _ in range(DRAWS)]
    return float(np.quantile([excess_norm(norms, np.concatenate([p.positive, p.negative])) for p in drawn], 0.95))


CONTROL = "random groups with the same labels (95th percentile of 500)"

CLAIMS = (
    Claim(
        name="C15a",
        statement="Outsized features: in the untrained network the opposing examples already have large features.",
        statistic="mean norm of the groups' penultimate features over the median of all, at the start",
        bound=Bound(low=1.15),
        control=CONTROL,
        measure=each_seed(lambda e, w: _excess(e, w, start=True)),
        measure_control=each_seed(lambda e, w: _random_excess(e, w, start=True)),
        figure="F4",
        needs=("base",),
    ),
    Claim(
        name="C15b",
        statement="Outsized features: at the edge the opposing examples have large features.",
        statistic="mean norm of the groups' penultimate features over the median of all, on steps not used to choose",
        bound=Bound(low=1.18),
        control=CONTROL,
        measure=each_seed(lambda e, w: _excess(e, w, start=False)),
        measure_control=each_seed(lambda e, w: _random_excess(e, w, start=False)),
        figure="F4",
        needs=("base",),
    ),
)
