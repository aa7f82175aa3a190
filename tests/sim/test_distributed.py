"""Two gloo processes give the numbers of one; what fails on one rank ends all of them with one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
import xarray as xr
from ranks import LossOfOrder, Training, on_ranks

from sim import Batches, distributed
from sim.opposing_data import CHUNK, draw_examples
from theory import InputError, Model


def test_one_process_is_all_there_is_without_torchrun() -> None:
    tensor = torch.ones(2)
    distributed.sum_over_ranks([tensor])
    distributed.wait_for_all()
    with distributed.processes():
        assert (distributed.rank(), distributed.rank_count(), distributed.is_first()) == (0, 1, True)
    assert tensor.tolist() == [1, 1]
    assert distributed.from_first("word") == "word"
    assert distributed.own_pieces([slice(0, 5)]) == [slice(0, 5)]


def test_ranks_add_up_speak_and_divide_a_batch() -> None:
    for number, outcome in enumerate(on_ranks(ranks.sums)):
        me, count, first, tensors, word, inside, pieces, chunks = outcome.value
        assert (me, count, first, inside) == (number, 2, number == 0, (0, 1))
        assert tensors == [[[3.0] * 3] * 2, [[0, 6], [3, 9]]]
        assert word == 0
        assert pieces == ([slice(0, 2)] if number == 0 else [slice(2, 5), [5]])
        assert chunks == [[slice(0, 5), slice(6, 7)] if number == 0 else [slice(5, 6)]]


def test_units_are_dealt_made_once_alone_and_seen_by_all(tmp_path: Path) -> None:
    (_, alone, _), (own_a, a, makers), (own_b, b, _) = (
        ranks.share_units(tmp_path / "one"),
        *(outcome.value for outcome in on_ranks(ranks.share_units, tmp_path / "two")),
    )
    assert a == b == alone == [0, 1, 4, 9, 16, 25]
    assert (own_a, own_b) == ([0, 2, 4], [1, 3])
    assert makers[0] == makers[2] == makers[4] == makers[5] != makers[1] == makers[3]


def test_a_unit_that_fails_ends_every_rank_with_one_line_and_the_others_stay(tmp_path: Path) -> None:
    first, second = on_ranks(ranks.share_units, tmp_path, 3)
    assert first.error == "RankLost: rank 0 stops, as rank 1 failed: unit 3 fails"
    assert second.error == "ValueError: unit 3 fails\nfor a reason"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["unit-0", "unit-1", "unit-2", "unit-4"]


def test_a_rank_that_ends_is_noticed_by_the_one_that_waits_for_it() -> None:
    first, second = on_ranks(ranks.lose_the_other)
    assert first.error.startswith("RankLost: rank 0 stops, as another rank has ended; what it said tells why")
    assert second.status == 9


def test_a_sweep_gives_the_table_and_the_bits_of_one_process(tmp_path: Path) -> None:
    table, data = ranks.sweep(tmp_path / "one")
    for outcome in on_ranks(ranks.sweep, tmp_path / "two"):
        assert outcome.value[0] == table
        xr.testing.assert_identical(outcome.value[1], data)
    names = [sorted(path.name for path in (tmp_path / n / "phase-units").iterdir()) for n in ("one", "two")]
    assert names[0] == names[1]


def test_a_sequence_of_random_numbers_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="give counters"):
        next(draw_examples(Model([8.0], [1.0], [1.0]), 10, 0.2, 0, torch.device("cpu"), over_ranks=True))


@pytest.mark.parametrize("count", [100, 3 * CHUNK + 1000])
def test_moments_summed_over_ranks_are_those_of_one_process(count: int) -> None:
    """The small sample is one chunk: the second rank draws nothing, and knows the moments all the same."""
    expected = ranks.moments(count)
    assert set(expected) == {"all", "plus", "minus", "plus 2", "minus 2"}
    first, second = (outcome.value for outcome in on_ranks(ranks.moments, count))
    assert first == second
    for name, parts in expected.items():
        for ours, theirs in zip(first[name], parts, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=name)


CASES = {
    "whole batch": Training(),
    "Adam in chunks": Training(Batches(chunk=4), "adam", lr=0.01),
    "minibatches, SAM": Training(Batches(size=7, chunk=3), "sam", lr=0.1),
    "weights": Training(weighted=True),
    "one example a step": Training(Batches(size=1), steps=12),
    "batch norm": Training(norm=True),
    "ghost batches": Training(Batches(chunk=8, ghost=True), norm=True),
    "loss that does not divide": Training(loss=LossOfOrder(), lr=0.01),
    "diverging": Training(lr=1e38),
}


@pytest.mark.parametrize("name", CASES)
def test_training_on_examples_split_over_ranks_is_that_of_one_process(name: str) -> None:
    """Losses in order, sharpness, shares and weights, to rounding: the sums are taken in another order."""
    expected = ranks.train_and_load(CASES[name])
    first, second = (outcome.value for outcome in on_ranks(ranks.train_and_load, CASES[name]))
    for key, values in expected.items():
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        if not any(part in key for part in ("residual", "value_error")):
            np.testing.assert_allclose(first[key], values, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("count", [5, 1])
def test_weight_decay_leaves_what_the_loss_does_not_use(count: int) -> None:
    """As in one process, where it has no gradient; of one example, a rank has no piece and no gradient at all."""
    lengths = [outcome.value for outcome in on_ranks(ranks.train_beside_what_is_unused, count)]
    assert lengths == [ranks.train_beside_what_is_unused(count)] * 2 == [1.0, 1.0]


def test_ranks_make_a_run_of_the_store_together_and_go_on_to_the_same_bits(tmp_path: Path) -> None:
    case = Training(Batches(size=7), "adam", lr=0.01)
    whole = [outcome.value for outcome in on_ranks(ranks.obtain_training, tmp_path / "whole", case)]
    ended = on_ranks(ranks.obtain_training, tmp_path / "ended", case, True)
    assert ended[0].status == 9
    assert ended[1].error.startswith("RankLost: rank 1 stops, as another rank has ended")
    resumed = [outcome.value for outcome in on_ranks(ranks.obtain_training, tmp_path / "ended", case)]
    single = ranks.obtain_training(tmp_path / "single", case)
    assert [r["resumed_at"] for r in (*whole, *resumed, single)] == [[], [], [12], [12], []]
    for key in set(whole[0]) - {"resumed_at"}:
        for other in (whole[1], *resumed):
            np.testing.assert_array_equal(whole[0][key], other[key], err_msg=key)
    np.testing.assert_allclose(whole[0]["loss"], single["loss"], rtol=1e-6)


def test_a_run_that_cannot_be_made_ends_every_rank_with_one_line(tmp_path: Path) -> None:
    case = Training(steps=3)
    ranks.obtain_training(tmp_path, case)
    first, second = on_ranks(ranks.obtain_training, tmp_path, Training(steps=4))
    assert "was made with another configuration" in first.error
    assert second.error.startswith("RankLost: rank 1 stops, as rank 0 failed: ")
    assert "was made with another configuration" in second.error
