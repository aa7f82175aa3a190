"""Top eigenpairs of an operator that moves, as a network's Hessian does in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sim.curvature.eigensolver import Criterion, Eigenpairs, top_eigenpairs
from sim.curvature.layerwise import Blocks, top_block_eigenpairs
from sim.curvature.operators import LinearOperator
from sim.curvature.recycling import Recycled
from sim.curvature.scouting import MAX_PRODUCTS, Scout, Start

_SETTLED = 0.1
"""A restriction's products are so cheap that the next pair, which may overtake, is followed too, to this residual."""


@dataclass
class EigenpairTracker:
    """Refreshes the top eigenpairs from the last ones, and verifies now and then that they are on top.

    A refresh multiplies the k vectors, then directions chosen with the help of all that is kept of earlier refreshes,
    until the criterion is met. What those directions do not touch is seen more seldom: every `guard_every`-th refresh
    multiplies the next vector too, whose eigenvalue may overtake, and every `verify_every`-th searches random
    directions, about ten products more. So an eigenvalue that overtakes out of sight stays unseen for less than that
    many refreshes. A
    refresh that did not converge is returned as such, and the next starts from it. At the edge of stability iterates
    have period two, so refresh them an even number of steps apart: the vectors of the other side of the valley are a
    poor start.

    Attributes:
        generator: CPU generator of random vectors.
        k: number of eigenpairs.
        tolerance: bound on what the criterion says. By value at 1e-3, and by residual at 1e-2, the sharpness of a
            network at the edge of stability has been within 0.1 % (benchmarks/curvature.py).
        guard_every: refreshes between those that multiply the vector after the k too; 0 for none. A scout that is a
            restriction always does, and follows that pair.
        verify_every: refreshes between verifications; 0 for none but the first.
        max_products: products after which a refresh gives up, unconverged.
        criterion: "value" or "residual"; see `top_eigenpairs`.
        keep: number of directions kept from one refresh to the next, vectors of the operator's size; at least k.
        recycled: those directions, for a checkpoint; None before the first refresh.
        restricted: those of a scout with a space of its own, which then keeps most of them.
        refreshes: number of refreshes so far, for a checkpoint.
        products: products of all refreshes together, without those of scouts.
        scouted: products of all scouts together.
    """

    generator: torch.Generator
    k: int = 1
    tolerance: float = 1e-3
    verify_every: int = 25
    max_products: int = 200
    criterion: Criterion = "value"
    keep: int = 12
    guard_every: int = 5
    recycled: Recycled | None = None
    restricted: Recycled | None = None
    refreshes: int = 0
    products: int = 0
    scouted: int = 0

    def refresh(self, operator: LinearOperator, scout: Scout | None = None) -> Eigenpairs:
        """Top eigenpairs of the operator as it is now.

        Args:
            operator: the operator.
            scout: a cheap operator near it, which takes over guard and verification: `verified` is then to be read up
                to what its products are off by, or to what a restriction leaves out, at which a `Lookout` looks.
        """
        verify = True if self.verify_every and self.refreshes % self.verify_every == 0 else None
        start = Start(self.recycled, guards=int(bool(self.guard_every) and self.refreshes % self.guard_every == 0))
        options: dict[str, Any] = {"generator": self.generator, "criterion": self.criterion}
        options |= {"k": self.k, "keep": max(self.keep, self.k)}
        seen = False
        if scout is not None:
            found = top_eigenpairs(
                scout.operator,
                recycled=self.recycled if scout.restricted is None else self.restricted,
                guards=start.guards if scout.restricted is None else 1,
                settle=None if scout.restricted is None else _SETTLED,
                tolerance=scout.tolerance(self.tolerance, self.criterion),
                max_products=min(self.max_products, MAX_PRODUCTS),
                verify=verify,
                **options,
            )
            self.scouted += found.products
            if scout.restricted is not None:
                self.restricted = found.recycled
            # Products that were not finite leave nothing to go on from; the exact search then starts anew.
            start, seen = scout.start(found), found.verified
            if start.recycled is not None:
                verify = False  # near its end the start is no reason for suspicion
        pairs = top_eigenpairs(
            operator,
            tolerance=self.tolerance,
            max_products=self.max_products,
            verify=verify,
            **options,
            **vars(start),
        )
        self.recycled = pairs.recycled
        self.refreshes += 1
        self.products += pairs.products
        return replace(pairs, verified=pairs.verified or (seen and start.recycled is not None))

    def start_from(self, other: EigenpairTracker) -> None:
        """Lets the next refresh start from what the other tracker's last one has found, at a point that is nearer."""
        self.recycled, self.restricted = other.recycled, other.restricted

    def state_dict(self) -> dict[str, Any]:
        """All that the next refresh depends on, but the generator."""
        pools = {"recycled": self.recycled, "restricted": self.restricted}
        kept = {name: None if pool is None else pool.state_dict() for name, pool in pools.items()}
        return {**kept, "refreshes": self.refreshes, "products": self.products, "scouted": self.scouted}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes back to that state, with the vectors on the device."""
        self.recycled, self.restricted = (
            None if state.get(name) is None else Recycled.of_state(state[name], device)
            for name in ("recycled", "restricted")
        )
        self.refreshes, self.products, self.scouted = state["refreshes"], state["products"], state.get("scouted", 0)


@dataclass
class BlockTracker:
    """Refreshes the top eigenpair of every layer's block from what the last refresh kept, by a scout first if any.

    Every refresh multiplies the vector after the top one too, the scout where there is one.

    Attributes:
        generator: CPU generator of random vectors.
        layers: name of each parameter tensor's layer.
        tolerance: bound on what the criterion says.
        criterion: as in `top_eigenpairs`.
        keep: number of directions kept of each layer.
        verify_every: refreshes between verifications; 0 for none but the first.
        recycled: those directions, layer by layer; empty before the first refresh.
        restricted: those of a scout with a space of its own.
        refreshes: number of refreshes so far, for a checkpoint.
    """

    generator: torch.Generator
    layers: Sequence[str]
    tolerance: float = 1e-3
    criterion: Criterion = "value"
    keep: int = 6
    verify_every: int = 10
    recycled: dict[str, Recycled] = field(default_factory=dict)
    restricted: dict[str, Recycled] = field(default_factory=dict)
    refreshes: int = 0

    def refresh(self, hessian: Blocks, scout: Scout | None = None) -> dict[str, Eigenpairs]:
        """Each layer's top eigenpair, in the order in which the layers appear.

        Args:
            hessian: the operator over all parameters.
            scout: a cheap operator near it that gives its blocks.
        """
        options: dict[str, Any] = {"generator": self.generator, "criterion": self.criterion, "keep": self.keep}
        options["verify"] = True if self.verify_every and self.refreshes % self.verify_every == 0 else None
        self.refreshes += 1
        starts = {name: Start(kept, guards=1) for name, kept in self.recycled.items()}
        seen = dict.fromkeys(self.layers, False)
        if scout is not None:
            if scout.restricted is not None:
                starts = {name: Start(kept, guards=1) for name, kept in self.restricted.items()}
            found = top_block_eigenpairs(
                scout.operator,  # type: ignore[arg-type]
                self.layers,
                own=_options(starts),
                tolerance=scout.tolerance(self.tolerance, self.criterion),
                max_products=MAX_PRODUCTS,
                **options,
            )
            if scout.restricted is not None:
                self.restricted = _kept(found)
            of_layer = {name: [i for i, layer in enumerate(self.layers) if layer == name] for name in found}
            starts = scout.starts(found, of_layer)
            seen = {name: pairs.verified and pairs.recycled is not None for name, pairs in found.items()}
            if all(start.recycled is not None for start in starts.values()):
                options["verify"] = False  # near its end the start is no reason for suspicion
        pairs = top_block_eigenpairs(hessian, self.layers, own=_options(starts), tolerance=self.tolerance, **options)
        self.recycled = _kept(pairs)
        return {name: replace(p, verified=p.verified or seen[name]) for name, p in pairs.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the next refresh depends on, but the generator."""
        kept = {"recycled": self.recycled, "restricted": self.restricted}
        of = {name: {layer: one.state_dict() for layer, one in held.items()} for name, held in kept.items()}
        return {**of, "refreshes": self.refreshes}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes back to that state, with the vectors on the device."""
        self.recycled, self.restricted = (
            {layer: Recycled.of_state(held, device) for layer, held in state.get(name, {}).items()}
            for name in ("recycled", "restricted")
        )
        self.refreshes = state.get("refreshes", 0)  # checkpoints of earlier versions have none


def _options(starts: Mapping[str, Start]) -> dict[str, dict[str, Any]]:
    return {name: vars(start) for name, start in starts.items()}


def _kept(found: Mapping[str, Eigenpairs]) -> dict[str, Recycled]:
    return {name: pairs.recycled for name, pairs in found.items() if pairs.recycled is not None}
