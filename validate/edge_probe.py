"""The measurements of an edge study, as a probe of `sim.descend`; what they are stands at the head of `edge_study`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sim import Record
from sim.curvature import (
    EigenpairTracker,
    HessianOperator,
    MeanLoss,
    MeanLossHessian,
    curvature_derivatives,
    sharpness_gradient,
    top_eigenpairs,
)
from sim.curvature.chunked import DEFAULT_MEMORY
from sim.curvature.mean_loss import flatten, gradients, leaves_at, unflatten
from sim.curvature.third_derivatives import Method
from validate.opposing_groups import OpposingPair

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
    """How ∇λ and the examples' curvatures are computed; difference for networks with fused normalisations."""
    chunk: int | None = None
    """Examples at once in gradients, products and third derivatives; all when not given. With declared ghost batches
    it has to be theirs, and `study_edge` sees to that."""
    memory: int = DEFAULT_MEMORY
    """Bytes that the graphs of Hessian products in chunks may take."""


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
        # ∇λ takes an accurate eigenvector: by the value's error alone it would be left less so.
        self._tracker = EigenpairTracker(generator, k=1, tolerance=1e-2, criterion="residual")
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
            keep=self._tracker.keep,
        )
        self._fixed = pairs.vectors[: self.what.directions]
        self.eigenvalues = pairs.values.numpy()
        self._tracker.recycled, self._top = pairs.recycled, pairs.vectors[0]

    def _hessian(self, parameters: Sequence[Tensor]) -> HessianOperator | MeanLossHessian:
        if self.what.chunk is not None:
            return MeanLossHessian(self.objective, parameters, memory=self.what.memory, chunk=self.what.chunk)
        leaves = leaves_at(parameters)
        return HessianOperator(self.objective.of_chunk(leaves, slice(0, len(self.objective))), leaves)

    def _measure_curvature(self, point: Sequence[Tensor], slope: Tensor) -> Tensor:
        """What is measured at the midpoint, ``point``; returns every example's curvature along the bounce."""
        hessian = self._hessian(point)
        if isinstance(hessian, HessianOperator):  # it has the gradient that its graph is of
            downhill = -hessian.gradient
        else:
            downhill = -self.objective.gradient(point, self.what.chunk)
        pairs = self._tracker.refresh(hessian)
        v = pairs.vectors[0]
        assert self._fixed is not None
        assert self._top is not None
        self._top = v if torch.dot(v, self._top) >= 0 else -v
        if self._last_slope is None:
            rise, curvature = self._rise_of_all(point, v)
        else:
            rise = self._rise(point, v)
        across = _across(rise, v)
        numbers = (
            pairs.values[0],
            pairs.residuals[0],
            torch.dot(rise, downhill),  # a = −⟨∇λ, ∇L⟩
            torch.dot(across, across),  # b = ‖∇⊥λ‖²
            torch.dot(across, downhill),
            torch.dot(rise, rise),
            torch.dot(v, self._fixed[0]).abs(),
        )
        values = dict(zip(TOP, map(float, numbers), strict=True))
        bounce = dict.fromkeys(BOUNCE, float("nan"))
        if self._last_slope is not None:
            # θ_{t+1} − 2θ_t + θ_{t−1} = −η(g_t − g_{t−1}) = −4β for an iterate that alternates by ±β
            beta = self.lr / 4 * (slope - self._last_slope)
            self._bounce = beta / beta.norm()
            along, curvature = self._rise_of_all(point, self._bounce)
            across = _across(along, self._bounce)
            along_bounce = (
                torch.dot(self._bounce, v) ** 2,
                torch.dot(beta, beta),
                self.objective.chunk_weights(slice(None)).double() @ curvature.double(),  # vᵀ H v = Σ_i w_i vᵀ ∇²ℓ_i v
                torch.dot(across, downhill),
                torch.dot(across, across),
            )
            bounce = dict(zip(BOUNCE, map(float, along_bounce), strict=True))
        for name, value in (values | bounce).items():
            self.record.append(name, value)
        self.record.append("curvature", curvature)
        return curvature

    def _rise(self, point: Sequence[Tensor], direction: Tensor) -> Tensor:
        """Gradient of the curvature along a unit direction held fixed."""
        method, chunk = self.what.third_derivative, self.what.chunk
        return sharpness_gradient(self.objective, direction, point, chunk=chunk, method=method)

    def _rise_of_all(self, point: Sequence[Tensor], direction: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and every example's curvature along the direction."""
        method, chunk = self.what.third_derivative, self.what.chunk
        return curvature_derivatives(self.objective, direction, point, chunk=chunk, method=method)

    def _measure_groups(self, parameters: Sequence[Tensor], slope: Tensor, curvature: Tensor) -> None:
        n, m = len(self.objective), len(self.pair.positive)
        of_pairs = self._group_gradients(parameters, [self.pair, *itertools.chain(*self.random)])
        sides = next(of_pairs)
        # n∇L = m g₊ + m g₋ + (n − 2m) g_bulk
        bulk = (n * slope - m * (sides[0] + sides[1])) / max(n - 2 * m, 1)
        self.record.append("bulk_gradient_norm", float(bulk.norm()))
        own = self._group_numbers(sides, self.pair, curvature)
        for name, value in own.items():
            self.record.append(name if name == "top_share" else f"group_{name}", value)
        drawn = [[self._group_numbers(next(of_pairs), pair, curvature) for pair in pairs] for pairs in self.random]
        for name in own:
            self.record.append(f"random_{name}", np.array([[numbers[name] for numbers in row] for row in drawn]))

    def _group_gradients(self, parameters: Sequence[Tensor], pairs: Sequence[OpposingPair]) -> Iterator[Tensor]:
        """(2, size) gradients of the two groups' mean losses, pair by pair."""
        leaves = leaves_at(parameters)
        gradient = self._gradient_of_group(leaves)
        for pair in pairs:
            sides = (torch.from_numpy(np.ascontiguousarray(side)) for side in (pair.positive, pair.negative))
            yield torch.stack([gradient(side.to(leaves[0].device)) for side in sides])

    def _gradient_of_group(self, leaves: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """What gives the gradient of a group's mean loss from its examples' indices."""
        of, chunk = self.objective, self.what.chunk
        if replace(of, ghost_batches=False).divisible:
            return lambda group: of.group(group).gradient(leaves, chunk)
        # Batch norm's statistics are the whole batch's, so all examples pass: in the chunks of declared ghost batches
        # with the group's weights, else in one go for all groups.
        if of.ghost_batches:
            weights = torch.zeros(len(of), device=leaves[0].device, dtype=leaves[0].dtype)
            return lambda group: replace(of, weights=weights.index_fill(0, group, 1 / len(group))).gradient(
                leaves, chunk
            )
        losses = of.loss(of.outputs(leaves, slice(0, len(of))), of.targets)
        return lambda group: flatten(gradients(losses[group].mean(), leaves, retain_graph=True))

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


def _across(gradient: Tensor, direction: Tensor) -> Tensor:
    """Its part across a unit direction."""
    return gradient - torch.dot(gradient, direction) * direction
