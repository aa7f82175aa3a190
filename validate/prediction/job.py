"""``python -m validate predict``: the reduced map fed with a network's measurements, against what the network does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from sim import choose_device
from sim.device import describe_device
from sim.distributed import alone, is_first
from sim.progress import progress_bar
from sim.runs import list_runs, obtain_run, read_run, require_writable
from theory.command_line import InputError, require_seeds
from validate.cifar10 import Images, load_embedded
from validate.edge_study import edge_name
from validate.evidence import Store, open_store
from validate.network_run import NetworkConfig, stored_network
from validate.plan import gradient_of_missing, make_plan, table
from validate.prediction.layers import LayerSeries, read_layers, score_layers
from validate.prediction.map_at import last_before_onset
from validate.prediction.networks import FRESH_SEEDS, PREDICTION_NETWORKS, PredictionSetting, prediction_network
from validate.prediction.oscillation import predict_oscillation
from validate.prediction.quantities import QUANTITIES, VALLEY_QUANTITIES
from validate.prediction.scores import PredictedRun, score
from validate.prediction.spikes import valley_points
from validate.prediction.tables import NetworkPredictions, layer_table, run_table, score_table, write_json
from validate.prediction.trace import read_trace
from validate.prediction.valley import ToldSpike, ValleyConfig, follow_valley, told_spike
from validate.presets import all_or_named
from validate.side_by_side import make_ahead, require_jobs
from validate.windows import find_windows

ROLES = ("base", "edge")


@dataclass(frozen=True)
class PredictConfig:
    """Predict the oscillation of networks at several step sizes by the reduced map, and compare with what they do."""

    network: tuple[str, ...] = ("mlp_gelu",)
    """mlp_gelu, mlp (ReLU), vgg11, resnet18, vit, several of them, or all."""
    seeds: tuple[int, ...] = FRESH_SEEDS
    """Seeds of the initial weights."""
    read: str | None = None
    """Make no runs: score the finished base runs with an edge study whose names begin so, such as vgg11-."""
    device: str = "auto"
    """auto, cpu or cuda."""
    jobs: int = 1
    """Runs made at once, each in a process of its own with its share of the threads."""
    runs: Path = Path("runs")
    """Folder of the run store; finished runs in it are read, half-made ones gone on with."""
    report: Path = Path("report/predictions")
    """Folder for predictions.json."""
    valley: bool = False
    """Also take each run up to its onset again, follow the valley's maps from there and predict the spike by them."""
    force: bool = False
    """Make every run again."""
    plan: bool = False
    """Only say which runs there are to be, which exist, and how long the others take on this machine."""


def predict_job(config: PredictConfig) -> int:
    """Makes or reads the runs, scores the predictions; 0 when every quantity is predicted, 1 when one is not."""
    require_seeds(config.seeds)
    require_jobs(config.jobs)
    device, images = choose_device(config.device), load_embedded()
    if config.read is not None:
        found = _read_named(config.runs, config.read)
        require_writable(config.report)
    else:
        names = all_or_named(config.network, PREDICTION_NETWORKS)
        settings = {name: prediction_network(name) for name in names}
        store = open_store(config.runs, config.report, images, device, force=config.force, plan_only=config.plan)
        print(f"opposing signals, predictions, {describe_device(store.device)}")
        if config.plan:
            for name, setting in settings.items():
                _print_plan(name, setting, config, store)
            return 0
        found = _make(store, settings, config)
    if not is_first():  # under torchrun, the first rank reports
        return 0

    with alone():  # the other ranks are done
        valley = _spike_teller(config, images, device) if config.valley else None
        parts = [score_network(name, runs, config.runs, valley) for name, runs in found.items()]
    return _report(config.report, parts)


def _report(report: Path, parts: Sequence[NetworkPredictions]) -> int:
    for part in parts:
        print(f"\n{part.network}: {len(part.runs)} runs, {len(part.without)} without windows at 2/η")
        print(run_table(part.runs))
        print(score_table(part.scores))
        print(layer_table(part.layers))
    write_json(report / "predictions.json", parts)
    print(f"{report / 'predictions.json'} written")
    failed = [f"{part.network} {s.quantity.name}" for part in parts for s in part.scores if s.reason]
    print(f"not predicted: {', '.join(failed)}" if failed else "every quantity is predicted")
    return 1 if failed else 0


SpikeTeller = Callable[[NetworkConfig, xr.Dataset, int], ToldSpike]
"""The first spike, by a base run's configuration, its data and the step at which its valley is measured."""


def _spike_teller(config: PredictConfig, images: Images, device: torch.device) -> SpikeTeller:
    """Follows the valley of a run, or reads its orbits from the store."""

    def tell(run: NetworkConfig, base: xr.Dataset, step: int) -> ToldSpike:
        of = ValleyConfig(run, step)
        orbits = obtain_run(
            config.runs, of.name, of, lambda: follow_valley(of, base, images, device), device=device, force=config.force
        )
        return told_spike(orbits.data)

    return tell


def score_network(
    network: str, names: Sequence[str], runs: Path, valley: SpikeTeller | None = None
) -> NetworkPredictions:
    """The predictions and scores of finished base runs, each with its edge study.

    Args:
        network: name of the network.
        names: of the base runs.
        runs: folder of the run store.
        valley: what tells spikes from the valley; they are not told when not given.
    """
    there = set(list_runs(runs))
    predicted: list[PredictedRun] = []
    layers: list[tuple[int, LayerSeries]] = []
    without: list[str] = []
    for name in progress_bar(names, f"valleys of {network}", show=valley is not None):
        base = read_run(runs, name)
        windows = find_windows(base.data)
        if windows is None or edge_name(name) not in there:
            without.append(name)
            continue
        edge = read_run(runs, edge_name(name)).data.load()
        trace = read_trace(base.data, edge, windows)
        points = predict_oscillation(trace)
        if valley is not None and (index := last_before_onset(trace)) is not None:
            at = int(trace.measured[index])
            told = valley(stored_network(base.config), base.data, int(trace.steps[at]))
            points |= valley_points(trace, at, told)
        predicted.append(PredictedRun(network, base.config["lr"], base.config["seed"], name, points))
        if "block_sharpness" in base.data:
            layers.append((base.config["seed"], read_layers(base.data, windows.edge.stop)))
    predicted.sort(key=lambda run: (run.lr, run.seed))
    quantities = QUANTITIES if valley is None else (*QUANTITIES, *VALLEY_QUANTITIES)
    scores = [score(quantity, predicted) for quantity in quantities]
    return NetworkPredictions(network, predicted, without, scores, score_layers(layers))


def _make(store: Store, settings: Mapping[str, PredictionSetting], config: PredictConfig) -> dict[str, list[str]]:
    """Makes the networks' runs; the names of each one's base runs."""
    sizes = {
        (name, lr): of_size
        for name, setting in settings.items()
        for lr, of_size in setting.settings(config.seeds).items()
    }
    plans = {key: make_plan(of_size, ROLES, store.runs, force=store.force) for key, of_size in sizes.items()}
    store, plans = make_ahead(store, config.jobs, sizes, plans)
    made: dict[str, list[str]] = {name: [] for name in settings}
    for (name, lr), of_size in sizes.items():
        print(f"\n{name}, step size {lr:g}")
        store.train(name, of_size, plans[name, lr])
        made[name] += [of_size.base(seed).name for seed in config.seeds]
    return made


def _read_named(runs: Path, prefix: str) -> dict[str, list[str]]:
    """Base runs with an edge study by kind of network and activation."""
    if not runs.is_dir():
        raise InputError(
            f"--read is {prefix!r}: there is no folder {runs} and so no base run, give the store as --runs"
        )
    found: dict[str, list[str]] = {}
    for name in _studied(runs, prefix):
        architecture = read_run(runs, name).config["architecture"]
        words = architecture["kind"] + (
            "" if architecture["activation"] == "relu" else f"_{architecture['activation']}"
        )
        found.setdefault(words, []).append(name)
    if not found:
        raise InputError(f"--read is {prefix!r}: {runs} has no base run with an edge study whose name begins so")
    return found


def _studied(runs: Path, prefix: str) -> Iterator[str]:
    there = list_runs(runs)
    for name in there:
        if name.startswith(prefix) and edge_name(name) in there:
            yield name


def _print_plan(name: str, setting: PredictionSetting, config: PredictConfig, store: Store) -> None:
    plans = {
        lr: make_plan(of_size, ROLES, config.runs, force=config.force)
        for lr, of_size in setting.settings(config.seeds).items()
    }
    runs = list(itertools.chain.from_iterable(plans.values()))
    gradient = gradient_of_missing(runs, setting.network, store.images, store.device)
    for lr, plan in plans.items():
        print(f"\n{name}, step size {lr:g}\n{table(plan, gradient)}")
