"""The main job: ``python -m validate``; on several networks ``claims`` and ``predict``; the data: ``data fetch``."""

from __future__ import annotations

from sim.distributed import processes
from theory.command_line import main
from validate.claims_job import claims_job
from validate.fetch import fetch, make_subset
from validate.main_job import main_job
from validate.prediction.job import predict_job

if __name__ == "__main__":
    with processes():
        main(
            {
                "run": main_job,
                "claims": claims_job,
                "predict": predict_job,
                "data": {"fetch": fetch, "subset": make_subset},
            },
            prog="python -m validate",
            description=(
                "Check the theory of opposing signals against simulation and real CIFAR-10 networks. "
                "Without a command: the main job, run. claims: judge claims on several networks. "
                "predict: the reduced map's predictions against networks at several step sizes. "
                "Groups: data fetch, data subset."
            ),
            default="run",
        )
