"""Width and depth: final sharpness, onset and amplitude of the oscillation of linear networks f = W_N ⋯ W_1 z.

What theory says (T14; Σ = I, equal groups, population). From a rank-one start, W_1 = u_1 (b, s)ᵀ and
W_l = c u_l u_{l−1}ᵀ with unit vectors u, a network of any width is the scalar chain of its depth exactly: width changes
nothing. Depth does:

- the flow's final sharpness from a balanced start is max(α, N) ‖β‖^(2−2/N);
- the onset follows from descent in (c_i, b, ln|s|), exactly (`theory.deep_edge.deep_onset`);
- the first spike is lower by √κ, κ = C² Σ c_i⁻², since every layer moves C (`theory.deep_edge.deep_spike`).

Weights across the rank-one directions have no effect on f at the start, and theory says less of them. At depth 2,
Q = aaᵀ − W_1W_1ᵀ is conserved, and at a minimum ‖a‖⁴ − aᵀQa = ‖β‖², so that ‖a‖² lies between the roots c²(q) of
c⁴ − qc² = ‖β‖² for the least and the largest eigenvalue q of Q. They also seed the oscillation, as a turns: no
prediction of the onset then holds exactly, and the sweep says by how much it fails.

The control for depth is the prediction for one layer more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim.batched_descent import descend_batch, linear_network
from sim.deep_network import split_layers
from sim.second_moments import DiagonalMoments, population_batch
from sim.sweeps.phase import two_features
from sim.sweeps.study import Study, Unit
from sim.update_rules import GradientDescent
from theory import InputError, Model, State
from theory.alternation import alternating_part
from theory.command_line import require_different, require_positive, require_seeds
from theory.configuration import DescentConfig
from theory.deep_edge import deep_onset, deep_spike
from theory.deep_network import DeepState, balanced_final_sharpness

Floats = npt.NDArray[np.float64]

ARRIVED = 1e-6
"""Share of ½‖β‖² that the loss of descent may have left where its end stands for a minimum."""


@dataclass(frozen=True)
class ShapeConfig(Study):
    """Width × depth × weights across rank one: final sharpness, onset and amplitude against theory.

    The data set has dimensions ``depth``, ``width``, ``spread`` and ``seed``: as `ShapeUnit.run` says.
    """

    name: ClassVar[str] = "shape"

    widths: tuple[int, ...] = (1, 4, 16)
    """Numbers of units of every hidden layer."""
    depths: tuple[int, ...] = (2, 3, 4)
    """Numbers N of layers."""
    spreads: tuple[float, ...] = (0.0, 0.1, 0.3)
    """Norm that every layer but the last has across its rank-one part, whose norm is 1; 0 is rank one."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the random starts."""
    alpha: float = 20.0
    """Second moment α of the opposing feature."""
    beta: float = 3.0
    """Norm of the linear target."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 50
    """Number of ordinary features."""
    gentle: float = 0.3
    """Step size of descent that converges, in units of 2/(the depth's predicted final sharpness); at it and at half of
    it the final sharpness is measured, and extrapolated to step size 0."""
    edge: float = 1.2
    """Step size at which the oscillation is, in the same units."""
    steps: int = 800
    """Number of steps."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "d1", "steps"):
            require_positive(f"--{name}", getattr(self, name))
        require_positive("--k", self.k, zero_allowed=True)
        require_seeds(self.seeds)
        for name in ("widths", "depths", "spreads"):
            require_different(f"--{name}", getattr(self, name))
        for width in self.widths:
            require_positive("--widths", width)
        for depth in self.depths:
            if depth < 2:
                raise InputError(f"--depths is {depth}: give 2 or more layers")
        for spread in self.spreads:
            require_positive("--spreads", spread, zero_allowed=True)
        if not 0 < self.gentle < 1:
            raise InputError(f"--gentle is {self.gentle}: give a number above 0 and below 1, where descent converges")
        if not 1 < self.edge < math.inf:
            raise InputError(f"--edge is {self.edge}: give a finite number above 1, where descent oscillates")

    def units(self) -> Sequence[ShapeUnit]:
        """One unit a depth, width and spread."""
        rest = (self.seeds, self.alpha, self.beta, self.k, self.d1, self.gentle, self.edge, self.steps)
        return [
            ShapeUnit(depth, width, spread, *rest)
            for depth in self.depths
            for width in self.widths
            for spread in self.spreads
        ]

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        left = list(data)
        for name, values in (("spread", self.spreads), ("width", self.widths), ("depth", self.depths)):
            n = len(values)
            left = [
                xr.concat(left[i : i + n], xr.Variable(name, list(values)), data_vars="all")
                for i in range(0, len(left), n)
            ]
        return left[0]

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        return shape_table(data, self)


@dataclass(frozen=True)
class ShapeUnit(Unit):
    """All starts of one depth, width and spread, at every step size, in one batch; fields as in `ShapeConfig`."""

    revision: ClassVar[int] = 2
    """`amplitude` was the alternating part's until 29 November 2026."""

    depth: int
    width: int
    spread: float
    seeds: tuple[int, ...]
    alpha: float
    beta: float
    k: float
    d1: int
    gentle: float
    edge: float
    steps: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"depth{self.depth}-width{self.width}-spread{self.spread:g}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends from all starts at the gentle step size, at half of it, and at the edge.

        Returns:
            Data set with dimension ``seed``:

            - at the end of descent that converges, extrapolated linearly to step size 0, NaN where one of the two
              gentle runs has not come to a minimum: ``sharpness``, and
              ``first_layer``, α‖a‖² with a = W_N ⋯ W_2; at depth 2 the bounds ``first_layer_low`` and
              ``first_layer_high`` of the latter from Q(0), NaN at others;
            - at the edge: ``crossing`` (first step with ηα‖a‖² > 2 and ‖a‖ rising), ``onset`` (first step from then on
              at which the alternating part of the effective opposing weight z = aᵀW_1u reaches √(D/α),
              D = vᵀ(β − v) for the effective ordinary weights v), NaN where there is none, ``amplitude`` (largest
              |z| from then on; 0 without an onset), ``final_edge`` (ηα‖a‖²/2 at the end);
            - predicted, for the scalar chain of the same depth: ``predicted_sharpness``, ``predicted_onset``,
              ``predicted_amplitude``; and for one layer more, at the same step size: ``deeper_onset``,
              ``deeper_amplitude``, with ``deeper_sharpness``.
        """
        starts = [self._reduced(seed) for seed in self.seeds]
        model = starts[0][0]
        told = balanced_final_sharpness(model, self.depth)
        lrs = [2 * relative / told for relative in (self.gentle / 2, self.gentle, self.edge)]
        layers = [self._layers(start, seed) for (_, start), seed in zip(starts, self.seeds, strict=True)]
        batch = [torch.stack([of_seed[l] for of_seed in layers] * len(lrs)).to(device) for l in range(self.depth)]
        moments = population_batch([model], device)
        runs = descend_batch(
            moments,
            batch,
            GradientDescent(torch.tensor(lrs, dtype=torch.float64, device=device).repeat_interleave(len(starts))),
            self.steps,
            sharpness=False,
            keep_weights=True,
        )
        widths = (model.curvatures.size, *[self.width] * (self.depth - 1), 1)
        path = split_layers(torch.from_numpy(runs["weights"].values)[:, :, None, :], widths)
        count = len(starts)
        rows = []
        for i, (_, start) in enumerate(starts):
            half, whole = (_of_end(moments, [layer[-1, run].to(device) for layer in path]) for run in (i, count + i))
            row = {name: 2 * half[name] - whole[name] for name in whole}
            # ½α of the loss no weights can lessen: the outliers' labels.
            if max(half["loss"], whole["loss"]) - self.alpha / 2 > ARRIVED * float(model.beta @ model.beta) / 2:
                row = dict.fromkeys(whole, math.nan)
            del row["loss"]
            row |= self._of_edge(_observed([layer[:, 2 * count + i] for layer in path]), model, lrs[2])
            row |= self._predicted(model, start, lrs[2]) | _bounds(model, layers[i])
            rows.append(row)
        data = xr.Dataset({name: ("seed", [row[name] for row in rows]) for name in rows[0]})
        return data.assign_coords(seed=list(self.seeds))

    def _reduced(self, seed: int) -> tuple[Model, State]:
        """Model and start of the scalar network on two features; Σ = I, so the network of any shape stays in them."""
        config = DescentConfig(self.alpha, self.beta, self.k, self.d1, start_seed=seed)
        return two_features(config.model, config.initial_state)

    def _layers(self, start: State, seed: int) -> list[torch.Tensor]:
        """W_1, …, W_N: a rank-one chain, and across it a random matrix of norm `spread` in each layer but the last."""
        draw = np.random.default_rng([seed, self.depth, self.width])
        units = [x / np.linalg.norm(x) for x in draw.normal(size=(self.depth - 1, self.width))]
        layers = [np.outer(units[0], start.first_layer) + self._across(draw, units[0], None, start.first_layer.size)]
        for below, above in pairwise(units):
            layers.append(np.outer(above, below) + self._across(draw, above, below, self.width))
        return [torch.from_numpy(layer) for layer in (*layers, units[-1][None, :])]

    def _across(self, draw: np.random.Generator, above: Floats, below: Floats | None, columns: int) -> Floats:
        """A matrix of norm `spread` that does not meet the rank-one part's vectors: zero at width 1."""
        matrix = draw.normal(size=(above.size, columns))
        matrix -= np.outer(above, above @ matrix)
        if below is not None:
            matrix -= np.outer(matrix @ below, below)
        if above.size == 1:
            return np.zeros_like(matrix)
        return np.asarray(self.spread * matrix / np.linalg.norm(matrix))

    def _of_edge(self, seen: _Observed, model: Model, lr: float) -> dict[str, float]:
        v, z = seen.effective[:, : model.beta.size], seen.effective[:, -1]
        rate = lr * self.alpha * seen.norm_squared
        row = {"crossing": math.nan, "onset": math.nan, "amplitude": 0.0, "final_edge": float(rate[-1]) / 2}
        with np.errstate(invalid="ignore", over="ignore"):
            drive = (v * (model.beta - v)).sum(1)
            crossed = np.flatnonzero((rate[:-1] > 2) & (np.diff(rate) > 0) & (drive[:-1] > 0))
            alternating = alternating_part(z)  # at steps 1, 2, …
            seen_at = 1 + np.flatnonzero((alternating**2 > drive[1:-1] / self.alpha) & (drive[1:-1] > 0))
        if crossed.size:
            row["crossing"] = float(crossed[0])
            later = seen_at[seen_at > crossed[0]]
            if later.size:
                row |= {"onset": float(later[0]), "amplitude": float(np.nanmax(np.abs(z[later[0] :])))}
        return row

    def _predicted(self, model: Model, start: State, lr: float) -> dict[str, float]:
        row = {}
        for name, depth in (("predicted", self.depth), ("deeper", self.depth + 1)):
            chain = DeepState(np.ones(depth - 1), start.b, start.s)
            onset, at = deep_onset(model, chain, lr, max_steps=self.steps)
            row[f"{name}_sharpness"] = balanced_final_sharpness(model, depth)
            row[f"{name}_onset"] = math.nan if onset.step is None else float(onset.step)
            row[f"{name}_amplitude"] = 0.0 if onset.step is None else deep_spike(model, at, lr)
        return row


@dataclass(frozen=True)
class _Observed:
    """What of a run's weights the function and the edge are made of, at every step."""

    effective: Floats  # (n, d1 + 1) v = W_1ᵀ ⋯ W_Nᵀ, opposing weight last
    norm_squared: Floats  # (n,) ‖W_N ⋯ W_2‖²


def _observed(layers: list[torch.Tensor]) -> _Observed:
    row = layers[-1]
    for layer in layers[-2:0:-1]:
        row = row @ layer
    return _Observed((row @ layers[0])[:, 0].numpy(), (row**2).sum((-2, -1)).numpy())


def _of_end(moments: DiagonalMoments, layers: list[torch.Tensor]) -> dict[str, float]:
    """Sharpness of the whole and of the first layer's block, and the loss."""
    network = linear_network(moments, [layer[None] for layer in layers])
    recorded = network.record(network.start)
    return {
        "sharpness": float(recorded["sharpness"][0]),
        "first_layer": float(recorded["layer_sharpness"][0, 0]),
        "loss": float(recorded["loss"][0]),
    }


def _bounds(model: Model, layers: list[torch.Tensor]) -> dict[str, float]:
    """α c²(q) at the least and the largest eigenvalue q of Q = aaᵀ − W_1W_1ᵀ, at depth 2."""
    if len(layers) > 2:
        return {"first_layer_low": math.nan, "first_layer_high": math.nan}
    q = torch.linalg.eigvalsh(layers[1].mT @ layers[1] - layers[0] @ layers[0].mT)[[0, -1]].numpy()
    # c² = (q + √(q² + 4‖β‖²))/2
    low, high = model.alpha[0] * (q + np.hypot(q, 2 * np.linalg.norm(model.beta))) / 2
    return {"first_layer_low": float(low), "first_layer_high": float(high)}


def shape_table(data: xr.Dataset, config: ShapeConfig) -> str:
    """One line a depth, width and spread: measured against the scalar chain's predictions."""
    lines = [
        f"α = {config.alpha:g}, ‖β‖ = {config.beta:g}, Σ = I, {len(config.seeds)} starts; step size {config.gentle:g} "
        f"and less (sharpness), and {config.edge:g} (oscillation) of 2/S",
        "                       final sharpness, gentle         onset at the edge              amplitude     end",
        "  depth width spread   theory  measured/theory   theory  sim − theory  (deeper)   sim/theory (deeper) ηα‖a‖²/2"
        "  depth 2: α‖a‖² within Q's bounds",
    ]  # fmt: skip
    for depth in data["depth"].values:
        for width in data["width"].values:
            for spread in data["spread"].values:
                row = data.sel(depth=depth, width=width, spread=spread)
                repeats = width == 1 and spread != data["spread"].values[0]
                words = "  the same: nothing lies across at width 1" if repeats else _line(row)
                lines.append(f"{depth:7d}{width:6d}{spread:7g} {words}")
    lines.append(
        "theory is the scalar chain's: exact at spread 0 and at width 1, where nothing lies across. measured/theory: "
        "the farthest from 1;\nsim − theory: the farthest from 0, in steps; the rest medians over the starts. "
        "(deeper): the same for the prediction of one layer more, the control."
    )
    return "\n".join(lines)


def _line(row: xr.Dataset) -> str:
    v = {str(name): row[name].values for name in row.data_vars}
    sharpness = v["sharpness"] / v["predicted_sharpness"]
    slack = 1e-3 * v["first_layer"]  # what the extrapolation to step size 0 leaves
    within = (v["first_layer"] >= v["first_layer_low"] - slack) & (v["first_layer"] <= v["first_layer_high"] + slack)
    interval = f"[{v['first_layer_low'].mean():.1f}, {v['first_layer_high'].mean():.1f}]"
    arrived = np.isfinite(v["first_layer"])
    bounds = "" if np.isnan(v["first_layer_low"]).all() else f"{int(within.sum())}/{arrived.sum()} of {interval}"
    if not arrived.all():
        bounds += f" {int((~arrived).sum())} not at a minimum: raise --steps"
    late, later = (_farthest(v["onset"] - v[f"{name}_onset"], 0.0) for name in ("predicted", "deeper"))
    return (
        f"{v['predicted_sharpness'][0]:8.2f}{_farthest(sharpness, 1.0):14.4f}{_median(v['predicted_onset']):12.0f}"
        f"{late:10.0f}{later:12.0f}"
        f"{_median(_ratio(v['amplitude'], v['predicted_amplitude'])):13.3f}"
        f"{_median(_ratio(v['amplitude'], v['deeper_amplitude'])):9.3f}{_median(v['final_edge']):9.3f}"
        f"    {bounds}"
    )


def _ratio(seen: Floats, told: Floats) -> Floats:
    """Seen over predicted amplitude, where there is one of each."""
    return np.where((seen > 0) & (told > 0), seen, np.nan) / np.where(told > 0, told, np.nan)


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _farthest(values: Floats, centre: float) -> float:
    known = values[np.isfinite(values)]
    return float(known[np.abs(known - centre).argmax()]) if known.size else math.nan
