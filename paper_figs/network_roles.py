"""What the figures of real networks share: roles by name and colour, the groups of a run, how far they swing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from validate.cifar10 import CLASSES
from validate.opposing_groups import OpposingPair, group_gap, singular_pairs
from validate.windows import Windows, find_windows

ROLE_NAMES = {
    "base": "gradient descent",
    "gentle": "gradient descent, η ÷ 10",
    "momentum": "momentum",
    "momentum_dampened": "dampened momentum",
    "adam": "Adam",
    "split_sgd": "SplitSGD",
    "batch_norm": "SGD, batch norm",
    "no_batch_norm": "SGD, no batch norm",
    "label_smoothing": "label smoothing",
    "squared": "squared loss",
    "without_opposing": "opposing removed",
    "without_random": "random removed",
    "without_hardest": "hardest removed",
}
"""Words for each role in legends and captions."""

ROLE_COLOURS = {
    "base": "#555555",
    "momentum": "#E69F00",
    "momentum_dampened": "#CC79A7",
    "adam": "#0072B2",
    "split_sgd": "#D55E00",
    "batch_norm": "#009E73",
    "no_batch_norm": "#555555",
    "label_smoothing": "#CC79A7",
    "squared": "#009E73",
    "without_opposing": "#D55E00",
    "without_random": "#56B4E9",
    "without_hardest": "#009E73",
}
"""One colour a role in every figure, of Okabe & Ito's palette."""

SWING_WINDOW = 25
"""Steps over which the size of a swing is averaged."""


def crossing_windows(run: xr.Dataset, figure: str) -> Windows:
    """The windows of a run that the groups are chosen and judged in.

    Raises:
        ValueError: the run never crosses 2/η with enough steps before and after.
    """
    if (windows := find_windows(run)) is None:
        raise ValueError(
            f"{figure} draws from a run that crosses 2/η with 50 steps before and 150 after: give such a run as base"
        )
    return windows


@dataclass(frozen=True)
class SeedGroups:
    """The opposing groups of one seed, found in its base run.

    Attributes:
        windows: stretches of steps of the base run.
        pair: its strongest pair in the 75 steps from the crossing on.
        levels: lowest and highest mean loss of the 75 steps after those, in which the pair is judged.
        middle_loss: median of the mean loss there.
    """

    windows: Windows
    pair: OpposingPair
    levels: tuple[float, float]
    middle_loss: float


def groups_of_seeds(base: Sequence[xr.Dataset], figure: str) -> list[SeedGroups]:
    """The groups of each base run.

    Raises:
        ValueError: a run never crosses 2/η with enough steps before and after.
    """
    found = []
    for run in base:
        windows = crossing_windows(run, figure)
        judged = mean_loss(run)[windows.evaluate]
        pair = singular_pairs(run["loss"].values[windows.select], count=1)[0]
        found.append(SeedGroups(windows, pair, (float(judged.min()), float(judged.max())), float(np.median(judged))))
    return found


def mean_loss(run: xr.Dataset) -> npt.NDArray[np.float64]:
    """(steps,) mean over the examples present at each step: a minibatch's own where steps take minibatches."""
    return np.asarray(np.nanmean(run["loss"].values.astype(np.float64), axis=1))


def gap_of(run: xr.Dataset, pair: OpposingPair) -> npt.NDArray[np.float64]:
    """(steps,) mean loss of one group less the other's."""
    return group_gap(run["loss"].values, pair)


def swing_size(gap: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(steps,) how far a series swings from step to step around its running mean, NaN at both ends.

    A swing x_t = m + A(−1)^t has second difference −4A(−1)^t, a slow drift nearly none: so
    |x_{t−1} − 2x_t + x_{t+1}|/4, in root mean square over 25 steps.

    >>> float(np.nanmax(swing_size(5 + 0.5 * (-1.0) ** np.arange(60))))
    0.5
    """
    series = np.asarray(gap, dtype=np.float64)
    squares = (np.diff(series, 2) / 4) ** 2
    width = min(SWING_WINDOW, len(squares))
    sizes = np.full(len(series), np.nan)
    averaged = np.sqrt(np.convolve(squares, np.full(width, 1 / width), mode="valid"))
    begin = 1 + width // 2
    sizes[begin : begin + len(averaged)] = averaged
    return sizes


def describe(group: npt.NDArray[np.int64], labels: npt.ArrayLike) -> str:
    """The group's two commonest labels, with their counts.

    >>> describe(np.array([0, 1, 2]), [8, 8, 0])
    '2 ship, 1 plane'
    """
    names, counts = np.unique(np.asarray(labels)[group], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:2]
    return ", ".join(f"{counts[i]} {CLASSES[names[i]]}" for i in order)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median with the range over seeds; the value alone where there is one.

    >>> spread([1.0, 2.0, 4.0]), spread([0.5])
    ('2.00 (1.00 to 4.00)', '0.50')
    """
    middle = f"{np.median(values):.{digits}f}"
    words = middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return words.replace("-", "−")


def number(value: float) -> str:
    """A step size in print.

    >>> number(0.05), number(1e-4)
    ('0.05', '10⁻⁴')
    """
    mantissa, exponent = f"{value:.0e}".split("e")
    if value >= 1e-3 or f"{value:.6g}" != f"{float(mantissa) * 10 ** int(exponent):.6g}":
        return f"{value:g}"
    power = f"10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def seeds_in_words(runs: Sequence[object]) -> str:
    """How many seeds there are.

    >>> seeds_in_words(["base of seed 0"])
    'one seed'
    """
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"


def swing_at_loss(run: xr.Dataset, pair: OpposingPair, levels: tuple[float, float]) -> float:
    """Median swing of the group gap over the steps at which the mean loss lies between two levels; NaN without any."""
    loss = mean_loss(run)
    sizes = swing_size(gap_of(run, pair))[(loss >= levels[0]) & (loss <= levels[1])]
    return float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else float("nan")
