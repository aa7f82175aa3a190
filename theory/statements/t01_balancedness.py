"""T1: Q = c² − ‖b‖² − ‖s‖² is constant under the flow; descent changes it by η² times a difference of squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.descent import gradient_descent
from theory.flow import gradient_flow
from theory.model import Model, State, balancedness, gradient, power_law_covariance, random_start
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import c
from theory.symbolic_network import symbolic_network


def derivation() -> Sequence[Step]:
    """The flow and one step of descent, with two features and two pairs."""
    net = symbolic_network(2, pairs=2)
    slope, q = net.gradient, net.balancedness
    lr = sp.Symbol("eta", positive=True)
    moved = {x: x - lr * g for x, g in zip(net.weights, slope, strict=True)}
    after = q.subs(moved, simultaneous=True)
    squares = slope[0] ** 2 - sum(g**2 for g in slope[1:])
    residuals = [v * (t - c * x) for x, v, t in zip(net.b, net.covariance, net.beta, strict=True)]
    pull = c * sum(a * x**2 for x, a in zip(net.s, net.alpha, strict=True))
    last_layer = (net.drive - pull) ** 2
    ordinary = c**2 * sum(r**2 for r in residuals)
    opposing = c**4 * sum(a**2 * x**2 for x, a in zip(net.s, net.alpha, strict=True))
    return (
        Step(
            "Flow θ' = −∇L: a coordinate's loss depends on cw alone, so c∂_c ℓ = w∂_w ℓ, and "
            "Q' = −2c∂_c L + 2Σ w∂_w L = 0.",
            sum(sp.diff(q, x) * -g for x, g in zip(net.weights, slope, strict=True)),
            sp.Integer(0),
        ),
        Step(
            "One step of descent: the terms of first order in η cancel as under the flow, and what is left is exactly "
            "η²[(∂_c L)² − ‖∂_b L‖² − ‖∂_s L‖²].",
            after - q,
            lr**2 * squares,
        ),
        Step(
            "In the state's own terms the bracket is (D − cΣα_j s_j²)² − c²‖Σr‖² − c⁴Σα_j²s_j².",
            squares,
            last_layer - ordinary - opposing,
        ),
    )


def check() -> Sequence[Check]:
    """Step by step, along the flow, and as orders of convergence."""
    model = Model(np.array([6.0, 2.0]), np.array([1.5, -1.0, 0.5]), power_law_covariance(3, 1.0))
    start, lr = random_start(3, 3.0, seed=0, pairs=2), 0.02
    run = gradient_descent(model, start, lr, 200).state
    slope, q = gradient(model, run), balancedness(run)
    squares = [slope.c**2, (slope.b**2).sum(-1), (slope.s**2).sum(-1)]
    scale = np.abs(q).max() + (run.c**2).max()
    change = np.diff(q)
    flow = gradient_flow(model, start, np.linspace(0, 4.0, 50)).state
    orders = _orders(model, start)
    return (
        Check(
            "descent: largest error of η²[(∂_c L)² − ‖∂_b L‖² − ‖∂_s L‖²], relative to c²",
            float(np.abs(change - lr**2 * (squares[0] - squares[1] - squares[2])[:-1]).max() / scale),
            1e-14,
            float(np.abs(change - lr**2 * (squares[0] - squares[1] + squares[2])[:-1]).max() / scale),
            "sign of ‖∂_s L‖²",
        ),
        Check(
            "flow: largest change of Q up to time 4",
            float(np.ptp(balancedness(flow))),
            1e-10,
            float(np.ptp(flow.c**2 - (flow.b**2).sum(-1))),
            "Q without s",
        ),
        Check(
            "order in η at which Q drifts over unit time: distance of the slope from 1",
            abs(orders["drift"] - 1),
            0.05,
            abs(orders["drift in one step"] - 1),
            "over one step instead, whose order is 2",
        ),
        Check(
            "order in η at which descent tends to the flow at time 1: distance of the slope from 1",
            abs(orders["distance"] - 1),
            0.05,
            abs(orders["distance in one step"] - 1),
            "after one step instead, whose order is 2",
        ),
    )


def _orders(model: Model, start: State) -> dict[str, float]:
    """Slopes of log error against log η, η = 1/200 … 1/1600."""
    counts = np.array([200, 400, 800, 1600])
    rows = []
    for steps in counts:
        run = gradient_descent(model, start, 1 / steps, int(steps)).state.vector
        exact = gradient_flow(model, start, [1 / steps, 1.0]).state.vector
        q = balancedness(State.from_vector(run, model.beta.size))
        rows.append([abs(q[-1] - q[0]), abs(q[1] - q[0]), *np.linalg.norm(run[[-1, 1]] - exact[[1, 0]], axis=1)])
    slopes = np.polyfit(np.log(1 / counts), np.log(rows), 1)[0]
    return dict(
        zip(("drift", "drift in one step", "distance", "distance in one step"), map(float, slopes), strict=True)
    )


def applies(model: Model, state: State, lr: float) -> bool:
    """Always: the statement needs no hypothesis."""
    return True


STATEMENT = Statement(
    name="T1",
    title="balancedness",
    hypotheses="None: any Σ, any number of opposing pairs, any state and step size.",
    claim=(
        "Gradient flow conserves Q = c² − ‖b‖² − ‖s‖². One step of gradient descent changes it by exactly "
        "η²[(∂_c L)² − ‖∂_b L‖² − ‖∂_s L‖²], so a unit of time changes it by O(η)."
    ),
    status=Status.PROVED,
    source="standard for linear networks (Du, Hu & Lee 2018, arXiv 1806.00900); derived here for this model",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "Idle opposing directions count too: in the rank-one case their weights are constant, in the isotropic case "
        "they shrink in proportion to s; either way the statement holds with b_o in place of s. The bracket has no "
        "fixed sign: with s² ≤ c² and 0 ≤ D ≤ αcs², as at a balanced start, it is at most 0 and descent lowers Q; "
        "once s has died it is D² − c²‖Σr‖², positive where b is aligned with Σr and longer than c."
    ),
)
