"""Curvature at no extra product, from successive gradients of descent.

Along a step Δ = θ_{t+1} − θ_t the gradients' difference is g_{t+1} − g_t = H̄ Δ, with the Hessian's mean H̄ over the
segment. At the edge of stability Δ is nearly the top eigenvector, so the curvature along it is near the sharpness: a
monitor between the measured values, never in their place. It is below the segment's largest sharpness, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor


def secant_curvature(step: Sequence[Tensor], gradient_change: Sequence[Tensor]) -> Tensor:
    """Mean curvature along a step, (g_{t+1} − g_t)·Δ / ‖Δ‖², as a scalar on the device; NaN where Δ = 0.

    Args:
        step: Δ = θ_{t+1} − θ_t, one tensor a parameter.
        gradient_change: g_{t+1} − g_t, in the same shapes.

    >>> float(secant_curvature([torch.tensor([0.5, 0.0])], [torch.tensor([1.0, 7.0])]))
    2.0
    """
    return _dot(gradient_change, step) / _dot(step, step)


def growth_factor(step: Sequence[Tensor], last_step: Sequence[Tensor]) -> Tensor:
    """Signed factor by which steps grow, Δ_t·Δ_{t−1} / ‖Δ_{t−1}‖², as a scalar on the device.

    For gradient descent it is 1 − η times the curvature along Δ_{t−1}: −1 at the edge, below it while an oscillation
    grows, above it while it shrinks, positive in a monotone descent.

    >>> float(growth_factor([torch.tensor([-1.5])], [torch.tensor([1.0])]))
    -1.5
    """
    return _dot(step, last_step) / _dot(last_step, last_step)


@dataclass
class EdgeMonitor:
    """Probe of every step of a full-batch descent: secant curvature and growth factor, without a product.

    It keeps the last parameters, gradients and step, three vectors of the parameters' size, and never waits for the
    device. Called with the parameters before each step, it knows the curvature of the step before last call to this
    one; skipped steps make it the mean curvature over all of them.
    """

    _last: tuple[list[Tensor], list[Tensor]] | None = field(default=None, repr=False)
    _last_step: list[Tensor] | None = field(default=None, repr=False)
    _records: list[tuple[int, Tensor, Tensor]] = field(default_factory=list, repr=False)

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Takes in the parameters before a step, and their gradients."""
        with torch.no_grad():
            here = [p.detach().clone() for p in parameters]
            slopes = [g.detach().clone() for g in gradients]
            if self._last is not None:
                # What a checkpoint held comes back on the CPU.
                there, before = (_beside(kept, here) for kept in self._last)
                moved = [a - b for a, b in zip(here, there, strict=True)]
                changed = [a - b for a, b in zip(slopes, before, strict=True)]
                factor = here[0].new_tensor(torch.nan)
                if self._last_step:
                    factor = growth_factor(moved, _beside(self._last_step, here))
                self._records.append((step, secant_curvature(moved, changed), factor))
                self._last_step = moved
            self._last = here, slopes

    def state_dict(self) -> dict[str, Any]:
        """All that was measured, and what the next measurement depends on."""
        return {
            "last": None if self._last is None else list(self._last),
            "last_step": self._last_step,
            "steps": [step for step, _, _ in self._records],
            "records": torch.stack([torch.stack(pair) for _, *pair in self._records]) if self._records else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        self._last = None if state["last"] is None else (state["last"][0], state["last"][1])
        self._last_step = state["last_step"]
        table = [] if state["records"] is None else state["records"]
        self._records = [(int(step), *pair) for step, pair in zip(state["steps"], table, strict=True)]

    def dataset(self) -> xr.Dataset:
        """Dimension ``monitored`` (the step that was reached): ``secant_curvature`` and ``growth_factor``."""
        data = xr.Dataset(coords={"monitored": [step for step, _, _ in self._records]})
        pairs = [torch.stack([curvature.cpu(), factor.cpu()]) for _, curvature, factor in self._records]
        table = torch.stack(pairs).double().numpy() if pairs else np.empty((0, 2))
        data["secant_curvature"], data["growth_factor"] = ("monitored", table[:, 0]), ("monitored", table[:, 1])
        return data


def _beside(kept: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Tensors on the others' device."""
    return [a.to(b.device) for a, b in zip(kept, others, strict=True)]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
