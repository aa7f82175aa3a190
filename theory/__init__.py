"""Dynamics of the two-layer linear network with opposing features: symbolic, exact, numerical.

Where to look:

- the model: `model`, `symbolic` (the loss, source of all derivatives), `curvature` (`secular_equation`)
- its dynamics: `flow`, `descent`, `optimizer_maps`, `exact_flow` (closed form), `limits`, `minima`
- early and late: `initial_sharpness`, `turning_point`, `turning_bounds`, `sharpening`
- the edge of stability: `oscillation`, `edge`, `spikes`, `onset` (`arrival`), `alternation`, `entry_exit`
- that of real networks: `reduced_map`, `valley_map`
- other settings: `finite_sample`, `unequal_groups`, `wide_network`, `deep_network`, `logistic`
- what a user asks for: `predictions` (`quantities`, `curves`), `phase_diagram`, `statements` (`derivations`)
"""

from theory.command_line import InputError
from theory.curvature import LayerSharpness, layer_sharpness, sharpness, smallest_eigenvalue, spectrum
from theory.descent import gradient_descent
from theory.edge import edge_stability, effective_damping, settled, slow_state, spikes_between
from theory.finite_sample import SampleMoments, sample_descent
from theory.flow import gradient_flow
from theory.limits import flow_limit
from theory.model import (
    Model,
    State,
    balancedness,
    drive,
    gradient,
    group_losses,
    hessian,
    loss,
    power_law_covariance,
    random_start,
)
from theory.onset import Onset, Seed, population_onset, sample_onset
from theory.optimizer_maps import Adam, Momentum, SignDescent, descend_with
from theory.oscillation import edge_amplitude, growth_factor
from theory.predictions import Predictions, predict
from theory.quantities import Quantity
from theory.reduced_map import ReducedMap, fit_reduced_map
from theory.spikes import spike_height, spike_of
from theory.statements import Statement, all_statements
from theory.trajectory import Trajectory
from theory.turning_bounds import turning_bounds

__all__ = [
    "Adam",
    "InputError",
    "LayerSharpness",
    "Model",
    "Momentum",
    "Onset",
    "Predictions",
    "Quantity",
    "ReducedMap",
    "SampleMoments",
    "Seed",
    "SignDescent",
    "State",
    "Statement",
    "Trajectory",
    "all_statements",
    "balancedness",
    "descend_with",
    "drive",
    "edge_amplitude",
    "edge_stability",
    "effective_damping",
    "fit_reduced_map",
    "flow_limit",
    "gradient",
    "gradient_descent",
    "gradient_flow",
    "group_losses",
    "growth_factor",
    "hessian",
    "layer_sharpness",
    "loss",
    "population_onset",
    "power_law_covariance",
    "predict",
    "random_start",
    "sample_descent",
    "sample_onset",
    "settled",
    "sharpness",
    "slow_state",
    "smallest_eigenvalue",
    "spectrum",
    "spike_height",
    "spike_of",
    "spikes_between",
    "turning_bounds",
]
