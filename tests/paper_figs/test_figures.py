"""Every figure draws from small runs: axes named, legends without repeats, no text clipped, same bytes again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from cases import planted
from figure_checks import check_figure
from matplotlib.figure import Figure

from paper_figs.__main__ import DrawConfig, draw_command
from paper_figs.registry import FIGURES
from paper_figs.runs import Runs
from sim import TwoLayerConfig, obtain_run, run_two_layer
from theory import InputError
from validate.cifar10 import load_embedded

CPU = torch.device("cpu")
TWO_LAYER = TwoLayerConfig(steps=260, examples=2000, sample_seeds=(0, 1))


def _network() -> xr.Dataset:
    """A made-up run on the 2,000 images that crosses at step 200."""
    measured, blocks = np.arange(0, 420, 10), np.arange(0, 420, 50)
    losses = np.tile(2.3 - 0.004 * np.arange(420)[:, None], (1, 2000))
    losses[200:] += planted(0, n=2000, steps=220, size=20) - 2
    share = np.full((len(measured), 3), 1 / 3)
    data = xr.Dataset(attrs={"lr": 0.05, "diverged_at": -1})
    data = data.assign_coords(
        step=np.arange(420), measured=measured, block_measured=blocks, layer=[f"layer {i}" for i in (1, 2, 3)]
    )
    data["loss"], data["label"] = (("step", "example"), losses), ("example", load_embedded().labels)
    for place in ("iterate", "midpoint"):
        data[f"sharpness_{place}"] = "measured", np.minimum(measured / 5.0, 42.0)
        data[f"layer_share_{place}"] = ("measured", "layer"), share
    data["block_sharpness"] = ("block_measured", "layer"), np.full((len(blocks), 3), 5.0)
    return data


@pytest.fixture(scope="module")
def runs() -> Runs:
    two_layer = run_two_layer(TWO_LAYER, CPU, progress=False)
    config = {"lr": TWO_LAYER.lr, "steps": 260, "examples": 2000, "sample_seeds": [0, 1], "device": "cpu"}
    return Runs(network=_network(), two_layer=two_layer, two_layer_config=config, images=load_embedded())


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named_legends_repeat_nothing_and_no_text_is_clipped_or_covered(name: str, runs: Runs) -> None:
    check_figure(FIGURES[name].draw(runs))


@pytest.mark.parametrize("name", FIGURES)
def test_drawing_changes_no_global_style_and_repeats_to_the_byte(name: str, runs: Runs, tmp_path: Path) -> None:
    mpl.rcdefaults()
    before = dict(mpl.rcParams)
    contents = []
    for i in range(2):
        figure = FIGURES[name].draw(runs)
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{i}.png", metadata={"Software": None})
        contents.append((tmp_path / f"{i}.png").read_bytes())
    assert contents[0] == contents[1]
    assert dict(mpl.rcParams) == before


def test_a_run_that_never_crosses_is_drawn_without_groups(runs: Runs) -> None:
    network = _network()
    network["sharpness_iterate"].values[:] = 1.0
    quiet = dataclasses.replace(runs, network=network)
    for name in ("F1", "F9"):
        assert FIGURES[name].draw(quiet).axes
        assert "never crosses 2/η" in FIGURES[name].caption(quiet)


@pytest.mark.parametrize("name", FIGURES)
def test_captions_carry_numbers_from_the_runs(name: str, runs: Runs) -> None:
    caption = FIGURES[name].caption(runs)
    assert any(character.isdigit() for character in caption)
    assert "nan" not in caption


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_its_runs_says_what_it_draws_from(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} draws from"):
        FIGURES[name].draw(Runs())


def test_the_command_writes_pdf_png_and_caption_and_names_what_is_missing(tmp_path: Path) -> None:
    store, out = tmp_path / "runs", tmp_path / "figures"
    config = DrawConfig(figures=("F8",), out=out, runs=store)
    with pytest.raises(InputError, match=r"there is no run .*two-layer-default: make it with python -m validate"):
        draw_command(config)
    assert not out.exists()
    obtain_run(store, "two-layer-default", TWO_LAYER, lambda: run_two_layer(TWO_LAYER, CPU, progress=False), device=CPU)
    draw_command(config)
    assert sorted(p.name for p in out.iterdir()) == ["F8.pdf", "F8.png", "F8.txt"]
    first = (out / "F8.pdf").read_bytes()
    draw_command(config)
    assert (out / "F8.pdf").read_bytes() == first
    with pytest.raises(InputError, match="there is no figure F99"):
        draw_command(DrawConfig(figures=("F99",), out=out, runs=store))
