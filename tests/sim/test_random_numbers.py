"""Philox against its authors' known answers and another implementation, and the numbers against their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim import random_numbers
from sim.random_numbers import CounterNumbers, SequentialNumbers, philox

CPU = torch.device("cpu")
words = st.integers(0, 2**32 - 1)


def _normal(numbers: CounterNumbers, count: int) -> torch.Tensor:
    return numbers.normal_(torch.empty(count, dtype=torch.float64))


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        # kat_vectors of the authors' Random123
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_its_authors_answers(
    counter: list[int], key: tuple[int, int], answer: list[int], device: torch.device
) -> None:
    got = philox([torch.tensor([word], device=device) for word in counter], key)
    assert [int(word) for word in got] == answer


def _philox_in_python(counter: list[int], key: tuple[int, int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (second >> 32) ^ c[1] ^ k[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ c[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@given(counter=st.lists(words, min_size=4, max_size=4), key=st.tuples(words, words))
def test_philox_is_that_of_integers_without_bound(counter: list[int], key: tuple[int, int]) -> None:
    got = philox([torch.tensor([word]) for word in counter], key)
    assert [int(word) for word in got] == _philox_in_python(counter, key)


def test_uniform_and_normal_numbers_follow_their_laws_and_are_independent() -> None:
    numbers = CounterNumbers(7, 3, CPU)
    uniform, normal = numbers.uniform(200_001), _normal(numbers, 200_001)
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    # Neighbours, the two numbers of one counter, and the two draws.
    half = 100_001
    for a, b in ((normal[1:], normal[:-1]), (normal[: half - 1], normal[half:]), (uniform, normal)):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / np.sqrt(len(a))
        assert abs(float(torch.corrcoef(torch.stack([a**2, b**2]))[0, 1])) < 5 / np.sqrt(len(a))


def test_seeds_and_streams_and_draws_share_nothing() -> None:
    first = CounterNumbers(1, 0, CPU)
    drawn = [first.uniform(1000), first.uniform(1000)]
    drawn += [CounterNumbers(seed, stream, CPU).uniform(1000) for seed, stream in ((1, 1), (2, 0), (1 + 2**32, 0))]
    drawn.append(CounterNumbers(1, 2**32, CPU).uniform(1000))
    assert len(torch.cat(drawn).unique()) == 6000
    assert torch.equal(CounterNumbers(1, 0, CPU).uniform(1000), drawn[0])
    assert torch.equal(CounterNumbers(1 - 2**64, 0, CPU).uniform(1000), drawn[0])


@pytest.mark.parametrize("count", [1, 2, 7, 64, 1001])
def test_numbers_do_not_depend_on_the_block(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CounterNumbers(5, 0, CPU).uniform(count), _normal(CounterNumbers(5, 0, CPU), count)
    monkeypatch.setattr(random_numbers, "_BLOCK", 3)
    assert torch.equal(CounterNumbers(5, 0, CPU).uniform(count), whole[0])
    # Vectorised and scalar logarithms may differ in the last bit.
    torch.testing.assert_close(_normal(CounterNumbers(5, 0, CPU), count), whole[1], rtol=1e-14, atol=1e-15)


def test_no_numbers_are_drawn_where_none_are_asked_for() -> None:
    """The meta device takes the way of a GPU, on which all numbers are one block."""
    for device in (CPU, torch.device("meta")):
        assert CounterNumbers(5, 0, device).uniform(0).shape == (0,)
        assert CounterNumbers(5, 0, device).normal_(torch.empty(0, dtype=torch.float64, device=device)).shape == (0,)


def test_devices_agree(device: torch.device) -> None:
    here, there = CounterNumbers(5, 2, CPU), CounterNumbers(5, 2, device)
    assert torch.equal(here.uniform(5001), there.uniform(5001).cpu())
    normal = there.normal_(torch.empty(501, dtype=torch.float64, device=device))
    torch.testing.assert_close(_normal(here, 501), normal.cpu(), rtol=1e-13, atol=1e-14)


def test_sequential_numbers_are_torchs() -> None:
    numbers = SequentialNumbers(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(numbers.uniform(9), torch.rand(9, generator=generator, dtype=torch.float64))
    out = numbers.normal_(torch.empty(40, 3, dtype=torch.float64))
    assert torch.equal(out, torch.randn(40, 3, generator=generator, dtype=torch.float64))
