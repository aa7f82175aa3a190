"""The phase diagram: the theory's boundary is found, and two features stand for all."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import theory
from sim.sweeps.phase import PHASES, PhaseConfig, phase_table, two_features
from theory import InputError
from theory.configuration import DescentConfig

CPU = torch.device("cpu")


def test_runs_converge_below_the_boundary_and_oscillate_or_diverge_above() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=0.6, highest=1.4, lrs=3, seeds=(0, 1), d1=10, steps=2000)
    data = config.unit(3.0).run(CPU)
    names = np.array(PHASES)[data["phase"].values]
    assert (names[0] == "converges").all()
    assert (names[2] == "oscillates").all()
    # S = α‖β‖ = 60 at the flow's limit; ending below it is what oscillation is for (T8).
    np.testing.assert_allclose(data["flow_boundary"], 2 / 60, rtol=1e-9)
    assert (data["final_first_layer"][2] * data["step_size"][2] <= 2).all()
    # The run itself, by the theory's own loop.
    descent = config.unit(3.0).config(1)
    end = theory.gradient_descent(descent.model, descent.initial_state, float(data["step_size"][2, 1]), 2000).state
    assert float(data["final_first_layer"][2, 1]) == pytest.approx(20 * float(end.c[-1]) ** 2, rel=1e-6)


def test_no_run_settles_where_no_minimum_is_stable_and_large_steps_diverge() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=4.5, highest=8.0, lrs=3, seeds=(0, 1), d1=10, steps=300)
    data = config.unit(3.0).run(CPU)
    assert (data["step_size"] > data["last_boundary"]).all()
    assert np.isin(np.array(PHASES)[data["phase"].values], ["diverges", "unsettled"]).all()
    assert (data["diverged_at"].values[-1] > 0).all()


def test_runs_that_are_still_on_their_way_are_not_called_converged() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=0.001, highest=0.002, lrs=2, seeds=(0,), d1=10, steps=50)
    assert (np.array(PHASES)[config.unit(3.0).run(CPU)["phase"].values] == "unsettled").all()


def test_two_features_stand_for_all_and_their_runs_are_the_same() -> None:
    descent = DescentConfig(20.0, 3.0, 3.0, 50, start_seed=1)
    model, start = two_features(descent.model, descent.initial_state)
    whole = theory.gradient_descent(descent.model, descent.initial_state, 0.03, 500).state
    small = theory.gradient_descent(model, start, 0.03, 500).state
    np.testing.assert_allclose(small.c, whole.c, rtol=1e-12)
    np.testing.assert_allclose(small.s, whole.s, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose((small.b**2).sum(-1), (whole.b**2).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(theory.sharpness(model, small), theory.sharpness(descent.model, whole), rtol=1e-12)
    with pytest.raises(InputError, match="not the identity"):
        two_features(DescentConfig(exponent=1.0).model, descent.initial_state)


def test_rows_are_spaced_evenly_in_logarithm_between_the_ends() -> None:
    units = PhaseConfig(betas=(1.0, 4.0), rows=3).units()
    assert [unit.beta for unit in units] == pytest.approx([1.0, 2.0, 4.0])


def test_the_table_tells_a_wrong_boundary() -> None:
    config = PhaseConfig(betas=(3.0,), lowest=0.6, highest=1.4, lrs=4, seeds=(0, 1), d1=10, steps=2000)
    data = config.combine([unit.run(CPU) for unit in config.units()])
    assert phase_table(data, 20.0).splitlines()[3].split()[-3:] == ["4/4", "4+0/4", "-"]
    # Against the boundary of half the sharpness every run "below" it is on the wrong side, and the count says so;
    # against that of twice the sharpness every run "above".
    wrong = data.assign_coords(relative=data["relative"] / 2)
    assert phase_table(wrong, 20.0).splitlines()[3].split()[-3] == "4/8"
    wrong = data.assign_coords(relative=data["relative"] * 2)
    assert phase_table(wrong, 20.0).splitlines()[3].split()[-2] == "4+0/8"
    # 0.6 to 1.4: the control's boundary, 1.5 times as far or as near, calls all runs below or above.
    told = phase_table(data, 20.0)
    assert "converges: 4 of 4 (control, a boundary 1.5 times as far: 4 of 8)" in told
    assert "diverges: 4 of 4 (control, one 1.5 times as near: 4 of 6)" in told


def test_runs_that_did_nothing_are_no_bounces() -> None:
    """Without an opposing weight nothing can bounce, and so short a run is not settled."""
    config = PhaseConfig(betas=(3.0,), lowest=0.5, highest=1.4, lrs=4, seeds=(0, 1), d1=10, steps=5, k=0.0)
    data = config.combine([unit.run(CPU) for unit in config.units()])
    assert (data["phase"] == PHASES.index("unsettled")).all()
    table = phase_table(data, 20.0)
    assert re.search(r"oscillates or diverges: 0 of [1-9]", table)
    assert "8 runs are not settled after their steps" in table


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"alpha": -1.0}, "--alpha is -1"),
        ({"highest": 0.1}, "--highest is 0.1"),
        ({"betas": ()}, "--betas is empty"),
        ({"betas": (1.0, 1.0)}, "--betas has 1.0 twice"),
        ({"betas": (0.0,)}, "--betas is 0"),
        ({"seeds": (1, 1)}, "--seeds has 1 twice"),
        ({"seeds": (-1,)}, "--seeds is -1"),
        ({"seeds": (2**63,)}, "--seeds is 9223372036854775808"),
        ({"steps": 0}, "--steps is 0"),
        ({"rows": 1}, "--rows is 1"),
        ({"rows": 9, "betas": (1.0,)}, "--rows is 9"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PhaseConfig(**bad)  # type: ignore[arg-type]
