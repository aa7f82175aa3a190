"""The two-layer network on a finite sample, exactly, through the sample's second moments.

With one opposing coordinate o = uᵀx_o, features z = (x, o) and first layer w = (b, s), the network is f = c wᵀz and

    L = ½ mean (f − y)² = ½ c² wᵀGw − c hᵀw + ½ mean y²,    G = mean z zᵀ,  h = mean z y,

so (G, h, mean y²) is all that descent sees of the sample. In G's eigenbasis this is the population model with d + 1
ordinary features and no opposing pair (`SampleMoments.model`): every statement on that model holds for the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.model import Model, State
from theory.symbolic import Array
from theory.trajectory import Trajectory


@dataclass(frozen=True)
class SampleMoments:
    """Second moments of a sample with d ordinary features and one opposing coordinate, which stands last.

    Attributes:
        gram: (d + 1, d + 1) G = mean z zᵀ of z = (x, o), symmetric and positive semi-definite.
        projection: (d + 1,) h = mean z y.
        target_square: mean y².

    Raises:
        InputError: shapes disagree, an entry is not finite, G is not symmetric, or o vanishes on every example.
    """

    gram: Array
    projection: Array
    target_square: float

    def __post_init__(self) -> None:
        for name, ndim in (("gram", 2), ("projection", 1)):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.ndim != ndim or not np.isfinite(array).all():
                raise InputError(f"{name} has shape {array.shape}: give finite numbers in {ndim} dimension(s)")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        n = self.projection.size
        if n == 0 or self.gram.shape != (n, n):
            raise InputError(f"gram has shape {self.gram.shape}, projection {n} entries: give ({n}, {n}) for it")
        if not np.allclose(self.gram, self.gram.T, rtol=1e-10, atol=1e-12 * np.abs(self.gram).max()):
            raise InputError("gram is not symmetric: give mean z zᵀ")
        if self.alpha <= 0:
            raise InputError(f"alpha is {self.alpha}: the opposing coordinate needs an example where it is not 0")
        require_positive("target_square", self.target_square, zero_allowed=True)

    @classmethod
    def from_samples(cls, x: npt.ArrayLike, o: npt.ArrayLike, y: npt.ArrayLike) -> SampleMoments:
        """Moments of raw examples.

        Args:
            x: (n, d) ordinary features.
            o: (n,) opposing coordinate uᵀx_o, zero on the examples that are no outliers.
            y: (n,) targets.

        Raises:
            InputError: lengths disagree, there is no example, or no outlier.

        >>> m = SampleMoments.from_samples([[1.0], [-1.0]], [2.0, -2.0], [3.0, 1.0])
        >>> m.alpha, m.cross, m.opposing_target
        (4.0, array([2.]), 2.0)
        """
        features, opposing = np.asarray(x, dtype=np.float64), np.asarray(o, dtype=np.float64)
        target = np.asarray(y, dtype=np.float64)
        if (
            features.ndim != 2
            or opposing.shape != (len(features),)
            or target.shape != opposing.shape
            or not target.size
        ):
            raise InputError(
                f"x has shape {features.shape}, o {opposing.shape}, y {target.shape}: give (n, d), (n,), (n,)"
            )
        z = np.column_stack([features, opposing])
        return cls(z.T @ z / len(z), z.T @ target / len(z), float(target @ target / len(z)))

    @classmethod
    def from_model(cls, model: Model, imbalance: float = 0.0) -> SampleMoments:
        """Population moments of one opposing pair whose groups differ by δ = (p₊ − p₋)/p: mean o y = αδ.

        Raises:
            InputError: the model has not one pair, or |δ| > 1.
        """
        if model.alpha.size != 1:
            raise InputError(f"the model has {model.alpha.size} opposing pairs: give one with a single pair")
        if not abs(imbalance) <= 1:
            raise InputError(f"imbalance is {imbalance}: give (p₊ − p₋)/p, between −1 and 1")
        # E y² = βᵀΣβ + E|o|², as E[x|o|] = 0.
        square = (model.covariance * model.beta**2).sum() + model.alpha[0]
        projection = model.curvatures * np.append(model.beta, imbalance)
        return cls(np.diag(model.curvatures), projection, float(square))

    @property
    def alpha(self) -> float:
        """Second moment of the opposing coordinate, mean o²."""
        return float(self.gram[-1, -1])

    @property
    def cross(self) -> Array:
        """(d,) chance correlation v = mean x o."""
        return self.gram[:-1, -1]

    @property
    def opposing_target(self) -> float:
        """M = mean o y, which is mean o|o| + vᵀβ for y = βᵀx + |o|."""
        return float(self.projection[-1])

    def imbalance(self, beta: npt.ArrayLike) -> float:
        """δ̂ = (M − vᵀβ)/α, the limit of cs* as cb → β; (n₊ − n₋)/(n₊ + n₋) for outliers of equal size.

        >>> SampleMoments.from_model(Model([5.0], [1.0], [1.0]), imbalance=0.5).imbalance([1.0])
        0.5
        """
        return float(self.opposing_target - self.cross @ np.asarray(beta, dtype=np.float64)) / self.alpha

    def gradient(self, state: State) -> State:
        """Gradient of the sample's loss: ∂_w L = c (cGw − h), ∂_c L = wᵀ(cGw − h)."""
        return State.from_vector(self._slope(state.vector), self.cross.size)

    def hessian(self, state: State) -> Array:
        """(..., d + 2, d + 2) Hessian over (c, b, s): [[wᵀGw, (2cGw − h)ᵀ], [2cGw − h, c²G]]."""
        w, c = state.first_layer, state.c[..., None]
        pulled = w @ self.gram
        matrix = np.empty((*w.shape[:-1], w.shape[-1] + 1, w.shape[-1] + 1))
        matrix[..., 0, 0] = (w * pulled).sum(-1)
        matrix[..., 0, 1:] = matrix[..., 1:, 0] = 2 * c * pulled - self.projection
        matrix[..., 1:, 1:] = c[..., None] ** 2 * self.gram
        return matrix

    def drive(self, state: State) -> Array:
        """Drive of the main signal, D = bᵀ(h_x − c S b), with S the ordinary features' block of G."""
        b, c = state.b, state.c[..., None]
        return np.asarray((b * (self.projection[:-1] - c * (b @ self.gram[:-1, :-1]))).sum(-1))

    def floor(self, state: State) -> Array:
        """Opposing weight on the valley's floor, s*(c, b) = (M − c vᵀb)/(αc): ∂_s L = αc²(s − s*); needs c ≠ 0.

        >>> m = SampleMoments.from_model(Model([5.0], [1.0], [1.0]), imbalance=0.5)
        >>> float(m.floor(State(2.0, [0.3], [9.0])))  # δ/c
        0.25
        """
        return np.asarray((self.opposing_target - state.c * (state.b @ self.cross)) / (self.alpha * state.c))

    def model(self) -> tuple[Model, Array]:
        """The same loss, up to a constant, as a population model without opposing pairs, and the rotation to it.

        With G = UΛUᵀ and τ = G⁺h, L = ½ (cw − τ)ᵀG(cw − τ) + const: Λ is the model's covariance and Uᵀτ its target;
        a state (c, w) of the sample is the model's State(c, Uᵀw, []).

        Returns:
            The model and U, (d + 1, d + 1), eigenvectors in columns.
        """
        values, vectors = np.linalg.eigh(self.gram)
        kept = values > values[-1] * values.size * np.finfo(np.float64).eps
        pulled = np.where(kept, vectors.T @ self.projection / np.where(kept, values, 1.0), 0.0)
        return Model(np.empty(0), pulled, np.where(kept, values, 0.0)), vectors

    def loss(self, state: State) -> Array:
        """L = ½ c² wᵀGw − c hᵀw + ½ mean y², the mean of ½ (f − y)² over the sample."""
        w, c = state.first_layer, state.c
        return np.asarray(c**2 * (w * (w @ self.gram)).sum(-1) / 2 - c * (w @ self.projection) + self.target_square / 2)

    def _slope(self, vector: Array) -> Array:
        c, w = vector[..., :1], vector[..., 1:]
        # e = cGw − h;  ∂_c L = wᵀe, ∂_w L = c e
        error = c * (w @ self.gram) - self.projection
        return np.concatenate([(w * error).sum(-1, keepdims=True), c * error], axis=-1)


def sample_descent(moments: SampleMoments, start: State, lr: float, steps: int) -> Trajectory:
    """Gradient descent on the sample; s_{t+1} = s_t − ηαc²(s_t − s*(c_t, b_t)) exactly.

    Args:
        moments: the sample.
        start: weights at step 0; s has one entry.
        lr: step size η.
        steps: number of steps.

    Returns:
        The weights at steps 0…steps; cut before the first that is not finite, if one is not.

    Raises:
        InputError: lr or steps is not positive, or the start does not fit the sample.
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    require_fit(moments, start)
    vectors = np.empty((steps + 1, start.vector.size))
    vectors[0] = start.vector
    kept = steps + 1
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            vectors[t + 1] = vectors[t] - lr * moments._slope(vectors[t])
            if not np.isfinite(vectors[t + 1]).all():
                kept = t + 1
                break
    state = State.from_vector(vectors[:kept], moments.cross.size)
    return Trajectory(lr * np.arange(kept, dtype=np.float64), state, diverged_at=kept if kept <= steps else None)


def lag_series(floor: npt.ArrayLike, rate: npt.ArrayLike, order: int) -> Array:
    """How far a slaved weight trails a slowly moving floor: Σ_{k=1…order} (−(1/x)Δ)^k s*, Δ the forward difference.

    δ_t = s_t − s*_t obeys δ_{t+1} = (1 − x_t) δ_t − Δs*_t exactly; its smooth solution is δ = −(1/x)(Δs* + Δδ), which
    iterated gives the series. One term, δ = −Δs*/x, leaves an error of second order in the rate of drift, and so on
    (the series is asymptotic: what it never holds is the alternating part, ∏(1 − x) δ_0).

    Args:
        floor: (n,) s* at consecutive steps.
        rate: (n,) x = ηαc² at the same steps, not zero.
        order: number of terms k, at least 1.

    Returns:
        (n − order,) the lag at the first n − order steps.

    Raises:
        InputError: shapes disagree, or there are no more steps than terms.

    >>> lag_series([0.0, 1.0, 2.0, 3.0], [0.5] * 4, order=1)  # a floor rising by 1 a step: −1/x
    array([-2., -2., -2.])
    """
    term, x = np.asarray(floor, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    if term.ndim != 1 or term.shape != x.shape or not 1 <= order < term.size:
        raise InputError(
            f"floor has shape {term.shape}, rate {x.shape}, order is {order}: give one shape (n,), n > order"
        )
    total = np.zeros(term.size - order)
    for _ in range(order):
        term = -np.diff(term) / x[: term.size - 1]
        total += term[: total.size]
    return total


def require_fit(moments: SampleMoments, start: State) -> None:
    """Refuses a start that is not one state of the sample's network.

    Raises:
        InputError: wrong number of weights.
    """
    shapes = (start.c.shape, start.b.shape, start.s.shape)
    wanted = ((), moments.cross.shape, (1,))
    if shapes != wanted:
        raise InputError(f"the start's c, b, s have shapes {shapes}: give {wanted}")
