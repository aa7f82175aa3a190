"""How much of a network's oscillation at the edge small groups carry that pull opposite ways: a number from 0 to 1.

The edge is cut into blocks of 15 steps, and A is the (steps, n) alternating part of the losses in every other block, B
that in the others. The leading singular directions of A over examples, those with at least a twentieth of the first's
energy, are turned to their sparsest rotation v_1, v_2, … (`validate.quartimax`); then, with (x)₊ the larger of x and 0,

    score = Σ_k e_k (c_k − κ)₊ / (1 − κ),     e_k = ‖B v_k‖²/‖B‖²,     c_k = 2 min(E₊, E₋),

where E₊ is the share of ‖v_k‖² = 1 that the 2.5 % of examples with the most positive entries carry, E₋ the same for the
most negative, and κ = 0.279 is c of a Gaussian direction. A and B change places and the two are pooled.

Landmarks: k equal pairs of groups of up to 2.5 % a side that carry everything, 1 for every k up to 20, however
singular vectors mix them; any number of Gaussian directions, 0 (within 0.03 for 2,000 examples); groups that nothing
opposes, 0, also where several take turns; noise, 0. Pairs that swing in step all the time are one pair to it. The
Gaussian surrogate of the window (`claims.c07_heavy_tail.gaussian_like`) is its control. The definition is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import stats

from theory.alternation import alternating_part
from theory.command_line import InputError, require_positive
from validate.claims.base import CONFIDENCE
from validate.quartimax import quartimax
from validate.windows import find_windows

Array = npt.NDArray[np.float64]

SIDE = 0.025
"""Share of the examples in each extreme group."""
_Z = stats.norm.isf(SIDE)
GAUSSIAN = float(2 * (_Z * stats.norm.pdf(_Z) + stats.norm.sf(_Z)))
"""κ = 2 ∫_z^∞ x² φ(x) dx = 2(z φ(z) + Φ(−z)), where Φ(−z) = 2.5 %: what both sides of a Gaussian direction carry."""
BLOCK = 15
"""Steps in a block."""
LEAST = 0.05
"""Least energy of a direction where it is found, over that of the leading one: weak ones would take pairs apart."""
MOST = 20
"""Largest number of directions."""


@dataclass(frozen=True)
class OpposingScore:
    """Opposing-signal score of one run, and what it is made of; each over both halves of the blocks.

    Attributes:
        score: the score.
        interval: 90 % percentile interval over resampled examples, the directions held fixed. It says what another
            draw of examples would change. It leans low, and may lie wholly below a score near 1, as a resample
            unbalances the two sides; seeds of the network vary more: run several (`mean_interval`).
        energy: Σ_k e_k, share of the alternating energy along the directions, on steps they were not found on.
        concentration: mean of c_k with weights e_k. Where every c_k ≥ κ, score = energy (concentration − κ)/(1 − κ).
        pairs: effective number of directions, (Σ_k e_k)²/Σ_k e_k².
    """

    score: float
    interval: tuple[float, float]
    energy: float
    concentration: float
    pairs: float


def opposing_score(losses: npt.ArrayLike, rng: np.random.Generator, *, resamples: int = 400) -> OpposingScore:
    """The score of one run.

    Args:
        losses: (steps, n) losses of every example over a window at the edge, at least two blocks of 15 steps; steps
            after the last whole block are left out.
        rng: of the resampled examples.
        resamples: number of resamples for the interval; with 0 it is the score itself.

    Raises:
        InputError: the window is too short, or a loss is not finite.

    >>> swing = np.outer((-1.0) ** np.arange(30), np.repeat([1.0, 0.0, -1.0], [1, 78, 1]))
    >>> round(opposing_score(swing, np.random.default_rng(0)).score, 12)
    1.0
    """
    require_positive("number of resamples", resamples, zero_allowed=True)
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2 * BLOCK or not table.shape[1]:
        raise InputError(f"losses have shape {list(table.shape)}: give at least {2 * BLOCK} steps × examples")
    if not np.isfinite(table).all():
        raise InputError("losses hold numbers that are not finite: give full-batch steps at the edge")
    first, second = _halves(table)
    n = table.shape[1]
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples)]
    weights = np.stack([np.ones(n), *drawn])  # the examples as they are come first
    pairs = [(_directions(first), second), (_directions(second), first)]
    along = np.concatenate([_energies(directions, swings, weights) for directions, swings in pairs])
    sides = np.concatenate([_concentrations(directions, weights) for directions, _ in pairs])
    total = np.maximum(weights @ (first**2).sum(0) + weights @ (second**2).sum(0), np.finfo(np.float64).tiny)
    scores = (along * np.maximum(sides - GAUSSIAN, 0)).sum(0) / ((1 - GAUSSIAN) * total)
    low, high = np.quantile(scores[1 if resamples else 0 :], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    energies, carried = along[:, 0], max(along[:, 0].sum(), float(np.finfo(np.float64).tiny))
    by_half = np.split(energies, [len(pairs[0][0])])
    return OpposingScore(
        score=float(scores[0]),
        interval=(float(low), float(high)),
        energy=float(energies.sum() / total[0]),
        concentration=float(energies @ sides[:, 0] / carried),
        pairs=float(np.mean([_effective_number(half) for half in by_half])),
    )


def score_of_run(run: xr.Dataset, rng: np.random.Generator, steps: slice | None = None) -> OpposingScore | None:
    """The score of a full-batch run over the 150 steps from its crossing of 2/η; None where it has none.

    Args:
        run: of `validate.network_run`.
        rng: of the resampled examples.
        steps: other steps at the edge, to compare runs at equal loss.
    """
    windows = find_windows(run)
    if windows is None:
        return None
    return opposing_score(run["loss"][windows.edge if steps is None else steps].values, rng)


def _halves(losses: Array) -> tuple[Array, Array]:
    """Alternating parts of every other block of steps, and of the others: they share no step."""
    blocks = [alternating_part(losses[start : start + BLOCK]) for start in range(0, len(losses) - BLOCK + 1, BLOCK)]
    return np.concatenate(blocks[::2]), np.concatenate(blocks[1::2])


def _directions(swings: Array) -> Array:
    """(k, n) sparsest rotation of the leading right singular vectors."""
    _, values, vectors = np.linalg.svd(swings, full_matrices=False)
    return quartimax(vectors[: min(MOST, int((values**2 >= LEAST * values[0] ** 2).sum()))])


def _energies(directions: Array, swings: Array, weights: Array) -> Array:
    """(k, resamples) Σ_t (Σ_i w_i B_ti v_ki)²/Σ_i w_i v_ki² for (resamples, n) weights w of the examples."""
    norms = np.maximum(directions**2 @ weights.T, np.finfo(np.float64).tiny)
    return np.stack([(((swings * v) @ weights.T) ** 2).sum(0) for v in directions]) / norms


def _concentrations(directions: Array, weights: Array) -> Array:
    """(k, resamples) c_k = 2 min(E₊, E₋)."""
    return np.stack([2 * np.minimum(_side(v, weights), _side(-v, weights)) for v in directions])


def _side(direction: Array, weights: Array) -> Array:
    """(resamples,) E₊: share of the square in the `SIDE` of the examples with the most positive entries."""
    order = np.argsort(-direction, kind="stable")
    taken = weights[:, order]
    before = taken.cumsum(1) - taken
    counted = np.clip(max(1.0, SIDE * len(order)) - before, 0, taken)
    positive = counted @ np.maximum(direction, 0)[order] ** 2
    return np.asarray(positive / np.maximum(weights @ direction**2, np.finfo(np.float64).tiny))


def _effective_number(energies: Array) -> float:
    return float(energies.sum() ** 2 / max((energies**2).sum(), np.finfo(np.float64).tiny))
