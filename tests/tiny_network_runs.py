"""Made-up runs of networks, of the variables that real ones have, for tests of what reads them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from paper_figs.runs import Runs
from validate.cifar10 import CLASSES, Images, load_embedded
from validate.probes import COLOURS
from validate.roles import LOSS_RULES

EXAMPLES, STEPS, CROSSING, SWINGING = 300, 420, 200, 20


def tiny_images() -> Images:
    """The images of the made-up runs: every class is there."""
    images = load_embedded()
    kept = np.arange(0, 2000, 2000 // EXAMPLES)[:EXAMPLES]
    return Images(images.pixels[kept], images.labels[kept])


def tiny_network(
    seed: int = 0,
    *,
    lr: float = 0.05,
    swing: float = 1.0,
    top_sharpness: float = 42.0,
    decay: float = 1.0,
    crossing: int = CROSSING,
    removed: int = 0,
    floor: float = 0.0,
) -> xr.Dataset:
    """A run that crosses 2/η at a step, from 40 steps before which examples 0…19 and 20…39 swing in opposite phase.

    Args:
        seed: of the noise.
        lr: step size.
        swing: size of the swing at the edge.
        top_sharpness: where the sharpness ends; below 2/η = 40 the run never crosses.
        decay: how fast the mean loss falls.
        crossing: step of the crossing.
        removed: number of examples, the last ones, of weight 0.
        floor: least value that the rule of the losses allows.
    """
    rng = np.random.default_rng(seed)
    steps = np.arange(STEPS)
    losses = floor + 2.3 * np.exp(-decay * steps / 300)[:, None] + 0.02 * rng.standard_t(4, size=(STEPS, EXAMPLES))
    losses += (swing_of(steps, swing, crossing) * (-1.0) ** steps)[:, None] * _pattern(rng)
    measured = np.arange(0, STEPS, 10)
    data = xr.Dataset(attrs={"lr": lr, "diverged_at": -1}, coords={"step": steps, "measured": measured})
    data["loss"], data["label"] = (("step", "example"), losses.astype(np.float32)), ("example", tiny_images().labels)
    data["example_weight"] = "example", (np.arange(EXAMPLES) < EXAMPLES - removed).astype(np.float32)
    for place in ("iterate", "midpoint"):
        data[f"sharpness_{place}"] = "measured", np.minimum(measured * 40 / crossing, top_sharpness)
    data = data.assign_coords(step_measured=measured)
    data["step_along_top"] = "step_measured", 0.01 + 0.06 * swing_of(measured, swing, crossing)
    _add_probes(data, rng)
    return data


def tiny_minibatches(seed: int = 0, *, swing: float = 1.0, size: int = 50, steps: int = 240) -> xr.Dataset:
    """A run of minibatches: each epoch takes every example once, and the pair swings from epoch to epoch."""
    rng = np.random.default_rng(seed)
    epochs = steps * size // EXAMPLES
    table = np.full((steps, EXAMPLES), np.nan)
    pattern = _pattern(rng)
    for epoch in range(epochs):
        order = rng.permutation(EXAMPLES)
        for batch in range(EXAMPLES // size):
            step = epoch * (EXAMPLES // size) + batch
            inside = order[batch * size : (batch + 1) * size]
            mean = 2.3 * np.exp(-step / 150)
            table[step, inside] = mean + swing * (-1.0) ** epoch * pattern[inside] + 0.1 * rng.normal(size=size)
    data = xr.Dataset(attrs={"lr": 0.05, "diverged_at": -1}, coords={"step": np.arange(steps)})
    data["loss"], data["label"] = (("step", "example"), table.astype(np.float32)), ("example", tiny_images().labels)
    return data


def tiny_edge(seed: int = 0, *, curvature: float = 40.0, growth: float = -1.01) -> xr.Dataset:
    """An edge study of `tiny_network` from 20 steps before the crossing: one direction bounces by a known factor."""
    rng = np.random.default_rng(seed)
    steps = np.arange(CROSSING - 20, CROSSING + 150)
    measured = steps[::5]
    x = 0.02 * growth ** np.arange(len(steps))
    x *= 0.02 / np.abs(x).max()
    pattern = _pattern(rng)
    losses = 1.0 + 40 * x[:, None] * pattern + 20 * x[:, None] ** 2
    count = len(measured)
    data = xr.Dataset(attrs={"lr": 0.05, "diverged_at": -1, "crossing": CROSSING})
    data = data.assign_coords(edge_step=steps, edge_measured=measured, direction=["top", "bulk 1", "bulk 2"])
    data["loss"], data["label"] = (("edge_step", "example"), losses), ("example", tiny_images().labels)
    # The eigenvector of the study's start is held fixed: the bounce turns to it over the study only.
    along = np.stack([np.linspace(0, 1, len(steps)) * x, 0.1 * x, 0.05 * x], axis=1)
    data["projection"] = ("edge_step", "direction"), along
    # x_{t+1} − x_t = −η g_t
    data["gradient_projection"] = ("edge_step", "direction"), (1 - growth) / 0.05 * along
    data["gradient_along_top"] = "edge_step", (1 - growth) / 0.05 * x
    # Each measurement of the bounce takes x as positive: its direction turns round where x is not.
    sign = np.repeat(np.sign(x[::5]), 5)
    data["gradient_along_bounce"] = "edge_step", (1 - growth) / 0.05 * sign * x
    data["bounce_square"] = "edge_measured", x[::5] ** 2
    ones = {"sharpness": curvature, "bounce_curvature": curvature, "group_cosine": -0.8, "top_share": 0.3}
    ones |= {"group_bounce_share": 0.9, "bounce_a": 1.0, "bounce_b": 1e4, "bounce_share": 0.97}
    for name, value in ones.items():
        data[name] = "edge_measured", np.full(count, value)
    data["group_gradient_norm"] = ("edge_measured", "side"), np.full((count, 2), 30.0)
    data["member"] = ("side", "rank"), np.arange(2 * SWINGING).reshape(2, SWINGING)
    data["eigenvalue"] = "direction", np.array([curvature, 20.0, 10.0])
    return data


def swing_of(steps: np.ndarray, swing: float, crossing: int) -> np.ndarray:
    """Size of the swing at some steps: none until 40 steps before the crossing, the whole 20 steps after it."""
    return np.asarray(swing * np.clip((steps - crossing + 40) / 60, 0, 1))


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """(n,) part that each example has in the swing."""
    pattern = np.zeros(EXAMPLES)
    pattern[:SWINGING] = rng.uniform(0.3, 1, SWINGING)
    pattern[SWINGING : 2 * SWINGING] = -rng.uniform(0.3, 1, SWINGING)
    return pattern


def _add_probes(data: xr.Dataset, rng: np.random.Generator) -> None:
    """Probes every 20 steps: all colours go to plane, less to ship; the pair's features are twice the others'."""
    probed = np.arange(0, STEPS, 20)
    odds = np.zeros((len(probed), len(COLOURS), 10))
    odds[:, :, 0] = 4 * probed[:, None] / STEPS
    odds[:, :, 8] = 2 * probed[:, None] / STEPS
    norms = 1 + probed[:, None] / 100 * rng.uniform(0.8, 1.2, EXAMPLES)
    norms[:, : 2 * SWINGING] *= 2
    data.coords["probed"], data.coords["colour"], data.coords["class"] = probed, list(COLOURS), list(CLASSES)
    data["colour_probability"] = ("probed", "colour", "class"), np.exp(odds) / np.exp(odds).sum(-1, keepdims=True)
    data["feature_norm"] = ("probed", "example"), norms


MAKERS: Mapping[str, Callable[[int], xr.Dataset]] = {
    "base": tiny_network,
    "edge": tiny_edge,
    "adam": functools.partial(tiny_network, lr=1e-4, swing=0.001, decay=2.0),
    "momentum": functools.partial(tiny_network, lr=0.095, swing=0.8, decay=3.0),
    "momentum_dampened": functools.partial(tiny_network, swing=0.001, decay=1.1),
    "split_sgd": functools.partial(tiny_network, swing=0.002, decay=1.5),
    "label_smoothing": functools.partial(
        tiny_network, swing=0.5, crossing=250, floor=LOSS_RULES["label_smoothing"].floor(10)
    ),
    "squared": functools.partial(tiny_network, swing=0.2, top_sharpness=39.0),
    "no_batch_norm": tiny_minibatches,
    "batch_norm": functools.partial(tiny_minibatches, swing=0.2),
    "without_opposing": functools.partial(tiny_network, crossing=300, removed=30),
    "without_random": functools.partial(tiny_network, crossing=210, removed=30),
    "without_hardest": functools.partial(tiny_network, crossing=180, removed=30),
}


def runs_with(**changed: xr.Dataset) -> Runs:
    """Two seeds of every role; a role given here has that run for both."""
    networks = {role: (make(0), make(1)) for role, make in MAKERS.items()}
    return Runs(networks=networks | {role: (run, run) for role, run in changed.items()}, images=tiny_images())
