"""Many multilayer perceptrons descend at once, each with its own weights and step size, by batched matrix products.

A loop over single networks spends its time on calls where the networks are small; stacked, a layer of all networks is
one `torch.bmm`, and its gradient two. As many runs descend together as keep the work of a step under `LARGEST_WORK`, at
least one, and the groups of runs descend one after the other. The rule and the choice of `bmm` were measured on a CPU,
one thread (benchmarks/batched_networks.py; GPU: not measured): stacking is 14 times as fast as a bare loop at 10⁴
operations a step, 1.1 times at 5·10⁷ and gains nothing from 10⁹, where stacks of one bound the memory. There
`sim.descend` run by run is about a tenth faster. `torch.func.vmap` of `grad` takes up to 1.7 times as long on the small
networks and as long as a bare loop on the large ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim.batched_sharpness import Sharpness, SharpnessOfRuns
from sim.batches import Batches, examples_in
from sim.curvature.mean_loss import ExampleLoss, cross_entropy
from sim.progress import progress_bar
from sim.stacked_losses import StackedLosses
from sim.stacked_networks import flatten_stack, stack_networks
from sim.update_rules import Rule
from theory.command_line import require_positive

LARGEST_WORK = 1 << 30
"""Floating-point operations of a step up to which runs descend together, counting 6 an example and weight."""


def descend_networks(
    networks: Sequence[nn.Sequential],
    inputs: Tensor,
    labels: Tensor,
    rule: Rule,
    steps: int,
    *,
    loss: ExampleLoss = cross_entropy,
    batches: Batches | Sequence[Batches] = Batches(),  # noqa: B008 (frozen)
    record_every: int = 1,
    groups: Mapping[str, Tensor] | None = None,
    example_losses: bool = False,
    sharpness: Sharpness | None = None,
    runs_together: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Minimises each network's mean loss by one rule; each run is what `sim.descend` makes of its network alone.

    Args:
        networks: one a run, of one shape, such as `sim.mlp` makes; copied. Their type and device are those the runs
            are made in.
        inputs: (n, in) inputs of all runs, or (run, n, in).
        labels: (n, …) labels of all runs, or (run, n, …) with inputs of that form.
        rule: the update rule; its numbers may be one a run.
        steps: number of steps.
        loss: (m, out) outputs and (m, …) labels to (m,) losses, such as a `LossRule`.
        batches: examples that a step takes; several, one a run, may differ in the seed of their order.
        record_every: steps between records; steps 0, record_every, … below `steps` are recorded.
        groups: (n,) or (run, n) masks of groups of examples whose mean losses are recorded.
        example_losses: whether to record every example's loss.
        sharpness: when to measure the sharpness; never when not given.
        runs_together: number of runs in a stack; by the rule of this module when not given.
        progress: whether to show a progress bar.

    Returns:
        Data set: ``loss`` (step, run), the mean over the step's batch before the step; ``loss_<group>`` likewise, NaN
        where the batch has none of the group; ``example_loss`` (step, run, example), NaN outside the batch;
        ``sharpness``, ``residual`` and ``converged`` (measured, run); ``diverged_at`` (run), the first step with a loss
        that is not finite, −1 if there is none: what is recorded from then on is NaN; ``final_parameters`` (run,
        parameter) in the order of `network.parameters()`: those after the last step, or those that the step before the
        divergence started from.

    Raises:
        InputError: shapes do not fit, a network is no plain chain, trained whole, or a number is out of its range.
    """
    require_positive("steps", steps)
    require_positive("record_every", record_every)
    stack = stack_networks(networks)
    count = len(networks)
    problem = StackedLosses.of(stack, inputs, labels, loss, batches, groups or {})
    rule.start(stack.parameters[0].new_zeros(count, 1, 1))  # refuses numbers that are not one a run
    if runs_together is None:
        # The sharpness passes all examples of all runs at once.
        runs_together = max(1, LARGEST_WORK // problem.work(whole=sharpness is not None))
    require_positive("runs_together", runs_together)
    plan = _Plan(steps, record_every, example_losses, sharpness, progress)
    chosen = [slice(begin, min(begin + runs_together, count)) for begin in range(0, count, runs_together)]
    parts = [_descend(problem.some(runs), _of_runs(rule, runs, count), plan, f"runs to {runs.stop}") for runs in chosen]
    return xr.concat(parts, "run", data_vars="minimal", coords="minimal", compat="override", join="exact")


@dataclass(frozen=True)
class _Plan:
    steps: int
    record_every: int
    example_losses: bool
    sharpness: Sharpness | None
    progress: bool


def _descend(problem: StackedLosses, rule: Rule, plan: _Plan, description: str) -> xr.Dataset:
    """The runs of one stack."""
    parameters = [p.requires_grad_() for p in problem.stack.parameters]
    previous = [p.detach().clone() for p in parameters]
    take_steps = [rule.start(p.detach()) for p in parameters]
    shape, device = problem.inputs.shape[:2], parameters[0].device
    diverged_at = torch.full(shape[:1], -1, device=device)
    records: list[dict[str, Tensor]] = []
    probe = None if plan.sharpness is None else SharpnessOfRuns(problem, plan.sharpness)
    for step in progress_bar(range(plan.steps), description, show=plan.progress):
        parts = problem.of_step(step)
        losses = torch.full(shape, torch.nan, dtype=parameters[0].dtype, device=device)
        finite = torch.ones(shape[0], dtype=torch.bool, device=device)
        gradients: list[Tensor] = []
        for part in parts:
            each = problem.losses(parameters, part)
            # Each run's mean loss depends on its own parameters alone, so the gradient of their sum is every run's own.
            new = torch.autograd.grad(each.sum() / examples_in(parts), parameters)
            gradients = [g.add_(n) for g, n in zip(gradients, new, strict=True)] if gradients else list(new)
            # In float32, in which `sim.descend` keeps losses, so that both call the same runs divergent.
            finite &= each.detach().float().isfinite().all(1)
            problem.place(losses, each.detach(), part)
        diverged_at = torch.where((diverged_at < 0) & ~finite, step, diverged_at)
        gone = diverged_at >= 0
        with torch.no_grad():
            if bool(gone.any()):
                _step_back(parameters, previous, gone)
            if step % plan.record_every == 0:
                losses[gone] = torch.nan
                records.append(_record(losses, problem.groups, plan.example_losses))
            if probe is not None and step % probe.settings.every == 0:
                probe.measure(step, parameters, gone)
            torch._foreach_copy_(previous, parameters)
            for take_step, parameter, gradient in zip(take_steps, parameters, gradients, strict=True):
                take_step(parameter, gradient)
    with torch.no_grad():
        _step_back(parameters, previous, diverged_at >= 0)
    data = xr.Dataset(coords={"step": np.arange(0, plan.steps, plan.record_every)})
    for name in records[0]:
        dims = ("step", "run", "example") if name == "example_loss" else ("step", "run")
        data[name] = dims, torch.stack([record[name] for record in records]).cpu().numpy()
    if probe is not None:
        data = data.merge(probe.dataset())
    data["diverged_at"] = "run", diverged_at.cpu().numpy()
    data["final_parameters"] = ("run", "parameter"), flatten_stack(parameters).detach().cpu().numpy()
    return data


def _record(losses: Tensor, groups: Mapping[str, Tensor], example_losses: bool) -> dict[str, Tensor]:
    # A run that diverged is NaN in every example, so that its mean over none is NaN too.
    recorded = {"loss": losses.nanmean(1)}
    recorded |= {f"loss_{name}": losses.where(mask, torch.nan).nanmean(1) for name, mask in groups.items()}
    return recorded | ({"example_loss": losses} if example_losses else {})


def _step_back(parameters: list[Tensor], previous: list[Tensor], gone: Tensor) -> None:
    """Puts runs that diverged back to the weights that their last step started from."""
    for parameter, before in zip(parameters, previous, strict=True):
        parameter.copy_(torch.where(gone[:, None, None], before, parameter))


def _of_runs(rule: Rule, runs: slice, count: int) -> Rule:
    """The rule of some of the runs: numbers that are one a run are cut."""
    assert dataclasses.is_dataclass(rule)
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    of_each = {k: v[runs] for k, v in values.items() if isinstance(v, Tensor) and v.shape == (count,)}
    cut: Rule = dataclasses.replace(rule, **of_each)
    return cut
