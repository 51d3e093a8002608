"""How a run ended, in one value: pure functions from what was seen to an Outcome.

The domain says where the evidence points: a program's own exit code is its workload's; a node that failed is
infrastructure; a bare SIGKILL may be either, so it stays unknown.
"""

from __future__ import annotations

import re
import signal

from piolet.core.errors import PioletError
from piolet.launch.program import Ended, Failure
from piolet.logbook.records import Domain, Outcome

_EXIT_CODE = re.compile(r"Exited with exit code (\d+)")
_NODE_FAILED = re.compile(r"node fail", flags=re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|oom", flags=re.IGNORECASE)

_KILLED = 128 + signal.SIGKILL
_WORKLOAD_SIGNALS = {128 + number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)}

_NEXT = {
    Domain.NONE: "",
    Domain.WORKLOAD: "read the program's last lines above; the nodes are not to blame",
    Domain.INFRASTRUCTURE: "run again; the node is named so that it can be left out with --exclude",
    Domain.USER: "",
    Domain.UNKNOWN: "read the program's last lines above; if they say nothing, look at the node's part of the report",
}


def of_program(ended: Ended, ended_ns: int) -> Outcome:
    """Return the outcome of a program that ran to its end."""
    if ended.status == 0:
        return Outcome("COMPLETED", 0, ended_ns=ended_ns)
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


def of_stop(signal_number: int, ended_ns: int, *, timed_out: bool) -> Outcome:
    """Return the outcome of a run that was ended from outside: cancelled, or out of its time."""
    return Outcome(
        state="TIMEOUT" if timed_out else "CANCELLED",
        exit_status=128 + signal_number,
        reason="the time limit was reached" if timed_out else f"ended by {signal.Signals(signal_number).name}",
        domain=Domain.USER,
        next_action="ask for more time with --time" if timed_out else "",
        ended_ns=ended_ns,
    )


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
    if _EXIT_CODE.search(what) or ended.status in _WORKLOAD_SIGNALS:
        return "FAILED", Domain.WORKLOAD
    return "FAILED", Domain.UNKNOWN


def _reason(ended: Ended) -> str:
    return described(ended.failure) if ended.failure else f"the program ended with status {ended.status}"


def described(failure: Failure) -> str:
    """Return a sentence that names the task, its node and what it did."""
    return f"rank {failure.rank} on {failure.node}: {failure.what}"
