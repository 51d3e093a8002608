"""The sampler: collects, writes segments, and never stops because something else does.

It runs below a supervisor and takes its place if that is killed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from piolet.core import plugins
from piolet.core.errors import PioletError, StorageError
from piolet.core.nouns import Severity
from piolet.core.run import Process, SystemRunner, end
from piolet.logbook.layout import Logbook
from piolet.logbook.writer import SegmentWriter
from piolet.record import job
from piolet.record.collector import Collector, Context, Entry, event
from piolet.record.devices import select
from piolet.record.exporter import Exporter, Holder, Latest
from piolet.record.rates import interval_s
from piolet.record.spec import AgentSpec
from piolet.record.wakeup import Wakeup
from piolet.record.worker import Mailbox, Worker
from piolet.tools.kmsg import KernelLog

GROUP = "piolet.collectors"
_POLL_S = 1.0
_LAST_ATTEMPTS = 4
_LAST_PAUSE_S = 0.3
_MERGE_EVERY_S = 600.0
_MERGE_TIMEOUT_S = 8.0
"""Less than the time that the supervisor leaves a sampler to end."""


class Sampler:
    """Records one node until it is asked to end; `supervisor` is a pipe that closes when the supervisor dies."""

    def __init__(self, spec: AgentSpec, context: Context, wakeup: Wakeup, supervisor: int) -> None:
        self._spec = spec
        self._context = context
        self._wakeup = wakeup
        self._supervisor = supervisor
        self._mailbox = Mailbox()
        self._stop = threading.Event()
        self._workers = [self._worker(name, factory) for name, factory in self._collectors().items()]
        self._output = Output(spec)
        self._latest = Latest(spec.node) if spec.exporter else None
        self._job_lacks_gpus = spec.owns_job

    def run(self) -> bool:
        """Sample until asked to end (True) or until the supervisor is gone (False)."""
        self._export()
        self._note("agent", "restart" if self._spec.restarted else "start", self._spec.restarted or "recording begins")
        for worker in self._workers:
            worker.start()
        flush_at_s = time.monotonic() + min(_POLL_S, self._spec.flush_s)
        alone = False
        while not (self._wakeup.asked_to_end or alone):
            urgent = self._turn()
            if urgent or time.monotonic() >= flush_at_s:
                self._output.flush()
                flush_at_s = time.monotonic() + self._spec.flush_s
                self._output.merge_new()
            alone = bool(self._wakeup.wait(min(_POLL_S, flush_at_s - time.monotonic()), [self._supervisor]))
        return self._end(alone=alone and not self._wakeup.asked_to_end)

    def _turn(self) -> bool:
        """Move what was collected to the writer; return whether something of it should be written at once."""
        for worker in self._workers:
            worker.check(time.monotonic())
        if self._job_lacks_gpus and self._context.devices:
            self._job_lacks_gpus = not self._complete_job()
        entries, dropped = self._mailbox.take()
        self._output.append(entries, dropped)
        if self._latest:
            self._latest.take(entries)
        return any(row.get("severity") == Severity.ERROR for _, row in entries)

    def _export(self) -> None:
        """Serve /metrics, as long as this process lives, if that is wanted; that it cannot be stops no recording."""
        if self._latest:
            try:
                Exporter(self._spec.exporter, self._latest, self._holders)
            except PioletError as error:
                self._note("collector", "metrics", str(error), Severity.WARNING)

    def _holders(self) -> list[Holder]:
        environ, logbook = self._context.environ, self._spec.logbook
        about = {
            "slurm_job": logbook.name,
            "cluster": logbook.parent.name,
            "user": environ.get("SLURM_JOB_USER") or environ.get("USER", ""),
            "account": environ.get("SLURM_JOB_ACCOUNT", ""),
            "name": environ.get("SLURM_JOB_NAME", ""),
        }
        gpus = [device.gpu for device in select(self._context.devices, environ)]
        return [Holder(about, [(gpu.index, gpu.uuid) for gpu in gpus])]

    def _complete_job(self) -> bool:
        gpus = [device.gpu for device in select(self._context.devices, self._context.environ)]
        path = Logbook(self._spec.logbook).job
        return job.edit(path, lambda record: job.with_gpus(record, self._spec.node, gpus))

    def _end(self, *, alone: bool) -> bool:
        self._stop.set()
        for worker in self._workers:
            worker.finish(time.time_ns())
        if not alone:
            self._note("agent", "stop", "recording ends")
        self._turn()
        if alone:
            self._output.flush()
        else:
            self._output.close()
        return not alone

    def _collectors(self) -> Mapping[str, Callable[[Context], Collector]]:
        found = plugins.load(GROUP)
        for finding in found.broken:
            self._note("collector", "unavailable", f"{finding.subject}: {finding.reason}", Severity.WARNING)
        return found.loaded

    def _worker(self, name: str, factory: Callable[[Context], Collector]) -> Worker:
        interval_ns = round(interval_s(factory, self._spec.interval_s, self._spec.intervals_s) * 1e9)
        return Worker(name, factory, self._context, interval_ns=interval_ns, mailbox=self._mailbox, stop=self._stop)

    def _note(self, kind: str, code: str, message: str, severity: Severity | None = None) -> None:
        severity = severity or (Severity.WARNING if code == "restart" else Severity.INFO)
        self._mailbox.put([event(time.time_ns(), kind, code, message, severity=severity)])


@dataclass(slots=True)
class Output:
    """The writer and its troubles: a file system that refuses is tried again, and reported when it accepts."""

    spec: AgentSpec
    dropped: int = 0
    refused_since_ns: int | None = None
    refusal: str = ""
    writer: SegmentWriter = field(init=False)
    merging: Process | None = None
    merged_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.writer = SegmentWriter(Logbook(self.spec.logbook), self.spec.node)

    def append(self, entries: list[Entry], dropped: int = 0) -> None:
        """Hand rows to the writer; `dropped` counts those that were lost on the way."""
        self.dropped += dropped
        for family, row in entries:
            self.writer.append(family, {**row, "node": self.spec.node})

    def flush(self) -> bool:
        """Write what waits; False if the file system refused, which is reported once it accepts again."""
        try:
            self.writer.flush()
        except StorageError as error:
            self.refused_since_ns = self.refused_since_ns or time.time_ns()
            self.refusal = error.what
            return False
        if self.refused_since_ns:
            self._report()
            return self.flush()
        return True

    def merge_new(self) -> None:
        """Merge what was flushed, now and then, in a process of its own; whole hours of small files would pile up."""
        if self.merging is not None and self.merging.poll() is None:
            return
        if time.monotonic() - self.merged_s >= _MERGE_EVERY_S:
            self.merged_s = time.monotonic()
            self.merging = SystemRunner().start([*self._merge_argv(), "--new"])

    def close(self) -> None:
        """Write and merge; gives up after a second if the file system refuses to the end."""
        for _ in range(_LAST_ATTEMPTS):
            if self.flush():
                break
            time.sleep(_LAST_PAUSE_S)
        else:
            _say(f"the last samples could not be written: {self.refusal}")
            return
        if self.merging is not None:
            end(self.merging, _MERGE_TIMEOUT_S / 2)
        try:
            SystemRunner().run(self._merge_argv(), timeout=_MERGE_TIMEOUT_S)
        except PioletError as error:
            _say(str(error))

    def _merge_argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "piolet.logbook.merging", str(self.spec.logbook), self.spec.node]

    def _report(self) -> None:
        now_ns = time.time_ns()
        refused_s = (now_ns - (self.refused_since_ns or now_ns)) / 1e9
        dropped = self.dropped + self.writer.dropped_rows
        message = f"the logbook could not be written for {refused_s:.0f} s ({self.refusal}); {dropped} rows dropped"
        self.dropped = self.writer.dropped_rows = 0
        self.refused_since_ns = None
        self.append([event(now_ns, "agent", "dropped" if dropped else "delayed", message, severity=Severity.WARNING)])


def _say(what: str) -> None:
    os.write(2, f"piolet: {what}\n".encode("utf-8", "replace"))


def main(spec: AgentSpec, kernel_log: KernelLog | StorageError, wakeup: Wakeup, supervisor: int) -> bool:
    """Run the sampler in this process; see Sampler.run."""
    context = Context(
        dict(os.environ),
        kernel_log,
        metrics=spec.metrics,
        node=spec.node,
        logbook=spec.logbook,
        interval_s=spec.intervals_s.get("gpu", spec.interval_s),
        dcgm=spec.dcgm,
        whole_job=spec.whole_job,
    )
    return Sampler(spec, context, wakeup, supervisor).run()
