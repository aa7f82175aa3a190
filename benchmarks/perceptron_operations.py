"""Floating-point operations of a step of descent of a multilayer perceptron, as autograd takes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def step_operations(sizes: Sequence[int], examples: int) -> int:
    """Of the products: outputs, weights' gradients, and inputs' gradients except the first layer's."""
    layers = [2 * examples * a * b for a, b in itertools.pairwise(sizes)]
    return 3 * sum(layers) - layers[0]
