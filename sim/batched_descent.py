"""Many linear networks of any depth and width descend at once, from second moments alone.

A step costs nothing per example. Everything recorded is computed from the batch, on its device. The networks
themselves are in `sim.two_layer_network` and `sim.deep_network`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.deep_network import DeepNetwork
from sim.linear_network import BATCH_DIMENSIONS, FunctionRecord, LinearNetwork, dataset
from sim.progress import progress_bar
from sim.second_moments import Moments, SecondMoments
from sim.two_layer_network import TwoLayerNetwork
from sim.update_rules import Rule
from theory import State
from theory.command_line import InputError, require_positive

Start = Tensor | Sequence[Tensor]
"""Weights of a batch: a tensor (*batch, m, 1 + d) of a two-layer network's (a, V), or the layers of a deep one."""


def stack_states(states: Sequence[State]) -> Tensor:
    """States of the network of width 1 as one batch of weights (n, 1, 1 + d1 + J), float64 on the CPU.

    >>> stack_states([State(2.0, [1.0], [0.5])])
    tensor([[[2.0000, 1.0000, 0.5000]]], dtype=torch.float64)
    """
    return torch.from_numpy(np.stack([state.vector for state in states]))[:, None, :]


def descend_batch(
    moments: SecondMoments,
    start: Start,
    rule: Rule,
    steps: int,
    *,
    record_every: int = 1,
    groups: Mapping[str, SecondMoments] | None = None,
    pairs: int = 1,
    sharpness: bool = True,
    keep_weights: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Descends every run of a batch by one rule, each run with its own data, start and step size.

    Args:
        moments: second moments; their leading axes broadcast against the batch's. For many runs on each of a few
            samples give `moments.shared()` (set, 1, …) and starts (set, run, …): then a step is one matrix product a
            sample. A sample's `moments.diagonal` runs at O(d) a step, under rules that a rotation leaves as they are.
        start: weights at step 0, in the features' own coordinates; their type and device are those the runs are made
            in. A tensor (run, m, 1 + d) or (set, run, m, 1 + d) is a two-layer network f = aᵀV z with weights (a, V).
            A sequence W_1, …, W_L of tensors (*batch, m_l, m_{l−1}), m_0 = d and m_L = 1, is the network
            f = W_L ⋯ W_1 z of any depth L ≥ 2.
        rule: the update rule.
        steps: number of steps.
        record_every: steps between records; steps 0, record_every, … are recorded.
        groups: moments of groups of examples, in the features' own coordinates, whose losses are recorded.
        pairs: number J of opposing features, which stand last: their effective weights are recorded.
        sharpness: whether to record the sharpness (and, of deep networks, the layers'). Its cost is stated at
            `TwoLayerNetwork` and `DeepNetwork`.
        keep_weights: whether to record all weights.
        progress: whether to show a progress bar.

    Returns:
        Data set with dimensions ``step`` and those of the batch: ``loss``, ``loss_<group>``, ``sharpness``,
        ``opposing`` (…, pair) effective opposing weights, with `keep_weights` ``weights``; and without step
        ``diverged_at``, the first step at which a run's weights are not finite, −1 if they always are. What is
        recorded from then on is NaN.

        Of two-layer networks also ``first_layer`` and ``last_layer`` (largest eigenvalues of the layers' diagonal
        blocks), ``balancedness`` (‖a‖² − ‖V‖²) and ``last_layer_norm`` ‖a‖; ``weights`` (…, unit, weight).

        Of deep networks also ``layer_sharpness`` (…, layer) the same of every layer, ``sharpness_residual``
        ‖Hx − λx‖/λ, ``layer_norm`` (…, layer) Frobenius norms, ``balancedness`` (…, junction) the trace and
        ``imbalance`` (…, junction) the Frobenius norm of W_{l+1}ᵀW_{l+1} − W_lW_lᵀ; ``weights`` (…, weight), which
        `sim.deep_network.split_layers` reads.

    Raises:
        InputError: shapes do not fit, a number is out of its range, or the rule does not bear the rotation.
    """
    require_positive("steps", steps)
    require_positive("record_every", record_every)
    network = linear_network(moments, start, groups, pairs, sharpness)
    if network.rotated and not rule.rotation_equivariant:
        raise InputError(f"{type(rule).__name__} acts on coordinates: give it the sample's own moments, not diagonal")
    theta = network.start
    gradient = torch.empty_like(theta)
    take_step = rule.start(theta)
    finite_steps = torch.zeros(theta.shape[:-2], dtype=torch.int64, device=theta.device)
    records: list[dict[str, Tensor]] = []
    for t in progress_bar(range(steps + 1), "descent from second moments", show=progress):
        finite_steps += theta.sum((-2, -1)).isfinite()
        if t % record_every == 0:
            records.append(network.record(theta))
            if keep_weights:
                records[-1]["weights"] = network.own_weights(theta).clone()
        if t < steps:
            network.gradient(theta, gradient)
            take_step(theta, gradient)
    diverged_at = torch.where(finite_steps <= steps, finite_steps, -1)
    return dataset(records, network.dimensions, "step", np.arange(0, steps + 1, record_every), diverged_at)


def linear_network(
    moments: SecondMoments,
    start: Start,
    groups: Mapping[str, SecondMoments] | None = None,
    pairs: int = 1,
    sharpness: bool = True,
) -> LinearNetwork:
    """The batch of networks that a start stands for; arguments as in `descend_batch`.

    Raises:
        InputError: shapes do not fit.
    """
    first = start if isinstance(start, Tensor) else _checked_layers(start)[0]
    batch = first.shape[:-2]
    if len(batch) not in BATCH_DIMENSIONS:
        raise InputError(f"start has shape {tuple(first.shape)}: give (run, m, 1 + d) or (set, run, m, 1 + d)")
    moments = moments.to(first.device, first.dtype)
    extra = 1 if isinstance(start, Tensor) else 0  # c stands before the features there
    _require_fit("moments", moments, first, extra)
    for name, group in (groups or {}).items():
        _require_fit(f"group {name}", group, first, extra)
    features = first.shape[-1] - extra
    if not 0 <= pairs <= features:
        raise InputError(f"pairs is {pairs}: give 0 to {features}, the number of features")
    groups = {name: group.to(first.device, first.dtype) for name, group in (groups or {}).items()}
    function = FunctionRecord(moments, groups, pairs)
    if isinstance(start, Tensor):
        return TwoLayerNetwork(start, function, sharpness=sharpness)
    return DeepNetwork(start, function, sharpness=sharpness)


def _checked_layers(layers: Sequence[Tensor]) -> Sequence[Tensor]:
    shapes = [tuple(layer.shape) for layer in layers]
    fits = len(layers) >= 2 and all(len(shape) == len(shapes[0]) for shape in shapes)
    fits = fits and all(below[:-2] == above[:-2] and below[-2] == above[-1] for below, above in pairwise(shapes))
    if not fits or shapes[-1][-2] != 1:
        raise InputError(
            f"layers have shapes {shapes}: give two or more (*batch, m_l, m_(l−1)), first to last, the last of m_L = 1"
        )
    return layers


def _require_fit(name: str, moments: SecondMoments, first: Tensor, extra: int) -> None:
    least = moments.square if isinstance(moments, Moments) else moments.least
    d = (moments.cross if isinstance(moments, Moments) else moments.target).shape[-1]
    batch = tuple(first.shape[:-2])
    # Moments of sets say which axis is theirs: (set,) would be taken for (run,) where there are as many of both.
    fits = first.shape[-1] == extra + d and least.ndim in (0, len(batch))
    if not fits or any(one not in (1, of) for one, of in zip(least.shape, batch, strict=False)):
        raise InputError(
            f"start has shape {tuple(first.shape)}, {name} the batch {tuple(least.shape)} and {d} features: give "
            f"(run, m, {extra + d}) or (set, run, m, {extra + d}), and moments (), (run,), or with sets (set, 1) as by "
            "shared(), or (set, run)"
        )
