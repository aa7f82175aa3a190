"""Spectral density by stochastic Lanczos quadrature.

The density of the n eigenvalues is φ(x) = (1/n) Σ_i δ(x − λ_i). For a random unit vector u, uᵀ f(H) u has the mean
tr f(H) / n, and m steps of Lanczos from u give Gauss quadrature for it: nodes θ_j, the eigenvalues of the tridiagonal
matrix, with weights τ_j², their eigenvectors' squared first components, exact for polynomials f up to degree 2m − 1
(Ubaru, Chen and Saad 2017; for networks Ghorbani, Krishnan and Xiao 2019). Each δ is drawn as a Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.curvature.operators import LinearOperator, products
from theory.command_line import InputError, require_positive

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SpectralDensity:
    """Estimate of the density of an operator's eigenvalues.

    Attributes:
        grid: (points,) places x, in units of the eigenvalues.
        density: (points,) estimate of φ(x), smoothed by a Gaussian; its integral is 1.
        standard_error: (points,) standard error of `density` over the probes. It holds the probes' scatter alone, not
            the smoothing nor the quadrature's error.
        nodes: (probes, steps) Ritz values of each probe.
        weights: (probes, steps) their weights, which sum to 1 for each probe.
        width: standard deviation of the Gaussian.
        products: number of operator products spent.
    """

    grid: Array
    density: Array
    standard_error: Array
    nodes: Array
    weights: Array
    width: float
    products: int

    def mean(self, function: Callable[[Array], Array]) -> tuple[float, float]:
        """Mean of a function over the eigenvalues, tr f(H)/n, and its standard error over the probes.

        With ``lambda x: x > 1``, the share of eigenvalues above 1.
        """
        each = (self.weights * function(self.nodes)).sum(axis=1)
        return float(each.mean()), float(_standard_error(each))


def spectral_density(
    operator: LinearOperator,
    *,
    generator: torch.Generator,
    probes: int = 10,
    steps: int = 60,
    width: float | None = None,
    grid: npt.ArrayLike | None = None,
    points: int = 500,
    together: int = 1,
) -> SpectralDensity:
    """Estimates the density of the operator's eigenvalues.

    Args:
        operator: the symmetric operator.
        generator: CPU generator of the probes.
        probes: number of random vectors, at least 2.
        steps: Lanczos steps a probe, cut to the operator's size.
        width: standard deviation of the smoothing Gaussian; a hundredth of the nodes' range when not given,
            or a thousandth of the largest node's size where that is more.
        grid: places to evaluate at; `points` of them over the nodes' range and four widths more when not given.
        points: number of places of that grid.
        together: number of probes that share a pass of products; `together` × `steps` vectors are held.

    Returns:
        The density with its standard error. The device is waited for once every `together` probes.

    Raises:
        InputError: fewer than 2 probes, or a number that is not positive.
    """
    if probes < 2:
        raise InputError(f"probes is {probes}: give at least 2, which a standard error needs")
    for name, value in (("steps", steps), ("points", points), ("together", together)):
        require_positive(name, value)
    if width is not None:
        require_positive("width", width)
    steps = min(steps, operator.size)
    counts = [min(together, probes - begin) for begin in range(0, probes, together)]
    runs = [_lanczos(operator, generator, count, steps) for count in counts]
    values, vectors = np.linalg.eigh(np.concatenate(runs))
    weights = vectors[:, 0, :] ** 2
    # Nodes past the end of an exhausted Krylov space have weight at rounding, and no place in the range.
    reached = values[weights > 1e-30]
    low, high = float(reached.min()), float(reached.max())
    if width is None:
        # Not below a thousandth of the eigenvalues themselves, should all be equal; anything for the zero matrix.
        width = max((high - low) / 100, max(abs(low), abs(high)) / 1000) or 0.01
    places = np.linspace(low - 4 * width, high + 4 * width, points) if grid is None else np.asarray(grid, dtype=float)
    # φ_σ(x) = Σ_j τ_j² exp(−(x − θ_j)²/2σ²) / (σ √2π), the mean over probes
    gauss = np.exp(-0.5 * ((places[:, None, None] - values) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    each = (gauss * weights).sum(axis=-1).T
    return SpectralDensity(
        places, each.mean(axis=0), _standard_error(each), values, weights, width, products=probes * steps
    )


def _standard_error(each: Array) -> Array:
    return np.asarray(each.std(axis=0, ddof=1) / np.sqrt(len(each)))


def _lanczos(operator: LinearOperator, generator: torch.Generator, count: int, steps: int) -> Array:
    """(count, steps, steps) tridiagonal matrices of as many runs in step, with full orthogonalisation."""
    rows = torch.stack([torch.randn(operator.size, generator=generator) for _ in range(count)])
    rows = rows.to(operator.device, operator.dtype)
    basis = torch.zeros(count, steps, operator.size, device=rows.device, dtype=rows.dtype)
    basis[:, 0] = rows / rows.norm(dim=1, keepdim=True)
    alpha, beta = [], []
    for j in range(steps):
        image = products(operator, basis[:, j])
        alpha.append((basis[:, j] * image).sum(dim=1))
        known = basis[:, : j + 1]
        for _ in range(2):  # once more against rounding
            image = image - torch.einsum("pjn,pj->pn", known, torch.einsum("pjn,pn->pj", known, image))
        left = image.norm(dim=1)
        # Where the Krylov space is exhausted, β is at rounding or 0, and what follows takes no weight.
        beta.append(left)
        if j + 1 < steps:
            basis[:, j + 1] = torch.where(left > 0, 1 / left, 0)[:, None] * image
    return _tridiagonal(torch.stack(alpha, dim=1), torch.stack(beta[:-1], dim=1) if steps > 1 else rows[:, :0])


def _tridiagonal(alpha: Tensor, beta: Tensor) -> Array:
    diagonal, off = alpha.double().cpu(), beta.double().cpu()
    return np.asarray((diagonal.diag_embed() + off.diag_embed(1) + off.diag_embed(-1)).numpy())
