"""Making what figures lack, drawing it as files that say where they come from, and the pages that show them."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figure_runs import TINY_SWEEPS, TWO_LAYER, one_network, tiny_runs
from PIL import Image

from paper_figs import files, sources
from paper_figs.__main__ import (
    AllConfig,
    DrawConfig,
    GuideConfig,
    ListConfig,
    MakeConfig,
    draw_command,
    guide_command,
    list_command,
    make_command,
)
from paper_figs.entry import FigureEntry
from paper_figs.gallery import verdicts_of, write_gallery
from paper_figs.making import missing_runs
from paper_figs.registry import FIGURES
from paper_figs.runs import Runs
from paper_figs.sources import NETWORK_SEEDS, SWEEPS, Sources
from sim import Batches, OptimizerChoice, Run, obtain_run, run_two_layer
from sim.durable_files import write_durably
from sim.sweeps.study import Study
from theory import InputError
from validate.interventions import Intervention
from validate.network_run import NetworkConfig
from validate.prediction.networks import PREDICTION_NETWORKS
from validate.presets import PRESETS, two_layer_name

CPU = torch.device("cpu")
QUICK = ("F5", "F6", "F14", "F15", "F16")


@pytest.fixture
def tiny_quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The quick preset with tiny sweeps, whose data are known, and no networks; the list says which are made."""
    made: list[str] = []

    def known(study: Study, runs: Path, device: torch.device, *, name: str, force: bool) -> Run:
        made.append(study.name)
        return obtain_run(runs, name, study, lambda: tiny_runs().sweeps[study.name], device=device, force=force)

    monkeypatch.setattr(sources, "SWEEPS", {"quick": tuple((study, 1.0) for study in TINY_SWEEPS)})
    monkeypatch.setattr(sources, "make_sweep", known)
    monkeypatch.setattr(Sources, "_plan", [])
    return made


def config(tmp_path: Path, *figures: str, only_draw: bool = False) -> MakeConfig:
    out = tmp_path / "figures"
    return MakeConfig(
        figures=figures, out=out, runs=tmp_path / "runs", report=tmp_path / "report", device="cpu", only_draw=only_draw
    )


def test_what_is_missing_is_made_once_then_drawn(tmp_path: Path, tiny_quick: list[str]) -> None:
    assert make_command(config(tmp_path, "F6", "F16")) == 0
    assert sorted(tiny_quick) == ["amplitude", "chebyshev"]
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{f}.{s}" for f in ("F6", "F16") for s in ("pdf", "png", "txt")} | {"index.html"}
    before = {name: (tmp_path / "figures" / name).read_bytes() for name in written}
    assert make_command(config(tmp_path, "F6", "F16")) == 0
    assert len(tiny_quick) == 2
    assert {name: (tmp_path / "figures" / name).read_bytes() for name in written} == before


def test_a_sweep_that_holds_what_it_held_before_is_made_again_and_not_drawn(
    tmp_path: Path, tiny_quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_command(config(tmp_path, "F16")) == 0
    stored = tmp_path / "runs" / "amplitude-quick" / "config.json"
    now = json.loads(stored.read_text())
    stored.write_text(json.dumps({key: value for key, value in now.items() if key != "revision"}))
    assert make_command(config(tmp_path, "F16", only_draw=True)) == 1
    told = capsys.readouterr().out
    assert "amplitude-quick holds what it held before: make it again with python -m paper_figs make F16" in told
    assert make_command(config(tmp_path, "F16")) == 0
    assert tiny_quick == ["amplitude", "amplitude"]
    assert json.loads(stored.read_text()) == now


def test_only_draw_makes_nothing_and_says_what_it_lacks(
    tmp_path: Path, tiny_quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_command(config(tmp_path, "F5", "F15", only_draw=True)) == 1
    assert not tiny_quick
    assert not (tmp_path / "runs").exists()
    printed = capsys.readouterr().out
    assert "F15 not drawn: there is no run" in printed
    assert "python -m paper_figs make F15 --preset quick" in printed
    assert (tmp_path / "figures" / "F5.png").is_file()
    assert "Not drawn" in (tmp_path / "figures" / "index.html").read_text()


def test_earlier_files_of_a_figure_that_is_left_out_are_not_published(tmp_path: Path, tiny_quick: list[str]) -> None:
    made = config(tmp_path, "F5", "F6")
    assert make_command(made) == 0
    assert make_command(replace(made, runs=tmp_path / "empty", only_draw=True)) == 1
    assert sorted(path.name for path in made.out.glob("F*")) == ["F5.pdf", "F5.png", "F5.txt"]
    guide_command(GuideConfig(figures=made.out, docs=tmp_path / "docs"))
    assert "![F6]" not in (tmp_path / "docs" / "figures.md").read_text()


@pytest.mark.parametrize("written", range(3))
def test_no_picture_stands_beside_the_caption_of_another_whenever_drawing_stops(
    written: int, tmp_path: Path, tiny_quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path, "F5")
    make_command(made)
    wrote: list[Path] = []

    def stopping(path: Path, content: bytes) -> None:
        if len(wrote) == written:
            raise KeyboardInterrupt
        wrote.append(path)
        write_durably(path, content)

    monkeypatch.setattr(files, "write_durably", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_command(made)
    assert len(wrote) == written
    with pytest.raises(InputError, match="has no figures"):
        guide_command(GuideConfig(figures=made.out, docs=tmp_path / "docs"))


def test_the_files_name_their_runs_with_commit_and_configuration(tmp_path: Path, tiny_quick: list[str]) -> None:
    make_command(config(tmp_path, "F6"))
    with Image.open(tmp_path / "figures" / "F6.png") as picture:
        (run,) = json.loads(picture.text["Runs"])
    assert run["run"] == "chebyshev-quick"
    assert run["config"]["hidden"] == [30, 30]
    environment = json.loads((tmp_path / "runs" / "chebyshev-quick" / "environment.json").read_text())
    assert run["commit"] == environment["commit"]
    assert b"chebyshev-quick" in (tmp_path / "figures" / "F6.pdf").read_bytes()


def test_drawing_alone_never_trains_and_names_the_command(tmp_path: Path, tiny_quick: list[str]) -> None:
    draw = DrawConfig(figures=("F6",), out=tmp_path / "figures", runs=tmp_path / "runs")
    with pytest.raises(InputError, match=f"python -m paper_figs make F6 --preset quick --runs {draw.runs}"):
        draw_command(draw)
    assert not tiny_quick
    assert not (tmp_path / "figures").exists()
    with pytest.raises(InputError, match="there is no figure F99"):
        draw_command(DrawConfig(figures=("F99",)))


def test_a_named_run_takes_the_place_of_the_preset_s(tmp_path: Path) -> None:
    store, out = tmp_path / "runs", tmp_path / "figures"
    obtain_run(store, "mine", TWO_LAYER, lambda: run_two_layer(TWO_LAYER, CPU, progress=False), device=CPU)
    draw_command(DrawConfig(figures=("F8",), out=out, runs=store, two_layer="mine"))
    assert sorted(p.name for p in out.iterdir()) == ["F8.pdf", "F8.png", "F8.txt"]
    with Image.open(out / "F8.png") as picture:
        assert json.loads(picture.text["Runs"])[0]["run"] == "mine"


def test_a_named_run_that_a_figure_cannot_draw_is_refused_in_one_line(tmp_path: Path) -> None:
    minibatches = one_network()
    minibatches["loss"].values[:, 1::2] = np.nan
    two_layer = tiny_runs().two_layer
    assert two_layer is not None
    obtain_run(tmp_path, two_layer_name("default"), TWO_LAYER, lambda: two_layer, device=CPU)
    for figure, data in (("F1", minibatches), ("F9", one_network().drop_vars("block_sharpness"))):
        obtain_run(tmp_path, figure, TWO_LAYER, functools.partial(lambda x: x, data), device=CPU)
        draw = DrawConfig(figures=(figure,), out=tmp_path / "figures", runs=tmp_path, network=figure)
        with pytest.raises(InputError, match=rf"^{figure} cannot be drawn: [^\n]*: give a run [^\n]*$"):
            draw_command(draw)
    assert not list((tmp_path / "figures").glob("F*"))


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        ({}, True),
        ({"optimizer": OptimizerChoice("adam")}, False),
        ({"intervention": Intervention("remove", (0, 1))}, False),
        ({"batches": Batches(size=10)}, False),
    ],
)
def test_a_run_of_another_rule_is_not_captioned_as_gradient_descent(
    change: dict[str, Any], plain: bool, tmp_path: Path
) -> None:
    obtain_run(tmp_path, "mine", NetworkConfig(**change), one_network, device=CPU)
    draw = DrawConfig(figures=("F1",), out=tmp_path / "figures", runs=tmp_path, network="mine")
    if plain:
        draw_command(draw)
        return
    with pytest.raises(InputError, match="--network is mine, which is not full-batch gradient descent on all"):
        draw_command(draw)
    assert not (tmp_path / "figures").exists()


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--preset is huge: give one of quick, standard, paper"):
        list_command(ListConfig(preset="huge", runs=tmp_path))


def test_the_paper_preset_asks_for_its_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --data the folder of the full CIFAR-10"):
        Sources(tmp_path, "paper").images()
    assert len(Sources(tmp_path, "standard").images().labels) == 2000


@pytest.mark.parametrize("preset", SWEEPS)
def test_every_need_of_every_figure_has_a_command_at_every_preset(preset: str, tmp_path: Path) -> None:
    of_preset = Sources(tmp_path, preset)
    assert {name: of_preset.unmade(entry) for name, entry in FIGURES.items() if of_preset.unmade(entry)} == {}


def test_the_quick_figures_are_the_standard_preset_s_first_seed(tmp_path: Path) -> None:
    names = [run.name for run in Sources(tmp_path, "quick").of("networks.base") or ()]
    base = PRESETS["standard"].setting("mlp").base
    assert names == [base(seed).name for seed in NETWORK_SEEDS["quick"]]
    assert set(NETWORK_SEEDS["quick"]) <= set(PRESETS["standard"].setting("mlp").seeds)


def test_shorter_runs_come_first_and_derived_ones_last(tmp_path: Path) -> None:
    missing = missing_runs(Sources(tmp_path, "quick"), FIGURES.values())
    assert len({run.name for run in missing}) == len(missing)
    order = [(run.derived, run.seconds) for run in missing]
    assert order == sorted(order)
    assert order[-1][0]


def test_the_list_says_what_is_there(tmp_path: Path, tiny_quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    make_command(config(tmp_path, "F6"))
    capsys.readouterr()
    list_command(ListConfig(runs=tmp_path / "runs"))
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("F6"))
    assert "C1, C4" in lines[at + 1]
    assert lines[at + 2].strip() == "all runs are there"
    assert any("missing" in line and "tail-quick" in line for line in lines)


def test_a_claim_s_verdict_stands_beside_its_figure_and_not_beside_others() -> None:
    entry = FigureEntry("F1", "shows", "C1, C4", (), lambda _: None, lambda _: "")  # type: ignore[arg-type, return-value]
    verdicts = [
        {"claim": "C1a", "holds": True, "statement": "s"},
        {"claim": "C14", "holds": True, "statement": "s"},
        {"claim": "C4b", "holds": False, "statement": "s"},
        {"claim": "C4a", "holds": False, "judged": False, "statement": "s"},
    ]
    assert verdicts_of(entry, verdicts) == [("C1a", "holds", "s"), ("C4b", "fails", "s"), ("C4a", "not judged", "s")]
    both = [{"claim": "C1a", "holds": True, "network": kind} for kind in ("mlp", "vgg11")]
    assert [name for name, _, _ in verdicts_of(entry, [*both, {"claim": "C1b", "network": ""}])] == [
        "C1a mlp",
        "C1a vgg11",
        "C1b",
    ]


def test_the_gallery_stands_alone_escapes_and_shows_verdicts(tmp_path: Path) -> None:
    entry = FigureEntry("F1", "a <b> & c", "C1", (), lambda _: None, lambda _: "")  # type: ignore[arg-type, return-value]
    Image.new("RGB", (1500, 700), "white").save(tmp_path / "F1.png")
    (tmp_path / "F1.pdf").write_bytes(b"")
    (tmp_path / "F1.txt").write_text("η < 1 & <script>alert()</script>")
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"claims": [{"claim": "C1", "holds": True, "statement": '"quoted" <i>'}]}))
    write_gallery(tmp_path, [entry, FIGURES["F5"]], report, {"F5": "it <lacks> a run"})
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "<i>" not in page.replace("<i>Outliers", "")
    assert "C1 holds" in page
    assert "it &lt;lacks&gt; a run" in page
    assert 'href="F1.pdf" download' in page
    assert "http" not in page.replace("http-equiv", "")
    report.write_text("{damaged")
    write_gallery(tmp_path, [entry], report)
    assert "No report was found" in (tmp_path / "index.html").read_text()
    # A picture of an earlier run is not shown as one of now.
    write_gallery(tmp_path, [entry], report, {"F1": "run x is damaged"})
    page = (tmp_path / "index.html").read_text()
    assert "0 of 1" in page
    assert "run x is damaged" in page
    assert 'href="F1.pdf" download' not in page


def test_the_guide_has_small_pictures_and_names_what_is_not_drawn(tmp_path: Path, tiny_quick: list[str]) -> None:
    make_command(config(tmp_path, *QUICK))
    docs = tmp_path / "docs"
    guide_command(GuideConfig(figures=tmp_path / "figures", docs=docs))
    text = (docs / "figures.md").read_text()
    assert all(f"![{name}](pictures/{name}.png)" in text for name in QUICK)
    assert "Not drawn here" in text
    sizes = [path.stat().st_size for path in (docs / "pictures").iterdir()]
    assert len(sizes) == len(QUICK)
    assert sum(sizes) / len(sizes) < 1.5e6 / 16
    with pytest.raises(InputError, match="has no figures"):
        guide_command(GuideConfig(figures=tmp_path / "none", docs=docs))


def test_a_need_that_is_no_need_is_an_error_of_the_figure() -> None:
    with pytest.raises(KeyError, match="a need is network"):
        Runs().get("sweep.tail")


def test_all_has_the_defaults_of_make() -> None:
    assert vars(AllConfig()).items() <= vars(MakeConfig()).items()


def test_runs_that_wait_for_different_base_runs_are_all_missing(tmp_path: Path) -> None:
    """F17 draws from a study of each step size of a seed: five that are derived from base runs not made yet."""
    runs = missing_runs(Sources(tmp_path, "quick"), [FIGURES["F17"]])
    waiting = [run.name for run in runs if run.derived and "gelu" in run.name]
    sizes = PREDICTION_NETWORKS["mlp_gelu"].steps
    assert len(waiting) == len(sizes)
    assert all(any(f"-lr{size:g}-" in name for name in waiting) for size in sizes)
