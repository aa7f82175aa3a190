"""The benchmarks refuse bad input before any work, count what they say they count, and end when a child does."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sim import mlp
from theory.command_line import InputError

FOLDER = Path(__file__).parents[1] / "benchmarks"
PROGRAMS = sorted(
    file.stem for file in FOLDER.glob("*.py") if 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")
)


def start(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> int:
    """Status of ``python benchmarks/NAME.py WORDS``, without its process, most of whose time goes into imports."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return int(stop.value.code or 0)


def module(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """A benchmark, or what benchmarks share, as a module; its name, which may be a general one, is taken back."""
    monkeypatch.syspath_prepend(FOLDER)
    found = importlib.import_module(name)
    del sys.modules[name]
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(monkeypatch, name, "--help") == 0
    assert f"usage: python benchmarks/{name}.py [-h]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("batched_networks --repeat 0", "--repeat is 0: give"),
        ("convolutional_networks nosuch", "there is no network nosuch: give some of vgg11,"),
        ("convolutional_networks --rounds 0", "--rounds is 0: give"),
        ("convolutional_networks --threads 0", "--threads is 0: give"),
        ("convolutional_networks --threads 1 0", "--threads is 0: give"),
        ("curvature nosuch", "'nosuch'.*'cost'"),
        ("distributed --rounds 0", "--rounds is 0: give"),
        ("distributed --seconds 0", "--seconds is 0.0: give"),
        ("distributed --part ranks", "--part is ranks without --file: give"),
        ("exact_sharpness nosuch", "nosuch"),
        ("loss_store --steps 0", "--steps is 0: give"),
        ("loss_store --examples 0", "--examples is 0: give"),
        ("loss_store --folder nosuch", "--folder is nosuch, which is no folder: make it"),
        ("loss_store --formats float65", "'float65'.*'float32'"),
        ("loss_store --part row", "--part is row without --folder: give"),
        ("monitored_run nosuch", "nosuch"),
        ("monitored_run --quick", "--quick"),
        ("overtaking vgg --help", "'vgg'.*'vgg11'"),
        ("overtaking vgg", "'vgg'.*'vgg11'"),
        ("overtaking --seeds", "--seeds"),
        ("overtaking --seeds x", "--seeds.*'x'"),
        ("overtaking --seeds 0", "--seeds is 0: give"),
        ("product_memory --bound 0", "--bound is 0: give"),
        ("second_moments nosuch", "'nosuch'.*'throughput'"),
        ("second_moments 1x", "'1x'.*'throughput'"),
        ("second_moments examples --largest 1e3", "--largest is 1000: give at least 10,000"),
        ("side_by_side nosuch", "'nosuch'.*'vgg11'"),
        ("side_by_side --jobs 0", "--jobs is 0: give"),
        ("side_by_side --runs 0", "--runs is 0: give"),
        ("side_by_side --steps 0", "--steps is 0: give"),
    ],
)
def test_bad_input_is_one_line_and_status_two_before_any_work(
    words: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = words.split()
    assert start(monkeypatch, name, *rest) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(rf"python benchmarks/{name}\.py: [^\n]*{says}[^\n]*\n", said.err), said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sizes", [(5, 3), (7, 6, 4), (9, 8, 5, 3)])
def test_operations_of_a_step_are_those_that_autograd_takes(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = mlp(sizes, "relu", seed=0), torch.randn(11, sizes[0])
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    expected = module(monkeypatch, "perceptron_operations").step_operations(sizes, len(x))
    assert counter.get_total_flops() == expected


def test_the_clock_of_the_reference_holds_the_products_that_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, calls = np.diag(np.arange(1.0, 31.0, dtype=np.float32)), []

    def product(vector: np.ndarray) -> np.ndarray:
        calls.append(1)
        return matrix @ vector

    found = module(monkeypatch, "monitored_run").eigsh_pair(product, 30, basis=10)
    assert len(calls) == found.products  # none for the residual, which the reference has no need of
    assert found.value == pytest.approx(30.0, rel=1e-3)
    assert found.residual(product) < 1e-2


def test_a_child_that_refuses_or_dies_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise InputError("--bound is 1: give more")

    forking = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: forking)  # spawned ones would import for seconds
    apart = module(monkeypatch, "product_memory").apart
    assert apart(lambda *numbers: numbers, 1, 2) == (1, 2)
    with pytest.raises(InputError, match="--bound is 1: give more"):
        apart(refuses)
    with pytest.raises(InputError, match="ended with status 3"):
        apart(os._exit, 3)
