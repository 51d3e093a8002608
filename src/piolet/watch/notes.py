"""Notes that people attach to a job; a note about a rule is cited when that rule speaks again in another job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from piolet.core.errors import storage_errors
from piolet.logbook import ownership
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Findings
from piolet.watch.archive import VisibleJobs
from piolet.watch.jobs import JobSummary

MOST_CITED = 3
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote about a job at `time_ns` (UTC); `rule` names the finding that it explains, if one."""

    time_ns: int
    user: str
    text: str
    rule: str = ""


def add(logbook: Logbook, note: Note) -> None:
    """Append a note to the logbook; a StorageError says why it cannot."""
    path = logbook.notes
    with storage_errors(path, "write the note"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(note)) + "\n")


def read(logbook: Logbook, owner: int) -> tuple[Note, ...]:
    """Return the notes of a logbook in their order; lines that are none are left out, and a file not its own."""
    path = logbook.notes
    if not ownership.own_files(logbook, [path], owner) or path.stat().st_size > _LARGEST_BYTES:
        return ()
    with storage_errors(path, "read the notes"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(_notes(lines))


def cited(found: Findings, jobs: VisibleJobs, about: JobSummary) -> Findings:
    """Return the findings with what was noted of the same rules in other jobs that the viewer may see."""
    known: dict[str, list[str]] = {}
    others = (job for job in jobs.noted() if job.logbook.path != about.logbook.path)
    for job in others:
        for note in read(job.logbook, job.owner):
            known.setdefault(note.rule, []).append(f"seen before in job {job.job_id}: {note.text} ({note.user})")
    noted = (replace(each, notes=tuple(known.get(each.rule, ())[:MOST_CITED])) for each in found.findings)
    return replace(found, findings=tuple(noted))


def _notes(lines: Iterable[str]) -> Iterator[Note]:
    for line in lines:
        try:
            found = json.loads(line)
            yield Note(int(found["time_ns"]), str(found["user"]), str(found["text"]), str(found.get("rule", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
