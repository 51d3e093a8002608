"""A job as the list of jobs shows it, read from its records."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass

from piolet.core.errors import PioletError
from piolet.core.nouns import Severity
from piolet.logbook import ownership, records
from piolet.logbook.layout import Logbook


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One row of the list. `state` is that of records.state; times are UTC nanoseconds or None.

    `owner` is the user id that the logbook's files belong to; `findings` counts the diagnoses, `worst` the gravest;
    `nodes` counts those that were used, `involved` names also those that were refused or spare. `noted` says that
    people attached notes to it.
    """

    logbook: Logbook
    owner: int
    cluster: str
    job_id: str
    user: str
    account: str
    name: str
    command: tuple[str, ...]
    state: str
    exit_status: int | None
    nodes: int
    gpus: int
    started_ns: int | None
    ended_ns: int | None
    recorded: bool
    simulated: bool
    findings: int
    worst: Severity | None
    involved: frozenset[str] = frozenset()
    noted: bool = False


def summarise(logbook: Logbook) -> JobSummary | None:
    """Return the summary of a logbook, None if its records cannot be read or are not its own files."""
    owner = ownership.owner(logbook)
    if owner is None:
        return None
    try:
        return _summary(logbook, owner)
    except PioletError:
        return None


def _summary(logbook: Logbook, owner: int) -> JobSummary:
    job = records.read_job(logbook.job)
    own = set(ownership.own_files(logbook, (logbook.outcome, logbook.findings), owner))
    outcome = records.read_outcome(logbook.outcome) if logbook.outcome in own else None
    found = records.read_findings(logbook.findings) if logbook.findings in own else None
    findings = found.findings if found else ()
    return JobSummary(
        logbook=logbook,
        owner=owner,
        cluster=logbook.path.parent.name,
        job_id=logbook.path.name,
        user=_user(job, owner),
        account=job.account,
        name=job.name,
        command=job.command,
        state=records.state(job, outcome),
        exit_status=outcome.exit_status if outcome else None,
        nodes=sum(held.used for held in job.allocation),
        gpus=len(job.gpus),
        started_ns=job.started_ns,
        ended_ns=outcome.ended_ns if outcome else job.program_ended_ns,
        recorded=job.sample_interval_s is not None,
        simulated=bool(job.simulated),
        findings=len(findings),
        worst=max((each.severity for each in findings), key=list(Severity).index, default=None),
        involved=frozenset(_involved(job)),
        noted=logbook.notes.exists(),
    )


def _involved(job: records.JobRecord) -> set[str]:
    """Return the names of all nodes of a job, interned: lists of jobs name the same ones again and again."""
    return {
        sys.intern(name) for name in (*(held.node for held in job.allocation), *(each.node for each in job.refused))
    }


def _user(job: records.JobRecord, owner: int) -> str:
    """Return whose job it is: the kernel's word counts, the file's own only where a service wrote it."""
    if owner in {0, os.geteuid()}:
        return job.user
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return f"uid {owner}"
