"""C9: sharpness moves from the last layer to the first between early training and the edge."""

from __future__ import annotations

import numpy as np
import xarray as xr

from validate.claims.base import Bound, Claim, each_seed
from validate.windows import Windows, measured_in


def _shift(run: xr.Dataset, windows: Windows, layer: int) -> float:
    """Median share of the top eigenvector in a layer once the oscillation stands, less that of the `early` steps."""
    late = measured_in(run, "layer_share_iterate", windows.evaluate)[:, layer]
    early = measured_in(run, "layer_share_iterate", windows.early)[:, layer]
    return float(np.median(late) - np.median(early))


CLAIMS = (
    Claim(
        name="C9a",
        statement="Layerwise shift: the first layer's share of the top eigenvector rises.",
        statistic="median first-layer share, steps 75 to 150 after the crossing, less the first 100 or half-way",
        bound=Bound(low=0.04),
        control="step size ÷ 10, same steps",
        measure=each_seed(lambda e, w: _shift(e.run, w, 0)),
        measure_control=each_seed(lambda e, w: _shift(e.control, w, 0)),
        figure="F9",
    ),
    Claim(
        name="C9b",
        statement="Layerwise shift: the last layer's share of the top eigenvector falls.",
        statistic="median last-layer share, steps 75 to 150 after the crossing, less the first 100 or half-way",
        bound=Bound(high=-0.04),
        control="step size ÷ 10, same steps",
        measure=each_seed(lambda e, w: _shift(e.run, w, -1)),
        measure_control=each_seed(lambda e, w: _shift(e.control, w, -1)),
        figure="F9",
    ),
)
