"""The conductor: vet the nodes, choose the good ones, record, run the program, close the logbook.

It is the same on a Slurm allocation and on one machine; what differs is behind `Machine`. Whatever happens, the
logbook ends with an outcome, nothing keeps running, and the exit status is the program's.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from piolet import metrics, record
from piolet.core.errors import PioletError
from piolet.core.nodeset import NodeSet
from piolet.core.run import Process, SystemRunner, end
from piolet.core.stopping import Stopped, stoppable, undisturbed
from piolet.core.text import plural
from piolet.data import cadence
from piolet.launch import copies
from piolet.launch import outcome as outcomes
from piolet.launch.again import tried_again
from piolet.launch.choosing import ready_nodes
from piolet.launch.copies import NotStaged
from piolet.launch.environment import VERIFIED
from piolet.launch.program import Reason
from piolet.launch.session import Session
from piolet.launch.telling import say, told
from piolet.launch.watching import SIGNS, Watch, xid_before
from piolet.logbook import records
from piolet.vet import Protocol as VettingProtocol

RECORDER_GRACE_S = 15.0
"""Seconds that recorders have to write their last segments."""

FINDINGS = 1
"""Exit status of a command that found something."""

CHECKPOINT_VARIABLE = "PIOLET_CHECKPOINT_INTERVAL_S"
"""Tells the program how many seconds of work there should be between two checkpoints."""

REPORT_TIMEOUT_S = 300.0
"""Seconds that a report may take; `piolet score --html` writes it again at any time."""


def conduct(session: Session, protocol: VettingProtocol | None) -> int:
    """Carry the run through and return the exit status."""
    with stoppable(), session.warned.listening() if session.warned else contextlib.nullcontext():
        try:
            outcome = _carried_out(session, protocol)
        except Stopped as stop:
            state = "NODE_FAIL" if stop.failed_node else session.machine.ended_as()
            outcome = outcomes.of_stop(stop.signal_number, time.time_ns(), state=state, node=stop.failed_node)
        except PioletError as error:
            with contextlib.suppress(Stopped), undisturbed():
                _close(session, tried_again(session, outcomes.of_error(error, time.time_ns())))
            raise
        with contextlib.suppress(Stopped), undisturbed():
            _tell(outcome)
            outcome = tried_again(session, outcome)
            _close(session, outcome)
    return outcome.exit_status


def _carried_out(session: Session, protocol: VettingProtocol | None) -> records.Outcome:
    used = ready_nodes(session, protocol)
    with _staged(session, used), _recorded(session, used):
        session.update(program_started_ns=time.time_ns())
        say(f"running {session.request.job_name} on {used}, {plural(session.request.ranks, 'task')}")
        try:
            variables = _variables(session, len(used))
            ended = session.machine.run(used, session.request, variables, _watched(session, used))
        finally:
            session.try_update(program_ended_ns=time.time_ns())
    ended_ns = time.time_ns()
    looked_up = ended.status != 0 and session.request.record
    return outcomes.of_program(ended, ended_ns, xid_before(session.logbook, ended_ns) if looked_up else None)


def _watched(session: Session, used: NodeSet) -> tuple[Reason, ...]:
    """Return what passes the warning on, and what watches the logbook for the signs that were asked for."""
    request, settings, warned = session.request, session.settings.run, session.warned
    warnings: tuple[Reason, ...] = (warned.pass_on,) if warned else ()
    signs = [sign for sign in request.abort_on if sign in SIGNS]
    if not signs and request.heartbeat_s is None:
        return warnings

    def look_closer() -> None:
        with told("the stacks"):
            session.machine.collect_stacks(used, session.logbook.stacks)
            say(f"the stacks of all ranks are in {session.logbook.stacks}")

    watch = Watch(session.logbook, signs, settings.hang_s, settings.hang_grace_s, look_closer, request.heartbeat_s)
    return (*warnings, lambda _: watch.reason())


def _variables(session: Session, nodes: int) -> dict[str, str]:
    """Return what tells the program the recorder, its container's logbook, its copies, and when checkpoints are due."""
    found = {metrics.VARIABLE: record.metrics_name(session.logbook.path)} if session.request.record else {}
    found |= {VERIFIED: str(session.logbook.verified)} if session.request.environment else {}
    wanted = session.request.copies
    found |= {copies.VARIABLE: ":".join(str(copy.target) for copy in wanted)} if wanted else {}
    return found | _cadence(session, nodes)


def _cadence(session: Session, nodes: int) -> dict[str, str]:
    """Return how often a program whose checkpoints take known seconds should write one."""
    if session.request.checkpoint_s is None:
        return {}
    mtbf_s = cadence.job_mtbf_s(session.settings.run.node_mtbf_hours * 3600, nodes)
    best = cadence.cadence(session.request.checkpoint_s, mtbf_s)
    say(f"a checkpoint is due every {best.interval_s:.0f} s of work ({CHECKPOINT_VARIABLE})")
    return {CHECKPOINT_VARIABLE: f"{best.interval_s:.0f}"}


@contextlib.contextmanager
def _staged(session: Session, used: NodeSet) -> Iterator[None]:
    """Have the copies that were asked for on all nodes inside the block; a node without one is a bad node."""
    try:
        with copies.held(session.machine.staged, used, session.request.copies) as staged:
            session.update(staged=staged)
            yield
    except NotStaged as failed:
        refused = (records.Refusal(node, reason) for node, reason in failed.lost.items())
        session.update(refused=(*session.job.refused, *refused))
        raise


@contextlib.contextmanager
def _recorded(session: Session, used: NodeSet) -> Iterator[None]:
    """Record inside the block if that was asked for; a recorder that fails never hurts the program."""
    recorder: Process | None = None
    try:
        if session.request.record:
            with undisturbed():
                recorder = session.machine.start_recorder(used, session.logbook.path)
        yield
    finally:
        if recorder:
            with undisturbed():
                end(recorder, RECORDER_GRACE_S, asking=signal.SIGUSR1)


def _tell(outcome: records.Outcome) -> None:
    ending = f": {outcome.reason}" if outcome.reason else ""
    say(f"{outcome.state.lower().replace('_', ' ')}{ending}")
    if outcome.next_action:
        say(f"next: {outcome.next_action}")


def _close(session: Session, outcome: records.Outcome) -> None:
    """Write how it ended and the report, each on its own: what fails is told and changes nothing else."""
    session.try_update(allocation=tuple(replace(held, to_ns=outcome.ended_ns) for held in session.job.allocation))
    with told("outcome.json"):
        records.write_outcome(session.logbook.outcome, outcome)
    say(f"logbook {session.logbook.path}")
    recorded = session.request.record and session.job.program_started_ns is not None
    if recorded:
        with told("findings.json"):
            for line in _after("watch", "diagnose", str(session.logbook.path), "--save", "--brief"):
                say(line)
    with told("the report"):
        lines = _after("score", str(session.logbook.path), "--brief", "--html", str(session.logbook.report))
        for line in lines if recorded else ():
            say(line)
        say(f"report  {session.logbook.report}")


def _after(*command: str) -> list[str]:
    """Run a piolet command in a process of its own, so that nothing in it can touch the run's end; return its lines."""
    argv = [sys.executable, "-m", "piolet", *command]
    return SystemRunner().run(argv, timeout=REPORT_TIMEOUT_S, ok=(0, FINDINGS)).stdout.splitlines()
