"""Ceilings measured on the machine at hand: the highest activity that a load held, per GPU model and counter.

The load is somebody else's business: NVIDIA's dcgmproftester drives one counter at a time. What no load held is left
out, so that a published figure stays in force.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, UsageError
from piolet.core.files import write_text
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.score import measure
from piolet.score.ceilings import PIPES, RATES

HELD_S = 20.0
"""A level that one GPU held for at least this long, all such seconds together, is no spike."""

NEAR = 0.98
"""Of the highest level: activity at or above this share of it counts as holding it."""

EXERCISED = {**dict.fromkeys((*PIPES, "dram"), 0.5), **dict.fromkeys(RATES, 5e9)}
"""A counter that stayed below this was not driven, so nothing is known of its ceiling."""

_RAW = {
    **{pipe: f"as_ratio({pipe}_active_ratio)" for pipe in PIPES},
    "dram": "as_ratio(dram_active_ratio)",
    "nvlink_bytes_per_s": "greatest(nvlink_rx_bytes_per_s, nvlink_tx_bytes_per_s)",
    "pcie_bytes_per_s": "greatest(pcie_rx_bytes_per_s, pcie_tx_bytes_per_s)",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The ceiling of a counter (a key of ceilings.KEYS) of GPUs of a model, held for `held_s` seconds in `job_id`."""

    model: str
    key: str
    value: float
    held_s: float
    job_id: str

    @property
    def source(self) -> str:
        """Where the number is from, in words."""
        return f"measured by piolet score calibrate: held for {self.held_s:.0f} s in job {self.job_id}"


def calibrate(readers: Iterable[tuple[Reader, JobRecord]]) -> list[Measured]:
    """Return the highest level that was held of every counter that a load drove, over all jobs.

    Raises:
        UsageError: no job drove any counter.
    """
    found: dict[tuple[str, str], Measured] = {}
    for reader, job in readers:
        for each in _of_job(reader, job):
            best = found.get((each.model, each.key))
            if best is None or each.value > best.value:
                found[each.model, each.key] = each
    if not found:
        raise UsageError(
            f"no counter was driven to its limit for {HELD_S:g} s",
            remedy="record a load: piolet record -- dcgmproftester12 --no-dcgm-validation -t 1004 -d 60",
        )
    return [found[key] for key in sorted(found)]


def _of_job(reader: Reader, job: JobRecord) -> Iterator[Measured]:
    if measure.prepare(reader, job) is None:
        return
    period_s = job.period_s("gpu") or 1.0
    for key, expression in _RAW.items():
        for row in measure.rows(reader, _held(expression), {"near": NEAR, "held": HELD_S / period_s}):
            if row["model"] and row["level"] >= EXERCISED[key]:
                yield Measured(row["model"], key, row["level"], row["samples"] * period_s, job.job_id)


def _held(expression: str) -> str:
    """The highest level of each model that one of its GPUs held: the value that `held` of its samples reach."""
    return f"""
        WITH samples AS (
            SELECT a.model, a.id, g.time_ns, {expression} AS value
            FROM gpu g JOIN allocated a
                ON a.node = g.node AND a.key = coalesce(nullif(g.uuid, ''), g.node || ':' || g.gpu)
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY id ORDER BY value DESC) AS place
            FROM samples WHERE value IS NOT NULL
        ), levels AS (
            SELECT model, id, value AS level FROM ranked WHERE place = ceil($held)
        ), best AS (
            SELECT model, arg_max(id, level) AS id, max(level)::DOUBLE AS level FROM levels GROUP BY model
        )
        SELECT best.model, level, count(*) AS samples FROM best JOIN ranked ON ranked.id = best.id
        WHERE value >= $near * level GROUP BY ALL
    """  # noqa: S608 - our own expressions


def merged(path: Path, found: Sequence[Measured]) -> str:
    """Return the content of the file of measured ceilings with `found` in it; other models and counters stay.

    Raises:
        ParseError: the file that is there is not TOML.
    """
    tables = _read(path)
    for each in found:
        tables.setdefault(each.model, {})[each.key] = {"ceiling": _rounded(each), "source": each.source}
    parts = ["# Measured ceilings, written by `piolet score calibrate`; they go before the published ones.\n"]
    for model, keys in sorted(tables.items()):
        lines = (f"{key} = {{ ceiling = {value['ceiling']!r}, source = {_quoted(value['source'])} }}\n"
                 for key, value in sorted(keys.items()))  # fmt: skip
        parts.append(f"\n[{_quoted(model)}]\n{''.join(lines)}")
    return "".join(parts)


def save(path: Path, found: Sequence[Measured]) -> None:
    """Write measured ceilings into the file at `path`.

    Raises:
        ParseError: the file that is there is not TOML.
        StorageError: the file system refused.
    """
    text = merged(path, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParseError(f"not a file of ceilings: {error}", source=str(path)) from error


def _rounded(found: Measured) -> float:
    return float(f"{found.value:.3g}") if found.key in RATES else round(found.value, 3)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
