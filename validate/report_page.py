"""The report's page: one HTML file that stands alone, readable at phone and desk width, every label escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from sim.runs import Run
from theory.predictions import table as prediction_table
from validate.cifar10 import CLASSES, Images
from validate.claims import Verdict
from validate.claims.pairs import leading_pair
from validate.group_cards import CONTRASTS, FEATURES, group_card
from validate.report_content import NetworkPart, Report
from validate.report_words import interval_words, short_words, verdict_words

TEMPLATE = Path(__file__).parent / "report_page.html"
SHOWN_FINDINGS = 5


def page(report: Report, groups: Sequence[dict[str, Any]], stable: Sequence[dict[str, Any]]) -> str:
    """The page.

    Args:
        report: what it tells.
        groups: the pairs found, as report.json has them.
        stable: how far they are the same from window to window and seed to seed, as report.json has it.
    """
    predictions = "" if report.predictions is None else _predictions(prediction_table(report.predictions))
    drawn = "".join(_figure(name, path) for name, path in report.figures)
    return Template(TEMPLATE.read_text()).substitute(
        outcome="bad" if report.status else "good",
        headline=text(report.headline[:1].upper() + report.headline[1:]),
        preset=text(report.preset),
        networks=text("; ".join(_network_words(part) for part in report.parts)),
        overview=_overview(report),
        claims="".join(_claim_table(report, kind) for kind in dict.fromkeys(v.kind for v in report.verdicts)),
        figures=f"<h2>Figures</h2>\n{drawn}" if drawn else "",
        cards="".join(_card(part) for part in report.parts),
        scores=_scores(groups),
        stability=_stability(stable),
        groups="".join(_group_row(g) for g in groups),
        predictions=predictions,
        runs="".join(_run_row(r) for r in report.runs),
    )


def text(value: str) -> str:
    """Escaped for HTML, inside elements and attributes."""
    return html.escape(value, quote=True)


def _network_words(part: NetworkPart) -> str:
    seeds = ", ".join(str(e.seed) for e in part.evidence.networks)
    sizes = dict.fromkeys(
        f"{e.run.attrs['lr']:g}" for e in part.evidence.networks if "base" in e.runs and "lr" in e.run.attrs
    )
    step = f", η = {', '.join(sizes)}" if sizes else ""
    return f"{part.evidence.kind}: seeds {seeds}, {len(part.chosen.labels)} images{step}"


def _overview(report: Report) -> str:
    """Claims × networks, where there are several."""
    kinds = [part.evidence.kind for part in report.parts]
    if len(kinds) < 2:
        return ""
    of = {(v.claim.name, v.kind): v for v in report.verdicts if v.kind}
    head = "".join(f"<th>{text(kind)}" for kind in kinds)
    rows = ""
    for name in dict.fromkeys(name for name, _ in of):
        cells = "".join(f"<td>{_mark(of.get((name, kind)))}" for kind in kinds)
        rows += f"<tr><th>{text(name)}{cells}</tr>\n"
    return f'<table class="grid"><thead><tr><th>Claim{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n'


def _mark(verdict: Verdict | None) -> str:
    words = "not judged" if verdict is None else short_words(verdict)
    mark = {"not judged": "soft", "holds": "holds"}.get(words, "fails")
    return f'<span class="{mark}">{words}</span>'


def _claim_table(report: Report, kind: str) -> str:
    rows = "".join(_claim_row(v, report) for v in report.verdicts if v.kind == kind)
    heading = f"On {text(kind)}" if kind else "On the two-layer linear network"
    head = "<tr><th>Claim<th>Statistic<th>Threshold<th>Control<th>Verdict<th>Figure</tr>"
    return f"<h3>{heading}</h3>\n<table><thead>{head}</thead>\n<tbody>\n{rows}</tbody></table>\n"


def _claim_row(verdict: Verdict, report: Report) -> str:
    claim = verdict.claim
    mark = "soft" if not verdict.judged else "holds" if verdict.holds else "fails"
    figure = text(claim.figure)
    if claim.figure in [name for name, _ in report.figures]:
        figure = f'<a href="#{figure}">{figure}</a>'
    measured = [
        f"<b>{text(interval_words(interval))}</b> " if verdict.judged else ""
        for interval in (verdict.interval, verdict.control_interval)
    ]
    return _row(
        ("Claim", f"<b>{text(claim.name)}</b> {text(claim.statement)}"),
        ("Statistic", measured[0] + text(claim.statistic)),
        ("Threshold", text(str(claim.bound))),
        ("Control", measured[1] + text(claim.control) + _less_control(verdict)),
        ("Verdict", f'<span class="{mark}">{text(verdict_words(verdict))}</span>'),
        ("Figure", figure),
    )


def _less_control(verdict: Verdict) -> str:
    words = interval_words(verdict.less_control)
    return "" if words == "undefined" else f'<br><span class="soft">statistic less control: {text(words)}</span>'


def _card(part: NetworkPart) -> str:
    """The leading pair of the first seed that crosses: its images, labels, means, and what sets the halves apart."""
    found = next((e for e in part.evidence.networks if e.windows is not None and "base" in e.runs), None)
    kind = text(part.evidence.kind)
    if found is None or found.windows is None:
        return f"<p>{kind}: no run crosses 2/η with room for the windows, so there are no groups.</p>\n"
    pair, images = leading_pair(found, found.windows), part.chosen
    card = group_card(images, pair, np.random.default_rng(found.seed))
    sides = ""
    for name, members, counts, mean in zip(
        ("One group", "The other"),
        (pair.positive, pair.negative),
        card.label_counts,
        card.mean_images,
        strict=True,
    ):
        labels = ", ".join(f"{counts[i]} {CLASSES[i]}" for i in np.argsort(-counts, kind="stable") if counts[i])
        sides += (
            f"<div><h4>{name}</h4><p>{text(labels)}</p>"
            f'<img class="sheet" alt="{text(f"images of the group: {labels}")}" src="{_sheet(images, members)}">'
            f'<p class="soft">Mean image <img class="mean" alt="mean image" src="{_png(mean.transpose(1, 2, 0))}"></p>'
            "</div>\n"
        )
    apart = card.findings(contrasts=CONTRASTS[:1])[:SHOWN_FINDINGS]  # the two groups against each other
    words = "; ".join(f"{feature} {effect:+.2f} (p = {p:.2g})" for _, feature, effect, p in apart)
    return (
        f'<section class="card"><h3>{kind}, seed {found.seed}</h3>\n<div class="sides">\n{sides}</div>\n'
        f"<p>Sets the two apart, in standard deviations over all images, against random groups "
        f"({text(card.correction)} over {len(FEATURES)} tests): {text(words or 'nothing at 5 %')}.</p></section>\n"
    )


def _sheet(images: Images, members: Any, columns: int = 10) -> str:
    """The images side by side, as the address of a PNG."""
    pixels = images.pixels[members].transpose(0, 2, 3, 1)
    rows = -(-len(pixels) // columns)
    sheet = np.full((rows * 32, columns * 32, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        row, column = divmod(i, columns)
        sheet[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = picture
    return _png(sheet / 255.0)


def _png(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _scores(groups: Sequence[dict[str, Any]]) -> str:
    """The opposing-signal score of every run that has one, with its interval over examples."""
    words = "; ".join(
        f"{group['network']}, seed {group['seed']}: {score['score']:.2f} "
        f"({score['interval_90'][0]:.2f} to {score['interval_90'][1]:.2f})"
        for group in groups
        if (score := group["opposing_score"]) is not None
    )
    return text(words or "no run has one")


def _stability(stable: Sequence[dict[str, Any]]) -> str:
    """Overlaps of the leading pairs in words, a sentence a network."""
    words = []
    for found in stable:
        seeds = "" if found["seeds"] is None else f", {found['seeds']:.2f} with a pair of another seed"
        windows = ", ".join(f"{share:.2f}" for share in found["windows"].values())
        words.append(
            f"{found['network']}: {windows} with a pair of the next window{seeds} (random groups {found['chance']:.2f})"
        )
    return text("; ".join(words) or "no run crosses")


def _group_row(group: dict[str, Any]) -> str:
    rows = [(f"singular vector {i + 1}", p) for i, p in enumerate(group["singular_pairs"])]
    rows.append((f"top-20 rule, step {group['top_20_rule']['step']}", group["top_20_rule"]))
    return "".join(
        _row(
            ("Seed", text(f"{group['network']}, {group['seed']}")),
            ("Rule", text(rule)),
            ("One group", text(_counts(pair["positive_classes"]))),
            ("The other", text(_counts(pair["negative_classes"]))),
            ("Energy", "—" if pair["energy_share"] is None else f"{pair['energy_share']:.0%}"),
        )
        for rule, pair in rows
    )


def _counts(classes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.items())


def _run_row(run: Run) -> str:
    environment = run.environment
    return _row(
        ("Run", text(run.name)),
        ("Device", text(environment["device"])),
        ("Seconds", f"{environment['seconds']:.0f}"),
        ("Command", text(environment["command"])),
        ("Commit", text(environment["commit"] or "none")),
    )


def _row(*cells: tuple[str, str]) -> str:
    return "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in cells) + "</tr>\n"


def _predictions(table: str) -> str:
    return (
        "<h2>Predictions of the theory</h2>\n<p>Two-layer linear network f = c (bᵀx + s·uᵀx_o), default model, before "
        f"any run.</p>\n<pre>{text(table)}</pre>\n"
    )


def _figure(name: str, path: Path) -> str:
    picture = base64.b64encode(path.read_bytes()).decode()
    caption, name = text(path.with_suffix(".txt").read_text().strip()), text(name)
    return (
        f'<figure id="{name}"><img alt="{caption}" src="data:image/png;base64,{picture}">'
        f"<figcaption><b>{name}.</b> {caption}</figcaption></figure>\n"
    )
