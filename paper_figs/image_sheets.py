"""Sheets of CIFAR-10 images, each on a frame of its group's colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

SIDE, FRAME, GAP = 32, 3, 2


def image_sheet(
    axes: Axes, pixels: npt.NDArray[np.uint8], colours: Sequence[str], *, columns: int, title: str = ""
) -> None:
    """Draws images row by row.

    Args:
        axes: where; they lose their frame and ticks.
        pixels: (n, 3, 32, 32) the images.
        colours: the frame of each.
        columns: images in a row.
        title: words above the sheet.
    """
    rows = -(-len(pixels) // columns)
    cell = SIDE + 2 * FRAME + GAP
    sheet = np.full((rows * cell - GAP, columns * cell - GAP, 3), 255, dtype=np.uint8)
    for i, (image, colour) in enumerate(zip(pixels, colours, strict=True)):
        top, left = (i // columns) * cell, (i % columns) * cell
        sheet[top : top + cell - GAP, left : left + cell - GAP] = np.round(255 * np.array(to_rgb(colour)))
        top, left = top + FRAME, left + FRAME
        sheet[top : top + SIDE, left : left + SIDE] = image.transpose(1, 2, 0)
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
