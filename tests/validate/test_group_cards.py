"""Cards show what was painted on a group, and nothing where nothing was; corrections are statsmodels' by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.command_line import InputError
from validate.cifar10 import Images, load_embedded
from validate.group_cards import CONTRASTS, FEATURES, GroupCard, adjust, describe, group_card
from validate.opposing_groups import OpposingPair, random_pair_like


def _images(count: int = 600, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 196, (count, 3, 32, 32)).astype(np.uint8)
    return Images(pixels, rng.integers(0, 10, count).astype(np.uint8))


PAIR = OpposingPair(np.arange(20), np.arange(20, 40), 1.0, 1.0)


def _found(images: Images, **options: object) -> set[tuple[str, str]]:
    card = group_card(images, PAIR, np.random.default_rng(0), **options)  # type: ignore[arg-type]
    return {(contrast, feature) for contrast, feature, _, _ in card.findings()}


def test_a_painted_sky_is_found_and_an_unpainted_group_is_not() -> None:
    images = _images()
    assert _found(images) == set()
    images.pixels[:20, 2] = np.minimum(images.pixels[:20, 2] + 30, 255)
    found = _found(images)
    assert {("positive less negative", "blueness"), ("positive less all", "blueness")} <= found
    assert not any(contrast == "negative less all" for contrast, _ in found)
    assert not any(feature in ("frame sharpness", "frame less centre") for _, feature in found)
    assert _found(images, correction="holm") <= found


def test_what_the_labels_explain_is_no_finding_among_the_same_labels() -> None:
    images = _images()
    images.labels[:] = np.arange(600) >= 100
    images.pixels[:100] += 20  # a whole class is brighter, and both groups are of it
    found = _found(images)
    assert {("positive less all", "brightness"), ("negative less all", "brightness")} <= found
    assert _found(images, same_labels=True) == set()
    images.pixels[:20] -= 20  # as bright as the other class: what stands out is only among its own
    assert ("positive less all", "brightness") not in _found(images)
    assert ("positive less all", "brightness") in _found(images, same_labels=True)


def test_random_groups_of_real_images_rarely_have_findings() -> None:
    """The control: with the false-discovery rate at 5 % and nothing to find, about one card in twenty has any."""
    images = load_embedded()
    some = Images(images.pixels[:500], images.labels[:500])
    rng = np.random.default_rng(1)
    with_findings = 0
    for _ in range(40):
        pair = random_pair_like(PAIR, 500, rng)
        with_findings += bool(group_card(some, pair, rng, draws=700).findings())
    # Binomial(40, 0.05) exceeds 6 in 0.3 % of cases.
    assert with_findings <= 6


def test_what_both_groups_share_makes_no_room_for_false_findings_between_them() -> None:
    """Groups at random from images with bright frames differ from all images, and from each other in nothing.

    (Corrected with the contrasts against all images, 7 of 60 such cards had a finding between the two.)
    """
    images = load_embedded()
    bright = np.flatnonzero(describe(images)[:, FEATURES.index("frame brightness")] > 0.75)
    rng = np.random.default_rng(2)
    between = 0
    for _ in range(10):
        of_bright = random_pair_like(PAIR, len(bright), rng)
        pair = OpposingPair(bright[of_bright.positive], bright[of_bright.negative], 1.0, 1.0)
        card = group_card(images, pair, rng, draws=700)
        assert any(contrast != CONTRASTS[0] for contrast, *_ in card.findings())
        found = card.findings(contrasts=CONTRASTS[:1])
        alone = adjust(card.p_values[0], card.correction)  # not of all 33 p-values
        assert sorted((feature, p) for _, feature, _, p in found) == sorted(
            (feature, float(p)) for feature, p in zip(FEATURES, alone, strict=True) if p <= 0.05
        )
        between += bool(found)
    assert between <= 3  # Binomial(10, 0.05) exceeds 3 in 0.1 % of cases


@pytest.mark.parametrize(
    ("options", "words"),
    [({"draws": 0}, "number of draws is 0"), ({"correction": "bonferroni"}, "correction is bonferroni: give one of")],
)
def test_bad_options_of_a_card_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        group_card(_images(), PAIR, np.random.default_rng(0), **options)  # type: ignore[arg-type]


def test_features_of_plain_images_are_their_colours() -> None:
    pixels = np.zeros((3, 3, 32, 32), np.uint8)
    pixels[0] = 255  # white
    pixels[1, 2] = 255  # blue
    pixels[2, :, 4:-4, 4:-4] = 255  # white on a black frame
    features = dict(zip(FEATURES, describe(Images(pixels, np.zeros(3, np.uint8))).T, strict=True))
    assert features["brightness"][:2] == pytest.approx([1.0, 0.114])
    assert features["blueness"] == pytest.approx([0, 2 / 3, 0], abs=1e-12)
    assert features["frame blueness"] == pytest.approx([0, 2 / 3, 0], abs=1e-12)
    assert features["saturation"] == pytest.approx([0, 1, 0], abs=1e-12)
    assert features["frame less centre"] == pytest.approx([0, 0, -1], abs=1e-12)
    assert features["frame brightness"] == pytest.approx([1, 0.114, 0], abs=1e-12)
    # Only frame pixels beside the centre's 96 sides feel the edge.
    assert features["frame sharpness"] == pytest.approx([0, 0, 96 / 448], abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_its_definition_and_never_below_benjamini_hochberg(values: list[float]) -> None:
    m = len(values)
    for p, adjusted in zip(values, adjust(values, "holm"), strict=True):
        # By definition: rejected at level a iff every smaller or equal p_(j) meets p_(j) ≤ a/(m − j + 1).
        ranked = sorted(values)
        bound = max(q * (m - j) for j, q in enumerate(ranked) if q <= p and (q < p or j <= ranked.index(p)))
        assert adjusted == pytest.approx(min(1.0, bound), abs=1e-12)
    assert (adjust(values, "holm") >= adjust(values, "benjamini-hochberg") - 1e-12).all()


def test_cards_hold_counts_and_means() -> None:
    images = _images()
    card = group_card(images, PAIR, np.random.default_rng(0), draws=50)
    assert card.label_counts.sum(1).tolist() == [20, 20]
    np.testing.assert_allclose(card.mean_images[1], images.pixels[20:40].mean(0) / 255)
    assert card.p_values.shape == (len(CONTRASTS), len(FEATURES))
    assert card.p_values.min() >= 1 / 51
    with pytest.raises(InputError):
        group_card(images, OpposingPair(np.arange(2), np.arange(3), 1.0, 1.0), np.random.default_rng(0))


def test_groups_findings_and_p_values_that_cannot_be_are_refused() -> None:
    images, rng = load_embedded(), np.random.default_rng(0)

    def card(positive: list[int], negative: list[int]) -> GroupCard:
        pair = OpposingPair(np.array(positive), np.array(negative), 1.0, 1.0)
        return group_card(images, pair, rng, draws=10)

    for positive, negative in (([0, 1], [2, 99999]), ([1, 1], [2, 3]), ([1], [1]), ([-1], [3])):
        with pytest.raises(InputError, match="an image twice, or one that is none of 2000"):
            card(positive, negative)
    with pytest.raises(InputError, match="contrast is foo: give some of"):
        card([0], [1]).findings(contrasts=("foo",))
    for values, correction, words in (
        ([0.1, 0.2], "foo", "correction is foo"),
        ([1.2, 0.1], "holm", r"p-value is 1\.2"),
        ([np.nan, 0.1], "holm", "p-value is nan"),
    ):
        with pytest.raises(InputError, match=words):
            adjust(values, correction)  # type: ignore[arg-type]
