"""What a run was begun with, so that no other one goes on from its checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from theory.command_line import InputError


def run_words(
    network: nn.Module, inputs: Tensor, labels: Tensor, weights: Tensor | None, probes: Sequence[object], **rules: Any
) -> dict[str, str]:
    """A run in words, the same for the same run in any process.

    Args:
        network: the network; its weights do not count, as one whose run was cut short holds later ones.
        inputs: its inputs.
        labels: their labels.
        weights: weights of the examples.
        probes: its probes, of which the kinds count.
        rules: rules of the run by name: numbers, text, dataclass instances and functions.
    """
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    modules = [module.training for module in network.modules()]
    size = sum(p.numel() for p in network.parameters())
    return {
        "network's modules": f"{size} parameters {_digest(repr((shapes, network, modules)).encode())}",
        "numbers of the inputs": tensor_words(inputs),
        "numbers of the labels": tensor_words(labels),
        "numbers of the example weights": "none" if weights is None else tensor_words(weights),
        "probes": ", ".join(type(probe).__name__ for probe in probes) or "none",
        **{name.replace("_", " "): _rule_words(rule) for name, rule in rules.items()},
    }


def optimizer_words(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """An optimiser's kind and its options."""
    options = {
        f"{name} of group {i}": repr(value)
        for i, group in enumerate(optimizer.param_groups)
        for name, value in group.items()
        if name != "params"
    }
    return {"optimizer": type(optimizer).__name__, **options}


def require_same_run(there: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Refuses to go on with another run; what only one of the two knows, as another version of this does, is passed.

    Raises:
        InputError: they differ.
    """
    for name in asked:
        if name in there and there[name] != asked[name]:
            what = f"{name}: {there[name]} there, {asked[name]} now"
            raise InputError(f"the checkpoint is of another run ({what}): give another folder")


def tensor_words(tensor: Tensor) -> str:
    """Its type, shape and a digest of its numbers, all of them: half a second of 50,000 images."""
    numbers = tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8).numpy().data
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {_digest(numbers)}"


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _rule_words(rule: Any) -> str:
    if dataclasses.is_dataclass(rule) or isinstance(rule, int | float | str):
        return str(rule)
    return getattr(rule, "__qualname__", type(rule).__qualname__)
