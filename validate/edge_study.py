"""A stretch of full-batch gradient descent at the edge of stability, run again from a snapshot and measured closely.

The base run keeps every loss and the sharpness now and then. Its study starts from its last snapshot at least 20 steps
before the first crossing of 2/η, takes the same steps through the windows of `validate.windows`, and adds, with v the top
eigenvector of the Hessian and the opposing pair that the base run's selection window shows:

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
  along the bounce, β = −η(∇L_t − ∇L_{t−1})/4, the iterate's alternating part, with u = β/‖β‖; undefined (NaN) at the
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
                                                    same device with as many threads
    member (side, rank), random_member (kind, draw, side, rank): indices of the examples; eigenvalue (direction): λ_d at
    the start; label (example)

ReLU networks: autograd's second and third derivatives leave out what a step over the kinks of the activations adds, so
λ, a and b are those of the smooth pieces. Changes of gradient over whole steps contain the kinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim import Arithmetic, Batches, LossRule, Record, descend
from sim.curvature import (
    EigenpairTracker,
    HessianOperator,
    MeanLoss,
    example_curvatures,
    sharpness_gradient,
    top_eigenpairs,
)
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from sim.curvature.third_derivatives import Method
from theory.command_line import InputError
from validate.cifar10 import Images
from validate.network_run import NetworkConfig, network_inputs, trained_network, training_images
from validate.opposing_groups import OpposingPair, random_pair_like, random_pair_of_same_labels, singular_pairs
from validate.windows import find_windows

LEAD = 20
"""Steps before the crossing at which a study starts at the latest, so that the onset is in it."""
KINDS = ("any", "same labels")
SIDES = ("positive", "negative")
TOP = ("sharpness", "residual", "a", "b", "a_across", "b_whole", "alignment")
BOUNCE = ("bounce_share", "bounce_square", "bounce_curvature", "bounce_a", "bounce_b")


@dataclass(frozen=True)
class EdgeMeasurements:
    """What a study of the edge measures, and how often."""

    every: int = 5
    """Steps between measurements; odd, so that both sides of the valley are seen."""
    directions: int = 6
    """Eigenvectors held fixed: the top one and `directions` − 1 below it, named bulk 1, bulk 2, …"""
    draws: int = 10
    """Random groups of each kind."""
    third_derivative: Method = "exact"
    """How ∇λ is computed; difference for networks with fused normalisations."""
    chunk: int | None = None
    """Examples at once in Hessian products and third derivatives."""


@dataclass(frozen=True)
class EdgeConfig:
    """A study of the edge of one base run."""

    network: NetworkConfig
    """The base run: full-batch gradient descent on all its images alike, with snapshots."""
    measurements: EdgeMeasurements = EdgeMeasurements()
    """What is measured, and how often."""

    @property
    def name(self) -> str:
        """Name of the study's folder."""
        return f"edge-{self.network.name}"


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
        network_inputs(network.architecture, chosen).to(device),
        torch.from_numpy(chosen.labels.astype(np.int64)).to(device),
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
    there = base["loss"].values[data["edge_step"].values].astype(np.float64)
    data.attrs |= {"crossing": windows.crossing, "replay_difference": float(np.abs(data["loss"].values - there).max())}
    return data


@dataclass
class EdgeProbe:
    """The measurements of a study, as a probe of `sim.descend`.

    Attributes:
        objective: the loss, with the network in it; evaluated at the parameters it is called with.
        lr: step size η.
        pair: the opposing groups.
        random: random pairs of each kind, (kinds × draws).
        first_step: step number of the first call in the base run.
        what: how much and how often.
        seed: of the eigensolver's start vectors.
        record: where the rows go; in memory when not given.
    """

    objective: MeanLoss
    lr: float
    pair: OpposingPair
    random: Sequence[Sequence[OpposingPair]]
    first_step: int
    what: EdgeMeasurements = EdgeMeasurements()
    seed: int = 0
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self._tracker = EigenpairTracker(generator, k=1)
        self._generator = generator
        self._start: Tensor | None = None
        self._fixed: Tensor | None = None
        self._top: Tensor | None = None
        self._last_slope: Tensor | None = None
        self._bounce: Tensor | None = None
        self.eigenvalues = np.full(self.what.directions, np.nan)
        directions, kinds, draws = self.what.directions, len(KINDS), self.what.draws
        declare = self.record.declare
        declare("edge_step", ["edge_step"], dtype=np.int64)
        for name in ("projection", "gradient_projection"):
            declare(name, ["edge_step", "direction"], [directions])
        for name in ("gradient_along_top", "gradient_along_bounce"):
            declare(name, ["edge_step"])
        declare("edge_measured", ["edge_measured"], dtype=np.int64)
        for name in (*TOP, *BOUNCE, "bulk_gradient_norm"):
            declare(name, ["edge_measured"])
        declare("curvature", ["edge_measured", "example"], [len(self.objective)], np.float32)
        for prefix, dimensions, shape in (("", [], []), ("random_", ["kind", "draw"], [kinds, draws])):
            declare(f"{prefix or 'group_'}cosine", ["edge_measured", *dimensions], shape)
            declare(f"{prefix}top_share", ["edge_measured", *dimensions], shape)
            declare(f"{prefix or 'group_'}bounce_share", ["edge_measured", *dimensions], shape)
            for name in ("gradient_norm", "curvature"):
                declare(f"{prefix or 'group_'}{name}", ["edge_measured", *dimensions, "side"], [*shape, 2])

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures; ``step`` counts from the study's start."""
        here, slope = flatten([p.detach() for p in parameters]), flatten(list(gradients))
        if self._fixed is None:
            self._fix_directions(parameters, here)
        due = step % self.what.every == 0
        if due:
            curvature = self._measure_curvature(unflatten(here - self.lr / 2 * slope, list(parameters)), slope)
        assert self._fixed is not None
        assert self._start is not None
        assert self._top is not None
        self.record.append("edge_step", self.first_step + step)
        self.record.append("projection", self._fixed @ (here - self._start))
        self.record.append("gradient_projection", self._fixed @ slope)
        self.record.append("gradient_along_top", self._top @ slope)
        self.record.append("gradient_along_bounce", np.nan if self._bounce is None else self._bounce @ slope)
        if due:
            self.record.append("edge_measured", self.first_step + step)
            self._measure_groups(parameters, slope, curvature)
        self._last_slope = slope.clone()

    def _fix_directions(self, parameters: Sequence[Tensor], here: Tensor) -> None:
        self._start = here.clone()
        pairs = top_eigenpairs(
            self._hessian(parameters),
            generator=self._generator,
            k=self.what.directions,
            tolerance=1e-2,
            max_basis=4 * self.what.directions,
            block=2,
        )
        self._fixed = pairs.vectors[: self.what.directions]
        self.eigenvalues = pairs.values.numpy()
        self._tracker.vectors, self._top = pairs.vectors[:2], pairs.vectors[0]

    def _hessian(self, parameters: Sequence[Tensor]) -> HessianOperator:
        leaves = leaves_at(parameters)
        return HessianOperator(self.objective.of_chunk(leaves, slice(0, len(self.objective))), leaves)

    def _measure_curvature(self, point: Sequence[Tensor], slope: Tensor) -> Tensor:
        """What is measured at the midpoint, ``point``; returns every example's curvature along the bounce."""
        hessian = self._hessian(point)
        pairs = self._tracker.refresh(hessian)
        v = pairs.vectors[0]
        assert self._fixed is not None
        assert self._top is not None
        self._top = v if torch.dot(v, self._top) >= 0 else -v
        rise, across = self._rise(point, v)
        numbers = (
            pairs.values[0],
            pairs.residuals[0],
            -torch.dot(rise, hessian.gradient),  # a = −⟨∇λ, ∇L⟩
            torch.dot(across, across),  # b = ‖∇⊥λ‖²
            -torch.dot(across, hessian.gradient),
            torch.dot(rise, rise),
            torch.dot(v, self._fixed[0]).abs(),
        )
        values = dict(zip(TOP, map(float, numbers), strict=True))
        bounce = dict.fromkeys(BOUNCE, float("nan"))
        if self._last_slope is not None:
            # θ_{t+1} − 2θ_t + θ_{t−1} = −η(g_t − g_{t−1}) = −4β for an iterate that alternates by ±β
            beta = self.lr / 4 * (slope - self._last_slope)
            self._bounce = beta / beta.norm()
            across = self._rise(point, self._bounce)[1]
            along_bounce = (
                torch.dot(self._bounce, v) ** 2,
                torch.dot(beta, beta),
                torch.dot(self._bounce, hessian.matvec(self._bounce)),
                -torch.dot(across, hessian.gradient),
                torch.dot(across, across),
            )
            bounce = dict(zip(BOUNCE, map(float, along_bounce), strict=True))
        for name, value in (values | bounce).items():
            self.record.append(name, value)
        along = v if self._bounce is None else self._bounce
        curvature = example_curvatures(self.objective, along, list(point), chunk=self.what.chunk)
        self.record.append("curvature", curvature)
        return curvature

    def _rise(self, point: Sequence[Tensor], direction: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the curvature along a unit direction held fixed, and its part across that direction."""
        rise = sharpness_gradient(
            self.objective, direction, list(point), chunk=self.what.chunk, method=self.what.third_derivative
        )
        return rise, rise - torch.dot(rise, direction) * direction

    def _measure_groups(self, parameters: Sequence[Tensor], slope: Tensor, curvature: Tensor) -> None:
        n, m = len(self.objective), len(self.pair.positive)
        sides = self._side_gradients(parameters, self.pair)
        # n∇L = m g₊ + m g₋ + (n − 2m) g_bulk
        bulk = (n * slope - m * (sides[0] + sides[1])) / max(n - 2 * m, 1)
        self.record.append("bulk_gradient_norm", float(bulk.norm()))
        own = self._group_numbers(sides, self.pair, curvature)
        for name, value in own.items():
            self.record.append(name if name == "top_share" else f"group_{name}", value)
        drawn = [
            [self._group_numbers(self._side_gradients(parameters, pair), pair, curvature) for pair in pairs]
            for pairs in self.random
        ]
        for name in own:
            self.record.append(f"random_{name}", np.array([[numbers[name] for numbers in row] for row in drawn]))

    def _side_gradients(self, parameters: Sequence[Tensor], pair: OpposingPair) -> Tensor:
        """(2, size) mean gradients of the two groups."""
        groups = (torch.from_numpy(np.ascontiguousarray(side)) for side in (pair.positive, pair.negative))
        device = parameters[0].device
        return torch.stack([self.objective.group(group.to(device)).gradient(list(parameters)) for group in groups])

    def _group_numbers(self, sides: Tensor, pair: OpposingPair, curvature: Tensor) -> dict[str, np.ndarray]:
        assert self._top is not None
        norms, apart = sides.norm(dim=1), sides[0] - sides[1]
        cosine = torch.dot(sides[0], sides[1]) / (norms[0] * norms[1])
        shares = [
            np.nan if direction is None else float(torch.dot(apart, direction).abs() / apart.norm())
            for direction in (self._top, self._bounce)
        ]
        each = curvature.detach().double().cpu().numpy()
        return {
            "cosine": np.asarray(float(cosine)),
            "top_share": np.asarray(shares[0]),
            "bounce_share": np.asarray(shares[1]),
            "gradient_norm": norms.double().cpu().numpy(),
            "curvature": np.array([each[pair.positive].mean(), each[pair.negative].mean()]),
        }


def replay(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    lr: float,
    first_step: int,
    steps: int,
    pair: OpposingPair,
    what: EdgeMeasurements = EdgeMeasurements(),
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
    objective = MeanLoss(network, inputs, labels, loss)
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
