"""Sweeps of many runs: phase diagram, tail index, sample size, shape, optimisers, amplitudes, a Chebyshev fit."""

from sim.sweeps.amplitude import AmplitudeConfig
from sim.sweeps.chebyshev import ChebyshevConfig
from sim.sweeps.optimisers import OptimisersConfig
from sim.sweeps.phase import PhaseConfig
from sim.sweeps.sample_size import SampleSizeConfig
from sim.sweeps.shape import ShapeConfig
from sim.sweeps.study import Study, Unit, make_sweep
from sim.sweeps.tail import TailConfig

STUDIES: tuple[type[Study], ...] = (
    PhaseConfig,
    TailConfig,
    SampleSizeConfig,
    ShapeConfig,
    OptimisersConfig,
    AmplitudeConfig,
    ChebyshevConfig,
)
"""The studies, in the order in which help texts list them."""

__all__ = [
    "STUDIES",
    "AmplitudeConfig",
    "ChebyshevConfig",
    "OptimisersConfig",
    "PhaseConfig",
    "SampleSizeConfig",
    "ShapeConfig",
    "Study",
    "TailConfig",
    "Unit",
    "make_sweep",
]
