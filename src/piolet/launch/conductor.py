"""The conductor: vet the nodes, choose the good ones, record, run the program, close the logbook.

It is the same on a Slurm allocation and on one machine; what differs is behind `Machine`. Whatever happens, the
logbook ends with an outcome, nothing keeps running, and the exit status is the program's.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from piolet import metrics, record
from piolet.core.config import Settings
from piolet.core.errors import PioletError, Refused
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Gpu
from piolet.core.run import Process, SystemRunner, end
from piolet.core.stopping import Stopped, stoppable, undisturbed
from piolet.core.text import plural
from piolet.data import cadence
from piolet.launch import copies, warning
from piolet.launch import outcome as outcomes
from piolet.launch.copies import NotStaged
from piolet.launch.environment import VERIFIED
from piolet.launch.machine import Machine
from piolet.launch.program import Reason
from piolet.launch.request import RunRequest
from piolet.launch.telling import say, told
from piolet.launch.warning import Warned
from piolet.launch.watching import SIGNS, Watch, xid_before
from piolet.logbook import provenance, records
from piolet.logbook.layout import Logbook
from piolet.record.rates import intervals
from piolet.vet import Protocol as VettingProtocol
from piolet.vet import Verdict, choose

RECORDER_GRACE_S = 15.0
"""Seconds that recorders have to write their last segments."""


INVENTORY = VettingProtocol("inventory", ())
"""Checks nothing: its answers tell which GPUs a node has."""

FINDINGS = 1
"""Exit status of a command that found something."""

CHECKPOINT_VARIABLE = "PIOLET_CHECKPOINT_INTERVAL_S"
"""Tells the program how many seconds of work there should be between two checkpoints."""

REPORT_TIMEOUT_S = 300.0
"""Seconds that a report may take; `piolet score --html` writes it again at any time."""


@dataclass(slots=True)
class Session:
    """One run in progress: what it was asked, where it runs, and what its logbook says so far."""

    request: RunRequest
    machine: Machine
    logbook: Logbook
    settings: Settings
    job: records.JobRecord
    warned: Warned | None = None

    def update(self, **changes: object) -> None:
        """Change job.json."""
        self.job = replace(self.job, **changes)  # type: ignore[arg-type] # the names are JobRecord's own
        records.write_job(self.logbook.job, self.job)

    def try_update(self, **changes: object) -> None:
        """Change job.json once the program has run: its end counts, whatever the file system says."""
        with told("job.json"):
            self.update(**changes)


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
                _close(session, _tried_again(session, outcomes.of_error(error, time.time_ns())))
            raise
        with contextlib.suppress(Stopped), undisturbed():
            _tell(outcome)
            outcome = _tried_again(session, outcome)
            _close(session, outcome)
    return outcome.exit_status


def begin(
    request: RunRequest, machine: Machine, logbook: Logbook, settings: Settings, *, cluster: str, job_id: str
) -> Session:
    """Write the first job.json of a new logbook and return the session."""
    job = records.JobRecord(
        job_id=job_id,
        cluster=cluster,
        user=getpass.getuser(),
        account=os.environ.get("SLURM_JOB_ACCOUNT", ""),
        command=request.command,
        request=request.recorded(),
        name=request.job_name,
        attempt=max(request.attempt, 1),
        previous_job=request.previous_job,
        simulated=machine.simulated(),
        started_ns=time.time_ns(),
        sample_interval_s=settings.record.interval_s if request.record else None,
        intervals_s=intervals(settings.record.rates),
        versions=provenance.versions(Path.cwd()),
    )
    warned = Warned(warning.parse(request.signal)) if request.signal else None
    session = Session(request, machine, logbook, settings, job, warned)
    session.update()
    return session


def _carried_out(session: Session, protocol: VettingProtocol | None) -> records.Outcome:
    used = _ready_nodes(session, protocol)
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


def _ready_nodes(session: Session, protocol: VettingProtocol | None) -> NodeSet:
    """Vet, choose and give back; write down what was found before anything is decided on it."""
    machine, request = session.machine, session.request
    if protocol is None:
        used = machine.nodes.first(request.nodes)
        _note_allocation(session, used, machine.vet(INVENTORY).inventory)
        return used
    verdict = _vetted(session, protocol)
    try:
        wanted = min(request.nodes, len(machine.nodes))  # one machine stands for all nodes of a local run
        choice = choose(wanted, verdict, keep_first=machine.batch_node)
    except Refused as too_few:  # nothing that the user asked for was wrong: the nodes are not good enough
        raise PioletError(too_few.what, remedy=too_few.remedy) from too_few
    freed = machine.give_back(machine.nodes - choice.used)
    if freed:
        say(f"{plural(len(choice.used), 'good node')}: {choice.used}; given back: {freed}")
    _note_allocation(session, choice.used, verdict.inventory)
    return choice.used


def _vetted(session: Session, protocol: VettingProtocol) -> Verdict:
    nodes = session.machine.nodes
    say(f"vetting {plural(len(nodes), 'node')} with {protocol.name}: {nodes}")
    if protocol.left_out:
        say(f"its budget left out {', '.join(protocol.left_out)}")
    verdict = session.machine.vet(protocol)
    records.write_checks(session.logbook.vet, "before", verdict.results)
    session.update(refused=tuple(records.Refusal(node, reason) for node, reason in verdict.refused))
    _note_allocation(session, NodeSet(), verdict.inventory)
    for refusal in verdict.refused:
        say(f"{refusal.node} is refused: {refusal.reason}")
    return verdict


def _note_allocation(session: Session, used: NodeSet, inventory: Mapping[str, tuple[Gpu, ...]]) -> None:
    """Write down which nodes and GPUs are held, which of them are used, and what of all that is simulated."""
    now = time.time_ns()
    held = [
        records.NodeAllocation(node, inventory.get(node, ()), now, used=node in used) for node in session.machine.nodes
    ]
    simulated = any(gpu.simulated for gpus in inventory.values() for gpu in gpus)
    session.update(allocation=tuple(held), simulated=session.machine.simulated() + (("GPUs",) if simulated else ()))


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


def _tried_again(session: Session, outcome: records.Outcome) -> records.Outcome:
    """Submit the job again without its bad nodes, if they are why it failed and it may; say so, and note it."""
    refused, began = [each.node for each in session.job.refused], session.job.program_started_ns is not None
    bad = outcomes.bad_nodes(outcome, refused, began=began)
    outcome = replace(outcome, bad_nodes=bad)
    if not session.request.attempt:
        return outcome
    if not bad:
        return _gone_on(session, outcome)
    if not session.request.restarts:
        say(f"not submitted again: attempt {session.request.attempt} was the last that --restarts allows")
        return outcome
    return _submitted_again(session, outcome, NodeSet(bad))


def _gone_on(session: Session, outcome: records.Outcome) -> records.Outcome:
    """Submit the job again if its time was too short for the program: the next one of its chain."""
    warned = session.warned is not None and session.warned.given
    if not outcomes.needs_more_time(outcome, warned=warned) or not session.request.chain:
        return outcome
    return _submitted_again(session, outcome, NodeSet())


def _submitted_again(session: Session, outcome: records.Outcome, bad: NodeSet) -> records.Outcome:
    try:
        job = session.machine.submit_again(session.request, bad)
    except PioletError as error:
        say(f"could not be submitted again: {error}")
        return outcome
    say(f"submitted again as job {job}, without {bad}" if bad else f"goes on as job {job}")
    return replace(outcome, next_job=job)


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
