"""The statements T1, T2, …: one module each, `tNN_<title>.py`, holding one `STATEMENT`."""

from __future__ import annotations

import importlib
import pkgutil

from theory.statements.base import Check, Statement, Status, Step


def all_statements() -> dict[str, Statement]:
    """Every statement by name, in order of its number. A new statement is a new file in this folder.

    >>> all_statements()["T7"].title
    'growth of the opposing weight'
    """
    found = [
        importlib.import_module(f"{__name__}.{module.name}").STATEMENT
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base"
    ]
    return {s.name: s for s in sorted(found, key=lambda s: int(s.name[1:]))}


__all__ = ["Check", "Statement", "Status", "Step", "all_statements"]
