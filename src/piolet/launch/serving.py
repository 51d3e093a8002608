"""Services as jobs of Slurm: deploying, renewing and ending them. Each job is a `piolet run` with an attendant.

A deployment is a generation: its service.toml and its batch scripts are written once and never change. Its first jobs
take over from those of the generation before once they answer, as successors do; no request fails for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from piolet.core.errors import PioletError, Refused, UsageError, storage_errors
from piolet.core.files import write_text
from piolet.core.run import SystemRunner
from piolet.core.settings import Settings
from piolet.core.text import did_you_mean
from piolet.launch import batch, environment, submission
from piolet.launch.request import RunRequest, check
from piolet.logbook import layout
from piolet.service.model import Service
from piolet.service.reading import ServiceFile
from piolet.service.slurm import places, queue
from piolet.service.slurm.places import Place, Wanted
from piolet.tools.slurm import sbatch, scancel, scontrol
from piolet.tools.slurm.states import JobState


def scripts(file: ServiceFile, settings: Settings, generation: int, *, write: bool = True) -> list[str]:
    """Return the batch script of each replica. Unless `write` is false, what they need on disk is made.

    Raises:
        UsageError, ConfigError: the environment, the partition or the number of nodes is wrong.
    """
    service, runner = file.service, SystemRunner()
    request = check(_request(service, file.document.path.parent.resolve(), settings))
    plan = environment.plan_file(request, settings, write=write)
    gpus = submission.gpus_per_node(runner, request)
    logs = layout.root(settings) / (settings.cluster or scontrol.config(runner)["ClusterName"])
    if write:
        submission.check_writable(logs)
    place = places.of(settings, service.project, service.name)
    return [
        batch.script(
            replace(request, name=queue.name(service.project, service.name, replica)),
            plan=plan,
            gpus_per_node=gpus,
            output=logs / "%j.log",
            attendant=_attendant(place, generation, replica),
        )
        for replica in range(service.most_replicas)
    ]


def deploy(file: ServiceFile, settings: Settings) -> list[int]:
    """Submit the jobs of a new generation of the service and return them; the older generation then makes way.

    Raises:
        UsageError, ConfigError: see `scripts`.
        PioletError: Slurm refused a job, and what was wanted before is wanted still.
    """
    service = file.service
    place = places.of(settings, service.project, service.name)
    before = place.read_wanted()
    generation = place.newest_generation() + 1
    texts = scripts(file, settings, generation)
    _keep(place.generation(generation), file.source, texts)
    waiting = queue.waiting(SystemRunner(), service.project, service.name)
    places.write(place.wanted, Wanted(generation, len(texts), service.expires))
    submitted: list[int] = []
    try:
        submitted.extend(sbatch.submit(place.script(generation, replica)).job for replica in range(len(texts)))
    except PioletError:
        places.write(place.wanted, before or Wanted(generation, 0))
        _cancel(submitted)
        raise
    _cancel([each.job for each in waiting])
    return submitted


def _keep(directory: Path, source: str, texts: Sequence[str]) -> None:
    """Write what the jobs of a generation are made of, into a directory that only one deployment can make."""
    with storage_errors(directory, "deploy the service"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir()
        except FileExistsError as error:
            raise Refused("another deployment of the service is under way", remedy="try again") from error
    write_text(directory / "service.toml", source)
    for replica, text in enumerate(texts):
        write_text(directory / f"replica-{replica}.sh", text)


def renew(file: ServiceFile, settings: Settings) -> None:
    """Let the jobs of the service go on until the file's new date; nothing is started anew."""
    place, wanted = _wanted(settings, file.service.project, file.service.name)
    places.write(place.wanted, replace(wanted, expires=file.service.expires))


def end(project: str, service: str, settings: Settings, *, now: bool) -> tuple[int, int]:
    """Let the jobs of a service end once their requests have, or at once; return how many wait, and how many run.

    Raises:
        UsageError: there is no such service.
    """
    place, wanted = _wanted(settings, project, service)
    places.write(place.wanted, replace(wanted, replicas=0))
    runner = SystemRunner()
    waiting = [each.job for each in queue.waiting(runner, project, service)]
    _cancel(waiting)
    running = [job.id for job in queue.jobs(runner, project, service, JobState.RUNNING)]
    if now:
        _cancel(running)
    return len(waiting), len(running)


def _request(service: Service, directory: Path, settings: Settings) -> RunRequest:
    asked = service.slurm
    return RunRequest(
        command=tuple(service.command),
        nodes=asked.nodes,
        spares=asked.spares,
        environment=asked.environment,
        protocol=asked.vet,
        record=asked.record,
        gpus_per_node=service.resources.gpus or settings.run.gpus_per_node,
        partition=asked.partition or settings.run.partition,
        account=asked.account or settings.run.account,
        time_limit=asked.time_limit,
        cwd=directory,
    )


def _attendant(place: Place, generation: int, replica: int) -> Sequence[str]:
    return ("service", "attend", f"--generation={generation}", f"--replica={replica}", str(place.path))


def _cancel(jobs: Sequence[int]) -> None:
    if jobs:
        scancel.cancel(SystemRunner(), *jobs)


def _wanted(settings: Settings, project: str, service: str) -> tuple[Place, Wanted]:
    place = places.of(settings, project, service)
    wanted = place.read_wanted()
    if wanted is None:
        known = ["/".join(each) for each in places.known(settings)]
        name = f"{project}/{service}"
        raise UsageError(f"there is no service {name}", where=str(place.path), remedy=did_you_mean(name, known))
    return place, wanted
