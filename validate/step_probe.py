"""How far each measured step goes, and how far along the top eigenvector of the Hessian at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim import Record, SharpnessProbe


@dataclass
class StepProbe:
    """Measures θ_{t+1} − θ_t, whatever rule made it, at the steps t at which the sharpness is measured.

    Columns of the record, along ``step_measured`` (steps t): ``step_along_top``, |⟨θ_{t+1} − θ_t, v_t⟩| with v_t the
    top eigenvector at θ_t, and ``step_length``, ‖θ_{t+1} − θ_t‖. It is called after the sharpness probe.

    Attributes:
        sharpness: the probe that finds the eigenvector.
        record: where the measurements go; in memory when not given.
    """

    sharpness: SharpnessProbe
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        self._start: tuple[int, Tensor, Tensor] | None = None  # step t, θ_t, v_t
        self.record.declare("step_measured", ["step_measured"], dtype=np.int64)
        for name in ("step_along_top", "step_length"):
            self.record.declare(name, ["step_measured"])

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Finishes the measurement of the step before, and begins that of this one where it is due."""
        if self._start is None and step % self.sharpness.every:
            return
        here = torch.cat([p.detach().reshape(-1) for p in parameters])
        if self._start is not None:
            began, there, top = self._start
            taken = here - there
            self.record.append("step_measured", began)
            self.record.append("step_along_top", float((taken @ top.to(taken)).abs()))
            self.record.append("step_length", float(taken.norm()))
            self._start = None
        if step % self.sharpness.every == 0:
            self._start = step, here, self._top()

    def state_dict(self) -> dict[str, Any]:
        """The measurement under way."""
        return {} if self._start is None else dict(zip(("step", "parameters", "top"), self._start, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        device = self.sharpness.inputs.device
        if not state:
            self._start = None
            return
        # Checkpoints of earlier versions have no vector: it is the sharpness probe's, whose state comes first.
        top = state["top"] if "top" in state else self._top()
        self._start = int(state["step"]), state["parameters"].to(device), top.to(device)

    def _top(self) -> Tensor:
        vector = self.sharpness.top_vector
        assert vector is not None, "the sharpness is measured before the step"
        return vector
