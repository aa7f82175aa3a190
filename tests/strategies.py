"""Hypothesis strategies for models and states of the two-layer network, and for small networks on real images."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory import Model, State
from validate.relations import Configuration, Domain
from validate.relations.configuration import DEPTHS, IMAGES, WIDTHS


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats of a closed range, without NaN and subnormal numbers."""
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


@st.composite
def models(
    draw: st.DrawFn,
    *,
    max_features: int = 6,
    max_pairs: int = 3,
    identity: bool = False,
    min_alpha: float = 0.0,
    max_alpha: float = 1e3,
    max_beta: float = 1e3,
) -> Model:
    """Any model: any number of features and pairs, zero and equal second moments included."""
    d1, pairs = draw(st.integers(1, max_features)), draw(st.integers(1, max_pairs))
    alpha = draw(st.lists(finite(min_alpha, max_alpha), min_size=pairs, max_size=pairs))
    beta = draw(st.lists(finite(-max_beta, max_beta), min_size=d1, max_size=d1))
    sigma = [1.0] * d1 if identity else draw(st.lists(finite(0, 1e3), min_size=d1, max_size=d1))
    return Model(np.array(alpha), np.array(beta), np.array(sigma))


@st.composite
def states(draw: st.DrawFn, model: Model, *, max_weight: float = 1e3, min_c: float | None = None) -> State:
    """Any state of a model, zero weights included."""
    weights = finite(-max_weight, max_weight)
    c = draw(weights if min_c is None else finite(min_c, max_weight))
    b = draw(st.lists(weights, min_size=model.beta.size, max_size=model.beta.size))
    s = draw(st.lists(weights, min_size=model.alpha.size, max_size=model.alpha.size))
    return State(np.array(c), np.array(b), np.array(s))


@st.composite
def models_with_states(draw: st.DrawFn, **options: float) -> tuple[Model, State]:
    """A model and a state of it; options as for `models`."""
    model = draw(models(**options))  # type: ignore[arg-type]
    return model, draw(states(model))


@st.composite
def configurations(draw: st.DrawFn, domain: Domain) -> Configuration:
    """A configuration of a relation's domain; shrinks to the first kind, smallest network, fewest images, seeds 0.

    The first kind, the perceptron, is drawn more often than the others: it takes a tenth of their time.
    """
    kind = draw(st.sampled_from([domain.kinds[0]] * 5 + list(domain.kinds)))
    low, high = (round(1000 * multiple) for multiple in domain.multiples)
    return Configuration(
        kind=kind,
        width=draw(st.sampled_from(WIDTHS[kind])),
        depth=draw(st.sampled_from(DEPTHS[kind])),
        activation=draw(st.sampled_from(domain.activations_of(kind))),
        seed=draw(st.integers(0, 10**6)),
        images=draw(st.sampled_from(IMAGES[kind])),
        subset=draw(st.integers(0, 10**6)),
        # Three digits make a short command.
        multiple=draw(st.integers(low, high)) / 1000,
    )
