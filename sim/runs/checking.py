"""A trajectory whose files are compared with their checksums as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from sim.manifest import digest
from theory.command_line import InputError


class CheckedStore(WrapperStore[LocalStore]):
    """A finished run's trajectory, for runs too large to be checked when they are opened.

    Zarr decodes a chunk that has changed into other numbers, or ends in an error of the decoder's. A file of which it
    reads parts, as it does of wide rows, is compared as a whole at the first of them.

    Attributes:
        folder: the trajectory's folder.
        files: what `sim.manifest.describe_files` said of it.
    """

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(LocalStore(folder, read_only=True))
        self.folder, self.files = folder, files
        self._compared: set[str] = set()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The file's content, or a part of it.

        Raises:
            InputError: it is not what was written.
        """
        found = await super().get(key, prototype, byte_range)
        if found is None or key not in self.files or (byte_range is not None and key in self._compared):
            return found
        whole = found if byte_range is None else await super().get(key, prototype)
        if whole is None or digest(whole.to_bytes()) != self.files[key]["sha256"]:
            raise damaged(self.folder.parent, f"{key} has another checksum")
        self._compared.add(key)
        return found


def damaged(run: Path, what: str) -> InputError:
    """What is said of a finished run that cannot be read as it was written."""
    return InputError(f"run {run} is damaged ({what}): delete it and make it again")
