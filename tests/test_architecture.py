"""Imports go theory ← sim ← validate ← paper_figs, and theory knows no torch."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("theory", "sim", "validate", "paper_figs")


def imported_packages(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_left_only(package: str) -> None:
    forbidden = set(ORDER[ORDER.index(package) + 1 :])
    if package == "theory":
        forbidden |= {"torch", "xarray", "zarr", "PIL"}
    if package in ("theory", "sim", "validate"):
        forbidden |= {"matplotlib"}
    files = list((ROOT / package).rglob("*.py"))
    assert files
    found = {str(f.relative_to(ROOT)): imported_packages(f) & forbidden for f in files}
    if package == "theory":
        # predict --plot draws on request; matplotlib is imported there and nowhere else.
        found.pop("theory/plotting.py", None)
    assert {f: names for f, names in found.items() if names} == {}


def test_nothing_loads_pickles_or_trusts_files() -> None:
    words = ("import pickle", "weights_only=False", "allow_pickle=True")
    for package in ORDER:
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            assert not [w for w in words if w in text], file
            assert text.count("torch.load(") == text.count("weights_only=True"), file


def test_an_installed_copy_lacks_no_package_and_no_file() -> None:
    """What pyproject lists by hand is what lies in the folders; an editable install would not tell."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {f.parent.relative_to(ROOT) for package in ORDER for f in (ROOT / package).rglob("__init__.py")}
    assert set(listed["packages"]) == {".".join(folder.parts) for folder in folders}
    for package in ORDER:
        files = {f for f in (ROOT / package).rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")}
        taken = {f for pattern in listed["package-data"][package] for f in (ROOT / package).glob(pattern)}
        assert files == taken
