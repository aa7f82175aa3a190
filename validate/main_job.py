"""The main job: predict, simulate, train on real images, judge the claims, report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim import choose_device
from sim.device import describe_device
from sim.distributed import is_first
from sim.runs import Run
from theory import predict
from theory.command_line import InputError, require_positive, require_seeds
from theory.predictions import table as prediction_table
from validate.cifar10 import load_embedded
from validate.claims import CLAIMS, judge
from validate.evidence import open_store
from validate.plan import make_plan, roles_needed
from validate.presets import TWO_LAYER_RUNS, preset_named
from validate.report import print_verdicts, write_report
from validate.report_content import NetworkPart, Report
from validate.roles import Setting
from validate.side_by_side import jobs_for, make_ahead, require_jobs
from validate.windows import EARLIEST_CROSSING, EVALUATE_STEPS, SELECT_STEPS

REPORT_FIGURES = ("F1", "F8", "F9")
"""Figures that the main job's report shows, in order."""


@dataclass(frozen=True)
class MainJobConfig:
    """Check the theory against simulation and a real CIFAR-10 network, and write a report (the main job)."""

    preset: str = "quick"
    """quick: embedded images, three seeds, in some minutes on two cores."""
    lr: float | None = None
    """Step size of the network; the preset's when not given."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the network's initial weights; the preset's when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    jobs: int | None = None
    """Runs made at once, each in a process of its own with its share of the threads; on a CPU as many as seeds or
    threads, whichever are fewer, when not given."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, not made again."""
    report: Path = Path("report")
    """Folder for report.html, report.json, claims.md and the figures."""
    force: bool = False
    """Make every run again."""


def main_job(config: MainJobConfig) -> int:
    """Runs the main job; 0 when every claim holds, 1 when one does not."""
    preset = preset_named(config.preset)
    if preset.claims is None:
        raise InputError(
            f"--preset is {config.preset}: the main job is quick; give python -m validate claims the others"
        )
    kind = next(iter(preset.settings))
    setting = with_choices(preset.setting(kind), config.seeds, config.lr)
    device = choose_device(config.device)
    jobs = jobs_for(device, len(setting.seeds)) if config.jobs is None else require_jobs(config.jobs)
    images = load_embedded()
    store = open_store(config.runs, config.report, images, device, force=config.force)
    claims = [claim for claim in CLAIMS if claim.name in preset.claims]

    print(f"opposing signals, preset {config.preset}, {describe_device(device)}")
    model = TWO_LAYER_RUNS["default"]
    predictions = predict(model.model, model.initial_state, model.lr, model.steps)
    print(f"\n1 theory: two-layer linear network, α = {model.alpha:g}, ‖β‖ = {model.beta:g}, k = {model.k:g}")
    print(prediction_table(predictions))
    print("\n2 simulation: population and finite samples beside the flow, from one start")
    two_layer = store.simulate()
    print(_distances(two_layer["default"][1]))
    print("\n3 real network: full-batch gradient descent on 2,000 CIFAR-10 images, with controls")
    plan = make_plan(setting, roles_needed(claims, kind), config.runs, force=config.force)
    store, plans = make_ahead(store, jobs, {kind: setting}, {kind: plan})
    evidence, network_runs = store.train(kind, setting, plans[kind])
    if not is_first():  # under torchrun, the first rank judges and reports
        return 0
    evidence = replace(evidence, two_layer={name: (of, run.data.load()) for name, (of, run) in two_layer.items()})
    verdicts = [judge(claim, evidence) for claim in claims]
    print("\n4 report")
    print_verdicts(verdicts)
    figures = draw_figures(config.report, config.runs, REPORT_FIGURES, setting.base(setting.seeds[0]).name)
    runs = [*(run for _, run in two_layer.values()), *network_runs]
    parts = [NetworkPart(evidence, setting.network, images)]
    report = Report(config.preset, parts, verdicts, runs, predictions, figures)
    write_report(config.report, report)
    return tell_outcome(config.report, report)


def with_choices(
    setting: Setting,
    seeds: Sequence[int] | None,
    lr: float | None,
    *,
    images_per_class: int | None = None,
    steps: int | None = None,
    crossing: int | None = None,
) -> Setting:
    """A setting with the seeds, the step size or its rule, and the numbers of images and steps that the user gave.

    Raises:
        InputError: seeds are repeated or negative, one of the others is not positive, both a step size and its rule are
            given, or a crossing at the step aimed at would leave no room for the windows.
    """
    if lr is not None and crossing is not None:
        raise InputError(f"--lr is {lr:g} and --crossing is {crossing}: give one of them, for each sets the step size")
    of = {"lr": lr, "images_per_class": images_per_class, "steps": steps}
    given: dict[str, Any] = {name: value for name, value in of.items() if value is not None}
    for name, value in given.items():
        require_positive(f"--{name.replace('_', '-')}", value)
    setting = replace(setting, network=replace(setting.network, **given))
    if crossing is not None:
        require_positive("--crossing", crossing)
        setting = replace(setting, crossing=crossing)
    if lr is not None:
        setting = replace(setting, crossing=0)
    if setting.crossing:
        _require_windows(setting.crossing, setting.network.steps)
    if seeds is not None:
        require_seeds(seeds)
        setting = replace(setting, seeds=tuple(seeds))
    return setting


def _require_windows(crossing: int, steps: int) -> None:
    after = SELECT_STEPS + EVALUATE_STEPS
    if crossing < EARLIEST_CROSSING or crossing + after > steps:
        raise InputError(
            f"--crossing is {crossing} of {steps} steps: claims look at crossings from step {EARLIEST_CROSSING} on and"
            f" at the {after} steps after them; give one of at least {EARLIEST_CROSSING}, or more --steps"
        )


def draw_figures(folder: Path, runs: Path, names: Sequence[str], network: str) -> list[tuple[str, Path]]:
    """Has figures drawn from the finished runs by the figure package's own command, which imports this one.

    Args:
        folder: the report's; the figures go to a folder in it.
        runs: folder of the run store.
        names: of the figures.
        network: name of the network's run.

    Returns:
        Each figure's name and the path of its PNG file, whose caption stands beside it.
    """
    place = folder / "figures"
    options = {"--runs": runs, "--out": place, "--network": network}
    command = [sys.executable, "-m", "paper_figs", "draw", *names]
    command += [str(word) for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"the figures were not drawn: {done.stderr.strip()}")
    return [(name, place / f"{name}.png") for name in names]


def tell_outcome(folder: Path, report: Report) -> int:
    """Says where the report is and what did not hold; the command's status."""
    print(f"{folder / 'report.html'} and report.json written")
    print(report.headline)
    return report.status


def _distances(run: Run) -> str:
    """How far descent strayed from the flow, and the finite samples from the population."""
    flow = run.data["distance_flow"].values[:, 0]
    samples = run.data["distance_population"].values[:, 1:]
    count = run.config["examples"]
    return (
        f"  descent to flow, ‖θ_t − θ(ηt)‖: {flow.max():.3g} at most, {flow[-1]:.3g} at the end\n"
        f"  {count} examples to population: {samples.max():.3g} at most, "
        f"{np.median(samples[-1]):.3g} at the end (median of {samples.shape[1]})"
    )
