"""Statements as readable text: derivations carried out on the spot, checks in a table, docs/theory.md."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sympy as sp

from theory.command_line import InputError
from theory.statements import Statement, all_statements


def render(statement: Statement, *, latex: bool = False) -> str:
    """A statement with its derivation as Markdown; every step is reduced to zero by sympy before it is printed.

    Args:
        statement: the statement.
        latex: formulas as LaTeX rather than as text.

    Raises:
        ArithmeticError: a step's two sides are not equal.
    """
    lines = [
        f"## {statement.name}: {statement.title}",
        "",
        f"**Status**: {statement.status}. **Source**: {statement.source}.",
        "",
        f"**Hypotheses.** {statement.hypotheses}",
        "",
        f"**Claim.** {statement.claim}",
        "",
        "**Derivation**, each line reduced to zero by sympy:",
        "",
    ]
    for number, step in enumerate(statement.derivation(), 1):
        if (residual := step.residual()) != 0:
            raise ArithmeticError(f"{statement.name}, step {number}: {residual} is left of “{step.text}”")
        lines += [f"{number}. {step.text}", "", f"   {_equation(step.left, step.right, latex)}", ""]
    if statement.remarks:
        lines += [f"**Remarks.** {statement.remarks}", ""]
    return "\n".join(lines)


def render_all() -> str:
    """docs/theory.md: every statement with its derivation."""
    head = (
        f"# The statements, derived\n\n<!-- sympy {sp.__version__} -->\n\n"
        "Written by `python -m theory derive --all --latex > docs/theory.md`; a test keeps it current.\n\n"
        "Notation: f = c (bᵀx + s·uᵀx_o), population loss L = ½(cb−β)ᵀΣ(cb−β) + ½αc²s² + ½α, "
        "r = β − cb, drive D = bᵀΣr, balancedness Q = c² − ‖b‖² − s², step size η. "
        "`python -m theory check` runs the numeric checks.\n\n"
        "Status is that of the statement as it stands below: proved; checked (derived to the order stated, or seen "
        "numerically, with the error that is left); corrected (what was written first is refuted by the counterexample "
        "given; what stands now is proved or checked, as it says).\n\n"
    )
    return head + "\n".join(render(s, latex=True) for s in all_statements().values())


def check_table(statements: Iterable[Statement]) -> tuple[str, bool]:
    """Runs every check; a table with values, bounds, controls and seconds, and whether all hold."""
    lines, good = [], True
    for statement in statements:
        begin = time.perf_counter()
        checks = statement.check()
        seconds = time.perf_counter() - begin
        lines.append(f"{statement.name:4} {statement.status:8} {seconds:6.2f} s  {statement.title}")
        for check in checks:
            good &= check.holds
            mark = "holds" if check.holds else "FAILS"
            lines.append(
                f"       {mark}  {check.value:9.2e} ≤ {check.bound:.1e}  {check.quantity}"
                f"  [control {check.control:.2e}: {check.control_text}]"
            )
    return "\n".join(lines), good


def statement_named(name: str) -> Statement:
    """The statement of that name.

    Raises:
        InputError: there is none.
    """
    statements = all_statements()
    if name.upper() not in statements:
        raise InputError(f"there is no statement {name}: give one of {', '.join(statements)}")
    return statements[name.upper()]


def _equation(left: sp.Expr, right: sp.Expr, latex: bool) -> str:
    if latex:
        return f"$${sp.latex(left)} = {sp.latex(right)}$$"
    return f"{sp.sstr(left)} = {sp.sstr(right)}"
