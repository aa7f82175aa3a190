"""``python -m validate``: the main job, run; beside it claims, predict, relation, and data fetch."""

from __future__ import annotations

from sim.distributed import processes
from theory.command_line import main
from validate.claims_job import claims_job
from validate.fetch import fetch, make_subset
from validate.main_job import main_job
from validate.prediction.job import predict_job
from validate.relation_command import relation_command

if __name__ == "__main__":
    with processes():
        main(
            {
                "run": main_job,
                "claims": claims_job,
                "predict": predict_job,
                "relation": relation_command,
                "data": {"fetch": fetch, "subset": make_subset},
            },
            prog="python -m validate",
            description=(
                "Check the theory of opposing signals against simulation and real CIFAR-10 networks. "
                "Without a command: the main job, run. claims: judge claims on several networks. "
                "predict: the reduced map's predictions against networks at several step sizes. "
                "relation: examine one relation on one small network. "
                "Groups: data fetch, data subset."
            ),
            default="run",
        )
