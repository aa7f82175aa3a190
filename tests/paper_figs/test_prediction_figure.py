"""F17 from orbits of the reduced map recorded as networks' runs: what is predicted exactly lies on the line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from figure_checks import check_figure
from map_orbits import recorded, rising
from matplotlib.figure import Figure

from paper_figs import f17_predictions
from paper_figs.runs import Runs
from paper_figs.sources import Sources
from theory.spikes import LARGEST_HEIGHT
from validate.prediction.map_at import last_before_onset
from validate.prediction.networks import FRESH_SEEDS, PREDICTION_NETWORKS
from validate.prediction.trace import read_trace
from validate.windows import find_windows


def orbits(*lrs: float, a_told: float = 1.0) -> tuple[xr.Dataset, ...]:
    """Base run and study of two seeds a step size; `a_told` times the orbit's own a is what is said to be measured."""
    data: list[xr.Dataset] = []
    for lr in lrs:
        for seed in range(2):
            orbit = rising(0.4 * lr**2 * (1 + 0.2 * seed), lr, 1e-4, after=160)
            base, edge = recorded(dataclasses.replace(orbit, a=a_told * orbit.a), 1.0)
            data += base.assign_attrs(seed=seed), edge
    return tuple(data)


def valleys(data: Sequence[xr.Dataset], told: float) -> tuple[xr.Dataset, ...]:
    """Orbits that tell `told` times the x of each pair of a base run and its study."""
    found = []
    for base, edge in zip(data[::2], data[1::2], strict=True):
        windows = find_windows(base)
        assert windows is not None
        trace = read_trace(base, edge, windows)
        index = last_before_onset(trace)
        assert index is not None
        at = int(trace.measured[index])
        sizes = np.sqrt(trace.square[at + 1 :])
        x = told * sizes * (-1.0) ** np.arange(len(sizes))
        orbits = {"valley_x": ("valley_step", x / 2), "line_x": ("line_step", x), "line_loss": ("line_step", 1 + x**2)}
        attrs = {"lr": base.attrs["lr"], "seed": base.attrs["seed"], "step": int(trace.steps[at + 1])}
        found.append(xr.Dataset(orbits, attrs=attrs))
    return tuple(found)


@pytest.fixture(scope="module")
def runs() -> Runs:
    one = orbits(0.05)
    return Runs(predictions={"mlp_gelu": orbits(0.04, 0.055, 0.075)}, networks={"base": one[::2], "edge": one[1::2]})


def test_draws_with_named_axes_and_no_text_clipped_or_covered(runs: Runs) -> None:
    figure = f17_predictions.draw(runs)
    check_figure(figure)
    assert len(figure.axes) == len(f17_predictions.PANELS)
    assert all(len(axes.get_lines()) == 3 for axes in figure.axes[:2])  # two networks and the line of equality


def test_the_caption_tells_a_right_prediction_from_a_wrong_one(runs: Runs) -> None:
    right = f17_predictions.caption(runs)
    assert "nan" not in right.lower()
    assert "\n" not in right
    assert not re.search(r"(?<![\w–])-\d", right), "a hyphen stands for a minus sign"
    assert "3 step sizes from 0.04 to 0.075, 2 seeds each" in right
    wrong = f17_predictions.caption(Runs(predictions={"mlp_gelu": orbits(0.04, 0.055, 0.075, a_told=0.1)}))
    of_right, of_wrong = (_error("wait until the onset", words) for words in (right, wrong))
    assert of_right < 5
    assert of_wrong > 100
    assert "Diamonds" in right
    assert "Diamonds" not in wrong


def test_the_line_s_spikes_take_the_place_of_the_reduced_map_s(runs: Runs) -> None:
    data = runs.predictions["mlp_gelu"]
    right = dataclasses.replace(runs, valleys={"mlp_gelu": valleys(data, 1.0)})
    check_figure(f17_predictions.draw(right))
    assert "by the reduced map" in " ".join(_legend(right))
    assert "by the reduced map" not in " ".join(_legend(runs))
    assert "map (4)" in f17_predictions.caption(right)
    assert "map (4)" not in f17_predictions.caption(runs)
    assert _error("; first spike", f17_predictions.caption(right)) <= 10
    wrong = dataclasses.replace(runs, valleys={"mlp_gelu": valleys(data, 1.5)})
    assert _error("; first spike", f17_predictions.caption(wrong)) > 100
    # An orbit of another run is not taken for this one's.
    strange = tuple(valley.assign_attrs(seed=9) for valley in valleys(data, 1.0))
    assert "map (4)" not in f17_predictions.caption(dataclasses.replace(runs, valleys={"mlp_gelu": strange}))


def test_orbits_are_taken_from_the_store_where_they_are(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    assert sources.of("valleys.mlp_gelu") is None
    base = sources.of("predictions.mlp_gelu")[0].name  # type: ignore[index]
    for name in (f"valley-{base}-step77", "valley-mlp-lr7-seed1-step7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    found = Sources(tmp_path).of("valleys.mlp_gelu")
    assert [run.name for run in found or ()] == [f"valley-{base}-step77"]


def _legend(runs: Runs) -> list[str]:
    (legend,) = f17_predictions.draw(runs).legends
    return [text.get_text() for text in legend.get_texts()]


def test_the_caption_counts_the_images_of_its_runs_and_names_the_spike_s_domain(runs: Runs) -> None:
    caption = f17_predictions.caption(runs)
    assert f"descent on {runs.predictions['mlp_gelu'][0].sizes['example']:,} images" in caption
    assert f"no more than η²bx²/2 ≤ {LARGEST_HEIGHT:g}" in caption


@pytest.mark.parametrize("ratio", [1.3, 4.0, 6.0, 19.0, 21.0, 55.0, 99.0, 150.0, 5000.0])
@pytest.mark.parametrize("least", [1.3e-3, 0.011, 12.0])
def test_a_logarithmic_axis_has_at_least_two_labels(ratio: float, least: float) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(least, ratio * least))
    f17_predictions._logarithmic_ticks(axes.xaxis, ratio)
    figure.draw_without_rendering()
    inside = [text for text in axes.get_xticklabels() if least <= text.get_position()[0] <= ratio * least]
    assert len([text for text in inside if text.get_text()]) >= 2


def _error(title: str, caption: str) -> int:
    """The median relative error that a caption tells, in percent."""
    found = re.search(rf"{title}: [−\d.]+, (\d+)%", caption)
    assert found
    return int(found[1])


def test_what_it_draws_from_is_the_networks_base_runs_each_before_its_study() -> None:
    data = orbits(0.04)
    assert all(find_windows(base) is not None for base in data[::2])
    with pytest.raises(ValueError, match=r"F17 draws from predictions\.mlp_gelu"):
        f17_predictions.draw(Runs())


def test_the_store_s_names_are_those_of_the_predictions_command(tmp_path: object) -> None:
    of = Sources(tmp_path, "standard").of("predictions.mlp_gelu")  # type: ignore[arg-type]
    assert of is not None
    names = [run.name for run in of if not run.derived]
    settings = PREDICTION_NETWORKS["mlp_gelu"].settings(FRESH_SEEDS)
    assert names == [s.base(seed).name for s in settings.values() for seed in FRESH_SEEDS]
    assert np.diff([run.derived for run in of]).all()  # base, study, base, study, …
    assert Sources(tmp_path, "quick").of("predictions.lenet") is None  # type: ignore[arg-type]
