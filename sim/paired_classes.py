"""Classification with opposing signals: classes in pairs that share a large, rare feature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.heavy_tails import SizeLaw
from theory.command_line import InputError, require_all, require_positive


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
) -> LabelledExamples:
    """Draws examples whose class lies in the ordinary features, while the large feature says the pair and no more.

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
        seed: seed of the generator, which runs on the CPU.
        device: where the examples are put.
        sizes: law of the outliers' sizes; two-point when not given.
        covariance: (d1,) eigenvalues of Σ, as `theory.model.power_law_covariance` gives; the identity when not given.
        label_noise: share of labels that are replaced by another class, each of the others equally likely.

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
    means = torch.randn(2 * pairs, features, generator=generator, dtype=torch.float64)
    means *= separation / means.norm(dim=1, keepdim=True)
    label = torch.randint(2 * pairs, (count,), generator=generator)
    x = torch.randn(count, features, generator=generator, dtype=torch.float64) * torch.from_numpy(variances).sqrt()
    x += means[label]
    rows = (torch.rand(count, generator=generator, dtype=torch.float64) < fraction).nonzero().squeeze(1)
    pair = label[rows] // 2
    shared = torch.zeros(count, pairs, dtype=torch.float64)
    shared[rows, pair] = math.sqrt(alpha / fraction) * (sizes or SizeLaw()).draw(len(rows), generator)
    group = torch.zeros(count, dtype=torch.int64)
    group[rows] = torch.where(label[rows] % 2 == 0, 1, -1) * (pair + 1)
    if label_noise:
        wrong = torch.rand(count, generator=generator, dtype=torch.float64) < label_noise
        other = label + torch.randint(1, 2 * pairs, (count,), generator=generator)
        label = torch.where(wrong, other % (2 * pairs), label)
    return LabelledExamples(torch.cat([x, shared], 1).to(device), label.to(device), group.to(device))
