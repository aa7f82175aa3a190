"""The gallery: one self-contained page with every figure small, its caption, its claims' verdicts and its files."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from paper_figs.entry import FigureEntry
from paper_figs.small_pictures import small_picture
from sim.durable_files import write_durably

PAGE = Path(__file__).parent / "gallery_page.html"
WIDTH = 900
"""Pixels of a small picture: sharp at the width of a column, also on a dense screen."""


def write_gallery(
    folder: Path, entries: Sequence[FigureEntry], report: Path, left_out: Mapping[str, str] | None = None
) -> None:
    """Writes index.html beside the figures; those that are not there are listed with what they lack.

    Args:
        folder: folder of the drawn figures.
        entries: all figures, in order.
        report: the main job's report.json; without it the page shows no verdicts.
        left_out: by number, why a figure was not drawn.
    """
    verdicts = read_verdicts(report)
    left_out = left_out or {}
    # The picture of an earlier run is no picture of this one.
    drawn = [e for e in entries if e.name not in left_out and (folder / f"{e.name}.png").is_file()]
    missing = [entry for entry in entries if entry not in drawn]
    page = Template(PAGE.read_text()).substitute(
        count=f"{len(drawn)} of {len(entries)}",
        contents="".join(f'<a href="#{_text(e.name)}">{_text(e.name)}</a> ' for e in drawn),
        cards="".join(_card(folder, entry, verdicts) for entry in drawn),
        missing="".join(_missing(entry, left_out.get(entry.name, "not drawn yet")) for entry in missing),
        verdicts="" if verdicts else " No report was found, so no verdicts are shown.",
    )
    write_durably(folder / "index.html", page.encode())


def read_verdicts(report: Path) -> list[dict[str, Any]]:
    """The judged claims of a report.json; none where there is no readable one."""
    try:
        claims = json.loads(report.read_text())["claims"]
        return [claim for claim in claims if isinstance(claim["claim"], str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def verdicts_of(entry: FigureEntry, verdicts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(claim, holds / fails / not judged, statement) of the claims behind a figure; C4 stands for C4a and C4b too.

    Where claims were judged on several kinds of network, the kind stands after the claim.
    """
    several = len({verdict["network"] for verdict in verdicts if verdict.get("network")}) > 1
    named = {name.strip() for name in entry.claims.split(",")}
    found = []
    for verdict in verdicts:
        match = re.match(r"[A-Z]+\d+", verdict["claim"])
        if match and {match.group(), verdict["claim"]} & named:
            judged = verdict.get("judged", True)
            state = "holds" if verdict.get("holds") else "fails" if judged else "not judged"
            of_kind = f" {verdict['network']}" if several and verdict.get("network") else ""
            found.append((f"{verdict['claim']}{of_kind}", state, str(verdict.get("statement", ""))))
    return found


def _card(folder: Path, entry: FigureEntry, verdicts: Sequence[Mapping[str, Any]]) -> str:
    name, caption = _text(entry.name), _caption(folder, entry)
    picture = base64.b64encode(small_picture(folder / f"{entry.name}.png", WIDTH)).decode()
    badges = "".join(
        f'<li class="{_text(state.replace(" ", "-"))}" title="{_text(statement)}">{_text(claim)} {_text(state)}</li>'
        for claim, state, statement in verdicts_of(entry, verdicts)
    )
    files = " · ".join(
        f'<a href="{name}.{suffix}" download>{suffix.upper()}</a>'
        for suffix in ("pdf", "png")
        if (folder / f"{entry.name}.{suffix}").is_file()
    )
    return (
        f'<figure id="{name}"><a href="{name}.png"><img alt="{name}: {_text(entry.shows)}" '
        f'src="data:image/png;base64,{picture}"></a><figcaption><h2>{name}. {_text(_sentence(entry.shows))}</h2>'
        f"<p>{caption}</p><p class=files>{files}; behind it: {_text(entry.claims)}</p>"
        f"<ul>{badges}</ul></figcaption></figure>\n"
    )


def _missing(entry: FigureEntry, why: str) -> str:
    return f"<li><b>{_text(entry.name)}</b> {_text(_sentence(entry.shows))}: {_text(why)}</li>\n"


def _caption(folder: Path, entry: FigureEntry) -> str:
    path = folder / f"{entry.name}.txt"
    return _text(path.read_text().strip()) if path.is_file() else ""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _text(value: str) -> str:
    return html.escape(value, quote=True)
