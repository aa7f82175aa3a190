"""The main job: ``python -m validate``; claims on several networks: ``claims``; the data: ``data fetch``."""

from __future__ import annotations

from theory.command_line import main
from validate.claims_job import claims_job
from validate.fetch import fetch, make_subset
from validate.main_job import main_job

if __name__ == "__main__":
    main(
        {"run": main_job, "claims": claims_job, "data": {"fetch": fetch, "subset": make_subset}},
        prog="python -m validate",
        description=(
            "Check the theory of opposing signals against simulation and real CIFAR-10 networks. "
            "Without a command: the main job, run. claims: judge claims on several networks. "
            "Groups: data fetch, data subset."
        ),
        default="run",
    )
