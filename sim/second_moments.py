"""Full-batch dynamics of linear networks from second moments: a step costs nothing per example.

Squared loss sees the data only through G = mean(z zᵀ), m = mean(y z) and q = mean(y²), z the features. With effective
weights v (v = c w in the two-layer network of scalar last layer, v = Wᵀa at any width)

    L(v) = ½ vᵀGv − vᵀm + ½ q = ½ (v − τ)ᵀ G (v − τ) + L*,    ∂_v L = Gv − m,    τ = G⁺m.

A step costs O(d²) an evaluation of Gv, and O(d) in G's eigenbasis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sim.distributed import from_first, sum_over_ranks
from sim.opposing_data import TWO_POINT, Examples, OpposingLaw, pair_fractions
from theory import Model
from theory.command_line import InputError


@dataclass(frozen=True)
class Moments:
    """Second moments of one data set, or of several along leading axes.

    Attributes:
        gram: (..., d, d) mean of z zᵀ.
        cross: (..., d) mean of y z.
        square: (...,) mean of y².
    """

    gram: Tensor
    cross: Tensor
    square: Tensor

    def loss(self, c: Tensor, w: Tensor) -> Tensor:
        """(...,) mean loss of weights c (...,) and w (..., d)."""
        quadratic = (w * self._gram_times(w)).sum(-1)
        return c**2 * quadratic / 2 - c * (w * self.cross).sum(-1) + self.square / 2

    def gradient(self, c: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """∂_c L = c wᵀGw − wᵀm (...,) and ∂_w L = c² Gw − c m (..., d)."""
        gram_w = self._gram_times(w)
        d_c = c * (w * gram_w).sum(-1) - (w * self.cross).sum(-1)
        d_w = c[..., None] * (c[..., None] * gram_w - self.cross)
        return d_c, d_w

    def hessian(self, c: Tensor, w: Tensor) -> Tensor:
        """(..., 1 + d, 1 + d) Hessian over (c, w): corner wᵀGw, arms 2c Gw − m, block c² G."""
        gram_w = self._gram_times(w)
        arms = 2 * c[..., None] * gram_w - self.cross
        corner = (w * gram_w).sum(-1)[..., None]
        block = c[..., None, None] ** 2 * self.gram
        top = torch.cat([corner, arms], -1)[..., None, :]
        return torch.cat([top, torch.cat([arms[..., None], block.expand(*arms.shape, arms.shape[-1])], -1)], -2)

    def residual(self, v: Tensor) -> Tensor:
        """(..., d) ∂_v L = Gv − m of effective weights v (..., d)."""
        return self._gram_times(v) - self.cross

    def value(self, v: Tensor) -> Tensor:
        """(...,) mean loss of effective weights v (..., d)."""
        return (v * self._gram_times(v)).sum(-1) / 2 - (v * self.cross).sum(-1) + self.square / 2

    @cached_property
    def diagonal(self) -> DiagonalMoments:
        """The same moments in G's eigenbasis; computed once, at O(d³) a data set."""
        curvature, basis = torch.linalg.eigh(self.gram)
        # Below this an eigenvalue is rounding: G has rank below d where there are fewer examples than features.
        smallest = curvature[..., -1:] * curvature.shape[-1] * torch.finfo(curvature.dtype).eps
        kept = curvature > smallest
        curvature = torch.where(kept, curvature, 0.0)
        cross = (basis.mT @ self.cross[..., None])[..., 0]
        target = torch.where(kept, cross / torch.where(kept, curvature, 1.0), 0.0)
        least = (self.square - (curvature * target**2).sum(-1)) / 2
        return DiagonalMoments(curvature, target, least, basis)

    def shared(self) -> Moments:
        """The same moments (..., 1) with an axis for runs that share a data set."""
        return Moments(self.gram[..., None, :, :], self.cross[..., None, :], self.square[..., None])

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Moments:
        """The same moments elsewhere, or in another floating-point type."""
        return Moments(*(t.to(device=device, dtype=dtype) for t in (self.gram, self.cross, self.square)))

    def _gram_times(self, w: Tensor) -> Tensor:
        if w.ndim > 1 and w.shape[-2] > 1 and (self.gram.ndim == 2 or self.gram.shape[-3] == 1):
            # Many weights on one data set: one matrix product in place of many that are bound by memory. G = Gᵀ.
            return w @ (self.gram if self.gram.ndim == 2 else self.gram.squeeze(-3))
        return (self.gram @ w[..., None])[..., 0]


@dataclass(frozen=True)
class DiagonalMoments:
    """Second moments in the eigenbasis of G, of one data set or of several along leading axes.

    Attributes:
        curvature: (..., d) eigenvalues of G.
        target: (..., d) τ = G⁺m in the eigenbasis.
        least: (...,) L*, the loss that no linear function goes below.
        basis: (..., d, d) eigenvectors in columns; None where the features are the eigenbasis, as in a population.
    """

    curvature: Tensor
    target: Tensor
    least: Tensor
    basis: Tensor | None = None

    def residual(self, v: Tensor) -> Tensor:
        """(..., d) ∂_v L = λ (v − τ) of effective weights v (..., d) in the eigenbasis."""
        return self.curvature * (v - self.target)

    def value(self, v: Tensor) -> Tensor:
        """(...,) mean loss ½ Σ λ (v − τ)² + L* of effective weights v (..., d) in the eigenbasis."""
        return (self.curvature * (v - self.target) ** 2).sum(-1) / 2 + self.least

    @property
    def diagonal(self) -> DiagonalMoments:
        """Itself."""
        return self

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> DiagonalMoments:
        """The same moments elsewhere, or in another floating-point type."""
        curvature, target, least = (t.to(device=device, dtype=dtype) for t in (self.curvature, self.target, self.least))
        basis = None if self.basis is None else self.basis.to(device=device, dtype=dtype)
        return DiagonalMoments(curvature, target, least, basis)


SecondMoments = Moments | DiagonalMoments

_Sums = tuple[Tensor, Tensor, Tensor, int]


def stack(moments: Iterable[Moments]) -> Moments:
    """Several data sets of equal feature number as one batch, along a new first axis."""
    grams, crosses, squares = zip(*((m.gram, m.cross, m.square) for m in moments), strict=True)
    return Moments(torch.stack(grams), torch.stack(crosses), torch.stack(squares))


def population_moments(model: Model, device: torch.device, law: OpposingLaw = TWO_POINT) -> Moments:
    """Moments of infinitely many examples: G = diag(Σ, α), m = (Σβ, δα), q = βᵀΣβ + Σ α + noise².

    δ = 2·plus_share − 1 is the imbalance of the groups; 0 in the paper's law.
    """
    curvatures, target = torch.tensor(model.curvatures), torch.tensor(model.target)
    # E y² = βᵀΣβ + Σ α + noise², as x has mean 0 and is independent of the rest
    square = (curvatures * target**2).sum() + float(model.alpha.sum()) + law.noise**2
    target[model.beta.size :] = 2 * law.plus_share - 1
    return Moments(torch.diag(curvatures).to(device), (curvatures * target).to(device), square.to(device))


def population_batch(models: Sequence[Model], device: torch.device, law: OpposingLaw = TWO_POINT) -> DiagonalMoments:
    """Population moments of many models of equal shape as one batch (models,), at O(d) a step.

    Raises:
        InputError: no model, or their shapes differ.
    """
    shapes = {(model.beta.size, model.alpha.size) for model in models}
    if len(shapes) != 1:
        raise InputError(f"models have shapes (d1, J) {sorted(shapes)}: give at least one, all of one shape")
    curvature = torch.stack([torch.tensor(model.curvatures) for model in models])
    target = torch.stack([torch.tensor(model.target) for model in models])
    imbalance = 2 * law.plus_share - 1
    pairs = models[0].alpha.size
    target[:, target.shape[1] - pairs :] = imbalance
    # L* = ½ (q − τᵀGτ)
    least = (curvature[:, curvature.shape[1] - pairs :].sum(1) * (1 - imbalance**2) + law.noise**2) / 2
    return DiagonalMoments(curvature.to(device), target.to(device), least.to(device))


def population_groups(
    models: Sequence[Model], fraction: float | Sequence[float], device: torch.device, law: OpposingLaw = TWO_POINT
) -> dict[str, DiagonalMoments]:
    """Population moments of every outlier group, named as in `sample_moments`, each a batch (models,).

    On a group of pair j the pair's feature has second moment α_j/p_j and the target's weight on it is the sign; the
    other pairs' features are zero:

        ℓ± = ½ (cb−β)ᵀ Σ (cb−β) + (α_j/2p_j) (1 ∓ c s_j)² + ½ noise².

    Raises:
        InputError: as `population_batch` and `pair_fractions`.
    """
    everyone = population_batch(models, device, law)
    fractions = torch.tensor([pair_fractions(model, fraction) for model in models], dtype=torch.float64, device=device)
    d1 = models[0].beta.size
    groups = {}
    for j in range(models[0].alpha.size):
        for name, sign in _group_names(j + 1).items():
            curvature, target = everyone.curvature.clone(), everyone.target.clone()
            curvature[:, d1:] = 0
            curvature[:, d1 + j] = everyone.curvature[:, d1 + j] / fractions[:, j]
            target[:, d1:] = 0
            target[:, d1 + j] = math.copysign(1.0, sign)
            groups[name] = DiagonalMoments(curvature, target, torch.full_like(everyone.least, law.noise**2 / 2))
    return groups


def sample_moments(chunks: Iterable[Examples], *, over_ranks: bool = False) -> dict[str, Moments]:
    """Moments of all examples and of the outlier groups, streamed over chunks: memory does not grow with them.

    Args:
        chunks: the examples; at least one chunk.
        over_ranks: whether the chunks are this rank's share, as `draw_examples` gives with its argument of that name,
            and the moments those of all ranks' chunks together. The first rank must have a chunk, the others need not.

    Returns:
        ``all``, ``plus`` and ``minus``, and ``plus 2``, ``minus 2``, … for further pairs. A group without examples has
        moments NaN.
    """
    sums: dict[str, _Sums] = {}
    for chunk in chunks:
        members: dict[str, Tensor | None] = {"all": None}
        for j in range(1, chunk.pairs + 1):
            members |= {name: chunk.group == group for name, group in _group_names(j).items()}
        for name, mask in members.items():
            z = chunk.features if mask is None else chunk.features[mask]
            y = chunk.target if mask is None else chunk.target[mask]
            new = (z.T @ z, z.T @ y, y @ y, len(y))
            old = sums.get(name)
            sums[name] = new if old is None else (old[0] + new[0], old[1] + new[1], old[2] + new[2], old[3] + new[3])
    if over_ranks:
        sums = _summed_over_ranks(sums)
    return {name: Moments(gram / n, cross / n, square / n) for name, (gram, cross, square, n) in sums.items()}


def _summed_over_ranks(sums: dict[str, _Sums]) -> dict[str, _Sums]:
    # A rank without a chunk does not know the shapes.
    shapes = None
    if "all" in sums:
        gram = sums["all"][0]
        shapes = list(sums), len(gram), gram.device.type, gram.dtype
    shapes = from_first(shapes)
    assert shapes is not None, "the first rank has the first chunk"
    names, d, device, dtype = shapes
    zeros = torch.zeros(d, d, dtype=dtype, device=device)
    own = [sums.get(name, (zeros, zeros[0], zeros[0, 0], 0)) for name in names]
    # Numbers of examples too: float64 counts exactly up to 2⁵³.
    counts = torch.tensor([n for *_, n in own], dtype=torch.float64, device=device)
    totals = [torch.stack(parts) for parts in list(zip(*own, strict=True))[:3]]
    sum_over_ranks(totals)
    sum_over_ranks([counts])
    return dict(zip(names, zip(*totals, counts.long().tolist(), strict=True), strict=True))


def _group_names(pair: int) -> dict[str, int]:
    suffix = "" if pair == 1 else f" {pair}"
    return {f"plus{suffix}": pair, f"minus{suffix}": -pair}
