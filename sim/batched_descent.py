"""Many two-layer linear networks f = aᵀV z descend at once, from second moments alone.

With effective weights v = Vᵀa and g = ∂_v L the gradients are ∂_a L = V g and ∂_V L = a gᵀ: an elementwise step of
O(d) a run where the moments are diagonal, one batched matrix product of O(d²) else. Everything recorded is computed
from the batch, on its device. Width m = 1 is the network f = c wᵀz of `theory.model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.progress import progress_bar
from sim.second_moments import DiagonalMoments, Moments, SecondMoments
from sim.secular_equation import largest_root
from sim.update_rules import Rule
from theory import State
from theory.command_line import InputError, require_positive

BATCH_DIMENSIONS = {1: ("run",), 2: ("set", "run")}


def stack_states(states: Sequence[State]) -> Tensor:
    """States of the network of width 1 as one batch of weights (n, 1, 1 + d1 + J), float64 on the CPU.

    >>> stack_states([State(2.0, [1.0], [0.5])])
    tensor([[[2.0000, 1.0000, 0.5000]]], dtype=torch.float64)
    """
    return torch.from_numpy(np.stack([state.vector for state in states]))[:, None, :]


def descend_batch(
    moments: SecondMoments,
    start: Tensor,
    rule: Rule,
    steps: int,
    *,
    record_every: int = 1,
    groups: Mapping[str, SecondMoments] | None = None,
    pairs: int = 1,
    sharpness: bool = True,
    keep_weights: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Descends every run of a batch by one rule, each run with its own data, start and step size.

    Args:
        moments: second moments; their leading axes broadcast against the batch's. For many runs on each of a few
            samples give `moments.shared()` (set, 1, …) and starts (set, run, …): then a step is one matrix product a
            sample. A sample's `moments.diagonal` runs at O(d) a step, under rules that a rotation leaves as they are.
        start: (run, m, 1 + d) or (set, run, m, 1 + d) weights (a, V) at step 0, in the features' own coordinates; their
            type and device are those the runs are made in.
        rule: the update rule.
        steps: number of steps.
        record_every: steps between records; steps 0, record_every, … are recorded.
        groups: moments of groups of examples, in the features' own coordinates, whose losses are recorded.
        pairs: number J of opposing features, which stand last: their effective weights are recorded.
        sharpness: whether to record the sharpness. It costs O(d) a run at width 1 (a secular equation), and an
            eigenvalue problem of size d + 2m − 1 a run at larger widths.
        keep_weights: whether to record all weights.
        progress: whether to show a progress bar.

    Returns:
        Data set with dimensions ``step`` and those of the batch: ``loss``, ``loss_<group>``, ``sharpness``,
        ``first_layer`` and ``last_layer`` (largest eigenvalues of the layers' diagonal blocks), ``balancedness``
        (‖a‖² − ‖V‖²), ``last_layer_norm`` ‖a‖, ``opposing`` (…, pair) effective opposing weights, with `keep_weights`
        ``weights``; and without step ``diverged_at``, the first step at which a run's weights are not finite, −1 if
        they always are. What is recorded from then on is NaN.

    Raises:
        InputError: shapes do not fit, a number is out of its range, or the rule does not bear the rotation.
    """
    require_positive("steps", steps)
    require_positive("record_every", record_every)
    batch = start.shape[:-2]
    if len(batch) not in BATCH_DIMENSIONS:
        raise InputError(f"start has shape {tuple(start.shape)}: give (run, m, 1 + d) or (set, run, m, 1 + d)")
    moments = moments.to(start.device, start.dtype)
    groups = {name: group.to(start.device, start.dtype) for name, group in (groups or {}).items()}
    _require_fit(moments, start)
    basis = moments.basis if isinstance(moments, DiagonalMoments) else None
    if basis is not None and not rule.rotation_equivariant:
        raise InputError(f"{type(rule).__name__} acts on coordinates: give it the sample's own moments, not diagonal")
    theta = start.clone()
    if basis is not None:
        theta[..., 1:] = _apply(theta[..., 1:], basis)

    gradient = torch.empty_like(theta)
    take_step = rule.start(theta)
    finite_steps = torch.zeros(batch, dtype=torch.int64, device=theta.device)
    records: list[dict[str, Tensor]] = []
    kept: list[Tensor] = []
    for t in progress_bar(range(steps + 1), "descent from second moments", show=progress):
        finite = theta.sum((-2, -1)).isfinite()
        finite_steps += finite
        a, first = theta[..., :1], theta[..., 1:]
        g = moments.residual(_effective(theta))
        if t % record_every == 0:
            records.append(_record(moments, theta, groups, pairs, sharpness))
            if keep_weights:
                kept.append(theta.clone())
        if t < steps:
            # ∂_a L = V g, ∂_V L = a gᵀ
            torch.sum(first * g[..., None, :], -1, keepdim=True, out=gradient[..., :1])
            torch.mul(a, g[..., None, :], out=gradient[..., 1:])
            take_step(theta, gradient)
    return _dataset(records, kept, finite_steps, steps, record_every, basis)


def _effective(theta: Tensor) -> Tensor:
    """(..., d) v = Vᵀa."""
    a, first = theta[..., :1], theta[..., 1:]
    if theta.shape[-2] == 1:
        return (a * first).squeeze(-2)
    return (a * first).sum(-2)


def _record(
    moments: SecondMoments, theta: Tensor, groups: Mapping[str, SecondMoments], pairs: int, sharpness: bool
) -> dict[str, Tensor]:
    """Everything recorded at one step, each of the batch's shape."""
    a, first, v = theta[..., 0], theta[..., 1:], _effective(theta)
    eigen = moments.diagonal
    if isinstance(moments, DiagonalMoments):
        in_eigenbasis = first
        own = v if moments.basis is None else _apply(v[..., None, :], moments.basis.mT)[..., 0, :]
    else:
        assert eigen.basis is not None
        in_eigenbasis, own = _apply(first, eigen.basis), v
    a_squared = (a * a).sum(-1)
    recorded = {
        "loss": moments.value(v),
        "first_layer": a_squared * eigen.curvature.amax(-1),  # ‖a‖² times G's largest eigenvalue
        "balancedness": a_squared - (first * first).sum((-2, -1)),
        "last_layer_norm": a_squared.sqrt(),
        "opposing": own[..., own.shape[-1] - pairs :],
    }
    recorded |= {f"loss_{name}": group.value(own) for name, group in groups.items()}
    curvature = eigen.curvature[..., None, :]
    if theta.shape[-2] == 1:
        recorded["last_layer"] = (curvature * in_eigenbasis**2).sum((-2, -1))
        if sharpness:
            c, w = a[..., 0], in_eigenbasis[..., 0, :]
            # the arrow matrix over (c, w): corner Σ λw², arms λ(2cw − τ), diagonal λc²
            arms = eigen.curvature * (2 * c[..., None] * w - eigen.target)
            recorded["sharpness"] = largest_root(recorded["last_layer"], arms, (c * c)[..., None] * eigen.curvature)
    else:
        block = (in_eigenbasis * curvature) @ in_eigenbasis.mT  # VGVᵀ
        recorded["last_layer"] = _top_eigenvalue(block)
        if sharpness:
            recorded["sharpness"] = _top_eigenvalue(_reduced_hessian(eigen, a, in_eigenbasis))
    return recorded


def _reduced_hessian(eigen: DiagonalMoments, a: Tensor, first: Tensor) -> Tensor:
    """(..., d + 2m − 1, d + 2m − 1) matrix whose eigenvalues are those of the Hessian over (a, V), zeros apart.

    Turn the hidden units so that a = ±‖a‖ e₁. With δa = α and rows δV = (p, rows across a) the second variation is

        (‖a‖ p + Vᵀα)ᵀ G (‖a‖ p + Vᵀα) + 2 α₁ gᵀp + 2 Σ_{i≥2} α_i gᵀ(row i),

    so of each row across a only its part along g counts: m + d + (m − 1) coordinates are left.
    """
    m, d = first.shape[-2:]
    a, first = _turn_to_first_axis(a, first)
    height = a[..., 0]
    g = eigen.residual(height[..., None] * first[..., 0, :])
    scaled = first * eigen.curvature[..., None, :]
    matrix = first.new_zeros(*a.shape[:-1], d + 2 * m - 1, d + 2 * m - 1)
    matrix[..., :m, :m] = scaled @ first.mT
    arms = height[..., None, None] * scaled
    arms[..., 0, :] += g
    matrix[..., :m, m : m + d] = arms
    matrix[..., m : m + d, :m] = arms.mT
    matrix.diagonal(dim1=-2, dim2=-1)[..., m : m + d] = (height**2)[..., None] * eigen.curvature
    across, along = torch.arange(1, m), torch.arange(m + d, d + 2 * m - 1)
    size = g.norm(dim=-1, keepdim=True)
    matrix[..., across, along] = size
    matrix[..., along, across] = size
    return matrix


def _turn_to_first_axis(a: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """A Householder reflection of the hidden units that takes a to ∓‖a‖ e₁; nothing moves where a = 0."""
    u = a.clone()
    u[..., 0] += torch.copysign(a.norm(dim=-1), a[..., 0])
    square = (u * u).sum(-1, keepdim=True)
    unit = u / torch.where(square > 0, square, 1.0).sqrt()
    reflected = first - 2 * unit[..., :, None] * (unit[..., None, :] @ first)
    return a - 2 * unit * (unit * a).sum(-1, keepdim=True), reflected


def _top_eigenvalue(matrix: Tensor) -> Tensor:
    """Largest eigenvalue of each symmetric matrix; NaN where an entry is not finite, which LAPACK would refuse."""
    finite = matrix.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], matrix, 0.0)
    return torch.where(finite, torch.linalg.eigvalsh(safe)[..., -1], torch.nan)


def _apply(rows: Tensor, matrix: Tensor) -> Tensor:
    """(..., m, d) rows times (..., d, d) matrices; one product a sample where its runs share the matrix."""
    if matrix.ndim > 2 and matrix.shape[-3] == 1:
        return (rows.flatten(-3, -2) @ matrix.squeeze(-3)).reshape(rows.shape)
    return rows @ matrix


def _require_fit(moments: SecondMoments, start: Tensor) -> None:
    least = moments.square if isinstance(moments, Moments) else moments.least
    d = (moments.cross if isinstance(moments, Moments) else moments.target).shape[-1]
    batch = tuple(start.shape[:-2])
    try:
        fits = np.broadcast_shapes(tuple(least.shape), batch) == batch and start.shape[-1] == 1 + d
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"start has shape {tuple(start.shape)}, the moments' batch {tuple(least.shape)} and {d} features: give "
            f"(run, m, {1 + d}) or (set, run, m, {1 + d}), and moments (run,), (), or (set, 1)"
        )


def _dataset(
    records: list[dict[str, Tensor]],
    kept: list[Tensor],
    finite_steps: Tensor,
    steps: int,
    record_every: int,
    basis: Tensor | None,
) -> xr.Dataset:
    dims = BATCH_DIMENSIONS[finite_steps.ndim]
    data = xr.Dataset(coords={"step": np.arange(0, steps + 1, record_every)})
    diverged_at = torch.where(finite_steps <= steps, finite_steps, -1)
    data["diverged_at"] = dims, diverged_at.cpu().numpy()
    gone = (data["diverged_at"] >= 0) & (data["step"] >= data["diverged_at"])
    for name in records[0]:
        more = ("pair",) if name == "opposing" else ()
        # Broadcast, since what depends on the data alone has the data's batch only.
        values = torch.stack([record[name] for record in records]).cpu().numpy()
        data[name] = ("step", *dims, *more), values
        data[name] = data[name].where(~gone)
    if kept:
        weights = torch.stack(kept)
        if basis is not None:
            weights[..., 1:] = _apply(weights[..., 1:], basis.mT)
        data["weights"] = ("step", *dims, "unit", "weight"), weights.cpu().numpy()
    return data
