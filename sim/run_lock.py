"""One process a run: a lock that the system gives back when its holder ends, even by kill −9."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.durable_files import writing
from theory.command_line import InputError


@contextmanager
def run_lock(root: Path, name: str) -> Iterator[None]:
    """Holds the run of that name for this process.

    The lock is `flock` on ``.<name>.lock``, which holds the holder's process number and is removed afterwards. A file
    that a killed process left behind is not locked, and is taken over.

    Raises:
        InputError: another process holds it.
    """
    path = root / f".{name}.lock"
    while True:
        with writing(root / name):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise InputError(
                f"run {root / name} is being made by another process ({holder}): wait for it or give --runs another "
                "folder"
            ) from None
        # The last holder may have removed the file after we opened it: then nobody else will meet our lock.
        if _is_still(path, handle):
            break
        os.close(handle)
    try:
        with writing(root / name):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
