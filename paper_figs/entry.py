"""What a figure's module says of itself, in its ``ENTRY``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from paper_figs.runs import Runs


@dataclass(frozen=True)
class FigureEntry:
    """A figure.

    Attributes:
        name: its number.
        shows: what it shows, in a line.
        claims: the claims and statements behind it.
        needs: what it draws from, in the words of `paper_figs.runs.Runs.get`.
        draw: makes it; free of file access.
        caption: its caption, with the numbers that compare theory and measurement.
        optional: what it adds where it is there, in the same words.
    """

    name: str
    shows: str
    claims: str
    needs: tuple[str, ...]
    draw: Callable[[Runs], Figure]
    caption: Callable[[Runs], str]
    optional: tuple[str, ...] = ()
