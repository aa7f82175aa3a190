"""The roles that runs play in claims, and each role's configuration, derived from that of the base run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr

from sim import Batches, LossRule, OptimizerChoice
from validate.edge_probe import EdgeMeasurements
from validate.edge_study import EdgeConfig
from validate.interventions import Indices, Intervention, choose_examples
from validate.near_flow import NearFlowConfig
from validate.network_run import NetworkConfig
from validate.treatments import CHOICES, TREATMENTS, Treatment, late_start
from validate.whole_loss import WholeLossConfig
from validate.windows import Windows

CONTROL_DIVISOR = 10
"""The gentle runs take a tenth of the step size."""
MOMENTUM = 0.9
LOSS_RULES = {"label_smoothing": LossRule(label_smoothing=0.1), "squared": LossRule("squared")}
"""Rule of the examples' losses of the roles that take another than the base run's."""
SELDOM = 5
"""How many times as far apart the sharpness is measured where no claim reads it."""


@dataclass(frozen=True)
class Setting:
    """The base run of a kind of network in a preset, and the numbers that roles add to it; all are our choices."""

    network: NetworkConfig
    """The base run, but for its seed."""
    seeds: tuple[int, ...]
    """Seeds of the initial weights."""
    adam_lr: float = 1e-4
    """Step size of Adam, and of SplitSGD's sign steps."""
    threshold: float = 3e-4
    """Size of gradient above which SplitSGD takes a sign step: about half of the coordinates at the start."""
    batch: int = 50
    """Examples in a minibatch, for the roles that take minibatches."""
    sgd_lr: float = 0.05
    """Step size of those."""
    sgd_steps: int = 400
    """Number of steps of those."""
    share: float = 0.1
    """Share of the examples that an intervention acts on."""
    edge: EdgeMeasurements = field(default_factory=EdgeMeasurements)
    """What the edge study measures."""
    crossing: int = 0
    """Step at which gradient flow is to get to 2/η: by this each seed's step size is chosen (`validate.near_flow`); 0
    for the network's step size, whatever the seed."""
    step_sizes: Mapping[int, float] = field(default_factory=dict)
    """Seed → the step size so chosen, as far as it is known."""

    def knows_step_size(self, seed: int) -> bool:
        """Whether a seed's step size is the network's, or has been chosen."""
        return not self.crossing or seed in self.step_sizes

    def base(self, seed: int) -> NetworkConfig:
        """The base run of a seed."""
        return replace(self.network, seed=seed, lr=self.step_sizes.get(seed, self.network.lr))


RunConfig = NetworkConfig | EdgeConfig | WholeLossConfig | NearFlowConfig
"""What a run, or a study of one, is made from."""


@dataclass(frozen=True)
class Base:
    """A finished base run with its windows, which some roles are derived from."""

    data: xr.Dataset
    windows: Windows


@dataclass(frozen=True)
class Role:
    """A role.

    Attributes:
        describes: the run in words.
        derive: its configuration from the setting and the base run's.
        derive_from_run: the same where it depends on the finished base run too; the other then is None.
        kinds: kinds of network that have it; all when None.
    """

    describes: str
    derive: Callable[[Setting, NetworkConfig], NetworkConfig] | None = None
    derive_from_run: Callable[[Setting, NetworkConfig, Base], RunConfig] | None = None
    kinds: tuple[str, ...] | None = None


def treated_examples(setting: Setting, run: Base, seed: int) -> Mapping[str, Indices]:
    """The examples that interventions act on, by choice: the setting's share of a seed's base run."""
    count = max(1, round(setting.share * run.data.sizes["example"]))
    return choose_examples(run.data, run.windows, count, seed)


def beside(base: NetworkConfig, **changes: Any) -> NetworkConfig:
    """A run beside the base run: no snapshots, probes, blocks or midpoints, but where asked for."""
    return replace(base, **{"snapshot_every": 0, "probe_every": 0, "blocks_every": 0, "midpoint": False, **changes})


def _gentle(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    lr = round(base.lr / CONTROL_DIVISOR, 12)  # so that 0.012 / 10 is 0.0012 in the run's name
    return beside(base, lr=lr, measure_every=2 * base.measure_every, midpoint=True, step_lengths=False)


def _momentum(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    # 2(1 + μ)/η′ = 2/η (T13)
    return beside(base, lr=round((1 + MOMENTUM) * base.lr, 12), optimizer=OptimizerChoice("momentum", MOMENTUM))


def _seldom_measured(base: NetworkConfig, **choice: Any) -> NetworkConfig:
    """A run whose losses alone claims read: its sharpness is for figures."""
    optimizer = OptimizerChoice(**choice)
    return beside(base, optimizer=optimizer, measure_every=SELDOM * base.measure_every, step_lengths=False)


def _momentum_dampened(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    return _seldom_measured(base, kind="momentum", momentum=MOMENTUM, dampening=MOMENTUM)


def _sam(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    return beside(base, optimizer=OptimizerChoice("sam"))


def _adam(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    return beside(base, lr=setting.adam_lr, optimizer=OptimizerChoice("adam"))


def _split_sgd(setting: Setting, base: NetworkConfig) -> NetworkConfig:
    return _seldom_measured(
        base,
        kind="split_sgd",
        momentum=MOMENTUM,
        dampening=MOMENTUM,
        sign_lr=setting.adam_lr,
        threshold=setting.threshold,
    )


def _loss(rule: LossRule) -> Callable[[Setting, NetworkConfig], NetworkConfig]:
    return lambda setting, base: beside(base, loss=rule)


def _minibatches(*, norm: bool) -> Callable[[Setting, NetworkConfig], NetworkConfig]:
    def derive(setting: Setting, base: NetworkConfig) -> NetworkConfig:
        kind = "vgg11_bn" if norm else base.architecture.kind
        return beside(
            base,
            architecture=replace(base.architecture, kind=kind),
            lr=setting.sgd_lr,
            steps=setting.sgd_steps,
            batches=Batches(size=setting.batch, seed=base.seed),
            measure_every=setting.sgd_steps,
            step_lengths=False,
        )

    return derive


def _treated(treatment: Treatment, chosen: str) -> Callable[[Setting, NetworkConfig, Base], RunConfig]:
    def derive(setting: Setting, base: NetworkConfig, run: Base) -> RunConfig:
        examples = treated_examples(setting, run, base.seed)[chosen]
        what = Intervention(treatment.kind, tuple(int(i) for i in examples), treatment.amount, chosen)
        start = late_start(base, run.windows) if treatment.late else 0
        # Midpoints where the base run has them: treated runs are compared with it, and swing where they get to 2/η.
        return beside(
            base,
            intervention=what,
            midpoint=base.midpoint,
            step_lengths=False,
            start_step=start,
            steps=base.steps - start,
        )

    return derive


def _edge(setting: Setting, base: NetworkConfig, run: Base) -> RunConfig:
    return EdgeConfig(base, setting.edge)


ROLES: Mapping[str, Role] = {
    "base": Role("full-batch gradient descent at the step size in question", lambda setting, base: base),
    "gentle": Role("a tenth of the step size, as many steps", _gentle),
    "adam": Role("Adam", _adam),
    "momentum": Role("heavy-ball momentum with the base run's threshold: step size (1 + μ)η, μ = 0.9", _momentum),
    "momentum_dampened": Role(
        "dampened momentum at the base run's step size, μ = τ = 0.9",
        _momentum_dampened,
    ),
    "split_sgd": Role("SplitSGD with dampened momentum, sign steps of Adam's size", _split_sgd),
    "sam": Role("sharpness-aware minimisation", _sam),
    "batch_norm": Role("SGD on minibatches, with batch normalisation", _minibatches(norm=True), kinds=("vgg11",)),
    "no_batch_norm": Role("SGD on the same minibatches, without", _minibatches(norm=False), kinds=("vgg11",)),
    "label_smoothing": Role("label smoothing of 0.1", _loss(LOSS_RULES["label_smoothing"])),
    "squared": Role("squared loss", _loss(LOSS_RULES["squared"])),
    **{
        treatment.role_of(choice): Role(treatment.words.format(words), derive_from_run=_treated(treatment, choice))
        for treatment in TREATMENTS.values()
        for choice, words in CHOICES.items()
    },
    "edge": Role("the base run's edge, replayed and measured closely", derive_from_run=_edge),
}
