"""One progress bar for every long loop: on a terminal it moves, in a log it writes a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from tqdm import tqdm

from sim.distributed import is_first

T = TypeVar("T")

LOG_SECONDS = 30.0
"""Seconds between lines where the bar is not on a terminal."""


_line: int | None = None
"""Of the bars of one of several processes that share a terminal; None for the next free one."""


def share_terminal(line: int, lock: Any) -> None:
    """Has this process show its bars on a line of the terminal that is its own among several processes'.

    Args:
        line: number of the line.
        lock: of `bar_lock`, the same for all of them.
    """
    global _line
    _line = line
    tqdm.set_lock(lock)


def bar_lock(context: BaseContext) -> Any:
    """A lock for the bars of several processes, which this one's take from now on too."""
    lock = context.RLock()
    tqdm.set_lock(lock)
    return lock


def leave_bars(lines: int) -> None:
    """Goes below the bars of so many processes that were killed, which cannot do away with them."""
    sys.stderr.write("\n" * (lines if sys.stderr.isatty() else 1))


def tell(words: str) -> None:
    """Prints a line above the bars."""
    tqdm.write(words)
    sys.stdout.flush()


def progress_bar(items: Iterable[T], description: str, *, show: bool = True) -> tqdm[T]:
    """The items behind a bar with an estimate of the time left, on standard error; of several ranks, the first's."""
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=description,
        disable=not show or not is_first(),
        leave=False,
        position=_line if terminal else None,
        mininterval=0.1 if terminal else LOG_SECONDS,
        maxinterval=10.0 if terminal else 2 * LOG_SECONDS,
        file=sys.stderr,
    )
