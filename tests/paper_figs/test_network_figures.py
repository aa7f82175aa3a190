"""Figures drawn from runs of networks: they draw from made-up runs, and their captions' numbers are the runs'."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pytest
from figure_baselines import FOLDER, save_small
from figure_checks import check_figure
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from tiny_network_runs import CROSSING, runs_with, tiny_edge, tiny_minibatches, tiny_network

from paper_figs import (
    f02_extreme_images,
    f03_loss_changes,
    f04_colours_and_features,
    f07_bounce,
    f10_adam,
    f11_split_sgd,
    f12_loss_and_normalisation,
    f13_intervention,
)
from paper_figs.group_panels import SWING_STEPS, drawn_swing
from paper_figs.network_roles import describe, evidence, number, significant, spread, swing_size
from paper_figs.runs import Runs
from sim import LossRule
from validate.claims.c07_heavy_tail import gaussian_like, median_hill_index, median_kurtosis, top_energy
from validate.claims.c13_normalisation import at_equal_loss, normalisation_ratio
from validate.opposing_groups import OpposingPair, loss_changes
from validate.windows import find_windows

MODULES = (
    f02_extreme_images,
    f03_loss_changes,
    f04_colours_and_features,
    f07_bounce,
    f10_adam,
    f11_split_sgd,
    f12_loss_and_normalisation,
    f13_intervention,
)
TOLERANCE = 1.5
"""Root mean square of the differences, of 255, as in `test_figures`."""
each_figure = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.ENTRY.name)


@pytest.fixture(scope="module")
def runs() -> Runs:
    return runs_with()


@functools.cache
def drawn(module: ModuleType) -> tuple[Figure, bytes]:
    """The figure, and its picture as it was first laid out."""
    figure = module.draw(runs_with())
    return figure, picture(figure)


def picture(figure: Figure) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        save_small(figure, path)
        return path.read_bytes()


@functools.cache
def caption_of(module: ModuleType) -> str:
    return str(module.caption(runs_with()))


def numbers(pattern: str, caption: str) -> list[float]:
    """The numbers that stand in a caption's groups of a pattern, one or several to a group."""
    found = re.search(pattern, caption)
    assert found, caption
    words = [word for group in found.groups() for word in re.findall(r"−?\d[\d,]*(?:\.\d+)?(?:·10\S+)?", group)]
    return [_number(word) for word in words]


def _number(word: str) -> float:
    mantissa, _, exponent = word.replace("−", "-").replace(",", "").partition("·10")
    power = int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) if exponent else 0
    return float(mantissa) * 10.0**power


@each_figure
def test_draws_with_named_axes_and_no_text_clipped_or_covered(module: ModuleType) -> None:
    check_figure(drawn(module)[0])


@each_figure
def test_the_picture_is_the_reviewed_one(module: ModuleType, tmp_path: Path) -> None:
    name = module.ENTRY.name
    (tmp_path / f"{name}.png").write_bytes(drawn(module)[1])
    difference = compare_images(str(FOLDER / f"{name}.png"), str(tmp_path / f"{name}.png"), tol=TOLERANCE)
    assert difference is None, (
        f"{difference}\nlook at it; PYTHONPATH=tests python -m network_figure_baselines {name} takes the new one"
    )


@each_figure
def test_drawing_changes_no_global_style_and_repeats_to_the_byte(module: ModuleType, runs: Runs) -> None:
    first = drawn(module)[1]
    mpl.rcdefaults()
    before = dict(mpl.rcParams)
    again = module.draw(runs)
    assert dict(mpl.rcParams) == before
    assert picture(again) == first


@each_figure
def test_the_caption_s_numbers_are_all_defined_and_it_says_how_many_seeds(module: ModuleType) -> None:
    caption = caption_of(module)
    assert "nan" not in caption.lower()
    assert not re.search(r"(?<![\w–])-\d", caption), "a hyphen stands for a minus sign"
    assert "2 seeds" in caption
    assert "\n" not in caption


@each_figure
def test_a_missing_role_is_named_in_one_line(module: ModuleType, runs: Runs) -> None:
    for need in module.ENTRY.needs:
        kept = {role: given for role, given in runs.networks.items() if need != f"networks.{role}"}
        without = Runs(networks=kept, images=None if need == "images" else runs.images)
        for use in (module.draw, module.caption):
            with pytest.raises(ValueError, match=rf"^{module.ENTRY.name} draws from [^\n]*; not given: {need}$"):
                use(without)


@pytest.mark.parametrize("module", [m for m in MODULES if m.ENTRY.optional], ids=lambda m: m.ENTRY.name)
def test_roles_that_are_optional_may_be_missing(module: ModuleType, runs: Runs) -> None:
    optional = {need.partition(".")[2] for need in module.ENTRY.optional}
    without = Runs(networks={r: given for r, given in runs.networks.items() if r not in optional}, images=runs.images)
    check_figure(module.draw(without))
    assert "nan" not in module.caption(without)


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m is not f12_loss_and_normalisation], ids=lambda m: m.ENTRY.name
)
def test_a_base_run_that_never_crosses_is_refused_in_one_line(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=rf"^{module.ENTRY.name} draws from a run that crosses 2/η [^\n]*$"):
        module.draw(runs_with(base=tiny_network(top_sharpness=20.0)))


@each_figure
def test_one_seed_is_enough(module: ModuleType, runs: Runs) -> None:
    one = Runs(networks={role: given[:1] for role, given in runs.networks.items()}, images=runs.images)
    assert "ne seed" in module.caption(one)


def test_f2_shows_two_steps_at_the_edge_at_which_the_planted_groups_trade_places() -> None:
    caption = caption_of(f02_extreme_images)
    first, second = (int(n) for n in re.search(r", (\d+) and (\d+) of full-batch", caption).groups())  # type: ignore[union-attr]
    assert second == first + 1
    assert CROSSING + 75 <= first < CROSSING + 150
    assert "20.0 (20.0 to 20.0) of the 20 that rise most" in caption
    assert numbers("one before it times (\\S+)", caption) == pytest.approx([-1], abs=0.01)
    assert "1 − ηλ = −1.10" in caption  # λ stays at 42, η = 0.05
    quiet = f02_extreme_images.caption(runs_with(base=tiny_network(swing=0.0)))
    changed = float(re.search(r"([\d.]+) \([\d. to]+\) of the 20 that rise most", quiet).group(1))  # type: ignore[union-attr]
    assert changed < 10


MEASURES_OF_TAILS = r"kurtosis \(median over steps\) (.*?); tail index \(likewise\) (.*?); .*? carry (.*?)\. Of these 3"


def test_f3_finds_a_heavy_tail_where_it_was_planted_and_none_in_its_surrogate() -> None:
    one = Runs(networks={"base": (tiny_network(),)})
    found = numbers(MEASURES_OF_TAILS, f03_loss_changes.caption(one))
    losses, windows = tiny_network()["loss"].values, find_windows(tiny_network())
    assert windows is not None
    edge, before = loss_changes(losses[windows.edge]), loss_changes(losses[windows.before])
    surrogate = gaussian_like(edge, np.random.default_rng(0))
    expected = [
        measure(changes)
        for measure in (median_kurtosis, median_hill_index, top_energy)
        for changes in (edge, before, surrogate)
    ]
    assert found == pytest.approx(expected, rel=0.01)
    heavier = (found[0] > found[1]) + (found[3] < found[4]) + (found[6] > found[7])
    assert f"{heavier} tell a heavier tail at the edge" in f03_loss_changes.caption(one)
    # The 40 of 300 examples that swing carry the changes at the edge; before it all change alike.
    assert found[0] > 5 > 3.4 > found[2]
    assert found[6] > 0.5 > found[7]


def test_f3_counts_the_measures_that_tell_a_heavier_tail_at_the_edge() -> None:
    base = tiny_network()
    windows = find_windows(base)
    assert windows is not None
    # Before the edge 12 of the examples change ten times as much as the others, at it all alike.
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(base.sizes["example"]) < 12, 10.0, 1.0)
    for window, sizes in ((windows.before, scale), (windows.edge, 1.0)):
        base["loss"].values[window] = sizes * rng.normal(size=base["loss"].values[window].shape)
    caption = f03_loss_changes.caption(runs_with(base=base))
    assert "0 tell a heavier tail at the edge than before it, and 3 a heavier" in caption


def test_f4_gives_the_planted_excess_of_the_features_and_the_colours_probability() -> None:
    caption = caption_of(f04_colours_and_features)
    # Norms 2 against 1 before training; 300 examples, of which 40 are the groups.
    assert "over the median of all is 2.00 (2.00 to 2.00) before training" in caption
    # Planes and ships get the same on all colours here.
    together, others = numbers(r"get (\S+) \(.*? on the sky's colours \(.*?\), (\S+)", caption)
    assert together == others
    base = tiny_network()
    base["feature_norm"].values[:, :] = 1.0
    assert "is 1.00 (1.00 to 1.00) before training" in f04_colours_and_features.caption(runs_with(base=base))


def test_f4_names_what_is_drawn_but_counted_on_neither_side() -> None:
    base = tiny_network()
    probability = base["colour_probability"]
    probability.loc[{"colour": "white"}] = 0.0
    probability.loc[{"colour": "white", "class": ["plane", "ship"]}] = 0.125
    caption = f04_colours_and_features.caption(runs_with(base=base))
    assert "and 0.250 (0.250 to 0.250) on white, which counts as neither" in caption


def test_f4_refuses_runs_that_were_not_probed() -> None:
    with pytest.raises(ValueError, match=r"^F4 draws from runs whose colours were probed[^\n]*$"):
        f04_colours_and_features.draw(runs_with(base=tiny_network().drop_vars("colour_probability")))


@pytest.mark.parametrize("growth", [-1.01, -0.97])
def test_f7_recovers_the_factor_that_the_displacement_grows_by(growth: float) -> None:
    caption = f07_bounce.caption(runs_with(edge=tiny_edge(growth=growth, curvature=38.0)))
    assert f"factor −{abs(growth):.2f}" in caption
    assert "1 − ηλ = −0.900" in caption
    assert "λ = uᵀHu = 38.0 measured" in caption


def test_f7_compares_the_gap_with_the_groups_gradients_along_the_bounce() -> None:
    edge = tiny_edge()
    # ‖g₊ − g₋‖² = 2·30²(1 + 0.8), of which 0.9 along the bounce, 0.3 along the top eigenvector
    told = 0.9 * np.sqrt(2 * 900 * 1.8)
    gap = edge["loss"].values[0, edge["member"].values].mean(1)
    ratio = abs(gap[0] - gap[1]) / np.sqrt(edge["bounce_square"].values[0]) / told
    words = r"ends of the path: (.*?) in the stretches from step (\d+) to (\d+) on"
    assert numbers(words, f07_bounce.caption(runs_with(edge=edge))) == pytest.approx([*[ratio] * 8, 200, 235], rel=0.02)
    edge["group_bounce_share"].values[edge["edge_measured"].values >= 220] = 0.45
    halved = numbers(words, f07_bounce.caption(runs_with(edge=edge)))
    assert halved[:8] == pytest.approx([*[ratio] * 4, *[2 * ratio] * 4], rel=0.02)


def test_f7_draws_a_path_that_changes_sides_every_step_whichever_sign_a_measurement_takes() -> None:
    path = drawn(f07_bounce)[0].axes[0].get_lines()[1].get_ydata()
    assert len(path) == f07_bounce.PATH_STEPS
    assert (path[1:] * path[:-1] < 0).all()


@pytest.mark.parametrize("module", [f10_adam, f11_split_sgd], ids=lambda m: m.ENTRY.name)
def test_the_swing_at_equal_loss_is_that_of_the_runs(module: ModuleType) -> None:
    words = {"F10": r"swings by (\S+) ", "F11": r"gradient descent \(η.*?swing (\S+) "}[module.ENTRY.name]
    doubled = module.caption(runs_with(base=tiny_network(swing=2.0)))
    assert numbers(words, doubled) == pytest.approx([2 * numbers(words, caption_of(module))[0]], rel=0.1)


def test_f10_gives_the_swings_to_digits_that_make_its_ratio() -> None:
    one = Runs(networks={"base": (tiny_network(),), "adam": (tiny_network(lr=1e-4, swing=1e-4, decay=2.0),)})
    descent, adam, ratio = numbers(
        r"swings by (\S+) nats under .*? and (\S+) under Adam: (\S+) times", f10_adam.caption(one)
    )
    assert ratio == pytest.approx(descent / adam, rel=0.01)


def test_f10_tells_how_far_apart_the_drawn_lines_are() -> None:
    lines = {line.get_label(): line for line in drawn(f10_adam)[0].axes[-1].get_lines() if line.get_label()[0] != "_"}
    one = Runs(networks={role: given[:1] for role, given in runs_with().networks.items()})
    caption = f10_adam.caption(one)
    high, low, told = numbers(r"first seed: (\S+) to (\S+), shaded\) these lines are (\S+) times", caption)
    medians = []
    for line in (lines["gradient descent"], lines["Adam"]):
        loss, swing = line.get_xdata(), line.get_ydata()
        medians.append(np.nanmedian(swing[(loss <= high) & (loss >= low)]))
    assert told == pytest.approx(medians[0] / medians[1], rel=0.1)
    assert f"over {SWING_STEPS} steps" in caption
    assert "axis ends at 10⁻⁵" in caption


def test_a_swing_over_steps_whose_loss_moves_much_is_not_drawn() -> None:
    run = tiny_network()
    pair = OpposingPair(np.arange(20), np.arange(20, 40), 1.0, 1.0)
    assert np.isfinite(drawn_swing(run, pair)[SWING_STEPS:-SWING_STEPS]).all()
    run["loss"].values[300:] /= 4
    left_out = np.flatnonzero(np.isnan(drawn_swing(run, pair)[SWING_STEPS:-SWING_STEPS])) + SWING_STEPS
    half = SWING_STEPS // 2 + 1
    assert left_out.tolist() == list(range(300 - half, 300 + half))


def test_f10_and_f11_compare_with_gradient_descent_by_plain_ratios() -> None:
    # Steps along the top eigenvector are planted: 0.01 under Adam, up to 0.07 under descent at its edge.
    (step,) = numbers(r"eigenvector is (\S+) ", caption_of(f10_adam))
    assert 0.1 < step < 0.2
    caption = caption_of(f11_split_sgd)
    base, split = (numbers(rf"{name} \(η.*?swing (\S+) ", caption)[0] for name in ("descent", "SplitSGD"))
    assert numbers(r"swing over gradient descent's: (\S+)", caption) == pytest.approx([split / base], rel=0.2)


def test_f11_prints_small_losses_and_the_steps_its_dots_are_taken_over() -> None:
    momentum = tiny_network(lr=0.095, swing=0.8, decay=3.0)
    momentum["loss"].values[-1] = 2.9e-4
    caption = f11_split_sgd.caption(runs_with(momentum=momentum))
    assert re.search(r"momentum \(η = 0.095\): .*?, loss after 420 steps 2\.90·10⁻⁴", caption)
    # The edge is 150 steps, of which the second half is judged.
    assert re.search(r"gradient descent \(η = 0.05\): swing [^;]* nats over 75 \(75 to 75\) steps", caption)


def test_f11_says_where_a_rule_never_gets_to_the_loss() -> None:
    slow = runs_with(split_sgd=tiny_network(swing=0.0, decay=0.1))
    caption = f11_split_sgd.caption(slow)
    assert "swing not measured (that loss is not reached)" in caption
    assert "nan" not in caption
    check_figure(f11_split_sgd.draw(slow))


RELATIVE_SWINGS = r"cross-entropy (\S+).*?label smoothing (\S+).*?squared loss (\S+)"
AT_EQUAL_LOSS = r"it is (\S+) .*?times as large .*? the unit is: (\S+)[ )]"


def test_f12_gives_the_swing_over_the_excess_of_the_loss(runs: Runs) -> None:
    plain, smoothed, squared = numbers(RELATIVE_SWINGS, caption_of(f12_loss_and_normalisation))
    assert plain > smoothed > squared
    # The same run with the rule's floor under its losses, as smoothing and as plain cross-entropy without it.
    floor = LossRule(label_smoothing=0.1).floor(10)
    assert floor == pytest.approx(-0.91 * np.log(0.91) - 0.09 * np.log(0.01))
    same = runs_with(base=tiny_network(), label_smoothing=tiny_network(floor=floor))
    plain, smoothed, _ = numbers(RELATIVE_SWINGS, f12_loss_and_normalisation.caption(same))
    assert smoothed == pytest.approx(plain, rel=0.01)


def test_f12_gives_the_ratio_of_imbalances_its_control_and_the_losses_compared(runs: Runs) -> None:
    one = Runs(networks={role: given[:1] for role, given in runs.networks.items()})
    caption = f12_loss_and_normalisation.caption(one)
    (seed,) = evidence(one, "F12")
    ratio, control = normalisation_ratio(seed)
    assert numbers(AT_EQUAL_LOSS, caption) == pytest.approx([ratio, control], rel=0.01)
    assert ratio < 0.7 * control
    compared = at_equal_loss(seed)
    assert compared is not None
    losses = [value for table, _ in compared for value in (table[0].mean(), table[-1].mean())]
    words = r"At equal loss \(first seed: (\S+) to (\S+) with it, (\S+) to (\S+) without\)"
    assert numbers(words, caption) == pytest.approx(losses, rel=0.01)
    alike = f12_loss_and_normalisation.caption(runs_with(batch_norm=tiny_minibatches(1)))
    assert numbers(AT_EQUAL_LOSS, alike)[0] > 0.7
    bare = Runs(networks={r: v for r, v in runs.networks.items() if r in ("base", "label_smoothing", "squared")})
    assert "Batch norm: not measured" in f12_loss_and_normalisation.caption(bare)


def test_f12_draws_the_random_groups_of_its_caption_and_names_the_largest_point(runs: Runs) -> None:
    named = [run.assign_attrs(seed=12 + i) for i, run in enumerate(runs.networks["base"])]
    curves = {}
    for seeds, given in (("counted", runs), ("named", Runs(networks={**runs.networks, "base": tuple(named)}))):
        axes = f12_loss_and_normalisation.draw(given).axes[-1]
        points = np.concatenate([line.get_xydata() for line in axes.get_lines() if line.get_marker() == "o"])
        largest = points[points[:, 1].argmax()]
        told = numbers(
            r"set by the largest, (\S+) at a mean loss of (\S+)\.", f12_loss_and_normalisation.caption(given)
        )
        assert told == pytest.approx(largest[::-1], rel=0.01)
        curves[seeds] = points[:, 1]
    assert not np.allclose(curves["counted"], curves["named"])


def test_f13_gives_each_intervention_s_crossing_and_sharpness_at_equal_loss() -> None:
    caption = caption_of(f13_intervention)
    assert f"crosses 2/η at step {CROSSING}" in caption
    # Crossings at 300, 210 and 180 steps; λ rises linearly to 40 there, and at step 200 the losses are equal.
    assert "opposing removed: 1.50 (1.50 to 1.50) times that step" in caption
    assert "random removed: 1.05" in caption
    assert "hardest removed: 0.90" in caption
    assert f"averaged over {f13_intervention.SMOOTHED} steps" in caption
    assert re.search(r"opposing removed: .*? λ at equal loss 0\.6\d", caption)
    never = f13_intervention.caption(runs_with(without_opposing=tiny_network(top_sharpness=30.0, removed=30)))
    assert "2 of 2 never" in never
    assert "2.10 (2.10 to 2.10) times that step" in never
    assert "without 30 of them" in caption


def test_swing_size_is_the_amplitude_of_an_alternation_and_blind_to_a_drift() -> None:
    steps = np.arange(100)
    alternating = swing_size(0.3 * (-1.0) ** steps + 0.01 * steps, 25)
    assert np.nanmin(alternating) == pytest.approx(0.3)
    assert np.nanmax(swing_size(0.01 * steps, 25)) < 1e-12
    assert np.isnan(alternating[[0, -1]]).all()


def test_a_figures_random_groups_are_those_of_the_claims() -> None:
    """They are drawn by the seed of the run, where it tells it."""
    named = runs_with(base=tiny_network(0).assign_attrs(seed=12))
    assert [one.seed for one in evidence(named, "F7")] == [12, 12]
    assert [one.seed for one in evidence(runs_with(), "F7")] == [0, 1]


def test_numbers_in_words() -> None:
    assert number(2e-4) == "2·10⁻⁴"
    assert number(0.095) == "0.095"
    assert number(1.25e-4) == "0.000125"
    assert spread([1.0, float("nan"), 3.0]) == "2.00 (1.00 to 3.00)"
    assert spread([-0.5]) == "−0.500"
    assert spread([250, 260], "{:.0f}".format) == "255 (250 to 260)"


@pytest.mark.parametrize("value", [-1.0, 0.999951, 2.9e-4, 6.41e-5, 6728.3, 0.96, 12.94])
def test_a_measured_number_is_printed_to_three_digits_whatever_its_size(value: float) -> None:
    assert numbers("(.*)", significant(value)) == pytest.approx([value], rel=0.005)
    digits = re.sub(r"·.*|\D", "", significant(value)).lstrip("0")
    assert len(digits) == 3 or value > 1000


def test_groups_in_words() -> None:
    assert describe(np.array([0, 1, 2, 3]), [3, 3, 5, 3]) == "3 cat, 1 dog"
