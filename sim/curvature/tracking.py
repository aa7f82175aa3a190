"""Top eigenpairs of an operator that moves, as a network's Hessian does in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sim.curvature.eigensolver import Criterion, Eigenpairs, top_eigenpairs
from sim.curvature.operators import LinearOperator
from sim.curvature.recycling import Recycled
from sim.curvature.scouting import MAX_PRODUCTS, Scout


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
        guard_every: refreshes between those that multiply the vector after the k too; 0 for none.
        verify_every: refreshes between verifications; 0 for none but the first, which starts from random vectors.
        max_products: products after which a refresh gives up, unconverged.
        criterion: "value" or "residual"; see `top_eigenpairs`.
        keep: number of directions kept from one refresh to the next, vectors of the operator's size; at least k.
        recycled: those directions, for a checkpoint; None before the first refresh.
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
    refreshes: int = 0
    products: int = 0
    scouted: int = 0

    def refresh(self, operator: LinearOperator, scouts: Sequence[Scout] = ()) -> Eigenpairs:
        """Top eigenpairs of the operator as it is now.

        Args:
            operator: the operator.
            scouts: cheap operators near it, coarsest first. The first takes over the guard and the verification, so
                `verified` is then to be read up to what its products are off by.
        """
        due = bool(self.verify_every) and self.refreshes % self.verify_every == 0
        guards = int(bool(self.guard_every) and self.refreshes % self.guard_every == 0)
        recycled, verify, verified = self.recycled, True if due else None, False
        for stage in (*scouts, None):
            pairs = top_eigenpairs(
                operator if stage is None else stage.operator,
                generator=self.generator,
                k=self.k,
                recycled=recycled,
                guards=guards,
                keep=max(self.keep, self.k),
                tolerance=self.tolerance if stage is None else stage.tolerance(self.tolerance, self.criterion),
                criterion=self.criterion,
                max_products=self.max_products if stage is None else min(self.max_products, MAX_PRODUCTS),
                verify=verify,
            )
            # Products that were not finite leave nothing to go on from; the next search then starts anew.
            recycled, verified = pairs.recycled, pairs.verified or (verified and recycled is not None)
            if stage is not None:
                self.scouted += pairs.products
                # The start of the next stage is near its end, which is no reason for suspicion.
                guards, verify = 0, None if recycled is None else False
        self.recycled = recycled
        self.refreshes += 1
        self.products += pairs.products
        return replace(pairs, verified=verified)

    def state_dict(self) -> dict[str, Any]:
        """All that the next refresh depends on, but the generator."""
        kept = None if self.recycled is None else {"vectors": self.recycled.vectors, "values": self.recycled.values}
        return {"recycled": kept, "refreshes": self.refreshes, "products": self.products, "scouted": self.scouted}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes back to that state, with the vectors on the device."""
        kept = state["recycled"]
        self.recycled = None if kept is None else Recycled(kept["vectors"].to(device), kept["values"].cpu())
        self.refreshes, self.products, self.scouted = state["refreshes"], state["products"], state.get("scouted", 0)
