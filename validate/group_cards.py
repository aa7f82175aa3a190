"""Cards of opposing groups: their labels, their mean images, and what sets the two halves apart.

Each image is described by a few numbers (`describe`). A group's mean of each is compared with that of many random
groups of the same size, which gives a p-value without any assumption about the images; the p-values of all features and
contrasts that are asked for are corrected together for their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from theory.command_line import InputError, require_all, require_positive
from validate.cifar10 import CLASSES, Images
from validate.opposing_groups import OpposingPair

Array = npt.NDArray[np.float64]
Correction = Literal["holm", "benjamini-hochberg"]

FRAME = 4
"""Width in pixels of the frame that stands for the background."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""

FEATURES = (
    "brightness",
    "contrast",
    "redness",
    "greenness",
    "blueness",
    "saturation",
    "frame brightness",
    "frame contrast",
    "frame sharpness",
    "frame blueness",
    "frame less centre",
)
CONTRASTS = ("positive less negative", "positive less all", "negative less all")


@dataclass(frozen=True)
class GroupCard:
    """What a pair of groups looks like. F features, in the order of `FEATURES`; contrasts in that of `CONTRASTS`.

    Attributes:
        label_counts: (2, 10) images of each class in the positive and the negative group.
        mean_images: (2, 3, 32, 32) mean images in [0, 1].
        means: (2, F) each group's mean features.
        effects: (3, F) contrasts in standard deviations of the feature over all images; 0 where it does not vary.
        p_values: (3, F) two-sided, against random groups: (1 + #{random at least as far}) / (1 + draws).
        correction: for the number of p-values. Holm bounds the chance of any false finding, Benjamini–Hochberg the
            share of false ones.
    """

    label_counts: npt.NDArray[np.int64]
    mean_images: Array
    means: Array
    effects: Array
    p_values: Array
    correction: Correction

    def findings(
        self, level: float = 0.05, contrasts: Sequence[str] = CONTRASTS
    ) -> list[tuple[str, str, float, float]]:
        """(contrast, feature, effect, adjusted p) where the adjusted p is at most the level, largest effect first.

        The p-values of all contrasts asked for are corrected together: what both groups share, true findings against
        all images, would with Benjamini–Hochberg make room for false ones between the two.

        Raises:
            InputError: there is no such contrast.
        """
        for contrast in contrasts:
            if contrast not in CONTRASTS:
                raise InputError(f"contrast is {contrast}: give some of {', '.join(CONTRASTS)}")
        rows = [CONTRASTS.index(contrast) for contrast in contrasts]
        adjusted = adjust(self.p_values[rows], self.correction)
        found = [
            (CONTRASTS[i], feature, float(self.effects[i, j]), float(p))
            for i, of_contrast in zip(rows, adjusted, strict=True)
            for j, (feature, p) in enumerate(zip(FEATURES, of_contrast, strict=True))
            if p <= level
        ]
        return sorted(found, key=lambda finding: -abs(finding[2]))


def group_card(
    images: Images,
    pair: OpposingPair,
    rng: np.random.Generator,
    *,
    draws: int = 2000,
    same_labels: bool = False,
    correction: Correction = "benjamini-hochberg",
) -> GroupCard:
    """The card of a pair.

    Args:
        images: all images that the pair was chosen from.
        pair: the groups.
        rng: of the random groups.
        draws: number of random pairs. No p-value is below 1/(draws + 1): with Holm over 3F of them, 2,000 can show a
            difference at 0.05.
        same_labels: random groups have the pair's labels, example by example: what then stands out goes beyond which
            classes the groups hold. Otherwise any labels.
        correction: for the number of p-values.

    Raises:
        InputError: the groups are empty, of different size, or hold an image twice or one that is not there, or a
            number or name is out of its range.
    """
    require_positive("number of draws", draws)
    _require_correction(correction)
    if len(pair.positive) != len(pair.negative) or not len(pair.positive):
        raise InputError(f"groups have {len(pair.positive)} and {len(pair.negative)} images: give as many, at least 1")
    sides = np.stack([pair.positive, pair.negative])
    if len(np.unique(sides)) < sides.size or not 0 <= sides.min() <= sides.max() < len(images.labels):
        raise InputError(
            f"groups hold an image twice, or one that is none of {len(images.labels)}: give different indices of images"
        )
    features = describe(images)
    drawn = _draw(images.labels, sides, rng, draws, same_labels)
    own = _contrasts(features, sides[None])[0]
    chance = _contrasts(features, drawn)
    if same_labels:
        # Those labels have another mean than all images: what is far is far from the groups of the same labels.
        middle = chance.mean(0)
        own, chance = own - middle, chance - middle
    # Equal up to rounding counts as equal: features of few values, and groups of one, have ties.
    far = np.abs(chance) >= np.abs(own) * (1 - 1e-9)
    p_values = (1 + far.sum(0)) / (1 + draws)
    deviation = features.std(0)
    effects = np.divide(own, deviation, out=np.zeros_like(own), where=deviation > 1e-12)
    pixels = images.pixels[sides] / 255.0
    return GroupCard(
        label_counts=np.stack([np.bincount(images.labels[side], minlength=len(CLASSES)) for side in sides]),
        mean_images=np.asarray(pixels.mean(1)),
        means=np.asarray(features[sides].mean(1)),
        effects=effects,
        p_values=p_values,
        correction=correction,
    )


def adjust(p_values: npt.ArrayLike, correction: Correction) -> Array:
    """P-values corrected for their number, in their shape.

    Raises:
        InputError: one is not within 0 and 1, or there is no such correction.

    >>> adjust([0.01, 0.04, 0.03], "holm"), adjust([0.01, 0.04, 0.03], "benjamini-hochberg")
    (array([0.03, 0.06, 0.06]), array([0.03, 0.04, 0.04]))
    """
    _require_correction(correction)
    values = np.asarray(p_values, dtype=np.float64)
    require_all("p-value", values, (values >= 0) & (values <= 1), "numbers from 0 to 1")
    flat = values.ravel()
    if correction == "benjamini-hochberg":
        return np.asarray(stats.false_discovery_control(flat)).reshape(values.shape)
    # Holm 1979: the j-th smallest of m is multiplied by m − j + 1; an adjusted value is never below a smaller one's.
    order = np.argsort(flat, kind="stable")
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(flat.size, 0, -1)), 1.0)
    return adjusted.reshape(values.shape)


def _require_correction(correction: str) -> None:
    if correction not in get_args(Correction):
        raise InputError(f"correction is {correction}: give one of {', '.join(get_args(Correction))}")


def describe(images: Images) -> Array:
    """(n, F) features of each image, pixels in [0, 1].

    Brightness is the mean luma; contrast its deviation over pixels. Redness, greenness and blueness are the channel's
    mean less the three channels' mean. Saturation is the mean over pixels of the largest less the smallest channel. The
    frame is the outermost `FRAME` pixels: its brightness, contrast and blueness likewise; its sharpness is the mean
    size of the luma's Laplacian there; and the frame's brightness less that of the rest.
    """
    rows = [_describe_some(images.pixels[begin : begin + 1000]) for begin in range(0, len(images.pixels), 1000)]
    return np.concatenate(rows)


def _describe_some(pixels: npt.NDArray[np.uint8]) -> Array:
    colours = pixels / 255.0
    luma = np.tensordot(colours, np.array(LUMA), axes=(1, 0))
    channels = colours.mean((2, 3))
    tint = channels - channels.mean(1, keepdims=True)
    frame = np.ones(luma.shape[1:], dtype=bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    # Laplacian with the border repeated: no edge is invented where the image ends.
    sharpness = np.abs(ndimage.laplace(luma, mode="nearest", axes=(1, 2)))
    framed = colours[:, :, frame].mean(2)
    return np.stack(
        [
            luma.mean((1, 2)),
            luma.std((1, 2)),
            *tint.T,
            (colours.max(1) - colours.min(1)).mean((1, 2)),
            luma[:, frame].mean(1),
            luma[:, frame].std(1),
            sharpness[:, frame].mean(1),
            framed[:, 2] - framed.mean(1),
            luma[:, frame].mean(1) - luma[:, ~frame].mean(1),
        ],
        axis=1,
    )


def _draw(
    labels: npt.NDArray[np.uint8], sides: npt.NDArray[np.int64], rng: np.random.Generator, draws: int, same: bool
) -> npt.NDArray[np.int64]:
    """(draws, 2, m) indices of random groups; with the sides' labels each side draws without putting back."""
    n, m = len(labels), sides.shape[1]
    if not same:
        return np.stack([rng.permutation(n)[: 2 * m].reshape(2, m) for _ in range(draws)])
    drawn = np.empty((draws, 2, m), dtype=np.int64)
    wanted = labels[sides]
    for label in np.unique(wanted):
        members, places = np.flatnonzero(labels == label), wanted == label
        for row in drawn:
            row[places] = rng.permutation(members)[: places.sum()]
    return drawn


def _contrasts(features: Array, sides: npt.NDArray[np.int64]) -> Array:
    """(draws, 3, F) contrasts of (draws, 2, m) groups."""
    means = features[sides].mean(2)
    whole = features.mean(0)
    return np.stack([means[:, 0] - means[:, 1], means[:, 0] - whole, means[:, 1] - whole], axis=1)
