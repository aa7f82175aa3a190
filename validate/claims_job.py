"""``python -m validate claims``: plans the runs that claims need on real networks, makes them, judges, reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import choose_device
from sim.device import describe_device
from sim.distributed import is_first
from sim.runs import Run
from theory.command_line import InputError
from validate.claims import CLAIMS, Claim, Evidence, Verdict, judge
from validate.evidence import Store, open_store
from validate.images_at_hand import images_for
from validate.main_job import tell_outcome, with_choices
from validate.plan import PlannedRun, gradient_of_missing, make_plan, minutes_left, roles_needed, table
from validate.presets import TWO_LAYER_RUNS, preset_named, two_layer_name
from validate.report import print_verdicts, write_report
from validate.report_content import NetworkPart, Report
from validate.roles import ROLES, Setting
from validate.side_by_side import make_ahead, make_step_sizes_ahead, require_jobs


@dataclass(frozen=True)
class ClaimsConfig:
    """Judge the claims on real networks: make the runs they need, resumably, and write a report."""

    network: tuple[str, ...] = ("mlp",)
    """mlp, vgg11, resnet18, vit, several of them, or all."""
    preset: str = "standard"
    """quick, standard (embedded images, two cores), long (all but the perceptron larger: hours) or paper (a GPU)."""
    claims: tuple[str, ...] | None = None
    """Claims by name, such as C3 or C4a; C4 means all its parts. All of the preset's when not given."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the initial weights; the preset's when not given."""
    lr: float | None = None
    """Step size of the base run; the preset's when not given."""
    crossing: int | None = None
    """Step at which gradient flow is to get to 2/η: chooses each seed's own step size; the preset's when not given."""
    images_per_class: int | None = None
    """Images of each class to train on; the preset's when not given."""
    steps: int | None = None
    """Number of steps; the preset's when not given."""
    roles: tuple[str, ...] = ()
    """Roles of runs to make beside those that the claims need, such as squared or sam."""
    device: str = "auto"
    """auto, cpu or cuda."""
    jobs: int = 1
    """Runs made at once, each in a process of its own with its share of the threads."""
    data: Path | None = None
    """Folder with the full CIFAR-10, as python -m validate data fetch fills it; the embedded images when not given."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, half-made ones gone on with."""
    report: Path = Path("report/claims")
    """Folder for report.html, report.json and claims.md."""
    force: bool = False
    """Make every run again."""
    plan: bool = False
    """Only say which runs there are to be, which exist, and how long the others take on this machine."""
    list: bool = False
    """Only list the claims."""


def claims_job(config: ClaimsConfig) -> int:
    """Judges claims; 0 when all that were judged hold, 1 when one does not or none was judged."""
    preset = preset_named(config.preset)
    named = preset.claims if config.claims is None else config.claims
    claims = claims_named(named)
    if config.list:
        print("\n".join(describe(claim) for claim in claims))
        return 0
    kinds = preset.kinds(config.network)
    settings = {
        kind: with_choices(
            preset.setting(kind),
            config.seeds,
            config.lr,
            images_per_class=config.images_per_class,
            steps=config.steps,
            crossing=config.crossing,
        )
        for kind in kinds
    }
    require_jobs(config.jobs)
    for role in config.roles:
        if role not in ROLES:
            raise InputError(f"--roles is {role}: give some of {', '.join(ROLES)}")
    images = images_for(config.data, max(setting.network.images_per_class for setting in settings.values()))
    device = choose_device(config.device)
    store = open_store(config.runs, config.report, images, device, force=config.force, plan_only=config.plan)
    print(f"opposing signals, claims, preset {config.preset}, {describe_device(device)}")
    reader = store if config.plan else make_step_sizes_ahead(store, config.jobs, settings.values())
    settings = {kind: reader.with_step_sizes(setting, make=not config.plan) for kind, setting in settings.items()}
    plans, gradients = _tell_plans(config, store, claims, settings)
    if config.plan:
        return 0
    store, plans = make_ahead(store, config.jobs, settings, plans, gradients)
    return _make_and_judge(config, store, claims, settings, plans)


def _tell_plans(
    config: ClaimsConfig, store: Store, claims: Sequence[Claim], settings: Mapping[str, Setting]
) -> tuple[dict[str, list[PlannedRun]], dict[str, float]]:
    """Prints and returns each network's plan and seconds of a gradient, timed only where a run is missing."""
    plans, gradients = {}, {}
    if any(not claim.needs for claim in claims):
        there = [store.has(two_layer_name(name)) for name in TWO_LAYER_RUNS]
        print(f"\ntwo-layer network: {sum(there)} of {len(there)} runs there, the others take seconds")
    for kind, setting in settings.items():
        if unclaimed := [claim.name for claim in claims if claim.needs and not claim.claimed_for(kind)]:
            print(f"\n{kind}: not claimed for it, and not judged: {', '.join(unclaimed)}")
        roles = roles_needed(claims, kind, config.roles)
        plans[kind] = plan = make_plan(setting, roles, config.runs, force=config.force)
        gradients[kind] = gradient_of_missing(plan, setting.network, store.images, store.device)
        print(f"\n{kind}: {len(setting.seeds)} seeds, {len(roles)} roles\n{table(plan, gradients[kind])}")
    if len(settings) > 1:
        total = sum(minutes_left(plan, gradients[kind]) for kind, plan in plans.items())
        print(f"\nall networks: about {total:.0f} minutes left, one run at a time")
    return plans, gradients


def _make_and_judge(
    config: ClaimsConfig,
    store: Store,
    claims: Sequence[Claim],
    settings: Mapping[str, Setting],
    plans: Mapping[str, Sequence[PlannedRun]],
) -> int:
    parts: list[NetworkPart] = []
    verdicts: list[Verdict] = []
    runs: list[Run] = []
    statements = [claim for claim in claims if not claim.needs]
    if statements:
        print("\ntwo-layer network")
        two_layer = store.simulate()
        of_theory = Evidence(two_layer={name: (of, run.data.load()) for name, (of, run) in two_layer.items()})
        verdicts += [judge(claim, of_theory) for claim in statements]
        runs += [run for _, run in two_layer.values()]
    of_networks = [claim for claim in claims if claim.needs]
    for kind, setting in settings.items():
        print(f"\n{kind}")
        evidence, made = store.train(kind, setting, plans[kind])
        parts.append(NetworkPart(evidence, setting.network, store.images))
        verdicts += [judge(claim, evidence) for claim in of_networks]
        runs += made
    if not is_first():  # under torchrun, the first rank reports
        return 0
    print()
    print_verdicts(verdicts)
    report = Report(config.preset, parts, verdicts, runs)
    write_report(config.report, report)
    return tell_outcome(config.report, report)


def claims_named(names: Sequence[str] | None) -> list[Claim]:
    """Claims by name, in the order of `CLAIMS`; a number alone means all its parts; all of the networks' when None.

    Raises:
        InputError: there is no claim of that name.
    """
    if names is None:
        return [claim for claim in CLAIMS if claim.needs]
    for name in names:
        if not any(name in (claim.name, number_of(claim)) for claim in CLAIMS):
            known = dict.fromkeys(number_of(claim) for claim in CLAIMS)
            raise InputError(f"there is no claim {name}: give some of {', '.join(known)}, or a part such as C4a")
    return [claim for claim in CLAIMS if claim.name in names or number_of(claim) in names]


def number_of(claim: Claim) -> str:
    """Name without the letter of the part."""
    return claim.name.rstrip("abcdefgh")


def describe(claim: Claim) -> str:
    """A claim in lines: name, statement, statistic, threshold, control, roles, networks, figure."""
    lines: dict[str, Any] = {
        "statistic": claim.statistic,
        "threshold": claim.bound,
        "control": claim.control,
        "runs": ", ".join((*claim.needs, *(f"two-layer {name}" for name in claim.simulations))),
        "networks": ", ".join(claim.networks) if claim.networks else "all" if claim.needs else "the two-layer network",
        "figure": claim.figure,
    }
    return "\n".join([f"{claim.name}  {claim.statement}", *(f"      {key + ':':10} {lines[key]}" for key in lines)])
