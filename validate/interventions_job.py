"""``python -m validate interventions``: treats opposing examples and controls alike, and compares what that does."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sim import choose_device
from sim.device import describe_device
from sim.distributed import is_first
from sim.durable_files import write_durably
from theory.command_line import InputError
from validate.cifar10 import EMBEDDED_PER_CLASS, Images, load_full
from validate.evidence import open_store
from validate.images_at_hand import held_out, images_for
from validate.intervention_effects import network_effects
from validate.intervention_table import as_json, network_words, page
from validate.main_job import with_choices
from validate.plan import gradient_of_missing, make_plan, minutes_left, table
from validate.presets import preset_named
from validate.roles import Setting
from validate.side_by_side import make_ahead, make_step_sizes_ahead, require_jobs
from validate.treated_runs import with_whole_losses
from validate.treatments import TREATMENTS, roles_of

SEEDS = 3
SNAPSHOT_EVERY = 30


@dataclass(frozen=True)
class InterventionsConfig:
    """Treat opposing examples, random ones and the hardest alike; compare sharpness, onset, spikes and accuracy."""

    network: tuple[str, ...] = ("mlp",)
    """mlp, vgg11, resnet18, vit, several of them, or all."""
    kinds: tuple[str, ...] = tuple(TREATMENTS)
    """remove, down_weight, clip, relabel, recolour, and remove_late, which begins shortly before the crossing."""
    preset: str = "standard"
    """quick, standard (embedded images, two cores), long (all but the perceptron larger: hours) or paper (a GPU)."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the initial weights; the first three of the preset's when not given."""
    lr: float | None = None
    """Step size; the preset's when not given."""
    crossing: int | None = None
    """Step at which gradient flow is to get to 2/η: chooses each seed's own step size; the preset's when not given."""
    images_per_class: int | None = None
    """Images of each class to train on; the preset's when not given, or as many as the held-out ones leave."""
    steps: int | None = None
    """Number of steps; the preset's when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    jobs: int = 1
    """Runs made at once, each in a process of its own with its share of the threads."""
    data: Path | None = None
    """Folder with the full CIFAR-10, whose test images are then the held-out ones; embedded images when not given."""
    held_out: int = 50
    """At least so many embedded images of each class are held out. With 0 the perceptron trains on all: its runs
    then are those of the claims, without accuracy."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, half-made ones gone on with."""
    report: Path = Path("report/interventions")
    """Folder for interventions.md and interventions.json."""
    force: bool = False
    """Make every run again."""
    plan: bool = False
    """Only say which runs there are to be, which exist, and how long the others take on this machine."""


def interventions_job(config: InterventionsConfig) -> int:
    """Makes the runs that are not there and reports effect sizes; nothing is judged, so the status is 0."""
    require_jobs(config.jobs)
    roles = roles_of(config.kinds)
    preset = preset_named(config.preset)
    kinds = preset.kinds(config.network)
    seeds = {kind: config.seeds or preset.setting(kind).seeds[:SEEDS] for kind in kinds}
    settings = {kind: _with_snapshots(_with_choices(preset.setting(kind), seeds[kind], config)) for kind in kinds}
    images, settings, held = _data(config.data, settings, config.held_out)
    device = choose_device(config.device)
    store = open_store(config.runs, config.report, images, device, force=config.force, plan_only=config.plan)
    print(f"opposing signals, interventions, preset {config.preset}, {describe_device(device)}")
    reader = store if config.plan else make_step_sizes_ahead(store, config.jobs, settings.values())
    settings = {kind: reader.with_step_sizes(setting, make=not config.plan) for kind, setting in settings.items()}
    plans = {kind: make_plan(setting, roles, config.runs, force=config.force) for kind, setting in settings.items()}
    gradients = {}
    for kind, setting in settings.items():
        plan = plans[kind]
        gradient = gradients[kind] = gradient_of_missing(plan, setting.network, images, device)
        if config.plan:
            print(f"\n{kind}: {len(setting.seeds)} seeds, {len(roles)} roles\n{table(plan, gradient)}")
        else:
            print(f"{kind}: {len(plan)} runs, about {minutes_left(plan, gradient):.0f} minutes")
    if config.plan:
        return 0
    found = []
    reader, plans = make_ahead(store, config.jobs, settings, plans, gradients)
    for kind, setting in settings.items():
        print(f"\n{kind}")
        evidence, _ = reader.train(kind, setting, plans[kind])
        measured = functools.partial(with_whole_losses, store, config.jobs, setting)
        found.append(network_effects(setting, evidence, config.kinds, held[kind], device, measured))
        print(f"\n{network_words(found[-1])}", flush=True)
    if is_first():  # under torchrun, the first rank reports
        text = json.dumps(as_json(found), indent=2, allow_nan=False) + "\n"
        write_durably(config.report / "interventions.json", text.encode())
        write_durably(config.report / "interventions.md", page(found).encode())
        print(f"{config.report / 'interventions.md'} and interventions.json written")
    return 0


def _with_choices(setting: Setting, seeds: Sequence[int], config: InterventionsConfig) -> Setting:
    left = EMBEDDED_PER_CLASS - config.held_out
    if config.data is None and 0 < left < (config.images_per_class or 0):
        raise InputError(
            f"--images-per-class is {config.images_per_class}, and of {EMBEDDED_PER_CLASS} embedded ones --held-out"
            f" {config.held_out} leaves {left}: give at most so many, or --data the folder of the full CIFAR-10"
        )
    given = {"images_per_class": config.images_per_class, "steps": config.steps, "crossing": config.crossing}
    return with_choices(setting, seeds, config.lr, **given)


def _with_snapshots(setting: Setting) -> Setting:
    """Late treatments begin at a snapshot."""
    every = setting.network.snapshot_every or SNAPSHOT_EVERY
    return replace(setting, network=replace(setting.network, snapshot_every=every))


def _data(
    folder: Path | None, settings: Mapping[str, Setting], least_held: int
) -> tuple[Images, dict[str, Setting], dict[str, Images]]:
    """Images to train on, the settings, and each one's held-out images.

    Without the full set, those that would take all embedded images take fewer.
    """
    if folder is not None:
        test = load_full(folder, train=False)
        return load_full(folder), dict(settings), dict.fromkeys(settings, test)
    if not 0 <= least_held < EMBEDDED_PER_CLASS:
        raise InputError(f"--held-out is {least_held}: give a number from 0 to {EMBEDDED_PER_CLASS - 1}")
    images = images_for(None, max(setting.network.images_per_class for setting in settings.values()))
    fewer = {}
    for kind, setting in settings.items():
        count = min(setting.network.images_per_class, EMBEDDED_PER_CLASS - least_held)
        fewer[kind] = replace(setting, network=replace(setting.network, images_per_class=count))
    return images, fewer, {kind: held_out(images, of.network.images_per_class) for kind, of in fewer.items()}
