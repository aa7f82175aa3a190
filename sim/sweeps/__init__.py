"""Sweeps of many runs: phase diagram, tail index, sample size, shape of the network, optimisers."""

from sim.sweeps.phase import PhaseConfig
from sim.sweeps.study import Study, Unit, make_sweep

STUDIES: tuple[type[Study], ...] = (PhaseConfig,)
"""The studies, in the order in which help texts list them."""

__all__ = ["STUDIES", "PhaseConfig", "Study", "Unit", "make_sweep"]
