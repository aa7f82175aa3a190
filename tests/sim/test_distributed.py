"""Two gloo processes give the numbers of one; what fails on one rank ends all of them with one line."""

from __future__ import annotations

from pathlib import Path

import ranks
import torch
from ranks import on_ranks

from sim import distributed


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
    assert a == b == alone == [0, 1, 4, 9, 16]
    assert (own_a, own_b) == ([0, 2, 4], [1, 3])
    assert makers[0] == makers[2] == makers[4] != makers[1] == makers[3]


def test_a_unit_that_fails_ends_every_rank_with_one_line_and_the_others_stay(tmp_path: Path) -> None:
    first, second = on_ranks(ranks.share_units, tmp_path, 3)
    assert first.error == "RankLost: rank 0 stops, as rank 1 failed: unit 3 fails"
    assert second.error == "ValueError: unit 3 fails\nfor a reason"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["unit-0", "unit-1", "unit-2", "unit-4"]


def test_a_rank_that_ends_is_noticed_by_the_one_that_waits_for_it() -> None:
    first, second = on_ranks(ranks.lose_the_other)
    assert first.error.startswith("RankLost: rank 0 stops, as another rank has ended; what it said tells why")
    assert second.status == 9
