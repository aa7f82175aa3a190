"""Opposing groups, found from the losses alone: two small sets of examples whose losses move in opposite phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def singular_pairs(losses: npt.ArrayLike, *, count: int = 3, size: int = GROUP_SIZE) -> list[OpposingPair]:
    """Pairs from the leading right singular vectors of the matrix of loss changes (steps × examples).

    Args:
        losses: (steps, n) losses of every example over a window at the edge of stability.
        count: number of pairs, in order of strength.
        size: number of examples in each group.

    Returns:
        At most `count` pairs, fewer when the window has fewer steps.

    >>> phase = np.array([1.0, -1.0, 1.0, -1.0])
    >>> losses = np.outer(phase, [5.0, 0.1, -5.0]) + 10
    >>> pair = singular_pairs(losses, count=1, size=1)[0]
    >>> sorted([int(pair.positive[0]), int(pair.negative[0])])
    [0, 2]
    """
    changes = loss_changes(losses)
    _, values, directions = np.linalg.svd(changes, full_matrices=False)
    total = float((values**2).sum()) or 1.0
    pairs = []
    for value, direction in zip(values[:count], directions[:count], strict=True):
        # A singular vector's sign is arbitrary; its largest entry is made positive so that reruns agree.
        signed = direction * (np.sign(direction[np.abs(direction).argmax()]) or 1.0)
        order = np.argsort(signed, kind="stable")
        pairs.append(OpposingPair(order[::-1][:size], order[:size], float(value), float(value**2 / total)))
    return pairs


def top_change_pair(losses: npt.ArrayLike, *, size: int = GROUP_SIZE) -> tuple[int, OpposingPair]:
    """The paper's rule: the examples with the most positive and the most negative change of loss in one step.

    Of the window's steps the one with the widest spread between the two groups is taken; that choice is ours.

    Args:
        losses: (steps, n) losses of every example over a window.
        size: number of examples in each group.

    Returns:
        Index in the window of the step, and the pair.
    """
    changes = loss_changes(losses)
    ordered = np.sort(changes, axis=1)
    spread = ordered[:, -size:].mean(1) - ordered[:, :size].mean(1)
    step = int(spread.argmax())
    order = np.argsort(changes[step], kind="stable")
    return step, OpposingPair(order[::-1][:size], order[:size], float(spread[step]), float("nan"))


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
    """Random groups that have, example by example, the same labels as the pair's."""
    of = np.asarray(labels)
    positive, negative = (
        np.array([rng.choice(np.flatnonzero(of == of[i])) for i in group]) for group in (pair.positive, pair.negative)
    )
    return OpposingPair(positive, negative, float("nan"), float("nan"))


def overlap(first: OpposingPair, second: OpposingPair) -> float:
    """Share of the first pair's examples that the second holds on the same side, sides swapped if that is more."""

    def shared(a: Indices, b: Indices) -> int:
        return len(np.intersect1d(a, b))

    same = shared(first.positive, second.positive) + shared(first.negative, second.negative)
    crossed = shared(first.positive, second.negative) + shared(first.negative, second.positive)
    return max(same, crossed) / (len(first.positive) + len(first.negative))
