"""The claims' table in Markdown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from validate.claims import CLAIMS, Verdict
from validate.report_markdown import claims_markdown

NAN = float("nan")


def test_it_tells_which_statistics_differ_from_their_controls_seed_by_seed() -> None:
    """The seeds differ by more than a statistic from its control; one that is the control's but for chance is named."""
    c3, c4a = (verdict(name, "mlp", (1.0, 1.1), (1.0, 1.1)) for name in ("C3", "C4a"))
    paired = dataclasses.replace(c3, values=(0.1, 1.0, 2.0), control_values=(0.2, 1.1, 2.12))
    alike = dataclasses.replace(c4a, values=(0.1, 1.0, 2.0), control_values=(0.2, 0.9, 2.0))
    assert paired.less_control == pytest.approx((-0.126, -0.087), abs=1e-3)
    assert claims_markdown([paired, alike]).splitlines()[-1] == (
        "mlp: statistic less control, seed by seed, is of one sign by its 90 % interval in 1 of 2; not in C4a; "
        "the control does more in C3."
    )
    # C3 claims much, and the control has more.
    assert claims_markdown([paired]).splitlines()[-1].endswith("in 1 of 1; the control does more in C3.")
    less = dataclasses.replace(paired, values=paired.control_values, control_values=paired.values)
    assert claims_markdown([less]).splitlines()[-1].endswith("in 1 of 1.")
    one = dataclasses.replace(c3, values=(0.1,), control_values=(0.2,))
    assert np.isnan(one.less_control).all()
    assert "seed by seed" not in claims_markdown([one])


def verdict(name: str, kind: str, interval: tuple[float, float], control: tuple[float, float], **of: object) -> Verdict:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    holds = bool(of.pop("holds", False))
    return Verdict(claim, (), interval, (), control, holds, str(of.pop("reason", "")), kind=kind, **of)  # type: ignore[arg-type]


def test_without_claims_it_says_so() -> None:
    assert claims_markdown([]) == "No claim was judged.\n"


def test_a_cell_tells_statistic_control_and_verdict_and_the_end_counts_them() -> None:
    found = claims_markdown(
        [
            verdict("T7", "", (1.0, 1.0), (3.0, 5.0), holds=True),
            verdict("C3", "mlp", (0.9, 1.0), (0.1, 0.3), holds=True),
            verdict("C3", "vit", (0.9, 1.0), (0.8, 0.9)),
            verdict("C4a", "mlp", (-0.5, -0.3), (0.0, 0.2)),
            verdict("C4a", "vit", (NAN, NAN), (NAN, NAN)),
            verdict("C13", "vit", (NAN, NAN), (NAN, NAN), judged=False, reason="not claimed for vit"),
        ]
    )
    t7, c3, c4a = (next(claim for claim in CLAIMS if claim.name == name).bound for name in ("T7", "C3", "C4a"))
    c13 = next(claim for claim in CLAIMS if claim.name == "C13").bound
    assert found.splitlines() == [
        "| claim | threshold | two-layer network | mlp | vit |",
        "| --- | --- | --- | --- | --- |",
        f"| T7 | {t7} | 1; 4 [3, 5]: **holds** |  |  |",
        f"| C3 | {c3} |  | 0.95 [0.9, 1]; 0.2 [0.1, 0.3]: **holds** "
        "| 0.95 [0.9, 1]; 0.85 [0.8, 0.9]: control does not fail |",
        f"| C4a | {c4a} |  | -0.4 [-0.5, -0.3]; 0.1 [0, 0.2]: fails | undefined; undefined: undefined |",
        f"| C13 | {c13} |  |  | not claimed for vit |",
        "",
        "Of the claims judged hold: two-layer network 1 of 1; mlp 1 of 2; vit 0 of 2 (by their control alone fail C3).",
    ]
