"""T4: while the opposing pull αcs² exceeds the drive D, c and the first layer's curvature αc² fall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.descent import gradient_descent
from theory.initial_sharpness import target_limits
from theory.model import Model, State, drive, gradient, power_law_covariance, random_start
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import Array
from theory.symbolic_network import symbolic_network


def derivation() -> Sequence[Step]:
    """The equation of c under the flow and under descent, with two features and two pairs."""
    net = symbolic_network(2, pairs=2)
    lr = sp.Symbol("eta", positive=True)
    pull = net.c * sum(a * s**2 for a, s in zip(net.alpha, net.s, strict=True))
    velocity = -net.gradient[0]
    curvature = net.alpha[0] * net.c**2
    length, beta, alpha, k = sp.symbols("ell beta alpha k", positive=True)
    one = symbolic_network(1, covariance=(sp.S.One,))
    start = {one.c: 1, one.b[0]: length, one.s[0]: sp.sqrt(k) * length, one.beta[0]: beta, one.alpha[0]: alpha}
    worst = (-one.gradient[0]).subs(start)
    return (
        Step("Flow: c' = D − cΣα_j s_j², the drive less the opposing pull.", velocity, net.drive - pull),
        Step(
            "The first layer's curvature follows: (α_j c²)' = 2α_j c c', of the sign of D − cΣα_j s_j² for c > 0.",
            sum(sp.diff(curvature, x) * -g for x, g in zip(net.weights, net.gradient, strict=True)),
            2 * net.alpha[0] * net.c * (net.drive - pull),
        ),
        Step(
            "Descent: α_j(c_{t+1}² − c_t²) = α_j η(D − pull)(2c_t + η(D − pull)), so the curvature falls exactly if "
            "0 < pull − D < 2c_t/η; beyond that c overshoots through 0.",
            net.alpha[0] * (net.c - lr * net.gradient[0]) ** 2 - curvature,
            net.alpha[0] * lr * (net.drive - pull) * (2 * net.c + lr * (net.drive - pull)),
        ),
        Step(
            "At a start with c = 1, ‖b‖ = ℓ, s² = kℓ², Σ = I, D is largest for b along β, where D − αs² is "
            "ℓ(‖β‖ − (1 + αk)ℓ): below 0 exactly if ‖β‖ < (1 + αk)ℓ, with ℓ = 1/√(1 + k) when balanced.",
            worst,
            length * (beta - (1 + alpha * k) * length),
        ),
    )


def check() -> Sequence[Check]:
    """The sign of c's change along runs, then the limit on ‖β‖ from both sides."""
    wrong, broken = [], []
    for seed in range(6):
        model = Model(np.array([20.0, 5.0]), 3.0 * np.eye(8)[seed], power_law_covariance(8, 1.0))
        run = gradient_descent(model, random_start(8, 3.0, seed, pairs=2), 0.02, 300).state
        pull = run.c * (model.alpha * run.s**2).sum(-1)
        fell = np.diff(run.c**2) < 0
        wrong.append(np.mean(fell != (pull > drive(model, run))[:-1]))
        broken.append(np.mean(fell != (pull > drive(model, run) + run.c)[:-1]))
    return (
        Check(
            "descent: share of 1,800 steps where αc² falls and αcs² > D disagree",
            float(np.mean(wrong)),
            0.0,
            float(np.mean(broken)),
            "D + c for D",
        ),
        Check(
            "limit on ‖β‖ at the start, from both sides to 1e-6: share of wrong answers",
            _wrong_at_limit(1.0),
            0.0,
            _wrong_at_limit(1.1),
            "limit a tenth larger",
        ),
    )


def _wrong_at_limit(factor: float) -> float:
    """Just below the limit c falls for 50 directions of b and along β; just above it rises along β."""
    rng = np.random.default_rng(0)
    wrong = []
    for alpha in (0.5, 5.0, 20.0):
        for k in (0.1, 3.0, 20.0):
            limit = factor * target_limits(alpha, k).decrease
            b = rng.normal(size=(51, 3))
            b[0] = np.eye(3)[0]
            b /= np.linalg.norm(b, axis=1, keepdims=True) * np.sqrt(1 + k)
            start = State(np.ones(51), b, np.full((51, 1), np.sqrt(k / (1 + k))))
            below, above = (_velocity(alpha, limit * (1 + side * 1e-6), start) for side in (-1, 1))
            wrong += [bool((below >= 0).any()), bool(above[0] <= 0)]
    return float(np.mean(wrong))


def _velocity(alpha: float, beta: float, start: State) -> Array:
    """The flow's c' for a target along the first axis."""
    return -gradient(Model(np.array([alpha]), beta * np.eye(3)[0], np.ones(3)), start).c


def applies(model: Model, state: State, lr: float) -> bool:
    """C > 0, and the opposing pull exceeds the drive without throwing c through 0 in one step."""
    excess = state.c * (model.alpha * state.s**2).sum(-1) - drive(model, state)
    return bool(((state.c > 0) & (excess > 0) & (lr * excess < 2 * state.c)).all())


STATEMENT = Statement(
    name="T4",
    title="initial decrease",
    hypotheses="c > 0; any Σ, any number of pairs. For descent also η(cΣα_j s_j² − D) < 2c.",
    claim=(
        "c and every first-layer curvature α_j c² fall exactly while cΣα_j s_j² > D = bᵀΣ(β − cb), under the flow "
        "and in every step of descent. At a start with c = 1, ‖b‖² = 1/(1 + k), s² = k/(1 + k) and Σ = I they fall "
        "for every direction of b exactly if ‖β‖ < (1 + αk)/√(1 + k), and for b orthogonal to β always."
    ),
    status=Status.PROVED,
    source="the setting; derived here",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "The whole sharpness need not fall with αc²: where the last layer's entry ‖b‖² + αs² dominates, it follows "
        "that. How long the fall lasts is T5's turning time."
    ),
)
