"""Sharpness of every run of a stack: the searches for the top eigenvalues go on in step and share their products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.curvature import Eigenpairs
from sim.curvature.eigensolver import solver
from sim.stacked_losses import StackedLosses
from sim.stacked_networks import flatten_stack, unflatten_stack
from theory.command_line import require_positive


@dataclass(frozen=True)
class Sharpness:
    """When and how to measure the largest Hessian eigenvalue of each run's mean loss over all its examples.

    Attributes:
        every: steps between measurements.
        tolerance: bound on every relative residual.
        seed: seed of the eigensolver's start vectors.
        verify_every: measurements between those that search random directions for a larger eigenvalue, about ten
            products more; 0 for the first alone.
    """

    every: int
    tolerance: float = 1e-2
    seed: int = 0
    verify_every: int = 10

    def __post_init__(self) -> None:
        require_positive("steps between measurements of the sharpness", self.every)


class SharpnessOfRuns:
    """The sharpness of a stack's runs, each search warm-started from its last vectors."""

    def __init__(self, problem: StackedLosses, settings: Sharpness) -> None:
        self.problem, self.settings = problem, settings
        self._generators = {r: torch.Generator().manual_seed(settings.seed) for r in range(len(problem.stack))}
        self._last: dict[int, Tensor] = {}
        self._steps: list[int] = []
        self._rows: list[list[tuple[float, float, bool, bool]]] = []

    @torch.enable_grad()
    def measure(self, step: int, parameters: list[Tensor], gone: Tensor) -> None:
        """Measures the runs that have not diverged; reads the parameters only."""
        leaves = [p.detach().clone().requires_grad_() for p in parameters]
        mean = self.problem.losses(leaves, slice(0, self.problem.inputs.shape[1])).mean(1).sum()
        gradients = torch.autograd.grad(mean, leaves, create_graph=True)

        def products(vectors: Tensor) -> Tensor:
            parts = unflatten_stack(vectors, leaves)
            # No part of one run's gradient depends on another run: H v of all runs in one pass.
            images = torch.autograd.grad(
                gradients, leaves, parts, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return flatten_stack(images)

        verify_every = self.settings.verify_every
        alive = [r for r, dead in enumerate(gone.tolist()) if not dead]
        found = top_eigenpairs_together(
            products,
            flatten_stack(leaves).detach(),
            {r: self._generators[r] for r in alive},
            self._last,
            tolerance=self.settings.tolerance,
            verify=True if verify_every and len(self._steps) % verify_every == 0 else None,
        )
        self._last = {r: pairs.vectors for r, pairs in found.items()}
        self._steps.append(step)
        none = np.nan, np.nan, False, False
        self._rows.append([_row(found[r]) if r in found else none for r in range(len(gone))])

    def dataset(self) -> xr.Dataset:
        """All measurements."""
        types = {"sharpness": float, "residual": float, "converged": bool, "verified": bool}
        data = {
            name: (("measured", "run"), np.array([[row[i] for row in rows] for rows in self._rows], type_))
            for i, (name, type_) in enumerate(types.items())
        }
        return xr.Dataset(data, coords={"measured": self._steps})


def _row(pairs: Eigenpairs) -> tuple[float, float, bool, bool]:
    return float(pairs.values[0]), float(pairs.residuals[0]), pairs.converged, pairs.verified


def top_eigenpairs_together(
    products: Callable[[Tensor], Tensor],
    like: Tensor,
    generators: Mapping[int, torch.Generator],
    starts: Mapping[int, Tensor],
    **options: Any,
) -> dict[int, Eigenpairs]:
    """Top eigenpairs of some of R symmetric operators.

    Args:
        products: (R, size) vectors, one an operator, to their products.
        like: a tensor (R, size) of the vectors' device and type.
        generators: CPU generator of the random start vectors of each operator that is solved.
        starts: vectors to start from, such as the last solve's; operators may be missing.
        options: tolerance and the other options of `sim.curvature.top_eigenpairs`.
    """
    shape = _Shape(like.shape[1], like.device, like.dtype)
    searches = {
        which: solver(shape, generator=generator, start=starts.get(which), **options)
        for which, generator in generators.items()
    }
    waiting = {which: next(search) for which, search in searches.items()}
    found: dict[int, Eigenpairs] = {}
    while waiting:
        images = _images(products, like, waiting)
        for which, image in images.items():
            try:
                waiting[which] = searches[which].send(image)
            except StopIteration as stop:
                found[which] = stop.value
                del waiting[which]
    return found


def _images(products: Callable[[Tensor], Tensor], like: Tensor, rows: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Products of each operator with its rows: one product of all operators a row."""
    images: dict[int, list[Tensor]] = {which: [] for which in rows}
    for depth in range(max(len(r) for r in rows.values())):
        asking = [which for which, r in rows.items() if depth < len(r)]
        vectors = torch.zeros_like(like)
        vectors[asking] = torch.stack([rows[which][depth] for which in asking])
        multiplied = products(vectors)
        for which in asking:
            images[which].append(multiplied[which])
    return {which: torch.stack(image) for which, image in images.items()}


@dataclass
class _Shape:
    """All that a search sees of its operator; the products are made for all searches at once."""

    size: int
    device: torch.device
    dtype: torch.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        raise NotImplementedError
