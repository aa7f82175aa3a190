"""Runs that several ranks make together: the first obtains and writes them, the others compute with it.

What the others hold of a run reaches no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from torch import Tensor

from sim.checkpoints import Checkpoints
from sim.distributed import RankLost, from_first, rank
from sim.record import Record

R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")

_COMPUTE, _FINISHED = "compute", "finished"


def lead(compute: Callable[[R], T], obtain: Callable[[Callable[[R], T]], U]) -> U:
    """Obtains a run on the first rank, and tells the others what to do meanwhile.

    Args:
        compute: what all ranks do together where the run is not finished.
        obtain: makes or reads the run, given what to compute.
    """
    computing = False

    def announced(run: R) -> T:
        nonlocal computing
        computing = True
        from_first(_COMPUTE)
        data = compute(run)
        computing = False
        return data

    try:
        obtained = obtain(announced)
    except Exception as error:
        # The others wait for a word; in the middle of `compute` they notice that the connection ends.
        if not computing:
            with suppress(RankLost):
                from_first(str(error).partition("\n")[0] or type(error).__name__)
        raise
    from_first(_FINISHED)
    return obtained


def follow(compute: Callable[[Record, Checkpoints], object]) -> None:
    """Does on another rank what the first one says.

    Raises:
        RankLost: the first rank failed.
    """
    word = from_first("")
    if word == _COMPUTE:
        compute(ReplicaRecord(), ReplicaCheckpoints())
        word = from_first("")
    if word != _FINISHED:
        raise RankLost(f"rank {rank()} stops, as rank 0 failed: {word}")


class ReplicaRecord(Record):
    """Counts the rows that the first rank writes. Its data set has their shapes, zeros, and no memory."""

    def append(self, name: str, row: npt.ArrayLike | Tensor) -> None:
        """Counts a row."""
        self._columns[name].count += 1

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that many rows."""
        for name, held in state.items():
            self._columns[name].count = held["rows"]

    def dataset(self) -> xr.Dataset:
        """Zeros, in the shape of the rows so far."""
        columns = {}
        for name, column in self._columns.items():
            shape = (column.count, *column.buffer.shape[1:])
            columns[name] = column.dimensions, np.broadcast_to(np.zeros((), column.buffer.dtype), shape)
        return xr.Dataset(columns)


class ReplicaCheckpoints(Checkpoints):
    """Takes no checkpoints, and goes on from the first rank's."""

    def __init__(self) -> None:
        super().__init__(Path(), Path(), {}, at_end=False)

    @property
    def exist(self) -> bool:
        """No."""
        return False

    def due(self) -> bool:
        """Never."""
        return False

    def _latest_here(self) -> None:
        return None
