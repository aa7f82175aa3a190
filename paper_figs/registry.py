"""Every figure by its number. A module ``fNN_*.py`` of this package is a figure: its ``ENTRY`` says what it is."""

from __future__ import annotations

import importlib
import pkgutil
import re

import paper_figs
from paper_figs.entry import FigureEntry


def find_figures() -> dict[str, FigureEntry]:
    """The figures of this package's modules, in the order of the modules' names."""
    names = sorted(m.name for m in pkgutil.iter_modules(paper_figs.__path__) if re.match(r"f\d\d_", m.name))
    entries = [importlib.import_module(f"paper_figs.{name}").ENTRY for name in names]
    return {entry.name: entry for entry in entries}


FIGURES = find_figures()
