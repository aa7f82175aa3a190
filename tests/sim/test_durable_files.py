"""Files that several processes write are whole; what killed ones left behind goes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sim.durable_files import write_durably


def test_several_writers_of_one_file_leave_one_of_their_contents_whole(tmp_path: Path) -> None:
    path, contents = tmp_path / "report.json", [bytes([65 + i]) * 200_000 for i in range(4)]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(15):
                write_durably(path, content)
        except OSError as error:
            failures.append(error)

    write_durably(path, contents[0])
    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert not failures
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_what_a_killed_process_left_half_written_is_removed_later(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f".{name}.partial" for name in ("a.json.1", "a.json.2", "b.json.1"))
    for left in (old, new, other):
        left.write_bytes(b"half")
    for left in (old, other):
        os.utime(left, (time.time() - 7200,) * 2)
    write_durably(tmp_path / "a.json", b"whole")
    assert not old.exists()
    assert new.exists()  # of a process that may be writing
    assert other.exists()


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_durably(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
