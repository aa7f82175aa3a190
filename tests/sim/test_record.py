"""Columns of rows: what is appended comes back, from memory and disk, through any number of interruptions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sim.record
from sim import Record, SnapshotProbe, descend
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
@given(
    st.integers(0, 25),
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=3),
    st.integers(1, 400),
    st.booleans(),
)
@example(12, [(11, 0)], 1, False)  # chunks of one row, some of them all zero
@example(25, [(7, 9), (3, 1)], 60, True)
def test_rows_come_back_whatever_was_lost_on_the_way(
    steps: int, interruptions: list[tuple[int, int]], chunk_bytes: int, wide: bool
) -> None:
    """At each interruption the record has gone on past its last checkpoint, and goes back to it in a new process."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.record, "WIDE_ROW", 5 if wide else 6)
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


def test_a_part_of_wide_rows_is_read_without_the_rest(tmp_path: Path) -> None:
    count, losses = 40_001, np.random.default_rng(0).normal(size=(250, 40_001)).astype(np.float16)
    record = Record(tmp_path / "zarr")
    record.declare("loss", ["step", "example"], [count], np.float16)
    for row in losses[:120]:
        record.append("loss", row)
    state = record.state_dict()
    for row in losses[120:]:
        record.append("loss", row)
    record.dataset()
    # A process that was killed may leave shards cut short, past its last checkpoint.
    for chunk in ("3", "4"):
        file = tmp_path / "zarr" / "loss" / "c" / chunk / "0"
        file.write_bytes(file.read_bytes()[:1000])
    again = Record(tmp_path / "zarr")
    again.declare("loss", ["step", "example"], [count], np.float16)
    again.load_state_dict(state)
    for row in losses[120:]:
        again.append("loss", row)
    stored = again.dataset()["loss"]
    np.testing.assert_array_equal(stored.values, losses)
    np.testing.assert_array_equal(stored.isel(example=count - 1).values, losses[:, -1])
    np.testing.assert_array_equal(stored.isel(step=249).values, losses[-1])
    array = zarr.open_array(tmp_path / "zarr" / "loss", mode="r")
    assert array.shards == (52, 16 * 2501)
    assert array.chunks == (52, 2501)
    assert sorted(p.name for p in (tmp_path / "zarr" / "loss" / "c").iterdir()) == list("01234")
    # All but the pieces with the first example: what is damaged elsewhere is not looked at.
    for file in (tmp_path / "zarr" / "loss" / "c").glob("*/0"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 1000] = bytes(1000)
        file.write_bytes(content)
    damaged = xr.open_zarr(tmp_path / "zarr", consolidated=False)["loss"]
    np.testing.assert_array_equal(damaged.isel(example=0).values, losses[:, 0])
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|frame|data"):
        damaged.load()


def test_a_checkpoint_of_another_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _record(tmp_path / "zarr", 100).state_dict()
    monkeypatch.setattr(sim.record, "WIDE_ROW", 5)
    with pytest.raises(InputError, match="another version"):
        _record(tmp_path / "zarr", 100).load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "row"),
    [("loss", 1.0), ("loss", np.ones(1)), ("half", np.ones(6)), ("share", np.ones(3)), ("at", np.ones(1))],
)
def test_a_row_of_another_shape_is_refused_and_leaves_the_column_as_it_was(name: str, row: npt.ArrayLike) -> None:
    record = _record(None, 100)
    record.append(name, _row(name, 0))
    shape = list(SHAPES[name][0])
    with pytest.raises(InputError) as refused:
        record.append(name, row)
    assert str(refused.value) == f"a row of {name} has shape {list(np.shape(row))}: give the {shape} of its column"
    assert record.state_dict()[name]["rows"] == 1


def test_snapshots_of_fewer_trained_parameters_than_stated_are_refused() -> None:
    """One number was kept four times."""
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for frozen in list(network.parameters())[1:]:
        frozen.requires_grad_(False)
    ones = torch.ones(3, 1)
    with pytest.raises(InputError, match=r"snapshot has shape \[1\]: give the \[4\]"):
        descend(network, ones, ones, lr=0.1, steps=1, loss=_squared, probes=[SnapshotProbe(4, 1)], progress=False)


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1)


def test_the_rows_of_another_run_are_left_alone(tmp_path: Path) -> None:
    """A finished record was overwritten by the next run in its folder, with fewer rows of other numbers."""

    def record(**options: bool) -> Record:
        one = Record(tmp_path / "rows", **options)
        one.declare("x", ["step"])
        return one

    first = record()
    for value in range(3):
        first.append("x", value)
    state = first.state_dict()
    assert first.dataset()["x"].values.tolist() == [0, 1, 2]
    other = record()
    for use in (lambda: other.append("x", 9.0), other.dataset):
        with pytest.raises(InputError, match="rows holds rows of another run, and no checkpoint to go on from them"):
            use()
    assert xr.open_zarr(tmp_path / "rows", consolidated=False)["x"].values.tolist() == [0, 1, 2]
    goes_on = record()
    goes_on.load_state_dict(state)
    goes_on.append("x", 3)
    assert goes_on.dataset()["x"].values.tolist() == [0, 1, 2, 3]
    anew = record(replace=True)
    anew.append("x", 9)
    assert anew.dataset()["x"].values.tolist() == [9]
