"""The report's page as Chromium lays it out: nothing wider than a phone or a desk, nothing asked of a network.

Skipped where there is no Chromium (Debian: package chromium).
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from claim_evidence import two_images_swing
from PIL import Image

from sim.runs import Run
from validate.cifar10 import load_embedded
from validate.claims import CLAIMS, judge
from validate.claims.base import Evidence, NetworkEvidence
from validate.network_run import NetworkConfig
from validate.report import write_report
from validate.report_content import NetworkPart, Report
from validate.windows import find_windows

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    f"--{flag}"
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync", "disable-quic"),
        *("disable-background-networking", "disable-component-update", "virtual-time-budget=10000"),
        "window-size=1600,1200",
    )
]
HOSTILE = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
PHONE, DESK = 360, 1280
MEASURE = """
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, wide = [];
  for (const e of page.body.querySelectorAll("*"))
    if (!e.closest("pre") && e.getBoundingClientRect().right > page.documentElement.clientWidth + 1)
      wide.push(e.tagName + " " + e.textContent.slice(0, 40));
  const blank = [...page.images].filter(i => !i.naturalWidth).length;
  const small = [...page.body.querySelectorAll("p, td, th, figcaption, pre")]
    .filter(e => e.offsetHeight && parseFloat(getComputedStyle(e).fontSize) < 12).length;
  const asked = [...page.querySelectorAll("[src], [href], [data], [action]")].map(e => e.outerHTML)
    .filter(tag => !/^<img [^>]*src="data:image/.test(tag));
  document.body.innerHTML = "<pre id=told></pre>";
  document.querySelector("#told").textContent = JSON.stringify({
    wide, blank, small, asked, pictures: page.images.length, scripts: page.scripts.length, title: page.title,
  });
});
</script>
"""
"""A frame has the width of a phone, which Chromium's own window cannot have; its page is laid out as in a window."""


def laid_out(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What Chromium makes of a page at a width in CSS pixels."""
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{html.escape(page, quote=True)}">'
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><body>{frame}</iframe>{MEASURE}")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)
    assert told is not None, done.stdout[-500:] + done.stderr[-500:]
    return dict(json.loads(html.unescape(told[1])))


def half(evidence: Evidence) -> list[float]:
    return [0.5]


@pytest.fixture
def page(tmp_path: Path) -> str:
    """Claims with hostile words and long ones on two networks, figures, cards, groups and runs."""
    data = two_images_swing()
    parts = [
        NetworkPart(
            Evidence([NetworkEvidence(3, {"base": data}, find_windows(data))], kind=kind),
            NetworkConfig(),
            load_embedded(),
        )
        for kind in ("mlp", HOSTILE)
    ]
    changed: dict[str, Any] = {"needs": ("base",), "measure": half, "measure_control": half, "networks": None}
    verdicts = [
        judge(dataclasses.replace(claim, **changed), part.evidence)
        for part in parts
        for claim in CLAIMS
        if claim.name[0] == "C"
    ]
    picture = tmp_path / "F1.png"
    Image.new("RGB", (1800, 600), "teal").save(picture)
    picture.with_suffix(".txt").write_text(HOSTILE)
    name = "resnet18-lr0.0018-seed10-width0.25-images50-steps330-measure20-blocks0-momentum0.9-without_opposing"
    environment = {"device": "CPU, two threads", "seconds": 61.5, "command": name, "commit": "0123456789abcdef" * 6}
    runs = [Run(name, {}, environment, xr.Dataset()), Run(HOSTILE, {}, environment, xr.Dataset())]
    write_report(tmp_path, Report("tiny", parts, verdicts, runs, figures=[(HOSTILE, picture)]))
    return (tmp_path / "report.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_fits_phone_and_desk_runs_nothing_and_asks_for_nothing(page: str, tmp_path: Path) -> None:
    for width in (PHONE, DESK):
        told = laid_out(page, width, tmp_path)
        assert told["wide"] == []
        assert told["blank"] == 0
        assert told["small"] == 0
        assert told["asked"] == []
        assert told["pictures"] > 1
        assert told["scripts"] == 0
        assert told["title"] == "Opposing signals: report"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_what_would_not_fit_or_would_run_is_seen(tmp_path: Path) -> None:
    spoiled = f"<!doctype html><title>page</title><p style='width: 500px; font-size: 9px'>wide</p>{HOSTILE}"
    told = laid_out(spoiled, PHONE, tmp_path)
    assert told["wide"] == ["P wide"]
    assert told["small"] == 1
    assert told["blank"] == 1
    assert told["title"] == "ran"
    assert told["scripts"] == 1
    assert told["asked"] != []
    assert laid_out(spoiled, DESK, tmp_path)["wide"] == []
