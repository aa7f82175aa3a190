"""Where and by what a run is made, as its environment.json keeps it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sim.device import describe_device
from sim.distributed import rank_count


def environment_of(device: torch.device, started: float) -> dict[str, Any]:
    """Command, commit, device, threads, ranks and versions of this process; ``started`` is in seconds of the epoch."""
    packages = ("torch", "numpy", "scipy", "xarray", "zarr")
    return {
        "command": f"python -m {Path(sys.argv[0]).parent.name or '?'} {shlex.join(sys.argv[1:])}".rstrip(),
        "commit": current_commit(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "ranks": rank_count(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in packages},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
    }


def current_commit() -> str:
    """Commit of the checkout that this file lies in, with a mark when files differ from it; empty without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
