"""Relations that theory predicts, conditional on its hypotheses, on small networks and real images; one module each."""

from collections.abc import Mapping

from validate.relations.alternation import ALTERNATION
from validate.relations.balancedness import BALANCEDNESS
from validate.relations.base import Domain, Examination, Measurement, Relation
from validate.relations.configuration import Configuration, command_line
from validate.relations.damped_oscillation import DAMPED_OSCILLATION
from validate.relations.descent_lemma import DESCENT_LEMMA
from validate.relations.drawing import Tally, examine_many
from validate.relations.growth_factor import GROWTH_FACTOR
from validate.relations.interlacing import INTERLACING
from validate.relations.invariances import INVARIANCES
from validate.relations.layer_shift import LAYER_SHIFT

RELATIONS: Mapping[str, Relation] = {
    relation.name: relation
    for relation in (
        DAMPED_OSCILLATION,
        ALTERNATION,
        GROWTH_FACTOR,
        DESCENT_LEMMA,
        INTERLACING,
        LAYER_SHIFT,
        BALANCEDNESS,
        INVARIANCES,
    )
}
"""Name → relation."""

__all__ = [
    "RELATIONS",
    "Configuration",
    "Domain",
    "Examination",
    "Measurement",
    "Relation",
    "Tally",
    "command_line",
    "examine_many",
]
