"""What every figure must obey: axes named, legends without repeats, no text clipped, no two texts on each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0
"""Pixels by which boxes may overlap or leave the page: a box is a little larger than its ink."""


def check_figure(figure: Figure) -> None:
    """All checks below."""
    check_axes_are_named(figure)
    check_legends_repeat_nothing(figure)
    check_texts_are_inside_and_apart(figure)


def check_axes_are_named(figure: Figure) -> None:
    """Every axes that is shown has a label on both sides; a colour bar's scale needs one on its long side.

    An inner panel of shared axes, whose tick labels are hidden, needs none on that side.
    """
    drawn = [axes for axes in figure.axes if axes.axison]
    assert figure.axes
    for axes in drawn:
        if axes.get_label() == "<colorbar>":
            assert axes.get_xlabel() or axes.get_ylabel(), "a colour bar has no label"
            continue
        for axis in (axes.xaxis, axes.yaxis):
            numbered = [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
            assert axis.get_label_text() or not numbered, f"{axes.get_title('left')!r}: {axis.axis_name} has no label"


def check_legends_repeat_nothing(figure: Figure) -> None:
    """No label twice in a legend."""
    for legend in _legends(figure):
        labels = [text.get_text() for text in legend.get_texts()]
        assert len(set(labels)) == len(labels), labels


def check_texts_are_inside_and_apart(figure: Figure) -> None:
    """No text leaves the page, and no two visible texts cover each other, legends and tick labels among them."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    width, height = figure.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in visible_texts(figure)]
    for words, box in boxes:
        inside = min(box.x0, box.y0, width - box.x1, height - box.y1) >= -SLACK
        assert inside, f"{words!r} leaves the page: {box.extents.round()} of {width} × {height}"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not _overlap(first, second), f"{one!r} and {other!r} lie on each other"


def visible_texts(figure: Figure) -> Iterator[Text]:
    """Titles, labels, tick labels, annotations and legend entries that are drawn and not empty."""
    yield from (t for t in figure.texts if _shown(t))
    for legend in _legends(figure):
        yield from (t for t in [*legend.get_texts(), legend.get_title()] if _shown(t))
    for axes in figure.axes:
        yield from (t for t in _texts_of(axes) if _shown(t))


def _texts_of(axes: Axes) -> Iterator[Text]:
    yield from axes.texts
    yield from (axes.title, axes._left_title, axes._right_title)  # type: ignore[attr-defined]
    if axes.axison:
        for axis in (axes.xaxis, axes.yaxis):
            yield from (axis.label, axis.offsetText)
            scale = axis.get_transform()
            low, high = sorted(scale.transform(axis.get_view_interval()))
            margin = 1e-6 * (high - low)
            # Ticks outside the view are there but not drawn.
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if low - margin <= scale.transform([tick.get_loc()])[0] <= high + margin:
                    yield from (tick.label1, tick.label2)


def _legends(figure: Figure) -> list[Legend]:
    return [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]


def _shown(text: Text) -> bool:
    return bool(text.get_visible() and text.get_text().strip())


def _overlap(first: Bbox, second: Bbox) -> bool:
    across = min(first.x1, second.x1) - max(first.x0, second.x0)
    along = min(first.y1, second.y1) - max(first.y0, second.y0)
    return bool(across > SLACK and along > SLACK)
