"""Figures drawn from runs of networks: they draw from made-up runs, and their captions' numbers are the runs'."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType

import pytest
import xarray as xr
from figure_checks import check_figure
from tiny_network_runs import tiny_images, tiny_network

from paper_figs import f02_extreme_images, f03_loss_changes
from paper_figs.runs import Runs

MODULES = (f02_extreme_images, f03_loss_changes)
MAKERS: Mapping[str, Callable[[int], xr.Dataset]] = {"base": tiny_network}
each_figure = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.ENTRY.name)


def all_runs(**changed: tuple[xr.Dataset, ...]) -> Runs:
    networks = {role: (make(0), make(1)) for role, make in MAKERS.items()}
    return Runs(networks={**networks, **changed}, images=tiny_images())


@pytest.fixture(scope="module")
def runs() -> Runs:
    return all_runs()


@each_figure
def test_draws_with_named_axes_and_no_text_clipped_or_covered(module: ModuleType, runs: Runs) -> None:
    check_figure(module.draw(runs))


@each_figure
def test_the_caption_has_numbers_and_all_of_them_are_defined(module: ModuleType, runs: Runs) -> None:
    caption = module.caption(runs)
    assert re.search(r"\d", caption)
    assert "nan" not in caption
    assert "-" not in re.findall(r"[-−]?\d", caption)
    assert "2 seeds" in caption


@each_figure
def test_a_missing_role_is_named_in_one_line(module: ModuleType, runs: Runs) -> None:
    for need in module.ENTRY.needs:
        kept = {role: given for role, given in runs.networks.items() if need != f"networks.{role}"}
        without = Runs(networks=kept, images=None if need == "images" else runs.images)
        for use in (module.draw, module.caption):
            with pytest.raises(ValueError, match=f"{module.ENTRY.name} draws from .*; not given: {need}$"):
                use(without)
