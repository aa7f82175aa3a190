"""Made-up cases with known answers, shared by tests."""

from __future__ import annotations

import numpy as np


def planted(seed: int, *, n: int = 1000, steps: int = 60, size: int = 10, noise: float = 0.05) -> np.ndarray:
    """Losses in which examples 0…size−1 and size…2·size−1 swing in opposite phase, the rest falling quietly."""
    rng = np.random.default_rng(seed)
    phase = (-1.0) ** np.arange(steps)
    losses = 2 - 0.005 * np.arange(steps)[:, None] + noise * rng.normal(size=(steps, n))
    losses[:, :size] += phase[:, None] * rng.uniform(0.5, 1, size)
    losses[:, size : 2 * size] -= phase[:, None] * rng.uniform(0.5, 1, size)
    return losses
