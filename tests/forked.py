"""Processes that tests fork from a warm server, and file operations at which they are counted or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest


def forking_from(module: str) -> ForkServerContext:
    """Processes forked from one that has imported a module and computed nothing: a fraction of a second each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with pytest.MonkeyPatch.context() as patch:
        # The server imports before it is told this process's path.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


def run_to_end(processes: ForkServerContext, function: Any, *arguments: Any) -> int:
    """Runs a function in a process of its own; the process's exit code."""
    process = processes.Process(target=function, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def die_at(root: Path, events: int) -> None:
    """Has this process kill itself at the given file operation below the run store, counted from 1."""
    sys.stderr = (root.parent / "stderr.txt").open("a", buffering=1)
    left = events

    def count() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _at_file_operations(root, count)


def count_into(root: Path, total: Any) -> None:
    """Adds this process's file operations below the run store to a shared value."""

    def count() -> None:
        total.value += 1

    _at_file_operations(root, count)


def _at_file_operations(root: Path, then: Callable[[], None]) -> None:
    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event.split(".")[0] in ("open", "os", "shutil") and str(root) in str(arguments[:2]):
            then()

    sys.addaudithook(look)
