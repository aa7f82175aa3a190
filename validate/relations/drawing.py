"""Many examples: how often a relation's hypotheses hold, how often its control fails, and every failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sim.networks import ACTIVATIONS
from sim.progress import progress_bar
from validate.relations.base import Domain, Examination, Relation
from validate.relations.configuration import DEPTHS, IMAGES, WIDTHS, Configuration, Kind


@dataclass
class Tally:
    """Verdicts on one relation's examples.

    Attributes:
        relation: the relation.
        verdicts: number of examples of each verdict.
        unmet: number of examples in which each hypothesis was not met.
        failures: the examples in which it failed.
        controls: number of examples that are not vacuous.
        controls_failed: number of those whose control failed, as it must.
    """

    relation: Relation
    verdicts: Counter[str] = field(default_factory=Counter)
    unmet: Counter[str] = field(default_factory=Counter)
    failures: list[Examination] = field(default_factory=list)
    controls: int = 0
    controls_failed: int = 0

    def add(self, config: Configuration) -> Examination:
        """Examines a configuration, its control too where it is not vacuous, and counts both."""
        example = self.relation.examine(config)
        self.verdicts[example.verdict] += 1
        self.unmet.update(words for words, good in example.measured.hypotheses.items() if not good)
        if example.verdict == "fails":
            self.failures.append(example)
        if example.verdict != "vacuous":
            self.controls += 1
            self.controls_failed += self.relation.examine_control(config).control_fails
        return example

    def __str__(self) -> str:
        total, counts = sum(self.verdicts.values()), self.verdicts
        unmet = "".join(f"\n      not met in {count:4}: {words}" for words, count in self.unmet.most_common())
        return (
            f"{self.relation.name:20}{total:5} examples, {total - counts['vacuous']:4} not vacuous, "
            f"{counts['fails']:3} failures; control fails in {self.controls_failed} of {self.controls}{unmet}"
        )


def examine_many(
    relations: Sequence[Relation], count: int, seed: int, kinds: Sequence[Kind], *, progress: bool = True
) -> list[Tally]:
    """Draws so many networks, and examines on each the relations that are stated for it, each at its own step size.

    Args:
        relations: the relations.
        count: number of networks.
        seed: seed of the draws.
        kinds: kinds of network, drawn alike.
        progress: whether to show a progress bar.

    Returns:
        One tally a relation, in their order.
    """
    rng, tallies = np.random.default_rng(seed), [Tally(relation) for relation in relations]
    for _ in progress_bar(range(count), "examples", show=progress):
        network = draw_network(rng, kinds)
        for tally in tallies:
            config = with_step_size(network, tally.relation.domain, rng)
            if config in tally.relation.domain:
                tally.add(config)
    return tallies


def draw_network(rng: np.random.Generator, kinds: Sequence[Kind]) -> Configuration:
    """A network and its images."""
    kind = kinds[int(rng.integers(len(kinds)))]
    widths, depths, activations = WIDTHS[kind], DEPTHS[kind], tuple(ACTIVATIONS)
    return Configuration(
        kind=kind,
        width=widths[rng.integers(len(widths))],
        depth=depths[rng.integers(len(depths))],
        activation=activations[rng.integers(len(activations))],
        seed=int(rng.integers(10**6)),
        images=int(rng.choice(IMAGES[kind])),
        subset=int(rng.integers(10**6)),
    )


def with_step_size(network: Configuration, domain: Domain, rng: np.random.Generator) -> Configuration:
    """The network with a step size of the domain, to three digits: enough, and a short command."""
    low, high = domain.multiples
    return replace(network, multiple=float(np.clip(round(rng.uniform(low, high), 3), low, high)))
