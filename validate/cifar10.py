"""CIFAR-10 (Krizhevsky 2009): verified records, the embedded subset, and the command that fetches the full set.

Everything is held in the layout of the canonical binary version: one record an image, a label byte and 3,072 pixel
bytes, channel after channel. Each file is checked against its SHA-256 before it is used or written; nothing is
unpickled, and archives are read member by member, never unpacked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError

RECORD_BYTES = 1 + 3 * 32 * 32
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CHANNEL_MEAN = (0.49140, 0.48216, 0.44653)
CHANNEL_DEVIATION = (0.24703, 0.24349, 0.26159)

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

EMBEDDED_FILE = Path(__file__).parent / "data" / "cifar10_first200.bin"
EMBEDDED_PER_CLASS, FULL_PER_CLASS = 200, 5000
EMBEDDED_SHA256 = "85e1bcd937bff4e1a96822ecf457c7d8b520eb14496e76876f04aadd1e5205d3"


@dataclass(frozen=True)
class Images:
    """Images with their labels.

    Attributes:
        pixels: (n, 3, 32, 32) uint8, red, green, blue.
        labels: (n,) uint8 indices into `CLASSES`.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def parse_records(records: bytes, name: str, sha256: str | None) -> Images:
    """Images from the bytes of a binary-version file.

    Args:
        records: the file's bytes.
        name: the file's name, for the error's text.
        sha256: the checksum they must have; None to check their layout alone.

    Raises:
        InputError: the checksum or the layout is wrong.
    """
    if sha256 is not None and (found := hashlib.sha256(records).hexdigest()) != sha256:
        raise InputError(
            f"{name} is damaged (SHA-256 {found[:12]}…, expected {sha256[:12]}…): fetch or check it out again"
        )
    if len(records) % RECORD_BYTES or not records:
        raise InputError(
            f"{name} has {len(records)} bytes, no whole number of {RECORD_BYTES}-byte records: fetch it again"
        )
    table = np.frombuffer(records, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    return Images(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0])


def to_records(images: Images) -> bytes:
    """Undoes `parse_records`.

    >>> one = Images(np.zeros((1, 3, 32, 32), np.uint8), np.array([7], np.uint8))
    >>> to_records(one)[0], len(to_records(one))
    (7, 3073)
    """
    return np.concatenate([images.labels[:, None], images.pixels.reshape(len(images.labels), -1)], 1).tobytes()


def load_embedded(path: Path = EMBEDDED_FILE) -> Images:
    """The 2,000 embedded images: the first 200 of each class in training order.

    Raises:
        InputError: the file is missing or damaged.
    """
    return parse_records(_read(path), path.name, EMBEDDED_SHA256)


def load_full(folder: Path, *, train: bool = True) -> Images:
    """The 50,000 training or 10,000 test images from a folder that `python -m validate data fetch` filled.

    Raises:
        InputError: a file is missing or damaged.
    """
    files = TRAIN_FILES if train else (TEST_FILE,)
    parts = [parse_records(_read(folder / name), name, SHA256[name]) for name in files]
    return Images(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))


def first_of_each_class(images: Images, count: int) -> Images:
    """The first `count` images of each class, in the order in which they stand.

    >>> labels = np.array([0, 0, 1, 0, 1], np.uint8)
    >>> first_of_each_class(Images(np.zeros((5, 3, 32, 32), np.uint8), labels), 1).labels
    array([0, 1], dtype=uint8)
    """
    index = np.sort(np.concatenate([np.flatnonzero(images.labels == label)[:count] for label in range(len(CLASSES))]))
    return Images(images.pixels[index], images.labels[index])


def standardise(images: Images) -> npt.NDArray[np.float32]:
    """(n, 3, 32, 32) pixels in [0, 1], less the training set's channel means, over its channel deviations."""
    mean = np.array(CHANNEL_MEAN).reshape(3, 1, 1)
    deviation = np.array(CHANNEL_DEVIATION).reshape(3, 1, 1)
    return np.asarray((images.pixels / 255.0 - mean) / deviation, dtype=np.float32)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): run python -m validate data fetch, or name another folder"
        ) from None
