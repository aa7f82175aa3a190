"""Figures: ``python -m paper_figs all`` makes the runs that are missing and draws; ``paper_figs F7`` draws one."""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds: an interrupt ends them without a traceback, until `main` begins
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from paper_figs.entry import FigureEntry
from paper_figs.files import remove_figure, write_figure
from paper_figs.gallery import write_gallery
from paper_figs.guide import write_guide
from paper_figs.making import in_minutes, make_missing
from paper_figs.reading import Read, read_needs
from paper_figs.registry import FIGURES
from paper_figs.sources import Sources
from sim.device import choose_device
from sim.runs import require_writable
from theory.command_line import InputError, main


@dataclass(frozen=True)
class DrawConfig:
    """Draw figures from finished runs, as PDF and PNG with a caption beside them; never trains."""

    figures: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(FIGURES)
    """Numbers of the figures; all when none is named."""
    out: Path = Path("figures")
    """Folder to write."""
    runs: Path = Path("runs")
    """Folder of the run store."""
    preset: str = "quick"
    """quick, standard or paper: whose runs to draw from."""
    network: str | None = None
    """Name of the network's run, for figures that draw from one; the preset's first seed when not given."""
    two_layer: str | None = None
    """Name of the two-layer network's run; the preset's when not given."""
    data: Path | None = None
    """Folder of the full CIFAR-10, which preset paper needs; the embedded images when not given."""


@dataclass(frozen=True)
class AllConfig:
    """Make the runs that the figures lack, resumably, then draw all figures and the gallery page."""

    preset: str = "quick"
    """quick (minutes on two cores), standard (about two hours) or paper (a GPU)."""
    only_draw: bool = False
    """Make no run: draw what the finished ones allow."""
    out: Path = Path("figures")
    """Folder to write; earlier files of a figure that cannot be drawn are removed from it."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, not made again."""
    report: Path = Path("report")
    """Folder of the main job's report, whose verdicts the gallery page shows if it is there."""
    data: Path | None = None
    """Folder of the full CIFAR-10, which preset paper needs; the embedded images when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True)
class MakeConfig(AllConfig):
    """Make the runs that some figures lack, resumably, then draw them and the gallery page."""

    figures: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(FIGURES)
    """Numbers of the figures; all when none is named."""


@dataclass(frozen=True)
class ListConfig:
    """List every figure: what it shows, the claims behind it, its runs, and whether they are there."""

    preset: str = "quick"
    """quick, standard or paper."""
    runs: Path = Path("runs")
    """Folder of the run store."""


@dataclass(frozen=True)
class GuideConfig:
    """Write figures.md, a page of small pictures for the documentation, from drawn figures."""

    figures: Path = Path("figures")
    """Folder of the drawn figures."""
    docs: Path = Path("docs")
    """Folder to write figures.md and pictures/ in."""


def draw_command(config: DrawConfig) -> int:
    """Draws the figures asked for."""
    entries = _entries(config.figures)
    named = {"network": config.network, "two_layer": config.two_layer}
    sources = Sources(config.runs, config.preset, config.data)
    read = read_needs(sources, entries, {need: name for need, name in named.items() if name})
    require_writable(config.out)
    for entry in entries:
        _draw(config.out, entry, read)
    return 0


def all_command(config: AllConfig) -> int:
    """Makes what is missing and draws everything; 1 when a figure could not be drawn."""
    return _make_and_draw(config, tuple(FIGURES))


def make_command(config: MakeConfig) -> int:
    """The same for some figures."""
    return _make_and_draw(config, config.figures)


def _make_and_draw(config: AllConfig, names: Sequence[str]) -> int:
    entries, sources = _entries(names), Sources(config.runs, config.preset, config.data)
    require_writable(config.out)
    if not config.only_draw:
        possible = [entry for entry in entries if not sources.unmade(entry)]
        make_missing(sources, possible, choose_device(config.device))
        sources = Sources(config.runs, config.preset, config.data)  # names that are derived from runs are known now
    left_out: dict[str, str] = {}
    for entry in entries:
        try:
            _draw(config.out, entry, read_needs(sources, [entry]))
        except InputError as error:
            left_out[entry.name] = str(error)
            remove_figure(config.out, entry)  # a drawing of earlier runs would pass for one of these
            print(f"{entry.name} not drawn: {error}")
    write_gallery(config.out, list(FIGURES.values()), config.report / "report.json", left_out)
    print(f"{config.out / 'index.html'}: {len(entries) - len(left_out)} of {len(entries)} figures drawn")
    return 1 if left_out else 0


def list_command(config: ListConfig) -> int:
    """Lists the figures."""
    sources = Sources(config.runs, config.preset)
    for entry in FIGURES.values():
        print(f"{entry.name:4} {entry.shows}\n     behind it: {entry.claims}; draws from {_needs(entry)}")
        print(f"     {_state(entry, sources)}")
    return 0


def guide_command(config: GuideConfig) -> int:
    """Writes the documentation's page."""
    write_guide(config.figures, config.docs, list(FIGURES.values()))
    print(f"{config.docs / 'figures.md'} written")
    return 0


def _entries(names: Sequence[str]) -> list[FigureEntry]:
    for name in names:
        if name not in FIGURES:
            raise InputError(f"there is no figure {name}: give one of {', '.join(FIGURES)}")
    return [FIGURES[name] for name in names]


def _draw(folder: Path, entry: FigureEntry, read: Read) -> None:
    try:
        figure, caption = entry.draw(read.runs), entry.caption(read.runs)
    except ValueError as error:
        raise InputError(f"{entry.name} cannot be drawn: {error}") from None
    write_figure(folder, entry, figure, caption, read.behind_figure(entry))
    print(f"{folder / entry.name}.pdf, .png, .txt: {entry.shows}")


def _needs(entry: FigureEntry) -> str:
    if not (entry.needs or entry.optional):
        return "nothing but theory"
    wished = f" (and where they are there: {', '.join(entry.optional)})" if entry.optional else ""
    return (", ".join(entry.needs) or "nothing but theory") + wished


def _state(entry: FigureEntry, sources: Sources) -> str:
    if unmade := sources.unmade(entry):
        return f"no command makes, at preset {sources.preset}: {', '.join(unmade)}"
    missing = sources.missing(entry)
    if not missing:
        return "all runs are there"
    total = in_minutes(sum(run.seconds for run in missing))
    return f"missing, about {total} on two cores: {', '.join(run.name for run in missing)}"


if __name__ == "__main__":
    main(
        {"draw": draw_command, "all": all_command, "make": make_command, "list": list_command, "guide": guide_command},
        prog="python -m paper_figs",
        description="Name figures to draw them from finished runs; all or make makes the runs that are missing first.",
        default="draw",
    )
