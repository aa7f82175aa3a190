"""T1, T6, T7, T8, T9, T11: the theory's statements against the simulated two-layer network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim import TwoLayerConfig
from sim.opposing_data import draw_examples
from sim.second_moments import sample_moments
from theory import (
    SampleMoments,
    State,
    balancedness,
    edge_amplitude,
    flow_limit,
    gradient,
    gradient_descent,
    growth_factor,
    layer_sharpness,
    sample_onset,
    sharpness,
)
from theory.edge import settled
from theory.onset import observed_onset
from validate.claims.base import Bound, Claim, Evidence

SMALLEST_WEIGHT = 1e-150
"""Opposing weights below this are left out of ratios: their squares underflow."""
SETTLED_STEPS = 1000
"""The last steps of the edge run, on at least half of which T9's hypotheses have to be met (`theory.edge.settled`)."""


def _population(data: xr.Dataset) -> State:
    first = data.isel(run=0)
    return State(first["c"].values, first["b"].values, first["s"].values[:, None])


def _balancedness_error(config: TwoLayerConfig, data: xr.Dataset, *, drop_opposing: bool) -> float:
    """Largest gap between a step's change of Q and η²[(∂_c L)² − ‖∂_b L‖² − ‖∂_s L‖²], over Q's largest part."""
    state = _population(data)
    slope = gradient(config.model, state)
    if drop_opposing:
        zero = np.zeros_like(state.s)
        state, slope = State(state.c, state.b, zero), State(slope.c, slope.b, zero)
    predicted = config.lr**2 * balancedness(slope)[:-1]
    scale = np.max(state.c**2)
    return float(np.abs(np.diff(balancedness(state)) - predicted).max() / scale)


def _t1(evidence: Evidence) -> Sequence[float]:
    return [_balancedness_error(*evidence.two_layer["default"], drop_opposing=False)]


def _t1_control(evidence: Evidence) -> Sequence[float]:
    return [_balancedness_error(*evidence.two_layer["default"], drop_opposing=True)]


def _limit_error(evidence: Evidence, *, drop_balance: bool) -> float:
    """Largest relative error of the flow's final sharpness, from a balanced start and from one that is not."""
    errors = []
    for name in ("default", "edge"):
        config, data = evidence.two_layer[name]
        limit = flow_limit(config.model, config.initial_state)
        if drop_balance:
            c = np.sqrt(np.linalg.norm(config.model.beta))
            limit = State(c, config.model.beta / c, np.zeros(1))
        errors.append(abs(float(data["flow_sharpness"][-1]) / float(sharpness(config.model, limit)) - 1))
    return max(errors)


def _t6(evidence: Evidence) -> Sequence[float]:
    return [_limit_error(evidence, drop_balance=False)]


def _t6_control(evidence: Evidence) -> Sequence[float]:
    return [_limit_error(evidence, drop_balance=True)]


def _growth_error(config: TwoLayerConfig, data: xr.Dataset, *, shift: int) -> float:
    """Largest relative gap between s_{t+1}/s_t and 1 − ηαc², c taken `shift` steps late."""
    state = _population(data)
    s, factor = state.s[:, 0], growth_factor(config.model, state, config.lr)[:, 0]
    kept = np.abs(s[1:]) > SMALLEST_WEIGHT
    predicted = factor[shift : len(s) - 1 + shift]
    return float(np.abs(s[1:] / (predicted * s[:-1]) - 1)[kept].max())


def _t7(evidence: Evidence) -> Sequence[float]:
    return [_growth_error(*evidence.two_layer["default"], shift=0)]


def _t7_control(evidence: Evidence) -> Sequence[float]:
    return [_growth_error(*evidence.two_layer["default"], shift=1)]


def _t8(evidence: Evidence) -> Sequence[float]:
    config, data = evidence.two_layer["default"]
    return [float(v) * config.lr / 2 for v in data["sharpness"][-1]]


def _t8_control(evidence: Evidence) -> Sequence[float]:
    """Half the step size puts 2/η above the flow's final sharpness: descent then ends there, far below 2/η."""
    config, _ = evidence.two_layer["default"]
    gentle = gradient_descent(config.model, config.initial_state, config.lr / 2, 2 * config.steps)
    return [float(layer_sharpness(config.model, gentle.state.at(-1)).whole) * config.lr / 4]


def _amplitude_errors(config: TwoLayerConfig, state: State) -> npt.NDArray[np.float64]:
    """(SETTLED_STEPS,) |s²αc/D − 1| at the last steps."""
    last = State(state.c[-SETTLED_STEPS:], state.b[-SETTLED_STEPS:], state.s[-SETTLED_STEPS:])
    return np.asarray(np.abs(last.s[:, 0] ** 2 / edge_amplitude(config.model, last) - 1))


def _t9(evidence: Evidence) -> Sequence[float]:
    config, data = evidence.two_layer["edge"]
    state = _population(data)
    judged = settled(config.model, state, config.lr)[-SETTLED_STEPS:]
    if judged.mean() < 0.5:
        return [float("nan")]  # the statement's hypotheses are not met
    return [float(_amplitude_errors(config, state)[judged].max())]


def _t9_control(evidence: Evidence) -> Sequence[float]:
    config, _ = evidence.two_layer["edge"]
    half = replace(config, lr=config.lr / 2)
    end = gradient_descent(config.model, config.initial_state, half.lr, half.steps).state
    return [float(_amplitude_errors(config, end).max())]


def _onset_misses(evidence: Evidence, *, wait: bool) -> list[float]:
    """Of each finite sample, how far the predicted onset lies from the run's, over the error it states.

    Without the wait the crossing of 2/η itself is taken for the onset.
    """
    config, data = evidence.two_layer["default"]
    misses = []
    for index, seed in enumerate(config.sample_seeds, start=1):
        chunks = draw_examples(config.model, config.examples, config.fraction, seed, torch.device("cpu"))
        drawn = sample_moments(chunks)["all"]
        moments = SampleMoments(drawn.gram.numpy(), drawn.cross.numpy(), float(drawn.square))
        run = data.isel(run=index)
        states = State(run["c"].values, run["b"].values, run["s"].values[:, None])
        predicted = sample_onset(moments, config.initial_state, config.lr, max_steps=config.steps)
        seen = observed_onset(moments, states, config.lr).step
        step = predicted.step if wait else predicted.crossing_step
        misses.append(float("nan") if step is None or seen is None else abs(step - seen) / predicted.error)
    return misses


def _t11(evidence: Evidence) -> Sequence[float]:
    return _onset_misses(evidence, wait=True)


def _t11_control(evidence: Evidence) -> Sequence[float]:
    return _onset_misses(evidence, wait=False)


CLAIMS = (
    Claim(
        name="T1",
        statement="Descent changes Q = c² − ‖b‖² − s² by η²[(∂_c L)² − ‖∂_b L‖² − (∂_s L)²] a step.",
        statistic="largest error of the predicted change, over max c²",
        bound=Bound(high=1e-12),
        control="Q without the opposing weight",
        measure=_t1,
        measure_control=_t1_control,
        figure="F8",
        needs=(),
        simulations=("default",),
    ),
    Claim(
        name="T6",
        statement="The flow ends at c² = (Q + √(Q² + 4‖β‖²))/2.",
        statistic="relative error of the predicted final sharpness of two flows, one from Q ≠ 0; the larger",
        bound=Bound(high=1e-6),
        control="Q left out: c² = ‖β‖",
        measure=_t6,
        measure_control=_t6_control,
        figure="F8",
        needs=(),
        simulations=("default", "edge"),
    ),
    Claim(
        name="T7",
        statement="s_{t+1} = (1 − ηαc_t²) s_t exactly.",
        statistic="largest relative error of the predicted s_{t+1}",
        bound=Bound(high=1e-10),
        control="c of the step after",
        measure=_t7,
        measure_control=_t7_control,
        figure="F8",
        needs=(),
        simulations=("default",),
    ),
    Claim(
        name="T8",
        statement="Where the flow ends above 2/η, descent that settles ends at most there, and was seen not far below.",
        statistic="final ηλ/2 of descent on the population and on three finite samples",
        bound=Bound(low=0.9, high=1.0),
        control="step size ÷ 2, so that the flow ends below 2/η",
        measure=_t8,
        measure_control=_t8_control,
        figure="F8",
        needs=(),
        simulations=("default",),
    ),
    Claim(
        name="T9",
        statement="At the edge of stability the opposing weight oscillates with s² = D/(αc).",
        statistic="largest |s²αc/D − 1| where it has settled in the last 1,000 steps",
        bound=Bound(high=0.01),
        control="step size ÷ 2: no edge",
        measure=_t9,
        measure_control=_t9_control,
        figure="F8",
        needs=(),
        simulations=("edge",),
    ),
    Claim(
        name="T11",
        statement="On a finite sample the visible onset is predicted from what is left of the start at the crossing.",
        statistic="|predicted − seen| onset step over the prediction's stated error, three samples",
        bound=Bound(high=1.0),
        control="the crossing of 2/η taken for the onset",
        measure=_t11,
        measure_control=_t11_control,
        figure="F8",
        needs=(),
        simulations=("default",),
    ),
)
