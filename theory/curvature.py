"""Exact sharpness of the two-layer network: the Hessian is an arrow matrix, its top eigenvalue a scalar root (T2).

Over (c, w) with w = (b, s) the Hessian is [[a, vᵀ], [v, diag(d)]] with

    a = Σ_i λ_i w_i²,   v_i = λ_i (2 c w_i − τ_i),   d_i = c² λ_i,

and its largest eigenvalue is the largest root of the secular equation λ − a = Σ_i v_i² / (λ − d_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theory.command_line import InputError
from theory.model import Model, State
from theory.secular_equation import largest_root
from theory.symbolic import Array, coordinate_terms


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

    It is the Hessian's spectral norm as well: the smallest eigenvalue is never larger in size (T2). The relative error
    is a few rounding errors wherever the Hessian's entries lie between 1e-300 and 1e300; NaN where the state is NaN.

    >>> m = Model(alpha=[20.0], beta=[3.0], covariance=[1.0])
    >>> round(float(sharpness(m, State(np.sqrt(3.0), [np.sqrt(3.0)], [0.0]))), 10)  # max(αc², c² + β²/c²)
    60.0
    """
    return largest_root(*arrow_form(model, state))


def smallest_eigenvalue(model: Model, state: State) -> Array:
    """Smallest eigenvalue of the population loss's Hessian over (c, b, s), of the state's leading shape, O(d) a state.

    The mirror of `sharpness`: minus the largest eigenvalue of the negated arrow matrix. Its error is absolute, a few
    rounding errors of the *sharpness*: near a minimum, where it tends to 0 like ‖β − cb‖, no digit of it is sure once
    it is below 1e-15 of the sharpness. Idle opposing directions have αc² (isotropic case, never below it) or 0
    (rank-one case).

    >>> m = Model(alpha=[1.0], beta=[3.0], covariance=[1.0])
    >>> float(smallest_eigenvalue(m, State(0.0, [0.0], [0.0])))  # the saddle at the origin: ±‖β‖ and 0
    -3.0
    """
    a, v, d = arrow_form(model, state)
    return -largest_root(-a, v, -d)


def spectrum(model: Model, state: State, idle: int | Sequence[int] = 0) -> Array:
    """All eigenvalues of the population loss's Hessian, ascending (T2).

    m coordinates of equal second moment λ carry the eigenvalue c²λ m − 1 times and enter the rest as one coordinate
    whose arm is the norm of theirs. With Σ = I and one pair what is left is 3×3 for any number of features.

    Args:
        model: the model.
        state: the weights, with any leading axes.
        idle: number of idle opposing directions of each pair in the isotropic case, d2 − 1, each with eigenvalue α_jc²;
            one number stands for every pair. In the rank-one case theirs are zeros: leave `idle` at 0 and add them.

    Returns:
        (..., 1 + d1 + J + Σ idle) eigenvalues; errors are absolute, a few rounding errors of the sharpness.

    Raises:
        InputError: `idle` is negative or has not one entry a pair.

    >>> m = Model(alpha=[20.0], beta=[3.0, 0.0, 0.0], covariance=[1.0, 1.0, 1.0])
    >>> minimum = State(1.0, [3.0, 0.0, 0.0], [0.0])
    >>> spectrum(m, minimum, idle=1).round(9) + 0.0  # 0; c² (d1 − 1 times); c² + β²/c²; αc² (d2 times)
    array([ 0.,  1.,  1., 10., 20., 20.])
    """
    copies = np.atleast_1d(np.asarray(idle))
    if copies.size not in (1, model.alpha.size) or (copies < 0).any():
        raise InputError(f"idle is {idle}: give one number of at least 0, or {model.alpha.size}, one a pair")
    a, v, d = arrow_form(model, state)
    moments, group, count = np.unique(model.curvatures, return_inverse=True, return_counts=True)
    n = moments.size + 1
    reduced = np.zeros((*a.shape, n, n))
    reduced[..., 0, 0] = a
    # ‖v‖ over each group, in units of the largest arm, so that no square under- or overflows
    largest = np.abs(v).max(-1, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    arms = unit * np.sqrt(np.square(v / unit) @ np.eye(moments.size)[group])
    reduced[..., 0, 1:] = reduced[..., 1:, 0] = arms
    poles = np.square(state.c)[..., None] * moments
    reduced[..., range(1, n), range(1, n)] = poles
    coupled = np.linalg.eigvalsh(reduced)
    repeated = np.repeat(poles, count - 1, axis=-1)
    d_idle = np.repeat(d[..., model.beta.size :], np.broadcast_to(copies, model.alpha.shape), axis=-1)
    return np.sort(np.concatenate([coupled, repeated, d_idle], axis=-1), axis=-1)


def layer_sharpness(model: Model, state: State) -> LayerSharpness:
    """Sharpness of the whole network and of each layer, and the top eigenvector's share in the first layer.

    The top eigenvector is (1, v_i / (λ − d_i)), so the last layer's share is 1 / (1 + Σ v_i² / (λ − d_i)²).
    """
    a, v, d = arrow_form(model, state)
    top = largest_root(a, v, d)
    gap = top[..., None] - d
    # Where λ equals a pole with v_i = 0 the eigenvector lies in that coordinate: the share is 1.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        squares = np.where(v == 0, np.where(gap <= 0, np.inf, 0.0), (v / gap) ** 2).sum(-1)
        share = np.where(np.isinf(squares), 1.0, squares / (1 + squares))
    return LayerSharpness(whole=top, first=d.max(-1), last=a, first_share=share)


def arrow_form(model: Model, state: State) -> tuple[Array, Array, Array]:
    """The Hessian as an arrow matrix over (c, w): corner a (...,), arms v (..., n), diagonal d (..., n), n = d1 + J.

    >>> [x.tolist() for x in arrow_form(Model([1.0], [3.0], [2.0]), State(1.0, [1.0], [0.5]))]  # λw², λ(2cw − τ), λc²
    [2.25, [-2.0, 1.0], [2.0, 1.0]]
    """
    terms = coordinate_terms()
    arguments = (state.c[..., None], state.first_layer, model.curvatures, model.target)
    return np.asarray(terms.d_cc(*arguments).sum(-1)), terms.d_cw(*arguments), terms.d_ww(*arguments)
