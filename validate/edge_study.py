"""A stretch of full-batch gradient descent at the edge of stability, run again from a snapshot and measured closely.

The base run keeps every loss and the sharpness now and then. Its study starts from its last snapshot at least 20 steps
before the first crossing of 2/η, takes the same steps through the windows of `validate.windows`, and adds, with v the
top eigenvector of the Hessian and the opposing pair that the base run's selection window shows:

at every step (``edge_step``: the base run's step numbers)
    loss                   (edge_step, example)     as in the base run; `replay_difference` says how nearly
    projection             (edge_step, direction)   ⟨θ_t − θ_start, v_d⟩ on eigenvectors held fixed from the start
    gradient_projection    (edge_step, direction)   ⟨∇L(θ_t), v_d⟩ on the same
    gradient_along_top     (edge_step)              ⟨∇L(θ_t), v⟩ on the top eigenvector last measured, signs continued
    gradient_along_bounce  (edge_step)              ⟨∇L(θ_t), u⟩ on the direction of the bounce last measured
at measured steps (``edge_measured``), at the midpoint θ_t − ½η∇L of the step, near the valley's floor
    sharpness, residual    (edge_measured)          λ and its relative residual
    a, b                   (edge_measured)          −⟨∇λ, ∇L⟩ and ‖∇⊥λ‖², of `theory.reduced_map`; ∇⊥λ = ∇λ − ⟨∇λ, v⟩v
    a_across, b_whole      (edge_measured)          −⟨∇⊥λ, ∇L⟩ and ‖∇λ‖²
    alignment              (edge_measured)          |⟨v, v_1⟩| with the top eigenvector at the start
  along the bounce, β = η(∇L_t − ∇L_{t−1})/4, the iterate's alternating part, with u = β/‖β‖; undefined (NaN) at the
  first step. Where v alone is unstable, u = ±v; where several eigenvalues are at 2/η, u lies between their vectors:
    bounce_share           (edge_measured)          ⟨u, v⟩²
    bounce_square          (edge_measured)          ‖β‖²
    bounce_curvature       (edge_measured)          uᵀHu
    bounce_a, bounce_b     (edge_measured)          −⟨∇⊥, ∇L⟩ and ‖∇⊥‖² of ∇(uᵀHu) at fixed u, less its part along u
    curvature              (edge_measured, example) uᵀ∇²ℓ_i u: its mean over a group is the group's Rayleigh quotient
at measured steps, at the iterate θ_t
    group_cosine           (edge_measured)          cosine of the groups' mean gradients g₊ and g₋
    group_gradient_norm    (edge_measured, side)    ‖g₊‖, ‖g₋‖
    bulk_gradient_norm     (edge_measured)          norm of the mean gradient of all other examples
    top_share              (edge_measured)          |⟨g₊ − g₋, v⟩| / ‖g₊ − g₋‖
    group_bounce_share     (edge_measured)          the same with u
    group_curvature        (edge_measured, side)    means of `curvature` over the groups
    random_…               (edge_measured, kind, draw, …) the same for random groups of the same size (random_cosine,
                                                    …_gradient_norm, …_top_share, …_bounce_share, …_curvature); kinds:
                                                    "any" whatever their labels, "same labels" as the pair's
once
    attributes lr, diverged_at, crossing, replay_difference: largest |loss − the base run's| at the same steps, 0 on the
                                                    same device and threads, but for losses stored in float16
    member (side, rank), random_member (kind, draw, side, rank): indices of the examples; eigenvalue (direction): λ_d at
    the start; label (example)

ReLU networks: autograd's second and third derivatives leave out what a step over the kinks of the activations adds, so
λ, a and b are those of the smooth pieces. Changes of gradient over whole steps contain the kinks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim import Arithmetic, Batches, LossRule, descend
from sim.curvature import MeanLoss
from theory.command_line import InputError
from validate.cifar10 import Images
from validate.edge_probe import KINDS, SIDES, EdgeMeasurements, EdgeProbe
from validate.network_run import NetworkConfig, network_tensors, trained_network, training_images
from validate.opposing_groups import OpposingPair, random_pair_like, random_pair_of_same_labels, singular_pairs
from validate.windows import find_windows

LEAD = 20
"""Steps before the crossing at which a study starts at the latest, so that the onset is in it."""


@dataclass(frozen=True)
class EdgeConfig:
    """A study of the edge of one base run."""

    network: NetworkConfig
    """The base run: full-batch gradient descent on all its images alike, with snapshots."""
    measurements: EdgeMeasurements = field(default_factory=EdgeMeasurements)
    """What is measured, and how often."""

    @property
    def name(self) -> str:
        """Name of the study's folder."""
        return edge_name(self.network.name)


def edge_name(base: str) -> str:
    """Name of the study of a base run, by that run's name."""
    return f"edge-{base}"


def study_edge(
    config: EdgeConfig, base: xr.Dataset, images: Images, device: torch.device, *, progress: bool = True
) -> xr.Dataset:
    """Studies the edge of a finished base run.

    Args:
        config: the study.
        base: the base run's data set, with `snapshot`.
        images: what the base run was given.
        device: where.
        progress: whether to show a progress bar.

    Returns:
        The variables listed at the head of the module.

    Raises:
        InputError: the base run is not full-batch gradient descent on its images as they are, never crosses 2/η, or has
            no snapshot before the crossing.
    """
    network = config.network
    plain = network.optimizer.kind == "gd" and network.intervention is None and network.start_step == 0
    if not plain or (network.batches.size or np.inf) < len(base["label"]):
        raise InputError(f"run {network.name} is not full-batch gradient descent from its seed: give one to study")
    windows = find_windows(base)
    if windows is None:
        raise InputError(f"run {network.name} has no windows at 2/η: take another step size or more steps")
    snapshots = base["snapshot_step"].values if "snapshot" in base else np.empty(0, np.int64)
    early = snapshots[snapshots <= max(windows.crossing - LEAD, snapshots.min(initial=windows.crossing))]
    if not early.size:
        raise InputError(f"run {network.name} has no snapshot before step {windows.crossing}: give snapshot_every")
    first = int(early[-1])
    chosen = training_images(network, images)
    data = replay(
        trained_network(network, base, device, at_step=first),
        *network_tensors(network.architecture, chosen, device),
        lr=network.lr,
        first_step=first,
        steps=windows.edge.stop - first,
        pair=singular_pairs(base["loss"][windows.select], count=1)[0],
        what=config.measurements,
        loss=network.loss,
        batches=network.batches,
        arithmetic=network.arithmetic,
        seed=network.seed,
        description=config.name,
        progress=progress,
    )
    there = np.asarray(base["loss"][data["edge_step"].values], dtype=np.float64)
    data.attrs |= {"crossing": windows.crossing, "replay_difference": float(np.abs(data["loss"].values - there).max())}
    return data


def replay(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    lr: float,
    first_step: int,
    steps: int,
    pair: OpposingPair,
    what: EdgeMeasurements = EdgeMeasurements(),  # noqa: B008 (frozen)
    loss: LossRule = LossRule(),  # noqa: B008
    batches: Batches = Batches(),  # noqa: B008
    arithmetic: Arithmetic = Arithmetic(),  # noqa: B008
    seed: int = 0,
    description: str = "edge",
    progress: bool = True,
) -> xr.Dataset:
    """Takes the steps and measures; the network holds the weights of the step `first_step` and moves on in place.

    Args:
        network: the network at the start.
        inputs: (n, …) all inputs.
        labels: (n,) class indices.
        lr: step size η of full-batch gradient descent.
        first_step: number of that step in the base run.
        steps: number of steps.
        pair: the opposing groups.
        what: what is measured, and how often.
        loss: rule of the examples' losses.
        batches: in how many pieces the whole set passes through the network.
        arithmetic: number format of the steps; what is measured is in float32.
        seed: of the random groups and of the eigensolver.
        description: words of the progress bar.
        progress: whether to show it.

    Returns:
        The variables listed at the head of the module, but for the comparison with the base run.
    """
    rng = np.random.default_rng(seed)
    classes = labels.cpu().numpy()
    random = [
        [random_pair_like(pair, len(inputs), rng) for _ in range(what.draws)],
        [random_pair_of_same_labels(pair, classes, rng) for _ in range(what.draws)],
    ]
    if batches.ghost and batches.chunk is not None:  # the loss is then that of these chunks
        what = replace(what, chunk=batches.chunk)
    objective = MeanLoss(network, inputs, labels, loss, ghost_batches=batches.ghost)
    probe = EdgeProbe(objective, lr, pair, random, first_step, what, seed)
    descent = descend(
        network,
        inputs,
        labels,
        lr=lr,
        steps=steps,
        loss=loss,
        batches=batches,
        arithmetic=arithmetic,
        probes=[probe],
        description=description,
        progress=progress,
    )
    data = probe.record.dataset()
    data["loss"] = ("edge_step", "example"), descent.losses
    data["member"] = ("side", "rank"), np.stack([pair.positive, pair.negative])
    data["random_member"] = (
        ("kind", "draw", "side", "rank"),
        np.array([[[p.positive, p.negative] for p in pairs] for pairs in random]),
    )
    data["eigenvalue"] = "direction", probe.eigenvalues
    data["label"] = "example", classes.astype(np.uint8)
    names = ["top", *(f"bulk {i}" for i in range(1, what.directions))]
    data = data.assign_coords(direction=names, kind=list(KINDS), side=list(SIDES))
    data.attrs = {"lr": lr, "diverged_at": -1 if descent.diverged_at is None else first_step + descent.diverged_at}
    return data
