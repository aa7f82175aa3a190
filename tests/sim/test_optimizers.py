"""SplitSGD against a coordinate-by-coordinate loop, PyTorch's SGD, and sign descent."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sim.optimizers import SAM, SplitSGD, gradient_quantile

SHAPES = ((3, 4), (5,), ())


def _parameters(seed: int, device: torch.device, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype).to(device)) for shape in SHAPES]


def _gradients(seed: int, step: int, like: list[nn.Parameter]) -> list[Tensor]:
    """Gradients with a heavy tail, so that every threshold splits them."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype).pow(3).to(p.device) for p in like]


def _split_sgd_by_coordinate(
    theta: float, gradients: list[float], lr: float, sign_lr: float, r: float, mu: float, tau: float, decay: float
) -> float:
    """The rule of the module's docstring on one number: no tensors, no masks."""
    v: float | None = None
    for raw in gradients:
        g = raw + decay * theta
        large = abs(g) > r
        kept = 0.0 if large else g
        v = kept if v is None else mu * v + (1 - tau) * kept
        theta -= sign_lr * math.copysign(1.0, g) if large else lr * (v if mu else kept)
    return theta


@given(
    seed=st.integers(0, 1000),
    r=st.sampled_from([0.0, 0.1, 0.7, 3.0]),
    mu=st.sampled_from([0.0, 0.5, 0.9]),
    tau=st.sampled_from([0.0, 0.9]),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_the_foreach_step_is_the_rule_coordinate_by_coordinate(
    seed: int, r: float, mu: float, tau: float, decay: float
) -> None:
    tau = tau if mu else 0.0
    parameters = _parameters(seed, torch.device("cpu"))
    start = [p.detach().clone() for p in parameters]
    optimizer = SplitSGD(parameters, 0.1, 0.03, r, mu, tau, decay)
    history = []
    for step in range(6):
        history.append(_gradients(seed, step, parameters))
        for p, g in zip(parameters, history[-1], strict=True):
            p.grad = g.clone()
        optimizer.step()
    for i, p in enumerate(parameters):
        paths = torch.stack([h[i].flatten() for h in history], 1).tolist()
        wanted = [
            _split_sgd_by_coordinate(theta, path, 0.1, 0.03, r, mu, tau, decay)
            for theta, path in zip(start[i].flatten().tolist(), paths, strict=True)
        ]
        torch.testing.assert_close(p.detach().flatten(), torch.tensor(wanted, dtype=p.dtype), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maximize", [False, True])
def test_with_an_infinite_threshold_it_is_pytorchs_sgd_bit_for_bit(
    device: torch.device, dtype: torch.dtype, maximize: bool
) -> None:
    ours, theirs = (_parameters(3, device, dtype) for _ in range(2))
    split = SplitSGD(ours, 0.1, 5.0, math.inf, 0.9, 0.5, 0.01, maximize=maximize)
    sgd = torch.optim.SGD(theirs, 0.1, 0.9, 0.5, 0.01, maximize=maximize)
    for step in range(10):
        for p, q, g in zip(ours, theirs, _gradients(3, step, ours), strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        split.step()
        sgd.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_with_threshold_zero_it_is_sign_descent_and_zero_gradients_stay(device: torch.device) -> None:
    weights = nn.Parameter(torch.zeros(3, device=device))
    optimizer = SplitSGD([weights], 1.0, 0.25, 0.0)
    weights.grad = torch.tensor([1e30, -1e-30, 0.0], device=device)
    optimizer.step()
    assert weights.tolist() == [-0.25, 0.25, 0.0]


def test_a_gradient_of_the_threshold_is_not_large_and_an_infinite_one_is(device: torch.device) -> None:
    weights = nn.Parameter(torch.zeros(4, device=device))
    optimizer = SplitSGD([weights], 0.5, 0.125, 2.0)
    weights.grad = torch.tensor([2.0, 2.0001, math.inf, -math.inf], device=device)
    optimizer.step()
    assert weights.tolist() == [-1.0, -0.125, -0.125, 0.125]


def test_large_gradients_leave_no_momentum_behind(device: torch.device) -> None:
    weights = nn.Parameter(torch.zeros(1, device=device))
    optimizer = SplitSGD([weights], 1.0, 0.0, 1.0, momentum=0.9, dampening=0.0)
    for gradient in (1e6, 0.0):
        weights.grad = torch.full_like(weights, gradient)
        optimizer.step()
    assert weights.item() == 0.0


def test_state_dict_goes_round_through_a_file_that_holds_no_code() -> None:
    kept, broken = (_parameters(5, torch.device("cpu")) for _ in range(2))
    whole = SplitSGD(kept, 0.1, 0.03, 0.5)
    first = SplitSGD(broken, 0.1, 0.03, 0.5)
    for step in range(8):
        if step == 4:
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
            file.seek(0)
            first = SplitSGD(broken, 7.0, 7.0, 7.0)
            first.load_state_dict(torch.load(file, weights_only=True))
        for p, q, g in zip(kept, broken, _gradients(5, step, kept), strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        whole.step()
        first.step()
    assert all(torch.equal(p, q) for p, q in zip(kept, broken, strict=True))


def test_groups_keep_their_own_numbers_and_parameters_without_gradient_stand_still() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer = SplitSGD([{"params": [a], "sign_lr": 0.5}, {"params": [b, c]}], 1.0, 0.125, 0.0)
    a.grad = b.grad = torch.ones(1)
    optimizer.step()
    assert [a.item(), b.item(), c.item()] == [-0.5, -0.125, 0.0]
    # A parameter whose first gradient comes later starts its own buffer then.
    c.grad = torch.ones(1)
    optimizer.step()
    assert c.item() == -0.125


def test_a_closure_is_evaluated_with_gradients() -> None:
    weights = nn.Parameter(torch.ones(2))
    optimizer = SplitSGD([weights], 0.1, 0.1, 10.0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weights**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert weights.tolist() == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"lr": math.nan}, "Invalid learning rate: nan"),
        ({"sign_lr": -1.0}, "Invalid sign learning rate: -1.0"),
        ({"threshold": -1.0}, "Invalid threshold: -1.0"),
        ({"threshold": math.nan}, "Invalid threshold: nan"),
        ({"momentum": -0.1}, "Invalid momentum value: -0.1"),
        ({"momentum": 1.0}, "Invalid momentum value: 1.0"),
        ({"dampening": 1.5}, "Invalid dampening value: 1.5"),
        ({"momentum": 0.0}, "Invalid dampening value: 0.9 with momentum 0.0"),
        ({"weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
    ],
)
def test_bad_numbers_are_refused_in_pytorchs_words_also_in_a_group(bad: dict[str, float], words: str) -> None:
    good = {"lr": 0.1, "sign_lr": 0.1, "threshold": 1.0}
    weights = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=words):
        SplitSGD([weights], **{**good, **bad})
    with pytest.raises(ValueError, match=words):
        SplitSGD([{"params": [weights], **bad}], **good)


@pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf])
def test_sam_refuses_a_bad_radius_also_in_a_group_and_gives_later_groups_its_own(radius: float) -> None:
    weights, later = (nn.Parameter(torch.ones(1)) for _ in range(2))
    with pytest.raises(ValueError, match=f"Invalid radius: {radius}"):
        SAM([weights], lr=0.1, radius=radius)
    with pytest.raises(ValueError, match=f"Invalid radius: {radius}"):
        SAM([{"params": [weights], "radius": radius}], lr=0.1)
    optimizer = SAM([weights], lr=0.1, radius=0.5)
    optimizer.add_param_group({"params": [later]})

    def half_square() -> None:
        for p in (weights, later):
            p.grad = p.detach().clone()

    half_square()
    optimizer.step(half_square)
    assert weights.item() == later.item() == pytest.approx(1 - 0.1 * (1 + 0.5 / math.sqrt(2)))


def test_sparse_and_complex_gradients_are_refused() -> None:
    weights = nn.Parameter(torch.zeros(2))
    weights.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse or complex"):
        SplitSGD([weights], 0.1, 0.1, 1.0).step()


@given(seed=st.integers(0, 1000), fraction=st.floats(0, 0.99))
def test_the_threshold_found_is_exceeded_by_the_fraction_asked_for(seed: int, fraction: float) -> None:
    parameters = _parameters(seed, torch.device("cpu"), torch.float32)
    for p, g in zip(parameters, _gradients(seed, 0, parameters), strict=True):
        p.grad = g
    threshold = gradient_quantile(parameters, fraction)
    sizes = torch.cat([p.grad.abs().flatten() for p in parameters if p.grad is not None])
    assert int((sizes > threshold).sum()) == int(fraction * len(sizes))


def test_a_threshold_needs_gradients_and_a_fraction() -> None:
    weights = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="call backward"):
        gradient_quantile([weights], 0.1)
    with pytest.raises(ValueError, match="Invalid fraction: 1"):
        gradient_quantile([weights], 1.0)
