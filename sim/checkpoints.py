"""Checkpoints of a run: whole or not there, the last two kept, checked by a digest, read without executing code."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sim.distributed import from_first
from sim.durable_files import write_durably, writing

DIGEST_BYTES = hashlib.sha256().digest_size

CHECKPOINT_SECONDS = 15.0
"""Seconds of work that a kill costs at most. When a checkpoint is taken changes nothing in the run's results."""


class Checkpoints:
    """The checkpoints of one run in progress, ``checkpoints/step-<step>.pt``.

    Each file is a `torch.save` of plain values and tensors followed by its SHA-256, so that any damage is seen. A new
    one is complete before the last but one is removed.

    Args:
        run: the run's folder as the user knows it, for messages.
        folder: where the files lie; made with the first.
        circumstances: what the bits of a run may depend on besides its configuration, such as
            ``{"threads": torch.get_num_threads()}``: where they differ at a resumption, a warning says so.
        every_seconds: seconds between checkpoints; 0 for one after every step.
        at_end: whether the end of a descent is kept too, so that the same call gives it again; not in the run store,
            which keeps finished runs otherwise.
    """

    def __init__(
        self,
        run: Path,
        folder: Path,
        circumstances: Mapping[str, str | int],
        every_seconds: float = CHECKPOINT_SECONDS,
        *,
        at_end: bool = True,
    ) -> None:
        self.run, self.folder, self.every_seconds, self.at_end = run, folder, every_seconds, at_end
        self.circumstances = dict(circumstances)
        self.resumed_at: list[int] = []
        self._earlier_seconds = 0.0
        self._saved = False
        self._started = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds spent on the run, in this process and in those before it up to their last checkpoint."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def exist(self) -> bool:
        """Whether there is any checkpoint."""
        return any(self.folder.glob("step-*.pt"))

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes the state before step `step`; the one before it is kept, older ones are removed.

        Args:
            step: number of steps taken.
            state: nested dicts and lists of tensors, numbers and text.

        Raises:
            InputError: it cannot be written; those before it stay.
            pickle.UnpicklingError: the state holds other things; said at the first checkpoint, not at a resumption.
        """
        content = io.BytesIO()
        held = {
            "step": step,
            "state": dict(state),
            "seconds": self.seconds,
            "resumed_at": self.resumed_at,
            "circumstances": self.circumstances,
        }
        torch.save(held, content)
        if not self._saved:
            _load(content.getvalue())
        content.write(hashlib.sha256(content.getbuffer()).digest())
        with writing(self.run):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / f"step-{step:012d}.pt", content.getbuffer())
            for old in self._newest_first()[2:]:
                old.unlink()
        self._last, self._saved = time.monotonic(), True

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest undamaged checkpoint: number of steps taken and state; None where there is none.

        A damaged one is named on standard error, removed, and the one before it is taken. Of several ranks, all get
        the first's.
        """
        return from_first(self._latest_here())

    def _latest_here(self) -> tuple[int, dict[str, Any]] | None:
        for path in self._newest_first():
            held = _read(path)
            if held is None:
                print(f"checkpoint {path.name} of run {self.run} is damaged: taking the one before it", file=sys.stderr)
                path.unlink()
                continue
            self._earlier_seconds = held["seconds"]
            self.resumed_at = [*held["resumed_at"], held["step"]]
            changed = [
                f"{name} {held['circumstances'][name]} then, {now} now"
                for name, now in self.circumstances.items()
                if held["circumstances"].get(name, now) != now  # earlier versions knew fewer of them
            ]
            warning = f" ({', '.join(changed)}: its bits may differ from an uninterrupted run's)" if changed else ""
            print(f"run {self.run} goes on from step {held['step']}{warning}", file=sys.stderr)
            return held["step"], held["state"]
        return None

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("step-*.pt") if path.is_file()), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    """What `Checkpoints.save` wrote; None where the digest does not fit, or it holds something else."""
    content = path.read_bytes()
    if hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
        return None
    try:
        held = _load(content[:-DIGEST_BYTES])
        return held if {"step", "state", "seconds", "resumed_at", "circumstances"} <= held.keys() else None
    except MemoryError:  # no damage: the caller removes what is damaged
        raise
    except Exception:  # whatever PyTorch says of a file that is none of ours
        return None


def _load(content: bytes) -> dict[str, Any]:
    held: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return held
