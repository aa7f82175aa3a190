"""Relations on small networks and real images: each holds where its hypotheses do, and fails in its control.

The examples are a tenth of the profile's (`tests/conftest.py`); `HYPOTHESIS_PROFILE=thorough` takes 100 a relation. A
failing example ends in the command that reruns it. How often the hypotheses hold: docs/relations.md.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from strategies import configurations

from theory.command_line import InputError, main
from validate.claims.base import Bound
from validate.relation_command import RelationConfig, relation_command
from validate.relations import RELATIONS, Configuration, Measurement, Relation, command_line, examine_many
from validate.relations.balancedness import balances
from validate.relations.configuration import IMAGES, KINDS, WIDTHS
from validate.relations.small_network import near_flow, small_network

EXAMPLES = max(1, settings.default.max_examples // 10)

PINNED = {
    "damped-oscillation": Configuration(width=16, depth=3, images=48, multiple=0.6),
    "alternation": Configuration(width=16, depth=3, images=48, multiple=1.3),
    "growth-factor": Configuration(width=16, depth=3, images=48, multiple=1.2),
    "descent-lemma": Configuration(width=8, multiple=0.05),
    "interlacing": Configuration(width=8, depth=2, activation="gelu", multiple=0.5),
    "layer-shift": Configuration(width=16, depth=3, images=48),
    "balancedness": Configuration(width=8, depth=2, activation="relu", multiple=0.1),
    "invariances": Configuration(kind="vit", width=8, images=12),
}
"""An example of each that is not vacuous."""

_SMALL_VIT = Configuration(kind="vit", width=8, images=12)
_SMALL_RESNET = Configuration(kind="resnet18", width=1, images=12)
BEYOND_PERCEPTRONS = [
    ("growth-factor", replace(_SMALL_VIT, multiple=0.15)),
    ("descent-lemma", _SMALL_VIT),
    ("layer-shift", _SMALL_VIT),
    pytest.param(
        "damped-oscillation", replace(_SMALL_RESNET, activation="gelu", multiple=0.725), marks=pytest.mark.slow
    ),
    pytest.param("alternation", replace(_SMALL_RESNET, seed=3, multiple=1.4), marks=pytest.mark.slow),
]
"""The few drawn examples beside perceptrons are mostly vacuous; `pytest -m slow` examines those of a ResNet-18."""


def examine(relation: Relation, config: Configuration) -> None:
    """Fails with the numbers and the command that gives them again."""
    example = relation.examine(config)
    event(f"{relation.name}: {example.verdict}")
    rerun = command_line(relation.name, config)
    assert example.verdict != "fails", f"{relation.name}: {', '.join(example.missed)}\n{example}\nrerun: {rerun}"


@pytest.mark.parametrize("name", RELATIONS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_the_relation_holds_wherever_its_hypotheses_do(name: str, data: st.DataObject) -> None:
    relation = RELATIONS[name]
    examine(relation, data.draw(configurations(relation.domain)))


@pytest.mark.parametrize(("name", "config"), [*PINNED.items(), *BEYOND_PERCEPTRONS])
def test_it_holds_where_its_hypotheses_do_and_every_statistic_misses_its_bound_in_the_control(
    name: str, config: Configuration
) -> None:
    relation = RELATIONS[name]
    example, control = relation.examine(config), relation.examine_control(config)
    assert example.verdict == "holds", str(example)
    assert control.control_fails, str(control)
    assert set(control.measured.statistics) == set(relation.bounds)
    assert set(example.measured.hypotheses) == {*relation.hypotheses, f"stated for {relation.domain}"}


@settings(max_examples=EXAMPLES * 3)
@given(st.sampled_from(list(RELATIONS.values())).flatmap(lambda r: st.tuples(st.just(r), configurations(r.domain))))
def test_the_command_of_an_example_gives_its_configuration_again(drawn: tuple[Relation, Configuration]) -> None:
    relation, config = drawn
    assert config in relation.domain
    assert parsed(command_line(relation.name, config)) == RelationConfig(names=(relation.name,), config=config)


def parsed(command: str) -> RelationConfig:
    words, seen = shlex.split(command), []
    assert words[:3] == ["python", "-m", "validate"]
    with pytest.raises(SystemExit) as stop:
        main({"relation": _taking(seen)}, prog="python -m validate", description="it", args=words[3:])
    assert stop.value.code == 0
    (config,) = seen
    return config


def _taking(seen: list[RelationConfig]):
    def relation(config: RelationConfig) -> int:
        seen.append(config)
        return 0

    return relation


def test_a_failure_shrinks_to_a_small_configuration_and_prints_its_command() -> None:
    """With a relation that fails for perceptrons of at least 8 units with a seed of at least 5."""
    relation = RELATIONS["growth-factor"]
    (statistic, *_) = relation.bounds

    def measure(config: Configuration) -> Measurement:
        fails = config.width >= 8 and config.seed >= 5
        return Measurement({statistic: float("nan") if fails else 0.0}, {})

    broken = replace(relation, measure=measure, bounds={statistic: relation.bounds[statistic]})

    @settings(max_examples=200, database=None)
    @given(configurations(broken.domain))
    def on_many(config: Configuration) -> None:
        examine(broken, config)

    with pytest.raises(AssertionError) as failure:
        on_many()
    (command,) = re.findall("rerun: (.*)", str(failure.value))
    smallest = Configuration(width=8, depth=1, seed=5, images=IMAGES["mlp"][0], multiple=relation.domain.multiples[0])
    assert parsed(command).config == smallest


def test_the_verdict_is_vacuous_where_a_hypothesis_is_not_met_and_a_statistic_that_is_no_number_fails() -> None:
    relation = replace(RELATIONS["interlacing"], bounds={"x": Bound(low=0, high=1)})

    def verdict(value: float, met: bool, multiple: float = 1.0) -> str:
        config = Configuration(multiple=multiple)
        return replace(relation, measure=lambda _: Measurement({"x": value}, {"met": met})).examine(config).verdict

    assert [verdict(0.5, True), verdict(2, True), verdict(np.nan, True), verdict(2, False)] == [
        "holds",
        "fails",
        "fails",
        "vacuous",
    ]
    assert verdict(0.5, True, multiple=9) == "vacuous"


def test_a_statistic_that_is_not_there_is_outside_its_bound_unless_some_networks_have_it_not() -> None:
    bound = Bound(high=1.0)
    for statistics, optional, verdict, control_fails in (
        ({}, (), "fails", False),
        ({"x": 0.0}, (), "fails", False),
        ({"x": 2.0}, (), "fails", False),
        ({"x": 0.0}, ("y",), "holds", False),
        ({"x": 2.0}, ("y",), "fails", True),
        ({"x": 2.0, "y": 0.0}, ("y",), "fails", False),
        ({"x": 2.0, "y": 2.0}, (), "fails", True),
        ({"x": 2.0, "y": float("nan")}, (), "fails", False),
        ({"x": 2.0, "y": float("inf")}, (), "fails", True),
    ):
        relation = replace(
            RELATIONS["interlacing"],
            bounds={"x": bound, "y": bound},
            measure=lambda _, statistics=statistics: Measurement(statistics, {}),
            measure_control=lambda _, statistics=statistics: Measurement(statistics, {}),
            optional=optional,
        )
        assert relation.examine(Configuration()).verdict == verdict
        assert relation.examine_control(Configuration()).control_fails is control_fails


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_network_of_each_kind_runs_and_near_flow_lowers_its_loss(kind: str) -> None:
    config = Configuration(kind=kind, width=WIDTHS[kind][0], images=IMAGES[kind][0])
    flow = near_flow(config)
    assert flow.converged
    assert flow.losses[-1] < flow.losses[0]
    assert flow.largest == flow.sharpness[2:].max()
    v = flow.vectors[0]
    hv = small_network(config).hessian(flow.sharpest).matvec(v)
    assert float(v @ hv) == pytest.approx(flow.largest, rel=1e-3)


def test_the_balance_counts_a_units_own_bias_and_not_the_next_layers() -> None:
    network = small_network(PINNED["balancedness"])
    parts = [p.detach().numpy() for p in network.objective.network.parameters()]
    w1, b1, w2, b2, w3, _ = parts
    first = (w1**2).sum(1) + b1**2 - (w2**2).sum(0)
    second = (w2**2).sum(1) + b2**2 - (w3**2).sum(0)
    np.testing.assert_allclose(balances(network, network.start).numpy(), np.concatenate([first, second]))


def test_examples_are_counted_and_drawn_the_same_each_time() -> None:
    relation = RELATIONS["invariances"]
    first, second = (examine_many([relation], 2, 5, ["mlp"], progress=False)[0] for _ in range(2))
    assert first.verdicts == second.verdicts
    assert sum(first.verdicts.values()) == 2
    assert first.controls_failed == first.controls == first.verdicts["holds"]
    assert not first.failures


def test_the_command_prints_the_verdict_and_fails_with_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "invariances"
    assert relation_command(RelationConfig((name,), PINNED[name])) == 0
    assert "verdict: holds" in capsys.readouterr().out
    assert relation_command(RelationConfig((name,), PINNED[name], control=True)) == 0
    assert "fails, as it must" in capsys.readouterr().out
    broken = replace(RELATIONS[name], bounds=dict.fromkeys(RELATIONS[name].bounds, Bound(low=1)))
    monkeypatch.setitem(RELATIONS, name, broken)  # type: ignore[arg-type]
    assert relation_command(RelationConfig((name,), PINNED[name])) == 1
    assert "MISSED" in (printed := capsys.readouterr().out)
    assert "verdict: fails" in printed
    assert relation_command(RelationConfig((name,), draws=1)) == 1
    assert f"python -m validate relation {name} --kind mlp" in capsys.readouterr().out
    with pytest.raises(InputError, match="--draws is 1: give it with --kind and --seed alone"):
        relation_command(RelationConfig((name,), draws=1, config=Configuration(width=32)))
    with pytest.raises(InputError, match="--draws is 1"):
        relation_command(RelationConfig((name,), draws=1, control=True))
    assert relation_command(RelationConfig(list=True)) == 0
    listed = capsys.readouterr().out
    assert all(relation.statement in listed and relation.control in listed for relation in RELATIONS.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "vit", "width": 12}, "multiple of 8"),
        ({"kind": "vgg11", "depth": 2}, "leave it out"),
        ({"depth": 0}, "--depth is 0"),
        ({"images": 2001}, "--images is 2001"),
        ({"images": 2}, "--images is 2: give 3"),
        ({"width": 10**8}, "--width is 100000000: give 1 to 1024"),
        ({"seed": 2**63}, "--seed is 9223372036854775808"),
        ({"subset": -1}, "--subset is -1"),
        ({"multiple": float("nan")}, "--multiple is nan"),
        ({"activation": "sine"}, "--activation is sine"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Configuration(**changes)  # type: ignore[arg-type]
