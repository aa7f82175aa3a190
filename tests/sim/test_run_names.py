"""What may be a run's name, and what is never replaced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import xarray as xr

from sim import obtain_run
from sim.runs import read_run
from theory import InputError


@dataclass(frozen=True)
class Config:
    """Of a run that is never made."""

    value: int = 1


def _never() -> xr.Dataset:
    raise AssertionError("computed")


NAMES = ["", ".", "..", "../evil", "a/b", ".hidden", "/abs", "two\nlines", "a" * 246, "ä" * 123]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("force", [False, True])
def test_a_name_that_is_not_one_word_is_refused_before_anything_is_computed(
    name: str, force: bool, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    with pytest.raises(InputError, match=r"the run's name (is|has 246 bytes)") as caught:
        obtain_run(store, name, Config(), _never, device=torch.device("cpu"), force=force)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"the run's name (is|has)"):
        read_run(store, name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_is_taken(tmp_path: Path) -> None:
    for force in (False, True):
        obtain_run(
            tmp_path, "a" * 245, Config(), lambda: xr.Dataset({"x": 1.0}), device=torch.device("cpu"), force=force
        )


@pytest.mark.parametrize("force", [False, True])
def test_a_link_to_nothing_is_refused_before_anything_is_computed(force: bool, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no run"):
        obtain_run(tmp_path, "a", Config(), _never, device=torch.device("cpu"), force=force)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_holds_no_run_is_never_replaced(force: bool, tmp_path: Path) -> None:
    mine = tmp_path / "docs" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        obtain_run(tmp_path, "docs", Config(), _never, device=torch.device("cpu"), force=force)
    assert mine.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["docs"]
