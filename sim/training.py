"""Descent, full-batch or in minibatches, that keeps every example's loss at every step and can go on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from sim.arithmetic import Arithmetic
from sim.batches import Batches, examples_in, takes_batch_statistics
from sim.checkpoints import Checkpoints
from sim.curvature.mean_loss import ExampleLoss, divides, require_loss_each
from sim.distributed import join_pieces, own_pieces, sum_gradients
from sim.losses import LossRule, require_labels
from sim.progress import progress_bar
from sim.record import Record
from sim.same_run import optimizer_words, require_same_run, run_words
from theory.command_line import InputError, require_positive


class Probe(Protocol):
    """A read-only measurement, called with the parameters before each step is taken."""

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Looks at the parameters and the gradients of the batch's mean loss; must change neither."""
        ...


@runtime_checkable
class StatefulProbe(Protocol):
    """A probe whose later measurements depend on earlier ones; its state goes into checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """Nested dicts and lists of tensors, numbers and text."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        ...


class OptimizerFactory(Protocol):
    """Makes the rule of the steps: a class of `torch.optim`, or `functools.partial` of one with its options."""

    def __call__(self, parameters: list[Tensor], /, *, lr: float) -> torch.optim.Optimizer:
        """The optimiser of these parameters.

        Its `step` is called without a closure; if its attribute `gradients_per_step` is 2, as `sim.optimizers.SAM`'s
        is, with one that computes the gradient of the same batch at the weights as they are then.
        """
        ...


@dataclass(frozen=True)
class Descent:
    """What a run of descent leaves behind.

    Attributes:
        record: every column recorded; ``loss`` (step, example) is the loss of each example at the start of each step,
            whatever its weight, NaN where a minibatch leaves the example out.
        diverged_at: first step with a loss that is not finite, None for a finite run. The network then holds the
            weights of the step before, and the record ends there.
    """

    record: Record
    diverged_at: int | None

    @property
    def data(self) -> xr.Dataset:
        """The record as a data set, opened lazily where it is on disk."""
        return self.record.dataset()

    @property
    def losses(self) -> npt.NDArray[np.floating]:
        """(steps, n) loss of each example at the start of each step, loaded."""
        return np.asarray(self.data["loss"].values)


def descend(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    lr: float,
    steps: int,
    optimizer: OptimizerFactory = torch.optim.SGD,
    loss: ExampleLoss = LossRule(),  # noqa: B008 (frozen)
    example_weights: Tensor | None = None,
    batches: Batches = Batches(),  # noqa: B008
    arithmetic: Arithmetic = Arithmetic(),  # noqa: B008
    probes: Sequence[Probe] = (),
    record: Record | None = None,
    checkpoints: Checkpoints | None = None,
    loss_dtype: str = "float32",
    description: str = "descent",
    progress: bool = True,
) -> Descent:
    """Minimises the mean loss Σ w_i ℓ_i / Σ w_i in place; by default θ ← θ − η∇L(θ) with all examples alike.

    Every example's loss is that of the forward pass whose gradient the step takes; its first, where the optimiser takes
    two. Chunks add up to the gradient of the batch's mean loss, each weighted by its size. With checkpoints, the run
    goes on from the latest one; killed and resumed, it gives the bits of the uninterrupted run (on the same device,
    with as many threads; on a GPU as far as its kernels give the same bits twice, which cuDNN's gradients of
    convolutions do where `torch.backends.cudnn.deterministic` says so).

    Under torchrun all ranks call this together, each with all data: a step's chunks are cut into one piece a rank,
    gradients are summed and losses gathered in order, so that every rank takes the same step. Where
    batch norm or the loss depends on a chunk as a whole, chunks are dealt whole; batch norm's running statistics are
    then those of the rank's own chunks.

    Args:
        network: the network, on the inputs' device.
        inputs: (n, …) all inputs, resident on the device.
        labels: (n,) class indices; whatever another loss takes, (n, …).
        lr: step size η, 0 or more.
        steps: number of steps, 0 or more.
        optimizer: rule of the steps: a class of `torch.optim`, or an `OptimizerChoice`.
        loss: rule of the examples' losses, (n,) from outputs and labels. One that needs all examples of a batch at
            once has an attribute ``divides`` that is False.
        example_weights: (n,) weight w_i ≥ 0 of each example's loss in the mean, of which a minibatch takes its own
            examples' part; all 1 when not given. An example of weight 0 has no gradient, but its loss is recorded, and
            batch norm's statistics include it.
        batches: examples that a step takes, and how many at once.
        arithmetic: number format and memory layout.
        probes: measurements called before each step is taken; the random state is put back after them.
        record: where losses go; in memory when not given.
        checkpoints: where the run's state goes, and comes from: the same call again goes on from the latest one, with
            more steps beyond a finished run's end.
        loss_dtype: float32 or float16, in which losses are stored.
        description: words of the progress bar.
        progress: whether to show it.

    Raises:
        InputError: a number or label out of its range, outputs or labels of another kind than the loss takes, a network
            that is frozen as a whole, LBFGS, chunks that cut batch norm's batch, weights that make no mean, a
            checkpoint of another run or beyond the last step, or a record or checkpoint that cannot be written.
    """
    count, device = len(inputs), inputs.device
    require_positive("step size", lr, zero_allowed=True)
    require_positive("number of steps", steps, zero_allowed=True)
    if not 0 < count == len(labels):
        raise InputError(f"there are {count} inputs and {len(labels)} labels: give as many, at least 1")
    if loss_dtype not in ("float32", "float16"):
        raise InputError(f"loss_dtype is {loss_dtype}: give float32 or float16")
    batches.require_whole_batch_norm(network, count)
    if batches.chunk is not None and batches.chunk < min(batches.size or count, count) and not divides(loss):
        raise InputError(f"chunk of {batches.chunk} examples cuts the batch that the loss needs whole: leave it out")
    record = Record() if record is None else record
    record.declare("loss", ("step", "example"), (count,), loss_dtype)
    inputs = arithmetic.arrange(network, inputs)
    whole = batches.ghost or takes_batch_statistics(network) or not divides(loss)
    require_weights(example_weights, count)
    exact = torch.promote_types(next(network.parameters(), inputs).dtype, torch.float32)
    weights = None if example_weights is None else example_weights.to(exact)
    objective = _Objective(network, inputs, labels, loss, weights, arithmetic, whole)
    if not objective.parameters:
        raise InputError("no parameter of the network requires a gradient: unfreeze those that are to be trained")
    rule = optimizer(list(objective.parameters), lr=lr)
    if isinstance(rule, torch.optim.LBFGS):
        raise InputError("optimizer LBFGS takes as many gradients a step as it likes: give one that takes one, or SAM")
    asked: dict[str, str] = {}
    if checkpoints is not None:  # all numbers of the data are read for it
        rules = {"step_size": lr, "loss": loss, "batches": batches, "arithmetic": arithmetic}
        asked = run_words(network, inputs, labels, example_weights, probes, **rules) | optimizer_words(rule)
    run = _State(network, rule, probes, record, asked)
    begun = run.resume(checkpoints, steps)
    with progress_bar(range(begun, steps), description, show=progress) as bar:
        for step in bar:
            parts = batches.of_step(step, count, device)
            run.keep_buffers()
            losses = objective.backward(parts)
            if not bool(torch.stack([torch.isfinite(losses[part]).all() for part in parts]).all()):
                run.step_back()
                return Descent(record, step)
            record.append("loss", losses)
            run.measure(step)
            run.step_forward(lambda parts=parts: objective.backward_again(parts))  # type: ignore[misc]
            if checkpoints is not None and checkpoints.due():
                checkpoints.save(step + 1, run.state_dict())
            if step % 20 == 0:
                bar.set_postfix(loss=f"{float(losses.nanmean()):.3f}", refresh=False)
    if checkpoints is not None and checkpoints.at_end and begun < steps:
        checkpoints.save(steps, run.state_dict())
    return Descent(record, None)


class _Objective:
    """The losses of a step's examples and the gradient of their mean, which the parameters' `grad` gathers."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        loss: ExampleLoss,
        weights: Tensor | None,
        arithmetic: Arithmetic,
        whole_chunks: bool,
    ) -> None:
        self.network, self.inputs, self.labels, self.loss = network, inputs, labels, loss
        self.weights, self.arithmetic, self.whole_chunks = weights, arithmetic, whole_chunks
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.labels_fit = False  # until a pass shows it

    def backward(self, parts: Sequence[slice | Tensor]) -> Tensor:
        """(n,) losses, NaN outside the batch; adds the gradient of the batch's mean loss to `grad`."""
        losses = torch.full((len(self.inputs),), torch.nan, device=self.inputs.device)
        total = self._total(parts)
        pieces = own_pieces(parts, whole=self.whole_chunks)
        for part in pieces:
            with self.arithmetic.active(self.inputs.device):
                outputs = self.network(self.inputs[part])
                self._require_labels(outputs)
                each = require_loss_each(self.loss(outputs, self.labels[part]), examples_in([part]))
                torch.autograd.backward(self._sum(each, part) / total)
            losses[part] = each.detach().float()
        join_pieces(losses, parts, pieces)
        sum_gradients(self.parameters)
        return losses

    def _sum(self, each: Tensor, part: slice | Tensor) -> Tensor:
        if self.weights is None:
            return each.sum()
        with torch.autocast(each.device.type, enabled=False):  # a product would be taken to bfloat16, weights and all
            return each.to(self.weights) @ self.weights[part]

    def backward_again(self, parts: Sequence[slice | Tensor]) -> None:
        """Puts the gradient at the present weights in `grad`; batch norm's running statistics stay."""
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        self.network.zero_grad()
        self.backward(parts)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def _require_labels(self, outputs: Tensor) -> None:
        """Refuses outputs and labels that are not the loss's, at the first pass."""
        if not self.labels_fit:
            require_labels(self.loss, self.labels, outputs.shape)
        self.labels_fit = True

    def _total(self, parts: Sequence[slice | Tensor]) -> int | Tensor:
        """Number of examples in the batch, or the sum of their weights; 1 where that is 0, and so are all terms."""
        if self.weights is None:
            return examples_in(parts)
        total = torch.stack([self.weights[part].sum() for part in parts]).sum()
        return torch.where(total > 0, total, 1.0)


def require_weights(weights: Tensor | None, count: int) -> None:
    """Refuses weights of so many examples that make no mean.

    Raises:
        InputError: as said.
    """
    if weights is None:
        return
    if weights.shape != (count,) or not bool(torch.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise InputError(
            f"example weights have shape {list(weights.shape)}: give {count} numbers ≥ 0, not all of them 0"
        )


def _load_exactly(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimiser's state with its numbers in their own types: PyTorch casts them to the parameters'."""
    optimizer.load_state_dict(state)
    kept = optimizer.state_dict()["state"]
    for index, stored in state["state"].items():
        for name, value in stored.items():
            if isinstance(value, Tensor) and kept[index][name].dtype != value.dtype:
                kept[index][name] = value.to(kept[index][name].device)


class _State:
    """All that the next step depends on: what a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        probes: Sequence[Probe],
        record: Record,
        asked: Mapping[str, str],
    ) -> None:
        self.network, self.optimizer, self.probes, self.record = network, optimizer, probes, record
        self.asked = dict(asked)
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.previous = [p.detach().clone() for p in self.parameters]
        self.buffers = [b.clone() for b in network.buffers()]
        self.network.zero_grad()

    def measure(self, step: int) -> None:
        """Calls the probes, in plain float32 whatever the run's arithmetic; what they draw leaves its random state."""
        if not self.probes:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        cuda = sorted({p.device.index for p in self.parameters if p.device.type == "cuda"})
        with Arithmetic().active(self.parameters[0].device), torch.random.fork_rng(devices=cuda):
            for probe in self.probes:
                probe(step, self.parameters, gradients)

    def keep_buffers(self) -> None:
        """Keeps the buffers as they are before a pass, which moves batch norm's running statistics."""
        for kept, buffer in zip(self.buffers, self.network.buffers(), strict=True):
            kept.copy_(buffer)

    def step_forward(self, gradient_again: Callable[[], None]) -> None:
        """Takes the step, and keeps the weights it starts from; the closure is for optimisers with two gradients."""
        with torch.no_grad():
            torch._foreach_copy_(self.previous, self.parameters)
        if getattr(self.optimizer, "gradients_per_step", 1) > 1:
            self.optimizer.step(gradient_again)  # type: ignore[arg-type]
        else:
            self.optimizer.step()
        # All of the network's: what the optimiser leaves out would add up from step to step.
        self.network.zero_grad()

    def step_back(self) -> None:
        """Puts back the weights of the step before and the buffers from before this pass, and drops the gradients."""
        self.network.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.previous)
            for kept, buffer in zip(self.buffers, self.network.buffers(), strict=True):
                buffer.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Weights and buffers, optimiser, random state, probes with their eigenvectors, recorded rows."""
        return {
            "asked": self.asked,
            "network": self.network.state_dict(),
            "buffers": list(self.network.buffers()),  # those that are not persistent too
            "optimizer": self.optimizer.state_dict(),
            "previous": self.previous,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.parameters[0].is_cuda else [],
            "probes": [p.state_dict() if isinstance(p, StatefulProbe) else {} for p in self.probes],
            "record": self.record.state_dict(),
        }

    def resume(self, checkpoints: Checkpoints | None, steps: int) -> int:
        """Goes back to the latest checkpoint of a run of so many steps; the number taken, 0 without one."""
        latest = None if checkpoints is None else checkpoints.latest()
        if latest is None:
            return 0
        step, state = latest
        require_same_run(state.get("asked", {}), self.asked)  # earlier versions kept none
        if step > steps:
            raise InputError(f"the checkpoint is of step {step}, beyond {steps} steps: give another folder")
        _load_exactly(self.optimizer, state["optimizer"])
        self.network.load_state_dict(state["network"])
        with torch.no_grad():
            for buffer, stored in zip(self.network.buffers(), state.get("buffers", ()), strict="buffers" in state):
                buffer.copy_(stored)
            for kept, stored in zip(self.previous, state["previous"], strict=True):
                kept.copy_(stored)
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        for probe, held in zip(self.probes, state["probes"], strict=True):
            if isinstance(probe, StatefulProbe):
                probe.load_state_dict(held)
        self.record.load_state_dict(state["record"])
        return step
