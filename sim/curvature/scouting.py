"""Searches with cheap products that leave few exact ones to make.

Most products of a search only choose directions. Those may come from a smaller or a coarser operator: the Hessian
restricted to the leading directions of the inputs (`sim.curvature.leading_inputs`), or float32 before float64. What a
scout has found is handed on as recycled vectors, from which the exact search starts; the values, residuals and
estimates of errors that it reports come from exact products alone, as many as its criterion takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sim.curvature.eigensolver import Criterion, Eigenpairs, top_eigenpairs
from sim.curvature.error_bounds import Inside
from sim.curvature.layerwise import Blocks, BlocksT, products_of_blocks
from sim.curvature.leading_inputs import Complement, SplitLoss
from sim.curvature.operators import LinearOperator
from sim.curvature.recycling import Recycled

FLOAT32_NOISE = 2e-5
LEADING_INPUTS_NOISE = 1e-2
_ROUGHLY = 0.1
"""Relative error of the eigenvalue on a restriction's complement."""

_SHARE = 0.5
"""A scout goes to this part of the tolerance: what its products are off by comes on top."""

MAX_PRODUCTS = 60
"""Of a scout; what it has not found by then is left to the exact search."""

_HANDED_ON = 2
"""Pairs beyond those asked for that a restriction hands on: they tell the exact search the gap."""

_SMALL = 0.5
"""A restriction serves while the operator on its complement is below this part of the eigenvalue."""


@dataclass(frozen=True)
class Beyond:
    """What a restriction does not see: the operator's restriction to its complement.

    Attributes:
        value: its largest eigenvalue, roughly.
        vector: (weights of the first layer,) the eigenvector, zero elsewhere.
    """

    value: float
    vector: Tensor


@dataclass(frozen=True)
class Start:
    """What an exact search starts from, as `top_eigenpairs` takes it."""

    recycled: Recycled | None = None
    inside: Inside | None = None
    images: Tensor | None = None
    guards: int = 0


@dataclass(frozen=True)
class Scout:
    """A cheap operator near the one of interest, or its restriction to a subspace.

    Attributes:
        operator: the cheap operator.
        noise: about ‖(H̃ − H) v‖ / |λ| at the top eigenvectors: no residual below that means anything.
        restricted: what a restriction knows besides; None for an operator on the same vectors as that of interest.
    """

    operator: LinearOperator
    noise: float
    restricted: Restricted | None = None

    def tolerance(self, wanted: float, criterion: Criterion) -> float:
        """How far its search goes, for an exact one to the tolerance wanted."""
        return max(_SHARE * wanted, error_of(self.noise, criterion))

    def start(self, found: Eigenpairs) -> Start:
        """Where the exact search starts when this one has found so much; empty where its products were not finite."""
        return self.starts({"": found}, {"": None})[""]

    def starts(self, found: Mapping[str, Eigenpairs], indices: Mapping[str, Sequence[int] | None]) -> dict[str, Start]:
        """Where the exact searches of several blocks start.

        Args:
            found: each block's eigenpairs, with what they keep for the next search.
            indices: positions of each block's parameters; None for all.
        """
        if self.restricted is None:
            return {name: Start(pairs.recycled) for name, pairs in found.items()}
        starts = {name: self.restricted.start(pairs, indices[name]) for name, pairs in found.items()}
        sure = {name: found[name].vectors[: len(found[name].values)] for name, one in starts.items() if one.inside}
        images = self.restricted.images(sure, indices)
        return {name: replace(one, images=images.get(name)) for name, one in starts.items()}


@dataclass(frozen=True)
class Restricted:
    """A Hessian's restriction to the leading inputs, as a scout.

    Attributes:
        split: the loss that it comes from.
        across: the operator H Pᵀ that takes the restriction's vectors to their exact images.
        beyond: what the restriction leaves out.
    """

    split: SplitLoss
    across: Blocks
    beyond: Beyond

    def start(self, found: Eigenpairs, indices: Sequence[int] | None) -> Start:
        """Where the exact search of a block starts, without images."""
        kept, k = found.recycled, len(found.values)
        if kept is None:
            return Start()
        others = slice(k, k + _HANDED_ON)
        values = torch.cat([found.values, kept.values[others]])
        vectors = self.split.lift(torch.cat([found.vectors[:k], kept.vectors[others]]), indices)
        # Of a block without the first weights nothing is left out.
        outside = self.beyond.value if indices is None or 0 in indices else -torch.inf
        if outside < _SMALL * float(found.values[-1]):
            return Start(Recycled(vectors, values), Inside(found.errors, found.residuals * found.values.abs(), outside))
        # What is left out may be on top: its vector starts with the others.
        padding = vectors.new_zeros(vectors.shape[1] - len(self.beyond.vector))
        vectors = torch.cat([vectors, torch.cat([self.beyond.vector, padding])[None]])
        values, order = torch.cat([values, values.new_tensor([self.beyond.value])]).sort(descending=True)
        return Start(Recycled(vectors[order.to(vectors.device)], values), guards=len(values) - k)

    def images(self, rows: Mapping[str, Tensor], indices: Mapping[str, Sequence[int] | None]) -> dict[str, Tensor]:
        """Exact images of several blocks' rows, in one pass over the data."""
        blocks = {
            name: self.across if (at := indices[name]) is None else self.across.with_respect_to(at) for name in rows
        }
        images = products_of_blocks(self.across, [(blocks[name], rows[name]) for name in rows])
        return dict(zip(rows, images, strict=True))


@dataclass
class Lookout:
    """Looks now and then at what a restriction leaves out.

    Attributes:
        generator: CPU generator of random vectors.
        every: calls between searches, each from a random vector.
        calls: number of calls so far, for a checkpoint.
        value: as last found, for a checkpoint.
        vector: the same.
        products: products of all searches together.
    """

    generator: torch.Generator
    every: int = 25
    calls: int = 0
    value: float = 0.0
    vector: Tensor | None = None
    products: int = 0

    def look(self, hessian: Blocks, split: SplitLoss) -> Beyond:
        """What is left out of the Hessian, searched for now or the last time."""
        if self.vector is None or self.calls % self.every == 0:
            found = top_eigenpairs(
                Complement(hessian.with_respect_to([0]), split.directions),
                generator=self.generator,
                tolerance=_ROUGHLY,
                criterion="value",
                max_products=MAX_PRODUCTS,
            )
            self.value, self.vector = float(found.values[0]), found.vectors[0]
            self.products += found.products
        self.calls += 1
        return Beyond(self.value, self.vector)

    def state_dict(self) -> dict[str, Any]:
        """All that the next look depends on, but the generator."""
        return {"calls": self.calls, "value": self.value, "vector": self.vector, "products": self.products}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes back to that state, with the vector on the device."""
        self.calls, self.value, self.products = state["calls"], state["value"], state["products"]
        self.vector = None if state["vector"] is None else state["vector"].to(device)


def scouted(joint: BlocksT, split: SplitLoss, lookout: Lookout) -> tuple[BlocksT, Scout]:
    """The Hessian of a loss and its restriction to the leading inputs as a scout, on one graph.

    Args:
        joint: the Hessian along (C, W, rest) of the split loss.
        split: that loss.
        lookout: what looks at what is left out.
    """
    hessian, across = joint.with_respect_to(split.whole), joint.between(split.inside, split.whole)
    restricted = Restricted(split, across, lookout.look(hessian, split))
    return hessian, Scout(joint.with_respect_to(split.inside), LEADING_INPUTS_NOISE, restricted)


def error_of(residual: float, criterion: Criterion) -> float:
    """What a criterion says of a relative residual: a value's error is about its square, over a relative gap ≤ 1."""
    return residual if criterion == "residual" else residual**2
