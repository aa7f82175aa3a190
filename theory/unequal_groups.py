"""Opposing groups of unequal size: δ = (p₊ − p₋)/p moves the valley's floor to cs = δ and couples the layers there.

    L = ½ (cb−β)ᵀΣ(cb−β) + (α/2)(c²s² − 2δcs + 1)

Up to a constant this is the coordinate term ½α(cs − δ)²: a group of unequal size is an ordinary feature with the
linear target δ. The two groups' own losses do not depend on δ (`model.group_losses`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.model import Model, State, drive, loss
from theory.symbolic import Array


def biased_model(model: Model, imbalance: npt.ArrayLike) -> Model:
    """The same loss, less ½ Σ_j α_j(1 − δ_j²), as a model without opposing pairs and with δ_j among its targets.

    Its states are State(c, (b, s), []), so descent, flow, sharpness and limit of such groups are those of the model.

    Args:
        model: the model; its alpha are the pairs' second moments.
        imbalance: (J,) δ_j, or one for all.

    Raises:
        InputError: a |δ_j| exceeds 1.

    >>> biased_model(Model([5.0], [3.0], [1.0]), 0.5).beta
    array([3. , 0.5])
    """
    delta = np.broadcast_to(np.asarray(imbalance, dtype=np.float64), model.alpha.shape)
    _require_imbalance(delta)
    return Model(np.empty(0), np.concatenate([model.beta, delta]), model.curvatures)


def biased_loss(model: Model, state: State, imbalance: float) -> Array:
    """Population loss of one pair of unequal groups, L = L_{δ=0} − αδcs, irreducible part included.

    On the floor cs = δ its opposing part is α(1 − δ²)/2 = 2αp₊p₋/p².

    >>> m = Model([2.0], [0.0], [1.0])
    >>> float(biased_loss(m, State(1.0, [0.0], [0.5]), 0.5))  # α(1 − δ²)/2
    0.75
    """
    _require_imbalance(np.asarray(imbalance))
    return np.asarray(loss(model, state) - model.alpha[0] * imbalance * state.c * state.s[..., 0])


def biased_edge(alpha: float, lr: float, imbalance: npt.ArrayLike) -> Array:
    """The c² at which the floor cs = δ loses stability: the larger root of c² + δ²/c² = 2/(ηα).

    On the floor the opposing part's Hessian over (s, c) is α [[c², δ], [δ, δ²/c²]], of rank one: its eigenvalue
    α(c² + δ²/c²) exceeds αc², so that the edge comes before αc² = 2/η. What the ordinary features add to the c-entry
    and to the coupling is left out.

    Args:
        alpha: α.
        lr: step size η.
        imbalance: (...,) δ.

    Returns:
        (...,) c²; NaN where 2/(ηα) < 2|δ|, for which the whole floor is unstable.

    Raises:
        InputError: alpha or lr is not positive, or |δ| > 1.

    >>> float(biased_edge(20.0, 0.05, 0.0))
    2.0
    """
    require_positive("alpha", alpha)
    require_positive("lr", lr)
    delta = np.asarray(imbalance, dtype=np.float64)
    _require_imbalance(delta)
    half = 1 / (lr * alpha)
    inside = (half - np.abs(delta)) * (half + np.abs(delta))
    return np.asarray(np.where(inside >= 0, half + np.sqrt(np.maximum(inside, 0)), np.nan))


def biased_amplitude(model: Model, state: State, imbalance: float) -> Array:
    """Squared amplitude of s at the edge, a² = D/(αc(1 − δ⁴/c⁸)), where s = δ/c ± a and c alternates by aδ/c² (T9).

    Hypotheses: c⁴ > δ², slow drive D > 0; δ = 0 gives T9's D/(αc).

    Returns:
        a², of the state's leading shape; NaN where c⁴ ≤ δ².
    """
    _require_imbalance(np.asarray(imbalance))
    # ⟨∂_s L⟩ = 0 fixes the mean of cs; ⟨∂_c L⟩ = −D + α(c a² − (δ²/c³) (aδ/c²)²) = 0
    factor = 1 - imbalance**4 / state.c**8
    usable = np.where(factor > 0, factor, np.nan)
    return np.asarray(drive(model, state) / (model.alpha[0] * state.c * usable))


def groups_trade_places(model: Model, state: State, imbalance: float) -> Array:
    """Whether cs changes sign each step at the edge, so that the groups' losses swap: a (c + δ²/c³) > |δ|.

    To leading order in a: the mean of cs on the cycle is δ − (aδ/c²) a (1 + δ²/c⁴), which is left out; swaps begin at
    0.96 to 1 of the a that is told for |δ| up to 0.7.

    For small δ that is cD/α > δ²; in a sample, where δ ~ 1/√(np), it takes more than about α/(cD) outliers.

    Returns:
        Booleans of the state's leading shape; False where no amplitude is predicted.
    """
    square = biased_amplitude(model, state, imbalance)
    a = np.sqrt(np.where(square > 0, square, 0.0))
    return np.asarray(a * np.abs(state.c + imbalance**2 / state.c**3) > abs(imbalance))


def _require_imbalance(delta: Array) -> None:
    if not (np.abs(delta) <= 1).all():
        raise InputError(f"imbalance is {delta}: give (p₊ − p₋)/p, between −1 and 1")
