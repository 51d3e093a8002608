"""A node across jobs: which held it, and what vetting and diagnosis said of it."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.core.nouns import Severity, Status
from piolet.watch import JobFilter, JobSummary
from piolet.web.pages.job import opened
from piolet.web.rendering import page

MOST_JOBS = 50
MOST_LOOKED = 20
"""Of so many jobs, the latest, the records are read."""

TONES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: ""}


def node(request: Request) -> Response:
    """The page of a node."""
    cluster, name = request.path_params["cluster"], request.path_params["node"]
    found = request.state.jobs.find(JobFilter(cluster=cluster, node=name), most=MOST_JOBS)
    if not found.jobs:
        raise UsageError(f"no job that you may see held {cluster}/{name}", remedy="see the list of jobs")
    looked = found.jobs[:MOST_LOOKED]
    told = [(job, *each) for job in looked for each in _told(request, job, name)]
    return page(
        request, "node_history.html.jinja", node=name, cluster=cluster, found=found, told=told, looked=len(looked)
    )


def _told(request: Request, job: JobSummary, name: str) -> Iterator[tuple[str, str]]:
    """Yield what vetting and diagnosis said of the node in a job, each with its tone."""
    with opened(request, f"{job.cluster}/{job.job_id}") as book:
        for check in book.checks():
            if check.node == name and check.status is not Status.PASS:
                yield "bad" if check.status is Status.FAIL else "warn", f"{check.check}: {check.reason}"
        findings = book.findings()
    for each in findings.findings if findings else ():
        if name in each.nodes:
            yield TONES[each.severity], f"{each.title}: {each.reason}"
