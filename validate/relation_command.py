"""``python -m validate relation``: examines one relation on one small network, or on many drawn ones, or lists all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from theory.command_line import InputError
from validate.relations import RELATIONS, Configuration, Relation, command_line, examine_many
from validate.relations.configuration import KINDS


@dataclass(frozen=True)
class RelationConfig:
    """Examine relations that theory predicts on a small network: hypotheses, numbers, verdict."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The relations; --list describes all. With --draws, all when none is named."""
    config: Configuration = field(default_factory=Configuration)
    control: bool = False
    """Examine the control, in which every statistic must miss its bound."""
    draws: int = 0
    """Examine so many drawn networks instead, of the given kind, and count verdicts; --seed is that of the draws."""
    every_kind: bool = False
    """With --draws: networks of every kind."""
    list: bool = False
    """Only describe the relations."""


def relation_command(config: RelationConfig) -> int:
    """Prints hypotheses, numbers and verdict; 1 where a relation fails, or a control that is asked for does not."""
    if config.draws < 0:
        raise InputError(f"--draws is {config.draws}: give 0 or more")
    if config.draws and (
        config.control or replace(config.config, kind=Configuration().kind, seed=0) != Configuration()
    ):
        raise InputError(
            f"--draws is {config.draws}: give it with --kind and --seed alone; each draw's control is examined too"
        )
    if not config.names and not config.draws and not config.list:
        raise InputError(f"relation needs a name: give one of {', '.join(RELATIONS)}, or --list")
    relations = [relation_named(name) for name in config.names] or list(RELATIONS.values())
    if config.list:
        print("\n".join(map(describe, relations)))
        return 0
    if config.draws:
        return _examine_many(relations, config)
    return max(_examine(relation, config.config, config.control) for relation in relations)


def relation_named(name: str) -> Relation:
    """A relation by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in RELATIONS:
        raise InputError(f"there is no relation {name}: give one of {', '.join(RELATIONS)}")
    return RELATIONS[name]


def describe(relation: Relation) -> str:
    """A relation in lines: name, statement, domain, hypotheses, bounds, control."""
    lines = [
        ("stated for", str(relation.domain)),
        *(("if", words) for words in relation.hypotheses),
        *(("then", f"{name}: {bound}") for name, bound in relation.bounds.items()),
        ("control", relation.control),
    ]
    rows = [f"      {word + ':':12}{text}" for word, text in lines]
    return "\n".join([f"{relation.name}  {relation.statement}", *rows])


def _examine(relation: Relation, config: Configuration, control: bool) -> int:
    print(f"{relation.name}  {relation.statement}")
    if not control:
        example = relation.examine(config)
        print(f"{example}\nverdict: {example.verdict}")
        return int(example.verdict == "fails")
    example = relation.examine_control(config)
    print(f"control: {relation.control}\n{example}")
    print(f"the control {'fails, as it must' if example.control_fails else 'DOES NOT FAIL'}")
    return int(not example.control_fails)


def _examine_many(relations: list[Relation], config: RelationConfig) -> int:
    kinds = KINDS if config.every_kind else (config.config.kind,)
    tallies = examine_many(relations, config.draws, config.config.seed, kinds)
    for tally in tallies:
        print(tally)
        for example in tally.failures:
            print(
                f"      failed: {', '.join(example.missed)}\n      {command_line(tally.relation.name, example.config)}"
            )
    return int(any(tally.failures for tally in tallies))
