"""The plan: which runs the claims asked for need on a network, which of them exist, and how long the others take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from sim import build
from sim.runs import list_runs, read_run
from validate.cifar10 import CLASSES, Images
from validate.claims import Claim
from validate.network_run import IMAGE_SHAPE, NetworkConfig, network_tensors, training_images
from validate.roles import ROLES, Base, RunConfig, Setting, beside
from validate.windows import find_windows

# In gradients of the full batch; from the runs of preset `standard` on one thread of an AMD machine.
STEP_GRADIENTS = 1.2
"""What a step costs, with its losses kept."""
MEASUREMENT_GRADIENTS, OF_PERCEPTRON = 14, 5
"""What a measurement of the sharpness at one point costs, and what one of a perceptron does, which the inputs' leading
directions help."""
EDGE_GRADIENTS, EDGE_OF_PERCEPTRON, EDGE_STEPS = 45, 22, 190
"""What a measurement of the edge study costs, and how many steps it takes, roughly."""
NEAR_FLOW_GRADIENTS = 2.5
"""What the run near gradient flow that chooses a seed's step size costs, for each step up to the crossing."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that claims need.

    Attributes:
        role: its role.
        seed: its seed.
        config: its configuration; None while the base run that it is derived from is not there, or its step size is
            not chosen.
        exists: whether it is finished.
        gradients: what making it costs, in full-batch gradients of the base run; a seed's first run with what choosing
            the step size costs, where that is still to be chosen.
        steps: number of steps.
    """

    role: str
    seed: int
    config: RunConfig | None
    exists: bool
    gradients: float
    steps: int


def roles_needed(claims: Sequence[Claim], kind: str, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The roles that the claims need on a kind of network, and others asked for, in the order of `ROLES`."""
    needed = {role for claim in claims if claim.claimed_for(kind) for role in claim.needs} | set(also)
    if any(ROLES[role].derive_from_run for role in needed):
        needed.add("base")
    return tuple(role for role in ROLES if role in needed and kind in (ROLES[role].kinds or (kind,)))


def make_plan(setting: Setting, roles: Sequence[str], runs: Path, *, force: bool = False) -> list[PlannedRun]:
    """Every run of the roles, seed after seed, the base run first.

    Args:
        setting: of the network; a seed whose step size is still to be chosen has no configurations yet.
        roles: as `roles_needed` gives them.
        runs: folder of the run store.
        force: every run is made again, so that none counts as there, and none is opened.
    """
    there = set() if force else set(list_runs(runs))
    planned = []
    for seed in setting.seeds:
        config = setting.base(seed)
        if not setting.knows_step_size(seed):
            for role in roles:
                like = derive(role, setting, seed, None)  # but for its step size
                cost, steps = _cost_and_steps(role, like, setting)
                choosing = NEAR_FLOW_GRADIENTS * setting.crossing if role == roles[0] else 0.0
                planned.append(PlannedRun(role, seed, None, False, cost + choosing, steps))
            continue
        base = finished_base(config, runs) if config.name in there else None
        crosses = base is not None or config.name not in there
        for role in roles:
            derived = derive(role, setting, seed, base)
            if derived is None and not crosses:
                continue  # nothing to derive it from: the base run never crosses
            exists = derived is not None and derived.name in there
            planned.append(PlannedRun(role, seed, derived, exists, *_cost_and_steps(role, derived, setting)))
    return planned


def derive(role: str, setting: Setting, seed: int, base: Base | None) -> RunConfig | None:
    """The configuration of a role; None where it waits for a base run that crosses."""
    of = ROLES[role]
    if of.derive is not None:
        return of.derive(setting, setting.base(seed))
    assert of.derive_from_run is not None
    return None if base is None else of.derive_from_run(setting, setting.base(seed), base)


def seconds_a_gradient(config: NetworkConfig, images: Images, device: torch.device, *, repeats: int = 2) -> float:
    """Measured seconds of one full-batch gradient of a network, the faster of some."""
    images = training_images(config, images)
    network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed).to(device)
    inputs, labels = network_tensors(config.architecture, images, device)
    seconds = []
    for _ in range(repeats + 1):  # the first warms up
        begin = time.perf_counter()
        for part in config.batches.of_step(0, len(labels), device):
            torch.autograd.backward(F.cross_entropy(network(inputs[part]), labels[part]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def gradient_of_missing(
    plan: Sequence[PlannedRun], network: NetworkConfig, images: Images, device: torch.device
) -> float:
    """Measured seconds of a gradient, for the time that a plan takes; 0, and nothing measured, where all is there."""
    missing = any(not run.exists for run in plan)
    return seconds_a_gradient(network, images, device) if missing else 0.0


def table(plan: Sequence[PlannedRun], gradient: float) -> str:
    """The plan in words: a line for each role, and the time that what is missing takes.

    Args:
        plan: the runs.
        gradient: seconds of a gradient.
    """
    lines = [f"  {'role':24}{'runs':>5}{'there':>6}{'steps':>8}{'minutes':>9}  what"]
    for role in dict.fromkeys(run.role for run in plan):
        own = [run for run in plan if run.role == role]
        left = sum(run.gradients for run in own if not run.exists) * gradient / 60
        there = sum(run.exists for run in own)
        steps = own[0].steps
        lines.append(f"  {role:24}{len(own):5}{there:6}{steps:8}{left:9.1f}  {ROLES[role].describes}")
    for run in plan:
        name = run.config.name if run.config else "(known once the run that it is derived from is there)"
        lines.append(f"    seed {run.seed} {run.role}: {name}{', there' if run.exists else ''}")
    left = minutes_left(plan, gradient)
    words = f"{left:.0f} minutes left, at {gradient:.3g} s a gradient on this machine now"
    lines.append(f"  {words if left else 'every run is there'}")
    return "\n".join(lines)


def minutes_left(plan: Sequence[PlannedRun], gradient: float) -> float:
    """Minutes that the runs that are not there take."""
    return sum(run.gradients for run in plan if not run.exists) * gradient / 60


def finished_base(config: RunConfig, runs: Path) -> Base | None:
    """A base run of the store, for what is derived from it; None where it has no windows at 2/η."""
    data = read_run(runs, config.name, config=config).data
    windows = find_windows(data)
    return None if windows is None else Base(data, windows)


def _cost_and_steps(role: str, config: RunConfig | None, setting: Setting) -> tuple[float, int]:
    """Gradients of the full batch that a run costs, and its steps."""
    perceptron = setting.network.architecture.kind == "mlp"
    if role == "edge":
        look = EDGE_OF_PERCEPTRON if perceptron else EDGE_GRADIENTS
        return EDGE_STEPS * (STEP_GRADIENTS + look / setting.edge.every), EDGE_STEPS
    if not isinstance(config, NetworkConfig):
        config = beside(setting.network)
    count = config.images_per_class * len(CLASSES)
    share = min(1.0, (config.batches.size or count) / count)
    look = OF_PERCEPTRON if perceptron else MEASUREMENT_GRADIENTS
    measurements = look * (2 if config.midpoint else 1) / config.measure_every
    blocks = 4 * look / config.blocks_every if config.blocks_every else 0
    step = share * STEP_GRADIENTS * (2 if config.optimizer.kind == "sam" else 1)
    return config.steps * (step + measurements + blocks), config.steps
