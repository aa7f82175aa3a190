"""Laws of the opposing feature's size, all of second moment 1, and estimates of how heavy a tail is.

A size X has tail index a where P(X > x) ~ x^(−a); its second moment is finite where a > 2. With a cutoff T the size is
min(X, T), and

    E min(X, T)² = ∫₀ᵀ 2x P(X > x) dx.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import integrate, special, stats
from torch import Tensor

from sim.random_numbers import RandomNumbers, SequentialNumbers
from theory.command_line import InputError, require_positive

Family = Literal["two-point", "pareto", "student-t", "log-normal", "stable"]


@dataclass(frozen=True)
class SizeLaw:
    """Law of the size |uᵀx_o| of an outlier's opposing feature, scaled to second moment 1.

    ======== ==================================== ================================== =============================
    family   size before scaling                  tail                               finite second moment
    ======== ==================================== ================================== =============================
    two-point  1                                  not used                           always
    pareto     P(X > x) = x^(−a), x ≥ 1           index a                            a > 2
    student-t  |t_a|                              index a, degrees of freedom        a > 2
    log-normal exp(a N(0, 1))                     spread a; every moment is finite   always
    stable     |X|, E exp(iωX) = exp(−|ω|^a)      index a in (0, 2)                  never: needs a cutoff
    ======== ==================================== ================================== =============================

    Attributes:
        family: two-point, pareto, student-t, log-normal or stable.
        tail: a of the table; every family but two-point needs it.
        cutoff: sizes above it, before scaling, are set to it; None for none. It makes the second moment finite, and the
            tail index a statement about sizes below it only.

    Raises:
        InputError: the tail is missing or out of range, or the second moment is infinite.
    """

    family: Family = "two-point"
    tail: float | None = None
    cutoff: float | None = None

    def __post_init__(self) -> None:
        if self.cutoff is not None:
            require_positive("cutoff", self.cutoff)
        if self.family == "two-point":
            if self.tail is not None or self.cutoff is not None:
                raise InputError("two-point sizes have no tail: leave tail and cutoff out or give another family")
            return
        if self.tail is None:
            raise InputError(f"{self.family} sizes need a tail: give one above 0")
        require_positive("tail", self.tail)
        if self.family == "stable" and self.tail >= 2:
            raise InputError(f"tail of a stable law is {self.tail}: give one below 2, where it is not Gaussian")
        if self.cutoff is None and self.family != "log-normal" and self.tail <= 2:
            raise InputError(
                f"{self.family} sizes of tail index {self.tail} have an infinite second moment: no population loss, "
                "no Gram matrix to converge to; give a cutoff, or a tail above 2 and another family than stable"
            )
        if not 0 < self.second_moment < math.inf:
            raise InputError(
                f"{self.family} sizes of tail {self.tail} and cutoff {self.cutoff} have a second moment of "
                f"{self.second_moment:g} in double precision: give a smaller tail or a larger cutoff"
            )

    @property
    def second_moment(self) -> float:
        """E X² before scaling.

        >>> SizeLaw("pareto", tail=3.0).second_moment  # a/(a − 2)
        3.0
        """
        return _second_moment(self.family, self.tail or 0.0, math.inf if self.cutoff is None else self.cutoff)

    def draw(self, count: int, source: torch.Generator | RandomNumbers) -> Tensor:
        """(count,) sizes of second moment 1, in float64 on the source's device."""
        numbers = SequentialNumbers(source) if isinstance(source, torch.Generator) else source

        def uniform() -> Tensor:  # in (0, 1]
            return 1 - numbers.uniform(count)

        a = self.tail or 0.0
        match self.family:
            case "two-point":
                return torch.ones(count, dtype=torch.float64, device=numbers.device)
            case "pareto":
                sizes = uniform() ** (-1 / a)
            case "student-t":
                # t = √(a (U^(−2/a) − 1)) cos 2πV (Bailey 1994)
                sizes = ((a * (uniform() ** (-2 / a) - 1)).sqrt() * torch.cos(2 * torch.pi * uniform())).abs()
            case "log-normal":
                sizes = torch.exp(a * numbers.normal_(torch.empty(count, dtype=torch.float64, device=numbers.device)))
            case "stable":
                # X = sin aU / (cos U)^(1/a) · (cos((1 − a)U) / W)^((1 − a)/a), U uniform on ±π/2, W exponential
                # (Chambers, Mallows & Stuck 1976)
                angle, wait = torch.pi * (uniform() - 0.5), -torch.log(uniform())
                stretch = (torch.cos((1 - a) * angle) / wait) ** ((1 - a) / a)
                sizes = (torch.sin(a * angle) / torch.cos(angle) ** (1 / a) * stretch).abs()
        if self.cutoff is not None:
            sizes = sizes.clamp(max=self.cutoff)
        return sizes / math.sqrt(self.second_moment)


@dataclass(frozen=True)
class TailEstimate:
    """Hill's estimate of a tail index.

    Attributes:
        index: the estimate.
        standard_error: index/√top, for independent values with an exact power-law tail.
        top: number of largest values used.
        threshold: the value they exceed.
    """

    index: float
    standard_error: float
    top: int
    threshold: float


def hill_estimator(values: Tensor | npt.ArrayLike, top: int) -> TailEstimate:
    """Tail index from the largest sizes (Hill 1975): 1 / mean ln(X_(i) / X_(top+1)), i = 1…top.

    Args:
        values: any number of values in any shape; their sizes count.
        top: number of largest sizes used. More means less noise and more bias from the bulk.

    Raises:
        InputError: top is not between 1 and n − 1, or the top sizes are all equal or not finite and positive.

    >>> estimate = hill_estimator([1.0, 2.718281828459045, 2.718281828459045], top=2)  # both a factor e above 1
    >>> round(estimate.index, 12), round(estimate.standard_error, 12)
    (1.0, 0.707106781187)
    """
    sizes = _as_float64(values).abs()
    if not 1 <= top < sizes.numel():
        raise InputError(f"top is {top} of {sizes.numel()} values: give at least 1 and fewer than there are")
    largest = sizes.topk(top + 1).values
    threshold = float(largest[-1])
    if not threshold > 0 or not math.isfinite(float(largest[0])):
        raise InputError(f"the {top + 1} largest sizes reach from {threshold} to {float(largest[0])}: give fewer")
    mean = float((largest[:-1] / threshold).log().mean())
    if mean == 0:
        raise InputError(f"the {top + 1} largest sizes are all {threshold}: they have no tail index")
    return TailEstimate(1 / mean, 1 / mean / math.sqrt(top), top, threshold)


def kurtosis(values: Tensor | npt.ArrayLike) -> float:
    """Fourth central moment over squared variance: 3 for a Gaussian.

    >>> kurtosis([-1.0, 1.0])
    1.0
    """
    x = _as_float64(values)
    if x.numel() < 2 or bool((x == x[0]).all()):
        raise InputError(f"kurtosis of {x.numel()} equal values: give values that differ")
    # In units of the largest deviation, so that no fourth power overflows.
    deviation = x - x.mean()
    square = (deviation / deviation.abs().max()) ** 2
    return float((square * square).mean() / square.mean() ** 2)


def _as_float64(values: Tensor | npt.ArrayLike) -> Tensor:
    # Through NumPy, as torch reads Python's numbers as float32.
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values, dtype=np.float64))
    return tensor.detach().to(torch.float64).flatten()


@lru_cache
def _second_moment(family: Family, a: float, cutoff: float) -> float:
    match family:
        case "two-point":
            return 1.0
        case "pareto" if cutoff == math.inf:
            return a / (a - 2)
        case "pareto" if cutoff <= 1:
            return cutoff**2
        case "pareto":
            # 1 + ∫₁ᵀ 2x^(1−a) dx, also at a = 2
            log = math.log(cutoff)
            return 1 + 2 * log * float(special.exprel((2 - a) * log))
        case "student-t" if cutoff == math.inf:
            return a / (a - 2)
        case "student-t":
            return _integral_of_tail(stats.t(a), cutoff)
        case "log-normal":
            # min(X, T)² splits at T: E X²; X < T is a Gaussian probability of the law tilted by X², plus T² P(X > T)
            z = math.log(cutoff) / a
            with np.errstate(over="ignore"):  # infinite then, and refused
                below = float(np.exp(2 * a * a + special.log_ndtr(z - 2 * a)))
            return below + (cutoff**2 * float(special.ndtr(-z)) if cutoff < math.inf else 0.0)
        case "stable":
            return _stable_second_moment(a, cutoff)


def _integral_of_tail(law: stats.distributions.rv_frozen, cutoff: float) -> float:
    """∫₀ᵀ 2x P(|X| > x) dx of a symmetric law, over ln x, where the tail is smooth."""

    def integrand(log: float) -> float:
        x = math.exp(log)
        return 4 * x * x * float(law.sf(x))

    high = math.log(cutoff)
    lowest = min(-20, math.floor(high) - 20)
    pieces = [(min(low, high), min(low + 4, high)) for low in range(lowest, math.ceil(max(high, -20)) + 4, 4)]
    return math.fsum(integrate.quad(integrand, low, top, epsrel=1e-11)[0] for low, top in pieces if low < top)


_FAR = 100.0
"""Cutoff from which a stable law's second moment is taken from a series."""


def _stable_second_moment(a: float, cutoff: float) -> float:
    """E min(|X|, T)² = (4T²/π) ∫₀^∞ (1 − exp(−(v/T)^a)) j₁(v)/v dv, from the characteristic function.

    j₁(v) = (sin v − v cos v)/v² is a spherical Bessel function. SciPy's own stable tail probabilities are wrong by
    whole factors far out (seen at a = 1.5, x = 10⁴), so they are not used. Nor is the integral for T from `_FAR` on: it
    is of the order T^(−a), while quadrature errs by a fixed amount.
    """
    if cutoff >= _FAR:
        return _stable_second_moment_far_out(a, cutoff)

    def gone(v: float) -> float:
        return -math.expm1(-((v / cutoff) ** a))

    near = integrate.quad(lambda v: gone(v) * special.spherical_jn(1, v) / v, 0, math.pi, epsrel=1e-11)[0]
    sine = integrate.quad(lambda v: gone(v) / v**3, math.pi, math.inf, weight="sin", wvar=1.0, epsabs=1e-12)[0]
    cosine = integrate.quad(lambda v: gone(v) / v**2, math.pi, math.inf, weight="cos", wvar=1.0, epsabs=1e-12)[0]
    return 4 * cutoff**2 / math.pi * (near + sine - cosine)


def _stable_second_moment_far_out(a: float, cutoff: float) -> float:
    """The same by the exponential's series, with ∫₀^∞ v^(μ−1) j₁(v) dv = √π 2^(μ−2) Γ((1 + μ)/2)/Γ((4 − μ)/2).

    It converges for a ≤ 1; above, it is asymptotic, and its terms fall far below rounding before they grow.
    """
    total, k = 0.0, 0
    while True:
        k += 1
        mu = k * a
        # (4T²/π) (−1)^(k+1) T^(−ka)/k! √π 2^(ka−2) Γ((1 + ka)/2)/Γ((4 − ka)/2)
        log = (2 - mu) * math.log(cutoff / 2) + math.lgamma((1 + mu) / 2) - math.lgamma(k + 1)
        term = 4 / math.sqrt(math.pi) * math.exp(log) * float(special.rgamma((4 - mu) / 2))
        total += term if k % 2 else -term
        if k > 2 and abs(term) < 1e-17 * abs(total):  # one of them may vanish, as where 4 − ka is 0
            return total
