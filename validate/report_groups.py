"""What the report tells of the opposing groups, as report.json has it: pairs by both rules, stability, the score."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from validate.anchored_scores import score_json
from validate.cifar10 import CLASSES, Images
from validate.claims import NetworkEvidence
from validate.claims.c04_opposite_phase import same_label_phase
from validate.opposing_groups import OpposingPair, Stability, overlap, singular_pairs, stability, top_change_pair
from validate.opposing_score import score_of_run
from validate.report_content import NetworkPart
from validate.report_words import finite_or_none


def groups_json(part: NetworkPart) -> list[dict[str, Any]]:
    """The pairs found in the selection window of each seed that crosses, by both rules, with their labels."""
    return [{"network": part.evidence.kind, **_of_seed(e, part.chosen)} for e in _crossing(part)]


def stability_json(part: NetworkPart) -> dict[str, Any] | None:
    """How far leading pairs are the same examples from one window to the next, and from seed to seed; None without any.

    ``windows``: for each seed, the share of the leading pair of the selection window that a pair of the window after it
    holds, and the other way round, their mean. ``seeds``: the same between the selection windows of all seeds, on the
    same images; null for one seed. ``chance``: the same for random groups.
    """
    seeds = _crossing(part)
    if not seeds:
        return None
    rng, n = np.random.default_rng(0), len(part.chosen.labels)
    first, later = ([_pairs(e, window) for e in seeds] for window in ("select", "evaluate"))
    windows: list[Stability] = [stability([a, b], n, rng) for a, b in zip(first, later, strict=True)]
    between = stability(first, n, rng)
    return {
        "network": part.evidence.kind,
        "windows": {str(e.seed): found.mean for e, found in zip(seeds, windows, strict=True)},
        "seeds": finite_or_none(between.mean),
        "chance": between.chance,
    }


def _crossing(part: NetworkPart) -> list[NetworkEvidence]:
    """The seeds whose base run is there and crosses 2/η."""
    return [e for e in part.evidence.networks if e.windows is not None and "base" in e.runs]


def _pairs(evidence: NetworkEvidence, window: str) -> list[OpposingPair]:
    return singular_pairs(evidence.run["loss"][getattr(evidence.windows, window)])


def _of_seed(evidence: NetworkEvidence, images: Images) -> dict[str, Any]:
    assert evidence.windows is not None
    pairs = _pairs(evidence, "select")
    step, top = top_change_pair(evidence.run["loss"][evidence.windows.select].values)
    return {
        "seed": evidence.seed,
        "crossing_step": evidence.windows.crossing,
        "singular_pairs": [_pair_json(pair, images) for pair in pairs],
        "top_20_rule": {"step": evidence.windows.select.start + step, **_pair_json(top, images)},
        "overlap_of_rules": overlap(pairs[0], top),
        "same_label_phase": finite_or_none(same_label_phase(evidence, evidence.windows)),
        "opposing_score": _score_json(evidence),
    }


def _score_json(evidence: NetworkEvidence) -> dict[str, Any] | None:
    """The opposing-signal score of a seed's run, with its interval over resampled examples."""
    score = score_of_run(evidence.run, np.random.default_rng(evidence.seed))
    return None if score is None else score_json(score)


def _pair_json(pair: OpposingPair, images: Images) -> dict[str, Any]:
    return {
        "strength": pair.strength,
        "energy_share": finite_or_none(pair.energy),
        "positive": pair.positive.tolist(),
        "positive_classes": _class_counts(pair.positive, images),
        "negative": pair.negative.tolist(),
        "negative_classes": _class_counts(pair.negative, images),
    }


def _class_counts(group: Any, images: Images) -> dict[str, int]:
    return dict(Counter(CLASSES[label] for label in images.labels[group]).most_common())
