"""The job's own processes: CPU, memory, I/O and state from /proc/PID, as the family `proc`.

They are known by ``PIOLET_METRICS`` in their environment, which every recorded program has and hands on, and by their
user. Sources: proc(5). A process is read every ten seconds; the ones that use most are kept if there are too many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet import metrics
from piolet.record.collector import Context, Entry, rate
from piolet.tools import sysfs

LEAST_INTERVAL_S = 10.0
MOST_PROCESSES = 64
"""Rows at one time; a node with more keeps those with the most CPU time since the last reading, then memory."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_STAT_FIELDS = 22
_NUMBERS = (9, 11, 12, 17, 19, 21)


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment. `started` tells two processes with the same number apart; I/O may be hidden."""

    pid: int
    name: str
    state: str
    started: int
    cpu_ticks: int
    threads: int
    major_faults: int
    rss_bytes: int
    read_bytes: int | None = None
    write_bytes: int | None = None


class ProcessCollector:
    """Samples the processes of the job."""

    family = "proc"
    least_interval_s = LEAST_INTERVAL_S

    def __init__(self, context: Context) -> None:
        self._proc = context.proc
        self._mark = _mark(context.metrics)
        self._beside = context.environ if context.whole_job else {}
        self._ranks: dict[tuple[int, int], int | None] = {}
        self._strangers: set[tuple[int, int]] = set()
        self._before_s = time.monotonic()
        self._before: dict[int, Process] = {each.pid: each for each in self._ours()}

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each process of the job."""
        now_s, after = time.monotonic(), self._ours()
        elapsed_s = now_s - self._before_s
        rows = [
            {"time_ns": time_ns, "rank": self._ranks[each.pid, each.started]}
            | derive(self._before.get(each.pid), each, elapsed_s)
            for each in after
        ]
        self._before_s, self._before = now_s, {each.pid: each for each in after}
        rows.sort(key=lambda row: (row["cpu_cores"] or 0.0, row["memory_rss_bytes"]), reverse=True)
        return [("proc", row) for row in rows[:MOST_PROCESSES]]

    def _ours(self) -> list[Process]:
        pids = [int(entry.name) for entry in sysfs.entries(self._proc) if entry.name.isdigit()]
        found = [process for pid in pids if (process := read(self._proc / str(pid), pid))]
        alive = {(each.pid, each.started) for each in found}
        self._strangers &= alive
        self._ranks = {key: rank for key, rank in self._ranks.items() if key in alive}
        return [each for each in found if self._is_ours(each)]

    def _is_ours(self, process: Process) -> bool:
        """Tell by the environment, which is read until it is known: a process may be between fork and exec."""
        key = process.pid, process.started
        if key in self._ranks or key in self._strangers:
            return key in self._ranks
        environ = environment(self._proc / str(process.pid))
        if environ is None:
            self._strangers.add(key)
        elif _mark(environ.get(metrics.VARIABLE, "")) == self._mark or same_job(self._beside, environ):
            self._ranks[key] = rank_of(environ)
        return key in self._ranks


def derive(before: Process | None, after: Process, elapsed_s: float) -> dict[str, Any]:
    """Return the columns of `proc` from two readings; a process that was not there before has no rates yet."""
    old = before if before and before.started == after.started else None
    ticks = rate(old.cpu_ticks, after.cpu_ticks, elapsed_s) if old else None
    return {
        "pid": after.pid,
        "name": after.name,
        "state": after.state,
        "threads": after.threads,
        "memory_rss_bytes": after.rss_bytes,
        "cpu_cores": None if ticks is None else ticks / _TICKS_PER_S,
        "major_faults_per_s": rate(old.major_faults, after.major_faults, elapsed_s) if old else None,
        "read_bytes_per_s": rate(old.read_bytes, after.read_bytes, elapsed_s) if old else None,
        "write_bytes_per_s": rate(old.write_bytes, after.write_bytes, elapsed_s) if old else None,
    }


def read(directory: Path, pid: int) -> Process | None:
    """Read one process below /proc; None if it has ended."""
    stat = sysfs.text(directory / "stat")
    return parse(pid, stat, sysfs.text(directory / "io")) if stat else None


def parse(pid: int, stat: str, transfers: str | None) -> Process | None:
    """Parse /proc/PID/stat and /proc/PID/io; a name may hold spaces and parentheses. None if it is not a stat."""
    head, _, tail = stat.rpartition(")")
    words = tail.split()
    if len(words) < _STAT_FIELDS or not all(words[place].isdigit() for place in _NUMBERS):
        return None
    io = sysfs.fields((transfers or "").replace(":", ""))
    return Process(
        pid=pid,
        name=head.partition("(")[2],
        state=words[0],
        started=int(words[19]),
        cpu_ticks=int(words[11]) + int(words[12]),
        threads=int(words[17]),
        major_faults=int(words[9]),
        rss_bytes=int(words[21]) * _PAGE_BYTES,
        read_bytes=io.get("read_bytes"),
        write_bytes=io.get("write_bytes"),
    )


def environment(directory: Path) -> dict[str, str] | None:
    """Return the environment of a process; None if it may not be read, as that of another user."""
    try:
        content = (directory / "environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in content.split("\0"))
    return {name: value for name, _, value in pairs}


def same_job(recorder: Mapping[str, str], process: Mapping[str, str]) -> bool:
    """Return whether a process is of the recorder's Slurm job on this node, but not of the recorder's own step."""
    alike = all(recorder.get(name, "") == process.get(name) for name in ("SLURM_JOB_ID", "SLURMD_NODENAME"))
    own_step = recorder.get("SLURM_STEP_ID")
    return alike and (own_step is None or own_step != process.get("SLURM_STEP_ID"))


def rank_of(environ: Mapping[str, str]) -> int | None:
    """Return the rank that launchers give to a process; None if it has none."""
    found = (environ[name] for name in _RANKS if environ.get(name, "").isdigit())
    rank = next(found, None)
    return None if rank is None else int(rank)


def _mark(socket_name: str) -> str:
    """Return what is common to the sockets of a job: their names end with the node's."""
    return socket_name.rpartition("/")[0]
