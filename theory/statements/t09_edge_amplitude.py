"""T9: at the edge of stability c² stays at 2/(ηα) and s² = D/(αc), corrected by how fast the drive's rate changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from theory.descent import gradient_descent
from theory.edge import edge_units, settled, slow_state
from theory.model import Model, State, drive, power_law_covariance
from theory.statements.base import Check, Statement, Status, Step
from theory.symbolic import COORDINATE_LOSS, Array, c, curvature, target, w

_ORDINARY = 3  # features written out; the sums over them have no cross terms, so any number goes the same way

alpha, lr = sp.symbols("alpha eta", positive=True)
s = sp.Symbol("s", real=True)
_b = sp.symbols(f"b1:{_ORDINARY + 1}", real=True)
_beta = sp.symbols(f"beta1:{_ORDINARY + 1}", real=True)
_sigma = sp.symbols(f"sigma1:{_ORDINARY + 1}", positive=True)


def _loss() -> sp.Expr:
    ordinary = [
        COORDINATE_LOSS.subs({w: b, curvature: v, target: t}) for b, v, t in zip(_b, _sigma, _beta, strict=True)
    ]
    return sum(ordinary) + COORDINATE_LOSS.subs({w: s, curvature: alpha, target: 0})


def derivation() -> Sequence[Step]:
    """The two-step rest point, the central flow's amplitude, an exact moving solution and the first correction."""
    return (*_rest_point(), *_central_flow(), *_slow_motion())


def _rest_point() -> Sequence[Step]:
    force = sp.Symbol("D", positive=True)
    loss = _loss()
    drive_there = sum(b * v * (t - c * b) for b, v, t in zip(_b, _sigma, _beta, strict=True))
    threshold = sp.sqrt(2 / (lr * alpha))
    amplitude = sp.sqrt(force / (alpha * threshold))
    c_slope = sp.diff(loss, c) + drive_there - force  # the drive as one symbol
    s_slope = sp.diff(loss, s)
    at_rest = {c: threshold, s: amplitude}
    return (
        Step(
            "The force on c is ∂_c L = −D + αcs² with D = bᵀΣ(β − cb): shown for three ordinary features.",
            sp.diff(loss, c),
            -drive_there + alpha * c * s**2,
        ),
        Step(
            "At ηαc² = 2 and s² = D/(αc) a step of descent turns s into −s …",
            (s - lr * s_slope).subs(at_rest),
            -amplitude,
        ),
        Step(
            "… and leaves c where it is: with D held, a state of period two.",
            (c - lr * c_slope).subs(at_rest),
            threshold,
        ),
    )


def _central_flow() -> Sequence[Step]:
    loss, weights = _loss(), (c, *_b, s)
    averaged = {s: 0}
    sharpness = sp.diff(loss, s, 2)
    slope = [sp.diff(loss, weight) for weight in weights]
    steeper = [sp.diff(sharpness, weight) for weight in weights]
    norm = sum(x**2 for x in steeper)
    drive_there = sum(b * v * (t - c * b) for b, v, t in zip(_b, _sigma, _beta, strict=True))
    return (
        Step(
            "The Hessian couples s to the other weights by ∂²L/∂s∂c = 2αcs alone (squares summed): nothing at the time "
            "average of the oscillation, s = 0, …",
            sum(sp.diff(loss, s, weight) ** 2 for weight in weights[:-1]),
            (2 * alpha * c * s) ** 2,
        ),
        Step("… where the direction of s is an eigenvector, of eigenvalue S = αc².", sharpness, alpha * c**2),
        Step(
            "The central flow's amplitude σ² = 2⟨−∇L, ∇S⟩/‖∇S‖² at s = 0 is D/(αc) exactly, for any Σ and any c.",
            2 * sum(-x.subs(averaged) * y for x, y in zip(slope, steeper, strict=True)) / norm,
            drive_there / (alpha * c),
        ),
        Step(
            "At an instantaneous s instead it would be D/(αc) − s²: the average is essential.",
            2 * sum(-x * y for x, y in zip(slope, steeper, strict=True)) / norm,
            drive_there / (alpha * c) - s**2,
        ),
    )


def _slow_motion() -> Sequence[Step]:
    force, excess, rate, bend, small = sp.symbols("D e nu mu epsilon", positive=True)
    squares = sp.solve(sp.Eq((1 - lr * alpha * c**2) ** 2, (1 + excess) ** 2), c**2)
    held = sp.sqrt(next(x for x in squares if x.is_positive))
    g = 4 * lr * force / sp.sqrt(2 / (lr * alpha))

    def log_drive(t: int) -> sp.Expr:
        # Slow: the n-th difference of ln D is of order εⁿ.
        return small * rate * t + small**2 * bend * sp.Integer(t) ** 2 / 2

    def c_at(t: int) -> sp.Expr:
        return sp.sqrt((1 + sp.exp((log_drive(t + 1) - log_drive(t)) / 2)) / (lr * alpha))

    shift = sp.series((c_at(1) - c_at(0)) / (lr * force), small, 0, 3).removeO()
    second_difference = log_drive(2) - 2 * log_drive(1) + log_drive(0)
    return (
        Step(
            "Let D be multiplied by (1 + e)² a step. For s² to move along at a fixed c it must grow as much, "
            "(1 − ηαc²)² = (1 + e)², whose solution near threshold is ηαc² = 2 + e, …",
            lr * alpha * held**2,
            2 + excess,
        ),
        Step(
            "… and c stays if s² = D/(αc): a steady relative change of D costs nothing, exactly.",
            held + lr * (force - alpha * held * force / (alpha * held)),
            held,
        ),
        Step(
            "If the rate changes slowly, e_t = √(D_{t+1}/D_t) − 1 moves c, and αcs² = D − (c' − c)/η falls short of D "
            "by the share Δ² ln D/(2g), g = 4ηD/c*, to second order in slowness.",
            shift,
            second_difference / (2 * g),
        ),
    )


def check() -> Sequence[Check]:
    """Descent from the slow state, and from 30 % beside it, on a power-law covariance."""
    model, states, lr = _run(3000, kick=1.0)
    slow = slow_state(model, states, lr)
    balance = model.alpha[0] * states.c[:-1] * states.s[:-1, 0] ** 2 - drive(model, states)[:-1]
    moved = np.diff(states.c) / lr
    balance_after = model.alpha[0] * states.c[1:] * states.s[1:, 0] ** 2 - drive(model, states)[1:]
    excess = edge_units(model, states, lr).excess[:-2]
    # The start is on the slow state to first order only; what that leaves dies out.
    late = slice(1500, None)
    unkicked = model, states, lr
    model, kicked, lr = _run(3000, kick=1.3)
    deviation = np.abs(kicked.s[:-2, 0] ** 2 / slow_state(model, kicked, lr).leading - 1)
    where = settled(model, kicked, lr)[:-2]
    small = np.abs(edge_units(model, kicked, lr).excess[:-2]) < 0.01
    return (
        Check(
            "descent: αcs² = D − (c' − c)/η at every step, largest difference",
            float(np.abs(balance + moved).max()),
            1e-12,
            float(np.abs(balance_after + moved).max()),
            "αcs² and D of the step after",
        ),
        Check(
            "rms relative error of (D/(αc))(1 − Δ² ln D/(2g)), in units of D/(αc)'s own",
            _amplitude_error(*unkicked, late),
            0.1,
            _amplitude_error(*_run(3000, kick=1.05), late),
            "a start 5 % beside the slow state",
        ),
        Check(
            "rms of e − e_slow, in units of e's own",
            _rms(excess - slow.excess, late) / _rms(excess, late),
            0.1,
            _rms(excess + slow.excess, late) / _rms(excess, late),
            "e_slow with the other sign",
        ),
        Check(
            "largest relative error of D/(αc) where the hypotheses hold, s² having started 30 % high",
            float(deviation[where].max()) if where.any() else float("nan"),
            0.01,
            float(deviation[small].max()),
            "|e| < 0.01 as the only hypothesis",
        ),
    )


def _run(steps: int, kick: float) -> tuple[Model, State, float]:
    """A model with 100 features of covariance 1/i, descent from the slow state with s² times a kick, and η."""
    beta = np.random.default_rng(0).normal(size=100)
    model = Model(np.array([50.0]), 3 * beta / np.linalg.norm(beta), power_law_covariance(100, 1.0))
    lr = 0.04
    threshold = np.sqrt(2 / (lr * model.alpha[0]))
    # The slow state asks for the drive two steps ahead: let b relax at c = c*.
    path = [0.9 * model.beta / threshold]
    for _ in range(2):
        path.append(path[-1] + lr * threshold * model.covariance * (model.beta - threshold * path[-1]))
    slow = slow_state(model, State(np.full(3, threshold), np.array(path), np.zeros((3, 1))), lr)
    start = State(threshold * np.sqrt(1 + slow.excess[0] / 2), path[0], np.sqrt(kick * slow.amplitude))
    return model, gradient_descent(model, start, lr, steps).state, lr


def _amplitude_error(model: Model, states: State, lr: float, late: slice) -> float:
    """Error of the amplitude with its correction, in units of that without."""
    slow, square = slow_state(model, states, lr), states.s[:-2, 0] ** 2
    return _rms(square / slow.amplitude - 1, late) / _rms(square / slow.leading - 1, late)


def _rms(values: Array, where: slice) -> float:
    return float(np.sqrt(np.mean(values[where] ** 2)))


def applies(model: Model, state: State, lr: float) -> bool:
    """At threshold with a positive drive, one pair oscillating; slowness needs a run and is `theory.edge.settled`."""
    if state.c <= 0 or model.alpha[0] == 0 or (state.s[..., 1:] != 0).any():
        return False
    units = edge_units(model, state, lr)
    return bool(units.drive > 0 and drive(model, state) > 0 and abs(units.excess) < 0.1)


STATEMENT = Statement(
    name="T9",
    title="oscillation amplitude at the edge of stability",
    hypotheses=(
        "Any Σ, D > 0, c > 0, αc² the top eigenvalue, other pairs idle. Slow: |Δ² ln D| < 0.006 g and |e − e_slow| < "
        "0.006 √(g/2) over one period 2π/√(2g), with e = ηαc² − 2, e_slow = √(D'/D) − 1 and g = 4ηD/c*."
    ),
    claim=(
        "The rest state of the oscillation is c² = 2/(ηα), s² = D/(αc), with s of alternating sign; it is the "
        "central flow's σ² = 2⟨−∇L, ∇S⟩/‖∇S‖², S = αc², exactly. While D changes slowly, e = √(D'/D) − 1 and s² = "
        "(D/(αc)) (1 − Δ² ln D/(2g)); under the hypotheses s² = D/(αc) to 1 %."
    ),
    status=Status.CHECKED,
    source="the setting's notes; correction and hypotheses derived here; central flow: Cohen et al., arXiv 2410.24206",
    applies=applies,
    derivation=derivation,
    check=check,
    remarks=(
        "The rest state, the central flow's equality and the exact moving solution are proved; the correction is the "
        "first term of an expansion, and the 1 % is seen, not proved. As first written: 'slow' had no size, and s² "
        "was said to agree to 0.1 % over 3,000 steps. |e| < 0.01 does not do for 1 %: an oscillation of e of size E "
        "moves ln s² by E√(2/g), so at g = 0.001 a size of 0.001 costs 4.5 %. The law fails at the very end of "
        "training, once g has shrunk until √(2g) < |Δ ln D|. Whether the state is reached is T16's question. Without "
        "noise s may underflow to 0 on the way, after which c rises unchecked."
    ),
)
