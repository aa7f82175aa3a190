"""Synthetic examples with opposing features: large, rare, and of a sign that says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sim.distributed import own
from sim.heavy_tails import SizeLaw
from sim.random_numbers import CounterNumbers, RandomNumbers, SequentialNumbers
from theory import Model
from theory.command_line import InputError, require_positive


@dataclass(frozen=True)
class Examples:
    """A set of examples in the model's eigenbasis.

    Attributes:
        features: (n, d1 + J) ordinary features x, then each pair's opposing feature uᵀx_o.
        target: (n,) y = βᵀx + Σ_j |u_jᵀx_o|, plus label noise where there is some.
        group: (n,) 0 off the outliers, ±j on the two groups of the j-th pair, j = 1…J; the sign is the feature's.
        pairs: number J of opposing pairs.
    """

    features: Tensor
    target: Tensor
    group: Tensor
    pairs: int = 1


@dataclass(frozen=True)
class OpposingLaw:
    """How opposing features and labels are drawn, beyond their second moment and how rare they are.

    Attributes:
        sizes: law of an outlier's size.
        plus_share: share of outliers with a positive sign; ½ makes the groups equal.
        noise: standard deviation of Gaussian label noise.

    Raises:
        InputError: a number is out of its range.
    """

    sizes: SizeLaw = field(default_factory=SizeLaw)
    plus_share: float = 0.5
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.plus_share <= 1:
            raise InputError(f"share of the plus group is {self.plus_share}: give a number from 0 to 1")
        require_positive("noise", self.noise, zero_allowed=True)


TWO_POINT = OpposingLaw()
"""The paper's law: every outlier has the same size, the groups are equal, labels have no noise."""

Source = Literal["sequence", "counters"]

CHUNK = 1 << 16
"""Examples held at once. Part of what a seed means: another size would draw other examples."""


def draw_examples(
    model: Model,
    count: int,
    fraction: float | Sequence[float],
    seed: int,
    device: torch.device,
    law: OpposingLaw = TWO_POINT,
    *,
    source: Source = "sequence",
    over_ranks: bool = False,
) -> Iterator[Examples]:
    """Draws examples chunk by chunk; the same seed gives the same examples on every device.

    x ~ N(0, Σ). With probability p_j an example is an outlier of pair j, and of no other pair: its opposing feature is
    ±√(α_j/p_j) X, with X of the size law and of second moment 1, so that the feature's second moment is α_j.

    Args:
        model: second moments and target, with any number of opposing pairs.
        count: number of examples n.
        fraction: p_j, the fraction of outliers of each pair; one number stands for every pair.
        seed: seed of the random numbers.
        device: where the examples are put.
        law: sizes, imbalance of the groups and label noise.
        source: ``sequence`` draws on the CPU, in order, and moves the chunks: the same bits everywhere. ``counters``
            makes every chunk on the device, by itself (`sim.random_numbers`): groups and signs are the same
            everywhere, features to rounding. The two give different examples from one seed.
        over_ranks: whether to draw only this rank's share of the chunks; from counters.

    Raises:
        InputError: count or a fraction is out of range, or the fractions are not one a pair.
    """
    require_positive("examples", count)
    fractions = pair_fractions(model, fraction)
    generator = torch.Generator().manual_seed(seed)
    buffer = torch.empty(0, dtype=torch.float64)
    for n, numbers in numbered_chunks(count, seed, device, generator, source, over_ranks=over_ranks):
        if len(buffer) < n:
            # One for all chunks: fresh memory costs a quarter of the time that the normal numbers in it take.
            buffer = torch.empty(n, model.beta.size, dtype=torch.float64, device=numbers.device)
        features, target, group = _draw_chunk(model, fractions, law, numbers, buffer[:n])
        yield Examples(features.to(device), target.to(device), group.to(device), len(fractions))


def numbered_chunks(
    count: int,
    seed: int,
    device: torch.device,
    generator: torch.Generator,
    source: Source,
    *,
    over_ranks: bool,
) -> Iterator[tuple[int, RandomNumbers]]:
    """Number of examples of each chunk, and the random numbers that it is drawn from.

    Args:
        count: number of examples of all chunks.
        seed: seed of the counters.
        device: where numbers from counters are made.
        generator: whose sequence is gone on with otherwise.
        source: ``sequence`` or ``counters``.
        over_ranks: whether to give this rank's share of the chunks only.

    Raises:
        InputError: ranks are to share a sequence.
    """
    if over_ranks and source != "counters":
        raise InputError(f"source is {source}, of which no rank can draw its chunks alone: give counters")
    starts = range(0, count, CHUNK)
    for begin in own(starts) if over_ranks else starts:
        by_counters = source == "counters"
        numbers = CounterNumbers(seed, begin // CHUNK, device) if by_counters else SequentialNumbers(generator)
        yield min(CHUNK, count - begin), numbers


def _draw_chunk(
    model: Model, fractions: list[float], law: OpposingLaw, numbers: RandomNumbers, buffer: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, target and group of as many examples as the buffer (n, d1) has rows, on the numbers' device."""
    device, (n, ordinary) = numbers.device, buffer.shape
    p = torch.tensor(fractions, dtype=torch.float64, device=device)
    scale = (torch.tensor(model.alpha, device=device) / p).sqrt()
    x = numbers.normal_(buffer).mul_(torch.tensor(model.covariance, device=device).sqrt())
    # Which of [0, p₁), [p₁, p₁ + p₂), … the draw falls into; J beyond all of them.
    pair = torch.bucketize(numbers.uniform(n), p.cumsum(0), right=True)
    negative = numbers.uniform(n) < 1 - law.plus_share
    rows = (pair < len(fractions)).nonzero().squeeze(1)
    pairs = pair[rows]
    sign = torch.where(negative[rows], -1, 1)
    group = torch.zeros(n, dtype=torch.int64, device=device)
    group[rows] = sign * (pairs + 1)
    features = torch.empty(n, ordinary + len(fractions), dtype=torch.float64, device=device)
    features[:, :ordinary] = x
    opposing = features[:, ordinary:].zero_()
    opposing[rows, pairs] = sign * scale[pairs] * law.sizes.draw(len(rows), numbers)
    target = x @ torch.tensor(model.beta, device=device) + opposing.abs().sum(1)
    if law.noise:
        target += law.noise * numbers.normal_(torch.empty(n, dtype=torch.float64, device=device))
    return features, target, group


def pair_fractions(model: Model, fraction: float | Sequence[float]) -> list[float]:
    """The fraction of outliers of each opposing pair.

    Raises:
        InputError: a fraction is out of range, they exceed 1 together, or they are not one a pair.

    >>> pair_fractions(Model([2.0, 1.0], [1.0], [1.0]), 0.25)
    [0.25, 0.25]
    """
    pairs = model.alpha.size
    if pairs == 0:
        raise InputError("the model has no opposing pair: give at least one alpha")
    fractions = [float(fraction)] * pairs if isinstance(fraction, int | float) else [float(p) for p in fraction]
    if len(fractions) != pairs:
        raise InputError(f"{len(fractions)} fractions of outliers for {pairs} pairs: give one, or one a pair")
    for p in fractions:
        if not 0 < p <= 1:
            raise InputError(f"fraction of outliers is {p}: give a number above 0 and at most 1")
    if math.fsum(fractions) > 1:
        raise InputError(f"fractions of outliers are {fractions}, above 1 together: an example is in one pair at most")
    return fractions
