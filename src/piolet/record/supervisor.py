"""The supervisor: a small process that starts the sampler again when it dies, and tells it when to end.

It imports nothing heavy, so that forking it is cheap and safe: the sampler loads NVML after the fork. Each
watches the other: a sampler whose supervisor is killed takes its place by exec, and forks a new sampler.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import NoReturn

from piolet.core.errors import StorageError
from piolet.logbook.layout import Logbook
from piolet.record import election, job
from piolet.record.spec import AgentSpec
from piolet.record.wakeup import Wakeup, hold_signals, release_signals
from piolet.tools import kmsg
from piolet.tools.kmsg import KernelLog

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_QUICK_END_S = 10.0
_GIVE_UP_AFTER = 10
_GRACE_S = 10.0
_LONG_S = 3600.0


@dataclass(slots=True)
class Supervisor:
    """Keeps one sampler alive until the recording ends."""

    spec: AgentSpec
    elected: socket.socket
    kernel_log: KernelLog | StorageError
    wakeup: Wakeup
    follow: set[int] = field(default_factory=set)
    leash: int | None = None
    ended_ns: int | None = None

    def run(self) -> int:
        """Supervise until the programs end or a signal comes; return the exit status of the agent."""
        failures = 0
        spec = self.spec
        while True:
            began_s = time.monotonic()
            status = self._watch(self._fork(spec))
            if self._over() or status == 0:
                return self._ended(status)
            failures = failures + 1 if time.monotonic() - began_s < _QUICK_END_S else 1
            if failures > _GIVE_UP_AFTER:
                sys.stderr.write("piolet: the recorder ends again and again; it gives up\n")
                return 3
            self.wakeup.wait(min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S))
            spec = replace(spec, restarted=f"the sampler {_described(status)}; it was started again")

    def _over(self) -> bool:
        return self.wakeup.asked_to_end or (bool(self.spec.follow) and not self.follow)

    def _ended(self, status: int) -> int:
        ended_ns = self.ended_ns or time.time_ns()
        if self.spec.owns_job:
            job.edit(Logbook(self.spec.logbook).job, lambda record: job.with_end(record, ended_ns))
        return 0 if status == 0 else 3

    def _fork(self, spec: AgentSpec) -> int:
        """Start a sampler; it holds the reading end of a pipe that closes when this process ends."""
        if self.leash is not None:
            os.close(self.leash)
        reader, self.leash = os.pipe()
        hold_signals()
        child = os.fork()
        if child == 0:
            os.close(self.leash)
            _become_sampler(replace(spec, follow=tuple(self.follow)), self, reader)
        release_signals()
        os.close(reader)
        return child

    def _watch(self, child: int) -> int:
        """Wait for the sampler's end, having asked for it when the recording is over; return its wait status."""
        pidfd = os.pidfd_open(child)
        asked_s: float | None = None
        try:
            while True:
                if asked_s is None and self._over():
                    os.kill(child, signal.SIGTERM)
                    self.ended_ns, asked_s = time.time_ns(), time.monotonic()
                if asked_s is not None and time.monotonic() - asked_s >= _GRACE_S:
                    os.kill(child, signal.SIGKILL)  # a hung file system may keep even that waiting
                    return signal.SIGKILL
                ready = self.wakeup.wait(_LONG_S if asked_s is None else _GRACE_S, {pidfd, *self._sources()})
                if pidfd in ready:
                    return os.waitpid(child, 0)[1]
                self._news(ready)
        finally:
            os.close(pidfd)

    def _sources(self) -> set[int]:
        """Return what to listen to while the recording goes on: new programs, and the ends of those followed."""
        return set() if self._over() else {self.elected.fileno(), *self.follow}

    def _news(self, ready: set[int]) -> None:
        for ended in ready & self.follow:
            self.follow.discard(ended)
            os.close(ended)
        if self.elected.fileno() in ready:
            self.follow.update(election.accept(self.elected))


def supervise(spec: AgentSpec, elected: socket.socket) -> int:
    """Record as `spec` says in this process and a child; return the exit status."""
    if spec.kernel_log_position is None:
        kernel_log = kmsg.try_open(spec.kernel_log)
    else:
        kernel_log = KernelLog(spec.kernel_log_position)
    return Supervisor(spec, elected, kernel_log, Wakeup(), set(spec.follow)).run()


def _become_sampler(spec: AgentSpec, supervisor: Supervisor, leash: int) -> NoReturn:
    """Sample in this process, just forked, to the end; or, if the supervisor is killed, become the next one.

    Where another agent stands by it is the next one: this process is a child of no task of the step any more, so
    Slurm could neither signal it nor wait for it, and would drain the node when it outlives the step.
    """
    status = 1
    try:
        wakeup = Wakeup()
        wakeup.asked_to_end |= supervisor.wakeup.asked_to_end
        from piolet.record import sampler  # noqa: PLC0415 - NVML and threads, which the supervisor does without

        ended = sampler.main(spec, supervisor.kernel_log, wakeup, leash)
        if not ended and not spec.standby:
            _take_over(spec, supervisor)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's stack may run here
        traceback.print_exc()
    finally:
        os._exit(status)  # not sys.exit, which would wait for collectors that hang


def _take_over(spec: AgentSpec, supervisor: Supervisor) -> NoReturn:
    position = supervisor.kernel_log.descriptor if isinstance(supervisor.kernel_log, KernelLog) else None
    successor = replace(
        spec,
        election=supervisor.elected.fileno(),
        kernel_log_position=position,
        restarted="the supervisor was killed; the sampler took its place",
    )
    for descriptor in successor.descriptors:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - its own interface
    hold_signals()
    argv = successor.argv()
    os.execv(argv[0], argv)  # noqa: S606 - the same program again, no shell


def _described(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
