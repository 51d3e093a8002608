"""job.json of a recording that `piolet run` did not begin: written at its start, completed by the agent.

The agent edits the JSON itself, since it is to stay small and does not load the record's validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError
from piolet.core.files import read_json, write_json
from piolet.core.nouns import Gpu

Json = dict[str, Any]


def edit(path: Path, change: Callable[[Json], Json]) -> bool:
    """Apply `change` to job.json; False if the file system or the file is not fit for it."""
    try:
        write_json(path, change(read_json(path)))
    except PioletError:
        return False
    return True


def with_gpus(job: Mapping[str, Any], node: str, gpus: Sequence[Gpu]) -> Json:
    """Return the record with the GPUs of `node`, and with the mark of simulated ones."""
    allocation = [
        held | {"gpus": [asdict(gpu) for gpu in gpus]} if held["node"] == node else held for held in job["allocation"]
    ]
    simulated = ["gpu"] if any(gpu.simulated for gpu in gpus) else []
    return {**job, "allocation": allocation, "simulated": sorted({*job["simulated"], *simulated})}


def with_end(job: Mapping[str, Any], ended_ns: int) -> Json:
    """Return the record with the end of the program, which ends what it held."""
    allocation = [{**held, "to_ns": ended_ns} for held in job["allocation"]]
    return {**job, "allocation": allocation, "program_ended_ns": ended_ns}
