"""Files that are whole or not there: written beside their place, forced to the disk, renamed into it."""

from __future__ import annotations

import glob
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from theory.command_line import InputError, mend

_ABANDONED = 3600.0
"""Seconds after which a half-written file is that of a process that was killed."""


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that, whenever the process or the machine stops, the old content or the new one is there.

    So it is where several processes write the same file: one of their contents, whole.

    Raises:
        OSError: it cannot be written; the old content stays.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    synchronise([path.parent])


def synchronise(paths: Iterable[Path]) -> None:
    """Waits until files, or the names in folders, are on the disk; several at once, as a disk takes them together."""
    chosen = list(paths)
    if len(chosen) == 1:
        _synchronise_one(chosen[0])
    elif chosen:
        with ThreadPoolExecutor(min(16, len(chosen))) as pool:
            list(pool.map(_synchronise_one, chosen))


def _synchronise_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Turns the system's refusal to write (disk full, no permission) into one line for the user.

    Raises:
        InputError: something inside could not be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"run {run} cannot be written ({error.strerror or error}): {mend(error)}") from None
