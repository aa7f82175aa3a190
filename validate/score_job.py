"""``python -m validate score``: the opposing-signal score of a network on real images, with its anchors."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from sim import choose_device
from sim.device import describe_device
from sim.distributed import is_first
from sim.durable_files import write_durably
from theory.command_line import InputError, require_positive
from validate.anchored_scores import ScoredRun, as_json, page, score_run
from validate.evidence import network_line, open_store
from validate.images_at_hand import images_for
from validate.main_job import with_choices
from validate.network_run import NetworkConfig
from validate.presets import preset_named
from validate.roles import Setting, beside
from validate.score_anchors import DATA_SETS
from validate.scores_at_equal_loss import EqualLoss, at_equal_loss
from validate.side_by_side import make_each_ahead, require_jobs

SEEDS = 3
LARGER = 1.6
"""The second step size over the preset's: how far scores depend on it (docs/score.md)."""


@dataclass(frozen=True)
class ScoreConfig:
    """Score how opposing a network's signals are, beside Gaussian images and shuffled labels at the same step sizes."""

    network: tuple[str, ...] = ("mlp",)
    """mlp, vgg11, resnet18, vit, several of them, or all."""
    images: tuple[str, ...] = tuple(DATA_SETS)
    """real, gaussian (each class's mean and covariance), shuffled (labels)."""
    lr: tuple[float, ...] | None = None
    """Step sizes; the network's own, one for all seeds in every preset, and 1.6 times it when not given."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the weights and of the anchors' draws; the first three of the preset's when not given."""
    images_per_class: int | None = None
    """Images of each class to train on; the preset's when not given."""
    steps: int | None = None
    """Number of steps; the preset's when not given."""
    preset: str = "standard"
    """quick, standard (embedded images, two cores), long (all but the perceptron larger: hours) or paper (a GPU)."""
    device: str = "auto"
    """auto, cpu or cuda."""
    jobs: int = 1
    """Runs made at once, each in a process of its own with its share of the threads."""
    data: Path | None = None
    """Folder with the full CIFAR-10, as python -m validate data fetch fills it; the embedded images when not given."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, half-made ones gone on with."""
    report: Path = Path("report/score")
    """Folder for score.md and score.json."""
    force: bool = False
    """Make every run again."""


def score_job(config: ScoreConfig) -> int:
    """Makes the runs that are not there and reports their scores; nothing is judged, so the status is 0."""
    for name in config.images:
        if name not in DATA_SETS:
            raise InputError(f"--images is {name}: give some of {', '.join(DATA_SETS)}")
    require_jobs(config.jobs)
    preset = preset_named(config.preset)
    kinds = preset.kinds(config.network)
    settings = {kind: _with_choices(preset.setting(kind), config) for kind in kinds}
    images = images_for(config.data, max(setting.network.images_per_class for setting in settings.values()))
    device = choose_device(config.device)
    store = open_store(config.runs, config.report, images, device, force=config.force)
    print(f"opposing signals, scores, preset {config.preset}, {describe_device(device)}")
    found: list[ScoredRun] = []
    compared: list[EqualLoss | None] = []
    wanted = {kind: _runs(setting, config) for kind, setting in settings.items()}
    store = make_each_ahead(store, config.jobs, [run for runs in wanted.values() for run in runs.values()])
    for kind, setting in settings.items():
        real: dict[tuple[float, int], xr.Dataset] = {}
        sizes = _step_sizes(setting, config)
        for (lr, name, seed), of in wanted[kind].items():
            run = store.obtain(of, None)
            print(f"  {network_line(run)}", flush=True)
            data = run.data[["loss", "sharpness_iterate"]].load()
            found.append(score_run(kind, name, seed, data))
            reference = real.get((lr if name != "real" else sizes[0], seed))
            if reference is not None:
                compared.append(at_equal_loss(kind, name, lr, seed, reference, data))
            if name == "real":
                real[lr, seed] = data
    if not is_first():  # under torchrun, the first rank reports
        return 0
    pairs = [pair for pair in compared if pair is not None]
    told = page(found, pairs)
    written = json.dumps(as_json(found, pairs), indent=2, allow_nan=False) + "\n"
    write_durably(config.report / "score.json", written.encode())
    write_durably(config.report / "score.md", told.encode())
    print(f"\n{told}\n{config.report / 'score.md'} and score.json written")
    return 0


def _runs(setting: Setting, config: ScoreConfig) -> dict[tuple[float, str, int], NetworkConfig]:
    """Runs by step size, data set and seed; real images first, since the others are compared with them."""
    data_sets = sorted(config.images, key=lambda name: name != "real")
    keys = itertools.product(_step_sizes(setting, config), data_sets, setting.seeds)
    return {(lr, name, seed): _run(setting.base(seed), name, lr) for lr, name, seed in keys}


def _run(base: NetworkConfig, data: str, lr: float) -> NetworkConfig:
    """The run on a data set: the claims' base run itself where it is the same, so that it is not made twice."""
    if data == "real" and lr == base.lr:
        return base
    return beside(base, lr=lr, intervention=DATA_SETS[data](base.seed), step_lengths=False)


def _step_sizes(setting: Setting, config: ScoreConfig) -> tuple[float, ...]:
    # Rounded, so that 1.6 · 0.05 is 0.08 in the run's name.
    return config.lr or (setting.network.lr, round(LARGER * setting.network.lr, 12))


def _with_choices(setting: Setting, config: ScoreConfig) -> Setting:
    """The setting with the seeds and the numbers of images and steps given; step sizes are checked here too."""
    for lr in config.lr or ():
        require_positive("--lr", lr)
    # The network's step size or the given ones, for every seed: none is chosen for each, and none has to cross.
    setting = replace(setting, crossing=0)
    given = {"images_per_class": config.images_per_class, "steps": config.steps}
    return with_choices(setting, config.seeds or setting.seeds[:SEEDS], None, **given)
