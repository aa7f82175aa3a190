"""Derives predictions: ``python -m theory predict --alpha 20 --beta 3 --k 3 --lr 0.04``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from theory.command_line import main
from theory.configuration import DescentConfig
from theory.predictions import predict, table


@dataclass(frozen=True)
class PredictConfig(DescentConfig):
    """Predict a run of descent on the two-layer linear network."""

    json: bool = False
    """Print JSON."""


def predict_command(config: PredictConfig) -> int:
    """Prints the predictions as a table or as JSON."""
    predictions = predict(config.model, config.initial_state, config.lr, config.steps)
    print(json.dumps(dataclasses.asdict(predictions), indent=2) if config.json else table(predictions))
    return 0


if __name__ == "__main__":
    main(
        {"predict": predict_command},
        prog="python -m theory",
        description="Dynamics of the two-layer linear network with opposing features: derive predictions.",
    )
