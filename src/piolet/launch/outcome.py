"""How a run ended, in one value: pure functions from what was seen to an Outcome.

The domain says where the evidence points: a program's own exit code is its workload's; a node that failed is
infrastructure; a bare SIGKILL may be either, so it stays unknown.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import replace

from piolet.core.errors import PioletError
from piolet.launch.doom import Sign
from piolet.launch.program import EXIT_CODE, Ended, Failure
from piolet.logbook.records import Domain, Outcome
from piolet.tools.slurm.job import Job

_NODE_FAILED = re.compile(r"node fail", flags=re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|oom", flags=re.IGNORECASE)

_TERMINATED = 128 + signal.SIGTERM
_KILLED = 128 + signal.SIGKILL
_WORKLOAD_SIGNALS = {128 + number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)}

_NEXT = {
    Domain.NONE: "",
    Domain.WORKLOAD: "read the program's last lines above; the nodes are not to blame",
    Domain.INFRASTRUCTURE: "run again; the node is named so that it can be left out with --exclude",
    Domain.USER: "",
    Domain.UNKNOWN: "read the program's last lines above; if they say nothing, look at the node's part of the report",
}


def of_program(ended: Ended, ended_ns: int, xid: Sign | None = None) -> Outcome:
    """Return the outcome of a program that ran to its end; `xid` is the fatal Xid that was seen before, if one was."""
    if ended.status == 0 and not ended.doomed:
        return Outcome("COMPLETED", 0, ended_ns=ended_ns)
    if ended.doomed:
        return _of_doomed(ended.doomed, ended_ns)
    found = _of_failed(ended, ended_ns)
    if xid is None:
        return found
    return replace(
        found,
        reason=f"{found.reason}, after {xid.what}",
        domain=Domain.INFRASTRUCTURE,
        next_action=_NEXT[Domain.INFRASTRUCTURE],
        bad_nodes=(xid.node,),
    )


def _of_failed(ended: Ended, ended_ns: int) -> Outcome:
    state, domain = _judged(ended)
    failure = ended.failure
    return Outcome(
        state=state,
        exit_status=ended.status,
        reason=_reason(ended),
        domain=domain,
        first_failing_node=failure.node if failure else "",
        first_failing_rank=failure.rank if failure else None,
        next_action=_NEXT[domain],
        ended_ns=ended_ns,
    )


_DOOMED = {
    "nan": (
        Domain.WORKLOAD,
        "go back to an earlier checkpoint, with a lower learning rate or without the data in between",
    ),
    "xid": (Domain.INFRASTRUCTURE, _NEXT[Domain.INFRASTRUCTURE]),
    "hang": (Domain.UNKNOWN, "compare the ranks in stacks/ of the logbook: the one that differs is waited for"),
}
"""Per sign: whose doing it is, and what to do. Those that are not here may be anybody's."""

_LOOK = "look at the last lines of each rank, and at the report for a node that differs"


def _of_doomed(sign: Sign, ended_ns: int) -> Outcome:
    """Return the outcome of a program that was ended early."""
    domain, next_action = _DOOMED.get(sign.name, (Domain.UNKNOWN, _LOOK))
    return Outcome(
        state="FAILED",
        exit_status=_TERMINATED,
        reason=f"ended early ({sign.name}: {sign.what})",
        domain=domain,
        first_failing_node=sign.node,
        next_action=next_action,
        ended_ns=ended_ns,
        aborted_on=sign.name,
        bad_nodes=(sign.node,) if domain is Domain.INFRASTRUCTURE else (),
    )


_ENDS = {
    "TIMEOUT": (Domain.USER, "the time limit was reached", "ask for more time with --time"),
    "DEADLINE": (Domain.USER, "the deadline was reached", "ask for a later one"),
    "CANCELLED": (Domain.USER, "", ""),
    "PREEMPTED": (Domain.NONE, "a job of higher priority took the nodes", "submit it again"),
    "OUT_OF_MEMORY": (Domain.WORKLOAD, "the memory that was asked for is used up", "ask for more, or use less"),
    "NODE_FAIL": (Domain.INFRASTRUCTURE, "a node failed", _NEXT[Domain.INFRASTRUCTURE]),
    "BOOT_FAIL": (Domain.INFRASTRUCTURE, "a node did not start", _NEXT[Domain.INFRASTRUCTURE]),
}
"""Slurm's words for ends that a program has no part in: the domain, what happened, and what to do."""


def of_stop(signal_number: int, ended_ns: int, *, state: str, node: str = "") -> Outcome:
    """Return the outcome of a run that was ended from outside; `state` is Slurm's word for why.

    `node` is the node that failed, if that is why.
    """
    state = state if state in _ENDS else "CANCELLED"
    domain, reason, next_action = _ENDS[state]
    return Outcome(
        state=state,
        exit_status=128 + signal_number,
        reason=f"{node} failed" if node else reason or f"ended by {signal.Signals(signal_number).name}",
        domain=domain,
        first_failing_node=node,
        next_action=next_action,
        ended_ns=ended_ns,
    )


def of_job(job: Job, ended_ns: int) -> Outcome:
    """Return the outcome of a job whose run left none, from what Slurm says: it was ended at once, or never began."""
    state = str(job.state)
    domain, reason, next_action = _ENDS.get(state, (Domain.UNKNOWN, "", _NEXT[Domain.UNKNOWN]))
    status = 128 + job.signal if job.signal else job.exit_code or PioletError.exit_status
    where = f"on {job.nodes}" if job.nodes else "before it began"
    return Outcome(
        state=state,
        exit_status=0 if state == "COMPLETED" else status,
        reason=f"{reason or job.reason or 'its end is not explained'}; the job ended {where} and left no outcome",
        domain=Domain.NONE if state == "COMPLETED" else domain,
        next_action=next_action,
        ended_ns=job.end_ns or ended_ns,
    )


def bad_nodes(outcome: Outcome, refused: Sequence[str], *, began: bool) -> tuple[str, ...]:
    """Return the nodes without which a run may be tried again; none for an end that other nodes would not change.

    Those that were refused, if the program never began for lack of good ones; else the one that failed, or had the
    Xid. What the user's program or request did is never held against a node.
    """
    if outcome.domain is not Domain.INFRASTRUCTURE:
        return ()
    if not began:
        return tuple(refused)
    return outcome.bad_nodes or tuple(filter(None, [outcome.first_failing_node]))


def needs_more_time(outcome: Outcome, *, warned: bool) -> bool:
    """Tell whether the time limit ended the program, or it ended well after it was warned of it."""
    return outcome.state == "TIMEOUT" or (warned and outcome.state == "COMPLETED")


def of_error(error: PioletError, ended_ns: int) -> Outcome:
    """Return the outcome of a run whose program never started."""
    return Outcome(
        state="FAILED",
        exit_status=error.exit_status,
        reason=error.what,
        domain=Domain.INFRASTRUCTURE if error.exit_status == PioletError.exit_status else Domain.USER,
        next_action=error.remedy,
        ended_ns=ended_ns,
    )


def _judged(ended: Ended) -> tuple[str, Domain]:
    what = ended.failure.what if ended.failure else ""
    if _NODE_FAILED.search(what):
        return "NODE_FAIL", Domain.INFRASTRUCTURE
    if _OUT_OF_MEMORY.search(what):
        return "OUT_OF_MEMORY", Domain.WORKLOAD
    if EXIT_CODE.search(what) or ended.status in _WORKLOAD_SIGNALS:
        return "FAILED", Domain.WORKLOAD
    return "FAILED", Domain.UNKNOWN


def _reason(ended: Ended) -> str:
    return described(ended.failure) if ended.failure else f"the program ended with status {ended.status}"


def described(failure: Failure) -> str:
    """Return a sentence that names the task, its node and what it did."""
    who = failure.node if failure.rank is None else f"rank {failure.rank} on {failure.node}"
    return f"{who}: {failure.what}"
