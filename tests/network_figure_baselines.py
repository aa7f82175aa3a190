"""Takes the pictures of the network figures as they are now for the reviewed ones: as `figure_baselines` does."""

from __future__ import annotations

import sys

from figure_baselines import FOLDER, save_small
from tiny_network_runs import runs_with

from paper_figs.registry import FIGURES

if __name__ == "__main__":
    for word in sys.argv[1:]:
        save_small(FIGURES[word].draw(runs_with()), FOLDER / f"{word}.png")
