"""C8: at the edge about half of the examples go up in loss at a typical step.

Of every step the smaller side counts, those that rise or those that fall: the mean share of a table in which all rise
in one step and all fall in the next would be a half as well, and nothing in it is opposed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from validate.claims.base import Bound, Claim, each_seed
from validate.opposing_groups import loss_changes


def smaller_side(losses: npt.ArrayLike) -> float:
    """Median over steps of the smaller of the shares of examples, of (steps, n) losses, that rise and that fall.

    >>> smaller_side([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    0.5
    >>> smaller_side([[0.0, 1.0], [1.0, 2.0], [0.0, 1.0]])
    0.0
    """
    changes = loss_changes(losses)
    return float(np.median(np.minimum((changes > 0).mean(1), (changes < 0).mean(1))))


CLAIMS = (
    Claim(
        name="C8",
        statement="About half of the examples go up in loss at a step at the edge.",
        statistic="smaller of the shares of examples that rise and fall in a step, median of 150 from the crossing",
        bound=Bound(low=0.4),
        control="before the crossing",
        measure=each_seed(lambda e, w: smaller_side(e.run["loss"].values[w.edge])),
        measure_control=each_seed(lambda e, w: smaller_side(e.run["loss"].values[w.before])),
        figure="F1",
        needs=("base",),
    ),
)
