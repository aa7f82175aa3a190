"""Checkpoints: any damage is seen, the one before is taken, and nothing but values is read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sim import Checkpoints
from theory import InputError


def _checkpoints(folder: Path, threads: int = 1) -> Checkpoints:
    return Checkpoints(Path("runs/a"), folder, {"threads": threads}, every_seconds=0)


def _save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"weights": torch.full((50,), step), "nested": [{"x": step}]})


def test_the_last_two_are_kept_and_the_newest_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = _checkpoints(tmp_path / "c")
    assert not checkpoints.exist
    assert checkpoints.latest() is None
    _save(checkpoints, 2, 30)
    checkpoints._earlier_seconds = 1000
    _save(checkpoints, 100)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-000000000030.pt", "step-000000000100.pt"]
    again = _checkpoints(tmp_path / "c")
    found = again.latest()
    assert found is not None
    assert found[0] == 100
    assert torch.equal(found[1]["weights"], torch.full((50,), 100))
    assert found[1]["nested"] == [{"x": 100}]
    assert again.resumed_at == [100]
    assert again.seconds >= 1000
    assert capsys.readouterr().err == "run runs/a goes on from step 100\n"


@given(st.data())
def test_any_damaged_byte_or_cut_is_seen(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()) as said:
        folder = Path(name) / "c"
        _save(_checkpoints(folder), 1, 2)
        path = folder / "step-000000000002.pt"
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= data.draw(st.integers(1, 255))
        else:
            del content[at:]
        path.write_bytes(content)
        found = _checkpoints(folder).latest()
        assert found is not None
        assert found[0] == 1
        assert not path.exists()
    assert "step-000000000002.pt of run runs/a is damaged" in said.getvalue()


@pytest.mark.parametrize("content", [b"no archive", b"numbers", b""])
def test_a_file_of_something_else_is_damage_too(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its digest fits."""
    _save(_checkpoints(tmp_path / "c"), 1)
    if content == b"numbers":
        held = io.BytesIO()
        torch.save({"numbers": [1, 2]}, held)
        content = held.getvalue()
    (tmp_path / "c" / "step-000000000002.pt").write_bytes(content + hashlib.sha256(content).digest())
    (tmp_path / "c" / "step-000000000003.pt").mkdir()
    found = _checkpoints(tmp_path / "c").latest()
    assert found is not None
    assert found[0] == 1
    assert "step-000000000002.pt of run runs/a is damaged" in capsys.readouterr().err


def test_other_circumstances_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save(_checkpoints(tmp_path / "c"), 5)
    _checkpoints(tmp_path / "c", threads=2).latest()
    assert "threads 1 then, 2 now: its bits may differ" in capsys.readouterr().err


def test_a_state_that_could_not_be_loaded_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError):
        _checkpoints(tmp_path / "c").save(1, {"folder": tmp_path})
    assert not (tmp_path / "c").exists()


def test_the_old_checkpoint_stays_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = _checkpoints(tmp_path / "c")
    _save(checkpoints, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"runs/a cannot be written \(No space left on device\)"):
        _save(checkpoints, 2)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["step-000000000001.pt"]
