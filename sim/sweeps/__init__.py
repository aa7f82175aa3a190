"""Sweeps of many runs: phase diagram, tail index, sample size, shape of the network, optimisers."""

from sim.sweeps.optimisers import OptimisersConfig
from sim.sweeps.phase import PhaseConfig
from sim.sweeps.sample_size import SampleSizeConfig
from sim.sweeps.shape import ShapeConfig
from sim.sweeps.study import Study, Unit, make_sweep
from sim.sweeps.tail import TailConfig

STUDIES: tuple[type[Study], ...] = (PhaseConfig, TailConfig, SampleSizeConfig, ShapeConfig, OptimisersConfig)
"""The studies, in the order in which help texts list them."""

__all__ = [
    "STUDIES",
    "OptimisersConfig",
    "PhaseConfig",
    "SampleSizeConfig",
    "ShapeConfig",
    "Study",
    "TailConfig",
    "Unit",
    "make_sweep",
]
