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
    f07_top_eigenvector,
    f10_adam,
    f11_split_sgd,
    f12_loss_and_normalisation,
    f13_intervention,
)
from paper_figs.network_roles import describe, evidence, number, spread, swing_size
from paper_figs.runs import Runs

MODULES = (
    f02_extreme_images,
    f03_loss_changes,
    f04_colours_and_features,
    f07_top_eigenvector,
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


def numbers(caption: str) -> list[float]:
    return [float(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\.?\d*", caption)]


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
def test_the_caption_has_numbers_all_defined_and_says_how_many_seeds(module: ModuleType) -> None:
    caption = caption_of(module)
    assert numbers(caption)
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
    assert "times −1.00" in caption
    assert "1 − ηλ = −1.10" in caption  # λ stays at 42, η = 0.05
    quiet = f02_extreme_images.caption(runs_with(base=tiny_network(swing=0.0)))
    changed = float(re.search(r"([\d.]+) \([\d. to]+\) of the 20 that rise most", quiet).group(1))  # type: ignore[union-attr]
    assert changed < 10


def test_f3_finds_a_heavy_tail_where_it_was_planted_and_none_in_its_surrogate() -> None:
    kurtosis, of_gaussian = (
        float(n) for n in re.search(r"kurtosis ([\d.]+) .*?surrogate: ([\d.]+)", caption_of(f03_loss_changes)).groups()
    )  # type: ignore[union-attr]
    assert kurtosis > 5
    assert of_gaussian == pytest.approx(3, abs=0.4)
    # The 40 of 300 examples that swing carry the changes at the edge; before it all change alike.
    assert float(re.search(r"most carry ([\d.]+)", caption_of(f03_loss_changes)).group(1)) > 0.5  # type: ignore[union-attr]
    base = tiny_network()
    base["loss"].values[:] = np.random.default_rng(0).normal(size=base["loss"].shape)
    gaussian = re.search(r"kurtosis ([\d.]+)", f03_loss_changes.caption(runs_with(base=base)))
    assert float(gaussian.group(1)) == pytest.approx(3, abs=0.4)  # type: ignore[union-attr]


def test_f4_gives_the_planted_excess_of_the_features_and_the_colours_probability() -> None:
    caption = caption_of(f04_colours_and_features)
    # Norms 2 against 1 before training; 300 examples, of which 40 are the groups.
    assert "over the median of all is 2.00 (2.00 to 2.00) before training" in caption
    # Planes and ships get the same on all colours here.
    together, others = re.search(r"get ([\d.]+) \(.*?\) on the sky's colours, ([\d.]+)", caption).groups()  # type: ignore[union-attr]
    assert together == others
    base = tiny_network()
    base["feature_norm"].values[:, :] = 1.0
    assert "is 1.00 (1.00 to 1.00) before training" in f04_colours_and_features.caption(runs_with(base=base))


def test_f4_refuses_runs_that_were_not_probed() -> None:
    with pytest.raises(ValueError, match=r"^F4 draws from runs whose colours were probed[^\n]*$"):
        f04_colours_and_features.draw(runs_with(base=tiny_network().drop_vars("colour_probability")))


@pytest.mark.parametrize("growth", [-1.01, -0.97])
def test_f7_recovers_the_factor_that_the_displacement_grows_by(growth: float) -> None:
    caption = f07_top_eigenvector.caption(runs_with(edge=tiny_edge(growth=growth, curvature=38.0)))
    assert f"factor −{abs(growth):.2f}" in caption
    assert "1 − ηλ = −0.90" in caption
    # ‖g₊ − g₋‖² = 2·30²(1 + 0.8), of which 0.9 along v
    slope = 0.9 * np.sqrt(2 * 900 * 1.8)
    measured, ratio = (float(n) for n in re.search(r"on x is ([\d.]+) .*?a unit, ([\d.]+)", caption).groups())  # type: ignore[union-attr]
    assert measured / ratio == pytest.approx(slope, rel=0.01)


def test_f10_and_f11_give_each_rule_s_swing_at_equal_loss() -> None:
    doubled = runs_with(base=tiny_network(swing=2.0))
    for module, words in (
        (f10_adam, r"([\d.]+) \S* ?\S* ?\S* ?nats under gradient descent"),
        (f11_split_sgd, r"swing ([\d.]+)"),
    ):
        swing = float(re.search(words, caption_of(module)).group(1))  # type: ignore[union-attr]
        assert float(re.search(words, module.caption(doubled)).group(1)) == pytest.approx(2 * swing, rel=0.1)  # type: ignore[union-attr]


def test_f10_and_f11_compare_with_gradient_descent_by_plain_ratios() -> None:
    # Steps along the top eigenvector are planted: 0.01 under Adam, up to 0.07 under descent at its edge.
    step = float(re.search(r"eigenvector is ([\d.]+) ", caption_of(f10_adam)).group(1))  # type: ignore[union-attr]
    assert 0.1 < step < 0.2
    caption = caption_of(f11_split_sgd)
    base, split = (
        float(re.search(rf"{name} \(η.*?swing ([\d.]+)", caption).group(1)) for name in ("descent", "SplitSGD")
    )  # type: ignore[union-attr]
    ratio = float(re.search(r"swing over gradient descent's: ([\d.]+)", caption).group(1))  # type: ignore[union-attr]
    assert ratio == pytest.approx(split / base, rel=0.2)


def test_f11_says_where_a_rule_never_gets_to_the_loss() -> None:
    slow = runs_with(split_sgd=tiny_network(swing=0.0, decay=0.1))
    caption = f11_split_sgd.caption(slow)
    assert "swing not measured (that loss is not reached)" in caption
    assert "nan" not in caption
    check_figure(f11_split_sgd.draw(slow))


def test_f12_gives_the_swing_over_the_mean_loss_and_the_ratio_of_imbalances(runs: Runs) -> None:
    caption = caption_of(f12_loss_and_normalisation)
    swings = [
        float(n)
        for n in re.search(
            r"cross-entropy ([\d.]+).*?label smoothing ([\d.]+).*?squared loss ([\d.]+)", caption
        ).groups()
    ]  # type: ignore[union-attr]
    assert swings[0] > swings[1] > swings[2]
    ratio = float(re.search(r"it is ([\d.]+) .*?times as large", caption).group(1))  # type: ignore[union-attr]
    alike = f12_loss_and_normalisation.caption(runs_with(batch_norm=tiny_minibatches(1)))
    assert ratio < 0.7 < float(re.search(r"it is ([\d.]+) .*?times as large", alike).group(1))  # type: ignore[union-attr]
    bare = Runs(networks={r: v for r, v in runs.networks.items() if r in ("base", "label_smoothing", "squared")})
    assert "Batch norm: not measured" in f12_loss_and_normalisation.caption(bare)


def test_f13_gives_each_intervention_s_crossing_and_sharpness_at_equal_loss() -> None:
    caption = caption_of(f13_intervention)
    assert f"crosses 2/η at step {CROSSING}" in caption
    # Crossings at 300, 210 and 180 steps; λ rises linearly to 40 there, and at step 200 the losses are equal.
    assert "opposing removed: 1.50 (1.50 to 1.50) times that step" in caption
    assert "random removed: 1.05" in caption
    assert "hardest removed: 0.90" in caption
    assert re.search(r"opposing removed: .*? λ at equal loss 0\.6\d", caption)
    never = f13_intervention.caption(runs_with(without_opposing=tiny_network(top_sharpness=30.0, removed=30)))
    assert "2 of 2 never" in never
    assert "2.10 (2.10 to 2.10) times that step" in never
    assert "without 30 of them" in caption


def test_swing_size_is_the_amplitude_of_an_alternation_and_blind_to_a_drift() -> None:
    steps = np.arange(100)
    alternating = swing_size(0.3 * (-1.0) ** steps + 0.01 * steps)
    assert np.nanmin(alternating) == pytest.approx(0.3)
    assert np.nanmax(swing_size(0.01 * steps)) < 1e-12
    assert np.isnan(alternating[[0, -1]]).all()


def test_a_figures_random_groups_are_those_of_the_claims() -> None:
    """They are drawn by the seed of the run, where it tells it."""
    named = runs_with(base=tiny_network(0).assign_attrs(seed=12))
    assert [one.seed for one in evidence(named, "F7")] == [12, 12]
    assert [one.seed for one in evidence(runs_with(), "F7")] == [0, 1]


def test_numbers_and_groups_in_words() -> None:
    assert number(2e-4) == "2·10⁻⁴"
    assert number(0.095) == "0.095"
    assert number(1.25e-4) == "0.000125"
    assert spread([1.0, float("nan"), 3.0], 1) == "2.0 (1.0 to 3.0)"
    assert spread([-0.5]) == "−0.50"
    assert describe(np.array([0, 1, 2, 3]), [3, 3, 5, 3]) == "3 cat, 1 dog"
