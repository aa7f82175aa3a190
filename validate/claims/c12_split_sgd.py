"""C12: SplitSGD behaves like Adam: no bounce at equal loss, and a loss curve nearer to Adam's than descent's is.

The bounce is held against Adam's own threshold (C11a), the curve against half of gradient descent's distance.

Pilot (seeds 100–102, MLP; sign steps of 10⁻⁴ above 3·10⁻⁴): neither holds. Amplitude −1.0, −0.4, −0.6: coordinates that
take sign steps bounce by the size of those. Nearness 0.59, 0.57, 0.58 (dampened momentum alone 1.08, 1.08, 1.07). Other
settings were slower than gradient descent (sign steps of 3·10⁻⁵; sign steps above 10⁻³). The thresholds were left as
they are.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.c11_adam import amplitude_ratio
from validate.equal_loss import first_at_or_below, mean_losses
from validate.windows import Windows


def curve_distance(first: xr.Dataset, second: xr.Dataset, steps: int) -> float:
    """Mean |ln L − ln L′| of two runs' mean losses over the first steps."""
    one, other = mean_losses(first)[:steps], mean_losses(second)[:steps]
    return float(np.abs(np.log(one) - np.log(other)).mean())


def nearness_to_adam(evidence: NetworkEvidence, windows: Windows, role: str) -> float:
    """Distance of a run's loss curve from Adam's over gradient descent's distance: 0 for Adam, 1 for descent.

    Over the steps that Adam takes to the loss that descent has at the end of its edge. NaN where a run is shorter.
    """
    run, adam = evidence.runs[role], evidence.runs["adam"]
    final = float(np.median(mean_losses(evidence.run)[windows.evaluate]))
    steps = first_at_or_below(mean_losses(adam), final)
    if steps is None or steps >= min(run.sizes["step"], evidence.run.sizes["step"]):
        return float("nan")
    return curve_distance(run, adam, steps + 1) / curve_distance(evidence.run, adam, steps + 1)


CLAIMS = (
    Claim(
        name="C12a",
        statement="SplitSGD behaves like Adam: at equal loss its groups hardly trade places.",
        statistic="log₁₀ of the amplitude of the bounce of its leading pair over gradient descent's, at equal loss",
        bound=Bound(high=-2.0),
        control="momentum with the threshold of gradient descent",
        measure=each_seed(lambda e, w: amplitude_ratio(e, w, "split_sgd")),
        measure_control=each_seed(lambda e, w: amplitude_ratio(e, w, "momentum")),
        figure="F11",
        needs=("base", "split_sgd", "momentum"),
    ),
    Claim(
        name="C12b",
        statement="SplitSGD behaves like Adam: its loss curve is nearer to Adam's than gradient descent's is.",
        statistic="mean |Δ ln L| from Adam over gradient descent's, until Adam has the loss of descent's edge",
        bound=Bound(high=0.5),
        control="dampened momentum alone, as SplitSGD takes on small gradients",
        measure=each_seed(lambda e, w: nearness_to_adam(e, w, "split_sgd")),
        measure_control=each_seed(lambda e, w: nearness_to_adam(e, w, "momentum_dampened")),
        figure="F11",
        needs=("base", "adam", "split_sgd", "momentum_dampened"),
    ),
)
