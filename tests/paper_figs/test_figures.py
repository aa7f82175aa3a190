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
def test_captions_carry_numbers_from_the_runs(name: str, runs: Runs) -> None:
    caption = FIGURES[name].caption(runs)
    assert re.search(r"\d", caption)
    assert "nan" not in caption


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
