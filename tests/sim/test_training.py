"""Descent against a loop written out with PyTorch; chunks, minibatches, probes that leave no trace; divergence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sim import Arithmetic, Batches, Checkpoints, LossRule, OptimizerChoice, SharpnessProbe, SnapshotProbe, descend, mlp
from sim.batches import examples_in
from sim.curvature import HessianOperator, MeanLoss, layer_shares
from sim.gradient_flow import flow
from sim.training import OptimizerFactory
from theory import InputError


def _problem(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator)
    return x.to(device), torch.randint(0, 3, (60,), generator=generator).to(device)


def _network(device: torch.device) -> torch.nn.Sequential:
    return mlp([8, 10, 3], "relu", seed=5).to(device)


RULES: dict[str, tuple[OptimizerFactory, float]] = {
    "SGD": (torch.optim.SGD, 0.3),
    "momentum": (partial(torch.optim.SGD, momentum=0.9, nesterov=True), 0.1),
    "Adam": (torch.optim.Adam, 0.01),
    "RMSprop": (torch.optim.RMSprop, 0.001),
}


@pytest.mark.parametrize("rule", RULES)
def test_descent_takes_the_steps_of_the_optimiser_and_keeps_every_loss(rule: str, device: torch.device) -> None:
    x, y = _problem(device)
    ours, theirs = _network(device), _network(device)
    factory, lr = RULES[rule]
    result = descend(ours, x, y, lr=lr, steps=25, optimizer=factory, progress=False)
    optimiser = factory(list(theirs.parameters()), lr=lr)
    expected = []
    for _ in range(25):
        each = F.cross_entropy(theirs(x), y, reduction="none")
        expected.append(each.detach().cpu().numpy())
        optimiser.zero_grad()
        each.mean().backward()
        optimiser.step()
    np.testing.assert_array_equal(result.losses, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_plain_descent_is_the_formula_bit_for_bit(device: torch.device) -> None:
    """θ ← θ − η∇L(θ) written out, without torch.optim."""
    x, y = _problem(device)
    ours, theirs = _network(device), _network(device)
    descend(ours, x, y, lr=0.3, steps=25, progress=False)
    parameters = list(theirs.parameters())
    for _ in range(25):
        gradients = torch.autograd.grad(F.cross_entropy(theirs(x), y), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g, alpha=-0.3)
    for a, b in zip(ours.parameters(), parameters, strict=True):
        assert torch.equal(a, b)


class Gradients:
    """Keeps the gradients it is shown."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Keeps them."""
        self.seen.append(torch.cat([g.detach().flatten() for g in gradients]))


@given(st.integers(1, 70))
def test_chunks_of_any_size_add_up_to_the_gradient_of_the_mean_loss(device: torch.device, chunk: int) -> None:
    """The last chunk is often smaller: a mean of chunk means would be wrong, visibly so in float64."""
    x, y = _problem(device)
    x = x.double()
    probe, network = Gradients(), _network(device).double()
    result = descend(
        network, x.double(), y, lr=0.3, steps=3, batches=Batches(chunk=chunk), probes=[probe], progress=False
    )
    whole, network = Gradients(), _network(device).double()
    expected = descend(network, x, y, lr=0.3, steps=3, probes=[whole], progress=False)
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
    torch.testing.assert_close(torch.stack(probe.seen), torch.stack(whole.seen), rtol=1e-10, atol=1e-13)


def test_minibatches_take_each_example_once_an_epoch_in_an_order_of_the_seed(device: torch.device) -> None:
    x, y = _problem(device)
    runs = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        torch.manual_seed(len(runs))  # the order depends on no global state
        batches = Batches(size=16, chunk=5, seed=seed)
        network, probe = _network(device), Gradients()
        runs[name] = descend(network, x, y, lr=0.1, steps=12, batches=batches, probes=[probe], progress=False).losses
        seen = np.isfinite(runs[name])
        assert seen.sum(1).tolist() == [16, 16, 16, 12] * 3
        assert (seen.reshape(3, 4, 60).sum(1) == 1).all()
        assert not np.array_equal(seen[:4], seen[4:8])
    np.testing.assert_array_equal(runs["first"], runs["again"])
    assert not np.array_equal(np.isfinite(runs["first"]), np.isfinite(runs["other"]))
    # The step follows the gradient of the minibatch's mean loss.
    members = torch.from_numpy(np.isfinite(runs["other"][0])).to(device)
    start = _network(device)
    expected = torch.autograd.grad(F.cross_entropy(start(x[members]), y[members]), list(start.parameters()))
    torch.testing.assert_close(probe.seen[0], torch.cat([g.flatten() for g in expected]), rtol=1e-5, atol=1e-7)


def test_chunks_that_cut_batch_norms_batch_must_be_declared(device: torch.device) -> None:
    x, y = _problem(device)

    def normalised() -> torch.nn.Sequential:
        plain = _network(device)
        return torch.nn.Sequential(plain[0], torch.nn.BatchNorm1d(10), plain[1], plain[2]).to(device)

    with pytest.raises(InputError, match="chunk of 20 examples cuts the batch"):
        descend(normalised(), x, y, lr=0.1, steps=2, batches=Batches(chunk=20), progress=False)
    ghost = descend(normalised(), x, y, lr=0.1, steps=2, batches=Batches(chunk=20, ghost=True), progress=False)
    whole = descend(normalised(), x, y, lr=0.1, steps=2, batches=Batches(chunk=60), progress=False)
    assert not np.allclose(ghost.losses, whole.losses, rtol=1e-3)
    descend(normalised().eval(), x, y, lr=0.1, steps=2, batches=Batches(chunk=20), progress=False)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_precision_changes_the_products_and_nothing_outside(precision: Any, device: torch.device) -> None:
    x, y = _problem(device)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    exact = descend(_network(device), x, y, lr=0.3, steps=10, progress=False).losses
    network = _network(device)
    losses = descend(network, x, y, lr=0.3, steps=10, arithmetic=Arithmetic(precision), progress=False).losses
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert all(p.dtype == torch.float32 for p in network.parameters())
    difference = np.abs(losses - exact).max()
    if precision == "bfloat16":
        assert 1e-5 < difference < 0.1
    elif device.type == "cpu":
        assert difference == 0


def test_channels_last_changes_the_layout_and_not_the_descent(device: torch.device) -> None:
    x = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.arange(12, device=device) % 3

    def convnet() -> torch.nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
        return torch.nn.Sequential(*layers).to(device)

    plain, last = convnet(), convnet()
    a = descend(plain, x, y, lr=0.1, steps=5, progress=False)
    b = descend(last, x, y, lr=0.1, steps=5, arithmetic=Arithmetic(channels_last=True), progress=False)
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)


def _noisy(device: torch.device) -> torch.nn.Sequential:
    """Batch norm, whose buffers a forward pass changes, and dropout, which draws."""
    plain = _network(device)
    middle = torch.nn.BatchNorm1d(10), plain[1], torch.nn.Dropout(0.3)
    return torch.nn.Sequential(plain[0], *middle, plain[2]).to(device)


class Draws:
    """A careless probe: it draws from the global random state."""

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Draws."""
        torch.rand(step + 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [_network, _noisy])
def test_probes_leave_the_run_bit_for_bit_as_it_was(
    make: Callable[[torch.device], torch.nn.Sequential], training: bool, device: torch.device
) -> None:
    x, y = _problem(device)
    bare, watched = make(device).train(training), make(device).train(training)
    probe, gradients = SharpnessProbe(watched, x, y, lr=0.3, every=2, blocks_every=4), (Gradients(), Gradients())
    torch.manual_seed(3)
    a = descend(bare, x, y, lr=0.3, steps=20, probes=[gradients[0]], progress=False)
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    b = descend(watched, x, y, lr=0.3, steps=20, probes=[probe, Draws(), gradients[1]], progress=False)
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(a.losses, b.losses)
    assert torch.equal(torch.stack(gradients[0].seen), torch.stack(gradients[1].seen))
    for p, q in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(p, q)
    for q in watched.parameters():
        assert q.grad is None
        assert q.requires_grad
    assert all(m.training == training for m in watched.modules())


@pytest.mark.parametrize(("criterion", "column"), [("residual", "residual"), ("value", "value_error")])
def test_the_probe_measures_iterates_midpoints_and_blocks(
    criterion: Literal["residual", "value"], column: str, device: torch.device
) -> None:
    x, y = _problem(device)
    network = _network(device)
    options = {"tolerance": 1e-4, "criterion": criterion}
    probe = SharpnessProbe(network, x, y, lr=0.3, every=5, blocks_every=10, **options)  # type: ignore[arg-type]
    descend(network, x, y, lr=0.3, steps=21, probes=[probe], progress=False)
    data = probe.dataset()
    assert data["measured"].values.tolist() == [0, 5, 10, 15, 20]
    assert data["block_measured"].values.tolist() == [0, 10, 20]
    assert data["converged_iterate"].all()
    assert data["block_converged"].all()
    assert data["verified_iterate"][0]
    assert (data[f"{column}_midpoint"] <= 1e-4).all()
    assert (data[f"block_{column}"] <= 1e-4).all()
    np.testing.assert_allclose(data["layer_share_iterate"].sum("layer"), 1)
    whole = data["sharpness_iterate"].sel(measured=data["block_measured"].values)
    assert (data["block_sharpness"].max("layer").values <= whole.values * (1 + 1e-6)).all()
    start = _network(device)
    assert float(data["sharpness_iterate"][0]) == pytest.approx(_dense_sharpness(start, x, y), rel=1e-4)
    # Half of one step of descent leads to the midpoint.
    descend(start, x, y, lr=0.15, steps=1, progress=False)
    assert float(data["sharpness_midpoint"][0]) == pytest.approx(_dense_sharpness(start, x, y), rel=1e-4)


def test_a_probe_verifies_its_eigenvalue_now_and_then(device: torch.device) -> None:
    x, y = _problem(device)
    network = _network(device)
    probe = SharpnessProbe(network, x, y, lr=0.3, every=1, blocks_every=0)
    descend(network, x, y, lr=0.3, steps=27, probes=[probe], progress=False)
    verified = probe.dataset()["verified_iterate"].values
    assert verified[0]
    assert verified[25]
    assert not verified[1:25].all()


def test_blocks_are_verified_now_and_then_and_say_so() -> None:
    x, y = _problem(torch.device("cpu"))
    network = _network(x.device)
    probe = SharpnessProbe(network, x, y, lr=0.3, every=1, blocks_every=1, midpoint=False)
    descend(network, x, y, lr=0.3, steps=12, probes=[probe], progress=False)
    verified = probe.dataset()["block_verified"].values
    assert verified[0].all()
    assert verified[10].all()
    assert not verified[1:10].all()


@pytest.mark.parametrize("ghost", [False, True])
def test_the_probe_measures_the_loss_of_the_runs_chunks(ghost: bool, device: torch.device) -> None:
    """Without batch norm the chunks change nothing; declared ghost batches are another loss, that of their mean."""
    x, y = _problem(device)
    network = _network(device)
    if ghost:
        network = torch.nn.Sequential(network[0], torch.nn.BatchNorm1d(10), network[1], network[2]).to(device)
    batches = Batches(chunk=20, ghost=ghost)
    probes = [SharpnessProbe(network, x, y, 0.3, tolerance=1e-5, batches=b) for b in (batches, Batches())]
    parameters = [p.detach() for p in network.parameters()]
    for probe in probes:
        probe(0, parameters, parameters)
    cut, whole = (probe.dataset()["sharpness_iterate"].values for probe in probes)
    if not ghost:
        np.testing.assert_allclose(cut, whole, rtol=1e-4)
        return
    matrices = []
    for part in (slice(0, 20), slice(20, 40), slice(40, 60)):
        leaves = [p.clone().requires_grad_() for p in parameters]
        values = dict(zip([n for n, _ in network.named_parameters()], leaves, strict=True))
        loss = F.cross_entropy(torch.func.functional_call(network, values, (x[part],)), y[part])
        block = HessianOperator(loss, leaves)
        matrices.append(torch.stack([block.matvec(row) for row in torch.eye(block.size, device=device)]))
    expected = float(torch.linalg.eigvalsh(torch.stack(matrices).mean(0))[-1])
    np.testing.assert_allclose(cut, expected, rtol=1e-3)
    assert abs(whole / expected - 1) > 4e-3


def test_dropout_is_left_out_of_the_sharpness(device: torch.device) -> None:
    x, y = _problem(device)
    plain = _network(device)
    dropping = torch.nn.Sequential(*plain[:2], torch.nn.Dropout(0.5), plain[2])
    probes = [SharpnessProbe(network, x, y, 0.3, tolerance=1e-5) for network in (plain, dropping)]
    parameters = [p.detach() for p in plain.parameters()]
    for probe in probes:
        probe(0, parameters, parameters)
    assert dropping[2].training

    class Own(torch.nn.Module):
        """Dropout that is no module of that name."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = _network(device)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(F.dropout(inputs, 0.5, self.training))

    own = Own()
    probe, state = SharpnessProbe(own, x, y, 0.3), torch.get_rng_state()
    with pytest.raises(InputError, match=r"draws random numbers in its forward pass: call eval\(\)"):
        probe(0, parameters, parameters)
    assert torch.equal(state, torch.get_rng_state())
    own.eval()
    probe(0, parameters, parameters)
    np.testing.assert_allclose(*(p.dataset()["sharpness_iterate"].values for p in probes), rtol=1e-4)


def _dense_sharpness(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network, x = copy.deepcopy(network).double(), x.double()
    names = [name for name, _ in network.named_parameters()]
    shapes = [p.shape for p in network.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in network.parameters()])

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([s.numel() for s in shapes])
        weights = {n: v.view(s) for n, v, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(network, weights, (x,)), y)

    return float(torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))[-1])


def test_a_diverging_run_keeps_its_last_finite_weights(device: torch.device) -> None:
    x, y = _problem(device)
    network = _network(device)
    result = descend(network, 1e15 * x, y, lr=1e30, steps=50, progress=False)
    assert result.diverged_at is not None
    assert len(result.losses) == result.diverged_at
    assert np.isfinite(result.losses).all()
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_a_diverging_run_keeps_batch_norms_statistics_from_before_the_pass_that_failed(device: torch.device) -> None:
    x, y = _problem(device)

    def make() -> torch.nn.Module:
        nn = torch.nn
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(x.shape[1], 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).to(device)

    network, shorter = make(), make()
    steps = descend(network, x, y, lr=1e20, steps=20, progress=False).diverged_at
    assert steps is not None
    descend(shorter, x, y, lr=1e20, steps=steps, progress=False)
    assert all(torch.isfinite(b).all() for b in network.buffers())
    for kept, expected in zip(network.buffers(), shorter.buffers(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("entry", [0.0, float("nan"), float("inf"), 1e200])
def test_shares_of_a_vector_without_a_direction_are_nan_without_a_warning(entry: float) -> None:
    assert np.isnan(layer_shares(torch.full((3,), entry, dtype=torch.float64), [1, 2], ["a", "b"])).all()


def test_a_probes_state_holds_its_generator(device: torch.device) -> None:
    """The start vectors that a place without earlier eigenvectors would draw."""
    x, y = _problem(device)
    network = _network(device)
    first, second = (SharpnessProbe(network, x, y, lr=0.3) for _ in range(2))
    weights = [p.detach().clone() for p in network.parameters()]
    first(0, weights, weights)
    second.load_state_dict(first.state_dict())
    for probe in (first, second):
        for tracker in probe._trackers.values():
            tracker.recycled = None
        probe(10, weights, weights)
    assert first.dataset().identical(second.dataset())


class Killed(Exception):
    """Stands for the end of the process."""


class Killer:
    """Ends the run when it is called at a step."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def __call__(self, step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Ends it."""
        if step == self.at:
            raise Killed


def _two_groups(factor: float) -> OptimizerFactory:
    def of(parameters: list[torch.Tensor], *, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": factor * lr}], lr=lr)

    return of


RESUMED: dict[str, tuple[OptimizerFactory, float, Batches]] = {
    "full batch": (torch.optim.SGD, 0.3, Batches()),
    "momentum, chunks": (partial(torch.optim.SGD, momentum=0.9), 0.1, Batches(chunk=25, ghost=True)),
    "Adam, minibatches": (torch.optim.Adam, 0.01, Batches(size=16)),
    "SAM, ghost batches": (OptimizerChoice("sam", radius=0.2).factory(), 0.1, Batches(chunk=25, ghost=True)),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_resumed_at_any_step_has_the_bits_of_the_uninterrupted(
    case: str, device: torch.device, tmp_path: Path
) -> None:
    """Killed at each step in turn, so that every part of the state is needed by some of them."""
    x, y = _problem(device)
    factory, lr, batches = RESUMED[case]

    def run(killed_at: int | None, checkpoints: Checkpoints) -> tuple[xr.Dataset, xr.Dataset, dict[str, torch.Tensor]]:
        torch.manual_seed(4)
        network = _noisy(device).train()
        probe = SharpnessProbe(network, x, y, lr, every=2, blocks_every=4)
        snapshots = SnapshotProbe(sum(p.numel() for p in network.parameters()), 2)
        descent = descend(
            network,
            x,
            y,
            lr=lr,
            steps=7,
            optimizer=factory,
            batches=batches,
            probes=[Killer(killed_at), probe, snapshots],
            checkpoints=checkpoints,
            progress=False,
        )
        return descent.data, xr.merge([probe.dataset(), snapshots.record.dataset()]), network.state_dict()

    def checkpoints_in(name: str) -> Checkpoints:
        return Checkpoints(Path("run"), tmp_path / name, {}, every_seconds=0)

    losses, measured, state = run(None, checkpoints_in("uninterrupted"))
    for step in range(7):
        with pytest.raises(Killed):
            run(step, checkpoints_in(str(step)))
        torch.rand(3)
        again = run(None, checkpoints_in(str(step)))
        assert again[0].identical(losses)
        assert again[1].identical(measured)
        assert all(torch.equal(a, b) for a, b in zip(again[2].values(), state.values(), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.5}, r"another run \(step size: 0\.1 there, 0\.5 now\): give another folder"),
        ({"steps": 4}, "of step 5, beyond 4 steps: give another folder"),
        ({"batches": Batches(size=5)}, "another run .*batches"),
        ({"loss": LossRule("squared")}, "another run .*loss"),
        ({"loss": partial(F.cross_entropy, reduction="none")}, "another run .*loss"),
        ({"arithmetic": Arithmetic("bfloat16")}, "another run .*arithmetic"),
        ({"example_weights": torch.arange(1200.0)}, "another run .*example weights"),
        ({"optimizer": torch.optim.Adam}, "another run .*optimizer: SGD there, Adam now"),
        (
            {"optimizer": partial(torch.optim.SGD, momentum=0.5)},
            r"another run .*momentum of group 0: 0 there, 0\.5 now",
        ),
        ({"probes": [lambda *_: None]}, "another run .*probes: none there, function now"),
        ({"inputs": 1}, "another run .*inputs"),
        ({"labels": 1}, "another run .*labels"),
        ({"label": 1}, "another run .*labels"),
        ({"network": 1}, "another run .*network"),
        ({"activation": 1}, "another run .*network"),
        (
            {"begun": {"optimizer": _two_groups(0.1)}, "optimizer": _two_groups(10.0)},
            r"another run .*lr of group 1: 0\.01\d* there, 1\.0 now",
        ),
        ({"begun": {"optimizer": _two_groups(0.1)}, "optimizer": _two_groups(0.1)}, ""),
    ],
)
def test_a_checkpoint_of_another_run_or_beyond_the_end_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    x, y = (part[:12] for part in _problem(torch.device("cpu")))
    checkpoints = Checkpoints(tmp_path / "run", tmp_path / "run" / "checkpoints", {}, every_seconds=0)
    options: dict[str, Any] = {"lr": 0.1, "checkpoints": checkpoints, "progress": False}
    changes = dict(changes)
    x, y = x.repeat(100, 1), y.repeat(100)  # one label among so many is seen too
    descend(_network(x.device), x, y, steps=5, **options, **changes.pop("begun", {}))
    network = torch.nn.Sequential(_network(x.device)) if changes.pop("network", 0) else _network(x.device)
    if changes.pop("activation", 0):
        network[1] = torch.nn.Tanh()
    x, y = x + changes.pop("inputs", 0), y.roll(changes.pop("labels", 0))
    y[7] = (y[7] + changes.pop("label", 0)) % 3
    if words:
        with pytest.raises(InputError, match=words):
            descend(network, x, y, **{"steps": 9, **options, **changes})
    else:
        assert len(descend(network, x, y, **{"steps": 9, **options, **changes}).losses) == 9


def test_any_function_of_outputs_and_labels_is_a_loss() -> None:
    x, _ = _problem(torch.device("cpu"))
    targets = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(0))

    def huber(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.huber_loss(outputs[:, :2], wanted, reduction="none").sum(1)

    network, start = _network(x.device), _network(x.device)
    batches = Batches(chunk=7)
    probe = SharpnessProbe(network, x, targets, 0.05, every=10, blocks_every=0, loss=huber, batches=batches)
    run = descend(network, x, targets, lr=0.05, steps=30, loss=huber, batches=batches, probes=[probe], progress=False)
    leaves = [p.detach().clone().requires_grad_() for p in start.parameters()]
    mean = huber(
        torch.func.functional_call(start, dict(zip(dict(start.named_parameters()), leaves, strict=True)), x), targets
    ).mean()
    dense = HessianOperator(mean, leaves)
    columns = [dense.matvec(row) for row in torch.eye(sum(p.numel() for p in leaves))]
    top = float(torch.linalg.eigvalsh(torch.stack(columns).double())[-1])
    assert float(probe.dataset()["sharpness_iterate"][0]) == pytest.approx(top, rel=2e-3)
    np.testing.assert_allclose(run.losses[0], huber(start(x), targets).detach(), rtol=1e-6)
    assert run.losses[-1].mean() < run.losses[0].mean()


def _step_of(network: torch.nn.Module, *data: torch.Tensor, **options: Any) -> torch.Tensor:
    before = torch.cat([p.detach().flatten() for p in network.parameters()])
    descend(network, *data, lr=1.0, steps=1, progress=False, **options)
    return torch.cat([p.detach().flatten() for p in network.parameters()]) - before


def test_weights_keep_their_digits_in_every_precision(device: torch.device) -> None:
    """A common weight cancels in the mean; 1.003 is 1 in bfloat16, and 1/3 has other digits in float32."""
    x, y = _problem(device)
    low = {"arithmetic": Arithmetic("bfloat16")}
    plain = _step_of(_network(device), x, y, **low)
    weighted = _step_of(_network(device), x, y, example_weights=torch.full((60,), 1.003, device=device), **low)
    assert float((weighted - plain).norm() / plain.norm()) < 1e-6
    weights = torch.arange(1, 61, dtype=torch.float64, device=device) / 3
    network, again = _network(device).double(), _network(device).double()
    step = _step_of(network, x.double(), y, example_weights=weights)
    each = F.cross_entropy(again(x.double()), y, reduction="none")
    gradients = torch.autograd.grad((each * weights).sum() / weights.sum(), list(again.parameters()))
    expected = -torch.cat([g.flatten() for g in gradients])
    assert float((step - expected).norm() / expected.norm()) < 1e-14


@pytest.mark.parametrize("loss", [F.cross_entropy, lambda o, t: F.cross_entropy(o, t, reduction="none")[:, None]])
def test_a_loss_that_is_not_one_an_example_is_refused(loss: Any) -> None:
    x, y = _problem(torch.device("cpu"))
    with pytest.raises(InputError, match=r"losses have shape \[.*\]: give one for each of 60 examples"):
        descend(_network(x.device), x, y, lr=0.1, steps=1, loss=loss, progress=False)


class Whole:
    """A loss over the batch's mean loss."""

    divides = False

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(m,) losses."""
        each = F.cross_entropy(outputs, labels, reduction="none")
        return each**2 / each.mean()


def test_a_loss_that_needs_the_whole_batch_is_not_cut() -> None:
    x, y = _problem(torch.device("cpu"))
    network = _network(x.device)
    with pytest.raises(InputError, match="chunk of 25 examples cuts the batch that the loss needs whole: leave it out"):
        descend(network, x, y, lr=0.1, steps=1, loss=Whole(), batches=Batches(chunk=25), progress=False)
    with pytest.raises(InputError, match="chunk is 25 of 60 examples, and the loss needs them all at once"):
        MeanLoss(network, x, y, Whole()).gradient(list(network.parameters()), 25)
    descend(network, x, y, lr=0.1, steps=1, loss=Whole(), batches=Batches(size=25, chunk=25), progress=False)
    assert not MeanLoss(network, x, y, Whole()).divisible


def test_gradients_of_what_the_optimiser_leaves_alone_do_not_add_up() -> None:
    x, y = _problem(torch.device("cpu"))
    seen: list[float] = []

    def look(step: int, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        seen.append(float(gradients[0].norm()))

    def last_alone(parameters: list[torch.Tensor], *, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters[1:], lr=lr)

    descend(_network(x.device), x, y, lr=0.0, steps=3, optimizer=last_alone, probes=[look], progress=False)
    assert seen == [seen[0]] * 3


class Counts(torch.nn.Module):
    """Scales by how often it has been called in training, which it keeps in a buffer that no state_dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _network(torch.device("cpu"))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scaled outputs."""
        with torch.no_grad():
            self.calls += 1
        return self.inner(inputs) * (1 + 0.1 * self.calls)


@pytest.mark.parametrize("rule", ["NAdam", "Adam", "Adagrad", "Rprop"])
def test_buffers_and_states_of_any_type_are_resumed_to_the_bit(rule: str, tmp_path: Path) -> None:
    """NAdam keeps a float32 number beside float64 weights, which loading casts."""
    x, y = _problem(torch.device("cpu"))

    def run(steps: int, folder: str) -> np.ndarray[Any, Any]:
        checkpoints = Checkpoints(Path("run"), tmp_path / folder, {}, every_seconds=0)
        optimizer: Any = getattr(torch.optim, rule)
        options: dict[str, Any] = {"optimizer": optimizer, "checkpoints": checkpoints, "progress": False}
        network = Counts().double()
        descend(network, x.double(), y, lr=0.01, steps=steps, **options)
        return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()

    run(3, "cut")
    np.testing.assert_array_equal(run(7, "cut"), run(7, "whole"))


def test_a_probe_of_another_network_is_refused() -> None:
    x, y = _problem(torch.device("cpu"))
    probe = SharpnessProbe(mlp([8, 9, 3], "relu", seed=5), x, y, 0.1, every=1)
    with pytest.raises(
        InputError, match=r"the run's network has 123 parameters, the probe's 111.*of the run's network"
    ):
        descend(_network(x.device), x, y, lr=0.1, steps=1, probes=[probe], progress=False)


@pytest.mark.parametrize("label", [-100, -1, 1000])
def test_labels_that_are_no_classes_are_refused(label: int) -> None:
    x, y = _problem(torch.device("cpu"))
    y = y.clone()
    y[3] = label
    with pytest.raises(InputError, match=f"labels go from .*{label}.*: give class indices from 0 to"):
        descend(_network(x.device), x, y, lr=0.1, steps=1, progress=False)


def test_a_choice_is_a_rule_of_the_steps() -> None:
    x, y = _problem(torch.device("cpu"))
    losses = [
        descend(_network(x.device), x, y, lr=0.01, steps=5, optimizer=rule, progress=False).losses
        for rule in (OptimizerChoice("adam"), torch.optim.Adam)
    ]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": float("nan")}, "step size is nan"),
        ({"lr": -0.1}, "step size is -0.1"),
        ({"steps": -5}, "number of steps is -5"),
        ({"labels": 61}, "60 inputs and 61 labels"),
        ({"loss_dtype": "int8"}, "loss_dtype is int8: give float32 or float16"),
    ],
)
def test_bad_input_of_a_descent_is_one_line(options: dict[str, Any], words: str) -> None:
    x, _ = _problem(torch.device("cpu"))
    labels = torch.zeros(options.pop("labels", 60), dtype=torch.int64)
    with pytest.raises(InputError, match=words) as caught:
        descend(_network(x.device), x, labels, **{"lr": 0.1, "steps": 2, "progress": False, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "steps between measurements is 0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"every": 10, "blocks_every": 15}, "every 15 steps: give a multiple of 10"),
        ({"precision": "double"}, "precision is double: give float32 or float64"),
    ],
)
def test_bad_options_of_the_sharpness_probe_are_one_line(options: dict[str, Any], words: str) -> None:
    x, y = _problem(torch.device("cpu"))
    with pytest.raises(InputError, match=words):
        SharpnessProbe(_network(x.device), x, y, 0.1, **options)


def test_frozen_parameters_are_left_by_descent_and_refused_where_all_are_moved_or_measured() -> None:
    x, y = _problem(torch.device("cpu"))
    network = _network(x.device)
    network[0].weight.requires_grad_(False)
    before = [p.detach().clone() for p in network.parameters()]
    descend(network, x, y, lr=0.1, steps=2, progress=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert moved == [False, True, True, True]
    with pytest.raises(InputError, match=r"parameter 0\.weight is frozen"):
        SharpnessProbe(network, x, y, 0.1)
    with pytest.raises(InputError, match=r"parameter 0\.weight is frozen"):
        flow(network, x, y, times=[0.0, 0.1], progress=False)


@pytest.mark.parametrize(
    ("count", "batches", "lone"),
    [
        (5, Batches(size=4), True),  # the epoch's last minibatch
        (5, Batches(chunk=2, ghost=True), True),
        (41, Batches(size=20, chunk=7, ghost=True), True),  # 7, 7, 6 and a minibatch of one
        (10, Batches(size=5, chunk=2, ghost=True), True),  # 2, 2, 1
        (5, Batches(size=3), False),
        (6, Batches(chunk=2, ghost=True), False),
        (40, Batches(size=20, chunk=6, ghost=True), False),
    ],
)
def test_batch_norm_is_not_left_with_a_single_example(count: int, batches: Batches, lone: bool) -> None:
    """Against the pieces themselves; without batch norm nothing is refused."""
    cpu = torch.device("cpu")
    parts = [p for step in range(20) for p in batches.of_step(step, count, cpu)]
    assert lone == (1 in {examples_in([part]) for part in parts})
    network = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    batches.require_whole_batch_norm(torch.nn.Linear(8, 4), count)
    if lone:
        with pytest.raises(InputError, match=f"{count} examples in batches of .* leave one example alone"):
            batches.require_whole_batch_norm(network, count)
    else:
        batches.require_whole_batch_norm(network, count)


def test_batch_norm_without_running_statistics_takes_the_batchs_in_evaluation_too() -> None:
    norm = torch.nn.BatchNorm1d(4, track_running_stats=False).eval()
    with pytest.raises(InputError, match="declare ghost batches"):
        Batches(chunk=20).require_whole_batch_norm(torch.nn.Sequential(torch.nn.Linear(8, 4), norm), 40)
    kept = torch.nn.BatchNorm1d(4).eval()
    Batches(chunk=20).require_whole_batch_norm(torch.nn.Sequential(torch.nn.Linear(8, 4), kept), 40)


def test_a_run_resumed_just_before_it_diverges_keeps_the_same_weights(device: torch.device, tmp_path: Path) -> None:
    x, y = _problem(device)
    whole = _network(device)
    diverged = descend(whole, x, y, lr=1e4, steps=60, progress=False).diverged_at
    assert diverged is not None
    assert diverged > 1
    checkpoints = Checkpoints(Path("run"), tmp_path / "c", {}, every_seconds=0)
    descend(_network(device), x, y, lr=1e4, steps=diverged, checkpoints=checkpoints, progress=False)
    network = _network(device)
    again = descend(network, x, y, lr=1e4, steps=60, checkpoints=checkpoints, progress=False)
    assert again.diverged_at == diverged
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), whole.parameters(), strict=True))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = mlp([4, 3, 2], "tanh", seed=7)
    torch.manual_seed(2)
    second = mlp([4, 3, 2], "tanh", seed=7)
    other = mlp([4, 3, 2], "tanh", seed=8)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(("sizes", "activation"), [([4], "relu"), ([4, 0, 2], "relu"), ([4, 2], "sine")])
def test_bad_networks_are_refused(sizes: list[int], activation: str) -> None:
    with pytest.raises(InputError):
        mlp(sizes, activation, seed=0)
