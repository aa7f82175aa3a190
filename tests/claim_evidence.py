"""Runs made up so that the claims C2 to C16 hold on them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from cases import planted

from validate.cifar10 import CLASSES, load_embedded
from validate.claims import c16_signal_is_feature
from validate.claims.base import Evidence, NetworkEvidence
from validate.probes import COLOURS
from validate.windows import find_windows

STEPS, CROSSING, LR, N = 380, 200, 0.05, 1000
EVERY, DRAWS = 5, 4


def base_run(seed: int) -> xr.Dataset:
    """A pair swings from the crossing on, with large features; sky colours are planes and ships."""
    rng = np.random.default_rng(seed)
    measured = np.arange(0, STEPS, 10)
    losses = 2.3 - 0.004 * np.arange(STEPS)[:, None] + 1e-4 * rng.normal(size=(STEPS, N)).cumsum(0)
    losses[CROSSING:] += planted(seed, n=N, steps=STEPS - CROSSING, size=20, noise=0.05) - 2
    data = xr.Dataset(coords={"measured": measured, "probed": measured, "colour": list(COLOURS)}, attrs={"lr": LR})
    data["loss"] = ("step", "example"), losses
    data["label"] = "example", rng.integers(0, 10, N).astype(np.uint8)
    data["sharpness_iterate"] = "measured", np.minimum(measured * (40 / CROSSING), 40.5)
    drift = np.clip((measured - 100) / 300, 0, 1) * 0.3
    data["layer_share_iterate"] = ("measured", "layer"), np.stack([0.5 + drift, 0.2 + 0 * drift, 0.3 - drift], 1)
    norms = np.tile(rng.uniform(0.9, 1.1, N), (len(measured), 1))
    norms[:, :40] *= 1.5
    data["feature_norm"] = ("probed", "example"), norms
    sky = np.isin(COLOURS, c16_signal_is_feature.SKY)
    probability = np.full((len(measured), len(COLOURS), 10), 0.1)
    probability[:, sky] = 0.0
    probability[:, sky, 0], probability[:, sky, 8] = 0.7, 0.3
    data["colour_probability"] = ("probed", "colour", "class"), probability
    return data.assign_coords({"class": list(CLASSES)})


def edge_run(seed: int) -> xr.Dataset:
    """A study from 20 steps before the crossing: x = ±0.03 along the bounce, as predicted, and groups that carry it."""
    rng = np.random.default_rng(seed)
    steps = np.arange(CROSSING - 20, CROSSING + 150)
    measured = steps[::EVERY]
    x = 0.03 * (-1.0) ** steps
    size = np.full(len(measured), 0.03**2)
    data = xr.Dataset(coords={"edge_step": steps, "edge_measured": measured, "kind": ["any", "same labels"]})
    data.attrs["lr"] = LR
    along = 2 * x / LR
    data["gradient_along_bounce"] = "edge_step", along + 0.3
    slopes = rng.normal(0, 1e-3, (len(steps), 4))
    slopes[:, 0] = along
    data["gradient_projection"] = ("edge_step", "direction"), slopes
    data["eigenvalue"] = "direction", np.array([40.0, 25.0, 20.0, 15.0])
    data["bounce_square"] = "edge_measured", size
    data["bounce_curvature"] = "edge_measured", np.full(len(measured), 40.0)
    data["bounce_b"] = "edge_measured", np.full(len(measured), 3e4)
    data["bounce_a"] = "edge_measured", size * 3e4 / 2
    data["group_cosine"] = "edge_measured", np.full(len(measured), -0.6)
    data["group_gradient_norm"] = ("edge_measured", "side"), np.tile([16.0, 25.0], (len(measured), 1))
    data["group_bounce_share"] = "edge_measured", np.full(len(measured), 0.8)
    data["group_curvature"] = ("edge_measured", "side"), np.tile([240.0, 320.0], (len(measured), 1))
    drawn = (len(measured), 2, DRAWS)
    noise = rng.normal(size=drawn)
    data["random_cosine"] = ("edge_measured", "kind", "draw"), 0.05 * noise
    data["random_bounce_share"] = ("edge_measured", "kind", "draw"), 0.1 + 0.02 * np.abs(noise)
    for name, level in (("gradient_norm", 5.0), ("curvature", 40.0)):
        data[f"random_{name}"] = ("edge_measured", "kind", "draw", "side"), np.full((*drawn, 2), level)
    return data


def two_images_swing() -> xr.Dataset:
    """A run on the embedded images whose images 7 and 150 swing against each other, 7 twice as far, from the start."""
    steps, n = 400, 2000
    direction = np.zeros(n)
    direction[[7, 150]] = 1.0, -0.5
    noise = 1e-3 * np.random.default_rng(0).normal(size=(steps, n))
    data = xr.Dataset({"loss": (("step", "example"), 1 + np.outer((-1.0) ** np.arange(steps), direction) + noise)})
    data["label"] = "example", load_embedded().labels
    data["sharpness_iterate"] = "measured", np.where(np.arange(0, steps, 10) < 200, 30.0, 45.0)
    return data.assign_coords(measured=np.arange(0, steps, 10)).assign_attrs(lr=0.05)


def gentle_run(seed: int) -> xr.Dataset:
    """A tenth of the step size: losses fall, fast at first, and nothing swings; the layers' shares stay."""
    data = base_run(seed)
    rng = np.random.default_rng(seed)
    smooth = 2.3 * np.exp(-np.arange(STEPS) / 400)[:, None] + 1e-4 * rng.normal(size=(STEPS, N)).cumsum(0)
    data["loss"] = ("step", "example"), smooth
    data["layer_share_iterate"].values[:] = [0.5, 0.2, 0.3]
    data.attrs["lr"] = LR / 10
    return data


def made_up_evidence() -> Evidence:
    """Three seeds."""
    networks = []
    for seed in range(3):
        base = base_run(seed)
        runs = {"base": base, "gentle": gentle_run(seed), "edge": edge_run(seed)}
        networks.append(NetworkEvidence(seed, runs, find_windows(base)))
    return Evidence(networks)
