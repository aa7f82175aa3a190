"""Read-only measurements during training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim.batches import Batches
from sim.curvature import (
    EigenpairTracker,
    HessianOperator,
    MeanLoss,
    MeanLossHessian,
    SummedOperator,
    layer_shares,
)
from sim.curvature.eigensolver import Criterion
from sim.curvature.leading_inputs import LeadingInputs, begins_linearly
from sim.curvature.mean_loss import ExampleLoss, flatten, leaves_at
from sim.curvature.over_ranks import own_part
from sim.curvature.scouting import FLOAT32_NOISE, LEADING_INPUTS_NOISE, Lookout, Scout, error_of, scouted
from sim.curvature.tracking import BlockTracker
from sim.distributed import rank_count
from sim.losses import LossRule
from sim.networks import layer_of_parameter, require_trained_whole
from sim.record import Record
from theory.command_line import InputError, require_positive

Hessian = HessianOperator | MeanLossHessian | SummedOperator

_NEAR = 0.06
"""Part of the way from the last midpoint within which an iterate's eigenvectors are the better start for a midpoint.
Below the edge the iterate is half a step away, of the ten or twenty since; across the valley, at the edge, a seventh of
the way and more, and the last midpoint's are better (benchmarks/tracked_networks.py)."""


@dataclass
class SharpnessProbe:
    """Sharpness, layer shares of the top eigenvector and block sharpness at stated steps.

    Measured at the iterate θ_t, and where wanted at the midpoint of the step, θ_t − ½η∇L(θ_t): at the edge of stability
    the iterate bounces across the valley, and the midpoint of two iterates lies near its floor. (Under another rule
    than full-batch descent it is a point half a gradient step on, and no midpoint of two iterates.) The network is
    never touched: losses are evaluated on copies of its parameters and buffers. The Hessian is that of the loss that is
    minimised: the rule, the examples' weights and declared ghost batches are to be those of the run. Dropout is left
    out: the loss would not be a function of the parameters.

    Columns: ``measured``; for each place, iterate and midpoint, ``sharpness_``, ``residual_``, ``value_error_``,
    ``converged_``, ``verified_`` (see `sim.curvature.Eigenpairs`) and ``layer_share_``; ``block_measured``, and
    ``block_sharpness``, ``block_residual``, ``block_value_error``, ``block_converged``, ``block_verified``. Converged
    means: an eigenvalue, by the criterion that the probe was given. Verified: random directions hold no larger one;
    they are searched at every 25th look (blocks: every tenth) and where nothing seems to have moved. Between these an
    eigenvalue may overtake out of sight where directions of weights hardly meet, as in diagonal linear networks. Layers
    are modules that hold parameters, numbered from 1 in the order in which the network's parameters come
    (`sim.networks.layer_of_parameter`).

    Attributes:
        network: the network; its class and buffers are used, not its parameters.
        inputs: (n, …) all inputs.
        labels: (n,) class indices.
        lr: step size η, for the midpoint.
        every: steps between measurements.
        blocks_every: steps between measurements of the layers' blocks (a multiple of `every`); 0 for none.
        midpoint: whether to measure at the midpoint too.
        tolerance: bound on what the criterion says.
        criterion: "value": every sharpness to a relative error, as estimated from residual and gap; the eigenvector,
            and with it layer shares, to about the root of error over gap. "residual": every eigenpair to a relative
            residual, such as 1e-2.
        precision: number format of the products. float32 reaches residuals of about 1e-5, float64 those of 1e-6 and
            below, at about twice the time and memory.
        scouting: whether cheaper products search first, and exact ones finish: those of float32 before float64, or, for
            a perceptron of many inputs, of the restriction to the inputs' leading directions
            (`sim.curvature.leading_inputs`), where its accuracy serves. What is reported comes from exact products.
        seed: seed of the eigensolver's start vectors.
        loss: rule of the examples' losses.
        example_weights: (n,) weight of each example in the mean; all 1 when not given.
        batches: the run's: where it cuts the examples into chunks, so does the probe, within a bound on memory; ghost
            batches that it declares are part of the loss.
        record: where the measurements go, the run's own if they are to be on disk; in memory when not given.

    Raises:
        InputError: an option is out of its range, or the network has frozen parameters.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    lr: float
    every: int = 10
    blocks_every: int = 50
    midpoint: bool = True
    tolerance: float = 1e-3
    criterion: Criterion = "value"
    precision: Literal["float32", "float64"] = "float32"
    scouting: bool = True
    seed: int = 0
    loss: ExampleLoss = field(default_factory=LossRule)
    example_weights: Tensor | None = None
    batches: Batches = field(default_factory=Batches)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        if not isinstance(self.scouting, bool):  # "never", of earlier versions, would mean yes
            raise InputError(f"scouting is {self.scouting!r}: give True or False")
        require_positive("steps between measurements", self.every)
        require_positive("tolerance", self.tolerance)
        if self.blocks_every < 0 or self.blocks_every % self.every:
            raise InputError(
                f"blocks are to be measured every {self.blocks_every} steps: give a multiple of {self.every}"
            )
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision is {self.precision}: give float32 or float64")
        require_trained_whole(self.network)
        self._generator = torch.Generator().manual_seed(self.seed)
        # A verification now and then, every 25th, finds an eigenvalue that overtook the tracked one out of its sight.
        self._trackers = {
            place: EigenpairTracker(self._generator, tolerance=self.tolerance, criterion=self.criterion)
            for place in (("iterate", "midpoint") if self.midpoint else ("iterate",))
        }
        self._layers = layer_of_parameter(self.network)
        self._blocks = BlockTracker(self._generator, self._layers, self.tolerance, self.criterion)
        self._leading: LeadingInputs | None = None
        self._lookout = Lookout(self._generator)
        self._sizes = [p.numel() for p in self.network.parameters()]
        self._last_midpoint: Tensor | None = None
        self._declare()

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures where the step is due."""
        if step % self.every:
            return
        if [p.numel() for p in parameters] != self._sizes:
            raise InputError(
                f"the run's network has {sum(p.numel() for p in parameters)} parameters, the probe's "
                f"{sum(self._sizes)}, or others: make the probe of the run's network"
            )
        hessian, scout = self._hessian(parameters)
        self.record.append("measured", step)
        self._measure_whole("iterate", hessian, scout)
        if self.blocks_every and step % self.blocks_every == 0:
            self._measure_blocks(step, hessian, scout)
        if self.midpoint:
            halfway = [p.detach() - self.lr / 2 * g for p, g in zip(parameters, gradients, strict=True)]
            self._choose_start(flatten([p.detach() for p in parameters]), flatten(halfway))
            self._measure_whole("midpoint", *self._hessian(halfway))

    def dataset(self) -> xr.Dataset:
        """All measurements: dimensions ``measured`` and ``block_measured`` (steps) and ``layer``."""
        data = self.record.dataset()
        data = data.drop_vars([name for name in data.variables if name not in self._names])
        return data.assign_coords(layer=self.layer_names)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers, in the order of their columns."""
        return [f"layer {i + 1}" for i in range(len(set(self._layers)))]

    @property
    def top_vector(self) -> Tensor | None:
        """(parameters,) unit top eigenvector at the iterate last measured; None before the first measurement.

        Zeros where that was not finite.
        """
        tracker = self._trackers["iterate"]
        if tracker.recycled is None:
            return torch.zeros(sum(self._sizes), device=self.inputs.device) if tracker.refreshes else None
        return tracker.recycled.vectors[0].float()

    def state_dict(self) -> dict[str, Any]:
        """State of the generator, the last eigenvectors, and measurements that are not in a record on disk."""
        record = {} if self.record.folder else self.record.state_dict()
        trackers = {place: tracker.state_dict() for place, tracker in self._trackers.items()}
        state = {"generator": self._generator.get_state(), "trackers": trackers, "blocks": self._blocks.state_dict()}
        state |= {"lookout": self._lookout.state_dict(), "last_midpoint": self._last_midpoint}
        return {**state, "record": record}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        self._generator.set_state(state["generator"])
        device = self.inputs.device
        for place, held in state["trackers"].items():
            self._trackers[place].load_state_dict(held, device)
        self._blocks.load_state_dict(state["blocks"], device)
        if "lookout" in state:  # not in checkpoints of earlier versions, whose blocks' search starts anew too
            self._lookout.load_state_dict(state["lookout"], device)
        last = state.get("last_midpoint")
        self._last_midpoint = None if last is None else last.to(device)
        if state["record"]:
            self.record.load_state_dict(state["record"])

    def _declare(self) -> None:
        """Names the columns, in the order in which the data set has them."""
        before, layers = set(self.record.names), len(set(self._layers))
        self.record.declare("measured", ["measured"], dtype=np.int64)
        for place in self._trackers:
            self.record.declare(f"sharpness_{place}", ["measured"])
            self.record.declare(f"residual_{place}", ["measured"])
            self.record.declare(f"value_error_{place}", ["measured"])
            self.record.declare(f"converged_{place}", ["measured"], dtype=np.bool_)
            self.record.declare(f"verified_{place}", ["measured"], dtype=np.bool_)
            self.record.declare(f"layer_share_{place}", ["measured", "layer"], [layers])
        if self.blocks_every:
            self.record.declare("block_measured", ["block_measured"], dtype=np.int64)
            for name in ("block_sharpness", "block_residual", "block_value_error"):
                self.record.declare(name, ["block_measured", "layer"], [layers])
            for name in ("block_converged", "block_verified"):
                self.record.declare(name, ["block_measured", "layer"], [layers], np.bool_)
        self._names = [name for name in self.record.names if name not in before]

    def _hessian(self, parameters: Sequence[Tensor]) -> tuple[Hessian, Scout | None]:
        """The Hessian at a point, and its scout."""
        objective = MeanLoss(
            _without_dropout(self.network),
            self.inputs,
            self.labels,
            loss=self.loss,
            weights=None if self.example_weights is None else self.example_weights / self.example_weights.sum(),
            ghost_batches=self.batches.ghost,
        )
        if self.precision == "float64":
            scout = Scout(self._over_ranks(objective, parameters), FLOAT32_NOISE) if self.scouting else None
            point = [p.detach().double() for p in parameters]
            return self._over_ranks(objective.in_float64(), point), scout
        serves = self.tolerance >= error_of(LEADING_INPUTS_NOISE, self.criterion)
        if not (self.scouting and serves and begins_linearly(objective.network, self.inputs)):
            return self._over_ranks(objective, parameters), None
        self._leading = self._leading or LeadingInputs.of(self.inputs)
        split = self._leading.split(objective, parameters)
        joint = self._over_ranks(split.objective, split.parameters, deferred=[1])
        return scouted(joint, split, self._lookout)

    def _over_ranks(self, objective: MeanLoss, parameters: Sequence[Tensor], deferred: Collection[int] = ()) -> Hessian:
        if rank_count() == 1 or self.batches.ghost or not objective.divisible:
            return self._operator(objective, parameters, deferred)
        return SummedOperator(self._operator(own_part(objective), parameters, deferred))

    def _operator(self, objective: MeanLoss, parameters: Sequence[Tensor], deferred: Collection[int]) -> Hessian:
        batch = self.batches.size or len(objective)
        if self.batches.chunk is None and batch >= len(objective):  # the run passes all at once, and so does the probe
            leaves = leaves_at(parameters)
            return HessianOperator(objective.of_chunk(leaves, slice(0, len(objective))), leaves, deferred)
        return MeanLossHessian(
            objective,
            parameters,
            memory=_graph_memory(self.inputs.device),
            chunk=self.batches.chunk if self.batches.ghost else None,
            deferred=deferred,
        )

    def _choose_start(self, iterate: Tensor, midpoint: Tensor) -> None:
        """Lets the midpoint's search start from what the iterate's has just found, where the two points are near."""
        last, self._last_midpoint = self._last_midpoint, midpoint
        if last is None or (midpoint - iterate).norm() < _NEAR * (midpoint - last).norm():
            self._trackers["midpoint"].start_from(self._trackers["iterate"])

    def _measure_whole(self, place: str, hessian: Hessian, scout: Scout | None) -> None:
        pairs = self._trackers[place].refresh(hessian, scout)
        self.record.append(f"sharpness_{place}", float(pairs.values[0]))
        self.record.append(f"residual_{place}", float(pairs.residuals[0]))
        self.record.append(f"value_error_{place}", float(pairs.errors[0]))
        self.record.append(f"converged_{place}", pairs.converged)
        self.record.append(f"verified_{place}", pairs.verified)
        self.record.append(f"layer_share_{place}", layer_shares(pairs.vectors[0], self._sizes, self._layers))

    def _measure_blocks(self, step: int, hessian: Hessian, scout: Scout | None) -> None:
        """The blocks of all layers in shared passes, each from the eigenvectors found the last time."""
        pairs = self._blocks.refresh(hessian, scout)
        self.record.append("block_measured", step)
        self.record.append("block_sharpness", [float(p.values[0]) for p in pairs.values()])
        self.record.append("block_residual", [float(p.residuals[0]) for p in pairs.values()])
        self.record.append("block_value_error", [float(p.errors[0]) for p in pairs.values()])
        self.record.append("block_converged", [p.converged for p in pairs.values()])
        self.record.append("block_verified", [p.verified for p in pairs.values()])


def _graph_memory(device: torch.device) -> int:
    """Bytes that graphs may take: half of a GPU's memory, 2 GiB elsewhere."""
    return torch.cuda.get_device_properties(device).total_memory // 2 if device.type == "cuda" else 1 << 31


def _without_dropout(network: nn.Module) -> nn.Module:
    """The network itself, or a copy that drops no units where it would."""

    def drops(module: nn.Module) -> bool:
        return isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0

    if not any(map(drops, network.modules())):
        return network
    still = copy.deepcopy(network)
    for module in filter(drops, still.modules()):
        module.eval()
    return still


@dataclass
class SnapshotProbe:
    """The parameters at every so many steps, the start of step 0 among them; a run can begin from one.

    Buffers are not kept: in training mode batch norm does not use its running statistics.

    Attributes:
        parameters: number of the network's parameters.
        every: steps between snapshots.
        record: where they go: ``snapshot`` (snapshot_step, parameter), in float32.
    """

    parameters: int
    every: int
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        require_positive("steps between snapshots", self.every)
        self.record.declare("snapshot_step", ["snapshot_step"], dtype=np.int64)
        self.record.declare("snapshot", ["snapshot_step", "parameter"], [self.parameters], np.float32)

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Keeps them where the step is due."""
        if step % self.every == 0:
            self.record.append("snapshot_step", step)
            self.record.append("snapshot", torch.cat([p.detach().reshape(-1) for p in parameters]))

    def state_dict(self) -> dict[str, Any]:
        """Snapshots that are not in a record on disk."""
        return {"record": {} if self.record.folder else self.record.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        if state.get("record"):  # checkpoints of earlier versions have none
            self.record.load_state_dict(state["record"])
