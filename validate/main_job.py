"""The main job: predict, simulate, train on real images, judge the claims, report."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sim import TwoLayerConfig, choose_device, obtain_run, run_two_layer
from sim.device import describe_device
from sim.runs import Run, obtain_resumable_run, require_writable
from theory import predict
from theory.command_line import InputError, require_positive
from theory.predictions import table as prediction_table
from validate.cifar10 import Images, load_embedded
from validate.claims import CLAIMS, Evidence, NetworkEvidence, judge
from validate.network_run import NetworkConfig, run_network
from validate.report import REPORT_FIGURES, Report, print_verdicts, write_report
from validate.windows import find_windows

CONTROL_DIVISOR = 10
"""The control runs take a tenth of the step size."""

TWO_LAYER_RUNS = {
    # Σ = I: crosses 2/η, spikes once, and ends just under it (T1, T6, T7, T8).
    "default": TwoLayerConfig(),
    # Power-law Σ keeps the drive D slow; started at the edge with a quarter of the predicted s² (T9).
    "edge": TwoLayerConfig(beta=5.0, d1=100, exponent=1.0, lr=0.06, steps=4000, start="edge", sample_seeds=()),
}


QUICK_CLAIMS = (
    *("T1", "T6", "T7", "T8", "T9", "T11"),
    *("C1a", "C1b", "C3", "C4a", "C4b", "C8", "C9a", "C9b"),
)
"""The claims that two runs of the network a seed can settle."""


@dataclass(frozen=True)
class Preset:
    """How much the main job does."""

    network: NetworkConfig
    seeds: tuple[int, ...]
    claims: tuple[str, ...]

    def network_of(self, seed: int) -> NetworkConfig:
        """The run of one seed."""
        return replace(self.network, seed=seed)


# Statistics and thresholds were fixed on seeds 0–6 and 100–102 (docs/claims.md): none of those is used here.
PRESETS = {"quick": Preset(NetworkConfig(), seeds=(7, 8, 9), claims=QUICK_CLAIMS)}


@dataclass(frozen=True)
class MainJobConfig:
    """Check the theory against simulation and a real CIFAR-10 network, and write a report (the main job)."""

    preset: str = "quick"
    """quick: embedded images, three seeds, within three minutes on two cores."""
    lr: float | None = None
    """Step size of the network; the preset's when not given."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the network's initial weights; the preset's when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, not made again."""
    report: Path = Path("report")
    """Folder for report.html, report.json and the figures."""
    force: bool = False
    """Make every run again."""


def main_job(config: MainJobConfig) -> int:
    """Runs the main job; 0 when every claim holds, 1 when one does not."""
    if config.preset not in PRESETS:
        raise InputError(f"--preset is {config.preset}: give one of {', '.join(PRESETS)}")
    preset = PRESETS[config.preset]
    if config.lr is not None:
        require_positive("--lr", config.lr)
        preset = replace(preset, network=replace(preset.network, lr=config.lr))
    if config.seeds is not None:
        if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds) < 0:
            raise InputError(f"--seeds is {config.seeds}: give different whole numbers of at least 0")
        preset = replace(preset, seeds=config.seeds)
    device = choose_device(config.device)
    images = load_embedded()
    require_writable(config.runs)
    require_writable(config.report)

    print(f"opposing signals, preset {config.preset}, {describe_device(device)}")
    model = TWO_LAYER_RUNS["default"]
    predictions = predict(model.model, model.initial_state, model.lr, model.steps)
    print(f"\n1 theory: two-layer linear network, α = {model.alpha:g}, ‖β‖ = {model.beta:g}, k = {model.k:g}")
    print(prediction_table(predictions))
    print("\n2 simulation: population and finite samples beside the flow, from one start")
    two_layer = _simulate(config, device)
    print(_distances(two_layer["default"]))
    print("\n3 real network: full-batch gradient descent on 2,000 CIFAR-10 images, with controls")
    networks = _train(config, preset, images, device)
    evidence = Evidence(
        networks=[_evidence(seed, run, control) for seed, (run, control) in networks.items()],
        two_layer={name: (TWO_LAYER_RUNS[name], run.data.load()) for name, run in two_layer.items()},
    )
    verdicts = [judge(claim, evidence) for claim in CLAIMS if claim.name in preset.claims]
    print("\n4 report")
    print_verdicts(verdicts)
    figures = _draw_figures(config, preset)
    runs = [*two_layer.values(), *(run for pair in networks.values() for run in pair)]
    write_report(config.report, Report(config.preset, predictions, evidence, verdicts, runs, figures, images))
    failed = [v.claim.name for v in verdicts if v.failed]
    print(f"{config.report / 'report.html'} and report.json written")
    print(f"{', '.join(failed)} did not hold" if failed else "every claim holds, and every control fails")
    return 1 if failed else 0


def two_layer_name(name: str) -> str:
    """Folder of one of `TWO_LAYER_RUNS` in the run store."""
    return f"two-layer-{name}"


def _simulate(config: MainJobConfig, device: torch.device) -> dict[str, Run]:
    return {
        name: obtain_run(
            config.runs,
            two_layer_name(name),
            of_run,
            lambda of_run=of_run: run_two_layer(of_run, device),  # type: ignore[misc]
            device=device,
            force=config.force,
        )
        for name, of_run in TWO_LAYER_RUNS.items()
    }


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


def _train(config: MainJobConfig, preset: Preset, images: Images, device: torch.device) -> dict[int, tuple[Run, Run]]:
    runs = {}
    for seed in preset.seeds:
        at_lr = preset.network_of(seed)
        gentle = replace(at_lr, lr=at_lr.lr / CONTROL_DIVISOR, measure_every=20, blocks_every=0)
        run, control = (
            obtain_resumable_run(
                config.runs,
                of_run.name,
                of_run,
                lambda run, of_run=of_run: run_network(of_run, images, device, run=run),  # type: ignore[misc]
                device=device,
                force=config.force,
            )
            for of_run in (at_lr, gentle)
        )
        print(f"  {_network_line(run)}; control {_network_line(control)}")
        runs[seed] = run, control
    return runs


def _network_line(run: Run) -> str:
    loss = run.data["loss"].values
    words = f"{run.name}: loss {loss[0].mean():.2f} → {loss[-1].mean():.2f}, {run.environment['seconds']:.0f} s"
    diverged = run.data.attrs["diverged_at"]
    return words if diverged < 0 else f"{words}, DIVERGED at step {diverged}, last finite weights kept"


def _evidence(seed: int, run: Run, control: Run) -> NetworkEvidence:
    data = run.data.load()
    return NetworkEvidence(seed, {"base": data, "gentle": control.data.load()}, find_windows(data))


def _draw_figures(config: MainJobConfig, preset: Preset) -> Path:
    """Has the figures drawn from the finished runs by the figure package's own command, which imports this one."""
    folder = config.report / "figures"
    options = {"--runs": config.runs, "--out": folder, "--network": preset.network_of(preset.seeds[0]).name}
    command = [sys.executable, "-m", "paper_figs", "draw", *REPORT_FIGURES]
    command += [str(word) for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"the figures were not drawn: {done.stderr.strip()}")
    return folder
