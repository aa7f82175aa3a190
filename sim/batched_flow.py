"""Gradient flow θ' = −∇L(θ) of many linear networks at once, from second moments, each run at its own step size.

The explicit Runge–Kutta pair of orders 5 and 4 of Dormand & Prince (1980), which goes on with the fifth-order result:
seven stages, six gradients a step, since the last stage is the next step's first. Each run has its own error, step size
and time, and waits at the times asked for until the last run is there.

A step is held below the method's limit of stability on the negative axis, step × sharpness < 3.3, before errors grow
to show it. One power iteration a step, u ← Hu/‖Hu‖ by a difference of gradients, follows the Hessian's eigenvalue of
largest size, since the flow moves slowly beside it; it is the seventh gradient of a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from sim.batched_descent import Start, linear_network
from sim.linear_network import LinearNetwork, dataset
from sim.progress import progress_bar
from sim.second_moments import SecondMoments
from theory.command_line import InputError, require_positive

STABILITY = 3.0
"""Largest step × curvature by power iteration. The method is stable up to 3.3; the estimate lies below the truth."""

SAFETY, LEAST_FACTOR, LARGEST_FACTOR = 0.9, 0.2, 5.0
"""The step size after a step is SAFETY · error^(−1/5) times the last one, within these factors of it."""

# y_i = y + h Σ_j A_ij k_j; the last row is the fifth-order result itself.
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# fifth minus fourth order
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def flow_batch(
    moments: SecondMoments,
    start: Start,
    times: npt.ArrayLike,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-12,
    largest_step: float = np.inf,
    groups: Mapping[str, SecondMoments] | None = None,
    pairs: int = 1,
    sharpness: bool = True,
    keep_weights: bool = False,
    progress: bool = False,
    max_steps: int = 100_000,
) -> xr.Dataset:
    """Integrates the flow of every run of a batch, each run with its own data, start and step size.

    Args:
        moments: second moments, as in `sim.batched_descent.descend_batch`.
        start: weights at time 0, as there: a two-layer network's, or the layers of a deep one.
        times: (n,) increasing times at which to record, the first at least 0.
        rtol: relative tolerance of a step: the mean square of error / (atol + rtol |weight|) over the weights of a
            run is at most 1.
        atol: absolute tolerance of a step.
        largest_step: no step is larger.
        groups: as in `descend_batch`.
        pairs: as in `descend_batch`.
        sharpness: as in `descend_batch`.
        keep_weights: whether to record all weights.
        progress: whether to show a progress bar.
        max_steps: steps between two recorded times at which to give up.

    Returns:
        Data set with dimension ``time`` in place of ``step``, with what `descend_batch` records, and ``flow_step``, the
        size of the step to come, and without time ``steps_taken`` and ``steps_rejected`` of each run;
        ``diverged_at`` is the first recorded time at which weights are not finite, −1 if there is none.

    Raises:
        InputError: times do not increase from 0 on, a number is out of its range, shapes do not fit, or a run takes
            more than `max_steps`.
    """
    at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if at.size == 0 or not (at[0] >= 0 and np.isfinite(at).all() and (np.diff(at) > 0).all()):
        raise InputError("times of the flow must increase from a first one of at least 0")
    network = linear_network(moments, start, groups, pairs, sharpness)
    rounding = torch.finfo(network.start.dtype).eps
    require_positive("atol", atol)
    if not 10 * rounding <= rtol < np.inf:
        raise InputError(f"rtol is {rtol}: give at least {10 * rounding:.1e}, ten times the weights' rounding")
    if not largest_step > 0:
        raise InputError(f"largest_step is {largest_step}: give a number above 0")

    flow = _Flow(network, rtol, atol, largest_step)
    records = []
    diverged_at = torch.full_like(flow.time, -1)
    for target in progress_bar(at, "flow from second moments", show=progress):
        flow.advance(float(target), max_steps)
        records.append(network.record(flow.theta) | {"flow_step": flow.step})
        if keep_weights:
            records[-1]["weights"] = network.own_weights(flow.theta).clone()
        diverged_at = torch.where((diverged_at < 0) & ~flow.finite, float(target), diverged_at)
    data = dataset(records, network.dimensions, "time", at, diverged_at)
    for name in ("steps_taken", "steps_rejected"):
        data[name] = data["diverged_at"].dims, getattr(flow, name).cpu().numpy()
    return data


class _Flow:
    """The state of all runs; every attribute but the weights has the batch's shape."""

    def __init__(self, network: LinearNetwork, rtol: float, atol: float, largest_step: float) -> None:
        self.network, self.rtol, self.atol, self.largest_step = network, rtol, atol, largest_step
        self.theta = theta = network.start
        self.stages = theta.new_empty(7, *theta.shape)
        self._velocity(theta, 0)
        # A hundredth of the time in which the weights would move by their own size.
        speed = self._norm(self.stages[0] / (atol + rtol * theta.abs()))
        size = self._norm(theta / (atol + rtol * theta.abs()))
        first = torch.where((speed > 0) & (size > 0), 0.01 * size / speed, 1e-6)
        self.step = first.clamp(max=largest_step)
        self.time = torch.zeros_like(first)
        self.steps_taken = torch.zeros_like(first, dtype=torch.int64)
        self.steps_rejected = torch.zeros_like(self.steps_taken)
        self.finite = theta.sum((-2, -1)).isfinite()
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(theta.shape[-2:], generator=generator, dtype=torch.float64).to(theta)
        self.direction = (direction / direction.norm()).expand_as(theta)
        self.shifted = torch.empty_like(theta)

    def advance(self, target: float, max_steps: int) -> None:
        """Brings every run to a later time."""
        for _ in range(max_steps):
            left = target - self.time
            moving = (left > 0) & self.finite
            if not bool(moving.any()):
                return
            # Steps are not to leave a rest of next to nothing behind.
            last = self.step >= left * (1 - 1e-9)
            self._advance_once(moving, torch.where(last, left, self.step), last, target)
        raise InputError(f"the flow takes more than {max_steps} steps to time {target}: raise rtol, atol or max_steps")

    def _advance_once(self, moving: Tensor, step: Tensor, last: Tensor, target: float) -> None:
        theta, error = self._try(torch.where(moving, step, 0.0))
        good = moving & (error <= 1)  # not where it is NaN
        self.theta = torch.where(good[..., None, None], theta, self.theta)
        self.stages[0] = torch.where(good[..., None, None], self.stages[6], self.stages[0])
        self.time = torch.where(good, torch.where(last, target, self.time + step), self.time)
        self.steps_taken += good
        self.steps_rejected += moving & ~good

        factor = (SAFETY * error.clamp_min(1e-10) ** -0.2).nan_to_num(nan=LEAST_FACTOR)
        factor = factor.clamp(LEAST_FACTOR, LARGEST_FACTOR)
        new = step * torch.where(good, factor, factor.clamp(max=SAFETY))
        new = torch.where(good & last, torch.maximum(new, self.step), new)  # a step cut short says nothing against more
        new = torch.minimum(new, STABILITY / self._curvature()).clamp(max=self.largest_step)
        self.step = torch.where(moving, new, self.step)

    def _try(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step of each run ends, and its error in units of the tolerance."""
        stages, theta, h = self.stages, self.theta, step[..., None, None]
        here = theta
        for i in range(1, 7):
            here = theta + h * _combine(_STAGES[i], stages)
            self._velocity(here, i)
        error = h * _combine(_ERROR, stages)
        scale = self.atol + self.rtol * torch.maximum(theta.abs(), here.abs())
        return here, self._norm(error / scale)

    def _curvature(self) -> Tensor:
        """One power iteration at the weights: ‖Hu‖ of each run."""
        size = self.theta.flatten(-2).norm(dim=-1).clamp_min(1.0)[..., None, None]
        shift = torch.finfo(size.dtype).eps ** 0.5 * size
        self.network.gradient(self.theta + shift * self.direction, self.shifted)
        image = (self.shifted + self.stages[0]) / shift  # the velocity is −∇L
        curvature: Tensor = image.flatten(-2).norm(dim=-1)
        self.direction = torch.where(
            (curvature > 0)[..., None, None], image / curvature[..., None, None], self.direction
        )
        return curvature

    def _velocity(self, theta: Tensor, stage: int) -> None:
        self.network.gradient(theta, self.stages[stage])
        self.stages[stage].neg_()

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        """Root mean square over a run's weights."""
        return x.square().mean((-2, -1)).sqrt()


def _combine(coefficients: tuple[float, ...], stages: Tensor) -> Tensor:
    """Σ_j coefficient_j stage_j."""
    combined: Tensor = torch.tensordot(stages.new_tensor(coefficients), stages[: len(coefficients)], 1)
    return combined
