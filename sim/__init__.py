"""Simulations of opposing features, probes of networks in training, and the store of finished runs.

Where to look:

- networks in training: `training` (`descend`), `gradient_flow`, `optimizers`, `losses`, `batches`, `arithmetic`,
  `networks`; many small ones at once: `batched_networks`
- what is measured meanwhile: `probes`, `curvature` (operators, eigenvalues, third derivatives, density)
- the two-layer network at scale: `two_layer`, `batched_descent`, `batched_flow`, `update_rules`, `second_moments`;
  deeper ones: `deep_network`
- data: `opposing_data` (`draw_examples`), `heavy_tails` (`SizeLaw`, `hill_estimator`), `paired_classes`
- studies: `sweeps`
- what is kept: `runs` (the run store), `record`, `checkpoints`, `same_run`, `durable_files`
- several processes: `distributed`
"""

from sim.arithmetic import Arithmetic
from sim.batched_descent import descend_batch
from sim.batched_networks import descend_networks
from sim.batches import Batches
from sim.checkpoints import Checkpoints
from sim.device import choose_device
from sim.gradient_flow import Flow, StepControl, flow
from sim.heavy_tails import SizeLaw
from sim.losses import LossRule
from sim.networks import Architecture, build, mlp
from sim.optimizer_choice import OptimizerChoice
from sim.optimizers import SAM, SplitSGD
from sim.probes import SharpnessProbe, SnapshotProbe
from sim.record import Record
from sim.runs import Run, RunInProgress, list_runs, obtain_resumable_run, obtain_run, read_run
from sim.training import Descent, descend
from sim.two_layer import TwoLayerConfig, obtain_two_layer, run_two_layer

__all__ = [
    "SAM",
    "Architecture",
    "Arithmetic",
    "Batches",
    "Checkpoints",
    "Descent",
    "Flow",
    "LossRule",
    "OptimizerChoice",
    "Record",
    "Run",
    "RunInProgress",
    "SharpnessProbe",
    "SizeLaw",
    "SnapshotProbe",
    "SplitSGD",
    "StepControl",
    "TwoLayerConfig",
    "build",
    "choose_device",
    "descend",
    "descend_batch",
    "descend_networks",
    "flow",
    "list_runs",
    "mlp",
    "obtain_resumable_run",
    "obtain_run",
    "obtain_two_layer",
    "read_run",
    "run_two_layer",
]
