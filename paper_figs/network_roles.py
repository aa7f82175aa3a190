"""What the figures of real networks share: roles by name and colour, the groups of a run, how far they swing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from paper_figs.runs import Runs
from theory.alternation import alternating_part
from validate.cifar10 import CLASSES, Images, first_of_each_class
from validate.claims.base import NetworkEvidence
from validate.claims.pairs import leading_pair
from validate.equal_loss import edge_losses, gap_amplitude, steps_between
from validate.opposing_groups import OpposingPair
from validate.windows import Windows, find_windows

ROLE_NAMES = {
    "base": "gradient descent",
    "momentum": "momentum",
    "momentum_dampened": "dampened momentum",
    "adam": "Adam",
    "split_sgd": "SplitSGD",
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
    """The strongest pair of the steps from the base run's crossing on; the steps after are for judging it."""
    assert of_seed.windows is not None
    return leading_pair(of_seed, of_seed.windows)


def compared_losses(of_seed: NetworkEvidence) -> tuple[float, float]:
    """The higher and the lower mean loss between which the rules of descent are compared."""
    assert of_seed.windows is not None
    return edge_losses(of_seed.run, of_seed.windows)


def compared_steps(of_seed: NetworkEvidence, role: str) -> slice | None:
    """The steps of a run at the losses of the base run's edge; None where it does not pass them."""
    assert of_seed.windows is not None
    return of_seed.windows.edge if role == "base" else steps_between(of_seed.runs[role], compared_losses(of_seed))


def amplitude(of_seed: NetworkEvidence, role: str) -> float:
    """How far a run's own groups swing at the losses of the base run's edge; NaN where it does not pass them.

    The groups are found in the first half of those steps and judged on the second.
    """
    steps = compared_steps(of_seed, role)
    return float("nan") if steps is None else gap_amplitude(of_seed.runs[role], steps)


def swing_size(gap: npt.ArrayLike, window: int) -> npt.NDArray[np.float64]:
    """(steps,) how far a series swings from step to step around its running mean, NaN at both ends.

    Args:
        gap: (steps,) the series.
        window: steps over which the root mean square of `validate.opposing_groups.alternating_part` is taken.

    >>> float(np.nanmax(swing_size(5 + 0.5 * (-1.0) ** np.arange(60), 25)))
    0.5
    """
    squares = alternating_part(gap) ** 2
    width = min(window, len(squares))
    sizes = np.full(len(squares) + 2, np.nan)
    averaged = np.sqrt(np.convolve(squares, np.full(width, 1 / width), mode="valid"))
    begin = 1 + width // 2
    sizes[begin : begin + len(averaged)] = averaged
    return sizes


def images_of(run: xr.Dataset, images: Images) -> Images:
    """The images that a run was trained on, in the order of its examples: the first of each class.

    Args:
        run: finished run; its labels tell how many of each class it took.
        images: those that it chose from.

    Raises:
        ValueError: the run's labels are not those of the images.
    """
    labels = run["label"].values
    chosen = first_of_each_class(images, int(np.bincount(labels).max()))
    if not np.array_equal(chosen.labels, labels):
        raise ValueError("the run was trained on other images: give --data the folder of the data set it chose from")
    return chosen


def describe(group: npt.NDArray[np.int64], labels: npt.ArrayLike) -> str:
    """The group's two commonest labels, with their counts.

    >>> describe(np.array([0, 1, 2]), [8, 8, 0])
    '2 ship, 1 plane'
    """
    names, counts = np.unique(np.asarray(labels)[group], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:2]
    return ", ".join(f"{counts[i]} {CLASSES[names[i]]}" for i in order)


def significant(value: float, digits: int = 3) -> str:
    """A measured number in print, to so many significant digits whatever its size.

    >>> significant(6728.3), significant(28.6), significant(-1.0), significant(0.05), significant(6.44e-5, 2)
    ('6,730', '28.6', '−1.00', '0.0500', '6.4·10⁻⁵')
    """
    rounded = f"{value:.{digits - 1}e}"
    mantissa, exponent = rounded.split("e")
    if int(exponent) < -3:
        return f"{mantissa}·{_power_of_ten(int(exponent))}".replace("-", "−")
    return f"{float(rounded):,.{max(digits - 1 - int(exponent), 0)}f}".replace("-", "−")


def spread(values: Sequence[float], in_print: Callable[[float], str] = significant) -> str:
    """Median with the range over seeds; the value alone where there is one; seeds without a value are left out.

    Args:
        values: one a seed.
        in_print: how a value is printed.

    >>> spread([1.0, 2.0, 4.0]), spread([2.2e-4]), spread([float("nan")]), spread([250, 260], "{:.0f}".format)
    ('2.00 (1.00 to 4.00)', '2.20·10⁻⁴', 'not defined', '255 (250 to 260)')
    """
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return "not defined"
    middle = in_print(float(np.median(values)))
    return middle if len(values) == 1 else f"{middle} ({in_print(min(values))} to {in_print(max(values))})"


def number(value: float) -> str:
    """A step size in print.

    >>> number(0.05), number(1e-4)
    ('0.05', '10⁻⁴')
    """
    mantissa, exponent = f"{value:.0e}".split("e")
    if value >= 1e-3 or f"{value:.6g}" != f"{float(mantissa) * 10 ** int(exponent):.6g}":
        return f"{value:g}"
    power = _power_of_ten(int(exponent))
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _power_of_ten(exponent: int) -> str:
    return f"10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def seeds_in_words(runs: Sequence[object]) -> str:
    """How many seeds there are.

    >>> seeds_in_words(["base of seed 0"])
    'one seed'
    """
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"
