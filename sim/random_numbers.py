"""Two sources of random numbers: torch's own sequence on the CPU, and counters that any device can compute by itself.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011) turns a counter of 128 bits under a key of 64 into four words of 32
bits by integer arithmetic alone, so every device finds the same words, and any part of a sequence without the rest
before it. Uniform numbers are the same bits everywhere; normal ones pass through ln, cos and sin, which differ between
devices by the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85

_BLOCK = 1 << 15
"""Counters at once on a CPU, so that the words stay in its cache. No number depends on it."""


class RandomNumbers(Protocol):
    """A source of float64 numbers, each drawn once."""

    @property
    def device(self) -> torch.device:
        """Where the numbers come to be."""
        ...

    def uniform(self, count: int) -> Tensor:
        """(count,) numbers in [0, 1)."""
        ...

    def normal_(self, out: Tensor) -> Tensor:
        """Fills a contiguous tensor with standard normal numbers."""
        ...


@dataclass(frozen=True)
class SequentialNumbers:
    """The numbers of a torch generator on the CPU, one after the other.

    Attributes:
        generator: the generator; drawing moves it on.
    """

    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        """See `RandomNumbers`."""
        return self.generator.device

    def uniform(self, count: int) -> Tensor:
        """See `RandomNumbers`."""
        return torch.rand(count, generator=self.generator, dtype=torch.float64)

    def normal_(self, out: Tensor) -> Tensor:
        """See `RandomNumbers`."""
        return out.normal_(generator=self.generator)


class CounterNumbers:
    """Stream number `stream` of a seed, made where it is wanted.

    Args:
        seed: the key, 64 bits of it.
        stream: the counter's upper half: different streams share no number.
        device: where the numbers are made.
    """

    def __init__(self, seed: int, stream: int, device: torch.device) -> None:
        self._key = seed & _WORD, (seed >> 32) & _WORD
        self._stream, self._device = stream, device
        self._position = 0

    @property
    def device(self) -> torch.device:
        """See `RandomNumbers`."""
        return self._device

    def uniform(self, count: int) -> Tensor:
        """See `RandomNumbers`; a counter gives two, of 53 bits each."""
        out = torch.empty(count, dtype=torch.float64, device=self.device)
        self._fill(out, lambda first, second: (first, second))
        return out

    def normal_(self, out: Tensor) -> Tensor:
        """See `RandomNumbers`; two by the transform of Box and Muller, √(−2 ln u) (cos 2πv, sin 2πv)."""
        self._fill(out.view(-1), _box_muller)
        return out

    def _fill(self, flat: Tensor, of_uniforms: _Pairwise) -> None:
        """The first half takes the first number of each counter, the second half the second."""
        half = (flat.numel() + 1) // 2
        block = _BLOCK if self.device.type == "cpu" else max(half, 1)
        for begin in range(0, half, block):
            count = min(block, half - begin)
            words = philox(self._counters(begin, count), self._key)
            first, second = of_uniforms(_fraction(words[0], words[1]), _fraction(words[2], words[3]))
            flat[begin : begin + count] = first
            rest = flat[half + begin : half + begin + count]  # one short where the number of numbers is odd
            rest.copy_(second[: rest.numel()])
        self._position += half

    def _counters(self, begin: int, count: int) -> list[Tensor]:
        begin += self._position
        position = torch.arange(begin, begin + count, device=self.device)
        stream = torch.full_like(position, self._stream)
        return [position & _WORD, position >> 32, stream & _WORD, stream >> 32]


class _Pairwise(Protocol):
    def __call__(self, first: Tensor, second: Tensor, /) -> tuple[Tensor, Tensor]: ...


def philox(counters: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Ten rounds of Philox4x32 on four words of 32 bits, held in int64, which it overwrites.

    >>> zero = [torch.zeros(1, dtype=torch.int64) for _ in range(4)]
    >>> [hex(int(word)) for word in philox(zero, (0, 0))]  # the authors' first known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(10):
        # Products of 64 bits wrap to negative numbers; the mask takes the upper word out of them all the same.
        p0, p1 = c0.mul_(_MULTIPLIERS[0]), c2.mul_(_MULTIPLIERS[1])
        c0 = (p1 >> 32).bitwise_and_(_WORD).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (p0 >> 32).bitwise_and_(_WORD).bitwise_xor_(c3).bitwise_xor_(k1)
        c1, c3 = p1.bitwise_and_(_WORD), p0.bitwise_and_(_WORD)
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    """53 of 64 bits as a number in [0, 1), a multiple of 2⁻⁵³."""
    return ((high << 21) | (low >> 11)).double().mul_(2.0**-53)


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    # 1 − u lies in (0, 1], where the logarithm is finite.
    radius = first.neg_().add_(1.0).log_().mul_(-2.0).sqrt_()
    angle = second.mul_(2 * math.pi)
    return radius * angle.cos(), radius * angle.sin()
