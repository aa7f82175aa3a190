"""Effects of interventions as a page in Markdown, the same on the terminal and in the file, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from validate.claims.base import mean_interval
from validate.intervention_effects import MEASURES, Effect, NetworkEffects, tell_apart
from validate.report_words import finite_or_none, interval_words
from validate.treatments import CHOICES, CONTROLS, TREATMENTS

CHANCE = 0.1
"""Share of the differences whose 90 % interval leaves out 0 where there is none."""

EXPLAINED = """\
A tenth of the examples is treated: those that carry most of the loss changes at the base run's edge (opposing), as many
at random with the same labels, as many of the highest loss before the edge. Every value is relative to the base run of
the same seed. Losses are means over the examples that no choice touches. Sharpness is that of the loss trained on, at
the loss at which the base run crosses 2/η (late treatments: 75 steps after it; at the same weights: where they begin);
of the untreated loss, at the treated run's weights of that step, but of the loss that the base run is trained on.
A run that never crosses counts with its length: its ratio is a lower bound. A spike: the loss comes to exceed its least
value so far by a tenth. In brackets: 90 % Student intervals over seeds, of paired differences in the last two columns;
**bold** where the interval leaves out 0. No threshold is set and nothing is judged; where nothing had an effect, one
difference in ten would be bold.
"""


def page(networks: Sequence[NetworkEffects]) -> str:
    """The page: a table for each network, and what tells opposing examples from the controls."""
    return "\n".join(["# Interventions\n", EXPLAINED, *(network_words(of) for of in networks)])


def network_words(of: NetworkEffects) -> str:
    """A network's part of the page."""
    sizes = ", ".join(dict.fromkeys(f"{lr:g}" for lr in of.lr))
    lines = [f"## {of.kind}\n", f"η = {sizes}, {of.steps} steps, {of.examples:,} images, {of.held:,} held out.\n"]
    if of.skipped:
        lines.append(
            f"Seeds {', '.join(map(str, of.skipped))}: the base run does not cross 2/η with room for the windows, so "
            "that there are no opposing examples.\n"
        )
    if not of.seeds:
        return "\n".join(lines)
    lines += [_base_words(of), "", f"| treatment | measure | {' | '.join(CHOICES)} | {' | '.join(_HEADS)} |"]
    lines.append("|---" * (2 + len(CHOICES) + len(CONTROLS)) + "|")
    lines += [_row(of, effect) for effect in of.effects]
    return "\n".join([*lines, "", *(_told_apart(of, control) for control in CONTROLS)])


_HEADS = [f"opposing − {control}" for control in CONTROLS]


def _base_words(of: NetworkEffects) -> str:
    lines = [
        f"- seed {seed.seed}: base run {_crossing_words(seed.base.crossing)}, {seed.base.spikes} spikes, "
        + (f"accuracy {100 * seed.base.accuracy:.1f} %, " if of.held else "")
        + f"least loss {seed.base.least_loss:.3g}; of the opposing examples "
        + ", ".join(f"{share:.0%} are among the {control} too" for control, share in seed.shared.items())
        for seed in of.seeds
    ]
    return "\n".join(lines)


def _crossing_words(crossing: float | None) -> str:
    return "never gets to 2/η" if crossing is None else f"gets to 2/η at step {crossing:.0f}"


def _row(of: NetworkEffects, effect: Effect) -> str:
    cells = [effect.treatment, MEASURES[effect.measure].words]
    for choice in CHOICES:
        never = of.never(effect.treatment, choice) if effect.measure == "crossing" else 0
        note = f" ({never} of {len(of.seeds)} never)" if never else ""
        cells.append(interval_words(effect.interval(choice)) + note)
    for control in CONTROLS:
        words = interval_words(mean_interval(effect.differences(control)))
        cells.append(f"**{words}**" if effect.tells_apart(control) else words)
    return f"| {' | '.join(cells)} |"


def _told_apart(of: NetworkEffects, control: str) -> str:
    apart, count = tell_apart(of, control)
    if not count:
        return f"Opposing less {control}: no difference has an interval.\n"
    words = [
        f"{name}: {', '.join(effect.measure for effect in apart if effect.treatment == name) or 'nothing'}"
        for name in dict.fromkeys(effect.treatment for effect in of.effects)
    ]
    return (
        f"Told apart from {control}: {'; '.join(words)}. That is {len(apart)} of {count} differences with an interval; "
        f"about {CHANCE * count:.1f} would be by chance.\n"
    )


def as_json(networks: Sequence[NetworkEffects]) -> list[dict[str, Any]]:
    """The same as plain values, with one value a seed; None for what is not defined."""
    return [
        {
            "network": of.kind,
            "lr": list(of.lr),
            "steps": of.steps,
            "examples": of.examples,
            "held_out": of.held,
            "seeds": [seed.seed for seed in of.seeds],
            "seeds_without_windows": list(of.skipped),
            "base": [
                {
                    "crossing": seed.base.crossing,
                    "spikes": seed.base.spikes,
                    "accuracy": finite_or_none(seed.base.accuracy),
                    "least_loss": finite_or_none(seed.base.least_loss),
                    "opposing_among": dict(seed.shared),
                }
                for seed in of.seeds
            ],
            "effects": [_effect_json(of, effect) for effect in of.effects],
        }
        for of in networks
    ]


def _effect_json(of: NetworkEffects, effect: Effect) -> dict[str, Any]:
    return {
        "treatment": effect.treatment,
        "kind": TREATMENTS[effect.treatment].kind,
        "amount": TREATMENTS[effect.treatment].amount,
        "late": TREATMENTS[effect.treatment].late,
        "measure": effect.measure,
        "what": MEASURES[effect.measure].words,
        "values": {choice: _numbers(effect.values[choice]) for choice in CHOICES},
        "interval_90": {choice: _numbers(effect.interval(choice)) for choice in CHOICES},
        "never_cross": {choice: of.never(effect.treatment, choice) for choice in CHOICES},
        "opposing_less": {
            control: {
                "values": _numbers(effect.differences(control)),
                "interval_90": _numbers(mean_interval(effect.differences(control))),
                "leaves_out_0": effect.tells_apart(control),
            }
            for control in CONTROLS
        },
    }


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [finite_or_none(value) for value in values]
