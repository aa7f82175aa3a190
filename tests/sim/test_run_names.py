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


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "a/b", ".hidden", "/abs"])
@pytest.mark.parametrize("force", [False, True])
def test_a_name_that_is_not_one_word_is_refused_before_anything_is_computed(
    name: str, force: bool, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    with pytest.raises(InputError, match="the run's name is") as caught:
        obtain_run(store, name, Config(), _never, device=torch.device("cpu"), force=force)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="the run's name is"):
        read_run(store, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_holds_no_run_is_never_replaced(force: bool, tmp_path: Path) -> None:
    mine = tmp_path / "docs" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        obtain_run(tmp_path, "docs", Config(), _never, device=torch.device("cpu"), force=force)
    assert mine.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["docs"]
