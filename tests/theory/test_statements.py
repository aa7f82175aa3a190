"""Every statement derives itself, its checks hold, its controls fail, and docs/theory.md is what `derive` writes."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import pytest
import sympy as sp

from theory import derivations
from theory.derivations import check_table, render, render_all, statement_named
from theory.statements import Check, Statement, Status, Step, all_statements

STATEMENTS = all_statements()
DOCS = Path(__file__).parents[2] / "docs" / "theory.md"


def test_all_sixteen_are_there() -> None:
    assert list(STATEMENTS) == [f"T{i}" for i in range(1, 17)]


@functools.cache
def steps_of(name: str) -> tuple[Step, ...]:
    return tuple(STATEMENTS[name].derivation())


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_derivation_is_no_repetition(name: str) -> None:
    # A derivation whose every line says x = x derives nothing.
    assert any(step.left != step.right for step in steps_of(name))


@pytest.mark.parametrize("name", ["T1", "T2", "T3", "T4", "T6"])
def test_no_step_is_typed_twice_or_zero_whatever_stands_there(name: str) -> None:
    for step in steps_of(name):
        assert step.left.free_symbols or step.right.free_symbols
        assert step.left != step.right
        assert Step("", step.left, step.right + sp.Symbol("c", real=True)).residual() != 0


@pytest.mark.parametrize("name", STATEMENTS)
def test_each_check_holds_and_its_control_fails(name: str) -> None:
    checks = STATEMENTS[name].check()
    assert checks
    for check in checks:
        assert check.holds, check
        assert not dataclasses.replace(check, value=check.control).holds, check


def test_a_wrong_step_is_refused() -> None:
    x = sp.Symbol("x")
    wrong = dataclasses.replace(STATEMENTS["T7"], derivation=lambda: (Step("wrong", x**2, x),))
    with pytest.raises(ArithmeticError, match="T7, step 1"):
        render(wrong)


def test_a_check_that_cannot_fail_does_not_hold() -> None:
    assert not Check("q", 0.0, 1.0, 0.5, "the control passes").holds
    assert not Check("q", float("nan"), 1.0, 2.0, "").holds


def test_the_table_says_what_fails() -> None:
    failing = dataclasses.replace(STATEMENTS["T7"], check=lambda: (Check("q", 2.0, 1.0, 3.0, "c"),))
    text, good = check_table([failing])
    assert not good
    assert "FAILS" in text


def test_names_are_found_in_either_case() -> None:
    assert statement_named("t5") is STATEMENTS["T5"]
    assert all(isinstance(s, Statement) and s.status in Status for s in STATEMENTS.values())


WRITTEN = dict(zip(("", *STATEMENTS), re.split(r"\n(?=## T\d+: )", DOCS.read_text()), strict=True))
"""The document's head, under the name "", and the section of each statement."""


def _alike(written: str, current: str) -> bool:
    """To the letter under the same sympy; without the formulas, whose print varies, under another."""
    version = re.search(r"<!-- sympy (\S+) -->", WRITTEN[""])
    assert version
    if version[1] != sp.__version__:
        written, current = (re.sub(r"(?m)^   \$\$.*\$\$$|<!--.*-->", "", text) for text in (written, current))
    return written == current


@pytest.mark.parametrize("name", STATEMENTS)
def test_each_step_reduces_to_zero_and_the_document_is_what_derive_writes(name: str) -> None:
    # Rendering raises where a step's two sides are not equal.
    current = render(dataclasses.replace(STATEMENTS[name], derivation=lambda: steps_of(name)), latex=True)
    assert _alike(WRITTEN[name], current), "run: python -m theory derive --all --latex > docs/theory.md"


def test_the_documents_head_and_order_are_what_derive_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivations, "render", lambda statement, latex: f"## {statement.name}: {latex}")
    head, *sections = re.split(r"\n(?=## T\d+: )", render_all())
    assert _alike(WRITTEN[""], head)
    assert sections == [f"## {name}: True" for name in STATEMENTS]
