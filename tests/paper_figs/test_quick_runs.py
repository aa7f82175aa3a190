"""Every figure from the runs of the quick preset: ``pytest -m slow tests/paper_figs/test_quick_runs.py``.

It makes the runs in about eight minutes on two cores, or takes those of the store named with ``--runs``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from figure_checks import check_figure

from paper_figs.making import make_missing
from paper_figs.reading import read_needs
from paper_figs.registry import FIGURES
from paper_figs.sources import Sources


@pytest.mark.slow
def test_every_figure_draws_from_quick_runs_with_all_it_can_add(
    request: pytest.FixtureRequest, tmp_path: Path, device: torch.device
) -> None:
    """One test, so that the runs are made once, whatever the number of workers."""
    folder = Path(request.config.getoption("--runs") or tmp_path)
    make_missing(Sources(folder), FIGURES.values(), device)
    sources = Sources(folder)
    wrong: dict[str, str] = {}
    for name, entry in FIGURES.items():
        assert not sources.missing(entry)
        runs = read_needs(sources, [entry]).runs
        try:
            check_figure(entry.draw(runs))
            assert "nan" not in entry.caption(runs)
        except AssertionError as error:
            wrong[name] = str(error)
    assert not wrong
