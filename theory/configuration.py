"""A run of descent on the two-layer network as one frozen configuration; the other packages add to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from theory.command_line import InputError, require_positive, require_seed
from theory.model import Model, State, power_law_covariance, random_start

MOST_FEATURES = 1_000_000
"""Ordinary and opposing ones together: the start draws a number for each."""
LARGEST = 1e9
"""Of α, ‖β‖ and η: products of several of them are formed."""


@dataclass(frozen=True)
class DescentConfig:
    """Gradient descent on the two-layer linear network from a random start.

    Raises:
        InputError: a number is out of its range.
    """

    alpha: float = 20.0
    """Second moment α of the opposing feature."""
    beta: float = 3.0
    """Norm of the linear target; its direction is (1, …, 1)."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 50
    """Number of ordinary features."""
    exponent: float = 0.0
    """Ordinary features have covariance i^(−exponent); 0 is the identity."""
    lr: float = 0.04
    """Step size η."""
    steps: int = 1000
    """Number of steps."""
    start_seed: int = 0
    """Seed of the random start."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "d1", "lr", "steps"):
            require_positive(f"--{name}", getattr(self, name))
        for name in ("k", "exponent"):
            require_positive(f"--{name}", getattr(self, name), zero_allowed=True)
        require_seed("--start-seed", self.start_seed)
        features = self.d1 * (1 + self.k)
        if features > MOST_FEATURES:
            raise InputError(f"--d1 is {self.d1} and --k is {self.k:g}: give at most {MOST_FEATURES:,} features in all")
        for name in ("alpha", "beta", "lr"):
            if getattr(self, name) > LARGEST:
                raise InputError(f"--{name} is {getattr(self, name):g}: give at most {LARGEST:g}")

    @property
    def model(self) -> Model:
        """The model the configuration stands for."""
        direction = np.full(self.d1, 1 / math.sqrt(self.d1))
        return Model(np.array([self.alpha]), self.beta * direction, power_law_covariance(self.d1, self.exponent))

    @property
    def initial_state(self) -> State:
        """Weights at step 0."""
        return random_start(self.d1, self.k, self.start_seed)
