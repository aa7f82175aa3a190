"""The run store: finished runs are skipped, others refused or replaced, nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sim.record
from sim import Checkpoints, RunInProgress, checkpoints, list_runs, obtain_resumable_run, obtain_run, read_run
from sim.device import choose_device
from sim.manifest import digest
from sim.runs import checking, reading
from theory import InputError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Config:
    """A small configuration."""

    lr: float = 0.1
    sizes: tuple[int, ...] = (2, 3)


def _data(value: float = 1.0) -> xr.Dataset:
    data = xr.Dataset(coords={"layer": ["layer 1", "layer 2"]}, attrs={"diverged_at": -1})
    data["loss"] = ("step", "example"), np.full((4, 3), value, dtype=np.float32)
    data["share"] = ("step", "layer"), np.full((4, 2), value)
    return data


def test_a_run_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    run = obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    assert run.data["loss"].dims == ("step", "example")
    assert run.data["loss"].dtype == np.float32
    assert run.data["layer"].values.tolist() == ["layer 1", "layer 2"]
    assert run.config == {"lr": 0.1, "sizes": [2, 3], "device": "cpu"}
    assert run.environment["versions"]["torch"] == torch.__version__
    assert run.environment["threads"] == torch.get_num_threads()
    opened = xr.open_zarr(tmp_path / "a" / "trajectory.zarr", consolidated=False)
    xr.testing.assert_identical(opened.load(), run.data.load())
    assert list_runs(tmp_path) == ["a"]


def test_a_finished_run_is_not_made_again_unless_forced(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)

    def never() -> xr.Dataset:
        raise AssertionError("made again")

    obtain_run(tmp_path, "a", Config(), never, device=CPU)
    again = obtain_run(tmp_path, "a", Config(), lambda: _data(2.0), device=CPU, force=True)
    assert float(again.data["loss"][0, 0]) == 2.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_run_of_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    with pytest.raises(InputError, match=r"lr: 0\.1 there, 0\.2 wanted.*--force") as caught:
        obtain_run(tmp_path, "a", Config(lr=0.2), _data, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_run_leaves_nothing_and_the_finished_one_stays(tmp_path: Path, error: type[BaseException]) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)

    def fails() -> xr.Dataset:
        raise error

    for name in ("a", "b"):
        with pytest.raises(error):
            obtain_run(tmp_path, name, Config(), fails, device=CPU, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
    assert float(read_run(tmp_path, "a").data["loss"][0, 0]) == 1.0


def test_a_missing_run_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it with python -m validate"):
        read_run(tmp_path, "a")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _words_as_seconds(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": "long"}))


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "broken configuration": ("config.json", lambda path: path.write_text("{"), ""),
    "a list as configuration": ("config.json", lambda path: path.write_text("[]"), "config.json holds no object"),
    "too deep a configuration": ("config.json", lambda path: path.write_text("[" * 10**5), "config.json"),
    "an environment without contents": ("environment.json", lambda path: path.write_text("{}"), "no command"),
    "words as seconds": ("environment.json", _words_as_seconds, "environment.json has no seconds"),
    "a manifest of nothing": ("manifest.json", lambda path: path.write_text("{}"), "lists no trajectory"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json"),
    "empty manifest": ("manifest.json", lambda path: path.write_text("3"), ""),
    "other metadata": ("trajectory.zarr/zarr.json", lambda path: path.write_text("{}"), "zarr.json has 2 bytes"),
    "changed metadata": ("trajectory.zarr/loss/zarr.json", _flip_a_bit, "loss/zarr.json has another checksum"),
    "no array": ("trajectory.zarr/loss", shutil.rmtree, "loss/c/0/0 is missing"),
    "no chunk": ("trajectory.zarr/loss/c/0/0", Path.unlink, "loss/c/0/0 is missing"),
    "truncated chunk": ("trajectory.zarr/loss/c/0/0", _cut, "loss/c/0/0 has "),
    "changed chunk": ("trajectory.zarr/share/c/0/0", _flip_a_bit, "share/c/0/0 has another checksum"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_said_to_be_damaged(tmp_path: Path, damage: str) -> None:
    place, harm, says = DAMAGES[damage]
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    read_run(tmp_path, "a")
    harm(tmp_path / "a" / place)
    with pytest.raises(InputError, match="is damaged") as caught:
        read_run(tmp_path, "a")
    line = str(caught.value)
    assert "\n" not in line
    assert says in line
    assert "delete it and make it again" in line


def test_a_run_of_another_configuration_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    assert read_run(tmp_path, "a", config=Config()).config["lr"] == 0.1
    with pytest.raises(InputError, match=r"another configuration \(lr: 0.1 there, 0.2 wanted\)"):
        read_run(tmp_path, "a", config=Config(lr=0.2))


def test_the_checksums_of_a_large_run_are_compared_on_request_or_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    _flip_a_bit(tmp_path / "a" / "trajectory.zarr" / "loss" / "c" / "0" / "0")
    monkeypatch.setattr(reading, "CHECKED_BYTES", 10)
    opened = read_run(tmp_path, "a").data
    with pytest.raises(InputError, match=r"run .*/a is damaged \(loss/c/0/0 has another checksum\): delete it"):
        opened["loss"].load()
    np.testing.assert_array_equal(opened["share"], _data()["share"])  # what is whole can be read
    with pytest.raises(InputError, match="loss/c/0/0 has another checksum"):
        read_run(tmp_path, "a", thorough=True)
    _flip_a_bit(tmp_path / "a" / "trajectory.zarr" / "share" / "zarr.json")
    with pytest.raises(InputError, match=r"share/zarr.json has another checksum"):
        read_run(tmp_path, "a")


class Stopped(Exception):
    """Ends a run in the middle."""


def _steps(run: RunInProgress, until: int = 12, stop: int | None = None) -> xr.Dataset:
    """Appends 0, 1, 2, …, with a checkpoint after each; ends in the middle if told to."""
    run.record.declare("loss", ["step", "example"], [3], np.float32)
    latest = run.checkpoints.latest()
    if latest is not None:
        run.record.load_state_dict(latest[1]["record"])
    for step in range(latest[0] if latest else 0, until):
        if step == stop:
            raise Stopped
        run.record.append("loss", np.full(3, step))
        run.checkpoints.save(step + 1, {"record": run.record.state_dict()})
    return run.record.dataset()


def test_a_damaged_file_of_wide_rows_is_said_to_be_damaged_whichever_part_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example of many is read without the others, from a file that holds them all."""
    monkeypatch.setattr(sim.record, "WIDE_ROW", 3)
    monkeypatch.setattr(reading, "CHECKED_BYTES", 10)
    compared: list[int] = []
    monkeypatch.setattr(checking, "digest", lambda content: compared.append(len(content)) or digest(content))
    obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU)
    file = tmp_path / "a" / "trajectory.zarr" / "loss" / "c" / "0" / "0"
    losses = read_run(tmp_path, "a").data["loss"]
    compared.clear()  # of the metadata
    for example in (1, 2):
        np.testing.assert_array_equal(losses.isel(example=example), np.arange(12))
    assert compared == [file.stat().st_size]
    for place in range(0, len(file.read_bytes()), 23):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        for part in ({}, {"example": 1}, {"example": 2}):
            with pytest.raises(InputError, match=r"run .*/a is damaged \(loss/c/0/0 has another checksum\)"):
                read_run(tmp_path, "a").data["loss"].isel(part).load()
        content[place] ^= 1
        file.write_bytes(content)


def _stop_at(root: Path, stop: int, config: Config = Config(), force: bool = False) -> None:
    with pytest.raises(Stopped):
        obtain_resumable_run(root, "a", config, partial(_steps, stop=stop), device=CPU, force=force)


def test_a_half_made_run_goes_on_and_is_hidden_until_it_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _stop_at(tmp_path, 5)
    assert list_runs(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir()] == [".a.partial"]
    _stop_at(tmp_path, 9)
    run = obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU)
    np.testing.assert_array_equal(run.data["loss"].values[:, 0], np.arange(12))
    assert run.environment["resumed_at"] == [5, 9]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert not (tmp_path / "a" / "checkpoints").exists()
    assert capsys.readouterr().err.count("goes on from step") == 2


def test_a_half_made_run_of_another_configuration_is_refused_and_force_begins_anew(tmp_path: Path) -> None:
    _stop_at(tmp_path, 5)
    with pytest.raises(InputError, match=r"is half made with another configuration \(lr: 0\.1 there, 0\.2 wanted"):
        obtain_resumable_run(tmp_path, "a", Config(lr=0.2), _steps, device=CPU)
    _stop_at(tmp_path, 2, Config(lr=0.2), force=True)
    run = obtain_resumable_run(tmp_path, "a", Config(lr=0.2), _steps, device=CPU)
    assert run.environment["resumed_at"] == [2]
    assert (
        obtain_resumable_run(tmp_path, "a", Config(lr=0.2), _steps, device=CPU, force=True).environment["resumed_at"]
        == []
    )


def test_a_half_made_run_without_an_undamaged_checkpoint_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _stop_at(tmp_path, 5)
    for path in (tmp_path / ".a.partial" / "checkpoints").iterdir():
        _flip_a_bit(path)
    run = obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU)
    np.testing.assert_array_equal(run.data["loss"].values[:, 0], np.arange(12))
    assert run.environment["resumed_at"] == []
    assert capsys.readouterr().err.count("is damaged") == 2


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _stop_at(tmp_path, 5)
    _cut(tmp_path / ".a.partial" / "checkpoints" / "step-000000000005.pt")
    run = obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU)
    np.testing.assert_array_equal(run.data["loss"].values[:, 0], np.arange(12))
    assert run.environment["resumed_at"] == [4]
    assert "step-000000000005.pt" in capsys.readouterr().err


@pytest.mark.parametrize("harm", [Path.unlink, _cut, _flip_a_bit])
def test_a_half_made_run_does_not_go_on_from_a_damaged_chunk(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    """Zarr reads a missing one as zeros, and the finished run's checksums would be those of the zeros."""

    def small(run: RunInProgress, stop: int | None = None) -> xr.Dataset:
        run.record._chunk_bytes = 24  # two steps
        return _steps(run, stop=stop)

    with pytest.raises(Stopped):
        obtain_resumable_run(tmp_path, "a", Config(), partial(small, stop=7), device=CPU)
    chunk = tmp_path / ".a.partial" / "trajectory.zarr" / "loss" / "c" / "1" / "0"
    whole = chunk.read_bytes()
    harm(chunk)
    with pytest.raises(InputError, match=r"loss/c/1/0 is not as written\): give --force to begin anew") as caught:
        obtain_resumable_run(tmp_path, "a", Config(), small, device=CPU)
    assert "\n" not in str(caught.value)
    chunk.write_bytes(whole)
    run = obtain_resumable_run(tmp_path, "a", Config(), small, device=CPU)
    np.testing.assert_array_equal(run.data["loss"].values[:, 0], np.arange(12))


def test_a_half_made_run_of_an_earlier_version_goes_on_twice(tmp_path: Path) -> None:
    """Its checkpoints hold no digests of the chunks before them; those after them do, of all."""

    def small(run: RunInProgress, stop: int | None = None) -> xr.Dataset:
        run.record._chunk_bytes = 24  # two steps
        return _steps(run, stop=stop)

    with pytest.raises(Stopped):
        obtain_resumable_run(tmp_path, "a", Config(), partial(small, stop=7), device=CPU)
    checkpoint = max((tmp_path / ".a.partial" / "checkpoints").iterdir())
    held = checkpoints._read(checkpoint)
    assert held is not None
    del held["state"]["record"]["loss"]["digests"]
    Checkpoints(tmp_path, checkpoint.parent, held["circumstances"]).save(7, held["state"])
    with pytest.raises(Stopped):
        obtain_resumable_run(tmp_path, "a", Config(), partial(small, stop=10), device=CPU)
    run = obtain_resumable_run(tmp_path, "a", Config(), small, device=CPU)
    np.testing.assert_array_equal(run.data["loss"].values[:, 0], np.arange(12))
    assert run.environment["resumed_at"] == [7, 10]


def test_a_half_made_run_says_that_there_were_more_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums over ranks round otherwise."""
    _stop_at(tmp_path, 5)
    checkpoint = max((tmp_path / ".a.partial" / "checkpoints").iterdir())
    held = checkpoints._read(checkpoint)
    assert held is not None
    assert held["circumstances"]["ranks"] == "1"
    Checkpoints(tmp_path, checkpoint.parent, held["circumstances"] | {"ranks": "2"}).save(5, held["state"])
    run = obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU)
    assert "ranks 2 then, 1 now: its bits may differ" in capsys.readouterr().err
    assert run.environment["ranks"] == 1


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    def second(run: RunInProgress) -> xr.Dataset:
        with pytest.raises(InputError, match=rf"is being made by another process \({os.getpid()}\)") as caught:
            obtain_run(tmp_path, "a", Config(), _data, device=CPU)
        assert "\n" not in str(caught.value)
        obtain_run(tmp_path, "b", Config(), _data, device=CPU)
        return _steps(run)

    obtain_resumable_run(tmp_path, "a", Config(), second, device=CPU)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = "import sys, time; from pathlib import Path; from sim.run_lock import run_lock\n"
    holder += "with run_lock(Path(sys.argv[1]), 'a'): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"another process \({process.pid}\)"):
            obtain_run(tmp_path, "a", Config(), _data, device=CPU)
        process.kill()
        process.wait()
    assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_run_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    (tmp_path / "a").rename(tmp_path / ".a.replaced")  # killed between the two renames
    run = obtain_run(tmp_path, "a", Config(), lambda: _data(2.0), device=CPU)
    assert float(run.data["loss"][0, 0]) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@contextmanager
def _no_file_above(size: int) -> Iterator[None]:
    """Has the system refuse larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_the_disk_is_full_nothing_finished_is_lost(tmp_path: Path) -> None:
    obtain_run(tmp_path, "b", Config(), _data, device=CPU)
    _stop_at(tmp_path, 5)
    for name, compute in (("a", _steps), ("b", lambda run: _data(2.0)), ("c", _steps)):
        with pytest.raises(InputError, match="cannot be written") as caught, _no_file_above(100):
            obtain_resumable_run(tmp_path, name, Config(), compute, device=CPU, force=name == "b")
        assert "\n" not in str(caught.value)
        assert "make room and give the same command again" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.partial", "b"]
    assert float(read_run(tmp_path, "b").data["loss"][0, 0]) == 1.0
    assert obtain_resumable_run(tmp_path, "a", Config(), _steps, device=CPU).environment["resumed_at"] == [5]


def test_what_cannot_be_locked_or_read_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".a.lock").mkdir()
    with pytest.raises(InputError, match=r"a cannot be written \(Is a directory\): give another folder"):
        obtain_run(tmp_path, "a", Config(), _data, device=CPU)
    obtain_run(tmp_path, "b", Config(), _data, device=CPU)

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(InputError, match=r"b cannot be read \(Permission denied\): change its permissions"):
        read_run(tmp_path, "b")


def test_a_link_to_a_run_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    obtain_run(tmp_path / "elsewhere", "a", Config(), _data, device=CPU)
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere" / "a")
    for value in (2.0, 3.0):
        run = obtain_run(tmp_path, "a", Config(), lambda value=value: _data(value), device=CPU, force=True)
        assert float(run.data["loss"][0, 0]) == value
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "elsewhere"]
    assert float(read_run(tmp_path / "elsewhere", "a").data["loss"][0, 0]) == 1.0


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    def never() -> xr.Dataset:
        raise AssertionError("computed")

    with pytest.raises(InputError, match="cannot be written"):
        obtain_run(blocked / "runs", "a", Config(), never, device=CPU)
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="--device is nonsense"):
        choose_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device is cuda"):
            choose_device("cuda")
        assert choose_device("auto").type == "cpu"
