"""The interventions that are compared: each of them on the opposing examples, and the same on two controls.

Whatever is done to the opposing examples is done to as many random ones and to as many of the highest loss: what the
treatment does as such (fewer examples, wrong labels, other colours) shows in the controls too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theory.command_line import InputError, require_different
from validate.interventions import Kind
from validate.network_run import NetworkConfig
from validate.windows import Windows

CHOICES: Mapping[str, str] = {
    "opposing": "the opposing tenth",
    "random": "a random tenth of the same labels",
    "hardest": "the tenth of highest loss",
}
"""Rule of `validate.interventions.choose_examples` → the examples in words."""
CONTROLS = ("random", "hardest")


@dataclass(frozen=True)
class Treatment:
    """What is done to a tenth of the examples.

    Attributes:
        kind: kind of intervention.
        amount: its amount (`validate.interventions.KINDS`); our choice.
        role: first part of its roles' names, the choice is the second.
        words: what is done, with a place for the examples.
        late: from a snapshot shortly before the base run's crossing; from the start when False.
    """

    kind: Kind
    amount: float
    role: str
    words: str
    late: bool = False

    def role_of(self, choice: str) -> str:
        """Name of the role of the run in which the examples of one of `CHOICES` are treated so."""
        return f"{self.role}_{choice}"


TREATMENTS: Mapping[str, Treatment] = {
    "remove": Treatment("remove", 0.0, "without", "without {}"),
    "down_weight": Treatment("down_weight", 0.2, "down_weighted", "{} at a fifth of its weight"),
    "clip": Treatment("clip", 1.0, "clipped", "{}, its losses capped at 1 nat"),
    "relabel": Treatment("relabel", 0.0, "relabelled", "{} under its commonest label"),
    "recolour": Treatment("recolour", 1.0, "recoloured", "{} in the mean colour"),
    "remove_late": Treatment(
        "remove", 0.0, "removed_late", "without {} from shortly before the base run's crossing on", late=True
    ),
}
"""Word on the command line → treatment."""


def roles_of(names: Sequence[str]) -> tuple[str, ...]:
    """The base role and those of some treatments, each on every choice.

    Raises:
        InputError: there is no such treatment, or one is named twice.
    """
    for name in names:
        if name not in TREATMENTS:
            raise InputError(f"--kinds is {name}: give some of {', '.join(TREATMENTS)}")
    require_different("--kinds", names)
    return ("base", *(TREATMENTS[name].role_of(choice) for name in names for choice in CHOICES))


def late_start(base: NetworkConfig, windows: Windows) -> int:
    """Step of the base run's last snapshot before its crossing, from which a late treatment begins.

    The last one whose sharpness was measured, where there is one: the treated run's first is compared with it.

    Raises:
        InputError: the base run has no snapshots.
    """
    if not base.snapshot_every:
        raise InputError(f"run {base.name} has no snapshots to begin from: give it a snapshot_every above 0")
    both = math.lcm(base.snapshot_every, base.measure_every)
    every = both if both < windows.crossing else base.snapshot_every
    return (windows.crossing - 1) // every * every
