"""The quantities that are predicted, with the thresholds that were fixed on pilot seeds, and the points of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One predicted quantity.

    Attributes:
        name: as `validate.prediction.oscillation.predict_oscillation` files its points.
        formula: the prediction.
        known: what it is made from, and up to which step.
        logarithmic: whether R² is that of logarithms, as for positive numbers over orders of magnitude.
        least_r2: smallest R² over the constant prediction at which it counts as predicted.
        largest_error: largest median relative error at which it does.
        control: what stands in another direction's control, in words; empty where there is none.
    """

    name: str
    formula: str
    known: str
    logarithmic: bool
    least_r2: float
    largest_error: float
    control: str = ""


@dataclass(frozen=True)
class Point:
    """One prediction and what was measured; NaN where one of them is not defined.

    Attributes:
        predicted: by theory.
        measured: on the network, after what the prediction was made from.
        control: the two with something of the network's other directions in the place of one; NaN without.
    """

    predicted: float
    measured: float
    control: tuple[float, float] = (float("nan"), float("nan"))


_START, _ONSET = "λ, a, b, x at the crossing", "λ, a, b, x just before the onset"
_STRETCH, _BULK = "a, b at the start of a stretch", "x² along bulk eigenvectors"

# R² of 0.5 leaves half of the squares of the best constant; the errors allowed are those that a user could live with:
# a quarter of a wait, a tenth of a growth factor, what C14 allows a variance (0.7 to 1.4), half of a height.
QUANTITIES = (
    Quantity("wait", "∫₀^τ ln(1+e+gt) dt = ln(½√(2a/b)/|x|), g = η²a, e = ηλ−2", _START, False, 0.5, 0.25),
    Quantity(
        "wait for the losses", "the same, until the losses of a later leading pair swing", _START, False, 0.5, 0.25
    ),
    Quantity(
        "wait, λ(t) measured",
        "Σ ln|1−ηλ_t| = ln|x at the onset|/|x|",
        "x at the crossing; λ(t) and x at the onset too: the growth law alone",
        False,
        0.5,
        0.25,
    ),
    Quantity("growth", "x_{t+1}/x_t = 1−ηλ", "λ at a stretch's two ends", False, 0.5, 0.1),
    Quantity("variance", "x² = 2a/b", _STRETCH, True, 0.5, 0.3, _BULK),
    Quantity("variance past the spike", "the same, from the first spike's peak on", _STRETCH, True, 0.5, 0.3, _BULK),
    Quantity("variance, x² then", "x² stays: no theory, for comparison", "x² as a stretch begins", True, 0.5, 0.3),
    Quantity("variance ahead", "x² = 2a/b", "a, b in 75 steps from the crossing on", True, 0.5, 0.3),
    Quantity("spike", "x² at the peak of the map's first spike, by its alternating part", _START, True, 0.5, 0.5),
    Quantity("spike from onset", "the same", _ONSET, True, 0.5, 0.5),
    Quantity("spike in its domain", "the same, where η²bx²/2 ≤ 0.6 is predicted", _ONSET, True, 0.5, 0.5),
    Quantity("spike of the orbit", "the same of the map's own orbit, step by step", _ONSET, True, 0.5, 0.5),
    Quantity("loss rise", "x²/η of that spike, x² itself", _START, True, 0.5, 0.5),
    Quantity("loss rise from onset", "the same", _ONSET, True, 0.5, 0.5),
    Quantity("loss rise, x² measured", "x²/η", "x² at the peak", True, 0.5, 0.5),
    Quantity("period", "2π/atan √(2g)", "a at the crossing", True, 0.5, 0.3),
    Quantity("period, a after spike", "2π/atan √(2g)", "a in 20 steps from the first spike on", True, 0.5, 0.3),
    Quantity("period of the orbit", "second less first spike of the map's orbit", _START, True, 0.5, 0.3),
)

_BELOW = "the valley's cross-section and its kernels just before the onset"
_LINE = "the loss, its gradient and Hessian along the bounce's line just before the onset"

VALLEY_QUANTITIES = (
    Quantity(
        "spike of the valley", "x² at the first peak of map (3)'s orbit (`theory.valley_map`)", _BELOW, True, 0.5, 0.5
    ),
    Quantity("spike of the line", "x² at the first peak of map (4)'s orbit", _LINE, True, 0.5, 0.5),
    Quantity("loss rise of the line", "highest loss of that orbit up to a step past its peak", _LINE, True, 0.5, 0.5),
    Quantity("steps to the spike", "that peak's step", _LINE, False, 0.5, 0.25),
)
"""Scored where they are measured: each run is taken up to its onset again."""
