"""The loss whose curvature is measured: a weighted sum of the examples' losses, evaluated in chunks of examples."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sim.batches import takes_batch_statistics
from theory.command_line import InputError

ExampleLoss = Callable[[Tensor, Tensor], Tensor]

NO_LABEL = torch.iinfo(torch.int64).min
"""Label that cross-entropy may leave out: none. By its default it leaves out −100, and the mean counts those all the
same."""

cross_entropy: ExampleLoss = functools.partial(F.cross_entropy, reduction="none", ignore_index=NO_LABEL)
"""(m, classes) outputs and (m,) labels → (m,) losses in nats."""


def divides(loss: ExampleLoss) -> bool:
    """Whether an example's loss depends on that example alone: unless its attribute ``divides`` says no."""
    return bool(getattr(loss, "divides", True))


@dataclass(frozen=True)
class MeanLoss:
    """L(θ) = Σ_i w_i ℓ(f(x_i; θ), y_i) with w_i = 1/n unless given: the mean over the data, or over some examples.

    Every chunk's part enters with its own weights, so the sum over chunks is the mean whatever the chunks' sizes. The
    network is never touched: it is evaluated at the parameters handed in and on copies of its buffers.

    Attributes:
        network: the network; its structure, mode and buffers are used, not its parameters.
        inputs: (n, …) all inputs, on the network's device.
        targets: (n, …) all targets.
        loss: (m, …) outputs and (m, …) targets → (m,) losses, one an example.
        weights: (n,) weight of each example, None for 1/n each.
        ghost_batches: declares that batch norm in training mode takes its statistics from each chunk. They then define
            the loss together with the chunk; without the declaration such a network is evaluated in one piece only.

    Raises:
        InputError: no examples, numbers of inputs, targets and weights that differ, or active dropout, with which the
            loss is not a function of the parameters.
    """

    network: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: ExampleLoss = cross_entropy
    weights: Tensor | None = None
    ghost_batches: bool = False

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if not n or len(self.targets) != n or (self.weights is not None and self.weights.shape != (n,)):
            weights = "none" if self.weights is None else list(self.weights.shape)
            raise InputError(
                f"{n} inputs, {len(self.targets)} targets, weights {weights}: give one of each to every example"
            )
        if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in self.network.modules()):
            raise InputError("the network drops units at random: call eval() before measuring its curvature")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def divisible(self) -> bool:
        """Whether the loss is the sum of its chunks' losses.

        It is not with batch norm over the whole batch, nor where the loss says that it needs all examples at once.
        """
        return divides(self.loss) and (self.ghost_batches or not takes_batch_statistics(self.network))

    def group(self, examples: Tensor) -> MeanLoss:
        """Mean loss over some examples, given by index or by a mask: its Hessian is that of the group.

        Raises:
            InputError: no examples are chosen.
        """
        return replace(self, inputs=self.inputs[examples], targets=self.targets[examples], weights=None)

    def in_float64(self) -> MeanLoss:
        """The same loss in float64, of a copy of the network: residuals of its products go far below float32's.

        Evaluated, it raises an `InputError` where the loss function holds float32 tensors that do not fit.
        """
        network, loss = copy.deepcopy(self.network).double(), _of_float64(self.loss)
        inputs, targets = (t.double() if t.is_floating_point() else t for t in (self.inputs, self.targets))
        weights = None if self.weights is None else self.weights.double()
        return replace(self, network=network, inputs=inputs, targets=targets, loss=loss, weights=weights)

    def chunks(self, size: int | None = None) -> Iterator[slice]:
        """Slices of at most `size` examples, in order; one slice for None.

        Raises:
            InputError: the size is not positive, or the loss does not divide (see `ghost_batches`).
        """
        n = len(self)
        size = n if size is None else size
        if size < 1:
            raise InputError(f"chunk is {size}: give at least 1 example")
        if size < n and not divides(self.loss):
            raise InputError(f"chunk is {size} of {n} examples, and the loss needs them all at once: take no chunks")
        if size < n and not self.divisible:
            raise InputError(
                f"chunk is {size} of {n} examples, and batch norm in training mode makes the loss depend on it: "
                "take all examples at once, or set ghost_batches"
            )
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def outputs(self, parameters: Sequence[Tensor], chunk: slice) -> Tensor:
        """(m, …) outputs of the network for a chunk's examples at the given parameters.

        Raises:
            InputError: the network draws random numbers.
        """
        names = [name for name, _ in self.network.named_parameters()]
        state = dict(zip(names, parameters, strict=True))
        # Batch norm updates its running statistics in place: on copies.
        state |= {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with _refusing_chance(self.inputs.device):
            output: Tensor = torch.func.functional_call(self.network, state, (self.inputs[chunk],))
        return output

    def of_outputs(self, outputs: Tensor, chunk: slice) -> Tensor:
        """The chunk's part of the loss, Σ_i w_i ℓ_i, from its outputs.

        Raises:
            InputError: the loss function does not give one loss an example.
        """
        each = require_loss_each(self.loss(outputs, self.targets[chunk]), len(outputs))
        return each.sum() / len(self) if self.weights is None else each @ self.chunk_weights(chunk).to(each)

    def chunk_weights(self, chunk: slice) -> Tensor:
        """(m,) weights w_i of a chunk's examples; in float64 where they are 1/n."""
        if self.weights is not None:
            return self.weights[chunk]
        count = len(self.inputs[chunk])
        return torch.full((count,), 1 / len(self), dtype=torch.float64, device=self.inputs.device)

    def of_chunk(self, parameters: Sequence[Tensor], chunk: slice) -> Tensor:
        """The chunk's part of the loss at the given parameters."""
        return self.of_outputs(self.outputs(parameters, chunk), chunk)

    def gradient(self, parameters: Sequence[Tensor], chunk: int | None = None) -> Tensor:
        """(size,) gradient at the given parameters, accumulated over chunks of so many examples."""
        leaves = leaves_at(parameters)
        total = torch.zeros(sum(p.numel() for p in leaves), device=leaves[0].device, dtype=leaves[0].dtype)
        for piece in self.chunks(chunk):
            total += flatten(gradients(self.of_chunk(leaves, piece), leaves))
        return total


@contextlib.contextmanager
def _refusing_chance(device: torch.device) -> Iterator[None]:
    """Refuses a pass that draws random numbers, as dropout does that is no module of that name."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    yield
    if not all(torch.equal(state, generator.get_state()) for state, generator in zip(before, generators, strict=True)):
        for state, generator in zip(before, generators, strict=True):
            generator.set_state(state)
        raise InputError(
            "the network draws random numbers in its forward pass: call eval() before measuring its curvature, or drop "
            "units by nn.Dropout alone, which probes switch off"
        )


def require_loss_each(losses: Tensor, count: int) -> Tensor:
    """The losses; a mean in their place, as most of PyTorch's losses give, would make a gradient of another size.

    Raises:
        InputError: there is not one for each of so many examples.
    """
    if losses.shape != (count,):
        raise InputError(f"losses have shape {list(losses.shape)}: give one for each of {count} examples")
    return losses


def _of_float64(loss: ExampleLoss) -> ExampleLoss:
    """The loss, which says what is wrong where it takes no outputs in float64."""

    def of_float64(outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            return loss(outputs, targets)
        except RuntimeError as error:
            if "double" not in str(error).lower():
                raise
            raise InputError(
                f"the loss takes no float64 ({str(error).splitlines()[0]}): have it give tensors of its own, such as "
                "class weights, the outputs' type"
            ) from None

    of_float64.divides = divides(loss)  # type: ignore[attr-defined]
    return of_float64


def leaves_at(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the parameters that require gradients: what is built on them stays at this point."""
    return [p.detach().clone().requires_grad_() for p in parameters]


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Σ_j ∂(outputs_j · cotangents_j)/∂inputs, zeros where nothing depends on an input (a linear loss, say)."""
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    cotangents = [cotangents] if isinstance(cotangents, Tensor) else cotangents
    seeds = cotangents if cotangents is not None else itertools.repeat(None)
    live = [(output, seed) for output, seed in zip(outputs, seeds, strict=False) if output.requires_grad]
    if not live:
        return [torch.zeros_like(i) for i in inputs]
    return list(
        torch.autograd.grad(
            [output for output, _ in live],
            list(inputs),
            None if cotangents is None else [seed for _, seed in live],
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def flatten(parts: Sequence[Tensor]) -> Tensor:
    """One flat vector of all entries."""
    return torch.cat([part.reshape(-1) for part in parts])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undoes `flatten`: views of the vector in the shapes of `like`."""
    parts = torch.split(vector, [p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]
