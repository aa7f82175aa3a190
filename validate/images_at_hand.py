"""The images that a command trains on, and those that are left to judge the trained networks by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from theory.command_line import InputError
from validate.cifar10 import EMBEDDED_PER_CLASS, FULL_PER_CLASS, Images, first_of_each_class, load_embedded, load_full


def images_for(folder: Path | None, images_per_class: int) -> Images:
    """The full training set from a folder, or the embedded images where none is given.

    Raises:
        InputError: the embedded images are too few, or the folder lacks the full set.
    """
    if images_per_class > FULL_PER_CLASS:
        raise InputError(
            f"{images_per_class} images a class are more than the {FULL_PER_CLASS} of CIFAR-10: give fewer"
        )
    if folder is not None:
        return load_full(folder)
    if images_per_class > EMBEDDED_PER_CLASS:
        raise InputError(
            f"{images_per_class} images a class are more than the {EMBEDDED_PER_CLASS} embedded ones: "
            "give --data the folder of the full CIFAR-10"
        )
    return load_embedded()


def held_out(images: Images, images_per_class: int) -> Images:
    """The images beyond the first so many of each class, which a run with that many never saw.

    >>> labels = np.array([0, 0, 1, 0, 1], np.uint8)
    >>> held_out(Images(np.zeros((5, 3, 32, 32), np.uint8), labels), 1).labels
    array([0, 0, 1], dtype=uint8)
    """
    numbered = Images(np.arange(len(images.labels))[:, None, None, None], images.labels)  # type: ignore[arg-type]
    seen = first_of_each_class(numbered, images_per_class).pixels.ravel()
    left = np.setdiff1d(np.arange(len(images.labels)), seen)
    return Images(images.pixels[left], images.labels[left])
