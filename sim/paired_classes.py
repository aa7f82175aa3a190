"""Classification with opposing signals: classes in pairs that share a large, rare feature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.heavy_tails import SizeLaw
from sim.opposing_data import Source, numbered_chunks
from sim.random_numbers import CounterNumbers, RandomNumbers, SequentialNumbers
from theory.command_line import InputError, require_all, require_positive

_CLASSES_STREAM = 1 << 62
"""Counters of the classes' means; chunks have the small numbers."""


@dataclass(frozen=True)
class LabelledExamples:
    """Examples of 2J classes; classes 2j − 2 and 2j − 1 share the j-th feature, j = 1…J.

    Attributes:
        features: (n, d1 + J) ordinary features, then one shared feature a pair, zero off the outliers.
        label: (n,) class indices 0…2J − 1 as given to the learner, noise included.
        group: (n,) 0 off the outliers; +j and −j on the outliers of the even and the odd class of pair j, by the class
            that the example was drawn from.
    """

    features: Tensor
    label: Tensor
    group: Tensor


def draw_paired_classes(
    count: int,
    features: int,
    pairs: int,
    separation: float,
    alpha: float,
    fraction: float,
    seed: int,
    device: torch.device,
    sizes: SizeLaw | None = None,
    *,
    covariance: npt.ArrayLike | None = None,
    label_noise: float = 0.0,
    source: Source = "sequence",
    over_ranks: bool = False,
) -> Iterator[LabelledExamples]:
    """Draws, chunk by chunk, examples whose class lies in the ordinary features; the large feature says the pair alone.

    Ordinary features are N(μ_class, Σ) with μ_class a random vector of norm `separation`. With probability p an example
    also carries its pair's feature √(α/p) X, of the same sign in both classes (a bright sky behind planes and birds):
    the two classes want opposite use of it.

    Args:
        count: number of examples n.
        features: number of ordinary features d1.
        pairs: number J of pairs of classes.
        separation: norm of the classes' means.
        alpha: second moment α of the shared feature within its pair.
        fraction: p, the fraction of outliers within each class.
        seed: seed of the random numbers.
        device: where the examples are put.
        sizes: law of the outliers' sizes; two-point when not given.
        covariance: (d1,) eigenvalues of Σ, as `theory.model.power_law_covariance` gives; the identity when not given.
        label_noise: share of labels that are replaced by another class, each of the others equally likely.
        source: where random numbers come from, as in `sim.opposing_data.draw_examples`.
        over_ranks: whether to draw only this rank's share of the chunks; from counters.

    Raises:
        InputError: a number is out of its range, or the covariance does not fit.
    """
    for name, value in (("examples", count), ("features", features), ("pairs", pairs), ("alpha", alpha)):
        require_positive(name, value)
    require_positive("separation", separation, zero_allowed=True)
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of outliers is {fraction}: give a number above 0 and at most 1")
    if not 0 <= label_noise <= 1:
        raise InputError(f"label noise is {label_noise}: give the share of labels to replace, from 0 to 1")
    variances = np.ones(features) if covariance is None else np.asarray(covariance, dtype=np.float64)
    if variances.shape != (features,):
        raise InputError(f"covariance has shape {variances.shape}: give {features} eigenvalues, one a feature")
    require_all("covariance", variances, variances >= 0, "eigenvalues of at least 0")
    generator = torch.Generator().manual_seed(seed)
    classes = CounterNumbers(seed, _CLASSES_STREAM, device) if source == "counters" else SequentialNumbers(generator)
    means = classes.normal_(torch.empty(2 * pairs, features, dtype=torch.float64, device=classes.device))
    means *= separation / means.norm(dim=1, keepdim=True)
    deviations = torch.from_numpy(variances).sqrt()
    scale, law = math.sqrt(alpha / fraction), sizes or SizeLaw()
    for n, numbers in numbered_chunks(count, seed, device, generator, source, over_ranks=over_ranks):
        drawn = _draw_chunk(n, means, deviations, fraction, scale, law, label_noise, numbers)
        yield LabelledExamples(*(part.to(device) for part in drawn))


def _draw_chunk(
    n: int,
    means: Tensor,
    deviations: Tensor,
    fraction: float,
    scale: float,
    sizes: SizeLaw,
    label_noise: float,
    numbers: RandomNumbers,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, label and group of n examples, on the numbers' device."""
    classes, ordinary = means.shape
    label = _below(classes, numbers, n)
    x = numbers.normal_(torch.empty(n, ordinary, dtype=torch.float64, device=numbers.device))
    x = x * deviations.to(numbers.device) + means[label]
    rows = (numbers.uniform(n) < fraction).nonzero().squeeze(1)
    pair = label[rows] // 2
    shared = torch.zeros(n, classes // 2, dtype=torch.float64, device=numbers.device)
    shared[rows, pair] = scale * sizes.draw(len(rows), numbers)
    group = torch.zeros(n, dtype=torch.int64, device=numbers.device)
    group[rows] = torch.where(label[rows] % 2 == 0, 1, -1) * (pair + 1)
    if label_noise:
        wrong = numbers.uniform(n) < label_noise
        label = torch.where(wrong, (label + 1 + _below(classes - 1, numbers, n)) % classes, label)
    return torch.cat([x, shared], 1), label, group


def _below(bound: int, numbers: RandomNumbers, count: int) -> Tensor:
    """(count,) whole numbers from 0 to bound − 1, equally likely but for the rounding of 53 bits."""
    # clamp: u·bound may round up to the bound.
    return (numbers.uniform(count) * bound).long().clamp_(max=bound - 1)
