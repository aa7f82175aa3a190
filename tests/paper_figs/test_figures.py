"""The figures of theory and simulation, and of one network, draw from small runs and look as they were reviewed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from figure_baselines import FOLDER, reviewed_runs, save_small
from figure_checks import check_figure
from figure_runs import one_network, tiny_runs
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from paper_figs.registry import FIGURES
from paper_figs.runs import Runs

NAMES = ("F1", "F5", "F6", "F8", "F9", "F14", "F15", "F16")
TOLERANCE = 1.5
"""Root mean square of the differences, of 255: a thin curve that is missing makes 3."""

each_figure = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def runs() -> Runs:
    return tiny_runs()


@each_figure
def test_axes_are_named_legends_repeat_nothing_and_no_text_is_clipped_or_covered(name: str, runs: Runs) -> None:
    check_figure(FIGURES[name].draw(runs))


@each_figure
def test_the_picture_is_the_reviewed_one(name: str, tmp_path: Path) -> None:
    save_small(FIGURES[name].draw(reviewed_runs()), tmp_path / f"{name}.png")
    difference = compare_images(str(FOLDER / f"{name}.png"), str(tmp_path / f"{name}.png"), tol=TOLERANCE)
    assert difference is None, (
        f"{difference}\nlook at it; PYTHONPATH=tests python -m figure_baselines {name} takes the new one"
    )


@each_figure
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


@each_figure
def test_captions_carry_no_undefined_numbers(name: str, runs: Runs) -> None:
    assert "nan" not in FIGURES[name].caption(runs)


def found(pattern: str, caption: str) -> list[float]:
    """The numbers in the groups of a pattern."""
    match = re.search(pattern, caption)
    assert match, caption
    return [float(word.replace("−", "-").replace(",", "").rstrip(".;")) for word in match.groups()]


def test_f14_counts_rightly_told_samples_and_gives_their_ratios(runs: Runs) -> None:
    words = r"rightly of (\S+) of (\S+) samples .*? predicted one (\S+) \((\S+) to ([^,]+), "
    sweep = runs.sweeps["tail"]
    told = found(words, FIGURES["F14"].caption(runs))
    both = sweep["onset"].notnull().values & sweep["predicted_onset"].notnull().values
    ratios = (sweep["amplitude"] / sweep["predicted_amplitude"]).values[both]
    assert told[2:] == pytest.approx(np.quantile(ratios, (0.5, 0.05, 0.95)), abs=0.006)
    changed = sweep.copy(deep=True)
    changed["amplitude"] = 2 * changed["amplitude"]
    changed["onset"].values[tuple(np.argwhere(both)[0])] = np.nan  # one more that is told wrongly
    again = found(words, FIGURES["F14"].caption(Runs(sweeps={"tail": changed})))
    assert again[:2] == [told[0] - 1, sweep["onset"].size]
    assert again[2] == pytest.approx(2 * told[2], rel=0.1)


def test_f14_leaves_out_dots_of_too_few_samples_and_says_how_many(runs: Runs) -> None:
    sweep = runs.sweeps["tail"].copy(deep=True)
    sweep["hill_changes"] = sweep["hill_changes"].fillna(1.5)
    words = r"(\d+) of (\d+) dots, of fewer than (\d+) samples"
    places = sweep.sizes["tail_index"] * sweep.sizes["fraction"]
    assert found(words, FIGURES["F14"].caption(Runs(sweeps={"tail": sweep}))) == [0, places, sweep.sizes["seed"]]
    sweep["hill_changes"][{"tail_index": 0, "fraction": 1, "seed": 0}] = np.nan
    one_less = Runs(sweeps={"tail": sweep})
    caption = FIGURES["F14"].caption(one_less)
    assert found(words, caption) == [1, places, sweep.sizes["seed"]]
    assert (
        "Left: median over the samples, with quartiles. Middle: mean over the samples, with its 90% interv" in caption
    )
    dots = [line.get_ydata() for line in FIGURES["F14"].draw(one_less).axes[2].get_lines() if line.get_marker() == "o"]
    assert np.isnan(np.concatenate(dots)).sum() == 1


def test_f15_accounts_for_every_cell(runs: Runs) -> None:
    caption = FIGURES["F15"].caption(runs)
    scored = sum(int(count.replace(",", "")) for count in re.findall(r"of ([\d,]+) \(", caption))
    words = r"The other (\S+) cells .*?\(converges: (\S+) oscillates, .*?: (\S+) diverges: (\S+) not .*?: (\d+)\)"
    others, *counts = found(words, caption)
    assert scored + others == runs.sweeps["phase"].isel(seed=0)["phase"].size
    assert sum(counts) == others


def test_f16_gives_the_errors_inside_and_outside_the_domain_each_in_its_place(runs: Runs) -> None:
    words = r"Heights measured over predicted: (\S+) \(.*? at most 0.6, the formula's domain, (\S+) \("
    sweep = runs.sweeps["amplitude"]
    inside, outside = found(words, FIGURES["F16"].caption(runs))
    changed = sweep.copy(deep=True)
    height = changed["spike_height"]
    changed["spike_height"] = height.where(changed["predicted_height"] > 0.6, 2 * height)
    told = found(words, FIGURES["F16"].caption(Runs(sweeps={"amplitude": changed})))
    assert told == pytest.approx([2 * inside, outside], rel=0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if FIGURES[name].needs])
def test_a_figure_without_its_runs_says_what_it_draws_from(name: str) -> None:
    for use in (FIGURES[name].draw, FIGURES[name].caption):
        with pytest.raises(ValueError, match=f"{name} draws from .*; not given: {FIGURES[name].needs[0]}"):
            use(Runs())


def test_every_figure_is_found_in_order_and_names_itself() -> None:
    numbers = [int(name[1:]) for name in FIGURES]
    assert numbers == sorted(numbers)
    assert all(entry.name == name and entry.shows and entry.claims for name, entry in FIGURES.items())


def test_a_run_that_never_crosses_is_drawn_without_groups(runs: Runs) -> None:
    network = one_network()
    network["sharpness_iterate"].values[:] = 1.0
    quiet = dataclasses.replace(runs, network=network)
    for name in ("F1", "F9"):
        assert FIGURES[name].draw(quiet).axes
        assert "never crosses 2/η" in FIGURES[name].caption(quiet)


def test_a_fit_that_never_reaches_the_edge_is_drawn_without_groups(runs: Runs) -> None:
    sweep = runs.sweeps["chebyshev"].copy(deep=True)
    sweep["sharpness"].values[:] = 1.0
    quiet = Runs(sweeps={"chebyshev": sweep})
    assert "No run reaches the edge" in FIGURES["F6"].caption(quiet)
    check_figure(FIGURES["F6"].draw(quiet))


def test_the_valley_s_spike_is_predicted_within_its_bound() -> None:
    caption = FIGURES["F5"].caption(Runs())
    predicted, bound, measured = re.search(
        r"crossing: ([\d.]+) \(error bound (\d+)%\); of the path: ([\d.]+)", caption
    ).groups()  # type: ignore[union-attr]
    assert abs(float(predicted) / float(measured) - 1) < int(bound) / 100


def test_the_phase_diagram_counts_cells_that_contradict_the_boundaries(runs: Runs) -> None:
    sweep = runs.sweeps["phase"].copy(deep=True)
    sweep["phase"].values[:] = 0  # everything converges: wrong above every boundary
    caption = FIGURES["F15"].caption(Runs(sweeps={"phase": sweep}))
    shares = [float(share) for share in re.findall(r"\(([\d.]+)%\)", caption)]
    assert shares == [100.0, 0.0, 0.0]
    # The cells below every boundary, counted from α = 20 alone: S = α‖β‖, and c(0) = 1 at the start.
    alpha, below = 20.0, 0
    for beta, descent in zip(sweep["beta"].values, sweep["descent_boundary"].values[:, 0], strict=True):
        lrs = sweep["relative"].values * 2 / (alpha * beta)
        below += int((lrs < np.nanmin([2 / (alpha * beta), descent, 2 / alpha])).sum())
    assert f"Below every boundary {below} of {below} " in caption


def test_predictions_from_another_step_size_leave_the_line_of_equality(runs: Runs) -> None:
    right = runs.sweeps["amplitude"]
    wrong = right.copy(deep=True)
    for name in ("predicted_settled", "predicted_height"):
        wrong[name].values[:] = right[name].values[::-1]
    of_right, of_wrong = (FIGURES["F16"].caption(Runs(sweeps={"amplitude": data})) for data in (right, wrong))
    settled = [float(re.search(r"\(T9\): ([\d.]+)", text).group(1)) for text in (of_right, of_wrong)]  # type: ignore[union-attr]
    assert settled[0] == pytest.approx(1, abs=0.02)
    assert np.abs(np.log(settled[1])) > 0.05
