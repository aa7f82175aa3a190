"""C13: batch normalisation lessens the imbalance between opposing groups over minibatches.

SGD on minibatches sees each example once an epoch. A run's table of losses (epochs × examples) gives its own opposing
groups, as full-batch steps do elsewhere: the strongest pair of the table's changes over the first half of the epochs
compared. Over the second half, each example's loss less its own mean is averaged over the members of a group that a
minibatch holds; the variance over minibatches of the difference of the two groups is the imbalance, taken over that of
random groups of the same size, whose difference varies too. Both runs are compared at equal loss: at epochs with a mean
loss that the run without normalisation has in the second half of its training, and at least six; batch normalisation
is faster, so that its six may reach below.

Pilot (seeds 100–102, VGG-11 of an eighth of the width, 200 images, 300 steps): 0.60, 0.20, 0.59.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from validate.claims.base import Bound, Claim, NetworkEvidence
from validate.equal_loss import first_at_or_below
from validate.opposing_groups import OpposingPair, random_pair_like, singular_pairs

Array = npt.NDArray[np.float64]

GROUP_SHARE = 0.05
"""Each group holds so much of the examples, so that a minibatch holds some of each."""
LEAST_EPOCHS = 6
DRAWS = 100


def steps_an_epoch(run: xr.Dataset) -> int:
    """Number of minibatches in which every example comes once: the first step that sees example 0 again, at most."""
    seen = np.cumsum(np.isfinite(run["loss"].values).sum(1))
    return int(np.searchsorted(seen, run.sizes["example"])) + 1


def by_epoch(run: xr.Dataset) -> tuple[Array, npt.NDArray[np.int64]]:
    """(epochs, n) loss of every example in each whole epoch, and (epochs, n) the minibatch of the epoch it came in."""
    each = steps_an_epoch(run)
    losses = np.asarray(run["loss"].values, dtype=np.float64)
    epochs = len(losses) // each
    table = losses[: epochs * each].reshape(epochs, each, -1)
    return np.nansum(table, axis=1), np.isfinite(table).argmax(1)


def imbalance(table: Array, batch: npt.NDArray[np.int64], seed: int) -> tuple[float, Array]:
    """Variance over minibatches of the gap of a run's own groups, over that of random groups (median of draws).

    Args:
        table: (epochs, n) losses; groups are chosen on the first half of the epochs and judged on the second.
        batch: (epochs, n) minibatch in which each example came.
        seed: of the random groups; the same seed draws the same groups for two runs.

    Returns:
        The imbalance, and the (draws,) same with each of the random groups in the place of the run's own.
    """
    middle, n = len(table) // 2, table.shape[1]
    own = singular_pairs(table[:middle], count=1, size=max(1, int(GROUP_SHARE * n)))[0]
    judged, batches = table[middle:] - table[middle:].mean(0), batch[middle:]
    rng = np.random.default_rng(seed)
    chance = np.array([_gap_variance(judged, batches, random_pair_like(own, n, rng)) for _ in range(DRAWS)])
    level = float(np.median(chance))
    return _gap_variance(judged, batches, own) / level, chance / level


def _gap_variance(judged: Array, batches: npt.NDArray[np.int64], pair: OpposingPair) -> float:
    """Variance, over minibatches that hold some of both groups, of the difference of the groups' mean losses."""
    each = int(batches.max()) + 1
    number = batches + each * np.arange(len(batches))[:, None]
    means, held = [], np.ones(each * len(batches), dtype=bool)
    for side in (pair.positive, pair.negative):
        members = number[:, side].ravel()
        count = np.bincount(members, minlength=len(held))
        means.append(np.bincount(members, judged[:, side].ravel(), len(held)) / np.maximum(count, 1))
        held &= count > 0
    return float(np.var((means[0] - means[1])[held]))


def normalisation_ratio(evidence: NetworkEvidence) -> tuple[float, float]:
    """Imbalance with batch normalisation over that without, at equal loss; and the median of random groups' ratios.

    NaN where there are too few epochs at the same loss.
    """
    if (compared := at_equal_loss(evidence)) is None:
        return float("nan"), float("nan")
    (own, random), (own_without, random_without) = (imbalance(*epochs, evidence.seed) for epochs in compared)
    return own / own_without, float(np.median(random / random_without))


def at_equal_loss(evidence: NetworkEvidence) -> list[tuple[Array, npt.NDArray[np.int64]]] | None:
    """The epochs that are compared, with batch normalisation and without, as `by_epoch` has them.

    None where there are too few at the same loss.
    """
    tables = [by_epoch(evidence.runs[role]) for role in ("batch_norm", "no_batch_norm")]
    plain = tables[1][0].mean(1)
    high, low = plain[len(plain) // 2 : len(plain) // 2 + 3].mean(), plain[-3:].mean()
    found = []
    for table, batch in tables:
        mean = table.mean(1)
        begin, end = first_at_or_below(mean, high), first_at_or_below(mean, low)
        if begin is None or end is None or len(mean) - begin < LEAST_EPOCHS:
            return None
        epochs = slice(begin, max(end + 1, begin + LEAST_EPOCHS))
        found.append((table[epochs], batch[epochs]))
    return found


CLAIMS = (
    Claim(
        name="C13",
        statement="Batch normalisation lessens the imbalance between opposing groups under SGD.",
        statistic="variance over minibatches of the group gap, over random groups', with batch norm over without",
        bound=Bound(high=0.9),
        control="random groups in the place of the opposing ones (median of 100)",
        measure=lambda evidence: [normalisation_ratio(e)[0] for e in evidence.networks],
        measure_control=lambda evidence: [normalisation_ratio(e)[1] for e in evidence.networks],
        figure="F12",
        needs=("batch_norm", "no_batch_norm"),
        networks=("vgg11",),
    ),
)
