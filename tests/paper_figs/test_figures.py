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
from figure_runs import TWO_LAYER, one_network, tiny_runs
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from paper_figs.f02_extreme_images import EARLY_STEP
from paper_figs.f08_two_layer import SMALLEST
from paper_figs.image_sheets import FRAME, GAP, SIDE
from paper_figs.network_roles import describe
from paper_figs.registry import FIGURES
from paper_figs.runs import Runs
from theory import flow_limit, sharpness
from validate.cifar10 import Images, load_embedded
from validate.claims import CLAIMS
from validate.opposing_groups import singular_pairs, top_change_pair
from validate.windows import find_windows

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


def test_f1_gives_the_correlation_of_each_pair_of_groups(runs: Runs) -> None:
    network = one_network()
    windows = find_windows(network)
    assert windows is not None
    pairs = singular_pairs(network["loss"].values[windows.select], count=2)
    # After the groups were chosen, one of the first pair gets a common noise, which takes from its correlation.
    noise = np.random.default_rng(0).normal(size=(75, 1))
    network["loss"].values[windows.evaluate.start : windows.evaluate.stop, pairs[0].positive] += noise
    losses = network["loss"].values[windows.evaluate]
    expected = [
        np.corrcoef(np.diff(losses[:, p.positive].mean(1)), np.diff(losses[:, p.negative].mean(1)))[0, 1] for p in pairs
    ]
    caption = FIGURES["F1"].caption(dataclasses.replace(runs, network=network))
    words = r"pair 1: .*? correlation of the loss changes (\S+); pair 2: .*? correlation of the loss changes (\S+)"
    assert found(words, caption) == pytest.approx(expected, abs=2e-3)
    assert abs(expected[0] - expected[1]) > 0.1


@pytest.mark.parametrize("name", ["F1", "F2"])
def test_images_are_those_that_the_run_trained_on(name: str, runs: Runs) -> None:
    """A run takes the first of each class; its examples are numbered among those."""
    # Class by class, so that from the second class on an example's number is not that of its image.
    order = np.argsort(load_embedded().labels, kind="stable")
    images = Images(load_embedded().pixels[order], load_embedded().labels[order])
    chosen = np.concatenate([np.flatnonzero(images.labels == c)[:100] for c in range(10)])
    network = one_network().isel(example=order[chosen])
    network["loss"].values[EARLY_STEP + 1, 500:520] -= 0.5  # those that fall most there, which F2 shows first
    windows = find_windows(network)
    assert windows is not None
    given = Runs(network=network, networks={"base": (network,)}, images=images)
    sheet = next(axes for axes in FIGURES[name].draw(given).axes if axes.images)
    if name == "F1":
        pair = singular_pairs(network["loss"].values[windows.select], count=1)[0]
        group = pair.positive
        assert f"pair 1: {describe(pair.positive, network['label'])} against" in FIGURES[name].caption(given)
    else:
        group = top_change_pair(network["loss"].values[EARLY_STEP : EARLY_STEP + 2])[1].negative
    picture, cell = np.asarray(sheet.images[0].get_array()), SIDE + 2 * FRAME + GAP
    for i, example in enumerate(group[:6]):
        shown = picture[FRAME : FRAME + SIDE, i * cell + FRAME : i * cell + FRAME + SIDE]
        np.testing.assert_array_equal(shown, images.pixels[chosen[example]].transpose(1, 2, 0))
    others = dataclasses.replace(given, images=Images(images.pixels, images.labels[::-1]))
    with pytest.raises(ValueError, match="the run was trained on other images: give --data"):
        FIGURES[name].draw(others)


def test_f1_refuses_a_run_of_minibatches_and_f9_one_without_blocks(runs: Runs) -> None:
    minibatches = one_network()
    minibatches["loss"].values[:, ::2] = np.nan
    for use in ("draw", "caption"):
        with pytest.raises(
            ValueError, match=r"^F1 draws from every example's loss[^\n]*: give a run without minibatches$"
        ):
            getattr(FIGURES["F1"], use)(dataclasses.replace(runs, network=minibatches))
        for measured in ("block_sharpness", "sharpness_midpoint"):
            without = dataclasses.replace(runs, network=one_network().drop_vars(measured))
            with pytest.raises(ValueError, match=r"^F9 draws from layers' blocks and midpoints[^\n]*$"):
                getattr(FIGURES["F9"], use)(without)


def test_f6_gives_the_level_at_which_the_sharpness_of_each_seed_stays(runs: Runs) -> None:
    sweep = runs.sweeps["chebyshev"].copy(deep=True)
    edge = 2 / sweep.attrs["lr"]
    levels = sweep["sharpness"].transpose("seed", ...).values.copy()
    for i, row in enumerate(levels):
        row[int((row >= edge).argmax()) :] = (1.1 + 0.2 * i) * edge
    sweep["sharpness"] = sweep["sharpness"].transpose("seed", ...).copy(data=levels)
    caption = FIGURES["F6"].caption(Runs(sweeps={"chebyshev": sweep}))
    assert found(r"has a median of (\S+), (\S+) times 2/η", caption) == pytest.approx([1.1, 1.3], abs=0.006)


def test_f8_gives_the_errors_of_the_run_and_where_it_ends(runs: Runs) -> None:
    assert runs.two_layer is not None
    data = runs.two_layer.copy(deep=True)
    last = int(np.flatnonzero(np.abs(data["s"].values[:, 0]) > SMALLEST)[-1])
    limit = sharpness(TWO_LAYER.model, flow_limit(TWO_LAYER.model, TWO_LAYER.initial_state))
    data["flow_sharpness"].values[-1] = 1.02 * float(limit)
    data["s"].values[last, 0] *= 0.5
    data["sharpness"].values[-1] = np.linspace(30.0, 45.0, data.sizes["run"])
    caption = FIGURES["F8"].caption(dataclasses.replace(runs, two_layer=data))
    words = r"sharpness ends (\S+) of itself .*? ends at (\S+) to (\S+) of 2/η.*? relative error ([^)]+)\)"
    assert found(words, caption) == pytest.approx([0.02, 15 * TWO_LAYER.lr, 22.5 * TWO_LAYER.lr, 1.0], rel=0.01)


def test_f9_gives_early_and_late_shares_and_both_sharpnesses_each_in_its_place(runs: Runs) -> None:
    network = one_network()
    windows = find_windows(network)
    assert windows is not None
    measured = network["measured"].values
    network["layer_share_iterate"].values[measured < windows.early.stop] = (0.1, 0.2, 0.7)
    network["layer_share_iterate"].values[measured >= windows.evaluate.start] = (0.6, 0.15, 0.25)
    for place, level in (("midpoint", 1.02), ("iterate", 1.31)):
        network[f"sharpness_{place}"].values[measured >= windows.evaluate.start] = level * 2 / network.attrs["lr"]
    words = r"share (\S+) in .*?, (\S+) once .*? last layer's (\S+) and (\S+) Sharpness .*? median: (\S+) .*?, (\S+) "
    told = found(words, FIGURES["F9"].caption(dataclasses.replace(runs, network=network)))
    assert told == pytest.approx([0.1, 0.6, 0.7, 0.25, 1.02, 1.31])


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
    words = r"Heights measured over predicted: (\S+) \(.*? the domain of the formula's error bound, (\S+) \("
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


def test_the_figure_that_a_claim_names_is_there() -> None:
    assert {claim.figure for claim in CLAIMS} <= {entry.name for entry in FIGURES.values()}
