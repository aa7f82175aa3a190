"""The layerwise shift: what the two-layer network does whatever its size, in signs and in order, and what networks do.

Each event is a statement on four series (first and last layer's block sharpness, their shares of the top eigenvector).
The prediction is what the flow of `theory` does over a family of two-layer networks (T3 to T5: αs² + ‖b‖² and αc²); an
event on which the family is divided is not predicted. The control exchanges the first layer with the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import stats

from theory import gradient_flow, layer_sharpness
from theory.configuration import DescentConfig
from validate.claims.base import CONFIDENCE

Array = npt.NDArray[np.float64]

ALPHAS, BETAS, KS = (5.0, 20.0, 60.0), (1.5, 3.0, 6.0), (1.0, 5.0, 20.0)
"""The family: strength of the opposing feature, norm of the target, and share of the start's weight on the feature."""
LEAST_SEEDS = 5
"""Seeds from which an interval over them can leave out one half: of 4 of 4 it begins at 0.47."""
LEAST_BLOCKS = 4
"""Measurements of the blocks that a run needs to tell what falls and rises."""
LEAST_SHARE = 0.8
"""An event is predicted where it happens in at least so many of the runs; fixed on pilot seeds."""


@dataclass(frozen=True)
class LayerSeries:
    """First and last layer over training, from the start to the edge.

    Attributes:
        block_steps: (n,) steps, or times, of the blocks.
        share_steps: (k,) of the shares.
        first_block: top eigenvalue of the first layer's diagonal block.
        last_block: the last layer's.
        first_share: squared norm of the top eigenvector's part in the first layer.
        last_share: in the last layer.
    """

    block_steps: Array
    share_steps: Array
    first_block: Array
    last_block: Array
    first_share: Array
    last_share: Array

    def exchanged(self) -> LayerSeries:
        """The same with first and last layer exchanged."""
        return replace(
            self,
            first_block=self.last_block,
            last_block=self.first_block,
            first_share=self.last_share,
            last_share=self.first_share,
        )

    def later(self) -> LayerSeries:
        """The same without the first tenth of the steps, in which networks leave their small initial weights."""
        begin = max(self.block_steps[-1], self.share_steps[-1]) / 10
        blocks, shares = self.block_steps >= begin, self.share_steps >= begin
        return LayerSeries(
            self.block_steps[blocks],
            self.share_steps[shares],
            self.first_block[blocks],
            self.last_block[blocks],
            self.first_share[shares],
            self.last_share[shares],
        )


def _falls_at_first(values: Array) -> bool:
    return bool(values[1] < values[0])


def _ends(values: Array) -> float:
    """Median of the last three less the first."""
    return float(np.median(values[-3:]) - values[0])


EVENTS: Mapping[str, Callable[[LayerSeries], bool]] = {
    "the first layer's block falls at first": lambda s: _falls_at_first(s.first_block),
    "the last layer's block falls at first": lambda s: _falls_at_first(s.last_block),
    "the first layer's block turns before the last's": lambda s: bool(s.first_block.argmin() < s.last_block.argmin()),
    "the first layer's block ends above its start": lambda s: _ends(s.first_block) > 0,
    "the last layer's block ends below its start": lambda s: _ends(s.last_block) < 0,
    "first over last block ends above its start": lambda s: _ends(s.first_block / s.last_block) > 0,
    "the first layer's share ends above its start": lambda s: _ends(s.first_share) > 0,
    "the last layer's share ends below its start": lambda s: _ends(s.last_share) < 0,
}
STARTS: Mapping[str, Callable[[LayerSeries], LayerSeries]] = {
    "from the first step": lambda series: series,
    "after the first tenth": LayerSeries.later,
}


@dataclass(frozen=True)
class LayerScore:
    """An event in theory and in the runs of a network.

    Attributes:
        event: in words.
        start: from where on the series is looked at, in words.
        predicted: whether theory says that it happens; None where its family is divided.
        share: share of the runs in which it is as predicted.
        interval: 90 % Clopper–Pearson interval of the share of seeds in most of whose runs it is, for runs of one seed
            begin at the same weights.
        control: the share of runs with first and last layer exchanged.
        runs: number of runs.
        seeds: number of their seeds.
    """

    event: str
    start: str
    predicted: bool | None
    share: float
    interval: tuple[float, float]
    control: float
    runs: int
    seeds: int

    @property
    def reason(self) -> str:
        """Why the event is not predicted; empty where it is."""
        if self.predicted is None:
            return "theory's family is divided"
        if self.seeds < LEAST_SEEDS:
            return f"fewer than {LEAST_SEEDS} seeds"
        if not self.share >= LEAST_SHARE:
            return f"in less than {LEAST_SHARE:.0%} of the runs"
        if not self.interval[0] > 0.5:
            return "could be chance"
        return "" if self.control < LEAST_SHARE else "the control does not fail"


def read_layers(base: xr.Dataset, end: int) -> LayerSeries:
    """The series of a base run up to a step."""
    block_steps, share_steps = (base[name].values[base[name].values <= end] for name in ("block_measured", "measured"))
    blocks = base["block_sharpness"].values[: len(block_steps)]
    shares = base["layer_share_iterate"].values[: len(share_steps)]
    return LayerSeries(block_steps, share_steps, blocks[:, 0], blocks[:, -1], shares[:, 0], shares[:, -1])


@cache
def theory_family() -> tuple[LayerSeries, ...]:
    """The flow of every two-layer network of the family, to eight times 1/‖β‖."""
    return tuple(flow_layers(DescentConfig(*choice)) for choice in itertools.product(ALPHAS, BETAS, KS))


def flow_layers(config: DescentConfig, points: int = 400) -> LayerSeries:
    """The series along the flow of a two-layer network."""
    times = np.linspace(0, 8 / config.beta, points)
    flow = gradient_flow(config.model, config.initial_state, times, rtol=1e-9, atol=1e-11)
    layers = layer_sharpness(config.model, flow.state)
    return LayerSeries(times, times, layers.first, layers.last, layers.first_share, 1 - layers.first_share)


def score_layers(runs: Sequence[tuple[int, LayerSeries]]) -> list[LayerScore]:
    """Every event from every start, over the runs of a network that have enough measurements of the blocks.

    Args:
        runs: each with the seed of its initial weights.
    """
    known = [(seed, run) for seed, run in runs if len(run.first_block) >= LEAST_BLOCKS]
    seeds = sorted({seed for seed, _ in known})
    scores = []
    for (start, begin), (event, happens) in itertools.product(STARTS.items(), EVENTS.items()):
        answers = {happens(begin(series)) for series in theory_family()}
        predicted = answers.pop() if len(answers) == 1 else None
        own = [happens(begin(run)) == predicted for _, run in known]
        other = [happens(begin(run).exchanged()) == predicted for _, run in known]
        most = [_mean([hit for (of, _), hit in zip(known, own, strict=True) if of == seed]) > 0.5 for seed in seeds]
        interval = clopper_pearson(sum(most), len(seeds))
        scores.append(LayerScore(event, start, predicted, _mean(own), interval, _mean(other), len(own), len(seeds)))
    return scores


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """90 % interval of a probability of which so many of so many trials were hits.

    >>> low, high = clopper_pearson(15, 15)
    >>> round(low, 3), high
    (0.819, 1.0)
    """
    if not count:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")
