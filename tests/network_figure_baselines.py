"""Takes the pictures of the network figures as they are now for the reviewed ones: as `figure_baselines` does."""

from __future__ import annotations

import sys

from figure_baselines import FOLDER, save_small
from tiny_network_runs import runs_with

from paper_figs.registry import FIGURES
from paper_figs.small_pictures import small_picture

if __name__ == "__main__":
    for word in sys.argv[1:]:
        path = FOLDER / f"{word}.png"
        save_small(FIGURES[word].draw(runs_with()), path)
        path.write_bytes(small_picture(path, 10_000))
