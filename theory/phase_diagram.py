"""What becomes of descent over arrays of parameters, in closed form: the boundaries of T6 and T8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import require_all
from theory.minima import smallest_minimum_sharpness_identity
from theory.symbolic import Array


@dataclass(frozen=True)
class PhaseDiagram:
    """Closed-form predictions, each field of the inputs' common shape.

    Attributes:
        flow_sharpness: sharpness at the flow's limit.
        flattest: smallest sharpness of any minimum.
        growth: |1 − ηαc²| at the flow's limit.
        converges: 2/η above the flow's limit: descent follows the flow.
        edge: 2/η between the two: descent oscillates and ends in a flatter minimum, or diverges.
        unstable: 2/η below the flattest minimum: descent never settles.
    """

    flow_sharpness: Array
    flattest: Array
    growth: Array
    converges: npt.NDArray[np.bool_]
    edge: npt.NDArray[np.bool_]
    unstable: npt.NDArray[np.bool_]


def phase_diagram(
    lr: npt.ArrayLike, alpha: npt.ArrayLike, beta: npt.ArrayLike, balancedness: npt.ArrayLike = 0.0
) -> PhaseDiagram:
    """Regimes of descent for Σ = I and one opposing pair, broadcast over the inputs.

    c² = (Q + √(Q² + 4‖β‖²))/2 at the flow's limit, whose sharpness is max(αc², c² + ‖β‖²/c²).

    Args:
        lr: step size η.
        alpha: second moment α of the opposing feature.
        beta: ‖β‖, above 0.
        balancedness: Q at the start; 0 for the balanced start c = 1, ‖(b, b_o)‖ = 1.

    Raises:
        InputError: an input is not finite or not positive (Q excepted).

    >>> d = phase_diagram(lr=[0.02, 0.04, 0.2], alpha=20.0, beta=3.0)
    >>> d.converges.tolist(), d.edge.tolist(), d.unstable.tolist()
    ([True, False, False], [False, True, False], [False, False, True])
    """
    eta, a, norm, q = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (lr, alpha, beta, balancedness)))
    for name, values in (("lr", eta), ("alpha", a), ("beta", norm)):
        require_all(name, values, values > 0, "finite numbers above 0")
    require_all("balancedness", q, np.isfinite(q), "finite numbers")
    larger = (np.abs(q) + np.hypot(q, 2 * norm)) / 2
    # The same root without cancellation where Q < 0.
    c_squared = np.where(q >= 0, larger, norm * (norm / larger))
    flow = np.maximum(a * c_squared, c_squared + norm * (norm / c_squared))
    flattest = smallest_minimum_sharpness_identity(a, norm)
    threshold = 2 / eta
    converges = threshold > flow
    return PhaseDiagram(
        flow_sharpness=flow,
        flattest=flattest,
        growth=np.abs(1 - eta * a * c_squared),
        converges=converges,
        edge=~converges & (threshold > flattest),
        unstable=~converges & (threshold <= flattest),
    )
