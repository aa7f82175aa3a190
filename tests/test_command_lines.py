"""Bad input is one line that names the value and the mend, exit status 2; each package explains itself."""

from __future__ import annotations

import errno
import os
import re
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tyro

from theory.command_line import InputError, main


def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("package", ["theory", "sim", "validate", "paper_figs"])
def test_each_package_explains_itself(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if package in ("theory", "paper_figs"):  # the last imports all the others
        done = call(package, "--help", cwd=tmp_path)
        status, said = done.returncode, done.stdout
    else:
        monkeypatch.setattr(sys, "argv", [package, "--help"])
        with pytest.raises(SystemExit) as stop:
            runpy.run_module(package, run_name="__main__", alter_sys=True)
        status, said = stop.value.code, capsys.readouterr().out
    assert not status
    assert f"python -m {package}" in said
    assert "subcommands" in said


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("validate", "--preset", "fast"), ("--preset is fast", "quick")),
        (("validate", "--lr", "-0.05"), ("--lr is -0.05", "above 0")),
        (("validate", "--lr", "five"), ("--lr", "five")),
        (("validate", "--device", "cuda:99"), ("--device is cuda:99", "cpu")),
        (("validate", "--seeds", "1", "1"), ("--seeds has 1 twice", "different")),
        (("validate", "--runs", "FILE/runs"), ("FILE/runs", "cannot be written")),
        (("validate", "--nonsense"), ("--nonsense",)),
        (("validate", "claims", "--claims", "C99"), ("no claim C99", "C16")),
        (("validate", "claims", "--network", "lenet"), ("--network is lenet", "vgg11")),
        (("validate", "relation", "gravity"), ("no relation gravity", "growth-factor")),
        (("validate", "relation", "interlacing", "--width", "0"), ("--width is 0", "1 to 1024")),
        (("validate", "interventions", "--kinds", "shrink"), ("--kinds is shrink", "recolour")),
        (("validate", "interventions", "--kinds", "clip", "clip"), ("--kinds has clip twice", "different")),
        (("validate", "interventions", "--network", "lenet"), ("--network is lenet", "vgg11")),
        (("validate", "interventions", "--held-out", "200"), ("--held-out is 200", "0 to 199")),
        (("validate", "score", "--images", "noise"), ("--images is noise", "gaussian")),
        (("validate", "score", "--lr", "0.05", "-1"), ("--lr is -1.0", "above 0")),
        (("validate", "data", "fetch", "--source", "nowhere"), ("nowhere", "cannot be read")),
        (("validate", "data", "fetch", "--source", "http://a/b"), ("--source is http:/a/b", "no address")),
        (("validate", "predict", "--network"), ("--network is empty", "at least one")),
        (("sim", "two-layer", "--name", "../x"), ("name is '../x'", "one word")),
        (("sim", "two-layer", "--sample-seeds", "3", "3"), ("--sample-seeds has 3 twice", "different")),
        (("theory", "derive", "--all", "T7"), ("--all is given with T7",)),
        (("theory", "predict", "--k", "1e8"), ("--k is 1e+08", "at most 1,000,000")),
        (("theory", "predict", "--alpha", "1e300"), ("--alpha is 1e+300", "python -m theory predict --help")),
        (("sim", "two-layer", "--fraction", "2"), ("--fraction is 2.0", "at most 1")),
        (("theory", "predict", "--alpha", "-1"), ("--alpha is -1.0", "above 0")),
        (("theory", "derive", "T99"), ("no statement T99", "T7")),
        (("paper_figs", "F99"), ("no figure F99", "F8")),
        (("paper_figs", "F8"), ("there is no run", "python -m paper_figs make F8")),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    words: tuple[str, ...],
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "FILE").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(words))
    # `python -m` without its process, most of whose time goes into imports; the tests above and below have processes.
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    line = capsys.readouterr().err.strip()
    assert stop.value.code == 2, line
    assert "\n" not in line
    assert "Traceback" not in line
    for name in names:
        assert name in line
    left = {p.name for p in tmp_path.iterdir()} - {"FILE", "data", "runs", "report"}
    assert left == set()
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "FILE"]


def test_a_process_ends_with_the_same_line_and_status(tmp_path: Path) -> None:
    done = call("validate", "--lr", "-0.05", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"[^\n]*--lr is -0\.05[^\n]*\n", done.stderr)
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_with_a_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        main({"go": interrupted}, prog="python -m it", description="it", args=["go"])
    assert stop.value.code == 130
    assert "reads what is finished and goes on from checkpoints" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:  # a program of one command, as benchmarks are, has no checkpoints
        main(interrupted, prog="python it.py", description="it", args=[])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "python it.py: interrupted\n"


@pytest.mark.parametrize("package", ["validate", "paper_figs"])
def test_an_interrupt_during_the_imports_ends_without_a_word(package: str) -> None:
    started = subprocess.Popen(
        [sys.executable, "-v", "-m", package, "--help"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert started.stderr is not None
    for line in started.stderr:  # Python's own words on what it imports
        if line.startswith("import 'numpy"):
            break
    started.send_signal(signal.SIGINT)
    words = started.stderr.read()
    assert started.wait() == -signal.SIGINT
    assert "Traceback" not in words
    assert "KeyboardInterrupt" not in words


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "change its permissions or give another folder"),
        (errno.ENAMETOOLONG, "give a shorter name"),
        (errno.EIO, "give another folder"),
    ],
)
def test_a_refusal_of_the_system_ends_with_a_line_and_status_2(
    number: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk while a report is written, a folder that may not be read."""

    def refused() -> int:
        raise OSError(number, os.strerror(number), "report/report.html")

    with pytest.raises(SystemExit) as stop:
        main({"go": refused}, prog="python -m it", description="it", args=["go"])
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert re.fullmatch(rf"python -m it: report/report\.html cannot be used \([^)\n]+\): {says}[^\n]*\n", line)


@dataclass(frozen=True)
class Lists:
    """Options with several values."""

    seeds: tuple[int, ...] = (0, 1)
    widths: tuple[int, ...] = field(default=(5, 5), metadata={"repeats": True})
    none: tuple[int, ...] = field(default=(0,), metadata={"may_be_empty": True})
    extra: tuple[str, ...] = ()
    ends: tuple[float, float] = (1.0, 1.0)
    perhaps: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Nested:
    """Holds them."""

    lists: tyro.conf.OmitArgPrefixes[Lists] = field(default_factory=Lists)


@pytest.mark.parametrize("config", [Lists, Nested])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", ""),
        ("--seeds", "--seeds is empty: give at least one"),
        ("--seeds 1 2 1", "--seeds has 1 twice: give different values"),
        ("--widths 7 7", ""),
        ("--widths", "--widths is empty"),  # what may repeat may not be empty
        ("--none", ""),
        ("--none 2 2", "--none has 2 twice"),
        ("--extra", ""),
        ("--extra a a", "--extra has a twice"),
        ("--ends 1 1", ""),
        ("--perhaps", "--perhaps is empty"),
        ("--perhaps 4 4", "--perhaps has 4 twice"),
    ],
)
def test_options_of_several_values_are_neither_empty_nor_repeated(
    config: type, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(given: Any) -> int:
        return 0

    command.__annotations__["given"] = config
    with pytest.raises(SystemExit) as stop:
        main({"go": command, "other": lambda: 0}, prog="python -m it", description="it", args=["go", *words.split()])
    assert stop.value.code == (2 if message else 0)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("--seeds 7", 0, ""),
        ("--help", 0, "usage: python one.py [-h]"),
        ("--seeds 1 1", 2, "python one.py: --seeds has 1 twice"),
        ("nosuch", 2, "see python one.py --help"),
    ],
)
def test_a_program_of_one_command_takes_its_options_without_a_word_before(
    words: str, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(given: Lists) -> None:
        assert given.seeds == (7,)

    command.__annotations__["given"] = Lists
    with pytest.raises(SystemExit) as stop:
        main(command, prog="python one.py", description="it", args=words.split())
    assert (stop.value.code or 0) == status
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_a_commands_status_is_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    def refuses() -> int:
        raise InputError("--x is 1: give 2")

    for command, status in ((lambda: 1, 1), (lambda: None, 0), (refuses, 2)):
        with pytest.raises(SystemExit) as stop:
            main({"go": command}, prog="python -m it", description="it", args=["go"])
        assert stop.value.code == status
    assert "--x is 1: give 2" in capsys.readouterr().err
