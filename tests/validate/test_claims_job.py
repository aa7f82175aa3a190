"""The claims' own command from end to end, on a tiny network whose windows are put where its few steps allow."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import xarray as xr
from claim_evidence import two_images_swing

from sim import Architecture
from sim.runs import Run
from theory import InputError
from validate import edge_study, evidence, main_job, plan, presets
from validate.cifar10 import load_embedded
from validate.claims import CLAIMS, Bound, Claim, Evidence, NetworkEvidence, judge
from validate.claims_job import ClaimsConfig, claims_job, claims_named, describe
from validate.edge_probe import EdgeMeasurements
from validate.main_job import with_choices
from validate.network_run import NetworkConfig
from validate.opposing_score import GAUSSIAN
from validate.plan import NEAR_FLOW_GRADIENTS, make_plan, roles_needed
from validate.presets import PRESETS, Preset
from validate.report import write_report
from validate.report_content import NetworkPart, Report
from validate.report_groups import stability_json
from validate.report_words import short_words
from validate.roles import ROLES, Setting
from validate.windows import Windows, find_windows

NETWORK = NetworkConfig(
    architecture=Architecture(hidden=(8,)),
    images_per_class=5,
    steps=60,
    blocks_every=0,
    snapshot_every=10,
    probe_every=10,
    step_lengths=True,
)
EDGE = EdgeMeasurements(every=9, directions=2, draws=1)
SETTING = Setting(NETWORK, seeds=(0, 1), batch=10, sgd_steps=60, edge=EDGE)
WINDOWS = Windows(30, slice(5, 20), slice(30, 42), slice(42, 54), slice(30, 54), slice(0, 10))


SOME = ("C3", "C6", "C10", "C11", "C12", "C13", "C16")
"""Between them they need every role that any claim needs on the MLP."""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset({"mlp": SETTING}))  # type: ignore[arg-type]
    for module in (evidence, plan, edge_study):
        monkeypatch.setattr(module, "find_windows", lambda run: WINDOWS)


def config(folder: Path, **changes: object) -> ClaimsConfig:
    base = ClaimsConfig(
        preset="tiny", claims=SOME, seeds=(0, 1), device="cpu", runs=folder / "runs", report=folder / "report"
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny")
def test_a_tiny_plan_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claims_job(config(tmp_path, plan=True)) == 0
    planned = capsys.readouterr().out
    assert "known once the run that it is derived from is there" in planned
    assert not (tmp_path / "runs").exists()

    assert claims_job(config(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "min left" in printed
    assert "not claimed for mlp" in printed
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    judged = {c["claim"]: c["judged"] for c in report["claims"]}
    assert list(judged) == [c.name for c in claims_named(SOME)]
    assert [name for name, was in judged.items() if not was] == ["C13"]
    assert "Of the claims judged hold: mlp " in (tmp_path / "report" / "claims.md").read_text()
    page = (tmp_path / "report" / "report.html").read_text()
    for outside in ("http://", "https://", "<script", 'src="/', "$"):
        assert outside not in page
    names = {p.name for p in (tmp_path / "runs").iterdir()}
    roles = roles_needed(CLAIMS, "mlp")
    assert len(names) == 2 * len(roles)
    made = make_plan(SETTING, roles, tmp_path / "runs")
    assert all(run.exists for run in made)
    assert {run.config.name for run in made if run.config} == names

    before = (tmp_path / "report" / "report.json").read_bytes()

    def timed(*of: object) -> float:
        raise AssertionError("a gradient is timed where no run is missing")

    monkeypatch.setattr(plan, "seconds_a_gradient", timed)
    assert claims_job(config(tmp_path)) == 1
    again = capsys.readouterr().out
    assert "min left" not in again
    assert "every run is there" in again
    assert (tmp_path / "report" / "report.json").read_bytes() == before


def test_only_the_roles_that_the_claims_need_are_planned(tmp_path: Path) -> None:
    def roles(*names: str) -> tuple[str, ...]:
        return roles_needed(claims_named(names), "mlp")

    assert roles("C3") == ("base", "gentle")
    assert roles("C4") == ("base",)
    assert roles("C12b") == ("base", "adam", "momentum_dampened", "split_sgd")
    assert roles("C10a") == ("base", "without_opposing", "without_random", "without_hardest")
    assert roles("C13", "T7") == ()
    assert roles_needed(claims_named(["C13"]), "vgg11") == ("batch_norm", "no_batch_norm")
    assert roles_needed([], "mlp", ["sam"]) == ("sam",)
    # A claim on other networks asks for nothing here, even where the network has the role.
    elsewhere = dataclasses.replace(claims_named(["C11a"])[0], networks=("vit",))
    assert roles_needed([elsewhere], "mlp") == ()
    assert roles_needed([elsewhere], "vit") == ("base", "adam", "momentum")
    plan = make_plan(SETTING, roles("C10a"), tmp_path / "none")
    assert [(run.role, run.seed, run.exists) for run in plan] == [
        (role, seed, False) for seed in (0, 1) for role in roles("C10a")
    ]
    # A seed whose step size is to be chosen costs its run near gradient flow besides, once.
    chosen = make_plan(dataclasses.replace(SETTING, crossing=15), roles("C10a"), tmp_path / "none")
    more = [with_choice.gradients - run.gradients for with_choice, run in zip(chosen, plan, strict=True)]
    assert more == pytest.approx([15 * NEAR_FLOW_GRADIENTS, 0, 0, 0] * 2)


def test_every_need_is_a_role_and_every_configuration_has_its_own_name() -> None:
    assert {role for claim in CLAIMS for role in claim.needs} <= set(ROLES)
    for preset in PRESETS.values():
        for kind, setting in preset.settings.items():
            derived = [
                r.derive(setting, setting.base(0)) for r in ROLES.values() if r.derive and kind in (r.kinds or kind)
            ]
            assert len({c.name for c in derived}) == len(derived)
            assert all(c.seed == 0 for c in derived)


def test_momentum_has_the_threshold_of_gradient_descent() -> None:
    """2(1 + μ)/η′ of the role against 2/η of the base run (T13); the gentle run has ten times the threshold."""
    base = SETTING.base(0)
    derive = {name: role.derive for name, role in ROLES.items()}
    momentum, gentle = (derive[name](SETTING, base) for name in ("momentum", "gentle"))  # type: ignore[misc]
    assert 2 * (1 + momentum.optimizer.momentum) / momentum.lr == pytest.approx(2 / base.lr)
    assert gentle.lr == pytest.approx(base.lr / 10)
    fine = dataclasses.replace(base, lr=0.012)
    assert "-lr0.0012-" in derive["gentle"](SETTING, fine).name  # type: ignore[misc]


def test_what_no_claim_reads_is_measured_seldom() -> None:
    base = SETTING.base(0)
    for name, rule in (("split_sgd", "split_sgd"), ("momentum_dampened", "momentum"), ("adam", "adam"), ("sam", "sam")):
        derive = ROLES[name].derive
        assert derive is not None
        run = derive(SETTING, base)
        seldom = name in ("split_sgd", "momentum_dampened")
        assert run.optimizer.kind == rule
        assert run.measure_every == base.measure_every * (5 if seldom else 1)
        assert run.step_lengths == (not seldom)


def test_every_claim_is_described_whole() -> None:
    for claim in CLAIMS:
        words = describe(claim)
        for part in (claim.name, claim.statement, claim.statistic, str(claim.bound), claim.control, claim.figure):
            assert part in words
        assert all(role in words for role in claim.needs)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"preset": "fast"}, ("--preset is fast", "standard")),
        ({"network": ("lenet",)}, ("--network is lenet", "mlp")),
        ({"claims": ("C99",)}, ("no claim C99", "C16")),
        ({"claims": ("C4z",)}, ("no claim C4z", "C4a")),
        ({"seeds": (1, 1)}, ("--seeds has 1 twice", "different")),
        ({"lr": -1.0}, ("--lr is -1.0", "above 0")),
        ({"steps": 0}, ("--steps is 0", "above 0")),
        ({"crossing": -1}, ("--crossing is -1", "above 0")),
        ({"crossing": 150, "lr": 0.1}, ("--lr is 0.1 and --crossing is 150", "one of them")),
        ({"crossing": 20}, ("--crossing is 20 of 420 steps", "give one of at least 50")),
        ({"crossing": 271}, ("--crossing is 271", "or more --steps")),
        ({"network": ("vgg11",), "steps": 250}, ("--crossing is 150 of 250 steps", "the 150 steps after them")),
        ({"images_per_class": -5}, ("--images-per-class is -5", "above 0")),
        ({"images_per_class": 201}, ("201 images a class", "--data")),
        ({"roles": ("teacher",)}, ("--roles is teacher", "squared")),
        ({"preset": "paper"}, ("5000 images a class", "--data")),
        ({"images_per_class": 5001, "data": Path("nowhere")}, ("5001 images a class", "5000 of CIFAR-10")),
        ({"preset": "paper", "data": Path("nowhere")}, ("nowhere", "data fetch")),
        ({"device": "cuda:99"}, ("--device is cuda:99", "cpu")),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    changes: dict[str, object], names: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        claims_job(config(tmp_path, **{"preset": "standard", "claims": None, "seeds": None, **changes}))
    line = str(refused.value)
    assert "\n" not in line
    assert all(name in line for name in names)
    assert not list(tmp_path.iterdir())


HOSTILE = '<script>alert("x")</script>&'


def test_every_label_on_the_page_is_escaped(tmp_path: Path) -> None:
    claim = Claim(
        name=HOSTILE,
        statement=HOSTILE,
        statistic=HOSTILE,
        bound=Bound(low=1.0),
        control=HOSTILE,
        measure=lambda e: [0.5],
        measure_control=lambda e: [0.0],
        figure=HOSTILE,
        needs=("base",),
    )
    seen = Evidence([NetworkEvidence(0, {"base": xr.Dataset()}, None)], kind=HOSTILE)
    picture = tmp_path / "F1.png"
    picture.write_bytes(b"")
    picture.with_suffix(".txt").write_text(HOSTILE)
    environment = {"device": HOSTILE, "seconds": 1.0, "command": HOSTILE, "commit": HOSTILE}
    verdicts = [judge(claim, seen), judge(dataclasses.replace(claim, needs=(HOSTILE,)), seen)]
    part = NetworkPart(seen, NETWORK, load_embedded())
    run = Run(HOSTILE, {}, environment, xr.Dataset())
    write_report(tmp_path, Report(HOSTILE, [part, part], verdicts, [run], figures=[(HOSTILE, picture)]))
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert 'alert("' not in page
    assert page.count("&lt;script&gt;") > 15


def test_a_failure_and_a_claim_not_judged_are_told_apart() -> None:
    claim = next(c for c in CLAIMS if c.name == "C8")
    seen = Evidence([NetworkEvidence(0, {"base": xr.Dataset()}, None)])
    verdicts = [judge(claim, seen), judge(dataclasses.replace(claim, needs=("sam",)), seen)]
    report = Report("tiny", [NetworkPart(seen, NETWORK, load_embedded())], verdicts, [])
    assert report.headline == "C8 did not hold; 1 not judged"
    assert [v.claim.needs for v in report.failed] == [("base",)]
    assert Report("tiny", [], [verdicts[1]], []).headline == "no claim was judged; 1 not judged"
    holding = dataclasses.replace(verdicts[0], holds=True)
    of_one = Report("tiny", [], [holding, verdicts[1]], []).headline
    assert of_one == "the one claim judged holds, and its control fails; 1 not judged"


def constant(value: float) -> Callable[[Evidence], Sequence[float]]:
    return lambda evidence: [value] * 2


def test_a_claim_that_fails_by_its_control_alone_is_told_from_one_that_fails_itself(tmp_path: Path) -> None:
    bound = Bound(low=1.0)
    claim = dataclasses.replace(CLAIMS[-1], bound=bound, needs=("base",), simulations=(), networks=None)
    nan = float("nan")
    cells = {"holds": (2.0, 0.0), "control does not fail": (2.0, 2.0), "fails": (0.0, 2.0), "undefined": (nan, nan)}
    kinds = {"mlp": "holds", "vgg11": "control does not fail", "vit": "fails", "resnet18": "not judged"}
    kinds["vgg11_bn"] = "undefined"
    parts, verdicts = [], []
    for kind, words in kinds.items():
        runs = {} if words == "not judged" else {"base": xr.Dataset()}
        seen = Evidence([NetworkEvidence(0, runs, None)], kind=kind)
        value, control = cells.get(words, (2.0, 0.0))
        told = dataclasses.replace(claim, measure=constant(value), measure_control=constant(control))
        verdicts.append(judge(told, seen))
        parts.append(NetworkPart(seen, NETWORK, load_embedded()))
    assert [short_words(v) for v in verdicts] == list(kinds.values())
    write_report(tmp_path, Report("tiny", parts, verdicts, []))
    page = (tmp_path / "report.html").read_text()
    overview = page[page.index('<table class="grid"') :].split("</table>")[0]
    for words in kinds.values():
        assert overview.count(f">{words}</span>") == 1


def test_claims_on_a_base_run_that_never_crosses_fail_and_are_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that derive runs from it, like those that read it."""
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset({"mlp": SETTING}))  # type: ignore[arg-type]
    flat = config(tmp_path, claims=("C3", "C5a", "C10a"), lr=1e-5)
    assert claims_job(flat) == 1
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    reasons = {c["claim"]: c["reason"] for c in told["claims"]}
    assert set(reasons) == {"C3", "C5a", "C10a"}
    (reason,) = set(reasons.values())
    assert re.fullmatch(
        r"the statistic is not defined for every seed: seed 0 comes to [0-9.e-]+ of 2/η at most(; seed .*)?", reason
    )


@pytest.mark.usefixtures("tiny")
def test_images_and_steps_of_the_plan_are_those_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims_job(config(tmp_path, plan=True, claims=("C3",), images_per_class=7, steps=90)) == 0
    planned = [line for line in capsys.readouterr().out.splitlines() if "seed 0 " in line]
    assert len(planned) == 2
    assert all("images7" in line and "steps90" in line for line in planned)


@pytest.mark.usefixtures("tiny")
def test_step_sizes_of_each_seed_are_chosen_before_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_job, "EARLIEST_CROSSING", 15)  # with windows of a tiny run's size, as `tiny` has them
    monkeypatch.setattr(main_job, "SELECT_STEPS", 10)
    monkeypatch.setattr(main_job, "EVALUATE_STEPS", 10)
    asked = config(tmp_path, claims=("C3",), crossing=15, seeds=(0, 1))
    assert claims_job(dataclasses.replace(asked, plan=True)) == 0
    assert "chosen once its run" in capsys.readouterr().out
    assert claims_job(asked) == 1
    told = capsys.readouterr().out
    sizes = [line.split("η = ")[1].split(",")[0] for line in told.splitlines() if ": η = " in line]
    assert len(sizes) == 2
    assert all(f"mlp-lr{size}-seed{seed}-" in told for seed, size in enumerate(sizes))
    assert f"mlp: seeds 0, 1, 50 images, η = {', '.join(sizes)}. " in (tmp_path / "report" / "report.html").read_text()
    # A step size that is given takes the rule's place.
    assert with_choices(dataclasses.replace(SETTING, crossing=15), None, 0.01).crossing == 0
    assert claims_job(config(tmp_path, claims=("C3",), lr=0.01, plan=True)) == 0
    assert "mlp-lr0.01-seed0-" in capsys.readouterr().out


def test_the_report_has_the_groups_their_stability_and_the_score_of_a_run_at_the_edge(tmp_path: Path) -> None:
    """Images 7 and 150 swing against each other, 7 more: the smaller one's share counts."""
    data = two_images_swing()
    seen = Evidence([NetworkEvidence(3, {"base": data}, find_windows(data))], kind="mlp")
    write_report(tmp_path, Report("tiny", [NetworkPart(seen, NetworkConfig(), load_embedded())], [], []))
    (group,) = json.loads((tmp_path / "report.json").read_text())["groups"]
    # c = 2 · 0.25/1.25, of an energy share of 1
    assert group["opposing_score"]["concentration"] == pytest.approx(0.4, abs=0.01)
    assert group["opposing_score"]["score"] == pytest.approx((0.4 - GAUSSIAN) / (1 - GAUSSIAN), abs=0.01)
    assert group["opposing_score"]["energy_share"] == pytest.approx(1.0, abs=0.01)
    pair = group["singular_pairs"][0]
    assert {pair["positive"][0], pair["negative"][0]} == {7, 150}
    (stable,) = json.loads((tmp_path / "report.json").read_text())["stability"]
    # Two of the pair's 2 × 20 examples swing in both windows; the rest is noise, drawn anew by each.
    assert 2 / 40 <= stable["windows"]["3"] < 0.3
    assert stable["seeds"] is None
    assert 0 < stable["chance"] < 0.1
    twice = dataclasses.replace(seen, networks=[*seen.networks, dataclasses.replace(seen.networks[0], seed=4)])
    same = stability_json(NetworkPart(twice, NetworkConfig(), load_embedded()))
    assert same is not None
    assert same["seeds"] == 1.0
    score = f"{group['opposing_score']['score']:.2f}"
    words = f"mlp: {stable['windows']['3']:.2f} with a pair of the next window (random groups {stable['chance']:.2f})"
    assert words in (tmp_path / "report.html").read_text()
    assert f"mlp, seed 3: {score} (" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("tiny")
def test_a_store_that_holds_every_run_serves_where_it_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(tmp_path, claims=("C3",))
    assert claims_job(asked) == 1
    told = (tmp_path / "report" / "report.json").read_bytes()

    def refuses(folder: Path) -> None:
        if folder == tmp_path / "runs":
            raise InputError(f"folder {folder} cannot be written: give another one")

    for module in ("validate.evidence", "sim.runs.making"):
        monkeypatch.setattr(f"{module}.require_writable", refuses)
    assert claims_job(asked) == 1
    assert (tmp_path / "report" / "report.json").read_bytes() == told
    for changes in ({"force": True}, {"claims": ("C3", "C11a")}):
        with pytest.raises(InputError, match="cannot be written"):
            claims_job(dataclasses.replace(asked, **changes))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("network", [("all", "vgg11"), ("mlp", "all"), ("mlp", "mlp"), ()])
def test_all_stands_by_itself_and_no_network_twice(network: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--network "):
        claims_job(config(tmp_path, network=network))


@pytest.mark.usefixtures("tiny")
def test_the_plan_names_what_is_not_a_networks_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims_job(config(tmp_path, plan=True, claims=("T1", "C13", "C3"))) == 0
    told = capsys.readouterr().out
    assert "two-layer network: 0 of 2 runs there" in told
    assert "mlp: not claimed for it, and not judged: C13" in told
    assert claims_job(config(tmp_path, plan=True, claims=("C3",))) == 0
    told = capsys.readouterr().out
    assert "two-layer" not in told
    assert "not claimed" not in told
