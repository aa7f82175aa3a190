"""Rows that a run appends along its steps: kept in memory, or in Zarr chunk by chunk.

A chunk is written once, when it is full, and never changed; rows that do not fill one ride in the run's checkpoint.
Whatever a killed run wrote after its last checkpoint is written again, to the same bytes.

A chunk spans whole rows. Where rows are wide it is a shard of pieces, compressed one by one in the chunk's file, so
that a few entries of all rows, such as one example's losses at all steps, are read without the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
import zarr
from torch import Tensor
from zarr.codecs import ZstdCodec

from sim.durable_files import synchronise, writing
from sim.manifest import file_digest
from theory.command_line import InputError

CHUNK_BYTES = 1 << 22
"""Size of a chunk before compression."""
MAX_CHUNK_ROWS = 1024
"""Bound on the rows of a chunk, for short rows."""
WIDE_ROW = 16_384
"""Entries from which on a row is wide."""
PIECES = 16
"""Pieces of a chunk of wide rows. More of them make it slower to write, and reading one hardly faster."""


@dataclass
class _Column:
    dimensions: tuple[str, ...]
    buffer: npt.NDArray[Any]  # (rows of a chunk, ...)
    piece: int = 0  # entries of a row in a piece of a chunk, 0 where chunks are in one piece
    count: int = 0  # rows appended so far
    stored: int = 0  # rows in full chunks, in memory or on disk; the rest is in the buffer
    chunks: list[npt.NDArray[Any]] = field(default_factory=list)  # in memory
    array: zarr.Array[Any] | None = None  # on disk
    digests: list[str] = field(default_factory=list)  # of its chunks' files

    @property
    def tail(self) -> npt.NDArray[Any]:
        return self.buffer[: self.count - self.stored]


class Record:
    """Named columns of rows.

    Args:
        folder: Zarr group to append to; in memory when not given.
        run: the run's folder as the user knows it, for messages.
        chunk_bytes: size of a chunk before compression; at least one row, at most `MAX_CHUNK_ROWS`. Smaller ones are
            seen earlier by others who open the folder while the run goes on.
        replace: whether rows that lie in the folder, and that no checkpoint goes on from, may be replaced.
    """

    def __init__(
        self,
        folder: Path | None = None,
        run: Path | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        *,
        replace: bool = False,
    ) -> None:
        self.folder, self.run = folder, run or folder or Path()
        self._chunk_bytes = chunk_bytes
        self._columns: dict[str, _Column] = {}
        self._unsynchronised: set[Path] = set()
        # Another run's rows: nothing is touched until a checkpoint says that this one goes on from them.
        self._of_another = folder is not None and not replace and any(folder.glob("*/c/*"))
        if folder is not None and not self._of_another:
            self._create_group(folder)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def declare(
        self, name: str, dimensions: Sequence[str], shape: Sequence[int] = (), dtype: npt.DTypeLike = np.float64
    ) -> None:
        """Adds a column.

        Args:
            name: its name; one that has the name of its first dimension becomes that dimension's coordinate.
            dimensions: names of the dimensions, the one that rows are appended along first.
            shape: shape of a row.
            dtype: type it is stored in. Numbers too large for float16 are stored as its largest.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self._columns:
            raise ValueError(f"column {name} is declared twice")
        row_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        rows = max(1, min(MAX_CHUNK_ROWS, self._chunk_bytes // max(1, row_bytes)))
        wide = rows > 1 and len(shape) == 1 and shape[0] >= WIDE_ROW
        column = _Column(tuple(dimensions), np.zeros((rows, *shape), dtype), -(-shape[0] // PIECES) if wide else 0)
        self._columns[name] = column
        if self.folder is not None and not self._of_another:
            self._create_array(self.folder, name, column)

    def append(self, name: str, row: npt.ArrayLike | Tensor) -> None:
        """Appends a row.

        Raises:
            InputError: the row has another shape than the column's rows, a chunk cannot be written, or the folder
                holds the rows of another run.
        """
        self._require_own()
        column = self._columns[name]
        values = row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row)
        if values.shape != (shape := column.buffer.shape[1:]):  # NumPy would repeat one number along the row
            raise InputError(f"a row of {name} has shape {list(values.shape)}: give the {list(shape)} of its column")
        if column.buffer.dtype == np.float16:
            largest = np.finfo(np.float16).max
            values = np.clip(values, -largest, largest)
        column.buffer[column.count - column.stored] = values
        column.count += 1
        if column.count - column.stored == len(column.buffer):
            self._store_buffer(name, column)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the number of rows, and those that are on no disk; the others are forced to it."""
        with writing(self.run):
            synchronise(self._unsynchronised)
        self._unsynchronised.clear()
        state = {}
        for name, column in self._columns.items():
            tail = np.concatenate([*column.chunks, column.tail])
            state[name] = {
                "rows": column.count,
                "chunk_rows": len(column.buffer),
                "piece": column.piece,
                "tail": torch.from_numpy(tail),
                "digests": column.digests[: column.stored // len(column.buffer)],
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to the rows there were when `state_dict` was called.

        Raises:
            InputError: it has other columns, or chunks of another size, or a chunk on the disk is damaged.
        """
        there = {name: (held["chunk_rows"], held.get("piece", 0)) for name, held in state.items()}
        here = {name: (len(column.buffer), column.piece) for name, column in self._columns.items()}
        if there != here:
            raise InputError(f"run {self.run} was begun by another version of this package: give --force to begin anew")
        if self.folder is not None and self._of_another:
            self._of_another = False
            self._create_group(self.folder)
            for name, column in self._columns.items():
                self._create_array(self.folder, name, column)
        for name, held in state.items():
            column, tail = self._columns[name], held["tail"].numpy()
            column.count = column.stored = held["rows"] - len(tail)
            column.chunks.clear()
            if column.array is not None:
                self._require_whole(name, column, held.get("digests"))
                with writing(self.run):
                    column.array.resize((column.stored, *column.array.shape[1:]))
            for row in tail:
                self.append(name, row)

    def dataset(self) -> xr.Dataset:
        """All rows so far, with their dimensions. On disk: written to the last row, and opened lazily."""
        if self.folder is None:
            columns = {
                name: (column.dimensions, np.concatenate([*column.chunks, column.tail]))
                for name, column in self._columns.items()
            }
            return xr.Dataset(columns)
        self._require_own()
        for name, column in self._columns.items():
            if len(column.tail):
                self._write_chunk(name, column)
            with writing(self.run):
                self._remove_strays(name, -(-column.count // len(column.buffer)))
        stored: xr.Dataset = xr.open_zarr(self.folder, consolidated=False)
        return stored.drop_vars([name for name in stored.variables if name not in self._columns])

    def _require_own(self) -> None:
        if self._of_another:
            raise InputError(
                f"{self.folder} holds rows of another run, and no checkpoint to go on from them: give another folder, "
                "or remove it"
            )

    def _create_group(self, folder: Path) -> None:
        with writing(self.run):
            folder.mkdir(parents=True, exist_ok=True)
            # Metadata are made afresh, not read: a killed process may have left them torn.
            (folder / "zarr.json").unlink(missing_ok=True)
            zarr.create_group(folder)

    def _create_array(self, folder: Path, name: str, column: _Column) -> None:
        rows, *shape = column.buffer.shape
        with writing(self.run):
            (folder / name / "zarr.json").unlink(missing_ok=True)
            column.array = zarr.create_array(
                folder / name,
                shape=(0, *shape),
                chunks=(rows, column.piece) if column.piece else tuple(max(1, n) for n in column.buffer.shape),
                shards=(rows, column.piece * PIECES) if column.piece else None,
                dtype=column.buffer.dtype,
                compressors=[ZstdCodec(level=1, checksum=True)],
                dimension_names=column.dimensions,
                config={"write_empty_chunks": True},  # a chunk of zeros is a file like any other
            )

    def _store_buffer(self, name: str, column: _Column) -> None:
        if column.array is None:
            column.chunks.append(column.buffer)
            column.buffer = np.zeros_like(column.buffer)
        else:
            self._write_chunk(name, column)
        column.stored = column.count

    def _require_whole(self, name: str, column: _Column, digests: Sequence[str] | None) -> None:
        """Zarr reads a chunk that is missing as zeros: what a run goes on from is to be what it wrote.

        Checkpoints of earlier versions hold no digests: their chunks have to be there, and are taken as they are.
        """
        column.digests = []
        for number in range(column.stored // len(column.buffer)):
            file = self._chunk_file(name, column, number)
            found = file_digest(file) if file.is_file() else None
            if found is None or (digests is not None and found != digests[number]):
                raise InputError(f"run {self.run} is damaged ({file} is not as written): give --force to begin anew")
            column.digests.append(found)

    def _chunk_file(self, name: str, column: _Column, number: int) -> Path:
        assert self.folder is not None
        return self.folder.joinpath(name, "c", str(number), *["0"] * (column.buffer.ndim - 1))

    def _remove_strays(self, name: str, chunks: int) -> None:
        """Removes half-written files, and chunks past the end, of a process that was killed."""
        assert self.folder is not None
        for path in (self.folder / name).glob("c/*"):
            if not path.name.isdigit() or int(path.name) >= chunks:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write_chunk(self, name: str, column: _Column) -> None:
        """Writes the buffer's rows as one chunk, which begins where the stored rows end."""
        assert column.array is not None
        number = column.stored // len(column.buffer)
        file = self._chunk_file(name, column, number)
        with writing(self.run):
            column.array.resize((column.count, *column.array.shape[1:]))
            if column.piece:  # Zarr would put the rows into the shard that a killed process left, and first read it
                file.unlink(missing_ok=True)
            column.array[column.stored : column.count] = column.tail
            column.digests[number:] = [file_digest(file)]
        self._unsynchronised.add(file)
