"""Several processes that work as one, started by torchrun; without it, one process, to which all of this is nothing.

    torchrun --nproc-per-node 2 -m sim sweep phase      each rank makes its share of the sweep's units
    torchrun --nproc-per-node 2 -m validate             each rank takes its share of the examples of every step

Tensors travel by gloo on CPUs and by nccl on GPUs, one GPU a rank. What a rank does by itself (`alone`) is what a
single process does. All ranks run the same program, in the same order, on one kind of machine, and see the run store
in one folder; only the first writes what they make together, prints, and shows progress.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from theory.command_line import InputError

T = TypeVar("T")

_PATIENCE = datetime.timedelta(days=14)
"""A rank may wait for hours while another makes a long unit. One that ends is noticed at once, by its connections."""

_alone: ContextVar[bool] = ContextVar("alone", default=False)


class RankLost(InputError):
    """Another rank ended or failed, so that this one cannot go on."""


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started, for as long as the block runs; nothing without torchrun.

    Goes around a program's `main`. Ranks other than the first print nothing on standard output.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local_device())
    with _noticing_loss():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE)
    with ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        if not is_first():
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        yield


def rank_count() -> int:
    """Number of processes that work together on what runs now; 1 inside `alone`."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def rank() -> int:
    """This process's number among them, from 0; 0 inside `alone`."""
    return dist.get_rank() if rank_count() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that prints and shows progress; inside `alone` as outside."""
    return not dist.is_initialized() or dist.get_rank() == 0


def local_device() -> torch.device:
    """The GPU of this rank: that of its number on this machine; the first GPU without torchrun."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes by itself: it is the only rank, and sums over ranks are its own numbers."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def own(units: Sequence[T]) -> Sequence[T]:
    """This rank's share of the units, dealt round robin: every unit is one rank's.

    >>> own(["a", "b", "c"])  # of one rank
    ['a', 'b', 'c']
    """
    return units[rank() :: rank_count()]


@contextmanager
def sharing(units: Sequence[T]) -> Iterator[Sequence[T]]:
    """Gives this rank its share of the units, to be worked on alone; the block ends when all ranks have done theirs.

    >>> with sharing([1, 2, 3]) as mine:
    ...     print(mine)
    [1, 2, 3]

    Raises:
        RankLost: another rank failed. The units that this one has finished stay.
    """
    mine = own(units)
    with _failing_together(), alone():
        yield mine


def first_only(work: Callable[[], object]) -> None:
    """Has the first rank do the work, alone; returns on every rank when it is done.

    Raises:
        RankLost: it failed, on the other ranks.
    """
    with _failing_together():
        if rank() == 0:
            with alone():
                work()


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    with _failing_together():
        pass


def from_first(value: T) -> T:
    """The first rank's value, on every rank; plain values and tensors."""
    if rank_count() == 1:
        return value
    box = [value]
    with _noticing_loss():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over the ranks, in one message; the ranks get the same bits.

    Args:
        tensors: of one type and device, of the same shapes on every rank.
    """
    if rank_count() == 1 or not tensors:
        return
    message = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _noticing_loss():
        dist.all_reduce(message)
    for tensor, part in zip(tensors, torch.split(message, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def own_slice(count: int, begin: int = 0) -> slice:
    """This rank's share of a range: the ranks' shares follow each other in order, and differ by one at most.

    >>> own_slice(5)  # of one rank
    slice(0, 5, None)
    """
    return slice(*(begin + count * r // rank_count() for r in (rank(), rank() + 1)))


def own_pieces(parts: Sequence[slice | Tensor], *, whole: bool = False) -> list[slice | Tensor]:
    """This rank's share of a batch that is given as indices of chunks.

    Args:
        parts: the chunks, slices of step 1 or tensors of indices.
        whole: deals whole chunks round robin, for a network whose loss depends on them; otherwise each chunk is cut
            into one piece a rank, which is even. Both may leave a rank without any.

    >>> own_pieces([slice(0, 3), slice(3, 5)])  # of one rank
    [slice(0, 3, None), slice(3, 5, None)]
    """
    if rank_count() == 1 or whole:
        return list(own(parts))
    pieces = [
        own_slice(part.stop - part.start, part.start) if isinstance(part, slice) else part[own_slice(len(part))]
        for part in parts
    ]
    return [p for p in pieces if (p.start < p.stop if isinstance(p, slice) else len(p))]


def join_pieces(values: Tensor, parts: Sequence[slice | Tensor], pieces: Sequence[slice | Tensor]) -> None:
    """Completes values of examples, of which every rank has those of its own pieces of a batch.

    Args:
        values: (n,) values, right in `pieces`; afterwards in all of `parts`, with the same bits on every rank.
        parts: the batch.
        pieces: what `own_pieces` gave of it.
    """
    if rank_count() == 1:
        return
    known = torch.zeros_like(values)
    for piece in pieces:
        known[piece] = values[piece]
    sum_over_ranks([known])
    for part in parts:
        values[part] = known[part]


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces the parameters' gradients by their sums over the ranks; None where no rank has one.

    Optimisers leave a parameter without a gradient as it is, and would decay the weights of one whose gradient is 0.
    """
    if rank_count() == 1 or not parameters:
        return
    missing = [parameter for parameter in parameters if parameter.grad is None]  # a rank without a piece has none
    there = torch.tensor([float(p.grad is not None) for p in parameters]).to(parameters[0])
    for parameter in missing:
        parameter.grad = torch.zeros_like(parameter)
    sum_over_ranks([*(parameter.grad for parameter in parameters if parameter.grad is not None), there])
    if missing:
        for parameter, count in zip(parameters, there.tolist(), strict=True):
            parameter.grad = parameter.grad if count else None


@contextmanager
def _failing_together() -> Iterator[None]:
    """At the end of the block waits for all ranks; if one failed inside, none goes on."""
    if rank_count() == 1:
        yield
        return
    try:
        yield
    except Exception as error:  # an interrupt or an exit is not shared: the connections it closes say enough
        with suppress(RankLost):
            _compare(str(error).partition("\n")[0] or type(error).__name__)
        raise
    _compare("")


def _compare(failure: str) -> None:
    said: list[str] = [""] * rank_count()
    with _noticing_loss():
        dist.all_gather_object(said, failure)
    failed = [r for r, words in enumerate(said) if words]
    if failed and not failure:
        raise RankLost(f"rank {rank()} stops, as rank {failed[0]} failed: {said[failed[0]]}")


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """Turns a broken connection into one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        me = os.environ.get("RANK", "0")  # also where the ranks have not met yet
        raise RankLost(f"rank {me} stops, as another rank has ended; what it said tells why ({reason})") from None
