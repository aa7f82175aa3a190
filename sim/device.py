"""Choice of the device that a computation runs on."""

from __future__ import annotations

import torch

from theory.command_line import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a CUDA GPU where there is one, else the CPU.

    On a GPU float32 then means float32 in convolutions too, where PyTorch takes TensorFloat-32 unless told otherwise:
    curvature would be measured in that. A run's `sim.Arithmetic` still chooses for its steps.

    Raises:
        InputError: no such device on this machine.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise InputError(f"--device is {name}, which is not on this machine: give cpu or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device is {name}, which has no float64: give cpu, cuda or auto")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def describe_device(device: torch.device) -> str:
    """The device in words, for a run's record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
