"""The two-layer linear network f = c (bᵀx + b_oᵀx_o) on ordinary and opposing features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.symbolic import Array, VectorMap, coordinate_terms


@dataclass(frozen=True)
class Model:
    """What the network learns: the features' second moments and the linear target.

    Everything is written in the eigenbasis of Σ and Σ_o. In the rank-one case an opposing pair has one active
    coordinate, s = uᵀb_o; in the isotropic case Σ_o = αI the direction of b_o never changes and s = ‖b_o‖, with the
    same equations. The weights across the active coordinates feel no force (rank-one) or stay zero (isotropic).

    Attributes:
        alpha: (J,) top eigenvalue of each opposing pair's second moment Σ_o.
        beta: (d1,) linear target on the ordinary features.
        covariance: (d1,) eigenvalues of Σ.

    Raises:
        InputError: shapes disagree, a second moment is negative, or an entry is not finite.
    """

    alpha: Array
    beta: Array
    covariance: Array

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "covariance"):
            array = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            if array.ndim != 1 or not np.isfinite(array).all():
                raise InputError(f"{name} is {array}: give finite numbers in one dimension")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.beta.shape != self.covariance.shape:
            raise InputError(
                f"beta has {self.beta.size} entries, covariance {self.covariance.size}: give as many of each"
            )
        if (self.alpha < 0).any() or (self.covariance < 0).any():
            raise InputError("a second moment is negative: alpha and covariance must be at least 0")

    @cached_property
    def curvatures(self) -> Array:
        """(d1 + J,) second moment of every coordinate: Σ's eigenvalues, then α."""
        return np.concatenate([self.covariance, self.alpha])

    @cached_property
    def target(self) -> Array:
        """(d1 + J,) linear target of every coordinate: β, then zeros."""
        return np.concatenate([self.beta, np.zeros_like(self.alpha)])


@dataclass(frozen=True)
class State:
    """Weights of the network, at one time or along any leading axes.

    Attributes:
        c: (...,) last-layer weight.
        b: (..., d1) first-layer weights on the ordinary features.
        s: (..., J) first-layer weights on the opposing features, uᵀb_o.
    """

    c: Array
    b: Array
    s: Array

    def __post_init__(self) -> None:
        for name in ("c", "b", "s"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))

    @property
    def first_layer(self) -> Array:
        """(..., d1 + J) the first layer as one vector w = (b, s)."""
        return np.concatenate([self.b, self.s], axis=-1)

    @property
    def vector(self) -> Array:
        """(..., 1 + d1 + J) all weights as one vector (c, b, s)."""
        return np.concatenate([self.c[..., None], self.first_layer], axis=-1)

    @classmethod
    def from_vector(cls, vector: npt.ArrayLike, d1: int) -> State:
        """Undoes `vector`.

        >>> State.from_vector([1.0, 2.0, 3.0], d1=1).s
        array([3.])
        """
        v = np.asarray(vector, dtype=np.float64)
        return cls(v[..., 0], v[..., 1 : 1 + d1], v[..., 1 + d1 :])

    def at(self, index: int) -> State:
        """The weights at one index of the first axis."""
        return State(self.c[index], self.b[index], self.s[index])


def require_weights_of(model: Model, state: State) -> None:
    """Refuses weights that are not those of the model's features.

    Raises:
        InputError: another number of ordinary or opposing weights, or another number of runs in c, b and s.
    """
    wanted = (model.beta.size, model.alpha.size)
    there = (state.b.shape[-1] if state.b.ndim else 0, state.s.shape[-1] if state.s.ndim else 0)
    if there != wanted or not state.c.shape == state.b.shape[:-1] == state.s.shape[:-1]:
        raise InputError(
            f"c, b and s have shapes {state.c.shape}, {state.b.shape}, {state.s.shape}: give (…), (…, {wanted[0]}) and "
            f"(…, {wanted[1]}), as the model has {wanted[0]} ordinary features and {wanted[1]} opposing pairs"
        )


def power_law_covariance(d1: int, exponent: float) -> Array:
    """Eigenvalues i^(−exponent), i = 1…d1; exponent 0 is the identity.

    >>> power_law_covariance(3, 1.0)
    array([1.        , 0.5       , 0.33333333])
    """
    return np.asarray(np.arange(1, d1 + 1, dtype=np.float64) ** -exponent)


def random_start(d1: int, k: float, seed: int, pairs: int = 1) -> State:
    """C = 1 and (b, b_o) a random unit vector, with b_o of k·d1 entries aligned with the opposing direction.

    The start is balanced: Q = c² − ‖b‖² − ‖b_o‖² = 0, and s² ≈ k/(1 + k).

    Args:
        d1: number of ordinary features.
        k: number of opposing over number of ordinary features, d2/d1.
        seed: seed of NumPy's `default_rng`.
        pairs: number of opposing pairs that share ‖b_o‖² in equal parts.

    Raises:
        InputError: d1 or pairs below 1, or k negative.

    >>> start = random_start(50, 3.0, seed=0)
    >>> round(float(start.b @ start.b + start.s @ start.s), 12)
    1.0
    """
    require_positive("d1", d1)
    require_positive("k", k, zero_allowed=True)
    require_positive("pairs", pairs)
    unit = np.random.default_rng(seed).normal(size=d1 + round(k * d1))
    unit /= np.linalg.norm(unit)
    s = np.linalg.norm(unit[d1:]) / np.sqrt(pairs)
    return State(np.array(1.0), unit[:d1], np.full(pairs, s))


def loss(model: Model, state: State) -> Array:
    """Population loss, irreducible part ½ Σ α included.

    L = ½ (cb−β)ᵀ Σ (cb−β) + ½ c² Σ_j α_j s_j² + ½ Σ_j α_j

    >>> float(loss(Model([2.0], [1.0], [1.0]), State(1.0, [1.0], [0.0])))
    1.0
    """
    terms = _evaluate("loss", model, state)
    return np.asarray(terms.sum(-1) + model.alpha.sum() / 2)


def gradient(model: Model, state: State) -> State:
    """Gradient of the population loss, laid out as the weights are: ∂_c L is −D + c Σ_j α_j s_j²."""
    return State.from_vector(vector_gradient(model)(state.vector), model.beta.size)


def vector_gradient(model: Model) -> VectorMap:
    """The gradient as a map from weights (..., 1 + d1 + J) to as many slopes, for integrators and loops.

    The same numbers as those of `gradient`, in less than half the time for a network of tens of weights.

    >>> vector_gradient(Model([2.0], [0.0], [1.0]))(np.array([1.0, 0.0, 1.0]))  # (αcs², c(cb − β), αc²s)
    array([2., 0., 2.])
    """
    terms, curvatures, target = coordinate_terms(), model.curvatures, model.target

    def slope(vector: Array) -> Array:
        c, w = vector[..., :1], vector[..., 1:]
        result = np.empty_like(vector)
        result[..., 0] = terms.d_c(c, w, curvatures, target).sum(-1)
        result[..., 1:] = terms.d_w(c, w, curvatures, target)
        return result

    return slope


def hessian(model: Model, state: State) -> Array:
    """(..., n, n) dense Hessian over (c, b, s), n = 1 + d1 + J: an arrow matrix. For small models and as an oracle.

    The d2 − 1 idle opposing directions are left out: they add the eigenvalue αc² (isotropic case) or 0 (rank-one),
    never above the largest one here.
    """
    d_ww = _evaluate("d_ww", model, state)
    d_cw = _evaluate("d_cw", model, state)
    n = d_ww.shape[-1] + 1
    matrix = np.zeros((*d_ww.shape[:-1], n, n))
    matrix[..., 0, 0] = _evaluate("d_cc", model, state).sum(-1)
    matrix[..., 0, 1:] = matrix[..., 1:, 0] = d_cw
    index = np.arange(1, n)
    matrix[..., index, index] = d_ww
    return matrix


def drive(model: Model, state: State) -> Array:
    """The drive of the main signal, D = bᵀ Σ (β − c b): how fast c would grow if no opposing weight were left."""
    residual = model.beta - state.c[..., None] * state.b
    return np.asarray((state.b * model.covariance * residual).sum(-1))


def balancedness(state: State) -> Array:
    """Q = c² − ‖b‖² − ‖s‖², constant under gradient flow (T1).

    >>> float(balancedness(State(2.0, [1.0], [1.0])))
    2.0
    """
    w = state.first_layer
    return np.asarray(state.c**2 - (w * w).sum(-1))


def group_losses(model: Model, state: State, fraction: float) -> tuple[Array, Array]:
    """Expected loss on the two outlier groups of the first pair, for one pair of equal groups (rank-one case).

    ℓ± = ½ (cb−β)ᵀ Σ (cb−β) + (α/2p)(1 ∓ c s)², so the gap ℓ₊ − ℓ₋ = −2αcs/p is linear in s.

    Args:
        model: the model; only its first opposing pair is used.
        state: the weights.
        fraction: p, the fraction of examples that are outliers.

    Returns:
        ℓ₊ and ℓ₋, each of the state's leading shape.
    """
    require_positive("fraction", fraction)
    alpha, cs = model.alpha[0], state.c * state.s[..., 0]
    main = _evaluate("loss", model, state)[..., : model.beta.size].sum(-1)
    return (
        np.asarray(main + alpha / (2 * fraction) * (1 - cs) ** 2),
        np.asarray(main + alpha / (2 * fraction) * (1 + cs) ** 2),
    )


def _evaluate(name: str, model: Model, state: State) -> Array:
    """One of sympy's coordinate terms on every coordinate: (..., d1 + J)."""
    w = state.first_layer
    term = getattr(coordinate_terms(), name)
    value = np.asarray(term(state.c[..., None], w, model.curvatures, model.target))
    # Terms that some coordinates lack are narrower; the flow comes here too often to broadcast those that are not.
    return value if value.shape == w.shape else np.asarray(np.broadcast_to(value, w.shape))
