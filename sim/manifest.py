"""A list of files with their sizes and checksums, by which damage is found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file below a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], checked_bytes: int, thorough: bool) -> bool:
    """Compares a folder with its list.

    Args:
        folder: where the files lie.
        files: what `describe_files` said of them.
        checked_bytes: checksums are compared if the folder is no larger; else those of Zarr's metadata only.
        thorough: compares every checksum.

    Returns:
        Whether every checksum was compared.

    Raises:
        ValueError: a file is missing, cut short or changed; the message names it. Or it is no such list.
    """
    if "zarr.json" not in files:
        raise ValueError("the manifest lists no trajectory")
    thorough = thorough or sum(of_file["bytes"] for of_file in files.values()) <= checked_bytes
    for name, of_file in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if (size := path.stat().st_size) != of_file["bytes"]:
            raise ValueError(f"{name} has {size} bytes, not {of_file['bytes']}")
        if (thorough or path.name == "zarr.json") and file_digest(path) != of_file["sha256"]:
            raise ValueError(f"{name} has another checksum")
    return thorough


def digest(content: bytes) -> str:
    """SHA-256 of what a file holds, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """The same of a file, which is not read at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
