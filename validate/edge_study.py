"""A stretch of full-batch gradient descent at the edge of stability, run again from a snapshot and measured closely.

The base run keeps every loss and the sharpness now and then. Its study starts from the last snapshot at or before the
first crossing of 2/η, takes the same steps through the windows of `validate.windows`, and adds, with v the top
eigenvector of the Hessian and the opposing pair that the base run's selection window shows:

at every step (``edge_step``: the base run's step numbers)
    loss                   (edge_step, example)     as in the base run; `replay_difference` says how nearly
    projection             (edge_step, direction)   ⟨θ_t − θ_start, v_d⟩ on eigenvectors held fixed from the start
    gradient_projection    (edge_step, direction)   ⟨∇L(θ_t), v_d⟩ on the same
    gradient_along_top     (edge_step)              ⟨∇L(θ_t), v⟩ on the top eigenvector last measured, signs continued
at measured steps (``edge_measured``), at the midpoint θ_t − ½η∇L of the step, near the valley's floor
    sharpness, residual    (edge_measured)          λ and its relative residual
    a, b                   (edge_measured)          −⟨∇λ, ∇L⟩ and ‖∇⊥λ‖², of `theory.reduced_map`; ∇⊥λ = ∇λ − ⟨∇λ, v⟩v
    a_across, b_whole      (edge_measured)          −⟨∇⊥λ, ∇L⟩ and ‖∇λ‖²
    alignment              (edge_measured)          |⟨v, v_1⟩| with the top eigenvector at the start
    curvature              (edge_measured, example) vᵀ∇²ℓ_i v: its mean over a group is the group's Rayleigh quotient
at measured steps, at the iterate θ_t
    group_cosine           (edge_measured)          cosine of the groups' mean gradients g₊ and g₋
    group_gradient_norm    (edge_measured, side)    ‖g₊‖, ‖g₋‖
    bounce_share           (edge_measured)          share of ‖β‖² along v, with β = −η(∇L_t − ∇L_{t−1})/4 the iterate's
                                                    alternating part: near 1 where v alone is unstable
    bulk_gradient_norm     (edge_measured)          norm of the mean gradient of all other examples
    top_share              (edge_measured)          |⟨g₊ − g₋, v⟩| / ‖g₊ − g₋‖
    group_curvature        (edge_measured, side)    means of `curvature` over the groups
    random_…               (edge_measured, kind, draw, …) the same five for random groups of the same size; kinds:
                                                    "any" whatever their labels, "same labels" as the pair's
once
    member (side, rank), random_member (kind, draw, side, rank): indices of the examples; eigenvalue (direction): λ_d at
    the start; label (example)

ReLU networks: autograd's second and third derivatives leave out what a step over the kinks of the activations adds, so
λ, a and b are those of the smooth pieces. Changes of gradient over whole steps contain the kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim import Record, descend
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
from validate.opposing_groups import OpposingPair, random_pair_like, random_pair_of_same_labels

KINDS = ("any", "same labels")
SIDES = ("positive", "negative")


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
        self.eigenvalues = np.full(self.what.directions, np.nan)
        directions, kinds, draws = self.what.directions, len(KINDS), self.what.draws
        declare = self.record.declare
        declare("edge_step", ["edge_step"], dtype=np.int64)
        for name in ("projection", "gradient_projection"):
            declare(name, ["edge_step", "direction"], [directions])
        declare("gradient_along_top", ["edge_step"])
        declare("edge_measured", ["edge_measured"], dtype=np.int64)
        for name in (
            "sharpness",
            "residual",
            "a",
            "b",
            "a_across",
            "b_whole",
            "alignment",
            "bounce_share",
            "bulk_gradient_norm",
        ):
            declare(name, ["edge_measured"])
        declare("curvature", ["edge_measured", "example"], [len(self.objective)], np.float32)
        for prefix, dimensions, shape in (("", [], []), ("random_", ["kind", "draw"], [kinds, draws])):
            declare(f"{prefix or 'group_'}cosine", ["edge_measured", *dimensions], shape)
            declare(f"{prefix}top_share", ["edge_measured", *dimensions], shape)
            for name in ("gradient_norm", "curvature"):
                declare(f"{prefix or 'group_'}{name}", ["edge_measured", *dimensions, "side"], [*shape, 2])

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures; ``step`` counts from the study's start."""
        here, slope = flatten([p.detach() for p in parameters]), flatten(list(gradients))
        if self._fixed is None:
            self._fix_directions(parameters, here)
        due = step % self.what.every == 0
        if due:
            point = unflatten(here - self.lr / 2 * slope, list(parameters))
            curvature = self._measure_curvature(point)
        assert self._fixed is not None
        assert self._start is not None
        assert self._top is not None
        self.record.append("edge_step", self.first_step + step)
        self.record.append("projection", self._fixed @ (here - self._start))
        self.record.append("gradient_projection", self._fixed @ slope)
        self.record.append("gradient_along_top", self._top @ slope)
        if due:
            self.record.append("edge_measured", self.first_step + step)
            self._measure_bounce(slope)
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

    def _measure_curvature(self, point: Sequence[Tensor]) -> Tensor:
        """λ, ∇λ, a and b at a point; returns every example's curvature along the eigenvector."""
        hessian = self._hessian(point)
        pairs = self._tracker.refresh(hessian)
        v, slope = pairs.vectors[0], hessian.gradient
        assert self._top is not None
        self._top = v if torch.dot(v, self._top) >= 0 else -v
        rise = sharpness_gradient(
            self.objective, v, list(point), chunk=self.what.chunk, method=self.what.third_derivative
        )
        across = rise - torch.dot(rise, v) * v
        values = {
            "sharpness": pairs.values[0],
            "residual": pairs.residuals[0],
            "a": -torch.dot(rise, slope),  # a = −⟨∇λ, ∇L⟩
            "b": torch.dot(across, across),  # b = ‖∇⊥λ‖²
            "a_across": -torch.dot(across, slope),
            "b_whole": torch.dot(rise, rise),
        }
        for name, value in values.items():
            self.record.append(name, float(value))
        curvature = example_curvatures(self.objective, v, list(point), chunk=self.what.chunk)
        self.record.append("curvature", curvature)
        return curvature

    def _measure_bounce(self, slope: Tensor) -> None:
        assert self._top is not None
        assert self._fixed is not None
        self.record.append("alignment", float(torch.dot(self._top, self._fixed[0]).abs()))
        share = float("nan")
        if self._last_slope is not None:
            # θ_{t+1} − 2θ_t + θ_{t−1} = −η(g_t − g_{t−1})
            bounce = slope - self._last_slope
            share = float((torch.dot(bounce, self._top) / bounce.norm()) ** 2)
        self.record.append("bounce_share", share)

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
        share = torch.dot(apart, self._top).abs() / apart.norm()
        each = curvature.detach().double().cpu().numpy()
        return {
            "cosine": np.asarray(float(cosine)),
            "top_share": np.asarray(float(share)),
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
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
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
        loss: losses of the examples from outputs and labels; cross-entropy when not given.
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
    objective = MeanLoss(network, inputs, labels) if loss is None else MeanLoss(network, inputs, labels, loss)
    probe = EdgeProbe(objective, lr, pair, random, first_step, what, seed)
    descent = descend(
        network,
        inputs,
        labels,
        lr=lr,
        steps=steps,
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
