"""Multilayer perceptrons of one shape as one: each layer's weights along a first axis of runs, one product a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sim.networks import require_trained_whole
from theory.command_line import InputError

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.Identity)

HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_post_accumulate_grad_hooks",
)
"""Attributes in which modules and parameters hold what a call of theirs, or a gradient, sets off."""


@dataclass(frozen=True)
class StackedNetworks:
    """Networks f_r(x) = W_L φ(… φ(W_1 x + b_1) …) + b_L with their own weights, r = 1…R.

    Attributes:
        modules: the first network's modules, for their order and activations.
        parameters: in the networks' order: weights (R, in, out), transposed, so that gradients are contiguous; biases
            (R, 1, out).
    """

    modules: tuple[nn.Module, ...]
    parameters: list[Tensor]

    def __len__(self) -> int:
        return len(self.parameters[0])

    @property
    def multiplications(self) -> int:
        """Multiplications that one example takes in the forward pass of one network."""
        return sum(m.in_features * m.out_features for m in self.modules if isinstance(m, nn.Linear))

    def some(self, runs: slice) -> StackedNetworks:
        """Copies of some of the networks."""
        return replace(self, parameters=[p[runs].clone() for p in self.parameters])

    def outputs(self, inputs: Tensor) -> Tensor:
        """(R, n, out) outputs of inputs (R, n, in), which may be expanded."""
        values, left = inputs, iter(self.parameters)
        for module in self.modules:
            if not isinstance(module, nn.Linear):
                values = module(values)
            elif module.bias is None:
                values = torch.bmm(values, next(left))
            else:
                weight = next(left)
                values = torch.baddbmm(next(left), values, weight)
        return values


def stack_networks(networks: Sequence[nn.Sequential]) -> StackedNetworks:
    """Copies the parameters of networks of one shape, such as `sim.mlp` makes, into a stack.

    Raises:
        InputError: no network, one that is not a chain of linear maps and elementwise activations and nothing more,
            frozen or shared parameters, or shapes that differ.
    """
    if not networks:
        raise InputError("there is no network: give at least one")
    for network in networks:
        _require_chain(network)
        if str(network) != str(networks[0]):
            raise InputError("networks have different layers: give networks of one shape")
    rows = zip(*(network.parameters() for network in networks), strict=True)
    # A linear map is x ↦ x Wᵀ + b in PyTorch.
    stacked = [torch.stack([(p.detach().T if p.ndim == 2 else p.detach()[None]).contiguous() for p in r]) for r in rows]
    return StackedNetworks(tuple(networks[0]), stacked)


def _require_chain(network: nn.Sequential) -> None:
    """Refuses a network that does something else than its modules, one after the other, as the stack takes them.

    Classes are compared exactly: a class made of one of these may have another forward pass.
    """
    if type(network) is not nn.Sequential:
        raise InputError(f"network is of class {type(network).__name__}: give an nn.Sequential itself")
    strange = [m for m in network if type(m) not in (nn.Linear, *ELEMENTWISE)]
    if strange or not any(type(m) is nn.Linear for m in network):
        words = f"has {strange[0]}" if strange else "has no linear map"
        raise InputError(f"network {words}: give linear maps with ReLU, tanh or GELU between them")
    require_trained_whole(network)
    hooked = [p for p in (network, *network, *network.parameters()) if any(getattr(p, name, None) for name in HOOKS)]
    if hooked:
        raise InputError(f"network has hooks (on {type(hooked[0]).__name__}), which a stack leaves out: remove them")
    if sum(len(list(m.parameters())) for m in network) > len(list(network.parameters())):
        raise InputError(
            "network has one parameter in two places, and a stack would move them apart: give each its own"
        )


def flatten_stack(parts: Sequence[Tensor]) -> Tensor:
    """(R, size) vectors, in the order of `network.parameters()`, of tensors shaped as stacked parameters."""
    return torch.cat([part.mT.reshape(len(part), -1) for part in parts], 1)


def unflatten_stack(vectors: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undoes `flatten_stack`."""
    parts = torch.split(vectors, [p[0].numel() for p in like], 1)
    return [part.view(p.mT.shape).mT for part, p in zip(parts, like, strict=True)]
