"""Data sets have the moments, groups and tails asked for; the paper's law keeps its bits."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import pytest
import torch
from moment_check import check_moments

from sim.chebyshev import chebyshev_examples
from sim.heavy_tails import SizeLaw, hill_estimator
from sim.opposing_data import CHUNK, Examples, OpposingLaw, Source, draw_examples
from sim.paired_classes import LabelledExamples, draw_paired_classes
from sim.second_moments import population_moments, sample_moments
from theory import InputError, Model
from theory.model import power_law_covariance

CPU = torch.device("cpu")
PAIRS = Model([7.0, 3.0], [1.0, -2.0, 0.5], [1.0, 0.4, 0.2])


def _whole(*arguments: object, **named: object) -> Examples:
    chunks = list(draw_examples(*arguments, **named))  # type: ignore[arg-type]
    joined = (torch.cat([getattr(c, name) for c in chunks]) for name in ("features", "target", "group"))
    return Examples(*joined, chunks[0].pairs)


def test_the_papers_law_draws_the_bits_it_always_drew() -> None:
    # What finished runs were made from; draws are exact multiples of a size, so no rounding differs by machine.
    examples = _whole(Model([7.0], [1.0], [1.0]), CHUNK + 10, 0.05, 3, CPU)
    digest = hashlib.sha256(examples.group.to(torch.int8).numpy().tobytes()).hexdigest()
    assert digest == "8306a59b913e046377454e846e861804f71210189a36cc50b728bdeb43e03e18"
    sizes = examples.features[:, -1].abs().unique()
    torch.testing.assert_close(sizes, torch.tensor([0.0, np.sqrt(7 / 0.05)], dtype=torch.float64))


@pytest.mark.parametrize(
    "law",
    [
        OpposingLaw(),
        OpposingLaw(plus_share=0.8, noise=0.5),
        OpposingLaw(SizeLaw("pareto", 6.0)),
        OpposingLaw(SizeLaw("student-t", 7.0), plus_share=0.2),
        OpposingLaw(SizeLaw("log-normal", 0.5)),
        OpposingLaw(SizeLaw("stable", 1.2, cutoff=10.0), noise=1.0),
    ],
)
@pytest.mark.parametrize("source", ["sequence", "counters"])
def test_data_have_the_second_moments_asked_for(law: OpposingLaw, source: Literal["sequence", "counters"]) -> None:
    chunks = list(draw_examples(PAIRS, 150_000, [0.1, 0.3], 0, CPU, law, source=source))
    check = check_moments(chunks, population_moments(PAIRS, CPU, law))
    assert check.count == 150_000
    assert check.holds()
    # Control: of a model a few per cent off it does not hold.
    other = Model(PAIRS.alpha * 1.1, PAIRS.beta, PAIRS.covariance)
    assert not check_moments(chunks, population_moments(other, CPU, law)).holds()


def test_deviations_of_moments_are_of_the_size_of_their_standard_errors() -> None:
    checks = [
        check_moments(draw_examples(PAIRS, 2000, 0.3, seed, CPU), population_moments(PAIRS, CPU)) for seed in range(100)
    ]
    upper = np.array([c.gram[np.triu_indices(5)].numpy() for c in checks])
    crossed = upper[:, np.triu_indices(5)[0] * 5 + np.triu_indices(5)[1] == 3 * 5 + 4]
    assert (crossed == 0).all()  # no example is in two pairs: exactly 0, no deviation
    rest = np.delete(upper, np.flatnonzero((upper == 0).all(0)), axis=1)
    assert 0.9 < rest.std() < 1.1
    squares = np.array([c.gram.diagonal().numpy() for c in checks])
    assert 0.9 < squares.std() < 1.1


def test_counters_give_the_same_data_on_every_device_and_chunks_of_their_own(device: torch.device) -> None:
    law = OpposingLaw(SizeLaw("student-t", 3.0), plus_share=0.3, noise=0.2)
    here, there = (_whole(PAIRS, CHUNK + 50, [0.1, 0.3], 4, at, law, source="counters") for at in (CPU, device))
    assert torch.equal(here.group, there.group.cpu())
    torch.testing.assert_close(here.features, there.features.cpu(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(here.target, there.target.cpu(), rtol=1e-9, atol=1e-12)
    assert here.features.unique().numel() > 3 * CHUNK  # the second chunk does not repeat the first
    other = next(draw_examples(PAIRS, 50, [0.1, 0.3], 5, device, law, source="counters"))
    assert not torch.equal(other.features.cpu(), here.features[:50])


def test_outliers_are_in_one_pair_and_as_frequent_and_unequal_as_asked_for() -> None:
    n = 100_000
    examples = _whole(PAIRS, n, [0.1, 0.3], 0, CPU, OpposingLaw(plus_share=0.8))
    opposing = examples.features[:, -2:]
    assert int((opposing != 0).sum(1).max()) == 1
    for group, share in ((1, 0.08), (-1, 0.02), (2, 0.24), (-2, 0.06)):
        here = examples.group == group
        assert abs(float(here.double().mean()) - share) < 5 * np.sqrt(share / n)
        assert (opposing[here, abs(group) - 1].sign() == np.sign(group)).all()
    torch.testing.assert_close(
        examples.target, examples.features[:, :3] @ torch.tensor(PAIRS.beta) + opposing.abs().sum(1)
    )


def test_the_opposing_feature_has_the_tail_index_asked_for() -> None:
    examples = _whole(Model([7.0], [1.0], [1.0]), 400_000, 0.5, 0, CPU, OpposingLaw(SizeLaw("pareto", 2.5)))
    estimate = hill_estimator(examples.features[:, -1], top=20_000)
    assert abs(estimate.index - 2.5) < 5 * estimate.standard_error


def test_noise_stands_apart_from_the_rest() -> None:
    noisy, clean = (_whole(PAIRS, 50_000, 0.1, 0, CPU, OpposingLaw(noise=noise)) for noise in (0.5, 0.0))
    assert torch.equal(noisy.features, clean.features)
    difference = noisy.target - clean.target
    assert float(difference.std()) == pytest.approx(0.5, rel=0.03)


def test_a_group_without_examples_has_moments_nan_and_the_rest_is_whole() -> None:
    moments = sample_moments(draw_examples(PAIRS, 5, [0.5, 1e-9], 0, CPU))
    assert bool(moments["plus 2"].gram.isnan().all())
    assert bool(moments["all"].gram.isfinite().all())


def _classes(*arguments: Any, **options: Any) -> LabelledExamples:
    chunks = list(draw_paired_classes(*arguments, **options))
    return LabelledExamples(*(torch.cat([getattr(c, f.name) for c in chunks]) for f in fields(LabelledExamples)))


@pytest.mark.parametrize("source", ["sequence", "counters"])
def test_paired_classes_share_the_feature_and_not_the_use_of_it(source: Source) -> None:
    n = CHUNK + 20_000
    data = _classes(n, 6, 2, 1.5, 4.0, 0.1, 0, CPU, source=source)
    assert len(data.label) == n
    assert data.features[:, 0].unique().numel() > CHUNK + 19_000  # the second chunk does not repeat the first
    shared = data.features[:, -2:]
    assert set(data.label.tolist()) == {0, 1, 2, 3}
    for pair in (0, 1):
        own = data.label // 2 == pair
        assert (shared[~own, pair] == 0).all()
        assert float((shared[own, pair] ** 2).mean()) == pytest.approx(4.0, rel=0.1)
        for parity, sign in ((0, 1), (1, -1)):
            outliers = data.group == sign * (pair + 1)
            assert (data.label[outliers] == 2 * pair + parity).all()
            # The feature says the pair and nothing of the class: positive in both.
            assert (shared[outliers, pair] > 0).all()
            assert float(outliers.sum()) == pytest.approx(n / 4 * 0.1, rel=0.15)
    assert (shared[data.group == 0] == 0).all()
    for label in range(4):
        assert float(data.features[data.label == label, :6].mean(0).norm()) == pytest.approx(1.5, abs=0.1)


def test_classes_have_the_covariance_and_the_label_noise_asked_for() -> None:
    n, spectrum = 60_000, power_law_covariance(5, 1.0)
    clean = _classes(n, 5, 2, 1.5, 4.0, 0.1, 0, CPU, covariance=spectrum)
    noisy = _classes(n, 5, 2, 1.5, 4.0, 0.1, 0, CPU, covariance=spectrum, label_noise=0.3)
    for label in range(4):
        own = clean.features[clean.label == label, :5]
        torch.testing.assert_close(torch.cov(own.T), torch.diag(torch.tensor(spectrum)), rtol=0, atol=0.05)
        # A replaced label is each of the others equally often.
        given_labels = noisy.label[clean.label == label].bincount(minlength=4).double() * 4 / n
        assert float(given_labels[label]) == pytest.approx(0.7, abs=0.03)
        assert float(given_labels.min()) == pytest.approx(0.1, abs=0.03)
    # The noise touches the labels alone, and comes after all other draws.
    assert torch.equal(noisy.features, clean.features)
    assert torch.equal(noisy.group, clean.group)
    plain = _classes(n, 5, 2, 1.5, 4.0, 0.1, 0, CPU)
    identity = _classes(n, 5, 2, 1.5, 4.0, 0.1, 0, CPU, covariance=np.ones(5))
    assert torch.equal(plain.features, identity.features)


def test_the_same_seed_gives_the_same_classes_on_every_device(device: torch.device) -> None:
    sizes = SizeLaw("pareto", 3.0)
    here, there = (_classes(CHUNK + 100, 3, 1, 1.0, 2.0, 0.3, 5, at, sizes) for at in (CPU, device))
    assert torch.equal(here.features, there.features.cpu())
    assert torch.equal(here.label, there.label.cpu())


def test_classes_from_counters_are_the_same_on_every_device_and_a_chunk_needs_none_before_it(
    device: torch.device,
) -> None:
    arguments = (3, 1, 1.0, 2.0, 0.3, 5)
    here, there = (_classes(CHUNK + 50, *arguments, at, label_noise=0.2, source="counters") for at in (CPU, device))
    assert torch.equal(here.label, there.label.cpu())
    assert torch.equal(here.group, there.group.cpu())
    torch.testing.assert_close(here.features, there.features.cpu(), rtol=1e-12, atol=1e-12)
    alone = _classes(CHUNK, *arguments, CPU, label_noise=0.2, source="counters")
    assert torch.equal(here.features[:CHUNK], alone.features)


def test_the_chebyshev_target_is_the_cosine_of_the_multiple_angle() -> None:
    x, y = chebyshev_examples(41, 5, CPU, torch.float64)
    assert x.shape == y.shape == (41, 1)
    torch.testing.assert_close(y, torch.cos(5 * torch.arccos(x)), rtol=0, atol=1e-12)
    assert chebyshev_examples(3, 1, CPU)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((PAIRS, 0, 0.1, 0, CPU), "examples is 0"),
        ((PAIRS, 9, 0.0, 0, CPU), "fraction of outliers is 0.0"),
        ((PAIRS, 9, 0.6, 0, CPU), "above 1 together"),
        ((PAIRS, 9, [0.1], 0, CPU), "1 fractions of outliers for 2 pairs"),
        ((Model([], [1.0], [1.0]), 9, 0.1, 0, CPU), "no opposing pair"),
    ],
)
def test_data_that_cannot_be_are_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        next(draw_examples(*arguments))  # type: ignore[arg-type]


def test_laws_and_sets_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"share of the plus group is 1\.5"):
        OpposingLaw(plus_share=1.5)
    with pytest.raises(InputError, match="noise is -1"):
        OpposingLaw(noise=-1.0)
    with pytest.raises(InputError, match="pairs is 0"):
        _classes(10, 3, 0, 1.0, 1.0, 0.1, 0, CPU)
    with pytest.raises(InputError, match=r"label noise is 1\.5"):
        _classes(10, 3, 1, 1.0, 1.0, 0.1, 0, CPU, label_noise=1.5)
    with pytest.raises(InputError, match=r"covariance has shape \(2,\)"):
        _classes(10, 3, 1, 1.0, 1.0, 0.1, 0, CPU, covariance=[1.0, 2.0])
    with pytest.raises(InputError, match=r"covariance is -1\.0"):
        _classes(10, 3, 1, 1.0, 1.0, 0.1, 0, CPU, covariance=[1.0, -1.0, 2.0])
    with pytest.raises(InputError, match="fraction of outliers is 2"):
        _classes(10, 3, 1, 1.0, 1.0, 2.0, 0, CPU)
    with pytest.raises(InputError, match="degree -1"):
        chebyshev_examples(10, -1, CPU)
