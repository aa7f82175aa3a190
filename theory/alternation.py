"""What alternates from step to step in a series: at the edge of stability an iterate flips its side of the valley."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.symbolic import Array


def alternating_part(series: npt.ArrayLike) -> Array:
    """(steps − 2, …) each series less its running mean with weights ¼, ½, ¼: keeps period two, takes out drifts.

    Args:
        series: (steps, …) values at consecutive steps.

    >>> alternating_part([1.0, -1.0, 1.0, -1.0])
    array([-1.,  1.])
    >>> abs(alternating_part([1.0, 2.0, 3.0]))
    array([0.])
    """
    # x_t − (x_{t−1} + 2x_t + x_{t+1})/4 = −(x_{t−1} − 2x_t + x_{t+1})/4
    return np.asarray(-np.diff(np.asarray(series, dtype=np.float64), 2, axis=0) / 4)
