"""A small vision transformer (Dosovitskiy et al. 2021) with written-out layer norm and attention.

Pre-norm blocks, learned positions, mean over the tokens in place of a class token. PyTorch's fused attention has no
double backward (pytorch 116350): softmax(Q Kᵀ / √d) V is written out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sim.networks.layers import Layer
from sim.networks.normalisation import LayerNorm

EMBEDDING = 384
"""Features of a token at width 1."""
HEAD = 32
"""Features of a head that the number of heads aims at."""
DEPTH = 6
"""Number of blocks when not given."""
EXPANSION = 2
"""Hidden units of a block's perceptron, in features of a token."""


class Patches(Layer):
    """Patches of an image as tokens: a linear map of each, and a learned vector for each position."""

    def __init__(self, channels: int, height: int, width: int, patch: int, features: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, features, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn((height // patch) * (width // patch), features))

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, tokens, features)."""
        tokens: Tensor = self.projection(images).flatten(2).transpose(1, 2)
        return tokens + self.positions


class Attention(Layer):
    """x + A(norm x): self-attention over the tokens."""

    def __init__(self, features: int) -> None:
        super().__init__()
        # The most heads of at least `HEAD` features that divide the features.
        self.heads = max(h for h in range(1, max(1, features // HEAD) + 1) if features % h == 0)
        self.norm = LayerNorm(features)
        self.queries_keys_values = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, features) → the same."""
        n, t, d = tokens.shape
        parts = self.queries_keys_values(self.norm(tokens)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (n, heads, tokens, d / heads)
        # softmax(Q Kᵀ / √d) V
        weights = torch.softmax((q * (d // self.heads) ** -0.5) @ k.transpose(-2, -1), dim=-1)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, t, d))
        return tokens + mixed


class Perceptron(Layer):
    """x + W₂ φ(W₁ norm x), token by token."""

    def __init__(self, features: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.norm = LayerNorm(features)
        self.first = nn.Linear(features, EXPANSION * features)
        self.activation = activation()
        self.second = nn.Linear(EXPANSION * features, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, features) → the same."""
        moved: Tensor = self.second(self.activation(self.first(self.norm(tokens))))
        return tokens + moved


class Readout(Layer):
    """Mean of the normalised tokens, and a linear map."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = LayerNorm(features)
        self.linear = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, features) → (n, classes)."""
        outputs: Tensor = self.linear(self.norm(tokens).mean(1))
        return outputs


def vit(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float,
    depth: int | None,
    patch: int,
    activation: type[nn.Module],
) -> nn.Sequential:
    """Vision transformer of 384 · `width` features (a multiple of 8) and `depth` blocks, 6 when not given.

    Its tokens are patches of `patch` × `patch` places, which divide the image.
    """
    features = max(8, 8 * round(EMBEDDING * width / 8))
    modules: list[nn.Module] = [Patches(*image_shape, patch, features)]
    for _ in range(DEPTH if depth is None else depth):
        modules += [Attention(features), Perceptron(features, activation)]
    return nn.Sequential(*modules, Readout(features, classes))
