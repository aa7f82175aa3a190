"""Whether a data set has the second moments asked for, in standard errors that are measured on the set itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sim.opposing_data import Examples
from sim.second_moments import Moments


@dataclass(frozen=True)
class MomentCheck:
    """Deviations of a sample's moments from those asked for, in standard errors.

    The standard errors rest on fourth moments. Sizes of tail index 4 or below have none: the deviations are then not
    close to Gaussian, and the mean's own error falls slower than n^(−1/2).

    Attributes:
        gram: (d, d) deviation of mean z zᵀ; 0 where both sides agree exactly, infinite where an entry without any
            variance in the sample differs.
        cross: (d,) deviation of mean y z.
        square: deviation of mean y².
        count: number of examples n.
    """

    gram: Tensor
    cross: Tensor
    square: float
    count: int

    @property
    def largest(self) -> float:
        """Largest deviation in size, of d (d + 1)/2 + d + 1 different ones."""
        return max(float(self.gram.abs().max()), float(self.cross.abs().max()), abs(self.square))

    def holds(self, deviations: float = 5.0) -> bool:
        """Whether no deviation exceeds this many standard errors."""
        return self.largest <= deviations


def check_moments(chunks: Iterable[Examples], expected: Moments) -> MomentCheck:
    """Streams a data set and compares its second moments with those of, say, `population_moments`.

    Args:
        chunks: the data set, as `draw_examples` gives it.
        expected: moments asked for, of one data set.
    """
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    count = 0
    for chunk in chunks:
        # With u = (z, y): mean u uᵀ holds every second moment, mean (u∘u)(u∘u)ᵀ their squares' means.
        u = torch.cat([chunk.features, chunk.target[:, None]], 1)
        squares = u * u
        first, second = first + u.T @ u, second + squares.T @ squares
        count += len(u)
    mean, square = torch.as_tensor(first) / count, torch.as_tensor(second) / count
    wanted = torch.cat([expected.gram, expected.cross[:, None]], 1)
    wanted = torch.cat([wanted, torch.cat([expected.cross, expected.square[None]])[None]], 0)
    difference = mean - wanted.to(mean)
    # Rounding alone is no deviation, and leaves a variance that is not exactly 0.
    rounding = 1e-12 * (mean.abs() + wanted.to(mean).abs())
    difference = torch.where(difference.abs() <= rounding, 0.0, difference)
    variance = (square - mean**2).clamp_min(0.0)
    error = torch.where(variance <= 1e-12 * square, 0.0, variance).sqrt() / math.sqrt(count)
    deviation = torch.where(difference == 0, 0.0, difference / error)
    return MomentCheck(deviation[:-1, :-1], deviation[:-1, -1], float(deviation[-1, -1]), count)
