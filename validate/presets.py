"""How much is done: the settings of each kind of network in each preset, and the runs of the two-layer network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sim import Architecture, TwoLayerConfig
from sim.batches import Batches
from theory.command_line import InputError, require_different
from validate.cpu_forms import CPU_FORMS
from validate.edge_probe import EdgeMeasurements
from validate.network_run import NetworkConfig
from validate.roles import Setting

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


def all_or_named(named: Sequence[str], every: Iterable[str]) -> tuple[str, ...]:
    """The networks that a command names; all of them for "all".

    Raises:
        InputError: "all" stands beside others, or one is named twice.
    """
    if "all" in named and len(named) > 1:
        raise InputError(f"--network is {' '.join(named)}: give all by itself, or some without it")
    require_different("--network", named)
    return tuple(every) if "all" in named else tuple(named)


@dataclass(frozen=True)
class Preset:
    """Settings by kind of network, and the claims meant when none is named.

    Attributes:
        settings: kind of network → its setting; the first is the one meant when none is named.
        claims: names of the claims; all when None.
    """

    settings: Mapping[str, Setting]
    claims: tuple[str, ...] | None = None

    def kinds(self, named: Sequence[str]) -> tuple[str, ...]:
        """The kinds of network that a command names; every kind of the preset for "all".

        Raises:
            InputError: as `all_or_named`.
        """
        return all_or_named(named, self.settings)

    def setting(self, kind: str) -> Setting:
        """The setting of a kind of network.

        Raises:
            InputError: the preset has none.
        """
        if kind not in self.settings:
            raise InputError(f"--network is {kind}: give one of {', '.join(self.settings)} with this preset, or all")
        return self.settings[kind]


def _measured(kind: str) -> NetworkConfig:
    """A CPU-sized base run with all that the claims read: snapshots for the edge study, probes, step lengths."""
    return replace(CPU_FORMS[kind], snapshot_every=30, probe_every=10, step_lengths=True)


def _brief(kind: str, steps: int = 330) -> NetworkConfig:
    """The same on half of the images for fewer steps, measured half as often, for runs of an hour or two.

    No claim reads the blocks' sharpness, which takes as long there as all the rest of a run.
    """
    return replace(_measured(kind), images_per_class=50, steps=steps, measure_every=20, blocks_every=0)


def _full(kind: str, *, lr: float) -> NetworkConfig:
    """The full network on 50,000 images, in pieces that a card's memory holds."""
    return NetworkConfig(
        architecture=Architecture(kind),  # type: ignore[arg-type]
        images_per_class=5000,
        lr=lr,
        steps=2000,
        measure_every=20,
        blocks_every=100,
        snapshot_every=40,  # of measured steps: sharpness at a snapshot's weights is measured there
        probe_every=20,
        step_lengths=True,
        # Batch norm takes its statistics from each piece: declared ghost batches.
        batches=Batches(chunk=2500, ghost=True),
        loss_dtype="float16",
    )


_SEEDS = (10, 11, 12, 13, 14)
_FEWER = EdgeMeasurements(every=7, directions=4, draws=5)
_FEWEST = replace(_FEWER, every=11)
_PERCEPTRON = Setting(_measured("mlp"), _SEEDS, batch=100)

# Statistics and thresholds were fixed on seeds 0–6 and 100–102 (docs/claims.md): none of those is used here.
PRESETS: Mapping[str, Preset] = {
    "quick": Preset({"mlp": Setting(NetworkConfig(), seeds=(7, 8, 9))}, QUICK_CLAIMS),
    # Every claim on every network, in an hour and a half or so on two cores (docs/performance.md). Each seed of all but
    # the perceptron gets a step size of its own, so that 330 steps hold its crossing and the 150 after it; VGG-11's may
    # come 50 steps late.
    "standard": Preset(
        {
            "mlp": _PERCEPTRON,
            "vgg11": Setting(
                _brief("vgg11", 370), _SEEDS[:3], batch=50, sgd_lr=0.02, sgd_steps=600, crossing=150, edge=_FEWEST
            ),
            "resnet18": Setting(_brief("resnet18"), _SEEDS[:3], crossing=150, edge=_FEWEST),
            "vit": Setting(_brief("vit"), _SEEDS[:3], crossing=150, edge=_FEWEST),
        }
    ),
    "long": Preset(
        {
            "mlp": _PERCEPTRON,
            "vgg11": Setting(_measured("vgg11"), _SEEDS[:3], batch=50, sgd_lr=0.02, sgd_steps=600, edge=_FEWER),
            "resnet18": Setting(_measured("resnet18"), _SEEDS[:3], crossing=150, edge=_FEWER),
            "vit": Setting(_measured("vit"), _SEEDS[:3], edge=_FEWER),
        }
    ),
    # Not run yet: no card was at hand.
    "paper": Preset(
        {
            "mlp": Setting(_full("mlp", lr=0.05), _SEEDS, batch=500),
            "vgg11": Setting(_full("vgg11", lr=0.05), _SEEDS[:3], batch=500, edge=EdgeMeasurements(chunk=2500)),
            "resnet18": Setting(_full("resnet18", lr=0.05), _SEEDS[:3], batch=500, edge=EdgeMeasurements(chunk=2500)),
            "vit": Setting(_full("vit", lr=0.05), _SEEDS[:3], batch=500, edge=EdgeMeasurements(chunk=2500)),
        }
    ),
}


def preset_named(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"--preset is {name}: give one of {', '.join(PRESETS)}")
    return PRESETS[name]


def two_layer_name(name: str) -> str:
    """Folder of one of `TWO_LAYER_RUNS` in the run store."""
    return f"two-layer-{name}"
