"""The writer of one job on a node of the service: a process that becomes the job's user, and takes rows from its input.

`python -m piolet.record.site_writer SPEC`. It also looks at what is the job's alone: its cgroup and its processes.
Where the user's own recorder has the node it writes nothing.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from piolet import __version__
from piolet.core.errors import PioletError, Refused, StorageError
from piolet.core.nouns import Gpu
from piolet.logbook import inventory, layout
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord, NodeAllocation, Request, write_job
from piolet.logbook.writer import SegmentWriter
from piolet.record import election
from piolet.record import job as job_file
from piolet.record.clock import next_tick
from piolet.record.collector import Collector, Context
from piolet.record.collectors.cgroup import CgroupCollector
from piolet.record.collectors.processes import ProcessCollector
from piolet.record.rates import interval_s
from piolet.record.spec import AgentSpec

_LOOK_S = 10.0
"""Between two looks at the job's own cgroup and processes, where the user of the service set no rate."""


@dataclass(frozen=True, slots=True)
class WriterSpec:
    """One job on this node: what job.json says of it, its `gpus` here, where it is written, one of its processes."""

    job_id: int
    user: str
    name: str
    nodes: tuple[str, ...]
    submitted_ns: int | None
    started_ns: int | None
    root: str
    cluster: str
    node: str
    pid: int
    interval_s: float
    flush_s: float
    intervals_s: dict[str, float]
    gpus: tuple[Gpu, ...] = ()

    def argv(self) -> list[str]:
        """Return the command line of the writer."""
        return [sys.executable, "-P", "-m", "piolet.record.site_writer", json.dumps(asdict(self))]


class JobWriter:
    """Writes the rows of one job on this node."""

    def __init__(self, spec: WriterSpec) -> None:
        self._spec = spec
        self._book, self._ours = _open(spec)
        self._address = AgentSpec(self._book.path, spec.node, 1.0, 1.0, Path()).address
        self._writer = SegmentWriter(self._book, spec.node)
        for row in inventory.of_gpus(spec.gpus):
            self._append("inventory", {"time_ns": time.time_ns(), **row})
        environ = {"SLURM_JOB_ID": str(spec.job_id), "SLURMD_NODENAME": spec.node}
        nobody = StorageError("the service reads it")
        context = Context(environ, nobody, metrics="none/", whole_job=True, pid=str(spec.pid))
        self._looks = [look for kind in (CgroupCollector, ProcessCollector) if (look := _look(kind, context, spec))]

    def run(self, source: int) -> None:
        """Write what comes, one JSON line a row, until the service closes its end."""
        unread = b""
        flush_at_s = time.monotonic() + self._spec.flush_s
        while True:
            wait_s = min(flush_at_s - time.monotonic(), self._next_look_s())
            ready, _, _ = select.select([source], [], [], max(0.0, wait_s))
            came = os.read(source, 1 << 16) if ready else b"-"
            if not came:
                break
            *lines, unread = (unread + came).split(b"\n") if ready else (unread,)
            for line in lines:
                self._append(*json.loads(line))
            self._collect(time.time_ns())
            if time.monotonic() >= flush_at_s:
                self.flush()
                flush_at_s = time.monotonic() + self._spec.flush_s
        self._finish()

    def flush(self) -> None:
        """Write what waits, unless the user's own recorder has this node: its samples are the same, and more."""
        mine = election.bind(self._address)
        if mine is None:
            self._writer = SegmentWriter(self._book, self._spec.node)
            return
        with mine:
            try:
                self._writer.flush()
            except StorageError as error:  # the rows stay, within bounds, until it accepts again
                sys.stderr.write(f"piolet: {error}\n")

    def _append(self, family: str, row: Mapping[str, Any]) -> None:
        self._writer.append(family, {**row, "node": self._spec.node})

    def _next_look_s(self) -> float:
        """Return the seconds until a collector is due, at most those between two looks."""
        now_ns = time.time_ns()
        return min((min(look.due_ns - now_ns, look.interval_ns) / 1e9 for look in self._looks), default=_LOOK_S)

    def _collect(self, now_ns: int) -> None:
        for look in self._looks:
            if now_ns < look.due_ns:
                continue
            try:
                for family, row in look.collector.collect(look.due_ns):
                    self._append(family, row)
            except PioletError as error:
                sys.stderr.write(f"piolet: {error}\n")
            look.due_ns = next_tick(now_ns, look.interval_ns)

    def _finish(self) -> None:
        from piolet.logbook import merging  # noqa: PLC0415 - DuckDB, for a moment

        self.flush()
        merging.merge_node(self._book, self._spec.node)
        if self._ours:
            found, ended_ns = inventory.gpus(self._book), time.time_ns()
            job_file.edit(self._book.job, lambda record: job_file.with_end(_completed(record, found), ended_ns))


def _open(spec: WriterSpec) -> tuple[Logbook, bool]:
    """Make the logbook on the job's first node, or join it; also return whether job.json is ours."""
    book = Logbook(Path(spec.root) / spec.cluster / str(spec.job_id))
    if spec.nodes[:1] != (spec.node,):
        book.path.mkdir(parents=True, exist_ok=True)
        return book, False
    try:
        book = layout.create(Path(spec.root), spec.cluster, str(spec.job_id))
    except Refused:
        return book, False
    write_job(book.job, _record(spec))
    return book, True


def _completed(record: job_file.Json, found: Mapping[str, Sequence[Gpu]]) -> job_file.Json:
    """Return the record with the GPUs of every node that told of them."""
    for node, gpus in found.items():
        record = job_file.with_gpus(record, node, gpus)
    return record


def _record(spec: WriterSpec) -> JobRecord:
    return JobRecord(
        job_id=str(spec.job_id),
        cluster=spec.cluster,
        user=spec.user,
        command=(),
        name=spec.name,
        request=Request(nodes=len(spec.nodes), record=True),
        allocation=tuple(
            NodeAllocation(node, spec.gpus if node == spec.node else (), spec.started_ns) for node in spec.nodes
        ),
        simulated=("gpu",) if any(gpu.simulated for gpu in spec.gpus) else (),
        submitted_ns=spec.submitted_ns,
        started_ns=spec.started_ns,
        program_started_ns=spec.started_ns,
        sample_interval_s=spec.interval_s,
        intervals_s=spec.intervals_s,
        versions={"piolet": __version__, "recorded by": "the node's service"},
    )


@dataclass(slots=True)
class _Look:
    """A collector of what is the job's alone, and when it is asked next."""

    collector: Collector
    interval_ns: int
    due_ns: int


def _look(kind: Callable[[Context], Collector], context: Context, spec: WriterSpec) -> _Look | None:
    try:
        collector = kind(context)
    except PioletError:  # no cgroup of a job, as where Slurm makes none
        return None
    interval_ns = round(interval_s(kind, _LOOK_S, spec.intervals_s) * 1e9)
    return _Look(collector, interval_ns, next_tick(time.time_ns(), interval_ns))


def become(user: pwd.struct_passwd) -> None:
    """Give up root for good, with the groups of the user and the umask that keeps others out."""
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    os.umask(0o077)
    os.chdir("/")


def main(argument: str) -> int:
    """Write the job that `argument` tells of; return the exit status."""
    fields = json.loads(argument)
    gpus = tuple(Gpu(**gpu) for gpu in fields["gpus"])
    spec = WriterSpec(**{**fields, "nodes": tuple(fields["nodes"]), "gpus": gpus})
    try:
        become(pwd.getpwnam(spec.user))
        JobWriter(spec).run(sys.stdin.fileno())
    except PioletError as error:
        sys.stderr.write(f"piolet: job {spec.job_id} is not recorded: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
