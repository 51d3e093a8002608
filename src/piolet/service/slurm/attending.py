"""The attendant of one job of a service: it starts the engine, says where it answers, and hands over to the next job.

It runs on the job's first node, outside of the container. The job's successor is submitted before anything else, so
that even a node that dies is followed by another; it begins when this job ends, or when it is time to hand over.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import httpx2

from piolet.core.errors import PioletError, Refused, StorageError, UsageError
from piolet.core.log import logger
from piolet.core.nodeset import NodeSet
from piolet.core.run import Process, Runner, SystemRunner, end, exit_status
from piolet.core.settings import Settings
from piolet.core.sockets import free_port
from piolet.logbook import layout, records
from piolet.logbook.layout import Logbook
from piolet.service import reading
from piolet.service.model import Health as Probes
from piolet.service.model import Service
from piolet.service.slurm import judging, places
from piolet.service.slurm.chain import Chain
from piolet.service.slurm.judging import Health, Next
from piolet.service.slurm.places import Attempt, Endpoint, Place
from piolet.tools.slurm import allocation as allocations
from piolet.tools.slurm import jobs, scontrol, squeue
from piolet.tools.slurm.job import Job

PROBE_TIMEOUT_S = 5.0
ENGINE_GRACE_S = 20.0
"""Below the 30 s (KillWait) that Slurm leaves between asking a job to end and killing it."""

_POLL_S = 0.1
_TERMINATED = 128 + signal.SIGTERM


class Asked(BaseException):
    """This job was asked to end: its time is over, or somebody cancelled it. Like KeyboardInterrupt, no error."""


@dataclass(slots=True)
class Attendant:
    """A job of a service, the endpoint that it offers, and its chain."""

    place: Place
    service: Service
    attempt: Attempt
    endpoint: Endpoint
    chain: Chain
    logbook: Logbook
    health: Health = field(default_factory=Health)

    @property
    def probes(self) -> Probes:
        """How the engine is asked whether it works."""
        return self.service.health or Probes()

    def serve(self, command: Sequence[str]) -> int:
        """Run the engine until it ends, is given up or is replaced; return the exit status."""
        key, port = self.endpoint.key, str(self.endpoint.port)
        variables = {"PORT": port, "API_KEY": key, "VLLM_API_KEY": key} | self.service.env
        words = [judging.expanded(word, variables) for word in command]
        self.chain.tend()
        engine = SystemRunner(variables).start(words, new_session=True)
        try:
            with _stoppable():
                return self._watched(engine)
        except Asked:
            self._note("it was asked to end")
            return _TERMINATED
        finally:
            self._withdraw()
            end(engine, ENGINE_GRACE_S)

    def _watched(self, engine: Process) -> int:
        began_s = time.monotonic()
        while (code := engine.poll()) is None:
            what, why = self._turn(time.monotonic() - began_s)
            if what is Next.RETIRE:
                return self._retired(engine, why)
            if what is Next.GIVE_UP:
                self._note(why)
                return 1
            _pause(engine, self.probes.period_s)
        self._note(f"the engine ended with status {exit_status(code)}")
        outcome = records.read_outcome(self.logbook.outcome)
        self.chain.avoid(NodeSet(outcome.bad_nodes) if outcome else NodeSet())
        return exit_status(code) or 1  # a service does not end by itself

    def _turn(self, elapsed_s: float) -> tuple[Next, str]:
        """Probe, publish and decide; a file system that fails for a while ends no service."""
        self.chain.tend()
        self.health = self.health.after(answered=self._answers())
        try:
            self._publish()
            return self._decided(elapsed_s)
        except StorageError as error:
            logger("service").warning(error.what, where=error.where)
            return Next.SERVE, ""

    def _decided(self, elapsed_s: float) -> tuple[Next, str]:
        wanted = self.place.read_wanted()
        attempt = self.attempt
        return judging.decided(
            self.health,
            elapsed_s=elapsed_s,
            startup_s=self.probes.startup_s,
            wanted=wanted is not None and wanted.holds(attempt.replica, _today()),
            heir=judging.heir_of(attempt, self.place.endpoints()),
        )

    def _answers(self) -> bool:
        url = f"http://{self.endpoint.host}:{self.endpoint.port}{self.probes.path}"
        headers = {"Authorization": f"Bearer {self.endpoint.key}"}
        try:
            return not httpx2.get(url, headers=headers, timeout=PROBE_TIMEOUT_S).is_error
        except httpx2.HTTPError:
            return False

    def _publish(self) -> None:
        """Say where requests can go, with a beat after each answer; say nothing while the engine does not answer."""
        if not self.health.ready:
            self._withdraw()
        elif not self.health.missed:
            self.endpoint = replace(self.endpoint, beat=self.endpoint.beat + 1)
            places.write(self.place.endpoint(self.attempt.job), self.endpoint)
        if self.health.ready and self.attempt.ready_ns is None:
            self._record(ready_ns=time.time_ns())
            logger("service").info("ready", job=self.attempt.job, host=self.endpoint.host, port=self.endpoint.port)

    def _withdraw(self) -> None:
        self.place.endpoint(self.attempt.job).unlink(missing_ok=True)

    def _retired(self, engine: Process, why: str) -> int:
        """Take no new requests, and leave those under way their time."""
        self._withdraw()
        self._note(why)
        _pause(engine, self.service.slurm.drain_s)
        return 0

    def _note(self, why: str) -> None:
        logger("service").info("ending", job=self.attempt.job, reason=why)
        self._record(ended=why)

    def _record(self, **changes: object) -> None:
        self.attempt = replace(self.attempt, **changes)  # type: ignore[arg-type] # the names are Attempt's own
        places.write(self.place.attempt(self.attempt.job), self.attempt)


def attend(place: Place, generation: int, replica: int, command: Sequence[str], settings: Settings) -> int:
    """Attend the job that this process is in, which runs `command` as a replica of the service at `place`.

    Raises:
        UsageError: this is no job of Slurm.
        Refused: too many jobs before it never were ready.
    """
    allocation = allocations.from_environ(os.environ)
    if allocation is None:
        raise UsageError("this is no job of Slurm", remedy="`piolet service deploy` submits the jobs of a service")
    runner = SystemRunner()
    job = jobs.find(runner, allocation.job)
    failures = judging.failures_before(generation, replica, place.attempts())
    attempt = Attempt(job.id, generation, replica, allocation.node, job.stdout, time.time_ns(), failures)
    places.write(place.attempt(job.id), attempt)
    wanted = place.read_wanted()
    if wanted is None or wanted.generation != generation or not wanted.holds(replica, _today()):
        places.write(place.attempt(job.id), replace(attempt, ended="it is no longer wanted"))
        return 0
    if failures >= judging.MOST_FAILURES:
        raise _given_up(place, attempt)
    _forget_the_dead(place, job, runner)
    service = reading.read(place.generation(generation)).service
    minutes = judging.begin_minutes(job.time_limit_s or math.inf, service.slurm.overlap_minutes * 60)
    return Attendant(
        place,
        service,
        attempt,
        endpoint=_endpoint(service, attempt, runner),
        chain=Chain(job.id, allocation.nodes, place.script(generation, replica), minutes, runner),
        logbook=Logbook(layout.root(settings) / (settings.cluster or allocation.cluster or "slurm") / str(job.id)),
    ).serve(command)


def _endpoint(service: Service, attempt: Attempt, runner: Runner) -> Endpoint:
    node = scontrol.node_records(runner, NodeSet(attempt.node))[0]
    return Endpoint(
        attempt.job,
        attempt.generation,
        attempt.replica,
        host=node.address or node.name,
        port=service.port or free_port(""),
        key=secrets.token_urlsafe(24),
        beat=0,
        period_s=(service.health or Probes()).period_s,
    )


def _given_up(place: Place, attempt: Attempt) -> PioletError:
    what = f"{attempt.failures} jobs in a row ended before they were ready: the chain ends here"
    places.write(place.attempt(attempt.job), replace(attempt, ended=what))
    return Refused(what, where=str(place.path / "jobs"), remedy="read their logs, then deploy the service again")


def _forget_the_dead(place: Place, job: Job, runner: Runner) -> None:
    """Remove the endpoints of jobs that ended without a word."""
    alive = {each.id for each in squeue.jobs(runner, users=[job.user], names=[job.name], states=["RUNNING"])}
    for endpoint in place.endpoints():
        if endpoint.job not in alive:
            place.endpoint(endpoint.job).unlink(missing_ok=True)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise Asked inside of the block when this process is asked to end."""

    def stop(*_: object) -> None:
        raise Asked

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _pause(engine: Process, seconds: float) -> None:
    """Wait, but not for an engine that has ended."""
    deadline = time.monotonic() + seconds
    while engine.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _today() -> date:
    return datetime.now(UTC).date()
