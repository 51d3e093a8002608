"""What the GitOps repository has, read from its files; what the cluster made of it cannot be seen from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from piolet.core import toml
from piolet.core.errors import PioletError
from piolet.service.model import Service
from piolet.service.platform import GitOps
from piolet.service.publishing import cloned
from piolet.service.reading import validated


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service of the repository; `problem` says why its service.toml cannot be read."""

    project: str
    service: str
    image: str = ""
    run_on: str = ""
    expose: str = ""
    most_replicas: int = 0
    expires: date | None = None
    problem: str = ""


def deployed(gitops: GitOps, project: str = "", branch: str = "") -> tuple[str, list[Deployed]]:
    """Return the newest commit, and its services in order: of one project, or of all. See `publish` for errors."""
    with cloned(gitops, branch) as clone:
        return clone.head(), list(_services(clone.directory / "projects", project))


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
