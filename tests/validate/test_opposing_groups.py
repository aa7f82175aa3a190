"""Planted pairs are found; windows and intervals are what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from cases import planted
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from theory import InputError
from validate.claims.base import Bound, mean_interval
from validate.claims.c03_period_two import alternation
from validate.claims.c04_opposite_phase import phase_correlation, swing
from validate.opposing_groups import (
    GROUP_SIZE,
    group_gap,
    overlap,
    random_pair_like,
    random_pair_of_same_labels,
    singular_pairs,
    stability,
    top_change_pair,
)
from validate.windows import find_windows, first_crossing, floor_crossing, reached_edge, why_no_windows


@given(st.integers(0, 10**6))
def test_a_planted_pair_is_found_by_both_rules(seed: int) -> None:
    losses = planted(seed)
    _, top = top_change_pair(losses, size=10)
    for pair in (singular_pairs(losses, count=1, size=10)[0], top):
        sides = [set(pair.positive.tolist()), set(pair.negative.tolist())]
        assert sorted(map(sorted, sides)) == [list(range(10)), list(range(10, 20))]
    assert overlap(singular_pairs(losses, count=1, size=10)[0], top) == 1.0


def test_the_pairs_numbers_are_those_of_the_singular_vectors() -> None:
    losses = planted(0)
    pair = singular_pairs(losses, count=1, size=10)[0]
    assert pair.energy > 0.5
    held_out = planted(1)
    assert phase_correlation(held_out, pair) < -0.95
    assert alternation(group_gap(held_out, pair)) > 0.95
    quiet = random_pair_like(pair, 1000, np.random.default_rng(0))
    assert swing(held_out, pair) > 5 * swing(held_out, quiet)


def test_alternation_is_seen_on_a_steep_drift_and_not_without_a_bounce() -> None:
    steps = np.arange(50)
    assert alternation(3.0 * steps + (-1.0) ** steps) == 1.0
    assert alternation(np.sin(steps / 8)) < 0.2
    noise = np.random.default_rng(0).normal(size=2000)
    # Second differences of white noise change sign with probability arccos(−2/3)/π = 0.732.
    assert alternation(noise) == pytest.approx(np.arccos(-2 / 3) / np.pi, abs=0.04)


def test_without_a_planted_pair_nothing_opposes() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(60, 200)), rng.normal(size=(60, 200))
    pair = singular_pairs(first, count=1, size=10)[0]
    # Chosen on one half and judged on the other, noise does not pass for opposition.
    assert abs(phase_correlation(second, pair)) < 0.4
    assert phase_correlation(first, pair) < -0.4


@pytest.mark.parametrize("examples", [2, 3, 30, 39, 41])
def test_no_example_is_in_both_groups_of_a_pair(examples: int) -> None:
    losses = np.random.default_rng(examples).normal(size=(30, examples))
    for pair in (singular_pairs(losses, count=1)[0], top_change_pair(losses)[1]):
        assert not np.intersect1d(pair.positive, pair.negative).size
        assert len(pair.positive) == len(pair.negative) == min(GROUP_SIZE, examples // 2)


def test_random_groups_keep_size_and_labels() -> None:
    losses = planted(0)
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    pair = singular_pairs(losses, count=1, size=10)[0]
    same = random_pair_of_same_labels(pair, labels, np.random.default_rng(1))
    assert labels[same.positive].tolist() == labels[pair.positive].tolist()
    assert labels[same.negative].tolist() == labels[pair.negative].tolist()
    # Of a class with just as many members all are drawn: none comes twice, on either side.
    few = np.arange(1000)
    few[pair.positive], few[pair.negative[:5]] = -1, -1
    whole = random_pair_of_same_labels(pair, few, np.random.default_rng(2))
    assert len(set(whole.positive) | set(whole.negative)) == 20
    like = random_pair_like(pair, 1000, np.random.default_rng(1))
    assert len(set(like.positive) | set(like.negative)) == 20


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_interval_is_scipys(values: list[float]) -> None:
    assume(np.std(values) > 1e-6)
    low, high = stats.t.interval(0.90, len(values) - 1, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx((low, high))


def test_intervals_of_undefined_values_are_undefined() -> None:
    assert np.isnan(mean_interval([])).all()
    assert np.isnan(mean_interval([1.0, float("nan")])).all()


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10), st.floats(0, 5))
def test_a_bound_cannot_both_hold_and_fail(low: float, width: float, begin: float, length: float) -> None:
    interval = (begin, begin + length)
    for bound in (Bound(low, low + width), Bound(low=low), Bound(high=low)):
        assert not (bound.holds_for(interval) and bound.fails_for(interval))
        if bound.holds_for(interval):
            assert bound.holds_for((begin, begin))


def _run(crossing: int | None, steps: int) -> xr.Dataset:
    measured = np.arange(0, steps, 10)
    sharpness = np.where(measured >= (crossing if crossing is not None else steps), 45.0, 10.0)
    data = xr.Dataset({"sharpness_iterate": ("measured", sharpness)}, coords={"measured": measured}, attrs={"lr": 0.05})
    return data.assign_coords(step=np.arange(steps))


@pytest.mark.parametrize(
    ("above", "crossing", "edge"),
    [
        # Between the measurements, of 19 and 21, 2/η is 20.
        ([90, 100, 110], 90, 85),
        ([40, 50, 60, 70, 80, 90, 100, 110], None, 35),  # crosses early and stays: no delay, and not "never"
        ([40, 50, 60, 100, 110], 100, 35),
        ([20, 30, 100, 110], 100, 95),  # an early peak that falls back
        (range(0, 120, 10), None, 0),
        ([], None, None),
        ([30], None, None),
    ],
)
def test_a_run_that_crossed_early_is_told_from_one_that_never_does(
    above: list[int], crossing: int | None, edge: int | None
) -> None:
    measured = np.arange(0, 120, 10)
    run = xr.Dataset(coords={"measured": measured}, attrs={"lr": 0.1})
    run["sharpness_iterate"] = "measured", np.where(np.isin(measured, list(above)), 21.0, 19.0)
    assert first_crossing(run) == crossing
    assert reached_edge(run) == (edge if not edge else pytest.approx(edge))
    assert floor_crossing(run) == (edge if not edge else pytest.approx(edge))
    # The floor's is that of midpoints where they are measured, half a step after the iterates.
    run["sharpness_midpoint"] = run["sharpness_iterate"]
    run["sharpness_iterate"] = 0 * run["sharpness_iterate"] + 30
    assert reached_edge(run) == 0
    assert floor_crossing(run) == (edge if not edge else pytest.approx(edge + 0.5))


def test_a_sharpness_that_is_no_number_is_no_crossing() -> None:
    measured = np.arange(0, 120, 10)
    run = xr.Dataset(coords={"measured": measured}, attrs={"lr": 0.1})
    run["sharpness_iterate"] = "measured", np.where(np.isin(measured, [30, 70]), np.nan, 21.0)
    assert first_crossing(run) is None
    assert reached_edge(run) == 0


def test_windows_share_no_step_and_need_room() -> None:
    windows = find_windows(_run(200, 420))
    assert windows is not None
    assert windows.crossing == 200
    assert windows.before.stop <= windows.crossing == windows.select.start
    assert windows.select.stop == windows.evaluate.start
    assert (windows.edge.start, windows.edge.stop) == (windows.select.start, windows.evaluate.stop)
    for run in (_run(None, 420), _run(40, 420), _run(300, 420)):
        assert find_windows(run) is None


def test_an_early_crossing_shortens_what_lies_before_it_and_a_start_above_is_no_crossing() -> None:
    windows = find_windows(_run(60, 420))
    assert windows is not None
    assert (windows.before, windows.early) == (slice(0, 30), slice(0, 30))
    run = _run(200, 420)
    run["sharpness_iterate"].values[:5] = 60.0  # an untrained network above 2/η
    later = find_windows(run)
    assert later is not None
    assert later.crossing == 200
    assert later.before == slice(70, 170)
    run["sharpness_iterate"].values[:5] = 10.0, 10.0, 10.0, 60.0, 10.0  # a peak at step 30
    assert find_windows(run) == later
    run["sharpness_iterate"].values[:6] = 10.0, 10.0, 10.0, 10.0, 10.0, 60.0  # at step 50 it counts
    counted = find_windows(run)
    assert counted is not None
    assert counted.crossing == 50


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: singular_pairs(LOSSES, size=0), "size of the groups is 0"),
        (lambda: singular_pairs(LOSSES, size=-3), "size of the groups is -3"),
        (lambda: top_change_pair(LOSSES, size=0), "size of the groups is 0"),
        (lambda: top_change_pair(np.full((5, 10), np.nan)), "not finite"),
        (lambda: top_change_pair(LOSSES[:1]), r"shape \[1, 10\]"),
        (lambda: top_change_pair(LOSSES[0]), r"shape \[10\]"),
        (lambda: stability([], 10, np.random.default_rng(0)), "0 windows"),
        (lambda: stability([[]], 10, np.random.default_rng(0)), "some without a pair"),
        (lambda: stability([singular_pairs(LOSSES, size=4)], 7, np.random.default_rng(0)), "7 examples"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


LOSSES = np.random.default_rng(0).normal(size=(6, 10))


@pytest.mark.parametrize(
    ("multiples", "steps", "diverged", "words"),
    [
        ({0: 0.2, 60: 1.1}, 210, -1, None),
        ({0: 0.2, 60: 1.1}, 209, -1, "crosses 2/η at step 60 and ends 1 steps too soon"),
        ({0: 0.2, 40: 1.1}, 400, -1, "crosses 2/η at step 40, before step 50"),
        ({0: 0.2, 40: 1.1, 60: 0.9, 80: 1.2}, 400, -1, None),
        ({0: 1.3}, 400, -1, "starts at 1.3 times 2/η"),
        ({0: 0.5, 100: 0.875}, 400, -1, "comes to 0.88 of 2/η at most"),
        ({0: 0.5, 10: 3.0}, 20, 17, "crosses 2/η at step 10, before step 50, and diverges at step 17"),
    ],
)
def test_a_run_without_windows_says_why(
    multiples: dict[int, float], steps: int, diverged: int, words: str | None
) -> None:
    measured = np.arange(0, steps, 10)
    since = np.array(sorted(multiples))
    values = [multiples[int(since[since <= step][-1])] for step in measured]
    run = xr.Dataset({"sharpness_iterate": ("measured", 2 / 0.05 * np.array(values))}, coords={"measured": measured})
    run["loss"] = ("step", "example"), np.zeros((steps, 2))
    assert why_no_windows(run.assign_attrs(lr=0.05, diverged_at=diverged)) == words
