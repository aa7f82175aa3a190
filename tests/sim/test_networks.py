"""Networks: written-out normalisation and attention, three derivatives, layers, weights from the seed alone."""

from __future__ import annotations

import copy
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sim.curvature import HessianOperator, MeanLoss, sharpness_gradient
from sim.networks import (
    Architecture,
    build,
    last_linear,
    layer_of_parameter,
    load_parameters,
    parameter_vector,
    takes_images,
)
from sim.networks.architecture import KINDS
from sim.networks.convolution import Convolution
from sim.networks.normalisation import BatchNorm2d, LayerNorm
from sim.networks.vision_transformer import Attention
from theory.command_line import InputError

SMALL = {
    "mlp": Architecture("mlp", hidden=(6, 5), activation="tanh"),
    "vgg11": Architecture("vgg11", width=1 / 32, activation="gelu"),
    "vgg11_bn": Architecture("vgg11_bn", width=1 / 32, activation="gelu"),
    "resnet18": Architecture("resnet18", width=1 / 32, activation="gelu", stride=2),
    "vit": Architecture("vit", width=1 / 24, depth=1, activation="gelu"),
}
SHAPE = (3, 32, 32)


def network_of(architecture: Architecture, seed: int = 0) -> nn.Module:
    """In float64, so that differences are sharp."""
    return build(architecture, SHAPE, 10, seed).double()


def data_for(architecture: Architecture, count: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return (inputs if takes_images(architecture) else inputs.flatten(1)), torch.arange(count) % 10


def direction_for(network: nn.Module, seed: int = 1) -> torch.Tensor:
    vector = torch.randn(parameter_vector(network).numel(), generator=torch.Generator().manual_seed(seed)).double()
    return vector / vector.norm()


def gradient_at(objective: MeanLoss, point: torch.Tensor) -> torch.Tensor:
    network = copy.deepcopy(objective.network)
    load_parameters(network, point)
    return objective.gradient(list(network.parameters()))


@pytest.mark.parametrize("training", [True, False])
def test_written_out_batch_norm_is_pytorchs_with_gradients_and_statistics(training: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = BatchNorm2d(4).double(), nn.BatchNorm2d(4).double()
    for p in ours.parameters():
        p.data = torch.randn(4, generator=generator, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = 3 + 2 * torch.randn(6, 4, 5, 3, generator=generator, dtype=torch.float64)
        seed = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        found = []
        for norm in (ours, theirs):
            norm.train(training)
            leaf = x.clone().requires_grad_()
            output = norm(leaf)
            found.append([output, *torch.autograd.grad(output, [leaf, *norm.parameters()], seed)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert int(ours.num_batches_tracked) == (3 if training else 0)  # type: ignore[arg-type]


def test_written_out_layer_norm_is_pytorchs_with_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = LayerNorm(7).double(), nn.LayerNorm(7).double()
    for p in ours.parameters():
        p.data = torch.randn(7, generator=generator, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x = (3 + 2 * torch.randn(4, 5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    seed = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    found = [[norm(x), *torch.autograd.grad(norm(x), [x, *norm.parameters()], seed)] for norm in (ours, theirs)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_written_out_attention_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(96).double(), nn.MultiheadAttention(96, 3, batch_first=True).double()
    assert ours.heads == 3
    theirs.in_proj_weight, theirs.in_proj_bias = ours.queries_keys_values.weight, ours.queries_keys_values.bias
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 6, 96, dtype=torch.float64)
    normed = ours.norm(x)
    expected = x + theirs(normed, normed, normed, need_weights=False)[0]
    torch.testing.assert_close(ours(x), expected, rtol=1e-10, atol=1e-12)


def third_derivative_error(norm: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest deviation of autograd's third derivative along one direction from the differences of its second."""
    generator = torch.Generator().manual_seed(3)
    x, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))

    def second(point: torch.Tensor, create_graph: bool) -> torch.Tensor:
        y = norm(point)
        slope = (torch.autograd.grad((y**3).sum(), point, create_graph=True)[0] * v).sum()
        curved: torch.Tensor = torch.autograd.grad(slope, point, create_graph=create_graph)[0]
        return curved

    leaf = x.clone().requires_grad_()
    third = torch.autograd.grad((second(leaf, True) * v).sum(), leaf)[0]
    h = 1e-5
    ends = [second((x + sign * h * v).requires_grad_(), False) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * h)
    return float((third - difference).norm() / difference.norm())


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [(BatchNorm2d(2), nn.BatchNorm2d(2), (4, 2, 3, 3)), (LayerNorm(6), nn.LayerNorm(6), (3, 6))],
)
def test_written_out_normalisation_has_right_third_derivatives_where_the_fused_one_has_not(
    ours: nn.Module, theirs: nn.Module, shape: tuple[int, ...]
) -> None:
    assert third_derivative_error(ours.double(), shape) < 1e-7
    assert third_derivative_error(theirs.double(), shape) > 0.01  # when this fails, PyTorch has mended it


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_products_are_the_central_differences_of_the_gradient(kind: str) -> None:
    network = network_of(SMALL[kind])
    objective = MeanLoss(network, *data_for(SMALL[kind]))
    leaves = [p.detach().clone().requires_grad_() for p in network.parameters()]
    v, point, h = direction_for(network), parameter_vector(network), 1e-5
    product = HessianOperator(objective.of_chunk(leaves, slice(0, 5)), leaves).matvec(v)
    difference = (gradient_at(objective, point + h * v) - gradient_at(objective, point - h * v)) / (2 * h)
    assert float((product - difference).norm() / difference.norm()) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_sharpness_gradient_by_third_derivatives_is_that_by_differences(kind: str) -> None:
    network = network_of(SMALL[kind])
    objective = MeanLoss(network, *data_for(SMALL[kind]))
    v, point, h = direction_for(network), parameter_vector(network), 1e-6  # no kink of a max pooling lies within h

    def product_at(vector: torch.Tensor) -> torch.Tensor:
        load_parameters(network, vector)
        leaves = [p.detach().clone().requires_grad_() for p in network.parameters()]
        return HessianOperator(objective.of_chunk(leaves, slice(0, 5)), leaves).matvec(v)

    exact = sharpness_gradient(objective, v)
    difference = (product_at(point + h * v) - product_at(point - h * v)) / (2 * h)
    assert float((exact - difference).norm() / difference.norm()) < 1e-6


architectures = st.one_of(
    st.builds(
        Architecture,
        kind=st.just("mlp"),
        hidden=st.lists(st.integers(1, 12), max_size=4).map(tuple),
        activation=st.sampled_from(["tanh", "gelu"]),
    ),
    st.builds(
        Architecture,
        kind=st.sampled_from(["vgg11", "vgg11_bn", "resnet18"]),
        width=st.floats(1 / 64, 1 / 16),
        stride=st.sampled_from([1, 2]),
        activation=st.sampled_from(["tanh", "gelu"]),
    ),
    st.builds(
        Architecture,
        kind=st.just("vit"),
        width=st.floats(1 / 96, 1 / 12),
        depth=st.integers(1, 4),
        patch=st.sampled_from([4, 8, 16]),
        activation=st.sampled_from(["tanh", "gelu"]),
    ),
    st.builds(
        Architecture,
        kind=st.just("resnet18"),
        width=st.floats(1 / 64, 1 / 16),
        stride=st.just(4),
        activation=st.sampled_from(["tanh", "gelu"]),
    ),
)


@settings(max_examples=15)
@given(architectures, st.integers(0, 2**32 - 1))
def test_every_network_has_right_products_layers_and_weights_of_its_seed(architecture: Architecture, seed: int) -> None:
    network = network_of(architecture, seed)
    inputs, labels = data_for(architecture, count=3, seed=seed)
    assert network(inputs).shape == (3, 10)
    torch.manual_seed(seed + 1)
    assert torch.equal(parameter_vector(network_of(architecture, seed)), parameter_vector(network))
    assert not torch.equal(parameter_vector(network_of(architecture, seed ^ 1)), parameter_vector(network))
    # Layers are stretches of the parameters: each name's tensors follow one another.
    layers = layer_of_parameter(network)
    assert sum(a != b for a, b in itertools.pairwise(layers)) == len(set(layers)) - 1
    objective = MeanLoss(network, inputs, labels)
    leaves = [p.detach().clone().requires_grad_() for p in network.parameters()]
    v, point, h = direction_for(network, seed % 1000), parameter_vector(network), 1e-5
    product = HessianOperator(objective.of_chunk(leaves, slice(0, 3)), leaves).matvec(v)
    difference = (gradient_at(objective, point + h * v) - gradient_at(objective, point - h * v)) / (2 * h)
    # A kink of a max pooling may lie within h; with few examples, batch norm makes the loss steep.
    assert float((product - difference).norm()) < 1e-3 * float(difference.norm()) + 1e-6


@pytest.mark.parametrize(("kind", "layers"), [("mlp", 3), ("vgg11", 9), ("vgg11_bn", 9), ("resnet18", 21), ("vit", 4)])
def test_a_layer_is_a_linear_map_with_its_normalisation(kind: str, layers: int) -> None:
    """ResNet-18: 17 convolutions, 3 shortcuts, the linear map. Transformer: patches, two halves a block, head."""
    network = build(SMALL[kind], SHAPE, 10, seed=0)
    names = layer_of_parameter(network)
    assert len(set(names)) == layers
    owners = {
        name.rpartition(".")[0]: layer for (name, _), layer in zip(network.named_parameters(), names, strict=True)
    }
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert owners[name] == owners[name.replace("norm", "convolution")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_linear_maps_input_gives_the_outputs(kind: str) -> None:
    network, (inputs, _) = network_of(SMALL[kind]), data_for(SMALL[kind])
    last, seen = last_linear(network), []
    handle = last.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    outputs = network(inputs)
    handle.remove()
    torch.testing.assert_close(outputs, F.linear(seen[0], last.weight, last.bias))


def test_sizes_are_those_of_the_literature() -> None:
    """Counts of parameters at width 1: VGG-11's convolutions as in torchvision, ResNet-18 as in its CIFAR forms."""
    count = {k: parameter_vector(build(Architecture(k), SHAPE, 10, 0)).numel() for k in ("vgg11", "vgg11_bn", "vit")}
    assert count["vgg11"] == 9_220_480 + 512 * 10 + 10
    assert count["vgg11_bn"] == count["vgg11"] + 2752
    assert count["vit"] == 6 * (2 * 768 + 384 * (3 * 384) + 3 * 384 + 384 * 384 + 384 + 4 * 384 * 384 + 3 * 384) + (
        48 * 384 + 384 + 64 * 384 + 768 + 3850
    )


def test_the_signal_keeps_its_size_through_convolutions_without_batch_norm() -> None:
    """Over the outgoing connections it would fall to (27/576)(1/2)³, 0.006 in mean square; max pooling adds to it."""
    network, squares = build(Architecture("vgg11"), SHAPE, 10, seed=0), []
    signal = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    for module in network:
        signal = module(signal).detach()
        if isinstance(module, Convolution):
            squares.append(float(signal.square().mean()))
    assert len(squares) == 8
    assert min(squares) > 1
    assert max(squares) < 20


@pytest.mark.parametrize(("kind", "connections"), [("vgg11", 3 * 9), ("vgg11_bn", 64 * 9)])
def test_initial_weights_are_hes(kind: str, connections: int) -> None:
    first = next(m for m in build(Architecture(kind), SHAPE, 10, seed=0).modules() if isinstance(m, Convolution))
    assert float(first.convolution.weight.detach().std()) == pytest.approx((2 / connections) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["vgg11_bn", "resnet18"])
def test_in_evaluation_an_image_is_judged_by_the_running_statistics_alone(kind: str) -> None:
    network, (inputs, _) = network_of(SMALL[kind]), data_for(SMALL[kind])
    alone = functools.partial(network, inputs[:1])
    assert not torch.allclose(alone(), network(inputs)[:1])
    network.eval()
    before = [buffer.clone() for buffer in network.buffers()]
    torch.testing.assert_close(alone(), network(inputs)[:1])
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


@pytest.mark.parametrize(
    "architecture",
    [
        *(Architecture(kind, width=1 / 16, activation="tanh", stride=2) for kind in ("vgg11", "vgg11_bn", "resnet18")),
        Architecture("resnet18", width=1 / 16, activation="tanh", stride=4),
        Architecture("vit", width=1 / 24, depth=1, activation="gelu", patch=16),
    ],
)
def test_every_place_of_the_image_reaches_the_output(architecture: Architecture) -> None:
    inputs, _ = data_for(architecture, count=40)
    inputs.requires_grad_()
    (network_of(architecture)(inputs) * torch.randn(40, 10, dtype=inputs.dtype)).sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad.abs().amax((0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "vgg12"}, "network is vgg12"),
        ({"kind": "vit", "depth": 0}, "depth is 0"),
        ({"kind": "vgg11", "depth": 3}, "depth is 3"),
        ({"kind": "vgg11", "width": 0.0}, "width is 0.0"),
        ({"kind": "mlp", "width": 2.0}, "width is 2.0"),
        ({"kind": "vgg11", "stride": 4}, "stride is 4: give one of 1, 2 for vgg11"),
        ({"kind": "resnet18", "stride": 3}, "stride is 3: give one of 1, 2, 4 for resnet18"),
        ({"kind": "mlp", "stride": 2}, "stride is 2: give one of 1 for mlp"),
        ({"kind": "vit", "patch": 0}, "patch is 0"),
        ({"kind": "resnet18", "patch": 8}, "patch is 8"),
        ({"activation": "sine"}, "activation is sine"),
    ],
)
def test_bad_architectures_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Architecture(**values)  # type: ignore[arg-type]


def test_images_that_do_not_fit_are_refused() -> None:
    for kind in ("vgg11", "vit"):
        with pytest.raises(InputError, match="images are 30 × 30"):
            build(Architecture(kind), (3, 30, 30), 10, seed=0)
    with pytest.raises(InputError, match="images are 32 × 32: a vision transformer of patches of 5 "):
        build(Architecture("vit", patch=5), SHAPE, 10, seed=0)
    with pytest.raises(InputError, match="vector of parameters has shape"):
        load_parameters(build(SMALL["mlp"], SHAPE, 10, 0), torch.zeros(3))
    with pytest.raises(InputError, match="no linear layer"):
        last_linear(nn.ReLU())
