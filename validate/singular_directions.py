"""Singular vectors of the matrix of loss changes (steps × examples), from a record that need not fit in memory.

With D the (T, n) changes and T ≤ n, the T × T Gram matrix D Dᵀ = Σ_blocks D_block D_blockᵀ is summed over blocks of
examples; its eigenvectors u_k are D's left singular vectors, and a second pass gives σ_k v_k = Dᵀu_k. With more steps
than examples the n × n matrix DᵀD is summed over blocks of steps instead. Apart from a block, only the Gram matrix and
the vectors asked for are held. The Gram matrix squares the singular values: those below 10⁻⁷ of the first are lost in
its rounding, and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.linalg import eigh

from theory.command_line import InputError, require_positive

Array = npt.NDArray[np.float64]

BLOCK_BYTES = 1 << 28
"""Size of a block of loss changes in float64."""
RESOLUTION = 1e-7
"""Singular values below this share of the first are rounding of the Gram matrix: √(2⁻⁵³), with a margin."""


@dataclass(frozen=True)
class SingularDirections:
    """Leading singular triplets of the loss changes, the strongest first.

    Attributes:
        values: (k,) singular values.
        directions: (k, n) unit right singular vectors, over examples; the largest entry of each is positive.
        phases: (k, steps) unit left singular vectors, over the steps between successive rows of losses.
        total: sum of the squares of all changes, Σ_j σ_j² over every j.
    """

    values: Array
    directions: Array
    phases: Array
    total: float

    @property
    def energy(self) -> Array:
        """(k,) share of the squared loss changes that each direction carries; 0 where nothing changes."""
        return self.values**2 / (self.total or 1.0)


def singular_directions(
    losses: npt.ArrayLike | xr.DataArray, *, count: int = 3, block_bytes: int = BLOCK_BYTES
) -> SingularDirections:
    """The leading singular vectors of the loss changes, by blocks.

    Args:
        losses: (steps, n) losses of every example; an array, or a variable of a run opened lazily, of which a block at
            a time is read. Two passes are made over it.
        count: number of triplets.
        block_bytes: size of a block of changes in float64; at least one row or column is taken.

    Returns:
        At most `count` triplets: fewer where the window is short, or the changes have a lower rank.

    Raises:
        InputError: fewer than two steps, a loss that is not finite, or a variable whose steps come second.

    >>> swing = singular_directions(np.outer([1.0, -1.0, 1.0], [3.0, -4.0]))
    >>> swing.directions.round(3), swing.values.round(3), swing.energy
    (array([[-0.6,  0.8]]), array([14.142]), array([1.]))
    """
    require_positive("number of directions", count)
    table = losses if isinstance(losses, xr.DataArray) else np.asarray(losses)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise InputError(f"losses have shape {list(table.shape)}: give at least two steps × one example")
    if isinstance(losses, xr.DataArray) and losses.dims[1] == "step":
        raise InputError(f"losses are {' × '.join(map(str, losses.dims))}: give steps × examples, as .T gives them")
    steps, n = table.shape[0] - 1, table.shape[1]
    wide = steps <= n

    def blocks() -> Iterator[tuple[slice, Array]]:
        """Changes by blocks of the longer side, (steps, block) or (block, n)ᵀ: the shorter side comes first."""
        across = max(1, block_bytes // (8 * min(steps, n)))
        for begin in range(0, max(steps, n), across):
            part = slice(begin, min(begin + across, max(steps, n)))
            yield part, _changes(table, slice(0, steps), part) if wide else _changes(table, part, slice(0, n)).T

    short, values, total = _leading_of_gram(blocks, min(steps, n), count)
    long = np.empty((len(values), max(steps, n)))
    for part, changes in blocks():
        long[:, part] = short @ changes
    # σ_k = ‖Dᵀu_k‖ has more digits than the root of the Gram matrix's eigenvalue.
    values = np.linalg.norm(long, axis=1)
    long /= np.where(values > 0, values, 1.0)[:, None]
    phases, directions = (short, long) if wide else (long, short)
    # A singular vector's sign is arbitrary; its largest entry is made positive so that reruns agree.
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1))
    signs[signs == 0] = 1.0
    return SingularDirections(values, directions * signs, phases * signs, total)


def _leading_of_gram(
    blocks: Callable[[], Iterator[tuple[slice, Array]]], size: int, count: int
) -> tuple[Array, Array, float]:
    """Leading eigenvectors (rows), roots of the eigenvalues and trace of Σ_blocks D_block D_blockᵀ."""
    gram = np.zeros((size, size))
    for _, changes in blocks():
        gram += changes @ changes.T
    count = min(count, size)
    squares, vectors = eigh(gram, subset_by_index=(size - count, size - 1))
    values = np.sqrt(np.maximum(squares[::-1], 0))
    kept = (values > RESOLUTION * values[0]) | (np.arange(count) == 0)
    return np.ascontiguousarray(vectors[:, ::-1].T[kept]), values[kept], float(np.trace(gram))


def _changes(table: npt.NDArray[np.floating] | xr.DataArray, steps: slice, examples: slice) -> Array:
    """The changes of a block: what is not read yet is read here."""
    rows = np.asarray(table[steps.start : steps.stop + 1, examples], dtype=np.float64)
    if not np.isfinite(rows).all():
        raise InputError(
            "losses hold numbers that are not finite: give full-batch steps (a minibatch leaves examples out)"
        )
    return np.diff(rows, axis=0)
