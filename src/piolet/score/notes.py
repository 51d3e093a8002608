"""What the numbers of a job cannot know, one sentence each: bad input is told, never smoothed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from piolet.core.nodeset import NodeSet
from piolet.core.text import plural
from piolet.logbook.inventory import drivers
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.score.ceilings import of_model
from piolet.score.measure import Window
from piolet.score.model import GpuScore

SHORT_S = 10.0
"""A job shorter than this rests on a handful of samples."""

CLOCK_OFF_S = 1.0
"""A node's clock that is off by more puts its samples beside those of the others."""

MIG = "MIG-"
"""How the UUIDs of slices of a GPU begin."""

Rows = Sequence[Mapping[str, Any]]


def notes(
    reader: Reader,
    job: JobRecord,
    window: Window | None,
    gpus: Sequence[GpuScore],
    rows: Rows,
    *,
    running: bool,
) -> Iterator[str]:
    """Yield the notes of a job; `rows` are the sums per GPU, none if nothing was sampled."""
    if running:
        yield "The job has not ended: everything here is up to now."
    if not gpus:
        yield "No GPU was allocated or seen, so there is no saturation to score."
    elif not rows:
        yield "No GPU sample was recorded: was the job recorded, and did it run longer than one sampling period?"
    if rows and not job.gpus:
        yield "The allocation is unknown: GPUs are those that were sampled, so unused ones may be missing."
    if window:
        yield from _samples(reader, window)
    yield from _counters(rows)
    yield from _devices(gpus)


def _samples(reader: Reader, window: Window) -> Iterator[str]:
    if window.duration_s < SHORT_S:
        yield f"The job ran for {window.duration_s:.1f} s: its numbers rest on a handful of samples."
    if window.doubled:
        yield (
            f"{plural(window.doubled, 'second')} of a GPU had more samples than were due, as when a clock is set back "
            "or two recorders run: they were averaged."
        )
    sources = [str(name) for (name,) in reader.database.execute(_SOURCES).fetchall()]
    if len(sources) > 1:
        yield f"The samples come from {len(sources)} sources, which need not agree: {', '.join(sources)}."
    found = drivers(reader)
    if len(found) > 1:
        which = ", ".join(f"{driver} on {NodeSet(nodes)}" for driver, nodes in found.items())
        yield f"Not every sample was taken under the same driver: {which}. Their counters need not agree."
    off = [str(node) for (node,) in reader.database.execute(_CLOCKS, [CLOCK_OFF_S]).fetchall()]
    if off:
        yield f"The clock of {NodeSet(off)} was over {CLOCK_OFF_S:g} s off: its samples stand beside the others'."


_SOURCES = "SELECT DISTINCT coalesce(source, 'nvml') FROM gpu ORDER BY 1"
_CLOCKS = "SELECT node FROM clock GROUP BY node HAVING median(abs(offset_s)) > ? ORDER BY node"


def _counters(rows: Rows) -> Iterator[str]:
    blind = [row for row in rows if not row["observed_s"]]
    if rows and len(blind) == len(rows):
        yield "No GPU gave activity counters, so there is no saturation to score; older than Hopper, NVML has none."
    elif blind:
        dark = {row["node"] for row in blind} - {row["node"] for row in rows if row["observed_s"]}
        nodes = f", among them all of {NodeSet(sorted(dark))}" if dark else ""
        few = f"{plural(len(blind), 'GPU')} of {len(rows)} gave no activity counters{nodes}"
        yield f"{few}; the score is about the others."
    if any(row["observed_s"] and not row["clocks"] for row in rows):
        yield "Clocks were not recorded: compute is counted as if at the highest clock."


def _devices(gpus: Sequence[GpuScore]) -> Iterator[str]:
    unknown = sorted({gpu.model or "a GPU without a name" for gpu in gpus if not of_model(gpu.model).known})
    if unknown:
        yield f"No ceilings are known for {', '.join(unknown)}: the documented default is used."
    slices = sum(gpu.uuid.startswith(MIG) for gpu in gpus)
    if slices:
        yield f"{plural(slices, 'GPU')} are MIG slices: the ceilings are those of a whole GPU, so they score too low."
    reset = [f"{gpu.node}:{gpu.index}" for gpu in gpus if gpu.resets]
    if reset:
        yield f"{', '.join(reset)}: counters began again, as after a reset of the GPU; energy counts on from there."
