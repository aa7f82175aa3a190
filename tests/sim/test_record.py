"""Columns of rows: what is appended comes back, from memory and disk, through any number of interruptions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim import Record
from theory import InputError

SHAPES: dict[str, tuple[tuple[int, ...], Any]] = {
    "loss": ((5,), np.float32),
    "half": ((5,), np.float16),
    "share": ((2, 3), np.float64),
    "converged": ((), np.bool_),
    "at": ((), np.int64),
}


def _record(folder: Path | None, chunk_bytes: int) -> Record:
    record = Record(folder, chunk_bytes=chunk_bytes)
    for name, (shape, dtype) in SHAPES.items():
        dimensions = ["at"] if name in ("at", "converged") else ["step"]
        record.declare(name, [*dimensions, *(f"{name}{i}" for i in range(len(shape)))], shape, dtype)
    return record


def _row(name: str, step: int) -> npt.NDArray[Any]:
    shape, dtype = SHAPES[name]
    # Zeros among them: Zarr leaves out chunks of its fill value unless told otherwise.
    value = np.random.default_rng(step).normal(size=shape) * (step % 5 > 1)
    return np.asarray(value).astype(dtype)


def _append(record: Record, begin: int, end: int) -> None:
    for step in range(begin, end):
        for name in SHAPES:
            record.append(name, _row(name, step))


@settings(max_examples=15 if settings().max_examples <= 50 else settings().max_examples)  # each waits for the disk
@given(st.integers(0, 25), st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=3), st.integers(1, 400))
@example(12, [(11, 0)], 1)  # chunks of one row, some of them all zero
def test_rows_come_back_whatever_was_lost_on_the_way(
    steps: int, interruptions: list[tuple[int, int]], chunk_bytes: int
) -> None:
    """At each interruption the record has gone on past its last checkpoint, and goes back to it in a new process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "zarr"
        record, state, at = _record(folder, chunk_bytes), None, 0
        for checkpoint, lost in interruptions:
            checkpoint = min(steps, max(at, checkpoint))
            _append(record, at, checkpoint)
            state, at = record.state_dict(), checkpoint
            _append(record, checkpoint, min(steps, checkpoint + lost))
            record = _record(folder, chunk_bytes)
            record.load_state_dict(state)
        _append(record, at, steps)
        memory = _record(None, chunk_bytes)
        _append(memory, 0, steps)
        found = record.dataset().load()
        xr.testing.assert_identical(found, memory.dataset())
        for column in SHAPES:
            assert found[column].dtype == SHAPES[column][1]
            expected = [_row(column, step) for step in range(steps)]
            np.testing.assert_array_equal(found[column].values, np.reshape(expected, (steps, *SHAPES[column][0])))


def test_a_record_in_progress_can_be_read_and_grows_by_whole_chunks(tmp_path: Path) -> None:
    record = Record(tmp_path / "zarr", chunk_bytes=4 * 5 * 3)
    record.declare("loss", ["step", "example"], [5], np.float32)
    for step in range(8):
        record.append("loss", np.full(5, step))
    seen = xr.open_zarr(tmp_path / "zarr", consolidated=False)
    np.testing.assert_array_equal(seen["loss"].values[:, 0], np.arange(6))


def test_nothing_is_left_of_rows_past_the_end(tmp_path: Path) -> None:
    """As where a resumed run, with other bits on another machine, diverges sooner."""
    record = _record(tmp_path / "zarr", 1)
    _append(record, 0, 4)
    state = record.state_dict()
    _append(record, 4, 9)
    again = _record(tmp_path / "zarr", 1)
    again.load_state_dict(state)
    _append(again, 4, 6)
    (tmp_path / "zarr" / "loss" / "c" / "0.8f3a.partial").touch()
    assert again.dataset().sizes["step"] == 6
    assert sorted(p.name for p in (tmp_path / "zarr" / "loss" / "c").iterdir()) == list("012345")


def test_losses_too_large_for_half_precision_are_stored_as_its_largest_number() -> None:
    record = Record()
    record.declare("loss", ["step", "example"], [3], np.float16)
    record.append("loss", np.array([1e9, np.nan, -1e9], dtype=np.float32))
    np.testing.assert_array_equal(record.dataset()["loss"].values, np.array([[65504, np.nan, -65504]], np.float16))


def test_a_checkpoint_of_other_columns_is_refused(tmp_path: Path) -> None:
    state = _record(None, 100).state_dict()
    with pytest.raises(InputError, match="another version"):
        Record(tmp_path / "zarr").load_state_dict(state)
    with pytest.raises(InputError, match="another version"):
        _record(tmp_path / "zarr", 200).load_state_dict(state)
    record = _record(None, 100)
    with pytest.raises(ValueError, match="twice"):
        record.declare("loss", ["step"])
