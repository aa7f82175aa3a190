"""Gradient flow θ' = −∇L(θ) of a network, by an adaptive Runge–Kutta rule whose step respects the sharpness.

Along an eigenvector of curvature λ a step h multiplies the distance to the valley's floor by R(−hλ), the rule's
stability polynomial. Where |R| > 1 the step is unstable, as descent is at ηλ > 2; a controller that sees only errors
finds that out by rejected steps. So besides the error, h ≤ f·x/λ bounds the step, with x the rule's stability interval
(3.3 for RK45, 2.5 for RK23), f < 1 a margin for the growth of λ in between, and λ the sharpness, tracked.

SciPy's rules and step control integrate, in float64 on the CPU; gradients and products are the network's, on its device
and in its precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import RK23, RK45
from torch import Tensor, nn

from sim.arithmetic import Arithmetic
from sim.batches import Batches
from sim.checkpoints import Checkpoints
from sim.curvature import EigenpairTracker, MeanLoss, MeanLossHessian
from sim.curvature.mean_loss import ExampleLoss, unflatten
from sim.losses import LossRule, require_labels
from sim.networks import load_parameters, parameter_vector, require_trained_whole
from sim.progress import progress_bar
from sim.record import Record
from sim.same_run import require_same_run, run_words, tensor_words
from sim.training import Descent, Probe, StatefulProbe, require_weights
from theory.command_line import InputError, require_all, require_positive

Rule = Literal["RK23", "RK45"]
Array = npt.NDArray[np.float64]

RULES: dict[str, type[RK23] | type[RK45]] = {"RK23": RK23, "RK45": RK45}
GRAPH_MEMORY = 1 << 31
"""Bytes that the graphs of a Hessian may take."""


@dataclass(frozen=True)
class StepControl:
    """How far a step of the integration goes."""

    rule: Rule = "RK45"
    """RK23: Bogacki & Shampine 1989, order 3, three gradients a step; RK45: Dormand & Prince 1980, order 5, six."""
    relative_tolerance: float = 1e-3
    """Bound on a step's error, relative to each weight's size."""
    absolute_tolerance: float = 1e-6
    """The same, absolute: added to the other."""
    stability_fraction: float = 0.8
    """Part f of the rule's stability interval that hλ may take; infinite for steps that do not look at λ. Beside the
    error control 0.8 has left no step to reject on a perceptron; with that switched off it takes 0.5 (RK45)."""
    refresh_every: int = 4
    """Steps between refreshes of λ."""
    longest: float = np.inf
    """Bound on the step, in units of time."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InputError(f"rule of the flow is {self.rule}: give one of {', '.join(RULES)}")
        for name in ("relative_tolerance", "absolute_tolerance", "refresh_every"):
            require_positive(name.replace("_", " "), getattr(self, name))
        for name in ("stability_fraction", "longest"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name.replace('_', ' ')} is {getattr(self, name)}: give a number above 0")


@dataclass(frozen=True)
class Flow(Descent):
    """What a flow leaves behind.

    The record has ``loss`` (step, example) and ``time`` (step) at the stated times, and of every step of the
    integration ``integrated``, the time at its end, ``step_size``, and the ``tracked_sharpness`` that bounded it, with
    ``tracked_converged`` (NaN and false where the sharpness was not looked at). ``diverged_at`` is the index of the
    first stated time that was not reached with finite losses.

    Attributes:
        steps: accepted steps of the integration.
        rejected: steps tried and rejected for their error.
        evaluations: gradients.
        products: Hessian-vector products.
    """

    steps: int
    rejected: int
    evaluations: int
    products: int


def flow(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    times: npt.ArrayLike,
    control: StepControl = StepControl(),
    loss: ExampleLoss = LossRule(),  # noqa: B008 (frozen)
    example_weights: Tensor | None = None,
    batches: Batches = Batches(),  # noqa: B008
    probes: Sequence[Probe] = (),
    record: Record | None = None,
    checkpoints: Checkpoints | None = None,
    loss_dtype: str = "float32",
    seed: int = 0,
    description: str = "flow",
    progress: bool = True,
) -> Flow:
    """Follows the gradient flow of the mean loss from the network's weights, which end where the last time finds them.

    With times η·(0, 1, 2, …) its rows stand beside those of `sim.descend` at step size η, which they approach as η → 0.
    Stated times do not shorten steps: weights there are interpolated, to the rule's order. Losses there cost a forward
    pass, and with probes a gradient.

    The flow is of the network's mode, on copies of its buffers, so batch norm's running statistics stay; with ReLU the
    field has kinks, at which the error control shortens steps. Killed and resumed from checkpoints, it gives the bits
    of the uninterrupted flow. Under torchrun each rank follows the whole flow by itself.

    Args:
        network: the network, on the inputs' device, in float32 or float64.
        inputs: (n, …) all inputs, resident on the device.
        labels: (n,) class indices.
        times: (m,) increasing times, from 0 on, at which losses are recorded and probes called.
        control: rule, tolerances and bound on the steps.
        loss: rule of the examples' losses.
        example_weights: (n,) weight of each example's loss in the mean; all 1 when not given.
        batches: how many examples at once; all of them make the gradient.
        probes: measurements, called with the index of the stated time in place of the step; the network then has the
            weights of that time.
        record: where rows go; in memory when not given.
        checkpoints: where the flow's state goes, and comes from.
        loss_dtype: float32 or float16, in which losses are stored.
        seed: seed of the eigensolver's start vectors.
        description: words of the progress bar.
        progress: whether to show it.

    Raises:
        InputError: no times, or some that do not increase from 0 on, outputs or labels that the loss does not take,
            weights that make no mean, minibatches, chunks that cut batch norm's batch, or a checkpoint of another flow.
    """
    at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if not at.size:
        raise InputError("the flow has no times: give at least one")
    require_all("time of the flow", at, (at >= 0) & (np.diff(at, prepend=-1) > 0), "increasing times of at least 0")
    if batches.size is not None:
        raise InputError(f"minibatches have {batches.size} examples: the flow is of all examples, give a chunk alone")
    require_trained_whole(network)
    batches.require_whole_batch_norm(network, len(inputs))
    require_weights(example_weights, len(inputs))
    weights = None if example_weights is None else example_weights / example_weights.sum()
    objective = MeanLoss(network, inputs, labels, loss=loss, weights=weights, ghost_batches=batches.ghost)
    record = Record() if record is None else record
    record.declare("loss", ("step", "example"), (len(inputs),), loss_dtype)
    record.declare("time", ("step",))
    asked: dict[str, str] = {}
    if checkpoints is not None:  # all numbers of the data are read for it
        rules = {"control": control, "loss": loss, "batches": batches, "seed": seed}
        rules |= {"times": tensor_words(torch.from_numpy(at))}
        asked = run_words(network, inputs, labels, example_weights, probes, **rules)
    with Arithmetic().active(inputs.device), np.errstate(invalid="ignore", over="ignore"):
        with torch.no_grad():
            some = next(objective.chunks(batches.chunk))
            require_labels(loss, labels, objective.outputs(list(network.parameters()), some).shape)
        run = _Integration(_Field(objective, batches), control, float(at[-1]), asked, seed, probes, record, checkpoints)
        diverged_at = None
        with progress_bar(range(run.reached, len(at)), description, show=progress) as bar:
            for index in bar:
                if not run.advance(float(at[index])) or not run.measure(float(at[index])):
                    diverged_at = index
                    break
                bar.set_postfix(loss=f"{run.mean_loss:.3f}", steps=run.steps, refresh=False)
    return Flow(record, diverged_at, run.steps, run.rejected, run.solver.nfev, run.tracker.products)


def stability_interval(rule: Rule) -> float:
    """Largest x such that |R(−y)| ≤ 1 for all y from 0 to x, R being the rule's stability polynomial.

    >>> [round(stability_interval(rule), 2) for rule in ("RK23", "RK45")]
    [2.51, 3.31]
    """
    method = RULES[rule]
    stages = method.n_stages
    matrix = np.zeros((stages, stages))
    matrix[:, : method.A.shape[1]] = method.A
    # R(z) = 1 + Σ_{k≥1} z^k bᵀA^{k−1}1
    powers = [np.linalg.matrix_power(matrix, k) @ np.ones(stages) for k in range(stages)]
    r = np.polynomial.Polynomial([1.0, *((-1) ** (k + 1) * method.B @ p for k, p in enumerate(powers))])
    ends = np.concatenate([(r - side).roots() for side in (-1.0, 1.0)])
    real = ends[np.abs(ends.imag) < 1e-9].real
    return float(real[real > 1e-6].min())


class _Field:
    """−∇L at a flat float64 vector of weights, and what else is asked of a point."""

    def __init__(self, objective: MeanLoss, batches: Batches) -> None:
        self.objective, self.batches = objective, batches
        self.like = list(objective.network.parameters())

    def point(self, y: Array) -> list[Tensor]:
        """The weights in the network's precision, on its device."""
        return unflatten(torch.from_numpy(y).to(self.like[0]), self.like)

    def __call__(self, _: float, y: Array) -> Array:
        """Right-hand side of the flow, as SciPy calls it."""
        return -self.objective.gradient(self.point(y), self.batches.chunk).double().cpu().numpy()

    def losses(self, y: Array) -> Tensor:
        """(n,) loss of each example."""
        point = self.point(y)
        with torch.no_grad():
            parts = [
                self.objective.loss(self.objective.outputs(point, chunk), self.objective.targets[chunk])
                for chunk in self.objective.chunks(self.batches.chunk)
            ]
        return torch.cat(parts)

    def hessian(self, y: Array) -> MeanLossHessian:
        """The Hessian of the mean loss."""
        chunk = self.batches.chunk if self.batches.ghost else None
        return MeanLossHessian(self.objective, self.point(y), memory=GRAPH_MEMORY, chunk=chunk)


class _Integration:
    """SciPy's stepper with the bound on its step, and all that the next step depends on."""

    def __init__(
        self,
        field: _Field,
        control: StepControl,
        end: float,
        asked: dict[str, str],
        seed: int,
        probes: Sequence[Probe],
        record: Record,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.field, self.control, self.probes, self.record = field, control, probes, record
        self.checkpoints, self.end, self.asked = checkpoints, end, asked
        self.solver: Any  # SciPy's types allow for complex weights
        self.dense: Any = None  # the interpolant of the last step, once it is needed
        self.generator = torch.Generator().manual_seed(seed)
        self.tracker = EigenpairTracker(self.generator)
        self.interval = stability_interval(control.rule)
        self.steps, self.reached, self.mean_loss = 0, 0, np.nan
        self.sharpness, self.converged = np.nan, False
        record.declare("integrated", ("integrated",))
        for name, dtype in (("step_size", np.float64), ("tracked_sharpness", np.float64), ("tracked_converged", bool)):
            record.declare(name, ("integrated",), dtype=dtype)
        latest = None if checkpoints is None else checkpoints.latest()
        if latest is None:
            y = parameter_vector(field.objective.network).double().cpu().numpy()
            self._start(0.0, y, self._bound(y))
        else:
            self._resume(latest[1])

    @property
    def rejected(self) -> int:
        """Steps tried and not taken: each took as many gradients as one that was."""
        return int(self.solver.nfev - self.first_evaluations) // int(self.solver.n_stages) - self.steps

    def advance(self, time: float) -> bool:
        """Takes steps until the time is reached; false if the step shrinks to nothing, as where no gradient is."""
        if self.solver.t < time and not np.isfinite(self.solver.h_abs):
            # The first gradient is not finite, and SciPy would look for a step for ever.
            return False
        while self.solver.t < time:
            if self.checkpoints is not None and self.checkpoints.due():
                self.checkpoints.save(self.steps, self._state())
            if self.steps and self.steps % self.control.refresh_every == 0:
                self.solver.max_step = self._bound(self.solver.y)
            self.solver.step()
            if self.solver.status == "failed":
                return False
            self.steps += 1
            self.dense = None
            self.record.append("integrated", self.solver.t)
            self.record.append("step_size", self.solver.t - self.solver.t_old)
            self.record.append("tracked_sharpness", self.sharpness)
            self.record.append("tracked_converged", self.converged)
        return True

    def measure(self, time: float) -> bool:
        """Records the losses at a time within the last step and calls the probes; false where one is not finite."""
        at_end = time == self.solver.t
        if not at_end and self.dense is None:
            self.dense = self.solver.dense_output()
        y = self.solver.y if at_end else self.dense(time)
        losses = self.field.losses(y)
        if not bool(torch.isfinite(losses).all()):
            return False
        load_parameters(self.field.objective.network, torch.from_numpy(y).to(self.field.like[0]))
        self.record.append("loss", losses)
        self.record.append("time", time)
        if self.probes:
            force = self.solver.f if at_end else self.field(time, y)
            gradients = [-part for part in self.field.point(force)]
            cuda = [self.field.like[0].device.index] if self.field.like[0].is_cuda else []
            with torch.random.fork_rng(devices=cuda):
                for probe in self.probes:
                    probe(self.reached, self.field.like, gradients)
        self.reached, self.mean_loss = self.reached + 1, float(losses.mean())
        return True

    def _bound(self, y: Array) -> float:
        """The longest step at these weights, with λ refreshed."""
        if np.isinf(self.control.stability_fraction):
            return self.control.longest
        pairs = self.tracker.refresh(self.field.hessian(y))
        self.sharpness, self.converged = float(pairs.values[0]), pairs.converged
        if not self.sharpness > 0:
            return self.control.longest
        # h λ ≤ f x
        return min(self.control.longest, self.control.stability_fraction * self.interval / self.sharpness)

    def _start(self, time: float, y: Array, longest: float, first_step: float | None = None) -> None:
        options: dict[str, Any] = {
            "rtol": self.control.relative_tolerance,
            "atol": self.control.absolute_tolerance,
            "max_step": longest,
        }
        if first_step is not None:
            options["first_step"] = min(first_step, self.end - time)
        method: Any = RULES[self.control.rule]
        self.solver = method(self.field, time, y, self.end, **options)
        self.first_evaluations = self.solver.nfev

    def _state(self) -> dict[str, Any]:
        """State before a step whose like is not begun: all stated times so far are recorded."""
        return {
            "asked": self.asked,
            "time": float(self.solver.t),
            "weights": torch.from_numpy(self.solver.y),
            "network": parameter_vector(self.field.objective.network).cpu(),  # of the last stated time
            "next_step": float(self.solver.h_abs),
            "longest": float(self.solver.max_step),
            "counts": [self.steps, self.reached, self.solver.nfev, self.first_evaluations],
            "tracked": [self.sharpness, self.converged],
            "generator": self.generator.get_state(),
            "tracker": self.tracker.state_dict(),
            "probes": [p.state_dict() if isinstance(p, StatefulProbe) else {} for p in self.probes],
            "record": self.record.state_dict(),
        }

    def _resume(self, state: dict[str, Any]) -> None:
        require_same_run(state.get("asked", {}), self.asked)  # earlier versions kept none
        self._start(state["time"], state["weights"].numpy(), state["longest"], state["next_step"])
        if "network" in state:  # not in checkpoints of earlier versions
            load_parameters(self.field.objective.network, state["network"].to(self.field.like[0]))
        self.steps, self.reached, self.solver.nfev, self.first_evaluations = state["counts"]
        self.sharpness, self.converged = state["tracked"]
        self.generator.set_state(state["generator"])
        self.tracker.load_state_dict(state["tracker"], self.field.like[0].device)
        for probe, held in zip(self.probes, state["probes"], strict=True):
            if isinstance(probe, StatefulProbe):
                probe.load_state_dict(held)
        self.record.load_state_dict(state["record"])
