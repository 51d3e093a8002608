"""Where the files of a job's logbook are.

<root>/<cluster>/<jobid>/
  job.json  environment.lock.json  environment/  vet/  telemetry/<family>/  events/
  findings.json  outcome.json  report.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piolet.core.errors import Refused, UsageError, storage_errors

if TYPE_CHECKING:  # the recorder's agent imports this module, and is to stay small
    from piolet.core.settings import Settings

LAST = "last"
"""Names the newest logbook, where a job id could stand."""


@dataclass(frozen=True, slots=True)
class Logbook:
    """The directory of one job; its attributes are the paths of what it holds."""

    path: Path

    @property
    def job(self) -> Path:
        """The job: request, command, allocation, versions (records.JobRecord)."""
        return self.path / "job.json"

    @property
    def environment_lock(self) -> Path:
        """Every value of the container environment with its origin."""
        return self.path / "environment.lock.json"

    @property
    def verified(self) -> Path:
        """Directory of what held in the containers: a JSON-lines file a node."""
        return self.path / "environment"

    @property
    def vet(self) -> Path:
        """Directory of check results, one JSON-lines file a stage."""
        return self.path / "vet"

    @property
    def telemetry(self) -> Path:
        """Directory of sample families."""
        return self.path / "telemetry"

    @property
    def events(self) -> Path:
        """Directory of event segments."""
        return self.path / "events"

    @property
    def findings(self) -> Path:
        """What diagnosis concluded."""
        return self.path / "findings.json"

    @property
    def notes(self) -> Path:
        """What people attached to the job: JSON lines."""
        return self.path / "notes.jsonl"

    @property
    def stacks(self) -> Path:
        """Directory of what each process did when a hang was suspected, one text a node."""
        return self.path / "stacks"

    @property
    def outcome(self) -> Path:
        """How the job ended (records.Outcome)."""
        return self.path / "outcome.json"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.path / "report.html"

    def family(self, name: str) -> Path:
        """Return the directory of a family's segments; `events` stands beside telemetry."""
        return self.events if name == "events" else self.telemetry / name


def root(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that holds all logbooks: the setting, $SCRATCH/piolet, or the user's data directory."""
    if settings.root:
        return settings.root
    import platformdirs  # noqa: PLC0415 - as above

    scratch = environ.get("SCRATCH")
    return Path(scratch) / "piolet" if scratch else Path(platformdirs.user_data_dir("piolet"))


def create(root_directory: Path, cluster: str, job_id: str) -> Logbook:
    """Make the directories of a new logbook and return it.

    Raises:
        StorageError: the root cannot be written.
        Refused: this job has a logbook already that another run began.
    """
    logbook = Logbook(root_directory / cluster / job_id)
    with storage_errors(logbook.path, "create the logbook"):
        logbook.path.mkdir(parents=True, exist_ok=True)
        if logbook.job.exists():
            raise Refused(
                "this job has a logbook already",
                where=str(logbook.path),
                remedy="run again in a new job, or move that directory away",
            )
        for directory in (logbook.vet, logbook.telemetry, logbook.events):
            directory.mkdir(exist_ok=True)
    return logbook


def find(target: str, root_directory: Path, cluster: str = "") -> Logbook:
    """Return the logbook that `target` names: a directory, a job id below the root, or `last`: one's newest there.

    Raises:
        UsageError: there is none, or the job id exists on several clusters.
    """
    if "/" in target or target.startswith("."):
        return _existing(Path(target))
    if target == LAST:
        return _last(root_directory, cluster)
    found = sorted(root_directory.glob(f"{cluster or '*'}/{target}/job.json"))
    if len(found) == 1:
        return Logbook(found[0].parent)
    if found:
        clusters = ", ".join(path.parent.parent.name for path in found)
        raise UsageError(
            f"job {target} exists on several clusters: {clusters}",
            where=str(root_directory),
            remedy="give the directory of the logbook instead",
        )
    raise UsageError(
        f"no logbook of a job {target}",
        where=str(root_directory),
        remedy="give a job id below this root, a directory, or set PIOLET_ROOT",
    )


def _last(root_directory: Path, cluster: str) -> Logbook:
    status = {path: path.stat() for path in root_directory.glob(f"{cluster or '*'}/*/job.json")}
    own = [path for path in status if status[path].st_uid == os.geteuid()]
    if not own:
        raise UsageError(
            "no logbook of yours", where=str(root_directory), remedy="run a job with `piolet run`, or set PIOLET_ROOT"
        )
    return Logbook(max(own, key=lambda path: status[path].st_mtime_ns).parent)


def _existing(path: Path) -> Logbook:
    logbook = Logbook(path.resolve())
    if not logbook.job.is_file():
        raise UsageError(
            "this directory is not a logbook: it has no job.json",
            where=str(logbook.path),
            remedy="give the directory that `piolet run` printed, or a job id",
        )
    return logbook
