"""The measured steps against those of gradient descent in closed form, on a network whose Hessian is formed whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sim import Record, SharpnessProbe, descend, mlp
from validate.step_probe import StepProbe

LR, STEPS = 0.1, 10


@pytest.mark.parametrize("every", [1, 3])
def test_steps_are_those_of_descent_along_the_dense_hessians_top_eigenvector(every: int) -> None:
    """Independent: −η∇L from autograd at weights kept at each step, and the dense Hessian's eigenvector."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(30, 5, generator=generator), torch.arange(30) % 3
    network, record, seen = mlp([5, 4, 3], "tanh", seed=0), Record(), []
    sharpness = SharpnessProbe(network, inputs, labels, LR, every=every, blocks_every=0, tolerance=1e-5, record=record)
    probes = [sharpness, StepProbe(sharpness, record), lambda step, p, g: seen.append([w.detach().clone() for w in p])]
    data = descend(network, inputs, labels, lr=LR, steps=STEPS, probes=probes, record=record, progress=False).data
    # The last step is measured where the run goes on for one more.
    assert data["step_measured"].values.tolist() == list(range(0, STEPS - 1, every))
    names = [name for name, _ in network.named_parameters()]
    sizes = [w.numel() for w in seen[0]]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = [part.reshape(w.shape) for part, w in zip(flat.split(sizes), seen[0], strict=True)]
        return F.cross_entropy(
            torch.func.functional_call(network, dict(zip(names, parts, strict=True)), inputs), labels
        )

    for row, step in enumerate(range(0, STEPS - 1, every)):
        flat = torch.cat([w.reshape(-1) for w in seen[step]])
        gradient = torch.func.grad(loss)(flat)
        top = torch.linalg.eigh(torch.func.hessian(loss)(flat)).eigenvectors[:, -1]
        assert data["step_length"].values[row] == pytest.approx(float(LR * gradient.norm()), rel=1e-3)
        along = pytest.approx(float(LR * (gradient @ top).abs()), rel=2e-2, abs=1e-6)
        assert data["step_along_top"].values[row] == along


def test_a_measurement_under_way_survives_a_checkpoint() -> None:
    network, inputs, labels = mlp([4, 3], "tanh", seed=0), torch.randn(6, 4), torch.arange(6) % 3
    found = []
    for interrupted in (False, True):
        record = Record()
        sharpness = SharpnessProbe(network, inputs, labels, LR, every=2, blocks_every=0, midpoint=False, record=record)
        probe = StepProbe(sharpness, record)
        parameters = [p.detach().clone() for p in network.parameters()]
        gradients = [torch.ones_like(p) for p in parameters]
        for each in (sharpness, probe):
            each(0, [p.requires_grad_() for p in parameters], gradients)
        if interrupted:
            again = StepProbe(sharpness, Record())
            again.load_state_dict(probe.state_dict())
            again.record = record
            probe = again
        moved = [(p.detach() - LR * g).requires_grad_() for p, g in zip(parameters, gradients, strict=True)]
        probe(1, moved, gradients)
        found.append(record.dataset()["step_along_top"].values)
    assert np.array_equal(found[0], found[1])
    assert len(found[0]) == 1
