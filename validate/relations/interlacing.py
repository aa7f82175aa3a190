"""No layer's diagonal block is sharper than the whole Hessian (Cauchy 1829).

The block's largest eigenvalue is the largest Rayleigh quotient over vectors that vanish outside the layer, so it is at
most the whole's. A block's Ritz value is such a quotient itself and lies below λ whether it has converged or not; the
whole's lies at most its residual below.
"""

from __future__ import annotations

from torch import Tensor

from sim.curvature import top_block_eigenpairs, top_eigenpairs
from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import SmallNetwork, branch, small_network

STEPS = 8
TOLERANCE = 1e-4

_POSITIVE = "the sharpness is positive"
_CONVERGED = "the whole's eigenvalue converged, verified from random vectors"
_BLOCK = "largest block sharpness over the whole's, its residual added"


def _measure(config: Configuration, *, of_sum: bool = False) -> Measurement:
    network = small_network(config)
    points = {
        "at the start": network.start,
        f"{STEPS} steps of η past the sharpest point": branch(config, STEPS, every=STEPS).points[-1],
    }
    found = {place: _largest(network, point, of_sum) for place, point in points.items()}
    ratios = {place: ratio for place, (ratio, _, _) in found.items()}
    return Measurement(
        {_BLOCK: max(ratios.values())},
        {
            _POSITIVE: all(sharpness > 0 for _, sharpness, _ in found.values()),
            _CONVERGED: all(converged for _, _, converged in found.values()),
        },
        ratios,
    )


def _largest(network: SmallNetwork, point: Tensor, of_sum: bool) -> tuple[float, float, bool]:
    """Ratio of the largest block (or of all together) to the whole, the whole, and whether it converged."""
    hessian = network.hessian(point)
    whole = top_eigenpairs(hessian, generator=network.generator(), tolerance=TOLERANCE)
    blocks = top_block_eigenpairs(hessian, network.layers, generator=network.generator(), tolerance=1e-2)
    values = [float(pairs.values[0]) for pairs in blocks.values()]
    sharpness = float(whole.values[0])
    bound = sharpness * (1 + float(whole.residuals[0])) if sharpness else 1.0
    return (sum(values) if of_sum else max(values)) / bound, sharpness, whole.converged and whole.verified


INTERLACING = Relation(
    name="interlacing",
    statement="The sharpness of every layer's diagonal block is at most that of the whole Hessian.",
    domain=Domain(multiples=(0.05, 1.3)),
    hypotheses=(_POSITIVE, _CONVERGED),
    bounds={_BLOCK: Bound(high=1.0)},
    control="the sum of the blocks' sharpnesses in place of the largest",
    measure=_measure,
    measure_control=lambda config: _measure(config, of_sum=True),
)
