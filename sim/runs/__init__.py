"""The run store: one folder a run, with its configuration, environment and trajectory. The only reader and writer.

    runs/<name>/config.json        the configuration that made the run
    runs/<name>/environment.json   versions, device, command, commit, times
    runs/<name>/trajectory.zarr    arrays with named dimensions, for `xarray.open_zarr`
    runs/<name>/manifest.json      size and SHA-256 of the trajectory's files

A run is made in the hidden folder ``.<name>.partial`` beside its place and renamed into it: a folder without a leading
dot is a finished run. One that records its steps and takes checkpoints goes on from the last of them, to the same bits,
when its process is killed. Nothing read from disk can execute code.
"""

from sim.runs.making import RunInProgress, obtain_resumable_run, obtain_run, require_writable
from sim.runs.reading import CHECKED_BYTES, Run, list_runs, read_run

__all__ = [
    "CHECKED_BYTES",
    "Run",
    "RunInProgress",
    "list_runs",
    "obtain_resumable_run",
    "obtain_run",
    "read_run",
    "require_writable",
]
