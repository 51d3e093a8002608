"""Checking a service before anything is committed: every policy that it breaks, with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from piolet.core import redact
from piolet.core.errors import Refused
from piolet.core.text import did_you_mean, plural
from piolet.service import quantities
from piolet.service.model import RunOn, Service
from piolet.service.platform import Platform
from piolet.service.policies import Violation, violations
from piolet.service.reading import ServiceFile
from piolet.service.render import rendered


@dataclass(frozen=True, slots=True)
class Breach:
    """A policy that a service breaks: what, why it matters, how to mend it, and where in which file."""

    policy: str
    key: str
    place: str
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        subject = f"{self.place} ({self.key})" if self.key else self.place
        return f"{subject} breaks {self.policy}: {self.what}\n  why:  {self.why}\n  next: {self.fix}"


def check(file: ServiceFile, platform: Platform, today: date) -> list[Breach]:
    """Return every policy that the service breaks, in the order of the policies; a thing is said once."""
    service, slurm = file.service, file.service.run_on is RunOn.SLURM
    found = list(_limits(file, platform))
    if service.project in platform.projects:
        for each in rendered(service, platform, file.contents).objects:
            broken = violations(each, service.project, platform, today, slurm=slurm)
            found += [_breach(file, violation) for violation in broken]
    return list({(breach.policy, breach.key): breach for breach in reversed(found)}.values())[::-1]


def admit(file: ServiceFile, platform: Platform, today: date) -> None:
    """Let the service pass.

    Raises:
        Refused: it breaks a policy, or its file holds what looks like a secret anywhere, comments included.
    """
    breaches = check(file, platform, today)
    if breaches:
        listed = "\n".join(map(str, breaches))
        raise Refused(f"{file.service.name} breaks {plural(len(breaches), 'rule')}\n{listed}")
    _refuse_secrets(file)


def _refuse_secrets(file: ServiceFile) -> None:
    """Policies judge what is rendered; comments and the description are kept in the file itself."""
    references = file.service.secrets.values()
    for found in redact.secrets(file.source):
        if file.source[found.start : found.end] not in references:
            line = file.source.count("\n", 0, found.start) + 1
            raise Refused(
                f"the file holds what looks like a secret ({found.kind})",
                where=f"{file.document.path}:{line}",
                remedy="git remembers for ever: put it into the site's store and name it in [secrets]",
            )


def _breach(file: ServiceFile, broken: Violation) -> Breach:
    key = _key(file, broken)
    policy = broken.policy
    return Breach(policy.id, key, _place(file, key), policy.title, policy.why, broken.fix)


def _key(file: ServiceFile, broken: Violation) -> str:
    """Return the key to point at: the entry of a table that breaks the policy, else the first one that is given."""
    for key in broken.policy.keys:
        entry = _entry(file, key, broken.element)
        if entry:
            return entry
    given = [key for key in broken.policy.keys if _is_given(file, key)]
    return given[0] if given else broken.policy.keys[0]


def _entry(file: ServiceFile, key: str, element: Any) -> str:  # noqa: ANN401 - an element of CEL
    kinds = {name: volume.kind for name, volume in file.service.storage.items()}
    if key == "env" and isinstance(element, dict):
        return f"env.{element.get('name')}"
    if key == "secrets" and isinstance(element, dict) and "secretKey" in element:
        return f"secrets.{element['secretKey']}"
    if key == "storage" and isinstance(element, dict):
        return next((f"storage.{name}" for name, kind in kinds.items() if kind == element.get("storageClassName")), "")
    if key == "files":
        return next((f"files.{path}" for path, text in file.contents.items() if text == element), "")
    if key == "command" and element in file.service.command:
        return f"command[{file.service.command.index(element)}]"
    return ""


def _is_given(file: ServiceFile, key: str) -> bool:
    value: Any = file.document.data
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _place(file: ServiceFile, key: str) -> str:
    position = file.document.position(key)
    return f"{file.document.path}:{position.line}" if position else str(file.document.path)


def _limits(file: ServiceFile, platform: Platform) -> Iterator[Breach]:
    """Yield what the project may not use; the cluster's ResourceQuota says the same, of all its services together."""
    service = file.service
    project = platform.projects.get(service.project)
    if project is None:
        fix = did_you_mean(service.project, platform.projects)
        yield _limit(file, "project", "project", f'the platform has no project "{service.project}"', fix)
        return
    if service.run_on is RunOn.SLURM:  # whose own accounts and limits say what a project may use
        return
    for key, asked, allowed, unit in _asked(service, project.cpus, project.memory, project.gpus, project.storage):
        if asked > allowed:
            what = f"{asked:g} {unit} asked for, the project has {allowed:g}"
            yield _limit(file, "quota", key, what, "ask for less, or ask the operators for a larger quota")


def _asked(
    service: Service, cpus: float, memory: str, gpus: int, storage: str
) -> Iterator[tuple[str, float, float, str]]:
    count = service.most_replicas
    resources = service.resources
    yield "resources.cpus", resources.cpus * count, cpus, "processors"
    yield "resources.memory", quantities.gibibytes(resources.memory) * count, quantities.gibibytes(memory), "GiB"
    yield "resources.gpus", resources.gpus * count, gpus, "GPUs"
    volumes = sum(quantities.gibibytes(volume.size) for volume in service.storage.values())
    yield "storage", volumes, quantities.gibibytes(storage), "GiB of storage"


def _limit(file: ServiceFile, policy: str, key: str, what: str, fix: str) -> Breach:
    return Breach(policy, key, _place(file, key), what, "what a project may use at once is agreed with it", fix)
