"""Number format and layout with every architecture: bfloat16 and channels-last descend as float32 does, to rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sim import Architecture, Arithmetic, LossRule, SharpnessProbe, build, descend
from sim.networks.convolution import Convolution
from sim.networks.normalisation import BatchNorm2d, LayerNorm
from theory import InputError
from validate.network_run import NetworkConfig

FORMS = {
    "vgg11": Architecture("vgg11", width=0.0625),
    "vgg11_bn": Architecture("vgg11_bn", width=0.0625),
    "resnet18": Architecture("resnet18", width=0.0625, activation="gelu", stride=2),
    "vit": Architecture("vit", width=0.0833, depth=2, activation="gelu"),
}


def _images(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return x.to(device), (torch.arange(20) % 10).to(device)


@pytest.mark.parametrize("kind", FORMS)
def test_every_architecture_descends_in_every_arithmetic(kind: str, device: torch.device) -> None:
    x, y = _images(device)

    def losses(arithmetic: Arithmetic) -> tuple[np.ndarray, torch.Tensor]:
        network = build(FORMS[kind], (3, 32, 32), 10, seed=0).to(device)
        probe = SharpnessProbe(network, x, y, 0.01, every=2, blocks_every=0, midpoint=False)
        run = descend(network, x, y, lr=0.01, steps=3, arithmetic=arithmetic, probes=[probe], progress=False)
        assert all(p.dtype == torch.float32 for p in network.parameters())
        assert all(b.dtype in (torch.float32, torch.int64) for b in network.buffers())
        return run.losses, torch.from_numpy(probe.dataset()["sharpness_iterate"].values)

    exact, curvature = losses(Arithmetic())
    for precision, bound in (("float32", 1e-4), ("bfloat16", 0.1)):
        found, sharpness = losses(Arithmetic(precision, channels_last=True))  # type: ignore[arg-type]
        difference = np.abs(found - exact).max()
        assert difference < bound
        assert precision == "float32" or difference > 1e-4  # half precision was used
        torch.testing.assert_close(sharpness[0], curvature[0], rtol=1e-3, atol=0)  # measured in float32 all the same


def test_probes_of_a_run_in_tf32_compute_without_it(device: torch.device) -> None:
    x, y = _images(device)
    seen = []

    def look(step: int, parameters: object, gradients: object) -> None:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))

    before = torch.backends.cudnn.allow_tf32
    for precision in ("float32", "tf32"):
        network = build(FORMS["vit"], (3, 32, 32), 10, seed=0).to(device)
        arithmetic = Arithmetic(precision)  # type: ignore[arg-type]
        descend(network, x, y, lr=0.01, steps=1, arithmetic=arithmetic, probes=[look], progress=False)
    assert seen == [(False, False)] * 2
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("kind", ["cross_entropy", "squared"])
def test_losses_and_their_mean_are_float32_where_the_network_is_bfloat16(kind: str, device: torch.device) -> None:
    """In bfloat16 1/1600 is off by 0.1 %, and with it the size of the step."""
    rule = LossRule(kind)  # type: ignore[arg-type]
    outputs = torch.randn(1600, 10, generator=torch.Generator().manual_seed(1)).to(device).bfloat16().requires_grad_()
    labels = torch.arange(1600, device=device) % 10
    with Arithmetic("bfloat16").active(device):
        losses = rule(outputs, labels)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, rule(outputs.float(), labels))


@pytest.mark.parametrize("precision", ["bf16", "float64", ""])
def test_another_precision_is_refused(precision: str) -> None:
    with pytest.raises(InputError, match=f"precision is {precision}: give one of float32, tf32, bfloat16"):
        Arithmetic(precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [True, False])
def test_norms_of_half_precision_keep_their_statistics_in_float32(training: bool, device: torch.device) -> None:
    """Against PyTorch's fused norms, which do so too; a mean far from 0 would be lost in bfloat16's eight bits."""
    x = torch.randn(16, 4, 5, 5, generator=torch.Generator().manual_seed(0)).to(device) + 100
    x = x.bfloat16()
    ours, theirs = BatchNorm2d(4).to(device).train(training), nn.BatchNorm2d(4).to(device).train(training)
    found, expected = ours(x), theirs(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-4)
    layer, fused = LayerNorm(5).to(device), nn.LayerNorm(5).to(device)
    torch.testing.assert_close(layer(x), fused(x.float()).bfloat16(), rtol=0.01, atol=0.01)


def test_the_arithmetic_is_part_of_a_runs_name() -> None:
    names = {
        NetworkConfig(arithmetic=Arithmetic(precision, last)).name  # type: ignore[arg-type]
        for precision in ("float32", "tf32", "bfloat16")
        for last in (False, True)
    }
    assert len(names) == 6
    assert dataclasses.asdict(NetworkConfig(arithmetic=Arithmetic("bfloat16", True)))["arithmetic"] == {
        "precision": "bfloat16",
        "channels_last": True,
    }


@pytest.mark.parametrize("channels", [3, 4, 6, 8, 12])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_strided_convolutions_gradients_do_not_hang_on_the_layout(
    channels: int, kernel: int, batch_norm: bool, device: torch.device
) -> None:
    """OneDNN's own, of a 1×1 kernel on few channels, are wrong with channels last where there is no AVX-512."""
    layer = Convolution(channels, 2 * channels, kernel=kernel, stride=2, batch_norm=batch_norm).to(device)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, channels, 16, 16, generator=generator).to(device)
    weights = torch.randn(20, 2 * channels, 8, 8, generator=generator).to(device)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = inputs.contiguous(memory_format=layout).requires_grad_()
        output = layer.to(memory_format=layout)(x)  # type: ignore[call-overload]
        found.append([output, *torch.autograd.grad((output * weights).sum(), [x, *layer.parameters()])])
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5 * plain.detach().abs().max().item())
