"""Multilayer perceptrons of one shape as one: each layer's weights along a first axis of runs, one product a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from theory.command_line import InputError

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.Identity)


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
        InputError: no network, modules other than linear maps and elementwise activations, or shapes that differ.
    """
    if not networks:
        raise InputError("there is no network: give at least one")
    for network in networks:
        strange = [m for m in network if not isinstance(m, (nn.Linear, *ELEMENTWISE))]
        if strange or not any(isinstance(m, nn.Linear) for m in network):
            words = f"has {strange[0]}" if strange else "has no linear map"
            raise InputError(f"network {words}: give linear maps with ReLU, tanh or GELU between them")
        if str(network) != str(networks[0]):
            raise InputError("networks have different layers: give networks of one shape")
    rows = zip(*(network.parameters() for network in networks), strict=True)
    # A linear map is x ↦ x Wᵀ + b in PyTorch.
    stacked = [torch.stack([(p.detach().T if p.ndim == 2 else p.detach()[None]).contiguous() for p in r]) for r in rows]
    return StackedNetworks(tuple(networks[0]), stacked)


def flatten_stack(parts: Sequence[Tensor]) -> Tensor:
    """(R, size) vectors, in the order of `network.parameters()`, of tensors shaped as stacked parameters."""
    return torch.cat([part.mT.reshape(len(part), -1) for part in parts], 1)


def unflatten_stack(vectors: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undoes `flatten_stack`."""
    parts = torch.split(vectors, [p[0].numel() for p in like], 1)
    return [part.view(p.mT.shape).mT for part, p in zip(parts, like, strict=True)]
