"""The batched engine against theory's NumPy descent, autograd on the raw examples, and dense eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import models, states
from torch import Tensor

import sim.optimizers
import theory
from sim import update_rules
from sim.batched_descent import descend_batch, stack_states
from sim.opposing_data import OpposingLaw, draw_examples
from sim.second_moments import Moments, population_batch, population_groups, population_moments, sample_moments, stack
from sim.secular_equation import largest_root
from theory import InputError, Model, State
from theory.configuration import DescentConfig
from theory.optimizer_maps import Adam, Momentum, SignDescent, descend_with
from theory.wide_network import WideState, balancedness_matrix, wide_descent

CPU = torch.device("cpu")


def _weights(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(data=st.data(), lr=st.floats(1e-4, 1e-1))
def test_a_step_on_the_population_is_the_theorys(data: st.DataObject, lr: float) -> None:
    model = data.draw(models(max_alpha=20, max_beta=20))
    here = [data.draw(states(model, max_weight=5)) for _ in range(3)]
    ours = descend_batch(
        population_batch([model] * 3, CPU), stack_states(here), update_rules.GradientDescent(lr), 1, keep_weights=True
    )
    for run, state in enumerate(here):
        expected = theory.gradient_descent(model, state, lr, 1).state.vector
        got = ours["weights"].values[:, run, 0]
        # Relative to the largest weight: entries that cancel have no digits of their own.
        assert np.abs(got - expected).max() <= 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(
            ours["sharpness"][:, run], theory.sharpness(model, State.from_vector(got, model.beta.size)), rtol=1e-10
        )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (update_rules.GradientDescent(0.03), Momentum(0.03, mu=0.0)),
        (update_rules.Momentum(0.01, 0.9, 0.5), Momentum(0.01, 0.9, 0.5)),
        (update_rules.Momentum(0.002, 0.9, nesterov=True), Momentum(0.002, 0.9, nesterov=True)),
        (update_rules.Adam(0.01, 0.8, 0.99, 1e-6), Adam(0.01, 0.8, 0.99, 1e-6)),
        (update_rules.SignDescent(0.015625), SignDescent(0.015625)),
    ],
)
def test_whole_runs_are_the_theorys_by_every_rule(
    ours: update_rules.Rule, theirs: Momentum | Adam | SignDescent, device: torch.device
) -> None:
    configs = [DescentConfig(d1=6, alpha=alpha, start_seed=seed) for alpha in (3.0, 20.0) for seed in (0, 1)]
    all_models, starts = [c.model for c in configs], [c.initial_state for c in configs]
    data = descend_batch(
        population_batch(all_models, device), stack_states(starts).to(device), ours, 150, keep_weights=True
    )
    for run, (model, start) in enumerate(zip(all_models, starts, strict=True)):
        expected = descend_with(model, start, theirs, 150).state
        np.testing.assert_allclose(data["weights"].values[:, run, 0], expected.vector, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(data["loss"][:, run], theory.loss(model, expected), rtol=1e-9)
        layers = theory.layer_sharpness(model, expected)
        np.testing.assert_allclose(data["first_layer"][:, run], layers.first, rtol=1e-9)
        np.testing.assert_allclose(data["last_layer"][:, run], layers.last, rtol=1e-9)
        np.testing.assert_allclose(data["balancedness"][:, run], theory.balancedness(expected), atol=1e-9)
        cs = expected.c[:, None] * expected.s
        np.testing.assert_allclose(data["opposing"][:, run], cs, rtol=1e-9, atol=1e-10)


def test_each_run_takes_its_own_step_size() -> None:
    config = DescentConfig(d1=3)
    lrs = [0.0, 0.01, 0.03]
    data = descend_batch(
        population_batch([config.model] * 3, CPU),
        stack_states([config.initial_state] * 3),
        update_rules.GradientDescent(torch.tensor(lrs)),
        40,
        keep_weights=True,
    )
    weights = data["weights"].values[:, :, 0]
    assert (weights[:, 0] == weights[0, 0]).all()
    for run in (1, 2):
        # torch.tensor makes the step sizes float32 on the way.
        lr = float(torch.tensor(lrs[run]))
        expected = theory.gradient_descent(config.model, config.initial_state, lr, 40).state.vector
        np.testing.assert_allclose(weights[:, run], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("threshold", [0.5, float("inf")])
@pytest.mark.parametrize("mu", [0.0, 0.9])
def test_split_sgd_is_the_optimizer_of_the_same_name(threshold: float, mu: float) -> None:
    tau = mu  # none without momentum
    moments = population_moments(DescentConfig(d1=4).model, CPU)
    start = _weights(0, 3, 2, 6)
    # Sign steps this large throw coordinates back and forth across the threshold.
    rule = update_rules.SplitSGD(0.02, 0.1, threshold, mu, tau)
    data = descend_batch(moments, start, rule, 40, keep_weights=True)
    for run in range(3):
        theta = torch.nn.Parameter(start[run].clone())
        optimizer = sim.optimizers.SplitSGD([theta], 0.02, 0.1, threshold, mu, tau)
        for _ in range(40):
            optimizer.zero_grad()
            moments.value(theta[:, 0] @ theta[:, 1:]).backward()
            optimizer.step()
        np.testing.assert_allclose(data["weights"].values[-1, run], theta.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 5])
def test_any_width_is_the_theorys_wide_network(m: int) -> None:
    model = Model([9.0, 4.0], [1.0, -2.0, 0.5], [1.0, 0.5, 0.25])
    start = 0.5 * _weights(m, 2, m, 6)
    data = descend_batch(population_batch([model] * 2, CPU), start, update_rules.GradientDescent(0.02), 60, pairs=2)
    for run in range(2):
        state = WideState(start[run, :, 0], start[run, :, 1:4], start[run, :, 4:])
        expected = wide_descent(model, state, 0.02, 60)
        np.testing.assert_allclose(data["opposing"][:, run], expected.effective.s, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(data["loss"][:, run], theory.loss(model, expected.effective), rtol=1e-10)
        trace = np.trace(balancedness_matrix(expected), axis1=-2, axis2=-1)
        np.testing.assert_allclose(data["balancedness"][:, run], trace, atol=1e-11)


@given(seed=st.integers(0, 10_000), m=st.integers(1, 4), d=st.integers(1, 5), dead=st.booleans(), sample=st.booleans())
def test_sharpness_and_layer_blocks_are_those_of_the_dense_hessian(
    seed: int, m: int, d: int, dead: bool, sample: bool
) -> None:
    start = _weights(seed, 1, m, 1 + d)
    if dead:
        start[..., 0] = 0
    if sample:
        z = _weights(seed + 1, 7, d)
        y = _weights(seed + 2, 7)
        moments: Moments = Moments(z.T @ z / 7, z.T @ y / 7, y @ y / 7)
    else:
        moments = Moments(torch.diag(_weights(seed + 1, d).abs()), torch.zeros(d, dtype=torch.float64), torch.ones(()))

    def loss(theta: Tensor) -> Tensor:
        return moments.value(theta[:, 0] @ theta[:, 1:])

    theta = start[0]
    dense = torch.func.hessian(loss)(theta)
    whole = torch.linalg.eigvalsh(dense.reshape(m * (1 + d), -1))[-1]
    first = torch.linalg.eigvalsh(dense[:, 1:, :, 1:].reshape(m * d, -1))[-1]
    last = torch.linalg.eigvalsh(dense[:, 0, :, 0])[-1]
    for form in (moments, moments.diagonal):
        data = descend_batch(form, start, update_rules.GradientDescent(0.1), 1)
        for name, value in (("sharpness", whole), ("first_layer", first), ("last_layer", last)):
            np.testing.assert_allclose(data[name][0, 0], value, rtol=1e-9, atol=1e-10 * float(whole))
        np.testing.assert_allclose(data["loss"][0, 0], loss(theta), rtol=1e-9, atol=1e-9)


def _samples(count: int, law: OpposingLaw, pairs: int = 1) -> tuple[Model, list[list[Tensor]]]:
    model = Model([8.0, 5.0][:pairs], np.linspace(-1, 1.5, 4), np.linspace(0.3, 1, 4))
    raw = []
    for seed in (0, 1):
        (chunk,) = draw_examples(model, count, 0.2, seed, CPU, law)
        raw.append([chunk.features, chunk.target, chunk.group])
    return model, raw


@pytest.mark.parametrize("form", ["own", "diagonal"])
def test_runs_on_samples_are_those_of_autograd_on_the_raw_examples(form: str) -> None:
    law = OpposingLaw(plus_share=0.7, noise=0.3)
    model, raw = _samples(400, law)
    starts = 0.5 * _weights(3, 2, 3, 2, 6)  # 2 samples × 3 runs, width 2
    sets = [sample_moments(draw_examples(model, 400, 0.2, seed, CPU, law)) for seed in (0, 1)]
    everyone = stack(s["all"] for s in sets)
    groups = {name: stack(s[name] for s in sets).shared() for name in ("plus", "minus")}
    moments = everyone.shared() if form == "own" else everyone.shared().diagonal
    rule = update_rules.Momentum(0.01, 0.8, 0.5)
    data = descend_batch(moments, starts, rule, 80, record_every=20, groups=groups, keep_weights=True)
    for i, (z, y, group) in enumerate(raw):
        for j in range(3):
            theta = torch.nn.Parameter(starts[i, j].clone())
            optimizer = torch.optim.SGD([theta], 0.01, 0.8, 0.5)
            for t in range(81):
                each = (z @ (theta[:, 0] @ theta[:, 1:]) - y) ** 2 / 2
                if t % 20 == 0:
                    at = {"step": t, "set": i, "run": j}
                    for name, mask in (
                        ("loss", group == group),
                        ("loss_plus", group == 1),
                        ("loss_minus", group == -1),
                    ):
                        assert float(data[name].sel(step=t)[i, j]) == pytest.approx(each[mask].mean().item(), rel=1e-6)
                    np.testing.assert_allclose(
                        data["weights"].sel(step=t)[i, j], theta.detach(), rtol=1e-6, atol=1e-8, err_msg=str(at)
                    )
                optimizer.zero_grad()
                each.mean().backward()
                optimizer.step()


def test_population_groups_are_the_theorys_and_several_pairs_those_of_a_large_sample() -> None:
    config = DescentConfig(d1=5)
    states_of = [config.initial_state, State(1.3, np.full(5, 0.2), [-0.4])]
    groups = population_groups([config.model] * 2, 0.05, CPU)
    data = descend_batch(
        population_batch([config.model] * 2, CPU),
        stack_states(states_of),
        update_rules.GradientDescent(0.01),
        1,
        groups=groups,
    )
    for run, state in enumerate(states_of):
        plus, minus = theory.group_losses(config.model, state, 0.05)
        assert float(data["loss_plus"][0, run]) == pytest.approx(float(plus))
        assert float(data["loss_minus"][0, run]) == pytest.approx(float(minus))

    law = OpposingLaw(plus_share=0.7, noise=0.3)
    model, _ = _samples(10, law, pairs=2)
    v = _weights(1, 6)
    sample = sample_moments(draw_examples(model, 400_000, [0.2, 0.1], 5, CPU, law))
    expected = {"all": population_batch([model], CPU, law), **population_groups([model], [0.2, 0.1], CPU, law)}
    assert set(sample) == set(expected) == {"all", "plus", "minus", "plus 2", "minus 2"}
    for name, population in expected.items():
        assert float(sample[name].value(v)) == pytest.approx(float(population.value(v)[0]), rel=0.02), name


def test_population_batches_are_the_dense_moments_and_groups_end_in_the_noise_alone() -> None:
    law = OpposingLaw(plus_share=0.7, noise=0.3)
    model, _ = _samples(10, law, pairs=2)
    v = _weights(1, 6)
    dense, batch = population_moments(model, CPU, law), population_batch([model], CPU, law)
    torch.testing.assert_close(batch.value(v)[0], dense.value(v), rtol=1e-13, atol=0)
    torch.testing.assert_close(batch.residual(v)[0], dense.residual(v), rtol=1e-13, atol=1e-13)
    for j, sign, name in ((0, 1, "plus"), (0, -1, "minus"), (1, 1, "plus 2"), (1, -1, "minus 2")):
        # f = y up to the noise on a group: its feature is used with its own sign, the other pair's weight is idle.
        best = torch.tensor([*model.beta, 9.0, 9.0])
        best[4 + j] = sign
        loss = population_groups([model], [0.2, 0.1], CPU, law)[name].value(best.double())
        assert float(loss) == pytest.approx(0.3**2 / 2)


def test_directions_without_examples_have_curvature_zero() -> None:
    z, y = _weights(0, 2, 5), _weights(1, 2)
    diagonal = Moments(z.T @ z / 2, z.T @ y / 2, y @ y / 2).diagonal
    assert int((diagonal.curvature == 0).sum()) == 3
    assert int((diagonal.target == 0).sum()) == 3
    # Two examples are fitted exactly.
    assert float(diagonal.least) == pytest.approx(0, abs=1e-12)


def test_a_run_that_diverges_says_when_and_leaves_the_others_alone() -> None:
    config = DescentConfig(d1=3)
    lrs = torch.tensor([2.0, 0.01], dtype=torch.float64)
    start = stack_states([config.initial_state] * 2)
    data = descend_batch(population_batch([config.model] * 2, CPU), start, update_rules.GradientDescent(lrs), 50)
    expected = theory.gradient_descent(config.model, config.initial_state, 2.0, 50).diverged_at
    assert expected is not None
    assert data["diverged_at"].values.tolist() == [expected, -1]
    assert np.isnan(data["loss"][expected:, 0]).all()
    assert np.isfinite(data["loss"][:, 1]).all()


@pytest.mark.parametrize("m", [1, 2])
def test_weights_that_are_not_finite_are_found_in_every_layer_and_width(m: int) -> None:
    start = _weights(0, 3, m, 4)
    start[0, -1, 2] = torch.inf
    start[1, 0, 0] = torch.nan
    data = descend_batch(
        population_moments(DescentConfig(d1=2).model, CPU), start, update_rules.GradientDescent(0.001), 5
    )
    assert data["diverged_at"].values.tolist() == [0, 0, -1]
    for name in ("loss", "sharpness", "last_layer", "balancedness"):
        assert np.isnan(data[name][:, :2]).all(), name
        assert np.isfinite(data[name][:, 2]).all(), name


def test_float32_runs_drift_from_float64_by_rounding_alone_below_the_edge() -> None:
    config = DescentConfig(d1=20, lr=0.01)
    start = stack_states([config.initial_state])
    moments = population_batch([config.model], CPU)
    ends = [
        descend_batch(moments, start.to(dtype), update_rules.GradientDescent(0.01), 500, record_every=500)
        for dtype in (torch.float32, torch.float64)
    ]
    assert ends[0]["sharpness"].dtype == np.float32
    np.testing.assert_allclose(ends[0]["sharpness"][-1], ends[1]["sharpness"][-1], rtol=1e-5)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 6),
    scale=st.sampled_from([1e-100, 1.0, 1e100]),
    lonely=st.booleans(),
)
def test_the_secular_equation_is_theorys_and_the_dense_eigenvalue(
    seed: int, n: int, scale: float, lonely: bool
) -> None:
    a, v, d = scale * _weights(seed, 4), scale * _weights(seed + 1, 4, n), scale * _weights(seed + 2, 4, n)
    if lonely:
        v[:, 0] = 0
    dense = torch.zeros(4, n + 1, n + 1, dtype=torch.float64)
    dense[:, 0, 0], dense[:, 0, 1:], dense[:, 1:, 0] = a, v, v
    dense[:, range(1, n + 1), range(1, n + 1)] = d
    got = largest_root(a, v, d)
    norm = float(dense.abs().amax())
    torch.testing.assert_close(got / norm, torch.linalg.eigvalsh(dense / norm)[:, -1], rtol=0, atol=1e-13)
    from theory.secular_equation import largest_root as by_theory

    torch.testing.assert_close(
        got / norm, torch.from_numpy(by_theory(*map(np.asarray, (a, v, d)))) / norm, rtol=0, atol=1e-14
    )
    if scale == 1.0:
        single = largest_root(a.float(), v.float(), d.float())
        torch.testing.assert_close(single.double(), got, rtol=0, atol=1e-5 * max(norm, 1.0))


def test_the_secular_equation_of_nothing_is_zero_and_of_no_number_none() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    arms = torch.zeros(2, 3, dtype=torch.float64)
    arms[1, 0] = torch.nan
    root = largest_root(zero, arms, torch.zeros(2, 3, dtype=torch.float64))
    assert float(root[0]) == 0
    assert bool(root[1].isnan())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, s: descend_batch(m, s[0, 0], update_rules.GradientDescent(0.1), 1), "start has shape"),
        (lambda m, s: descend_batch(m, s[..., :-1], update_rules.GradientDescent(0.1), 1), "5 features"),
        (lambda m, s: descend_batch(stack([m, m, m]), s, update_rules.GradientDescent(0.1), 1), "batch"),
        # Of as many sets as runs, an axis without a name could be either.
        (
            lambda m, s: descend_batch(stack([m, m]), s.expand(2, *s.shape), update_rules.GradientDescent(0.1), 1),
            "sets",
        ),
        (
            lambda m, s: descend_batch(
                m, s.expand(2, *s.shape), update_rules.GradientDescent(0.1), 1, groups={"plus": stack([m, m])}
            ),
            "group plus the batch",
        ),
        (lambda m, s: descend_batch(m, s, update_rules.GradientDescent(0.1), 1, pairs=7), "pairs is 7: give 0 to 5"),
        (lambda m, s: descend_batch(m, s, update_rules.GradientDescent(0.1), 1, pairs=-1), "pairs is -1"),
        (lambda m, s: descend_batch(m, s, update_rules.GradientDescent(0.1), 0), "steps is 0"),
        (lambda m, s: descend_batch(m, s, update_rules.GradientDescent(-0.1), 1), "lr is -0.1"),
        (lambda m, s: descend_batch(m, s, update_rules.GradientDescent(torch.ones(3)), 1), r"lr has shape \(3,\)"),
        (
            lambda m, s: descend_batch(m, s, update_rules.GradientDescent(torch.tensor([0.1, float("nan")])), 1),
            "lr is nan",
        ),
        (lambda m, s: descend_batch(m.diagonal, s, update_rules.Adam(0.1), 1), "Adam acts on coordinates"),
        (lambda m, s: update_rules.Momentum(0.1, mu=1.0), "mu is 1.0"),
        (lambda m, s: update_rules.Momentum(0.1, mu=0.0, dampening=0.5), "dampening is 0.5"),
        (lambda m, s: update_rules.SplitSGD(0.1, 0.1, 1.0, 0.0, 0.5), "dampening is 0.5"),
        (lambda m, s: update_rules.Adam(0.1, eps=0.0), "eps is 0.0"),
        (lambda m, s: population_batch([DescentConfig(d1=2).model, DescentConfig(d1=3).model], CPU), "shapes"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Moments, Tensor], object], words: str) -> None:
    moments = population_moments(DescentConfig(d1=4).model, CPU)
    with pytest.raises(InputError, match=words):
        call(moments, _weights(0, 2, 1, 6))
