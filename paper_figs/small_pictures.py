"""Small copies of drawn figures, for pages that show many."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

COLOURS = 256
"""Colours of a small copy: lines and text need few, and the files are a third of the size."""


def small_picture(path: Path, width: int) -> bytes:
    """A PNG of that width, or of its own where that is less, without metadata; the same bytes for the same picture."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        if small.width > width:
            small = small.resize((width, round(small.height * width / small.width)), Image.Resampling.LANCZOS)
        # Median cut would give a small patch of a colour of its own, such as a probe's, the colour of its surroundings.
        few = small.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    written = io.BytesIO()
    few.save(written, format="PNG", optimize=True)
    return written.getvalue()
