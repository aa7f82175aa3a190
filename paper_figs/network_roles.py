"""What the figures of real networks share: roles by name and colour, the groups of a run, how far they swing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from paper_figs.runs import Runs
from validate.cifar10 import CLASSES
from validate.claims.base import NetworkEvidence
from validate.claims.pairs import leading_pair
from validate.equal_loss import edge_losses, gap_amplitude, steps_between
from validate.opposing_groups import OpposingPair, alternating_part
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


def evidence(runs: Runs, figure: str, *, crossing: bool = True) -> list[NetworkEvidence]:
    """The runs seed by seed, as the claims take them.

    Args:
        runs: finished runs, base runs among them.
        figure: its number, for the error.
        crossing: whether the figure needs base runs that cross 2/η.

    Raises:
        ValueError: a base run never crosses 2/η with enough steps before and after, and must.
    """
    found = []
    for i, base in enumerate(runs.networks["base"]):
        windows = crossing_windows(base, figure) if crossing else find_windows(base)
        of_seed = {role: given[i] for role, given in runs.networks.items() if i < len(given)}
        # The seed draws the random groups: those of the claims. Runs of earlier versions do not tell it.
        found.append(NetworkEvidence(seed=int(base.attrs.get("seed", i)), runs=of_seed, windows=windows))
    return found


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


def groups(of_seed: NetworkEvidence) -> OpposingPair:
    """The strongest pair of the 75 steps from the base run's crossing on; the steps after are for judging it."""
    assert of_seed.windows is not None
    return leading_pair(of_seed, of_seed.windows)


def compared_losses(of_seed: NetworkEvidence) -> tuple[float, float]:
    """The higher and the lower mean loss between which the rules of descent are compared."""
    assert of_seed.windows is not None
    return edge_losses(of_seed.run, of_seed.windows)


def amplitude(of_seed: NetworkEvidence, role: str) -> float:
    """How far a run's own groups swing at the losses of the base run's edge; NaN where it does not pass them."""
    assert of_seed.windows is not None
    run = of_seed.runs[role]
    steps = of_seed.windows.edge if role == "base" else steps_between(run, compared_losses(of_seed))
    return float("nan") if steps is None else gap_amplitude(run, steps)


def swing_size(gap: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(steps,) how far a series swings from step to step around its running mean, NaN at both ends.

    Root mean square of `validate.opposing_groups.alternating_part` over 25 steps.

    >>> float(np.nanmax(swing_size(5 + 0.5 * (-1.0) ** np.arange(60))))
    0.5
    """
    squares = alternating_part(gap) ** 2
    width = min(SWING_WINDOW, len(squares))
    sizes = np.full(len(squares) + 2, np.nan)
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
    """Median with the range over seeds; the value alone where there is one; seeds without a value are left out.

    >>> spread([1.0, 2.0, 4.0]), spread([0.5]), spread([float("nan")])
    ('2.00 (1.00 to 4.00)', '0.50', 'not defined')
    """
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return "not defined"
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
