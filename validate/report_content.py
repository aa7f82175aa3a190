"""What a report tells: verdicts, the evidence on each kind of network, the runs and figures behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sim.runs import Run
from theory import Predictions
from validate.cifar10 import Images
from validate.claims import Evidence, Verdict
from validate.network_run import NetworkConfig, training_images

NAMED_FAILURES = 8
"""The headline names so many claims that did not hold; more are counted."""


@dataclass(frozen=True)
class NetworkPart:
    """What the report tells of one kind of network.

    Attributes:
        evidence: what the claims were judged on.
        network: the base run's configuration, whatever its seed.
        images: the images that its runs chose from.
    """

    evidence: Evidence
    network: NetworkConfig
    images: Images

    @property
    def chosen(self) -> Images:
        """The images that it was trained on."""
        return training_images(self.network, self.images)


@dataclass(frozen=True)
class Report:
    """Everything the report tells.

    Attributes:
        preset: name of the preset.
        parts: one for each kind of network.
        verdicts: the judged claims, of all networks.
        runs: the runs behind them.
        predictions: the theory's predictions for the default two-layer model, where they are told.
        figures: name and PNG file of each figure to show; its caption stands beside the file.
    """

    preset: str
    parts: Sequence[NetworkPart]
    verdicts: Sequence[Verdict]
    runs: Sequence[Run]
    predictions: Predictions | None = None
    figures: Sequence[tuple[str, Path]] = field(default=())

    @property
    def failed(self) -> list[Verdict]:
        """Those that were judged and do not hold."""
        return [v for v in self.verdicts if v.failed]

    @property
    def status(self) -> int:
        """Exit status of a command that made it: 0 where claims were judged and all of them hold, else 1."""
        return 0 if any(v.judged for v in self.verdicts) and not self.failed else 1

    @property
    def headline(self) -> str:
        """What came out, in a line."""
        judged = sum(v.judged for v in self.verdicts)
        lacking = len(self.verdicts) - judged
        several = len(self.parts) > 1
        names = [f"{v.claim.name} ({v.kind})" if several and v.kind else v.claim.name for v in self.failed]
        if len(names) > NAMED_FAILURES:
            words = f"{len(names)} of {judged} claims judged did not hold"
        elif names:
            words = f"{', '.join(names)} did not hold"
        else:
            words = "no claim was judged"
            if judged == 1:
                words = "the one claim judged holds, and its control fails"
            elif judged:
                words = f"all {judged} claims judged hold, and every control fails"
        return f"{words}; {lacking} not judged" if lacking else words
