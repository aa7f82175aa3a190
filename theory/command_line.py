"""Command lines of the four packages: made from dataclasses, every error one line, exit status 2."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, get_type_hints

import numpy as np
import numpy.typing as npt
import tyro

BAD_INPUT = 2
"""Exit status of a run that was refused because of what it was given."""

Command = Callable[..., int | None]
Commands = Mapping[str, "Command | Commands"]


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names the value and the mend."""


def require_positive(name: str, value: float, *, zero_allowed: bool = False) -> None:
    """Refuses a number that is not finite and positive.

    Args:
        name: the option as the user knows it, such as ``--lr``.
        value: the number given.
        zero_allowed: whether zero passes too.

    Raises:
        InputError: the value is NaN, infinite, negative, or zero where zero has no meaning.

    >>> require_positive("--lr", 0.05)
    >>> require_positive("--lr", -0.05)
    Traceback (most recent call last):
    ...
    theory.command_line.InputError: --lr is -0.05: give a finite number above 0
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        bound = "of at least 0" if zero_allowed else "above 0"
        raise InputError(f"{name} is {value}: give a finite number {bound}")


def require_all(name: str, values: npt.NDArray[np.float64], good: npt.NDArray[np.bool_], mend: str) -> None:
    """Refuses an array with an entry that is not finite or not good, naming the first one and the mend.

    Raises:
        InputError: there is such an entry.
    """
    good = good & np.isfinite(values)
    if not good.all():
        raise InputError(f"{name} is {values[~good].ravel()[0]}: give {mend}")


def require_different(name: str, values: Sequence[Any]) -> None:
    """Refuses an empty list, and one with a value twice, which would make a run twice or count it as evidence twice.

    Raises:
        InputError: as said.

    >>> require_different("--seeds", (1, 2))
    >>> require_different("--seeds", (1, 2, 1))
    Traceback (most recent call last):
    ...
    theory.command_line.InputError: --seeds has 1 twice: give different values
    """
    if not values:
        raise InputError(f"{name} is empty: give at least one")
    if twice := [one for i, one in enumerate(values) if one in values[:i]]:
        raise InputError(f"{name} has {twice[0]} twice: give different values")


LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators; NumPy's take any that is not negative."""


def require_seed(name: str, seed: int) -> None:
    """Refuses a seed that the generators do not take.

    Raises:
        InputError: it is negative or too large.

    >>> require_seed("--seed", 0)
    >>> require_seed("--seed", -1)
    Traceback (most recent call last):
    ...
    theory.command_line.InputError: --seed is -1: give a whole number from 0 to 2^63 − 1
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"{name} is {seed}: give a whole number from 0 to 2^63 − 1")


def require_seeds(seeds: Sequence[int], name: str = "--seeds") -> None:
    """Refuses seeds that are repeated or that the generators do not take, and none at all.

    Raises:
        InputError: as said.
    """
    require_different(name, seeds)
    for seed in seeds:
        require_seed(name, seed)


_KEEPS = "; given again, the command reads what is finished and goes on from checkpoints, where there are some"


def main(
    commands: Commands | Command,
    *,
    prog: str,
    description: str,
    default: str | None = None,
    args: Sequence[str] | None = None,
) -> NoReturn:
    """Runs one command of a package, or a program of one command, and exits with its status.

    Args:
        commands: name → function whose signature (often one frozen dataclass) is the command's options; a
            nested mapping groups commands under a word, as in ``validate data fetch``. Or one such function, of a
            program that keeps nothing from one call to the next: then all words are its options.
        prog: how the user starts it, for help texts.
        description: one paragraph for ``--help``.
        default: the command meant when none is named.
        args: the words after ``prog``; ``sys.argv[1:]`` when not given.

    Raises:
        SystemExit: always; status 0, the command's own status, or 2 on bad input.
    """
    words = list(sys.argv[1:] if args is None else args)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as during the imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(_dispatch(commands, words, prog, description, default) or 0)
    except InputError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        where = "a file" if error.filename is None else error.filename
        print(f"{prog}: {where} cannot be used ({error.strerror or error}): {mend(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted{_KEEPS if isinstance(commands, Mapping) else ''}", file=sys.stderr)
        sys.exit(130)


def mend(error: OSError) -> str:
    """What the user can do about a refusal of the system.

    >>> mend(OSError(errno.EACCES, "Permission denied"))
    'change its permissions or give another folder'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room and give the same command again, which goes on from the last checkpoint"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "change its permissions or give another folder"
    if error.errno == errno.ENAMETOOLONG:
        return "give a shorter name"
    return "give another folder"


def _dispatch(
    commands: Commands | Command, words: list[str], prog: str, description: str, default: str | None
) -> int | None:
    if callable(commands):
        return _parse_and_call(commands, words, prog, description)
    if words and isinstance(group := commands.get(words[0]), Mapping):
        return _dispatch(group, words[1:], f"{prog} {words[0]}", f"{words[0]}: {description}", None)
    if default and (not words or words[0] not in (*commands, "-h", "--help")):
        words = [default, *words]
    if not words:
        words = ["--help"]
    return _parse_and_call(commands, words, prog, description)


def _parse_and_call(commands: Commands | Command, words: list[str], prog: str, description: str) -> int | None:
    complaint = io.StringIO()
    try:
        # tyro calls the chosen function itself; wrapping it keeps the function's own output unredirected.
        with contextlib.redirect_stderr(complaint):
            call = _parser(commands)(
                prog=prog,
                description=description,
                args=words,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        named = prog if callable(commands) or words[0] not in commands else f"{prog} {words[0]}"
        raise InputError(f"{_one_line(complaint.getvalue())}; see {named} --help") from None
    return call()


def _parser(commands: Commands | Command) -> Callable[..., Callable[[], int | None]]:
    if callable(commands):
        return functools.partial(tyro.cli, _delayed(commands))
    leaves = {name: _delayed(_leaf(name, entry)) for name, entry in commands.items()}
    return functools.partial(tyro.extras.subcommand_cli_from_dict, leaves)


def _leaf(name: str, entry: Command | Commands) -> Command:
    if callable(entry):
        return entry

    def group() -> int | None:
        raise InputError(f"{name} needs one of: {', '.join(entry)}")

    group.__doc__ = f"Commands: {', '.join(entry)}."
    return group


def _delayed(function: Command) -> Callable[..., Callable[[], int | None]]:
    """The same signature, but returns the call to make once parsing is over."""

    @functools.wraps(function)
    def parsed(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        _require_lists(inspect.signature(function).bind(*args, **kwargs).arguments, get_type_hints(function))
        return functools.partial(function, *args, **kwargs)

    return parsed


Fields = Mapping[str, "dataclasses.Field[Any]"]


def _require_lists(values: Mapping[str, Any], types: Mapping[str, Any], fields: Fields | None = None) -> None:
    """Applies `require_different` to options of a type ``tuple[X, ...]``, in dataclasses to any depth.

    Fields whose metadata say ``repeats`` may repeat a value; those whose default is empty, or whose metadata say
    ``may_be_empty``, may be empty.
    """
    for name, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner = {field.name: field for field in dataclasses.fields(value)}
            _require_lists({key: getattr(value, key) for key in inner}, get_type_hints(type(value)), inner)
        elif isinstance(value, tuple) and "..." in str(types.get(name)):
            field = (fields or {}).get(name)
            rights = {} if field is None else field.metadata
            empty_by_right = field is not None and (field.default == () or "may_be_empty" in rights)
            if value or not empty_by_right:
                require_different(
                    f"--{name.replace('_', '-')}", tuple(dict.fromkeys(value)) if "repeats" in rights else value
                )


def _one_line(box: str) -> str:
    """Folds tyro's boxed message to its first paragraph in one line."""
    # tyro names a wrapping class of its own before the message of ours.
    box = re.sub(r"Error parsing (?!-)[\w.-]*: ", "", box)
    kept: list[str] = []
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ \t")
        if re.fullmatch(r"─{8,}", text) and kept:
            break
        if text and not re.match(r"─ .* ─+$", text):
            kept.append(text)
    return " ".join(kept) or "these options do not fit"
