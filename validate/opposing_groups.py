"""Opposing groups, found from the losses alone: two small sets of examples whose losses move in opposite phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.command_line import InputError, require_positive
from validate.singular_directions import singular_directions

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

GROUP_SIZE = 20


@dataclass(frozen=True)
class OpposingPair:
    """Two groups of examples with opposite changes of loss.

    Attributes:
        positive: (m,) indices of the examples with the most positive entries, the most extreme first.
        negative: (m,) indices of those with the most negative entries, the most extreme first.
        strength: singular value of the pair's direction; for the top-20 rule, the spread between the two groups' mean
            changes of loss.
        energy: share of the squared loss changes that the direction carries; NaN for the top-20 rule.
    """

    positive: Indices
    negative: Indices
    strength: float
    energy: float


def singular_pairs(
    losses: npt.ArrayLike | xr.DataArray, *, count: int = 3, size: int = GROUP_SIZE
) -> list[OpposingPair]:
    """Pairs from the leading right singular vectors of the matrix of loss changes (steps × examples).

    Args:
        losses: (steps, n) losses of every example over a window at the edge of stability; a run's variable that is
            opened lazily is read block by block (`singular_directions`).
        count: number of pairs, in order of strength.
        size: number of examples in each group; half of all where there are fewer than twice as many.

    Returns:
        At most `count` pairs, fewer when the window has fewer steps or the changes a lower rank; of losses that stay
        as they are one of strength 0, which tells nothing.

    Raises:
        InputError: `size` or `count` is not positive, there are no two examples or steps, or a loss is not finite.

    >>> phase = np.array([1.0, -1.0, 1.0, -1.0])
    >>> losses = np.outer(phase, [5.0, 0.1, -5.0]) + 10
    >>> pair = singular_pairs(losses, count=1, size=1)[0]
    >>> sorted([int(pair.positive[0]), int(pair.negative[0])])
    [0, 2]
    """
    require_positive("size of the groups", size)
    found = singular_directions(losses, count=count)
    size = _disjoint(size, found.directions.shape[1])
    pairs = []
    for value, energy, direction in zip(found.values, found.energy, found.directions, strict=True):
        order = np.argsort(direction, kind="stable")
        pairs.append(OpposingPair(order[::-1][:size], order[:size], float(value), float(energy)))
    return pairs


def top_change_pair(losses: npt.ArrayLike, *, size: int = GROUP_SIZE) -> tuple[int, OpposingPair]:
    """The paper's rule: the examples with the most positive and the most negative change of loss in one step.

    Of the window's steps the one with the widest spread between the two groups is taken; that choice is ours.

    Args:
        losses: (steps, n) losses of every example over a window.
        size: number of examples in each group; half of all where there are fewer than twice as many.

    Returns:
        Index in the window of the step, and the pair.

    Raises:
        InputError: `size` is not positive, there are no two examples or steps, or a loss is not finite.
    """
    require_positive("size of the groups", size)
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise InputError(f"losses have shape {list(table.shape)}: give at least two steps × examples")
    if not np.isfinite(table).all():
        raise InputError("losses hold numbers that are not finite: give steps before that")
    changes = loss_changes(table)
    size = _disjoint(size, changes.shape[1])
    ordered = np.sort(changes, axis=1)
    spread = ordered[:, -size:].mean(1) - ordered[:, :size].mean(1)
    step = int(spread.argmax())
    order = np.argsort(changes[step], kind="stable")
    return step, OpposingPair(order[::-1][:size], order[:size], float(spread[step]), float("nan"))


def _disjoint(size: int, examples: int) -> int:
    """The size of groups of which no example is in both, at most that wanted.

    Raises:
        InputError: there are no two examples.
    """
    if examples < 2:
        raise InputError(f"losses are of {examples} example: give those of two at least, one for each group")
    return max(1, min(size, examples // 2))


def loss_changes(losses: npt.ArrayLike) -> Array:
    """(steps − 1, n) change of each example's loss in each step."""
    return np.diff(np.asarray(losses, dtype=np.float64), axis=0)


def group_gap(losses: npt.ArrayLike, pair: OpposingPair) -> Array:
    """(steps,) mean loss of the positive group less that of the negative group."""
    table = np.asarray(losses, dtype=np.float64)
    return np.asarray(table[:, pair.positive].mean(1) - table[:, pair.negative].mean(1))


def random_pair_like(pair: OpposingPair, n: int, rng: np.random.Generator) -> OpposingPair:
    """Two disjoint random groups of the same size, whatever their labels."""
    size = len(pair.positive)
    chosen = rng.choice(n, 2 * size, replace=False)
    return OpposingPair(chosen[:size], chosen[size:], float("nan"), float("nan"))


def random_pair_of_same_labels(pair: OpposingPair, labels: npt.ArrayLike, rng: np.random.Generator) -> OpposingPair:
    """Random groups that have, example by example, the same labels as the pair's; no example comes twice."""
    of, members = np.asarray(labels), np.concatenate([pair.positive, pair.negative])
    wanted, drawn = of[members], np.empty_like(members)
    for label in np.unique(wanted):
        places = wanted == label
        drawn[places] = rng.choice(np.flatnonzero(of == label), int(places.sum()), replace=False)
    positive, negative = np.split(drawn, [len(pair.positive)])
    return OpposingPair(positive, negative, float("nan"), float("nan"))


def overlap(first: OpposingPair, second: OpposingPair) -> float:
    """Share of the first pair's examples that the second holds on the same side, sides swapped if that is more."""

    def shared(a: Indices, b: Indices) -> int:
        return len(np.intersect1d(a, b))

    same = shared(first.positive, second.positive) + shared(first.negative, second.negative)
    crossed = shared(first.positive, second.negative) + shared(first.negative, second.positive)
    return max(same, crossed) / (len(first.positive) + len(first.negative))


@dataclass(frozen=True)
class Stability:
    """How far the leading pairs of several windows, or of several seeds on the same images, are the same examples.

    Attributes:
        overlaps: (m, m) largest overlap of the leading pair of one (row) with any pair of another (column).
        mean: mean of the entries off the diagonal; NaN where there is only one.
        chance: the same for random groups of that size, mean over draws.
    """

    overlaps: Array
    mean: float
    chance: float


def stability(found: Sequence[Sequence[OpposingPair]], n: int, rng: np.random.Generator, draws: int = 200) -> Stability:
    """Overlap of the leading pairs found in several windows or seeds, against chance.

    Args:
        found: for each window or seed the pairs found there, in order of strength, at least one.
        n: number of examples that they were chosen from.
        rng: of the random groups.
        draws: number of random groups for the level of chance.

    Raises:
        InputError: there are no windows, one without a pair, or too few examples for two groups.

    >>> pair = OpposingPair(np.array([0, 1]), np.array([2, 3]), 1.0, 1.0)
    >>> stability([[pair], [pair]], 1000, np.random.default_rng(0)).mean
    1.0
    """
    if not found or not all(found):
        raise InputError(f"there are {len(found)} windows, some without a pair: give those with one")
    if n < 2 * len(found[0][0].positive):
        raise InputError(f"there are {n} examples for two groups of {len(found[0][0].positive)}: give all of them")
    overlaps = np.array([[max(overlap(row[0], pair) for pair in column) for column in found] for row in found])
    off = ~np.eye(len(found), dtype=bool)
    drawn = [
        max(overlap(found[0][0], random_pair_like(pair, n, rng)) for pair in max(found, key=len)) for _ in range(draws)
    ]
    return Stability(overlaps, float(overlaps[off].mean()) if off.any() else float("nan"), float(np.mean(drawn)))
