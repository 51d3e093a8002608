"""The services there are: those of the GitOps repository, as its files say, and this user's own on Slurm.

What a Kubernetes cluster made of the files cannot be seen from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from piolet.core import toml
from piolet.core.errors import PioletError
from piolet.core.run import Runner
from piolet.core.settings import Settings
from piolet.service.model import RunOn, Service
from piolet.service.platform import GitOps
from piolet.service.publishing import cloned
from piolet.service.reading import validated
from piolet.service.slurm import places, queue
from piolet.service.slurm.places import Place
from piolet.service.slurm.queue import Waiting


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service; `problem` says why its service.toml cannot be read, `state` and `waiting` how it is on Slurm."""

    project: str
    service: str
    image: str = ""
    run_on: str = ""
    expose: str = ""
    most_replicas: int = 0
    expires: date | None = None
    problem: str = ""
    state: str = ""
    waiting: tuple[Waiting, ...] = ()


def deployed(gitops: GitOps, project: str = "", branch: str = "") -> tuple[str, list[Deployed]]:
    """Return the newest commit, and its services in order: of one project, or of all. See `publish` for errors."""
    with cloned(gitops, branch) as clone:
        return clone.head(), services(clone.directory / "projects", project)


def on_slurm(settings: Settings, runner: Runner, project: str = "") -> list[Deployed]:
    """Return this user's services that run as jobs, of one project or of all; those that have ended are left out.

    Raises:
        PioletError: Slurm does not say which jobs wait.
    """
    found = [_on_slurm(places.of(settings, *names), runner, *names) for names in places.known(settings, project)]
    return [each for each in found if each]


def _on_slurm(place: Place, runner: Runner, project: str, name: str) -> Deployed | None:
    wanted, ready = place.read_wanted(), len(place.endpoints())
    if wanted is None or not (wanted.replicas or ready):
        return None
    attempts = [each for each in place.attempts() if each.generation == wanted.generation]
    failed = f"; {attempts[-1].ended}" if attempts and attempts[-1].ready_ns is None and attempts[-1].ended else ""
    return Deployed(
        project,
        name,
        run_on=RunOn.SLURM.value,
        expose="gateway",
        most_replicas=wanted.replicas,
        expires=wanted.expires,
        state=f"{ready} ready{failed}",
        waiting=tuple(queue.waiting(runner, project, name)),
    )


def services(projects: Path, project: str = "") -> list[Deployed]:
    """Return the services below the directory `projects` of a clone, in order: of one project, or of all."""
    return list(_services(projects, project))


def _services(projects: Path, project: str) -> Iterator[Deployed]:
    for path in sorted(projects.glob("*/*/service.toml")):
        place = path.parent
        if project and project != place.parent.name:
            continue
        try:
            yield _described(place.parent.name, place.name, validated(toml.read(path), Service))
        except PioletError as error:
            yield Deployed(place.parent.name, place.name, problem=error.what.splitlines()[0])


def _described(project: str, name: str, service: Service) -> Deployed:
    return Deployed(
        project=project,
        service=name,
        image=service.image,
        run_on=service.run_on.value,
        expose=service.expose.value,
        most_replicas=service.most_replicas,
        expires=service.expires,
    )
