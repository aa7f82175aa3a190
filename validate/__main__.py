"""The main job: ``python -m validate``. The data: ``python -m validate data fetch``."""

from __future__ import annotations

from theory.command_line import main
from validate.fetch import fetch, make_subset
from validate.main_job import main_job

if __name__ == "__main__":
    main(
        {"run": main_job, "data": {"fetch": fetch, "subset": make_subset}},
        prog="python -m validate",
        description=(
            "Check the theory of opposing signals against simulation and real CIFAR-10 networks. "
            "Without a command: the main job, run. Groups: data fetch, data subset."
        ),
        default="run",
    )
