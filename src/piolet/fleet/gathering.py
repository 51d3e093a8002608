"""Gathering evidence: from logbooks on the shared file system, and from what Slurm knows of jobs.

Whatever is gathered twice has the same id. A logbook is its user's to write: what it says is marked so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Finding, Severity, Status
from piolet.core.run import Runner
from piolet.fleet.evidence import LOST, REVALIDATION, Evidence, Kind, Source, made_id
from piolet.fleet.planning import Seen
from piolet.logbook import records
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read, rereading
from piolet.logbook.records import Domain, JobRecord
from piolet.tools.slurm import sacct, scontrol, sinfo, squeue
from piolet.tools.slurm.errors import UnknownJob
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.jobs import find
from piolet.tools.slurm.states import JobState, NodeBase, NodeFlag

_FINISHED = ("COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "BOOT_FAIL")


def logbooks(root: Path) -> list[Logbook]:
    """Return the logbooks below `root`, or the one that `root` itself is."""
    if (root / "job.json").is_file():
        return [Logbook(root)]
    return [Logbook(path.parent) for path in sorted(root.glob("*/*/job.json"))]


def changed_ns(logbook: Logbook) -> int:
    """Return when anything was last put into a logbook that the fleet reads."""
    paths = (logbook.job, logbook.outcome, logbook.findings, logbook.vet, logbook.events)
    return max((path.stat().st_mtime_ns for path in paths if path.exists()), default=0)


def from_logbooks(found: Iterable[Logbook]) -> tuple[list[Evidence], list[Finding]]:
    """Return the evidence of logbooks, and a finding for each that cannot be read."""
    evidence: list[Evidence] = []
    unreadable: list[Finding] = []
    for logbook in found:
        try:
            evidence += from_logbook(logbook)
        except PioletError as error:
            unreadable.append(Finding(str(logbook.path), Severity.WARNING, str(error)))
    return evidence, unreadable


def from_logbook(logbook: Logbook) -> list[Evidence]:
    """Return what a logbook says against and for the job's nodes: Xids, checks, findings, how the job ended.

    Raises:
        ParseError, StorageError: its records cannot be read.
    """
    job = records.read_job(logbook.job)
    return [*_xids(logbook, job), *_checks(logbook, job), *_findings(logbook, job), *_end(logbook, job)]


def _xids(logbook: Logbook, job: JobRecord) -> Iterator[Evidence]:
    held = {one.node for one in job.allocation}
    for time_ns, node, code, uuid, message in _logged(logbook):
        if node in held:  # a logbook speaks of no other nodes
            yield Evidence(
                made_id(job.cluster, job.job_id, "xid", time_ns, node, code, uuid),
                time_ns,
                Kind.XID,
                code,
                node,
                gpu=uuid or "",
                job=job.job_id,
                user=job.user,
                message=message or "",
                source=Source.LOGBOOK,
            )


@rereading
def _logged(logbook: Logbook) -> list[tuple[Any, ...]]:
    with read(logbook) as reader:
        query = "SELECT time_ns, node, code, uuid, message FROM events WHERE kind = 'xid' ORDER BY ALL"
        return reader.database.execute(query).fetchall()


def _checks(logbook: Logbook, job: JobRecord) -> Iterator[Evidence]:
    held = {one.node for one in job.allocation} | {one.node for one in job.refused}
    for result in records.read_checks(logbook.vet):
        if result.node in held:
            yield Evidence(
                made_id(job.cluster, job.job_id, "check", result.time_ns, result.node, result.check),
                result.time_ns,
                Kind.CHECK,
                result.check,
                result.node,
                status=result.status,
                job=job.job_id,
                user=job.user,
                tier=job.request.protocol,
                message=result.reason,
                source=Source.LOGBOOK,
            )


_OF_RULES = {
    "ecc": (Kind.ECC, "uncorrected"),
    "link_flap": (Kind.LINK, "flap"),
    "nvlink": (Kind.NVLINK, "errors"),
    "slow_gpu": (Kind.SLOW, "gpu"),
    "thermal_throttle": (Kind.THROTTLE, "thermal"),
}
"""The rules of diagnosis that speak of nodes, not of programs."""


def _findings(logbook: Logbook, job: JobRecord) -> Iterator[Evidence]:
    found = records.read_findings(logbook.findings)
    uuids = {(held.node, gpu.index): gpu.uuid for held in job.allocation for gpu in held.gpus}
    held = {one.node for one in job.allocation}
    for finding in found.findings if found and found.complete else ():
        kind, code = _OF_RULES.get(finding.rule, (None, ""))
        for node in finding.nodes if kind else ():
            if kind and node in held:
                yield Evidence(
                    made_id(job.cluster, job.job_id, "finding", finding.rule, node, finding.gpu),
                    finding.from_ns,
                    kind,
                    code,
                    node,
                    gpu="" if finding.gpu is None else uuids.get((node, finding.gpu), ""),
                    job=job.job_id,
                    user=job.user,
                    value=finding.confidence,
                    message=finding.reason,
                    source=Source.LOGBOOK,
                )


def _end(logbook: Logbook, job: JobRecord) -> Iterator[Evidence]:
    outcome = records.read_outcome(logbook.outcome)
    if outcome is None:
        return
    nodes = ",".join(one.node for one in job.allocation if one.used)
    yield Evidence(
        made_id(job.cluster, job.job_id, "outcome"),
        outcome.ended_ns or job.program_ended_ns or 0,
        Kind.JOB,
        outcome.state,
        nodes=nodes,
        status=Status.PASS if outcome.exit_status == 0 else Status.FAIL,
        culprit=outcome.first_failing_node,
        domain="" if outcome.domain is Domain.NONE else outcome.domain.value,
        job=job.job_id,
        user=job.user,
        value=_seconds(job.program_started_ns, job.program_ended_ns),
        message=outcome.reason,
        source=Source.LOGBOOK,
    )


def _seconds(began_ns: int | None, ended_ns: int | None) -> float | None:
    return (ended_ns - began_ns) / 1e9 if began_ns and ended_ns else None


def from_slurm(runner: Runner, cluster: str, vetting: Mapping[str, str], seen: Iterable[Seen]) -> list[Evidence]:
    """Return the ends of jobs that the controller still remembers (MinJobAge), and what it says of nodes itself.

    `vetting` names the jobs by which the fleet vets nodes, each with its node; `seen` is how nodes are now.
    """
    ended, nodes = squeue.jobs(runner, states=_FINISHED), list(seen)
    down = {node.name for node in nodes if not node.answers}
    found = [one for job in ended for one in of_job(job, cluster, down)]
    found += [one for node in nodes for one in _reason(node, cluster)]
    return found + [one for job, node in vetting.items() for one in _vetted(runner, cluster, job, node)]


_REASONS = {
    "Not responding": "not-responding",
    "Node unexpectedly rebooted": "rebooted",
    "gres/gpu count reported lower than configured": "gpus-missing",
    "Low RealMemory": "memory-missing",
    "Kill task failed": "kill-task-failed",
    "Prolog error": "prolog-error",
    "Epilog error": "epilog-error",
}
"""How the reasons begin that slurmctld itself gives for taking a node out (Slurm 22.05), and our code of each."""


def _reason(seen: Seen, cluster: str) -> Iterator[Evidence]:
    """Yield why Slurm itself has taken the node out, once for each time that it did."""
    for begins, code in _REASONS.items():
        if seen.reason_ns and seen.reason.startswith(begins):
            yield Evidence(
                made_id(cluster, "reason", seen.name, code, seen.reason_ns),
                seen.reason_ns,
                Kind.NODE,
                code,
                seen.name,
                message=seen.reason,
                source=Source.SLURM,
            )


def from_accounts(runner: Runner, cluster: str, last_s: int) -> list[Evidence]:
    """Return the ends of jobs of the last seconds that the accounting database has, which the controller may not.

    Raises:
        SlurmUnavailable: there is no database, or it does not answer.
    """
    return [one for job in sacct.ended(runner, last_s, _FINISHED) for one in of_job(job, cluster, ())]


def _vetted(runner: Runner, cluster: str, job: str, node: str) -> Iterator[Evidence]:
    """Yield what a job that vets said with its exit status: 0 ready, 1 not ready, else it could not tell."""
    try:
        found = find(runner, job)
    except UnknownJob:
        return  # nobody will ever know what it said, and the plan does not wait for ever
    if not found.state.finished:
        return
    at_ns = found.end_ns or 0
    said = Status.UNKNOWN
    if found.state in {JobState.COMPLETED, JobState.FAILED} and not found.signal:
        said = {0: Status.PASS, 1: Status.FAIL}.get(found.exit_code or 0, Status.UNKNOWN)
    yield Evidence(
        made_id(cluster, job, found.start_ns, REVALIDATION),
        at_ns,
        Kind.CHECK,
        REVALIDATION,
        node,
        status=said,
        job=job,
        message=f"job {job} ended {found.state.value} with exit status {found.exit_code}",
        source=Source.SLURM,
    )


def of_job(job: Job, cluster: str, down: Iterable[str]) -> Iterator[Evidence]:
    """Yield how a job ended; for NODE_FAIL also one for each of its nodes that is down."""
    at_ns = job.end_ns or 0
    if not job.nodes or not at_ns:
        return
    status = Status.PASS if job.state is JobState.COMPLETED else Status.FAIL
    yield Evidence(
        made_id(cluster, job.id, job.start_ns, "end"),
        at_ns,
        Kind.JOB,
        job.state.value,
        nodes=str(job.nodes),
        status=status,
        job=str(job.id),
        user=job.user,
        value=_seconds(job.start_ns, job.end_ns),
        source=Source.SLURM,
    )
    if job.state is JobState.NODE_FAIL:
        for node in sorted(set(down) & set(job.nodes)):
            yield Evidence(
                made_id(cluster, job.id, job.start_ns, "lost", node),
                at_ns,
                Kind.NODE,
                LOST,
                node,
                job=str(job.id),
                source=Source.SLURM,
            )


def cluster_now(runner: Runner) -> list[Seen]:
    """Return the nodes as Slurm shows them now."""
    return [_seen(node) for node in sinfo.nodes(runner)]


def node_now(runner: Runner, name: str) -> Seen | None:
    """Return one node as Slurm shows it now, or None if it does not know it."""
    found = scontrol.node_records(runner, NodeSet(name))
    return _seen(found[0]) if found else None


def _seen(node: sinfo.Node | scontrol.NodeRecord) -> Seen:
    state = node.state
    busy = state.base in {NodeBase.ALLOCATED, NodeBase.MIXED} or NodeFlag.COMPLETING in state.flags
    return Seen(
        node.name,
        node.partitions,
        state.usable,
        NodeFlag.DRAIN in state.flags,
        node.reason,
        busy,
        not _lost(node),
        sum(gres.count for gres in node.gres if gres.name == "gpu"),
        node.reason_ns,
    )


def _lost(node: sinfo.Node | scontrol.NodeRecord) -> bool:
    return node.state.base is NodeBase.DOWN or NodeFlag.NOT_RESPONDING in node.state.flags
