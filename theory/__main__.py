"""Predicts, derives and checks: ``python -m theory predict``, ``derive T5``, ``check``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from theory.command_line import InputError, main, require_positive
from theory.configuration import DescentConfig
from theory.derivations import check_table, render, render_all, statement_named
from theory.phase_diagram import phase_diagram
from theory.plotting import plot_predictions
from theory.predictions import domains, predict, table
from theory.quantities import Regime
from theory.statements import all_statements


@dataclass(frozen=True)
class PredictConfig(DescentConfig):
    """Predict a run of descent on the two-layer linear network."""

    json: bool = False
    """Print JSON, curves included."""
    domains: bool = False
    """Print beneath the table where each prediction holds."""
    plot: Path | None = None
    """Draw the predicted curves to this file (.png, .pdf or .svg)."""


def predict_command(config: PredictConfig) -> int:
    """Predicts a run of descent: a table, JSON or a plot, each number with its error and domain."""
    predictions = predict(config.model, config.initial_state, config.lr, config.steps)
    if config.plot is not None:
        plot_predictions(predictions, config.plot)
    if config.json:
        print(json.dumps(predictions.as_dict(curves=True), indent=2))
        return 0
    print(table(predictions))
    if config.domains:
        print(domains(predictions))
    return 0


MOST_CELLS = 2000
"""A side of the phase diagram: four million cells."""


@dataclass(frozen=True)
class PhaseConfig:
    """Regimes of descent over a grid of step sizes and strengths, in closed form (Σ = I, balanced start)."""

    lr: tuple[float, float] = (0.005, 0.2)
    """Smallest and largest step size η."""
    alpha: tuple[float, float] = (2.0, 100.0)
    """Smallest and largest second moment α."""
    beta: float = 3.0
    """Norm of the linear target."""
    cells: int = 200
    """Cells a side, spaced in equal ratios."""
    json: bool = False
    """Print the grid as JSON: 0 converges, 1 edge of stability, 2 no stable minimum."""


def phase_command(config: PhaseConfig) -> int:
    """Prints what share of the grid lies in each regime, or the grid itself."""
    require_positive("--cells", config.cells)
    if config.cells > MOST_CELLS:
        raise InputError(f"--cells is {config.cells}: give at most {MOST_CELLS}")
    for name in ("lr", "alpha"):
        for end in getattr(config, name):
            require_positive(f"--{name}", end)
    lr, alpha = (np.geomspace(*ends, config.cells) for ends in (config.lr, config.alpha))
    diagram = phase_diagram(lr[:, None], alpha[None, :], config.beta)
    regime = np.where(diagram.converges, 0, np.where(diagram.edge, 1, 2))
    if config.json:
        print(json.dumps({"lr": lr.tolist(), "alpha": alpha.tolist(), "regime": regime.tolist()}))
        return 0
    print(f"  {config.cells} × {config.cells} cells, ‖β‖ = {config.beta:g}, Σ = I, balanced start (T6, T8)")
    for index, name in enumerate(Regime):
        print(f"  {name:<20} {np.mean(regime == index):7.1%}")
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
    if config.all and config.statements:
        raise InputError(f"--all is given with {config.statements[0]}: give one of both")
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
        {"predict": predict_command, "phase": phase_command, "derive": derive_command, "check": check_command},
        prog="python -m theory",
        description="Dynamics of the two-layer linear network with opposing features: predict, derive, check.",
    )
