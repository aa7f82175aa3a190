"""Predicts, derives and checks: ``python -m theory predict``, ``derive T5``, ``check``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from theory.command_line import InputError, main
from theory.configuration import DescentConfig
from theory.derivations import check_table, render, render_all, statement_named
from theory.predictions import predict, table
from theory.statements import all_statements


@dataclass(frozen=True)
class PredictConfig(DescentConfig):
    """Predict a run of descent on the two-layer linear network."""

    json: bool = False
    """Print JSON."""


def predict_command(config: PredictConfig) -> int:
    """Prints the predictions as a table or as JSON."""
    predictions = predict(config.model, config.initial_state, config.lr, config.steps)
    print(json.dumps(dataclasses.asdict(predictions), indent=2) if config.json else table(predictions))
    return 0


@dataclass(frozen=True)
class DeriveConfig:
    """Derive statements: sympy carries out every step and the derivation is printed."""

    statements: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of the statements, such as T5."""
    latex: bool = False
    """Formulas as LaTeX."""
    all: bool = False
    """Every statement, as docs/theory.md."""


def derive_command(config: DeriveConfig) -> int:
    """Prints the derivations of the statements named."""
    if not config.all and not config.statements:
        raise InputError(f"derive needs a statement: give one of {', '.join(all_statements())}, or --all")
    if config.all:
        print(render_all(), end="")
    for name in config.statements:
        print(render(statement_named(name), latex=config.latex))
    return 0


@dataclass(frozen=True)
class CheckConfig:
    """Run the statements' numeric checks, each with a control that must fail."""

    statements: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of the statements; all when none is named."""


def check_command(config: CheckConfig) -> int:
    """Prints a table of status, time and checks; 1 when one does not hold."""
    named = [statement_named(name) for name in config.statements]
    text, good = check_table(named or all_statements().values())
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    main(
        {"predict": predict_command, "derive": derive_command, "check": check_command},
        prog="python -m theory",
        description="Dynamics of the two-layer linear network with opposing features: predict, derive, check.",
    )
