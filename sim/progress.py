"""One progress bar for every long loop: on a terminal it moves, in a log it writes a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from sim.distributed import is_first

T = TypeVar("T")

LOG_SECONDS = 30.0
"""Seconds between lines where the bar is not on a terminal."""


def progress_bar(items: Iterable[T], description: str, *, show: bool = True) -> tqdm[T]:
    """The items behind a bar with an estimate of the time left, on standard error; of several ranks, the first's."""
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=description,
        disable=not show or not is_first(),
        leave=False,
        mininterval=0.1 if terminal else LOG_SECONDS,
        maxinterval=10.0 if terminal else 2 * LOG_SECONDS,
        file=sys.stderr,
    )
