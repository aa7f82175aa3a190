"""Exact sharpness of the two-layer network: the Hessian is an arrow matrix, its top eigenvalue a scalar root (T2).

Over (c, w) with w = (b, s) the Hessian is [[a, vᵀ], [v, diag(d)]] with

    a = Σ_i λ_i w_i²,   v_i = λ_i (2 c w_i − τ_i),   d_i = c² λ_i,

and its largest eigenvalue is the largest root of the secular equation λ − a = Σ_i v_i² / (λ − d_i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.model import Model, State
from theory.symbolic import Array, coordinate_terms

_MAX_ITERATIONS = 100


@dataclass(frozen=True)
class LayerSharpness:
    """Sharpness by layer, each of the state's leading shape.

    Attributes:
        whole: largest eigenvalue of the Hessian.
        first: largest eigenvalue of the first layer's diagonal block, c² max(Σ's top eigenvalue, α).
        last: the last layer's diagonal entry, bᵀΣb + Σ_j α_j s_j².
        first_share: squared norm of the top eigenvector's part in the first layer; the last layer has the rest.
    """

    whole: Array
    first: Array
    last: Array
    first_share: Array


def sharpness(model: Model, state: State) -> Array:
    """Largest eigenvalue of the population loss's Hessian, of the state's leading shape, at O(d) a state.

    >>> m = Model(alpha=[20.0], beta=[3.0], covariance=[1.0])
    >>> round(float(sharpness(m, State(np.sqrt(3.0), [np.sqrt(3.0)], [0.0]))), 10)  # max(αc², c² + β²/c²)
    60.0
    """
    return _largest_root(*_arrow(model, state))


def layer_sharpness(model: Model, state: State) -> LayerSharpness:
    """Sharpness of the whole network and of each layer, and the top eigenvector's share in the first layer.

    The top eigenvector is (1, v_i / (λ − d_i)), so the last layer's share is 1 / (1 + Σ v_i² / (λ − d_i)²).
    """
    a, v, d = _arrow(model, state)
    top = _largest_root(a, v, d)
    gap = top[..., None] - d
    # Where λ equals a pole with v_i = 0 the eigenvector lies in that coordinate: the share is 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(v == 0, np.where(gap <= 0, np.inf, 0.0), (v / gap) ** 2).sum(-1)
        share = np.where(np.isinf(squares), 1.0, squares / (1 + squares))
    return LayerSharpness(whole=top, first=d.max(-1), last=a, first_share=share)


def _arrow(model: Model, state: State) -> tuple[Array, Array, Array]:
    """Corner a (...,), arms v (..., n) and diagonal d (..., n) of the arrow-shaped Hessian."""
    terms = coordinate_terms()
    arguments = (state.c[..., None], state.first_layer, model.curvatures, model.target)
    shape = state.first_layer.shape
    corner = np.broadcast_to(terms.d_cc(*arguments), shape).sum(-1)
    arms = np.broadcast_to(terms.d_cw(*arguments), shape)
    return np.asarray(corner), np.asarray(arms), np.asarray(np.broadcast_to(terms.d_ww(*arguments), shape))


def _largest_root(a: Array, v: Array, d: Array) -> Array:
    """Largest root of λ − a = Σ v_i²/(λ − d_i), by rational interpolation at the rightmost pole.

    With m = max d and λ = m + μ, the sum is replaced by p + q/μ of equal value and slope; the positive root of
    μ² + (m − a − p) μ − q = 0 is the next μ. From an upper bound the iterates fall to the root, quadratically.
    """
    squares = v * v
    pole = d.max(-1)
    below = pole[..., None] - d  # (..., n) at least 0
    # ‖arrow‖ ≤ max(a, m) + ‖v‖ bounds the root from above.
    mu = np.maximum(a - pole, 0) + np.sqrt(squares.sum(-1))
    for _ in range(_MAX_ITERATIONS):
        gap = mu[..., None] + below
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(squares > 0, squares / gap, 0.0)
            q = (np.where(squares > 0, ratio / gap, 0.0)).sum(-1) * mu**2
            p = ratio.sum(-1) - np.where(mu > 0, q / mu, 0.0)
        half = (pole - a - p) / 2
        root = np.sqrt(half**2 + q)
        # The form without cancellation for each sign of the linear coefficient.
        with np.errstate(divide="ignore", invalid="ignore"):
            new = np.where(half > 0, np.where(q > 0, q / (half + root), 0.0), root - half)
        new = np.minimum(new, mu)
        done = mu - new <= 4 * np.finfo(np.float64).eps * (pole + new)
        mu = new
        if done.all():
            break
    return np.asarray(pole + mu)
