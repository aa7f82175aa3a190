"""Made-up runs of networks, of the variables that real ones have, for tests of what reads them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from validate.cifar10 import Images, load_embedded

EXAMPLES, STEPS, CROSSING, SWINGING = 300, 420, 200, 20


def tiny_images() -> Images:
    """The images of the made-up runs: every class is there."""
    images = load_embedded()
    kept = np.arange(0, 2000, 2000 // EXAMPLES)[:EXAMPLES]
    return Images(images.pixels[kept], images.labels[kept])


def tiny_network(
    seed: int = 0, *, lr: float = 0.05, swing: float = 1.0, top_sharpness: float = 42.0, decay: float = 1.0
) -> xr.Dataset:
    """A run that crosses 2/η = 40 at step 200, after which examples 0…19 and 20…39 swing in opposite phase.

    Args:
        seed: of the noise.
        lr: step size.
        swing: size of the swing at the edge.
        top_sharpness: where the sharpness ends; below 2/η the run never crosses.
        decay: how fast the mean loss falls.
    """
    rng = np.random.default_rng(seed)
    steps = np.arange(STEPS)
    losses = 2.3 * np.exp(-decay * steps / 300)[:, None] + 0.02 * rng.standard_t(4, size=(STEPS, EXAMPLES))
    size = swing * np.clip((steps - CROSSING + 40) / 60, 0, 1) * (-1.0) ** steps
    losses[:, :SWINGING] += size[:, None] * rng.uniform(0.3, 1, SWINGING)
    losses[:, SWINGING : 2 * SWINGING] -= size[:, None] * rng.uniform(0.3, 1, SWINGING)
    measured = np.arange(0, STEPS, 10)
    data = xr.Dataset(attrs={"lr": lr, "diverged_at": -1}, coords={"step": steps, "measured": measured})
    data["loss"], data["label"] = (("step", "example"), losses.astype(np.float32)), ("example", tiny_images().labels)
    for place in ("iterate", "midpoint"):
        data[f"sharpness_{place}"] = "measured", np.minimum(measured / 5.0, top_sharpness)
    return data
