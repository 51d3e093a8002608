"""`piolet record --site`: a service of the node that records every job on it, whether or not anybody asked.

It samples the node once, and gives each sample to the jobs that held the node, or that GPU, at that moment: what Slurm
says of a job decides, not what runs. Every job has a writer (site_writer), a process that has become the job's user for
good, so that root writes nothing where users may put links, a user's quota is the user's, and a file system that hangs
holds up one job.

Which jobs are here is asked of the node's own slurmd; the controller is asked when a job begins and when it ends.
"""

from __future__ import annotations

import json
import os
import pwd
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from piolet.core import plugins
from piolet.core.errors import PioletError, UsageError
from piolet.core.log import logger
from piolet.core.run import PIPE, Process, Runner, SystemRunner
from piolet.core.settings import Settings
from piolet.record.collector import Context, Entry
from piolet.record.exporter import Exporter, Holder, Latest
from piolet.record.rates import interval_s, intervals
from piolet.record.sampler import GROUP
from piolet.record.site_writer import WriterSpec
from piolet.record.wakeup import Wakeup
from piolet.record.worker import Mailbox, Worker
from piolet.tools import kmsg
from piolet.tools.nvml import Device
from piolet.tools.slurm import jobs, listpids, scontrol
from piolet.tools.slurm.errors import UnknownJob
from piolet.tools.slurm.job import Job

OF_A_JOB = ("cgroup", "first_node", "processes", "user")
"""Collectors that speak of one job; the others speak of the node."""

POLL_S = 5.0
HOLD_NS = 12 * 1_000_000_000
"""Samples are kept this long before they are given out: a job is known two polls after it began, at the latest."""


@dataclass(frozen=True, slots=True)
class Held:
    """A job's hold on this node: from when to when (None: it goes on), and the UUIDs of its GPUs here."""

    job: Job
    uuids: frozenset[str]
    start_ns: int
    end_ns: int | None = None


def belongs(family: str, row: Mapping[str, Any], held: Held) -> bool:
    """Return whether a row was taken while the job held the node, and is of the node itself or of one of its GPUs."""
    within = held.start_ns <= row["time_ns"] and (held.end_ns is None or row["time_ns"] < held.end_ns)
    about_a_gpu = family == "gpu" or (family == "events" and row.get("uuid"))
    about_others = family == "inventory" and str(row["device"]).startswith("gpu")
    return within and not about_others and (not about_a_gpu or row.get("uuid") in held.uuids)


def uuids_of(indexes: Sequence[int], devices: Sequence[Device]) -> frozenset[str]:
    """Return the UUIDs of the GPUs that Slurm counts as `indexes`: N of /dev/nvidiaN, or the place in the list."""
    number = {(device.index if device.minor is None else device.minor): device.uuid for device in devices}
    return frozenset(number[index] for index in indexes if index in number)


class Pipe:
    """A job's writer, and the way to it; what it does not take at once is dropped, and counted."""

    def __init__(self, spec: WriterSpec) -> None:
        self.process: Process = SystemRunner().start(spec.argv(), stdin=PIPE, new_session=True)
        if self.process.stdin is None:
            raise PioletError("a writer has no input", where=spec.node)
        self._descriptor = self.process.stdin.fileno()
        os.set_blocking(self._descriptor, False)
        self.dropped = 0

    def send(self, family: str, row: Mapping[str, Any]) -> None:
        """Hand a row over: a line is shorter than what a pipe takes as a whole or not at all (pipe(7))."""
        try:
            os.write(self._descriptor, (json.dumps([family, row]) + "\n").encode())
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """Let the writer write the rest and end; it is not waited for."""
        if self.process.stdin:
            self.process.stdin.close()


@dataclass(slots=True)
class Site:
    """The service. `runner` asks Slurm."""

    settings: Settings
    node: str
    cluster: str
    runner: Runner = field(default_factory=SystemRunner)
    context: Context = field(init=False)
    held: dict[int, Held] = field(default_factory=dict)
    writers: dict[int, Pipe] = field(default_factory=dict)
    waiting: deque[Entry] = field(default_factory=deque)
    ending: list[Pipe] = field(default_factory=list)
    mailbox: Mailbox = field(default_factory=Mailbox)
    latest: Latest | None = None

    def run(self) -> None:
        """Record until asked to end."""
        stop = threading.Event()
        for worker in self._workers(stop):
            worker.start()
        if self.settings.record.metrics:
            self.latest = Latest(self.node)
            Exporter(self.settings.record.metrics, self.latest, self._holders)
        wakeup = Wakeup()
        while not wakeup.asked_to_end:
            wakeup.wait(POLL_S)
            self.turn(time.time_ns())
        stop.set()
        self.give(time.time_ns() + HOLD_NS)
        for number in list(self.writers):
            self._let_go(number)
        for writer in self.ending:
            writer.process.wait()

    def _workers(self, stop: threading.Event) -> list[Worker]:
        record = self.settings.record
        chosen = intervals(record.rates)
        self.context = Context(
            {},
            kmsg.try_open(record.kernel_log),
            node=self.node,
            interval_s=chosen.get("gpu", record.interval_s),
            dcgm=record.dcgm,
        )
        found = plugins.load(GROUP).loaded
        return [
            Worker(
                name,
                factory,
                self.context,
                interval_ns=round(interval_s(factory, record.interval_s, chosen) * 1e9),
                mailbox=self.mailbox,
                stop=stop,
            )
            for name, factory in found.items()
            if name not in OF_A_JOB
        ]

    def turn(self, now_ns: int) -> None:
        """Look which jobs are here, and give out what has waited long enough."""
        entries, _ = self.mailbox.take()
        self.waiting.extend(entries)
        if self.latest:
            self.latest.take(entries)
        try:
            self._look(now_ns)
        except PioletError as error:  # slurmd restarts, the controller is away: samples wait for the next time
            logger("record").warning("cannot tell which jobs are here", reason=str(error))
        self.give(now_ns)

    def _holders(self) -> list[Holder]:
        """Return whose the node and its GPUs are now."""
        return [
            Holder(
                {"slurm_job": str(each.job.id), "cluster": self.cluster, "user": each.job.user, "name": each.job.name},
                [(device.index, device.uuid) for device in self.context.devices if device.uuid in each.uuids],
            )
            for each in list(self.held.values())
            if each.end_ns is None
        ]

    def give(self, now_ns: int) -> None:
        """Give every sample that is old enough to its jobs, and let go of jobs whose last sample that was."""
        while self.waiting and self.waiting[0][1]["time_ns"] < now_ns - HOLD_NS:
            family, row = self.waiting.popleft()
            for number, held in self.held.items():
                if belongs(family, row, held) and number in self.writers:
                    self.writers[number].send(family, row)
        for number, held in list(self.held.items()):
            if held.end_ns is not None and held.end_ns < now_ns - HOLD_NS:
                del self.held[number]
                self._let_go(number)
        self.ending = [writer for writer in self.ending if writer.process.poll() is None]

    def _let_go(self, number: int) -> None:
        if writer := self.writers.pop(number, None):
            writer.close()
            self.ending.append(writer)
            if writer.dropped:
                logger("record").warning("a writer did not keep up", job=number, rows=writer.dropped)

    def _look(self, now_ns: int) -> None:
        here = listpids.pids(self.runner, self.node)
        for number, pid in here.items():
            if number not in self.held:
                self._begin(number, pid, now_ns)
        for number in [number for number, held in self.held.items() if number not in here and held.end_ns is None]:
            self._end(number, now_ns)

    def _begin(self, number: int, pid: int, now_ns: int) -> None:
        job = jobs.find(self.runner, number)
        uuids = uuids_of(job.gpu_indexes.get(self.node, ()), self.context.devices)
        self.held[number] = Held(job, uuids, job.start_ns or now_ns)
        logger("record").info("a job began", job=number, user=job.user, gpus=len(uuids))
        try:
            self.writers[number] = Pipe(self._writer(job, pid))
        except (PioletError, KeyError) as error:
            logger("record").warning("a job is not recorded", job=number, reason=str(error))

    def _writer(self, job: Job, pid: int) -> WriterSpec:
        record = self.settings.record
        return WriterSpec(
            job_id=job.id,
            user=pwd.getpwnam(job.user).pw_name,
            name=job.name,
            nodes=tuple(job.nodes),
            submitted_ns=job.submit_ns,
            started_ns=job.start_ns,
            root=str(self.settings.root).replace("{user}", job.user),
            cluster=self.cluster,
            node=self.node,
            pid=pid,
            interval_s=record.interval_s,
            flush_s=record.flush_s,
            intervals_s=intervals(record.rates),
            gpus=tuple(device.gpu for device in self.context.devices if device.uuid in self.held[job.id].uuids),
        )

    def _end(self, number: int, now_ns: int) -> None:
        """Note the end of a job that has no process here any more; one that only pauses between steps goes on."""
        held = self.held[number]
        try:
            job = jobs.find(self.runner, number)
        except UnknownJob:
            job = replace(held.job, end_ns=now_ns)
        else:
            if not job.state.finished:
                return
        self.held[number] = replace(held, end_ns=job.end_ns or now_ns)


def serve(settings: Settings, node: str, cluster: str = "") -> None:
    """Be the service of this node until SIGTERM.

    Raises:
        UsageError: this is not root, or there is no root for logbooks.
        PioletError: Slurm does not answer.
    """
    if os.geteuid() != 0:
        raise UsageError("the service of a node runs as root, to write as each job's user", remedy="start it as root")
    if settings.root is None or not settings.root.is_absolute():
        remedy = 'set root = "/scratch/{user}/piolet" in the configuration of the site'
        raise UsageError("the service needs to know where the logbooks are", remedy=remedy)
    runner = SystemRunner()
    name = cluster or settings.cluster or scontrol.config(runner)["ClusterName"]
    Site(settings, node, name, runner).run()
