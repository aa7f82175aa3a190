"""``python -m validate``: the main job, run; beside it claims, predict, interventions, score, relation; data fetch."""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds: an interrupt ends them without a traceback, until `main` begins
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

from sim.distributed import processes
from theory.command_line import main
from validate.claims_job import claims_job
from validate.fetch import fetch, make_subset
from validate.interventions_job import interventions_job
from validate.main_job import main_job
from validate.prediction.job import predict_job
from validate.relation_command import relation_command
from validate.score_job import score_job

if __name__ == "__main__":
    with processes():
        main(
            {
                "run": main_job,
                "claims": claims_job,
                "predict": predict_job,
                "interventions": interventions_job,
                "score": score_job,
                "relation": relation_command,
                "data": {"fetch": fetch, "subset": make_subset},
            },
            prog="python -m validate",
            description=(
                "Check the theory of opposing signals against simulation and real CIFAR-10 networks. "
                "Without a command: the main job, run. claims: judge claims on several networks. "
                "predict: the reduced map's predictions against networks at several step sizes. "
                "interventions: treat opposing examples and controls alike. "
                "score: how opposing the signals are, with anchors. "
                "relation: examine one relation on one small network. "
                "Groups: data fetch, data subset."
            ),
            default="run",
        )
