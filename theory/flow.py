"""Gradient flow θ' = −∇L(θ), integrated to tight tolerances."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.sparse import csc_array, diags_array

from theory.command_line import InputError
from theory.model import Model, State, require_weights_of, vector_gradient
from theory.symbolic import Array
from theory.trajectory import Trajectory

DENSE = 300
"""Number of weights from which the implicit method is told where its Jacobian has entries."""

_RISE = 100
"""Errors of c that it has to rise by after a turn, to have turned."""

STIFF = 5e4
"""Rate times time from which the implicit method is faster: steps of the explicit one are a few over the rate."""


def gradient_flow(
    model: Model,
    start: State,
    times: npt.ArrayLike,
    *,
    rtol: float = 1e-12,
    atol: float = 1e-14,
    method: Literal["DOP853", "LSODA", "Radau"] | None = None,
) -> Trajectory:
    """Integrates c' = D − c Σ_j α_j s_j², b' = c Σ(β − cb), s_j' = −α_j c² s_j.

    Args:
        model: the model.
        start: weights at time 0.
        times: (n,) increasing times at which the weights are wanted, the first at least 0.
        rtol: relative tolerance.
        atol: absolute tolerance.
        method: SciPy's name of the integrator. DOP853, the eighth-order Runge–Kutta method, is the most accurate over
            moderate times; near rest its steps are held up by the largest λ_i c², where 6·10⁻⁹ of error was seen. So
            Radau is taken, when none is given, where the largest rate times the time is above `STIFF`.

    Returns:
        The weights at `times`, and the time at which c turns from falling to rising.

    Raises:
        InputError: times do not increase from 0 on, the start is not of the model's features, or the integrator
            gave up.
    """
    require_weights_of(model, start)
    at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if at.size == 0 or at[0] < 0 or (np.diff(at) <= 0).any():
        raise InputError("times of the flow must increase from a first one of at least 0")
    slope, d1 = vector_gradient(model), model.beta.size

    def velocity(_: float, vector: Array) -> Array:
        return -slope(vector)

    def c_velocity(t: float, vector: Array) -> float:
        return float(velocity(t, vector)[0])

    c_velocity.direction = 1.0  # type: ignore[attr-defined]  # SciPy reads the event's attributes
    if at[-1] == 0:
        return Trajectory(at, State.from_vector(start.vector[None], d1))
    if method is None:
        # c² settles at ‖β‖ or less, or falls from its start
        rate = max(model.alpha.max(initial=0), model.covariance.max()) * max(
            float(start.c) ** 2, float(np.linalg.norm(model.beta))
        )
        method = "Radau" if rate * at[-1] > STIFF else "DOP853"
    sparse = method == "Radau" and start.vector.size > DENSE
    options: dict[str, Any] = {"jac_sparsity": _arrow(start.vector.size)} if sparse else {}
    solution = solve_ivp(
        velocity,
        (0.0, float(at[-1])),
        start.vector,
        method=method,
        t_eval=at,
        events=c_velocity,
        rtol=rtol,
        atol=atol,
        **options,
    )
    if not solution.success:
        raise InputError(f"the flow could not be integrated to time {at[-1]}: {solution.message}")
    turning_time = 0.0 if c_velocity(0.0, start.vector) >= 0 else None
    if turning_time is None and solution.t_events and solution.y_events:
        for time, vector in zip(solution.t_events[0], solution.y_events[0], strict=True):
            c = float(vector[0])
            # At rest c' is rounding, and changes its sign without end.
            if solution.y[0, at >= time].max(initial=-np.inf) - c > _RISE * (rtol * abs(c) + atol):
                turning_time = float(time)
                break
    return Trajectory(at, State.from_vector(solution.y.T, d1), turning_time)


def _arrow(size: int) -> csc_array:
    """Where the Jacobian has entries: c with all, every other weight with itself."""
    pattern = diags_array(np.ones(size)).tolil()
    pattern[0, :] = pattern[:, 0] = 1
    return csc_array(pattern)
