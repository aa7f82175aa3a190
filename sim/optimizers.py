"""Two optimisers that `torch.optim` lacks: `SplitSGD` and sharpness-aware minimisation, `SAM`.

SplitSGD takes sign steps where the gradient is large, plain steps elsewhere.

For each coordinate, with threshold r, momentum μ and dampening τ:

    |g| > r:   θ ← θ − η_sign sign(g),    v ← μ v
    else:      v ← μ v + (1 − τ) g,       θ ← θ − η v

Dampened momentum descent alone is `torch.optim.SGD(momentum=…, dampening=…)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

Tensors = tuple[Tensor, ...] | list[Tensor]


class SplitSGD(Optimizer):
    """SGD that takes a step of fixed size on coordinates with a large gradient, as Adam does near opposing signals.

    Along an opposing feature the gradient is large and changes its sign every step. Adam answers with a bounded step
    there; this rule takes from Adam that and nothing else.

    Source: the idea is Rosenfeld & Risteski 2023 (arXiv 2311.04163). Their exact listing is not at hand; what follows
    are our choices: the threshold is one absolute number a parameter group, compared with the newest gradient (weight
    decay included) and not with the momentum; the sign is the newest gradient's too; large gradients never enter the
    momentum buffer, so that a plain step is at most η r max(1, (1 − τ)/(1 − μ)) a coordinate; a coordinate that takes a
    sign step takes no plain one; a gradient of exactly r is not large. The buffer starts at the first gradient,
    undampened, as `torch.optim.SGD`'s does: with an infinite threshold this is that optimizer, bit for bit, and with
    threshold 0 it is sign descent.

    Other methods bear the same name: Sordello & Su 2019 (arXiv 1910.08597), which splits SGD's *runs* to detect
    stationarity, and an optimizer for bfloat16 weights. This is neither.

    Args:
        params: parameters, named parameters or groups of them; floating point, with dense gradients.
        lr: step size η of the plain steps.
        sign_lr: step size η_sign of the sign steps.
        threshold: r, the size of gradient above which a coordinate takes a sign step; may be infinite.
            `gradient_quantile` finds one.
        momentum: μ in [0, 1).
        dampening: τ in [0, 1]; needs momentum.
        weight_decay: added to the gradient times the weight, as in `torch.optim.SGD`.
        maximize: ascend.

    Raises:
        ValueError: a number is out of its range.

    >>> weights = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = SplitSGD([weights], lr=0.5, sign_lr=0.25, threshold=1.0, momentum=0.0, dampening=0.0)
    >>> weights.grad = torch.tensor([100.0, 1.0])
    >>> optimizer.step()
    >>> weights.data
    tensor([0.7500, 0.5000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        sign_lr: float,
        threshold: float,
        momentum: float = 0.9,
        dampening: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "sign_lr": sign_lr,
            "threshold": threshold,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group with its own numbers; those left out are the optimizer's."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            The closure's loss; None without one.

        Raises:
            RuntimeError: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters if p.grad is not None]
            if any(g.is_sparse or g.is_complex() for g in gradients):
                raise RuntimeError("SplitSGD does not support sparse or complex gradients")
            if parameters:
                self._step_group(group, parameters, gradients)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: Tensors) -> None:
        if group["maximize"]:
            gradients = torch._foreach_neg(gradients)
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        is_small = None
        if group["threshold"] < math.inf:
            # Large is 1 where |g| > r, else 0: the difference of two floats is 0 only where they are equal.
            large = torch._foreach_abs(gradients)
            torch._foreach_sub_(large, group["threshold"])
            torch._foreach_sign_(large)
            torch._foreach_clamp_min_(large, 0.0)
            # θ ← θ − η_sign sign(g) on the large coordinates
            signs = torch._foreach_sign(gradients)
            torch._foreach_mul_(signs, large)
            torch._foreach_add_(parameters, signs, alpha=-group["sign_lr"])
            # Clamped first, so that an infinite gradient times 0 is 0.
            gradients = torch._foreach_clamp_max(gradients, group["threshold"])
            torch._foreach_clamp_min_(gradients, -group["threshold"])
            is_small = torch._foreach_neg(large)
            torch._foreach_add_(is_small, 1.0)
            torch._foreach_mul_(gradients, is_small)
        if group["momentum"]:
            gradients = self._update_buffers(group, parameters, gradients)
            if is_small is not None:
                gradients = torch._foreach_mul(gradients, is_small)
        # θ ← θ − η v on the small ones
        torch._foreach_add_(parameters, gradients, alpha=-group["lr"])

    def _update_buffers(self, group: dict[str, Any], parameters: list[Tensor], gradients: Tensors) -> Tensors:
        """V ← μ v + (1 − τ) g, and v ← g on a parameter's first step; returns the buffers."""
        known = [(p, g) for p, g in zip(parameters, gradients, strict=True) if "momentum_buffer" in self.state[p]]
        if known:
            old = [self.state[p]["momentum_buffer"] for p, _ in known]
            torch._foreach_mul_(old, group["momentum"])
            torch._foreach_add_(old, [g for _, g in known], alpha=1 - group["dampening"])
        for p, g in zip(parameters, gradients, strict=True):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = g.detach().clone()
        return [self.state[p]["momentum_buffer"] for p in parameters]


class SAM(torch.optim.SGD):
    """Sharpness-aware minimisation: descends along the gradient at the worst point near by.

    ĝ = ∇L(θ + ρ ∇L(θ) / ‖∇L(θ)‖),    θ ← θ − η ĝ

    Two gradients a step: `step` finds the first in the parameters' `grad`, as every optimiser does, and has its closure
    compute the second at the moved weights. Momentum, dampening and weight decay act on ĝ as in `torch.optim.SGD`.

    Source: Foret, Kleiner, Mobahi & Neyshabur 2021 (arXiv 2010.01412), with the Euclidean norm over all parameters.

    Args:
        params: parameters, named parameters or groups of them.
        lr: step size η.
        radius: ρ, the length of the way to the moved weights.
        momentum: μ.
        dampening: τ.
        weight_decay: as in `torch.optim.SGD`.

    Raises:
        ValueError: a number is out of its range.

    >>> weights = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SAM([weights], lr=0.1, radius=0.5)
    >>> def half_square():
    ...     weights.grad = weights.detach().clone()
    >>> half_square()
    >>> optimizer.step(half_square)  # 1 − 0.1 · (1 + 0.5)
    >>> weights.data
    tensor([0.8500])
    """

    gradients_per_step = 2
    """Says to the training loop that `step` needs a closure that puts the gradient at the present weights in `grad`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        radius: float = 0.05,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        _require_radius(radius)
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        self.defaults["radius"] = radius
        for group in self.param_groups:
            group.setdefault("radius", radius)
            _require_radius(group["radius"])

    @torch.no_grad()
    def step(self, closure: Callable[[], object]) -> None:  # type: ignore[override]
        """Takes the step; the closure computes the gradient anew and leaves the weights alone."""
        moving = [(p, group["radius"]) for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p, _ in moving]).norm() if moving else torch.zeros(())
        start = [p.clone() for p, _ in moving]
        for p, radius in moving:
            # θ + ρ g/‖g‖, and θ itself where the gradient vanishes
            p.add_(p.grad * torch.where(norm > 0, radius / norm, 0.0))
        with torch.enable_grad():
            closure()
        for (p, _), before in zip(moving, start, strict=True):
            p.copy_(before)
        super().step()


def gradient_quantile(parameters: Iterable[Tensor], fraction: float) -> float:
    """Threshold that `fraction` of all coordinates' present gradients exceed in size: a start for `SplitSGD`'s r.

    Args:
        parameters: parameters with gradients; those without are passed over.
        fraction: between 0 and 1.

    Raises:
        ValueError: the fraction is out of range, or no parameter has a gradient.

    >>> weights = torch.nn.Parameter(torch.zeros(10))
    >>> weights.grad = -torch.arange(10.0)
    >>> gradient_quantile([weights], 0.2)  # two of ten, 8 and 9, are larger
    7.0
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"Invalid fraction: {fraction}")
    sizes = [p.grad.detach().abs().flatten().float().cpu() for p in parameters if p.grad is not None]
    if not sizes:
        raise ValueError("no parameter has a gradient: call backward first")
    every = torch.cat(sizes)
    # The k-th smallest, with ⌊fraction · n⌋ above it; kthvalue has no limit on n, quantile has.
    return float(every.kthvalue(every.numel() - int(fraction * every.numel())).values)


def _require_radius(radius: float) -> None:
    if not 0 <= radius < math.inf:
        raise ValueError(f"Invalid radius: {radius}")


def _check(group: dict[str, Any]) -> None:
    # PyTorch's own words; written as "not in range", so that NaN is refused too.
    if not 0 <= group["lr"] < math.inf:
        raise ValueError(f"Invalid learning rate: {group['lr']}")
    if not 0 <= group["sign_lr"] < math.inf:
        raise ValueError(f"Invalid sign learning rate: {group['sign_lr']}")
    if not group["threshold"] >= 0:
        raise ValueError(f"Invalid threshold: {group['threshold']}")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"Invalid momentum value: {group['momentum']}")
    if not 0 <= group["dampening"] <= 1 or (group["dampening"] and not group["momentum"]):
        raise ValueError(f"Invalid dampening value: {group['dampening']} with momentum {group['momentum']}")
    if not 0 <= group["weight_decay"] < math.inf:
        raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
